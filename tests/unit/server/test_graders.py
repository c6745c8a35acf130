"""What one can ask about graders, by operation and by command."""

from __future__ import annotations

import asyncio
import json
import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog
from tests.golden.application import key, opened
from tests.unit.improve.grading.scene import Says, called, graded, grades, ready
from tests.unit.improve.grading.test_judge import JUDGE, scoring

from windlass.cli import main
from windlass.errors import AccessError, InputError
from windlass.gateway.access.admission import Caller
from windlass.gateway.feedback import FeedbackRequest
from windlass.records import Scope
from windlass.runtime import Runtime
from windlass.server import graderlist
from windlass.server.operations import OPERATIONS
from windlass.testing import Echo

OWNER = Caller(Scope(), "admin", "")
EXACT = {"options": {"match": "contains"}}


async def do(runtime: Runtime, operation: str, caller: Caller = OWNER, **arguments: Any) -> dict[str, Any]:
    return await OPERATIONS[operation](runtime, caller, arguments)


async def test_how_graders_stand(tmp_path: Path) -> None:
    judge = Says("judge", by=scoring(8), usd=1.0)
    async with opened(tmp_path, [Echo("a"), judge], graders__exact=EXACT, graders__judge=JUDGE) as runtime:
        ready(runtime)
        await called(runtime, "42", model="a", metadata={"expected": "42"})
        await graded(runtime)
        exact, judged = (await do(runtime, "graders"))["graders"]
        assert (exact["grader"], exact["needs_model"], exact["cost_nusd"], exact["given"]) == ("exact", False, 0, 1)
        assert (judged["grader"], judged["needs_model"], judged["cost_nusd"]) == ("judge", True, None)
        assert (judged["spent_today_nusd"], judged["daily_nusd"]) == (2_000_000, 1_000_000_000)
        assert exact["id"].startswith("exact@1+")


async def test_past_calls_are_graded_when_asked_for_page_by_page(tmp_path: Path) -> None:
    async with opened(tmp_path, [Echo("a")], graders__exact=EXACT) as runtime:
        for number in range(5):
            await called(runtime, f"n {number}", metadata={"expected": str(number % 2)})
        first = await do(runtime, "grade", limit=3)
        assert (first["calls"], len(first["given"])) == (3, 3)
        rest = await do(runtime, "grade", limit=3, before=first["before"])
        assert (rest["calls"], rest["before"]) == (2, "")
        assert len(grades(runtime, "exact")) == 5
        again = await do(runtime, "grade", limit=10)
        assert {one["why"] for one in again["given"]} == {"graded_before"}
        assert len(grades(runtime, "exact")) == 5


async def test_a_dry_run_keeps_nothing_and_answers_come_along(tmp_path: Path) -> None:
    async with opened(tmp_path, [Echo("a")], graders__exact=EXACT) as runtime:
        await called(runtime, "The capital is Paris")
        answers = [{"question": "the capital is paris", "expected": "Paris"}]
        dry = await do(runtime, "grade", answers=answers, dry=True)
        assert [(one["value"], one["new"]) for one in dry["given"]] == [(1.0, False)]
        assert grades(runtime, "exact") == []
        await do(runtime, "grade", answers=answers)
        assert [one.value for one in grades(runtime, "exact")] == [1.0]


@pytest.mark.parametrize(
    ("operation", "arguments"),
    [
        ("graders", {"x": 1}),
        ("grade", {"limit": 0}),
        ("grade", {"limit": 101}),
        ("grade", {"graders": ["nope"]}),
        ("grade", {"graders": "exact"}),
        ("grade", {"call": "call_nope"}),
        ("grade", {"call": "\x00"}),
        ("grade", {"before": "\x00"}),
        ("grade", {"answers": [{"question": "x"}]}),
        ("grade", {"since": "yesterday"}),
        ("agreement", {"graders": ["nope"]}),
    ],
)
async def test_arguments_that_make_no_sense(tmp_path: Path, operation: str, arguments: dict[str, Any]) -> None:
    async with opened(tmp_path, [Echo("a")], graders__exact=EXACT) as runtime:
        with pytest.raises(InputError):
            await do(runtime, operation, **arguments)


async def test_without_graders_the_remedy_is_named(tmp_path: Path) -> None:
    async with opened(tmp_path, [Echo("a")]) as runtime:
        assert (await do(runtime, "graders"))["graders"] == []
        for operation in ("grade", "agreement"):
            with pytest.raises(InputError, match=r"add one, such as \[graders.exact\]"):
                await do(runtime, operation)


