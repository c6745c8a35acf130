"""What is printed: for people without control characters, for programs as JSON."""

from __future__ import annotations

import io
import json
import sys
import time
from typing import Any

import pytest

from windlass.errors import InputError
from windlass.server import gatewaylist, keylist, terminal

QUOTE = {"text": "A pawl holds.", "speaker": "Guest", "cited": "[T 00:00:05]", "link": "https://x.example/a?t=5"}
ASKED: dict[str, Any] = {
    "question": "Why?",
    "answered": True,
    "quotes": [QUOTE],
    "model": "local/quotes-fast",
    "why": "fixed@1 p=1.000",
    "lexical_only": True,
    "latency_ms": 12.4,
    "cost_nusd": 0,
}
EVIL = "\x1b[2J\x1b]0;owned\x07\x9b31m\u202e[bold red]x[/bold red] [/] \\[link=file:///etc]y[/link]"


class Tty(io.StringIO):
    """A terminal that remembers."""

    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("nusd", "text"), [(0, "0 USD"), (1_000_000_000, "1 USD"), (1_234_567, "0.001234567 USD"), (18_000, "0.000018 USD")]
)
def test_money_is_shown_in_dollars(nusd: int, text: str) -> None:
    assert terminal.usd(nusd) == text


def test_time_is_shown_in_utc() -> None:
    assert terminal.when(1_700_000_000.9) == "2023-11-14 22:13:20"


def test_control_characters_do_not_reach_the_terminal() -> None:
    cleaned = terminal.clean(EVIL + "\n⚓ é")
    assert all(character.isprintable() or character == "\n" for character in cleaned)
    assert cleaned.endswith("\n⚓ é")


def test_an_answer_is_printed_with_quote_citation_link_and_why(capsys: pytest.CaptureFixture[str]) -> None:
    assert terminal.show("ask", ASKED, as_json=False) == 0
    said = capsys.readouterr().out
    assert "Q: Why?" in said
    assert "Guest: “A pawl holds.” [T 00:00:05]" in said
    assert "https://x.example/a?t=5" in said
    assert "decided: local/quotes-fast (fixed@1 p=1.000); took 12 ms, 0 USD, lexical only" in said


def test_nothing_in_memory_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    nothing = {**ASKED, "answered": False, "quotes": [], "model": "", "lexical_only": False, "dropped": 0}
    terminal.show("ask", nothing, as_json=False)
    said = capsys.readouterr().out
    assert "Not in memory." in said
    terminal.show("ask", {**nothing, "dropped": 2}, as_json=False)
    assert "none of its quotes could be verified" in capsys.readouterr().out
    assert "decided: fixed@1 p=1.000; took" in said


@pytest.mark.parametrize("tty", [False, True])
def test_no_text_steers_the_terminal_or_the_markup(monkeypatch: pytest.MonkeyPatch, tty: bool) -> None:
    out = Tty() if tty else io.StringIO()
    monkeypatch.setattr(sys, "stdout", out)
    quote = {"text": EVIL, "speaker": EVIL, "cited": EVIL, "link": EVIL}
    terminal.show_ask({**ASKED, "question": EVIL, "quotes": [quote], "model": EVIL, "why": EVIL})
    said = out.getvalue()
    assert "[bold red]x[/bold red]" in said, "markup of others is shown, not obeyed"
    for control in ("\x1b[2J", "\x1b]", "\x07", "\x9b", "\u202e"):
        assert control not in said


def _trace(**outcome: Any) -> dict[str, Any]:
    call = {"id": "call_1", "at": 1_700_000_000.0, "model": "auto"}
    feedback = [
        {"metric": "quality", "value": 0.5, "kind": "rating"},
        {"metric": "quality", "value": None, "kind": "praise"},
    ]
    return {"call": call, "decisions": [], "outcome": outcome or None, "feedback": feedback}


def test_calls_are_a_line_each(capsys: pytest.CaptureFixture[str]) -> None:
    whole = _trace(model="m", latency_ms=12.34, prompt_tokens=3, completion_tokens=4, cost_nusd=5_000_000, error=EVIL)
    terminal.show("calls", {"calls": [whole, _trace()]}, as_json=False)
    head, first, second = capsys.readouterr().out.splitlines()
    assert "answered by" in head
    for cell in ("2023-11-14 22:13:20", "call_1", "auto", "12.3", "3+4", "0.005 USD", "quality 0.5, praise"):
        assert cell in first
    assert "\x1b" not in first
    assert "no outcome" in second


WIDE = {
    "settings": {"providers": {"value": [{"usd": 1.8e-05}] * 90, "source": "windlass.toml"}},
    "models": ["m" * 3_000],
}


