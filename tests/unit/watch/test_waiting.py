"""What waits to be written: each under the row that counts it, whoever shares its form, and none twice."""

from __future__ import annotations

import msgspec

from windlass.ledger.check import call, decision, outcome, rating
from windlass.ledger.folded import Folded
from windlass.ledger.folding import narrowed
from windlass.ledger.ledger import Entry
from windlass.policies.points import NAMED
from windlass.records import LedgerRecord
from windlass.watch.waiting import HOUR_S, Waiting, hour_of

REPLACE = msgspec.structs.replace
HOUR = hour_of(1_800_000_000.0)


def _rows(*records: LedgerRecord) -> list[Folded]:
    return list(narrowed([Entry(place, record) for place, record in enumerate(records, start=1)]))


def _alike() -> list[Folded]:
    """Eight calls of one hour and the next, whose decisions and outcomes share one form."""
    records: list[LedgerRecord] = []
    for number in range(8):
        at = HOUR + HOUR_S * (number // 4) + number
        decided = REPLACE(decision(f"decision_{number}", f"call_{number}"), at=at, propensity=1.0 / (number + 1))
        ended = REPLACE(outcome(f"call_{number}"), at=at, cost_nusd=number)
        records += [call(f"call_{number}"), decided, ended, REPLACE(rating(f"f_{number}", f"call_{number}"), at=at)]
    rows = _rows(*records)
    for kind in (rows[1::4], rows[2::4]):
        for row in kind:
            row.form = kind[0].form  # type: ignore[union-attr]
    return rows


def _held(waiting: Waiting) -> list[tuple[int, ...]]:
    """The places that wait, by row, of decisions, outcomes and feedback in turn."""
    kinds = (waiting.decided, waiting.ended, waiting.said)
    return [tuple(row.seq for row in rows) for held in kinds for rows in held.values()]


def test_rows_of_one_form_are_told_apart_by_their_hour() -> None:
    waiting = Waiting()
    waiting.add(_alike())
    assert _held(waiting) == [
        (2, 6, 10, 14), (18, 22, 26, 30), (3, 7, 11, 15), (19, 23, 27, 31), (4, 8, 12, 16), (20, 24, 28, 32),
    ]  # fmt: skip
    assert [key[3] for key in waiting.decided] == [HOUR, HOUR + HOUR_S]
    assert [one.propensity for rows in waiting.decided.values() for one in rows] == [1 / n for n in range(1, 9)]
    assert [one.cost_nusd for rows in waiting.ended.values() for one in rows] == list(range(8))


def test_pages_add_up_to_what_one_page_gives() -> None:
    """Each page brings forms of its own; what they say decides, not which object says it."""
    whole, paged = Waiting(), Waiting()
    whole.add(_alike())
    for start in range(0, 32, 5):
        paged.add(_alike()[start : start + 5])
    assert _held(paged) == _held(whole)
    assert paged.folded == whole.folded == 32


def test_what_is_written_is_let_go_of_wherever_it_ends() -> None:
    for place in range(34):
        waiting = Waiting()
        waiting.add(_alike())
        left = waiting.beyond(place)
        kept = [tuple(seq for seq in rows if seq > place) for rows in _held(waiting)]
        assert _held(left) == [rows for rows in kept if rows]


def test_one_action_is_no_choice_and_what_is_imported_is_none_of_ours() -> None:
    imported = "call_0000000005dcabababababababababab-litellm"
    waiting = Waiting()
    waiting.add(
        _rows(
            REPLACE(decision("decision_1", "call_1"), policy="p@1", actions=("only",), action="only"),
            outcome(imported),
            rating("feedback_0000000005dcabababababababababab-litellm", imported),
            outcome("call-with-a-dash"),
        )
    )
    assert [key[4] for key in waiting.decided] == [NAMED]
    assert [[row.call for row in rows] for rows in waiting.ended.values()] == [["call-with-a-dash"]]
    assert not waiting.said
