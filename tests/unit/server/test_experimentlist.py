"""What `windlass experiment` prints, and the exit codes that programs go by."""

from __future__ import annotations

import doctest
import json
import time
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.unit.improve.experiments.seen import ALARM, EVIL, seen

from windlass.errors import InputError
from windlass.improve.experiments.planning import ExtraView, SizeView, TrialForecast
from windlass.improve.experiments.view import ExperimentView
from windlass.server import experimentlist, session
from windlass.settings import Settings


def _answer(view: ExperimentView) -> dict[str, Any]:
    """An answer of `experiment`."""
    step = {"at": 1_800_000_000.0, "told": "experiment shorter begins", "by": "key:ann", "reason": EVIL, "id": "d"}
    plan = {"ramp_after": 100, "name": view.name, "point": view.point}
    return {"experiment": msgspec.to_builtins(view), "plan": plan, "history": [step]}


@pytest.fixture
def answers(monkeypatch: pytest.MonkeyPatch) -> list[ExperimentView]:
    """What a server answers, one after the other, and the last one again and again."""
    coming: list[ExperimentView] = []

    def operate(_settings: Settings, operation: str, _asked: Any) -> dict[str, Any]:
        assert operation == "experiment"
        return _answer(coming.pop(0) if len(coming) > 1 else coming[0])

    monkeypatch.setattr(session, "operate", operate)
    monkeypatch.setattr(time, "sleep", lambda _seconds: None)
    return coming


def test_an_experiment_is_shown_with_all_that_people_decide_by(capsys: pytest.CaptureFixture[str]) -> None:
    view = seen(hypothesis=EVIL)
    assert experimentlist.show("experiment", _answer(view), as_json=False) == 0
    shown = capsys.readouterr().out
    for wanted in (view.sentence, "+1.2 to +5.0 points", "always small", "512 against 498", "0.00456 USD", "key:ann"):
        assert wanted in shown, wanted
    assert "\x1b" not in shown
    assert "\u202e" not in shown, "no text steers the terminal"
    assert experimentlist.show("experiment", _answer(view), as_json=True) == 0
    assert json.loads(capsys.readouterr().out)["experiment"]["name"] == "shorter"


def test_what_is_withheld_has_an_exit_code_of_its_own() -> None:
    for as_json in (False, True):
        assert experimentlist.show("experiment", _answer(seen(withheld=True)), as_json=as_json) == 3


def test_the_list_has_a_line_for_each_or_says_how_to_begin(capsys: pytest.CaptureFixture[str]) -> None:
    views = [seen(), seen(name="other", state="shipped", shipped="b")]
    answer = {"experiments": [msgspec.to_builtins(view) for view in views]}
    assert experimentlist.show("experiments", answer, as_json=False) == 0
    head, first, second = capsys.readouterr().out.splitlines()
    assert "stands" in head
    assert "running" in first
    assert "2 of 2" in first
    assert "shipped b" in second
    experimentlist.show("experiments", {"experiments": []}, as_json=False)
    assert "windlass experiment new" in capsys.readouterr().out


def test_a_step_is_told_with_what_it_made_of_the_experiment(capsys: pytest.CaptureFixture[str]) -> None:
    view = seen(sentence="Nothing is decided yet.")
    answer = {"told": "model: experiment shorter begins", "decision": {"id": "decision_1"}}
    assert experimentlist.show("experiment_start", answer | _answer(view), as_json=False) == 0
    shown = capsys.readouterr().out
    assert "model: experiment shorter begins; recorded as decision_1" in shown
    assert "Nothing is decided yet." in shown


def _forecast(**changes: Any) -> dict[str, Any]:
    found = TrialForecast(
        metric="quality", unit="points", seen=800, seen_days=2.0, units=750, per_day=375.0, mean=0.8, deviation=0.3,
        power=0.8, size=1_000, detectable=3.9, days=12.0, ramp_days=2.0,
        sizes=(SizeView(1.0, 15_000, 161.0), SizeView(5.0, 620, 8.5)),
        extra=(ExtraView("a", 4_000.0, 0.0), ExtraView("b", 4_000.0, -1.5), ExtraView("c", None, None)), missing="",
    )  # fmt: skip
    plan = {"name": "shorter", "point": "model"}
    return {"forecast": msgspec.to_builtins(msgspec.structs.replace(found, **changes)), "plan": plan}


def test_a_forecast_says_what_is_found_when_and_at_what_cost(capsys: pytest.CaptureFixture[str]) -> None:
    assert experimentlist.show("experiment_plan", _forecast(), as_json=False) == 0
    shown = capsys.readouterr().out
    for wanted in ("find 3.9 points", "80 %", "12 days", "15,000", "161 days", "b is expected to cost 1.5 USD less"):
        assert wanted in shown, wanted
    nothing: dict[str, Any] = {"units": 0, "deviation": None, "detectable": None, "days": None, "sizes": ()}
    silent = _forecast(**nothing, missing="no call that was decided at the point model is known")
    for as_json in (False, True):
        assert experimentlist.show("experiment_plan", silent, as_json=as_json) == 3
    assert "! no call" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("views", "code"),
    [
        ([seen(decision="open"), seen(decision="open"), seen(decision="better", leader="b")], 0),
        ([seen(decision="open"), seen(decision="open", state="shipped", shipped="b")], 0),
        ([seen(decision="worse", leader="b")], 3),
        ([seen(decision="undecided")], 3),
        ([seen(decision="harmful", state="alarmed", alarm=ALARM)], 3),
        ([seen(decision="open", state="stopped")], 3),
        ([seen(decision="better", leader="b", withheld=True)], 3),
    ],
)
def test_a_watch_ends_when_it_is_decided(answers: list[ExperimentView], views: list[ExperimentView], code: int) -> None:
    answers += views
    assert experimentlist.watch(Settings(), {"name": "shorter"}, 60.0, 1.0, as_json=True) == code
    assert answers == views[-1:]


def test_a_watch_that_is_in_vain_says_so(answers: list[ExperimentView], capsys: pytest.CaptureFixture[str]) -> None:
    answers.append(seen(decision="open", stage=0, deciding=False))
    assert experimentlist.watch(Settings(), {"name": "shorter"}, 0.0, 1.0, as_json=False) == 3
    said = capsys.readouterr()
    assert "shorter is not decided after 0 s" in said.err
    assert "stage 1 of 2" in said.out


def test_a_report_is_written_as_its_name_ends(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    answer = _answer(seen(hypothesis=EVIL))
    assert experimentlist.report(answer, None, as_json=False) == 0
    assert "# Experiment shorter" in capsys.readouterr().out
    assert experimentlist.report(answer, tmp_path / "one.md", as_json=False) == 0
    assert (tmp_path / "one.md").read_text().startswith("# Experiment shorter")
    assert experimentlist.report(answer, tmp_path / "one.html", as_json=True) == 0
    page = (tmp_path / "one.html").read_text()
    assert "<svg" in page
    assert "<script" not in page
    assert experimentlist.report(_answer(seen(withheld=True)), tmp_path / "one.md", as_json=False) == 3
    for name in ("one.pdf", "one", "no such folder/one.md"):
        with pytest.raises(InputError):
            experimentlist.report(answer, tmp_path / name, as_json=False)
    assert {file.name for file in tmp_path.iterdir()} == {"one.md", "one.html"}


def test_the_examples_in_the_words_hold() -> None:
    assert doctest.testmod(experimentlist).failed == 0
