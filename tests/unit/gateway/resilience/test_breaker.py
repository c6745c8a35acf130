"""Circuit breakers: when they open, that only one probe goes through, and that they forget."""

from __future__ import annotations

import random
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from windlass.errors import ErrorCategory
from windlass.gateway.resilience import breaker as module
from windlass.gateway.resilience.breaker import BreakerOptions, Breakers, BreakerState, Pass
from windlass.testing import Clock

REFUSED = ErrorCategory.CONNECT_REFUSED
KEY = ("up", "m")
UTC = 1_800_000_000.0


class Bench:
    """Breakers on clocks that the test moves; the two clocks are far apart, and either may be set alone."""

    def __init__(self, **options: Any):
        self.monotonic, self.clock = Clock(1_000.0), Clock(UTC)
        self.breakers = Breakers(
            BreakerOptions(**options), monotonic=self.monotonic, clock=self.clock, rng=random.Random(3)
        )

    def forward(self, seconds: float) -> None:
        self.monotonic.forward(seconds)
        self.clock.forward(seconds)

    def fail(self, times: int = 1, category: ErrorCategory = REFUSED) -> None:
        for _ in range(times):
            self.breakers.failed(KEY, self.breakers.admit(KEY), category)

    def answer(self, times: int = 1) -> None:
        for _ in range(times):
            self.breakers.answered(KEY, self.breakers.admit(KEY))

    @property
    def shown(self) -> BreakerState:
        (found,) = self.breakers.state()
        return found


def test_a_model_that_has_not_failed_has_no_breaker() -> None:
    bench = Bench()
    bench.answer(3)
    assert (bench.breakers.admit(KEY), bench.breakers.state(), len(bench.breakers.known)) == (Pass.FREE, (), 0)


def test_it_opens_after_so_many_failures_and_tells_since_when_and_why() -> None:
    bench = Bench(failures=3, open_s=10.0)
    bench.fail(2)
    assert bench.shown.state == "closed"
    bench.forward(5)
    bench.fail(category=ErrorCategory.STREAM_CUT)
    assert bench.breakers.admit(KEY) is Pass.REFUSED
    shown = bench.shown
    assert (shown.provider, shown.model, shown.state, shown.trips, shown.last) == ("up", "m", "open", 1, "stream_cut")
    assert shown.since == UTC + 5
    assert 5 <= shown.opens_until - (UTC + 5) <= 10
    assert bench.breakers.opens_in_s(KEY) == pytest.approx(shown.opens_until - (UTC + 5))


def test_failures_that_are_too_long_ago_do_not_count() -> None:
    bench = Bench(failures=3, window_s=60.0)
    for _ in range(10):
        bench.fail()
        bench.forward(30.0)
    assert bench.breakers.admit(KEY) is Pass.FREE
    bench.forward(100.0)
    assert bench.breakers.state() == ()
    assert not bench.breakers.known, "nothing is kept of it"


def test_a_success_forgives_one_failure_so_that_alternating_never_opens() -> None:
    bench = Bench(failures=3)
    for _ in range(100):
        bench.fail()
        bench.answer()
    assert bench.breakers.admit(KEY) is Pass.FREE
    for _ in range(100):
        bench.fail(2)
        bench.answer()
        if bench.breakers.admit(KEY) is Pass.REFUSED:
            return
    raise AssertionError("two failures for one answer never opened it")


@pytest.mark.parametrize("category", [one for one in ErrorCategory if not one.handling.counts_against_breaker])
def test_what_is_not_the_providers_fault_never_opens_it(category: ErrorCategory) -> None:
    bench = Bench(failures=1)
    bench.fail(5, category)
    assert bench.breakers.admit(KEY) is Pass.FREE


def test_breakers_can_be_switched_off() -> None:
    bench = Bench(failures=0)
    bench.fail(1_000)
    assert bench.breakers.admit(KEY) is Pass.FREE
    assert bench.breakers.state() == ()


def _opened(**options: Any) -> Bench:
    bench = Bench(**{"failures": 1, "open_s": 10.0} | options)
    bench.fail()
    return bench


def test_when_its_time_is_over_one_probe_goes_through_and_its_answer_closes_it() -> None:
    bench = _opened()
    bench.forward(10.0)
    assert bench.shown.state == "half_open"
    assert bench.breakers.admit(KEY) is Pass.PROBE
    assert [bench.breakers.admit(KEY) for _ in range(3)] == [Pass.REFUSED] * 3
    bench.breakers.answered(KEY, Pass.PROBE)
    assert bench.breakers.admit(KEY) is Pass.FREE
    assert bench.breakers.state() == ()


