"""Upstreams by way of litellm, in an environment from the lock: the contract, every fault, tools, and no way out.

The gateway is the real program in that environment; the upstreams are those of the other scenarios, which share no code
with it. Litellm speaks to them as it speaks to OpenAI (over OpenAI's own client) and to Anthropic (over its own).
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.scenario import litellm_environment, scripted_upstream
from tests.scenario import test_failover as failover
from tests.scenario.program import command, environment, free_port, kill, post, rows, url_of, windlass

pytestmark = pytest.mark.scenario
ROUTES = ("openai", "anthropic")
KINDS = ("plain", "stream")
SECRET = "sk-tail-4f1c9be07d"
CONFORMANCE = Path(__file__).with_name("litellm_conformance.py")
CONFORMANCE_S = 240
IMPORT_S = 120
PROXIES = ("HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy")
"""Of the environment, which no kind of provider takes."""
IMPATIENT = {"first_byte_timeout_s": 1.5, "idle_timeout_s": 1.0}
PATIENT = {"first_byte_timeout_s": 60.0, "idle_timeout_s": 60.0}
GONE_S = 0.05
TOGETHER = 4
FIELDS = ("status", "error", "model", "provider", "cost_nusd", "tokens_estimated", "extra")
QUIET = {"WINDLASS_MEMORY__EMBEDDER": "off", "TAIL_KEY": SECRET}


@dataclass(frozen=True)
class Fault:
    """What comes of one fault, plain and streamed.

    status: that the client gets. error: of the call in the ledger, '' where it is answered in the end. tries: requests
    that the upstream sees. by_anthropic: the errors where litellm's way to Anthropic tells less than that to OpenAI.
    """

    status: tuple[int, int]
    error: tuple[str, str]
    tries: tuple[int, int]
    by_anthropic: tuple[str, str] | None = None
    url: str = ""


def same(status: int, error: str, tries: int, url: str = "") -> Fault:
    return Fault((status, status), (error, error), (tries, tries), url=url)


FAULTS = {
    "refused": same(502, "connect_refused", 0, "http://127.0.0.1:{closed}/v1"),
    "dns": same(502, "dns_failed", 0, "http://upstream.invalid/v1"),
    "tls-garbage": same(502, "tls_failed", 0, "https://127.0.0.1:{garbage}/v1"),
    "tls-self-signed": same(502, "tls_failed", 0, "https://127.0.0.1:{self_signed}/v1"),
    "401": same(401, "upstream_key_refused", 1),
    "400": same(400, "upstream_request_refused", 1),
    "429-seconds": same(200, "", 2),
    "429-date": same(200, "", 2),
    "429-long": same(429, "rate_limited", 1),
    "500-burst": same(200, "", 3),
    "503-recovers": same(200, "", 3),
    "flapping": same(200, "", 2),
    "down": same(503, "model_overloaded", 3),
    "silent": same(504, "first_byte_timeout", 3),
    "slow": same(200, "", 1),
    # A plain answer comes out of litellm whole: its first byte is its last.
    "stalled": Fault((504, 200), ("first_byte_timeout", "stream_idle"), (3, 1)),
    "cut": Fault((502, 200), ("stream_cut", "stream_cut"), (3, 1)),
    "malformed": Fault(
        (502, 502), ("response_malformed", "chunk_malformed"), (3, 3), ("response_malformed", "stream_empty")
    ),
    "empty": Fault((502, 502), ("response_malformed", "stream_empty"), (3, 3)),
    # Litellm reads past the type of the content.
    "html": Fault(
        (500, 502), ("upstream_server_error", "stream_empty"), (3, 3), ("response_malformed", "stream_empty")
    ),
}
CALLS = [(name, route, kind) for name in FAULTS for route in ROUTES for kind in KINDS]


def provider(name: str, url: str, models: dict[str, str], *, options: str = "{}", **more: Any) -> str:
    """One provider of the kind; models: each with litellm's name of it."""
    said = f'[[providers]]\nname = "{name}"\nkind = "litellm"\nbase_url = "{url}"\napi_key_env = "TAIL_KEY"\n'
    said += f"options = {options}\n"
    said += "".join(f"{option} = {value}\n" for option, value in more.items())
    return said + "".join(
        f'[[providers.models]]\nname = "{model}"\nupstream = "{upstream}"\n'
        "prompt_usd_per_million = 1.0\ncompletion_usd_per_million = 2.0\n"
        for model, upstream in models.items()
    )


