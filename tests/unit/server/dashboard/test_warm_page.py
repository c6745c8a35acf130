"""The page of the router while a warm start goes on: prompts, money, and to whom the money of all is shown."""

from __future__ import annotations

from pathlib import Path

from tests.unit.improve.grading.scene import called
from tests.unit.improve.warm.scene import KNOWN, ON, ready, says, warmed
from tests.unit.server.dashboard.visitor import visiting


async def test_the_page_tells_how_far_it_is(tmp_path: Path) -> None:
    async with visiting(tmp_path, providers=(says("a", "b", "c"),), **ON) as (visitor, runtime):
        ready(runtime)
        await called(runtime, "what?", **KNOWN)
        await warmed(runtime)
        page = await visitor.get("/routing")
        assert page.status == 200
        assert "Prompts 1 of 3" in page.text
        assert "Answers that no client saw 2" in page.text
        assert "$0.04 of $100.00" in page.text
        assert "goes on with the next calls" in page.text
        ids = [named["id"] for _, named in page.tags if "id" in named]
        assert len(ids) == len(set(ids))
        for number in range(2):
            await called(runtime, f"question {number}", **KNOWN)
        await warmed(runtime)
        assert "It has ended" in (await visitor.get("/routing")).text


async def test_without_one_the_page_says_nothing_of_it(tmp_path: Path) -> None:
    async with visiting(tmp_path, providers=(says("a", "b", "c"),)) as (visitor, _):
        assert "Warm start" not in (await visitor.get("/routing")).text
