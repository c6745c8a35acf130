"""The pages of providers, keys and budgets, and prices, as a browser without script sees them."""

from __future__ import annotations

import doctest
import json
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from tests.golden.application import NOW, key
from tests.unit.server.dashboard.visitor import Page, Visitor, called, folded, visiting
from tests.unit.watch.test_outcomes import FAR, NEAR, ended, tried

from windlass.errors import UpstreamError
from windlass.gateway.access.admission import Caller
from windlass.gateway.access.limits import window
from windlass.gateway.providers.echo import Echo
from windlass.ledger import schema
from windlass.records import Scope
from windlass.runtime import Runtime
from windlass.server import gatewaylist, keys
from windlass.server.budgets import BudgetCount
from windlass.server.dashboard import burning, priced, words
from windlass.watch.spending.forecast import Forecast
from windlass.watch.spending.store import Window

ROOT = Caller(Scope(), "admin", "")
MONTH, ENDS = window("month", NOW)
UPSTREAM = {
    "name": "openai", "base_url": "https://api.openai.com/v1", "api_key_env": "",
    "models": [
        {"name": "gpt-4o"}, {"name": "gpt-4o-mini", "prompt_usd_per_million": 0.2}, {"name": "house <b>tuned</b>"},
    ],
}  # fmt: skip


async def sign_in(visitor: Visitor, secret: str) -> None:
    visitor.cookies.clear()
    page = await visitor.get("/login")
    assert (await visitor.post("/login", page.form("/login") | {"key": secret})).status == 303


def whole(page: Page) -> None:
    """What holds of every page: ids stand once, each drawing has a name and a summary, nothing is styled inline."""
    ids = [named["id"] for _, named in page.tags if "id" in named]
    assert len(ids) == len(set(ids))
    for drawing in page.all("svg"):
        if "role" in drawing:
            assert {drawing["aria-labelledby"], drawing["aria-describedby"]} <= set(ids)
    assert not [named for _, named in page.tags if "style" in named]
    assert not [named for _, named in page.tags if any(name.startswith("on") for name in named)]


def test_the_examples_hold() -> None:
    for module in (words, priced, gatewaylist):
        assert doctest.testmod(module).failed == 0


@pytest.mark.parametrize("address", ["/providers", "/keys", "/prices"])
async def test_without_anything_they_say_how_to_begin(tmp_path: Path, address: str) -> None:
    async with visiting(tmp_path) as (visitor, _):
        page = await visitor.get(address)
        odd = [
            await visitor.get(f"{address}?range=none&before={odd}&after={odd}&name={odd}&provider={odd}&text={odd}")
            for odd in ("%00%ff", "9" * 30, "-1", "<b>x</b>", "x" * 3_000)
        ]
    assert page.status == 200
    whole(page)
    assert {one.status for one in odd} == {200}
    assert not [one for one in odd if "<b>x</b>" in one.body]


async def test_a_failing_provider_stands_first_with_its_cause_and_its_breaker(tmp_path: Path) -> None:
    failing = {"resilience": {"attempts": 1, "breaker": {"failures": 2, "open_s": 60.0}}}
    async with visiting(tmp_path, providers=(Echo("broken", "echo", failing=("broken",)),), **failing) as (
        visitor,
        runtime,
    ):
        await called(runtime)
        for _ in range(3):
            with pytest.raises(UpstreamError):
                await called(runtime, model="broken")
        await folded(runtime)
        page = await visitor.get("/providers?model=broken&provider=echo")
        answer = json.loads((await visitor.get("/api/providers?model=broken")).body)
    whole(page)
    assert "broken echo left alone left alone for" in page.text
    assert "2 attempts failed" in page.text
    assert "Of 2 calls: 2 failed. Its breaker kept 1 attempt away." in page.text
    assert "Nothing: every model" not in page.text
    (one,) = answer["providers"]
    assert (one["standing"], one["failed"], one["skipped"], one["breaker"]["state"]) == ("left_alone", 2, 1, "open")
    assert [(told["failed"], told["calls"], told["whose"]) for told in answer["failing"]] == [(2, 2, "operator")]


