"""Random histories with duplicates, in any interleaving: the ledgers agree, and the policies replay bit by bit."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from tests.golden.application import tables

from windlass.ledger.db import Database
from windlass.ledger.ledger import ALL
from windlass.ledger.memory import MemoryLedger
from windlass.ledger.sql import SqlLedger
from windlass.policies.loop import Loop, PointOptions
from windlass.policies.replay import Learner, rebuild
from windlass.records import Call, ContextValue, Decision, Feedback, LedgerRecord, Outcome, Scope

SCOPES = (Scope("a", "one"), Scope("a", "two"), Scope("b", "one"))
AT = 1_800_000_000.0
POINTS = {"model": PointOptions(mode="live", policy="linear_thompson")}
CALLS = st.sampled_from([f"call_{number}" for number in range(6)])


def _loop() -> Loop:
    return Loop(POINTS)


@st.composite
def records(draw: st.DrawFn) -> LedgerRecord:
    scope, call = draw(st.sampled_from(SCOPES)), draw(CALLS)
    owner: dict[str, Any] = {"at": AT, "tenant": scope.tenant, "workspace": scope.workspace}
    match draw(st.sampled_from(["call", "decision", "decision", "outcome", "feedback", "feedback"])):
        case "call":
            parent = draw(st.sampled_from(["", "answer_1", "call_0", "call_1"]))
            return Call(id=call, endpoint="chat", model="auto", parent=parent, user="u", **owner)
        case "decision":
            action, live = draw(st.sampled_from(["x", "y"])), draw(st.booleans())
            context: dict[str, ContextValue] = {"one": draw(st.floats(-2, 2)), "two": draw(st.floats(0, 1))}
            return Decision(
                id=f"decision_{call}{'' if live else '-shadow'}", call=call, point="model", actions=("x", "y"),
                policy=_loop().policy_id("model"), action=action, propensity=0.5, live=live, context=context, **owner,
            )  # fmt: skip
        case "outcome":
            return Outcome(
                id=f"outcome_{call}_{draw(st.integers(0, 1))}", call=call, model="x", provider="p", status=200,
                latency_ms=draw(st.floats(0, 1e5)), first_byte_ms=0.0, prompt_tokens=1, completion_tokens=1,
                cost_nusd=draw(st.integers(0, 10**10)), error=draw(st.sampled_from(["", "", "stream_cut"])), **owner,
            )  # fmt: skip
        case _:
            target = draw(st.one_of(CALLS, st.just("answer_1"), st.just("item_unknown")))
            return Feedback(
                id=f"feedback_{draw(st.integers(0, 12))}", target=target,
                kind=draw(st.sampled_from(["rating", "praise"])), source=draw(st.sampled_from(["user", "qa"])),
                value=draw(st.floats(0, 1)), **owner,
            )  # fmt: skip


HISTORY = st.lists(records(), max_size=30)


@st.composite
def interleaved(draw: st.DrawFn) -> list[LedgerRecord]:
    """A history, some of its records once more, in any order."""
    history = draw(HISTORY)
    again = draw(st.lists(st.sampled_from(history), max_size=10)) if history else []
    return draw(st.permutations([*history, *again]))


def _append_in_parts(ledger: MemoryLedger | SqlLedger, history: list[LedgerRecord], cuts: list[int]) -> None:
    borders = [0, *sorted(cut % (len(history) + 1) for cut in cuts), len(history)]
    for start, end in zip(borders, borders[1:], strict=False):
        ledger.append_now(*history[start:end])


@settings(max_examples=60)
@given(interleaved(), st.lists(st.integers(0, 60), max_size=6))
def test_replay_gives_the_very_state_that_learning_as_it_came_gave(
    history: list[LedgerRecord], cuts: list[int]
) -> None:
    ledger, live = MemoryLedger(), Learner(_loop())
    for cut in [*cuts, len(history)]:
        ledger.append_now(*history[: cut % (len(history) + 1)])
        live.catch_up(ledger)
    ledger.append_now(*history)
    live.catch_up(ledger)
    assert rebuild(ledger, _loop()).digest() == live.digest()
    assert rebuild(ledger, _loop(), until=live.cursor).digest() == live.digest()


@settings(max_examples=60)
@given(interleaved(), st.integers(0, 60))
def test_a_restart_is_the_same_as_going_on(history: list[LedgerRecord], cut: int) -> None:
    ledger, steady = MemoryLedger(), Learner(_loop())
    half = cut % (len(history) + 1)
    ledger.append_now(*history[:half])
    steady.catch_up(ledger)
    kept = steady.state()
    ledger.append_now(*history[half:])
    steady.catch_up(ledger)
    restarted = rebuild(ledger, _loop(), snapshot=kept)
    assert (restarted.digest(), restarted.cursor) == (steady.digest(), steady.cursor)


@settings(max_examples=60)
@given(interleaved(), st.lists(st.integers(0, 60), max_size=6))
def test_duplicates_change_nothing(history: list[LedgerRecord], cuts: list[int]) -> None:
    """A ledger that got every record twice holds, and teaches, what one holds that got it once."""
    once, twice = MemoryLedger(), MemoryLedger()
    once.append_now(*history)
    _append_in_parts(twice, history, cuts)
    twice.append_now(*reversed(history))
    assert once.read(ALL) == twice.read(ALL)
    assert rebuild(once, _loop()).digest() == rebuild(twice, _loop()).digest()


@settings(max_examples=12)
@given(interleaved(), st.lists(st.integers(0, 60), max_size=6))
def test_sqlite_keeps_what_memory_keeps_and_replays_it(history: list[LedgerRecord], cuts: list[int]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "ledger.db").write_bytes(tables())
        db = Database(f"sqlite:///{folder}/ledger.db")
        memory, sql, live = MemoryLedger(), SqlLedger(db), Learner(_loop())
        _append_in_parts(memory, history, cuts)
        _append_in_parts(sql, history, cuts)
        live.catch_up(sql)
        sql.append_now(*history)
        live.catch_up(sql)
        assert [entry.record for entry in sql.read(ALL)] == [entry.record for entry in memory.read(ALL)]
        for scope in SCOPES:
            assert list(sql.calls(scope)) == list(memory.calls(scope))
            assert list(sql.decisions(scope)) == list(memory.decisions(scope))
            assert set(sql.calls_beneath(scope, "answer_1")) == set(memory.calls_beneath(scope, "answer_1"))
        assert rebuild(sql, _loop()).digest() == live.digest()
        sql.close()
        again = SqlLedger(db)
        assert rebuild(again, _loop(), until=live.cursor).digest() == live.digest()
        again.close()
        db.close()
