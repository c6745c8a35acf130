"""Keys and sign-ins that were refused are in the audit trail, counted, and never in clear."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
from tests.golden.application import Client, chat, key, opened
from tests.unit.server.dashboard.visitor import visiting

from windlass.ledger.ledger import ALL
from windlass.runtime import Runtime
from windlass.server.app import Windlass

KEYS = (key("ann", "acme"), key("bob", "bolt", role="viewer"))


def _refused(runtime: Runtime) -> list[dict[str, Any]]:
    """Every origin in the trail, oldest first."""
    rows = [row for row in runtime.audit.rows(ALL, limit=100) if row.action == "refused"]
    return [origin for row in reversed(rows) for origin in msgspec.json.decode(row.detail)["from"]]


async def test_every_door_that_refuses_leaves_a_count(tmp_path: Path) -> None:
    async with opened(tmp_path, keys=KEYS) as runtime:
        client = Client(Windlass(runtime, token="folder-token"))
        for path in ("/v1/chat/completions", "/v1/feedback", "/api/calls"):
            assert (await client.post(path, chat(), authorization="Bearer wl-guessed")).status == 401
        assert (await client.get("/v1/models")).status == 401
        refused = await client.post("/api/forget", {"user": "u"}, authorization="Bearer secret-bob")
        assert refused.status in (401, 403)
        assert (await client.get("/v1/models", authorization="Bearer secret-ann")).status == 200
        assert len(_refused(runtime)) == 1, "the first at once, the rest within the minute"
        runtime.refusals.flush(last=True)
        found = _refused(runtime)
        trail = str(runtime.audit.rows(ALL))
    assert sum(origin["count"] for origin in found) == 5
    assert len({origin["key_sha256"] for origin in found}) == 3
    assert len({origin["reason"] for origin in found}) == 3
    assert not any(secret in trail for secret in ("wl-guessed", "secret-"))


async def test_a_refused_sign_in_is_there_too(tmp_path: Path) -> None:
    async with visiting(tmp_path, keys=KEYS) as (visitor, runtime):
        page = await visitor.get("/login")
        assert (await visitor.post("/login", page.form("/login") | {"key": "wl-guessed"})).status == 401
        (origin,) = _refused(runtime)
        assert "wl-guessed" not in str(runtime.audit.rows(ALL))
    assert origin["count"] == 1
    assert len(origin["key_sha256"]) == 8


async def test_a_stop_writes_what_was_counted(tmp_path: Path) -> None:
    async with opened(tmp_path, keys=KEYS) as runtime:
        client = Client(Windlass(runtime))
        for number in range(7):
            await client.get("/v1/models", authorization=f"Bearer guess-{number}")
    async with opened(tmp_path, keys=KEYS) as runtime:
        assert sum(origin["count"] for origin in _refused(runtime)) == 7
