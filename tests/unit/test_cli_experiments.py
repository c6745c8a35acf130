"""`windlass experiment` and who decides at a point, on the command line: files, exit codes, and words for people."""

from __future__ import annotations

import asyncio
import io
import json
import sys
from pathlib import Path

import pytest
from tests.golden.application import Client, opened
from tests.unit.server.trying import POINT, called

from windlass.cli import main
from windlass.server.app import Windlass
from windlass.testing import Echo

SETTINGS = """
[memory]
embedder = "off"
[points.model]
mode = "live"
policy = "fixed"
options = { action = "a" }
randomised_share = 0.0
shadows = [{ name = "bold", policy = "fixed", options = { action = "b" } }]
"""
PLAN = """
name: bolder
variants:
  as-usual: {usual: true}
  bold: {shadow: bold}
size: 10
ramp: [1.0]
guardrails: {error: 0.02}
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with settings and a plan, and a state of its own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WINDLASS_HOME", str(tmp_path / "home"))
    (tmp_path / "windlass.toml").write_text(SETTINGS)
    (tmp_path / "plan.yaml").write_text(PLAN)
    return tmp_path


def _code(*arguments: str) -> int:
    """The exit code, whether it is returned or, by argparse, raised."""
    try:
        return main(("experiment", *arguments))
    except SystemExit as ended:
        return int(ended.code or 0)


def _calls(folder: Path) -> None:
    """Sixty calls that are rated by the model that answered."""

    async def calls() -> None:
        async with opened(folder / "home", [Echo("a", "b")], **POINT) as runtime:
            words = [f"question {number}" for number in range(60)]
            await called(Client(Windlass(runtime)), words, {"a": 0.1, "b": 0.9})

    asyncio.run(calls())


def test_an_experiment_from_the_first_word_to_the_last(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert _code("list") == 0
    assert "windlass experiment new" in capsys.readouterr().out
    assert _code("plan", "plan.yaml") == 3, "there are no calls to go by"
    assert "! no call" in capsys.readouterr().out
    assert _code("start", "plan.yaml", "--reason", "it looked well") == 0
    assert "model: experiment bolder begins" in capsys.readouterr().out
    assert _code("start", "plan.yaml", "--json") == 3
    error = json.loads(capsys.readouterr().out)["error"]
    assert (error["category"], "under way" in error["message"]) == ("request_conflict", True)
    assert _code("ship", "bolder") == 3
    assert _code("watch", "bolder", "--timeout", "0") == 3
    _calls(folder)
    assert _code("watch", "bolder", "--timeout", "30") == 0
    capsys.readouterr()
    assert _code("report", "bolder", "--out", "bolder.md") == 0
    assert "bold is better by" in (folder / "bolder.md").read_text()
    assert _code("ship", "bolder", "--reason", "proven") == 0
    assert "everybody gets bold" in capsys.readouterr().out
    assert _code("ship", "bolder") == 3, "nothing happens twice"
    assert _code("show", "bolder", "--json") == 0
    shown = json.loads(capsys.readouterr().out)
    assert (shown["experiment"]["state"], shown["history"][0]["reason"]) == ("shipped", "proven")
    assert _code("list", "--state", "shipped") == 0
    assert "shipped bold" in capsys.readouterr().out
    assert main(["points", "--point", "model"]) == 0
    assert "now at model: the policy in shadow bold decides" in capsys.readouterr().out
    assert main(["policy", "promote", "model", "settings", "--reason", "back"]) == 0
    assert "model: its own policy decides again" in capsys.readouterr().out


def test_a_plan_is_begun_from_the_one_that_is_printed(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _code("new") == 0
    printed = capsys.readouterr().out
    assert _code("new", "mine.yaml") == 0
    assert (folder / "mine.yaml").read_text() == printed
    assert _code("new", "mine.yaml") == 2, "what is there is left as it is"
    capsys.readouterr()
    assert _code("new", "--json") == 0
    assert json.loads(capsys.readouterr().out)["plan"] == printed
    monkeypatch.setattr(sys, "stdin", io.StringIO(PLAN))
    assert _code("start", "-") == 0
    assert _code("stop", "bolder", "--reason", "no time") == 0
    assert "is stopped" in capsys.readouterr().out


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("start",),
        ("start", "nothing.yaml"),
        ("start", "/dev/null"),
        ("plan", "nothing.yaml"),
        ("plan", "plan.yaml", "--newest", "0"),
        ("plan", "plan.yaml", "--power", "1.5"),
        ("plan", "plan.yaml", "--power", "nan"),
        ("show", "none"),
        ("watch", "none", "--timeout", "-1"),
        ("watch", "none", "--timeout", "nan"),
        ("watch", "none", "--every", "0"),
        ("report", "none", "--out", "x.pdf"),
        ("advance", "none", "--stage", "x"),
        ("ship", "none", "--force"),
        ("list", "--limit", "0"),
        ("list", "--state", "sideways"),
        ("new", "no such folder/plan.yaml"),
    ],
)
def test_wrong_usage_is_said_and_does_nothing(folder: Path, arguments: tuple[str, ...]) -> None:
    assert _code(*arguments) == 2
    assert {one.name for one in folder.iterdir()} <= {"windlass.toml", "plan.yaml", "home"}


def test_who_decides_is_said_on_the_command_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["policy", "promote", "model", "bold", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["told"] == "model: the policy in shadow bold decides"
    assert main(["policy", "promote", "model", "nope"]) == 2
    assert "it has bold" in capsys.readouterr().err
    assert main(["policy", "always", "model", "no such model"]) == 2
    assert main(["policy", "always", "answer", "abstain", "--reason", "closed today"]) == 0
    assert "answer: always abstain" in capsys.readouterr().out
