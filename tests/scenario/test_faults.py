"""Disk full, read-only folder, locked database, corrupted file, clock set back: clear errors, service, nothing lost."""

from __future__ import annotations

import json
import os
import random
import shutil
import sqlite3
import time
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest

from tests.golden.application import Client as InProcess
from tests.golden.application import chat, settings
from tests.scenario.disk import Disk, disk
from tests.scenario.faults import Client, findings, refused, run, said, stopped, up
from tests.scenario.program import in_tables
from windlass.gateway.provider import ProviderReply, ProviderRequest
from windlass.ledger.db import BUSY_TIMEOUT_MS
from windlass.ledger.ledger import ALL
from windlass.records import Scope
from windlass.runtime import Runtime
from windlass.server.app import Windlass
from windlass.testing import Clock, Echo

pytestmark = pytest.mark.scenario
DISK_BYTES = 24 * 1024 * 1024
DAY_S = 86_400.0


def kept(file: Path, query: str) -> list[str]:
    with closing(sqlite3.connect(f"file:{file}?mode=ro", uri=True)) as connection:
        return [str(row[0]) for row in connection.execute(query)]


def nothing_lost(ledger: Path, client: Client) -> None:
    """All that was acknowledged is there once, each call with its decision, in a file that is whole."""
    assert kept(ledger, "PRAGMA integrity_check") == ["ok"]
    ended = kept(ledger, "SELECT call FROM outcomes")
    assert set(client.calls) <= set(ended)
    assert len(ended) == len(set(ended))
    assert set(client.ratings) <= set(kept(ledger, "SELECT id FROM feedback"))
    lone = "SELECT c.id FROM calls c LEFT JOIN decisions d ON d.call = c.id WHERE d.id IS NULL"
    assert kept(ledger, lone) == [], "a call without its decision"


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Disk]:
    with disk(tmp_path / "home", DISK_BYTES) as mounted:
        yield mounted


def test_a_full_disk_refuses_calls_and_the_service_returns_with_the_space(small: Disk, tmp_path: Path) -> None:
    with up(small.home, seen=small.seen, within=small.command()) as (url, process):
        client = Client(url)
        for _ in range(20):
            assert client.call()[0] == 200
        assert client.rate(client.calls[0])[0] < 300
        for _ in range(2):
            known = client.calls[-1]
            small.fill()
            refused(client.calls_until_refused(), "disk_full")
            refused(client.call(stream=True), "disk_full")
            refused(client.rate(client.calls[1]), "disk_full")
            with urllib.request.urlopen(f"{url}/healthz", timeout=5) as healthy:
                assert healthy.status == 200
            shown = run(small.home, "calls", "--limit", "1000", "--json", within=small.command())
            listed = [trace["call"]["id"] for trace in json.loads(shown.stdout)["calls"]]
            # What was answered since then may stand in the journal, until the tables have room.
            assert known in listed, "what is there can be read"
            assert set(listed) <= set(client.calls)
            asked = run(small.home, "ask", "Why a pawl?", within=small.command())
            assert (asked.returncode, "disk is full" in asked.stderr) == (1, True)
            small.free()
            client.back()
            assert client.rate(client.calls[2])[0] < 300
        assert stopped(process) == 0
    assert "Traceback" not in said(small.home)
    nothing_lost(small.copy("ledger.db", tmp_path), client)
    report = json.loads(run(small.home, "doctor", "--replay", "--json", within=small.command()).stdout)
    assert report["replay"]["equal"] is True


def test_commands_on_a_full_disk_say_so_and_harm_nothing(small: Disk, tmp_path: Path) -> None:
    with up(small.home, seen=small.seen, within=small.command()) as (url, process):
        client = Client(url)
        assert client.call()[0] == 200
        small.fill()
        client.calls_until_refused()
        stopped(process)
    for arguments in (("up",), ("ask", "Why a pawl?"), ("run", "--exit")):
        done = run(small.home, *arguments, within=small.command())
        assert done.returncode == 1, arguments
        assert "disk is full" in done.stderr or "No space left" in done.stderr, done.stderr
        assert done.stderr.splitlines()[-1].startswith("error: ")
        assert "Traceback" not in done.stderr, "the workflow library keeps its own to itself"
    found = findings(run(small.home, "doctor", "--json", within=small.command()))
    assert any("only 0 MB are free" in finding for finding in found)
    small.free()
    with up(small.home, seen=small.seen, within=small.command()) as (url, process):
        client.url = url
        client.back()
        assert stopped(process) == 0
    nothing_lost(small.copy("ledger.db", tmp_path), client)


