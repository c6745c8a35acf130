"""What every ledger must do. `check_ledger` is the one suite that memory, SQLite and PostgreSQL are held to."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from msgspec.structs import replace

from windlass.errors import LedgerError, RecordInvalid
from windlass.ledger.ledger import ALL, Body, CallFilter, DecisionFilter, FeedbackFilter, Ledger, Snapshot
from windlass.records import (
    Call,
    Decision,
    Erasure,
    Feedback,
    FeedbackKind,
    FeedbackSource,
    LedgerRecord,
    Outcome,
    RunEvent,
    Scope,
    StepResult,
    user_digest,
)

A, B = Scope("a", "default"), Scope("b", "default")
AT = 1_800_000_000.0


async def check_ledger(make: Callable[[], Ledger]) -> None:
    """Hold fresh ledgers from `make` to the contract; AssertionError says which promise broke."""
    for promise in (
        _order,
        _idempotent,
        _scoped,
        _traces,
        _pages,
        _listings,
        _reaches,
        _parents,
        _refuses,
        _bodies,
        _forgets,
        _snapshots,
        _telemetry,
    ):
        ledger = make()
        try:
            await promise(ledger)
        finally:
            ledger.close()
    ledger = make()
    ledger.close()
    ledger.close()
    try:
        await ledger.append(call("call_1"))
    except LedgerError:
        return
    raise AssertionError("a closed ledger took a record")


def call(name: str, scope: Scope = A, **fields: Any) -> Call:
    """A call for tests, with a fixed time."""
    return Call(id=name, at=AT, tenant=scope.tenant, workspace=scope.workspace, endpoint="chat", model="auto", **fields)


def decision(name: str, of: str, scope: Scope = A, **fields: Any) -> Decision:
    """A live decision between `x` and `y` at the point `model`."""
    context = {"one": 1.0, "embedding": (0.5, -0.25)}
    values: dict[str, Any] = {"point": "model", "live": True, "context": context} | fields
    return Decision(
        id=name,
        at=AT,
        tenant=scope.tenant,
        workspace=scope.workspace,
        call=of,
        policy="p@1",
        actions=("x", "y"),
        action="x",
        propensity=0.75,
        **values,
    )


def outcome(of: str, scope: Scope = A, **fields: Any) -> Outcome:
    """A good outcome: 12.5 ms, 3 + 4 tokens, 7 nano-dollars."""
    values: dict[str, Any] = {"model": "x", "provider": "local", "status": 200, "latency_ms": 12.5} | fields
    return Outcome(
        id=f"outcome_{of}",
        at=AT,
        tenant=scope.tenant,
        workspace=scope.workspace,
        call=of,
        first_byte_ms=1.0,
        prompt_tokens=3,
        completion_tokens=4,
        cost_nusd=7,
        **values,
    )


def rating(name: str, target: str, scope: Scope = A, value: float = 1.0, comment: str = "") -> Feedback:
    """A user's rating."""
    return Feedback(
        id=name,
        at=AT,
        tenant=scope.tenant,
        workspace=scope.workspace,
        target=target,
        kind="rating",
        source="user",
        value=value,
        comment=comment,
    )


def _erasure(user: str, scope: Scope = A) -> Erasure:
    return Erasure(
        id=f"erasure_{user}", at=AT, tenant=scope.tenant, workspace=scope.workspace, user=user_digest(scope, user)
    )


async def _order(ledger: Ledger) -> None:
    heads: list[int] = []
    ledger.on_commit(lambda: heads.append(ledger.head()))
    assert ledger.head() == 0, "an empty ledger has head 0"
    first = await ledger.append(call("call_1"), decision("decision_1", "call_1"))
    second = await ledger.append(outcome("call_1"))
    assert second > first > 0, "the head grows with every append"
    entries = ledger.read(ALL)
    kinds = [type(entry.record).__name__ for entry in entries]
    assert kinds == ["Call", "Decision", "Outcome"], f"records come back in the order of the appends, not {kinds}"
    places = [entry.seq for entry in entries]
    assert places == sorted(set(places)), "sequence numbers rise strictly"
    assert entries[1].record == decision("decision_1", "call_1"), "a record comes back as it was, context included"
    assert [e.seq for e in ledger.read(ALL, after=places[0], limit=1)] == [places[1]], "after and limit page"
    assert max(heads, default=0) >= second, "listeners hear of every commit"


