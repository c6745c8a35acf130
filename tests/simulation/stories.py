"""What the schedules are about: our own concurrent parts, each in a short story that says what must hold.

A story takes the modules it is about, so that a copy with a planted race can stand in for the sound one.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from types import ModuleType, SimpleNamespace
from typing import Any

import msgspec

from tests.simulation.schedules import Schedule, SeededLoop, Story, clock, stepping
from windlass.errors import LedgerError
from windlass.ledger.check import AT, A, call, decision, outcome, rating
from windlass.ledger.commit import TELEMETRY_DELAY_S
from windlass.ledger.ledger import ALL, Entry
from windlass.policies.loop import Loop
from windlass.policies.points import PointOptions
from windlass.policies.replay import Learner
from windlass.policies.reward import RewardOptions
from windlass.records import Feedback, LedgerRecord, Scope
from windlass.runtime import LEARN_DELAY_S

LAG_S = 0.1
"""A commit is learned from so soon after it, where nothing else is to do."""


class DiskFull(Exception):
    """What the database of a story sometimes raises."""


class Table:
    """A database table in a list: takes a batch whole, or raises. late: items that waited too long for their commit."""

    def __init__(self, schedule: Schedule, rng: random.Random, failing: float):
        self.rows: list[str] = []
        self.failed = 0
        self._schedule, self._rng, self._failing = schedule, rng, failing
        self.at: dict[str, float] = {}

    def write(self, items: Sequence[str]) -> int:
        self._schedule.step()
        if self._rng.random() < self._failing:
            self.failed += 1
            raise DiskFull("no space left")
        self.rows += items
        self.at |= dict.fromkeys(items, self._schedule.now_s)
        self._schedule.step()
        return len(self.rows)


def group_commit(commit: ModuleType) -> Story:
    """Coroutines and threads append, post, change their minds and meet failures, while somebody closes."""

    async def story(schedule: Schedule) -> None:
        rng = random.Random(schedule.seed)
        table = Table(schedule, rng, rng.choice((0.0, 0.0, 0.2)))
        group = commit.GroupCommit(table.write)
        posted: dict[str, float] = {}
        closing_s = rng.choice((0.0, 0.01, 0.2))

        def confirmed(items: tuple[str, ...], head: int) -> None:
            place = table.rows.index(items[0])
            assert tuple(table.rows[place : place + len(items)]) == items, "acknowledged, and not there whole"
            assert head >= place + len(items), f"head {head} is before what it acknowledged"

        async def client(name: str, give_up: bool) -> None:
            for number in range(2):
                items = (f"{name}-{number}a", f"{name}-{number}b")
                try:
                    waiting = asyncio.wrap_future(group.submit(items, durable=True))
                    if give_up:
                        asyncio.get_running_loop().call_soon(waiting.cancel)
                    confirmed(items, await waiting)
                except (LedgerError, DiskFull, asyncio.CancelledError):
                    continue

        def worker() -> None:
            items = ("worker-a", "worker-b")
            try:
                confirmed(items, group.submit(items, durable=True).result())
            except (LedgerError, DiskFull):
                return

        def reporter() -> None:
            for number in range(3):
                try:
                    group.submit((f"telemetry-{number}",), durable=False)
                except LedgerError:
                    return
                posted[f"telemetry-{number}"] = schedule.now_s

        def closer() -> None:
            clock.sleep(closing_s)
            group.close()

        for run in (worker, reporter, closer):
            schedule.spawn(run, run.__name__)
        await asyncio.gather(*(client(f"client-{n}", n == 0) for n in range(3)))
        await asyncio.to_thread(group.close)
        _all_told(table, posted, group.dropped)

    return story


def _all_told(table: Table, posted: dict[str, float], dropped: int) -> None:
    """What holds of a closed group commit."""
    assert len(set(table.rows)) == len(table.rows), f"committed twice: {table.rows}"
    told = [item for item in table.rows if item in posted]
    assert told == sorted(told), f"telemetry changed its order: {told}"
    assert len(told) + dropped >= len(posted), f"{posted} posted, {told} committed, {dropped} counted as dropped"
    if not table.failed:
        late = [item for item in told if table.at[item] > posted[item] + TELEMETRY_DELAY_S + 1e-9]
        assert not late, f"telemetry {late} waited longer than {TELEMETRY_DELAY_S} s"


POINT = "model"


def fresh_loop(loop: ModuleType | None = None) -> Any:
    """A loop that has learned nothing, with a policy that is cheap and depends on the order of its lessons."""
    made = Loop if loop is None else loop.Loop
    options = PointOptions(mode="live", policy="epsilon_greedy")
    return made({POINT: options}, RewardOptions())


POLICY: str = fresh_loop().policy_id(POINT)


def history(rng: random.Random, name: str) -> list[LedgerRecord]:
    """What a few calls leave behind: late, twice, out of order."""
    made: list[LedgerRecord] = []
    for number in range(rng.randint(1, 2)):
        of = f"call_{name}-{number}"
        chosen = msgspec.structs.replace(decision(f"decision_{of}", of), policy=POLICY)
        made += [call(of), chosen, outcome(of), rating(f"feedback_{of}", of, value=rng.random())]
    made.append(rating(f"feedback_again_{name}", f"call_{name}-0", value=rng.random()))
    made += rng.sample(made, 2)
    rng.shuffle(made)
    return made


def appending(memory: ModuleType) -> Story:
    """Threads append to a MemoryLedger, some the same record: each stands there once, in the order of its writer."""

    def story(schedule: Schedule) -> None:
        ledger, shared = memory.MemoryLedger(), call("call_shared")
        written = [[call(f"call_{writer}-{n}") for n in range(2)] + [shared] for writer in range(3)]

        def write(records: list[LedgerRecord]) -> None:
            for record in records:
                ledger.append_now(record)

        running = [schedule.spawn(lambda mine=records: write(mine), "writer") for records in written]
        schedule.block(lambda: all(thread.done for thread in running))
        entries = ledger.read(ALL)
        assert [entry.seq for entry in entries] == list(range(1, 8)), f"7 records stand at {entries}"
        found = [entry.record.id for entry in entries]
        for writer in range(3):
            assert found.index(f"call_{writer}-0") < found.index(f"call_{writer}-1"), found

    return story


class Sums:
    """The rollups of a story: counts what it was given. Folding the same entry twice is what they must never see."""

    def __init__(self, schedule: Schedule):
        self.seen: list[int] = []
        self._schedule = schedule

    def look(self) -> int:
        return self.seen[-1] if self.seen else 0

    def fold(self, *entries: Entry) -> None:
        self._schedule.step()
        self.seen += [entry.seq for entry in entries]

    def credited(self, *_credit: Any) -> None:
        self._schedule.step()

    def flush(self) -> None:
        self._schedule.step()


def learning(memory: ModuleType, replay: ModuleType, loop: ModuleType, projections: ModuleType) -> Story:
    """Writers append from three threads while two threads fold and one decides; rebuilding gives the same, bit by bit."""

    def story(schedule: Schedule) -> None:
        rng = random.Random(schedule.seed)
        ledger, sums, live = memory.MemoryLedger(), Sums(schedule), fresh_loop(loop)
        folds = projections.Projections(ledger, live, sums, make_loop=fresh_loop, clock=clock.time)
        bare = replay.Learner(fresh_loop(loop))
        written = [history(rng, f"writer{n}") for n in range(3)]
        # The same record from two processes: the second changes nothing.
        written[1].append(written[0][0])
        everything = {(type(record), record.id) for records in written for record in records}

        def write(records: list[LedgerRecord]) -> None:
            for record in records:
                assert ledger.append_now(record) >= 1

        def fold() -> None:
            for _ in range(2):
                folds.catch_up()
                bare.catch_up(ledger, limit=3)

        def decide() -> None:
            for number in range(3):
                scope, actions = Scope(A.tenant, A.workspace), ("x", "y")
                asked = {"context": {"one": 1.0}, "actions": actions, "featuriser": "f", "at": AT, "scope": scope}
                action, made = live.decide(POINT, call_id=f"call_{number}", **asked)
                assert action in actions
                assert not made[0].fallback

        running = [schedule.spawn(lambda mine=records: write(mine), "writer") for records in written]
        running += [schedule.spawn(fold, "fold"), schedule.spawn(fold, "fold"), schedule.spawn(decide, "decide")]
        schedule.block(lambda: all(thread.done for thread in running))
        folds.catch_up()
        bare.catch_up(ledger)
        places = [entry.seq for entry in ledger.read(ALL)]
        assert places == list(range(1, len(everything) + 1)), f"{len(everything)} records stand at {places}"
        assert sums.seen == places, f"rollups saw {sums.seen}"
        cursor, digest, rebuilt = folds.replay()
        assert cursor == ledger.head()
        assert digest == rebuilt, "rebuilding gives another state"
        fresh = Learner(fresh_loop())
        fresh.catch_up(ledger)
        assert bare.digest() == fresh.digest(), "two threads folding gives another state than one"

    return story


class _Copies(SimpleNamespace):
    runtime: ModuleType
    memory: ModuleType
    projections: ModuleType
    commit: ModuleType


class Appending:
    """A ledger of a story: group commit over a MemoryLedger, as SqlLedger is over a database."""

    def __init__(self, schedule: Schedule, commit: ModuleType, memory: ModuleType):
        self._memory = memory.MemoryLedger()
        self._listeners: list[Any] = []
        self._schedule = schedule
        self._group = commit.GroupCommit(self._commit)

    async def append(self, *items: LedgerRecord) -> int:
        return int(await asyncio.wrap_future(self._group.submit(items, durable=True)))

    def on_commit(self, listener: Any) -> None:
        self._listeners.append(listener)

    def close(self) -> None:
        self._group.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._memory, name)

    def _commit(self, items: Sequence[LedgerRecord]) -> int:
        head = int(self._memory.append_now(*items)) if items else int(self._memory.head())
        for listener in self._listeners:
            listener()
        return head


def bare_runtime(schedule: Schedule, copies: _Copies) -> Any:
    """The real Runtime, entered and left by its own code, over parts that need no file."""

    async def closed() -> None:
        await asyncio.sleep(0)

    made = copies.runtime.Runtime.__new__(copies.runtime.Runtime)
    made.settings = SimpleNamespace(storage=SimpleNamespace(context_days=30), home=None)
    made.clock = clock.time
    made.worker = "main"
    made.loop = fresh_loop()
    made.ledger = Appending(schedule, copies.commit, copies.memory)
    made.db = SimpleNamespace(dialect="sqlite", close=lambda: None)
    made.projections = copies.projections.Projections(
        made.ledger, made.loop, Sums(schedule), make_loop=fresh_loop, clock=clock.time
    )
    made.gateway = SimpleNamespace(providers=SimpleNamespace(close=closed))
    made._serve = made._durable = made._ingest = made._lock = None
    made._background = []
    return made


def shutdown(copies: _Copies) -> Story:
    """Appends race the end of a Runtime: what was acknowledged is in the ledger and in the last snapshot."""

    async def story(schedule: Schedule) -> None:
        rng = random.Random(schedule.seed)
        runtime = bare_runtime(schedule, copies)
        ledger, acknowledged = runtime.ledger, list[str]()

        async def client(name: str) -> None:
            for number in range(2):
                of = f"call_{name}-{number}"
                try:
                    await ledger.append(call(of), decision(f"decision_{of}", of), outcome(of))
                except LedgerError:
                    return
                acknowledged.append(of)
                await asyncio.sleep(rng.choice((0.0, 0.01, LEARN_DELAY_S)))

        async with runtime:
            clients = [asyncio.create_task(client(f"client{n}")) for n in range(3)]
            if rng.random() < 0.5:
                await asyncio.gather(*clients)
                await asyncio.sleep(LAG_S)
                cursor = runtime.learner.cursor
                assert cursor == ledger.head(), f"{LAG_S} s after the last commit the learner is at {cursor}"
        await asyncio.gather(*clients)
        kept = {entry.record.id for entry in ledger.read(ALL)}
        assert kept >= set(acknowledged), f"lost: {set(acknowledged) - kept}"
        snapshot = ledger.snapshot("policies", Learner.VERSION)
        assert snapshot is not None, "no snapshot at the end"
        assert snapshot.cursor == ledger.head(), f"snapshot at {snapshot.cursor} of {ledger.head()}"

    return story


class _Folder:
    def __truediv__(self, _name: str) -> _Folder:
        return self

    def touch(self) -> None: ...


def start_once(copies: _Copies) -> Story:
    """The engine of the workflows starts once, however many ask for it at the same time."""

    def story(schedule: Schedule) -> None:
        runtime, started = bare_runtime(schedule, copies), list[str]()

        class Engine:
            def __init__(self, *_arguments: Any, **_options: Any):
                schedule.step()

            def start(self, _serve: Any) -> None:
                started.append("engine")
                schedule.step()

            def register(self) -> None:
                schedule.step()

        runtime._starting = copies.runtime.threading.Lock()
        runtime._serve, runtime._unfinished = ("vectors",), _Folder()
        runtime.settings = SimpleNamespace(home=_Folder(), storage=SimpleNamespace(durability="normal"), content=None)
        runtime.contents = runtime.memory = None
        copies.runtime.__dict__["Ingest"] = Engine
        found: list[Any] = []
        module = SimpleNamespace(Durable=Engine)
        with _imported("windlass.workflows.durable", module):
            asking = [schedule.spawn(lambda: found.append(runtime.ingest), "asks") for _ in range(4)]
            schedule.block(lambda: all(thread.done for thread in asking))
        runtime.ledger.close()
        assert len(started) == 1, f"{len(started)} engines were started"
        assert len(found) == 4
        assert all(one is found[0] for one in found), "callers got different engines"

    return story


def _imported(name: str, module: Any) -> Any:
    from unittest.mock import patch

    return patch.dict("sys.modules", {name: module})


def client_close(client: ModuleType) -> Story:
    """Threads use a Client while two others close it: each call returns or says that the client is closed."""

    def story(schedule: Schedule) -> None:
        rng = random.Random(schedule.seed)
        kept, ended = list[str](), list[int]()

        class Opened:
            """The runtime of the story."""

            def __init__(self, *_arguments: Any, **_options: Any):
                self.open = True

            async def __aenter__(self) -> Opened:
                return self

            async def __aexit__(self, *_exc: object) -> None:
                await asyncio.sleep(0.01)
                self.open = False
                ended.append(1)

            async def feedback(self, _scope: Scope, said: Any) -> Feedback:
                await asyncio.sleep(0)
                if not self.open:
                    raise LedgerError("the ledger is closed")
                kept.append(said.target)
                return said.record(A, AT)  # type: ignore[no-any-return]

        client.__dict__["Runtime"] = Opened
        client.__dict__["load"] = lambda _overrides: None
        made = client.Client()

        def use(name: str) -> None:
            for number in range(3):
                try:
                    made.feedback(f"call_{name}_{number}", "rating", value=1.0)
                except LedgerError:
                    return
                assert f"call_{name}_{number}" in kept
                clock.sleep(rng.choice((0.0, 0.005, 0.01)))

        running = [schedule.spawn(lambda mine=f"u{n}": use(mine), "user") for n in range(2)]
        running += [schedule.spawn(made.close, "closer") for _ in range(2)]
        schedule.block(lambda: all(thread.done for thread in running))
        assert ended == [1], f"the runtime was ended {len(ended)} times"

    return story


def seeded_asyncio() -> Any:
    """`asyncio` whose new loops are the schedule's."""
    names = {name: getattr(asyncio, name) for name in dir(asyncio) if not name.startswith("__")}
    return SimpleNamespace(**names | {"new_event_loop": lambda: SeededLoop(Schedule.of_now())})


def copies(**edits: Sequence[tuple[str, str]]) -> _Copies:
    """Stepping copies of what a runtime is made of; edits: by the last part of the module's name."""
    of = {
        "commit": "windlass.ledger.commit",
        "memory": "windlass.ledger.memory",
        "projections": "windlass.watch.projections",
        "runtime": "windlass.runtime",
    }
    return _Copies(**{short: stepping(name, *edits.get(short, ())) for short, name in of.items()})
