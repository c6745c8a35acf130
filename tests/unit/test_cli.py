"""The command line: exit codes, JSON, and that no mistake of anybody's ends in a traceback."""

from __future__ import annotations

import asyncio
import io
import json
import logging
import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import structlog
from tests.golden.application import inline_ingest, key, opened

from windlass.cli import main
from windlass.errors import InputError, LedgerError, WindlassError
from windlass.ledger.folder import own
from windlass.records import Scope
from windlass.server import session
from windlass.server.peer import Peer

DATA = Path(__file__).parents[1] / "data" / "transcripts"
QUESTION = "What is filled with tallow, so that sand or shells stick to it?"


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder of this test's own, without the embedder, and no settings of the developer's."""
    for name in list(os.environ):
        if name.startswith("WINDLASS_"):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WINDLASS_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("WINDLASS_MEMORY__EMBEDDER", "off")
    yield tmp_path / "home"
    structlog.reset_defaults()
    logging.getLogger("dbos").handlers.clear()


@pytest.fixture(scope="module")
def filled_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one transcript in memory and one call in the ledger."""
    once = tmp_path_factory.mktemp("once") / "home"

    async def fill() -> None:
        async with opened(once) as runtime:
            ingest, _ = inline_ingest(runtime)
            await asyncio.to_thread(ingest.submit, Scope(), [DATA / "sample.md"])
            assert (await runtime.ask.ask(QUESTION, Scope())).answered

    asyncio.run(fill())
    return once


@pytest.fixture
def filled(home: Path, filled_once: Path) -> Path:
    """A copy of it."""
    shutil.copytree(filled_once, home)
    return home


def _code(*arguments: str) -> int:
    """The exit code, whether it is returned or, by argparse, raised."""
    try:
        return main(arguments)
    except SystemExit as ended:
        return int(ended.code or 0)


# --- help and wrong usage


