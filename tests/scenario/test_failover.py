"""Sixteen ways in which a provider fails: what the client sees, what is billed, what the ledger says of it.

Each is played by an upstream in another process, before the real server, for every dialect: for a model that is alone,
and for one with another to fall back on. A client never sees half an answer as a whole one.
"""

from __future__ import annotations

import http.client
import json
import logging
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.scenario.program import free_port, rows, server
from tests.scenario.tls import self_signed
from windlass.gateway.transport.transport import CLIENTS

pytestmark = pytest.mark.scenario
UPSTREAM = Path(__file__).with_name("faulty_upstream.py")
QUIET = {"WINDLASS_MEMORY__EMBEDDER": "off"}
TEXT = "A pawl lets the drum turn one way."
PARTIAL = "A pawl lets "
PROMPT, COMPLETION = 7, 8
ONCE_NUSD = PROMPT * 1_000 + COMPLETION * 2_000
"""What an answer of the model under test costs; the one of `fine` costs ten times as much."""
FINE_NUSD = 10 * ONCE_NUSD
FIRST_BYTE_S, IDLE_S, GONE_S = 0.7, 0.5, 0.05
RETRY_AFTER_S = 1.0
DIALECTS = ("chat", "responses", "messages")
DEFAULT = next(iter(CLIENTS))
PATHS = {"chat": "/v1/chat/completions", "responses": "/v1/responses", "messages": "/v1/messages"}


@dataclass(frozen=True)
class Case:
    """What comes of one fault.

    alone: HTTP status for a plain call, and for a streamed one, to a model without others. error: its category in the
    ledger, '' where it is answered in the end, for both. tries: attempts at the model, plain and streamed.
    moves: another model answers in its place, plain and streamed; after `before` attempts at the first.
    """

    alone: tuple[int, int]
    error: tuple[str, str]
    tries: tuple[int, int]
    moves: tuple[bool, bool] = (True, True)
    before: int = 1
    failed: str = ""
    """The category of the attempts that failed, where the call was answered in the end."""
    least_s: float = 0.0
    url: str = ""


def _same(status: int, error: str, tries: int, **more: Any) -> Case:
    return Case((status, status), (error, error), (tries, tries), **more)


NEVER = (False, False)
CASES = {
    "refused": _same(502, "connect_refused", 3, url="http://127.0.0.1:{closed}/v1"),
    "dns": _same(502, "dns_failed", 3, url="http://upstream.invalid/v1"),
    "tls-garbage": _same(502, "tls_failed", 1, url="https://127.0.0.1:{garbage}/v1"),
    "tls-self-signed": _same(502, "tls_failed", 1, url="https://127.0.0.1:{self_signed}/v1"),
    "401": _same(401, "upstream_key_refused", 1),
    "429-seconds": _same(200, "", 2, failed="rate_limited", least_s=RETRY_AFTER_S),
    "429-date": _same(200, "", 2, failed="rate_limited", least_s=RETRY_AFTER_S),
    "429-long": _same(429, "rate_limited", 1),
    "500-burst": _same(200, "", 3, failed="upstream_server_error"),
    "503-recovers": _same(200, "", 3, failed="model_overloaded"),
    "silent": _same(504, "first_byte_timeout", 3, least_s=3 * FIRST_BYTE_S),
    "slow": _same(200, "", 1, moves=NEVER),
    "stalled": Case((502, 200), ("stream_idle", "stream_idle"), (3, 1), moves=(True, False)),
    "cut": Case((502, 200), ("stream_cut", "stream_cut"), (3, 1), moves=(True, False), before=2),
    "malformed": Case((502, 502), ("response_malformed", "chunk_malformed"), (3, 3), before=2),
    "empty": Case((502, 502), ("response_malformed", "stream_empty"), (3, 3), before=2),
    "html": _same(502, "content_type_wrong", 1),
    "flapping": _same(200, "", 2, failed="upstream_server_error"),
    "down": _same(503, "model_overloaded", 3),
    "400": _same(400, "upstream_request_refused", 1, moves=NEVER),
}


