"""Experiments in the real program, with real calls: what does harm is taken back by itself, what is better is shipped,
who is promoted decides through any end, and a user keeps the variant.

One upstream with three models: `usual`, `good`, which people like better, and `bad`, which is slow and disliked.
"""

from __future__ import annotations

import http.client
import http.server
import json
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import urlsplit

import pytest

from tests.scenario import program
from tests.scenario.test_routing import _Upstream

pytestmark = pytest.mark.scenario
LIKED = {"usual": 0.7, "good": 0.95, "bad": 0.2}
REACTION_S = 1.0
PATIENCE_S = 60.0


class _Slow(_Upstream):
    """`bad` takes its time."""

    slow_s: ClassVar[Mapping[str, float]] = {"bad": 0.04}


@dataclass
class _Clients:
    """Calls for `auto`, one after the other, each with feedback by who answered. answered: (when, user, model)."""

    url: str
    answered: list[tuple[float, str, str]] = field(default_factory=list)
    number: int = 0

    def call(self, user: str = "") -> str:
        """One of them; the model that answered."""
        self.number += 1
        words = {"role": "user", "content": f"question {self.number} about rope {self.number % 7}"}
        body = {"model": "auto", "messages": [words]} | ({"user": user} if user else {})
        began = time.time()
        headers, _ = self.post("/v1/chat/completions", body)
        model = headers["x-windlass-model"]
        # What people say varies: the same word each time would decide after a handful of calls.
        value = min(max(LIKED[model] + 0.05 * (self.number % 5 - 2), 0.0), 1.0)
        self.post("/v1/feedback", {"target": headers["x-windlass-call"], "kind": "rating", "value": value})
        self.answered.append((began, user, model))
        return model

    def calls(self, count: int, user: str = "") -> Counter[str]:
        """So many of them; who answered how often."""
        return Counter(self.call(user) for _ in range(count))

    def until(self, what: Callable[[], bool], every: int = 5) -> None:
        """Go on until something holds, which is looked at after so many calls."""
        deadline = time.monotonic() + PATIENCE_S
        while not what():
            assert time.monotonic() < deadline, f"it did not come to that in {PATIENCE_S} s: {self.seen()}"
            self.calls(every)

    def seen(self, name: str = "") -> dict[str, Any]:
        """How an experiment stands; the newest without a name."""
        if not name:
            (newest,) = self.operate("experiments", {"limit": 1})["experiments"]
            name = newest["id"]
        found: dict[str, Any] = self.operate("experiment", {"name": name})["experiment"]
        return found

    def operate(self, name: str, arguments: dict[str, Any]) -> dict[str, Any]:
        _, answer = self.post(f"/api/{name}", arguments)
        return answer

    def post(self, path: str, body: Any) -> tuple[dict[str, str], dict[str, Any]]:
        """(headers, answer) of a POST that went well."""
        parts = urlsplit(self.url)
        connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=30)
        try:
            connection.request("POST", path, json.dumps(body).encode(), {"content-type": "application/json"})
            reply = connection.getresponse()
            answer = json.loads(reply.read())
            assert reply.status == 200, answer
            return {name.lower(): value for name, value in reply.getheaders()}, answer
        finally:
            connection.close()


@dataclass(frozen=True)
class Place:
    """A state folder, and the settings of the program that keeps its state there."""

    home: Path
    config: Path

    def server(self) -> Any:
        return program.server(self.home, "--no-dashboard", WINDLASS_CONFIG=str(self.config))

    def run(self, *arguments: str) -> Any:
        return program.windlass(self.home, *arguments, WINDLASS_CONFIG=str(self.config))

    def plan(self, **changes: Any) -> str:
        """A file with the plan of an experiment with `usual` as it is and `good` in its place."""
        variants = {"as-usual": {"usual": True}, "candidate": {"action": "good"}}
        whole = {"name": "try", "variants": variants, "size": 60, "ramp": [1.0], **changes}
        path = self.config.with_name(f"{whole['name']}.json")
        path.write_text(json.dumps(whole))
        return str(path)

    def replayed(self) -> None:
        """All that was learned, experiments among it, is rebuilt from the ledger to the same bits."""
        done = self.run("doctor", "--replay", "--json")
        assert json.loads(done.stdout)["replay"]["equal"]


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Slow)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    models = ", ".join(f'{{ name = "{name}" }}' for name in LIKED)
    lines = (
        '[memory]\nembedder = "off"',
        '[points.model]\nmode = "live"\npolicy = "fixed"\noptions = { action = "usual" }\nrandomised_share = 0.0',
        '[[points.model.shadows]]\nname = "bold"\npolicy = "epsilon_greedy"',
        f'[[providers]]\nname = "up"\nbase_url = "http://127.0.0.1:{server.server_port}/v1"\nmodels = [{models}]',
    )
    (tmp_path / "windlass.toml").write_text("\n".join(lines))
    try:
        yield Place(tmp_path / "home", tmp_path / "windlass.toml")
    finally:
        server.shutdown()
        server.server_close()


