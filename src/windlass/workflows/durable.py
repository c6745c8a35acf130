"""Workflows that survive kill -9: each finished step is checkpointed, a new start goes on where the old one died.

DBOS underneath, with an engine of our own. On SQLite: its default journal costs about 20 ms a step, WAL 2 to 3 ms
(docs/adr/0004). On PostgreSQL: its tables live in a schema of their own beside ours, and it polls instead of listening,
because a listener is one connection more than the pool allows. A workflow is a plain function `f(run, *args)`; whatever
it does must happen in `run.step`.
"""

from __future__ import annotations

import logging
import threading
import time
import traceback
from collections.abc import Callable, Collection, Iterable
from pathlib import Path
from typing import Any, Literal, Protocol

import msgspec
import structlog
from dbos import DBOS, DBOSClient, DBOSConfig, DBOSPortableJSONSerializer, SetWorkflowID, WorkflowHandle
from dbos import error as dbos_error

from windlass.errors import WorkflowError, classify
from windlass.ledger.db import Database, DatabaseError, Durability, workflow_engine
from windlass.ledger.ledger import Ledger
from windlass.ledger.move import has_table
from windlass.records import RunEvent, Scope, StepResult

log = structlog.get_logger(__name__)
QUEUE_POLL_S = 0.25
EXECUTOR = "local"
CONNECTIONS = 3
SCHEMA = "windlass_runs"
# Recovery only picks up runs of the same version; raise it when the order of a workflow's steps changes.
VERSION = "1"

Workflow = Callable[..., None]
RunStatus = Literal["waiting", "running", "done", "broken", "unknown"]
_STATUS: dict[str, RunStatus] = {"ENQUEUED": "waiting", "DELAYED": "waiting", "PENDING": "running", "SUCCESS": "done"}


class Run(Protocol):
    """What a workflow function gets: its id and a way to do durable steps."""

    id: str

    def step(self, name: str, scope: Scope, item: str, action: Callable[..., Any], *args: Any) -> StepResult: ...

    def enqueue(self, workflow: str, *args: Any) -> None: ...


class _OneLine(logging.Handler):
    """What the library logs, as one line in our own log: its causes come to us as exceptions, with their tracebacks."""

    def emit(self, record: logging.LogRecord) -> None:
        exc = record.exc_info[1] if record.exc_info else None
        first = next(iter(record.getMessage().splitlines()), "")
        cause = {"error": classify(exc).value, "reason": str(exc).partition("\n")[0]} if exc else {}
        log.log(record.levelno, "workflow_library", said=first, **cause)


class Stopped(BaseException):
    """Leaves a run pending. Not an Exception, so that neither a workflow nor the engine takes it for a failure."""


