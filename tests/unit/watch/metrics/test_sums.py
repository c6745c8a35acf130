"""The sums as a fold: in order, bounded, the same after a restart."""

from __future__ import annotations

import msgspec
import pytest

from windlass.errors import RecordInvalid
from windlass.watch.metrics import sums
from windlass.watch.metrics.sums import BOUNDS_S, OTHER, DecisionKey, LedgerSums, OutcomeKey, OutcomeSum, Slice


def key(model: str = "m", error: str = "", status: int = 200, provider: str = "p") -> OutcomeKey:
    return OutcomeKey(provider, model, "chat", status, error)


def one(cost_nusd: int = 7) -> OutcomeSum:
    return OutcomeSum(1, 3, 4, cost_nusd, 0, 10_000, 1_000, [1] * len(BOUNDS_S), [1] * len(BOUNDS_S))


def part(until: int, *outcomes: OutcomeKey, decisions: tuple[DecisionKey, ...] = ()) -> Slice:
    return Slice(until, [(key, one()) for key in outcomes], [(key, 1) for key in decisions], [(("rating", "user"), 2)])


def test_slices_add_up() -> None:
    folded = LedgerSums()
    folded.fold(part(10, key(), key(error="stream_cut")))
    folded.fold(part(20, key(), decisions=(DecisionKey("model", "fixed@1", True, "m"),)))
    assert folded.outcomes[key()] == OutcomeSum(2, 6, 8, 14, 0, 20_000, 2_000, [2] * 15, [2] * 15)
    assert folded.outcomes[key(error="stream_cut")].calls == 1
    assert folded.decisions == {DecisionKey("model", "fixed@1", True, "m"): 1}
    assert folded.feedback == {("rating", "user"): 4}
    assert folded.cursor == 20


def test_a_slice_that_was_folded_before_is_refused() -> None:
    folded = LedgerSums()
    folded.fold(part(10, key()))
    with pytest.raises(ValueError, match="up to 5 comes after one up to 10"):
        folded.fold(part(5, key()))


def test_what_came_first_has_series_of_its_own_and_the_rest_share_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sums, "MOST_SERIES", 3)
    folded = LedgerSums()
    folded.fold(part(1, *(key(f"model-{number}") for number in range(10)), key("model-9", "stream_cut", 502)))
    folded.fold(part(2, key("model-0"), key("model-8")))
    shared = OutcomeKey("p", OTHER, OTHER, 200, "")
    assert [one.model for one in folded.outcomes] == ["model-0", "model-1", "model-2", OTHER, OTHER]
    assert folded.outcomes[key("model-0")].calls == 2
    assert folded.outcomes[shared].calls == 8
    assert folded.outcomes[shared._replace(status=502, error="stream_cut")].calls == 1
    assert sum(amounts.cost_nusd for amounts in folded.outcomes.values()) == 13 * 7, "nothing is lost"


def test_decisions_are_bounded_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sums, "MOST_SERIES", 2)
    folded = LedgerSums()
    folded.fold(part(1, decisions=tuple(DecisionKey("model", "ucb@1", True, str(number)) for number in range(9))))
    assert folded.decisions[DecisionKey("model", OTHER, True, OTHER)] == 7
    assert sum(folded.decisions.values()) == 9


def test_a_state_is_taken_up_where_it_was_left() -> None:
    folded = LedgerSums()
    folded.fold(part(10, key("b"), key("a"), decisions=(DecisionKey("model", "fixed@1", False, "ä"),)))
    again = LedgerSums.restored(folded.state())
    assert again.state() == folded.state()
    for both in (folded, again):
        both.fold(part(11, key("c"), key("a")))
    assert again.state() == folded.state()
    assert [one.model for one in again.outcomes] == ["b", "a", "c"], "who came first keeps its place"


@pytest.mark.parametrize("damage", [b"", b"\xff", b"{}", msgspec.msgpack.encode([1, 2, 3])])
def test_a_damaged_state_is_refused(damage: bytes) -> None:
    with pytest.raises(RecordInvalid, match="count again"):
        LedgerSums.restored(damage)


def test_a_state_with_other_buckets_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    state = LedgerSums().state()
    monkeypatch.setattr(sums, "BOUNDS_S", (1.0, 2.0))
    with pytest.raises(RecordInvalid, match="other buckets"):
        LedgerSums.restored(state)
