"""The workflows of one process: their engine starts with the first run, or at once where runs were left unfinished."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from windlass.content.ingest import Ingest, owns
from windlass.content.options import ContentOptions
from windlass.content.store import Contents
from windlass.errors import FolderBusy
from windlass.ledger import workers
from windlass.ledger.db import Database, Durability
from windlass.ledger.ledger import Ledger
from windlass.memory.store import Memory
from windlass.records import Scope

if TYPE_CHECKING:
    from windlass.workflows.durable import Durable, RunStatus

# A worker that has not been heard of for so long is not waited for: another one goes on with its runs.
GONE_S = 60.0
DATABASE = "runs.db"


class Runs:
    """Everything about runs that a process needs. Safe to use from many threads.

    home: the state folder. worker: the name of this process. left: the file that stands there while runs are
    unfinished. database_url: where the engine works, '' for a file in the folder. serve: the queues that this process
    works on; None: it runs no workflows. clock: UTC seconds.
    """

    def __init__(
        self,
        contents: Contents,
        memory: Memory,
        ledger: Ledger,
        db: Database,
        options: ContentOptions,
        *,
        home: Path,
        worker: str,
        left: Path,
        database_url: str,
        durability: Durability,
        serve: tuple[str, ...] | None,
        clock: Callable[[], float],
    ):
        self._contents, self._memory = contents, memory
        self._ledger, self._db = ledger, db
        self._options = options
        self._home = home
        self._worker = worker
        self._left = left
        self._database_url = database_url
        self._durability = durability
        self.serve = serve
        self._clock = clock
        self._starting = threading.Lock()
        self._durable: Durable | None = None
        self._ingest: Ingest | None = None

    @property
    def unfinished(self) -> bool:
        """Whether this process is to go on with what one before it left."""
        return self.serve is not None and self._left.exists()

    @property
    def ingest(self) -> Ingest:
        """Taking content in. The first use starts the engine: call it in a thread. FolderBusy where none may run."""
        return self._ingest or self.start()

    def status(self, scope: Scope, run: str) -> tuple[RunStatus, RunStatus]:
        """How a run of this scope and the embedding that follows it stand. Starts the engine only where it can know."""
        idle = self._ingest is None and not self._left.exists() and self._db.dialect == "sqlite"
        if idle or not owns(scope, run):
            return "unknown", "unknown"
        return self.ingest.status(scope, run)

    def start(self) -> Ingest:
        """Start the engine, unless it runs."""
        if self.serve is None:
            raise FolderBusy(f"this process does not run the workflows of {self._home}; use its server")
        with self._starting:
            if self._ingest is None:
                from windlass.workflows.durable import EXECUTOR, Durable  # 2 s from cold and 20 MB: only for a run

                self._left.touch(mode=0o600)
                alone = self._db.dialect == "sqlite"
                durable = Durable(
                    self._home / DATABASE if alone else self._database_url,
                    self._ledger,
                    durability=self._durability,
                    executor=EXECUTOR if alone else self._worker,
                )
                ingest = Ingest(self._contents, self._memory, durable, self._options, self._clock)
                ingest.register()
                durable.start(self.serve)
                if not alone:
                    # What a worker left that is gone for good, or that stood in a database restored elsewhere.
                    durable.take_over(workers.awaited(self._db, self._clock() - GONE_S, self._worker))
                self._durable, self._ingest = durable, ingest
            return self._ingest

    def close(self) -> None:
        """Let the steps under way end; runs that are not finished go on with the next process."""
        if self._durable is None:
            return
        self._durable.drain()
        if not self._durable.unfinished():
            self._left.unlink(missing_ok=True)
        self._durable.close()
