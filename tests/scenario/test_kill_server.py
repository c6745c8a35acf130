"""SIGKILL under load, on both databases: of the server, of one worker, of the database's own connections.

What a client has received is in the ledger, feedback is there exactly once, money adds up to what an upstream outside
has served, and afterwards the policies fold again to the last bit.
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
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg
import pytest

from tests.scenario.postgres import Postgres
from tests.scenario.program import children, free_port, kill, post, start, url_of, windlass

pytestmark = [pytest.mark.scenario, pytest.mark.kill]
CLIENTS, WORKERS = 4, 3
JSON = {"content-type": "application/json"}
KILLS, KILLS_SOAK = 15, 1_000
LIMITS = {
    "ever": 'window = "total"\nusd = 1_000_000.0',
    "month": 'window = "month"\nper = "user"\nusd = 1_000_000.0\ntokens = 1_000_000_000_000',
    "rate": 'window = "minute"\nrequests = 1_000_000\nconcurrent = 1_000',
}
"""Budgets that no load of the tests exhausts, so that every call counts against them."""
Query = Callable[[str], list[tuple[Any, ...]]]


class _Upstream(http.server.BaseHTTPRequestHandler):
    """A provider that shares no code with the program: it counts what it served, by the marker in the prompt."""

    served: Counter[str]
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        type(self).served[body["messages"][0]["content"]] += 1
        message = {"role": "assistant", "content": "yes"}
        answer = {
            "id": "x",
            "object": "chat.completion",
            "created": 0,
            "model": body["model"],
            "choices": [{"index": 0, "finish_reason": "stop", "message": message}],
            "usage": {"prompt_tokens": 7, "completion_tokens": 11, "total_tokens": 18},
        }
        data = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: Any) -> None:
        pass


@contextmanager
def _upstream() -> Iterator[tuple[str, Counter[str]]]:
    class Counted(_Upstream):
        served = Counter[str]()

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Counted)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/v1", Counted.served
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@dataclass
class _Load:
    """Clients that call and rate until the server is gone. Only what came back whole counts."""

    url: str = ""
    received: list[str] = field(default_factory=list)
    acknowledged: list[str] = field(default_factory=list)
    refused: Counter[int] = field(default_factory=Counter)
    asked: int = 0

    def __post_init__(self) -> None:
        self._lock = threading.Lock()

    def run(self, stop: threading.Event) -> list[threading.Thread]:
        threads = [threading.Thread(target=self._client, args=(stop,), daemon=True) for _ in range(CLIENTS)]
        for thread in threads:
            thread.start()
        return threads

    def _client(self, stop: threading.Event) -> None:
        while not stop.is_set():
            with self._lock:
                self.asked += 1
                marker = f"question {self.asked}"
            with suppress(OSError, http.client.HTTPException, json.JSONDecodeError):
                self._once(marker)
                continue
            time.sleep(0.02)

    def body(self, marker: str) -> dict[str, Any]:
        """What is asked in one call."""
        return {"model": "auto", "messages": [{"role": "user", "content": marker}]}

    def _once(self, marker: str) -> None:
        body = json.dumps(self.body(marker)).encode()
        request = urllib.request.Request(f"{self.url}/v1/chat/completions", body, JSON)
        try:
            with urllib.request.urlopen(request, timeout=10) as response:
                reply, call = json.loads(response.read()), response.headers["x-windlass-call"]
        except urllib.error.HTTPError as refused:
            with refused:
                self.refused[refused.code] += 1
            return
        assert reply["usage"]["total_tokens"] == 18
        self.received.append(call)
        said = {"id": f"fb-{call}", "target": call, "kind": "rating", "value": 1.0}
        kept = [post(f"{self.url}/v1/feedback", said, timeout_s=10)[0] for _ in range(2)]
        if 200 in kept:
            self.acknowledged.append(said["id"])


def _settings(folder: Path, upstream: str) -> str:
    path = folder / "windlass.toml"
    models = "".join(
        f'\n[[providers.models]]\nname = "{name}"\nprompt_usd_per_million = 1.0\ncompletion_usd_per_million = 2.0\n'
        for name in ("m1", "m2")
    )
    limits = "".join(f'\n[[limits]]\nname = "{name}"\n{rule}\n' for name, rule in LIMITS.items())
    path.write_text(f'[[providers]]\nname = "up"\nbase_url = "{upstream}"\n{models}{limits}')
    return str(path)


def _check(query: Query, load: _Load, served: Counter[str]) -> None:
    ended = {row[0] for row in query("SELECT call FROM outcomes WHERE status = 200")}
    assert set(load.received) <= ended, f"{len(set(load.received) - ended)} answered calls are missing"
    kept = [row[0] for row in query("SELECT id FROM feedback WHERE source = 'user'")]
    assert set(load.acknowledged) <= set(kept), f"{len(set(load.acknowledged) - set(kept))} feedbacks are missing"
    assert len(kept) == len(set(kept)), "a feedback is there twice"
    assert query("SELECT count(*) FROM (SELECT call FROM outcomes GROUP BY call HAVING count(*) > 1) AS twice") == [
        (0,)
    ]
    undecided = "SELECT count(*) FROM calls c LEFT JOIN decisions d ON d.call = c.id WHERE d.id IS NULL"
    assert query(undecided) == [(0,)], "a call without its decision"
    assert len(ended) <= sum(served.values()), "the ledger knows of more answers than the upstream gave"
    ((cost, prompt, completion),) = query(
        "SELECT sum(cost_nusd), sum(prompt_tokens), sum(completion_tokens) FROM outcomes WHERE status = 200"
    )
    assert (int(cost), int(prompt), int(completion)) == (29_000 * len(ended), 7 * len(ended), 11 * len(ended))
    budgets = {name: int(nusd) for name, nusd in query("SELECT name, sum(nusd) FROM spend GROUP BY name")}
    assert budgets == {"ever": int(cost), "month": int(cost)}, "budgets and the ledger disagree"
    ((calls, spent),) = query("SELECT sum(calls), sum(cost_nusd) FROM rollup_outcomes")
    assert query("SELECT count(*), sum(cost_nusd) FROM outcomes") == [(int(calls), int(spent))], "rollups disagree"


def _replays(home: Path, **more: str) -> None:
    done = windlass(home, "doctor", "--replay", "--json", **more)
    report = json.loads(done.stdout)
    assert report["replay"]["equal"], report["replay"]


def _round(
    rng: random.Random, load: _Load, home: Path, arguments: Sequence[str], strike: Callable[[Any], None], **more: str
) -> float:
    """Start, load, strike, and tell how long the start took (seconds)."""
    began = time.monotonic()
    process = start(home, "up", "--no-dashboard", "--port", str(free_port()), *arguments, **more)
    stop, clients = threading.Event(), list[threading.Thread]()
    try:
        load.url = url_of(home, process)
        ready_s = time.monotonic() - began
        clients = load.run(stop)
        time.sleep(rng.uniform(0.3, 1.2))
        strike(process)
    finally:
        stop.set()
        if process.poll() is None:
            kill(process)
        for client in clients:
            client.join()
    return ready_s


def _say(kills: int, load: _Load, ready: list[float]) -> None:
    logging.getLogger(__name__).warning(
        "%d kills, %d answers, ready again in %.1f s at most", kills, len(load.received), max(ready[1:])
    )


def _stopped_well(home: Path, arguments: Sequence[str], **more: str) -> None:
    """One more start, and an end in order, so that the folds have seen everything."""
    process = start(home, "up", "--no-dashboard", "--port", str(free_port()), *arguments, **more)
    url_of(home, process)
    os.killpg(process.pid, signal.SIGINT)
    assert process.wait(30) == 0


def test_sqlite(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    kills = KILLS_SOAK if request.config.getoption("--soak") else KILLS
    rng, load = random.Random(4), _Load()
    with _upstream() as (url, served):
        more = {"WINDLASS_CONFIG": _settings(tmp_path, url), "WINDLASS_MEMORY__EMBEDDER": "off"}
        home = tmp_path / "home"
        ready = [_round(rng, load, home, (), kill, **more) for _ in range(kills)]
        _stopped_well(home, (), **more)
    _say(kills, load, ready)

    def query(text: str) -> list[tuple[Any, ...]]:
        with closing(sqlite3.connect(f"file:{home / 'ledger.db'}?mode=ro", uri=True)) as connection:
            return connection.execute(text).fetchall()

    assert query("PRAGMA integrity_check") == [("ok",)]
    assert len(load.received) > 5 * kills, "the load was real"
    _check(query, load, served)
    _replays(home, **more)


def test_postgresql(tmp_path: Path, request: pytest.FixtureRequest, postgres: Postgres, database_url: str) -> None:
    kills = KILLS_SOAK if request.config.getoption("--soak") else KILLS
    rng, load, home = random.Random(5), _Load(), tmp_path / "home"

    def query(text: str) -> list[tuple[Any, ...]]:
        with psycopg.connect(database_url.replace("+psycopg", "")) as connection:
            return connection.execute(text).fetchall()

    def everything(process: Any) -> None:
        pids = children(process.pid)
        kill(process)
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def one_worker(process: Any) -> None:
        os.kill(rng.choice(children(process.pid)), signal.SIGKILL)
        time.sleep(rng.uniform(0.2, 1.5))
        everything(process)

    def connections(process: Any) -> None:
        for pid in postgres.backends():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)
        time.sleep(rng.uniform(0.2, 1.0))
        everything(process)

    def the_database(process: Any) -> None:
        """One connection killed hard makes the server restart all of them, and recover."""
        one = rng.choice(postgres.backends())
        with suppress(ProcessLookupError):
            os.kill(one, signal.SIGKILL)
        time.sleep(rng.uniform(1.0, 2.0))
        everything(process)

    strikes = (everything, one_worker, connections, the_database)
    arguments = ("--workers", str(WORKERS))
    with _upstream() as (url, served):
        more = {"WINDLASS_CONFIG": _settings(tmp_path, url), "WINDLASS_MEMORY__EMBEDDER": "off"}
        more["WINDLASS_STORAGE__DATABASE_URL"] = database_url
        ready = [_round(rng, load, home, arguments, strikes[n % 4], **more) for n in range(kills)]
        _stopped_well(home, arguments, **more)
    _say(kills, load, ready)
    assert len(load.received) > 5 * kills, "the load was real"
    _check(query, load, served)
    _replays(home, **more)
