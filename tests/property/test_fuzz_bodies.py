"""Hostile bodies on every endpoint that takes one: no failure of ours, always the envelope, bounded memory.

100,000 with --soak, 2,000 otherwise, from one seed. Behind the application stands an upstream that always does well, so
that every 5xx is our own; it notes what must not come up: another host or path, another model, JSON that is none.
"""

from __future__ import annotations

import asyncio
import ctypes
import gc
import itertools
import os
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import structlog
from tests.golden.application import Client, opened
from tests.property.faithful import Faithful, before, faithful
from tests.property.hostile import BODIES, Case, cases, fault

from windlass.runtime import Runtime
from windlass.server.app import API, Windlass
from windlass.server.operations import OPERATIONS

COUNT, SOAK = 2_000, 100_000
WARM = 500
AT_ONCE = 4
GROWTH_BYTES = 100 * 1024 * 1024
"""The heap levels off at some 60 MB more than after the first requests, however many come."""


def _resident_bytes() -> int:
    """What the process holds, without what the allocator only keeps for the next time."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


async def _send(app: Windlass, case: Case, found: list[str], statuses: Counter[int]) -> None:
    path, _, _ = case.path.partition("?")
    answer = await Client(app, bearer="secret-boss").request("POST", path, case.parts, dict(case.headers))
    statuses[answer.status] += 1
    wrong = fault(path, answer.status, answer.headers.get("content-type", ""), answer.body, ended=answer.ended)
    if wrong:
        found.append(f"{case.path} {case.headers} {case.why}: {wrong}")


@asynccontextmanager
async def _behind(transport: str, home: Path) -> AsyncIterator[tuple[Faithful, Runtime]]:
    async with faithful() as upstream:
        upstream.transport = transport
        async with before(upstream, home) as runtime:
            yield upstream, runtime


@pytest.mark.parametrize(("transport", "share"), [("aiohttp", 1), ("turbo", 4)])
async def test_no_hostile_body_breaks_anything(
    tmp_path: Path, request: pytest.FixtureRequest, transport: str, share: int
) -> None:
    count = (SOAK if request.config.getoption("--soak") else COUNT) // share
    found: list[str] = []
    statuses: Counter[int] = Counter()
    every = cases(count, seed=8 + share)

    async def client(some: Iterator[Case]) -> None:
        for case in some:
            await _send(app, case, found, statuses)

    with structlog.testing.capture_logs() as logged:
        async with _behind(transport, tmp_path / "home") as (upstream, runtime):
            app = Windlass(runtime, token="folder-token")
            await client(itertools.islice(every, WARM // share))
            logged.clear()
            resident = _resident_bytes()
            await asyncio.gather(*(client(every) for _ in range(AT_ONCE)))
            await runtime.caught_up()
            grown = _resident_bytes() - resident
    assert found == []
    assert upstream.wrong == []
    assert logged == []
    assert grown < GROWTH_BYTES, f"{grown} bytes more after {count} requests"
    assert statuses[200] > count / 5, f"the valid ones are answered: {statuses}"
    assert min(statuses[status] for status in (400, 404, 413)) > 0, f"the others are refused: {statuses}"
    assert upstream.asked, "something came up"


async def test_every_endpoint_that_takes_a_body_is_fuzzed(tmp_path: Path) -> None:
    async with opened(tmp_path) as runtime:
        posted = {path for method, path in Windlass(runtime)._routes if method == "POST"}
    assert posted <= BODIES.keys(), "give it a valid body in hostile.py"
    assert {API + name for name in OPERATIONS} <= BODIES.keys(), "give it a valid body in hostile.py"
