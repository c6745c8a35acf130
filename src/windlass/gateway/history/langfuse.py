"""Langfuse's exports: observations and scores, as the pages, the blob storage and the public API have them.

The blob storage writes `start_time`, the API and the pages `startTime`; each field is read under either name.
Sources: langfuse.com/docs/api-and-data-platform/features/blob-storage-export-fields, api.reference.langfuse.com.
"""

from __future__ import annotations

from typing import Any, Final

from windlass.errors import ErrorCategory, InputError
from windlass.gateway.history import values
from windlass.gateway.history.past import Past, PastWord
from windlass.gateway.history.values import Row
from windlass.records import FeedbackSource

PROGRAM: Final = "langfuse"
_ENDPOINTS: Final = {"GENERATION": "chat", "EMBEDDING": "embeddings"}
_OTHERS: Final = {"SPAN", "EVENT", "AGENT", "TOOL", "CHAIN", "RETRIEVER", "EVALUATOR", "GUARDRAIL"}
_SOURCES: Final[dict[str, FeedbackSource]] = {"ANNOTATION": "qa", "EVAL": "system", "API": "user"}
_SECONDS_MS: Final = 1000.0


def fits(row: Row) -> bool:
    """Whether a row is one of these."""
    observed = row.get("type") in (*_ENDPOINTS, *_OTHERS) and ("startTime" in row or "start_time" in row)
    return observed or scores(row) or _trace(row)


def scores(row: Row) -> bool:
    """Whether it is a score, which is told of another row."""
    of = ("traceId", "trace_id", "observationId", "observation_id", "sessionId", "session_id")
    return "name" in row and "value" in row and ("dataType" in row or "data_type" in row) and any(o in row for o in of)


def read(row: Row, now: float) -> Past | PastWord:
    """The call, or the score, of a row. InputError with the reason where it is neither."""
    if scores(row):
        return _score(row, now)
    kind = values.text(row, "type")
    if kind not in _ENDPOINTS:
        raise InputError(f"no_model_call: an observation of type {kind or 'trace'} calls no model")
    at = values.began(row, "startTime", "start_time", now=now)
    end = values.moment(row, "endTime", "end_time", now=now)
    first = values.moment(row, "completionStartTime", "completion_start_time", now=now)
    told_ms = values.milliseconds(row, "latency", unit_ms=_SECONDS_MS)
    latency_ms = values.between_ms(at, end) if end is not None else told_ms or 0.0
    cost = _cost(row)
    failed = values.text(row, "level") == "ERROR"
    model = values.text(row, "providedModelName", "provided_model_name", "model")
    used = values.mapping(row, "usageDetails", "usage_details") or values.mapping(row, "usage")
    return Past(
        program=PROGRAM,
        source=values.source(row, "id"),
        at=at,
        endpoint=_ENDPOINTS[kind],
        model=model,
        answered=model,
        provider="",
        stream=first is not None,
        user=values.text(row, "userId", "user_id"),
        group=values.text(row, "traceId", "trace_id", most=1_000),
        status=500 if failed else 200,
        error=ErrorCategory.UPSTREAM_FAILED.value if failed else "",
        latency_ms=latency_ms,
        first_byte_ms=min(values.between_ms(at, first), latency_ms) if first else latency_ms,
        prompt_tokens=_tokens(row, used, "input", ("promptTokens", "inputUsage", "prompt_tokens")),
        completion_tokens=_tokens(row, used, "output", ("completionTokens", "outputUsage", "completion_tokens")),
        cost_nusd=cost or 0,
        priced="unknown" if cost is None else "export",
        request=_request(row, model),
        reply=values.as_json(values.nested(row, "output")),
        about=_about(row),
    )


def _about(row: Row) -> dict[str, str]:
    name = values.text(row, "name")
    return {"name": name} if name else {}


def _trace(row: Row) -> bool:
    return "bookmarked" in row and "timestamp" in row


def _cost(row: Row) -> int | None:
    """The total; where only its parts are told, their sum."""
    whole = values.nusd(row, "totalCost", "total_cost", "calculatedTotalCost", "calculated_total_cost")
    if whole is not None:
        return whole
    parts = values.mapping(row, "costDetails", "cost_details")
    if "total" in parts:
        return values.nusd(parts, "total")
    told = [values.nusd(parts, name) for name in parts]
    return sum(part or 0 for part in told) if told else None


def _tokens(row: Row, used: dict[str, Any], part: str, flat: tuple[str, ...]) -> int:
    """What went in or came out: of the details every share of it (`input`, `input_cached_tokens`, ...)."""
    shares = [values.tokens(used, name) or 0 for name in used if name == part or name.startswith(f"{part}_")]
    return sum(shares) if shares else values.tokens(row, *flat) or 0


def _request(row: Row, model: str) -> str:
    """The input as a client would send it, where it is messages; else as it is."""
    asked = values.nested(row, "input")
    how = values.mapping(row, "modelParameters", "model_parameters")
    match asked:
        case {"messages": _}:
            return values.as_json({"model": model, **how, **asked})
        case [{"role": _}, *_]:
            return values.as_json({"model": model, **how, "messages": asked})
        case _:
            return values.as_json(asked)


def _score(row: Row, now: float) -> PastWord:
    target = values.text(row, "observationId", "observation_id", most=1_000)
    group = values.text(row, "traceId", "trace_id", most=1_000)
    if not target and not group:
        raise InputError("session_score: it is told of a session, which is no call")
    kind = values.text(row, "dataType", "data_type")
    words = values.text(row, "stringValue", "string_value", "longStringValue", "long_string_value", most=10_000)
    corrected = kind == "CORRECTION"
    if kind not in ("NUMERIC", "BOOLEAN", "CORRECTION"):
        raise InputError(f"score_kind: a {kind or 'score without a kind'} has no place between 0 and 1")
    comment = values.text(row, "comment", most=10_000)
    return PastWord(
        program=PROGRAM,
        source=values.source(row, "id"),
        at=values.began(row, "timestamp", "createdAt", "created_at", now=now),
        target=target,
        group=group,
        kind="correction" if corrected else "rating",
        by=_SOURCES.get(values.text(row, "source"), "user"),
        metric=values.text(row, "name", most=100) or "quality",
        value=None if corrected else _rating(row),
        comment=(words or comment) if corrected else comment,
    )


def _rating(row: Row) -> float:
    """From 0 to 1. The export does not say on which scale a larger number stands."""
    value = values.share(row, "value")
    if value is None:
        raise InputError("score_scale: there is no value")
    return value
