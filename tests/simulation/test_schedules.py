"""Seeded schedules of our concurrent parts: 100,000 with --soak, 2,000 otherwise; and the races that they find."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable

import pytest

from tests.simulation.budget_stories import budgets
from tests.simulation.commit_stories import appending, group_commit
from tests.simulation.learning_stories import learning
from tests.simulation.lease_stories import leasing
from tests.simulation.runtime_stories import client_close, copies, seeded_asyncio, shutdown, start_once
from tests.simulation.schedules import Schedule, Story, Stuck, play, search
from tests.simulation.stand_ins import stepping, threads

pytestmark = pytest.mark.simulation
SCHEDULES = 100_000
BOUND = 3_000
"""Within so many seeds each planted race must show."""


def _client(*edits: tuple[str, str]) -> Story:
    return client_close(stepping("windlass.client", *edits, asyncio=seeded_asyncio()))


def _commit(*edits: tuple[str, str]) -> Story:
    return group_commit(stepping("windlass.ledger.commit", *edits))


def _appending(*edits: tuple[str, str]) -> Story:
    return appending(stepping("windlass.ledger.memory", *edits))


def _learning(
    replay: tuple[tuple[str, str], ...] = (),
    projections: tuple[tuple[str, str], ...] = (),
) -> Story:
    return learning(
        stepping("windlass.ledger.memory"),
        stepping("windlass.policies.replay", *replay),
        stepping("windlass.policies.loop"),
        stepping("windlass.watch.projections", *projections),
    )


def _budgets(limits: tuple[tuple[str, str], ...] = (), gateway: tuple[tuple[str, str], ...] = ()) -> Story:
    return budgets(stepping("windlass.gateway.access.limits", *limits), stepping("windlass.gateway.gateway", *gateway))


def _leases(*edits: tuple[str, str]) -> Story:
    return leasing(stepping("windlass.gateway.access.leases", *edits))


SOUND: dict[str, tuple[float, Callable[[], Story]]] = {
    "group commit": (0.25, _commit),
    "leases": (0.05, _leases),
    "budgets": (0.05, _budgets),
    "appending to memory": (0.05, _appending),
    "learning": (0.10, _learning),
    "shutdown": (0.20, lambda: shutdown(copies())),
    "starting once": (0.10, lambda: start_once(copies())),
    "closing the client": (0.20, _client),
}
"""Each story with its part of the schedules."""


@pytest.mark.parametrize("name", SOUND)
def test_no_schedule_breaks_what_is_promised(name: str, share: float) -> None:
    part, make = SOUND[name]
    assert search(make(), round(SCHEDULES * share * part)) == ""


def test_the_parts_are_all_schedules() -> None:
    assert sum(part for part, _ in SOUND.values()) == pytest.approx(1.0)


WRITE = "            head = self._write([item for _, items in batch for item in items])\n"
SETTLE = "        _tell([waiter for waiter, _ in batch], head, None)\n"
CHECKED = """        with self._changed:
            if self._closed:
                raise LedgerError("the ledger is closed; open a new one", category=ErrorCategory.LEDGER_CLOSED)
            self._waiting"""
TAKEN = """                batch, self._waiting = self._waiting[:BATCH], self._waiting[BATCH:]
                self._due_s = 0.0 if self._waiting else None
                if not batch:
                    return
"""
KEPT = "            self._waiting.append((KEPT, items))\n"
LEFT = "            if not short:\n"
SENT = "        except BaseException as exc:\n            await asyncio.shield(self._record(transit, *ending(exc)))\n"
COMMIT = "        await asyncio.shield(committing)\n"
SHIELDED, BARE = SENT, ("asyncio.shield(self._record(transit, *ending(exc)))", "self._record(transit, *ending(exc))")
LENDING = "        async with self._lock:\n            if not self.fresh():"
RACES: dict[str, tuple[str, Callable[[], Story]]] = {
    "acknowledged before the write": (
        "group commit",
        lambda: _commit(
            (
                WRITE,
                "            _tell([waiter for waiter, _ in batch], 1 << 30, None)\n" + WRITE,
            ),
            (SETTLE, ""),
        ),
    ),
    "a lost wake-up: submit does not notify": (
        "group commit",
        lambda: _commit(("_DELAY_S\n            self._changed.notify()\n\n    @", "_DELAY_S\n\n    @")),
    ),
    "check, then act: closed is looked at without the lock": (
        "group commit",
        lambda: _commit(
            (
                CHECKED,
                """        if self._closed:
            raise LedgerError("the ledger is closed; open a new one", category=ErrorCategory.LEDGER_CLOSED)
        with self._changed:
            self._waiting""",
            )
        ),
    ),
    "a lost update: the batch is taken without the lock": (
        "group commit",
        lambda: _commit(
            (
                TAKEN,
                """            batch = list(self._waiting)
            self._waiting = []
            self._due_s = None
            if not batch:
                return