async def test_attempts_and_calls_stand_apart(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    async with visiting(tmp_path) as (visitor, runtime):
        thrice = [tried(FAR, "stream_idle"), tried(FAR, "stream_idle"), tried(FAR)]
        await runtime.ledger.append(ended(1, FAR, attempts=thrice, tenant="default"))
        await folded(runtime)
        page = await visitor.get("/providers?range=all")
        answer = json.loads((await visitor.get("/api/providers?since=2000-01-01T00:00:00Z")).body)
    assert "2 attempts failed" in page.text
    assert "Of 1 call: 1 answered by a retry." in page.text
    (over,) = answer["over"]
    assert (over["failed"], over["calls"], over["retried"], over["lost"]) == (2, 1, 1, 0)
    assert gatewaylist.show("providers", answer, as_json=False) == 0
    said = capsys.readouterr().out
    assert "attempts failed" in said
    assert "of 1: 1 answered by a retry" in said


async def test_what_recovered_is_told_and_older_episodes_are_a_link_away(tmp_path: Path) -> None:
    async with visiting(tmp_path) as (visitor, runtime):
        causes = [[tried(FAR, "stream_idle"), tried(FAR)], [tried(FAR, "connection_reset"), tried(NEAR)]]
        outcomes = []
        for number in range(30):
            at = NOW - (30 - number) * 2_000
            who = (FAR, NEAR)[number % 2]
            outcomes += [ended(2 * number, who, attempts=causes[number % 2], at=at, tenant="default")]
            outcomes += [ended(2 * number + 1, at=at + 60, tenant="default")]
        await runtime.ledger.append(*outcomes)
        await runtime.caught_up()
        page = await visitor.get("/providers?range=7d")
        older = await visitor.get(next(a["href"] for a in page.all("a") if a.get("id") == "over-older").split("#")[0])
    whole(page)
    assert "a retry was answered. Of 1 call: 1 answered by a retry." in page.text
    assert "another call was answered. Of 1 call: 1 answered by another model." in page.text
    assert page.text.count("recovered") == 12
    assert older.text.count("recovered") == 12
    assert "over-newest" in older.body
    assert "large far, by hour" in page.text.replace("  ", " ")


async def test_a_viewer_sees_its_own_tenants_providers_alone(tmp_path: Path) -> None:
    pair = [key("v", "acme", role="viewer"), key("o", "globex")]
    async with visiting(tmp_path, providers=(Echo(),), keys=pair) as (visitor, runtime):
        await runtime.ledger.append(ended(1, ("secret-host", "secret-model"), "rate_limited", tenant="globex", at=NOW))
        await folded(runtime)
        await sign_in(visitor, "secret-v")
        mine = await visitor.get("/providers?range=all")
        await sign_in(visitor, "secret-o")
        theirs = await visitor.get("/providers?range=all")
    assert "secret-model" in theirs.text
    assert "secret-" not in mine.text


async def make(runtime: Runtime, name: str, **changes: Any) -> str:
    made = await keys.create(runtime, ROOT, {"name": name, **changes})
    return str(made["api_key"])


async def test_keys_are_listed_with_scopes_expiry_last_use_and_spend(tmp_path: Path) -> None:
    async with visiting(tmp_path, providers=(Echo(),), keys=[key("root", "default", role="admin")]) as (
        visitor,
        runtime,
    ):
        plain = await make(
            runtime, "ann", team="core", models=["gpt-4o*"], endpoints=["chat"], expires="30d", budget_usd=10.0
        )
        gone = await make(runtime, "gone")
        await keys.revoke(runtime, ROOT, {"name": "gone"})
        used = {"extra": {"key": "ann"}, "tenant": "default", "cost_nusd": 1_500_000_000}
        await runtime.ledger.append(
            ended(1, NEAR, at=NOW - 120, **used), ended(2, error="stream_cut", at=NOW - 60, **used)
        )
        await runtime.caught_up()
        runtime.watch.catch_up()
        await sign_in(visitor, "secret-root")
        page = await visitor.get("/keys")
        first = json.loads(
            (await visitor.send("POST", "/api/keys", b"{}", {"authorization": "Bearer secret-root"})).body
        )
    whole(page)
    assert "gpt-4o* chat; default core in 30 d" in page.text
    assert "60 s ago 2 1 failed $3.00" in page.text
    assert "gone revoked" in page.text
    assert "root admin, of the settings" in page.text
    assert "budget of the key key ann" in page.text
    for secret in (plain, gone, "secret-root"):
        assert secret not in page.body
    use = {one["name"]: one["use"] for one in first["keys"]}
    assert use["ann"] == {"calls": 2, "errors": 1, "cost_nusd": 3_000_000_000, "last_at": NOW - 60}
    assert use["gone"] == {"calls": 0, "errors": 0, "cost_nusd": 0, "last_at": None}


async def test_who_is_no_admin_sees_the_own_key_alone(tmp_path: Path) -> None:
    pair = [key("v", "default", role="viewer"), key("o", "globex", role="admin")]
    async with visiting(tmp_path, keys=pair) as (visitor, runtime):
        plain = await make(runtime, "look", role="viewer", budget_usd=5.0)
        await make(runtime, "ann", budget_usd=7.0)
        await make(runtime, "elsewhere", workspaces=["w"])
        seen = {}
        for name, secret in (("look", plain), ("v", "secret-v"), ("o", "secret-o")):
            await sign_in(visitor, secret)
            page = await visitor.get("/keys")
            rows = page.text.split("Keys yours")[-1].split("Budgets")[0]
            seen[name] = {one for one in ("look", "ann", "elsewhere") if f"{one} wl-" in rows}
            assert ("key ann" in page.text, "key look" in page.text) == (False, name == "look")
    assert seen == {"look": {"look"}, "v": set(), "o": set()}


async def test_a_budget_burns_down_with_a_forecast(tmp_path: Path) -> None:
    each = {"name": "each user", "per": "user", "window": "day", "usd": 1.0}
    limits = [{"name": "month", "window": "month", "usd": 100.0}, each]
    async with visiting(tmp_path, limits=limits) as (visitor, runtime):
        grown = [(MONTH + (NOW - MONTH) * n / 20, n * 4 * 10**9) for n in range(1, 20)]
        for at, nusd in grown:
            with runtime.db.write() as connection:
                row = {"name": "month", "grp": "", "since": MONTH, "worker": "w", "nusd": nusd}
                connection.execute(runtime.db.replace(schema.spend, "name", "grp", "since", "worker"), row)
            runtime.watch.spending.sample({"month": [Window(MONTH, 60.0)]}, at)
        with runtime.db.write() as connection:
            day = window("day", NOW)[0]
            connection.execute(
                sa.insert(schema.spend),
                [
                    {"name": "each user", "grp": f"default/u{n}", "since": day, "worker": "w", "nusd": n * 10**7}
                    for n in range(60)
                ],
            )
        runtime.watch.spending.refuse(Scope(), "month", "", NOW)
        page = await visitor.get("/keys")
        users = await visitor.get("/keys?name=each+user")
    whole(page)
    whole(users)
    assert "month 1 call refused" in page.text
    assert "Used $76.00 Reserved $0 Left $24.00 of $100.00" in page.text
    assert "it will be spent between" in page.text
    assert page.text.count("user u") == 5
    assert users.text.count("user u") == 50
    assert "user u59" in page.text, "the fullest first"
    assert [one for one in page.all("path") if one.get("class") == "fan"]


def count(**changes: Any) -> BudgetCount:
    fields: dict[str, Any] = {
        "name": "b", "measure": "usd", "window": "month", "per": "all", "about": {}, "group": "", "of_key": "",
        "most": 10 * 10**9, "used": 4 * 10**9, "held": 0, "left": 6 * 10**9, "since": 0.0, "ends": 10 * 86_400.0,
        "series": ((0.0, 0), (4 * 86_400.0, 4 * 10**9)), "forecast": None,
    }  # fmt: skip
    return BudgetCount(**{**fields, **changes})


def seen(
    at: float | None, low: float | None, high: float | None, chance: float = 0.5, per_day: float = 1e9
) -> Forecast:
    days = [None if value is None else value * 86_400 for value in (at, low, high)]
    return Forecast(at=days[0], low_at=days[1], high_at=days[2], chance=chance, per_day=per_day)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({}, "Too little has been spent"),
        ({"left": 0}, "It is spent; the next window begins on 11 Jan."),
        ({"left": 0, "ends": None}, "It is spent."),
        ({"forecast": seen(None, None, None, per_day=0.0)}, "Nothing is being spent"),
        ({"forecast": seen(8, 7, 9)}, "At $1.00 a day it will be spent between 8 Jan and 10 Jan (80 % sure)."),
        ({"forecast": seen(20, 15, 30)}, "it lasts until its window ends on 11 Jan."),
        ({"forecast": seen(9, 8, 12)}, "from 9 Jan on, with a chance of 50 % that it is spent before its window ends"),
        ({"forecast": seen(9, 8, None), "ends": None}, "from 9 Jan on, or never."),
    ],
)
def test_a_forecast_claims_no_more_than_its_interval(changes: dict[str, Any], says: str) -> None:
    one = count(**changes)
    now = 4 * 86_400.0
    assert says in burning.outlook(one, now).replace(words.NBSP, " ")
    drawing = str(burning.burn_down("x", one, now))
    assert "nan" not in drawing
    assert "inf" not in drawing
    assert "<title" in drawing


