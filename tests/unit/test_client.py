"""`windlass.Client`: the call path in process, from any thread, without a server."""

from __future__ import annotations

import asyncio
import gc
import hashlib
import importlib.resources
import subprocess
import sys
import threading
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from windlass import (
    AccessError,
    Client,
    InputError,
    ModelUnknown,
    RequestError,
    SettingsError,
    UpstreamError,
)
from windlass.errors import ErrorCategory, LedgerError, WindlassError, classify
from windlass.gateway.provider import JSON, EmbeddingRequest, ProviderReply, ProviderRequest
from windlass.gateway.relay import Once
from windlass.ledger.db import Database
from windlass.ledger.ledger import ALL, CallFilter
from windlass.ledger.sql import SqlLedger
from windlass.records import Call, Feedback, Outcome
from windlass.testing import Echo

SAID = [{"role": "user", "content": "ahoy"}]
OFF: dict[str, Any] = {"memory.embedder": "off"}
KEY = {"name": "k", "sha256": hashlib.sha256(b"secret").hexdigest(), "tenant": "acme", "workspaces": ["one"]}


class Embedding(Echo):
    """An Echo that embeds as well: each text becomes (its length, 1). `bad` answers 429."""

    name = "embedding"

    @property
    def embedding_models(self) -> Any:
        return self.models

    async def embed(self, request: EmbeddingRequest) -> ProviderReply:
        if request.model == "bad":
            return ProviderReply(429, JSON, Once(b'{"error": {"message": "slow down"}}'))
        texts = request.input.texts or ()
        data = ",".join(f'{{"embedding":[{len(text)},1],"index":{n}}}' for n, text in enumerate(texts))
        return ProviderReply(200, JSON, Once(f'{{"data":[{data}],"usage":{{"prompt_tokens":5}}}}'.encode()))


class Slow(Echo):
    """An Echo that answers once `go` is set; `began` says that a call is under way."""

    name = "slow"

    def __init__(self) -> None:
        super().__init__("slow")
        self.began, self.go = threading.Event(), threading.Event()

    async def send(self, request: ProviderRequest) -> ProviderReply:
        self.began.set()
        while not self.go.is_set():
            await asyncio.sleep(0.001)
        return await super().send(request)


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WINDLASS_HOME", str(tmp_path / "home"))


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    providers = [Embedding("echo", "bad", failing=("bad",))]
    with Client(tmp_path_factory.mktemp("home"), settings=OFF, providers=providers) as client:
        yield client


def _records(home: Path, kind: type[Any]) -> list[Any]:
    db = Database(f"sqlite:///{home / 'ledger.db'}")
    ledger = SqlLedger(db)
    found = [entry.record for entry in ledger.read(ALL, limit=10_000) if isinstance(entry.record, kind)]
    ledger.close()
    db.close()
    return found


def test_a_chat_is_answered_and_kept(tmp_path: Path) -> None:
    with Client(settings=OFF, providers=[Echo()]) as client:
        reply = client.chat(SAID, model="echo", parent="answer_1", temperature=0)
        client.feedback(reply.call, "rating", value=1.0)
    assert (reply.text, reply.status, reply.model, reply.provider) == ("ahoy", 200, "echo", "echo")
    assert b'"ahoy"' in reply.body
    assert (reply.prompt_tokens, reply.completion_tokens, reply.cost_nusd) == (1, 1, 0)
    home = tmp_path / "home"
    assert [call.id for call in _records(home, Call)] == [reply.call]
    assert [outcome.error for outcome in _records(home, Outcome)] == [""]
    assert [(said.target, said.value) for said in _records(home, Feedback)] == [(reply.call, 1.0)]


def test_a_stream_comes_back_whole(client: Client) -> None:
    reply = client.chat([{"role": "user", "content": "one\ntwo"}], model="echo", stream=True)
    assert reply.text == "one\ntwo"
    assert reply.body.endswith(b"data: [DONE]\n\n")


def test_models_begin_with_auto(client: Client) -> None:
    assert client.models() == ("auto", "echo", "bad", "local/quotes-fast")


@pytest.mark.parametrize(
    ("call", "raised"),
    [
        (lambda c: c.chat(SAID, model="nope"), ModelUnknown),
        (lambda c: c.chat(SAID, model="bad"), UpstreamError),
        (lambda c: c.chat([], model="echo"), RequestError),
        (lambda c: c.chat([{"content": "no role"}], model="echo"), RequestError),
        (lambda c: c.ask(""), InputError),
        (lambda c: c.ask("x" * 5_000), InputError),
        (lambda c: c.feedback("call_1", "rating"), RequestError),
        (lambda c: c.feedback("call_1", "rating", value=2.0), RequestError),
        (lambda c: c.feedback("call_1", "rating", value=float("nan")), RequestError),
        (lambda c: c.feedback("call_1", "praise", comment="half a pair \ud800"), RequestError),
        (lambda c: c.chat([{"role": "user", "content": "half a pair \ud800"}], model="echo"), RequestError),
        (lambda c: c.chat([{"role": "user", "content": object()}], model="echo"), RequestError),
    ],
    ids=range(12),
)
def test_what_goes_wrong_is_raised_in_the_callers_thread(client: Client, call: Any, raised: type[Exception]) -> None:
    with pytest.raises(raised):
        call(client)
    assert client.chat(SAID, model="echo").text == "ahoy", "and the client goes on"


