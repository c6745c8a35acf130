"""Finished calls as graders see them, read from the ledger and its bodies; what cannot be graded, and why."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, Literal, TypeAlias, cast

import msgspec

from windlass.errors import RequestError
from windlass.gateway import foreign
from windlass.gateway.dialects.events import EventLines
from windlass.gateway.dialects.hub import Dialect, StreamPiece, TextDelta
from windlass.gateway.dialects.readers import UNREADABLE, reader
from windlass.gateway.wire import Message, parse_chat
from windlass.improve.grading.answers import KnownAnswers
from windlass.improve.grading.grader import Case, Earlier, Skipped
from windlass.ledger.ledger import Body, CallFilter, CallTrace, Ledger
from windlass.records import Call

MOST_BYTES: Final = 4 * 1024 * 1024
"""Of a request, and of a reply; what is longer is not graded."""
OWN_PARENT: Final = "grade_"
"""Calls that judges make have a parent of this kind. They are nobody's question, so nobody grades them."""
GRADED: Final = ("chat", "responses", "messages")
EXPECTED: Final = "expected"
TESTS: Final = "tests"
"""The fields of the request's `metadata` that hold the answer known to be right, and tests of the code in a reply."""
MOST_EARLIER: Final = 3
_PAGE: Final = 96
"""So many calls of a user are looked through for them: extra calls of a warm start stand between."""
LOOK_BACK_S: Final = 600.0
"""So far back calls count as those before."""
Looked: TypeAlias = Case | Skipped


class _Metadata(msgspec.Struct):
    metadata: Any = None


def look(ledger: Ledger, trace: CallTrace) -> Looked:
    """The case of one call; Skipped where it cannot be graded, with its bodies unread where that is known before."""
    if (why := unfit(trace)) is not None:
        return Skipped(why=why)
    bodies = {body.role: body.data for body in ledger.bodies(trace.call.scope, trace.call.id)}
    return case(trace.call, bodies.get("request"), bodies.get("reply"))


def informed(case: Looked, answers: KnownAnswers | None) -> Looked:
    """The case with what the answers tell of its question, where the call itself tells nothing."""
    row = answers.of(case.question) if answers is not None and isinstance(case, Case) else None
    if row is None or isinstance(case, Skipped):
        return case
    expected = row.expected if case.expected is None else case.expected
    return msgspec.structs.replace(case, expected=expected, tests=case.tests or row.tests)


def unfit(trace: CallTrace) -> str | None:
    """Why a call is not graded, whatever stands in it; None where it may be."""
    call, outcome = trace.call, trace.outcome
    if call.parent.startswith(OWN_PARENT):
        return "own"
    if call.endpoint not in GRADED:
        return "other_endpoint"
    if outcome is None:
        return "unfinished"
    return "failed_call" if outcome.error or outcome.status >= 400 else None


def case(call: Call, request: bytes | None, reply: bytes | None) -> Looked:
    """The case of a call with these bodies."""
    if request is None or reply is None:
        return Skipped(why="no_bodies")
    if max(len(request), len(reply)) > MOST_BYTES:
        return Skipped(why="too_large")
    try:
        messages, choices = _asked(call, request)
        written = text(cast(Dialect, call.endpoint), reply, stream=call.stream)
        fields = msgspec.json.decode(request, type=dict[str, msgspec.Raw])
    except (RequestError, *UNREADABLE):
        return Skipped(why="unreadable")
    if choices > 1:
        return Skipped(why="several_choices")
    question = next((message.text for message in reversed(messages) if message.role == "user"), "")
    expected, tests = _told(request)
    return Case(
        call=call,
        question=question,
        reply=written,
        messages=messages,
        expected=expected,
        tests=tests,
        fields=fields,
    )


def earlier(ledger: Ledger, now: Call, window_s: float) -> tuple[Earlier, ...]:
    """What the same user, or for the same parent, was answered within `window_s` before `now`; the newest last.

    Only within the call's own tenant and workspace, and nothing where neither user nor parent is known.
    """
    found = (_earlier(ledger, trace) for trace in _before(ledger, now, window_s))
    return tuple([one for one in found if one is not None][::-1])


def _before(ledger: Ledger, now: Call, window_s: float) -> Sequence[CallTrace]:
    """The newest first."""
    since = now.at - window_s
    if now.user:
        wanted = CallFilter(user=now.user, since=since, until=now.at)
        traces = ledger.calls(now.scope, limit=_PAGE, before=now.id, wanted=wanted)
    else:
        traces = _beneath(ledger, now) if now.parent else ()
    beside = (one for one in traces if one.call.parent == now.parent and one.call.at >= since)
    return [one for one in beside if unfit(one) is None][:MOST_EARLIER]


def _beneath(ledger: Ledger, now: Call) -> Sequence[CallTrace]:
    """The newest calls for the same parent."""
    ids = sorted((one for one in ledger.calls_beneath(now.scope, now.parent) if one < now.id), reverse=True)
    traces = (ledger.trace(now.scope, call) for call in ids[:MOST_EARLIER])
    return [trace for trace in traces if trace is not None]


def _earlier(ledger: Ledger, trace: CallTrace) -> Earlier | None:
    call, outcome = trace.call, trace.outcome
    bodies: Mapping[str, Body] = {body.role: body for body in ledger.bodies(call.scope, call.id)}
    if len(bodies) < 2 or outcome is None:
        return None
    seen = case(call, bodies["request"].data, bodies["reply"].data)
    return Earlier(call.id, call.at, outcome.at, seen.question, seen.reply) if isinstance(seen, Case) else None


def _asked(call: Call, request: bytes) -> tuple[tuple[Message, ...], int]:
    """The messages of a request, and how many answers it asks for."""
    if call.endpoint == "chat":
        chat = parse_chat(request)
        return chat.messages, chat.choices
    read = foreign.read(cast(Literal["responses", "messages"], call.endpoint), request, call.at)
    return (read.messages, read.choices) if isinstance(read, foreign.Foreign) else ((), 1)


def text(dialect: Dialect, reply: bytes, *, stream: bool) -> str:
    """What a reply says, without what a model thought and which tools it called. Raises one of UNREADABLE."""
    return "".join(piece.text for piece in _pieces(dialect, reply, stream) if isinstance(piece, TextDelta))


def _pieces(dialect: Dialect, reply: bytes, stream: bool) -> Iterator[StreamPiece]:
    reading = reader(dialect)
    if not stream:
        yield from reading.whole(reply)
        return
    lines = EventLines()
    for event in (*lines.feed(reply), *lines.end()):
        yield from reading.read(event)
    yield from reading.end()


def _told(request: bytes) -> tuple[Any, str]:
    """What the request's metadata tells: the expected answer, of which a JSON list holds several, and tests."""
    found = msgspec.json.decode(request, type=_Metadata).metadata
    if not isinstance(found, dict):
        return None, ""
    tests = found.get(TESTS)
    return _listed(found.get(EXPECTED)), tests if isinstance(tests, str) else ""


def _listed(value: Any) -> Any:
    if not (isinstance(value, str) and value.lstrip().startswith("[")):
        return value
    try:
        listed = msgspec.json.decode(value)
    except (msgspec.MsgspecError, RecursionError):
        return value
    return listed if isinstance(listed, list) else value
