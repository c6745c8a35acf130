"""The composition root: the only file that knows every part below it. It builds the parts, starts and stops them."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import msgspec
import structlog

from windlass.content.ask import Ask
from windlass.content.ingest import VECTORS, Ingest
from windlass.content.runs import Runs
from windlass.content.store import Contents
from windlass.errors import (
    AccessError,
    InputError,
    LedgerError,
    PolicyError,
    SettingsError,
    WindlassError,
    classify,
)
from windlass.gateway import redaction
from windlass.gateway.access.admission import Admission
from windlass.gateway.access.keys import Keys, secret_of
from windlass.gateway.access.leases import Leases
from windlass.gateway.access.limits import Limits, window
from windlass.gateway.access.store import KeyTable, LeaseTable, spent
from windlass.gateway.assembly import Assembly
from windlass.gateway.feedback import FeedbackRequest
from windlass.gateway.gateway import Gateway
from windlass.gateway.provider import Provider
from windlass.gateway.providers.local import Local
from windlass.gateway.route.store import BasisTable
from windlass.improve.experiments.keeper import BY, DueStep, Keeper
from windlass.improve.warm.store import WarmTable
from windlass.ledger import ids, retention, workers
from windlass.ledger.audit import SYSTEM, Audit
from windlass.ledger.db import STATEMENT_TIMEOUT_MS, Database
from windlass.ledger.folder import own
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
from windlass.settings import Settings, changed
from windlass.watch.clusters import PromptClusters
from windlass.watch.overview import Overview
from windlass.watch.projections import Projections
from windlass.watch.store import Rollups
from windlass.watch.traces import start as traces
from windlass.watch.watch import Watch

if TYPE_CHECKING:
    from windlass.gateway.idempotency import Repeats
    from windlass.gateway.route.router import Router
    from windlass.gateway.transit import Answer, Request
    from windlass.improve.grading.grading import Grading
    from windlass.improve.grading.panel import Seat
    from windlass.improve.warm.warm import WarmStart
    from windlass.workflows.durable import RunStatus

log = structlog.get_logger(__name__)
MAIN = "main"
BEAT_S = 1.0
LAG_LOOK = 20
DAY_S = 86_400.0
# Commits gather before they are folded: the first after a pause for this long,
LEARN_DELAY_S = 0.02
# those of a busy server until so long after the fold before. At 0.02 s each, folding took a third of the CPU time.
LEARN_EVERY_S = 0.25
PRUNE_EVERY_S = 3_600.0
AUDIT_EVERY_S = 60.0
# Of outcomes that the pages' tables lack when a process ends: the next one goes on with the others.
WATCHED_AT_END = 20_000
# So long another worker's new key may be refused, and one that it revoked be let in.
KEYS_EVERY_S = 1.0
AUDITOR = "windlass"


class Runtime:
    """Everything of one process on one state folder. Enter it with `async with`.

    providers: more providers, before those of the settings (tests hand in `Echo`).
    workflows: also run durable workflows; only one process of a folder may (FolderBusy).
    worker: the name of this process in the folder; among those that share a PostgreSQL database it is told apart from
        the workers of other folders and machines, see `Runtime.worker`.
    refused_settings: why the last reload was refused, '' where it was not. pass_on: tells the other processes of the
        server to reload, where there are any.
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
        self.loop = _loop(settings)
        seats = _seats(settings)
        self.embedder = _embedder(settings)
        self._redaction = redaction.make(settings.redaction)
        self._assembly = Assembly(settings, clock, given=providers, own=(Local(self.embedder, clock),))
        # Workers leave the folder to their supervisor.
        self._lock = own(settings.home) if workflows and worker == MAIN else None
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
            self.ledger = SqlLedger(self.db, self.worker, self._redaction)
            sent, upstreams = (settings.telemetry, settings.secrets), lambda: self.settings.providers
            self.exporter = traces.exporter(*sent, upstreams, db=self.db, ledger=self.ledger, clock=clock)
        except BaseException:
            self._let_go()
            raise
        self.rollups = Rollups(self.db)
        self.overview = Overview(self.rollups)
        self.clusters = PromptClusters(self.ledger, settings.reward, clock)
        self.projections = Projections(
            self.ledger, self.loop, self.rollups, make_loop=partial(_loop, settings), clock=clock
        )
        self.audit = Audit(self.db, settings.home / "audit", clock=clock)
        self.refusals = Refusals(self.audit)
        self.memory = Memory(self.db, self.embedder)
        self.contents = Contents(self.db)
        self._secret = secret_of(settings.home, settings.key_secret)
        self.keys = Keys(KeyTable(self.db), self._secret, clock)
        self.keys.refresh()
        self.watch = Watch(
            self.db,
            settled=lambda: self.learner.cursor,
            limits=lambda: (*self.settings.limits, *(limit for key in self.keys.all() for limit in key.limits)),
            clock=clock,
        )
        self._leases = (
            None if self.db.dialect == "sqlite" else Leases(LeaseTable(self.db, ids.new("worker", clock())), clock)
        )
        self.router = self._routing()
        self.gateway = self._assembly.begin(self._gateway())
        self._repeats: Repeats | None = None
        self.grading = self._grading(seats)
        self.warm = self._warm()
        self.ask = self._ask()
        self.refused_settings = ""
        self.pass_on: Callable[[], None] | None = None
        self._reloading = asyncio.Lock()
        left = "runs.unfinished" if worker == MAIN else f"runs.{worker}.unfinished"
        self.runs = self._runs(settings.home / left, tuple(serve) if workflows else None)
        self._background: list[asyncio.Task[None]] = []

    def _gateway(self) -> Callable[..., Gateway]:
        """`Gateway` with all that no settings change."""
        sizes = self.settings.gateway
        return partial(
            Gateway,
            admission=Admission(self.settings.keys, sizes.max_body_bytes, sizes.max_upload_bytes, self.keys),
            loop=self.loop,
            ledger=self.ledger,
            limits=self._limits(),
            clock=self.clock,
            repeats=self._repeating,
            router=self.router,
        )

    def _routing(self) -> Router | None:
        """What tells policies at the point `model` more than lexical features, None where none of them asks for it."""
        options = self.settings.routing
        if options.embedding != "always" and not self.loop.costed and not self.loop.watched:
            return None
        from windlass.gateway.route import router  # for those who route by prompts and prices

        if not router.wanted(options, self.loop):
            return None
        return router.Router(
            options,
            self.loop,
            embedder=self.embedder,
            table=BasisTable(self.db),
            ledger=self.ledger,
            limits=lambda: self.settings.limits,
            clock=self.clock,
        )

    def _runs(self, left: Path, serve: tuple[str, ...] | None) -> Runs:
        settings = self.settings
        return Runs(
            self.contents,
            self.memory,
            self.ledger,
            self.db,
            settings.content,
            home=settings.home,
            worker=self.worker,
            left=left,
            database_url=settings.storage.database_url,
            durability=settings.storage.durability,
            serve=serve,
            clock=self.clock,
        )

    def _limits(self) -> Limits:
        """Alone with its file this process reads what was spent before it; else the database divides each limit."""
        if self._leases is not None:
            return Limits(self.settings.limits, lender=self._leases)
        return Limits(self.settings.limits, spent(self.db, window("month", self.clock() - DAY_S)[0]))

    def _grading(self, seats: tuple[Seat, ...]) -> Grading | None:
        """What grades finished calls, None without graders."""
        if not seats:
            return None
        from windlass.improve.grading.grading import Grading  # most processes have none

        return Grading(
            seats, db=self.db, ledger=self.ledger, complete=self._complete, say=self.feedback, clock=self.clock
        )

    def _warm(self) -> WarmStart | None:
        """What asks every model the first prompts, None where that is off."""
        options = self.settings.routing
        if not options.warm_start_prompts:
            return None
        from windlass.gateway.money.pricelist import PriceBook
        from windlass.improve.warm.forced import InForce
        from windlass.improve.warm.warm import WarmStart  # most processes have none

        def in_force() -> InForce:
            prices = {one.name: (one.kind, one.base_url) for one in self.settings.providers}
            return InForce(self.gateway, self.settings.gateway, PriceBook(prices))

        return WarmStart(options, db=self.db, ledger=self.ledger, loop=self.loop, in_force=in_force, clock=self.clock)

    def _experiments(self) -> Keeper:
        """What takes experiments on by their evidence."""

        async def decide(step: DueStep) -> None:
            await self.roll_out(step.scope, step.change, by=BY, reason=step.reason, evidence=step.evidence, id=step.id)

        def leads() -> bool:
            return self.db.dialect == "sqlite" or min(one.name for one in self.workers()) == self.worker

        return Keeper(lambda: self.learner.trials, decide, leads)

    def _complete(self, request: Request) -> Awaitable[Answer]:
        """An answer of the gateway in force."""
        return self.gateway.complete(request)

    def _ask(self) -> Ask:
        return Ask(self.gateway, self.ledger, self.loop, self.memory, self.contents, self.settings.ask, self.clock)

    async def reload(self, settings: Settings) -> tuple[str, ...]:
        """Put other settings in force between two calls; returns the paths of what they change.

        Calls under way end by those that they began with. SettingsError, and nothing changed, where they cannot work,
        or change what takes a restart.
        """
        async with self._reloading:
            if not (paths := changed(self.settings, settings)):
                return ()
            if new := sorted(settings.decided.keys() - self.loop.points.keys()):
                raise SettingsError(f"there is more for `auto` to choose now, at {', '.join(new)}; restart the server")
            draft = await asyncio.to_thread(self._assembly.draft, settings)
            self.settings, self.gateway = settings, self._assembly.follow(draft)
            self.ask = self._ask()
            if self.router is not None:
                self.router.renew(settings.routing)
            if self._repeats is not None:
                self._repeats.renew(settings.gateway)
            if self._leases is not None:
                try:
                    await self._leases.recall()
                except LedgerError as exc:
                    log.error("limits_wait", reason=str(exc))
            return paths

    def _repeating(self) -> Repeats:
        """What answers requests with an idempotency key."""
        if self._repeats is None:
            from windlass.gateway import idempotency  # brings the cipher, and is for those who send keys

            self._repeats = idempotency.opened(self.db, self._secret, self.settings.gateway, self.clock)
        return self._repeats

    async def __aenter__(self) -> Self:
        await asyncio.to_thread(self.projections.restore)
        if self.router is not None and self.runs.serve is not None:
            await self.router.start()
        await asyncio.to_thread(self._beat)
        if self.exporter is not None:
            await asyncio.to_thread(self.exporter.start)
        committed = asyncio.Event()
        running = asyncio.get_running_loop()

        self.ledger.on_commit(partial(running.call_soon_threadsafe, committed.set))
        work = (self._learn(committed), self._prune(), self.watch.run())
        self._background = [asyncio.create_task(one) for one in work]
        if self.db.dialect != "sqlite":
            self._background.append(asyncio.create_task(self._follow_keys()))
        if self._leases is not None:
            self._background.append(asyncio.create_task(self._leases.run()))
        if self.runs.serve is not None:
            self._background.append(asyncio.create_task(self._experiments().run()))
            await asyncio.to_thread(self.audit.start, AUDITOR, {"worker": self.worker})
            self._background.append(asyncio.create_task(self._auditing()))
            if self.grading is not None:
                self._background.append(asyncio.create_task(self.grading.run()))
            if self.warm is not None:
                self._background.append(asyncio.create_task(self.warm.run()))
        if self.runs.unfinished:
            try:
                await asyncio.to_thread(self.runs.start)
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
        if self._repeats is not None:
            await self._repeats.idle()
        if self._leases is not None:
            await self._leases.idle()
        await self.clusters.close()
        if self.router is not None:
            await self.router.close()
        await self._assembly.close()
        await asyncio.to_thread(self._stop)

    @property
    def ingest(self) -> Ingest:
        """Taking content in, in a process that runs workflows. The first use starts the engine: call it in a thread."""
        return self.runs.ingest

    def run_status(self, scope: Scope, run: str) -> tuple[RunStatus, RunStatus]:
        """How a run of this scope and the embedding that follows it stand. Starts the engine only where it can know."""
        return self.runs.status(scope, run)

    async def feedback(self, scope: Scope, said: FeedbackRequest, extra: Mapping[str, Any] | None = None) -> Feedback:
        """Check and keep one feedback; it is committed when this returns. extra: what a grader tells of its grade.

        What is said of a forgotten user's call counts, but its words are dropped.
        """
        record = said.record(scope, self.clock())
        if extra:
            # A grader has read the call just before, so that it is there: the look below is enough.
            record = msgspec.structs.replace(record, extra=dict(extra))
        elif await self._forgotten(record):
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

    async def roll_out(
        self,
        scope: Scope,
        change: Change,
        *,
        by: str,
        reason: str = "",
        evidence: Mapping[str, Any] | None = None,
        id: str = "",
    ) -> Decision:
        """Change how a point is decided for one tenant's workspace: a recorded decision that all workers follow.

        evidence: the numbers that it was decided by. id: for those of whom several may decide the same; the ledger
        takes it once. PolicyError for a point, a snapshot or a step of an experiment that is not there, also where
        another one came first.
        """
        kept = await asyncio.to_thread(self.projections.choices, change, scope)
        now, reason = self.clock(), self._told(reason)
        name = id or ids.new("decision", now)
        decision = rollout(change, id=name, at=now, scope=scope, by=by, reason=reason, kept=kept, evidence=evidence)
        await self.ledger.append(decision)
        await self.caught_up()
        self.learner.made(change, scope, name)
        told = {"decision": decision.id, "change": decision.action, "reason": reason}
        await asyncio.to_thread(self.audit.append, scope, by, "rollout", told)
        return decision

    async def forget(self, scope: Scope, user: str, *, by: str, reason: str = "") -> int:
        """Delete all that one user left, on every worker and in every snapshot; returns how many rows changed."""
        if not user:
            raise InputError("no user is named; give the `user` that the calls carried")
        now, reason = self.clock(), self._told(reason)
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
        await asyncio.to_thread(WarmTable(self.db).forget, scope, user)
        changed = await asyncio.to_thread(self.projections.erase, erasure)
        self.clusters.forget(scope)
        if self.router is not None:
            self.router.forget(scope)
        told = {"erasure": erasure.id, "user": erasure.user, "changed": changed, "reason": reason}
        await asyncio.to_thread(self.audit.append, scope, by, "forget", told)
        return changed

    def _told(self, reason: str) -> str:
        """What somebody gave as a reason, as the trail may hold it, where nothing can be forgotten."""
        return self._redaction.text(reason) if self._redaction is not None else reason

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
        return {one.name: self.lag_s(one.cursor) for one in self.workers()}

    def lag_s(self, cursor: int) -> float:
        """The age of the first entry after `cursor`; what is imported was old when it came, and is looked past."""
        waiting = self.ledger.read(ALL, after=cursor, limit=LAG_LOOK)
        own = [record.at for _, record in waiting if isinstance(record, Decision) or not ids.is_imported(record.id)]
        return max(0.0, self.clock() - own[0]) if own else 0.0

    def replay(self) -> tuple[int, str, str]:
        """(cursor, digest of the live policies, digest of policies folded again up to the same cursor)."""
        return self.projections.replay()

    async def _learn(self, committed: asyncio.Event) -> None:
        """Fold what was committed, soon after it is. A ledger that cannot be read now is tried again."""
        folded_s = -LEARN_EVERY_S
        while True:
            try:
                async with asyncio.timeout(BEAT_S):
                    await committed.wait()
                await asyncio.sleep(max(LEARN_DELAY_S, folded_s + LEARN_EVERY_S - time.monotonic()))
                committed.clear()
            except TimeoutError:
                pass
            try:
                await asyncio.to_thread(self.projections.follow)
                await asyncio.to_thread(self._beat)
                folded_s = time.monotonic()
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

    def _stop(self) -> None:
        try:
            self.runs.close()
            self.ledger.close()
            self.projections.catch_up()
            self.projections.keep()
            self.watch.catch_up(WATCHED_AT_END)
            if self.exporter is not None:
                self.exporter.close()
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
            if self.runs.serve is not None:
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
        return Loop(settings.decided, settings.reward)
    except PolicyError as exc:
        raise SettingsError(f"points: {exc}") from exc


def _seats(settings: Settings) -> tuple[Seat, ...]:
    """The graders of the settings. SettingsError names the one that cannot work."""
    if not settings.graders:
        return ()
    from windlass.improve.grading.panel import seats  # brings every grader, for those who set one

    return seats(settings.graders)


def _embedder(settings: Settings) -> Embedder | None:
    """The embedder, or None where it is switched off or not installed (`doctor` says which)."""
    if settings.memory.embedder == "off" or not embedders.available():
        return None
    return embedders.Lazy(settings.cache)
