"""Settings change again and again while clients call: no call is lost or fails, no budget is overspent.

Two upstreams take turns under one provider's name, so that each reload replaces it in the middle of streams; every
third file is broken. Books are kept on three sides: the clients, the upstreams, the database.
"""

from __future__ import annotations

import http.client
import http.server
import itertools
import json
import os
import pty
import signal
import sqlite3
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psycopg
import pytest

from tests.scenario import program

pytestmark = pytest.mark.scenario
LOCAL: dict[str, Any] = {"WINDLASS_MEMORY__EMBEDDER": "off"}
CLIENTS = 6
RELOADS, SOAK = 12, 300
PIECES, PAUSE_S = 5, 0.02
COST_NUSD = 29_000
"""Of a call: 7 and 11 tokens at 1 and 2 USD a million."""
LOWERED = 150
"""Calls that the lowered budget holds; far fewer are made before it is lowered."""
USAGE = {"prompt_tokens": 7, "completion_tokens": 11}
BIG = {"model": "m", "messages": [{"role": "user", "content": "x" * 3_000}]}


class _Upstream(http.server.BaseHTTPRequestHandler):
    """Answers after a while, streams in pieces with pauses between them."""

    protocol_version = "HTTP/1.1"
    served = 0

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        type(self).served += 1
        self.send_response(200)
        if not body.get("stream"):
            time.sleep(PAUSE_S)
            said = {"choices": [{"message": {"content": "x"}, "finish_reason": "stop"}], "usage": USAGE}
            data = json.dumps(said).encode()
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)
            return
        self.send_header("content-type", "text/event-stream")
        self.send_header("transfer-encoding", "chunked")
        self.end_headers()
        events: list[dict[str, Any]] = [{"choices": [{"delta": {"content": "x"}}]}] * PIECES
        events += [{"choices": [{"delta": {}, "finish_reason": "stop"}]}, {"choices": [], "usage": USAGE}]
        for event in (*map(json.dumps, events), "[DONE]"):
            self._chunk(f"data: {event}\n\n".encode())
            time.sleep(PAUSE_S)
        self._chunk(b"")

    def _chunk(self, data: bytes) -> None:
        self.wfile.write(b"%x\r\n%b\r\n" % (len(data), data))
        self.wfile.flush()

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing is logged."""


@contextmanager
def _upstream() -> Iterator[tuple[str, type[_Upstream]]]:
    class Counted(_Upstream):
        served = 0

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Counted)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/v1", Counted
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@dataclass
class _Clients:
    """They call, plain and streamed, until told to stop, and write down what came."""

    url: str
    key: str
    statuses: Counter[int] = field(default_factory=Counter)
    broken: list[str] = field(default_factory=list)
    stop: threading.Event = field(default_factory=threading.Event)

    @contextmanager
    def calling(self) -> Iterator[None]:
        threads = [threading.Thread(target=self._client, args=(number,)) for number in range(CLIENTS)]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            self.stop.set()
            for thread in threads:
                thread.join()

    def _client(self, number: int) -> None:
        for turn in itertools.count(number):
            if self.stop.is_set():
                return
            status, body = call(self.url, self.key, stream=bool(turn % 2))
            self.statuses[status] += 1
            if (status == 200 and b'"stop"' not in body) or (turn % 2 and status == 200 and b"[DONE]" not in body):
                self.broken.append(body[-300:].decode())
            elif status not in (200, 429):
                self.broken.append(f"{status}: {body[:300].decode()}")
            if status == 429:
                time.sleep(0.05)


def call(url: str, key: str, **fields: Any) -> tuple[int, bytes]:
    """One call on a connection of its own; 0 and the error where it is lost."""
    asked = {"model": "m", "messages": [{"role": "user", "content": "ahoy"}], "max_tokens": 11, **fields}
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=30)
    headers = {"content-type": "application/json", "authorization": f"Bearer {key}"}
    try:
        connection.request("POST", "/v1/chat/completions", json.dumps(asked), headers)
        response = connection.getresponse()
        return response.status, response.read()
    except (OSError, http.client.HTTPException) as exc:
        return 0, repr(exc).encode()
    finally:
        connection.close()


def _toml(upstream: str, usd: float, **gateway: Any) -> str:
    further = "".join(f"{name} = {value}\n" for name, value in gateway.items())
    return (
        f'[gateway]\n{further}[[providers]]\nname = "up"\nbase_url = "{upstream}"\n'
        '[[providers.models]]\nname = "m"\nprompt_usd_per_million = 1.0\ncompletion_usd_per_million = 2.0\n'
        f'[[limits]]\nname = "shared"\nwindow = "total"\nusd = {usd}\n'
    )


def _within(patience_s: float, what: Callable[[], bool]) -> None:
    deadline = time.monotonic() + patience_s
    while not what():
        assert time.monotonic() < deadline, "it did not come to that"
        time.sleep(0.05)


@dataclass
class _World:
    """A server by a file, under load."""

    file: Path
    home: Path
    more: dict[str, Any]
    url: str
    pid: int

    def write(self, text: str) -> None:
        """In one step, as editors do."""
        fresh = self.file.with_suffix(".new")
        fresh.write_text(text)
        fresh.replace(self.file)

    def hangup(self) -> None:
        os.kill(self.pid, signal.SIGHUP)

    def reload(self) -> subprocess.CompletedProcess[str]:
        return program.windlass(self.home, "reload", "--json", **self.more)


@contextmanager
def _server(folder: Path, text: str, *arguments: str, **more: str) -> Iterator[_World]:
    file, home = folder / "settings.toml", folder / "home"
    file.write_text(text)
    named: dict[str, Any] = {**LOCAL, "WINDLASS_CONFIG": str(file), **more}
    with program.server(home, *arguments, **named) as url:
        pid = json.loads((home / "server.json").read_text())["pid"]
        yield _World(file, home, named, url, pid)


def _turn(world: _World, ups: list[str], usd: float, reloads: int) -> None:
    """Reload by signal, every third time from a broken file; in the end by the command."""
    for number in range(reloads):
        broken = number % 3 == 2
        world.write("[[limits\n" if broken else _toml(ups[number % 2], usd, reserved_tokens=100 + number))
        world.hangup()
        time.sleep(0.15)
    world.write(_toml(ups[0], usd, reserved_tokens=99, max_body_bytes=2_048))
    done = world.reload()
    assert done.returncode == 0, done.stderr
    # By the command nothing may be left to change: a signal's reload was there first.
    assert set(json.loads(done.stdout)["changed"]) <= {
        "gateway.max_body_bytes",
        "gateway.reserved_tokens",
        "providers",
        "limits",
    }
    # Every worker follows: a connection goes to whichever is free.
    key = ""
    _within(10, lambda: all(call(world.url, key, **BIG)[0] in (401, 413) for _ in range(12)))


def _books(world: _World, database_url: str = "") -> tuple[int, int, int]:
    """(good outcomes, their cost, what the budget counts) in the database."""
    queries = (
        "SELECT count(*) FROM outcomes WHERE error = ''",
        "SELECT coalesce(sum(cost_nusd), 0) FROM outcomes",
        "SELECT coalesce(sum(nusd), 0) FROM spend WHERE name = 'shared'",
    )
    if database_url:
        with psycopg.connect(database_url.replace("+psycopg", "")) as remote:
            found = [remote.execute(query).fetchone() for query in queries]
    else:
        program.in_tables(world.home)
        with closing(sqlite3.connect(f"file:{world.home / 'ledger.db'}?mode=ro", uri=True)) as local:
            found = [local.execute(query).fetchone() for query in queries]
    good, cost, spent = (int(row[0]) for row in found if row is not None)
    return good, cost, spent


def _key(world: _World) -> str:
    done = program.windlass(world.home, "keys", "create", "vera", **world.more)
    assert done.returncode == 0, done.stderr
    key = done.stdout.split()[-1]
    _within(10, lambda: all(call(world.url, "")[0] == 401 for _ in range(12)))
    return key


def _under_load(world: _World, ups: list[str], served: Callable[[], int], reloads: int, url: str = "") -> None:
    key = _key(world)
    before, served_before = _books(world, url)[0], served()  # while the key was not known everywhere
    clients = _Clients(world.url, key)
    with clients.calling():
        _turn(world, ups, 1_000.0, reloads)
    assert clients.broken == []
    assert set(clients.statuses) == {200}
    assert clients.statuses[200] > 2 * CLIENTS
    good, cost, spent = _books(world, url)
    assert good - before == clients.statuses[200] == served() - served_before
    assert cost == spent == good * COST_NUSD


def _reloads(request: pytest.FixtureRequest) -> int:
    return SOAK if request.config.getoption("--soak") else RELOADS


def test_no_call_is_lost_and_none_fails(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    with ExitStack() as stack:
        (one, counts), (other, more) = stack.enter_context(_upstream()), stack.enter_context(_upstream())
        world = stack.enter_context(_server(tmp_path, _toml(one, 1_000.0)))
        _under_load(world, [one, other], lambda: counts.served + more.served, _reloads(request))
        assert more.served > 0
        rows = program.windlass(world.home, "audit", "list", "--limit", "1000", "--json", **world.more).stdout
        assert rows.count('"reload"') >= RELOADS // 3
        assert rows.count('"reload_refused"') >= RELOADS // 4


def test_several_workers_follow(tmp_path: Path, database_url: str, request: pytest.FixtureRequest) -> None:
    with ExitStack() as stack:
        (one, counts), (other, more) = stack.enter_context(_upstream()), stack.enter_context(_upstream())
        shared = {"WINDLASS_STORAGE__DATABASE_URL": database_url}
        world = stack.enter_context(_server(tmp_path, _toml(one, 1_000.0), "--workers", "2", **shared))
        before = program.children(world.pid)
        _under_load(world, [one, other], lambda: counts.served + more.served, _reloads(request), database_url)
        assert program.children(world.pid) == before, "no worker died of it"


def test_a_budget_holds_across_reloads_also_where_it_is_lowered(tmp_path: Path) -> None:
    with ExitStack() as stack:
        (one, counts), (other, more) = stack.enter_context(_upstream()), stack.enter_context(_upstream())
        world = stack.enter_context(_server(tmp_path, _toml(one, 1_000.0)))
        clients = _Clients(world.url, _key(world))
        with clients.calling():
            _within(20, lambda: clients.statuses[200] >= 20)
            usd = LOWERED * COST_NUSD / 1e9
            for number in range(6):
                world.write(_toml((one, other)[number % 2], usd, reserved_tokens=100 + number))
                world.hangup()
                time.sleep(0.2)
            _within(30, lambda: clients.statuses[429] >= 10)
        assert clients.broken == []
        assert set(clients.statuses) == {200, 429}
        good, cost, spent = _books(world)
        assert good == clients.statuses[200] == counts.served + more.served
        assert cost == spent == good * COST_NUSD
        assert spent <= LOWERED * COST_NUSD
        assert spent >= 20 * COST_NUSD
        assert call(world.url, clients.key)[0] in (200, 429)


def test_a_terminal_that_goes_away_ends_the_server(tmp_path: Path) -> None:
    """As before there were reloads: a server in the foreground does not outlive its window."""
    master, slave = pty.openpty()
    home = tmp_path / "home"
    process = subprocess.Popen(
        program.command("up", "--no-dashboard", "--port", str(program.free_port())),
        env=program.environment(home, **LOCAL),
        stdin=slave,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        cwd=tmp_path,
    )
    os.close(slave)
    try:
        url = program.url_of(home, process)  # type: ignore[arg-type]
        os.kill(process.pid, signal.SIGHUP)
        time.sleep(0.3)
        assert call(url, "")[0] != 0
        os.close(master)
        os.kill(process.pid, signal.SIGHUP)
        assert process.wait(20) == 0
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
