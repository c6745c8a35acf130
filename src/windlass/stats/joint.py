"""One Gaussian posterior over the weights of all arms: what is learned of one arm is learned, in part, of every other.

The model is `y = w_a.x + noise` for the arm `a` that was taken. Before the first reward the weights of feature f are
normal with variance v_f in every arm and correlation rho_f between any two arms, independent between features: the
prior covariance is blockwise `R_f v_f` with R_f 1 on the diagonal and rho_f off it (the intrinsic coregionalisation
model: Alvarez, Rosasco, Lawrence, "Kernels for Vector-Valued Functions: a Review", Foundations and Trends in Machine
Learning 4(3), 2012, section 4.2). A reward is a rank-one Kalman update of all weights (Sarkka, "Bayesian Filtering and
Smoothing", 2013, equations 4.20 and 4.21), so nothing is ever inverted:

    g = S[:, a] x       s = x.g_a + noise_variance       m += g (y - m_a.x) / s       S -= g g' / s

An arm that was never seen has, given the K others, weights `c sum_k w_k + e` with c = rho / (1 + (K - 1) rho) per
feature and e of variance v (1 - K rho c): its mean and covariance follow exactly from those of the others. The first
weight of every arm, the bias, walks at random by `walk_variance` per reward, so that a model which became worse is
believed to be so; its variance never rises above the prior one by walking.

The covariance takes up its updates `_PENDING` at a time, as one product of matrices; until then they wait as the roots
`g / sqrt(s)`, and whoever asks subtracts their squares; the biases walk at the same time. Only the blocks on and above
the diagonal are kept: symmetric whatever the rounding. A choice asks for the variances within each arm alone
(`variances`): it gets them from a copy in single precision, which is half as much to read and right to six digits;
nothing is learned from it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray

from windlass.stats.linear import VALUE_LIMIT

_FORM = 2
_PENDING = 16
_RECENT = 32
_SMALLEST = 1e-14
"""Variances that rounding has pushed below this share of the prior one are raised to it."""

Floats = NDArray[np.float64]


class StoredJoint(msgspec.Struct, frozen=True, array_like=True):
    """Raw little-endian float64 of what `JointPosterior` keeps; `keys` and `taken`: of the recent observations.

    form: of which kind this is; what an earlier version stored has none, and is refused.
    """

    prior: bytes
    observed: tuple[int, ...]
    mean: bytes
    blocks: bytes
    across: bytes
    waiting: bytes
    recent: bytes
    keys: tuple[str, ...]
    taken: tuple[int, ...]
    form: int


class Recent(msgspec.Struct, frozen=True):
    """An observation that can still be corrected exactly: how it moved the means, and what it looked at."""

    key: str
    arm: int
    x: Floats
    gain: Floats


class JointPosterior:
    """The posterior over K arms of d features each. Arms `join` and features are added (`widen`) as they come.

    noise_variance: of one reward, > 0. walk_variance: of the bias (feature 0), per reward, >= 0.
    """

    def __init__(self, noise_variance: float, walk_variance: float = 0.0) -> None:
        self.noise_variance = noise_variance
        self.walk_variance = walk_variance
        self.observed: list[int] = []
        self._variance: Floats = np.empty(0)
        self._rho: Floats = np.empty(0)
        # The last row and the last block are those of an arm that was never seen.
        self._mean: Floats = np.zeros((1, 0))
        self._blocks: Floats = np.zeros((1, 0, 0))
        # Per arm its covariance (d, ...) with the arms after it.
        self._across: list[Floats] = []
        self._common: Floats = np.empty(0)
        # Roots of updates that wait, (K + 1, d) each; the covariances above are those before them.
        self._waiting: Floats = np.zeros((_PENDING, 1, 0))
        self._waits = 0
        self._single: _Single | None = None
        self._recent: list[Recent] = []

    @property
    def arms(self) -> int:
        return len(self.observed)

    @property
    def features(self) -> int:
        return len(self._variance)

    @property
    def weights(self) -> Floats:
        """Mean weights, (K + 1, d): one row per arm, then those of an arm that was never seen."""
        return self._mean

    def predict(self, x: Floats) -> tuple[Floats, Floats]:
        """Mean and deviation of the expected reward of each arm at `x: (d,)`, and last of an unseen one: (K + 1,)."""
        count, size = self._mean.shape
        variances = self._blocks.reshape(count * size, size).dot(x).reshape(count, size).dot(x)
        if self._waits:
            variances -= np.square(self._waiting[: self._waits].dot(x)).sum(axis=0)
        return self._mean.dot(x), np.sqrt(np.maximum(variances, 0.0))

    def variances(self, x: Floats) -> NDArray[np.float32]:
        """The squares of the deviations of `predict` in single precision, by which they may be a little below 0."""
        if self._single is None:
            self._single = _Single(self._blocks, self._waiting[: self._waits])
        return self._single.variances(x)

    def widen(self, variances: Sequence[float], correlations: Sequence[float]) -> None:
        """Add features with these prior variances and correlations between arms. The first one ever is the bias."""
        old, arms, settled = self.features, self.arms, self._settled()
        self._variance = np.append(self._variance, np.asarray(variances, np.float64))
        self._rho = np.append(self._rho, np.asarray(correlations, np.float64))
        new = self.features
        across = np.zeros((arms, new, arms, new))
        across[:, :old, :, :old] = settled
        added = np.arange(old, new)
        for one in range(arms):
            for other in range(arms):
                share = 1.0 if one == other else self._rho[old:]
                across[one, added, other, added] = self._variance[old:] * share
        mean = np.zeros((arms, new))
        mean[:, :old] = self._mean[:arms]
        self._recent = [
            Recent(each.key, each.arm, _padded(each.x, new), _padded(each.gain.reshape(arms, old), new).ravel())
            for each in self._recent
        ]
        self._take(mean, across)

    def join(self) -> int:
        """One more arm, which believes what is known of an unseen one, and its index."""
        arms, size = self.arms, self.features
        old = self._settled()
        scale = self._alike(arms)
        across = np.zeros((arms + 1, size, arms + 1, size))
        across[:arms, :, :arms] = old
        across[arms, :, :arms] = scale[:, None, None] * old.sum(axis=0)
        across[:arms, :, arms] = across[arms, :, :arms].transpose(1, 2, 0)
        across[arms, :, arms] = self._blocks[arms]
        mean = self._mean.copy()
        self.observed.append(0)
        self._recent = [
            Recent(each.key, each.arm, each.x, _joined(each.gain.reshape(arms, size), scale)) for each in self._recent
        ]
        self._take(mean, across)
        return arms

    def narrow(self, kept: Sequence[int]) -> None:
        """Let go of all features but `kept` (indices, in order, 0 among them): the margin of the others, exactly."""
        across, places = self._settled(), np.asarray(kept, np.intp)
        self._variance, self._rho = self._variance[places], self._rho[places]
        self._recent = []
        self._take(self._mean[:-1, places], across[:, places][:, :, :, places])

    def leave(self, arm: int) -> None:
        """Let go of one arm, which counts as never seen from now on."""
        across = self._settled()
        stay = np.asarray([other for other in range(self.arms) if other != arm], np.intp)
        del self.observed[arm]
        self._recent = []
        self._take(self._mean[stay], across[stay][:, :, stay])

    def observe(self, arm: int, key: str, x: Floats, y: float) -> None:
        """Learn that `arm` earned `y` at `x: (d,)`. ValueError, and no change, where `y` is no usable number."""
        _check(y)
        gain, spread = self._gain(arm, x)
        missed = y - float(self._mean[arm].dot(x))
        roots = self._waiting[self._waits]
        np.divide(gain, math.sqrt(spread), out=roots[:-1].reshape(-1))
        np.multiply(self._common, np.add.reduce(roots[:-1], axis=0), out=roots[-1])
        self._mean += roots * (missed / math.sqrt(spread))
        self._waits += 1
        if self._waits == _PENDING:
            self._flush()
        elif self._single is not None:
            self._single.update(roots)
        self.observed[arm] += 1
        gain /= spread
        self._recent = [*self._recent[1 - _RECENT :], Recent(key, arm, x.copy(), gain)]

    def revise(self, arm: int, key: str, x: Floats, y: float, previous: float) -> None:
        """Replace the value `previous` of the observation `key` by `y`; what was seen of `x` stays as it is.

        Exact for the last 32 observations, and for older ones but for what the biases have walked since.
        """
        _check(y)
        _check(previous)
        place = next((i for i, each in enumerate(self._recent) if each.key == key and each.arm == arm), None)
        if place is None:
            self._move(self._gain(arm, x)[0] * ((y - previous) / self.noise_variance))
            return
        size = self.features
        moved = self._recent[place].gain.copy()
        for later in self._recent[place + 1 :]:
            start = later.arm * size
            moved -= later.gain * float(later.x @ moved[start : start + size])
        self._move(moved * (y - previous))

    def stored(self) -> StoredJoint:
        """Everything learned, bit by bit."""
        recent = [np.concatenate([each.x, each.gain]) for each in self._recent]
        return StoredJoint(
            _raw(np.stack([self._variance, self._rho])),
            tuple(self.observed),
            _raw(self._mean),
            _raw(self._blocks),
            b"".join(map(_raw, self._across)),
            _raw(self._waiting[: self._waits]),
            b"".join(map(_raw, recent)),
            tuple(each.key for each in self._recent),
            tuple(each.arm for each in self._recent),
            _FORM,
        )

    def restore(self, stored: StoredJoint) -> None:
        """Take over what `stored` returned. ValueError, and no change, where it cannot come from there."""
        if stored.form != _FORM:
            raise ValueError(f"a posterior of the form {stored.form}, this version knows {_FORM}")
        prior = _numbers(stored.prior, 2, -1)
        arms, size = len(stored.observed), prior.shape[1]
        mean = _numbers(stored.mean, arms + 1, size)
        blocks = _numbers(stored.blocks, arms + 1, size, size)
        waiting = _numbers(stored.waiting, -1, (arms + 1) * size)
        recent = _numbers(stored.recent, len(stored.keys), size * (arms + 1))
        across = _panels(stored.across, arms, size)
        right = len(waiting) < _PENDING and len(stored.taken) == len(stored.keys) <= _RECENT
        right = right and all(0 <= arm < arms for arm in stored.taken) and all(n >= 0 for n in stored.observed)
        right = right and bool((blocks == blocks.transpose(0, 2, 1)).all())
        if not (right and (np.diagonal(blocks, axis1=1, axis2=2) > 0.0).all() and (prior[0] > 0.0).all()):
            raise ValueError("a stored posterior must be symmetric, with variances above 0 and known arms")
        self._variance, self._rho, self.observed = prior[0].copy(), prior[1].copy(), list(stored.observed)
        self._mean, self._blocks, self._across = mean, blocks, across
        self._waiting, self._waits = np.zeros((_PENDING, arms + 1, size)), len(waiting)
        self._waiting[: len(waiting)] = waiting.reshape(-1, arms + 1, size)
        self._single = None
        self._common = self._alike(arms)
        self._recent = [
            Recent(key, arm, row[:size], row[size:])
            for key, arm, row in zip(stored.keys, stored.taken, recent, strict=True)
        ]

    def _gain(self, arm: int, x: Floats) -> tuple[Floats, float]:
        """S[:, arm] x of all weights, (K d,), and the variance of a reward of `arm` at `x`."""
        size = self.features
        start, end = arm * size, (arm + 1) * size
        gain = np.empty(self.arms * size)
        for before in range(arm):
            # What stands in the panel of an arm before this one.
            left = start - (before + 1) * size
            np.dot(self._across[before][:, left : left + size], x, out=gain[before * size : (before + 1) * size])
        np.dot(self._blocks[arm], x, out=gain[start:end])
        np.dot(x, self._across[arm], out=gain[end:])
        if self._waits:
            waiting = self._waiting[: self._waits]
            gain -= waiting[:, arm].dot(x).dot(waiting[:, :-1].reshape(self._waits, -1))
        return gain, max(float(gain[start:end].dot(x)), 0.0) + self.noise_variance

    def _move(self, by: Floats) -> None:
        """Add `by: (K d,)` to the mean weights."""
        arms = self.arms
        self._mean[:arms] += by.reshape(arms, self.features)
        self._mean[arms] = self._common * self._mean[:arms].sum(axis=0)

    def _walk(self, rewards: int) -> None:
        if self.walk_variance:
            arms, alike = self.arms, float(self._common[0])
            bias = self._blocks[:, 0, 0]
            left = np.maximum(self._variance[0] - bias[:arms], 0.0)
            step = np.minimum(rewards * self.walk_variance, left)
            bias[:arms] += step
            bias[arms] += alike * alike * float(step.sum())

    def _flush(self) -> None:
        """Bring what waits into the covariance, and let the biases walk as far as they do meanwhile."""
        if not self._waits:
            return
        waiting, size = self._waiting[: self._waits], self.features
        for arm, block in enumerate(self._blocks):
            roots = waiting[:, arm]
            change = roots.T.dot(roots)
            # Symmetric to the last bit, which the product alone is not for every shape.
            block -= 0.5 * (change + change.T)
        flat = waiting[:, :-1].reshape(self._waits, -1)
        for arm, panel in enumerate(self._across[:-1]):
            panel -= waiting[:, arm].T.dot(flat[:, (arm + 1) * size :])
        diagonal = np.einsum("kii->ki", self._blocks)
        np.maximum(diagonal, _SMALLEST * self._variance, out=diagonal)
        self._walk(self._waits)
        self._waits = 0
        if self._single is not None:
            self._single.take(self._blocks)

    def _settled(self) -> Floats:
        """The whole covariance, (K, d, K, d)."""
        self._flush()
        arms, size = self.arms, self.features
        whole = np.empty((arms, size, arms, size))
        for arm, panel in enumerate(self._across):
            whole[arm, :, arm] = self._blocks[arm]
            whole[arm, :, arm + 1 :] = panel.reshape(size, arms - arm - 1, size)
            whole[arm + 1 :, :, arm] = panel.T.reshape(arms - arm - 1, size, size)
        return whole

    def _take(self, mean: Floats, whole: Floats) -> None:
        """Start from these means (K or more rows, d) and this covariance (K, d, K, d) of all arms."""
        arms, size = self.arms, self.features
        alike = self._alike(arms)
        self._mean = np.empty((arms + 1, size))
        self._mean[:arms] = mean[:arms]
        self._blocks = np.empty((arms + 1, size, size))
        for arm in range(arms):
            self._blocks[arm] = whole[arm, :, arm]
        summed = whole.sum(axis=(0, 2)) if arms else np.zeros((size, size))
        self._blocks[arms] = np.outer(alike, alike) * (0.5 * (summed + summed.T))
        self._blocks[arms] += np.diag(self._variance * (1.0 - arms * self._rho * alike))
        self._across = [whole[arm, :, arm + 1 :].reshape(size, -1).copy() for arm in range(arms)]
        self._common = alike
        self._waiting, self._waits = np.zeros((_PENDING, arms + 1, size)), 0
        self._single = None
        self._move(np.zeros(arms * size))

    def _alike(self, arms: int) -> Floats:
        """(d,): what the sum of the weights of `arms` arms counts for an unseen one."""
        alike: Floats = self._rho / (1.0 + (arms - 1) * self._rho) if arms else np.zeros_like(self._rho)
        return alike


class _Single:
    """The covariance within K + 1 arms in single precision: (d, K + 1, d), so that one product reads it end to end.

    blocks: (K + 1, d, d), what it starts from. waiting: (n, K + 1, d), roots of the updates since then.
    """

    def __init__(self, blocks: Floats, waiting: Floats) -> None:
        count, size = blocks.shape[:2]
        self._blocks = np.empty((size, count, size), np.float32)
        self._change = np.empty_like(self._blocks)
        self._flat = self._blocks.reshape(size, count * size)
        self.take(blocks)
        for roots in waiting:
            self.update(roots)

    def variances(self, x: Floats) -> NDArray[np.float32]:
        single = x.astype(np.float32)
        found: NDArray[np.float32] = single.dot(self._flat).reshape(self._blocks.shape[1:]).dot(single)
        return found

    def update(self, roots: Floats) -> None:
        """Take the squares of these roots, (K + 1, d), off."""
        single = roots.astype(np.float32)
        np.einsum("ki,kj->ikj", single, single, out=self._change)
        self._blocks -= self._change

    def take(self, blocks: Floats) -> None:
        """Start again from these blocks."""
        self._blocks[:] = blocks.transpose(1, 0, 2)


def _joined(gain: Floats, scale: Floats) -> Floats:
    joined: Floats = np.concatenate([gain, (scale * gain.sum(axis=0))[None]]).ravel()
    return joined


def _padded(values: Floats, size: int) -> Floats:
    padded = np.zeros((*values.shape[:-1], size))
    padded[..., : values.shape[-1]] = values
    return padded


def _check(y: float) -> None:
    if not abs(y) <= VALUE_LIMIT:
        raise ValueError(f"value {y} is not a finite number within +-{VALUE_LIMIT:g}; observe rewards of order one")


def _panels(stored: bytes, arms: int, size: int) -> list[Floats]:
    """The covariance of each arm with those after it. ValueError for another count of numbers."""
    flat, start, panels = _numbers(stored, -1), 0, []
    if len(flat) != size * size * arms * (arms - 1) // 2:
        raise ValueError(f"the covariance between {arms} arms of {size} features in {len(flat)} numbers")
    for arm in range(arms):
        wide = (arms - arm - 1) * size
        panels.append(flat[start : start + size * wide].reshape(size, wide).copy())
        start += size * wide
    return panels


def _raw(values: Floats) -> bytes:
    return values.astype("<f8").tobytes()


def _numbers(raw: bytes, *shape: int) -> Floats:
    if -1 in shape and 0 in shape:
        shape = tuple(0 if n == -1 else n for n in shape)
    values = np.frombuffer(raw, "<f8").astype(np.float64).reshape(shape)
    if not np.isfinite(values).all():
        raise ValueError("a stored posterior must be finite")
    return values
