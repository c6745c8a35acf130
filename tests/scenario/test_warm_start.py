"""A warm start in the real program: every model is asked, graded and learned of, and SIGKILL doubles nothing."""

from __future__ import annotations

import http.server
import json
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.scenario import program

pytestmark = [pytest.mark.scenario, pytest.mark.kill]
MODELS = ("cheap", "mid", "dear")
PROMPTS = 12
KILLS = 2
USD = {"cheap": 1.0, "mid": 2.0, "dear": 4.0}
TOKENS = 100
SETTLED_S = 40.0
Served = Counter[tuple[str, str]]


class _Upstream(http.server.BaseHTTPRequestHandler):
    """Takes a moment for each answer, of which one model's are right, and counts what it served."""

    served: Served
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        type(self).served[body["model"], body["messages"][0]["content"]] += 1
        time.sleep(0.05)
        said = {
            "choices": [
                {"message": {"content": "42" if body["model"] == "mid" else "41"}, "finish_reason": "stop", "index": 0}
            ],
            "usage": {"prompt_tokens": TOKENS, "completion_tokens": TOKENS},
        }
        data = json.dumps(said).encode()
        try:
            self.send_response(200)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)
        except OSError:
            self.close_connection = True  # the program was killed meanwhile

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing is logged."""


@dataclass(frozen=True)
class Place:
    """A state folder, the settings of the program on it, and what the upstream served."""

    home: Path
    config: Path
    served: Served

    def run(self, *arguments: str) -> Any:
        return program.windlass(self.home, *arguments, WINDLASS_CONFIG=str(self.config))

    def told(self, what: str) -> dict[str, Any]:
        done = self.run("warm", what, "--json")
        assert done.returncode == 0, done.stderr
        found: dict[str, Any] = json.loads(done.stdout)
        return found


def _settings(port: int, *routing: str) -> str:
    models = ", ".join(
        f'{{ name = "{name}", prompt_usd_per_million = {usd}, completion_usd_per_million = {usd} }}'
        for name, usd in USD.items()
    )
    return "\n".join(
        (
            '[memory]\nembedder = "off"',
            '[points.model]\nmode = "live"\npolicy = "joint_thompson"',
            "[routing]",
            *routing,
            "[graders.exact]",
            f'[[providers]]\nname = "up"\nbase_url = "http://127.0.0.1:{port}/v1"\nmodels = [{models}]',
        )
    )


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    class Counted(_Upstream):
        served = Served()

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Counted)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    made = Place(tmp_path / "home", tmp_path / "windlass.toml", Counted.served)
    made.config.write_text(
        _settings(server.server_port, f"warm_start_prompts = {PROMPTS}", "warm_start_budget_usd = 5.0")
    )
    try:
        yield made
    finally:
        server.shutdown()
        server.server_close()


def _ask(url: str, words: str) -> None:
    body = {
        "model": "auto",
        "messages": [{"role": "user", "content": words}],
        "metadata": {"expected": "42"},
        "user": "alice",
    }
    status, answer = program.post(f"{url}/v1/chat/completions", body)
    assert status == 200, answer


def _until(what: str, found: Any, wanted: Any) -> None:
    """Wait until `found` answers what is wanted."""
    deadline = time.monotonic() + SETTLED_S
    while (last := found()) != wanted:
        assert time.monotonic() < deadline, f"{what}: {last}, not {wanted}"
        time.sleep(0.2)


def _prompts(place: Place) -> int:
    return int(str(program.rows(place.home, "SELECT count(DISTINCT prompt) FROM warm_answers")[0][0]))


def _more(place: Place, before: int) -> bool:
    return _prompts(place) > before


def test_a_warm_start_survives_sigkill_and_asks_nobody_twice(place: Place) -> None:
    asked = 0
    for _ in range(KILLS):
        before = _prompts(place) if asked else 0
        process = program.start(place.home, "up", "--port", str(program.free_port()), WINDLASS_CONFIG=str(place.config))
        try:
            url = program.url_of(place.home, process)
            for _ in range(PROMPTS // 3):
                _ask(url, f"prompt {asked}")
                asked += 1
            _until("some prompts went out", partial(_more, place, before), True)
        finally:
            program.kill(process)
    with program.server(place.home, WINDLASS_CONFIG=str(place.config)) as url:
        while asked < 2 * PROMPTS:
            _ask(url, f"prompt {asked}")
            asked += 1
        _until("all prompts went out", lambda: _prompts(place), PROMPTS)
        _until("it has ended", lambda: place.told("status")["progress"]["state"], "done")
        twice = {what: count for what, count in place.served.items() if count > 1}
        assert not twice, "each prompt goes to each model once, by a client or by the warm start"
        _check_money(place)
        _check_learning(place)
        erased = place.run("forget", "alice")
        assert erased.returncode == 0, erased.stderr
        assert program.rows(place.home, "SELECT count(*) FROM bodies WHERE role = 'request'") == [(0,)]
        assert program.rows(place.home, "SELECT count(*) FROM warm_answers WHERE prompt <> source") == [(0,)]
    replayed = place.run("doctor", "--replay", "--json")
    assert json.loads(replayed.stdout)["replay"]["equal"], replayed.stdout


def _check_money(place: Place) -> None:
    """What is booked is what the ledger holds, plus what is held for answers that nobody knows of."""
    rows = program.rows(
        place.home,
        "SELECT o.cost_nusd, d.action, d.actions, d.propensity FROM calls c JOIN outcomes o ON o.call = c.id "
        "JOIN decisions d ON d.call = c.id WHERE c.parent LIKE 'warm_%'",
    )
    assert rows
    assert {row[3] for row in rows} == {1.0}
    assert all(json.loads(str(row[2])) == [row[1]] for row in rows)
    assert all(row[0] == round(2 * TOKENS * USD[str(row[1])] * 1_000) for row in rows)
    told = place.told("status")["progress"]
    (held,) = program.rows(place.home, "SELECT coalesce(sum(held_nusd), 0) FROM warm_answers WHERE cost_nusd IS NULL")
    spent = sum(int(str(row[0])) for row in rows)
    assert round(told["cost_usd"] * 1e9) == spent
    assert round(told["spent_usd"] * 1e9) == spent + int(str(held[0]))
    assert told["answers"] == len(rows)


def _check_learning(place: Place) -> None:
    """Every answer is graded, the policy knows them all, and believes what they say."""
    beneath = "SELECT count(*) FROM calls WHERE parent LIKE 'warm_%'"
    graded = "SELECT count(*) FROM feedback f JOIN calls c ON c.id = f.target WHERE c.parent LIKE 'warm_%'"
    _until("all are graded", lambda: program.rows(place.home, graded), program.rows(place.home, beneath))
    rewards = sum(int(str(row[0])) for row in program.rows(place.home, "SELECT count(*) FROM feedback"))
    _until(
        "the policy knows of all",
        lambda: sum(one["rewards_so_far"] for one in place.told("plan")["plan"]["models"]),
        rewards,
    )
    learned = {one["model"]: one["quality"] for one in place.told("plan")["plan"]["models"]}
    assert learned["mid"] > max(learned["cheap"], learned["dear"])


def test_without_graders_it_does_not_start_and_says_why(place: Place) -> None:
    place.config.write_text(place.config.read_text().replace("[graders.exact]", ""))
    done = place.run("up", "--port", str(program.free_port()))
    assert done.returncode == 2
    assert "nobody would say how good the extra answers are" in done.stderr
    found = place.run("doctor")
    assert "nobody would say how good the extra answers are" in found.stdout + found.stderr