async def _idempotent(ledger: Ledger) -> None:
    await ledger.append(rating("feedback_1", "call_1", value=1.0))
    await ledger.append(rating("feedback_1", "call_1", value=0.0), rating("feedback_1", "call_1", value=0.5))
    found = [entry.record for entry in ledger.read(ALL)]
    assert found == [rating("feedback_1", "call_1", value=1.0)], "the same id again changes nothing"
    await ledger.append(rating("feedback_1", "call_1", B, value=0.0))
    assert len(ledger.read(ALL)) == 2, "another tenant's id is another id"


async def _scoped(ledger: Ledger) -> None:
    await ledger.append(call("call_a"), decision("decision_a", "call_a"), _body("call_a"), _event("run_a"))
    await ledger.append(call("call_b", B), decision("decision_b", "call_b", B))
    assert {e.record.id for e in ledger.read(B)} == {"call_b", "decision_b"}, "read keeps to its scope"
    assert [t.call.id for t in ledger.calls(B)] == ["call_b"], "calls keep to their scope"
    assert [d.id for d in ledger.decisions(B)] == ["decision_b"], "decisions keep to their scope"
    assert ledger.trace(B, "call_a") is None, "a trace of another tenant's call is None"
    assert not ledger.bodies(B, "call_a"), "bodies keep to their scope"
    assert not ledger.events(B, "run_a"), "run events keep to their scope"
    assert not ledger.calls_beneath(B, "call_a"), "credit keeps to its scope"
    assert ledger.erase(_erasure("u", B)) == 0, "one tenant cannot make another forget"
    assert len(ledger.calls(ALL)) == 2, "ALL reads across tenants"


async def _traces(ledger: Ledger) -> None:
    await ledger.append(
        call("call_1", parent="answer_1"),
        decision("decision_1", "call_1"),
        outcome("call_1"),
        rating("feedback_1", "call_1"),
        rating("feedback_2", "answer_1"),
        rating("feedback_3", "call_1", B),
    )
    trace = ledger.trace(A, "call_1")
    assert trace is not None, "a recorded call can be traced"
    assert [d.id for d in trace.decisions] == ["decision_1"], "a trace holds the decisions"
    assert trace.outcome == outcome("call_1"), "a trace holds the outcome"
    assert {f.id for f in trace.feedback} == {"feedback_1", "feedback_2"}, "feedback on the call and on its parent"
    assert ledger.trace(A, "call_2") is None, "an unknown call has no trace"


async def _pages(ledger: Ledger) -> None:
    names = [f"call_{number:02}" for number in range(25)]
    await ledger.append(*(call(name) for name in names))
    await ledger.append(*(decision(f"decision_{name}", name) for name in names))
    seen: list[str] = []
    while page := ledger.calls(A, limit=10, before=seen[-1] if seen else ""):
        seen += [trace.call.id for trace in page]
    assert seen == names[::-1], "keyset pages give every call once, newest first"
    chosen = ledger.decisions(A, point="model", limit=10, before="decision_call_05")
    assert [d.call for d in chosen] == names[:5][::-1], "decisions page as well"
    assert not ledger.decisions(A, point="trim"), "a point without decisions gives none"
    assert not ledger.calls(A, before="call_unknown"), "a page before nothing is empty"


async def _listings(ledger: Ledger) -> None:
    """Every filter against its plain words (`fits`), page by page; nothing of another tenant, no wildcard, no crash."""
    await _varied(ledger)
    _listed_calls(ledger)
    decisions = ledger.decisions(A, limit=1000)
    for asked in _DECISION_FILTERS:
        found = list(ledger.decisions(A, limit=1000, wanted=asked))
        assert found == [one for one in decisions if asked.fits(one)], f"{asked} gives {found}"
    _listed_feedback(ledger)
    for strange in ("\x00", "\ud800"):
        assert not ledger.calls(A, before=strange), "no row stands before what cannot be stored"
        assert not ledger.calls(A, wanted=CallFilter(text=strange)), "nor holds it"
        assert not ledger.decisions(A, wanted=DecisionFilter(policy=strange)), "nor decides by it"
        assert not ledger.feedback(A, wanted=FeedbackFilter(text=strange)), "nor says it"


def _listed_calls(ledger: Ledger) -> None:
    calls = {trace.call.id: trace for trace in ledger.calls(A, limit=1000)}
    for wanted in _CALL_FILTERS:
        expected = [name for name, trace in calls.items() if wanted.fits(trace)]
        seen: list[str] = []
        while page := ledger.calls(A, limit=7, before=seen[-1] if seen else "", wanted=wanted):
            seen += [trace.call.id for trace in page]
        assert seen == expected, f"{wanted} gives {seen}, not {expected}"
    assert len(ledger.calls(ALL, limit=1000, wanted=CallFilter(model="x"))) == 16, "ALL filters across tenants"