@pytest.mark.parametrize(
    ("target", "kind", "metric"),
    [("", "praise", "m"), ("call 1", "praise", "m"), ("call_1", "bribe", "m"), ("call_1", "praise", "")],
)
def test_feedback_in_process_is_held_to_the_rules_of_the_wire(
    tmp_path: Path, target: str, kind: Any, metric: str
) -> None:
    """What the server refuses may not enter the ledger by another door: a row that cannot be read stops every fold."""
    with Client(tmp_path / "h", settings=OFF) as client, pytest.raises(RequestError):
        client.feedback(target, kind, metric=metric)
    with Client(tmp_path / "h", settings=OFF):
        """It opens again."""


def test_many_threads_may_share_it(client: Client) -> None:
    with ThreadPoolExecutor(16) as threads:
        said = [f"thread {number}" for number in range(64)]
        replies = threads.map(lambda text: client.chat([{"role": "user", "content": text}], model="echo"), said)
        assert [reply.text for reply in replies] == said


def test_an_upstream_that_refuses_to_embed_is_quoted(client: Client) -> None:
    with pytest.raises(UpstreamError, match=r"answered 429 \(rate_limited\).*slow down") as found:
        client.embed(["x"], model="bad")
    assert (found.value.status, classify(found.value)) == (429, ErrorCategory.RATE_LIMITED)


def test_calls_come_back_newest_first_and_page_by_page(tmp_path: Path) -> None:
    with Client(tmp_path / "h", settings=OFF, providers=[Embedding("echo", "bad", failing=("bad",))]) as client:
        made = [client.chat(SAID, model="echo").call for _ in range(3)]
        embedding = client.embed(["x"], model="echo").call
        client.feedback(made[0], "praise")
        assert [found.call.id for found in client.calls()] == [embedding, *reversed(made)]
        assert [found.call.id for found in client.calls(limit=1, before=made[2])] == [made[1]]
        assert [found.call.id for found in client.calls(CallFilter(endpoint="embeddings"))] == [embedding]
        trace = client.trace(made[0])
        assert trace is not None
        assert [said.kind for said in trace.feedback] == ["praise"]
        assert client.trace("call_nowhere") is None


def test_an_empty_memory_is_asked(client: Client) -> None:
    asked = client.ask("Why does a windlass turn only one way?")
    assert (asked.answered, asked.quotes) == (False, ())


def test_closing_twice_is_fine(tmp_path: Path) -> None:
    before = threading.active_count()
    client = Client(tmp_path / "h", settings=OFF)
    client.close()
    client.close()
    assert threading.active_count() <= before


def test_closing_from_several_threads_at_once_ends(tmp_path: Path) -> None:
    client, failures = Client(tmp_path / "h", settings=OFF), list[BaseException]()

    def close() -> None:
        try:
            client.close()
        except BaseException as exc:
            failures.append(exc)

    closing = [threading.Thread(target=close, daemon=True) for _ in range(4)]
    for thread in closing:
        thread.start()
    for thread in closing:
        thread.join(timeout=1)
    assert [thread.is_alive() for thread in closing] == [False] * 4
    assert failures == []


def test_a_closed_client_says_that_it_is_closed(tmp_path: Path) -> None:
    client = Client(tmp_path / "h", settings=OFF)
    client.close()
    raised: BaseException | None = None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # a coroutine that was never awaited is not the point here
        try:
            client.chat(SAID)
        except Exception as exc:
            raised = exc.with_traceback(None)
        gc.collect()
    assert isinstance(raised, WindlassError), raised
    assert "closed" in str(raised)


def test_calls_under_way_end_when_it_is_closed(tmp_path: Path) -> None:
    """Neither they nor whoever closes waits for ever; what came back is in the ledger."""
    slow = Slow()
    client = Client(tmp_path / "h", settings=OFF, providers=[slow])
    with ThreadPoolExecutor(8) as threads:
        calls = [threads.submit(client.chat, SAID, model="slow") for _ in range(4)]
        assert slow.began.wait(10)
        closing = threads.submit(client.close)
        slow.go.set()
        closing.result(timeout=10)
        ended = [call.exception(timeout=10) for call in calls]
        assert all(exc is None or isinstance(exc, LedgerError) for exc in ended), ended
        told = {call.result().call for call, exc in zip(calls, ended, strict=True) if exc is None}
        with pytest.raises(LedgerError, match="closed"):
            client.chat(SAID, model="slow")
    assert told <= {call.id for call in _records(tmp_path / "h", Call)}