@dataclass
class Upstream:
    """The faulty upstream, in its own process."""

    ports: dict[str, int]

    def seen(self, model: str) -> list[dict[str, Any]]:
        """Its requests for one model, in order."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.ports['http']}/_seen", timeout=10) as response:
            return [one for one in json.load(response) if one["model"] == model]


@contextmanager
def upstream(folder: Path) -> Iterator[Upstream]:
    certificate, key = self_signed(folder)
    process = subprocess.Popen(
        [sys.executable, str(UPSTREAM), str(certificate), str(key)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        yield Upstream(json.loads(process.stdout.readline()) | {"closed": free_port()})
    finally:
        process.stdin.close()
        assert process.wait(10) == 0
        process.stdout.close()


def _model(name: str, upstream_name: str, *, usd: float = 1.0, fallbacks: tuple[str, ...] = ()) -> str:
    return (
        f'[[providers.models]]\nname = "{name}"\nupstream = "{upstream_name}"\nfallbacks = {json.dumps(fallbacks)}\n'
        f"prompt_usd_per_million = {usd}\ncompletion_usd_per_million = {2 * usd}\n"
    )


def _provider(name: str, url: str, models: str, transport: str, **more: float) -> str:
    timeouts = {"connect_timeout_s": 2.0, "first_byte_timeout_s": FIRST_BYTE_S, "idle_timeout_s": IDLE_S} | more
    set_to = "".join(f"{option} = {value}\n" for option, value in timeouts.items())
    return (
        f'[[providers]]\nname = "{name}"\nbase_url = "{url}"\nendpoints = ["responses", "messages"]\n'
        f'transport = "{transport}"\n{set_to}{models}'
    )


def _settings(ports: dict[str, int], transport: str) -> str:
    """Each case, in each dialect, plain and streamed, has a model alone and one that falls back on `fine`."""
    base = f"http://127.0.0.1:{ports['http']}/v1"
    parts = ["[resilience]\nbackoff_base_s = 0.02\nbackoff_cap_s = 0.05\nbreaker = {failures = 0}\n"]
    parts.append(_provider("good", base, _model("fine", "fine", usd=10.0), transport, first_byte_timeout_s=5.0))
    for name, case in CASES.items():
        models = ""
        for dialect in DIALECTS:
            for kind in ("plain", "stream"):
                models += _model(f"{name}.{dialect}.{kind}.alone", f"{name}/{dialect}/{kind}/alone")
                models += _model(f"{name}.{dialect}.{kind}.else", f"{name}/{dialect}/{kind}/else", fallbacks=("fine",))
        parts.append(_provider(f"p-{name}", case.url.format(**ports) or base, models, transport))
    slow = _model("hangs", "silent/hangs") + _model("stalls", "stalled/stalls")
    parts.append(_provider("patient", base, slow, transport, first_byte_timeout_s=60.0, idle_timeout_s=60.0))
    return "\n".join(parts)


@dataclass
class Bench:
    """The server under test with its upstream."""

    url: str
    home: Path
    upstream: Upstream
    transport: str

    def outcome(self) -> dict[str, Any]:
        """The last outcome of the ledger, read by nothing of ours."""
        fields = ("status", "error", "model", "provider", "cost_nusd", "tokens_estimated", "extra")
        (row,) = rows(self.home, f"SELECT {', '.join(fields)} FROM outcomes ORDER BY seq DESC LIMIT 1")
        found: dict[str, Any] = dict(zip(fields, row, strict=True))
        found["attempts"] = json.loads(found["extra"] or "{}").get("attempts", [])
        return found


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Every HTTP client meets every fault in chat's dialect; in the others, which it knows nothing of, with --soak."""
    if "bench" in metafunc.fixturenames:
        every = metafunc.config.getoption("--soak")
        met = [
            (name, dialect) for name in CLIENTS for dialect in DIALECTS if every or "chat" in dialect or name == DEFAULT
        ]
        metafunc.parametrize(("bench", "dialect"), met, indirect=["bench"], scope="module")