def test_what_does_harm_is_taken_back_by_itself_within_a_second(place: Place) -> None:
    """At a canary of 10 %; the deciding entry and what came after it are read from the ledger's file."""
    guardrails = {"quality": 0.0, "latency": 0.1, "error": 0.0}
    variants = {"as-usual": {"usual": True}, "candidate": {"action": "bad", "share": 0.5}}
    harmful = place.plan(name="harmful", variants=variants, ramp=[0.2, 1.0], ramp_after=1_000, guardrails=guardrails)
    with place.server() as url:
        clients = _Clients(url)
        assert place.run("experiment", "start", harmful).returncode == 0
        clients.until(lambda: clients.seen("harmful")["state"] == "alarmed")
        until = time.monotonic() + REACTION_S + 1.0
        while time.monotonic() < until:
            clients.call()
        clients.calls(50)
        seen = clients.seen("harmful")
        assert seen["decision"] == "harmful"
        assert seen["alarm"]["variant"] == "candidate"
        assert "rolled back" in seen["sentence"]
        refused = place.run("experiment", "ship", "harmful", "--force", "--reason", "in spite of all")
        assert refused.returncode == 3
        assert place.run("experiment", "watch", "harmful", "--timeout", "5").returncode == 3
        told = place.run("points", "--point", "model", "--json")
        assert json.loads(told.stdout)["points"][0]["standing"]["told"] == ""
    rolled = [
        json.loads(str(extra))
        for action, extra in program.rows(place.home, "SELECT action, extra FROM decisions WHERE point = 'rollout'")
        if str(action) == "model:trial=harmful:rollback"
    ]
    assert len(rolled) == 1, "it is on record once, with its evidence"
    assert rolled[0]["by"] == "windlass"
    seq = rolled[0]["evidence"]["seq"]
    query = "SELECT at FROM outcomes WHERE seq = ? UNION SELECT at FROM feedback WHERE seq = ?"
    ((decided,),) = program.rows(place.home, query, seq, seq)
    assigned = program.rows(place.home, "SELECT at, action, propensity FROM decisions WHERE point = 'experiment'")
    assert max(float(str(at)) for at, _, _ in assigned) <= float(str(decided)) + REACTION_S
    canary = [float(str(propensity)) for _, action, propensity in assigned if action == "candidate"]
    assert canary == pytest.approx([0.1] * len(canary))
    assert len(canary) <= 95, "out after tens of requests"
    after = [model for at, _, model in clients.answered if at > float(str(decided)) + REACTION_S]
    assert len(after) > 50
    assert set(after) == {"usual"}
    place.replayed()


