"""What one tenant writes, no other tenant, and no other workspace of the same one, ever reads: through any door.

Two worlds hold the same rows of the tenant `rival`; in one of them the tenant `acme` has written to every room as well.
Each probe asks both worlds the same thing as somebody who is not `acme/default`. What comes back must be equal, and
must hold nothing of what `acme` planted: a word in every text, a figure in every number. Every public method that takes
an owner is found by reflection: one that this file does not know fails the first test.
"""

from __future__ import annotations

import asyncio
import inspect
import itertools
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from tests.conformance.tenancy_doors import ASKED, DOORS, ENDPOINTS, PAGES, api
from tests.conformance.tenancy_probes import FRAGMENTS, STRANGERS, leaks, probes, result
from tests.conformance.tenancy_reads import CONTEXT, FRONTS, OTHERS, PARAMETERS, READS, surface
from tests.conformance.tenancy_world import OWNER, SECRET, Chance, Probe, World, make_world
from tests.golden.application import opened

from windlass import records
from windlass.ledger import ids
from windlass.memory import retrieval
from windlass.records import Scope
from windlass.server.app import Windlass
from windlass.server.dashboard.pages import dashboard
from windlass.server.operations import OPERATIONS

PROBES = 10_000
SLICE = 3_000
HTTP_SHARE = 0.06


@pytest.fixture
def chance(monkeypatch: pytest.MonkeyPatch) -> Chance:
    made = Chance()
    monkeypatch.setattr(ids, "_chance", made.digits)
    return made


@pytest.fixture
async def worlds(tmp_path: Path, chance: Chance) -> AsyncIterator[tuple[World, World]]:
    """(with the owner's rows, without)."""
    async with (
        make_world(tmp_path / "planted", chance, planted=True) as planted,
        make_world(tmp_path / "bare", chance, planted=False) as bare,
    ):
        yield planted, bare


def test_every_public_read_is_known_here() -> None:
    known = READS.keys() | OTHERS.keys()
    assert surface() - known == set(), "probe it in READS, or say in OTHERS why nobody else's rows can come of it"
    assert known - surface() == set(), "gone from the tree: take it out here as well"
    assert READS.keys() & OTHERS.keys() == set()


def test_every_argument_of_a_read_is_known_here() -> None:
    named = {front.__name__: front for front in FRONTS} | {"retrieval": retrieval, "records": records}
    for read in READS:
        home, _, name = read.partition(".")
        takes = sorted(inspect.signature(getattr(named[home], name)).parameters.keys() - {"self", "scope"})
        assert len(takes) <= 1 if read not in PARAMETERS else takes == PARAMETERS[read].split(), read


async def test_every_page_endpoint_and_operation_is_known_here(tmp_path: Path) -> None:
    async with opened(tmp_path) as runtime:
        pages: Any = dashboard(runtime)
        assert {route.path for route in pages._app.routes} == PAGES
        assert {path for _, path in Windlass(runtime)._routes} == ENDPOINTS
    assert OPERATIONS.keys() == ASKED, "ask it in DOORS"


def _count(request: pytest.FixtureRequest) -> int:
    return PROBES if request.config.getoption("--soak") else SLICE


async def test_the_owner_finds_all_of_it(worlds: tuple[World, World]) -> None:
    """Each read can find what was planted: a probe that finds nothing is no proof otherwise."""
    planted, _ = worlds
    blind = {"Loop.explain", "Loop.mode", "Learner.scores", "Overview.counted", "records.user_digest", "Memory.counts"}
    blind |= {"Memory.pending", "Memory.view", "SqlLedger.calls_beneath", "MemoryLedger.calls_beneath"}
    blind |= {"OutcomeTables.last_used"}
    for name, read in READS.items():
        said = {
            result(read, planted, Probe(OWNER, text, number)) for text in ("", *planted.known) for number in (0, 1, 50)
        }
        if name in blind:
            strangers = {
                result(read, planted, Probe(Scope("nobody"), text, n))
                for text in ("", *planted.known)
                for n in (0, 1, 50)
            }
            assert said != strangers or name == "Loop.mode", name
        else:
            assert any(SECRET.search(one) for one in said), name


async def test_no_read_of_any_room_finds_another_tenants_rows(
    worlds: tuple[World, World], request: pytest.FixtureRequest
) -> None:
    planted, bare = worlds
    count = int(_count(request) * (1 - HTTP_SHARE))
    # Each read once for each name that the owner's things have, then at random.
    named = [(Probe(who, text, 1), read) for who in STRANGERS[:2] for text in planted.known for read in READS]
    left = probes(count - len(named), planted.known, 1)
    assert len(named) < count
    for probe, name in itertools.chain(named, zip(left, itertools.cycle(READS), strict=False)):
        said = result(READS[name], planted, probe)
        assert not leaks(said, probe.text), f"{name} {probe}"
        assert said == result(READS[name], bare, probe), f"{name} {probe}: what others wrote changes the answer"


_FRESH = re.compile(r"[0-9a-f]{64}|value=\"[0-9a-f]{16}\"")


async def test_no_door_shows_another_tenants_rows(
    worlds: tuple[World, World], chance: Chance, request: pytest.FixtureRequest
) -> None:
    planted, bare = worlds
    before, sent = _owners_state(planted), set[str]()
    count = int(_count(request) * HTTP_SHARE)
    for turn, (probe, ask) in enumerate(zip(probes(count, planted.known, 2), itertools.cycle(DOORS), strict=False)):
        answers = []
        for world in (planted, bare):
            chance.random.seed(turn + 1)
            await world.runtime.caught_up()  # or what was learned so far would depend on the speed of the moment
            await asyncio.to_thread(world.runtime.watch.catch_up)  # and so would what keys and providers did
            answers.append(await ask(world, probe))
        sent.add(probe.text)
        assert not leaks(answers[0], *sent), f"{ask.__name__} {probe}"
        said, other = (_FRESH.sub("", answer) for answer in answers)
        assert said == other, f"{ask.__name__} {probe}: what others wrote changes the answer"
    await planted.runtime.caught_up()
    assert _owners_state(planted) == before, "what others did changed what the owner sees"


def _owners_state(world: World) -> str:
    """What the owner sees of calls, learning and figures."""
    runtime = world.runtime
    calls = runtime.ledger.calls(OWNER, limit=1000)
    learned = runtime.loop.explain("model", OWNER, CONTEXT, ("echo", "parrot")), runtime.learner.scores(OWNER, "model")
    return repr((calls, learned, runtime.overview.totals(OWNER), runtime.rollups.feedback(OWNER)))


async def test_the_progress_of_a_run_is_its_tenants(worlds: tuple[World, World]) -> None:
    """A run of somebody else stands as one that never was."""
    planted, bare = worlds
    for name in [*planted.known, *FRAGMENTS]:
        said, other = [await api(world, "progress", {"run": name}) for world in (planted, bare)]
        assert said == other, name
