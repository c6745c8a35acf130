"""Warm start in a runtime: who is asked what, what the policy learns of it, what counts as a choice, what it costs."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.golden.application import NOW, opened
from tests.unit.improve.grading.scene import Says, called, graded, grades
from tests.unit.improve.warm.scene import KNOWN, ON, USD, extra, observed, ready, says, warmed

from windlass.errors import LedgerError, SettingsError, UpstreamError
from windlass.gateway.provider import ProviderReply, ProviderRequest
from windlass.gateway.transit import Request
from windlass.improve.grading.cases import OWN_PARENT
from windlass.improve.warm.prompt import parent_of
from windlass.improve.warm.store import WantedAnswer, WarmTable
from windlass.improve.warm.warm import AT_ONCE, LATE_S
from windlass.ledger.ledger import CallTrace
from windlass.policies.points import NAMED
from windlass.records import Feedback, Scope
from windlass.runtime import Runtime
from windlass.server import evaluation_ledger
from windlass.testing import Clock, Echo

MANY = {**ON, "routing__warm_start_prompts": 100}
"""More than are asked here, whomever a policy chooses."""


async def test_each_prompt_goes_to_every_other_model_and_the_policy_learns_of_all(tmp_path: Path) -> None:
    async with opened(tmp_path, [says("a", "b", "c")], **ON) as runtime:
        ready(runtime)
        source = await called(runtime, "what?", stream=True, **KNOWN)
        await warmed(runtime)
        await graded(runtime)
        await runtime.caught_up()
        asked = runtime.ledger.trace(Scope(), source)
        assert asked is not None
        made, calls = asked.decisions[0], extra(runtime)
        assert {one.call.model for one in calls} == {"a", "b", "c"} - {made.action}
        assert observed(runtime) == {"a": 1, "b": 1, "c": 1}
        told = {one.target: one.value for one in grades(runtime, "exact")}
        assert {told[one.call.id] for one in calls if one.call.model == "b"} <= {1.0}
        assert set(told) == {source, *(one.call.id for one in calls)}
        assert runtime.replay()[1] == runtime.replay()[2]


async def test_what_was_forced_is_marked_and_is_no_choice(tmp_path: Path) -> None:
    async with opened(tmp_path, [says("a", "b", "c")], **ON) as runtime:
        ready(runtime)
        source = await called(runtime, "what?", **KNOWN)
        await warmed(runtime)
        await runtime.caught_up()
        live = runtime.ledger.trace(Scope(), source)
        assert live is not None
        for trace in extra(runtime):
            (made,) = trace.decisions
            assert (made.actions, made.action, made.propensity, made.live) == (
                (trace.call.model,),
                trace.call.model,
                1.0,
                True,
            )
            assert made.extra["forced"] == "warm_start"
            assert made.policy == live.decisions[0].policy
            kept = {name: value for name, value in live.decisions[0].context.items() if name != "allowance_nusd"}
            assert made.context == kept
        log = evaluation_ledger.read(runtime.ledger, Scope(), "model", runtime.settings.reward)
        assert len(log.choices) == 1
        assert log.left_out == {"one action was eligible": 2}
        hours = runtime.rollups.decisions(Scope(), 0.0, point="model")
        assert sum(hour.chosen for hour in hours if hour.policy != NAMED) == 1


async def test_it_ends_with_the_prompts(tmp_path: Path) -> None:
    async with opened(tmp_path, [says("a", "b", "c")], **ON) as runtime:
        ready(runtime)
        for number in range(5):
            await called(runtime, f"question {number}", **KNOWN)
        await warmed(runtime)
        assert len(extra(runtime)) == 2 * 3
        assert runtime.warm is not None
        assert runtime.warm.table.progress(Scope())[:3] == (3, 6, 0)


async def test_the_same_prompt_is_not_asked_again_whoever_asks_it(tmp_path: Path) -> None:
    async with opened(tmp_path, [says("a", "b", "c")], **ON) as runtime:
        ready(runtime)
        await called(runtime, "what?", user="one", **KNOWN)
        await called(runtime, "what?", user="another", stream=True, **KNOWN)
        await warmed(runtime)
        assert len(extra(runtime)) == 2
        assert runtime.warm is not None
        assert runtime.warm.passed_over["asked_before"] == 1


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"store": False}, "private"),
        ({"metadata": {"data_class": "personal"}}, "private"),
        ({"model": "a"}, "no_choice"),
    ],
)
async def test_what_is_private_or_was_named_stays_where_it_went(
    tmp_path: Path, fields: dict[str, Any], why: str
) -> None:
    async with opened(tmp_path, [says("a", "b", "c")], **ON) as runtime:
        ready(runtime)
        await called(runtime, "what?", **fields)
        await warmed(runtime)
        assert extra(runtime) == []
        assert runtime.warm is not None
        assert runtime.warm.passed_over == {why: 1}


async def test_it_stops_before_the_budget_would_be_overspent(tmp_path: Path) -> None:
    provider = says("a", "b", "c")
    changes = {**ON, "routing__warm_start_budget_usd": 0.15, "routing__warm_start_prompts": 100}
    async with opened(tmp_path, [provider], **changes) as runtime:
        ready(runtime)
        for number in range(6):
            await called(runtime, f"question {number}", **KNOWN)
        await warmed(runtime)
        assert runtime.warm is not None
        # Two answers are held at 0.082 USD and cost 0.04: the first two prompts fit into 0.15, and a third does not.
        assert len(extra(runtime)) == 4
        assert runtime.warm.table.spent_nusd() == 4 * 20_000_000
        assert runtime.warm.passed_over["budget"] == 4


async def test_a_model_without_a_price_keeps_the_prompt_from_all(tmp_path: Path) -> None:
    async with opened(tmp_path, [Echo("a"), says("b", "c")], **MANY) as runtime:
        ready(runtime)
        for number in range(8):
            await called(runtime, f"question {number}", **KNOWN)
        await warmed(runtime)
        assert runtime.warm is not None
        # Only where the model without a price was chosen itself do the others have one.
        chosen = [one.outcome.model for one in runtime.ledger.calls(Scope()) if one.outcome and not one.call.parent]
        assert runtime.warm.passed_over["no_price"] == sum(model != "a" for model in chosen)


async def test_what_broke_off_is_not_asked_again_and_stays_held(tmp_path: Path) -> None:
    async with opened(tmp_path, [says("a", "b", "c")], **ON) as runtime:
        ready(runtime)
        source = await called(runtime, "what?", **KNOWN)
        assert runtime.warm is not None
        table = runtime.warm.table
        found = await asyncio.to_thread(runtime.warm._found, _outcome(runtime, source))
        assert isinstance(found, tuple)
    # The process died with two answers on their way, of which nothing came into the ledger.
    async with opened(tmp_path, [says("a", "b", "c")], **ON) as runtime:
        ready(runtime)
        await warmed(runtime)
        assert extra(runtime) == []
        assert runtime.warm is not None
        table = runtime.warm.table
        assert table.progress(Scope())[:4] == (1, 0, 2, 0)
        assert table.spent_nusd() == table.progress(Scope()).held_nusd > 0


async def test_what_came_back_but_was_not_booked_is_booked_at_the_next_start(tmp_path: Path) -> None:
    async with opened(tmp_path, [says("a", "b", "c")], **ON) as runtime:
        ready(runtime)
        await called(runtime, "what?", **KNOWN)
        assert runtime.warm is not None
        runtime.warm.table.settle = lambda wanted, cost_nusd: None  # type: ignore[method-assign]  # it dies before it books
        await warmed(runtime)
        assert runtime.warm.table.progress(Scope()).open == 2
    async with opened(tmp_path, [says("a", "b", "c")], **ON) as runtime:
        ready(runtime)
        await warmed(runtime)
        assert runtime.warm is not None
        assert runtime.warm.table.progress(Scope())[:4] == (1, 2, 0, 2 * 20_000_000)
        assert runtime.warm.table.spent_nusd() == 2 * 20_000_000
        assert len(extra(runtime)) == 2


async def test_a_model_that_fails_is_learned_of_and_stops_no_other(tmp_path: Path) -> None:
    def by(request: ProviderRequest) -> str:
        if request.model == "c" and request.chat.model != "auto":
            raise UpstreamError("down", status=None)
        return "good"

    async with opened(tmp_path, [Says("a", "b", "c", by=by, usd=USD)], **MANY, resilience__attempts=1) as runtime:
        ready(runtime)
        while (await _chosen(runtime)) == "c":
            pass
        await warmed(runtime)
        calls = {one.call.model: one for one in extra(runtime)}
        assert "c" in calls
        failed = calls["c"].outcome
        assert failed is not None
        assert failed.error
        assert all(one.outcome is not None and not one.outcome.error for name, one in calls.items() if name != "c")
        assert runtime.warm is not None
        assert runtime.warm.table.progress(Scope()).open == 0
        await runtime.caught_up()
        assert observed(runtime)["c"] >= 1


class Slow(Says):
    """Holds every call that names its model until it is let go, and counts how many it holds."""

    def __init__(self, *models: str) -> None:
        super().__init__(*models, by=lambda _: "good", usd=USD)
        self.gate = asyncio.Event()
        self.held = 0
        self.most = 0

    async def send(self, request: ProviderRequest) -> ProviderReply:
        if request.chat.model != "auto":
            self.held += 1
            self.most = max(self.most, self.held)
            await self.gate.wait()
            self.held -= 1
        return await super().send(request)


async def test_calls_of_clients_wait_for_none_of_it_and_few_are_asked_at_once(tmp_path: Path) -> None:
    provider = Slow(*"abcdefgh")
    async with opened(tmp_path, [provider], **ON) as runtime:
        ready(runtime)
        await called(runtime, "what?", **KNOWN)
        assert runtime.warm is not None
        working = asyncio.create_task(runtime.warm.step())
        while provider.held < AT_ONCE:
            await asyncio.sleep(0.01)
        async with asyncio.timeout(5.0):
            await called(runtime, "and now?", **KNOWN)
        assert provider.held == AT_ONCE
        provider.gate.set()
        await working
        assert len(extra(runtime)) == 7
        assert provider.most == AT_ONCE


async def test_what_is_cancelled_on_its_way_is_booked_as_the_ledger_has_it(tmp_path: Path) -> None:
    provider = Slow("a", "b", "c")
    async with opened(tmp_path, [provider], **ON) as runtime:
        ready(runtime)
        await called(runtime, "what?", **KNOWN)
        assert runtime.warm is not None
        working = asyncio.create_task(runtime.warm.step())
        while provider.held < 2:
            await asyncio.sleep(0.01)
        working.cancel()
        await asyncio.gather(working, return_exceptions=True)
        assert runtime.warm.table.progress(Scope()).open == 2
    async with opened(tmp_path, [provider], **ON) as runtime:
        ready(runtime)
        await warmed(runtime)
        assert runtime.warm is not None
        outcomes = [one.outcome for one in extra(runtime)]
        assert [bool(outcome and outcome.error) for outcome in outcomes] == [True, True]
        assert runtime.warm.table.progress(Scope())[:4] == (1, 2, 0, 0)
        assert runtime.warm.table.spent_nusd() == 0
        assert provider.asked[1:] == []


async def test_no_fallback_answers_in_the_place_of_a_model(tmp_path: Path) -> None:
    def by(request: ProviderRequest) -> str:
        if request.model == "c" and request.chat.model != "auto":
            raise UpstreamError("down", status=None)
        return "good"

    provider = Says("a", "b", "c", by=by, usd=USD)
    provider.models = tuple(msgspec.structs.replace(one, fallbacks=("a",)) for one in provider.models)
    async with opened(tmp_path, [provider], **MANY, resilience__attempts=1) as runtime:
        ready(runtime)
        while (await _chosen(runtime)) == "c":
            pass
        await warmed(runtime)
        (failed,) = (one.outcome for one in extra(runtime) if one.call.model == "c")
        assert failed is not None
        assert (failed.model, bool(failed.error)) == ("c", True)


async def test_a_limit_of_the_tenant_holds_for_it_and_nothing_stays_taken(tmp_path: Path) -> None:
    limits = [{"name": "few", "window": "total", "requests": 1}]
    async with opened(tmp_path, [says("a", "b", "c")], **ON, limits=limits) as runtime:
        ready(runtime)
        await called(runtime, "what?", **KNOWN)
        await warmed(runtime)
        assert extra(runtime) == []
        assert runtime.warm is not None
        assert runtime.warm.passed_over["refused"] == 2
        assert runtime.warm.table.progress(Scope()) == (0, 0, 0, 0, 0)
        assert runtime.warm.table.spent_nusd() == 0


async def test_another_tenant_has_prompts_and_a_policy_of_its_own(tmp_path: Path) -> None:
    one, other = Scope("one", "default"), Scope("other", "default")
    async with opened(tmp_path, [says("a", "b", "c")], **ON) as runtime:
        ready(runtime)
        await called(runtime, "what?", scope=one, **KNOWN)
        await warmed(runtime)
        await graded(runtime)
        await runtime.caught_up()
        assert (len(extra(runtime, one)), len(extra(runtime, other))) == (2, 0)
        assert sum(observed(runtime, one).values()) == 3
        assert sum(observed(runtime, other).values()) == 0
        await called(runtime, "what?", scope=other, **KNOWN)
        await warmed(runtime)
        assert len(extra(runtime, other)) == 2


async def test_forgetting_a_user_takes_their_prompts_and_keeps_what_was_spent(tmp_path: Path) -> None:
    async with opened(tmp_path, [says("a", "b", "c")], **ON) as runtime:
        ready(runtime)
        source = await called(runtime, "a secret of mine", user="mallory", **KNOWN)
        await called(runtime, "another thing", user="trent", **KNOWN)
        await warmed(runtime)
        assert runtime.warm is not None
        before = runtime.warm.table.progress(Scope())
        assert await runtime.forget(Scope(), "mallory", by="test") > 0
        assert runtime.warm.table.progress(Scope()) == before
        assert runtime.warm.table.spent_nusd() == before.cost_nusd
        theirs = [one for one in extra(runtime) if not one.call.user]
        assert len(theirs) == 2
        assert all(runtime.ledger.bodies(Scope(), one.call.id) == () for one in theirs)
        with runtime.db.read() as connection:
            rows = connection.exec_driver_sql("SELECT prompt, source FROM warm_answers").all()
        assert [row[0] == row[1] for row in rows].count(True) == 2
        assert {row[0] for row in rows if row[0] == row[1]} == {source}


async def test_a_user_who_was_forgotten_meanwhile_is_not_asked_about(tmp_path: Path) -> None:
    async with opened(tmp_path, [says("a", "b", "c")], **ON) as runtime:
        ready(runtime)
        source = await called(runtime, "a secret of mine", user="mallory", **KNOWN)
        assert runtime.warm is not None
        found = await asyncio.to_thread(runtime.warm._found, _outcome(runtime, source))
        assert isinstance(found, tuple)
        await runtime.forget(Scope(), "mallory", by="test")
        for model in found[1]:
            await runtime.warm._asked(found[0], model)
        assert extra(runtime) == []
        assert runtime.warm.table.spent_nusd() == 0, "nobody was asked, so nothing is held"


async def test_a_user_whose_name_is_redacted_in_bodies_is_forgotten_in_the_extra_calls_too(tmp_path: Path) -> None:
    async with opened(tmp_path, [says("a", "b", "c")], **ON) as runtime:
        ready(runtime)
        mallory = "mallory@example.com"
        source = await called(runtime, "a secret of mine", user=mallory, **KNOWN)
        kept = {body.role: body.data for body in runtime.ledger.bodies(Scope(), source)}
        assert mallory.encode() not in kept["request"], "or this shows nothing"
        await warmed(runtime)
        assert [one.call.user for one in extra(runtime)] == [mallory, mallory]
        await runtime.forget(Scope(), mallory, by="test")
        assert [one.call.user for one in extra(runtime)] == ["", ""]
        assert all(runtime.ledger.bodies(Scope(), one.call.id) == () for one in extra(runtime))


async def test_what_is_answered_while_its_user_is_forgotten_is_booked(tmp_path: Path) -> None:
    provider = Slow("a", "b", "c")
    async with opened(tmp_path, [provider], **ON) as runtime:
        ready(runtime)
        await called(runtime, "a secret of mine", user="mallory", **KNOWN)
        assert runtime.warm is not None
        working = asyncio.create_task(runtime.warm.step())
        while provider.held < 2:
            await asyncio.sleep(0.01)
        await runtime.forget(Scope(), "mallory", by="test")
        provider.gate.set()
        await working
        assert runtime.warm.table.progress(Scope())[:4] == (1, 2, 0, 2 * 20_000_000)
        assert runtime.warm.table.spent_nusd() == 2 * 20_000_000


async def test_what_a_judge_asks_goes_to_no_other_model(tmp_path: Path) -> None:
    async with opened(tmp_path, [says("a", "b", "c")], **ON) as runtime:
        ready(runtime)
        body = msgspec.json.encode({"model": "auto", "messages": [{"role": "user", "content": "is it good?"}]})
        answer = await runtime.gateway.complete(Request(body, parent=f"{OWN_PARENT}1"))
        assert [chunk async for chunk in answer.chunks]
        await warmed(runtime)
        assert extra(runtime) == []
        assert runtime.warm is not None
        assert runtime.warm.passed_over == {"no_choice": 1}


async def test_a_ledger_that_fails_while_it_books_is_asked_later(tmp_path: Path) -> None:
    async with opened(tmp_path, [says("a", "b", "c")], **ON) as runtime:
        ready(runtime)
        await called(runtime, "what?", **KNOWN)
        assert runtime.warm is not None
        table, settle = runtime.warm.table, runtime.warm.table.settle

        def broken(wanted: WantedAnswer, cost_nusd: int) -> None:
            raise LedgerError("the disk is full")

        table.settle = broken  # type: ignore[method-assign]
        with pytest.raises(LedgerError):
            await runtime.warm.step()
        table.settle = settle  # type: ignore[method-assign]
        while table.progress(Scope()).open:
            await runtime.warm.step()
            await asyncio.sleep(0.01)
        assert table.spent_nusd() == 2 * 20_000_000
        assert len(extra(runtime)) == 2


@pytest.mark.parametrize("length", [-(10**12), 10**12, 2**63, 10**30])
async def test_an_absurd_length_holds_neither_money_back_nor_the_others_up(tmp_path: Path, length: int) -> None:
    async with opened(tmp_path, [says("a", "b", "c")], **ON) as runtime:
        ready(runtime)
        odd = await called(runtime, "odd", max_tokens=length, **KNOWN)
        await called(runtime, "what?", **KNOWN)
        assert runtime.warm is not None
        found = await asyncio.to_thread(runtime.warm._found, _outcome(runtime, odd))
        assert runtime.warm.table.spent_nusd() >= 0
        assert isinstance(found, tuple) or found == "budget"
        await warmed(runtime)
        assert runtime.warm.table.progress(Scope()).answers >= 2


async def test_old_calls_failed_calls_and_its_own_are_left_alone(tmp_path: Path) -> None:
    clock = Clock(NOW)
    async with opened(tmp_path, [says("a", "b", "c")], clock=clock, **ON) as runtime:
        ready(runtime)
        await called(runtime, "old", **KNOWN)
        clock.forward(LATE_S + 1.0)
        await warmed(runtime)
        assert extra(runtime) == []
        await called(runtime, "new", **KNOWN)
        await warmed(runtime)
        await warmed(runtime)
        assert len(extra(runtime)) == 2


async def test_while_no_policy_acts_nothing_is_asked(tmp_path: Path) -> None:
    async with opened(tmp_path, [says("a", "b", "c")], **{**ON, "points__model__mode": "shadow"}) as runtime:
        ready(runtime)
        await called(runtime, "what?", **KNOWN)
        await warmed(runtime)
        assert extra(runtime) == []


async def test_a_call_that_cannot_be_read_holds_up_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with opened(tmp_path, [says("a", "b", "c")], **ON) as runtime:
        ready(runtime)
        odd = await called(runtime, "odd", **KNOWN)
        await called(runtime, "what?", **KNOWN)
        trace = runtime.ledger.trace

        def broken(scope: Scope, call: str) -> CallTrace | None:
            if call == odd:
                raise RecursionError("too deep")
            return trace(scope, call)

        monkeypatch.setattr(runtime.ledger, "trace", broken)
        await warmed(runtime)
        monkeypatch.undo()
        assert len(extra(runtime)) == 2
        assert runtime.warm is not None
        assert runtime.warm.passed_over["failed"] == 1


async def test_it_is_off_unless_set(tmp_path: Path) -> None:
    async with opened(tmp_path, [says("a", "b")]) as runtime:
        assert runtime.warm is None


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"graders__exact": None}, "nobody would say how good"),
        ({"gateway__keep_bodies": False}, "the bodies kept"),
        ({"routing__warm_start_budget_usd": 0.0}, "warm_start_budget_usd above 0"),
        ({"routing__warm_start_prompts": -1}, "warm_start_prompts"),
    ],
)
async def test_settings_that_cannot_work_are_refused(tmp_path: Path, changes: dict[str, Any], words: str) -> None:
    wanted = {name: value for name, value in {**ON, **changes}.items() if value is not None}
    with pytest.raises(SettingsError, match=words):
        async with opened(tmp_path, [says("a", "b")], **wanted):
            pass


async def test_two_workers_take_each_prompt_once(tmp_path: Path) -> None:
    async with opened(tmp_path, [], **ON) as runtime:
        table, held = WarmTable(runtime.db), {"a": 5, "b": 7}
        table.begin(0)
        taken = await asyncio.gather(
            *(asyncio.to_thread(table.claim, Scope(), "p", "call_1", held, 1_000, NOW) for _ in range(8))
        )
        assert sorted(taken, key=lambda one: -len(one or ())) == [("a", "b"), *[()] * 7]
        assert table.spent_nusd() == 12
        table.settle(WantedAnswer(Scope(), "p", "a"), 3)
        table.settle(WantedAnswer(Scope(), "p", "a"), 4)
        table.release(WantedAnswer(Scope(), "p", "a"))
        assert table.spent_nusd() == 10
        table.release(WantedAnswer(Scope(), "p", "b"))
        assert (table.spent_nusd(), table.progress(Scope())) == (3, (1, 1, 0, 3, 0))
        table.move(9)
        table.move(4)
        assert table.cursor() == 9


def test_no_two_answers_have_the_same_parent() -> None:
    places = [(Scope(), "p", "a"), (Scope(), "p", "b"), (Scope(), "q", "a"), (Scope("x", "default"), "p", "a")]
    assert len({parent_of(*place) for place in places}) == 4


async def test_feedback_on_the_call_that_brought_a_prompt_says_nothing_of_the_others(tmp_path: Path) -> None:
    async with opened(tmp_path, [says("a", "b", "c")], **ON) as runtime:
        ready(runtime)
        source = await called(runtime, "what?")
        await warmed(runtime)
        said = Feedback(id="feedback_1", at=NOW, target=source, kind="rating", source="user", value=1.0)
        await runtime.ledger.append(said)
        await runtime.caught_up()
        assert sum(observed(runtime).values()) == 1


def _outcome(runtime: Runtime, call: str) -> Any:
    trace = runtime.ledger.trace(Scope(), call)
    assert trace is not None
    return trace.outcome


async def _chosen(runtime: Runtime) -> str:
    """A call for `auto`, and who answered."""
    call = await called(runtime, f"question {msgspec.json.encode(runtime.ledger.head()).decode()}", **KNOWN)
    trace = runtime.ledger.trace(Scope(), call)
    assert trace is not None
    return trace.decisions[0].action
