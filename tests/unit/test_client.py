"""`windlass.Client`: the call path in process, from any thread, without a server."""

from __future__ import annotations

import gc
import hashlib
import threading
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from windlass import AccessError, Client, InputError, ModelUnknown, RequestError, SettingsError, UpstreamError
from windlass.errors import LedgerError, WindlassError
from windlass.ledger.db import Database
from windlass.ledger.ledger import ALL
from windlass.ledger.sql import SqlLedger
from windlass.records import Call, Feedback, Outcome
from windlass.testing import Echo

SAID = [{"role": "user", "content": "ahoy"}]
OFF: dict[str, Any] = {"memory.embedder": "off"}
KEY = {"name": "k", "sha256": hashlib.sha256(b"secret").hexdigest(), "tenant": "acme", "workspaces": ["one"]}


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WINDLASS_HOME", str(tmp_path / "home"))


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    providers = [Echo("echo", "bad", failing=("bad",))]
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
