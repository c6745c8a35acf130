"""Records as spans: a call with its attempts and decisions below it, and what was said of it later.

A span's ids come from the record's own id, so a record that is sent twice, by whomever, is one span.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple
from urllib.parse import urlsplit

import msgspec

from windlass.gateway.options import ProviderOptions
from windlass.gateway.resilience.attempt import Attempt
from windlass.gateway.transit import STOPPED
from windlass.records import Call, Decision, Feedback, Outcome, Record, user_digest
from windlass.watch.traces import names
from windlass.watch.traces.span import Event, TraceContext, TraceSpan, Value, ns, span_id

MOST_CHARS: Final = 8_192
"""Of a text that is not what was asked or answered."""
_LOCAL: Final = "local"


class Server(NamedTuple):
    """Who a provider of the settings is: its name in the conventions, its host and port."""

    provider: str
    host: str
    port: int


def servers(providers: Iterable[ProviderOptions]) -> dict[str, Server]:
    """The servers of the settings, by the provider's name."""
    found: dict[str, Server] = {}
    for one in providers:
        try:
            url = urlsplit(one.base_url)
            host, port = url.hostname or "", url.port or (443 if url.scheme == "https" else 80)
        except ValueError:
            host, port = "", 0  # nobody answers there, which is told of elsewhere
        found[one.name] = Server(names.KINDS.get(one.kind) or names.HOSTS.get(host) or one.name, host, port)
    return found


def of_call(
    call: Call, outcome: Outcome, place: TraceContext, known: Mapping[str, Server], said: Mapping[str, str]
) -> Iterator[TraceSpan]:
    """The span of a call that is over, then those of its attempts, where there was more than the one that answered.

    place: where it hangs. known: see `servers`. said: what was asked and answered, by attribute.
    """
    operation = names.OPERATIONS.get(call.endpoint, call.endpoint)
    mine, start = span_id(call.scope, call.id), ns(call.at)
    yield TraceSpan(
        trace_id=place.trace_id,
        span_id=mine,
        parent_id=place.parent_id,
        name=_short(f"{operation} {call.model}".strip()),
        kind="internal" if outcome.provider == _LOCAL else "client",
        start_ns=start,
        end_ns=start + _duration_ns(outcome.latency_ms),
        attributes={**_called(call, outcome, operation, known.get(outcome.provider)), **said},
        error=_short(outcome.error),
    )
    for number, tried in enumerate(_trail(outcome.extra)):
        yield _attempt(call, tried, number, TraceContext(place.trace_id, mine), known.get(tried.provider))


def of_decision(decision: Decision, place: TraceContext) -> TraceSpan:
    """The span of a choice, which takes no time."""
    told: dict[str, Value] = {
        "point": decision.point,
        "policy": decision.policy,
        "action": decision.action,
        "propensity": float(decision.propensity),
        "live": decision.live,
        "actions": [_short(action) for action in decision.actions[:100]],
    }
    for name, value in (
        ("fallback", decision.fallback),
        *((key, decision.extra.get(key)) for key in ("why", "shadow")),
    ):
        if value:
            told[name] = str(value)
    at = ns(decision.at)
    name = f"decide {decision.point}" if decision.live else f"consider {decision.point}"
    return TraceSpan(
        trace_id=place.trace_id,
        span_id=_decided_id(decision),
        parent_id=place.parent_id,
        name=_short(name),
        start_ns=at,
        end_ns=at,
        attributes={**_owned(decision), **_under(names.DECISION, told)},
    )


def of_feedback(said: Feedback, place: TraceContext, *, words: bool) -> TraceSpan:
    """The span of what was said of something, with the conventions' event in it. words: with the comment."""
    told: dict[str, Value] = {names.EVALUATION_NAME: _short(said.metric), names.EVALUATION_LABEL: said.kind}
    if said.value is not None:
        told[names.EVALUATION_SCORE] = float(said.value)
    if words and said.comment:
        told[names.EVALUATION_WHY] = _short(said.comment)
    about: dict[str, Value] = {"id": said.id, "target": _short(said.target), "kind": said.kind, "source": said.source}
    at = ns(said.at)
    return TraceSpan(
        trace_id=place.trace_id,
        span_id=span_id(said.scope, said.id),
        parent_id=place.parent_id,
        name=_short(f"evaluate {said.metric}"),
        start_ns=at,
        end_ns=at,
        attributes={**_owned(said), **told, **_under(names.FEEDBACK, about)},
        events=(Event(name=names.EVALUATION, at_ns=at, attributes=told),),
    )