@pytest.fixture(scope="module")
def bench(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    folder = tmp_path_factory.mktemp("failover")
    with upstream(folder) as faulty:
        settings = folder / "windlass.toml"
        settings.write_text(_settings(faulty.ports, request.param))
        with server(folder / "home", WINDLASS_CONFIG=str(settings), **QUIET) as url:
            yield Bench(url, folder / "home", faulty, request.param)


# --- clients


@dataclass
class Answer:
    """What a client has received."""

    status: int
    headers: dict[str, str]
    body: bytes
    took_s: float
    events: list[Any] = field(default_factory=list)


def ask(url: str, dialect: str, model: str, *, stream: bool) -> Answer:
    """One call, with nothing but the standard library."""
    host, port = url.removeprefix("http://").split(":")
    said = "Why has a windlass a pawl?"
    body: dict[str, Any] = {"model": model, "stream": stream}
    match dialect:
        case "responses":
            body |= {"input": said}
        case "messages":
            body |= {"messages": [{"role": "user", "content": said}], "max_tokens": 100}
        case _:
            body |= {"messages": [{"role": "user", "content": said}]}
    connection = http.client.HTTPConnection(host, int(port), timeout=30)
    began = time.monotonic()
    try:
        connection.request("POST", PATHS[dialect], json.dumps(body), {"content-type": "application/json"})
        response = connection.getresponse()
        data = response.read()
    finally:
        connection.close()
    answer = Answer(response.status, dict(response.getheaders()), data, time.monotonic() - began)
    if stream and response.status == 200:
        lines = [line[5:].strip() for line in data.split(b"\n") if line.startswith(b"data:")]
        answer.events = ["[DONE]" if line == b"[DONE]" else json.loads(line) for line in lines]
    return answer


def text_of(dialect: str, answer: Answer) -> str:
    """The text that a client would show."""
    if not answer.events:
        return _whole_text(dialect, json.loads(answer.body))
    match dialect:
        case "responses":
            deltas = [one["delta"] for one in answer.events if one.get("type") == "response.output_text.delta"]
        case "messages":
            deltas = [one["delta"]["text"] for one in answer.events if one.get("type") == "content_block_delta"]
        case _:
            chunks = [one for one in answer.events if isinstance(one, dict)]
            deltas = [choice["delta"].get("content") or "" for chunk in chunks for choice in chunk.get("choices", [])]
    return "".join(deltas)


def _whole_text(dialect: str, body: dict[str, Any]) -> str:
    match dialect:
        case "responses":
            return "".join(part["text"] for item in body["output"] for part in item.get("content", []))
        case "messages":
            return "".join(part["text"] for part in body["content"])
        case _:
            return str(body["choices"][0]["message"]["content"])


def says_whole(dialect: str, events: list[Any]) -> bool:
    """Would a client take this stream for a whole one?"""
    match dialect:
        case "responses":
            return any(one.get("type") == "response.completed" for one in events)
        case "messages":
            return any(one.get("type") == "message_stop" for one in events)
        case _:
            chunks = [one for one in events if isinstance(one, dict)]
            reasons = [choice.get("finish_reason") for chunk in chunks for choice in chunk.get("choices", [])]
            return "[DONE]" in events or any(reasons)


def error_of(dialect: str, events: list[Any]) -> str:
    """The cause that a stream ends with; Anthropic's errors have no code, there it stands in the words."""
    error = events[-1]["error"]
    return str(error["message"].rpartition(": ")[2] if dialect == "messages" else error["code"])


# --- the sixteen


@pytest.mark.parametrize("stream", [False, True], ids=["plain", "stream"])
@pytest.mark.parametrize("name", CASES)
def test_a_model_alone(bench: Bench, name: str, dialect: str, stream: bool) -> None:
    case, kind = CASES[name], "stream" if stream else "plain"
    model = f"{name}.{dialect}.{kind}.alone"
    answer = ask(bench.url, dialect, model, stream=stream)
    outcome = bench.outcome()
    status, error, tries = case.alone[stream], case.error[stream], case.tries[stream]
    # What the client sees.
    assert (answer.status, answer.took_s >= case.least_s) == (status, True), answer.body[:500]
    if status != 200:
        said = json.loads(answer.body)
        assert said["error"], "always the envelope"
        assert "retry-after" in answer.headers or name != "429-long"
    elif error:
        assert text_of(dialect, answer) == PARTIAL
        assert not says_whole(dialect, answer.events), "never a false end"
        assert error_of(dialect, answer.events) == error
    else:
        assert text_of(dialect, answer) == TEXT
        assert not stream or says_whole(dialect, answer.events)
    # What the ledger says.
    assert (outcome["model"], outcome["provider"], outcome["error"]) == (model, f"p-{name}", error)
    assert outcome["status"] == status
    expected = [error or case.failed] * tries
    if not error:
        expected[-1] = ""
    elif status == 200:
        expected = [""]
    kept = [attempt["category"] for attempt in outcome["attempts"]]
    assert kept == ([] if expected == [""] else expected)
    assert not case.url or all(attempt["bill"] == "none" for attempt in outcome["attempts"])
    # What was sent, and what is billed.
    if not case.url:
        assert len(bench.upstream.seen(f"{name}/{dialect}/{kind}/alone")) == tries
    if not error:
        assert (outcome["cost_nusd"], outcome["tokens_estimated"]) == (ONCE_NUSD, 0)
    elif status == 200:
        assert 0 < outcome["cost_nusd"] < ONCE_NUSD
        assert outcome["tokens_estimated"] == 1 or dialect == "messages"
    else:
        assert outcome["cost_nusd"] == 0


@pytest.mark.parametrize("stream", [False, True], ids=["plain", "stream"])
@pytest.mark.parametrize("name", [name for name, case in CASES.items() if any(case.moves)])
def test_a_model_with_another_to_fall_back_on(bench: Bench, name: str, dialect: str, stream: bool) -> None:
    case, kind = CASES[name], "stream" if stream else "plain"
    answer = ask(bench.url, dialect, f"{name}.{dialect}.{kind}.else", stream=stream)
    outcome = bench.outcome()
    if not case.moves[stream]:  # the first byte has gone out: nobody else can take over
        assert (answer.status, text_of(dialect, answer)) == (200, PARTIAL)
        assert not says_whole(dialect, answer.events)
        assert (outcome["error"], outcome["model"]) == (case.error[stream], f"{name}.{dialect}.{kind}.else")
        return
    assert (answer.status, text_of(dialect, answer)) == (200, TEXT)
    assert not stream or says_whole(dialect, answer.events)
    assert answer.headers["x-windlass-model"] == "fine"
    assert (outcome["model"], outcome["provider"], outcome["error"], outcome["status"]) == ("fine", "good", "", 200)
    failed = case.error[stream] or case.failed
    assert [attempt["category"] for attempt in outcome["attempts"]] == [failed] * case.before + [""]
    assert [attempt["model"] for attempt in outcome["attempts"]][-1] == "fine"
    assert (outcome["cost_nusd"], outcome["tokens_estimated"]) == (FINE_NUSD, 0)


# --- a client that leaves


def _leave(bench: Bench, dialect: str, model: str, upstream_model: str, *, first_byte: bool) -> float:
    """Seconds from a client's leaving to the upstream's seeing it, by the clock that all processes share."""
    before = len(bench.upstream.seen(upstream_model))
    body: dict[str, Any] = {"model": model, "stream": True, "messages": [{"role": "user", "content": "hi"}]}
    body |= {"input": "hi"} if dialect == "responses" else {}
    body |= {"max_tokens": 9} if dialect == "messages" else {}
    data = json.dumps(body).encode()
    host, port = bench.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), 10) as client:
        client.sendall(
            f"POST {PATHS[dialect]} HTTP/1.1\r\nhost: {host}:{port}\r\ncontent-type: application/json\r\n"
            f"content-length: {len(data)}\r\n\r\n".encode()
            + data
        )
        if first_byte:
            while b"pawl" not in client.recv(65_536):
                pass
        else:
            _until(lambda: len(bench.upstream.seen(upstream_model)) > before)
        left_at = time.monotonic()
    _until(lambda: bench.upstream.seen(upstream_model)[before]["closed_at"] is not None)
    return float(bench.upstream.seen(upstream_model)[before]["closed_at"]) - left_at


