"""How limits stand, for whom: what an admin sees, what a viewer sees, and what neither sees of another tenant."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from tests.golden.application import NOW, Client, chat, key
from tests.unit.server.dashboard.visitor import Visitor, called, visiting

from windlass.errors import LimitReached
from windlass.gateway.access.limits import window
from windlass.gateway.providers.echo import Echo
from windlass.ledger import schema
from windlass.runtime import Runtime
from windlass.watch.spending.store import Window

DAY = window("day", NOW)[0]
KEYS = [key("boss", "acme", role="admin"), key("ann", "acme"), key("look", "acme", role="viewer"), key("o", "globex")]
LIMITS = [
    {"name": "everybody", "window": "day", "usd": 10.0},
    {"name": "each tenant", "window": "day", "usd": 5.0, "per": "tenant"},
    {"name": "each key", "window": "day", "usd": 2.0, "per": "key"},
    {"name": "each user", "window": "day", "requests": 3, "per": "user"},
    {"name": "acme's", "tenant": "acme", "window": "day", "usd": 4.0},
    {"name": "globex's", "tenant": "globex", "window": "day", "usd": 4.0},
    {"name": "ann's", "key": "ann", "tenant": "acme", "window": "total", "usd": 4.0, "concurrent": 2},
]


def spend(runtime: Runtime, name: str, group: str, nusd: int, since: int = DAY) -> None:
    row = {"name": name, "grp": group, "since": since, "worker": "elsewhere", "nusd": nusd}
    with runtime.db.write() as connection:
        connection.execute(sa.insert(schema.spend), row)


async def asked(visitor: Visitor, secret: str, **arguments: Any) -> dict[str, Any]:
    headers = {"authorization": f"Bearer {secret}", "content-type": "application/json"}
    page = await visitor.send("POST", "/api/budgets", json.dumps(arguments).encode(), headers)
    assert page.status == 200, page.body
    found: dict[str, Any] = json.loads(page.body)
    return found


def by_name(found: dict[str, Any]) -> dict[tuple[str, str], Any]:
    return {(one["name"], one["group"]): one for one in found["budgets"] if one["measure"] != "concurrent"}


async def test_each_sees_what_is_about_it_and_nobody_what_others_share(tmp_path: Path) -> None:
    async with visiting(tmp_path, providers=(Echo(),), keys=KEYS, limits=LIMITS) as (visitor, runtime):
        for tenant, nusd in (("acme", 3), ("globex", 4)):
            spend(runtime, "each tenant", tenant, nusd)
        for name in ("boss", "ann", "look"):
            spend(runtime, "each key", f"acme/{name}", 7)
        spend(runtime, "each key", "globex/o", 8)
        spend(runtime, "each key", "acme/gone", 8)
        spend(runtime, "everybody", "", 22)
        spend(runtime, "acme's", "", 5)
        admin, viewer, other = [by_name(await asked(visitor, f"secret-{name}")) for name in ("boss", "look", "o")]
    assert {name for name, _ in admin} == {one["name"] for one in LIMITS} - {"globex's"}
    assert {group for name, group in admin if name == "each key"} == {"boss", "ann", "look"}
    assert admin["each tenant", "acme"]["used"] == 3
    assert admin["acme's", ""]["used"] == 5
    assert admin["everybody", ""]["used"] is admin["everybody", ""]["left"] is None, "globex counts against it too"
    assert {name for name, _ in viewer} == {"everybody", "each tenant", "each key", "acme's", "each user"}
    assert {group for name, group in viewer if name == "each key"} == {"look"}
    assert {name for name, _ in other} == {"everybody", "each tenant", "each key", "globex's", "each user"}
    assert other["each tenant", "globex"]["used"] == 4
    assert {group for name, group in other if name == "each key"} == {"o"}


async def test_what_all_share_is_shown_where_there_is_one_tenant(tmp_path: Path) -> None:
    async with visiting(tmp_path, providers=(Echo(),), keys=KEYS[:3], limits=LIMITS) as (visitor, runtime):
        spend(runtime, "everybody", "", 22)
        assert by_name(await asked(visitor, "secret-look"))["everybody", ""]["used"] == 22


async def test_calls_under_way_are_held_and_rates_counted(tmp_path: Path) -> None:
    async with visiting(tmp_path, providers=(Echo(),), limits=LIMITS) as (visitor, runtime):
        await called(runtime)
        (used,) = [one for one in runtime.gateway.limits.counts() if one.place.measure == "requests"]
        assert used.used == 1
        used.held = 1
        (one,) = [one for one in (await asked(visitor, "", name="each user"))["budgets"] if one["group"] == ""]
    assert (one["used"], one["held"], one["left"], one["most"]) == (1, 1, 1, 3)
    assert one["series"] == []


async def test_a_budget_tells_its_series_and_its_forecast(tmp_path: Path) -> None:
    async with visiting(tmp_path, limits=LIMITS) as (visitor, runtime):
        sampling = runtime.watch.spending
        for hour in range(1, 8):
            with runtime.db.write() as connection:
                connection.execute(sa.delete(schema.spend))
            spend(runtime, "everybody", "", hour * 10**9)
            sampling.sample({"everybody": [Window(DAY, 60.0)]}, DAY + hour * 3_600.0)
        (one,) = (await asked(visitor, "", name="everybody"))["budgets"]
    assert one["series"][0] == [DAY, 0]
    assert one["series"][-1] == [NOW, 7 * 10**9]
    assert len(one["series"]) == 9
    assert one["forecast"]["low_at"] <= one["forecast"]["at"] <= one["forecast"]["high_at"]
    assert one["ends"] == DAY + 86_400


async def test_what_a_limit_refused_is_told_to_its_tenant(tmp_path: Path) -> None:
    limits = [{"name": "few", "window": "day", "requests": 1, "per": "key"}]
    async with visiting(tmp_path, providers=(Echo(),), keys=KEYS, limits=limits) as (visitor, runtime):
        client = Client(visitor.app, bearer="secret-ann")
        sent = [await client.post("/v1/chat/completions", chat("hello", "echo")) for _ in range(3)]
        assert [page.status for page in sent] == [200, 429, 429]
        with pytest.raises(LimitReached):
            await called(runtime, key="secret-ann")
        admin, viewer, other = [
            (await asked(visitor, f"secret-{name}"))["refused"] for name in ("boss", "look", "o")
        ]  # fmt: skip
    assert [(one["limit"], one["key"], one["refused"]) for one in admin] == [("few", "ann", 2)]
    assert viewer == other == []


@pytest.mark.parametrize("wrong", [{"limit": 0}, {"limit": "x"}, {"since": "soon"}, {"nmae": "x"}, {"name": 5}])
async def test_wrong_arguments_are_refused(tmp_path: Path, wrong: dict[str, Any]) -> None:
    async with visiting(tmp_path) as (visitor, _):
        for operation in ("budgets", "providers"):
            page = await visitor.send("POST", f"/api/{operation}", json.dumps(wrong).encode(), {})
            if operation == "budgets" or "name" not in wrong:
                assert page.status == 400
