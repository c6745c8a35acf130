"""The places of idempotency keys on a database: one holder at a time, however many want it and whatever they do."""

from __future__ import annotations

import random
from concurrent.futures import ThreadPoolExecutor

import pytest

from windlass.ledger.check import call, outcome
from windlass.ledger.db import Database
from windlass.ledger.ledger import StoredReply
from windlass.ledger.replies import DONE, LEASE_S, LEFT_S, PENDING, ReplyPlace, ReplyTable
from windlass.ledger.sql import SqlLedger

PLACE = ReplyPlace("acme", "default", "app", "d1")


class Clock:
    def __init__(self) -> None:
        self.at = 1_000.0

    def __call__(self) -> float:
        return self.at


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def table(db: Database, clock: Clock) -> ReplyTable:
    return ReplyTable(db, clock)


def reply(owner: str, place: ReplyPlace = PLACE, data: bytes = b"sealed") -> StoredReply:
    return StoredReply(
        **place._asdict(), owner=owner, call="call_1", user="", at=1_000.0, expires_at=1_100.0, data=data
    )


def test_a_place_has_one_holder(table: ReplyTable) -> None:
    assert table.claim(PLACE, "a", "s", "x:1") is None
    found = table.claim(PLACE, "b", "s", "x:2")
    assert found is not None
    assert (found.state, found.asked, found.owner, found.data) == (PENDING, "a", "x:1", b"")
    for other in ("tenant", "workspace", "caller", "digest"):
        assert table.claim(PLACE._replace(**{other: "other"}), "a", "s", "x:3") is None, other


def test_of_many_at_once_one_gets_it(table: ReplyTable) -> None:
    with ThreadPoolExecutor(16) as pool:
        for turn in range(20):
            place = PLACE._replace(digest=f"d{turn}")
            found = list(pool.map(lambda n, at=place: table.claim(at, "a", "s", f"x:{n}"), range(16)))
            assert found.count(None) == 1
            assert len({one.owner for one in found if one is not None}) == 1


def test_only_its_holder_frees_it_and_no_reply_is_lost_by_it(table: ReplyTable, ledger: SqlLedger) -> None:
    table.claim(PLACE, "a", "s", "x:1")
    table.release(PLACE, "x:2")
    assert table.claim(PLACE, "a", "s", "x:2") is not None
    table.release(PLACE, "x:1")
    assert table.claim(PLACE, "a", "s", "x:2") is None
    ledger.append_now(call("call_1"), outcome("call_1"), reply("x:2"))
    table.release(PLACE, "x:2")
    found = table.claim(PLACE, "a", "s", "x:3")
    assert found is not None
    assert (found.state, found.call, found.data) == (DONE, "call_1", b"sealed")


def test_a_lease_that_is_over_may_be_taken_and_its_holder_writes_nothing(
    table: ReplyTable, ledger: SqlLedger, clock: Clock
) -> None:
    table.claim(PLACE, "a", "s", "x:1")
    clock.at += LEASE_S
    assert table.claim(PLACE, "b", "t", "x:2") is None
    table.renew([(PLACE, "x:1")])
    ledger.append_now(call("call_1"), outcome("call_1"), reply("x:1", data=b"late"))
    table.release(PLACE, "x:1")
    found = table.claim(PLACE, "b", "t", "x:3")
    assert found is not None
    assert (found.state, found.asked, found.secret, found.owner) == (PENDING, "b", "t", "x:2")
    ledger.append_now(call("call_2"), outcome("call_2"), reply("x:2", data=b"mine"))
    again = table.claim(PLACE, "b", "t", "x:3")
    assert again is not None
    assert again.data == b"mine"


def test_a_lease_is_kept_by_renewing(table: ReplyTable, clock: Clock) -> None:
    table.claim(PLACE, "a", "s", "x:1")
    for _ in range(10):
        clock.at += LEASE_S - 1
        table.renew([(PLACE, "x:1")])
        assert table.claim(PLACE, "a", "s", "x:2") is not None


def test_replies_and_forgotten_places_are_pruned_in_their_time(
    table: ReplyTable, ledger: SqlLedger, clock: Clock
) -> None:
    table.claim(PLACE, "a", "s", "x:1")
    ledger.append_now(call("call_1"), outcome("call_1"), reply("x:1"))
    left = PLACE._replace(digest="left")
    table.claim(left, "a", "s", "x:2")
    clock.at = 1_099.0
    ledger.prune(clock.at)
    assert table.claim(PLACE, "a", "s", "x:3") is not None
    clock.at = 1_100.0
    ledger.prune(clock.at)
    assert table.claim(PLACE, "b", "s", "x:3") is None, "the key is new again"
    ledger.prune(1_000.0 + LEFT_S - 1)
    assert table.claim(left, "a", "s", "x:4") is None, "by lease, long before"
    table.release(left, "x:4")


def test_a_reply_and_its_outcome_are_one_commit(table: ReplyTable, ledger: SqlLedger, db: Database) -> None:
    table.claim(PLACE, "a", "s", "x:1")
    with db.write() as connection:
        connection.exec_driver_sql("ALTER TABLE outcomes RENAME TO away")
    with pytest.raises(Exception, match="no such table"):
        ledger.append_now(outcome("call_1"), reply("x:1"))
    with db.write() as connection:
        connection.exec_driver_sql("ALTER TABLE away RENAME TO outcomes")
    found = table.claim(PLACE, "a", "s", "x:2")
    assert found is not None
    assert found.state == PENDING


def test_any_order_of_claims_leaves_one_holder(table: ReplyTable, ledger: SqlLedger, clock: Clock) -> None:
    """Against a model of three lines: who holds, until when, what is stored."""
    rng, holder, until, kept = random.Random(11), "", 0.0, b""
    for turn in range(400):
        owner = f"x:{rng.randrange(4)}"
        match rng.randrange(5):
            case 0 | 1:
                found = table.claim(PLACE, "a", "s", owner)
                if not kept and (not holder or clock.at >= until):
                    assert found is None, turn
                    holder, until = owner, clock.at + LEASE_S
                else:
                    assert found is not None, turn
                    assert (found.data, found.owner) == (kept, holder), turn
            case 2:
                table.release(PLACE, owner)
                holder = "" if owner == holder and not kept else holder
            case 3:
                table.renew([(PLACE, owner)])
                until = clock.at + LEASE_S if owner == holder and not kept else until
            case _ if rng.random() < 0.2:
                ledger.append_now(reply(owner, data=owner.encode()))
                kept = owner.encode() if owner == holder and (not kept or kept == owner.encode()) else kept
        clock.at += rng.choice((0.0, 1.0, LEASE_S / 2)) if not kept else 0.0
        if kept and rng.random() < 0.3:  # it expires, and all begins anew
            clock.at += 1_000.0
            ledger.prune(clock.at)
            holder, kept, clock.at = "", b"", 1_000.0
