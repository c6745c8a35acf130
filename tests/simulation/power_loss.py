"""Power loss: the real ledger over a recorded disk, cut at any write, and what must be found afterwards.

One *life* is one run of a seeded workload through `Database` and `SqlLedger`. Its log gives thousands of disks without
running it again. Each is opened by SQLite, checked, and compared with the states that the ledger went through: it must
equal one of them (so no gap, no half batch, nothing deleted that came back), and with `durability="full"` one that
holds all that was acknowledged before the cut. A second life begins on a disk that a cut of the first left behind.
"""

from __future__ import annotations

import random
from bisect import bisect_right
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from unittest.mock import patch

import apsw
import sqlalchemy as sa

from tests.simulation.apsw_dbapi import Driver
from tests.simulation.disk import Cuts, Image, Recorder, Step, write_image
from windlass.ledger.check import AT, A, call, decision, outcome, rating
from windlass.ledger.db import Database, Durability
from windlass.ledger.ledger import ALL, Body, Snapshot
from windlass.ledger.rows import TABLES
from windlass.ledger.sql import SqlLedger
from windlass.records import Erasure, LedgerRecord, user_digest

FILE = "ledger.db"
OPERATIONS = 24
REOPENED_EVERY = 100
_DISKS = count()


@dataclass(frozen=True)
class Fault:
    """What may be broken on purpose: the disk's honesty, a statement, the ledger.

    readers: whether some reads stay open; where the database is no WAL, they would hold up every writer.
    """

    lies: Callable[[str], bool] = lambda _file: False
    rewrite: Callable[[str], str] = lambda sql: sql
    ledger: Callable[[Database], SqlLedger] = SqlLedger
    readers: bool = True


@dataclass(frozen=True)
class State:
    """The committed content after one transaction. place: length of the log then; ids: records in ledger order."""

    place: int
    digest: int
    ids: tuple[str, ...]


@dataclass
class Life:
    """One run: the disk it began on, everything it wrote, the states it passed, and what it promised when.

    promises: (place, number of the state that must survive a cut from there on). batches: ids that stand or fall
    together. owed: (place, ids) of what was acknowledged, before `settle` finds the states that hold it.
    """

    start: Image
    tables: tuple[str, ...]
    log: list[Step] = field(default_factory=list)
    states: list[State] = field(default_factory=list)
    promises: list[tuple[int, int]] = field(default_factory=list)
    batches: list[tuple[str, ...]] = field(default_factory=list)
    owed: list[tuple[int, tuple[str, ...]]] = field(default_factory=list)

    def seen(self, connection: apsw.Connection) -> None:
        """Keep the content as it is now, if it has changed."""
        digest = content(connection, self.tables)
        if not self.states or digest != self.states[-1].digest:
            self.states.append(State(len(self.log), digest, _ids(connection)))

    def promise(self) -> None:
        """What is committed now was acknowledged."""
        self.promises.append((len(self.log), len(self.states) - 1))

    def settle(self) -> None:
        """Turn what was acknowledged into the states that must hold it."""
        for place, ids in self.owed:
            wanted = set(ids)
            first = next((n for n, state in enumerate(self.states) if wanted <= set(state.ids)), len(self.states))
            self.promises.append((place, first))
        self.promises.sort()

    def halves(self) -> list[tuple[str, ...]]:
        """Batches of which some state holds a part."""
        held = [set(state.ids) for state in self.states]
        return [batch for batch in self.batches if any(0 < len(ids & set(batch)) < len(set(batch)) for ids in held)]


def content(connection: apsw.Connection, tables: tuple[str, ...]) -> int:
    """A digest, good within this process, of every row of `tables`."""
    return hash(tuple(tuple(connection.execute(f"SELECT * FROM {table}")) for table in tables))


def _ids(connection: apsw.Connection) -> tuple[str, ...]:
    every = " UNION ALL ".join(f"SELECT seq, id FROM {table.name}" for table in TABLES.values())
    return tuple(name for _, name in connection.execute(f"{every} ORDER BY 1"))


@contextmanager
def opened(folder: Path, driver: Driver, durability: Durability) -> Iterator[Database]:
    """The real Database over `driver`."""
    real = sa.create_engine
    with patch("sqlalchemy.create_engine", lambda url, **options: real(url, module=driver, **options)):
        made = Database(folder / FILE, durability=durability)
    try:
        yield made
    finally:
        made.close()


def migrated(folder: Path) -> Image:
    """The disk of a new, migrated database that was closed in order."""
    write_image(folder, {})
    made = Database(folder / FILE)
    made.migrate()
    made.close()
    return {FILE: (folder / FILE).read_bytes()}


