"""Workflows on PostgreSQL: a schema of their own, few connections, recovered by name or taken over."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest

from windlass.errors import WorkflowError
from windlass.ledger.ledger import ALL
from windlass.ledger.memory import MemoryLedger
from windlass.records import Scope
from windlass.workflows.durable import CONNECTIONS, SCHEMA, Durable, Run, unfinished

pytestmark = pytest.mark.scenario
SCOPE = Scope()
PATIENCE_S = 20.0
CHILD = """
import sys, time
from pathlib import Path
from windlass.ledger.memory import MemoryLedger
from windlass.records import Scope
from windlass.workflows.durable import Durable

def noting(run, file, steps):
    for number in range(steps):
        run.step("note", Scope(), str(number), note, file, number)

def note(file, number):
    with open(file, "a") as out:
        out.write(f"{number}\\n")
    time.sleep(0.05)

if __name__ == "__main__":
    url, executor, file = sys.argv[1:]
    durable = Durable(url, MemoryLedger(), executor=executor)
    durable.register("noting", noting)
    durable.start([])
    durable.submit("noting", f"run_{executor}", file, 40)
    time.sleep(60)
"""


def noting(run: Run, file: str, steps: int) -> None:
    for number in range(steps):
        run.step("note", SCOPE, str(number), _note, file, number)


def _note(file: str, number: int) -> None:
    with Path(file).open("a") as out:
        out.write(f"{number}\n")


def _until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def _killed_worker(url: str, executor: str, folder: Path) -> Path:
    """Run a worker until it has done some steps, then SIGKILL it; the file of what it did."""
    done = folder / f"{executor}.txt"
    child = subprocess.Popen([sys.executable, "-c", CHILD, url, executor, str(done)], stdin=subprocess.DEVNULL)
    _until(lambda: done.exists() and len(done.read_text().splitlines()) >= 3)
    child.send_signal(signal.SIGKILL)
    child.wait()
    return done


@pytest.fixture
def durable(database_url: str) -> Iterator[Durable]:
    """A worker of the name `worker-0`, not started yet."""
    made = Durable(database_url, MemoryLedger(), executor="worker-0")
    made.register("noting", noting)
    yield made
    made.close()


def test_a_worker_recovers_the_runs_of_its_name_alone(durable: Durable, database_url: str, tmp_path: Path) -> None:
    mine, theirs = (_killed_worker(database_url, name, tmp_path) for name in ("worker-0", "worker-1"))
    assert unfinished(database_url) == 2
    durable.start([])
    _until(lambda: durable.status("run_worker-0") == "done")
    steps = [int(line) for line in mine.read_text().splitlines()]
    assert sorted(set(steps)) == list(range(40))
    assert len(steps) <= 41, "only the step that ran when the process died is done again"
    assert durable.status("run_worker-1") == "running"
    assert durable.take_over(["worker-0", "worker-1"]) == 0
    assert durable.take_over(["worker-0"]) == 1
    _until(lambda: durable.status("run_worker-1") == "done")
    assert sorted({int(line) for line in theirs.read_text().splitlines()}) == list(range(40))
    assert unfinished(database_url) == 0


def test_it_has_a_schema_of_its_own_and_keeps_to_its_connections(
    durable: Durable, database_url: str, tmp_path: Path
) -> None:
    counted, over = [0], threading.Event()
    query = (
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND backend_type = 'client backend'"
    )

    def count() -> None:
        with psycopg.connect(database_url.replace("+psycopg", ""), autocommit=True) as connection:
            while not over.wait(0.005):
                counted.append(int((connection.execute(query).fetchone() or (0,))[0]) - 1)

    watching = threading.Thread(target=count)
    watching.start()
    try:
        durable.start(["noting"])
        running = [durable.submit("noting", f"run_{number}", str(tmp_path / "a"), 10) for number in range(12)]
        running += [durable.enqueue("noting", f"queued_{number}", str(tmp_path / "b"), 3) for number in range(3)]
        for handle in running:
            handle.wait()
    finally:
        over.set()
        watching.join()
    assert 0 < max(counted) <= CONNECTIONS
    with psycopg.connect(database_url.replace("+psycopg", "")) as connection:
        found = connection.execute(
            "SELECT DISTINCT schemaname FROM pg_tables WHERE schemaname NOT IN ('pg_catalog', 'information_schema')"
        ).fetchall()
    assert found == [(SCHEMA,)]


def test_steps_are_in_the_ledger_once(database_url: str, tmp_path: Path) -> None:
    ledger = MemoryLedger()
    durable = Durable(database_url, ledger)
    durable.register("noting", noting)
    durable.start([])
    try:
        for _ in range(2):
            durable.submit("noting", "run_same", str(tmp_path / "c"), 5).wait()
    finally:
        durable.close()
    assert [event.item for event in ledger.events(ALL, "run_same")] == list("01234")
    assert os.linesep.join("01234") == (tmp_path / "c").read_text().strip()


def test_a_server_that_is_away_is_said(tmp_path: Path) -> None:
    durable = Durable("postgresql://windlass:secret@127.0.0.1:1/none", MemoryLedger())
    with pytest.raises(WorkflowError, match="did not start") as raised:
        durable.start([])
    assert "secret" not in str(raised.value)
    durable.close()


def test_no_runs_are_unfinished_where_there_is_no_engine(database_url: str, tmp_path: Path) -> None:
    assert unfinished(tmp_path / "runs.db") == 0
    assert not (tmp_path / "runs.db").exists()
    assert unfinished(database_url) == 0