@contextmanager
def served(folder: Path, settings: str) -> Iterator[tuple[str, Path]]:
    """The real program in the environment with litellm; its URL and its folder. It ends as it should."""
    home, config, said = folder / "home", folder / "windlass.toml", folder / "said"
    config.write_text(settings)
    arguments = command("up", "--port", str(free_port()))[1:]
    with said.open("w") as errors:
        process = subprocess.Popen(
            [litellm_environment.python(), *arguments],
            env=environment(home, WINDLASS_CONFIG=str(config), **QUIET),
            stdout=subprocess.DEVNULL,
            stderr=errors,
            stdin=subprocess.DEVNULL,
            text=True,
            start_new_session=True,
        )
        try:
            yield url_of(home, process), home
            os.killpg(process.pid, signal.SIGINT)
            assert process.wait(20) == 0, said.read_text()[-2_000:]
        finally:
            if process.poll() is None:
                kill(process)
    assert "Traceback" not in said.read_text(), said.read_text()[-2_000:]
    assert SECRET not in said.read_text()


def ready(url: str, model: str) -> None:
    """Ask for the first time, which imports litellm: seconds, on a busy machine half a minute."""
    body = {"model": model, "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 9}
    status, said = post(f"{url}/v1/chat/completions", body, IMPORT_S)
    assert status == 200, said


@dataclass
class Bench(failover.Bench):
    """The server, its faulty upstream with the answers to all `CALLS`, and the one that does as it is asked."""

    answers: dict[tuple[str, str, str], failover.Answer]
    obedient: str

    def outcome_of(self, model: str) -> dict[str, Any]:
        (row,) = rows(self.home, f"SELECT {', '.join(FIELDS)} FROM outcomes WHERE model = ?", model)
        found: dict[str, Any] = dict(zip(FIELDS, row, strict=True))
        found["attempts"] = json.loads(found["extra"] or "{}").get("attempts", [])
        return found


def settings_of(ports: dict[str, int], scripted: str) -> str:
    base = f"http://127.0.0.1:{ports['http']}/v1"
    parts = ["[resilience]\nbackoff_base_s = 0.02\nbackoff_cap_s = 0.05\nbreaker = {failures = 0}\n"]
    for name, fault in FAULTS.items():
        models = {f"{name}.{route}.{kind}": f"{route}/{name}/{route}/{kind}" for route in ROUTES for kind in KINDS}
        timeouts = IMPATIENT if name in ("silent", "stalled") else PATIENT
        parts.append(provider(f"p-{name}", fault.url.format(**ports) or base, models, **timeouts))
    slow = {f"{name}.{route}": f"{route}/{name}/{route}" for name in ("silent", "stalled", "fine") for route in ROUTES}
    parts.append(provider("patient", base, slow, **PATIENT))
    options = '{ fields = ["top_k"] }'
    for route in ROUTES:  # litellm adds the version to Anthropic's base itself
        url = scripted if route == "openai" else scripted.removesuffix("/v1")
        parts.append(provider(f"s-{route}", url, {route: f"{route}/m"}, options=options, **PATIENT))
    return "\n".join(parts)


@pytest.fixture(scope="module")
def contract(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Future[Any]]:
    """What the conformance suite finds in that environment, which it does beside the other tests."""
    folder = tmp_path_factory.mktemp("contract")
    (folder / ".env").write_text("FROM_THE_FILE=read\n")

    def run() -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [litellm_environment.python(), "-W", "error::ResourceWarning", str(CONFORMANCE)],
            cwd=folder,
            env={**os.environ, **dict.fromkeys(PROXIES, "http://127.0.0.1:1")},
            capture_output=True,
            text=True,
            timeout=CONFORMANCE_S,
            check=False,
            stdin=subprocess.DEVNULL,
        )

    litellm_environment.python()
    with ThreadPoolExecutor(1) as beside:
        yield beside.submit(run)


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory, contract: Future[Any]) -> Iterator[Bench]:
    """Every fault is met at the start, several at once: most of it is waiting."""
    folder = tmp_path_factory.mktemp("litellm")
    with (
        failover.upstream(folder) as faulty,
        scripted_upstream.running() as obedient,
        served(folder, settings_of(faulty.ports, obedient)) as (url, home),
    ):
        for route in ROUTES:  # what is imported at the first request is no upstream's fault
            ready(url, f"fine.{route}")

        def asked(call: tuple[str, str, str]) -> failover.Answer:
            return failover.ask(url, "chat", ".".join(call), stream=call[2] == "stream")

        with ThreadPoolExecutor(TOGETHER) as threads:
            answers = dict(zip(CALLS, threads.map(asked, CALLS), strict=True))
        yield Bench(url, home, faulty, "litellm", answers, obedient)


