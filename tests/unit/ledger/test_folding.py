"""What a fold reads is less than the ledger holds, and folds to the same."""

from __future__ import annotations

from collections.abc import Collection

import msgspec
import pytest
import sqlalchemy as sa

from windlass.errors import LedgerError, RecordInvalid
from windlass.ledger import schema
from windlass.ledger.check import call, decision, outcome, rating
from windlass.ledger.db import Database
from windlass.ledger.folded import FoldedDecision, FoldedOutcome
from windlass.ledger.folding import Foldable, following, narrowed
from windlass.ledger.ledger import ALL, Entry
from windlass.ledger.memory import MemoryLedger
from windlass.ledger.sql import SqlLedger
from windlass.policies.loop import Loop
from windlass.policies.points import PointOptions, ShadowOptions
from windlass.policies.replay import Learner
from windlass.records import Erasure, LedgerRecord, RunEvent, Scope, StepResult, user_digest
from windlass.watch.store import Rollups

A, B = Scope("a", "one"), Scope("b", "two")
REPLACE = msgspec.structs.replace


def _history() -> list[LedgerRecord]:
    """Every kind of record of two tenants: decisions live and in shadow, outcomes before calls, an erased user."""
    found: list[LedgerRecord] = []
    for number in range(30):
        scope, name = (A, B)[number % 2], f"call_{number}"
        live = REPLACE(decision(f"decision_{number}-model", name, scope), point="model", policy="linear_thompson@1")
        live = REPLACE(live, context={"words": number / 7, "kinds": (0.5, 1.0)}, featuriser="f@1", extra={"why": "m1"})
        bold = REPLACE(live, id=f"decision_{number}-bold", live=False, policy="fixed@1", extra={"shadow": "bold"})
        begun = REPLACE(call(name, scope), user=f"user {number % 3}", parent=f"answer_{number % 5}")
        ended = REPLACE(outcome(name, scope), latency_ms=100.0 * number, cost_nusd=number, error="" if number else "x")
        found += [begun, live, bold, ended] if number % 4 else [ended, begun, live, bold]
        found += [rating(f"feedback_{number}", f"answer_{number % 5}", scope)]
    found.append(
        RunEvent(id="e", at=1.0, tenant="a", run="r", workflow="w", step="s", result=StepResult(status="ok", value=1))
    )
    found.append(Erasure(id="erasure_1", at=9.0, tenant="a", workspace="one", user=user_digest(A, "user 1")))
    return found


def _learner() -> Learner:
    shadow = ShadowOptions(name="bold", policy="fixed")
    return Learner(Loop({"model": PointOptions(mode="live", shadows=(shadow,))}))


def test_a_fold_over_less_ends_where_one_over_everything_does(db: Database) -> None:
    ledger, plain = SqlLedger(db), MemoryLedger()
    history = _history()
    ledger.append_now(*history)
    plain.append_now(*history)
    lean, whole, held = _learner(), _learner(), _learner()
    lean.fold(*ledger.folded(ALL, after=0, limit=1_000))
    whole.fold(*ledger.read(ALL))
    assert isinstance(ledger, Foldable)
    assert not isinstance(plain, Foldable)
    held.fold(*following(plain, ALL, 0, 1_000))
    assert lean.cursor == len(history)
    assert lean.digest() == whole.digest() == held.digest()
    assert lean.loop.states(), "something was learned"
    ledger.close()


def test_the_hours_are_the_same_over_less(db: Database) -> None:
    ledger, rollups = SqlLedger(db), Rollups(db)
    ledger.append_now(*_history())
    seen = []
    for entries in (ledger.folded(ALL, after=0, limit=1_000), ledger.read(ALL)):
        rollups.clear()
        rollups.fold(*entries)
        rollups.flush()
        found = rollups.outcomes(A), rollups.decisions(A), rollups.feedback(A)
        seen.append([msgspec.structs.astuple(REPLACE(hour, latency=None)) if n == 0 else hour
                     for n, hours in enumerate(found) for hour in hours])  # fmt: skip
        seen[-1] += [hour.latency.counts() for hour in found[0]]
    assert seen[0] == seen[1]
    assert seen[0]
    ledger.close()


def test_contexts_come_where_they_are_asked_for(db: Database) -> None:
    ledger = SqlLedger(db)
    ledger.append_now(*_history(), REPLACE(decision("decision_x", "call_x", A), point="prompt", context={"one": 1.0}))

    def held(contexts: Collection[str] | None) -> set[str]:
        found = ledger.folded(ALL, after=0, limit=1_000, contexts=contexts)
        decided = [row for row in found if isinstance(row, FoldedDecision)]
        assert len(decided) == 61
        known = {number / 7 for number in range(30)}
        assert {row.context["words"] for row in decided if row.context and row.point == "model"} <= known
        return {row.point for row in decided if row.context}

    live = [
        row.form.live
        for row in ledger.folded(ALL, after=0, limit=1_000)
        if isinstance(row, FoldedDecision) and row.context
    ]
    assert live == [True] * 31, "nothing is learned from what was decided in shadow"
    assert held(None) == held(["prompt", "model"]) == {"model", "prompt"}
    assert held(frozenset({"model", "'; --"})) == {"model"}
    assert held(()) == held(["nowhere"]) == set()
    ledger.close()


