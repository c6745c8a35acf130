"""Folds, whatever happened in whatever order: the overview says what a loop over it says; the learner that went along,
one that starts from zero and one that starts from any snapshot are the same to the last bit."""

from __future__ import annotations

import math
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from tests.golden.application import tables

from windlass.ledger.check import call, decision, rating
from windlass.ledger.db import Database
from windlass.ledger.ledger import ALL, Ledger
from windlass.ledger.memory import MemoryLedger
from windlass.ledger.sql import SqlLedger
from windlass.policies.loop import Loop
from windlass.policies.points import PointOptions, ShadowOptions
from windlass.policies.replay import Learner, erased, rebuild
from windlass.policies.rollout import RollBack, SetMode, rollout
from windlass.records import Call, Decision, Erasure, Feedback, LedgerRecord, Outcome, Scope, user_digest
from windlass.watch.overview import Overview
from windlass.watch.store import HOUR_S, Rollups

SCOPES = (Scope("a", "one"), Scope("a", "two"), Scope("b", "one"))
START = 500_000 * HOUR_S


@st.composite
def outcomes(draw: st.DrawFn) -> Outcome:
    scope = draw(st.sampled_from(SCOPES))
    number = draw(st.integers(0, 10**9))
    return Outcome(
        id=f"outcome_{number}",
        call=f"call_{number}",
        at=START + draw(st.floats(0, 4 * HOUR_S)),
        tenant=scope.tenant,
        workspace=scope.workspace,
        model=draw(st.sampled_from(["x", "y", ""])),
        provider="p",
        status=draw(st.sampled_from([200, 429, 502])),
        latency_ms=draw(st.floats(0.001, 1e6)),
        first_byte_ms=0.0,
        prompt_tokens=draw(st.integers(0, 1_000)),
        completion_tokens=draw(st.integers(0, 1_000)),
        cost_nusd=draw(st.integers(0, 10**12)),
        error=draw(st.sampled_from(["", "", "rate_limited"])),
    )


@st.composite
def others(draw: st.DrawFn) -> LedgerRecord:
    scope, number = draw(st.sampled_from(SCOPES)), draw(st.integers(0, 10**9))
    made: list[LedgerRecord] = [
        call(f"call_{number}", scope),
        decision(f"decision_{number}", f"call_{number}", scope),
        rating(f"feedback_{number}", f"call_{number}", scope),
    ]
    return draw(st.sampled_from(made))


HISTORY = st.lists(st.one_of(outcomes(), others()), max_size=40)


