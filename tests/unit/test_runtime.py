"""One process on one state folder: who owns it, what a restart knows, and what it does with a folder that is broken."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import structlog
from tests.golden.application import NOW, chat, key, opened, settings
from tests.golden.application import Client as Wire

from windlass import runtime as module
from windlass.errors import FolderBusy, LedgerError, WindlassError, WorkflowError
from windlass.gateway.feedback import FeedbackRequest
from windlass.gateway.gateway import Request
from windlass.ledger.ledger import ALL, Entry, Snapshot
from windlass.policies.replay import Learner
from windlass.records import Feedback, Outcome, Scope
from windlass.runtime import Runtime
from windlass.server.app import Windlass
from windlass.testing import Echo
from windlass.watch import projections
from windlass.watch.projections import LEARNER

PROVIDER = {"name": "up", "base_url": "http://127.0.0.1:1/v1", "models": [{"name": "m"}]}
BODY = b'{"model":"auto","messages":[{"role":"user","content":"hi"}]}'


async def _call(runtime: Runtime) -> str:
    answer = await runtime.gateway.complete(Request(BODY))
    assert [chunk async for chunk in answer.chunks]
    return answer.transit.call.id


async def _rate(runtime: Runtime, call: str, value: float) -> Feedback:
    return await runtime.feedback(Scope(), FeedbackRequest(target=call, kind="rating", value=value))


async def test_it_makes_its_folder_private_and_works_in_it(tmp_path: Path) -> None:
    async with Runtime(settings(tmp_path / "deep" / "home")) as runtime:
        assert runtime.gateway.providers.names() == ("local/quotes-fast",)
        assert runtime.embedder is None
    assert (tmp_path / "deep" / "home" / "ledger.db").exists()


async def test_it_learns_by_itself_from_what_is_committed(tmp_path: Path) -> None:
    async with opened(tmp_path, [Echo("a", "b")]) as runtime:
        call = await _call(runtime)
        async with asyncio.timeout(5):
            while runtime.learner.cursor < runtime.ledger.head():
                await asyncio.sleep(0.005)
        learned = runtime.learner.digest()
        await _rate(runtime, call, 0.0)
        await runtime.caught_up()
        assert runtime.learner.digest() != learned
        assert runtime.overview.totals(Scope()).calls == 1
        assert runtime.overview.counted(Scope()) == (1, 1)


async def test_a_restart_knows_what_was_learned(tmp_path: Path) -> None:
    async with opened(tmp_path, [Echo("a", "b")]) as runtime:
        await _rate(runtime, await _call(runtime), 1.0)
        await runtime.caught_up()
        before = runtime.learner.digest()
        head = runtime.ledger.head()
    async with opened(tmp_path, [Echo("a", "b")]) as runtime:
        assert (runtime.learner.digest(), runtime.learner.cursor) == (before, head)
        assert runtime.replay() == (head, before, before)
        assert runtime.overview.totals(Scope()).calls == 1


@pytest.mark.parametrize("state", [b"", b"nonsense", b"\x90"])
async def test_a_snapshot_that_cannot_be_read_is_rebuilt(tmp_path: Path, state: bytes) -> None:
    async with opened(tmp_path, [Echo("a", "b")]) as runtime:
        await _rate(runtime, await _call(runtime), 1.0)
        await runtime.caught_up()
        before, head = runtime.learner.digest(), runtime.ledger.head()
    async with opened(tmp_path, [Echo("a", "b")]) as runtime:
        broken = Snapshot(projection=LEARNER, version=Learner.VERSION, cursor=head, at=NOW, state=state)
        runtime.ledger.save_snapshot(broken)
        await asyncio.to_thread(runtime.projections.restore)
        assert runtime.learner.digest() == before
    # What was saved on leaving is good again.
    async with opened(tmp_path, [Echo("a", "b")]) as runtime:
        assert runtime.learner.digest() == before


async def test_a_snapshot_of_other_settings_is_rebuilt(tmp_path: Path) -> None:
    async with opened(tmp_path, [Echo("a", "b")]) as runtime:
        await _rate(runtime, await _call(runtime), 1.0)
    point = {"mode": "live", "policy": "fixed"}
    async with opened(tmp_path, [Echo("a", "b")], points={"model": point}) as runtime:
        cursor, live, rebuilt = runtime.replay()
        assert (cursor, live) == (runtime.ledger.head(), rebuilt)
        assert runtime.loop.policy_id("model") == "fixed@1"
        assert "answer" in runtime.loop.points, "what is not named keeps its default"


async def test_snapshots_are_taken_on_the_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(projections, "SNAPSHOT_EVERY", 3)
    async with opened(tmp_path, [Echo()]) as runtime:
        await _call(runtime)
        await runtime.caught_up()
        kept = runtime.ledger.snapshot(LEARNER, Learner.VERSION)
        assert kept is not None
        assert kept.cursor >= 3
        assert kept.at == NOW


async def test_bodies_expire_by_themselves(tmp_path: Path) -> None:
    async with opened(tmp_path, [Echo()], clock=lambda: NOW) as runtime:
        call = await _call(runtime)
        assert len(runtime.ledger.bodies(ALL, call)) == 2
    async with opened(tmp_path, [Echo()], clock=lambda: NOW + 31 * 86_400) as runtime:
        async with asyncio.timeout(5):
            while runtime.ledger.bodies(ALL, call):
                await asyncio.sleep(0.005)
        assert runtime.ledger.trace(ALL, call) is not None


async def test_pruning_goes_on_after_the_database_was_busy_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PRUNE_EVERY_S", 0.01)
    async with opened(tmp_path) as runtime:
        pruned: list[float] = []

        def prune(now: float) -> int:
            pruned.append(now)
            if len(pruned) == 1:
                raise LedgerError("database is locked")
            return 0

        monkeypatch.setattr(runtime.ledger, "prune", prune)
        async with asyncio.timeout(2):
            while len(pruned) < 3:
                await asyncio.sleep(0.005)


async def test_learning_waits_for_a_ledger_that_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with opened(tmp_path, [Echo()]) as runtime:
        read, failures = runtime.ledger.folded, [LedgerError("database is locked")]

        def sometimes(*args: Any, **more: Any) -> Sequence[Entry]:
            if failures:
                raise failures.pop()
            return read(*args, **more)

        monkeypatch.setattr(runtime.ledger, "folded", sometimes)
        with structlog.testing.capture_logs() as logged:
            await _call(runtime)
            async with asyncio.timeout(5):
                while runtime.learner.cursor < runtime.ledger.head():
                    await asyncio.sleep(0.01)
        assert [entry["event"] for entry in logged] == ["learning_waits"]


async def test_without_workflows_nothing_is_taken_in(tmp_path: Path) -> None:
    async with opened(tmp_path) as runtime:
        with pytest.raises(FolderBusy, match="use its server"):
            _ = runtime.ingest


# --- folders that are broken


@pytest.mark.parametrize("home", ["file/home", "file"])
def test_a_home_that_is_a_file_is_said(tmp_path: Path, home: str) -> None:
    (tmp_path / "file").write_text("I am a file")
    for workflows in (False, True):
        with pytest.raises(WindlassError, match="file"):
            Runtime(settings(tmp_path / home), workflows=workflows)


def test_a_home_that_cannot_be_made_is_said() -> None:
    for workflows in (False, True):
        with pytest.raises(WindlassError, match="/proc/windlass"):
            Runtime(settings(Path("/proc/windlass")), workflows=workflows)


@pytest.mark.parametrize("url", ["nonsense", "sqlite", "nope://x/y", "sqlite:////proc/none/ledger.db", "mysql://h/d"])
def test_a_database_that_cannot_be_is_said(tmp_path: Path, url: str) -> None:
    with pytest.raises(WindlassError):
        Runtime(settings(tmp_path, storage__database_url=url))


def test_a_corrupted_ledger_is_said_and_its_folder_let_go(tmp_path: Path) -> None:
    (tmp_path / "ledger.db").write_bytes(b"this is no database " * 100)
    for _ in range(2):
        with pytest.raises(LedgerError, match="not a database"):
            Runtime(settings(tmp_path), workflows=True)


async def test_a_half_written_ledger_is_said(tmp_path: Path) -> None:
    async with opened(tmp_path, [Echo()]) as runtime:
        for _ in range(20):
            await _call(runtime)
    whole = (tmp_path / "ledger.db").read_bytes()
    (tmp_path / "ledger.db").write_bytes(whole[:4096] + b"\xff" * (len(whole) - 4096))
    with pytest.raises(LedgerError):
        async with Runtime(settings(tmp_path)):
            pass


# --- workflows: slow to start and stop, so few of them


async def test_only_one_process_runs_the_workflows_of_a_folder(tmp_path: Path) -> None:
    async with Runtime(settings(tmp_path), workflows=True) as first:
        assert not (tmp_path / "runs.db").exists(), "an idle process carries no engine"
        engine = await asyncio.gather(*(asyncio.to_thread(lambda: first.ingest) for _ in range(4)))
        assert len(set(map(id, engine))) == 1
        stands = await asyncio.to_thread(lambda: first.ingest.status(Scope(), "run_unknown"))
        assert stands == ("unknown", "unknown")
        with pytest.raises(FolderBusy, match="another windlass process works on"):
            Runtime(settings(tmp_path), workflows=True)
        async with Runtime(settings(tmp_path)):
            """Without workflows anyone may look."""
        assert (tmp_path / "runs.unfinished").exists()
    assert not (tmp_path / "runs.unfinished").exists()
    async with Runtime(settings(tmp_path), workflows=True):
        """The folder is free again."""


@pytest.mark.parametrize("recovering", [False, True])
async def test_an_engine_that_does_not_start_lets_the_folder_go(tmp_path: Path, recovering: bool) -> None:
    (tmp_path / "runs.db").write_bytes(b"this is no database " * 100)
    if recovering:
        (tmp_path / "runs.unfinished").touch()
    for _ in range(2):
        with pytest.raises(WorkflowError, match=r"runs\.db did not start"):
            async with Runtime(settings(tmp_path), workflows=True) as runtime:
                await asyncio.to_thread(lambda: runtime.ingest)


async def test_keys_of_the_settings_guard_the_gateway(tmp_path: Path) -> None:
    async with opened(tmp_path, [Echo()], keys=[key("k", "acme", "one")]) as runtime:
        response = await Wire(Windlass(runtime), bearer="secret-k").post("/v1/chat/completions", chat())
        assert response.status == 200
        (outcome,) = [e.record for e in runtime.ledger.read(ALL) if isinstance(e.record, Outcome)]
        assert outcome.scope == Scope("acme", "one")


@pytest.mark.parametrize(
    "wrong", [{"points": {"model": {"policy": "nope"}}}, {"providers": [PROVIDER, {**PROVIDER, "name": "twin"}]}]
)
async def test_settings_that_cannot_work_let_the_folder_go(tmp_path: Path, wrong: dict[str, Any]) -> None:
    with pytest.raises(WindlassError):
        Runtime(settings(tmp_path, **wrong), workflows=True)
    assert "ledger-commit" not in [thread.name for thread in threading.enumerate()]
    async with Runtime(settings(tmp_path), workflows=True):
        """The folder is free."""


async def test_a_disk_that_is_full_at_the_end_still_lets_the_folder_go(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_snapshot: Snapshot) -> None:
        raise LedgerError("database or disk is full")

    with pytest.raises(LedgerError, match="full"):
        async with Runtime(settings(tmp_path), workflows=True) as runtime:
            monkeypatch.setattr(runtime.ledger, "save_snapshot", full)
    async with Runtime(settings(tmp_path), workflows=True):
        """The folder is free."""