""",
            )
        ),
    ),
    "settled twice: a cancelled caller is told all the same": (
        "group commit",
        lambda: _commit(("[entry for entry in batch if _wanted(entry[0])]", "batch")),
    ),
    "closing does not wait for what was submitted": (
        "group commit",
        lambda: _commit(("                if not batch:", "                if not batch or self._closed:")),
    ),
    "failed telemetry goes behind what came later": (
        "group commit",
        lambda: _commit(("self._waiting[:0] = again[lost:]", "self._waiting += again[lost:]")),
    ),
    "the journal is cut before the commit": (
        "group commit",
        lambda: _commit(
            (
                WRITE,
                "            if self._journal is not None:\n"
                "                self._settle(self._journal, sum(waiter is KEPT for waiter, _ in batch))\n" + WRITE,
            ),
        ),
    ),
    "kept and queued in two steps": (
        "group commit",
        lambda: _commit((KEPT, "        with self._changed:\n            self._waiting.append((KEPT, items))\n")),
    ),
    "what was kept and cannot be committed is forgotten": (
        "group commit",
        lambda: _commit(("entry[0] is None or entry[0] is KEPT]", "entry[0] is None]")),
    ),
    "an append to memory without the lock": (
        "appending to memory",
        lambda: _appending(
            ("        with self._lock:\n            if self._closed:", "        if True:\n            if self._closed:")
        ),
    ),
    "folded twice: no lock around the fold": (
        "learning",
        lambda: _learning(
            replay=(
                (
                    "                with self.loop.lock:\n                    at = self._take",
                    "                if True:\n                    at = self._take",
                ),
            )
        ),
    ),
    "rollups folded twice: no lock around catching up": (
        "learning",
        lambda: _learning(
            projections=(
                (
                    "        with self._folding:\n            self._fold()\n            self._write()",
                    "        if True:\n            self._fold()\n            self._write()",
                ),
            )
        ),
    ),
    "a lost wake-up: commits are cleared after the fold": (
        "shutdown",
        lambda: shutdown(
            copies(
                runtime=(
                    ("                committed.clear()\n", ""),
                    (
                        "                await asyncio.to_thread(self.projections.follow)\n",
                        "                await asyncio.to_thread(self.projections.follow)\n"
                        "                committed.clear()\n",
                    ),
                )
            )
        ),
    ),
    "the last snapshot is kept before the last commit": (
        "shutdown",
        lambda: shutdown(
            copies(
                runtime=(
                    ("            self.ledger.close()\n", ""),
                    (
                        "            self.projections.keep()\n",
                        "            self.projections.keep()\n            self.ledger.close()\n",
                    ),
                )
            )
        ),
    ),
    "single flight without its lock: two engines start": (
        "starting once",
        lambda: start_once(copies(runs=(("        with self._starting:", "        if True:"),))),
    ),
    "a budget is checked, then waited, then held": (
        "budgets",
        lambda: _budgets(limits=((LEFT, f"{LEFT}                await asyncio.sleep(0)\n"),)),
    ),
    "a budget of a cancelled call is never settled": (
        "budgets",
        lambda: _budgets(gateway=((SENT, SENT.replace("BaseException", "Exception")),)),
    ),
    "a budget is settled, and the commit dies with its caller": (
        "budgets",
        lambda: _budgets(gateway=((COMMIT, "        await committing\n"), (SHIELDED, SHIELDED.replace(*BARE)))),
    ),
    "lent twice: two calls of a process ask at once": (
        "leases",
        lambda: _leases((LENDING, LENDING.replace("async with self._lock", "if True"))),
    ),
    "closed twice: no lock around closing a client": (
        "closing the client",
        lambda: _client(("        with self._closing:", "        if True:")),
    ),
}
"""Each with the sound story that it breaks."""


@pytest.mark.parametrize("name", RACES)
def test_a_planted_race_is_found_and_its_seed_shows_it_again(name: str) -> None:
    sound, plant = RACES[name]
    story = plant()
    found = search(story, BOUND)
    assert found, f"{BOUND} schedules found nothing"
    seed = int(found.split()[1])
    again = search(story, 1, first=seed)
    assert re.sub("0x[0-9a-f]+", "", again) == re.sub("0x[0-9a-f]+", "", found)
    assert search(SOUND[sound][1](), 1, first=seed) == "", "it is the story that is broken"


def test_the_same_seed_is_the_same_schedule() -> None:
    story = _commit()
    assert [play(seed, story).trace for seed in range(20)] == [play(seed, story).trace for seed in range(20)]
    assert len({tuple(play(seed, story).trace) for seed in range(50)}) == 50


# --- textbook races, to see that the explorer itself looks everywhere


def test_it_finds_an_await_between_a_check_and_its_act() -> None:
    async def spend(schedule: Schedule, locked: bool) -> None:
        left, lock = 1, asyncio.Lock()

        async def careless() -> None:
            nonlocal left
            if left > 0:
                await asyncio.sleep(0)
                left -= 1

        async def careful() -> None:
            async with lock:
                await careless()

        await asyncio.gather(*((careful if locked else careless)() for _ in range(2)))
        assert left == 0

    assert search(lambda schedule: spend(schedule, locked=False), 100)
    assert search(lambda schedule: spend(schedule, locked=True), 100) == ""


def test_it_finds_a_deadlock_of_two_locks() -> None:
    def cross(schedule: Schedule) -> None:
        one, two = threads.Lock(), threads.Lock()

        def take(first: object, second: object) -> None:
            with first, second:  # type: ignore[attr-defined]
                pass

        schedule.spawn(lambda: take(one, two), "ab")
        schedule.spawn(lambda: take(two, one), "ba")

    found = search(cross, 1000)
    assert "Stuck: for ever waiting: ab, ba" in found or "Stuck: for ever waiting: ba, ab" in found


def test_time_is_virtual_and_waits_end_in_its_order() -> None:
    ended: list[float] = []

    async def story(schedule: Schedule) -> None:
        async def late(delay_s: float) -> None:
            await asyncio.sleep(delay_s)
            ended.append(delay_s)
            assert schedule.now_s == delay_s

        await asyncio.gather(*(late(delay_s) for delay_s in (3600.0, 0.5, 7.0)))

    play(0, story)
    assert ended == [0.5, 7.0, 3600.0]


def test_a_thread_that_waits_for_ever_is_said() -> None:
    def story(_schedule: Schedule) -> None:
        condition = threads.Condition()
        with condition:
            condition.wait()

    with pytest.raises(Stuck, match="main"):
        play(0, story)