@pytest.mark.parametrize(("name", "route", "kind"), CALLS)
def test_every_fault_is_told_as_it_is(bench: Bench, name: str, route: str, kind: str) -> None:
    fault, answer, streamed = FAULTS[name], bench.answers[(name, route, kind)], kind == "stream"
    error = (fault.by_anthropic or fault.error)[streamed] if route == "anthropic" else fault.error[streamed]
    status = 502 if error == "response_malformed" else fault.status[streamed]
    outcome = bench.outcome_of(f"{name}.{route}.{kind}")
    assert (answer.status, outcome["error"], outcome["status"]) == (status, error, status), answer.body[:500]
    if status != 200:
        assert json.loads(answer.body)["error"]["message"], "always the envelope"
        assert SECRET.encode() not in answer.body
        assert b"Traceback" not in answer.body
        assert ("retry-after" in answer.headers) == (name == "429-long")
        assert outcome["cost_nusd"] == 0
    elif error:
        assert failover.text_of("chat", answer) == failover.PARTIAL
        assert not failover.says_whole("chat", answer.events), "never a false end"
        assert failover.error_of("chat", answer.events) == error
        assert 0 < outcome["cost_nusd"] < failover.ONCE_NUSD
        assert outcome["tokens_estimated"] == 1
    else:
        assert failover.text_of("chat", answer) == failover.TEXT
        assert not streamed or failover.says_whole("chat", answer.events)
        assert (outcome["cost_nusd"], outcome["tokens_estimated"]) == (failover.ONCE_NUSD, 0)
    if not fault.url:
        assert len(bench.upstream.seen(f"{name}/{route}/{kind}")) == fault.tries[streamed], "retries are ours alone"


@pytest.mark.parametrize("first_byte", [False, True], ids=["before the first byte", "after it"])
@pytest.mark.parametrize("route", ROUTES)
def test_the_upstream_is_left_at_once_when_the_client_is(
    bench: Bench, contract: Future[Any], route: str, first_byte: bool
) -> None:
    contract.result(CONFORMANCE_S)  # it keeps the machine busy
    name = "stalled" if first_byte else "silent"
    medians = []
    for _ in range(3):  # pauses of a busy machine fall into some of them
        took = sorted(
            failover._leave(bench, "chat", f"{name}.{route}", f"{name}/{route}", first_byte=first_byte)
            for _ in range(9)
        )
        medians.append(took[4])
        if took[4] <= GONE_S:
            break
    assert min(medians) <= GONE_S, medians


def test_the_other_dialects_come_by_as_well(bench: Bench) -> None:
    for dialect in ("responses", "messages"):
        for route in ROUTES:
            for stream in (False, True):
                answer = failover.ask(bench.url, dialect, f"fine.{route}", stream=stream)
                assert (answer.status, failover.text_of(dialect, answer)) == (200, failover.TEXT), answer.body[:500]
                assert not stream or failover.says_whole(dialect, answer.events)


def test_the_key_lies_nowhere(bench: Bench) -> None:
    assert bench.upstream.seen("fine/openai")[0]["headers"]["authorization"] == f"Bearer {SECRET}"
    assert bench.upstream.seen("fine/anthropic")[0]["headers"]["x-api-key"] == SECRET
    assert not [file for file in bench.home.rglob("*") if file.is_file() and SECRET.encode() in file.read_bytes()]


# --- what goes up, and what must not

