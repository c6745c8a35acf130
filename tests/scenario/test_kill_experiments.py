"""SIGKILL while experiments begin, go up their ramps, are rolled back and shipped, on both databases, with workers.

Whatever step a client was told of is on record once; of two who ship at once one is told so; a user keeps the variant;
no call is assigned twice; and after each kill the ladder goes on from where it was.
"""

from __future__ import annotations

import http.client
import json
import random
import sqlite3
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import psycopg
import pytest

from tests.scenario.postgres import Postgres
from tests.scenario.program import free_port, kill, post, start, url_of
from tests.scenario.test_kill_server import _check, _Load, _replays, _settings, _stopped_well, _upstream

pytestmark = [pytest.mark.scenario, pytest.mark.kill]
KILLS, KILLS_SOAK = 6, 100
USERS = 12
PLAN = {
    "variants": [{"name": "usual", "share": 0.5}, {"name": "b", "share": 0.5, "action": "m2"}],
    "unit": "user",
    "size": 1_000,
    "ramp": [0.3, 0.6, 1.0],
    "ramp_after": 2,
    "guardrails": [{"metric": "error"}],
}
Query = Callable[[str], list[tuple[Any, ...]]]


class _Steps:
    """Somebody who takes experiments through their steps, and remembers what was answered.

    told: (name, step) of every step that was answered with 200. stages: the last that was seen, by experiment.
    """

    def __init__(self, rng: random.Random) -> None:
        self.url = ""
        self.told: list[tuple[str, str]] = []
        self.stages: dict[str, int] = {}
        self.refused: list[int] = []
        self._rng = rng
        self._made = 0

    def run(self, stop: threading.Event) -> None:
        while not stop.is_set():
            with suppress(OSError, http.client.HTTPException, json.JSONDecodeError):
                self._step()
            time.sleep(self._rng.uniform(0.0, 0.1))

    def _step(self) -> None:
        listed = self._ask("experiments", {"state": "running"})
        if listed is None:
            return
        if not listed["experiments"]:
            self._made += 1
            name = f"kill-{self._made}"
            self._take(name, "begin", "experiment_start", {"plan": {"name": name, **PLAN}})
            return
        (one,) = listed["experiments"]
        name, stage = one["name"], one["stage"]
        assert stage >= self.stages.get(name, 0), "a ramp went back"
        self.stages[name] = stage
        turn = self._rng.random()
        if turn < 0.15:
            self._take(name, "advance", "experiment_advance", {"name": name})
        elif turn < 0.2:
            self._take(name, "end", "experiment_rollback", {"name": name})
        elif turn < 0.25:
            ship = {"name": name, "variant": self._rng.choice(("usual", "b")), "force": True, "reason": "a test"}
            both = [threading.Thread(target=self._quietly, args=(name, ship)) for _ in range(2)]
            for thread in both:
                thread.start()
            for thread in both:
                thread.join()

    def _quietly(self, name: str, ship: dict[str, Any]) -> None:
        with suppress(OSError, http.client.HTTPException, json.JSONDecodeError):
            self._take(name, "end", "experiment_ship", ship)

    def _take(self, name: str, step: str, operation: str, arguments: dict[str, Any]) -> None:
        if self._ask(operation, arguments) is not None:
            self.told.append((name, step))

    def _ask(self, operation: str, arguments: dict[str, Any]) -> dict[str, Any] | None:
        status, answer = post(f"{self.url}/api/{operation}", arguments, timeout_s=10)
        if status != 200:
            assert status < 500, answer
            self.refused.append(status)
            return None
        found: dict[str, Any] = json.loads(answer)
        return found


class _Users(_Load):
    """Clients that say who they are."""

    def body(self, marker: str) -> dict[str, Any]:
        return super().body(marker) | {"user": f"user {hash(marker) % USERS}"}


def _rounds(kills: int, rng: random.Random, home: Path, arguments: Sequence[str], **more: str) -> tuple[_Load, _Steps]:
    """Start, load, take steps, and kill, so many times."""
    load, steps = _Users(), _Steps(rng)
    for _ in range(kills):
        process = start(home, "up", "--no-dashboard", "--port", str(free_port()), *arguments, **more)
        stop, threads = threading.Event(), list[threading.Thread]()
        try:
            load.url = steps.url = url_of(home, process)
            stepping = threading.Thread(target=steps.run, args=(stop,), daemon=True)
            stepping.start()
            threads = [*load.run(stop), stepping]
            time.sleep(rng.uniform(1.0, 4.0))
        finally:
            kill(process)
            stop.set()
            for thread in threads:
                thread.join()
    return load, steps


