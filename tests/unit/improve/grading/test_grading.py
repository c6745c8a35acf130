"""Grading in a runtime: what becomes of finished calls, once, whatever graders and replies do."""

from __future__ import annotations

import asyncio
import threading
import time
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.golden.application import NOW, key, opened
from tests.unit.improve.grading.scene import Says, called, graded, grades, ready

from windlass.errors import SettingsError
from windlass.gateway.access.admission import Caller
from windlass.gateway.feedback import FeedbackRequest
from windlass.improve.grading import registry
from windlass.improve.grading.cases import MOST_BYTES
from windlass.improve.grading.exact import Exact, ExactOptions
from windlass.improve.grading.grader import Case, Grade, GraderFailed, Skipped, Verdict, said
from windlass.improve.grading.options import GraderOptions
from windlass.improve.grading.panel import MOST_HUNG, seats
from windlass.improve.grading.store import GradingPlace
from windlass.ledger.ledger import Body
from windlass.records import Scope
from windlass.runtime import Runtime
from windlass.testing import Clock, Echo

EXACT = {"options": {"match": "contains"}}
KNOWN = {"metadata": {"expected": "42"}}


class Odd(Exact):
    """A stranger's grader that does as `act` says."""

    def __init__(self, act: Any) -> None:
        super().__init__(ExactOptions())
        self._act = act

    def grade(self, case: Case) -> Verdict:
        found: Verdict = self._act(case)
        return found


