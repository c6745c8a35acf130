"""The commands' flows, in this process and through a server of the folder; and what their logs may say."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog
from tests.golden.application import Client, chat, inline_ingest, key, opened, settings

from windlass.errors import FolderBusy, InputError, WorkflowError
from windlass.records import Scope
from windlass.server import peer, session
from windlass.server.app import Windlass
from windlass.server.serve import in_loop
from windlass.testing import Echo

DATA = Path(__file__).parents[2] / "data" / "transcripts"


@pytest.fixture(autouse=True)
def _logging() -> Iterator[None]:
    """The commands and their engine configure logging for the whole process; other tests want theirs."""
    yield
    structlog.reset_defaults()
    logging.getLogger("dbos").handlers.clear()


class Fake(peer.Peer):
    """A running server of the folder that answers as told and keeps what it was asked."""

    def __init__(self, answers: Callable[[str, dict[str, Any]], dict[str, Any]]):
        super().__init__("http://127.0.0.1:8321", "t")
        self.asked: list[tuple[str, dict[str, Any]]] = []
        self._answers = answers

    def operate(self, name: str, arguments: dict[str, Any]) -> dict[str, Any]:
        self.asked.append((name, arguments))
        return self._answers(name, arguments)


@pytest.fixture
def serving(monkeypatch: pytest.MonkeyPatch) -> Callable[[Fake], Fake]:
    """Let a server run on every folder."""

    def serve(fake: Fake) -> Fake:
        monkeypatch.setattr(peer, "find", lambda _home: fake)
        return fake

    return serve


def _progress(**state: Any) -> dict[str, Any]:
    done = {
        "status": "done",
        "vectors_status": "done",
        "text": 1,
        "analysis": 1,
        "items": 1,
        "failed": [],
        "chunks": 4,
        "vectors": 4,
    }
    return done | state


# --- one operation


def test_an_operation_is_done_in_process_without_a_server(tmp_path: Path) -> None:
    assert session.operate(settings(tmp_path), "calls", {"limit": 5}) == {"calls": []}


def test_an_operation_is_handed_to_the_folders_server(tmp_path: Path, serving: Callable[[Fake], Fake]) -> None:
    fake = serving(Fake(lambda _name, _arguments: {"calls": ["theirs"]}))
    assert session.operate(settings(tmp_path), "calls", {"limit": 5}) == {"calls": ["theirs"]}
    assert fake.asked == [("calls", {"limit": 5})]
    assert not (tmp_path / "ledger.db").exists()


# --- ingest through a server


def test_files_are_handed_over_by_their_full_names(
    tmp_path: Path, serving: Callable[[Fake], Fake], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(DATA)
    states = [
        _progress(status="running", text=0, analysis=0, vectors_status="unknown"),
        _progress(vectors=2, vectors_status="running"),
    ]

    def answers(name: str, _arguments: dict[str, Any]) -> dict[str, Any]:
        if name == "ingest":
            return {"run": "run_1", "items": ["item_1"], "names": ["sample.md"]}
        return states.pop(0) if states else _progress()

    fake = serving(Fake(answers))
    assert session.ingest(settings(tmp_path), ["sample.md"], wait=True, as_json=False) == 0
    assert fake.asked[0] == ("ingest", {"paths": [str(DATA / "sample.md")]})
    assert fake.asked[-1] == ("progress", {"run": "run_1"})
    written = capsys.readouterr()
    assert "memory holds 1 items (4 passages, 4 vectors)" in written.out
    assert written.err.splitlines() == ["text index: 1 of 1", "chapters and key quotes: 1 of 1", "vectors: 4 of 4"]


def test_without_waiting_the_vectors_are_left(tmp_path: Path, serving: Callable[[Fake], Fake]) -> None:
    def answers(name: str, _arguments: dict[str, Any]) -> dict[str, Any]:
        if name == "ingest":
            return {"run": "run_1", "items": ["item_1"], "names": ["sample.md"]}
        return _progress(vectors_status="waiting", vectors=0)

    fake = serving(Fake(answers))
    assert session.ingest(settings(tmp_path), [str(DATA)], wait=False, as_json=True) == 0
    assert len(fake.asked) == 2


def test_what_was_not_taken_in_is_named_and_fails_the_command(
    tmp_path: Path, serving: Callable[[Fake], Fake], capsys: pytest.CaptureFixture[str]
) -> None:
    failed = [{"item": "item_1", "step": "text", "error": "transcript_unreadable", "message": "no words\x1b[2J"}]

    def answers(name: str, _arguments: dict[str, Any]) -> dict[str, Any]:
        if name == "ingest":
            return {"run": "run_1", "items": ["item_1"], "names": ["bad.md"]}
        return _progress(failed=failed, items=0, chunks=0, vectors=0, analysis=0, vectors_status="unknown")

    serving(Fake(answers))
    assert session.ingest(settings(tmp_path), [str(DATA)], wait=True, as_json=False) == 1
    written = capsys.readouterr()
    assert "0 taken in" in written.out
    assert "not taken in: bad.md: no words" in written.err
    assert session.ingest(settings(tmp_path), [str(DATA)], wait=True, as_json=True) == 1
    report = json.loads(capsys.readouterr().out)
    assert report["failed"] == [{**failed[0], "name": "bad.md"}]


@pytest.mark.parametrize("broken", [{"status": "broken"}, {"vectors_status": "broken"}])
def test_a_run_that_broke_is_an_error(tmp_path: Path, serving: Callable[[Fake], Fake], broken: dict[str, str]) -> None:
    def answers(name: str, _arguments: dict[str, Any]) -> dict[str, Any]:
        return {"run": "run_1", "items": ["i"], "names": ["n"]} if name == "ingest" else _progress(**broken)

    serving(Fake(answers))
    with pytest.raises(WorkflowError, match="run run_1 broke; ingest again"):
        session.ingest(settings(tmp_path), [str(DATA)], wait=True, as_json=True)


def test_a_missing_file_is_said_before_any_server_is_asked(tmp_path: Path, serving: Callable[[Fake], Fake]) -> None:
    fake = serving(Fake(lambda _name, _arguments: {}))
    with pytest.raises(InputError, match="does not exist"):
        session.ingest(settings(tmp_path), [str(tmp_path / "none")], wait=True, as_json=True)
    assert fake.asked == []


# --- serving


def test_a_folder_has_one_server(tmp_path: Path, serving: Callable[[Fake], Fake]) -> None:
    serving(Fake(lambda _name, _arguments: {}))
    commands: list[Callable[[], int]] = [
        lambda: session.up(settings(tmp_path), dashboard=True, as_json=False),
        lambda: session.run(settings(tmp_path), paths=(), questions=(), stay=False, dashboard=False, as_json=True),
    ]
    for command in commands:
        with pytest.raises(FolderBusy, match=r"already runs on .*: http://127\.0\.0\.1:8321"):
            command()


@pytest.mark.parametrize(("as_json", "dashboard"), [(False, True), (False, False), (True, True)])
def test_up_says_where_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], as_json: bool, dashboard: bool
) -> None:
    seen: list[bool] = []

    async def serve(_runtime: Any, *, dashboard: bool, ready: Callable[[str], None]) -> None:
        seen.append(dashboard)
        ready("http://127.0.0.1:8399")

    monkeypatch.setattr(session, "serve", serve)
    assert session.up(settings(tmp_path), dashboard=dashboard, as_json=as_json) == 0
    said = capsys.readouterr().out
    assert seen == [dashboard]
    assert "http://127.0.0.1:8399/v1" in said
    if as_json:
        assert json.loads(said)["url"] == "http://127.0.0.1:8399"
    else:
        assert ("dashboard http://127.0.0.1:8399/" in said) is dashboard


def test_the_end_of_a_server_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    async def serve(_runtime: Any, *, dashboard: bool, ready: Callable[[str], None]) -> None:
        ready("http://127.0.0.1:8399")  # a signal ends the real one like this: it returns

    monkeypatch.setattr(session, "serve", serve)
    assert session.up(settings(tmp_path), dashboard=False, as_json=False) == 0
    assert "stopped" in capsys.readouterr().err


def test_an_interrupt_before_the_answers_is_no_success(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Exit code 130 of the command line: what was asked for was not done."""

    async def interrupted(*_args: Any) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(session, "_main_job", interrupted)
    with pytest.raises(KeyboardInterrupt):
        session.run(settings(tmp_path), paths=(), questions=(), stay=False, dashboard=False, as_json=True)