def _check_experiments(query: Query, steps: _Steps) -> None:
    rollouts = [str(row[0]) for row in query("SELECT action FROM decisions WHERE point = 'rollout' ORDER BY seq")]
    begun = {json.loads(one.partition("=")[2])["name"] for one in rollouts if ":experiment=" in one}
    recorded = defaultdict(list)
    for one in rollouts:
        if ":trial=" in one:
            name, _, step = one.partition("=")[2].partition(":")
            recorded[name].append(step)
    for name, step in steps.told:
        assert name in begun, f"{name} was begun, and is not on record"
        if step != "begin":
            assert recorded[name], f"{name}: {step} was answered, and is not on record"
    ended = [name for name, step in steps.told if step == "end"]
    assert len(ended) == len(set(ended)), "two were told that they had ended the same experiment"
    twice = "SELECT count(*) FROM (SELECT call FROM decisions WHERE point = 'experiment' GROUP BY call, policy "
    assert query(f"{twice} HAVING count(*) > 1) AS twice") == [(0,)], "a call was assigned twice"
    found = query(
        'SELECT e.policy, c."user", e.action, d.action FROM decisions e JOIN calls c ON c.id = e.call '
        "JOIN decisions d ON d.call = e.call AND d.point = 'model' AND d.live WHERE e.point = 'experiment' "
        "ORDER BY e.seq"
    )
    kept: dict[tuple[str, str], str] = {}
    for policy, user, variant, _ in found:
        assert kept.get((policy, user)) in (None, variant, "usual"), f"{user} lost {kept[policy, user]} for {variant}"
        kept[policy, user] = variant
    assert {"usual", "b"} == set(kept.values()), "the load was in the experiments"
    taken = [action for _, _, variant, action in found if variant == "b"]
    assert taken.count("m2") >= 0.9 * len(taken), "but for the randomised share it does what it says"


def _stages_after(home: Path, arguments: Sequence[str], steps: _Steps, **more: str) -> None:
    """The last experiment is where it was seen, or further, once everything is started again."""
    process = start(home, "up", "--no-dashboard", "--port", str(free_port()), *arguments, **more)
    try:
        status, answer = post(f"{url_of(home, process)}/api/experiments", {"limit": 100})
        assert status == 200, answer
        stood = {one["name"]: one for one in json.loads(answer)["experiments"]}
        for name, stage in steps.stages.items():
            assert stood[name]["stage"] >= stage
        for name, step in steps.told:
            assert step != "end" or stood[name]["state"] in ("rolled back", "shipped")
        assert sum(one["state"] == "running" for one in stood.values()) <= 1
    finally:
        kill(process)


def test_sqlite(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    kills = KILLS_SOAK if request.config.getoption("--soak") else KILLS
    home = tmp_path / "home"
    with _upstream() as (url, served):
        more = {"WINDLASS_CONFIG": _settings(tmp_path, url), "WINDLASS_MEMORY__EMBEDDER": "off"}
        load, steps = _rounds(kills, random.Random(6), home, (), **more)
        _stages_after(home, (), steps, **more)
        _stopped_well(home, (), **more)

    def query(text: str) -> list[tuple[Any, ...]]:
        with closing(sqlite3.connect(f"file:{home / 'ledger.db'}?mode=ro", uri=True)) as connection:
            return connection.execute(text).fetchall()

    _check(query, load, served)
    _check_experiments(query, steps)
    _replays(home, **more)


def test_postgresql(tmp_path: Path, request: pytest.FixtureRequest, postgres: Postgres, database_url: str) -> None:
    kills = KILLS_SOAK if request.config.getoption("--soak") else KILLS
    home, workers = tmp_path / "home", ("--workers", "3")

    def query(text: str) -> list[tuple[Any, ...]]:
        with psycopg.connect(database_url.replace("+psycopg", "")) as connection:
            return connection.execute(text).fetchall()

    with _upstream() as (url, served):
        more = {"WINDLASS_CONFIG": _settings(tmp_path, url), "WINDLASS_MEMORY__EMBEDDER": "off"}
        more["WINDLASS_STORAGE__DATABASE_URL"] = database_url
        load, steps = _rounds(kills, random.Random(7), home, workers, **more)
        _stages_after(home, workers, steps, **more)
        _stopped_well(home, workers, **more)
    _check(query, load, served)
    _check_experiments(query, steps)
    _replays(home, **more)
