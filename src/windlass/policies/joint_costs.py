"""What a call of each action costs: the price list or what was learned, corrected by what was really spent."""

from __future__ import annotations

import math

import msgspec
import numpy as np
from numpy.typing import NDArray

from windlass.stats.joint import JointPosterior, StoredJoint

_USUAL_NUSD = 1e5
"""What a call costs where neither the price list nor experience says anything: a hundredth of a cent."""
_NOISE = 0.3
_WALK = 1e-4
_BIAS_VARIANCE, _NUMBER_VARIANCE = 4.0, 0.1
_BIAS_RHO, _NUMBER_RHO = 0.5, 0.9
_NUMBERS = 8
_KEPT = 0.98
_DOUBT = 4.0
LARGEST_LOG = 30.0

Floats = NDArray[np.float64]


class StoredCosts(msgspec.Struct, frozen=True, array_like=True):
    """The regression, and per action what was spent, what had been expected, and the weight of the calls; raw."""

    model: StoredJoint
    sums: bytes


class Costs:
    """Predicted nano-dollars of one call, per arm and context.

    The logarithm of (what was spent / what the price list says) is linear in a few numbers of the context, like the
    reward with one posterior over all arms. The mean of what was spent lies above the exponential of a mean logarithm,
    so each arm has a factor beside it: spent over predicted, of its last calls (half of it after 34).
    """

    def __init__(self) -> None:
        self._model = JointPosterior(_NOISE, _WALK)
        self._model.widen([_BIAS_VARIANCE], [_BIAS_RHO])
        self._sums: Floats = np.zeros((3, 0))
        self._factors: Floats = np.ones(1)

    def join(self) -> None:
        self._model.join()
        self._sums = np.concatenate([self._sums, np.zeros((3, 1))], axis=1)
        self._factors_anew()

    def leave(self, arm: int) -> None:
        self._model.leave(arm)
        self._sums = np.delete(self._sums, arm, axis=1)
        self._factors_anew()

    def select(self, numbers: NDArray[np.intp]) -> NDArray[np.intp]:
        """Which positions of the features of a context count here; the model grows to them."""
        chosen = np.concatenate([np.zeros(1, np.intp), numbers[:_NUMBERS]])
        more = len(chosen) - self._model.features
        if more > 0:
            self._model.widen([_NUMBER_VARIANCE] * more, [_NUMBER_RHO] * more)
        return chosen

    def predict(self, z: Floats) -> Floats:
        """(K + 1, ...): factors on the price list at features `z: (c,)` or `(c, n)`; last that of an unseen arm."""
        logs: Floats = self._model.weights.dot(z)
        np.minimum(logs, LARGEST_LOG, out=logs)
        np.exp(logs, out=logs)
        logs *= self._factors if z.ndim == 1 else self._factors[:, None]
        return logs

    def lines(self) -> Floats:
        """(K + 1, c): what the features are multiplied with for the logarithms of `predict`, up to `LARGEST_LOG`."""
        lines = self._model.weights.copy()
        lines[:, 0] += np.log(self._factors)
        return lines

    def learn(self, arm: int, key: str, z: Floats, listed: float, cost_nusd: float) -> float:
        """A call of `arm` cost so much; what had been predicted of it without the arm's factor."""
        base = start(listed) * math.exp(min(float(self._model.weights[arm] @ z), LARGEST_LOG))
        self._model.observe(arm, key, z, _log(listed, cost_nusd))
        spent, said, weight = self._sums[:, arm].tolist()
        self._sums[:, arm] = _KEPT * spent + cost_nusd, _KEPT * said + base, _KEPT * weight + 1.0
        self._factor(arm)
        return base

    def correct(self, arm: int, key: str, z: Floats, listed: float, costs_nusd: tuple[float, float], age: int) -> None:
        """It cost the first of `costs_nusd` instead of the second; `age` calls of the arm came since, -1: unknown."""
        now, before = costs_nusd
        self._model.revise(arm, key, z, _log(listed, now), _log(listed, before))
        if age >= 0:
            self._sums[0, arm] = max(self._sums[0, arm] + (now - before) * _KEPT**age, 0.0)
            self._factor(arm)

    def calls(self, arm: int) -> int:
        """How many calls of `arm` were told."""
        return self._model.observed[arm]

    def stored(self) -> StoredCosts:
        return StoredCosts(self._model.stored(), self._sums.astype("<f8").tobytes())

    def restore(self, stored: StoredCosts) -> None:
        """Take over what `stored` returned, bit by bit. ValueError where it cannot come from there."""
        self._model.restore(stored.model)
        sums = np.frombuffer(stored.sums, "<f8").astype(np.float64).reshape(3, self._model.arms)
        if not (np.isfinite(sums).all() and (sums >= 0.0).all()):
            raise ValueError("stored costs must be finite numbers of at least 0")
        self._sums = sums
        self._factors_anew()

    @property
    def arms(self) -> int:
        return self._model.arms

    @property
    def features(self) -> int:
        return self._model.features

    def _factors_anew(self) -> None:
        self._factors = np.ones(self._model.arms + 1)
        for arm in range(self._model.arms):
            self._factor(arm)

    def _factor(self, arm: int) -> None:
        spent, said, weight = self._sums[:, arm].tolist()
        doubt = _DOUBT * said / max(weight, 1.0) if weight > 0.0 else 1.0
        self._factors[arm] = (spent + doubt) / (said + doubt)


def start(listed: float) -> float:
    """What a prediction starts from: the price list (at least 1 nano-dollar), or what calls usually cost (NaN)."""
    return _USUAL_NUSD if math.isnan(listed) else max(listed, 1.0)


def _log(listed: float, cost_nusd: float) -> float:
    return math.log(max(cost_nusd, 1.0) / start(listed))
