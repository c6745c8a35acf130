"""Forgetting, pruning, rolling back: whatever goes, the policies can still be folded again, bit by bit."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.golden.application import NOW, opened

from windlass.errors import InputError, LedgerError, PolicyError
from windlass.gateway.feedback import FeedbackRequest
from windlass.gateway.gateway import Request
from windlass.ledger import workers
from windlass.ledger.ledger import ALL
from windlass.policies.loop import Loop
from windlass.policies.replay import Learner
from windlass.policies.rollout import RollBack, SetMode
from windlass.records import Decision, Erasure, Scope
from windlass.runtime import Runtime
from windlass.testing import Echo
from windlass.watch import projections
from windlass.watch.projections import LEARNER, Projections
from windlass.watch.store import Rollups

SECRET, USER = "xylophone-sonata-in-violet", "user-zebra-quartz"
DAY_S = 86_400.0


async def _call(runtime: Runtime, user: str = "", text: str = "hi", scope: Scope | None = None) -> str:
    body: dict[str, Any] = {"model": "auto", "messages": [{"role": "user", "content": text}]}
    if user:
        body["user"] = user
    answer = await runtime.gateway.complete(Request(msgspec.json.encode(body), scope=scope))
    assert [chunk async for chunk in answer.chunks]
    return answer.transit.call.id


async def _rate(runtime: Runtime, call: str, value: float, comment: str = "") -> None:
    await runtime.feedback(Scope(), FeedbackRequest(target=call, kind="rating", value=value, comment=comment))


def _bytes_in(folder: Path, text: str) -> list[str]:
    """The files below `folder` that hold `text`."""
    return [str(path) for path in folder.rglob("*") if path.is_file() and text.encode() in path.read_bytes()]


async def test_a_forgotten_user_leaves_no_byte(tmp_path: Path) -> None:
    async with opened(tmp_path, [Echo("a", "b")]) as runtime:
        for _ in range(5):
            call = await _call(runtime, USER, SECRET)
            await _rate(runtime, call, 1.0, f"I wrote {SECRET}")
            await _rate(runtime, await _call(runtime, "other", "kept-words"), 0.0, "kept-words")
        await runtime.caught_up()
        runtime.projections.keep()
        assert _bytes_in(tmp_path, SECRET), "the test can fail"
        assert _bytes_in(tmp_path, USER)
        assert await runtime.forget(Scope(), USER, by="ann") > 10
        assert not _bytes_in(tmp_path, SECRET)
        assert not _bytes_in(tmp_path, USER)
        assert _bytes_in(tmp_path, "kept-words")
        cursor, live, again = runtime.replay()
        assert (cursor, live) == (runtime.ledger.head(), again)
        assert await runtime.forget(Scope(), USER, by="ann") == 0, "there is nothing left to forget"
        assert len([e for e in runtime.ledger.read(ALL) if isinstance(e.record, Erasure)]) == 2
        await _rate(runtime, call, 0.0)
        await runtime.caught_up()
    assert not _bytes_in(tmp_path, SECRET), "nor after the end"
    async with opened(tmp_path, [Echo("a", "b")]) as runtime:
        cursor, live, again = runtime.replay()
        assert live == again
        assert not _bytes_in(tmp_path, USER)


async def test_what_an_unfinished_call_leaves_after_the_erasure_goes_with_the_next(tmp_path: Path) -> None:
    long = USER + "z" * 300
    body = msgspec.json.encode(
        {"model": "auto", "user": long, "stream": True, "messages": [{"role": "user", "content": SECRET}]}
    )
    async with opened(tmp_path, [Echo("a", "b")]) as runtime:
        answer = await runtime.gateway.complete(Request(body))
        await anext(answer.chunks)
        await runtime.forget(Scope(), long, by="ann")
        assert [chunk async for chunk in answer.chunks]
        assert _bytes_in(tmp_path, SECRET), "the call went on"
        assert await runtime.forget(Scope(), long, by="ann") > 0
        assert not _bytes_in(tmp_path, SECRET)
        assert not _bytes_in(tmp_path, USER)


async def test_what_others_left_stays_where_a_forgotten_user_names_their_call(tmp_path: Path) -> None:
    async with opened(tmp_path, [Echo("a", "b")]) as runtime:
        theirs = await _call(runtime, "bob", "kept-words")
        body = {"model": "auto", "user": USER, "messages": [{"role": "user", "content": SECRET}]}
        answer = await runtime.gateway.complete(Request(msgspec.json.encode(body), parent=theirs))
        assert [chunk async for chunk in answer.chunks]
        await runtime.forget(Scope(), USER, by="ann")
        assert len(runtime.ledger.bodies(Scope(), theirs)) == 2
        assert not _bytes_in(tmp_path, SECRET)


async def test_a_learner_that_was_passed_over_by_an_erasure_takes_the_base(tmp_path: Path) -> None:
    async with opened(tmp_path, [Echo("a", "b")]) as runtime:
        await _rate(runtime, await _call(runtime, USER, SECRET), 1.0)
        late = Projections(
            runtime.ledger,
            Loop(runtime.settings.points),
            Rollups(runtime.db),
            make_loop=lambda: Loop(runtime.settings.points),
            clock=lambda: NOW,
        )
        await runtime.forget(Scope(), USER, by="ann")
        await _rate(runtime, await _call(runtime), 0.0)
        await runtime.caught_up()
        late.catch_up()
        assert late.learner.digest() == runtime.learner.digest()


async def test_a_roll_back_right_after_an_erasure_leaves_the_base_what_it_is(tmp_path: Path) -> None:
    async with opened(tmp_path, [Echo("a", "b")]) as runtime:
        for value in (1.0, 0.0, 1.0):
            await _rate(runtime, await _call(runtime, USER), value)
        await runtime.forget(Scope(), USER, by="ann")
        await runtime.roll_out(Scope(), RollBack("model", 0), by="ann")
        assert [one.note for one in runtime.projections.snapshots()].count("base") == 1
        _, live, again = runtime.replay()
        assert live == again


async def test_forgetting_is_for_one_tenant(tmp_path: Path) -> None:
    acme = Scope("acme", "default")
    async with opened(tmp_path, [Echo("a", "b")]) as runtime:
        await _call(runtime, USER, SECRET, acme)
        assert await runtime.forget(Scope(), USER, by="ann") == 0
        assert _bytes_in(tmp_path, SECRET)
        with pytest.raises(InputError, match="no user"):
            await runtime.forget(acme, "", by="ann")


async def test_forgetting_waits_for_the_other_workers_and_says_who_hangs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with opened(tmp_path, [Echo("a", "b")]) as runtime:
        await _call(runtime, USER, SECRET)
        workers.beat(runtime.db, "worker-7", 1, NOW, 0)
        sleep = asyncio.sleep
        monkeypatch.setattr(asyncio, "sleep", lambda _seconds: sleep(0))
        with pytest.raises(LedgerError, match="worker-7 do not follow"):
            await runtime.forget(Scope(), USER, by="ann")
        assert _bytes_in(tmp_path, SECRET), "nothing goes while a worker could still need it"
        workers.beat(runtime.db, "worker-7", 1, NOW, runtime.ledger.head() + 10)
        assert await runtime.forget(Scope(), USER, by="ann") > 0


async def test_contexts_past_their_time_go_and_replay_begins_after_them(tmp_path: Path) -> None:
    at = [NOW]
    async with opened(tmp_path, [Echo("a", "b")], clock=lambda: at[0]) as runtime:
        for _ in range(4):
            await _rate(runtime, await _call(runtime), 1.0)
        await runtime.caught_up()
        at[0] += 50 * DAY_S
        await _rate(runtime, await _call(runtime), 0.0)
        assert await asyncio.to_thread(runtime.projections.prune_contexts, NOW + 10 * DAY_S) == 4
        assert await asyncio.to_thread(runtime.projections.prune_contexts, NOW + 10 * DAY_S) == 0
        contexts = [e.record.context for e in runtime.ledger.read(ALL) if isinstance(e.record, Decision)]
        assert [bool(context) for context in contexts] == [False] * 4 + [True]
        await _rate(runtime, await _call(runtime), 0.0)
        await runtime.caught_up()
        _, live, again = runtime.replay()
        assert live == again


async def test_a_policy_is_rolled_back_and_stays_so(tmp_path: Path) -> None:
    async with opened(tmp_path, [Echo("a", "b")]) as runtime:
        await _rate(runtime, await _call(runtime), 1.0)
        await runtime.caught_up()
        runtime.projections.keep()
        (kept,) = runtime.projections.snapshots()
        states = runtime.loop.states()
        for _ in range(3):
            await _rate(runtime, await _call(runtime), 0.0)
        await runtime.caught_up()
        assert runtime.loop.states() != states
        made = await runtime.roll_out(Scope(), RollBack("model", kept.cursor), by="ann", reason="worse since noon")
        assert runtime.loop.states() == states
        assert any(one.note == "replaced" for one in runtime.projections.snapshots()), "the way back stays open"
        assert (made.point, made.extra["by"], made.extra["reason"]) == ("rollout", "ann", "worse since noon")
        assert runtime.ledger.trace(ALL, made.id) is None, "it belongs to no call"
        assert made in runtime.ledger.decisions(Scope(), point="rollout")
        with pytest.raises(PolicyError, match="there is no snapshot at 999999"):
            await runtime.roll_out(Scope(), RollBack("model", 999_999), by="ann")
        with pytest.raises(PolicyError, match="nope"):
            await runtime.roll_out(Scope(), RollBack("nope", kept.cursor), by="ann")
        for _ in range(8):
            runtime.projections.keep()
            await _rate(runtime, await _call(runtime), 1.0)
            await runtime.caught_up()
        noted = runtime.ledger.snapshot(LEARNER, Learner.VERSION, cursor=kept.cursor)
        assert noted is not None, "what was rolled back to stays"
        _, live, again = runtime.replay()
        assert live == again
    async with opened(tmp_path, [Echo("a", "b")]) as runtime:
        assert runtime.learner.digest() == live


async def test_a_mode_is_switched_for_one_tenant_and_outlives_a_restart(tmp_path: Path) -> None:
    async with opened(tmp_path, [Echo("a", "b")]) as runtime:
        await runtime.roll_out(Scope(), SetMode("model", "off"), by="ann")
        call = await _call(runtime)
        trace = runtime.ledger.trace(ALL, call)
        assert trace is not None
        assert [made.policy for made in trace.decisions] == ["default@1"]
    async with opened(tmp_path, [Echo("a", "b")]) as runtime:
        trace = runtime.ledger.trace(ALL, await _call(runtime))
        assert trace is not None
        assert [made.policy for made in trace.decisions] == ["default@1"]
        other = runtime.ledger.trace(ALL, await _call(runtime, scope=Scope("acme", "default")))
        assert other is not None
        assert other.decisions[0].policy != "default@1"


async def test_rollups_that_fell_behind_are_filled_from_the_ledger(tmp_path: Path) -> None:
    """As after the upgrade of a ledger that had no rollups yet."""
    async with opened(tmp_path, [Echo("a", "b")]) as runtime:
        for _ in range(3):
            await _rate(runtime, await _call(runtime), 1.0)
        await runtime.caught_up()
        before = runtime.rollups.decisions(Scope())
        assert sum(hour.rewarded for hour in before) == 3
    async with opened(tmp_path, [Echo("a", "b")]) as runtime:
        runtime.rollups.clear()
    async with opened(tmp_path, [Echo("a", "b")]) as runtime:
        assert runtime.rollups.decisions(Scope()) == before
        assert runtime.overview.totals(Scope()).calls == 3


async def test_the_tables_are_written_seldom_but_whoever_reads_them_sees_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = 0
    flush = Rollups.flush

    def counted(self: Rollups) -> None:
        nonlocal written
        before = self.cursor
        flush(self)
        written += self.cursor > before

    async with opened(tmp_path, [Echo("a", "b")]) as runtime:
        await runtime.caught_up()
        for task in runtime._background:
            task.cancel()
        monkeypatch.setattr(Rollups, "flush", counted)
        monkeypatch.setattr(projections, "ROLLUPS_EVERY_S", 3_600.0)
        for _ in range(3):
            await _call(runtime)
            runtime.projections.follow()
            assert runtime.learner.cursor == runtime.ledger.head(), "the policies wait for nothing"
        assert written == 0
        assert sum(hour.calls for hour in runtime.rollups.outcomes(Scope())) == 3
        assert (written, runtime.rollups.cursor) == (1, runtime.ledger.head())
        monkeypatch.setattr(projections, "ROLLUPS_EVERY_S", 0.0)
        await _call(runtime)
        runtime.projections.follow()
        assert (written, runtime.rollups.cursor) == (2, runtime.ledger.head())


async def test_a_snapshot_never_lies_beyond_the_tables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Or a process that was killed then would fill them from the first entry at its next start."""
    monkeypatch.setattr(projections, "ROLLUPS_EVERY_S", 3_600.0)
    async with opened(tmp_path, [Echo("a", "b")]) as runtime:
        for task in runtime._background:
            task.cancel()
        await _call(runtime)
        runtime.projections.follow()
        assert runtime.rollups.cursor < runtime.learner.cursor
        runtime.projections.keep()
        assert runtime.rollups.cursor == runtime.learner.cursor


