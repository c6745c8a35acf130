"""One past call, and one thing that was said of one, as every export is read: plain data, before it is a record.

Nothing here was decided by Windlass, so no Decision is made of it: with which probability another program chose its
model is not in any export, and a made-up propensity would make every evaluation that divides by it wrong.
"""

from __future__ import annotations

import hashlib
from typing import Annotated, Final, Literal, TypeAlias

import msgspec
from msgspec import Meta

from windlass.ledger import ids
from windlass.ledger.ledger import Body
from windlass.records import USER_CHARS, Call, Feedback, FeedbackKind, FeedbackSource, Outcome, Scope

Program = Literal["litellm", "langfuse", "openai", "openrouter"]
Count = Annotated[int, Meta(ge=0, le=10**12)]
Milliseconds = Annotated[float, Meta(ge=0, le=1e12)]
Name = Annotated[str, Meta(max_length=500)]
Source = Annotated[str, Meta(min_length=1, max_length=1_000)]
MOST_NUSD: Final = 10**15
"""A million US dollars for one call: dearer ones are a mistake of units."""
DAY_S: Final = 86_400.0


class Past(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One call as another program logged it. source: its id there; at: when it began, UTC seconds.

    group: what it belongs to there (a trace, a session), '' for nothing. request, reply: JSON, '' where not exported.
    priced: where the cost comes from: `export`, `published` (worked out from the published prices of this release),
    `unknown` (then it counts as 0). about: facts that have no field here.
    """

    program: Program
    source: Source
    at: float
    endpoint: Name
    model: Name
    answered: Name
    provider: Name
    stream: bool = False
    user: str = ""
    group: Annotated[str, Meta(max_length=1_000)] = ""
    status: Annotated[int, Meta(ge=0, le=999)] = 200
    error: Name = ""
    latency_ms: Milliseconds = 0.0
    first_byte_ms: Milliseconds = 0.0
    prompt_tokens: Count = 0
    completion_tokens: Count = 0
    cost_nusd: Annotated[int, Meta(ge=0, le=MOST_NUSD)] = 0
    priced: Literal["export", "published", "unknown"] = "export"
    request: str = ""
    reply: str = ""
    about: dict[str, str] = {}


class PastWord(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One thing that was said of a past call. target: the call's id there, '' where it is of the whole `group`."""

    program: Program
    source: Source
    at: float
    target: Annotated[str, Meta(max_length=1_000)] = ""
    group: Annotated[str, Meta(max_length=1_000)] = ""
    kind: FeedbackKind
    by: FeedbackSource
    metric: Annotated[str, Meta(min_length=1, max_length=100)]
    value: Annotated[float, Meta(ge=0, le=1)] | None = None
    comment: Annotated[str, Meta(max_length=10_000)] = ""


class PastRequest(msgspec.Struct, frozen=True, kw_only=True):
    """A request that its program exports in a file of its own. key: what leads from the answer to it."""

    key: str
    request: str


Told: TypeAlias = Past | PastWord | PastRequest
"""What a row of an export can tell."""


def call_id(scope: Scope, past: Past) -> str:
    """The same for the same call, however often and from whichever shape of export it comes.

    The time counts in whole seconds: some shapes of an export leave the rest out.
    """
    return ids.imported("call", int(past.at), _digest(scope, past.program, past.source), past.program)


def group_id(scope: Scope, program: str, group: str) -> str:
    """What stands above all calls of one trace or session; it tells no time, so that a score alone leads to it."""
    return f"trace_{_digest(scope, program, 'group', group)[:40]}" if group else ""


def word_id(scope: Scope, word: PastWord) -> str:
    return ids.imported("feedback", int(word.at), _digest(scope, word.program, "said", word.source), word.program)


def call_of(scope: Scope, past: Past) -> Call:
    """The call as it was asked for."""
    return Call(
        id=call_id(scope, past),
        at=past.at,
        tenant=scope.tenant,
        workspace=scope.workspace,
        endpoint=past.endpoint,
        model=past.model,
        stream=past.stream,
        parent=group_id(scope, past.program, past.group),
        user=past.user[:USER_CHARS],
        request_bytes=len(past.request.encode()),
        extra={**past.about, "imported": past.program, "source": past.source},
    )


def outcome_of(call: Call, past: Past) -> Outcome:
    """What came of it."""
    return Outcome(
        id=ids.imported("outcome", int(past.at), _digest(call.scope, call.id), past.program),
        at=past.at + past.latency_ms / 1000,
        tenant=call.tenant,
        workspace=call.workspace,
        call=call.id,
        model=past.answered,
        provider=past.provider,
        status=past.status,
        latency_ms=past.latency_ms,
        first_byte_ms=past.first_byte_ms,
        prompt_tokens=past.prompt_tokens,
        completion_tokens=past.completion_tokens,
        cost_nusd=past.cost_nusd,
        error=past.error,
        extra={"imported": past.program, "priced": past.priced},
    )


def bodies_of(call: Call, past: Past, now: float, retention_days: float) -> tuple[Body, ...]:
    """What was sent and received, but no vectors, which can be computed again.

    They expire as if the call had been made `now`: old ones would go at once.
    """
    reply = past.reply if past.endpoint != "embeddings" else ""
    told: tuple[tuple[Literal["request", "reply"], str], ...] = ("request", past.request), ("reply", reply)
    return tuple(
        Body(
            id=f"{call.id}-{role}",
            at=call.at,
            tenant=call.tenant,
            workspace=call.workspace,
            call=call.id,
            role=role,
            data=text.encode(),
            user=call.user,
            expires_at=now + retention_days * DAY_S,
        )
        for role, text in told
        if text
    )


def feedback_of(scope: Scope, word: PastWord, target: str) -> Feedback:
    """What was said, of the typed id `target`."""
    return Feedback(
        id=word_id(scope, word),
        at=word.at,
        tenant=scope.tenant,
        workspace=scope.workspace,
        target=target,
        kind=word.kind,
        source=word.by,
        metric=word.metric,
        value=word.value,
        comment=word.comment,
        extra={"imported": word.program},
    )


def _digest(scope: Scope, *names: str) -> str:
    return hashlib.sha256(msgspec.msgpack.encode((scope.tenant, scope.workspace, *names))).hexdigest()