def test_a_folder_that_cannot_be_written_is_named_with_the_remedy(tmp_path: Path) -> None:
    home = tmp_path / "home"
    assert run(home, "run", "--exit").returncode == 0
    before = {file.name: file.read_bytes() for file in home.rglob("*") if file.is_file()}
    home.chmod(0o500)
    for file in home.iterdir():
        file.chmod(0o400)
    # The permissions of files do not bind root, unless it gives this right of its up.
    bound = ["setpriv", "--bounding-set=-dac_override", "--inh-caps=-dac_override"] if os.getuid() == 0 else []
    try:
        for arguments in (("up",), ("run", "--exit"), ("ask", "Why a pawl?"), ("calls",)):
            done = run(home, *arguments, within=bound)
            assert (done.returncode, "Traceback" in done.stderr) == (1, False), done.stderr
            assert str(home) in done.stderr
            assert "WINDLASS_HOME" in done.stderr or "windlass doctor" in done.stderr
        found = findings(run(home, "doctor", "--json", within=bound))
        assert f"{home} cannot be written; make it this user's own, on a disk that takes writes" in found
        assert {file.name: file.read_bytes() for file in home.rglob("*") if file.is_file()} == before
    finally:
        home.chmod(0o700)
        for file in home.iterdir():
            file.chmod(0o600)
    assert findings(run(home, "doctor", "--json")) == []


def test_a_database_that_another_process_locks_refuses_in_time_and_comes_back(tmp_path: Path) -> None:
    home = tmp_path / "home"
    patience_s = BUSY_TIMEOUT_MS / 1000 + 15
    with up(home) as (url, process):
        client = Client(url)
        assert client.call()[0] == 200
        in_tables(home)
        with closing(sqlite3.connect(home / "ledger.db", isolation_level=None)) as other:
            other.execute("BEGIN EXCLUSIVE")
            known = client.calls[-1]
            assert client.call()[0] == 200, "it stands in the journal until the lock is gone"
            time.sleep(BUSY_TIMEOUT_MS / 1000 + 0.5)
            began = time.monotonic()
            refused(client.call(), "database_locked")
            assert time.monotonic() - began < patience_s
            began = time.monotonic()
            shown = run(home, "calls", "--json")
            assert [trace["call"]["id"] for trace in json.loads(shown.stdout)["calls"]] == [known]
            with urllib.request.urlopen(f"{url}/healthz", timeout=5) as healthy:
                assert healthy.status == 200
            assert time.monotonic() - began < 15, "reading does not wait for the lock"
            other.execute("ROLLBACK")
        client.back()
        assert client.rate(client.calls[0])[0] < 300
        assert stopped(process) == 0
    nothing_lost(home / "ledger.db", client)


def test_a_short_lock_only_delays(tmp_path: Path) -> None:
    home = tmp_path / "home"
    with up(home) as (url, process):
        client = Client(url)
        with (
            closing(sqlite3.connect(home / "ledger.db", isolation_level=None)) as other,
            ThreadPoolExecutor(1) as threads,
        ):
            for _ in range(5):
                other.execute("BEGIN EXCLUSIVE")
                held = time.monotonic()
                answering = threads.submit(client.call)
                time.sleep(0.3)
                other.execute("COMMIT")
                assert answering.result(30)[0] == 200
                assert time.monotonic() - held >= 0.3
        assert client.call()[0] == 200
        assert stopped(process) == 0


@pytest.mark.parametrize("harm", ["pages", "header", "cut", "text"])
def test_a_corrupted_file_is_named_by_every_command_and_not_written(tmp_path: Path, harm: str) -> None:
    home = tmp_path / "home"
    assert run(home, "run", "--exit").returncode == 0
    ledger = home / "ledger.db"
    backup = tmp_path / "backup.db"
    shutil.copy(ledger, backup)
    _harm(ledger, harm)
    harmed = ledger.read_bytes()
    found = findings(run(home, "doctor", "--json"))
    assert any(str(ledger) in finding and "restore" in finding for finding in found), found
    for arguments in (("up",), ("run", "--exit")):
        done = run(home, *arguments)
        assert (done.returncode, "Traceback" in done.stderr) == (1, False), done.stderr
        assert f"{ledger} is damaged" in done.stderr
        assert "restore" in done.stderr
    refusal = json.loads(run(home, "up", "--json").stdout)["error"]
    assert refusal["category"] == "database_corrupt"
    assert ledger.read_bytes() == harmed, "what is damaged is left for those who mend it"
    for rest in home.glob("ledger.db*"):
        rest.unlink()
    shutil.copy(backup, ledger)
    assert findings(run(home, "doctor", "--replay", "--json")) == [], "the remedy mends it"


