"""Experiments for people: what is refused before it is on record, who may take which step, and what two get who press
at once."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from tests.golden.application import opened
from tests.unit.server.trying import KEYS, POINT, called, client, plan

from windlass.ledger.ledger import ALL
from windlass.policies.points import ROLLOUT
from windlass.records import Decision, Scope
from windlass.runtime import Runtime
from windlass.server import experiments
from windlass.testing import Clock, Echo

WORDS = [f"question {number}" for number in range(60)]
GOOD = {"a": 0.1, "b": 0.9}


def _rollouts(runtime: Runtime) -> list[Decision]:
    found = [entry.record for entry in runtime.ledger.read(ALL)]
    return [one for one in found if isinstance(one, Decision) and one.point == ROLLOUT]


async def _begun(runtime: Runtime, **changes: Any) -> None:
    response = await client(runtime, "op").post("/api/experiment_start", {"plan": plan(**changes)})
    assert response.status == 200, response.json


async def _seen(runtime: Runtime, name: str = "newer") -> dict[str, Any]:
    await runtime.caught_up()
    return dict((await client(runtime, "view").post("/api/experiment", {"name": name})).json)


async def test_an_experiment_begins_runs_and_is_shipped(tmp_path: Path) -> None:
    async with opened(tmp_path, [Echo("a", "b")], keys=KEYS, **POINT) as runtime:
        operator, boss = client(runtime, "op"), client(runtime, "boss")
        wanted = {"plan": plan(hypothesis="b is better"), "reason": "it looked so"}
        assert (await client(runtime, "view").post("/api/experiment_start", wanted)).status == 401
        begun = (await operator.post("/api/experiment_start", wanted)).json
        assert begun["told"] == "model: experiment newer begins"
        assert begun["experiment"]["state"] == "running"
        answered = await called(operator, WORDS, GOOD)
        assert set(answered) == {"a", "b"}
        seen = await _seen(runtime)
        assert (seen["experiment"]["decision"], seen["experiment"]["leader"]) == ("better", "new")
        assert {one["name"]: one["assigned"] for one in seen["experiment"]["variants"]} == {
            "old": answered.count("a"),
            "new": answered.count("b"),
        }
        assert seen["plan"]["hypothesis"] == "b is better"
        (told,) = [one["standing"] for one in (await operator.post("/api/points", {"point": "model"})).json["points"]]
        assert told["experiment"] == "newer"
        assert "stage 1 of 1" in told["told"]
        assert (await operator.post("/api/experiment_ship", {"name": "newer"})).status == 401
        shipped = await boss.post("/api/experiment_ship", {"name": "newer", "reason": "proven"})
        assert shipped.status == 200
        assert shipped.json["experiment"]["state"] == "shipped"
        evidence = shipped.json["decision"]["extra"]["evidence"]
        assert (evidence["decision"], evidence["forced"]) == ("better", False)
        assert set(await called(operator, WORDS[:20], GOOD)) == {"b"}
        assert [one["told"] for one in (await _seen(runtime))["history"]] == [
            "experiment newer ends, and everybody gets new",
            "experiment newer begins",
        ]
        rows = runtime.audit.rows(Scope("acme", "default"))
        assert {row.actor for row in rows} == {"key:op", "key:boss"}


async def test_of_two_who_ship_at_once_one_is_refused_and_it_happens_once(tmp_path: Path) -> None:
    async with opened(tmp_path, [Echo("a", "b")], keys=KEYS, **POINT) as runtime:
        await _begun(runtime)
        await called(client(runtime, "op"), WORDS, GOOD)
        await runtime.caught_up()
        sent = [client(runtime, "boss").post("/api/experiment_ship", {"name": "newer"}) for _ in range(4)]
        statuses = sorted(response.status for response in await asyncio.gather(*sent))
        assert statuses == [200, 409, 409, 409]
        assert len(_rollouts(runtime)) == 2, "the beginning, and one end"
        late = await client(runtime, "boss").post("/api/experiment_ship", {"name": "newer"})
        assert (late.status, late.code) == (409, "conflict")
        assert "it is shipped" in late.json["error"]["message"]


async def test_nothing_is_shipped_that_nothing_speaks_for_unless_by_force(tmp_path: Path) -> None:
    async with opened(tmp_path, [Echo("a", "b")], keys=KEYS, **POINT) as runtime:
        await _begun(runtime)
        boss = client(runtime, "boss")
        for wanted in ({}, {"variant": "new"}, {"variant": "old"}):
            refused = await boss.post("/api/experiment_ship", {"name": "newer", **wanted})
            assert refused.status == 409
            assert "by force" in refused.json["error"]["message"]
        for wanted in ({"force": True}, {"force": True, "reason": "  "}, {"variant": "third"}):
            assert (await boss.post("/api/experiment_ship", {"name": "newer", **wanted})).status == 400
        await called(client(runtime, "op"), WORDS, {"a": 0.9, "b": 0.1})
        seen = (await _seen(runtime))["experiment"]
        assert seen["decision"] == "worse"
        assert (await boss.post("/api/experiment_ship", {"name": "newer"})).status == 409
        assert len(_rollouts(runtime)) == 1
        forced = {"name": "newer", "variant": "new", "force": True, "reason": "the contract ends"}
        assert (await boss.post("/api/experiment_ship", forced)).status == 200
        assert _rollouts(runtime)[-1].extra["evidence"]["forced"] is True
        assert set(await called(client(runtime, "op"), WORDS[:10], GOOD)) == {"b"}


@pytest.mark.parametrize(
    ("operation", "state"), [("experiment_stop", "stopped"), ("experiment_rollback", "rolled back")]
)
async def test_an_experiment_is_ended_and_everybody_gets_what_is_usual(
    tmp_path: Path, operation: str, state: str
) -> None:
    async with opened(tmp_path, [Echo("a", "b")], keys=KEYS, **POINT) as runtime:
        await _begun(runtime)
        operator = client(runtime, "op")
        assert (await client(runtime, "view").post(f"/api/{operation}", {"name": "newer"})).status == 401
        ended = (await operator.post(f"/api/{operation}", {"name": "newer", "reason": "no time"})).json
        assert ended["experiment"]["state"] == state
        assert set(await called(operator, WORDS[:20], GOOD)) == {"a"}
        for again in ("experiment_stop", "experiment_rollback", "experiment_advance"):
            assert (await operator.post(f"/api/{again}", {"name": "newer"})).status == 409
        assert len(_rollouts(runtime)) == 2
        again = await operator.post("/api/experiment_start", {"plan": plan()})
        assert again.status == 409, "the same plan would mix its calls with those of the first time"
        await _begun(runtime, name="another")


async def test_a_ramp_goes_on_stage_by_stage_and_no_further(tmp_path: Path) -> None:
    async with opened(tmp_path, [Echo("a", "b")], keys=KEYS, **POINT) as runtime:
        await _begun(runtime, ramp=[0.1, 0.5, 1.0])
        operator = client(runtime, "op")
        assert (await operator.post("/api/experiment_advance", {"name": "newer"})).json["experiment"]["stage"] == 1
        assert (await operator.post("/api/experiment_advance", {"name": "newer", "stage": 2})).status == 409
        done = (await operator.post("/api/experiment_advance", {"name": "newer", "stage": 3})).json["experiment"]
        assert (done["stage"], done["deciding"]) == (2, True)
        for stage in ({}, {"stage": 1}, {"stage": 4}, {"stage": 100}):
            assert (await operator.post("/api/experiment_advance", {"name": "newer", **stage})).status == 409
        assert (await operator.post("/api/experiment_advance", {"name": "newer", "stage": 0})).status == 400
        assert len(_rollouts(runtime)) == 3


async def test_another_tenants_experiment_is_not_there(tmp_path: Path) -> None:
    async with opened(tmp_path, [Echo("a", "b")], keys=KEYS, **POINT) as runtime:
        await _begun(runtime)
        far = client(runtime, "far")
        assert (await far.get("/api/experiments")).json == {"experiments": []}
        steps = ("advance", "stop", "rollback", "ship")
        for name in ("experiment", *(f"experiment_{step}" for step in steps)):
            refused = await far.post(f"/api/{name}", {"name": "newer"})
            assert refused.status == 400
            assert "there are: none" in refused.json["error"]["message"]
        assert set(await called(far, WORDS[:20], GOOD)) == {"a"}
        assert (await _seen(runtime))["experiment"]["state"] == "running"
        assert (await far.post("/api/experiment_start", {"plan": plan()})).status == 200, "it may have one of its own"


async def test_one_at_a_point_and_one_name_at_two_points(tmp_path: Path) -> None:
    async with opened(tmp_path, [Echo("a", "b")], keys=KEYS, **POINT) as runtime:
        await _begun(runtime)
        operator = client(runtime, "op")
        refused = await operator.post("/api/experiment_start", {"plan": plan(name="another")})
        assert refused.status == 409
        assert "newer is under way at model" in refused.json["error"]["message"]
        variants = [{"name": "old", "share": 0.5}, {"name": "new", "share": 0.5, "action": "abstain"}]
        await _begun(runtime, point="answer", variants=variants)
        unclear = await operator.post("/api/experiment_stop", {"name": "newer"})
        assert unclear.status == 400
        assert "model, answer" in unclear.json["error"]["message"] or "answer, model" in str(unclear.json)
        assert (await operator.post("/api/experiment_stop", {"name": "newer", "point": "answer"})).status == 200
        assert (await operator.post("/api/experiment_stop", {"name": "newer"})).status == 200


async def test_a_plan_is_sized_by_the_calls_there_were_and_nothing_is_begun(tmp_path: Path) -> None:
    clock = Clock()
    async with opened(tmp_path, [Echo("a", "b")], clock=clock, keys=KEYS, **POINT) as runtime:
        operator = client(runtime, "op")
        silent = (await operator.post("/api/experiment_plan", {"plan": plan()})).json["forecast"]
        assert (silent["seen"], silent["days"], silent["sizes"]) == (0, None, [])
        assert "no call that was decided at the point model is known" in silent["missing"]
        for number in range(40):
            await called(operator, [f"question {number}"], {"a": number % 2, "b": 1.0})
            clock.forward(3_600.0)
        await runtime.caught_up()
        told = (await operator.post("/api/experiment_plan", {"plan": plan(size=100)})).json
        found = told["forecast"]
        assert (found["seen"], found["units"], found["missing"]) == (40, 40, "")
        assert found["mean"] == pytest.approx(0.5)
        assert found["deviation"] == pytest.approx(0.5, rel=0.05)
        assert found["per_day"] == pytest.approx(24.0, rel=0.05)
        assert found["days"] == pytest.approx(200 / 24.0, rel=0.05), "two variants of a hundred units each"
        assert (await client(runtime, "view").post("/api/experiment_plan", {"plan": plan()})).status == 401
        theirs = (await client(runtime, "far").post("/api/experiment_plan", {"plan": plan()})).json["forecast"]
        assert theirs["seen"] == 0, "another tenant's calls are not looked at"
        assert not _rollouts(runtime)


async def test_what_is_looked_at_stays_as_it_was_while_calls_go_on(tmp_path: Path) -> None:
    async with opened(tmp_path, [Echo("a", "b")], keys=KEYS, **POINT) as runtime:
        await _begun(runtime, unit="session", size=40)
        scope = Scope("acme", "default")
        await called(client(runtime, "op"), WORDS[:30], GOOD)
        await runtime.caught_up()
        looked = experiments.find(runtime, scope, "newer")
        before = (sum(looked.assigned), sum(looked.informed), len(looked.looks))
        assert before[:2] == (30, 30)
        await called(client(runtime, "op"), WORDS[30:], GOOD)
        await runtime.caught_up()
        assert (sum(looked.assigned), sum(looked.informed), len(looked.looks)) == before
        assert sum(experiments.find(runtime, scope, "newer").informed) == 60


HOSTILE: list[Any] = [
    None,
    5,
    "",
    "x",
    "[]",
    "name: newer",
    "x" * 70_000,
    "\x00",
    "a: &a [*a]",
    "{" * 10_000,
    "!!python/object/apply:os.system ['true']",
    '{"name": "\\ud800"}',
    {},
    {"plan": {}},
    plan(point="nope"),
    plan(point="rollout"),
    plan(point="experiment"),
    plan(name="a b"),
    plan(name=""),
    plan(size=float("nan")),
    plan(size=1),
    plan(size="many"),
    plan(size=10**30),
    plan(alpha=float("inf")),
    plan(owner="x" * 201),
    plan(owner="\ud800"),
    plan(hypothesis="x" * 70_000),
    plan(unit="planet"),
    plan(primary="beauty"),
    plan(ramp=[1.0, 0.1]),
    plan(ramp=[]),
    plan(nope=1),
    plan(variants=[{"name": "old", "share": 0.5}, {"name": "new", "share": 0.5, "action": "c"}]),
    plan(variants=[{"name": "old", "share": 0.5}, {"name": "new", "share": 0.5, "shadow": "nope"}]),
    plan(variants=[{"name": "old", "share": 0.5}, {"name": "new", "share": float("nan"), "action": "b"}]),
    plan(variants=[{"name": "old", "share": 0.5}, {"name": "new", "share": 0.4, "action": "b"}]),
    plan(variants=[{"name": "old", "share": 0.5}, {"name": "new", "share": -0.5, "action": "b"}]),
    plan(variants=[{"name": "old", "share": 1.0}]),
    plan(variants=[{"name": f"v{number}", "share": 1e-3, "action": "b"} for number in range(1_000)]),
]


@pytest.mark.parametrize("wanted", HOSTILE, ids=range(len(HOSTILE)))
async def test_a_plan_that_cannot_be_is_refused_before_it_is_on_record(tmp_path: Path, wanted: Any) -> None:
    async with opened(tmp_path, [Echo("a", "b")], keys=KEYS, **POINT) as runtime:
        body = json.dumps({"plan": wanted}).encode()
        response = await client(runtime, "op").post("/api/experiment_start", body)
        assert response.status == 400, response.json
        assert len(response.json["error"]["message"]) < 600
        assert not runtime.ledger.read(ALL)
        assert not runtime.audit.rows(Scope("acme", "default"))


@pytest.mark.parametrize(
    ("operation", "wanted"),
    [
        ("experiments", {"state": "sideways"}),
        ("experiments", {"limit": 0}),
        ("experiments", {"limit": 101}),
        ("experiments", {"point": 5}),
        ("experiment", {}),
        ("experiment", {"name": 5}),
        ("experiment", {"name": "none"}),
        ("experiment", {"name": "x" * 100_000}),
        ("experiment", {"name": "newer", "point": "answer"}),
        ("experiment_plan", {}),
        ("experiment_plan", {"plan": plan(), "newest": 20_001}),
        ("experiment_plan", {"plan": plan(), "newest": 0}),
        ("experiment_plan", {"plan": plan(), "power": 1.0}),
        ("experiment_plan", {"plan": plan(), "power": float("nan")}),
        ("experiment_plan", {"plan": plan(alpha=0.5), "power": 0.5}),
        ("experiment_plan", {"plan": plan(point="nope")}),
        ("experiment_start", {}),
        ("experiment_start", {"plan": plan(name="more"), "reason": "x" * 1_001}),
        ("experiment_start", {"plan": plan(name="more"), "reason": "\x00"}),
        ("experiment_advance", {"name": "newer", "stage": -1}),
        ("experiment_advance", {"name": "newer", "stage": 1.5}),
        ("experiment_advance", {"name": ""}),
        ("experiment_stop", {"name": "newer", "reason": "\x00"}),
        ("experiment_stop", {"name": "newer", "how": "rollback"}),
        ("experiment_rollback", {"name": None}),
        ("experiment_ship", {"name": "newer", "force": "yes"}),
        ("experiment_ship", {"name": "newer", "variant": "\x00"}),
        ("experiment_ship", {}),
    ],
)
async def test_nonsense_is_refused_and_changes_nothing(tmp_path: Path, operation: str, wanted: dict[str, Any]) -> None:
    async with opened(tmp_path, [Echo("a", "b")], keys=KEYS, **POINT) as runtime:
        await _begun(runtime)
        response = await client(runtime, "boss").post(f"/api/{operation}", wanted)
        assert response.status == 400, response.json
        assert len(_rollouts(runtime)) == 1
        assert (await _seen(runtime))["experiment"]["state"] == "running"


async def test_the_list_is_filtered_and_says_how_each_stands(tmp_path: Path) -> None:
    async with opened(tmp_path, [Echo("a", "b")], keys=KEYS, **POINT) as runtime:
        for name in ("first", "second"):
            await _begun(runtime, name=name)
            assert (await client(runtime, "op").post("/api/experiment_stop", {"name": name})).status == 200
        await _begun(runtime, name="third")
        viewer = client(runtime, "view")

        async def names(**wanted: Any) -> list[str]:
            found = (await viewer.post("/api/experiments", wanted)).json["experiments"]
            return [one["name"] for one in found]

        assert await names() == ["third", "second", "first"]
        assert await names(limit=1) == ["third"]
        assert await names(state="stopped") == ["second", "first"]
        assert await names(state="running", point="model") == ["third"]
        assert await names(point="answer") == []
        (one,) = (await viewer.post("/api/experiments", {"limit": 1})).json["experiments"]
        assert one["sentence"]
        assert (one["state"], one["stage"], one["deciding"]) == ("running", 0, True)