def _until(true: Any) -> None:
    deadline = time.monotonic() + 10
    while not true():
        assert time.monotonic() < deadline, "it did not come"
        time.sleep(0.005)


@pytest.mark.parametrize("first_byte", [False, True], ids=["before the first byte", "after it"])
def test_the_upstream_is_left_at_once_when_the_client_is(bench: Bench, dialect: str, first_byte: bool) -> None:
    model, upstream_model = ("stalls", "stalled/stalls") if first_byte else ("hangs", "silent/hangs")
    took = sorted(_leave(bench, dialect, model, upstream_model, first_byte=first_byte) for _ in range(20))
    logging.getLogger(__name__).info("left after %.1f ms, at most %.1f ms", took[10] * 1000, took[-1] * 1000)
    # The median: a pause of a busy machine falls into some of the twenty.
    assert took[10] <= GONE_S
    _until(lambda: bench.outcome()["error"] == "client_gone")
    assert bench.outcome()["status"] == (200 if first_byte else 499), "what the client has got"


# --- breakers, and everybody down


@pytest.fixture(params=CLIENTS)
def client(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def _small(ports: dict[str, int], models: str, client: str, **resilience: float) -> str:
    options = "".join(f"{name} = {value}\n" for name, value in resilience.items())
    breaker = "breaker = {failures = 3, open_s = 0.5, open_cap_s = 0.5}"
    base = f"http://127.0.0.1:{ports['http']}/v1"
    return (
        f"[resilience]\nattempts = 2\nbackoff_base_s = 0.0\n{options}{breaker}\n"
        f'[gateway]\nauto = ["one", "two"]\n{_provider("up", base, models, client)}'
    )


@contextmanager
def _served(folder: Path, models: str, client: str, **resilience: float) -> Iterator[Bench]:
    with upstream(folder) as faulty:
        settings = folder / "windlass.toml"
        settings.write_text(_small(faulty.ports, models, client, **resilience))
        with server(folder / "home", WINDLASS_CONFIG=str(settings), **QUIET) as url:
            yield Bench(url, folder / "home", faulty, client)


def test_all_providers_down_are_soon_left_alone_and_found_again(tmp_path: Path, client: str) -> None:
    with _served(tmp_path, _model("one", "down/one") + _model("two", "down/two"), client) as bench:
        for _ in range(3):
            answer = ask(bench.url, "chat", "auto", stream=False)
            assert (answer.status, json.loads(answer.body)["error"]["code"]) == (503, "overloaded")
        sent = len(bench.upstream.seen("down/one")), len(bench.upstream.seen("down/two"))
        assert sent == (3, 3)
        answer = ask(bench.url, "chat", "auto", stream=True)
        assert answer.status == 502
        assert "left alone" in json.loads(answer.body)["error"]["message"]
        assert bench.outcome()["error"] == "model_overloaded"
        assert [attempt["sent"] for attempt in bench.outcome()["attempts"]] == [False, False]
        assert (len(bench.upstream.seen("down/one")), len(bench.upstream.seen("down/two"))) == sent
        time.sleep(0.6)
        assert ask(bench.url, "chat", "auto", stream=False).status == 503
        assert len(bench.upstream.seen("down/one")) == 4, "one probe each"
        assert len(bench.upstream.seen("down/two")) == 4


def test_a_certificate_that_the_machine_trusts_is_enough(tmp_path: Path, client: str) -> None:
    with upstream(tmp_path) as faulty:
        settings = tmp_path / "windlass.toml"
        url = f"https://127.0.0.1:{faulty.ports['self_signed']}/v1"
        settings.write_text(_provider("up", url, _model("one", "fine/one"), client))
        trusted = {"SSL_CERT_FILE": str(tmp_path / "certificate.pem")}
        with server(tmp_path / "home", WINDLASS_CONFIG=str(settings), **trusted, **QUIET) as own:
            for stream in (False, True):
                assert text_of("chat", ask(own, "chat", "one", stream=stream)) == TEXT


def test_a_flapping_model_answers_every_call_and_is_not_shut_out(tmp_path: Path, client: str) -> None:
    with _served(tmp_path, _model("one", "flapping/one") + _model("two", "down/two"), client) as bench:
        for _ in range(12):
            assert ask(bench.url, "chat", "one", stream=False).status == 200
        assert len(bench.upstream.seen("flapping/one")) == 24


def test_streams_that_are_cut_open_the_breaker(tmp_path: Path, client: str) -> None:
    with _served(tmp_path, _model("one", "cut/one", fallbacks=("two",)) + _model("two", "fine/two"), client) as bench:
        for _ in range(3):
            assert text_of("chat", ask(bench.url, "chat", "one", stream=True)) == PARTIAL
        answer = ask(bench.url, "chat", "one", stream=True)
        assert (text_of("chat", answer), answer.headers["x-windlass-model"]) == (TEXT, "two")


def test_a_stream_that_never_began_counts_once_for_each_attempt(tmp_path: Path, client: str) -> None:
    with _served(tmp_path, _model("one", "empty/one") + _model("two", "fine/two"), client) as bench:
        for _ in range(3):
            assert ask(bench.url, "chat", "one", stream=True).status == 502
        assert len(bench.upstream.seen("empty/one")) == 3, "two, then one that opens the breaker, then none"


@pytest.mark.parametrize("stream", [False, True], ids=["plain", "stream"])
def test_a_slow_first_byte_is_hedged_and_the_loser_is_left(tmp_path: Path, client: str, stream: bool) -> None:
    models = _model("one", "silent/one", fallbacks=("two",)) + _model("two", "fine/two")
    with _served(tmp_path, models, client, hedge_after_s=0.2) as bench:
        answer = ask(bench.url, "chat", "one", stream=stream)
        answered_at = time.monotonic()
        assert (text_of("chat", answer), answer.headers["x-windlass-model"]) == (TEXT, "two")
        assert 0.2 <= answer.took_s < FIRST_BYTE_S
        _until(lambda: bench.upstream.seen("silent/one")[0]["closed_at"] is not None)
        assert bench.upstream.seen("silent/one")[0]["closed_at"] <= answered_at
        lost, won = bench.outcome()["attempts"]
        assert (lost["model"], lost["category"], lost["bill"], lost["hedge"]) == ("one", "cancelled", "unsaid", False)
        assert (won["model"], won["category"], won["bill"], won["hedge"]) == ("two", "", "outcome", True)


@contextmanager
def _continuing(folder: Path, client: str) -> Iterator[Bench]:
    """Models that are cut, one for each dialect, behind an upstream of chats; a break is enough to leave one alone."""
    with upstream(folder) as faulty:
        models = _model("fine", "fine", usd=10.0)
        for dialect in DIALECTS:
            models += _model(f"mended.{dialect}", f"cut/{dialect}/mended", fallbacks=("fine",))
            models += _model(f"twice.{dialect}", f"cut/{dialect}/twice", fallbacks=(f"again.{dialect}",))
            models += _model(f"again.{dialect}", f"cut/{dialect}/again")
        provider = _provider("up", f"http://127.0.0.1:{faulty.ports['http']}/v1", models, client)
        settings = folder / "windlass.toml"
        settings.write_text(
            "[resilience]\ncontinue_streams = true\nbreaker = {failures = 1, open_s = 60.0}\n"
            + provider.replace('endpoints = ["responses", "messages"]', "endpoints = []")
        )
        with server(folder / "home", WINDLASS_CONFIG=str(settings), **QUIET) as url:
            yield Bench(url, folder / "home", faulty, client)


def test_a_stream_that_is_cut_goes_on_if_that_is_switched_on(tmp_path: Path, client: str) -> None:
    with _continuing(tmp_path, client) as bench:
        for dialect in DIALECTS:
            answer, outcome = ask(bench.url, dialect, f"mended.{dialect}", stream=True), bench.outcome()
            assert text_of(dialect, answer) == TEXT, "the other model began anew: what it repeats is left out"
            assert says_whole(dialect, answer.events)
            assert answer.events.count("[DONE]") == (dialect == "chat")
            assert (outcome["error"], outcome["model"], outcome["tokens_estimated"]) == ("", "fine", 1)
            assert FINE_NUSD < outcome["cost_nusd"] < FINE_NUSD + ONCE_NUSD
            place = {"at_chars": len(PARTIAL), "dropped_chars": len(PARTIAL)}
            continued = json.loads(outcome["extra"])["continued"]
            assert continued == {"provider": "up", "model": "fine", **place}
            assert [one["category"] for one in outcome["attempts"] if one["sent"]] == ["stream_cut", ""]


def test_a_stream_that_is_cut_twice_is_never_taken_for_a_whole_one(tmp_path: Path) -> None:
    with _continuing(tmp_path, DEFAULT) as bench:
        for dialect in DIALECTS:
            answer, outcome = ask(bench.url, dialect, f"twice.{dialect}", stream=True), bench.outcome()
            assert (text_of(dialect, answer), error_of(dialect, answer.events)) == (PARTIAL, "stream_cut")
            assert not says_whole(dialect, answer.events)
            assert (outcome["error"], outcome["model"]) == ("stream_cut", f"again.{dialect}")
            assert outcome["tokens_estimated"] == 1
            asked = [len(bench.upstream.seen(f"cut/{dialect}/{name}")) for name in ("twice", "again")]
            assert asked == [1, 1], "once, and not again"


def test_the_total_time_holds(tmp_path: Path, client: str) -> None:
    with _served(
        tmp_path, _model("one", "silent/one") + _model("two", "stalled/two"), client, total_timeout_s=0.4
    ) as bench:
        plain = ask(bench.url, "chat", "one", stream=False)
        assert (plain.status, json.loads(plain.body)["error"]["code"]) == (504, "total_timeout")
        assert 0.4 <= plain.took_s < FIRST_BYTE_S
        cut = ask(bench.url, "chat", "two", stream=True)
        assert (text_of("chat", cut), error_of("chat", cut.events)) == (PARTIAL, "total_timeout")
        assert 0.4 <= cut.took_s < IDLE_S