def _decided_id(decision: Decision) -> bytes:
    """A choice that stands for what it was made for, an answer out of memory, has that one's id: calls hang below."""
    if decision.live and decision.call.startswith("answer_"):
        return span_id(decision.scope, decision.call)
    return span_id(decision.scope, decision.id)


def _called(call: Call, outcome: Outcome, operation: str, server: Server | None) -> dict[str, Value]:
    told: dict[str, Value] = {
        names.OPERATION: operation,
        names.PROVIDER: server.provider if server else outcome.provider,
        names.REQUEST_MODEL: _short(call.model),
        names.STATUS: outcome.status,
        names.COST_USD: outcome.cost_nusd / 1e9,
        names.COST_NUSD: outcome.cost_nusd,
        names.CALL: call.id,
        names.ENDPOINT: call.endpoint,
        names.OUR_PROVIDER: outcome.provider,
        names.ESTIMATED: outcome.tokens_estimated,
        **_owned(call),
        **_address(server),
    }
    if outcome.error:
        told[names.ERROR] = _short(outcome.error)
    if not outcome.error or outcome.prompt_tokens or outcome.completion_tokens:
        told |= {names.INPUT_TOKENS: outcome.prompt_tokens, names.OUTPUT_TOKENS: outcome.completion_tokens}
        told[names.RESPONSE_MODEL] = _short(outcome.model)
    if reasons := _reasons(call, outcome):
        told[names.FINISH_REASONS] = reasons
    if call.stream:
        told[names.REQUEST_STREAM] = True
        if not outcome.error:
            told[names.FIRST_CHUNK_S] = outcome.first_byte_ms / 1000
    if call.parent:
        told[names.PARENT] = _short(call.parent)
    if call.user:
        told[names.USER] = user_digest(call.scope, call.user)
    return told


def _reasons(call: Call, outcome: Outcome) -> list[str]:
    """Why each choice of an answer ended, none where nobody said. The ledger holds what is not `stop` (transit.py), and
    nothing of calls that other programs logged."""
    said = outcome.extra.get("finish_reasons")
    if isinstance(said, list):
        return [_short(one) for one in said if isinstance(one, str)]
    whole = call.endpoint in names.GENERATING and not outcome.error and not outcome.extra.get("imported")
    return list(STOPPED) if whole else []


def _attempt(call: Call, tried: Attempt, number: int, place: TraceContext, server: Server | None) -> TraceSpan:
    """One request upstream. It has no name that backends count tokens or calls by: those are the call's."""
    start = ns(call.at) + _duration_ns(tried.started_ms)
    told: dict[str, Value] = {
        "number": number,
        "provider": tried.provider,
        "model": tried.model,
        "sent": tried.sent,
        "hedge": tried.hedge,
        "bill": tried.bill,
    }
    attributes: dict[str, Value] = {**_owned(call), **_under(names.ATTEMPT, told), **_address(server)}
    if tried.status:
        attributes[names.STATUS] = tried.status
    if tried.category:
        attributes[names.ERROR] = _short(tried.category)
    return TraceSpan(
        trace_id=place.trace_id,
        span_id=span_id(call.scope, call.id, f"attempt {number}"),
        parent_id=place.parent_id,
        name=_short(f"attempt {tried.model}"),
        kind="client",
        start_ns=start,
        end_ns=start + _duration_ns(tried.took_ms),
        attributes=attributes,
        error=_short(tried.category),
    )


def _trail(extra: Mapping[str, Any]) -> Sequence[Attempt]:
    """The attempts of an outcome; none where another version wrote them in a form of its own."""
    try:
        return msgspec.convert(extra.get("attempts", ()), tuple[Attempt, ...])
    except msgspec.ValidationError:
        return ()


def _owned(record: Record) -> dict[str, Value]:
    return {names.TENANT: record.tenant, names.WORKSPACE: record.workspace}


def _address(server: Server | None) -> dict[str, Value]:
    return {names.SERVER: server.host, names.SERVER_PORT: server.port} if server and server.host else {}


def _under(prefix: str, told: Mapping[str, Value]) -> dict[str, Value]:
    return {prefix + name: _short(value) if isinstance(value, str) else value for name, value in told.items()}


def _short(text: str) -> str:
    return text if len(text) <= MOST_CHARS else text[: MOST_CHARS - 1] + "…"


def _duration_ns(ms: float) -> int:
    return ns(ms / 1000)
