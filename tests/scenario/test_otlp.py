"""Spans of real calls, decoded by a receiver in another process, which may be down, slow or mad: no call notices."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.scenario.program import children, free_port, kill, post, rows, server, start, url_of, windlass
from tests.scenario.test_failover import upstream

pytestmark = pytest.mark.scenario
RECEIVER = Path(__file__).with_name("otlp_receiver.py")
PATIENCE_S = 30.0
HEADERS = "authorization=Basic%20cGs6c2s=,x-langfuse-ingestion-version=4"
TRACE, ABOVE = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
CLIENT, INTERNAL, ERROR = 3, 1, 2
SETTINGS = """
[telemetry]
otlp_endpoint = "http://127.0.0.1:{otlp}"
headers_env = "TRACE_HEADERS"
service_name = "harbour"
timeout_s = 2.0
{telemetry}

[resilience]
attempts = 3
backoff_base_s = 0.02
backoff_cap_s = 0.05

[gateway]
auto = ["fine"]

[[points.model.shadows]]
name = "even"
policy = "epsilon_greedy"
options = {{ epsilon = 0.1 }}

[[providers]]
name = "good"
base_url = "http://127.0.0.1:{http}/v1"
[[providers.models]]
name = "fine"
upstream = "fine"
prompt_usd_per_million = 1000.0
completion_usd_per_million = 2000.0
[[providers.models]]
name = "shaky"
upstream = "down"
fallbacks = ["fine"]

[[providers]]
name = "bad"
base_url = "http://127.0.0.1:{closed}/v1"
[[providers.models]]
name = "gone"
"""


@dataclass(frozen=True)
class Receiver:
    """The receiver, from outside."""

    port: int

    def mode(self, mode: str) -> None:
        asked = urllib.request.Request(f"http://127.0.0.1:{self.port}/_mode", mode.encode(), method="POST")
        with urllib.request.urlopen(asked, timeout=10):
            pass

    def told(self) -> dict[str, Any]:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/_seen", timeout=10) as response:
            found: dict[str, Any] = json.load(response)
            return found

    def spans(self) -> list[dict[str, Any]]:
        return [span for request in self.told()["requests"] for span in request["spans"]]

    def calls(self) -> dict[str, dict[str, Any]]:
        """The spans of calls, by call."""
        return {
            span["attributes"]["windlass.call"]: span
            for span in self.spans()
            if "gen_ai.operation.name" in span["attributes"]
        }


@contextmanager
def receiver(port: int = 0) -> Iterator[Receiver]:
    process = subprocess.Popen(
        [sys.executable, str(RECEIVER), str(port)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        yield Receiver(int(process.stdout.readline()))
    finally:
        process.stdin.close()
        assert process.wait(10) == 0
        process.stdout.close()


@dataclass(frozen=True)
class Scene:
    """A server with an upstream, and settings that name a receiver."""

    home: Path
    config: Path

    def environment(self) -> dict[str, str]:
        return {"WINDLASS_CONFIG": str(self.config), "WINDLASS_MEMORY__EMBEDDER": "off", "TRACE_HEADERS": HEADERS}

    def ended(self) -> list[str]:
        """The calls that are over, by the ledger's own file."""
        return [str(call) for (call,) in rows(self.home, "SELECT call FROM outcomes ORDER BY seq")]


@contextmanager
def scene(folder: Path, otlp: int, telemetry: str = "") -> Iterator[Scene]:
    with upstream(folder) as faulty:
        config = folder / "windlass.toml"
        config.write_text(SETTINGS.format(otlp=otlp, telemetry=telemetry, **faulty.ports))
        yield Scene(folder / "home", config)


