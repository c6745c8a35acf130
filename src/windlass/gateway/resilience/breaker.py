"""Circuit breakers: a model of a provider that keeps failing is left alone for a while, then tried with one call.

closed -> open after `failures` failures that no success has forgiven; open -> half-open when its time is over;
half-open -> closed when the one probe is answered, -> open for twice as long when it fails. Source: M. Nygard,
"Release It!", 2nd ed., 5.2 "Circuit Breaker". Nothing here waits or looks at a clock: the time comes as `now`.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable
from enum import Enum
from random import Random
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from windlass.errors import ErrorCategory

MOST_BREAKERS = 4096
"""Models with a breaker at once; beyond it the one that changed longest ago is forgotten."""
Key = tuple[str, str]
"""Provider and model."""
State = Literal["closed", "open", "half_open"]


class BreakerOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """When a model is left alone, and for how long.

    failures: so many in `window_s` that no success has forgiven (one success forgives one failure, so a model opens
        its breaker only while it fails more often than it answers). 0: breakers are off.
    open_s: how long it is left alone at first; doubled with every failed probe, up to `open_cap_s`. The time is drawn
        from its upper half, so that several workers do not probe together.
    """

    failures: Annotated[int, Meta(ge=0, le=1000)] = 5
    window_s: Annotated[float, Meta(gt=0)] = 60.0
    open_s: Annotated[float, Meta(gt=0)] = 5.0
    open_cap_s: Annotated[float, Meta(gt=0)] = 300.0

    def __post_init__(self) -> None:
        if self.open_cap_s < self.open_s:
            raise ValueError(f"open_cap_s {self.open_cap_s} is less than open_s {self.open_s}; raise it")


class BreakerState(msgspec.Struct, frozen=True, kw_only=True):
    """One breaker as pages show it; times are UTC seconds, `opens_until` is 0 unless it is open.

    failures: those that count now; trips: openings in a row. last: the category that counted last.
    """

    provider: str
    model: str
    state: State
    since: float
    failures: int
    trips: int
    last: str
    opens_until: float


class Pass(Enum):
    """What a breaker says to a call."""

    FREE = "free"
    PROBE = "probe"
    REFUSED = "refused"


class Breaker:
    """One breaker. Every PROBE that `admit` gives must be ended by `answered`, `failed` or `left`."""

    __slots__ = ("_failed_at", "_options", "_probing", "_rng", "last", "since", "state", "trips", "until")

    def __init__(self, options: BreakerOptions, rng: Random, now: float):
        self._options = options
        self._rng = rng
        self._failed_at: deque[float] = deque(maxlen=options.failures)
        self._probing = False
        self.state: State = "closed"
        self.since = now
        self.until = 0.0
        self.trips = 0
        self.last: ErrorCategory | None = None

    @property
    def idle(self) -> bool:
        """Closed, and nothing held against the model: it need not be kept."""
        return self.state == "closed" and not self._failed_at

    def failures(self, now: float) -> int:
        """Failures that count at `now`."""
        while self._failed_at and self._failed_at[0] <= now - self._options.window_s:
            self._failed_at.popleft()
        return len(self._failed_at)

    def admit(self, now: float) -> Pass:
        """May a call be sent now?"""
        if self.state == "closed":
            return Pass.FREE
        if self.state == "open" and now >= self.until:
            self._move("half_open", now)
        if self.state == "open" or self._probing:
            return Pass.REFUSED
        self._probing = True
        return Pass.PROBE

    def answered(self, admitted: Pass, now: float) -> None:
        """The model answered: its probe closes the breaker, any other call forgives a failure."""
        if admitted is Pass.PROBE:
            self._probing = False
            self._failed_at.clear()
            self.trips = 0
            self._move("closed", now)
        elif self.state == "closed" and self.failures(now):
            self._failed_at.popleft()

    def failed(self, admitted: Pass, category: ErrorCategory, now: float) -> None:
        """The model failed by its own fault. What was sent before the breaker opened changes nothing any more."""
        if admitted is Pass.PROBE:
            self._probing = False
            self.last = category
            self._open(now)
        elif self.state == "closed":
            self.last = category
            self.failures(now)
            self._failed_at.append(now)
            if len(self._failed_at) >= self._options.failures:
                self._open(now)

    def retune(self, options: BreakerOptions) -> None:
        """Go on by other options; what counts against the model still does."""
        self._options = options
        self._failed_at = deque(self._failed_at, maxlen=options.failures)

    def left(self, admitted: Pass) -> None:
        """The call ended without telling anything about the model; the next one may probe."""
        if admitted is Pass.PROBE:
            self._probing = False

    def _open(self, now: float) -> None:
        options = self._options
        longest = min(options.open_cap_s, options.open_s * 2.0 ** min(self.trips, 64))
        self.until = now + self._rng.uniform(longest / 2, longest)
        self.trips += 1
        self._move("open", now)

    def _move(self, state: State, now: float) -> None:
        self.state = state
        self.since = now


class Breakers:
    """The breakers of all models. A model that has not failed lately has none.

    monotonic: seconds that never go back, for all intervals. clock: UTC seconds, for what is shown.
    """

    def __init__(
        self, options: BreakerOptions, *, monotonic: Callable[[], float], clock: Callable[[], float], rng: Random
    ):
        self.known: OrderedDict[Key, Breaker] = OrderedDict()
        self._options = options
        self._monotonic = monotonic
        self._clock = clock
        self._rng = rng

    def adopt(self, before: Breakers, same: Callable[[Key], bool]) -> None:
        """Go on with the breakers of others, for the models that are still the `same`. Probes of calls under way end
        on both, as they are the same breakers."""
        if not self._options.failures:
            return
        for key, breaker in before.known.items():
            if same(key):
                breaker.retune(self._options)
                self.known[key] = breaker

    def admit(self, key: Key) -> Pass:
        """May a call be sent to this model now?"""
        breaker = self.known.get(key)
        return Pass.FREE if breaker is None else breaker.admit(self._monotonic())

    def answered(self, key: Key, admitted: Pass) -> None:
        """The call that was `admitted` was answered, if only with a refusal that is not the model's fault."""
        breaker = self.known.get(key)
        if breaker is not None:
            breaker.answered(admitted, self._monotonic())
            if breaker.idle:
                del self.known[key]

    def failed(self, key: Key, admitted: Pass, category: ErrorCategory) -> None:
        """The call that was `admitted` failed. Only categories that count against a breaker do."""
        if not category.handling.counts_against_breaker or not self._options.failures:
            return self.left(key, admitted)
        now = self._monotonic()
        breaker = self.known.get(key)
        if breaker is None:
            breaker = self.known[key] = Breaker(self._options, self._rng, now)
        self.known.move_to_end(key)
        breaker.failed(admitted, category, now)
        return self._bound(now)

    def left(self, key: Key, admitted: Pass) -> None:
        """The call that was `admitted` ended without telling anything: cancelled, or the fault of neither."""
        breaker = self.known.get(key)
        if breaker is not None:
            breaker.left(admitted)

    def opens_in_s(self, key: Key) -> float:
        """How long this model is left alone from now; 0 where it is not."""
        breaker = self.known.get(key)
        waits = breaker is not None and breaker.state == "open"
        return max(0.0, breaker.until - self._monotonic()) if breaker is not None and waits else 0.0

    def state(self) -> tuple[BreakerState, ...]:
        """Every breaker that holds something against its model, by name."""
        now, at = self._monotonic(), self._clock()
        self._forget(now)
        return tuple(_shown(key, self.known[key], now, at) for key in sorted(self.known))

    def _bound(self, now: float) -> None:
        if len(self.known) > MOST_BREAKERS:
            self._forget(now)
        while len(self.known) > MOST_BREAKERS:
            self.known.popitem(last=False)

    def _forget(self, now: float) -> None:
        """Let go of those whose failures are all too long ago."""
        for key in [key for key, breaker in self.known.items() if not breaker.failures(now) and breaker.idle]:
            del self.known[key]


def _shown(key: Key, breaker: Breaker, now: float, at: float) -> BreakerState:
    over = breaker.state == "open" and now >= breaker.until
    state: State = "half_open" if over else breaker.state
    return BreakerState(
        provider=key[0],
        model=key[1],
        state=state,
        since=at - (now - (breaker.until if over else breaker.since)),
        failures=breaker.failures(now),
        trips=breaker.trips,
        last=breaker.last.value if breaker.last is not None else "",
        opens_until=at + breaker.until - now if state == "open" else 0.0,
    )
