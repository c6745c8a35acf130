"""The composition root: the only file that knows every part below it. It builds the parts, starts and stops them."""

from __future__ import annotations

import asyncio
import fcntl
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from random import Random
from types import TracebackType
from typing import TYPE_CHECKING, Self

import msgspec
import structlog

from windlass.content.ask import Ask
from windlass.content.ingest import VECTORS, Ingest, owns
from windlass.content.store import Contents
from windlass.errors import (
    AccessError,
    FolderBusy,
    InputError,
    LedgerError,
    PolicyError,
    SettingsError,
    WindlassError,
    classify,
)
from windlass.gateway.admission import Admission
from windlass.gateway.feedback import FeedbackRequest
from windlass.gateway.gateway import Gateway
from windlass.gateway.keys import Keys, secret_of
from windlass.gateway.leases import Leases
from windlass.gateway.limits import Limits, window
from windlass.gateway.local import Local
from windlass.gateway.pricelist import PriceBook
from windlass.gateway.provider import Provider, Providers
from windlass.gateway.resilience import Resilience
from windlass.gateway.store import KeyTable, LeaseTable, spent
from windlass.ledger import ids, retention, workers
from windlass.ledger.audit import SYSTEM, Audit
from windlass.ledger.db import STATEMENT_TIMEOUT_MS, Database, make_folder
from windlass.ledger.integrity import half_restored
from windlass.ledger.ledger import ALL
from windlass.ledger.refusals import Refusals
from windlass.ledger.sql import SqlLedger
from windlass.memory import embedder as embedders
from windlass.memory.embedder import Embedder
from windlass.memory.store import Memory
from windlass.policies.loop import Loop
from windlass.policies.replay import Learner
from windlass.policies.rollout import Change, rollout
from windlass.records import USER_CHARS, Decision, Erasure, Feedback, Scope, user_digest
from windlass.settings import Settings
from windlass.watch.overview import Overview
from windlass.watch.projections import Projections
from windlass.watch.store import Rollups

if TYPE_CHECKING:
    from windlass.workflows.durable import Durable, RunStatus

log = structlog.get_logger(__name__)
MAIN = "main"
BEAT_S = 1.0
# A worker that has not been heard of for so long is not waited for: another one goes on with its runs.
GONE_S = 60.0
DAY_S = 86_400.0
# Commits gather for this long before they are folded, so that learning costs a busy server one read per batch.
LEARN_DELAY_S = 0.02
PRUNE_EVERY_S = 3_600.0
AUDIT_EVERY_S = 60.0
# So long another worker's new key may be refused, and one that it revoked be let in.
KEYS_EVERY_S = 1.0
AUDITOR = "windlass"