def test_an_error_inside_the_block_still_closes(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), Client(tmp_path / "h", settings=OFF, providers=[Echo()]) as client:
        client.chat(SAID, model="echo")
        raise ZeroDivisionError
    assert len(_records(tmp_path / "h", Outcome)) == 1


def test_a_client_that_cannot_open_leaves_no_thread(tmp_path: Path) -> None:
    before = threading.active_count()
    with pytest.raises(SettingsError, match=r"server\.port"):
        Client(tmp_path / "h", settings={"server.port": 0})
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "ledger.db").write_bytes(b"this is not a database" * 100)
    with pytest.raises(LedgerError, match="not a database"):
        Client(tmp_path / "broken", settings=OFF)
    assert threading.active_count() <= before


def test_two_clients_may_share_a_folder(tmp_path: Path) -> None:
    with (
        Client(tmp_path / "h", settings=OFF, providers=[Echo()]) as one,
        Client(tmp_path / "h", settings=OFF, providers=[Echo()]) as other,
    ):
        calls = {one.chat(SAID, model="echo").call, other.chat(SAID, model="echo").call}
    assert {call.id for call in _records(tmp_path / "h", Call)} == calls


def test_with_keys_a_call_needs_one_and_belongs_to_its_tenant(tmp_path: Path) -> None:
    settings = OFF | {"keys": [KEY]}
    with Client(tmp_path / "h", settings=settings, providers=[Echo()]) as client, pytest.raises(AccessError):
        client.chat(SAID, model="echo")
    with Client(tmp_path / "h", key="wrong", settings=settings) as client, pytest.raises(AccessError):
        client.ask("Why?")
    with Client(tmp_path / "h", key="secret", settings=settings, providers=[Echo()]) as client:
        reply = client.chat(SAID, model="echo")
        client.feedback(reply.call, "praise")
        assert client.ask("Why does it turn?").answered is False
    assert {(record.tenant, record.workspace) for record in _records(tmp_path / "h", Call)} == {("acme", "one")}
    assert {(record.tenant, record.workspace) for record in _records(tmp_path / "h", Feedback)} == {("acme", "one")}


# --- typed


def test_what_a_user_writes_is_typed(tmp_path: Path) -> None:
    """`mypy --strict` finds nothing in a sound script and each mistake in another: no name is `Any` for them."""
    sound, wrong = tmp_path / "sound.py", tmp_path / "wrong.py"
    sound.write_text(SOUND, encoding="utf-8")
    wrong.write_text(WRONG, encoding="utf-8")
    checked = {script.stem: _checked(script) for script in (sound, wrong)}
    assert checked["sound"] == "Success: no issues found in 1 source file\n"
    mistakes = {number for number, line in enumerate(WRONG.splitlines(), start=1) if "# wrong" in line}
    found = {int(line.split(":")[1]) for line in checked["wrong"].splitlines() if ": error:" in line}
    assert found == mistakes, checked["wrong"]


def test_the_package_says_that_it_is_typed() -> None:
    assert importlib.resources.files("windlass").joinpath("py.typed").is_file()


def _checked(script: Path) -> str:
    """What mypy says of it without any configuration; its cache is kept, a cold run takes some 12 s."""
    cache = Path(__file__).parents[2] / ".mypy_cache" / "user"
    options = ["--strict", "--config-file=", f"--cache-dir={cache}"]
    ran = subprocess.run(
        [sys.executable, "-m", "mypy", *options, script.name],
        cwd=script.parent,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    return ran.stdout + ran.stderr


SOUND = """
import asyncio

import numpy as np
from numpy.typing import NDArray

from windlass import AsyncClient, Client, Embedded, Feedback, Reply, UpstreamError
from windlass.testing import Clock, Echo


def plain() -> str:
    with Client(providers=[Echo("echo", clock=Clock())], settings={"memory.embedder": "off"}) as client:
        reply: Reply = client.chat([{"role": "user", "content": "Hello"}], model="echo")
        said: Feedback = client.feedback(reply.call, "rating", value=1.0)
        trace = client.trace(reply.call)
        assert trace is not None and trace.outcome is not None
        return f"{reply.text} {said.id} {trace.outcome.cost_nusd} {len(client.calls(limit=5))}"


async def waiting() -> NDArray[np.float32]:
    async with AsyncClient(key="secret") as client:
        try:
            found: Embedded = await client.embed(["one", "two"])
        except UpstreamError as exc:
            print(exc.status)
            raise
        answer = await client.ask("Why?")
        print(answer.answered, client.models())
        return found.vectors


print(plain(), asyncio.run(waiting()).shape)
"""

WRONG = """
from windlass import AsyncClient, Client, nothing_of_the_kind  # wrong
from windlass.testing import Echo

with Client(providers=[Echo, Echo()]) as client:  # wrong
    client.chat("Hello")  # wrong
    client.feedback("call_1", "bribe")  # wrong
    client.embed([1, 2])  # wrong
    client.chat([]).txt  # wrong
    client.nothing()  # wrong


async def forgotten(client: AsyncClient) -> str:
    return client.chat([]).text  # wrong
"""
