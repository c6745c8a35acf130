"""A search by words looks at so many records a page, and goes on from there until nothing is left."""

from __future__ import annotations

import pytest

from windlass.ledger.check import AT, A, B, call, rating
from windlass.ledger.ledger import CallFilter, FeedbackFilter
from windlass.ledger.memory import MemoryLedger
from windlass.server import lookback


@pytest.fixture
async def ledger(monkeypatch: pytest.MonkeyPatch) -> MemoryLedger:
    """Ten calls; `needle` is the user of the oldest two and of the newest, and stands in their feedback."""
    monkeypatch.setattr(lookback, "SEARCHED", 3)
    made = MemoryLedger()
    for number in range(10):
        user = "needle" if number in (0, 1, 9) else "hay"
        said = rating(f"feedback_{number}", f"call_{number}", comment=user)
        await made.append(
            call(f"call_{number}", user=user), said, call(f"call_{number}", B), rating("feedback_b", "c", B)
        )
    return made


def test_it_goes_on_until_all_is_looked_at(ledger: MemoryLedger) -> None:
    found: list[str] = []
    stops: list[str] = []
    before = ""
    while True:
        page, before = lookback.calls(ledger, A, CallFilter(text="needle"), limit=50, before=before)
        found += [trace.call.id for trace in page]
        if not before:
            break
        stops.append(before)
    assert found == ["call_9", "call_1", "call_0"]
    assert stops == ["call_7", "call_4", "call_1"]


def test_feedback_goes_on_in_the_same_way(ledger: MemoryLedger) -> None:
    page, further = lookback.feedback(ledger, A, FeedbackFilter(text="needle"), limit=50)
    assert ([said.id for said in page], further) == (["feedback_9"], "feedback_7")
    page, further = lookback.feedback(ledger, A, FeedbackFilter(text="needle"), limit=50, before="feedback_3")
    assert ([said.id for said in page], further) == (["feedback_1", "feedback_0"], "feedback_0")
    assert lookback.feedback(ledger, A, FeedbackFilter(text="needle"), limit=50, before=further) == ((), "")


def test_a_full_page_goes_on_from_its_last_call(ledger: MemoryLedger) -> None:
    page, further = lookback.calls(ledger, A, CallFilter(text="call"), limit=2)
    assert ([trace.call.id for trace in page], further) == (["call_9", "call_8"], "")


def test_only_calls_of_a_named_user_are_counted(ledger: MemoryLedger) -> None:
    page, further = lookback.calls(ledger, A, CallFilter(text="call_0", user="needle"), limit=50)
    assert ([trace.call.id for trace in page], further) == (["call_0"], "call_0")
    assert lookback.feedback(ledger, A, FeedbackFilter(text="x", target="call_5"), limit=50) == ((), "")


def test_without_words_all_is_looked_at(ledger: MemoryLedger) -> None:
    page, further = lookback.calls(ledger, A, CallFilter(user="needle"), limit=50)
    assert ([trace.call.id for trace in page], further) == (["call_9", "call_1", "call_0"], "")


def test_nothing_further_is_offered_from_before_the_time_asked_for(ledger: MemoryLedger) -> None:
    def further(since: float) -> str:
        return lookback.calls(ledger, A, CallFilter(text="nowhere", since=since), limit=50)[1]

    assert further(AT) == "call_7"
    assert further(AT + lookback.LATE_S) == "call_7", "a record may come late"
    assert further(AT + lookback.LATE_S + 1) == ""
