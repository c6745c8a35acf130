"""How a process starts and ends: Runtime and Client, entered and left while others still work with them."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from functools import partial
from types import ModuleType, SimpleNamespace
from typing import Any
from unittest.mock import patch

from tests.simulation.learning_stories import Sums, fresh_loop
from tests.simulation.schedules import Schedule, SeededLoop, Story
from tests.simulation.stand_ins import clock, stepping
from windlass.errors import LedgerError
from windlass.ledger.check import AT, A, call, decision, outcome
from windlass.ledger.ledger import ALL
from windlass.policies.replay import Learner
from windlass.records import Feedback, LedgerRecord, Scope
from windlass.runtime import LEARN_DELAY_S, LEARN_EVERY_S

LAG_S = LEARN_EVERY_S + 0.1
"""A commit is learned from so soon after it, where nothing else is to do."""


class Copies(SimpleNamespace):
    runtime: ModuleType
    memory: ModuleType
    projections: ModuleType
    commit: ModuleType
    runs: ModuleType


class Appending:
    """A ledger of a story: group commit over a MemoryLedger, as SqlLedger is over a database."""

    def __init__(self, schedule: Schedule, commit: ModuleType, memory: ModuleType):
        self._memory = memory.MemoryLedger()
        self._listeners: list[Any] = []
        self._schedule = schedule
        self._group = commit.GroupCommit(self._commit)

    async def append(self, *items: LedgerRecord) -> int:
        return int(await asyncio.wrap_future(self._group.submit(items, durable=True)))

    def keep(self, *items: LedgerRecord) -> asyncio.Future[int]:
        return asyncio.ensure_future(self.append(*items))

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


def bare_runtime(schedule: Schedule, copies: Copies) -> Any:
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
    ends = SimpleNamespace(close=closed)
    made.gateway = SimpleNamespace(resilience=ends, providers=ends)
    made.refusals = SimpleNamespace(flush=lambda *, last: None)
    made.exporter = made._redaction = made._repeats = None
    made.watch = SimpleNamespace(run=closed, catch_up=lambda _most: None)
    made._lock = made._leases = made.router = made.grading = None
    made.runs = SimpleNamespace(serve=None, unfinished=False, close=lambda: None)
    made._assembly = made.clusters = SimpleNamespace(close=closed)
    made._background = []
    return made


def shutdown(copies: Copies) -> Story:
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

    def touch(self, mode: int) -> None:
        assert mode == 0o600, "what runs are unfinished is the owner's to read"


def start_once(copies: Copies) -> Story:
    """The engine of the workflows starts once, however many ask for it at the same time."""

    def story(schedule: Schedule) -> None:
        started = list[str]()

        class Engine:
            def __init__(self, *_arguments: Any, **_options: Any):
                schedule.step()

            def start(self, _serve: Any) -> None:
                started.append("engine")
                schedule.step()

            def register(self) -> None:
                schedule.step()

        copies.runs.__dict__["Ingest"] = Engine
        folder: Any = _Folder()
        named = {"home": folder, "worker": "main", "left": folder, "database_url": "", "durability": "normal"}
        database = SimpleNamespace(dialect="sqlite")
        runs = copies.runs.Runs(None, None, None, database, None, **named, serve=("vectors",), clock=clock.time)
        found: list[Any] = []
        module = SimpleNamespace(Durable=Engine, EXECUTOR="local")
        with patch.dict("sys.modules", {"windlass.workflows.durable": module}):
            asking = [schedule.spawn(lambda: found.append(runs.ingest), "asks") for _ in range(4)]
            schedule.block(lambda: all(thread.done for thread in asking))
        assert len(started) == 1, f"{len(started)} engines were started"
        assert len(found) == 4
        assert all(one is found[0] for one in found), "callers got different engines"

    return story


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

        running = [schedule.spawn(partial(use, f"u{n}"), "user") for n in range(2)]
        running += [schedule.spawn(made.close, "closer") for _ in range(2)]
        schedule.block(lambda: all(thread.done for thread in running))
        assert ended == [1], f"the runtime was ended {len(ended)} times"

    return story


def seeded_asyncio() -> Any:
    """`asyncio` whose new loops are the schedule's."""
    names = {name: getattr(asyncio, name) for name in dir(asyncio) if not name.startswith("__")}
    return SimpleNamespace(**names | {"new_event_loop": lambda: SeededLoop(Schedule.of_now())})


def copies(**edits: Sequence[tuple[str, str]]) -> Copies:
    """Stepping copies of what a runtime is made of; edits: by the last part of the module's name."""
    of = {
        "commit": "windlass.ledger.commit",
        "memory": "windlass.ledger.memory",
        "projections": "windlass.watch.projections",
        "runs": "windlass.content.runs",
        "runtime": "windlass.runtime",
    }
    return Copies(**{short: stepping(name, *edits.get(short, ())) for short, name in of.items()})
