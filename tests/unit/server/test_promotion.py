"""Who decides at a point, as people say it: promoted shadows and actions taken always; by role, and for all to see."""

from __future__ import annotations

import doctest
from pathlib import Path
from typing import Any

import pytest
from tests.golden.application import Client, chat, opened
from tests.unit.server.trying import KEYS, POINT, client

from windlass.ledger.ledger import ALL
from windlass.records import Decision, Scope
from windlass.server import control, points, routing, terminal
from windlass.server.app import Windlass
from windlass.testing import Echo


async def _answered(one: Client) -> str:
    return (await one.post("/v1/chat/completions", chat(model="auto"))).headers["x-windlass-model"]


async def _standing(one: Client) -> dict[str, Any]:
    (found,) = (await one.post("/api/points", {"point": "model"})).json["points"]
    return dict(found)


async def test_a_shadow_is_promoted_for_one_tenant_and_taken_back(tmp_path: Path) -> None:
    async with opened(tmp_path, [Echo("a", "b")], keys=KEYS, **POINT) as runtime:
        operator = client(runtime, "op")
        wanted = {"point": "model", "shadow": "bold", "reason": "ahead for a week"}
        assert (await client(runtime, "view").post("/api/promote", wanted)).status == 401
        assert await _answered(operator) == "a"
        made = (await operator.post("/api/promote", wanted)).json
        assert made["told"] == "model: the policy in shadow bold decides"
        assert made["decision"]["extra"] == {"by": "key:op", "reason": "ahead for a week"}
        assert await _answered(operator) == "b"
        assert await _answered(client(runtime, "far")) == "a", "another tenant goes on as it was"
        (row,) = runtime.audit.rows(Scope("acme", "default"))
        assert (row.actor, row.action) == ("key:op", "rollout")
        assert (await operator.post("/api/promote", {"point": "model", "shadow": "settings"})).status == 200
        assert await _answered(operator) == "a"


async def test_an_action_is_taken_always_until_the_settings_rule_again(tmp_path: Path) -> None:
    async with opened(tmp_path, [Echo("a", "b")], keys=KEYS, **POINT) as runtime:
        operator = client(runtime, "op")
        assert (await operator.post("/api/always", {"point": "model", "action": "b"})).status == 200
        assert await _answered(operator) == "b"
        standing = await _standing(operator)
        assert standing["standing"] == {"shadow": "", "action": "b", "experiment": "", "told": "always b"}
        assert standing["changes"][0]["told"] == "always b"
        assert (await operator.post("/api/promote", {"point": "model", "shadow": "settings"})).status == 200
        standing = await _standing(operator)
        assert standing["standing"]["told"] == ""
        assert [change["told"] for change in standing["changes"]] == ["its own policy decides again", "always b"]


@pytest.mark.parametrize(
    ("operation", "wanted"),
    [
        ("promote", {}),
        ("promote", {"point": "model"}),
        ("promote", {"point": "model", "shadow": ""}),
        ("promote", {"point": "model", "shadow": 5}),
        ("promote", {"point": "model", "shadow": "none of them"}),
        ("promote", {"point": "model", "shadow": "bold", "reason": "x" * 1_001}),
        ("promote", {"point": "model", "shadow": "bold", "reason": "\x00"}),
        ("promote", {"point": "nope", "shadow": "bold"}),
        ("promote", {"point": "rollout", "shadow": "settings"}),
        ("promote", {"point": "model", "shadow": "x" * 100_000}),
        ("promote", {"point": "model", "shadow": "bold", "force": True}),
        ("always", {"point": "model", "action": "c"}),
        ("always", {"point": "model", "action": "a\n"}),
        ("always", {"point": "model", "action": "auto"}),
        ("always", {"point": "model", "action": None}),
        ("always", {"point": "answer", "action": "perhaps"}),
        ("always", {"point": "nope", "action": "a"}),
    ],
)
async def test_nonsense_is_refused_and_changes_nothing(tmp_path: Path, operation: str, wanted: dict[str, Any]) -> None:
    async with opened(tmp_path, [Echo("a", "b")], keys=KEYS, **POINT) as runtime:
        assert (await client(runtime, "op").post(f"/api/{operation}", wanted)).status == 400
        assert not runtime.ledger.read(ALL)
        assert not runtime.audit.rows(Scope("acme", "default"))


async def test_a_key_is_told_of_no_model_that_it_may_not_use(tmp_path: Path) -> None:
    async with opened(tmp_path, [Echo("a", "b", "hidden")], **POINT) as runtime:
        caller = control.Caller(Scope(), "operator", "narrow", models=("a", "b"))
        for action in ("hidden", "none"):
            with pytest.raises(control.InputError) as refused:
                await control.always(runtime, caller, {"point": "model", "action": action})
            assert str(refused.value) == f"{action!r} is no action of the point model; there are: a, b"


async def test_the_terminal_says_what_was_changed_and_what_acts_now(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async with opened(tmp_path, [Echo("a", "b")], keys=KEYS, **POINT) as runtime:
        operator = client(runtime, "op")
        made = (await operator.post("/api/promote", {"point": "model", "shadow": "bold"})).json
        found = (await operator.post("/api/points", {"point": "model"})).json
        looked = (await operator.post("/api/route", {"prompt": "why?"})).json
    assert terminal.show("promote", made, as_json=False) == 0
    assert "model: the policy in shadow bold decides; recorded as decision_" in capsys.readouterr().out
    terminal.show("points", found, as_json=False)
    assert "now at model: the policy in shadow bold decides" in capsys.readouterr().out
    assert looked["standing"]["shadow"] == "bold"
    assert {one["model"]: one["chance"] for one in looked["models"]} == {"a": 0.0, "b": 1.0}
    routing.show(looked, as_json=False)
    assert "now: the policy in shadow bold decides" in capsys.readouterr().out


async def test_a_promoted_shadow_that_the_settings_have_no_more_is_named(tmp_path: Path) -> None:
    async with opened(tmp_path, [Echo("a", "b")], **POINT) as runtime:
        await control.promote(runtime, control.Caller(Scope(), "admin", ""), {"point": "model", "shadow": "bold"})
        await runtime.caught_up()
    async with opened(tmp_path, [Echo("a", "b")], **{**POINT, "points__model__shadows": []}) as runtime:
        await runtime.caught_up()
        (made,) = [e.record for e in runtime.ledger.read(ALL) if isinstance(e.record, Decision)]
        assert points.changed(made) is not None
        assert await _answered(Client(Windlass(runtime))) == "a"


def test_the_examples_in_the_words_hold() -> None:
    assert doctest.testmod(points).failed == 0
