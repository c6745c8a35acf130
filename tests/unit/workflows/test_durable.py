"""Workflows on the real engine: each step once, failures as results, queues. One engine serves the whole file."""

from __future__ import annotations

import errno
import logging
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from windlass.errors import InputError, LedgerError, WorkflowError
from windlass.ledger.ledger import ALL
from windlass.ledger.memory import MemoryLedger
from windlass.records import Scope, StepResult
from windlass.workflows.durable import Durable, Run

SCOPE = Scope("acme", "one")
DONE_S = 10.0


class Work:
    """What the workflows of these tests do, and how often they did it."""

    def __init__(self) -> None:
        self.done: list[str] = []
        self.results: list[StepResult] = []
        self.hold = threading.Event()
        self.held = threading.Event()
        self.failures = 1

    def count(self, item: str) -> str:
        self.done.append(item)
        return f"did {item}"

    def fail(self, item: str) -> str:
        raise InputError(f"{item} has no words; give a transcript")

    def skip(self, item: str) -> StepResult:
        return StepResult(status="skipped", value={"item": item}, cost_nusd=7)

    def wait(self, item: str) -> str:
        self.held.set()
        assert self.hold.wait(DONE_S)
        return item


WORK = Work()


def _counting(run: Run, tenant: str, workspace: str, items: list[str]) -> None:
    scope = Scope(tenant, workspace)
    WORK.results = [run.step("count", scope, item, WORK.count, item) for item in items]


def _mixed(run: Run) -> None:
    steps = (WORK.count, WORK.fail, WORK.skip)
    WORK.results = [run.step(step.__name__, SCOPE, "x", step, "x") for step in steps]


def _handing_on(run: Run) -> None:
    run.enqueue("queued", "handed")
    run.enqueue("queued", "handed")


def _queued(run: Run, item: str) -> None:
    run.step("count", SCOPE, item, WORK.count, item)


def _waiting(run: Run) -> None:
    run.step("wait", SCOPE, "x", WORK.wait, "x")


def _broken(run: Run) -> None:
    raise LedgerError("the workflow itself broke")


@pytest.fixture(scope="module")
def ledger() -> MemoryLedger:
    return MemoryLedger()


@pytest.fixture(scope="module")
def durable(tmp_path_factory: pytest.TempPathFactory, ledger: MemoryLedger) -> Iterator[Durable]:
    engine = Durable(tmp_path_factory.mktemp("runs") / "runs.db", ledger)
    for name, workflow in (
        ("counting", _counting),
        ("mixed", _mixed),
        ("handing_on", _handing_on),
        ("queued", _queued),
        ("waiting", _waiting),
        ("broken", _broken),
    ):
        engine.register(name, workflow)
    engine.start(["queued"])
    yield engine
    engine.close()
    engine.close()


@pytest.fixture(autouse=True)
def _fresh() -> None:
    WORK.__init__()  # type: ignore[misc]


def _until(durable: Durable, run: str, wanted: str) -> None:
    deadline = time.monotonic() + DONE_S
    while durable.status(run) != wanted:
        assert time.monotonic() < deadline, durable.status(run)
        time.sleep(0.01)


def _events(ledger: MemoryLedger, run: str) -> list[Any]:
    return list(ledger.events(ALL, run))


def test_each_step_is_done_once_and_left_in_the_ledger(durable: Durable, ledger: MemoryLedger) -> None:
    durable.submit("counting", "run_1", "acme", "one", ["a", "b"]).wait()
    assert WORK.done == ["a", "b"]
    assert [result.value for result in WORK.results] == ["did a", "did b"]
    assert durable.status("run_1") == "done"
    events = _events(ledger, "run_1")
    assert [(event.step, event.item, event.result.status) for event in events] == [
        ("count", "a", "ok"),
        ("count", "b", "ok"),
    ]
    assert {event.scope for event in events} == {SCOPE}
    assert events[0].id == "event_run_1_count_a"
    assert events[0].workflow == "counting"
    assert all(event.result.duration_ms >= 0.0 for event in events)


def test_the_same_run_again_is_the_same_run(durable: Durable, ledger: MemoryLedger) -> None:
    for _ in range(2):
        durable.submit("counting", "run_again", "acme", "one", ["a"]).wait()
    assert WORK.done == ["a"]
    assert len(_events(ledger, "run_again")) == 1


def test_a_step_that_raises_is_a_result_and_the_run_goes_on(durable: Durable, ledger: MemoryLedger) -> None:
    durable.submit("mixed", "run_mixed").wait()
    good, failed, skipped = WORK.results
    assert (good.status, skipped.status, skipped.value, skipped.cost_nusd) == ("ok", "skipped", {"item": "x"}, 7)
    assert (failed.status, failed.error) == ("failed", "input_invalid")
    assert failed.message == "x has no words; give a transcript"
    assert durable.status("run_mixed") == "done"
    assert [event.result.status for event in _events(ledger, "run_mixed")] == ["ok", "failed", "skipped"]


def test_a_workflow_that_raises_is_broken(durable: Durable) -> None:
    handle = durable.submit("broken", "run_broken")
    with pytest.raises(WorkflowError, match="run run_broken broke"):
        handle.wait()
    assert durable.status("run_broken") == "broken"


def test_work_handed_on_runs_once_on_its_queue(durable: Durable, ledger: MemoryLedger) -> None:
    durable.submit("handing_on", "run_handing").wait()
    _until(durable, "run_handing-queued", "done")
    assert WORK.done == ["handed"]
    assert len(_events(ledger, "run_handing-queued")) == 1


def test_a_queue_that_nobody_serves_waits(durable: Durable) -> None:
    durable.enqueue("counting", "run_unserved", "acme", "one", ["a"])
    time.sleep(0.3)
    assert durable.status("run_unserved") == "waiting"
    assert durable.unfinished() >= 1
    assert WORK.done == []


def test_an_unknown_run_is_unknown(durable: Durable) -> None:
    assert durable.status("run_unheard-of") == "unknown"
    assert durable.status("") == "unknown"


def test_a_running_step_shows_and_is_waited_for(durable: Durable) -> None:
    handle = durable.submit("waiting", "run_waiting")
    assert WORK.held.wait(DONE_S)
    assert durable.status("run_waiting") == "running"
    assert durable.unfinished() >= 1
    WORK.hold.set()
    handle.wait()
    assert durable.status("run_waiting") == "done"


def test_after_draining_no_step_starts_and_the_run_stays_pending(durable: Durable) -> None:
    """Last in this file: nothing runs on this engine afterwards."""
    durable.drain(0.1)
    assert durable.stopping
    durable.submit("counting", "run_late", "acme", "one", ["a"])
    time.sleep(0.2)
    assert WORK.done == []
    assert durable.status("run_late") == "running"


def test_the_library_speaks_in_one_line_of_our_log_without_its_traceback(durable: Durable) -> None:
    assert durable.status("run-0") == "unknown"
    with capture_logs() as said:
        try:
            raise OSError(errno.ENOSPC, "No space left\non the disk")
        except OSError as exc:
            logging.getLogger("dbos").error("it failed:\nin many\nlines", exc_info=exc)
        logging.getLogger("dbos").warning("chatter")
    reason = "[Errno 28] No space left"
    told = {"event": "workflow_library", "said": "it failed:", "error": "disk_full", "reason": reason}
    assert said == [{**told, "log_level": "error"}]


def test_closing_before_starting_is_nothing(tmp_path: Path) -> None:
    Durable(tmp_path / "runs.db", MemoryLedger()).close()
    assert not (tmp_path / "runs.db").exists()