# --- the main job, on the real engine


def test_the_main_job_takes_in_answers_and_tells(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Two starts of the real engine: the packaged corpus as JSON, a folder with a bad file as text."""
    asked: dict[str, Any] = {"paths": (), "questions": (), "stay": False, "dashboard": False}
    assert session.run(settings(tmp_path / "one"), **asked, as_json=True) == 0
    summary = json.loads(capsys.readouterr().out)
    assert len(summary["ingest"]["items"]) == 4
    assert summary["ingest"]["failed"] == []
    assert [answer["answered"] for answer in summary["answers"]] == [True, True]
    assert all(answer["quotes"][0]["cited"].startswith("[") for answer in summary["answers"])
    assert {decision["point"] for decision in summary["decisions"]} == {"answer", "model"}
    assert summary["took_s"] > 0

    talks = tmp_path / "talks"
    talks.mkdir()
    (talks / "good.md").write_bytes((DATA / "sample.md").read_bytes())
    (talks / "bad.md").write_bytes(b"")
    questions = ("What is filled with tallow, so that sand or shells stick to it?",)
    wanted = asked | {"paths": (str(talks),), "questions": questions}
    assert session.run(settings(tmp_path / "two"), **wanted, as_json=False) == 1
    written = capsys.readouterr()
    assert "[Sounding: how deep is the water? 00:00:37]" in written.out
    assert "Decided on the way:" in written.out
    assert "1 answers, cost 0 USD" in written.out
    assert "not taken in: bad.md" in written.err


async def test_questions_of_a_corpus_come_from_its_own_headings(tmp_path: Path) -> None:
    async with opened(tmp_path) as runtime:
        ingest, _ = inline_ingest(runtime)
        (tmp_path / "plain.txt").write_text("Nobody gave this text a heading of any kind.")
        files = [DATA / "sample.md", tmp_path / "plain.txt"]
        talk, plain = (await asyncio.to_thread(ingest.submit, Scope(), files)).items
        assert session._own_questions(runtime, [talk], packaged=False) == (
            "What is said about Reading the bottom?",
            "What is said about Fathoms?",
        )
        assert session._own_questions(runtime, [plain], packaged=True)[0] == "Why does a windlass turn only one way?"
        with pytest.raises(InputError, match="no section headings"):
            session._own_questions(runtime, [plain], packaged=False)


# --- logs


def test_the_log_of_a_failed_call_holds_neither_keys_nor_prompts_and_is_quick(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A traceback with local variables would print both, and take seconds of the event loop for every failed call."""
    took_s: list[float] = []

    async def failing() -> None:
        async with opened(tmp_path, [Echo(failing=("echo",))], keys=[key("acme", "acme")]) as runtime:
            client = Client(Windlass(runtime, token="folder-token"), bearer="secret-acme")
            started = time.process_time()
            for _ in range(3):
                response = await client.post("/v1/chat/completions", chat("the private prompt"))
                assert response.status == 502
            took_s.append(time.process_time() - started)

    in_loop(failing())
    written = capsys.readouterr()
    said = written.out + written.err
    assert "request_failed" in said
    for secret in ("secret-acme", "the private prompt", "folder-token"):
        assert secret not in said
    assert took_s[0] < 1.0


def test_decided_on_the_way_are_the_decisions_of_these_answers() -> None:
    """Not those of an earlier run, where an answer abstained and made one decision fewer; all those in shadow too."""
    made = {"d5": "", "d4": "call_2", "d3": "answer_2", "d2": "call_2", "d1": "call_1"}
    newest = [{"id": name, "call": call} for name, call in made.items()]
    answers = [{"id": "answer_2", "call": "call_2"}, {"id": "answer_3", "call": ""}]
    assert [one["id"] for one in session._of(answers, {"decisions": newest})] == ["d4", "d3", "d2"]