@pytest.mark.parametrize(
    ("operation", "answer"),
    [
        ("calls", {"calls": [_trace(), _trace(model="m" * 700, latency_ms=1.0, prompt_tokens=1, completion_tokens=1,
                                              cost_nusd=1, error="x")]}),
        ("doctor", {**WIDE, "findings": ["f" * 3_000]}),
        ("snapshots", {"snapshots": [{"snapshot": 1, "at": 0.0, "note": ""}, {"snapshot": 2, "at": 0.0, "note": "n"}]}),
    ],
)  # fmt: skip
def test_nothing_fills_up_the_lines_of_a_pipe(
    operation: str, answer: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    terminal.show(operation, answer, as_json=False)
    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines if line != line.rstrip()] == []
    if operation == "doctor":
        assert "setting    from           value" in lines, "the widest stands last"
        assert any("f" * 3_000 in line for line in lines), "what is no table is not wrapped"
        assert "e-05" not in "".join(lines)
        assert '"usd": 0.000018' in "".join(lines)


def test_no_amount_is_written_with_an_exponent(capsys: pytest.CaptureFixture[str]) -> None:
    amounts = {"measure": "usd", "most": 18_000, "used": 1, "held": 0, "left": 17_999}
    budget = {"name": "tiny", "window": "day", "of_key": "", "group": "", "per": "all", "about": {}, "forecast": None}
    gatewaylist.show("budgets", {"budgets": [{**budget, **amounts}], "refused": []}, as_json=False)
    limits = [{"usd": 1.8e-05, "window": "day"}, {"requests": 2_000_000, "window": "minute"}]
    key = {
        "name": "k",
        "shown": "wl-1",
        "state": "good",
        "role": "viewer",
        "workspaces": ["w"],
        "team": "",
        "limits": limits,
    }
    listed = {**key, "models": [], "endpoints": [], "created_at": 0.0, "expires_at": None}
    keylist.show("keys", {"keys": [listed]}, as_json=False)
    said = capsys.readouterr().out
    for words in (
        "0.000018 USD",
        "0.000000001 USD",
        "0.000017999 USD",
        "0.000018 USD a day; 2000000 requests a minute",
    ):
        assert words in said
    assert "e-0" not in said


def test_decisions_are_a_line_each(capsys: pytest.CaptureFixture[str]) -> None:
    made = {
        "at": 1_700_000_000.0, "point": "model", "action": "a", "propensity": 0.98765, "actions": ["a", "b"],
        "policy": "p@1", "live": True, "fallback": "ValueError: boom",
    }  # fmt: skip
    terminal.show("decisions", {"decisions": [made, {**made, "live": False}]}, as_json=False)
    _, first, second = capsys.readouterr().out.splitlines()
    for cell in ("model", "0.988", "a, b", "p@1", "live", "ValueError: boom"):
        assert cell in first
    assert "shadow" in second


