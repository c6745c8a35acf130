"""What the settings ask for: own patterns, plugins, Presidio where it is installed; and what the ledger keeps by it."""

from __future__ import annotations

import logging
import threading
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec
import pytest
from structlog.testing import capture_logs

from windlass.errors import SettingsError
from windlass.gateway import presidio, redaction
from windlass.gateway.redaction import RedactionOptions, make
from windlass.ledger import sql
from windlass.ledger.db import Database
from windlass.ledger.ledger import ALL, Body
from windlass.ledger.sql import SqlLedger
from windlass.records import Feedback
from windlass.settings import load
from windlass.stats.personal import Span
from windlass.stats.redaction import Redaction


def _plugged(monkeypatch: pytest.MonkeyPatch, made: Any) -> None:
    plugin = redaction.plugins.Plugin("mine", made, "mine 1.0")
    monkeypatch.setattr(redaction.plugins, "load", lambda group, name: plugin if name == "mine" else None)


def _made(**options: Any) -> Redaction:
    made = make(msgspec.convert(options, RedactionOptions))
    assert made is not None
    return made


def test_it_is_on_unless_it_is_switched_off() -> None:
    assert load(environ={}).redaction == RedactionOptions()
    assert _made().text("alice@example.org") == "[email]"
    assert make(load(environ={"WINDLASS_REDACTION__ENABLED": "false"}).redaction) is None


def test_own_patterns_have_their_own_labels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    toml = "[redaction]\nfind = ['email']\n[redaction.patterns]\nemployee = 'EMP-\\d{6}'\n"
    (tmp_path / "windlass.toml").write_text(toml)
    made = make(load(environ={}).redaction)
    assert made is not None
    assert made.text("EMP-123456 alice@example.org +49 30 901820") == "[employee] [email] +49 30 901820"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"patterns": {"a": "(a+)+b"}}, r"patterns.a: .*too long"),
        ({"patterns": {"a": "("}}, "no regular expression"),
        ({"patterns": {"A b": "x"}}, "matching regex"),
        ({"find": ["names"]}, "Invalid enum value 'names'"),
        ({"options": {"presidio": {}}}, "options.presidio: no such recogniser is used"),
        ({"enable": True}, "unknown field `enable`"),
    ],
)
def test_settings_that_make_no_sense_are_refused(options: dict[str, Any], words: str) -> None:
    with pytest.raises(msgspec.ValidationError, match=words):
        msgspec.convert(options, RedactionOptions)


def test_a_plugin_is_called_with_its_options_and_finds_more(monkeypatch: pytest.MonkeyPatch) -> None:
    _plugged(
        monkeypatch, lambda options: lambda text: [(text.index(w), text.index(w) + 5, "name") for w in options["of"]]
    )
    made = _made(recognisers=("mine",), options={"mine": {"of": ["Alice"]}})
    assert made.slow
    assert made.text("Alice, alice@example.org") == "[name], [email]"


@pytest.mark.parametrize(
    "answer",
    [
        lambda text: 1 / 0,
        lambda text: [(0, 99, "x")],
        lambda text: [(0, 2, "<b>")],
        lambda text: [(2, 1, "x")],
        lambda text: 7,
    ],
)
def test_a_recogniser_that_fails_costs_the_text_and_not_the_call(monkeypatch: pytest.MonkeyPatch, answer: Any) -> None:
    _plugged(monkeypatch, lambda options: answer)
    with capture_logs() as logs:
        assert _made(recognisers=("mine",)).text("Alice was here") == "[unread]"
    assert [line["recogniser"] for line in logs] == ["mine"]


@pytest.mark.parametrize(
    ("made", "words"), [(lambda options: 1 / 0, "ZeroDivisionError"), (lambda options: 7, "it made 7")]
)
def test_a_plugin_that_is_none_is_named_at_the_start(monkeypatch: pytest.MonkeyPatch, made: Any, words: str) -> None:
    _plugged(monkeypatch, made)
    with pytest.raises(SettingsError, match=f"'mine' of mine 1.0, is not accepted: {words}"):
        _made(recognisers=("mine",))
    with pytest.raises(SettingsError, match="unknown 'other'; known: presidio"):
        _made(recognisers=("other",))


def test_presidio_says_what_it_lacks(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SettingsError, match=r"redaction.options.presidio: .*unknown field `modell`"):
        _made(recognisers=("presidio",), options={"presidio": {"modell": "x"}})
    monkeypatch.setattr(presidio, "find_spec", lambda name: None)
    with pytest.raises(SettingsError, match=r"pip install windlass\[redaction\]"):
        _made(recognisers=("presidio",))


def test_log_lines_lose_what_is_personal() -> None:
    assert redaction.log_line(None, "warning", "refused alice@example.org") == "refused [email]"
    record = logging.LogRecord("x", logging.ERROR, "x.py", 1, "lost %s", ("alice@example.org",), None)
    assert redaction.RedactedFormatter().format(record) == "lost [email]"


def _body(data: bytes) -> Body:
    return Body(
        id="call_1-request", at=1.0, tenant="t", workspace="w", call="call_1", role="request", data=data, expires_at=9.0
    )


@pytest.mark.parametrize(
    ("slow", "filling", "off"), [(False, 0, False), (True, 0, True), (False, sql.LARGE_BYTES, True)]
)
async def test_the_ledger_keeps_only_what_is_left(tmp_path: Path, slow: bool, filling: int, off: bool) -> None:
    seen: list[bool] = []

    def nothing(text: str) -> list[Span]:
        seen.append(threading.current_thread() is threading.main_thread())
        return []

    db = Database(tmp_path / "ledger.db")
    db.migrate()
    said = Feedback(
        id="feedback_1",
        at=1.0,
        tenant="t",
        workspace="w",
        target="call_1",
        kind="praise",
        source="user",
        comment="ask bob@example.org",
    )
    with closing(db), closing(SqlLedger(db, redaction=Redaction(recognisers=[nothing], slow=slow))) as ledger:
        sent = b'{"a": "alice@example.org%s"}' % (b" " * filling)
        await ledger.append(_body(sent), said)
        (kept,) = ledger.bodies(ALL, "call_1")
        assert kept.data == sent.replace(b"alice@example.org", b"[email]")
        assert [one.comment for one in ledger.feedback(ALL)] == ["ask [email]"]
        assert set(seen) == {not off}
        ledger.append_now(msgspec.structs.replace(said, id="feedback_2"))
        ledger.post(msgspec.structs.replace(said, id="feedback_3"))
        await ledger.append()
        assert {one.comment for one in ledger.feedback(ALL)} == {"ask [email]"}
