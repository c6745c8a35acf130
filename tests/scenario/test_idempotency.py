"""Idempotency keys before an upstream outside that counts: one call and one bill for a key, on both databases.

Clients that come at once and those that come again get the same bytes, also when the server is killed (SIGKILL) between
any two of its steps: what was billed is what is stored.
"""

from __future__ import annotations

import http.client
import http.server
import json
import logging
import os
import random
import signal
import sqlite3
import threading
import time
import urllib.error
import urllib.request
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg
import pytest

from tests.scenario.postgres import Postgres
from tests.scenario.program import children, free_port, kill, server, start, url_of
from windlass.ledger.db import Database
from windlass.ledger.replies import ReplyPlace, ReplyTable

pytestmark = [pytest.mark.scenario, pytest.mark.kill]
CLIENTS, WORKERS = 12, 3
KILLS, KILLS_SOAK = 8, 300
COST_NUSD = 7 * 1_000 + 11 * 2_000
Query = Callable[[str], list[tuple[Any, ...]]]


@dataclass
class _Seen:
    """What the upstream was asked, by the prompt. open: it answers while this is set."""

    calls: Counter[str] = field(default_factory=Counter)
    open: threading.Event = field(default_factory=threading.Event)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def count(self, prompt: str) -> int:
        with self.lock:
            self.calls[prompt] += 1
            return self.calls[prompt]


