"""What `windlass warm` tells: the plan, how far it is, what keeps it from working, and to whom."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tests.golden.application import opened
from tests.unit.improve.grading.scene import called
from tests.unit.improve.warm.scene import KNOWN, ON, ready, says, warmed

from windlass.errors import AccessError, InputError
from windlass.gateway.access.admission import Caller
from windlass.records import Scope
from windlass.server import doctor, warm, warmlist
from windlass.testing import Echo

OWNER = Caller(Scope(), "admin", "")
OFF = {**ON, "routing__warm_start_prompts": 0, "routing__warm_start_budget_usd": 0.0}


async def test_a_plan_is_there_before_anything_is_set(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    async with opened(tmp_path, [says("a", "b", "c")], **OFF) as runtime:
        none = await warm.warm_start(runtime, OWNER, {})
        assert none["plan"] is None
        for number in range(12):
            await called(runtime, f"question {number}", **KNOWN)
        told = await warm.warm_start(runtime, OWNER, {"prompts": 200})
    plan = told["plan"]
    assert (plan["prompts"], plan["calls_seen"]) == (200, 12)
    # Each answer of `says` has 1,000 tokens in and out at 10 USD a million; two of three models are asked.
    assert plan["usd"] == pytest.approx(200 * 2 * 0.02, rel=0.15)
    assert plan["usd_low"] < plan["usd"] < plan["usd_high"]
    assert plan["usd_low"] < 200 * 2 * 0.02 < plan["usd_high"]
    assert sum(one["answers"] for one in plan["models"]) in (399, 400, 401)
    assert told["progress"]["state"] == "off"
    plan["models"][0] |= {"quality": 0.912, "sd": 0.03}
    assert warmlist.show("plan", told, as_json=False) == 0
    shown = capsys.readouterr().out
    assert "200 prompts, each to all other models" in shown
    assert "0.91 +- 0.03" in shown
    warmlist.show("plan", none, as_json=False)
    assert "No plan" in capsys.readouterr().out
    warmlist.show("status", told, as_json=False)
    assert "Off" in capsys.readouterr().out


async def test_status_counts_prompts_and_money(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    async with opened(tmp_path, [says("a", "b", "c")], **ON) as runtime:
        ready(runtime)
        for number in range(2):
            await called(runtime, f"question {number}", **KNOWN)
        await warmed(runtime)
        told = await warm.warm_start(runtime, OWNER, {})
        stands = told["progress"]
        assert (stands["state"], stands["prompts"], stands["prompts_wanted"]) == ("going on", 2, 3)
        assert (stands["answers"], stands["unknown"]) == (4, 0)
        assert stands["cost_usd"] == stands["spent_usd"] == pytest.approx(0.08)
        assert warm.standing(runtime, OWNER) == stands
        await called(runtime, "the last one", **KNOWN)
        await warmed(runtime)
        assert (await warm.warm_start(runtime, OWNER, {}))["progress"]["state"] == "done"
        warmlist.show("status", told, as_json=False)
        shown = capsys.readouterr().out
    assert "2 of 3 prompts, 4 answers" in shown
    assert "0.08 USD of 100 USD" in shown


async def test_a_budget_that_is_spent_is_told(tmp_path: Path) -> None:
    async with opened(tmp_path, [says("a", "b", "c")], **{**ON, "routing__warm_start_budget_usd": 0.1}) as runtime:
        ready(runtime)
        for number in range(2):
            await called(runtime, f"question {number}", **KNOWN)
        await warmed(runtime)
        assert (await warm.warm_start(runtime, OWNER, {}))["progress"]["state"] == "budget"


async def test_a_tenant_sees_its_own_and_no_amounts_of_all(tmp_path: Path) -> None:
    async with opened(tmp_path, [says("a", "b", "c")], **ON) as runtime:
        ready(runtime)
        await called(runtime, "what?", **KNOWN)
        await warmed(runtime)
        told = await warm.warm_start(runtime, Caller(Scope("other", "default"), "operator", "key"), {})
        assert (told["progress"]["prompts"], told["progress"]["cost_usd"]) == (0, 0.0)
        assert told["plan"] is None
        assert (told["progress"]["spent_usd"], told["progress"]["passed_over"], told["findings"]) == (None, {}, [])
        with pytest.raises(AccessError):
            await warm.warm_start(runtime, Caller(Scope(), "viewer", "key"), {})


@pytest.mark.parametrize("arguments", [{"prompts": 0}, {"prompts": "many"}, {"prompts": 10_001}, {"price": 1}])
async def test_wrong_arguments_are_refused(tmp_path: Path, arguments: dict[str, Any]) -> None:
    async with opened(tmp_path, [says("a", "b")], **OFF) as runtime:
        with pytest.raises(InputError):
            await warm.warm_start(runtime, OWNER, arguments)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"points__model__policy": "fixed", "points__model__options": {"action": "a"}}, "learns nothing"),
        ({"points__model__mode": "shadow"}, "set the mode to live"),
    ],
)
async def test_doctor_says_what_keeps_it_from_working(tmp_path: Path, changes: dict[str, Any], words: str) -> None:
    async with opened(tmp_path, [says("a", "b")], **{**ON, **changes}) as runtime:
        report = await doctor.examine(runtime, replay=False)
        assert [finding for finding in report["findings"] if words in finding]


async def test_doctor_names_models_without_a_price(tmp_path: Path) -> None:
    async with opened(tmp_path, [Echo("free"), says("a", "b")], **ON) as runtime:
        (finding,) = warm.findings(runtime)
        assert "free" in finding
    async with opened(tmp_path, [says("a", "b")], **ON) as runtime:
        assert warm.findings(runtime) == []