@pytest.mark.parametrize("command", ["up", "run", "ingest", "ask", "calls", "decisions", "doctor"])
def test_every_command_has_help_with_an_example_and_json(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert _code(command, "--help") == 0
    said = capsys.readouterr().out
    assert f"example: windlass {command}" in said
    assert "--json" in said


def test_the_program_has_help_and_a_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert _code("--help") == 0
    assert "example: windlass ingest" in capsys.readouterr().out
    assert _code("--version") == 0
    assert capsys.readouterr().out.startswith("windlass 0.")


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("nope",),
        ("ask",),
        ("ingest",),
        ("ask", ""),
        ("ask", "   "),
        ("ask", "x" * 5_000),
        ("calls", "--limit", "0"),
        ("calls", "--limit", "1001"),
        ("calls", "--limit", "many"),
        ("calls", "--nope"),
        ("ingest", "/does/not/exist"),
        ("ingest", "x" * 300),
        ("ingest", "/dev/zero"),
        ("up", "--port", "0"),
        ("up", "--port", "99999"),
        ("up", "--port", "http"),
        ("up", "--host", "0.0.0.0"),
        ("run", "/does/not/exist", "--exit"),
    ],
)
def test_wrong_usage_is_two(arguments: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    assert _code(*arguments) == 2
    written = capsys.readouterr()
    assert written.err
    assert "Traceback" not in written.err + written.out


@pytest.mark.parametrize(
    "arguments", [("ask", ""), ("calls", "--limit", "0"), ("ingest", "/none"), ("up", "--port", "0")]
)
def test_with_json_an_error_is_json(arguments: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    assert _code(*arguments, "--json") == 2
    error = json.loads(capsys.readouterr().out)["error"]
    assert error["message"]
    assert error["category"]


@pytest.mark.parametrize("arguments", [(), ("nope",), ("ask",), ("calls", "--limit", "many"), ("doctor", "--nope")])
def test_with_json_wrong_usage_is_json_too(arguments: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    """What the parser refuses, before any command runs."""
    assert _code(*arguments, "--json") == 2
    said = capsys.readouterr()
    error = json.loads(said.out)["error"]
    assert (bool(error["message"]), error["category"], said.err) == (True, "input_invalid", "")
    assert _code(*arguments) == 2
    said = capsys.readouterr()
    assert (said.out, said.err.startswith("usage: windlass")) == ("", True)
    assert error["message"] in said.err


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[server]\nport = 'x'", "server.port"),
        ("[nope]\nx = 1", "nope"),
        ("[", "not valid TOML"),
        ("[points.model]\npolicy = 'nope'", "unknown policy"),
    ],
)
def test_a_mistake_in_the_settings_is_two(
    tmp_path: Path, text: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "windlass.toml").write_text(text)
    assert _code("calls") == 2
    assert said in capsys.readouterr().err


BROKEN = {
    "[": "not valid TOML",
    "[server]\nport = 'x'\n[limitz]\nx = 1\n[[providers]]\nname = 'up'\n"
    "base_url = 'http://127.0.0.1:1/v1'\napi_key_env = 'UP_KEY'\nmodels = [{name = 'm'}]\n": "unknown setting 'limitz'",
    "[[providers]]\nname = 'up'\nkind = 'nobodys'\nmodels = []\n": "unknown kind 'nobodys'",
    "[points.model]\npolicy = 'nope'\n": "unknown policy",
    "server = 5\n": "server",
}


@pytest.mark.parametrize(("text", "said"), BROKEN.items())
@pytest.mark.parametrize("replay", [(), ("--replay",)])
def test_the_doctor_goes_on_with_settings_that_cannot_work(
    home: Path, text: str, said: str, replay: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    home.mkdir(mode=0o755)
    home.chmod(0o755)
    (home / "ledger.db").write_bytes(b"")
    before = sorted(home.iterdir())
    Path("windlass.toml").write_text(text)
    assert _code("doctor", "--json", *replay) == 1
    report = json.loads(capsys.readouterr().out)
    refused = next(finding for finding in report["findings"] if finding.startswith("the settings are refused"))
    assert said in refused
    assert any("is open to others on this machine" in finding for finding in report["findings"])
    assert any("nothing was replayed" in finding for finding in report["findings"]) == bool(replay)
    assert any("UP_KEY is not set" in finding for finding in report["findings"]) == ("UP_KEY" in text)
    assert report["settings"]["home"] == {"value": str(home), "source": "environment"}
    assert (sorted(home.iterdir()), (home / "ledger.db").read_bytes()) == (before, b""), (
        "no ledger is opened on a guess"
    )
    assert _code("doctor") == 1
    assert "finding:" in capsys.readouterr().out


READING = [
    ("calls",),
    ("decisions",),
    ("points",),
    ("feedback",),
    ("providers",),
    ("budgets",),
    ("prices",),
    ("keys", "list"),
    ("policy", "snapshots"),
    ("audit", "list"),
    ("audit", "verify"),
    ("metrics",),
    ("reload",),
]


@pytest.mark.parametrize("arguments", READING)
def test_other_commands_end_with_two_and_name_the_remedy(
    home: Path, arguments: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    Path("windlass.toml").write_text("[server]\nport = 'x'\n")
    assert _code(*arguments) == 2
    said = capsys.readouterr()
    assert (said.out, "server.port" in said.err, "`windlass doctor`" in said.err) == ("", True, True)
    assert not home.exists()
    assert _code(*arguments, "--json") == 2
    error = json.loads(capsys.readouterr().out)["error"]
    assert (error["category"], "server.port" in error["message"]) == ("settings_invalid", True)


def test_a_mistake_on_the_command_line_is_not_for_the_doctor(capsys: pytest.CaptureFixture[str]) -> None:
    assert _code("up", "--port", "0") == 2
    assert "doctor" not in capsys.readouterr().err


@pytest.mark.parametrize("text", ["[", "[server]\nport = 'x'\n", "nope = 1\n", ""])
def test_a_reload_leaves_the_reading_to_the_server(
    home: Path, text: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[tuple[Path, str]] = []

    class Running(Peer):
        """The server of a folder, which reads the settings itself and refuses them."""

        def operate(self, name: str, arguments: dict[str, Any]) -> dict[str, Any]:
            asked.append((home, name))
            raise InputError("as the server reads them; the settings in force stay as they were")

    monkeypatch.setattr(session.peer, "find", lambda where: Running("http://x", "") if where == home else None)
    Path("windlass.toml").write_text(text)
    assert _code("reload") == 2
    assert asked == [(home, "reload")]
    assert "as the server reads them" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments", [("ask", "caf\udce9"), ("ingest", "caf\udce9.md"), ("ask", "x", "--model", "\udce9")]
)
@pytest.mark.parametrize("as_json", [(), ("--json",)])
def test_bytes_that_are_no_text_are_taken_or_refused(
    filled: Path, arguments: tuple[str, ...], as_json: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    """The shell hands over whatever bytes there are; Python makes half surrogate pairs of them."""
    assert _code(*arguments, *as_json) in (0, 1, 2)
    said = capsys.readouterr().out
    assert not as_json or json.loads(said)


def test_a_question_of_odd_bytes_that_memory_answers(filled: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert _code("ask", f"{QUESTION} \udce9", "--json") in (0, 2)
    assert json.loads(capsys.readouterr().out)


# --- what the commands do


def test_an_empty_folder_has_no_calls_and_answers_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    assert _code("calls") == 0
    assert "No calls yet" in capsys.readouterr().out
    assert _code("decisions", "--json") == 0
    assert json.loads(capsys.readouterr().out) == {"decisions": []}
    assert _code("ask", "Why does a windlass turn only one way?") == 0
    assert "Not in memory." in capsys.readouterr().out


def test_a_question_is_answered_with_a_cited_quote(filled: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert _code("ask", QUESTION) == 0
    assert "[Sounding: how deep is the water? 00:00:37]" in capsys.readouterr().out
    assert _code("ask", QUESTION, "--json", "--model", "local/quotes-fast") == 0
    answer = json.loads(capsys.readouterr().out)
    assert (answer["answered"], answer["model"]) == (True, "local/quotes-fast")


def test_the_calls_and_decisions_are_listed(filled: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert _code("calls", "--json") == 0
    (trace,) = json.loads(capsys.readouterr().out)["calls"]
    assert trace["outcome"]["model"] == "local/quotes-fast"
    assert _code("decisions", "--limit", "2", "--json") == 0
    found = json.loads(capsys.readouterr().out)["decisions"]
    assert {decision["point"] for decision in found} == {"answer", "model"}
    for command in ("calls", "decisions"):
        assert _code(command) == 0
        assert "local/quotes-fast" in capsys.readouterr().out


def test_the_doctor_replays(filled: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert _code("doctor", "--replay", "--json") == 0
    report = json.loads(capsys.readouterr().out)
    assert report["replay"]["equal"] is True
    assert report["settings"]["memory.embedder"] == {"value": "off", "source": "environment"}
    assert _code("doctor") == 0
    assert "All is well." in capsys.readouterr().out


def test_the_doctor_fails_on_a_finding(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "windlass.toml").write_text(
        '[[providers]]\nname = "up"\nbase_url = "http://127.0.0.1:1/v1"\napi_key_env = "UP_KEY"\n'
        'models = [{name = "m"}]\n'
    )
    assert _code("doctor") == 1
    assert "UP_KEY is not set" in capsys.readouterr().out


def test_an_unknown_model_is_one(filled: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert _code("ask", QUESTION, "--model", "nope") == 1
    assert "known models" in capsys.readouterr().err
    assert _code("ask", QUESTION, "--model", "nope", "--json") == 1
    assert json.loads(capsys.readouterr().out)["error"]["category"] == "model_unknown"


def test_with_keys_the_owner_of_the_folder_still_asks(
    filled: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    known = key("k", "acme")
    (tmp_path / "windlass.toml").write_text(f'[[keys]]\nname = "k"\nsha256 = "{known["sha256"]}"\ntenant = "acme"\n')
    assert _code("ask", QUESTION) == 0
    assert "[Sounding: how deep is the water? 00:00:37]" in capsys.readouterr().out


# --- flags that reach the session


@pytest.fixture
def called(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What the session is told, instead of doing it."""
    told: dict[str, Any] = {}

    def taking(name: str) -> Any:
        def take(settings: Any, *args: Any, **named: Any) -> int:
            told.update(
                {"flow": name, "port": settings.server.port, "host": settings.server.host, "args": args}, **named
            )
            return 0

        return take

    for name in ("up", "run", "ingest"):
        monkeypatch.setattr(session, name, taking(name))
    return told


def test_up_takes_its_flags(called: dict[str, Any]) -> None:
    assert _code("up", "--port", "8400", "--host", "localhost", "--no-dashboard", "--json") == 0
    assert (called["flow"], called["port"], called["host"]) == ("up", 8400, "localhost")
    assert (called["dashboard"], called["as_json"]) == (False, True)


def test_run_takes_its_flags(called: dict[str, Any]) -> None:
    assert _code("run", "talks", "more", "-q", "Why?", "--question", "How?", "--exit") == 0
    assert (called["paths"], called["questions"]) == (["talks", "more"], ["Why?", "How?"])
    assert (called["stay"], called["dashboard"], called["as_json"]) == (False, True, False)


def test_ingest_takes_its_flags(called: dict[str, Any]) -> None:
    assert _code("ingest", "talks", "--no-wait") == 0
    assert (called["args"], called["wait"], called["as_json"]) == ((["talks"],), False, False)


# --- ends


@pytest.mark.parametrize(
    ("raised", "code"), [(KeyboardInterrupt(), 130), (LedgerError("disk full"), 1), (WindlassError("x"), 1)]
)
def test_however_it_ends_there_is_a_code(
    monkeypatch: pytest.MonkeyPatch, raised: BaseException, code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    def operate(*_args: Any) -> Any:
        raise raised

    monkeypatch.setattr(session, "operate", operate)
    assert _code("calls") == code
    assert capsys.readouterr().err.strip() in ("interrupted", "error: disk full", "error: x")


def test_an_interrupted_run_is_not_a_success(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make, and whoever waits for the answers, must see that there are none."""

    async def interrupted(*_args: Any) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(session, "_main_job", interrupted)
    assert _code("run", "--exit") == 130


def test_a_reader_that_goes_away_is_no_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    """`windlass calls | head -1`."""

    def operate(*_args: Any) -> Any:
        raise BrokenPipeError

    monkeypatch.setattr(session, "operate", operate)
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    assert _code("calls") == 1


@pytest.mark.parametrize(
    "arguments", [("calls",), ("doctor", "--json"), ("ask", "Why?"), ("ingest", str(DATA)), ("up",)]
)
def test_a_home_that_is_a_file_is_said(
    home: Path, arguments: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    home.write_text("I am a file")
    assert _code(*arguments) in (1, 2)
    written = capsys.readouterr()
    assert str(home) in written.err + written.out


def test_a_home_that_cannot_be_made_is_said(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("WINDLASS_HOME", "/proc/windlass")
    for arguments in (("calls",), ("ingest", str(DATA))):
        assert _code(*arguments) in (1, 2)
        assert "/proc/windlass" in capsys.readouterr().err


def test_a_folder_that_may_only_be_read_is_said(filled: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Root may write everywhere, so the refusal of the file system is played."""
    mkdir, opens = Path.mkdir, os.open

    def refused(path: Path, *args: Any, **named: Any) -> None:
        if path.is_relative_to(filled):
            raise PermissionError(13, "Permission denied", str(path))
        mkdir(path, *args, **named)

    def refused_open(path: Any, flags: int, *args: Any, **named: Any) -> int:
        if str(path).startswith(str(filled)) and flags & (os.O_CREAT | os.O_RDWR | os.O_WRONLY):
            raise PermissionError(13, "Permission denied", str(path))
        return opens(path, flags, *args, **named)

    monkeypatch.setattr(Path, "mkdir", refused)
    monkeypatch.setattr(os, "open", refused_open)
    assert _code("calls") in (0, 1, 2)
    assert _code("ingest", str(DATA)) in (1, 2)


def test_a_corrupted_ledger_is_said(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    home.mkdir()
    (home / "ledger.db").write_bytes(b"this is no database " * 100)
    assert _code("calls") == 1
    assert "not a database" in capsys.readouterr().err
    assert _code("calls", "--json") == 1
    assert json.loads(capsys.readouterr().out)["error"]["category"] == "database_corrupt"


@pytest.mark.parametrize("url", ["nonsense", "nope://x/y", "sqlite:////proc/none/ledger.db"])
def test_a_database_that_cannot_be_is_said(
    monkeypatch: pytest.MonkeyPatch, url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("WINDLASS_STORAGE__DATABASE_URL", url)
    assert _code("calls") in (1, 2)
    assert "error" in capsys.readouterr().err


@pytest.mark.parametrize("left", ["{}", '{"url": "http://127.0.0.1:1", "token": "t", "pid": 1}', "\x00"])
def test_the_file_of_a_killed_server_is_passed_over(
    filled: Path, left: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (filled / "server.json").write_text(left)
    assert _code("calls", "--json") == 0
    assert len(json.loads(capsys.readouterr().out)["calls"]) == 1


def test_a_folder_that_another_process_works_on_is_said(filled: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lock = own(filled)
    try:
        assert _code("ingest", str(DATA)) == 1
        assert "another windlass process works on" in capsys.readouterr().err
        assert _code("calls") == 0, "looking needs no lock"
    finally:
        os.close(lock)


# --- where the output goes


def _shell(line: str) -> subprocess.CompletedProcess[str]:
    """`line` in a shell, `$W` being the program."""
    program = {"W": f"{sys.executable} -m windlass"}
    return subprocess.run(
        ["/bin/sh", "-c", line], env={**os.environ, **program}, capture_output=True, text=True, timeout=60, check=False
    )


@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-", "<&- >&- 2>&-"])
@pytest.mark.parametrize("command", ["calls", "calls --json", "doctor", "ask 'Why a pawl?'"])
def test_closed_streams_end_nothing(filled: Path, closed: str, command: str) -> None:
    done = _shell(f"$W {command} {closed}")
    assert done.returncode == 0
    assert "Traceback" not in done.stderr
    assert "Exception" not in done.stderr
    with closing(sqlite3.connect(filled / "ledger.db")) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


def test_closed_streams_keep_the_exit_code_of_a_mistake(filled: Path) -> None:
    assert _shell("$W calls --limit many 2>&-").returncode == 2
    assert _shell("$W calls --limit 0 --json >&-").returncode == 2


@pytest.mark.parametrize("command", ["calls", "calls --json"])
def test_output_that_cannot_be_written_is_an_error(filled: Path, command: str) -> None:
    done = _shell(f"$W {command} >/dev/full")
    assert done.returncode == 1
    assert "the output or a file cannot be written: [Errno 28]" in done.stderr
    assert "Traceback" not in done.stderr
    assert "Exception" not in done.stderr


# --- keys


def test_a_key_is_printed_once_alone_and_never_again(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asked = ("--models", "gpt-5*, local/*", "--budget-usd", "10", "--window", "day", "--rpm", "60", "--expires", "30d")
    assert _code("keys", "create", "ann", "--tenant", "acme", "--workspaces", "a,b", *asked) == 0
    said = capsys.readouterr()
    plain = said.out.strip()
    assert said.out == f"{plain}\n"
    assert plain.startswith("wl-")
    assert "never shown again" in said.err
    assert plain not in said.err
    assert _code("keys", "list", "--tenant", "acme") == 0
    listed = capsys.readouterr().out
    assert all(word in listed for word in ("ann", plain[:8], "a, b", "gpt-5*, local/*", "10 USD a day", "60 requests"))
    assert plain[:12] not in listed
    assert _code("keys", "list", "--tenant", "acme", "--json") == 0
    (key,) = json.loads(capsys.readouterr().out)["keys"]
    assert key["models"] == ["gpt-5*", "local/*"]
    assert key["limits"][0] == {"name": "budget of the key", "per": "key", "window": "day", "usd": 10.0}
    assert _code("keys", "list") == 0
    assert "No keys yet" in capsys.readouterr().out, "those of another tenant are not shown unless named"


def test_a_key_is_rotated_and_revoked(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert _code("keys", "create", "ann", "--json") == 0
    first = json.loads(capsys.readouterr().out)
    assert first["first"] is True
    assert _code("keys", "rotate", "ann", "--grace", "1h") == 0
    said = capsys.readouterr()
    assert said.out.strip() != first["api_key"]
    assert "is good until" in said.err
    assert _code("keys", "revoke", "ann") == 0
    assert "lets nobody in any more" in capsys.readouterr().out
    assert _code("keys", "revoke", "ann") == 2


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("nope",),
        ("create",),
        ("create", ""),
        ("create", "a b"),
        ("create", "\x1b[31m"),
        ("create", "a", "--role", "god"),
        ("create", "a", "--budget-usd", "nan"),
        ("create", "a", "--budget-usd", "inf"),
        ("create", "a", "--budget-usd", "-1"),
        ("create", "a", "--rpm", "-1"),
        ("create", "a", "--window", "year"),
        ("create", "a", "--window", "day"),
        ("create", "a", "--budget-usd", "1e-10"),
        ("create", "a", "--expires", "soon"),
        ("create", "a", "--workspaces", ","),
        ("create", "a", "--endpoints", "chatt"),
        ("create", "a", "--tenant", "../x"),
        ("rotate", "nobody"),
        ("rotate", "nobody", "--grace", "-1h"),
        ("revoke", "nobody"),
    ],
)
def test_wrong_usage_of_keys_is_two(home: Path, arguments: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    assert _code("keys", *arguments) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err
    assert "Traceback" not in said.err
    assert "\x1b" not in said.err


@pytest.mark.parametrize("what", ["list", "create", "rotate", "revoke"])
def test_every_command_of_keys_has_help_with_an_example(what: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert _code("keys", what, "--help") == 0
    said = capsys.readouterr().out
    assert f"example: windlass keys {what}" in said
    assert "--json" in said