class _Upstream(http.server.BaseHTTPRequestHandler):
    """A provider that shares no code with the program. Each answer says how often its prompt has been asked."""

    seen: _Seen
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        prompt = body["messages"][0]["content"]
        text = f"{prompt}: answer {self.seen.count(prompt)}"
        self.seen.open.wait(60)
        time.sleep(0.03)
        with suppress(OSError):
            self._stream(text) if body.get("stream") else self._whole(text)

    def _whole(self, text: str) -> None:
        message = {"role": "assistant", "content": text}
        choice = {"index": 0, "finish_reason": "stop", "message": message}
        data = json.dumps({"id": "x", "object": "chat.completion", "choices": [choice], "usage": USAGE}).encode()
        self._head("application/json", len(data))
        self.wfile.write(data)

    def _stream(self, text: str) -> None:
        parts: list[dict[str, Any]] = [
            {"choices": [{"index": 0, "delta": {"content": letter}, "finish_reason": None}]} for letter in text
        ]
        parts.append({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
        parts.append({"choices": [], "usage": USAGE})
        events = [b"data: " + json.dumps(part).encode() + b"\n\n" for part in parts] + [b"data: [DONE]\n\n"]
        self._head("text/event-stream", sum(map(len, events)))
        for one in events:
            self.wfile.write(one)

    def _head(self, kind: str, size: int) -> None:
        self.send_response(200)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(size))
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        pass


USAGE = {"prompt_tokens": 7, "completion_tokens": 11, "total_tokens": 18}


class _Quiet(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_: Any) -> None:
        """A client that was killed breaks its connections off; that is what the tests are about."""


@contextmanager
def _upstream() -> Iterator[tuple[str, _Seen]]:
    class Counted(_Upstream):
        seen = _Seen()

    Counted.seen.open.set()
    served = _Quiet(("127.0.0.1", 0), Counted)
    thread = threading.Thread(target=served.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{served.server_address[1]}/v1", Counted.seen
    finally:
        Counted.seen.open.set()
        served.shutdown()
        served.server_close()
        thread.join()


def _settings(folder: Path, upstream: str) -> dict[str, str]:
    path = folder / "windlass.toml"
    model = '[[providers.models]]\nname = "m"\nprompt_usd_per_million = 1.0\ncompletion_usd_per_million = 2.0\n'
    limit = '[[limits]]\nname = "ever"\nwindow = "total"\nusd = 1_000_000.0\n'
    path.write_text(f'[[providers]]\nname = "up"\nbase_url = "{upstream}"\n{model}{limit}')
    return {"WINDLASS_CONFIG": str(path), "WINDLASS_MEMORY__EMBEDDER": "off"}


@dataclass(frozen=True)
class _Answer:
    status: int
    body: bytes
    call: str
    replayed: bool


def _ask(url: str, name: str, prompt: str, *, stream: bool = False) -> _Answer:
    """One request. OSError or HTTPException where it did not come back whole."""
    body = {"model": "m", "messages": [{"role": "user", "content": prompt}], "stream": stream}
    headers = {"content-type": "application/json", "idempotency-key": name}
    request = urllib.request.Request(f"{url}/v1/chat/completions", json.dumps(body).encode(), headers)
    try:
        with urllib.request.urlopen(request, timeout=30) as response:
            data, said = response.read(), response.headers
            if stream and not data.endswith(b"data: [DONE]\n\n"):
                raise http.client.IncompleteRead(data)
            return _Answer(response.status, data, said["x-windlass-call"], "x-windlass-replayed" in said)
    except urllib.error.HTTPError as refused:
        with refused:
            return _Answer(refused.code, refused.read(), "", replayed=False)


@dataclass
class _Place:
    """One database: how the server is told of it, and how the test reads it."""

    arguments: tuple[str, ...]
    more: dict[str, str]
    query: Query


@pytest.fixture(params=["sqlite", "postgresql"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> _Place:
    if request.param == "sqlite":

        def query(text: str) -> list[tuple[Any, ...]]:
            with closing(sqlite3.connect(f"file:{tmp_path / 'home' / 'ledger.db'}?mode=ro", uri=True)) as connection:
                return connection.execute(text).fetchall()

        return _Place((), {}, query)
    url: str = request.getfixturevalue("database_url")

    def asked(text: str) -> list[tuple[Any, ...]]:
        with psycopg.connect(url.replace("+psycopg", "")) as connection:
            return connection.execute(text).fetchall()

    return _Place(("--workers", str(WORKERS)), {"WINDLASS_STORAGE__DATABASE_URL": url}, asked)


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
def test_all_at_once_are_one_call_and_one_bill(tmp_path: Path, place: _Place, stream: bool) -> None:
    with _upstream() as (up, seen):
        more = _settings(tmp_path, up) | place.more
        with server(tmp_path / "home", "--no-dashboard", *place.arguments, **more) as url:
            for turn in range(5):
                seen.open.clear()
                with ThreadPoolExecutor(CLIENTS) as clients:
                    asked = [
                        clients.submit(_ask, url, f"key-{turn}", f"prompt {turn}", stream=stream)
                        for _ in range(CLIENTS)
                    ]
                    time.sleep(0.3)
                    seen.open.set()
                    answers = [one.result() for one in asked]
                assert {one.status for one in answers} == {200}, answers
                assert len({(one.body, one.call) for one in answers}) == 1
                assert sum(one.replayed for one in answers) == CLIENTS - 1
                again = _ask(url, f"key-{turn}", f"prompt {turn}", stream=stream)
                assert (again.body, again.call, again.replayed) == (answers[0].body, answers[0].call, True)
                other = _ask(url, f"key-{turn}", "another prompt", stream=stream)
                assert (other.status, json.loads(other.body)["error"]["code"]) == (422, "idempotency_key_reused")
    assert set(seen.calls.values()) == {1}
    assert place.query("SELECT count(*), sum(cost_nusd) FROM outcomes") == [(5, 5 * COST_NUSD)]
    assert place.query("SELECT sum(nusd) FROM spend") == [(5 * COST_NUSD,)]


def test_without_the_store_the_count_shows_it(tmp_path: Path) -> None:
    """The counter can fail: with nothing stored each repetition is a call, and a bill."""
    with _upstream() as (up, seen):
        more = _settings(tmp_path, up) | {"WINDLASS_GATEWAY__IDEMPOTENCY_MAX_BYTES": "0"}
        with (
            server(tmp_path / "home", "--no-dashboard", **more) as url,
            ThreadPoolExecutor(CLIENTS) as clients,
        ):
            asked = [clients.submit(_ask, url, "key", "prompt") for _ in range(CLIENTS)]
            bodies = {one.result().body for one in asked}
    assert seen.calls["prompt"] == len(bodies) == CLIENTS


def test_a_call_that_a_kill_cut_off_runs_again_and_is_billed_once(tmp_path: Path, place: _Place) -> None:
    home = tmp_path / "home"
    with _upstream() as (up, seen):
        more = _settings(tmp_path, up) | place.more
        seen.open.clear()
        process = start(home, "up", "--no-dashboard", "--port", str(free_port()), *place.arguments, **more)
        url = url_of(home, process)
        with ThreadPoolExecutor(1) as clients:
            cut = clients.submit(_ask, url, "key", "prompt")
            deadline = time.monotonic() + 20
            while not seen.calls and time.monotonic() < deadline:
                time.sleep(0.01)
            _everything(process)
            with pytest.raises((OSError, http.client.HTTPException)):
                cut.result()
        assert place.query("SELECT state FROM replies") == [("pending",)]
        seen.open.set()
        with server(home, "--no-dashboard", *place.arguments, **more) as url:
            began = time.monotonic()
            first, second = _ask(url, "key", "prompt"), _ask(url, "key", "prompt")
            took_s = time.monotonic() - began
    assert (first.status, first.body, second.replayed) == (200, second.body, True)
    assert took_s < 10, "the place of a process that is known to be dead is taken at once, not after its lease"
    assert seen.calls["prompt"] == 2
    assert place.query("SELECT count(*), sum(cost_nusd) FROM outcomes") == [(1, COST_NUSD)]


def test_machines_whose_clocks_differ_share_the_leases_of_a_server(database_url: str) -> None:
    """Of many processes that want a place at once one gets it, and a clock that is an hour ahead takes nobody's."""
    first, second = Database(database_url), Database(database_url)
    first.migrate()
    try:
        tables = ReplyTable(first, time.time), ReplyTable(second, lambda: time.time() + 3_600)
        with ThreadPoolExecutor(16) as pool:
            for turn in range(30):
                place = ReplyPlace("acme", "default", "app", f"d{turn}")
                found = list(
                    pool.map(lambda n, at=place: tables[n % 2].claim(at, "a", "s", f"elsewhere.1.1:{n}"), range(16))
                )
                assert found.count(None) == 1
                (owner,) = {one.owner for one in found if one is not None}
                # Let go of while others look: whoever finds it empty gets it, one at a time.
                freeing = pool.submit(tables[0].release, place, owner)
                again = list(pool.map(lambda n, at=place: tables[n % 2].claim(at, "a", "s", f"y:{n}"), range(12)))
                freeing.result()
                assert again.count(None) <= 1
    finally:
        first.close()
        second.close()


@dataclass
class _Load:
    """Clients that ask each key until they have had its answer twice, whatever happens to the server meanwhile."""

    url: str = ""
    got: dict[str, set[bytes]] = field(default_factory=lambda: defaultdict(set))
    calls: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    refused: Counter[int] = field(default_factory=Counter)
    repeated: int = 0
    asked: int = 0

    def __post_init__(self) -> None:
        self._lock = threading.Lock()

    def client(self, stop: threading.Event) -> None:
        while not stop.is_set():
            with self._lock:
                self.asked += 1
                number = self.asked // 2  # so that two clients at a time want the same
            self._key(f"key-{number}", f"prompt {number}", stream=number % 2 == 0)

    def _key(self, name: str, prompt: str, *, stream: bool) -> None:
        had = 0
        while had < 2:
            try:
                answer = _ask(self.url, name, prompt, stream=stream)
            except (OSError, http.client.HTTPException):
                time.sleep(0.05)
                continue
            with self._lock:
                if answer.status != 200:
                    self.refused[answer.status] += 1
                    continue
                self.got[name].add(answer.body)
                self.calls[name].add(answer.call)
                self.repeated += answer.replayed
            had += 1


def test_kills_under_load(
    tmp_path: Path, place: _Place, request: pytest.FixtureRequest, caplog: pytest.LogCaptureFixture
) -> None:
    kills = KILLS_SOAK if request.config.getoption("--soak") else KILLS
    strikes: Sequence[Callable[[Any], None]] = (_everything,)
    if place.arguments:
        postgres: Postgres = request.getfixturevalue("postgres")
        strikes = (_everything, _one_worker, lambda process: _connections(process, postgres))
    rng, load, stop, home, port = random.Random(7), _Load(), threading.Event(), tmp_path / "home", str(free_port())
    with _upstream() as (up, seen):
        more = _settings(tmp_path, up) | place.more
        load.url = f"http://127.0.0.1:{port}"
        clients = [threading.Thread(target=load.client, args=(stop,), daemon=True) for _ in range(CLIENTS)]
        for turn in range(kills + 1):
            process = start(home, "up", "--no-dashboard", "--port", port, *place.arguments, **more)
            try:
                url_of(home, process)
                if turn == 0:
                    for client in clients:
                        client.start()
                time.sleep(rng.uniform(0.3, 1.2))
                if turn == kills:
                    stop.set()
                    for client in clients:
                        client.join(60)
                    assert not any(client.is_alive() for client in clients), "every key came to its end"
                    os.killpg(process.pid, signal.SIGINT)
                    process.wait(30)
                else:
                    strikes[turn % len(strikes)](process)
            finally:
                stop_now = process.poll() is None
                if stop_now:
                    _everything(process)
    keys = len(load.got)
    again = sum(seen.calls.values()) - keys
    logging.getLogger(__name__).warning(
        "%d kills, %d keys, %d replays, %d calls cut off", kills, keys, load.repeated, again
    )
    assert keys > 5 * kills, "the load was real"
    assert {len(bodies) for bodies in load.got.values()} == {1}, "a key has one answer"
    assert {len(calls) for calls in load.calls.values()} == {1}, "and one call"
    billed = "SELECT count(*), count(DISTINCT call), sum(cost_nusd) FROM outcomes WHERE status = 200 AND error = ''"
    assert place.query(billed) == [(keys, keys, keys * COST_NUSD)], "each key is billed once"
    assert place.query("SELECT count(*) FROM replies WHERE state = 'done'") == [(keys,)]
    assert place.query("SELECT count(*) FROM replies r JOIN outcomes o ON o.call = r.call") == [(keys,)]


def _everything(process: Any) -> None:
    """The server and its workers, which are in process groups of their own."""
    pids = children(process.pid)
    kill(process)
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def _one_worker(process: Any) -> None:
    os.kill(random.Random(process.pid).choice(children(process.pid)), signal.SIGKILL)
    time.sleep(0.5)
    _everything(process)


def _connections(process: Any, postgres: Postgres) -> None:
    for pid in postgres.backends():
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGTERM)
    time.sleep(0.5)
    _everything(process)
