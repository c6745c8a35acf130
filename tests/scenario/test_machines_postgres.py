"""Two machines on one PostgreSQL database, each with a state folder and a supervisor of its own."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg
import pytest

from tests.scenario import program

pytestmark = pytest.mark.scenario
ASKED = {"model": "auto", "messages": [{"role": "user", "content": "A pawl holds.\n\nWhat holds?"}], "user": "u"}


def _until(what: Callable[[], bool], patience_s: float = 20.0) -> None:
    deadline = time.monotonic() + patience_s
    while not what():
        assert time.monotonic() < deadline, "it did not come to that"
        time.sleep(0.1)


def _rows(url: str, query: str) -> list[Any]:
    with psycopg.connect(url.replace("+psycopg", "")) as connection:
        return connection.execute(query).fetchall()


def test_two_supervisors_share_a_database_and_no_name(tmp_path: Path, database_url: str) -> None:
    here = {"WINDLASS_STORAGE__DATABASE_URL": database_url, "WINDLASS_MEMORY__EMBEDDER": "off"}
    homes = tmp_path / "one", tmp_path / "other"
    alive = f"SELECT name, pid, head, cursor FROM workers WHERE at > {time.time()} ORDER BY name"
    with (
        program.server(homes[0], "--workers", "2", **here) as one,
        program.server(homes[1], "--workers", "2", **here) as other,
    ):
        _until(lambda: len(_rows(database_url, alive)) == 4)
        for url in (one, other) * 6:
            assert program.post(f"{url}/v1/chat/completions", ASKED)[0] == 200
        _until(lambda: len({row[3] for row in _rows(database_url, alive)}) == 1)
        workers = _rows(database_url, alive)
        assert len({row[1] for row in workers}) == 4, "every process has a row of its own"
        assert sorted(row[0].split("@")[0] for row in workers) == ["worker-0", "worker-0", "worker-1", "worker-1"]
        assert len({row[0].split("@")[1] for row in workers}) == 2
        for home in homes:
            told = json.loads(program.windlass(home, "doctor", "--replay", "--json", **here).stdout)
            assert {worker["name"] for worker in told["workers"]} == {row[0] for row in workers}
            assert told["replay"]["equal"]
        # One machine is switched off: the other goes on, and its workers learn on.
        names = {row[0] for row in workers}
        left = json.loads((homes[1] / "server.json").read_text())["pid"]
        for pid in (*program.children(left), left):
            os.kill(pid, signal.SIGSTOP if pid == left else signal.SIGKILL)
        gone = f"SELECT name FROM workers WHERE at > {time.time() + 6}"
        _until(lambda: len(_rows(database_url, gone)) == 2)
        assert {row[0] for row in _rows(database_url, gone)} < names
        assert program.post(f"{one}/v1/chat/completions", ASKED)[0] == 200
        os.kill(left, signal.SIGCONT)
        _until(lambda: len(_rows(database_url, gone)) == 4)
        assert {row[0] for row in _rows(database_url, gone)} == names, "who comes back has the name it had"
    assert _rows(database_url, "SELECT count(*) FROM calls") == [(13,)]
    assert _rows(database_url, f"SELECT count(*) FROM workers WHERE at > {time.time() - 60}") == [(0,)]