def test_pages_that_rot_under_a_running_server_are_told(tmp_path: Path) -> None:
    home = tmp_path / "home"
    with up(home) as (url, process):
        client = Client(url)
        for _ in range(50):
            assert client.call()[0] == 200
        with closing(sqlite3.connect(home / "ledger.db")) as connection:
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        _harm(home / "ledger.db", "pages")
        for _ in range(20):
            status, body = client.call()
            assert status in (200, 503), body
            if status == 503:
                refused((status, body), "database_corrupt")
        done = run(home, "doctor", "--json")
        assert any("is damaged" in finding and "restore" in finding for finding in findings(done))
        assert process.poll() is None
    assert "Traceback" not in said(home)


class Late(Echo):
    """Answers after the clock was set back by a day."""

    def __init__(self, clock: Clock):
        super().__init__("late")
        self.clock = clock

    async def send(self, request: ProviderRequest) -> ProviderReply:
        self.clock.forward(-DAY_S)
        return await super().send(request)


@pytest.mark.parametrize("database", ["sqlite", "postgresql"])
async def test_a_clock_that_is_set_back_loses_and_reorders_nothing(
    tmp_path: Path, request: pytest.FixtureRequest, database: str
) -> None:
    url = request.getfixturevalue("database_url") if database == "postgresql" else ""
    chosen = settings(tmp_path, storage__database_url=url)
    clock = Clock()
    made: list[str] = []
    steps_s = (0.0, -DAY_S, -3_600.0, 40 * DAY_S, -400 * DAY_S)
    for step_s in steps_s:
        clock.forward(step_s)
        async with Runtime(chosen, providers=[Late(clock), Echo("here")], clock=clock) as runtime:
            client = InProcess(Windlass(runtime))
            for model in ("auto", "late", "here"):
                reply = await client.post("/v1/chat/completions", chat(model=model))
                assert reply.status == 200, reply.body
                made.append(reply.headers["x-windlass-call"])
            for target in made:
                rated = {"id": f"fb-{len(made)}-{target}", "target": target, "kind": "rating", "value": 1.0}
                assert (await client.post("/v1/feedback", rated)).status < 300
            await runtime.caught_up()
            await _all_is_there(runtime, made)


async def _all_is_there(runtime: Runtime, made: list[str]) -> None:
    """Each call by its id, with decision, outcome and feedback; the pages in the order of writing; sums; the fold."""
    for call in made:
        trace = runtime.ledger.trace(Scope(), call)
        assert trace is not None
        assert trace.outcome is not None, "the outcome may be older than its call"
        assert trace.outcome.latency_ms >= 0
        assert len(trace.decisions) == 1
        assert trace.feedback
    paged: list[str] = []
    while found := runtime.ledger.calls(Scope(), limit=2, before=paged[-1] if paged else ""):
        assert all(trace.outcome is not None and trace.decisions for trace in found)
        paged += [trace.call.id for trace in found]
    assert paged == made[::-1]
    entries = runtime.ledger.read(ALL, limit=10_000)
    places = [entry.seq for entry in entries]
    assert places == sorted(set(places))
    assert runtime.overview.totals(Scope()).calls == len(made)
    _, live, rebuilt = runtime.replay()
    assert live == rebuilt


def _harm(ledger: Path, how: str) -> None:
    rng = random.Random(5)
    size = ledger.stat().st_size
    with ledger.open("r+b") as file:
        match how:
            case "pages":
                for page in range(2, size // 4096, 2):
                    file.seek(page * 4096)
                    file.write(rng.randbytes(4096))
            case "header":
                file.write(rng.randbytes(100))
            case "cut":
                file.truncate(size // 2)
            case _:
                file.truncate(0)
                file.write(b"not a database\n" * 1000)