def test_what_is_better_is_shipped_and_decides(place: Place) -> None:
    with place.server() as url:
        clients = _Clients(url)
        clients.calls(20)
        forecast = place.run("experiment", "plan", place.plan(), "--json")
        assert forecast.returncode == 0, forecast.stderr
        assert json.loads(forecast.stdout)["forecast"]["seen"] == 20
        assert place.run("experiment", "start", place.plan(), "--reason", "people like it").returncode == 0
        assert place.run("experiment", "start", place.plan(name="second")).returncode == 3, "one at a time"
        assert place.run("experiment", "ship", "try").returncode == 3, "nothing is known yet"
        clients.until(lambda: clients.seen()["decision"] != "open", every=20)
        assert clients.seen()["decision"] == "better"
        assert place.run("experiment", "watch", "try", "--timeout", "5").returncode == 0
        # What decides was quick; the guardrails have to be told as often as was planned, or shown to hold.
        clients.until(lambda: min(_told(clients.seen(), "guardrail")) >= 60, every=20)
        pressed = [threading.Thread(target=lambda: codes.append(_shipped(place))) for _ in range(2)]
        codes: list[int] = []
        for thread in pressed:
            thread.start()
        for thread in pressed:
            thread.join()
        assert sorted(codes) == [0, 3], "of two who ship at once one is told that somebody was faster"
        assert set(clients.calls(40)) == {"good"}
        report = place.run("experiment", "report", "try", "--out", str(place.home / "report.html"))
        assert report.returncode == 0, report.stderr
        assert "candidate is better by" in (place.home / "report.html").read_text()
    ships = program.rows(place.home, "SELECT count(*) FROM decisions WHERE action = 'model:trial=try:ship=candidate'")
    assert ships == [(1,)]
    with place.server() as url:
        assert set(_Clients(url).calls(20)) == {"good"}, "through a restart too"
    place.replayed()


def _told(view: dict[str, Any], role: str) -> list[int]:
    """How many values there are of the metrics in a role, by variant."""
    return [value["n"] for metric in view["metrics"] if metric["role"] == role for value in metric["values"]]


def _shipped(place: Place) -> int:
    done = place.run("experiment", "ship", "try", "--reason", "proven")
    return int(done.returncode)


def test_a_promoted_shadow_decides_through_a_kill_until_the_settings_rule_again(place: Place) -> None:
    process = program.start(
        place.home, "up", "--no-dashboard", "--port", str(program.free_port()), WINDLASS_CONFIG=str(place.config)
    )
    try:
        clients = _Clients(program.url_of(place.home, process))
        assert set(clients.calls(20)) == {"usual"}
        assert place.run("policy", "promote", "model", "bold", "--reason", "ahead for a week").returncode == 0
        clients.calls(40)
    finally:
        program.kill(process)
    with place.server() as url:
        clients = _Clients(url)
        clients.calls(40)
        told = clients.operate("points", {"point": "model"})["points"][0]["standing"]
        assert (told["shadow"], told["told"]) == ("bold", "the policy in shadow bold decides")
        assert place.run("policy", "promote", "model", "settings").returncode == 0
        assert set(clients.calls(20)) == {"usual"}
    decided = [
        str(policy)
        for (policy,) in program.rows(
            place.home, "SELECT policy FROM decisions WHERE point = 'model' AND live ORDER BY seq"
        )
    ]
    assert decided[:20] == decided[-20:] == ["fixed@1"] * 20
    assert set(decided[20:-20]) == {"epsilon_greedy@1"}
    assert len(decided) == 120
    place.replayed()


def test_a_user_keeps_the_variant_while_the_ramp_goes_on(place: Place) -> None:
    users = [f"user {number}" for number in range(40)]
    answered: list[dict[str, set[str]]] = []
    with place.server() as url:
        clients = _Clients(url)
        sticky = place.plan(name="sticky", unit="user", ramp=[0.4, 1.0], ramp_after=100_000, size=1_000)
        assert place.run("experiment", "start", sticky).returncode == 0
        for advanced in (False, True):
            if advanced:
                assert place.run("experiment", "advance", "sticky", "--reason", "go on").returncode == 0
            found: dict[str, set[str]] = defaultdict(set)
            for _ in range(3):
                for user in users:
                    found[user].add(clients.call(user))
            answered.append(found)
            assert all(len(models) == 1 for models in found.values()), "the same answers for the same user"
        assert set(clients.calls(10)) == {"usual"}, "nobody knows whose these calls are"
    first, then = ({user for user, models in found.items() if models == {"good"}} for found in answered)
    assert first < then, "whoever has the candidate keeps it, and others join"
    # A share of 0.2, and then 0.5, of 40 users; outside these bounds once in 10,000 drawings.
    assert 1 <= len(first) <= 18
    assert 8 <= len(then) <= 32
    twice = (
        "SELECT count(*) FROM (SELECT call FROM decisions WHERE point = 'experiment' GROUP BY call HAVING count(*) > 1)"
    )
    assert program.rows(place.home, twice) == [(0,)]
    place.replayed()
