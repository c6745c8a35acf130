"""What people decide: only with the role, for their own workspace, and recorded twice."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.golden.application import Client, chat, key, opened

from windlass.ledger.ledger import ALL
from windlass.records import Decision, Erasure, Scope
from windlass.runtime import Runtime
from windlass.server.app import Windlass
from windlass.testing import Echo

KEYS = [key("view", "acme", role="viewer"), key("op", "acme"), key("boss", "acme", role="admin"), key("far", "other")]


def _client(runtime: Runtime, name: str) -> Client:
    return Client(Windlass(runtime, token="folder-token"), bearer=f"secret-{name}")


async def test_a_mode_is_switched_by_an_operator_for_the_own_tenant(tmp_path: Path) -> None:
    async with opened(tmp_path, [Echo("a", "b")], keys=KEYS) as runtime:
        wanted = {"point": "model", "mode": "off", "reason": "quiet please"}
        assert (await _client(runtime, "view").post("/api/mode", wanted)).status == 401
        response = await _client(runtime, "op").post("/api/mode", wanted)
        assert response.status == 200
        assert runtime.loop.mode("model", Scope("acme", "default")) == "off"
        assert runtime.loop.mode("model", Scope("other", "default")) == "live"
        (made,) = [e.record for e in runtime.ledger.read(ALL) if isinstance(e.record, Decision)]
        assert (made.action, made.extra) == ("model:mode=off", {"by": "key:op", "reason": "quiet please"})
        (row,) = runtime.audit.rows(Scope("acme", "default"))
        assert (row.actor, row.action) == ("key:op", "rollout")
        assert "quiet please" in row.detail
        assert not runtime.audit.rows(Scope("other", "default"))


@pytest.mark.parametrize(
    ("operation", "wanted"),
    [
        ("mode", {"point": "nope", "mode": "off"}),
        ("mode", {"point": "model", "mode": "sideways"}),
        ("mode", {"point": "model"}),
        ("mode", {"point": "model", "mode": "off", "reason": "x" * 2_000}),
        ("rollback", {"point": "model", "snapshot": 77}),
        ("rollback", {"point": "model", "snapshot": "x"}),
        ("rollback", {"point": "model", "snapshot": -1}),
        ("rollback", {"point": "nope", "snapshot": 0}),
        ("rollback", {"point": "model", "snapshot": 2**63}),
        ("rollback", {"point": "model", "snapshot": 0, "reason": "\x00"}),
        ("mode", {"point": "model", "mode": "off", "reason": "a\x00b"}),
        ("forget", {"user": "ann", "reason": "x" * 2_000}),
        ("forget", {"user": "ann", "reason": "\x00"}),
        ("forget", {"user": ""}),
        ("forget", {}),
        ("snapshots", {"point": "model"}),
    ],
)
async def test_nonsense_is_refused_and_changes_nothing(tmp_path: Path, operation: str, wanted: dict[str, str]) -> None:
    async with opened(tmp_path, [Echo("a", "b")], keys=KEYS) as runtime:
        response = await _client(runtime, "boss").post(f"/api/{operation}", wanted)
        assert response.status == 400
        assert not runtime.ledger.read(ALL)
        assert not runtime.audit.rows(Scope("acme", "default"))


async def test_a_policy_is_rolled_back_to_nothing_and_to_a_snapshot(tmp_path: Path) -> None:
    async with opened(tmp_path, [Echo("a", "b")], keys=KEYS) as runtime:
        operator = _client(runtime, "op")
        assert (await operator.post("/v1/chat/completions", chat(model="auto"))).status == 200
        await runtime.caught_up()
        runtime.projections.keep()
        learned = runtime.loop.states()
        assert learned
        assert (await operator.post("/api/rollback", {"point": "model", "snapshot": 0})).status == 200
        assert runtime.loop.states() != learned
        listed = (await operator.post("/api/snapshots", {})).json["snapshots"]
        assert listed[0]["snapshot"] > 0
        back = {"point": "model", "snapshot": listed[0]["snapshot"], "reason": "it was better"}
        assert (await operator.post("/api/rollback", back)).status == 200
        assert runtime.loop.states() == learned


async def test_only_an_admin_makes_the_ledger_forget(tmp_path: Path) -> None:
    async with opened(tmp_path, [Echo("a", "b")], keys=KEYS) as runtime:
        for name in ("op", "far"):
            assert (
                await _client(runtime, name).post("/v1/chat/completions", chat(model="auto", user="ann"))
            ).status == 200
        wanted = {"user": "ann", "reason": "asked for it"}
        assert (await _client(runtime, "op").post("/api/forget", wanted)).status == 401
        response = await _client(runtime, "boss").post("/api/forget", wanted)
        assert response.json["changed"] > 0
        left = {trace.call.tenant: trace.call.user for trace in runtime.ledger.calls(ALL)}
        assert left == {"acme": "", "other": "ann"}, "another tenant's user of the same name stays"
        assert [e.record for e in runtime.ledger.read(ALL) if isinstance(e.record, Erasure)]
        (row,) = runtime.audit.rows(Scope("acme", "default"))
        assert (row.actor, row.action) == ("key:boss", "forget")
        assert "ann" not in row.detail.replace("changed", "")
