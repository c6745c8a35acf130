"""The page of the router: what it shows of models, money and policies, and that it says in words what there is not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.golden.application import chat
from tests.unit.server.clustered import routed
from tests.unit.server.dashboard.visitor import Page, called, folded, visiting

from windlass.errors import PolicyError
from windlass.gateway.feedback import FeedbackRequest
from windlass.gateway.gateway import Request
from windlass.gateway.options import ModelOptions
from windlass.gateway.providers.echo import Echo
from windlass.policies.floor import FloorReport
from windlass.policies.score import Score
from windlass.records import Decision, Scope
from windlass.runtime import Runtime
from windlass.server import frontier
from windlass.server.dashboard import pacing, scatter
from windlass.server.dashboard import routing as routing_page
from windlass.server.dashboard.against import against
from windlass.server.dashboard.deciding import verdict
from windlass.server.frontier import Frontier, Standpoint

JOINT: dict[str, Any] = {
    "model": {
        "policy": "joint_thompson",
        "shadows": [{"name": "linear", "policy": "linear_thompson"}],
        "guards": [{"guard": "floor", "options": {"reference": "dear", "share_of_reference": 90.0}}],
    }
}
LIMITS = [{"name": "daily", "usd": 5.0, "window": "day"}]


def _priced() -> Echo:
    echo = Echo()
    echo.models = tuple(
        ModelOptions(name=name, prompt_usd_per_million=usd, completion_usd_per_million=usd)
        for name, usd in (("cheap", 10.0), ("dear", 100.0))
    )
    return echo


async def _earned(runtime: Runtime, calls: int) -> list[str]:
    """So many calls for `auto` with feedback that likes `cheap`."""
    made = []
    for number in range(calls):
        body = msgspec.json.encode(chat(f"question {number}", "auto"))
        answer = await runtime.gateway.complete(Request(body))
        async for _ in answer.chunks:
            pass
        call = answer.transit.call.id
        value = 0.9 if answer.transit.decisions[0].action == "cheap" else 0.4
        await runtime.feedback(Scope(), FeedbackRequest(target=call, kind="rating", value=value))
        made.append(call)
    await runtime.caught_up()
    await folded(runtime)
    return made


def _sound(page: Page) -> None:
    """Ids are unique, and every drawing is named and told."""
    ids = [named["id"] for _, named in page.tags if "id" in named]
    assert len(ids) == len(set(ids))
    drawings = [named for name, named in page.tags if name == "svg" and "role" in named]
    assert all({one["aria-labelledby"], one["aria-describedby"]} <= set(ids) for one in drawings)
    assert not [named for _, named in page.tags if "style" in named]


async def test_without_any_call_it_says_what_there_is_not(tmp_path: Path) -> None:
    async with visiting(tmp_path) as (visitor, _):
        page = await visitor.get("/routing")
    assert page.status == 200
    for words in (
        "No call has left the choice of its model open in the last 24 hours",
        "Nothing has been chosen yet, so nothing is believed",
        "No model has answered and earned a reward",
        "No budget has been spent from",
        "Nothing has been chosen yet, so nothing is said of what quality may cost",
        "No floor is set",
        "No reward is known yet, so no policy can be compared",
    ):
        assert words in page.text
    _sound(page)


async def test_models_money_and_policies_are_shown(tmp_path: Path) -> None:
    given = {"points": JOINT, "limits": LIMITS}
    async with visiting(tmp_path, providers=(_priced(),), **given) as (visitor, runtime):
        calls = await _earned(runtime, 20)
        await runtime.clusters.of(Scope())  # a page waits for them no longer than 0.2 s
        page = await visitor.get("/routing?range=7d")
        found = frontier.frontier(runtime, Scope())
    assert page.status == 200
    assert "Share of each model by hour" in page.text
    assert "joint_thompson@1" in page.text
    assert "linear shadow" in page.text
    assert "90 % of dear" in page.text
    assert "Cost expected" in page.text
    assert "Cost does not count now: the best quality is taken." in page.text
    assert "Nothing is tested yet" in page.text
    assert "before the first" in page.text
    assert "reference dear" in page.text
    assert "Left of daily" in page.text
    assert "The live policy earned" in page.text
    assert calls[-1] in page.body
    assert "Regret of live" in page.text
    assert "0 of the newest 20 choices hold the numbers of their prompt" in page.text
    _sound(page)
    assert {one.name for one in found.models} <= {"cheap", "dear"}
    assert found.live is not None
    assert found.live.calls == 20
    by_name = {one.name: one for one in found.models}
    assert by_name["cheap"].on_hull


async def test_one_call_is_explained(tmp_path: Path) -> None:
    async with visiting(tmp_path, providers=(_priced(),), points=JOINT) as (visitor, runtime):
        calls = await _earned(runtime, 3)
        page = await visitor.get(f"/routing?call={calls[0]}")
        none = await visitor.get("/routing?call=call_none")
        hostile = await visitor.get("/routing?call=%3Cscript%3E%00")
    assert "joint_thompson@1 chose" in page.text
    assert "predicted quality" in page.text
    assert "There is no call 'call_none' here" in none.text
    assert hostile.status == 200
    assert "<script>\x00" not in hostile.body
    _sound(page)


async def test_clusters_of_prompts_are_named_and_counted(tmp_path: Path) -> None:
    async with visiting(tmp_path, providers=(_priced(),), points=JOINT) as (visitor, runtime):
        await routed(runtime, 80)
        await runtime.clusters.of(Scope())
        page = await visitor.get("/routing")
        again = await visitor.get("/routing", **{"x-windlass-partial": "1"})
    assert "Clusters of prompts" in page.text
    assert page.text.count("20 calls, 25 % of all; 0.000026 USD a call") == 4
    assert "winch number" in page.text
    assert "<b>?" not in page.body
    assert "\x1b" not in page.body
    assert "0.200 ± 0.000" in page.text
    assert "What paces it" in page.text
    assert "0.01 of quality may cost 0.001 USD more a call now" in page.text
    assert again.status == 200
    _sound(page)


def _decided(at: float, why: object, **context: float) -> Decision:
    given = {"call": "call_1", "point": "model", "policy": "p@1", "actions": ("a", "b"), "action": "a"}
    return Decision(id="decision_1", at=at, propensity=0.5, live=True, extra={"why": why}, context={**context}, **given)


def test_what_paced_each_choice_is_read_from_what_it_said() -> None:
    told = "a 0.90 +- 0.10 at 1.2e-05 USD; 0.01 of quality may cost "
    shown = pacing.paces(
        [
            _decided(5.0, f"{told}0.00011 USD; floor leaves 2 of 3", allowance_nusd=2_000_000.0),
            _decided(4.0, f"{told}1e-07 USD"),
            _decided(3.0, "a 0.90 +- 0.10 at 0.3 USD"),
            _decided(2.0, "floor: audited share of 5.0%"),
            _decided(1.0, f"{told}0 USD"),
            _decided(0.5, 7),
        ]
    )
    assert [one.at for one in shown] == [1.0, 3.0, 4.0, 5.0]
    assert [one.quality_per_usd for one in shown] == pytest.approx([0.0, 0.0, 1e5, 0.01 / 0.00011])
    assert [one.allowance for one in shown] == ["", "", "", "0.002 USD"]
    drawn = str(pacing.drawing("x", shown))
    assert "nan" not in drawn
    assert "100,000 at the top of the scale" in drawn
    assert [str(pacing.drawing("x", few)) for few in ((), shown[:1], [shown[0]] * 2)] == [""] * 3
    flat = str(pacing.drawing("x", [shown[0], shown[1]]))
    assert "nan" not in flat


def test_regret_is_what_live_lost_over_its_choices() -> None:
    live = Score(
        policy="a@1", shadow="", live=True, decisions=50, matched=50, value=0.5, half_width=0.01, mean_weight=1
    )
    better = msgspec.structs.replace(live, shadow="b", live=False, matched=20, value=0.7, half_width=0.02)
    unknown = msgspec.structs.replace(better, shadow="c", value=None, half_width=None)
    one = msgspec.structs.replace(better, shadow="d", half_width=None)
    found = against((live, better, unknown, one))
    assert [(each.gain, each.regret, each.doubt) for each in found] == [
        (None, None, None),
        (pytest.approx(0.2), pytest.approx(10.0), pytest.approx(1.5)),
        (None, None, None),
        (pytest.approx(0.2), pytest.approx(10.0), None),
    ]
    assert against((better,))[0].gain is None
    assert against(()) == []


def test_a_default_of_an_hour_is_not_what_others_are_compared_with() -> None:
    default = Score(
        policy="default@1", shadow="", live=True, decisions=5, matched=5, value=0.33, half_width=0.2, mean_weight=1
    )
    live = msgspec.structs.replace(default, policy="joint_thompson@1", decisions=1_138, value=0.75, half_width=0.03)
    shadow = msgspec.structs.replace(live, shadow="linear", live=False, matched=400, value=0.81, half_width=0.12)
    found = against((default, live, shadow))
    assert found[-1].gain == pytest.approx(0.06)
    assert verdict((default, live, shadow)).startswith("Too close to tell")


FLOOR_OF_A_FEW: dict[str, Any] = {
    "model": {
        "policy": "fixed",
        "options": {"action": "cheap"},
        "guards": [
            {"guard": "floor", "options": {"reference": "dear", "share_of_reference": 80.0, "audit_share": 0.5}}
        ],
    }
}


async def test_a_floor_that_is_not_kept_says_who_acts_and_why(tmp_path: Path) -> None:
    async with visiting(tmp_path, providers=(_priced(),), points=FLOOR_OF_A_FEW) as (visitor, runtime):
        before = await visitor.get("/routing")
        await called(runtime, "question", "auto")
        for number in range(150):
            # Straight to the policy: what is looked at is the page, and the ledger takes longer than all the rest.
            asked: dict[str, Any] = {"call_id": f"call_{number}", "at": float(number), "scope": Scope()}
            names = {"context": {"x": 0.5}, "actions": ("cheap", "dear"), "featuriser": "chat@1"}
            action, (decision, *_) = runtime.loop.decide("model", **asked, **names)
            assert runtime.loop.learn(decision, 1.0 if action == "dear" else 0.0, None)
        page = await visitor.get("/routing")
    assert "No call of this guard has been graded yet" in before.text
    assert "The reference acts." in page.text
    assert "it is below the floor by" in page.text
    assert "alarm 1" in page.text
    assert "The policy weighs no costs, so nothing paces what it spends." in page.text
    _sound(page)


async def test_a_policy_that_cannot_say_what_money_is_worth_breaks_no_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> float:
        raise PolicyError("no price today")

    async with visiting(tmp_path, providers=(_priced(),), points=JOINT) as (visitor, runtime):
        await _earned(runtime, 2)
        monkeypatch.setattr("windlass.policies.joint.JointThompson.price", broken)
        page = await visitor.get("/routing")
        failures = dict(runtime.loop.failures)
    assert page.status == 200
    assert "What is believed of each model" in page.text
    assert failures == {"model: PolicyError": 1}


def _report(content: str = "", *, moved: bool = False, window: int = 2) -> FloorReport:
    return FloorReport(content, 90.0, moved, int(moved), window, 5, "routed 0.50", "it is below" if moved else "")


@pytest.mark.parametrize(
    ("reports", "words"),
    [
        ((), "No call of this guard has been graded yet, so nothing is known of the floor."),
        ((_report(window=0),), "Nothing is tested yet: the first audited calls guess how good the reference is."),
        ((_report(),), "The floor is not known to be broken."),
        ((_report(window=0), _report("task:code")), "The floor is not known to be broken."),
        ((_report(moved=True),), "The reference acts."),
        ((_report(), _report("task:code", moved=True)), "The reference acts for task:code."),
        ((_report(moved=True), _report("x", moved=True)), "The reference acts for the rest, for x."),
    ],
)
def test_the_floors_are_told_in_a_sentence(reports: tuple[FloorReport, ...], words: str) -> None:
    assert routing_page.floor_verdict(reports) == words


def _point(name: str, cost_nusd: float, reward: float, *, on_hull: bool = False) -> Standpoint:
    return Standpoint(name=name, calls=10, cost_nusd=cost_nusd, rewarded=10, reward=reward, on_hull=on_hull)


@pytest.mark.parametrize(
    ("live", "mix", "words"),
    [
        (None, None, "Nothing was chosen among two or more models"),
        (_point("p@1", 5.0, 0.8), None, "No fixed mix of models is as cheap"),
        (_point("p@1", 5.0, 0.8), 0.7, "0.100 more than the best fixed mix"),
        (_point("p@1", 5.0, 0.6), 0.7, "0.100 less than the best fixed mix"),
        (_point("p@1", 5.0, 0.7), 0.7, "as much as the best fixed mix"),
    ],
)
def test_the_live_policy_is_compared_with_the_best_fixed_mix(
    live: Standpoint | None, mix: float | None, words: str
) -> None:
    assert words in scatter.verdict(Frontier(models=(), live=live, mix=mix))


def test_points_stay_inside_the_drawing_whatever_they_cost() -> None:
    odd = (_point("free", 0.0, 1.5, on_hull=True), _point("<dear>", 1e15, -0.2), _point("same", 0.0, 0.5))
    drawn = str(scatter.drawing("x", Frontier(models=odd, live=msgspec.structs.replace(odd[0], name="l"), mix=0.5)))
    assert "<dear>" not in drawn
    assert "&lt;dear&gt;" in drawn
    assert "nan" not in drawn
    empty = str(scatter.drawing("y", Frontier(models=(), live=None, mix=None)))
    assert "No model has answered" in empty