def test_rows_are_what_entries_are_narrowed_to(db: Database) -> None:
    ledger = SqlLedger(db)
    ledger.append_now(*_history())
    rows, entries = ledger.folded(ALL, after=0, limit=1_000), ledger.read(ALL)
    assert narrowed(rows) is rows
    for row, same in zip(rows, narrowed(entries), strict=True):
        assert type(row) is type(same)
        fields = [name for name in row.__struct_fields__ if not name.startswith("raw_")]
        assert [getattr(row, name) for name in fields] == [getattr(same, name) for name in fields]
    assert [row.shadow for row in rows if isinstance(row, FoldedDecision)][:2] == [None, "bold"]
    ledger.close()


def test_it_pages_like_reading_everything(db: Database) -> None:
    ledger = SqlLedger(db)
    ledger.append_now(*_history())
    places, after = [], 0
    while entries := following(ledger, ALL, after, 7):
        assert len(entries) <= 7
        places += [entry.seq for entry in entries]
        after = entries[-1].seq
    assert places == [entry.seq for entry in ledger.read(ALL)]
    ledger.close()


def test_rows_that_are_alike_share_what_they_have_in_common(db: Database) -> None:
    """And only they: a quote, a comma, another script or a control character in one field is no border between two."""
    ledger = SqlLedger(db)
    odd = ['m","x', "m", 'm"', "\\", "ü\U0001f600", "a\x01\x1f\x7f", "[]", "null", ""]
    told: list[LedgerRecord] = []
    for number in range(4 * len(odd)):
        what, scope = odd[number // 4], Scope(odd[number // 4] or "t", odd[-1 - number // 4] or "w")
        made = decision(f"decision_{number}", f"call_{number}", scope)
        told.append(
            REPLACE(made, policy=what, action=what, actions=(what, "other"), featuriser=what, point=what or "p")
        )
        told.append(REPLACE(outcome(f"call_{number}", scope), model=what, error=what, status=200 + number // 4))
    ledger.append_now(*told)
    rows = ledger.folded(ALL, after=0, limit=1_000)
    decided = [row for row in rows if isinstance(row, FoldedDecision)]
    ended = [row for row in rows if isinstance(row, FoldedOutcome)]
    for record, row in zip(told, rows, strict=True):
        assert row == narrowed([Entry(row.seq, record)])[0]
    assert len({id(row.form) for row in decided}) == len({id(row.form) for row in ended}) == len(odd)
    ledger.close()


@pytest.mark.parametrize(
    ("table", "values"),
    [
        (schema.outcomes, {"latency_ms": b"\x00"}),
        (schema.outcomes, {"model": b"\x00"}),
        (schema.outcomes, {"status": "good"}),
        (schema.decisions, {"policy": b"\xff"}),
        (schema.decisions, {"actions": "[1, 2]"}),
        (schema.decisions, {"extra": "[]"}),
        (schema.contexts, {"data": "{"}),
        (schema.feedback, {"source": "nobody"}),
        (schema.calls, {"user": b"\xff"}),
    ],
    ids=lambda value: getattr(value, "name", ""),
)
def test_a_damaged_row_is_named(db: Database, table: sa.Table, values: dict[str, object]) -> None:
    ledger = SqlLedger(db)
    ledger.append_now(*_history())
    ((column, value),) = values.items()
    with db.write() as connection:
        connection.exec_driver_sql(f'UPDATE {table.name} SET "{column}" = ?', (value,))
    with pytest.raises(RecordInvalid, match=r"row \d+ is no "):
        ledger.folded(ALL, after=0, limit=1_000)
    ledger.close()


def test_without_its_counter_the_ledger_says_so_and_keeps_nothing(db: Database) -> None:
    ledger = SqlLedger(db)
    with db.write() as connection:
        connection.execute(sa.delete(schema.heads).where(schema.heads.c.name == "ledger"))
    with pytest.raises(LedgerError, match="counter is gone"):
        ledger.append_now(call("call_1"))
    with db.write() as connection:
        connection.execute(sa.insert(schema.heads), {"name": "ledger", "value": 0})
    ledger.append_now(call("call_2"))
    assert [entry.record.id for entry in ledger.read(ALL)] == ["call_2"]
    ledger.close()
