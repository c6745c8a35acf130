"""What the gateway's benchmark measures with: its load, its fake upstream, the clocks of a process tree."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from benchmarks import load, machine
from benchmarks.contenders import MODELS, Contender, Home
from benchmarks.gateway_growth import slope
from benchmarks.rounds import Cell
from benchmarks.upstream import Upstream

from windlass.settings import load as settings

PLAIN = b'HTTP/1.1 200 OK\r\nContent-Length: 13\r\n\r\n{"usage": {}}'
EVENTS = b"data: [DONE]\n\n"
STREAM = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n\r\n" % (len(EVENTS), EVENTS)


@pytest.mark.parametrize(("answer", "streamed"), [(PLAIN, False), (STREAM, True)])
def test_an_answer_is_whole_at_its_last_byte(answer: bytes, streamed: bool) -> None:
    reading = load.Reading(streamed=streamed)
    fed = [reading.feed(bytes([byte])) for byte in answer]
    assert fed == [False] * (len(answer) - 1) + [True]


def test_the_body_has_begun_with_its_first_byte() -> None:
    reading, head = load.Reading(streamed=True), STREAM.index(b"\r\n\r\n") + 4
    reading.feed(STREAM[:head])
    assert not reading.begun
    reading.feed(STREAM[head : head + 1])
    assert reading.begun


@pytest.mark.parametrize(
    ("answer", "streamed"),
    [
        (PLAIN.replace(b"200 OK", b"503 No"), False),
        (PLAIN.replace(b"usage", b"error"), False),
        (STREAM.replace(b"[DONE]", b"[GONE]"), True),
    ],
)
def test_a_wrong_answer_is_refused_with_its_words(answer: bytes, streamed: bool) -> None:
    with pytest.raises(load.Refused, match=r"HTTP/1\.1"):
        load.Reading(streamed=streamed).feed(answer)


@pytest.mark.parametrize(
    ("cell", "name"),
    [
        (Cell(), "cpu_us"),
        (Cell(1), "cpu_us_c1"),
        (Cell(kilobytes=16), "cpu_us_16kb"),
        (Cell(streamed=True), "sse_cpu_us"),
        (Cell(streamed=True, at_once=True), "sse_at_once_cpu_us"),
    ],
)
def test_a_metric_is_named_after_its_load(cell: Cell, name: str) -> None:
    assert cell.name("cpu_us") == name


@pytest.mark.parametrize("kilobytes", [1, 16, 64])
def test_a_request_has_the_size_that_was_asked_for(kilobytes: int) -> None:
    body = Contender("x", 1, "/v1/chat/completions", "auto").request(kilobytes).split(b"\r\n\r\n", 1)[1]
    assert len(body) == 1_000 * kilobytes
    assert json.loads(body)["model"] == "auto"


@pytest.mark.parametrize(("policy", "named"), [("", None), ("joint_thompson", "joint_thompson")])
def test_a_home_sets_the_policy_that_it_is_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, policy: str, named: str | None
) -> None:
    monkeypatch.setattr(Home, "_run", lambda *_: "made key sk-x")
    home = Home(tmp_path / "home", 1, policy=policy)
    assert home.key == "sk-x"
    made = settings(environ=home.environment)
    assert [model.name for model in made.providers[0].models] == list(MODELS)
    at_model = made.points["model"]
    assert (at_model.mode, at_model.policy) == ("live", named or "linear_thompson")


def test_cpu_time_counts_a_child_that_runs_and_one_that_has_ended() -> None:
    burn = "import time\nwhile time.process_time() < 0.3: pass\n"
    ended = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {burn!r}]); input()"
    running = f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {burn + 'input()'!r}]).wait()"
    for code in (ended, running):
        with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE) as process:
            deadline = time.monotonic() + 30
            while machine.cpu_s(process.pid) < 0.3 and time.monotonic() < deadline:
                time.sleep(0.02)
            used = machine.cpu_s(process.pid)
            process.communicate(b"\n")
        assert 0.3 <= used < 5


def test_cores_are_dealt_out_without_two_on_one_where_there_are_three(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {4, 5, 6, 7})
    dealt = machine.cores()
    assert len({dealt.gateway, dealt.load, dealt.upstream}) == 3
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {0})
    dealt = machine.cores()
    assert (dealt.gateway, dealt.load, dealt.upstream) == (0, 0, 0)


def test_the_slope_is_that_of_a_straight_line_whatever_its_begin() -> None:
    assert slope([100.0, 101.0, 102.0, 103.0], 20_000) == pytest.approx(1 / 20_000)
    assert slope([300.0, 300.0], 20_000) == pytest.approx(0.0)


@pytest.fixture(params=["compiled", "asyncio"])
def upstream(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Upstream]:
    if request.param == "asyncio":
        monkeypatch.setattr("benchmarks.upstream.compiled", lambda folder: None)
    made = Upstream(tmp_path, machine.cores().upstream, reply_bytes=600, events=5, gap_us=1_000)
    yield made
    made.stop()


def test_the_upstream_answers_plain_and_streamed_over_kept_connections(upstream: Upstream) -> None:
    asking = Contender("direct", upstream.port, "/v1/chat/completions", "m1")
    assert len(load.drive(upstream.port, asking.request(64), 40, 4).latency_s) == 40
    streamed = load.drive(upstream.port, asking.request(1, streamed=True), 6, 3, streamed=True)
    assert len(streamed.first_s) == 6
    assert min(streamed.latency_s) >= 0.004, "five events, a millisecond apart"
    assert min(streamed.first_s) < min(streamed.latency_s), "the first one comes at once"


def test_the_upstream_tells_who_left_in_the_middle_of_a_stream(upstream: Upstream) -> None:
    asking = Contender("direct", upstream.port, "/v1/chat/completions", "m1")
    load.drive(upstream.port, asking.request(1, streamed=True), 2, 1, streamed=True)
    left = load.leave(upstream.port, asking.request(1, streamed=True), 100)
    seen = upstream.left(0, 5)
    assert seen is not None
    assert 0 <= seen - left < 1e9
    assert upstream.left(1, 0.05) is None
