"""Counts of calls that fade: how long they took, and how many failed; after each half-life a call counts half.

Weights are taken relative to a fixed time and grow forwards, so that counting a call touches one number, and one that
is told late or corrected gets the weight that it would have had. Source: Cormode, Shkapenyuk, Srivastava, Xu, "Forward
Decay: A Practical Time Decay Model for Streaming Systems", ICDE 2009, section 3. Times are counted in logarithmic
buckets, two percent wide, of which `late` and `quantile` are read.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Final

_LOG_WIDTH: Final = math.log(1.02)
_SHORTEST_MS, _LONGEST_MS = 0.1, 1e8
_FURTHEST: Final = 32
"""After so many half-lives the time that weights are relative to is moved up."""
_NOTHING: Final = 1e-6
"""What is left of a bucket below this weight, at that time, is let go."""
_NEVER: Final = 400.0
_ROUNDING: Final = 1e-9
_LIMITS: Final = 16
"""So many limits are looked up without adding up again."""


class DecayingCalls:
    """The calls of one action. half_life_s > 0; at: the newest of them, seconds, -inf before the first.

    origin: the time that the weights in `times` (bucket -> weight), `told` and `failed` are relative to.
    """

    def __init__(self, half_life_s: float) -> None:
        self.half_life_s = half_life_s
        self.at = -math.inf
        self.origin = 0.0
        self.told = 0.0
        self.failed = 0.0
        self.times: dict[int, float] = {}
        self._late: dict[float, float] = {}
        self._timed: float | None = None

    def add(self, at: float, took_ms: float | None, *, failed: bool) -> None:
        """Count a call of the time `at` (seconds). took_ms: None where its time says nothing.

        ValueError, and no change, where a number is not finite or a time negative.
        """
        self._check(at, took_ms)
        if self.at == -math.inf:
            self.origin = at
        if at > self.at:
            self.at = at
            self._move_up()
        self._count(at, took_ms, failed, 1.0)

    def revise(self, at: float, now: tuple[float | None, bool], before: tuple[float | None, bool]) -> None:
        """Replace what was counted of the call of `at`: (took_ms, failed), what holds now and what was told before.

        One that is newer than the newest was not counted here, and changes nothing. ValueError, and no change, as
        `add`.
        """
        self._check(at, now[0])
        self._check(at, before[0])
        if at > self.at:
            return
        self._count(at, *before, -1.0)
        self._count(at, *now, 1.0)

    def calls(self, now: float) -> float:
        """How many calls were told, each with its weight by `now`."""
        return self.told * self._weight(now)

    def failures(self, now: float) -> float:
        """How many of `calls` failed."""
        return self.failed * self._weight(now)

    def timed(self, now: float) -> float:
        """Of how many the time is known."""
        return self._timed_sum() * self._weight(now)

    def late(self, limit_ms: float, now: float) -> float:
        """How many of those took longer than `limit_ms` (up to 2 % more counts as in time)."""
        return self._late_sum(limit_ms) * self._weight(now)

    def often_late(self, limit_ms: float, allowed: float) -> bool:
        """Whether a larger share than `allowed` was late, be it by chance."""
        return self._late_sum(limit_ms) > allowed * self._timed_sum()

    def often_failed(self, allowed: float) -> bool:
        """Whether a larger share than `allowed` failed, be it by chance."""
        return self.failed > allowed * self.told

    def quantile(self, q: float) -> float | None:
        """The time in ms that a share `q` of the calls did not exceed, to one percent; None without any."""
        total = math.fsum(self.times.values())
        if total <= 0.0:
            return None
        wanted, seen, bucket = q * total, 0.0, 0
        for bucket in sorted(self.times):
            seen += self.times[bucket]
            if seen >= wanted:
                break
        return math.exp((bucket - 0.5) * _LOG_WIDTH)

    def restored(self, at: float, origin: float, told: float, failed: float, times: Mapping[int, float]) -> None:
        """Take over stored numbers. ValueError where they cannot be such counts."""
        numbers = (at, origin, told, failed, *times.values())
        if not all(map(math.isfinite, numbers)) or min(told, failed, *times.values(), 0.0) < 0.0 or at < origin:
            raise ValueError("counts of calls must be finite numbers of at least 0, the newest not before their origin")
        if not all(_bucket(_SHORTEST_MS) <= bucket <= _bucket(_LONGEST_MS) for bucket in times):
            raise ValueError(f"buckets {min(times)} to {max(times)} are of no times that are told apart")
        self.at, self.origin, self.told, self.failed, self.times = at, origin, told, failed, dict(times)
        self._late, self._timed = {}, None

    def _timed_sum(self) -> float:
        if self._timed is None:
            self._timed = math.fsum(self.times.values())
        return self._timed

    def _late_sum(self, limit_ms: float) -> float:
        found = self._late.get(limit_ms)
        if found is None:
            edge = _bucket(limit_ms)
            found = math.fsum([weight for bucket, weight in self.times.items() if bucket > edge])
            if len(self._late) >= _LIMITS:
                self._late.clear()
            self._late[limit_ms] = found
        return found

    def _count(self, at: float, took_ms: float | None, failed: bool, sign: float) -> None:
        weight = sign * _half(self.half_life_s, at - self.origin)
        self.told = max(self.told + weight, 0.0)
        if failed:
            self.failed = max(self.failed + weight, 0.0)
        if took_ms is not None:
            bucket = _bucket(took_ms)
            left = self.times.pop(bucket, 0.0) + weight
            if left > _ROUNDING * abs(weight):
                self.times[bucket] = left
        self._late, self._timed = {}, None

    def _move_up(self) -> None:
        """Take weights relative to a later time where they have grown; by whole half-lives, which is exact."""
        steps = math.floor((self.at - self.origin) / self.half_life_s)
        if steps < _FURTHEST:
            return
        self.origin += steps * self.half_life_s
        part = 0.5 ** min(steps, _NEVER)
        self.told, self.failed = self.told * part, self.failed * part
        faded = {bucket: weight * part for bucket, weight in self.times.items()}
        self.times = {bucket: weight for bucket, weight in faded.items() if weight > _NOTHING}

    def _weight(self, now: float) -> float:
        """What a weight of one at the origin has become by `now`."""
        return _half(self.half_life_s, self.origin - now)

    def _check(self, at: float, took_ms: float | None) -> None:
        if not math.isfinite(at) or not (took_ms is None or 0.0 <= took_ms < math.inf):
            raise ValueError(f"a call at {at} s that took {took_ms} ms; tell finite numbers, a time of at least 0")


def evidence(part: float, whole: float, allowed: float) -> float:
    """How strongly `part` of `whole` weighted calls speaks against a share of at most `allowed`, in nats; 0 where the
    share that was seen is not above it.

    Where each call is one of the part with a chance of at most `allowed`, whatever was before it, the chance of as many
    is at most `exp(-evidence)`. With weights w from 0 to 1 `E exp(l w X) <= (E exp(l X)) ** w`, so that the bound of
    Hoeffding, "Probability Inequalities for Sums of Bounded Random Variables", JASA 1963, theorem 1, equation 2.1,
    holds with the sum of the weights in the place of the number of calls.
    """
    if whole <= 0.0 or part <= allowed * whole:
        return 0.0
    share = min(part / whole, 1.0)
    found = share * math.log(share / allowed)
    if share < 1.0:
        found += (1.0 - share) * math.log((1.0 - share) / (1.0 - allowed))
    return whole * max(found, 0.0)


def _bucket(took_ms: float) -> int:
    """The bucket of a time: number i holds those above 1.02 ** (i - 1) ms, up to 1.02 ** i."""
    within = min(max(took_ms, _SHORTEST_MS), _LONGEST_MS)
    return math.ceil(math.log(within) / _LOG_WIDTH)


def _half(half_life_s: float, seconds: float) -> float:
    """2 ** (seconds / half-life), 0 where that is too little to count."""
    steps = seconds / half_life_s
    return float(2.0 ** min(steps, _NEVER)) if steps > -_NEVER else 0.0
