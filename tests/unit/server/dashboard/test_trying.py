"""The experiment pages: what is shown, who may take which step, and that every step is a recorded decision."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.golden.application import chat
from tests.unit.server.dashboard.visitor import Page, Visitor, folded, visiting
from tests.unit.server.trying import KEYS, POINT, plan

from windlass.gateway.feedback import FeedbackRequest
from windlass.gateway.gateway import Request
from windlass.gateway.providers.echo import Echo
from windlass.policies.rollout import Advance, Begin, End
from windlass.policies.trials.plan import Plan
from windlass.records import Decision, Scope
from windlass.runtime import Runtime
from windlass.server import experiments
from windlass.server.dashboard import trying
from windlass.server.points import Switch

EVIL = '<script>alert("x")</script>'
SLOW: dict[str, Any] = {"ramp": [0.2, 0.5, 1.0], "ramp_after": 1_000, "guardrails": [{"metric": "error"}]}


def site(home: Path, **changes: Any) -> Any:
    return visiting(home, providers=(Echo("a", "b"),), **{**POINT, **changes})


async def begun(runtime: Runtime, key: str = "", **changes: Any) -> None:
    """An experiment begins."""
    caller = runtime.gateway.admission.identify(f"secret-{key}" if key else "", "")
    await experiments.start(runtime, caller, {"plan": plan(**changes), "reason": "to know"})


async def tried(runtime: Runtime, calls: int) -> None:
    """So many calls, of which those of `b` are liked better."""
    for number in range(calls):
        answer = await runtime.gateway.complete(Request(msgspec.json.encode(chat(f"question {number}", "auto"))))
        async for _ in answer.chunks:
            pass
        value = {"a": 0.3, "b": 0.9}[answer.transit.decisions[0].action]
        await runtime.feedback(Scope(), FeedbackRequest(target=answer.transit.call.id, kind="rating", value=value))
    await runtime.caught_up()
    await folded(runtime)


def steps(runtime: Runtime, tenant: str = "default") -> list[Decision]:
    return [one for one in runtime.ledger.decisions(Scope(tenant), point="rollout") if "experiment=" not in one.action]


def sound(page: Page) -> None:
    """Ids are unique, every drawing is named and told, every table stands in a region, and nothing is styled inline."""
    ids = [named["id"] for _, named in page.tags if "id" in named]
    assert len(ids) == len(set(ids))
    drawings = [named for tag, named in page.tags if tag == "svg" and "role" in named]
    assert all({one["aria-labelledby"], one["aria-describedby"]} <= set(ids) for one in drawings)
    assert not [named for _, named in page.tags if "style" in named]
    assert len(page.all("table")) == len([one for one in page.all("div") if one.get("role") == "region"])
    assert "<script>alert" not in page.body


async def sign_in(visitor: Visitor, name: str) -> None:
    visitor.cookies.clear()
    page = await visitor.get("/login")
    assert (await visitor.post("/login", page.form("/login") | {"key": f"secret-{name}"})).status == 303


async def test_without_experiments_it_says_how_to_begin(tmp_path: Path) -> None:
    async with site(tmp_path) as (visitor, _):
        page = await visitor.get("/experiments")
        filtered = await visitor.get("/experiments?state=%3Cscript%3Ealert(1)")
        missing = [await visitor.get(f"/experiments/{name}") for name in ("none", "%3Cscript%3Ealert(1)", "x" * 5_000)]
    assert "Nothing has been tried yet. windlass experiment new writes a plan" in page.text
    assert any(one.get("href") == "/experiments" and one.get("aria-current") == "page" for one in page.all("a"))
    assert "No experiment is <script>alert(1)." in filtered.text
    assert [one.status for one in missing] == [404, 404, 404]
    for one in (page, filtered, *missing):
        sound(one)


async def test_one_that_decides_shows_its_numbers(tmp_path: Path) -> None:
    async with site(tmp_path) as (visitor, runtime):
        await begun(runtime, secondary=["cost"], guardrails=[{"metric": "error", "margin": 0.05}])
        await tried(runtime, 40)
        listed = await visitor.get("/experiments")
        page = await visitor.get("/experiments/newer")
        part = await visitor.get("/experiments/newer", **{"x-partial": "1"})
        trial = experiments.find(runtime, Scope(), "newer")
        by_id = await visitor.get(f"/experiments/{trial.id}")
    view = experiments.viewed(trial)
    assert view.decision == "better"
    for told in (view.sentence, "new is better", "under way", "1 of 1, which decides"):
        assert told in listed.text
        assert told in page.text
    for told in (
        "quality primary new",
        "cost secondary new",
        "error guardrail new",
        "+60.0 points",
        "(95 %)",
        "new against old",
        "beyond the boundary of",
        "at most 5 points worse",
        "Sample ratio: holds As planned",
        "always b",
        "experiment newer begins by local",
        "to know",
        trial.plan.digest,
        '"size": 10',
    ):
        assert told in page.text
    assert by_id.text == page.text
    assert "<header" not in part.body
    assert [one["href"] for one in listed.all("a") if one.get("id", "").startswith("to-")] == [
        f"/experiments/{trial.id}"
    ]
    for one in (listed, page):
        sound(one)


async def test_hostile_words_stay_words(tmp_path: Path) -> None:
    async with site(tmp_path) as (visitor, runtime):
        await begun(runtime, hypothesis=EVIL, owner=EVIL, **SLOW)
        asked = await visitor.get("/experiments/newer/step?do=stop")
        form = asked.form("/experiments/newer@" + _digest(runtime) + "/step") | {"reason": EVIL}
        assert (await visitor.post(form[""], form)).status == 303
        page = await visitor.get("/experiments/newer")
        listed = await visitor.get("/experiments")
    assert page.text.count(EVIL) >= 3
    for one in (asked, page, listed):
        sound(one)


def _digest(runtime: Runtime) -> str:
    return experiments.find(runtime, Scope(), "newer").id.partition("@")[2]


async def test_a_ramp_goes_on_by_hand_and_says_when(tmp_path: Path) -> None:
    async with site(tmp_path) as (visitor, runtime):
        await begun(runtime, **SLOW)
        before = await visitor.get("/experiments/newer")
        asked = await visitor.get("/experiments/newer/step?do=advance")
        assert steps(runtime) == [], "to ask is not to take"
        (form,) = [one for one in asked.forms if one[""].endswith("/step")]
        done = await visitor.post(form[""], form | {"reason": "looks well"})
        again = await visitor.post(form[""], form)
        after = await visitor.get(done.location.split("#")[0])
        (step,) = steps(runtime)
    assert "Nothing is looked at before the last stage" in before.text
    assert "Go on with stage 2 of 3?" in asked.text
    assert (step.action, step.extra["reason"]) == ("model:trial=newer:stage=1", "looks well")
    assert again.status == 409, "two who press at once take one step"
    assert "goes on with stage 2 of its ramp by local" in after.text
    assert "2 now 50 %" in after.text
    assert "3 100 % not yet" in after.text
    sound(after)


@pytest.mark.parametrize(
    ("do", "action", "says"),
    [
        ("stop", "model:trial=newer:stop", "is stopped, and everybody gets what is usual"),
        ("rollback", "model:trial=newer:rollback", "is rolled back, and everybody gets what is usual"),
    ],
)
async def test_an_experiment_is_ended(tmp_path: Path, do: str, action: str, says: str) -> None:
    async with site(tmp_path) as (visitor, runtime):
        await begun(runtime, **SLOW)
        asked = await visitor.get(f"/experiments/newer/step?do={do}")
        (form,) = [one for one in asked.forms if one[""].endswith("/step")]
        assert (await visitor.post(form[""], form)).status == 303
        again = await visitor.post(form[""], form | {"reason": "once <more>"})
        page = await visitor.get("/experiments/newer")
        running = await visitor.get("/experiments?state=running")
        state = experiments.find(runtime, Scope(), "newer").state
        of_state = await visitor.get(f"/experiments?state={state.replace(' ', '+')}")
        (step,) = steps(runtime)
    assert step.action == action
    assert says in page.text
    assert again.status == 409
    assert "once <more>" in again.text, "what was written can be copied"
    assert not [one for one in page.forms if one[""].endswith("/step")], "nothing is left to do"
    assert "No experiment is running" in running.text
    assert "newer began" in of_state.text


async def test_what_is_better_is_shipped(tmp_path: Path) -> None:
    async with site(tmp_path) as (visitor, runtime):
        await begun(runtime)
        await tried(runtime, 40)
        asked = await visitor.get("/experiments/newer/step?do=ship&variant=new")
        (form,) = [one for one in asked.forms if one[""].endswith("/step")]
        assert (await visitor.post(form[""], form)).status == 303
        page = await visitor.get("/experiments/newer")
        again = await visitor.post(form[""], form)
    assert "Ship it although" not in asked.text
    assert "shipped new" in page.text
    assert again.status == 409


async def test_what_is_not_shown_to_be_better_needs_force_and_a_reason(tmp_path: Path) -> None:
    async with site(tmp_path) as (visitor, runtime):
        await begun(runtime, **SLOW)
        asked = await visitor.get("/experiments/newer/step?do=ship&variant=new")
        (form,) = [one for one in asked.forms if one[""].endswith("/step")]
        form.pop("force")
        plain = await visitor.post(form[""], form)
        mute = await visitor.post(form[""], form | {"force": "1"})
        unknown = await visitor.post(form[""], form | {"force": "1", "reason": "x", "variant": "<b>"})
        assert steps(runtime) == []
        told = await visitor.post(form[""], form | {"force": "1", "reason": "the price rose"})
        (step,) = steps(runtime)
    assert "Ship it although nothing shows that new is better" in asked.text
    assert [plain.status, mute.status, unknown.status, told.status] == [409, 400, 400, 303]
    assert "Nothing has changed" in plain.text
    assert "Force needs a reason" in mute.text
    assert "<b>" not in unknown.body
    assert step.action == "model:trial=newer:ship=new"


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        ({"token": "old"}, 403),
        ({"do": "explode"}, 400),
        ({"do": ""}, 400),
        ({"stage": ""}, 400),
        ({"stage": "-1"}, 400),
        ({"stage": "9" * 30}, 400),
        ({"stage": "٣"}, 400),
        ({"stage": "0"}, 400),
        ({"stage": "1"}, 409),
        ({"stage": "99"}, 409),
        ({"reason": "\x00"}, 400),
    ],
)
async def test_a_step_that_makes_no_sense_changes_nothing(tmp_path: Path, fields: Any, status: int) -> None:
    async with site(tmp_path) as (visitor, runtime):
        await begun(runtime, **SLOW)
        asked = await visitor.get("/experiments/newer/step?do=advance")
        (form,) = [one for one in asked.forms if one[""].endswith("/step")]
        assert (await visitor.post(form[""], form | fields)).status == status
        assert (await visitor.post("/experiments/none/step", form)).status == 400
        assert (await visitor.get("/experiments/none/step?do=stop")).status == 404
        assert (await visitor.get("/experiments/newer/step?do=explode")).status == 400
        assert steps(runtime) == []


async def test_roles_see_and_take_what_is_theirs(tmp_path: Path) -> None:
    async with site(tmp_path, keys=KEYS) as (visitor, runtime):
        await begun(runtime, "op", **SLOW)
        await sign_in(visitor, "view")
        page = await visitor.get("/experiments/newer")
        assert page.status == 200
        assert not [one for one in page.forms if one[""].endswith("/step")]
        token = page.form("/logout")["token"]
        for do in trying.DEEDS:
            refused = await visitor.get(f"/experiments/newer/step?do={do}&variant=new")
            sent = await visitor.post("/experiments/newer/step", {"token": token, "do": do, "stage": "2"})
            assert {refused.status, sent.status} <= {303, 401, 403}
        await sign_in(visitor, "op")
        page = await visitor.get("/experiments/newer")
        assert [one["value"] for one in page.all("option")] == ["advance", "stop", "rollback"]
        token = page.form("/logout")["token"]
        shipping = {"token": token, "do": "ship", "variant": "new", "force": "1", "reason": "x"}
        assert (await visitor.post("/experiments/newer/step", shipping)).status in (303, 401, 403)
        assert steps(runtime, "acme") == []
        await sign_in(visitor, "far")
        assert (await visitor.get("/experiments/newer")).status == 404, "another tenant's is not there"
        assert "newer" not in (await visitor.get("/experiments")).text
        await sign_in(visitor, "boss")
        asked = await visitor.get("/experiments/newer/step?do=ship&variant=new")
        (form,) = [one for one in asked.forms if one[""].endswith("/step")]
        await visitor.post(form[""], form | {"reason": "the price rose"})
        assert [one.extra["by"] for one in steps(runtime, "acme")] == ["key:boss"]


async def test_reports_are_files_to_keep(tmp_path: Path) -> None:
    async with site(tmp_path) as (visitor, runtime):
        await begun(runtime, hypothesis=EVIL)
        await tried(runtime, 5)
        text = await visitor.get("/experiments/newer/report.md")
        page = await visitor.get("/experiments/newer/report.html")
        missing = [await visitor.get(f"/experiments/{one}") for one in ("none/report.md", "newer/report.pdf")]
    assert text.headers["content-disposition"] == 'attachment; filename="experiment-newer.md"'
    assert page.headers["content-disposition"] == 'attachment; filename="experiment-newer.html"'
    assert text.headers["content-type"].startswith("text/markdown")
    assert text.body.startswith("# Experiment newer\n")
    assert page.body.startswith("<!DOCTYPE html>")
    assert EVIL not in text.body + page.body
    assert [one.status for one in missing] == [404, 404]


async def test_many_experiments_are_leafed_through(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trying, "PAGE", 2)
    async with site(tmp_path) as (visitor, runtime):
        caller = runtime.gateway.admission.identify("", "")
        for number in range(5):
            await begun(runtime, name=f"try-{number}", **SLOW)
            await experiments.stop(runtime, caller, {"name": f"try-{number}"})
        seen, address = [], "/experiments?state=stopped"
        while address:
            page = await visitor.get(address)
            seen.append([one["id"][3:8] for one in page.all("a") if one.get("id", "").startswith("to-")])
            links = {one["id"]: one["href"] for one in page.all("a") if "id" in one}
            address = links.get("experiments-older", "")
        unknown = await visitor.get("/experiments?after=nothing")
    assert seen == [["try-4", "try-3"], ["try-2", "try-1"], ["try-0"]]
    assert links["experiments-newest"] == "/experiments?state=stopped"
    assert "try-4" in unknown.text


def test_stages_begin_where_the_history_says(tmp_path: Path) -> None:
    made = msgspec.convert(plan(**SLOW), Plan)

    def switch(at: float, change: Any, by: str = "ann") -> Switch:
        return Switch(id="d", at=at, change=change, told="", by=by, reason="")

    from windlass.policies.trials.tally import begun as trial_of

    trial = trial_of(made, 7, 100.0)
    trial.enter(1, 200.0)
    history = [
        switch(200.0, Advance("model", "newer", 1), "bob"),
        switch(100.0, Begin(made)),
        switch(50.0, Advance("model", "newer", 2)),
        switch(40.0, End("model", "newer", "stop")),
        switch(30.0, Begin(msgspec.structs.replace(made, size=11))),
    ]
    found = trying.stages(trial, history)
    assert [(one.number, one.at, one.by, one.now) for one in found] == [
        (1, 100.0, "ann", False), (2, 200.0, "bob", True), (3, None, "", False)
    ]  # fmt: skip
    assert [(one.at, one.by) for one in trying.stages(trial, [])] == [(100.0, ""), (200.0, ""), (None, "")]
