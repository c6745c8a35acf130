"""Refused keys in the audit trail: the first at once, a flood in a row a minute, none of them in clear."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from windlass.errors import LedgerError
from windlass.ledger.audit import Audit
from windlass.ledger.db import Database
from windlass.ledger.ledger import ALL
from windlass.ledger.refusals import EVERY_S, NAMED, Refusals
from windlass.testing import Clock

KEY = "wl-once-a-secret"


@pytest.fixture
def audit(tmp_path: Path) -> Iterator[Audit]:
    db = Database(tmp_path / "ledger.db")
    db.migrate()
    yield Audit(db, tmp_path / "audit")
    db.close()


@pytest.fixture
def clock() -> Clock:
    return Clock(1_000.0)


@pytest.fixture
def refusals(audit: Audit, clock: Clock) -> Refusals:
    return Refusals(audit, clock)


def rows(audit: Audit) -> list[dict[str, Any]]:
    """The details of what was refused, oldest first."""
    found = [row for row in audit.rows(ALL, limit=1_000) if row.action == "refused"]
    return [msgspec.json.decode(row.detail) for row in reversed(found)]


def refuse(refusals: Refusals, peer: str = "192.0.2.7", key: str = KEY) -> None:
    if refusals.count(peer, key, "key_unknown"):
        refusals.flush()


def test_the_first_leaves_a_row_at_once_without_the_key(refusals: Refusals, audit: Audit) -> None:
    refuse(refusals)
    digest = hashlib.sha256(KEY.encode()).hexdigest()
    origin = {"peer": "192.0.2.7", "key_sha256": digest[:8], "reason": "key_unknown", "count": 1}
    assert rows(audit) == [{"from": [origin]}]
    assert KEY not in str(audit.rows(ALL))


def test_a_flood_leaves_a_row_a_minute_and_every_one_counts(refusals: Refusals, audit: Audit, clock: Clock) -> None:
    for second in range(300):
        for number in range(40):
            refuse(refusals, f"198.51.100.{number}", f"guess-{second}-{number}")
        clock.forward(1)
    refusals.flush(last=True)
    told = rows(audit)
    assert len(told) <= 300 / EVERY_S + 2
    assert all(len(row["from"]) <= NAMED for row in told)
    counted = sum(origin["count"] for row in told for origin in row["from"]) + sum(row.get("others", 0) for row in told)
    assert counted == 300 * 40


def test_the_last_ones_are_written_when_the_minute_or_the_process_ends(
    refusals: Refusals, audit: Audit, clock: Clock
) -> None:
    refuse(refusals)
    refuse(refusals)
    refuse(refusals, key="")
    refusals.flush()
    assert len(rows(audit)) == 1, "not yet"
    clock.forward(EVERY_S)
    refusals.flush()
    assert [(origin["key_sha256"] != "", origin["count"]) for origin in rows(audit)[1]["from"]] == [
        (True, 1),
        (False, 1),
    ]
    refusals.flush(last=True)
    assert len(rows(audit)) == 2, "nothing to tell, no row"
    refuse(refusals)
    refusals.flush(last=True)
    assert len(rows(audit)) == 3


def test_a_trail_that_takes_no_row_loses_no_count(
    refusals: Refusals, audit: Audit, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> int:
        raise LedgerError("the disk is full")

    with monkeypatch.context() as away:
        away.setattr(audit, "append", full)
        refuse(refusals)
        refuse(refusals)
    refuse(refusals)
    assert [origin["count"] for origin in rows(audit)[0]["from"]] == [3]


def test_hostile_names_are_kept_short_and_storable(refusals: Refusals, audit: Audit) -> None:
    refuse(refusals, "x" * 100_000, "\ud800\x00" * 1_000)
    assert len(audit.rows(ALL)[0].detail) < 500