def _listed_feedback(ledger: Ledger) -> None:
    feedback = ledger.feedback(A, limit=1000)
    paged = [said.id for said in ledger.feedback(A, limit=2, before=feedback[0].id)]
    assert paged == [said.id for said in feedback[1:3]], "feedback pages, newest first"
    for told in _FEEDBACK_FILTERS:
        listed = list(ledger.feedback(A, limit=1000, wanted=told))
        assert listed == [said for said in feedback if told.fits(said)], f"{told} gives {listed}"
    assert [said.id for said in ledger.feedback(B)] == ["feedback_b"], "feedback keeps to its scope"


async def _reaches(ledger: Ledger) -> None:
    """A search by words stops after so many records, and goes on from there without a gap or a double."""
    await _varied(ledger)
    for wanted in (CallFilter(text="3"), CallFilter(text="call", user="v"), CallFilter(text="call", model="x")):
        expected = [trace.call.id for trace in ledger.calls(A, limit=1000, wanted=wanted)]
        seen: list[str] = []
        before, stops = "", 0
        while stop := ledger.reach(A, wanted, before=before, records=5):
            found = ledger.calls(A, limit=1000, before=before, back_to=stop.id, wanted=wanted)
            assert len(found) <= 5, "no more are looked at than asked for"
            seen += [trace.call.id for trace in found]
            before, stops = stop.id, stops + 1
        seen += [trace.call.id for trace in ledger.calls(A, limit=1000, before=before, wanted=wanted)]
        assert stops > 0, "there is more than one stretch"
        assert seen == expected, f"{wanted} gives {seen} stretch by stretch, not {expected}"
    told = FeedbackFilter(text="call")
    end = ledger.reach(A, told, records=3)
    newest = ledger.feedback(A, limit=1000)
    assert end == newest[2], "the third newest ends a stretch of three"
    assert list(ledger.feedback(A, back_to=newest[2].id)) == list(newest[:3]), "and is in it"
    assert ledger.reach(A, told, records=len(newest) + 1) is None, "of fewer all are looked at"
    assert ledger.reach(A, FeedbackFilter(kind="rating"), records=1) is None, (
        "and so they are where no words are wanted"
    )
    assert ledger.reach(A, told, before="feedback_unknown", records=1) is None, "nothing stands before nothing"
    assert ledger.reach(B, CallFilter(text="x"), records=3) is None, "what others have is not counted"
    for strange in ("call_unknown", "\x00", "\ud800"):
        assert not ledger.calls(A, back_to=strange), "nothing reaches back to what is not there"
        assert ledger.reach(A, CallFilter(text="x"), before=strange, records=1) is None, "nor does a search begin there"


_CALL_FILTERS = (
    CallFilter(),
    CallFilter(model="x"),
    CallFilter(model="y", provider="far"),
    CallFilter(model="x", provider="far"),
    CallFilter(error="any"),
    CallFilter(error="none"),
    CallFilter(error="rate_limited", since=AT + 20),
    CallFilter(error="no_such_error"),
    CallFilter(endpoint="embeddings"),
    CallFilter(user="u%", text="call"),
    CallFilter(user="none"),
    CallFilter(since=AT + 3, until=AT + 9),
    CallFilter(until=AT),
    CallFilter(text="call_1"),
    CallFilter(text="u%"),
    CallFilter(text="%"),
    CallFilter(text="CALL"),
    CallFilter(text="' OR 1=1 --"),
)
_DECISION_FILTERS = (
    DecisionFilter(),
    DecisionFilter(point="model"),
    DecisionFilter(point="trim"),
    DecisionFilter(point="model", live=False),
    DecisionFilter(live=True, since=AT + 2, until=AT + 5),
    DecisionFilter(action="x", policy="p@1"),
    DecisionFilter(action="z"),
    DecisionFilter(policy="q@1"),
)
_FEEDBACK_FILTERS = (
    FeedbackFilter(),
    FeedbackFilter(kind="praise"),
    FeedbackFilter(kind="rating", source="qa"),
    FeedbackFilter(source="manager"),
    FeedbackFilter(metric="tone"),
    FeedbackFilter(target="call_03"),
    FeedbackFilter(text="50 %"),
    FeedbackFilter(text="_"),
    FeedbackFilter(since=AT + 1, until=AT + 3),
)