TOOL = {
    "type": "function",
    "function": {
        "name": "turn_drum",
        "description": "Turn it.",
        "strict": True,
        "parameters": {"type": "object", "properties": {"times": {"type": "integer"}}, "required": ["times"]},
    },
}
FORM = {
    "type": "json_schema",
    "json_schema": {
        "name": "answer",
        "strict": True,
        "schema": {
            "type": "object",
            "properties": {"turns": {"type": "integer"}},
            "required": ["turns"],
            "additionalProperties": False,
        },
    },
}


@dataclass
class Scripted:
    """The server before an upstream that does as it is asked, and a port that nobody may knock at."""

    url: str
    upstream: str
    trap: socket.socket

    @property
    def trapped(self) -> str:
        return f"http://127.0.0.1:{self.trap.getsockname()[1]}/v1"

    def ask(self, route: str, said: Any, **more: Any) -> tuple[int, dict[str, str], bytes]:
        body = {"model": route, "messages": [{"role": "user", "content": said}], **more}
        request = urllib.request.Request(
            f"{self.url}/v1/chat/completions", json.dumps(body).encode(), {"content-type": "application/json"}
        )
        try:
            with urllib.request.urlopen(request, timeout=60) as response:
                return response.status, dict(response.headers), response.read()
        except urllib.error.HTTPError as refused:
            with refused:
                return refused.code, dict(refused.headers), refused.read()

    def seen(self) -> dict[str, Any]:
        """The last request that the upstream got."""
        with urllib.request.urlopen(f"{self.upstream.removesuffix('/v1')}/_seen", timeout=10) as response:
            found: dict[str, Any] = json.load(response)[-1]["body"]
        return found

    def nobody_knocked(self) -> bool:
        self.trap.settimeout(0.2)
        try:
            self.trap.accept()
        except TimeoutError:
            return True
        return False


@pytest.fixture(scope="module")
def scripted(bench: Bench) -> Iterator[Scripted]:
    with socket.create_server(("127.0.0.1", 0)) as trap:
        yield Scripted(bench.url, bench.obedient, trap)


def pieces(body: bytes) -> list[dict[str, Any]]:
    """The events of a stream, which must have ended well."""
    lines = [line[6:] for line in body.split(b"\n") if line.startswith(b"data: ")]
    assert lines[-1] == b"[DONE]"
    return [json.loads(line) for line in lines[:-1]]


@pytest.mark.parametrize("route", ROUTES)
def test_tools_are_called(scripted: Scripted, route: str) -> None:
    status, _, body = scripted.ask(route, "Turn the drum 7 times.", tools=[TOOL], max_tokens=100)
    assert status == 200, body
    choice = json.loads(body)["choices"][0]
    (call,) = choice["message"]["tool_calls"]
    assert (choice["finish_reason"], choice["message"]["content"] or None) == ("tool_calls", None)
    assert (call["type"], call["function"]["name"], json.loads(call["function"]["arguments"])) == (
        "function",
        "turn_drum",
        {"times": 7},
    )
    status, _, body = scripted.ask(route, "Turn the drum 7 times.", tools=[TOOL], max_tokens=100, stream=True)
    assert status == 200, body
    choices = [choice for piece in pieces(body) for choice in piece["choices"]]
    calls = [call for choice in choices for call in choice["delta"].get("tool_calls", ())]
    assert calls[0]["function"]["name"] == "turn_drum"
    assert calls[0]["id"]
    assert json.loads("".join(call["function"].get("arguments") or "" for call in calls)) == {"times": 7}
    assert [choice["finish_reason"] for choice in choices if choice["finish_reason"]] == ["tool_calls"]


def test_what_the_client_wrote_arrives_as_it_was(scripted: Scripted) -> None:
    parts = [{"type": "text", "text": "Turn the drum 7 times."}]
    more = {"tools": [TOOL], "response_format": FORM, "temperature": 0.25, "seed": 7, "logit_bias": {"5": -1}}
    status, headers, body = scripted.ask("openai", parts, **more, top_k=3)
    assert status == 200, body
    assert "x-windlass-dropped" not in headers
    seen = scripted.seen()
    assert seen["messages"] == [{"role": "user", "content": parts}]
    assert {name: seen[name] for name in more} == more
    assert seen["top_k"] == 3, "the operator lets it pass"


