"""Past calls on real stores: SIGKILL in the middle, a server on the folder, days of long ago on PostgreSQL."""

from __future__ import annotations

import gzip
import json
import random
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest

from tests.scenario.postgres import Postgres
from tests.scenario.program import kill, rows, server, start, windlass

pytestmark = pytest.mark.scenario
CALLS = 12_000
COUNTS = (
    "SELECT (SELECT count(*) FROM calls), (SELECT count(*) FROM outcomes), (SELECT count(*) FROM bodies), "
    "(SELECT sum(cost_nusd) FROM outcomes), (SELECT count(*) FROM spend), (SELECT count(*) FROM decisions)"
)


def _export(path: Path, calls: int, *, days: int = 20, text: str = "x" * 400) -> Path:
    """Rows of LiteLLM with a reply each, out of order, over `days`; packed."""
    rng = random.Random(7)
    with gzip.open(path, "wt", compresslevel=1) as file:
        for number in range(calls):
            at = 1_700_000_000 + rng.randrange(days * 86_400)
            row = {
                "request_id": f"chatcmpl-{number}", "call_type": "acompletion", "spend": number / 1e7,
                "prompt_tokens": number, "completion_tokens": 1, "startTime": at, "endTime": at + 1, "model": "m",
                "custom_llm_provider": "openai", "status": "success", "response": {"text": text},
            }  # fmt: skip
            file.write(json.dumps(row) + "\n")
    return path


@pytest.mark.kill
def test_kills_leave_whole_calls_and_the_next_run_goes_on(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    kills = 40 if request.config.getoption("--soak") else 4
    export, rng = _export(tmp_path / "spend.jsonl.gz", CALLS), random.Random(20261121)
    whole = (CALLS, CALLS, CALLS, 100 * CALLS * (CALLS - 1) // 2, 0, 0)
    killed, seen, ended, landed, met = tmp_path / "killed-0", [0], 0, 0, 0
    while landed < kills:
        process = start(killed, "logs", "import", str(export))
        deadline, wanted = time.monotonic() + 60, seen[-1] + rng.randrange(1, CALLS // kills)
        while process.poll() is None and _calls(killed) < wanted and time.monotonic() < deadline:
            time.sleep(0.005)
        if process.poll() is not None:  # it came to its end before its kill: the next one is for another folder
            assert process.returncode == 0
            assert rows(killed, COUNTS) == [whole]
            ended += 1
            killed, seen = tmp_path / f"killed-{ended}", [0]
            continue
        kill(process)
        landed += 1
        (found,) = rows(killed, COUNTS)
        assert found[0] == found[1] == found[2], "a call is never without what belongs to it"
        seen.append(_calls(killed))
        met += 0 < seen[-1] < CALLS
        assert seen == sorted(seen)
    assert met >= kills / 2, "the kills met imports that were under way"
    done = windlass(killed, "logs", "import", str(export), "--json")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert (report["imported"], report["already"]) == (CALLS - seen[-1], seen[-1])
    assert rows(killed, COUNTS) == [whole]


def test_a_server_that_runs_on_the_folder_takes_it_and_counts_none_of_it(tmp_path: Path) -> None:
    export, home = _export(tmp_path / "spend.jsonl.gz", 1_500, text="é" * 3_000), tmp_path / "home"
    with server(home):
        done = windlass(home, "logs", "import", str(export), "--tenant", "acme", "--json")
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["imported"] == 1_500
        again = json.loads(windlass(home, "logs", "import", str(export), "--tenant", "acme", "--json").stdout)
        assert (again["imported"], again["already"]) == (0, 1_500)
        assert rows(home, "SELECT DISTINCT tenant FROM calls") == [("acme",)]
        assert "windlass_calls_total{" not in windlass(home, "metrics").stdout
    assert rows(home, "SELECT count(*) FROM rollup_outcomes") == [(0,)]


def test_an_unknown_file_ends_with_code_2_and_words(tmp_path: Path) -> None:
    strange = tmp_path / "strange.csv"
    strange.write_text("day,cost\nmonday,1\n")
    refused = windlass(tmp_path / "home", "logs", "import", str(strange))
    assert refused.returncode == 2
    assert "strange.csv is no export of a known program" in refused.stderr
    assert "--format" in refused.stderr


def test_a_long_history_makes_no_partitions_on_postgresql(postgres: Postgres, tmp_path: Path) -> None:
    export = _export(tmp_path / "spend.jsonl.gz", 600, days=1_000)
    with _database(postgres) as url:
        more: dict[str, Any] = {"WINDLASS_STORAGE__DATABASE_URL": url}
        done = windlass(tmp_path / "home", "logs", "import", str(export), "--json", **more)
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["imported"] == 600
        again = windlass(tmp_path / "home", "logs", "import", str(export), "--json", **more)
        assert json.loads(again.stdout)["already"] == 600, again.stderr
        listed = windlass(tmp_path / "home", "calls", "--until", "2024-12-01", "--limit", "1000", "--json", **more)
        assert len(json.loads(listed.stdout)["calls"]) > 100, listed.stderr
        with psycopg.connect(url.replace("+psycopg", "")) as connection:
            (days,) = connection.execute(
                "SELECT count(*) FROM pg_class WHERE relname ~ '^outcomes_19[0-9]+$' AND relkind = 'r'"
            ).fetchone() or (0,)
        assert days == 0, "a table for each day of three years makes every query run out of locks"


def _calls(home: Path) -> int:
    try:
        ((count,),) = rows(home, "SELECT count(*) FROM calls")
    except sqlite3.OperationalError:  # the file, or its tables, may not be there yet
        return 0
    return int(str(count))


@contextmanager
def _database(postgres: Postgres) -> Iterator[str]:
    url = postgres.create()
    try:
        yield url
    finally:
        postgres.drop(url)