class Runtime:
    """Everything of one process on one state folder. Enter it with `async with`.

    providers: more providers, before those of the settings (tests hand in `Echo`).
    workflows: also run durable workflows; only one process of a folder may (FolderBusy).
    worker: the name of this process in the folder; among those that share a PostgreSQL database it is told apart from
        the workers of other folders and machines, see `Runtime.worker`.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        providers: Iterable[Provider] = (),
        workflows: bool = False,
        serve: Iterable[str] = (VECTORS,),
        clock: Callable[[], float] = time.time,
        worker: str = MAIN,
    ):
        self.settings = settings
        self.clock = clock
        self.worker = worker if isinstance(settings.database, Path) else workers.unique(worker, settings.home)
        self._serve = tuple(serve) if workflows else None
        self.loop = _loop(settings)
        self.embedder = _embedder(settings)
        every = Providers([*providers, *_upstreams(settings), Local(self.embedder, clock)])
        # Workers leave the folder to their supervisor.
        self._lock = _own(settings.home) if workflows and worker == MAIN else None
        try:
            if cut := half_restored(settings.home):
                raise LedgerError(cut)
            storage = settings.storage
            self.db = Database(
                settings.database,
                durability=storage.durability,
                connections=storage.connections,
                statement_ms=STATEMENT_TIMEOUT_MS,
            )
            self.db.migrate()
            if self.db.half_moved():
                raise LedgerError("this database is half of a move; run `windlass db move` again, to its end")
            self.ledger = SqlLedger(self.db, self.worker)
        except BaseException:
            self._let_go()
            raise
        self.rollups = Rollups(self.db)
        self.overview = Overview(self.rollups)
        self.projections = Projections(
            self.ledger, self.loop, self.rollups, make_loop=partial(_loop, settings), clock=clock
        )
        self.audit = Audit(self.db, settings.home / "audit", clock=clock)
        self.refusals = Refusals(self.audit)
        self.memory = Memory(self.db, self.embedder)
        self.contents = Contents(self.db)
        self.keys = Keys(KeyTable(self.db), secret_of(settings.home, settings.key_secret), clock)
        self.keys.refresh()
        self._leases = (
            None if self.db.dialect == "sqlite" else Leases(LeaseTable(self.db, ids.new("worker", clock())), clock)
        )
        self.gateway = Gateway(
            admission=Admission(
                settings.keys, settings.gateway.max_body_bytes, settings.gateway.max_upload_bytes, self.keys
            ),
            providers=every,
            loop=self.loop,
            ledger=self.ledger,
            options=settings.gateway,
            prices=PriceBook({one.name: (one.kind, one.base_url) for one in settings.providers}),
            limits=self._limits(),
            resilience=Resilience(
                settings.resilience, clock=clock, monotonic=time.monotonic, sleep=asyncio.sleep, rng=Random()
            ),
            clock=clock,
        )
        self.ask = Ask(self.gateway, self.ledger, self.loop, self.memory, self.contents, settings.ask, clock)
        self._unfinished = settings.home / ("runs.unfinished" if worker == MAIN else f"runs.{worker}.unfinished")
        self._starting = threading.Lock()
        self._durable: Durable | None = None
        self._ingest: Ingest | None = None
        self._background: list[asyncio.Task[None]] = []

    def _limits(self) -> Limits:
        """Alone with its file this process reads what was spent before it; else the database divides each limit."""
        if self._leases is not None:
            return Limits(self.settings.limits, lender=self._leases)
        return Limits(self.settings.limits, spent(self.db, window("month", self.clock() - DAY_S)[0]))

    async def __aenter__(self) -> Self:
        await asyncio.to_thread(self.projections.restore)
        await asyncio.to_thread(self._beat)
        committed = asyncio.Event()
        running = asyncio.get_running_loop()

        self.ledger.on_commit(partial(running.call_soon_threadsafe, committed.set))
        self._background = [asyncio.create_task(self._learn(committed)), asyncio.create_task(self._prune())]
        if self.db.dialect != "sqlite":
            self._background.append(asyncio.create_task(self._follow_keys()))
        if self._leases is not None:
            self._background.append(asyncio.create_task(self._leases.run()))
        if self._serve is not None:
            await asyncio.to_thread(self.audit.start, AUDITOR, {"worker": self.worker})
            self._background.append(asyncio.create_task(self._auditing()))
        if self._serve is not None and self._unfinished.exists():
            try:
                await asyncio.to_thread(self._start_workflows)
            except WindlassError:
                await self.__aexit__(None, None, None)
                raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        for task in self._background:
            task.cancel()
        await asyncio.gather(*self._background, return_exceptions=True)
        if self._leases is not None:
            await self._leases.idle()
        await self.gateway.resilience.close()
        await self.gateway.providers.close()
        await asyncio.to_thread(self._stop)

    @property
    def ingest(self) -> Ingest:
        """Taking content in, in a process that runs workflows. The first use starts the engine: call it in a thread."""
        return self._ingest or self._start_workflows()

    def run_status(self, scope: Scope, run: str) -> tuple[RunStatus, RunStatus]:
        """How a run of this scope and the embedding that follows it stand. Starts the engine only where it can know."""
        idle = self._ingest is None and not self._unfinished.exists() and self.db.dialect == "sqlite"
        if idle or not owns(scope, run):
            return "unknown", "unknown"
        return self.ingest.status(scope, run)

    async def feedback(self, scope: Scope, said: FeedbackRequest) -> Feedback:
        """Check and keep one feedback; it is committed when this returns.

        What is said of a forgotten user's call counts, but its words are dropped.
        """
        record = said.record(scope, self.clock())
        if await self._forgotten(record):
            record = msgspec.structs.replace(record, comment="")
        await self.ledger.append(record)
        # The user may have been forgotten meanwhile; `erase` takes what was committed before it named the calls.
        if await self._forgotten(record):
            await asyncio.to_thread(retention.silence, self.db, record)
            record = msgspec.structs.replace(record, comment="")
        return record

    async def _forgotten(self, said: Feedback) -> bool:
        """Whether there are words in a feedback on what was a forgotten user's."""
        if not said.comment:
            return False
        return await asyncio.to_thread(retention.forgotten, self.db, said.scope, said.target)

    async def refused(self, peer: str, key: str, exc: AccessError) -> None:
        """Note in the audit trail that someone was not let in; never with the key itself."""
        if self.refusals.count(peer, key, classify(exc).value):
            await asyncio.to_thread(self.refusals.flush)

    @property
    def learner(self) -> Learner:
        """The fold that moves the policies."""
        return self.projections.learner

    async def caught_up(self) -> None:
        """Return once every projection has seen what is committed now."""
        await asyncio.to_thread(self.projections.catch_up)

    async def roll_out(self, scope: Scope, change: Change, *, by: str, reason: str = "") -> Decision:
        """Switch a point's mode, or roll its policy back, for one tenant: a recorded decision that all workers follow.

        PolicyError for a point or a snapshot that is not there.
        """
        kept = await asyncio.to_thread(self.projections.choices, change)
        now = self.clock()
        decision = rollout(change, id=ids.new("decision", now), at=now, scope=scope, by=by, reason=reason, kept=kept)
        await self.ledger.append(decision)
        await self.caught_up()
        told = {"decision": decision.id, "change": decision.action, "reason": reason}
        await asyncio.to_thread(self.audit.append, scope, by, "rollout", told)
        return decision

    async def forget(self, scope: Scope, user: str, *, by: str, reason: str = "") -> int:
        """Delete all that one user left, on every worker and in every snapshot; returns how many rows changed."""
        if not user:
            raise InputError("no user is named; give the `user` that the calls carried")
        now = self.clock()
        erasure = Erasure(
            id=ids.new("erasure", now),
            at=now,
            tenant=scope.tenant,
            workspace=scope.workspace,
            user=user_digest(scope, user[:USER_CHARS]),
        )
        place = await self.ledger.append(erasure)
        await self.caught_up()
        await self._all_at(place)
        changed = await asyncio.to_thread(self.projections.erase, erasure)
        told = {"erasure": erasure.id, "user": erasure.user, "changed": changed, "reason": reason}
        await asyncio.to_thread(self.audit.append, scope, by, "forget", told)
        return changed

    async def _all_at(self, place: int) -> None:
        """Wait until every living worker has learned from the entry at `place`. LedgerError where one hangs."""
        for _ in range(200):
            await asyncio.to_thread(self._beat)
            behind = [one.name for one in await asyncio.to_thread(self.workers) if one.cursor < place]
            if not behind:
                return
            await asyncio.sleep(0.05)
            await self.caught_up()
        raise LedgerError(f"workers {', '.join(behind)} do not follow the ledger; restart them and forget again")

    def workers(self) -> list[workers.Worker]:
        """The living workers of this database, and how far each has learned."""
        return workers.alive(self.db, self.clock())

    def lags(self) -> dict[str, float]:
        """How long each living worker has not learned from what is in the ledger, in seconds; 0 where it is level."""
        return {one.name: self._lag_s(one.cursor) for one in self.workers()}

    def _lag_s(self, cursor: int) -> float:
        """The age of the first entry after `cursor`."""
        waiting = self.ledger.read(ALL, after=cursor, limit=1)
        return max(0.0, self.clock() - waiting[0].record.at) if waiting else 0.0

    def replay(self) -> tuple[int, str, str]:
        """(cursor, digest of the live policies, digest of policies folded again up to the same cursor)."""
        return self.projections.replay()

    async def _learn(self, committed: asyncio.Event) -> None:
        """Fold what was committed, as soon as it is. A ledger that cannot be read now is tried again."""
        while True:
            try:
                async with asyncio.timeout(BEAT_S):
                    await committed.wait()
                await asyncio.sleep(LEARN_DELAY_S)
                committed.clear()
            except TimeoutError:
                pass
            try:
                await self.caught_up()
                await asyncio.to_thread(self._beat)
            except LedgerError as exc:
                log.error("learning_waits", reason=str(exc))
                await asyncio.sleep(1.0)
                committed.set()
            except Exception as exc:  # noqa: BLE001 (a plugged-in policy's state may raise anything; the rest goes on)
                log.error("learning_failed", reason=f"{type(exc).__name__}: {exc}")
                await asyncio.sleep(1.0)

    def _beat(self) -> None:
        if self.db.dialect != "sqlite":
            workers.beat(self.db, self.worker, os.getpid(), self.clock(), self.learner.cursor)

    async def _auditing(self) -> None:
        """Seal and sign what came, every minute."""
        while True:
            try:
                await asyncio.to_thread(self.refusals.flush)
                await asyncio.to_thread(self.audit.tick)
            except LedgerError as exc:
                log.error("auditing_waits", reason=str(exc))
            await asyncio.sleep(AUDIT_EVERY_S)

    async def _follow_keys(self) -> None:
        """Read the keys again where another process of the database has changed them: a look at one row otherwise."""
        while True:
            await asyncio.sleep(KEYS_EVERY_S)
            try:
                await asyncio.to_thread(self.keys.refresh)
            except LedgerError as exc:
                log.error("keys_wait", reason=str(exc))

    async def _prune(self) -> None:
        while True:
            try:
                bodies = await asyncio.to_thread(self.ledger.prune, self.clock())
                before = self.clock() - self.settings.storage.context_days * DAY_S
                contexts = await asyncio.to_thread(self.projections.prune_contexts, before)
                if bodies or contexts:
                    told = {"bodies": bodies, "contexts": contexts}
                    await asyncio.to_thread(self.audit.append, SYSTEM, AUDITOR, "prune", told)
            except LedgerError as exc:
                log.error("pruning_waits", reason=str(exc))
            await asyncio.sleep(PRUNE_EVERY_S)

    def _start_workflows(self) -> Ingest:
        """Start the engine: with the first run, or at once where a process died with runs unfinished."""
        if self._serve is None:
            raise FolderBusy(f"this process does not run the workflows of {self.settings.home}; use its server")
        with self._starting:
            if self._ingest is None:
                from windlass.workflows.durable import EXECUTOR, Durable  # 2 s from cold and 20 MB: only for a run

                self._unfinished.touch(mode=0o600)
                storage, alone = self.settings.storage, self.db.dialect == "sqlite"
                durable = Durable(
                    self.settings.home / "runs.db" if alone else storage.database_url,
                    self.ledger,
                    durability=storage.durability,
                    executor=EXECUTOR if alone else self.worker,
                )
                ingest = Ingest(self.contents, self.memory, durable, self.settings.content, self.clock)
                ingest.register()
                durable.start(self._serve)
                if not alone:
                    # What a worker left that is gone for good, or that stood in a database restored elsewhere.
                    durable.take_over(workers.awaited(self.db, self.clock() - GONE_S, self.worker))
                self._durable, self._ingest = durable, ingest
            return self._ingest

    def _stop(self) -> None:
        try:
            if self._durable is not None:
                self._durable.drain()
                if not self._durable.unfinished():
                    self._unfinished.unlink(missing_ok=True)
                self._durable.close()
            self.ledger.close()
            self.projections.catch_up()
            self.projections.keep()
            self.refusals.flush(last=True)
            self._sign_off()
            if self._leases is not None:
                self._leases.leave()
                workers.leave(self.db, self.worker)
        finally:
            self.db.close()
            self._let_go()

    def _sign_off(self) -> None:
        """The trail's last row. What keeps it from being written keeps nobody from stopping."""
        try:
            if self._serve is not None:
                self.audit.stop(AUDITOR)
        except LedgerError as exc:
            log.error("auditing_ends_unsigned", reason=str(exc))

    def _let_go(self) -> None:
        """Free the folder for another process."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None


def _loop(settings: Settings) -> Loop:
    """A loop that has learned nothing."""
    try:
        return Loop(settings.points, settings.reward)
    except PolicyError as exc:
        raise SettingsError(f"points: {exc}") from exc


@contextmanager
def owned(home: Path) -> Iterator[None]:
    """Own the state folder for a while. FolderBusy where another process does."""
    lock = _own(home)
    try:
        yield
    finally:
        os.close(lock)


def _own(home: Path) -> int:
    """The lock of the state folder; FolderBusy where another process holds it. The kernel frees it on any death."""
    make_folder(home)
    try:
        lock = os.open(home / "owner.lock", os.O_CREAT | os.O_RDWR, 0o600)
    except OSError as exc:
        raise LedgerError(f"{home} cannot be written: {exc}; set WINDLASS_HOME to a folder of yours") from exc
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        raise FolderBusy(f"another windlass process works on {home}; wait for it, or stop it") from None
    return lock


def _embedder(settings: Settings) -> Embedder | None:
    """The embedder, or None where it is switched off or not installed (`doctor` says which)."""
    if settings.memory.embedder == "off" or not embedders.available():
        return None
    return embedders.Lazy(settings.cache)


def _upstreams(settings: Settings) -> list[Provider]:
    if not settings.providers:
        return []
    from windlass.gateway import upstreams

    return [upstreams.make(options, settings.secrets.get(options.name, "")) for options in settings.providers]