def test_no_field_of_a_request_leads_litellm_elsewhere(scripted: Scripted) -> None:
    trapped = scripted.trapped
    steering = {
        "api_base": trapped,
        "base_url": trapped,
        "api_key": "sk-of-the-client",
        "custom_llm_provider": "hosted_vllm",
        "extra_headers": {"x-evil": "1"},
        "headers": {"x-evil": "1"},
        "proxy_server_request": {"url": trapped},
        "aws_bedrock_runtime_endpoint": trapped,
        "fallbacks": [{"model": "openai/m", "api_base": trapped}],
        "model_list": [{"model_name": "openai/m", "litellm_params": {"model": "openai/m", "api_base": trapped}}],
        "mock_response": "made up",
        "num_retries": 9,
        "metadata": {"langfuse_host": trapped},
        "langfuse_host": trapped,
        "success_callback": ["langfuse"],
        "client": None,
        "extra_body": {"x": 1},
        "_skip_mcp_handler": False,
        "timeout": 0.001,
    }
    for route in ROUTES:
        for stream in (False, True):
            before = json.dumps(scripted.seen()) if stream else ""
            status, headers, body = scripted.ask(route, f"Say it {stream}.", stream=stream, **steering)
            assert status == 200, body
            assert scripted_upstream.TEXT in (
                json.loads(body)["choices"][0]["message"]["content"] if not stream else texts(body)
            )
            assert set(headers["x-windlass-dropped"].split(", ")) == set(steering)
            assert json.dumps(scripted.seen()) != before
            assert not set(steering) & set(scripted.seen())
    assert scripted.nobody_knocked()


def texts(body: bytes) -> str:
    return "".join(
        choice["delta"].get("content") or "" for piece in pieces(body) for choice in piece.get("choices", ())
    )


def test_nothing_is_fetched_from_here(scripted: Scripted) -> None:
    address = f"{scripted.trapped}/picture.png"
    for part in (
        {"type": "image_url", "image_url": {"url": address}},
        {"type": "image_url", "image_url": address},
        {"type": "file", "file": {"file_id": address}},
        {"type": "file", "file": {"file_data": address}},
        {"type": "image_url", "image_url": {"url": "/etc/passwd"}},
        {"type": "image_url", "image_url": {"url": "file:///etc/passwd"}},
        {"type": "unheard_of", "deep": [{"er": f" {address}"}]},
    ):
        for route in ROUTES:
            status, _, body = scripted.ask(route, [{"type": "text", "text": "What is it?"}, part], max_tokens=9)
            assert (status, json.loads(body)["error"]["param"]) == (400, "messages"), body
            assert "options.links" in json.loads(body)["error"]["message"]
    assert scripted.nobody_knocked()


# --- without litellm, and its contract


def test_the_contract_is_kept_and_nobody_else_is_asked(contract: Future[Any]) -> None:
    done = contract.result(CONFORMANCE_S)
    assert done.returncode == 0, done.stderr[-3_000:]
    found = json.loads(done.stdout)
    assert len(found["kept"]) == 3
    assert found["hosts"] == ["127.0.0.1"], "its price map, or something else, would come from the network"
    assert (found["early"], found["late"], found["env"]) == (False, True, "")


def test_without_the_extra_the_start_says_so(tmp_path: Path) -> None:
    """The tests' own environment has no litellm."""
    (tmp_path / "windlass.toml").write_text(provider("tail", "http://127.0.0.1:1/v1", {"m": "openai/m"}))
    config = {"WINDLASS_CONFIG": str(tmp_path / "windlass.toml")}
    done = windlass(tmp_path / "home", "up", "--port", str(free_port()), **config, **QUIET)
    assert done.returncode == 2, "as for all settings that make no sense"
    assert "pip install windlass[litellm]" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_lock_holds_a_hash_of_every_file() -> None:
    """`uv sync --frozen` installs nothing whose hash is another one."""
    lock = (litellm_environment.ROOT / "uv.lock").read_text()
    (package,) = [part for part in lock.split("[[package]]") if part.startswith('\nname = "litellm"\n')]
    files = [line for line in package.splitlines() if "url = " in line]
    assert files
    assert all('hash = "sha256:' in line for line in files)
    assert 'version = "1.82.7"' not in package
    assert 'version = "1.82.8"' not in package
    assert shutil.which("uv", path=str(Path(sys.executable).parent)), "what reads the lock"