@pytest.mark.parametrize(
    ("operation", "said"), [("calls", "No calls yet; `windlass ask`"), ("decisions", "No decisions yet; every call")]
)
def test_empty_lists_say_what_makes_them_fuller(operation: str, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert terminal.show(operation, {operation: []}, as_json=False) == 0
    assert said in capsys.readouterr().out


@pytest.mark.parametrize(("found", "said"), [([], "Nothing fits as far"), ([_trace()], "Nothing else fits as far")])
def test_a_search_that_stopped_short_says_how_it_goes_on(
    found: list[Any], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    terminal.show("calls", {"calls": found, "further": f"call_7{EVIL}"}, as_json=False)
    shown = capsys.readouterr().out
    assert said in shown
    assert "--before call_7" in shown
    assert "No calls yet" not in shown
    assert "\x1b" not in shown


def test_the_doctor_tells_settings_findings_and_the_replay(capsys: pytest.CaptureFixture[str]) -> None:
    report: dict[str, Any] = {"settings": {"server.port": {"value": 8321, "source": "default"}}, "findings": []}
    report["models"] = ["small", f"large {EVIL}"]
    assert terminal.show("doctor", report, as_json=False) == 0
    said = capsys.readouterr().out
    assert "All is well." in said
    assert "models that a call may name: auto, small, large" in said
    assert "`windlass doctor --replay` rebuilds every policy" in said, "who does not know of it never runs it"
    equal = {"cursor": 7, "live": "a" * 64, "rebuilt": "b" * 64, "equal": True}
    terminal.show("doctor", {**report, "replay": equal}, as_json=False)
    assert "replay up to entry 7: equal, bit for bit (bbbbbbbbbbbbbbbb)" in capsys.readouterr().out
    broken = {**report, "findings": [f"broken {EVIL}"], "replay": {**equal, "equal": False}}
    assert terminal.show("doctor", broken, as_json=False) == 1
    said = capsys.readouterr().out
    assert "DIFFERENT" in said
    assert "finding: broken" in said
    assert "\x1b" not in said


def test_programs_get_one_json_document(capsys: pytest.CaptureFixture[str]) -> None:
    assert terminal.show("doctor", {"findings": ["f"], "é": "⚓"}, as_json=True) == 1
    assert json.loads(capsys.readouterr().out) == {"findings": ["f"], "é": "⚓"}


def test_an_error_goes_to_stderr_or_becomes_json(capsys: pytest.CaptureFixture[str]) -> None:
    terminal.fail(InputError("no [such] file\x1b[2J"), as_json=False)
    written = capsys.readouterr()
    assert written.out == ""
    assert "error: no [such] file" in written.err
    assert "\x1b" not in written.err
    terminal.fail(InputError("no file"), as_json=True)
    assert json.loads(capsys.readouterr().out) == {"error": {"message": "no file", "category": "input_invalid"}}


def test_plain_lines_are_as_clean_as_tables(capsys: pytest.CaptureFixture[str]) -> None:
    terminal.say(EVIL)
    terminal.note(f"{EVIL} :anchor:")
    said, noted = capsys.readouterr()
    assert "[bold red]x[/bold red] [/] \\[link=file:///etc]y[/link]" in said
    assert ":anchor:" in noted
    assert not {"\x1b", "\x07", "\x9b", "\u202e"} & {*said, *noted}


def test_a_remark_that_nobody_can_read_is_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    class Full(io.StringIO):
        def write(self, text: str) -> int:
            raise OSError(28, f"no space left for {text}")

    monkeypatch.setattr(sys, "stderr", Full())
    terminal.note("stopped")
    monkeypatch.setattr(sys, "stdout", Full())
    with pytest.raises(OSError, match="no space"):
        terminal.say("what was asked for is not dropped")


def test_half_a_surrogate_pair_is_still_json(capsys: pytest.CaptureFixture[str]) -> None:
    """A file name that is no UTF-8 comes with one; stdout cannot encode it as it is."""
    terminal.fail(InputError("caf\udce9.md does not exist"), as_json=True)
    assert "does not exist" in json.loads(capsys.readouterr().out)["error"]["message"]


def test_without_a_terminal_a_stage_is_a_line_once_it_is_done(capsys: pytest.CaptureFixture[str]) -> None:
    steps = terminal.Steps(quiet=False)
    for stage, done, total in (("text", 0, 2), ("text", 1, 2), ("text", 2, 2), ("text", 2, 2), ("empty", 0, 0)):
        steps.at(stage, done, total)
    steps.at("vectors", 5, 4)
    steps.close()
    assert capsys.readouterr().err.splitlines() == ["text: 2 of 2", "vectors: 5 of 4"]


def test_quiet_is_silent(capsys: pytest.CaptureFixture[str]) -> None:
    steps = terminal.Steps(quiet=True)
    steps.at("text", 2, 2)
    steps.close()
    assert capsys.readouterr() == ("", "")


def test_on_a_terminal_there_is_a_bar_that_leaves_nothing_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    err = Tty()
    monkeypatch.setattr(sys, "stderr", err)
    steps = terminal.Steps(quiet=False)
    for done in range(3):
        steps.at("text index", done, 2)
    steps.at("vectors", 0, 4)
    steps.close()
    assert "text index" in err.getvalue()
    assert steps._bar is not None
    assert steps._bar.finished is False
    assert not steps._bar.live.is_started


def test_a_snapshot_has_a_time_that_stays_and_one_that_tells(capsys: pytest.CaptureFixture[str]) -> None:
    kept = {"snapshot": 20, "at": time.time() - 200.0, "note": "base"}
    terminal.show("snapshots", {"snapshots": [kept]}, as_json=False)
    head, row = capsys.readouterr().out.splitlines()
    assert "when (UTC)" in head
    assert terminal.when(kept["at"]) in row
    assert "3 min" in row


def test_what_was_named_stands_apart_from_what_a_policy_chose(capsys: pytest.CaptureFixture[str]) -> None:
    action = {"action": "small", "chosen": 7, "share": 1.0, "reward": 0.25}
    decider = {"policy": "p@1", "live": True, "actions": [{**action, "chosen": 3}]}
    point = {"point": "model", "mode": "live", "policy": "p@1", "deciders": [decider], "named": [action]}
    terminal.show("points", {"points": [{**point, "standing": {"told": ""}}]}, as_json=False)
    _, chosen, named = capsys.readouterr().out.splitlines()
    assert "p@1" in chosen
    assert "3" in chosen
    assert named.split() == ["model", "live", "by", "name", "small", "7", "0.250"]