async def _varied(ledger: Ledger) -> None:
    """30 calls of A, one a second, with an outcome for all but the last two; the same ids in part for B."""
    kinds: tuple[FeedbackKind, ...] = ("rating", "correction", "suggestion", "complaint", "praise")
    sources: tuple[FeedbackSource, ...] = ("user", "manager", "system", "qa")
    for n in range(30):
        name, at = f"call_{n:02}", AT + n
        records: list[LedgerRecord] = [
            replace(call(name, user=("u%", "v", "")[n % 3]), at=at, endpoint="embeddings" if n % 4 == 0 else "chat"),
            replace(decision(f"decision_{n:02}", name, live=n % 5 != 0), at=at, action="xy"[n % 2]),
        ]
        if n < 28:
            error = "rate_limited" if n % 9 == 0 else "timeout_connect" if n == 5 else ""
            model, provider = ("x", "local") if n % 2 else ("y", "far")
            records.append(outcome(name, model=model, provider=provider, error=error))
        if n < 20:
            said = rating(f"feedback_{n:02}", name, comment=f"{n * 10} % right")
            metric = "tone" if n % 7 == 0 else "quality"
            records.append(replace(said, at=at, kind=kinds[n % 5], source=sources[n % 4], metric=metric))
        await ledger.append(*records)
    await ledger.append(call("call_03", B), call("call_04", B), outcome("call_03", B), outcome("call_04", B))
    await ledger.append(rating("feedback_b", "call_03", B))


async def _parents(ledger: Ledger) -> None:
    await ledger.append(call("call_1", parent="answer_1"), call("call_2", parent="call_1"), call("call_3"))
    assert set(ledger.calls_beneath(A, "answer_1")) == {"call_1", "call_2"}, "credit follows the chain of parents"
    assert set(ledger.calls_beneath(A, "call_1")) == {"call_1", "call_2"}, "a call stands above itself"


async def _refuses(ledger: Ledger) -> None:
    bad = (
        rating("feedback_1", "call_1", value=float("nan")),
        outcome("call_1", latency_ms=float("inf")),
        call("call_\x00"),
        call("call_\ud800"),
        call("call_1", request_bytes=2**70),
        decision("decision_1", "call_1", context={"x\x00": 1.0}),
    )
    for record in bad:
        try:
            await ledger.append(call("call_good"), record)
        except RecordInvalid:
            continue
        raise AssertionError(f"{record!r} was taken")
    assert not ledger.read(ALL), "a refused append leaves nothing behind"


async def _bodies(ledger: Ledger) -> None:
    await ledger.append(call("call_1", user="u"), decision("decision_1", "call_1"), _body("call_1"))
    await ledger.append(call("call_2"), _body("call_2", expires_at=AT + 10))
    assert [body.data for body in ledger.bodies(A, "call_1")] == [b"\x00bytes"], "bodies are exact bytes"
    assert ledger.prune(AT + 10) == 1, "prune takes what has expired"
    assert not ledger.bodies(A, "call_2"), "and it is gone"
    await ledger.append(
        rating("feedback_1", "call_1", comment="from u"), rating("feedback_2", "call_2", comment="kept")
    )
    erasure = _erasure("u")
    await ledger.append(erasure)
    assert ledger.erase(erasure) == 4, "forgetting a user takes bodies, contexts, comments and the name"
    assert ledger.erase(erasure) == 0, "and the second time there is nothing left to take"
    assert not ledger.bodies(A, "call_1"), "no body is left"
    assert ledger.decisions(A)[0].context == {}, "no context is left"
    trace = ledger.trace(A, "call_1")
    assert trace is not None, "the call itself stays"
    assert trace.call.user == "", "no name is left"
    assert [said.comment for said in trace.feedback] == [""], "no comment is left"
    assert len(ledger.read(ALL)) == 6, "the ledger itself is append-only"
    await ledger.append(call("call_3", user="u"), decision(f"decision_{int(AT * 1000):012x}", "call_3"))
    assert ledger.erase(erasure) == 0, "who comes back is somebody new"
    assert ledger.prune_contexts(AT) == 0, "contexts within their time stay"
    assert ledger.has_contexts(AT + 1), "it is known that there are some past theirs"
    assert not ledger.has_contexts(AT), "and that there are none"
    assert ledger.prune_contexts(AT + 1) == 1, "contexts past their time go"