class Durable:
    """The engine of one process. Register workflows, `start`, then `submit` runs and wait for them.

    where: the path of an SQLite file, or the URL of a PostgreSQL database, in which it uses the schema `windlass_runs`.
    executor: the name of this worker; the next process of the same name recovers its runs.
    connections: how many it opens at most on PostgreSQL, at least 2.
    """

    def __init__(
        self,
        where: Path | str,
        ledger: Ledger,
        *,
        durability: Durability = "normal",
        executor: str = EXECUTOR,
        connections: int = CONNECTIONS,
    ):
        self._where = where
        self._ledger = ledger
        self._durability = durability
        self._executor = executor
        self._connections = connections
        self._workflows: dict[str, Workflow] = {}
        self._registered: dict[str, Callable[..., None]] = {}
        self._engine: Any = None
        self._stopping = threading.Event()
        self._ended = threading.Condition()
        self._running = 0

    def register(self, name: str, workflow: Workflow) -> None:
        """Make `workflow` known under `name`; before `start`, so that recovery can find it."""
        self._workflows[name] = workflow

    def start(self, serve: Iterable[str]) -> None:
        """Open the engine and recover the runs that a killed process of this name left behind.

        serve: which queues this process works on; a run on another queue waits for a process that serves it.
        """
        _quiet()
        here: DBOSConfig = {}
        if isinstance(self._where, Path):
            self._engine = workflow_engine(self._where, self._durability)
        else:
            self._engine = Database(self._where, connections=self._connections).engine
            here = {"dbos_system_schema": SCHEMA, "use_listen_notify": False}
        config: DBOSConfig = {
            **here,
            "name": "windlass",
            "system_database_url": self._engine.url.render_as_string(hide_password=False),
            "system_database_engine": self._engine,
            "application_version": VERSION,
            "executor_id": self._executor,
            "log_level": "ERROR",
            "serializer": DBOSPortableJSONSerializer(),
            "max_executor_threads": 8,
            "scheduler_polling_interval_sec": 30.0,
        }
        try:
            DBOS(config=config)
            for name, workflow in self._workflows.items():
                self._registered[name] = DBOS.workflow(name=name)(self._bound(name, workflow))
            DBOS.listen_queues(list(serve))
            DBOS.launch()
            for name in self._workflows:
                DBOS.register_queue(name, worker_concurrency=1, polling_interval_sec=QUEUE_POLL_S)
        except (dbos_error.DBOSException, DatabaseError) as exc:
            where = self._engine.url.render_as_string(hide_password=True)
            self.close()
            raise WorkflowError(f"the workflow engine on {where} did not start: {exc}; run `windlass doctor`") from exc

    def submit(self, workflow: str, run_id: str, *args: Any) -> Handle:
        """Start a run at once. The same `run_id` again is the same run."""
        with SetWorkflowID(run_id):
            return Handle(run_id, DBOS.start_workflow(self._registered[workflow], *args))

    def enqueue(self, workflow: str, run_id: str, *args: Any) -> Handle:
        """Put a run on its workflow's queue: one at a time, by whichever process serves the queue."""
        with SetWorkflowID(run_id):
            return Handle(run_id, DBOS.enqueue_workflow(workflow, self._registered[workflow], *args))

    def status(self, run_id: str) -> RunStatus:
        """How a run stands: waiting, running, done, broken or unknown."""
        found = DBOS.list_workflows(workflow_ids=[run_id], load_input=False, load_output=False)
        return _STATUS.get(str(found[0].status), "broken") if found else "unknown"

    @property
    def stopping(self) -> bool:
        """No step may start any more."""
        return self._stopping.is_set()

    def unfinished(self) -> int:
        """How many runs are pending or enqueued."""
        return len(DBOS.list_workflows(status=["PENDING", "ENQUEUED"], load_input=False, load_output=False))

    def take_over(self, living: Collection[str]) -> int:
        """Put the runs of workers that are gone for good back on a queue; returns how many.

        living: the names of all workers that run, or will be started again. Any of them goes on with such a run.
        """
        pending = DBOS.list_workflows(status="PENDING", load_input=False, load_output=False)
        gone = [run.workflow_id for run in pending if run.executor_id not in {*living, self._executor}]
        for run in gone:
            DBOS.resume_workflow(run)
        return len(gone)

    def drain(self, patience_s: float = 5.0) -> None:
        """Let the steps that run now end, and start no other; the runs stay pending for the next process."""
        self._stopping.set()
        with self._ended:
            self._ended.wait_for(lambda: self._running == 0, patience_s)

    def close(self) -> None:
        """Stop. What is left is recovered by the next start."""
        if self._engine is None:
            return
        self.drain()
        DBOS.destroy(destroy_registry=True)
        self._engine.dispose()
        self._engine = None

    def _bound(self, name: str, workflow: Workflow) -> Callable[..., None]:
        """The function that the engine runs: `workflow` with a `Run` in front of its arguments."""

        def run(*args: Any) -> None:
            with self._ended:
                self._running += 1
            try:
                workflow(_Steps(str(DBOS.workflow_id), name, self, self._ledger), *args)
            finally:
                with self._ended:
                    self._running -= 1
                    self._ended.notify_all()

        run.__qualname__ = name
        return run