def test_a_failed_probe_opens_it_for_twice_as_long_up_to_the_cap() -> None:
    bench = _opened(open_cap_s=60.0)
    spans = []
    for trip in range(2, 8):
        bench.forward(bench.breakers.opens_in_s(KEY))
        assert bench.breakers.admit(KEY) is Pass.PROBE
        bench.breakers.failed(KEY, Pass.PROBE, ErrorCategory.DNS_FAILED)
        assert (bench.shown.trips, bench.shown.last) == (trip, "dns_failed")
        spans.append(bench.breakers.opens_in_s(KEY))
    for span, longest in zip(spans, [20, 40, 60, 60, 60, 60], strict=True):
        assert longest / 2 <= span <= longest
    assert len(set(spans)) == len(spans), "drawn, not fixed"


def test_a_probe_that_was_left_makes_room_for_the_next() -> None:
    bench = _opened()
    bench.forward(10.0)
    assert bench.breakers.admit(KEY) is Pass.PROBE
    bench.breakers.left(KEY, Pass.PROBE)
    assert bench.breakers.admit(KEY) is Pass.PROBE


def test_what_was_sent_before_it_opened_changes_nothing() -> None:
    bench = _opened()
    until = bench.shown.opens_until
    bench.breakers.answered(KEY, Pass.FREE)
    bench.breakers.failed(KEY, Pass.FREE, REFUSED)
    assert (bench.shown.state, bench.shown.opens_until, bench.shown.trips) == ("open", until, 1)
    bench.forward(10.0)
    assert bench.breakers.admit(KEY) is Pass.PROBE
    bench.breakers.answered(KEY, Pass.FREE)
    bench.breakers.left(KEY, Pass.FREE)
    assert bench.breakers.admit(KEY) is Pass.REFUSED, "the probe is still out"


def test_a_clock_that_is_set_moves_what_is_shown_and_nothing_else() -> None:
    bench = _opened()
    wait_s = bench.breakers.opens_in_s(KEY)
    bench.clock.forward(-86_400.0)
    assert bench.breakers.opens_in_s(KEY) == wait_s
    assert bench.shown.opens_until == pytest.approx(UTC - 86_400.0 + wait_s)
    bench.monotonic.forward(wait_s)
    assert bench.breakers.admit(KEY) is Pass.PROBE


def test_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_BREAKERS", 100)
    bench = Bench(failures=3)
    for number in range(1_000):
        bench.breakers.failed(("up", f"m{number}"), Pass.FREE, REFUSED)
    assert len(bench.breakers.known) == 100
    assert ("up", "m999") in bench.breakers.known
    # A probe whose breaker was forgotten meanwhile does no harm.
    bench.breakers.answered(("up", "m0"), Pass.PROBE)
    bench.breakers.left(("up", "m0"), Pass.PROBE)
    assert len(bench.breakers.known) == 100


@pytest.mark.parametrize(
    "wrong",
    [
        {"failures": -1},
        {"failures": 1.5},
        {"window_s": 0},
        {"open_s": 0},
        {"open_s": float("nan")},
        {"open_s": 10, "open_cap_s": 5},
        {"opens": 1},
    ],
)
def test_options_that_make_no_sense_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert(wrong, BreakerOptions)


EVENTS = st.lists(
    st.one_of(
        st.tuples(st.just("ask")),
        st.tuples(st.just("pass"), st.floats(0, 100)),
        st.tuples(st.sampled_from(["answered", "failed", "left"]), st.integers(0, 50)),
    ),
    max_size=80,
)


@given(events=EVENTS, failures=st.integers(1, 4))
@settings(max_examples=300)
def test_never_are_two_probes_under_way(events: list[tuple[Any, ...]], failures: int) -> None:
    """Whatever order calls begin and end in, and however long they take."""
    bench = Bench(failures=failures, open_s=10.0, open_cap_s=40.0)
    under_way: list[Pass] = []
    for event in events:
        match event:
            case ("ask",):
                admitted = bench.breakers.admit(KEY)
                if admitted is not Pass.REFUSED:
                    under_way.append(admitted)
            case ("pass", seconds):
                bench.forward(seconds)
            case (how, which) if under_way:
                ended = under_way.pop(which % len(under_way))
                match how:
                    case "answered":
                        bench.breakers.answered(KEY, ended)
                    case "failed":
                        bench.breakers.failed(KEY, ended, REFUSED)
                    case _:
                        bench.breakers.left(KEY, ended)
        assert under_way.count(Pass.PROBE) <= 1
        for shown in bench.breakers.state():
            assert shown.failures <= failures
            assert (shown.opens_until > 0) == (shown.state == "open")
    # However it went, it always comes back: after its time one call gets through.
    for ended in under_way:
        bench.breakers.left(KEY, ended)
    bench.forward(40.0)
    assert bench.breakers.admit(KEY) is not Pass.REFUSED
