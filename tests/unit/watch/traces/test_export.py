"""The export: whose turn it is, what a receiver's answer means, where records hang, and that nothing is left out."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from random import Random
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from tests.golden.application import tables

from windlass.errors import SettingsError
from windlass.ledger.db import Database
from windlass.ledger.sql import SqlLedger
from windlass.records import Call, Decision, Feedback, LedgerRecord, Outcome, Scope
from windlass.settings import load, missing_secrets
from windlass.watch.traces import exporter as exporting
from windlass.watch.traces.exporter import Exporter
from windlass.watch.traces.lineage import Lineage
from windlass.watch.traces.options import TelemetryOptions, headers
from windlass.watch.traces.receiver import Receipt, Receiver
from windlass.watch.traces.span import span_id, trace_id
from windlass.watch.traces.store import ExportTurn

AT = 1_800_000_000.0
SCOPE = Scope()
TRACEPARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


class Bench:
    """A ledger on a file, and a clock that stands."""

    def __init__(self, folder: Path):
        (folder / "ledger.db").write_bytes(tables())
        self.db = Database(folder / "ledger.db")
        self.ledger = SqlLedger(self.db)
        self.now = AT

    def clock(self) -> float:
        return self.now

    def turn(self) -> ExportTurn:
        return ExportTurn(self.db, self.clock, 20.0)

    def exporter(self, receiver: Receiver) -> Exporter:
        return Exporter(
            TelemetryOptions(otlp_endpoint="http://127.0.0.1:4318"), receiver, tuple, db=self.db, ledger=self.ledger,
            clock=self.clock, resource={}, version="1", rng=Random(1),
        )  # fmt: skip

    def add(self, *records: LedgerRecord) -> None:
        self.ledger.append_now(*records)

    def close(self) -> None:
        self.ledger.close()
        self.db.close()


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    made = Bench(tmp_path)
    yield made
    made.close()


class Scripted(Receiver):
    """Answers as it is told, then takes everything."""

    def __init__(self, *answers: Receipt, most: int = 10**9):
        super().__init__("http://127.0.0.1:1", {}, 1.0, time.time)
        self.answers = list(answers)
        self.most = most
        self.taken: list[str] = []
        self.asked = 0

    def send(self, body: bytes, content_type: str) -> Receipt:
        self.asked += 1
        (one,) = ExportTraceServiceRequest.FromString(body).resource_spans
        spans = one.scope_spans[0].spans
        if self.answers:
            return self.answers.pop(0)
        if len(spans) > self.most:
            return Receipt("too_large", "HTTP 413")
        self.taken += [span.span_id.hex() for span in spans]
        return Receipt("taken")


def _call(number: int, parent: str = "") -> tuple[Call, Outcome]:
    call = Call(id=f"call_{number}", at=AT, endpoint="chat", model="m", parent=parent)
    outcome = Outcome(
        id=f"outcome_{number}", at=AT, call=call.id, model="m", provider="p", status=200, latency_ms=1.0,
        first_byte_ms=1.0, prompt_tokens=1, completion_tokens=1, cost_nusd=1,
    )  # fmt: skip
    return call, outcome


def _until(wanted: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not wanted():
        assert time.monotonic() < deadline
        time.sleep(0.01)


# --- whose turn it is


def test_one_worker_has_the_turn_until_it_leaves_or_dies(bench: Bench) -> None:
    one, two = bench.turn(), bench.turn()
    one.begin(0)
    assert (one.take(), two.take(), one.take()) == (True, False, True)
    bench.now += 15
    assert (two.take(), one.take()) == (False, True), "it is prolonged"
    one.leave()
    assert (two.take(), one.take()) == (True, False)
    bench.now += 21
    assert (one.take(), two.take()) == (True, False), "who died is not waited for"


def test_who_lost_the_turn_moves_nothing(bench: Bench) -> None:
    one, two = bench.turn(), bench.turn()
    one.begin(0)
    assert one.take()
    bench.now += 21
    assert two.take()
    assert two.move(7, sent=3, refused=1)
    assert not one.move(5, sent=9, refused=9)
    assert two.progress() == (7, 3, 1)
    assert not one.take()


def test_a_turn_of_a_clock_that_was_wrong_ends(bench: Bench) -> None:
    one, two = bench.turn(), bench.turn()
    one.begin(0)
    bench.now += 1_000_000
    assert one.take()
    bench.now = AT
    assert two.take()


def test_what_was_there_before_the_first_export_is_not_sent(bench: Bench) -> None:
    bench.turn().begin(41)
    bench.turn().begin(99)
    assert bench.turn().progress() == (41, 0, 0)


# --- where records hang


def test_records_hang_in_the_trace_of_what_stands_above_them(bench: Bench) -> None:
    answered, inner, joined = (_call(n, parent)[0] for n, parent in ((1, "answer_1"), (2, "call_1"), (3, TRACEPARENT)))
    bench.add(answered, inner, joined, *_call(4))
    lineage = Lineage(bench.ledger)
    top = trace_id(SCOPE, "answer_1")
    assert lineage.of_call(answered) == (top, span_id(SCOPE, "answer_1"))
    assert lineage.of_call(inner) == (top, span_id(SCOPE, "call_1"))
    assert lineage.beneath(SCOPE, "call_2") == (top, span_id(SCOPE, "call_2"))
    assert lineage.beneath(SCOPE, "call_3").trace_id.hex() == "4bf92f3577b34da6a3ce929d0e0e4736"
    assert lineage.beneath(SCOPE, "call_4") == (trace_id(SCOPE, "call_4"), span_id(SCOPE, "call_4"))
    assert lineage.beneath(SCOPE, "run_1") == (trace_id(SCOPE, "run_1"), b"")
    assert lineage.beneath(Scope("other"), "call_2").trace_id == trace_id(Scope("other"), "call_2")


def test_parents_in_a_ring_end(bench: Bench) -> None:
    bench.add(*(_call(number, f"call_{(number + 1) % 3}")[0] for number in range(3)))
    assert len(Lineage(bench.ledger).beneath(SCOPE, "call_0").trace_id) == 16


# --- what is sent


def test_everything_is_sent_once_and_counted(bench: Bench) -> None:
    receiver = Scripted()
    made = bench.exporter(receiver)
    made.start()
    late, ended = _call(1)
    bench.add(late)  # a stream: its end comes much later
    for number in range(2, 700):
        bench.add(*_call(number))
    bench.add(ended, Feedback(id="f", at=AT, target="call_1", kind="rating", source="user"))
    _until(lambda: made.state().lag_s == 0.0 and made.state().cursor == bench.ledger.head())
    made.close()
    assert len(receiver.taken) == len(set(receiver.taken)) == 700
    assert made.state().sent == 700
    again = bench.exporter(other := Scripted())
    again.start()
    again.close()
    assert other.taken == []


def test_what_came_last_is_sent_before_the_end(bench: Bench) -> None:
    made = bench.exporter(receiver := Scripted())
    made.start()
    bench.add(*_call(1))
    made.close()
    assert len(receiver.taken) == 1


def test_a_parcel_that_is_too_large_is_halved_and_what_nobody_takes_dropped(bench: Bench) -> None:
    made = bench.exporter(receiver := Scripted(most=3))
    made.start()
    for number in range(10):
        bench.add(*_call(number))
    made.close()
    assert len(receiver.taken) == 10
    made = bench.exporter(receiver := Scripted(Receipt("refused", "HTTP 400 no")))
    made.start()
    bench.add(*_call(11))
    made.close()
    assert receiver.taken == []
    assert (made.state().refused, made.state().refused_now, made.state().reason) == (1, 1, "HTTP 400 no")


def test_a_receiver_that_fails_for_long_over_the_same_spans_loses_them(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exporting, "UNSURE_S", 0.2)
    monkeypatch.setattr(exporting, "BACKOFF_S", 0.02)
    made = bench.exporter(receiver := Scripted(*[Receipt("unsure", "HTTP 500")] * 1_000))
    made.start()
    bench.add(*_call(1))
    _until(lambda: made.state().refused == 1)
    receiver.answers.clear()
    bench.add(*_call(2))
    _until(lambda: made.state().sent == 1)
    made.close()


def test_who_waits_for_a_receiver_leaves_at_once_and_sends_again_later(bench: Bench) -> None:
    made = bench.exporter(receiver := Scripted(*[Receipt("wait", "HTTP 429", retry_after_s=500.0)] * 9))
    made.start()
    bench.add(*_call(1))
    _until(lambda: made.state().waiting == "HTTP 429")
    began = time.monotonic()
    made.close()
    assert time.monotonic() - began < 1.5
    assert (receiver.asked, made.state().cursor) == (2, 0), "it tries once more before it leaves"
    made = bench.exporter(receiver := Scripted())
    made.start()
    made.close()
    assert len(receiver.taken) == 1


def test_partial_success_is_counted(bench: Bench) -> None:
    answer = ExportTraceServiceResponse()
    answer.partial_success.rejected_spans, answer.partial_success.error_message = 10**6, "too old"
    made = bench.exporter(Scripted(Receipt("taken", body=answer.SerializeToString())))
    made.start()
    bench.add(*_call(1))
    made.close()
    assert (made.state().sent, made.state().refused, made.state().reason) == (0, 1, "too old")


def test_a_decision_without_its_call_is_sent(bench: Bench) -> None:
    made = bench.exporter(receiver := Scripted())
    made.start()
    bench.add(
        Decision(
            id="decision_1", at=AT, call="answer_9", point="answer", policy="threshold@1", actions=("answer",),
            action="answer", propensity=1.0, live=True,
        )
    )  # fmt: skip
    made.close()
    assert receiver.taken == [span_id(SCOPE, "answer_9").hex()]


# --- what an answer means


class _Once(BaseHTTPRequestHandler):
    """Answers with what its server holds."""

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        self.server.seen.append(dict(self.headers))  # type: ignore[attr-defined]
        self.wfile.write(self.server.answer)  # type: ignore[attr-defined]

    def log_message(self, format: str, *args: object) -> None:
        """Nothing is said of requests."""


def _answered(answer: bytes, sent: Mapping[str, str] | None = None) -> tuple[Receipt, Sequence[dict[str, str]]]:
    with HTTPServer(("127.0.0.1", 0), _Once) as there:
        there.seen, there.answer = [], answer  # type: ignore[attr-defined]
        thread = threading.Thread(target=there.handle_request)
        thread.start()
        receiver = Receiver(f"http://127.0.0.1:{there.server_port}/v1/traces", sent or {}, 5.0, lambda: AT)
        found = receiver.send(b"spans", "application/x-protobuf")
        thread.join()
        return found, there.seen  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("answer", "verdict", "retry_after_s"),
    [
        (b"HTTP/1.1 200 OK\r\n\r\n", "taken", None),
        (b"HTTP/1.1 204 No Content\r\n\r\n", "taken", None),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhalf", "wait", None),
        (b"HTTP/1.1 301 Moved\r\nlocation: http://127.0.0.1:1/\r\n\r\n", "wait", None),
        (b"HTTP/1.1 401 No\r\n\r\n", "wait", None),
        (b"HTTP/1.1 404 No\r\n\r\n", "wait", None),
        (b"HTTP/1.1 429 No\r\nretry-after: 7\r\n\r\n", "wait", 7.0),
        (b"HTTP/1.1 503 No\r\nretry-after: Fri, 15 Jan 2027 08:00:30 GMT\r\n\r\n", "wait", 30.0),
        (b"HTTP/1.1 503 No\r\nretry-after: soon\r\n\r\n", "wait", None),
        (b"HTTP/1.1 503 No\r\nretry-after: -5\r\n\r\n", "wait", None),
        (b"HTTP/1.1 500 No\r\n\r\n", "unsure", None),
        (b"HTTP/1.1 400 No\r\n\r\n", "refused", None),
        (b"HTTP/1.1 413 No\r\n\r\n", "too_large", None),
        (b"no HTTP at all\r\n\r\n", "wait", None),
        (b"", "wait", None),
    ],
)
def test_an_answer_says_what_to_do(answer: bytes, verdict: str, retry_after_s: float | None) -> None:
    found, _ = _answered(answer)
    assert (found.verdict, found.retry_after_s) == (verdict, retry_after_s), found


def test_what_a_receiver_says_is_shown_in_one_short_line() -> None:
    found, seen = _answered(b"HTTP/1.1 400 No\r\n\r\n\x1b[31mno\r\nway" + b"x" * 9_000, {"x-api-key": "k"})
    assert "\x1b" not in found.reason
    assert "\n" not in found.reason
    assert len(found.reason) < 250
    assert {name.lower(): value for name, value in seen[0].items()}["x-api-key"] == "k"


def test_nobody_there_is_an_answer() -> None:
    receiver = Receiver("http://127.0.0.1:1/v1/traces", {}, 1.0, time.time)
    assert receiver.send(b"", "").verdict == "wait"


# --- settings


@pytest.mark.parametrize(
    ("endpoint", "url"),
    [
        ("http://127.0.0.1:4318", "http://127.0.0.1:4318/v1/traces"),
        ("http://127.0.0.1:4318/", "http://127.0.0.1:4318/v1/traces"),
        ("https://api.smith.langchain.com/otel", "https://api.smith.langchain.com/otel/v1/traces"),
        ("https://host/otel/v1/traces", "https://host/otel/v1/traces"),
    ],
)
def test_the_path_is_added_where_it_is_missing(endpoint: str, url: str) -> None:
    assert TelemetryOptions(otlp_endpoint=endpoint).url == url


@pytest.mark.parametrize(
    "endpoint",
    [
        "127.0.0.1:4318",
        "ftp://host",
        "http://",
        "http://host:port",
        "http://u:p@host",
        "http://host/?key=1",
        "http://h/ x",
    ],
)
def test_what_is_no_endpoint_is_refused(endpoint: str) -> None:
    with pytest.raises(SettingsError, match="telemetry") as told:
        load({"telemetry.otlp_endpoint": endpoint}, environ={})
    assert "u:p" not in str(told.value)


def test_headers_are_read_as_opentelemetry_writes_them() -> None:
    found = headers("Authorization=Basic%20cGs6c2s=, x-api-key = abc ,,", "V")
    assert found == {"authorization": "Basic cGs6c2s=", "x-api-key": "abc"}
    assert headers("Authorization=Basic cGs6c2s=", "V") == {"authorization": "Basic cGs6c2s="}


@pytest.mark.parametrize("text", ["secret", "=secret", "a b=secret", "a=secret%0d%0ab: c", "host=secret", "ä=secret"])
def test_what_is_no_header_is_refused_without_saying_what_it_was(text: str) -> None:
    with pytest.raises(SettingsError, match="V") as told:
        headers(text, "V")
    assert "secret" not in str(told.value)


def test_secrets_stand_in_the_environment_alone() -> None:
    overrides = {"telemetry.otlp_endpoint": "http://127.0.0.1:4318", "telemetry.headers_env": "V"}
    made = load(overrides, environ={"V": "x-api-key=hush"})
    assert "hush" in str(made.secrets)
    assert "hush" not in repr(made)
    assert missing_secrets(made) == []
    assert any("variable V is not set" in one for one in missing_secrets(load(overrides, environ={})))


def test_without_the_extra_the_remedy_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str, package: Any = None) -> None:
        raise ModuleNotFoundError(name)

    monkeypatch.setattr("importlib.util.find_spec", missing)
    assert load({}, environ={})
    with pytest.raises(SettingsError, match=r"pip install windlass\[telemetry\]"):
        load({"telemetry.otlp_endpoint": "http://127.0.0.1:4318"}, environ={})