@pytest.fixture
def odd(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Lets `[graders.odd]` with check `exact` be a stranger's."""

    def be(act: Any) -> None:
        def make(name: str, given: Any) -> Any:
            return Odd(act) if name == "odd" else Exact(ExactOptions(match="contains"))

        monkeypatch.setattr(registry, "make", make)

    return be


async def test_a_finished_call_is_graded_and_the_policy_learns_of_it(tmp_path: Path) -> None:
    async with opened(tmp_path, [Echo("a", "b")], graders__exact=EXACT) as runtime:
        ready(runtime)
        right = await called(runtime, "it is 42", **KNOWN)
        wrong = await called(runtime, "it is 41", **KNOWN)
        silent = await called(runtime, "it is 42")
        await runtime.caught_up()
        before = runtime.learner.digest()
        await graded(runtime)
        found = {one.target: one for one in grades(runtime, "exact")}
        assert {target: one.value for target, one in found.items()} == {right: 1.0, wrong: 0.0}
        assert silent not in found
        assert {one.source for one in found.values()} == {"qa"}
        assert found[right].comment == "the expected answer"
        assert found[right].extra["raw"] == 1.0
        await runtime.caught_up()
        assert runtime.learner.digest() != before, "credit goes to the live decisions of the call"
        assert runtime.replay()[1] == runtime.replay()[2]


async def test_looking_twice_counts_once(tmp_path: Path) -> None:
    async with opened(tmp_path, [Echo("a")], graders__exact=EXACT) as runtime:
        ready(runtime)
        call = await called(runtime, "42", **KNOWN)
        await graded(runtime)
        first = grades(runtime, "exact")
        again = await runtime.grading.grade(Scope(), call)
        assert [one.why for one in again] == ["graded_before"]
        fresh = GradingPlace(runtime.db, runtime.clock)
        assert fresh.move(fresh.cursor(), 0), "as after a crash before the place was noted"
        await graded(runtime)
        assert grades(runtime, "exact") == first


async def test_a_restart_goes_on_and_what_came_before_the_first_start_is_left(tmp_path: Path) -> None:
    clock = Clock(NOW)
    async with opened(tmp_path, [Echo("a")], clock=clock) as runtime:
        await called(runtime, "42 old", **KNOWN)
    async with opened(tmp_path, [Echo("a")], clock=clock, graders__exact=EXACT) as runtime:
        ready(runtime)
        await graded(runtime)
        assert grades(runtime, "exact") == []
        missed = await called(runtime, "42 missed", **KNOWN)
    clock.forward(31)  # the turn of whoever was killed is over
    async with opened(tmp_path, [Echo("a")], clock=clock, graders__exact=EXACT) as runtime:
        ready(runtime)
        await graded(runtime)
        assert [one.target for one in grades(runtime, "exact")] == [missed]


async def test_the_background_does_it_by_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("windlass.improve.grading.grading.EVERY_S", 0.01)
    async with opened(tmp_path, [Echo("a")], graders__exact=EXACT) as runtime:
        task = asyncio.create_task(runtime.grading.run())
        await asyncio.sleep(0.1)
        await called(runtime, "42", **KNOWN)
        async with asyncio.timeout(10):
            while not grades(runtime, "exact"):
                await asyncio.sleep(0.01)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert GradingPlace(runtime.db, runtime.clock).take(), "who leaves lets another go on at once"


async def test_without_graders_nothing_of_them_is_there(tmp_path: Path) -> None:
    async with opened(tmp_path, [Echo("a")]) as runtime:
        assert runtime.grading is None


# --- graders that misbehave


@pytest.mark.parametrize(
    ("act", "words"),
    [
        (lambda case: 1 / 0, "ZeroDivisionError"),
        (lambda case: (_ for _ in ()).throw(SystemExit(3)), "SystemExit"),
        (lambda case: (_ for _ in ()).throw(StopIteration()), ""),
        (lambda case: (_ for _ in ()).throw(GraderFailed("no luck today")), "no luck today"),
        (lambda case: None, "is no verdict"),
        (lambda case: 0.5, "is no verdict"),
        (lambda case: Grade(value=float("nan"), reason="x"), "is no verdict"),
        (lambda case: Grade(value=1.5, reason="x"), "is no verdict"),
        (lambda case: Grade(value="1", reason="x"), "is no verdict"),
        (lambda case: Grade(value=1.0, reason=None), "is no verdict"),
        (lambda case: said(0.0, "another's", target="call_of_somebody_else"), "not the call that it was asked about"),
    ],
)
async def test_a_grader_that_fails_is_counted_and_the_others_go_on(
    tmp_path: Path, odd: Any, act: Any, words: str
) -> None:
    odd(act)
    async with opened(tmp_path, [Echo("a")], graders__odd={}, graders__exact={}) as runtime:
        ready(runtime)
        call = await called(runtime, "42", **KNOWN)
        await graded(runtime)
        assert [one.target for one in grades(runtime, "exact")] == [call]
        assert grades(runtime, "odd") == []
        seat = next(seat for seat in runtime.grading.seats if seat.metric == "odd")
        assert (seat.failed, seat.given) == (1, 0)
        assert words in seat.last_failure
        assert [trace.outcome.error for trace in runtime.ledger.calls(Scope())] == [""], "no call is touched"


async def test_a_grader_that_hangs_is_left_behind_and_then_left_alone(tmp_path: Path, odd: Any) -> None:
    ended = threading.Event()
    odd(lambda case: ended.wait(30))
    async with opened(tmp_path, [Echo("a")], graders__odd={"timeout_s": 0.05}, graders__exact={}) as runtime:
        ready(runtime)
        for number in range(MOST_HUNG + 2):
            await called(runtime, f"42 {number}", **KNOWN)
        began = time.monotonic()
        await graded(runtime)
        assert time.monotonic() - began < 5.0
        assert len(grades(runtime, "exact")) == MOST_HUNG + 2
        seat = next(seat for seat in runtime.grading.seats if seat.metric == "odd")
        assert seat.failed >= MOST_HUNG
        assert "raise graders.odd.timeout_s" in seat.last_failure
        await called(runtime, "42 more", **KNOWN)
        await graded(runtime)
        assert seat.skipped["hung"] >= 1
        ended.set()


async def test_a_grader_whose_threads_come_back_is_asked_again(tmp_path: Path, odd: Any) -> None:
    ended = threading.Event()
    odd(lambda case: said(0.5, "at last") if ended.wait(30) else None)
    async with opened(tmp_path, [Echo("a")], graders__odd={"timeout_s": 0.3}) as runtime:
        ready(runtime)
        (seat,) = runtime.grading.seats
        for number in range(MOST_HUNG):
            await called(runtime, f"42 {number}", **KNOWN)
        await graded(runtime)
        await called(runtime, "42 more", **KNOWN)
        await graded(runtime)
        assert (seat.hung, dict(seat.skipped)) == (MOST_HUNG, {"hung": 1})
        left = list(seat.left)
        ended.set()
        for thread in left:
            thread.join(10)
        call = await called(runtime, "42 again", **KNOWN)
        await graded(runtime)
        assert seat.hung == 0
        assert [one.target for one in grades(runtime, "odd")] == [call]


async def test_a_time_out_of_a_graders_own_is_a_failure_like_any_other(tmp_path: Path, odd: Any) -> None:
    odd(lambda case: (_ for _ in ()).throw(TimeoutError("its own")))
    async with opened(tmp_path, [Echo("a")], graders__odd={}) as runtime:
        ready(runtime)
        (seat,) = runtime.grading.seats
        for number in range(MOST_HUNG + 1):
            await called(runtime, f"42 {number}", **KNOWN)
            await graded(runtime)
        assert (seat.failed, seat.hung, dict(seat.skipped)) == (MOST_HUNG + 1, 0, {})
        assert seat.last_failure == "it raised TimeoutError"


def test_code_needs_more_time_than_it_may_use() -> None:
    with pytest.raises(SettingsError, match=r"may take 10 s .* set graders\.code\.timeout_s above that"):
        seats({"code": GraderOptions(timeout_s=10.0, options={"seconds": 5.0})})
    assert seats({"code": GraderOptions(timeout_s=10.1, options={"seconds": 5.0})})


async def test_a_reason_that_no_database_takes_stops_no_other_grader(tmp_path: Path, odd: Any) -> None:
    odd(lambda case: Grade(value=0.5, reason="a\x00b"))
    async with opened(tmp_path, [Echo("a")], graders__a={"check": "odd"}, graders__exact={}) as runtime:
        ready(runtime)
        call = await called(runtime, "42", **KNOWN)
        await graded(runtime)
        assert [one.comment for one in grades(runtime, "a")] == ["a b"]
        assert [one.target for one in grades(runtime, "exact")] == [call]


async def test_words_that_no_database_takes_are_made_plain(tmp_path: Path, odd: Any) -> None:
    odd(lambda case: said(0.5, "a\x00b\ud800c\n" + "x" * 5_000))
    async with opened(tmp_path, [Echo("a")], graders__odd={}) as runtime:
        ready(runtime)
        await called(runtime, "42", **KNOWN)
        await graded(runtime)
        (one,) = grades(runtime, "odd")
        assert one.comment.startswith("a b?c x")
        assert len(one.comment) == 300


async def test_a_share_of_the_calls_is_the_same_share_each_time(tmp_path: Path) -> None:
    share = {"check": "exact", "share": 0.5, "options": {"match": "contains"}}
    async with opened(tmp_path, [Echo("a")], graders__half=share) as runtime:
        (seat,) = runtime.grading.seats
        chosen = [seat.wants(f"call_{number}") for number in range(4_000)]
        assert chosen == [seat.wants(f"call_{number}") for number in range(4_000)]
        assert 1_800 < sum(chosen) < 2_200, "false alarm of this test < 1e-9, and the ids are fixed"


# --- replies and calls that cannot be graded


def bodies(runtime: Runtime, call: str, reply: bytes) -> None:
    """Replace what is kept of a call's reply."""
    kept = {body.role: body for body in runtime.ledger.bodies(Scope(), call)}
    assert runtime.ledger.prune(NOW + 1e9) >= 2
    for role, body in kept.items():
        data = reply if role == "reply" else body.data
        again = msgspec.structs.replace(body, id=f"{call}-{role}2", data=data)
        assert isinstance(again, Body)
        runtime.ledger.append_now(again)


@pytest.mark.parametrize(
    ("reply", "why"),
    [
        (b"x" * (MOST_BYTES + 1), "too_large"),
        (b"", "unreadable"),
        (b"\xff\xfe\x00", "unreadable"),
        (b"[" * 100_000, "unreadable"),
        (b'{"choices": 7}', "unreadable"),
    ],
)
async def test_a_reply_that_cannot_be_read_is_passed_over_by_name(tmp_path: Path, reply: bytes, why: str) -> None:
    async with opened(tmp_path, [Echo("a")], graders__exact=EXACT) as runtime:
        ready(runtime)
        call = await called(runtime, "42", **KNOWN)
        bodies(runtime, call, reply)
        await graded(runtime)
        assert grades(runtime, "exact") == []
        assert dict(runtime.grading.seats[0].skipped) == {why: 1}


async def test_a_reply_with_a_nul_is_graded_like_any_other(tmp_path: Path) -> None:
    async with opened(tmp_path, [Says("a", by=lambda request: "\x00 42 \x00")], graders__exact=EXACT) as runtime:
        ready(runtime)
        await called(runtime, "x", **KNOWN)
        await graded(runtime)
        assert [one.value for one in grades(runtime, "exact")] == [1.0]


@pytest.mark.parametrize("metadata", [None, 7, [], {"expected": None}, {"expected": {"a": 1}}, {"other": "42"}, "42"])
async def test_metadata_of_any_shape_is_no_answer(tmp_path: Path, metadata: Any) -> None:
    async with opened(tmp_path, [Echo("a")], graders__exact=EXACT) as runtime:
        ready(runtime)
        await called(runtime, "42", metadata=metadata)
        await graded(runtime)
        assert dict(runtime.grading.seats[0].skipped) == {"no_expected": 1}


async def test_several_expected_answers_may_stand_in_one_field(tmp_path: Path) -> None:
    async with opened(tmp_path, [Echo("a")], graders__exact=EXACT) as runtime:
        ready(runtime)
        await called(runtime, "fortytwo", metadata={"expected": '["42", "fortytwo"]'})
        await graded(runtime)
        assert [one.value for one in grades(runtime, "exact")] == [1.0]


async def test_where_no_bodies_are_kept_nothing_is_graded(tmp_path: Path) -> None:
    async with opened(tmp_path, [Echo("a")], graders__exact=EXACT, gateway__keep_bodies=False) as runtime:
        ready(runtime)
        await called(runtime, "42", **KNOWN)
        await graded(runtime)
        assert dict(runtime.grading.seats[0].skipped) == {"no_bodies": 1}


async def test_a_forgotten_users_call_is_not_graded_afterwards(tmp_path: Path) -> None:
    async with opened(tmp_path, [Echo("a")], graders__exact=EXACT) as runtime:
        ready(runtime)
        await called(runtime, "42", user="ann", **KNOWN)
        await runtime.forget(Scope(), "ann", by="test")
        await graded(runtime)
        assert grades(runtime, "exact") == []
        assert dict(runtime.grading.seats[0].skipped) == {"no_bodies": 1}


async def test_failed_calls_streams_and_several_choices(tmp_path: Path) -> None:
    async with opened(tmp_path, [Echo("a", "bad", failing=("bad",))], graders__exact=EXACT) as runtime:
        ready(runtime)
        await called(runtime, "42", model="a", stream=True, **KNOWN)
        await called(runtime, "42", model="a", n=2, **KNOWN)
        with pytest.raises(Exception, match="bad"):
            await called(runtime, "42", model="bad", **KNOWN)
        await graded(runtime)
        assert [one.value for one in grades(runtime, "exact")] == [1.0], "of the stream"
        assert dict(runtime.grading.seats[0].skipped) == {"several_choices": 1, "failed_call": 1}


async def test_other_dialects_are_graded_too(tmp_path: Path) -> None:
    from windlass.gateway.transit import Request

    async with opened(tmp_path, [Echo("a")], graders__exact=EXACT) as runtime:
        ready(runtime)
        one = {"model": "a", "input": "it is 42", **KNOWN}
        two = {"model": "a", "max_tokens": 9, "messages": [{"role": "user", "content": "it is 42"}], **KNOWN}
        for endpoint, body in (("responses", one), ("messages", two)):
            answer = await runtime.gateway.complete(
                Request(msgspec.json.encode(body), endpoint=endpoint, scope=Scope())
            )
            assert [chunk async for chunk in answer.chunks]
        await graded(runtime)
        assert [said.value for said in grades(runtime, "exact")] == [1.0, 1.0]


async def test_another_tenants_call_is_not_there(tmp_path: Path) -> None:
    async with opened(tmp_path, [Echo("a")], graders__exact=EXACT, keys=[key("k", "acme")]) as runtime:
        ready(runtime)
        theirs = await called(runtime, "42", scope=Scope("globex"), **KNOWN)
        assert await runtime.grading.grade(Scope("acme"), theirs) == []
        await graded(runtime)
        assert [one.target for one in grades(runtime, "exact", Scope("globex"))] == [theirs]
        assert grades(runtime, "exact", Scope("acme")) == []


async def test_answers_come_from_a_file_too(tmp_path: Path) -> None:
    file = tmp_path / "answers.jsonl"
    file.write_text('{"question": "What is 6 x 7?", "expected": "7?"}\n\n{"question": "other", "expected": "1"}\n')
    given = {"answers": str(file), **EXACT}
    async with opened(tmp_path / "home", [Echo("a")], graders__exact=given) as runtime:
        ready(runtime)
        await called(runtime, "what is  6 X 7?")
        await graded(runtime)
        assert [one.value for one in grades(runtime, "exact")] == [1.0]


@pytest.mark.parametrize("text", ["[1]", "{}", '{"question": 7, "expected": 1}', "\xff"])
async def test_a_file_of_answers_that_is_none_is_told_with_its_line(tmp_path: Path, text: str) -> None:
    file = tmp_path / "answers.jsonl"
    file.write_text('{"question": "a", "expected": "b"}\n' + text, encoding="latin-1")
    with pytest.raises(SettingsError, match=r"graders\.exact: .*answers\.jsonl:2: "):
        async with opened(tmp_path / "home", graders__exact={"answers": str(file)}):
            pass


# --- signals


async def test_a_question_that_comes_again_soon_grades_the_answer_before(tmp_path: Path) -> None:
    clock = Clock(NOW)
    async with opened(tmp_path, [Echo("a")], clock=clock, graders__retry={}) as runtime:
        ready(runtime)
        first = await called(runtime, "How do I reset my password please?", user="ann")
        clock.forward(20)
        await called(runtime, "How do I reset my password??", user="bob")
        clock.forward(20)
        await called(runtime, "how can I reset the password?", user="ann")
        clock.forward(20)
        await called(runtime, "Which birds live in Iceland?", user="ann")
        clock.forward(5_000)
        await called(runtime, "Which birds live in Iceland?", user="ann")
        await graded(runtime)
        (one,) = grades(runtime, "retry")
        assert (one.target, one.source) == (first, "system")
        assert 0.0 <= one.value < 0.3


async def test_short_words_parallel_calls_and_nobody_are_no_retry(tmp_path: Path) -> None:
    clock = Clock(NOW)
    async with opened(tmp_path, [Echo("a")], clock=clock, graders__retry={}) as runtime:
        ready(runtime)
        for text, user in (("continue", "ann"), ("continue", "ann"), ("Which birds live here?", "")):
            await called(runtime, text, **({"user": user} if user else {}))
            clock.forward(5)
        await called(runtime, "Which birds live here?")
        await graded(runtime)
        assert grades(runtime, "retry") == []


async def test_a_session_is_told_by_its_parent_where_no_user_is_named(tmp_path: Path) -> None:
    clock = Clock(NOW)
    async with opened(tmp_path, [Echo("a")], clock=clock, graders__retry={}) as runtime:
        ready(runtime)
        first = await called(runtime, "Which birds live here?", parent="session_1")
        clock.forward(5)
        await called(runtime, "Which birds live here?", parent="session_2")
        clock.forward(5)
        await called(runtime, "Which birds live here?", parent="session_1")
        await graded(runtime)
        assert [one.target for one in grades(runtime, "retry")] == [first]


async def test_a_correction_grades_by_what_it_left_standing(tmp_path: Path) -> None:
    async with opened(tmp_path, [Echo("a")], graders__edit={}) as runtime:
        ready(runtime)
        near = await called(runtime, "the quick brown fox jumps over the lazy dog")
        far = await called(runtime, "one two three four five six seven")
        await runtime.feedback(
            Scope(),
            FeedbackRequest(target=near, kind="correction", comment="the quick red fox jumps over the lazy dog"),
        )
        await runtime.feedback(Scope(), FeedbackRequest(target=far, kind="correction", comment="quite another text"))
        await runtime.feedback(Scope(), FeedbackRequest(target="answer_x", kind="correction", comment="of no call"))
        await graded(runtime)
        found = {one.target: one.value for one in grades(runtime, "edit")}
        assert found == {near: pytest.approx((8 / 9 - 0.2) / 0.8), far: 0.0}


# --- workers, and those who ask


async def test_of_two_workers_one_grades(tmp_path: Path) -> None:
    clock = Clock(NOW)
    async with opened(tmp_path, [Echo("a")], clock=clock, graders__exact=EXACT) as runtime:
        ready(runtime)
        other = GradingPlace(runtime.db, clock)
        assert other.take()
        await called(runtime, "42", **KNOWN)
        await graded(runtime)
        assert grades(runtime, "exact") == []
        clock.forward(31)
        await graded(runtime)
        assert len(grades(runtime, "exact")) == 1
        assert not other.take()


async def test_a_name_that_is_no_metric_and_options_that_are_none(tmp_path: Path) -> None:
    for given in ({"graders": {"Bad Name": {}}}, {"graders__exact": {"nope": 1}}, {"graders__exact": {"share": 2.0}}):
        with pytest.raises(SettingsError, match="graders"):
            async with opened(tmp_path, **given):
                pass


async def test_a_caller_is_who_a_door_says(tmp_path: Path) -> None:
    """What graders say could not be said by the key of a viewer."""
    viewer = Caller(Scope(), "viewer", "v")
    with pytest.raises(Exception, match="operator"):
        FeedbackRequest(target="call_x", kind="rating", source="qa", value=1.0).said_by(viewer)


def test_a_skip_is_a_word() -> None:
    assert Skipped(why="no_expected").cost_nusd == 0


async def test_tests_of_code_come_with_the_call_or_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "tests.jsonl"
    file.write_text(msgspec.json.encode({"question": "def f(): return 2", "tests": "assert f() == 1"}).decode())
    given = {"answers": str(file), "options": {"seconds": 3.0}}
    async with opened(tmp_path / "home", [Echo("a")], graders__code=given) as runtime:
        ready(runtime)
        await called(runtime, "def f(): return 1", metadata={"tests": "assert f() == 1"})
        await called(runtime, "def f(): return 2")
        await called(runtime, "def f(): return 3", metadata={"expected": "3"})
        await graded(runtime)
        assert sorted(one.value for one in grades(runtime, "code")) == [0.0, 1.0]
        assert dict(runtime.grading.seats[0].skipped) == {"no_tests": 1}
