"""The feedback page: every kind, every source, its trends, and what people wrote as text."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.golden.application import key
from tests.unit.server.dashboard.visitor import Visitor, folded, visiting

from windlass.gateway.feedback import FeedbackRequest
from windlass.records import Scope
from windlass.runtime import Runtime
from windlass.server import lookback
from windlass.server.dashboard.said import KINDS, SOURCES

EVIL = "</li><script>x</script>"


async def fill(runtime: Runtime, scope: Scope | None = None) -> None:
    """One of each kind from each source, on the days before."""
    for day, kind in enumerate(KINDS):
        for source in SOURCES:
            said = {"target": f"call_{day}", "kind": kind, "source": source, "comment": f"{kind} {EVIL}"}
            said |= {"value": 0.75} if kind == "rating" else {}
            said |= {"at": runtime.clock() - 86_400 * day}
            await runtime.feedback(scope or Scope(), FeedbackRequest.read(said))
    await folded(runtime)


def listed(visitor_page: str) -> int:
    return visitor_page.count('<p class="comment">')


async def test_nothing_said_is_said(tmp_path: Path) -> None:
    async with visiting(tmp_path) as (visitor, _):
        page = await visitor.get("/feedback")
    assert "No feedback yet" in page.text
    assert "No ratings." in page.text


async def test_all_kinds_from_all_sources_with_trends(tmp_path: Path) -> None:
    async with visiting(tmp_path) as (visitor, runtime):
        await fill(runtime)
        page = await visitor.get("/feedback")
    assert listed(page.body) == 20
    for kind in KINDS:
        assert f"{kind} 4" in page.text
    for source in SOURCES:
        assert f"from {source} 5" in page.text
    assert "4 ratings, 4 corrections, 4 suggestions, 4 complaints, 4 praises." in page.text
    assert "Daily means from 0.75 to 0.75." in page.text
    assert EVIL in page.text
    assert "<script>x" not in page.body
    assert '"/calls/call_0"' in page.body


@pytest.mark.parametrize(
    ("query", "count"),
    [
        ("kind=praise", 4),
        ("source=qa", 5),
        ("kind=praise&source=qa", 1),
        ("target=call_2", 4),
        ("text=suggestion", 4),
        ("text=%25", 0),
        ("metric=tone", 0),
        ("range=24h", 8),
        ("kind=%00", 0),
        ("before=feedback_unknown", 0),
    ],
)
async def test_a_filter_leaves_what_fits(tmp_path: Path, query: str, count: int) -> None:
    async with visiting(tmp_path) as (visitor, runtime):
        await fill(runtime)
        page = await visitor.get(f"/feedback?{query}")
    assert page.status == 200
    assert listed(page.body) == count


async def test_another_tenants_words_are_not_there(tmp_path: Path) -> None:
    async with visiting(tmp_path, keys=[key("a", "acme"), key("b", "globex")]) as (visitor, runtime):
        await fill(runtime, Scope("globex"))
        page = await signed_in(visitor, "secret-a", "/feedback")
        theirs = await signed_in(visitor, "secret-b", "/feedback")
    assert (listed(page), listed(theirs)) == (0, 20)
    assert "rating 0" in page.replace("</a></dt><dd>", " ")


async def signed_in(visitor: Visitor, secret: str, address: str) -> str:
    visitor.cookies.clear()
    login = await visitor.get("/login")
    await visitor.post("/login", login.form("/login") | {"key": secret})
    return (await visitor.get(address)).body


async def test_a_search_that_stops_short_offers_to_look_further_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lookback, "SEARCHED", 15)
    async with visiting(tmp_path) as (visitor, runtime):
        await fill(runtime)
        first = await visitor.get(f"/feedback?text={KINDS[0]}")
        onward = next(link["href"] for link in first.all("a") if link.get("id") == "feedback-further")
        second = await visitor.get(onward)
    assert listed(first.body) == 0
    assert "No feedback fits among the 15 looked at." in first.text
    assert listed(second.body) == len(SOURCES)
    assert "feedback-further" not in second.body