@pytest.mark.parametrize("most", [0, 1, 10**18])
def test_odd_budgets_are_drawn_all_the_same(most: int) -> None:
    one = count(most=most, used=2 * most, held=10**9, left=0, forecast=seen(4, 4, 4, 1.0))
    assert "rect" in burning.bar(one)
    assert "nan" not in burning.burn_down("x", one, 4 * 86_400.0)


async def test_prices_in_force_say_what_is_set_what_is_published_and_what_nobody_knows(tmp_path: Path) -> None:
    async with visiting(tmp_path, upstreams=[UPSTREAM]) as (visitor, _):
        page = await visitor.get("/prices")
    whole(page)
    assert "No price is known of house <b>tuned</b>." in page.text
    assert "<b>tuned" not in page.body
    own = page.text.split("Published")[0]
    assert "gpt-4o openai 2.5 10 1.25" in own
    assert "gpt-4o-mini openai 0.2 0.6" in own
    assert "settings input; the rest as openai / gpt-4o-mini" in own
    assert own.count("no price known") == 1


async def test_prices_are_searched_and_paged(tmp_path: Path) -> None:
    async with visiting(tmp_path) as (visitor, _):
        found = await visitor.get("/prices?text=gpt-4o&provider=openai")
        differ = await visitor.get("/prices?differ=1")
        none = await visitor.get("/prices?text=no-such-model-%3Cb%3E")
        rows, address = 0, "/prices?text=gpt-4"
        while address:
            page = await visitor.get(address)
            rows += len(page.all("tr")) - 1
            address = next((a["href"] for a in page.all("a") if a.get("id") == "prices-more"), "").split("#")[0]
        got = json.loads((await visitor.get("/api/prices?model=gpt-4&limit=50")).body)
        after = f"{got['prices'][-1]['provider']}/{got['prices'][-1]['model']}"
        following = json.loads(
            (
                await visitor.send("POST", "/api/prices", json.dumps({"model": "gpt-4", "after": after}).encode(), {})
            ).body
        )
    whole(found)
    whole(differ)
    assert found.text.split("By, and more")[1].strip().startswith("gpt-4o openai 2.5 10 1.25")
    assert "genai-prices differs in" in differ.text
    assert "No published price fits" in none.text
    assert following["begin"] == 50
    assert rows == got["found"] > 100
    assert not {one["model"] + one["provider"] for one in got["prices"]} & {
        one["model"] + one["provider"] for one in following["prices"]
    }
