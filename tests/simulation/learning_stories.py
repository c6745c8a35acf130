"""The learner fed from several threads, late, twice and out of order, against a rebuild of it."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from types import ModuleType
from typing import Any

import msgspec

from tests.simulation.schedules import Schedule, Story
from tests.simulation.stand_ins import clock
from windlass.ledger.check import AT, A, call, decision, outcome, rating
from windlass.ledger.ledger import ALL, Entry
from windlass.policies.loop import Loop
from windlass.policies.points import PointOptions
from windlass.policies.replay import Learner
from windlass.policies.reward import RewardOptions
from windlass.records import LedgerRecord, Scope

POINT = "model"


def fresh_loop(loop: ModuleType | None = None) -> Any:
    """A loop that has learned nothing, with a policy that is cheap and depends on the order of its lessons."""
    made = Loop if loop is None else loop.Loop
    options = PointOptions(mode="live", policy="epsilon_greedy")
    return made({POINT: options}, RewardOptions())


POLICY: str = fresh_loop().policy_id(POINT)


def history(rng: random.Random, name: str) -> list[LedgerRecord]:
    """What a few calls leave behind: late, twice, out of order."""
    made: list[LedgerRecord] = []
    for number in range(rng.randint(1, 2)):
        of = f"call_{name}-{number}"
        chosen = msgspec.structs.replace(decision(f"decision_{of}", of), policy=POLICY)
        made += [call(of), chosen, outcome(of), rating(f"feedback_{of}", of, value=rng.random())]
    made.append(rating(f"feedback_again_{name}", f"call_{name}-0", value=rng.random()))
    made += rng.sample(made, 2)
    rng.shuffle(made)
    return made


class Sums:
    """The rollups of a story: counts what it was given. Folding the same entry twice is what they must never see."""

    def __init__(self, schedule: Schedule):
        self.seen: list[int] = []
        self._schedule = schedule

    def look(self) -> int:
        return self.seen[-1] if self.seen else 0

    @contextmanager
    def together(self) -> Iterator[None]:
        self._schedule.step()
        yield
        self._schedule.step()

    def fold(self, *entries: Entry) -> None:
        self._schedule.step()
        self.seen += [entry.seq for entry in entries]

    def credited(self, *_credit: Any) -> None:
        self._schedule.step()

    def flush(self) -> None:
        self._schedule.step()


def learning(memory: ModuleType, replay: ModuleType, loop: ModuleType, projections: ModuleType) -> Story:
    """Three threads write while two fold and one decides; rebuilding gives the same state, bit by bit."""

    def story(schedule: Schedule) -> None:
        rng = random.Random(schedule.seed)
        ledger, sums, live = memory.MemoryLedger(), Sums(schedule), fresh_loop(loop)
        folds = projections.Projections(ledger, live, sums, make_loop=fresh_loop, clock=clock.time)
        bare = replay.Learner(fresh_loop(loop))
        written = [history(rng, f"writer{n}") for n in range(3)]
        # The same record from two processes: the second changes nothing.
        written[1].append(written[0][0])
        everything = {(type(record), record.id) for records in written for record in records}

        def write(records: list[LedgerRecord]) -> None:
            for record in records:
                assert ledger.append_now(record) >= 1

        def fold() -> None:
            for _ in range(2):
                folds.catch_up()
                bare.catch_up(ledger, limit=3)

        def decide() -> None:
            for number in range(3):
                scope, actions = Scope(A.tenant, A.workspace), ("x", "y")
                asked = {"context": {"one": 1.0}, "actions": actions, "featuriser": "f", "at": AT, "scope": scope}
                action, made = live.decide(POINT, call_id=f"call_{number}", **asked)
                assert action in actions
                assert not made[0].fallback

        running = [schedule.spawn(partial(write, records), "writer") for records in written]
        running += [schedule.spawn(fold, "fold"), schedule.spawn(fold, "fold"), schedule.spawn(decide, "decide")]
        schedule.block(lambda: all(thread.done for thread in running))
        folds.catch_up()
        bare.catch_up(ledger)
        places = [entry.seq for entry in ledger.read(ALL)]
        assert places == list(range(1, len(everything) + 1)), f"{len(everything)} records stand at {places}"
        assert sums.seen == places, f"rollups saw {sums.seen}"
        cursor, digest, rebuilt = folds.replay()
        assert cursor == ledger.head()
        assert digest == rebuilt, "rebuilding gives another state"
        fresh = Learner(fresh_loop())
        fresh.catch_up(ledger)
        assert bare.digest() == fresh.digest(), "two threads folding gives another state than one"

    return story
