"""What is known of a forgotten user's calls afterwards, and what comes in while one is being forgotten."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import sqlalchemy as sa

from windlass.ledger import retention, schema
from windlass.ledger.check import AT, A, B, call, decision, outcome, rating
from windlass.ledger.db import Database
from windlass.ledger.sql import SqlLedger
from windlass.records import Erasure, Scope, user_digest

SECRET = "heliotrope-manuscript"


def _erasure(scope: Scope = A) -> Erasure:
    digest = user_digest(scope, "zoe")
    return Erasure(id="erasure_1", at=AT, tenant=scope.tenant, workspace=scope.workspace, user=digest)


async def _forgotten(ledger: SqlLedger) -> None:
    """zoe's call with an answer above it and two calls beneath, one of them by ben, and a call of nobody's."""
    await ledger.append(
        call("call_1", user="zoe", parent="answer_1"),
        call("call_2", parent="call_1"),
        call("call_3", parent="call_1", user="ben"),
        call("call_4"),
        *(decision(f"decision_{number}", f"call_{number}") for number in range(1, 5)),
        *(outcome(f"call_{number}") for number in range(1, 5)),
        call("call_1", B),
    )
    await ledger.append(_erasure())
    assert ledger.erase(_erasure()) > 0


@pytest.mark.parametrize(
    ("target", "gone"),
    [
        *((name, True) for name in ("call_1", "call_2", "answer_1", "decision_1", "decision_2", "outcome_call_2")),
        *((name, False) for name in ("call_3", "call_4", "decision_3", "outcome_call_4", "answer_2", "", "call_9")),
    ],
)
async def test_what_was_made_for_a_forgotten_user_is_known(
    db: Database, ledger: SqlLedger, target: str, gone: bool
) -> None:
    await _forgotten(ledger)
    assert retention.forgotten(db, A, target) is gone
    assert not retention.forgotten(db, B, target), "another tenant's id is another thing"


async def test_a_call_that_comes_late_beneath_a_forgotten_one_is_known_too(db: Database, ledger: SqlLedger) -> None:
    await _forgotten(ledger)
    await ledger.append(call("call_8", parent="call_2"), call("call_9", parent="call_8", user="zoe"))
    assert retention.forgotten(db, A, "call_8")
    assert not retention.forgotten(db, A, "call_9"), "who comes back is somebody new"


async def test_calls_in_a_ring_are_walked_once(db: Database, ledger: SqlLedger) -> None:
    await ledger.append(call("call_1", parent="call_2"), call("call_2", parent="call_1", user="zoe"), _erasure())
    assert ledger.erase(_erasure()) == 1
    await ledger.append(call("call_3", parent="call_4"), call("call_4", parent="call_3"))
    assert retention.forgotten(db, A, "call_1")
    assert not retention.forgotten(db, A, "call_3")


async def test_a_comment_that_came_in_between_is_taken(
    db: Database, ledger: SqlLedger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Written after the first transaction took what there was: the second one takes it."""
    await ledger.append(call("call_1", user="zoe"), _erasure())
    write, writes = db.write, 0

    @contextmanager
    def writing() -> Iterator[sa.Connection]:
        nonlocal writes
        writes += 1
        if writes == 2:
            with write() as connection:
                row = {column.name: "" for column in schema.feedback.c} | {"seq": 99, "at": AT, "value": 1.0}
                row |= {"id": "late", "tenant": A.tenant, "workspace": A.workspace, "extra": "{}"}
                row |= {"target": "call_1", "kind": "rating", "source": "user", "comment": SECRET}
                connection.execute(sa.insert(schema.feedback), row)
        with write() as connection:
            yield connection

    monkeypatch.setattr(db, "write", writing)
    ledger.erase(_erasure())
    monkeypatch.undo()
    (kept,) = ledger.feedback(A)
    assert (kept.value, kept.comment) == (1.0, "")
    assert not [path for path in tmp_path.iterdir() if SECRET.encode() in path.read_bytes()]


async def test_a_silenced_comment_leaves_no_byte(db: Database, ledger: SqlLedger, tmp_path: Path) -> None:
    said = rating("feedback_1", "call_1", value=0.5, comment=SECRET)
    await ledger.append(said, rating("feedback_2", "call_1", comment="kept"))
    assert [path for path in tmp_path.iterdir() if SECRET.encode() in path.read_bytes()], "the test can fail"
    await asyncio.to_thread(retention.silence, db, said)
    assert {one.id: (one.value, one.comment) for one in ledger.feedback(A)} == {
        "feedback_1": (0.5, ""),
        "feedback_2": (1.0, "kept"),
    }
    assert not [path for path in tmp_path.iterdir() if SECRET.encode() in path.read_bytes()]
