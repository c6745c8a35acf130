"""The calls pages as a browser without script sees them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tests.golden.application import key
from tests.unit.server.dashboard.visitor import Page, Visitor, called, folded, visiting

from windlass.errors import UpstreamError
from windlass.gateway.providers.echo import Echo
from windlass.policies.linear import LinearThompson
from windlass.records import Call, Feedback, Outcome, Scope
from windlass.runtime import Runtime
from windlass.server import lookback

EVIL = "<script>alert(1)</script><b>&\"'"


async def say(visitor: Visitor, call: str, **fields: str) -> Any:
    page = await visitor.get(f"/calls/{call}")
    form = page.form(f"/calls/{call}/feedback")
    whole = form | {"kind": "rating", "value": "1", "source": "user", "metric": "quality", "comment": ""} | fields
    return await visitor.post(f"/calls/{call}/feedback", whole)


def linked(page: Page, name: str) -> str:
    """Where the link with this id goes; '' where there is none."""
    return next((link["href"] for link in page.all("a") if link.get("id") == name), "")


def given(runtime: Runtime, call: str) -> list[Feedback]:
    trace = runtime.ledger.trace(Scope(), call)
    assert trace is not None
    return [said for said in trace.feedback if said.source != "qa"]


async def test_an_empty_list_says_so_and_a_filter_that_fits_nothing_leads_back(tmp_path: Path) -> None:
    async with visiting(tmp_path) as (visitor, _):
        empty = await visitor.get("/calls")
        filtered = await visitor.get("/calls?model=none&range=1h")
    assert "No call has been made yet" in empty.text
    assert "No call fits the filter" in filtered.text
    assert "Show all calls" in filtered.text


async def test_calls_are_found_by_filter_and_words(tmp_path: Path) -> None:
    async with visiting(tmp_path, providers=(Echo("echo", "broken", failing=("broken",)),)) as (visitor, runtime):
        good = await called(runtime)
        with pytest.raises(UpstreamError):
            await called(runtime, model="broken")
        await folded(runtime)
        shown = {
            query: good in (await visitor.get(f"/calls?{query}")).body
            for query in ("", "model=echo", "error=none", "error=any", f"text={good}", "text=%25", "user=x", "range=1h")
        }
        errors = await visitor.get("/calls?error=any")
    assert shown == {
        "": True,
        "model=echo": True,
        "error=none": True,
        "error=any": False,
        f"text={good}": True,
        "text=%25": False,
        "user=x": False,
        "range=1h": True,
    }
    assert "broken" in errors.text
    assert [one for one in errors.all("option") if one.get("value") == "any" and "selected" in one]


async def test_pages_keep_the_filter_and_show_every_call_once(tmp_path: Path) -> None:
    async with visiting(tmp_path) as (visitor, runtime):
        for n in range(120):
            call = Call(id=f"call_{n:03}", at=runtime.clock() - 200 + n, endpoint="chat", model="m", user="ann")
            await runtime.ledger.append(call)
        await folded(runtime)
        seen: list[str] = []
        address = "/calls?user=ann&range=24h"
        while address:
            page = await visitor.get(address)
            seen += [one["id"] for one in page.all("a") if one.get("id", "").startswith("call_")]
            address = next((one["href"].split("#")[0] for one in page.all("a") if one.get("id") == "calls-older"), "")
            assert not address or "user=ann" in address
    assert seen == [f"call_{n:03}" for n in reversed(range(120))]


@pytest.mark.parametrize("query", ["before=%00%ff", "text=%00", "error=nonsense", "range=x", "model=" + "x" * 5000])
async def test_odd_filters_are_pages_too(tmp_path: Path, query: str) -> None:
    async with visiting(tmp_path, providers=(Echo(),)) as (visitor, runtime):
        await called(runtime)
        assert (await visitor.get(f"/calls?{query}")).status == 200


async def test_one_call_tells_why_with_the_numbers(tmp_path: Path) -> None:
    async with visiting(tmp_path, providers=(Echo("echo", "parrot"),)) as (visitor, runtime):
        call = await called(runtime, EVIL, "auto")
        page = await visitor.get(f"/calls/{call}")
    assert page.status == 200
    assert "linear_thompson@1 chose" in page.text
    assert "with a chance of 50 %, which left 50 % to 1 other" in page.text
    assert "Known today: expected reward" in page.text
    assert EVIL in page.text
    assert EVIL not in page.body
    assert "+0.0 ms Asked" in page.text
    for drawing in page.all("svg"):
        assert drawing.get("aria-hidden") == "true" or drawing["role"] == "img"


async def test_a_call_of_somebody_else_is_no_call(tmp_path: Path) -> None:
    keys = [key("a", "acme"), key("b", "globex")]
    async with visiting(tmp_path, providers=(Echo(),), keys=keys) as (visitor, runtime):
        call = await called(runtime, key="secret-b")
        login = await visitor.get("/login")
        await visitor.post("/login", login.form("/login") | {"key": "secret-a"})
        pages = [await visitor.get(address) for address in (f"/calls/{call}", "/calls/nothing", "/calls/%00")]
        listed = await visitor.get("/calls")
    assert [page.status for page in pages] == [404, 404, 404]
    assert call not in listed.body


async def test_what_is_long_is_cut_and_what_is_gone_is_said(tmp_path: Path) -> None:
    async with visiting(tmp_path, providers=(Echo(),)) as (visitor, runtime):
        long = await called(runtime, "x" * 50_000)
        page = await visitor.get(f"/calls/{long}")
        runtime.ledger.prune(runtime.clock() + 1e9)
        later = await visitor.get(f"/calls/{long}")
    assert len(page.body) < 70_000
    assert "30,000 characters more" in page.text
    assert "What was said is no longer kept" in later.text


async def test_feedback_from_the_page_is_in_the_ledger_once(tmp_path: Path) -> None:
    async with visiting(tmp_path, providers=(Echo(),)) as (visitor, runtime):
        call = await called(runtime)
        page = await visitor.get(f"/calls/{call}")
        form = page.form(f"/calls/{call}/feedback") | {"kind": "complaint", "source": "manager", "comment": EVIL}
        first = await visitor.post(f"/calls/{call}/feedback", form)
        await visitor.post(f"/calls/{call}/feedback", form)
        (said,) = given(runtime, call)
        after = await visitor.get(first.location.split("#")[0])
    assert (first.status, said.kind, said.source, said.value, said.comment) == (303, "complaint", "manager", None, EVIL)
    assert "Thank you. Your complaint is in the ledger" in after.text
    assert EVIL in after.text
    assert EVIL not in after.body


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        ({"token": "old"}, 403),
        ({"nonce": "x"}, 400),
        ({"kind": "shout"}, 400),
        ({"source": "system"}, 400),
        ({"value": "7"}, 400),
        ({"value": "nan"}, 400),
        ({"kind": "correction"}, 400),
        ({"kind": "praise", "comment": "a\x00b"}, 400),
        ({"metric": "x" * 200}, 400),
    ],
)
async def test_feedback_that_makes_no_sense_is_refused(tmp_path: Path, fields: dict[str, str], status: int) -> None:
    async with visiting(tmp_path, providers=(Echo(),)) as (visitor, runtime):
        call = await called(runtime)
        assert (await say(visitor, call, **fields)).status == status
        assert given(runtime, call) == []


async def test_a_call_without_an_outcome_is_running(tmp_path: Path) -> None:
    async with visiting(tmp_path) as (visitor, runtime):
        await runtime.ledger.append(Call(id="call_1", at=runtime.clock(), endpoint="chat", model="m"))
        page = await visitor.get("/calls/call_1")
        await runtime.ledger.append(
            Outcome(
                id="outcome_1", at=runtime.clock(), call="call_1", model="m", provider="p", status=500, latency_ms=0.0,
                first_byte_ms=0.0, prompt_tokens=0, completion_tokens=0, cost_nusd=0, error="rate_limited",
            )
        )  # fmt: skip
        failed = await visitor.get("/calls/call_1")
    assert "running" in page.text
    assert "Nothing was decided" in page.text
    assert "rate limited" in failed.text


async def test_a_policy_that_cannot_explain_itself_still_has_its_pages(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def mute(*_: object) -> None:
        raise RuntimeError("no words")

    async with visiting(tmp_path, providers=(Echo("echo"),)) as (visitor, runtime):
        call = await called(runtime)
        pages = "/", "/decisions", "/decisions/model", f"/calls/{call}"
        before = [await visitor.get(page) for page in pages]
        monkeypatch.setattr(LinearThompson, "explain", mute)
        after = [await visitor.get(page) for page in pages]
    assert [page.status for page in before + after] == [200] * 8
    told = "could not explain what it knows today"
    assert [told in page.text for page in before] == [False] * 4
    assert [told in page.text for page in after] == [True, False, False, True]


async def test_a_search_that_stops_short_offers_to_look_further_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lookback, "SEARCHED", 2)
    async with visiting(tmp_path, providers=(Echo("echo"),)) as (visitor, runtime):
        made = [await called(runtime) for _ in range(5)]
        pages = [await visitor.get(f"/calls?text={made[0]}")]
        while onward := linked(pages[-1], "calls-further"):
            pages.append(await visitor.get(onward))
        plain = await visitor.get("/calls")
    assert [linked(page, made[0]) for page in pages] == ["", "", f"/calls/{made[0]}"]
    assert "No call fits among the 2 looked at." in pages[0].text
    assert linked(pages[1], "calls-back"), "there is a way back to the newest"
    assert not linked(plain, "calls-further"), "without words nothing is searched"
    assert all(linked(plain, call) for call in made)
