"""Money over real kills: the server dies by SIGKILL in the middle of calls, again and again.

Then three who keep books of their own are compared to the nano-dollar: the ledger, the budgets, and the clients, who
add up the headers of what they received. Outside stands the provider, who counts what it has served.
"""

from __future__ import annotations

import http.client
import json
import random
import signal
import sqlite3
import threading
import time
from contextlib import closing, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import pytest

from tests.property.faithful import KEY, Faithful, in_a_thread, on_disk
from tests.scenario.program import free_port, kill, start, url_of

pytestmark = [pytest.mark.scenario, pytest.mark.kill]
KILLS, SOAK = 4, 100
CLIENTS: Final = 4
ASKED: Final[dict[str, dict[str, Any]]] = {
    "/v1/chat/completions": {"messages": [{"role": "user", "content": "ahoy"}]},
    "/v1/messages": {"messages": [{"role": "user", "content": "ahoy"}], "max_tokens": 50},
    "/v1/responses": {"input": "ahoy"},
    "/v1/embeddings": {"input": ["ahoy", "there"]},
    "/v1/moderations": {"input": "ahoy"},
}
MODELS: Final = ("plain", "translated", "gemini", "azure")
PATIENCE_S: Final = 20.0


@dataclass
class Clients:
    """They call until the server is gone, and write down what each whole answer says that it cost."""

    url: str = ""
    told: dict[str, int] = field(default_factory=dict)
    streamed: set[str] = field(default_factory=set)
    statuses: set[int] = field(default_factory=set)

    def run(self, seed: int, stop: threading.Event) -> list[threading.Thread]:
        threads = [
            threading.Thread(target=self._client, args=(random.Random(seed * 100 + n), stop)) for n in range(CLIENTS)
        ]
        for thread in threads:
            thread.start()
        return threads

    def _client(self, rng: random.Random, stop: threading.Event) -> None:
        host = urlsplit(self.url).netloc
        while not stop.is_set():
            connection = http.client.HTTPConnection(host, timeout=PATIENCE_S)
            with closing(connection), suppress(OSError, http.client.HTTPException):
                while not stop.is_set():
                    self._call(connection, rng)

    def _call(self, connection: http.client.HTTPConnection, rng: random.Random) -> None:
        path = rng.choice(list(ASKED))
        stream = rng.random() < 0.4 and path not in ("/v1/embeddings", "/v1/moderations")
        model = rng.choice(MODELS) if path not in ("/v1/embeddings", "/v1/moderations") else "plain"
        body = json.dumps({**ASKED[path], "model": model, "stream": stream, "user": f"u{rng.randrange(3)}"})
        connection.request("POST", path, body, {"content-type": "application/json", "authorization": f"Bearer {KEY}"})
        answer = connection.getresponse()
        answer.read()
        self.statuses.add(answer.status)
        call = answer.headers.get("x-windlass-call")
        if answer.status != 200 or call is None:
            return
        if stream:
            self.streamed.add(call)
        else:
            self.told[call] = int(answer.headers["x-windlass-cost-nusd"])


def _round(home: Path, clients: Clients, seed: int, kills: bool, **more: str) -> None:
    process = start(home, "up", "--no-dashboard", "--port", str(free_port()), **more)
    stop, threads = threading.Event(), list[threading.Thread]()
    try:
        clients.url = url_of(home, process)
        threads = clients.run(seed, stop)
        time.sleep(random.Random(seed).uniform(0.5, 1.5))
        if kills:
            kill(process)
        stop.set()
        for thread in threads:
            thread.join()
        if not kills:  # in order, so that no journal is left for the next start
            process.send_signal(signal.SIGINT)
            assert process.wait(30) == 0
    finally:
        stop.set()
        if process.poll() is None:
            kill(process)


def _books(home: Path, query: str) -> list[tuple[Any, ...]]:
    with closing(sqlite3.connect(f"file:{home / 'ledger.db'}?mode=ro", uri=True)) as connection:
        return connection.execute(query).fetchall()


def test_the_books_agree_after_kills(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    kills = SOAK if request.config.getoption("--soak") else KILLS
    home, clients = tmp_path / "home", Clients()
    with in_a_thread() as upstream:
        more = on_disk(tmp_path, upstream, USERS)
        for seed in range(kills + 1):
            _round(home, clients, seed, seed < kills, **more)
        _check(home, clients, upstream, kills)


USERS: Final = '[[limits]]\nname = "users"\nper = "user"\nwindow = "month"\nusd = 1_000_000.0\n'


COSTS: Final = """SELECT c.endpoint, o.model, count(DISTINCT o.cost_nusd)
    FROM outcomes o JOIN calls c ON c.id = o.call GROUP BY 1, 2"""


def _check(home: Path, clients: Clients, upstream: Faithful, kills: int) -> None:
    costs = {call: int(cost) for call, cost in _books(home, "SELECT call, cost_nusd FROM outcomes")}
    assert len(clients.told) > 20, "the load was real"
    assert clients.streamed, "streams among it"
    assert clients.statuses == {200}
    received = clients.told.keys() | clients.streamed
    assert received <= costs.keys(), f"{len(received - costs.keys())} answers are not in the ledger"
    assert {call: costs[call] for call in clients.told} == clients.told, "told and billed differ"
    ledger = sum(costs.values())
    assert ledger > 0
    budgets = {name: int(nusd) for name, nusd in _books(home, "SELECT name, sum(nusd) FROM spend GROUP BY name")}
    assert budgets == {"all": ledger, "users": ledger}
    ((seen, spent),) = _books(home, "SELECT sum(calls), sum(cost_nusd) FROM rollup_outcomes")
    assert (int(seen), int(spent)) <= (len(costs), ledger), "the pages count no more than there is"
    lost = upstream.served - len(costs)
    assert 0 <= lost <= CLIENTS * kills, f"the provider has served {lost} calls more than the ledger knows"
    assert {count for _, _, count in _books(home, COSTS)} == {1}, "streamed or not, a call costs the same"