async def test_a_tenant_grades_its_own_calls_alone_and_sees_no_counts_of_others(tmp_path: Path) -> None:
    keys = [key("mine", "acme"), key("look", "acme", role="viewer")]
    async with opened(tmp_path, [Echo("a")], graders__exact=EXACT, keys=keys) as runtime:
        mine, theirs = Scope("acme"), Scope("globex")
        own = await called(runtime, "42", scope=mine, metadata={"expected": "42"})
        other = await called(runtime, "42", scope=theirs, metadata={"expected": "42"})
        caller = Caller(mine, "operator", "mine")
        assert [one["call"] for one in (await do(runtime, "grade", caller))["given"]] == [own]
        with pytest.raises(InputError, match="there is no call"):
            await do(runtime, "grade", caller, call=other)
        (told,) = (await do(runtime, "graders", caller))["graders"]
        assert "given" not in told
        for operation in ("graders", "grade", "agreement"):
            with pytest.raises(AccessError, match="needs the role"):
                await do(runtime, operation, Caller(mine, "viewer", "look"))


async def test_agreement_is_told_with_what_it_lacks(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    async with opened(tmp_path, [Echo("a")], graders__exact=EXACT) as runtime:
        (nothing,) = (await do(runtime, "agreement"))["agreement"]
        assert nothing["raw"] is None
        for text, value in (("42", 1.0), ("41", 0.0), ("40", 1.0)):
            call = await called(runtime, text, metadata={"expected": "42"})
            await runtime.feedback(Scope(), FeedbackRequest(target=call, kind="rating", value=value))
        await do(runtime, "grade")
        answer = await do(runtime, "agreement")
        (one,) = answer["agreement"]
        assert (one["raw"]["n"], one["raw"]["accuracy"]) == (3, pytest.approx(2 / 3))
        assert (one["curve"], one["labels_wanted"], one["calibrates"]) == (None, 50, False)
        graderlist.show("agreement", answer, as_json=False)
        assert "0.67" in capsys.readouterr().out


# --- commands


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    for name in list(os.environ):
        if name.startswith("WINDLASS_"):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WINDLASS_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("WINDLASS_MEMORY__EMBEDDER", "off")
    yield tmp_path / "home"
    structlog.reset_defaults()
    logging.getLogger("dbos").handlers.clear()


def test_the_commands(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["graders", "list"]) == 0
    assert "No graders; [graders.<name>]" in capsys.readouterr().out

    async def fill() -> None:
        async with opened(home, [Echo("a")]) as runtime:
            for number in range(25):
                await called(runtime, f"it is {number}")

    asyncio.run(fill())
    Path("windlass.toml").write_text('[graders.exact]\noptions = {match = "contains"}\n')
    Path("known.jsonl").write_text(
        '{"question": "it is 3", "expected": "3"}\n{"question": "it is 4", "expected": "5"}\n'
    )
    assert main(["graders", "list"]) == 0
    assert "exact@1+" in capsys.readouterr().out
    assert main(["graders", "run", "--answers", "known.jsonl", "--dry"]) == 0
    shown = capsys.readouterr().out
    assert "25 calls looked at." in shown
    assert "0.500" in shown
    assert main(["graders", "run", "exact", "--answers", "known.jsonl", "--json"]) == 0
    values = [one["value"] for one in json.loads(capsys.readouterr().out)["given"]]
    assert sorted(value for value in values if value is not None) == [0.0, 1.0]
    assert main(["feedback", "--source", "qa", "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)["feedback"]) == 2
    assert main(["graders", "agreement"]) == 0
    assert "not measured" in capsys.readouterr().out


@pytest.mark.parametrize(
    "words",
    [
        ["run", "nope"],
        ["run", "--limit", "0"],
        ["run", "--answers", "missing.jsonl"],
        ["agreement", "nope"],
    ],
)
def test_a_command_that_cannot_work_says_why(home: Path, words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    Path("windlass.toml").write_text("[graders.exact]\n")
    assert main(["graders", *words]) == 2
    assert "error: " in capsys.readouterr().err


def test_a_grader_that_cannot_work_is_told_by_every_command(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("windlass.toml").write_text("[graders.judge]\ndaily_usd = 1.0\n")
    assert main(["graders", "list"]) == 2
    assert "graders.judge: grader judge: model is empty" in capsys.readouterr().err
