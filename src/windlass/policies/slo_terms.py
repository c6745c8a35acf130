"""What the guard `service` is asked to keep, and what it tells: limits of time and of errors, in the user's units."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from windlass.errors import PolicyError
from windlass.stats.features import Context

_ALLOWANCE, _COST = "allowance_nusd", "cost_nusd:"
_OF_ALLOWANCE = 0.05
_LEAST_PART = 0.01
LATENCY, QUANTILE, ERRORS = "objective:max_latency_ms", "objective:latency_quantile", "objective:max_error_percent"
"""Names of the context that say what a call must keep."""


@dataclass(frozen=True, slots=True)
class SloOptions:
    """What calls must keep, whatever else speaks for a model. Without any limit nothing is left out.

    max_latency_ms: until the first token of a stream, or until the whole of another answer; a share of
    `latency_quantile` (0.5 to 0.999) of a model's calls must keep it. max_error_percent: of its calls may fail, above 0
    and below 100. None: no limit, unless the call itself names one. half_life_minutes: after so long a call counts
    half, from 0.1 to 100,000. confidence: with which a model is known not to keep a limit before it is left out, from
    0.5 to 0.999999. least_calls: nothing is left out by fewer, from 1 to 10,000. probe_share: of the choices goes to
    what is left out, from 0.001 to 0.5; less where that would cost more than a twentieth of what may be spent.
    """

    max_latency_ms: float | None = None
    latency_quantile: float = 0.95
    max_error_percent: float | None = None
    half_life_minutes: float = 30.0
    confidence: float = 0.99
    least_calls: int = 5
    probe_share: float = 0.02

    def __post_init__(self) -> None:
        for name, value in (("max_latency_ms", self.max_latency_ms), ("max_error_percent", self.max_error_percent)):
            high = 100.0 if name == "max_error_percent" else math.inf
            if value is not None and not 0.0 < value < high:
                raise PolicyError(f"service: {name} is {value}; give a number above 0 and below {high:g}")
        for name, low, high in _RANGES:
            if not low <= getattr(self, name) <= high:
                raise PolicyError(f"service: {name} is {getattr(self, name)}; give a number from {low:g} to {high:g}")

    def limits(self, context: Context) -> SloLimits:
        """The limits that hold for a call: those that its context names, or else these."""
        latency_ms = _positive(context.get(LATENCY), self.max_latency_ms)
        quantile = _positive(context.get(QUANTILE), self.latency_quantile) or self.latency_quantile
        percent = _positive(context.get(ERRORS), self.max_error_percent)
        low, high = _RANGES[0][1:]
        return SloLimits(
            math.inf if latency_ms is None else latency_ms,
            0.0 if latency_ms is None else min(max(quantile, low), high),
            1.0 if percent is None else min(max(percent / 100.0, _LEAST_SHARE), 1.0),
        )

    def settled(self) -> tuple[float, ...]:
        """All of it as plain numbers, as a state names it; 0 for a limit that there is not."""
        limits = (self.max_latency_ms or 0.0, self.max_error_percent or 0.0)
        return tuple(map(float, (*limits, *(getattr(self, name) for name, _, _ in _RANGES))))


_RANGES: Final = (
    ("latency_quantile", 0.5, 0.999),
    ("half_life_minutes", 0.1, 100_000.0),
    ("confidence", 0.5, 0.999999),
    ("least_calls", 1, 10_000),
    ("probe_share", 0.001, 0.5),
)


_LEAST_SHARE: Final = 1e-12
"""A share that rounding would make nothing of is one that may fail all the same, by which it is divided."""


class SloLimits(NamedTuple):
    """What a call must keep. latency_ms: infinite where there is no limit; errors: the share that may fail, 1 where
    there is none."""

    latency_ms: float
    quantile: float
    errors: float


NO_LIMITS: Final = SloLimits(math.inf, 0.0, 1.0)


def affordable(share: float, context: Context, actions: Sequence[str]) -> float:
    """What of a share of the choices that goes evenly to these actions a twentieth of what may be spent pays for; a
    hundredth of it in any case, and all of it where no allowance or no cost is known."""
    allowance = context.get(_ALLOWANCE)
    costs = [context.get(_COST + action) for action in actions]
    known = [cost for cost in (allowance, *costs) if isinstance(cost, float | int) and 0.0 <= cost < math.inf]
    if len(known) <= len(costs):
        return share
    wanted, may = share * sum(known[1:]) / len(costs), _OF_ALLOWANCE * known[0]
    return share if wanted <= may else share * max(may / wanted, _LEAST_PART)


class SloReport(NamedTuple):
    """What is known of one limit of one action. measured and limit: in ms of `quantile`, or percent of calls that fail;
    quantile: 0 for errors. calls: that stand behind it, faded ones in part. kept: not known to be broken."""

    action: str
    quantile: float
    measured: float
    limit: float
    calls: float
    kept: bool

    @property
    def excess(self) -> float:
        """How many times the limit was measured."""
        return self.measured / self.limit

    @property
    def words(self) -> str:
        """`p95 4.2 s, limit 3 s, over 120 calls`."""
        return f"{self.seen}, limit {self._told(self.limit)}, over {self.calls:.0f} calls"

    @property
    def seen(self) -> str:
        """What was measured: `p95 4.2 s`, or `errors 7.1 %`."""
        return f"{self._what} {self._told(float(f'{self.measured:.2g}'))}"

    @property
    def aim(self) -> str:
        """What is asked for: `p95 within 3 s`, or `errors within 2 %`."""
        return f"{self._what} within {self._told(self.limit)}"

    @property
    def _what(self) -> str:
        return f"p{100.0 * self.quantile:.4g}" if self.quantile else "errors"

    def _told(self, number: float) -> str:
        return _time(number) if self.quantile else f"{number:g} %"


def _positive(value: object, otherwise: float | None) -> float | None:
    """A limit that a call names; `otherwise` where it names none, or no number above 0."""
    return float(value) if isinstance(value, float | int) and 0.0 < value < math.inf else otherwise


def _time(ms: float) -> str:
    return f"{ms / 1000.0:g} s" if ms >= 1000.0 else f"{ms:g} ms"