async def _forgets(ledger: Ledger) -> None:
    """A chain of calls: only the first names its user."""
    await ledger.append(call("call_1", user="u"), call("call_2", parent="call_1"), call("call_3", parent="call_2"))
    await ledger.append(call("call_4", parent="call_3", user="v"), call("call_5", parent="call_4"), call("call_6"))
    names = [f"call_{number}" for number in range(1, 7)]
    for name in names:
        said = rating(f"on_decision_{name}", f"decision_{name}", comment="of")
        about = rating(f"on_outcome_{name}", f"outcome_{name}", comment="of")
        await ledger.append(_body(name), decision(f"decision_{name}", name), outcome(name), said, about)
    erasure = _erasure("u")
    await ledger.append(erasure)
    assert ledger.erase(erasure) == 13, "with a call goes what was made for it, and what was said of its parts"
    left = [name for name in names if ledger.bodies(A, name)]
    assert left == ["call_4", "call_5", "call_6"], "another user's call keeps what it has, and what was made for that"
    contexts = {made.call for made in ledger.decisions(A) if made.context}
    assert contexts == set(left), "so do its decisions"
    spoken = {said.id for said in ledger.feedback(A) if said.comment}
    assert spoken == {f"on_{part}_{name}" for part in ("decision", "outcome") for name in left}, "and what is said"
    assert ledger.erase(erasure) == 0, "and the second time there is nothing left to take"


async def _snapshots(ledger: Ledger) -> None:
    assert ledger.snapshot("fold", 1) is None, "no snapshot yet"
    for cursor in range(10):
        ledger.save_snapshot(Snapshot(projection="fold", version=1, cursor=cursor, at=AT, state=bytes([cursor])))
    ledger.save_snapshot(Snapshot(projection="fold", version=1, cursor=3, at=AT, state=b"late"))
    found = ledger.snapshot("fold", 1)
    assert found is not None, "a snapshot was kept"
    assert (found.cursor, found.state) == (9, b"\x09"), "the newest snapshot counts"
    assert ledger.snapshot("fold", 2) is None, "another version has its own"
    ledger.save_snapshot(Snapshot(projection="fold", version=1, cursor=4, at=AT, state=b"kept", note="restored"))
    for cursor in range(10, 20):
        ledger.save_snapshot(Snapshot(projection="fold", version=1, cursor=cursor, at=AT, state=bytes([cursor])))
    noted = ledger.snapshot("fold", 1, cursor=4)
    assert noted is not None, "what has a note stays, however many routine ones follow"
    assert noted.state == b"kept", "a snapshot is found by its cursor"
    assert [kept.cursor for kept in ledger.snapshots("fold", 1)] == [4, 15, 16, 17, 18, 19], "the newest five stay"
    ledger.save_snapshot(Snapshot(projection="fold", version=1, cursor=17, at=AT, state=b"base", note="base"))
    ledger.save_snapshot(Snapshot(projection="fold", version=1, cursor=16, at=AT, state=b"before"))
    before = ledger.snapshot("fold", 1, cursor=16)
    assert before is not None, "what was kept before a base stays"
    assert before.state == bytes([16]), "and nothing new is taken there"
    ledger.save_snapshot(Snapshot(projection="fold", version=1, cursor=17, at=AT, state=b"other", note="replaced"))
    ledger.rewrite_snapshot(Snapshot(projection="fold", version=1, cursor=17, at=AT, state=b"less"))
    base = ledger.snapshot("fold", 1, note="base")
    assert base is not None, "the base is found by its note"
    assert base.state == b"less", "and a forgotten user's part of its state can go"


async def _telemetry(ledger: Ledger) -> None:
    ledger.post(call("call_1"))
    for _ in range(100):
        if ledger.read(ALL):
            break
        await asyncio.sleep(0.01)
    ledger.post(call("call_2"))
    await ledger.append(call("call_3"))
    assert [e.record.id for e in ledger.read(ALL)] == ["call_1", "call_2", "call_3"], "telemetry keeps its place"


def _body(of: str, expires_at: float = AT + 100) -> Body:
    return Body(
        id=f"{of}-request",
        at=AT,
        tenant="a",
        workspace="default",
        call=of,
        role="request",
        data=b"\x00bytes",
        expires_at=expires_at,
    )


def _event(run: str) -> RunEvent:
    result = StepResult(status="ok", value={"n": 1})
    return RunEvent(
        id=f"event_{run}", at=AT, tenant="a", workspace="default", run=run, workflow="w", step="s", result=result
    )