def _mine(history: list[Any], scope: Scope, since: float) -> list[Outcome]:
    first = math.floor(since / HOUR_S) * HOUR_S
    return [o for o in history if isinstance(o, Outcome) and o.scope == scope and o.at // HOUR_S * HOUR_S >= first]


def _kept(history: list[LedgerRecord]) -> list[LedgerRecord]:
    """What a ledger keeps of it: the first of each kind, scope and id."""
    found: dict[Any, LedgerRecord] = {}
    for record in history:
        found.setdefault((type(record), record.scope, record.id), record)
    return list(found.values())


@settings(max_examples=30, deadline=None)
@given(HISTORY, st.floats(START - HOUR_S, START + 5 * HOUR_S), st.integers(0, 40))
def test_the_overview_is_what_counting_by_hand_gives(history: list[LedgerRecord], since: float, pause: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "ledger.db").write_bytes(tables())
        db, ledger = Database(f"sqlite:///{folder}/ledger.db"), MemoryLedger()
        rollups = Rollups(db)
        ledger.append_now(*history)
        entries = ledger.read(ALL)
        for part in (entries[:pause], entries[pause:]):
            rollups.fold(*part)
            rollups.flush()
        _counted_by_hand(Overview(rollups), history, since)
        db.close()


def _counted_by_hand(overview: Overview, history: list[LedgerRecord], since: float) -> None:
    kept = _kept(history)
    for scope in SCOPES:
        mine, totals = _mine(kept, scope, since), overview.totals(scope, since)
        assert totals.calls == len(mine)
        assert totals.errors == sum(one.error != "" for one in mine)
        assert totals.cost_nusd == sum(one.cost_nusd for one in mine)
        assert totals.prompt_tokens == sum(one.prompt_tokens for one in mine)
        assert totals.completion_tokens == sum(one.completion_tokens for one in mine)
        ranked = sorted(one.latency_ms for one in mine)
        for q, found in ((0.5, totals.p50_ms), (0.95, totals.p95_ms), (0.99, totals.p99_ms)):
            assert (found is None) == (not ranked)
            if found is not None:
                exact = ranked[max(math.ceil(q * len(ranked)), 1) - 1]
                assert abs(found - exact) <= 0.01 * exact * (1 + 1e-9)
        by_model = {model: one.calls for model, one in overview.by_model(scope, since).items()}
        assert by_model == Counter(one.model for one in mine)
        by_hour = {at: one.calls for at, one in overview.by_hour(scope, since)}
        assert by_hour == Counter(int(one.at // HOUR_S) * HOUR_S for one in mine)
        decisions = sum(isinstance(one, Decision) and one.scope == scope for one in kept)
        feedback = sum(isinstance(one, Feedback) and one.scope == scope for one in kept)
        assert overview.counted(scope) == (decisions, feedback)


AT = 1_800_000_000.0
SHADOWS = (ShadowOptions("twin", "linear_thompson"), ShadowOptions("bold", "fixed", {"action": "y"}))
CALLS = st.integers(0, 5).map(lambda number: f"call_{number}")
USERS = ("ada lovelace", "bob", "")


def _loop() -> Loop:
    """A point that learns with shadows beside it, and one that is off until somebody decides otherwise."""
    return Loop(
        {
            "model": PointOptions(mode="live", shadows=SHADOWS),
            "prompt": PointOptions(mode="off", policy="epsilon_greedy"),
        }
    )


def _own(scope: Scope) -> dict[str, Any]:
    return {"at": AT, "tenant": scope.tenant, "workspace": scope.workspace}


@st.composite
def told(draw: st.DrawFn) -> LedgerRecord:
    """Anything that moves a learner: small ranges, so that ids, users and cursors meet."""
    scope, name, number = draw(st.sampled_from(SCOPES[:2])), draw(CALLS), draw(st.integers(0, 9))
    match draw(
        st.sampled_from(["call", "decision", "decision", "shadow", "outcome", "feedback", "erasure", "rollout"])
    ):
        case "call":
            parent, user = draw(st.sampled_from(["", "answer_1", "call_0", "call_1"])), draw(st.sampled_from(USERS))
            return Call(id=name, endpoint="chat", model="auto", parent=parent, user=user, **_own(scope))
        case "decision" | "shadow" as what:
            return draw(_decided(scope, name, what))
        case "outcome":
            return Outcome(
                id=f"outcome_{name}_{number % 2}", call=name, model="x", provider="p", status=200,
                latency_ms=draw(st.floats(0, 1e5)), first_byte_ms=0.0, prompt_tokens=1, completion_tokens=1,
                cost_nusd=draw(st.integers(0, 10**10)), error=draw(st.sampled_from(["", "", "stream_cut"])),
                **_own(scope),
            )  # fmt: skip
        case "feedback":
            target = draw(st.one_of(CALLS, st.just("answer_1")))
            return Feedback(
                id=f"feedback_{number}", target=target, kind="rating", source=draw(st.sampled_from(["user", "qa"])),
                value=draw(st.floats(0, 1)), **_own(scope),
            )  # fmt: skip
        case "erasure":
            return Erasure(id=f"erasure_{number}", user=user_digest(scope, draw(st.sampled_from(USERS))), **_own(scope))
        case _:
            point = draw(st.sampled_from(["model", "prompt", "other"]))
            mode = SetMode(point, draw(st.sampled_from(["off", "shadow", "live", "settings"])))
            change = draw(st.one_of(st.just(mode), st.builds(RollBack, st.just(point), st.integers(0, 30))))
            return rollout(change, id=f"decision_r{number}", at=AT, scope=scope, by="key:ops")


@st.composite
def _decided(draw: st.DrawFn, scope: Scope, name: str, what: str) -> Decision:
    point, loop = draw(st.sampled_from(["model", "model", "prompt"])), _loop()
    context = draw(st.sampled_from([{"one": 0.25}, {"one": 0.5, "two": (0.1, 0.2)}, {"two": (0.3,), "late": 1.0}, {}]))
    shadow = draw(st.sampled_from(["", "twin", "bold", "gone"])) if what == "shadow" else None
    place = point if not shadow else f"{point}-shadow-{shadow}"
    policy = draw(st.sampled_from([loop.ids.get(place, "fixed@1"), "default@1"]))
    return Decision(
        id=f"decision_{name.removeprefix('call_')}-{place}{'-shadow' if shadow == '' else ''}",
        call=name, point=point, policy=policy, actions=("x", "y"), action=draw(st.sampled_from(["x", "y"])),
        propensity=draw(st.sampled_from([0.5, 1.0, 0.02])), live=shadow is None, context=context,
        extra={"shadow": shadow} if shadow else {}, **_own(scope),
    )  # fmt: skip


@st.composite
def stories(draw: st.DrawFn) -> list[LedgerRecord]:
    """What was told, some of it once more, in any order."""
    history = draw(st.lists(told(), max_size=30))
    again = draw(st.lists(st.sampled_from(history), max_size=8)) if history else []
    return draw(st.permutations([*history, *again]))


def _gone_along(ledger: Ledger, window: int) -> tuple[Learner, dict[int, bytes]]:
    """A learner that took the ledger in entry by entry, and its state after each."""
    loop, states = _loop(), dict[int, bytes]()
    learner = Learner(loop, window, states.get)
    for entry in ledger.read(ALL):
        learner.fold(entry)
        states[entry.seq] = learner.state()
    assert loop.failures == {}
    return learner, states


def _proved(ledger: Ledger, window: int, cut: int) -> None:
    """From zero, from zero to anywhere, and from anywhere to the end: always the state of the one that went along."""
    live, states = _gone_along(ledger, window)
    assert rebuild(ledger, _loop(), window=window, recall=states.get).state() == live.state()
    if states:
        middle = sorted(states)[cut % len(states)]
        some = rebuild(ledger, _loop(), window=window, until=middle, recall=states.get)
        assert some.state() == states[middle]
        some.catch_up(ledger, limit=3)
        assert some.state() == live.state()
        later = rebuild(ledger, _loop(), window=window, snapshot=states[middle], recall=states.get)
        assert later.state() == live.state()
        assert {scope: later.scores(scope, "model") for scope in SCOPES} == {
            scope: live.scores(scope, "model") for scope in SCOPES
        }


@settings(max_examples=150, deadline=None)
@given(stories(), st.integers(0, 60), st.sampled_from([1, 3, 1000]))
def test_zero_any_snapshot_and_going_along_lead_to_one_state(story: list[LedgerRecord], cut: int, window: int) -> None:
    ledger = MemoryLedger()
    ledger.append_now(*story)
    _proved(ledger, window, cut)


@settings(max_examples=15, deadline=None)
@given(stories(), st.integers(0, 60), st.sampled_from([3, 1000]))
def test_so_they_do_on_sqlite(story: list[LedgerRecord], cut: int, window: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "ledger.db").write_bytes(tables())
        db = Database(f"sqlite:///{folder}/ledger.db")
        sql = SqlLedger(db)
        sql.append_now(*story)
        sql.append_now(*reversed(story))
        _proved(sql, window, cut)
        sql.close()
        db.close()


@settings(max_examples=100, deadline=None)
@given(stories(), st.sampled_from(SCOPES[:2]), st.integers(0, 60))
def test_after_an_erasure_no_account_knows_the_user_and_kept_states_can_follow(
    story: list[LedgerRecord], scope: Scope, cut: int
) -> None:
    ledger = MemoryLedger()
    ledger.append_now(*story)
    live, states = _gone_along(ledger, 1000)
    digest = user_digest(scope, "ada lovelace")
    erasure = Erasure(id="erasure_last", user=digest, **_own(scope))
    learned = live.loop.states()
    ledger.append_now(erasure)
    live.catch_up(ledger)
    assert live.loop.states() == learned
    assert bytes.fromhex(digest) not in live.state()
    if states:
        rid = erased(states[sorted(states)[cut % len(states)]], erasure)
        assert bytes.fromhex(digest) not in rid
        assert erased(rid, erasure) == rid
        restored = Learner(_loop(), 1000)
        restored.restore(rid)
        assert restored.state() == rid


@settings(max_examples=100, deadline=None)
@given(stories())
def test_what_listeners_hear_adds_up_to_the_scores(story: list[LedgerRecord]) -> None:
    ledger, heard = MemoryLedger(), list[Any]()
    ledger.append_now(*story)
    learner = Learner(_loop())
    learner.on_credit(heard.append)
    learner.catch_up(ledger)
    assert [credit.seq for credit in heard] == sorted(credit.seq for credit in heard)
    for scope in SCOPES[:2]:
        for score in learner.scores(scope, "model"):
            mine = [
                c for c in heard
                if (c.scope, c.point, c.policy, c.shadow, c.live)
                == (scope, "model", score.policy, score.shadow, score.live)
            ]  # fmt: skip
            assert sum(c.previous is None for c in mine) == score.matched
            weighed = sum(c.weight for c in mine if c.previous is None)
            earned = sum(c.weight * (c.reward - (c.previous or 0.0)) for c in mine)
            assert score.value is None or math.isclose(score.value, earned / weighed, abs_tol=1e-9)
            assert score.matched <= score.decisions