def until(wanted: Callable[[], bool], what: Callable[[], object]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not wanted():
        assert time.monotonic() < deadline, what()
        time.sleep(0.1)


def ask(url: str, model: str, *, stream: bool = False, parent: str = "") -> int:
    """One chat, to its end; its status."""
    body = {"model": model, "stream": stream, "user": "mary-oars", "messages": [{"role": "user", "content": "Why?"}]}
    headers = {"content-type": "application/json"} | ({"x-windlass-parent": parent} if parent else {})
    asked = urllib.request.Request(f"{url}/v1/chat/completions", json.dumps(body).encode(), headers)
    try:
        with urllib.request.urlopen(asked, timeout=30) as response:
            response.read()
            return int(response.status)
    except urllib.error.HTTPError as refused:
        with refused:
            return refused.code


def test_a_receiver_in_another_process_decodes_what_happened(tmp_path: Path) -> None:
    with receiver() as there, scene(tmp_path, there.port) as made:
        with server(made.home, "--no-dashboard", **made.environment()) as url:
            assert ask(url, "auto", parent=f"00-{TRACE}-{ABOVE}-01") == 200
            assert ask(url, "fine", stream=True) == 200
            assert ask(url, "shaky") == 200
            assert ask(url, "gone") == 502
            calls = made.ended()
            said = {"id": "feedback_1", "target": calls[0], "kind": "rating", "value": 0.5, "comment": "too long"}
            assert post(f"{url}/v1/feedback", said)[0] == 200
            until(lambda: len(there.calls()) == 4 and any(s["events"] for s in there.spans()), there.told)
            doctor = json.loads(windlass(made.home, "doctor", "--json", **made.environment()).stdout)
        spans = there.spans()
        _check_calls(spans, [there.calls()[call] for call in calls])
        (rated,) = (span for span in spans if span["name"] == "evaluate quality")
        assert (rated["trace"], rated["parent"]) == (TRACE, there.calls()[calls[0]]["id"])
        (event,) = rated["events"]
        assert event["name"] == "gen_ai.evaluation.result"
        assert event["attributes"]["gen_ai.evaluation.score.value"] == 0.5
        request = there.told()["requests"][0]
        assert request["resource"]["service.name"] == "harbour"
        sent = {name.lower(): value for name, value in request["headers"].items()}
        assert (sent["authorization"], sent["x-langfuse-ingestion-version"]) == ("Basic cGs6c2s=", "4")
        # Neither names, nor words, nor secrets have left.
        for private in ("mary-oars", "Why?", "too long", "cGs6c2s"):
            assert private not in json.dumps(spans)
        assert doctor["traces"]["sent"] == len(spans)
        assert (doctor["traces"]["refused"], doctor["traces"]["waiting"], doctor["traces"]["lag_s"]) == (0, "", 0.0)
        assert "cGs6c2s" not in json.dumps(doctor)


def _check_calls(spans: list[dict[str, Any]], calls: list[dict[str, Any]]) -> None:
    """The spans of a call that hangs in a client's trace, of a stream, of a fail-over, and of a failure."""
    plain, streamed, moved, failed = calls
    assert (plain["trace"], plain["parent"], plain["kind"]) == (TRACE, ABOVE, CLIENT)
    assert plain["name"] == "chat auto"
    told = plain["attributes"]
    assert (told["gen_ai.request.model"], told["gen_ai.response.model"]) == ("auto", "fine")
    assert (told["gen_ai.usage.input_tokens"], told["gen_ai.usage.output_tokens"]) == (7, 8)
    assert told["windlass.cost_nusd"] == 7 * 1_000_000 + 8 * 2_000_000
    assert told["server.address"] == "127.0.0.1"
    choices = [
        span for span in spans if span["parent"] == plain["id"] and "windlass.decision.point" in span["attributes"]
    ]
    assert Counter(span["attributes"]["windlass.decision.live"] for span in choices) == {True: 1, False: 1}
    assert all(span["attributes"]["windlass.decision.propensity"] == 1.0 for span in choices)
    assert streamed["attributes"]["gen_ai.request.stream"] is True
    assert 0 < streamed["attributes"]["gen_ai.response.time_to_first_chunk"] <= 30
    assert streamed["end_ns"] > streamed["start_ns"]
    tried = [span for span in spans if span["parent"] == moved["id"] and span["name"].startswith("attempt")]
    assert [span["attributes"]["windlass.attempt.model"] for span in tried] == ["shaky", "fine"]
    assert [span["attributes"].get("error.type", "") for span in tried] == ["model_overloaded", ""]
    assert moved["status"] == 0
    assert (failed["status"], failed["attributes"]["error.type"]) == (ERROR, "connect_refused")


@pytest.mark.parametrize("mode", ["500", "503", "429", "401", "garbage", "hang", "trickle"])
def test_a_receiver_in_trouble_fails_no_call_and_gets_all_later(tmp_path: Path, mode: str) -> None:
    with receiver() as there, scene(tmp_path, there.port) as made:
        there.mode(mode)
        with server(made.home, "--no-dashboard", **made.environment()) as url:
            for _ in range(5):
                began = time.monotonic()
                assert ask(url, "fine") == 200
                assert time.monotonic() - began < 5.0, "no call waits for a receiver"
            until(lambda: there.told()["refused"].get(mode, 0) > 0, there.told)
            there.mode("ok")
            until(lambda: set(there.calls()) == set(made.ended()), there.told)
        assert len(there.calls()) == 5


def test_a_receiver_that_is_away_gets_all_when_it_comes(tmp_path: Path) -> None:
    port = free_port()
    with scene(tmp_path, port) as made, server(made.home, "--no-dashboard", **made.environment()) as url:
        assert [ask(url, "fine") for _ in range(3)] == [200] * 3

        def told() -> list[str]:
            found = windlass(made.home, "doctor", "--json", **made.environment())
            return [one for one in json.loads(found.stdout)["findings"] if "traces wait" in one]

        until(lambda: bool(told()), lambda: "doctor says nothing")
        with receiver(port) as there:
            until(lambda: set(there.calls()) == set(made.ended()), there.told)


def test_what_a_receiver_refuses_is_dropped_counted_and_named(tmp_path: Path) -> None:
    with receiver() as there, scene(tmp_path, there.port) as made:
        there.mode("400")
        with server(made.home, "--no-dashboard", **made.environment()) as url:
            assert ask(url, "fine") == 200
            until(lambda: there.told()["refused"].get("400", 0) > 0, there.told)
            there.mode("odd")
            assert ask(url, "fine") == 200
            until(lambda: len(there.calls()) == 1, there.told)
            there.mode("partial")
            assert ask(url, "fine") == 200
            until(lambda: len(there.calls()) == 2, there.told)
            doctor = windlass(made.home, "doctor", "--json", **made.environment())
        assert doctor.returncode == 1
        found = json.loads(doctor.stdout)
        assert found["traces"]["refused"] >= 2
        assert any("one is enough" in finding for finding in found["findings"])


def test_kill_9_leaves_nothing_out_and_what_comes_twice_is_the_same(tmp_path: Path) -> None:
    with receiver() as there, scene(tmp_path, there.port) as made:
        for round_ in range(4):
            process = start(made.home, "up", "--no-dashboard", "--port", str(free_port()), **made.environment())
            url = url_of(made.home, process)
            if round_ == 2:
                there.mode("hang")  # it has the request, and never says so
            for number in range(6):
                assert ask(url, "fine", stream=number % 2 == 0) == 200
            if round_ == 1:
                until(lambda: len(there.calls()) > 6, there.told)
            kill(process)
            there.mode("ok")
        with server(made.home, "--no-dashboard", **made.environment()):
            until(lambda: set(there.calls()) == set(made.ended()), there.told)
        assert len(there.calls()) == 24
        by_id: dict[str, set[str]] = {}
        for span in there.spans():
            by_id.setdefault(span["id"], set()).add(json.dumps(span, sort_keys=True))
        assert all(len(same) == 1 for same in by_id.values())


def test_bodies_leave_only_where_it_is_said(tmp_path: Path) -> None:
    with receiver() as there, scene(tmp_path, there.port, "export_bodies = true") as made:
        with server(made.home, "--no-dashboard", **made.environment()) as url:
            assert [ask(url, "fine"), ask(url, "fine", stream=True)] == [200, 200]
            until(lambda: len(there.calls()) == 2, there.told)
        for span in there.calls().values():
            (asked,) = json.loads(span["attributes"]["gen_ai.input.messages"])
            (answered,) = json.loads(span["attributes"]["gen_ai.output.messages"])
            assert asked == {"role": "user", "parts": [{"type": "text", "content": "Why?"}]}
            assert answered["parts"][0]["content"] == "A pawl lets the drum turn one way."


def test_nothing_is_loaded_where_no_receiver_is_set_and_the_extra_is_named_where_it_is_missing(tmp_path: Path) -> None:
    """A finder that knows no opentelemetry stands in for an environment without the extra."""
    hidden = tmp_path / "sitecustomize.py"
    hidden.write_text(
        "import sys\n"
        "class Hidden:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.split('.')[0] == 'opentelemetry':\n"
        "            raise ModuleNotFoundError(f'No module named {name!r}', name='opentelemetry')\n"
        "sys.meta_path.insert(0, Hidden())\n"
    )
    more = {"PYTHONPATH": str(tmp_path), "WINDLASS_MEMORY__EMBEDDER": "off"}
    assert windlass(tmp_path / "home", "calls", "--json", **more).returncode == 0
    unset = windlass(
        tmp_path / "home", "calls", "--json", **more, WINDLASS_TELEMETRY__OTLP_ENDPOINT="http://127.0.0.1:1"
    )
    assert unset.returncode != 0
    assert "pip install windlass[telemetry]" in unset.stderr + unset.stdout
    assert "Traceback" not in unset.stderr
    loaded = (
        "import sys, windlass.runtime, windlass.server.app; print([m for m in sys.modules if 'opentelemetry' in m])"
    )
    done = subprocess.run([sys.executable, "-c", loaded], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "[]"


def test_two_workers_send_each_span_once_and_one_goes_on_for_another(tmp_path: Path, database_url: str) -> None:
    with receiver() as there, scene(tmp_path, there.port) as made:
        more = made.environment() | {"WINDLASS_STORAGE__DATABASE_URL": database_url}
        with server(made.home, "--no-dashboard", "--workers", "2", **more) as url:
            assert [ask(url, "fine") for _ in range(8)] == [200] * 8
            until(lambda: len(there.calls()) == 8, there.told)
            assert max(Counter(span["id"] for span in there.spans()).values()) == 1
            # Both die, one after the other: so does the one whose turn it was.
            answered = 8
            for worker in children(json.loads((made.home / "server.json").read_text())["pid"]):
                os.kill(worker, signal.SIGKILL)
                answered += [_asked(url) for _ in range(3)].count(200)
                until(lambda: _asked(url) == 200, lambda: "nobody answers")
                answered += 1
            until(lambda: len(there.calls()) >= answered, lambda: (answered, len(there.calls())))


def _asked(url: str) -> int:
    """A chat that may meet a worker that is being killed."""
    try:
        return ask(url, "fine")
    except OSError:
        return 0