def _quiet() -> None:
    """Errors alone, through `_OneLine`; the library adds a handler of its own where it finds none."""
    library = logging.getLogger("dbos")
    library.setLevel(logging.ERROR)
    library.propagate = False
    library.handlers = [_OneLine()]


def unfinished(where: Path | str) -> int:
    """How many runs are pending or enqueued in an engine that does not run, without running them. See `Durable`."""
    here = isinstance(where, Path)
    if isinstance(where, Path) and not where.exists():
        return 0
    db = Database(where, connections=2)
    try:
        if not has_table(db, "workflow_status", None if here else SCHEMA):
            return 0
        client = DBOSClient(
            system_database_engine=db.engine, dbos_system_schema=SCHEMA, serializer=DBOSPortableJSONSerializer()
        )
        return len(client.list_workflows(status=["PENDING", "ENQUEUED"], load_input=False, load_output=False))
    except (dbos_error.DBOSException, DatabaseError) as exc:
        raise WorkflowError(f"the runs cannot be read: {exc}; run `windlass doctor`") from exc
    finally:
        db.close()


class Handle:
    """A started run."""

    def __init__(self, run: str, handle: WorkflowHandle[None]):
        self.run = run
        self._handle = handle

    def wait(self) -> None:
        """Block until the run ended; WorkflowError where it broke (its steps only report)."""
        try:
            self._handle.get_result()
        except Exception as exc:
            raise WorkflowError(f"run {self.run} broke: {exc}; its steps are in the ledger") from exc


class _Steps:
    """A `Run` on the engine."""

    def __init__(self, run_id: str, workflow: str, durable: Durable, ledger: Ledger):
        self.id = run_id
        self._workflow = workflow
        self._durable = durable
        self._ledger = ledger

    def step(self, name: str, scope: Scope, item: str, action: Callable[..., Any], *args: Any) -> StepResult:
        """Do `action(*args)` once, however often the process dies: its result is checkpointed.

        An exception becomes a failed StepResult with its category; the run goes on and decides.
        """

        if self._durable.stopping:
            raise Stopped(f"run {self.id} stops before {name}:{item}; the next start goes on there")

        def once() -> Any:
            result = _attempt(action, args)
            self._ledger.append_now(self._event(name, scope, item, result))
            return msgspec.to_builtins(result)

        return msgspec.convert(DBOS.run_step({"name": f"{name}:{item}"}, once), StepResult)

    def enqueue(self, workflow: str, *args: Any) -> None:
        """Hand work to another workflow's queue, exactly once per run."""
        self._durable.enqueue(workflow, f"{self.id}-{workflow}", *args)

    def _event(self, name: str, scope: Scope, item: str, result: StepResult) -> RunEvent:
        """What a step left behind. The id is derived, so that a repeated step stays one event."""
        return RunEvent(
            id=f"event_{self.id}_{name}_{item}",
            at=time.time(),
            tenant=scope.tenant,
            workspace=scope.workspace,
            run=self.id,
            workflow=self._workflow,
            step=name,
            item=item,
            result=result,
        )


def _attempt(action: Callable[..., Any], args: tuple[Any, ...]) -> StepResult:
    started = time.perf_counter()
    try:
        value = action(*args)
        result = value if isinstance(value, StepResult) else StepResult(status="ok", value=value)
    except Exception as exc:  # noqa: BLE001 (a step may run anything; what it raised is its result)
        category = classify(exc).value
        log.info("step_failed", error=category, message=str(exc), where=traceback.format_exc(limit=-1))
        result = StepResult(status="failed", error=category, message=str(exc)[:500])
    return msgspec.structs.replace(result, duration_ms=(time.perf_counter() - started) * 1000)
