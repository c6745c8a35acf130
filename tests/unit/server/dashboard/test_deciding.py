"""The decision pages: what is shown, who may change what, and that every change is a recorded decision."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tests.golden.application import key
from tests.unit.server.dashboard.visitor import Visitor, called, visiting

from windlass.gateway.providers.echo import Echo
from windlass.policies.score import Score
from windlass.records import Decision, Scope
from windlass.runtime import Runtime
from windlass.server.dashboard import deciding

SHADOW = {"model": {"shadows": [{"name": "bold", "policy": "linear_thompson"}]}}


def changes(runtime: Runtime, scope: Scope) -> list[Decision]:
    return list(runtime.ledger.decisions(scope, point="rollout"))


async def sign_in(visitor: Visitor, secret: str) -> None:
    page = await visitor.get("/login")
    assert (await visitor.post("/login", page.form("/login") | {"key": secret})).status == 303


async def test_without_decisions_the_points_stand_there_with_their_modes(tmp_path: Path) -> None:
    async with visiting(tmp_path) as (visitor, _):
        page = await visitor.get("/decisions")
        one = await visitor.get("/decisions/model")
        none = await visitor.get("/decisions/no-such-point")
    assert "Nothing was decided here in the last 24 hours" in page.text
    assert "No reward is known yet" in one.text
    assert none.status == 404


async def test_shares_rewards_and_shadows_are_shown(tmp_path: Path) -> None:
    async with visiting(tmp_path, providers=(Echo("echo", "parrot"),), points=SHADOW) as (visitor, runtime):
        calls = [await called(runtime, str(n), "auto") for n in range(8)]
        page = await visitor.get("/decisions?range=7d")
        one = await visitor.get("/decisions/model?live=shadow")
        newest = await visitor.get("/decisions/model?action=none")
    assert "Share by hour" in page.text
    assert "in shadow bold" in page.text
    assert "bold shadow" in one.text
    assert calls[-1] in one.body
    assert "No decision fits the filter" in newest.text
    ids = [named["id"] for _, named in one.tags if "id" in named]
    assert len(ids) == len(set(ids)), "ids are unique"
    for drawing in one.all("svg"):
        if "role" in drawing:
            assert {drawing["aria-labelledby"], drawing["aria-describedby"]} <= set(ids)


async def test_a_mode_is_switched_after_a_confirmation(tmp_path: Path) -> None:
    async with visiting(tmp_path, providers=(Echo("echo", "parrot"),)) as (visitor, runtime):
        await called(runtime, model="auto")
        asked = await visitor.get("/decisions/model/change?mode=off")
        assert "The default action is taken, and nothing is learned." in asked.text
        assert changes(runtime, Scope()) == [], "to ask is not to change"
        form = asked.form("/decisions/model/change", mode="off") | {"reason": "too <b>bold</b>"}
        done = await visitor.post("/decisions/model/change", form)
        after = await visitor.get(done.location.split("#")[0])
        (change,) = changes(runtime, Scope())
        assert runtime.loop.mode("model", Scope()) == "off"
    assert (change.action, change.extra["reason"]) == ("model:mode=off", "too <b>bold</b>")
    assert "off the settings say live" in after.text
    assert "too <b>bold</b>" in after.text
    assert "too <b>" not in after.body


async def test_a_policy_is_rolled_back_to_a_snapshot(tmp_path: Path) -> None:
    async with visiting(tmp_path, providers=(Echo("echo", "parrot"),)) as (visitor, runtime):
        for n in range(4):
            await called(runtime, str(n), "auto")
        await runtime.caught_up()
        runtime.projections.keep()
        kept = runtime.projections.snapshots()[-1].cursor
        page = await visitor.get("/decisions/model")
        assert [one for one in page.all("option") if one.get("value") == str(kept)]
        asked = await visitor.get(f"/decisions/model/change?cursor={kept}")
        form = asked.form("/decisions/model/change", cursor=str(kept))
        assert (await visitor.post("/decisions/model/change", form)).status == 303
        (change,) = changes(runtime, Scope())
        unknown = await visitor.post("/decisions/model/change", form | {"cursor": "999999"})
        assert len(changes(runtime, Scope())) == 1
    assert change.action == f"model:snapshot={kept}"
    assert unknown.status in (400, 503)
    assert "999999" in unknown.text


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        ({"token": "old"}, 403),
        ({"mode": "loud"}, 400),
        ({"mode": "", "cursor": "-1"}, 400),
        ({"mode": "", "cursor": "9" * 30}, 400),
        ({"mode": ""}, 400),
    ],
)
async def test_a_change_that_makes_no_sense_changes_nothing(tmp_path: Path, fields: Any, status: int) -> None:
    async with visiting(tmp_path) as (visitor, runtime):
        asked = await visitor.get("/decisions/model/change?mode=off")
        form = asked.form("/decisions/model/change") | fields
        assert (await visitor.post("/decisions/model/change", form)).status == status
        assert (await visitor.get("/decisions/nowhere/change?mode=off")).status == 404
        assert changes(runtime, Scope()) == []


async def test_a_viewer_sees_no_form_and_may_not_send_one(tmp_path: Path) -> None:
    keys = [key("v", "acme", role="viewer"), key("o", "acme"), key("other", "globex")]
    async with visiting(tmp_path, keys=keys) as (visitor, runtime):
        await sign_in(visitor, "secret-v")
        page = await visitor.get("/decisions/model")
        assert page.status == 200
        assert not [form for form in page.forms if form[""].endswith("/change")]
        refused = await visitor.get("/decisions/model/change?mode=off")
        token = page.form("/logout")["token"]
        sent = await visitor.post("/decisions/model/change", {"token": token, "mode": "off"})
        assert {refused.status, sent.status} <= {303, 401, 403}
        assert changes(runtime, Scope("acme")) == []
        visitor.cookies.clear()
        await sign_in(visitor, "secret-o")
        asked = await visitor.get("/decisions/model/change?mode=off")
        await visitor.post("/decisions/model/change", asked.form("/decisions/model/change"))
        assert [one.extra["by"] for one in changes(runtime, Scope("acme"))] == ["key:o"]
        assert runtime.loop.mode("model", Scope("globex")) == "live", "another tenant's mode is its own"


def score(shadow: str, value: float | None, half: float | None = 0.01, matched: int = 100) -> Score:
    return Score(
        policy="p@1", shadow=shadow, live=not shadow, decisions=200, matched=matched, value=value, half_width=half,
        mean_weight=1.0,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("scores", "says"),
    [
        ([], "No reward is known yet"),
        ([score("", None)], "No reward is known yet"),
        ([score("", 0.5)], "no policy in shadow can be compared"),
        ([score("", 0.5), score("bold", None)], "no policy in shadow can be compared"),
        ([score("", 0.5), score("bold", 0.9, matched=3)], "only 3 decisions: too few"),
        ([score("", 0.5), score("bold", 0.9, None)], "too few"),
        ([score("", 0.5), score("bold", 0.9)], "bold in shadow would have earned 0.40 more"),
        ([score("", 0.5), score("bold", 0.1)], "What was live earned 0.40 more than bold"),
        ([score("", 0.5), score("bold", 0.51)], "Too close to tell"),
    ],
)
def test_a_comparison_claims_no_more_than_the_intervals(scores: list[Score], says: str) -> None:
    assert says in deciding.verdict(scores)