async def test_snapshots_are_rarer_the_more_calls_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(projections, "SNAPSHOT_EVERY", 4)
    async with opened(tmp_path, [Echo("a", "b")]) as runtime:
        for _ in range(12):
            await _call(runtime)
        await runtime.caught_up()
        runtime.projections.keep()
        (first, *_), kept = runtime.projections.snapshots()[-1:], runtime.learner.calls
        assert kept == 12
        await _call(runtime)  # three entries, fewer than half as many as calls
        await runtime.caught_up()
        assert runtime.projections.snapshots()[-1].cursor == first.cursor
        for _ in range(2):
            await _call(runtime)
        await runtime.caught_up()
        assert runtime.projections.snapshots()[-1].cursor > first.cursor


async def test_who_reads_between_entries_and_their_rewards_takes_none_of_them_away(tmp_path: Path) -> None:
    async with opened(tmp_path, [Echo("a", "b")]) as runtime:
        for _ in range(5):
            await _rate(runtime, await _call(runtime), 1.0)
        await runtime.caught_up()
        rollups = Rollups(runtime.db)
        rollups.clear()
        kept = runtime.settings
        fresh = Projections(
            runtime.ledger,
            Loop(kept.points, kept.reward),
            rollups,
            make_loop=lambda: Loop(kept.points, kept.reward),
            clock=lambda: NOW,
        )
        seen: list[int] = []
        fresh.learner.on_credit(lambda _: seen.append(sum(hour.rewarded for hour in rollups.decisions(Scope()))))
        fresh.catch_up()
        hours = [hour for hour in rollups.decisions(Scope(), point="model") if hour.live]
    assert seen
    assert set(seen) == {0}, "nothing of the batch was written before it was whole"
    assert sum(hour.rewarded for hour in hours) == sum(hour.chosen for hour in hours) == 5
