"""LiteLLM's exports: rows of `LiteLLM_SpendLogs` (`/spend/logs`, the database) and `StandardLoggingPayload` objects.

Sources: docs.litellm.ai/docs/proxy/cost_tracking, /docs/proxy/logging_spec, and `schema.prisma` of LiteLLM.
"""

from __future__ import annotations

from typing import Final

from windlass.gateway.history import values
from windlass.gateway.history.past import Past
from windlass.gateway.history.values import Row

PROGRAM: Final = "litellm"
_ENDPOINTS = {
    "completion": "chat",
    "text_completion": "completions",
    "embedding": "embeddings",
    "responses": "responses",
    "anthropic_messages": "messages",
    "transcription": "transcriptions",
    "image_generation": "images",
    "speech": "speech",
    "moderation": "moderations",
}
_ERROR = 500


def fits(row: Row) -> bool:
    """Whether a row is one of these."""
    logged = "request_id" in row and "call_type" in row and "startTime" in row
    return logged or ("call_type" in row and "response_cost" in row and "startTime" in row)


def read(row: Row, now: float) -> Past:
    """The call of a row. InputError with the reason where it cannot be one."""
    at = values.began(row, "startTime", now=now)
    end = values.moment(row, "endTime", now=now)
    first = values.moment(row, "completionStartTime", now=now)
    latency_ms = values.between_ms(at, end)
    cost = values.nusd(row, "spend", "response_cost")
    status = _status(row)
    failed = status >= 400
    asked = values.text(row, "model_group", "model")
    return Past(
        program=PROGRAM,
        source=values.source(row, "request_id", "id"),
        at=at,
        endpoint=_endpoint(values.text(row, "call_type")),
        model=asked,
        answered=values.text(row, "model") or asked,
        provider=values.text(row, "custom_llm_provider"),
        stream=values.flag(row, "stream"),
        user=values.text(row, "end_user"),
        group=values.text(row, "session_id", "trace_id", most=1_000),
        status=status,
        error=values.failure(status) if failed else "",
        latency_ms=latency_ms,
        first_byte_ms=min(values.between_ms(at, first), latency_ms) if first else latency_ms,
        prompt_tokens=values.tokens(row, "prompt_tokens") or 0,
        completion_tokens=values.tokens(row, "completion_tokens") or 0,
        cost_nusd=cost or 0,
        priced="unknown" if cost is None else "export",
        request=_request(row, asked),
        reply=values.as_json(values.nested(row, "response")),
        about={"cached": "true"} if values.flag(row, "cache_hit") else {},
    )


def _endpoint(call_type: str) -> str:
    """LiteLLM marks the asynchronous calls by an `a` before the name."""
    plain = call_type if call_type in _ENDPOINTS else call_type.removeprefix("a")
    return _ENDPOINTS.get(plain, call_type or "chat")


def _status(row: Row) -> int:
    """The HTTP status: the row says no more than `success` or `failure`, its metadata what the upstream answered."""
    if values.text(row, "status") != "failure":
        return 200
    told = values.mapping(values.mapping(row, "metadata"), "error_information") or values.mapping(
        row, "error_information"
    )
    code = values.text(told, "error_code", "error_status")
    return int(code) if code.isascii() and code.isdigit() and 400 <= int(code[:4]) <= 599 else _ERROR


def _request(row: Row, model: str) -> str:
    """The request as a client sends it."""
    whole = values.mapping(row, "proxy_server_request")
    if whole.get("messages") or whole.get("input"):
        return values.as_json(whole)
    messages = values.nested(row, "messages")
    return values.as_json({"model": model, "messages": messages}) if messages else ""