def tables_of(image: Image, folder: Path) -> tuple[str, ...]:
    """The tables that a ledger may fill; those of memory and content, which no life touches, are left out."""
    write_image(folder, image)
    wanted = {*(table.name for table in TABLES.values()), "contexts", "bodies", "forgotten", "snapshots", "heads"}
    connection = apsw.Connection(str(folder / FILE))
    names = [name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
    connection.close()
    return tuple(name for name in names if name in wanted)


def live(start: Image, seed: str, folder: Path, durability: Durability, fault: Fault) -> Life:
    """Run one workload on the disk `start` and return everything about it."""
    recorder = Recorder(f"power-{next(_DISKS)}", fault.lies)
    life = Life(start, tables_of(start, folder), recorder.log)
    write_image(folder, start)
    rng = random.Random(seed)
    # A low threshold lets a short life pass many checkpoints.
    pages = rng.choice((4, 16, 60, 1000))
    driver = Driver(recorder.name, life.seen, lambda inner: inner.wal_autocheckpoint(pages), fault.rewrite)
    with opened(folder, driver, durability) as db:
        with db.read() as connection:
            life.seen(connection.connection.driver_connection.inner)  # type: ignore[union-attr]
        life.promises.append((0, 0))
        ledger = fault.ledger(db)
        with ExitStack() as reading:
            for number in range(OPERATIONS):
                operation = rng.choice(tuple(_OPERATIONS))
                # A reader that stays keeps the log from being started over; erasing waits for it.
                if rng.random() < 0.15 and operation != "erase" and fault.readers:
                    reading.enter_context(db.read())
                elif rng.random() < 0.3 or operation == "erase":
                    reading.close()
                _OPERATIONS[operation](ledger, life, rng, f"{len(life.states[0].ids)}-{number}")
        ledger.close()
    recorder.unregister()
    life.settle()
    return life


def _append(ledger: SqlLedger, life: Life, rng: random.Random, name: str) -> None:
    _owe(ledger, life, _records(rng, name))


def _together(ledger: SqlLedger, life: Life, rng: random.Random, name: str) -> None:
    """Several batches that one commit takes."""
    for part in range(rng.randint(1, 4)):
        posted = _records(rng, f"{name}-{part}")
        life.batches.append(_named(posted))
        ledger.post(*posted)
    _owe(ledger, life, _records(rng, f"{name}-last"))


def _prune(ledger: SqlLedger, life: Life, rng: random.Random, _name: str) -> None:
    ledger.prune(AT + rng.uniform(0, 200))
    life.promise()


def _erase(ledger: SqlLedger, life: Life, rng: random.Random, name: str) -> None:
    user = user_digest(A, f"user-{rng.randint(0, 3)}")
    erasure = Erasure(id=f"erasure_{name}", at=AT, tenant=A.tenant, workspace=A.workspace, user=user)
    _owe(ledger, life, [erasure])
    ledger.erase(erasure)
    life.promise()


def _snapshot(ledger: SqlLedger, life: Life, rng: random.Random, _name: str) -> None:
    state, cursor = rng.randbytes(rng.randint(1, 9000)), len(life.states[-1].ids)
    ledger.save_snapshot(Snapshot(projection="policies", version=1, cursor=cursor, at=AT, state=state))
    life.promise()


_OPERATIONS: dict[str, Callable[[SqlLedger, Life, random.Random, str], None]] = {
    "append": _append,
    "append again": _append,
    "append once more": _append,
    "together": _together,
    "prune": _prune,
    "erase": _erase,
    "snapshot": _snapshot,
}


def _owe(ledger: SqlLedger, life: Life, records: list[LedgerRecord | Body]) -> None:
    """Append durably, and note that it was acknowledged."""
    life.batches.append(_named(records))
    ledger.append_now(*records)
    life.owed.append((len(life.log), _named(records)))


def _records(rng: random.Random, name: str) -> list[LedgerRecord | Body]:
    """What one call leaves behind, its bytes and a word on it."""
    made: list[LedgerRecord | Body] = []
    for number in range(rng.randint(1, 3)):
        of = f"call_{name}-{number}"
        made += [call(of, user=f"user-{rng.randint(0, 3)}"), decision(f"decision_{of}", of), outcome(of)]
        if rng.random() < 0.5:
            data, expires_at = rng.randbytes(rng.randint(0, 6000)), AT + rng.uniform(0, 300)
            body = Body(
                id=f"{of}-request", at=AT, call=of, role="request", data=data, expires_at=expires_at, tenant="a"
            )
            made.append(body)
        if rng.random() < 0.5:
            made.append(rating(f"feedback_{of}", of))
    return made


def _named(records: list[LedgerRecord | Body]) -> tuple[str, ...]:
    return tuple(record.id for record in records if not isinstance(record, Body))


class Judge:
    """Says of a disk after a cut what is wrong with it, "" where nothing is."""

    def __init__(self, life: Life, folder: Path, durability: Durability):
        self.life = life
        self._folder = folder
        self._full = durability == "full"
        self._places = [state.place for state in life.states]
        self._promised = [place for place, _ in life.promises]

    def required(self, place: int) -> int:
        """The earliest state that may be found after a cut at `place`."""
        made = self.life.promises[: bisect_right(self._promised, place)]
        return max(number for _, number in made) if self._full else 0

    def verdict(self, image: Image, place: int) -> str:
        """Open, check and compare. The connection is a plain one: nothing of the recording is beneath it."""
        write_image(self._folder, image)
        try:
            connection = apsw.Connection(str(self._folder / FILE))
            try:
                connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
                found = connection.execute("PRAGMA integrity_check").get
                if found != "ok":
                    return f"corrupt: {str(found)[:200]}"
                digest = content(connection, self.life.tables)
                return self._compared(digest, place, connection)
            finally:
                connection.close()
        except apsw.Error as exc:
            return f"corrupt: {type(exc).__name__}: {exc}"

    def _compared(self, digest: int, place: int, connection: apsw.Connection) -> str:
        # The commit after the last that returned may have been under way.
        reached = bisect_right(self._places, place)
        matching = [n for n, state in enumerate(self.life.states[: reached + 1]) if state.digest == digest]
        if not matching:
            return f"not a state the ledger was ever in: {len(_ids(connection))} records"
        required = self.required(place)
        if matching[-1] < required:
            return f"lost what was acknowledged: state {matching[-1]} of {reached}, {required} were promised"
        return ""

    def reopened(self, image: Image) -> str:
        """The long way: the real Database on Python's own SQLite migrates, reads, appends and reads again."""
        write_image(self._folder, image)
        db = Database(self._folder / FILE)
        db.migrate()
        ledger = SqlLedger(db)
        before = tuple(entry.record.id for entry in ledger.read(ALL, limit=100_000))
        ledger.append_now(call("call_after"), decision("decision_after", "call_after"))
        after = tuple(entry.record.id for entry in ledger.read(ALL, limit=100_000))
        ledger.close()
        db.close()
        if before not in {state.ids for state in self.life.states}:
            return f"the ledger reads {len(before)} records that it never held together"
        return "" if after == (*before, "call_after", "decision_after") else "an append after the cut is not there"


def places(life: Life, rng: random.Random, cuts: int) -> list[int]:
    """Where to cut, ascending: half anywhere, half around syncs, truncations, deletions and checkpoint writes."""
    kinds = ("sync", "truncate", "create", "delete")
    turns = [n for n, step in enumerate(life.log) if step.kind in kinds or step.file == FILE] or [0]
    near = [rng.choice(turns) + rng.randint(-1, 2) for _ in range(cuts // 2)]
    anywhere = [rng.randint(0, len(life.log)) for _ in range(cuts - len(near))]
    return sorted(min(max(place, 0), len(life.log)) for place in near + anywhere)


@dataclass
class Report:
    """How many disks were judged, and what was wrong, each with what replays it."""

    cuts: int = 0
    reopened: int = 0
    violations: list[str] = field(default_factory=list)


_SOUND = Fault()


def explore(
    seed: int, cuts: int, start: Image, folder: Path, durability: Durability, fault: Fault = _SOUND, lives: int = 2
) -> Report:
    """`cuts` power cuts over `lives` lives, each after the first on a disk that a cut left. The seed decides it all."""
    report = Report()
    for number in range(lives):
        name = f"{seed}/{number}"
        life = live(start, name, folder / "live", durability, fault)
        again = f"explore(seed={seed}, cuts={cuts}, durability={durability!r}), life {number}"
        report.violations += [f"{again}: a state holds half of {batch}" for batch in life.halves()]
        rng, judge = random.Random(name), Judge(life, folder / "cut", durability)
        disks = Cuts(life.start, life.log)
        chosen = places(life, rng, cuts // lives)
        handed_on = rng.randrange(len(chosen))
        for cut, place in enumerate(chosen):
            image = disks.at(place, f"{name}/{cut}")
            wrong = judge.verdict(image, place)
            report.cuts += 1
            if not wrong and cut % REOPENED_EVERY == 0:
                wrong, report.reopened = judge.reopened(image), report.reopened + 1
            if wrong:
                report.violations.append(f"{again}, cut {cut} after step {place} of {len(life.log)}: {wrong}")
            if cut == handed_on:
                start = image
        if report.violations:
            break
    return report
