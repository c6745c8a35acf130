"""OpenRouter's exports: the CSV of its Activity page, and what `GET /api/v1/generation` answers.

Sources: openrouter.ai/docs/api-reference (get a generation), the head line of the Activity page's CSV.
"""

from __future__ import annotations

from typing import Final

from windlass.errors import ErrorCategory
from windlass.gateway.history import values
from windlass.gateway.history.past import Past
from windlass.gateway.history.values import Row

PROGRAM: Final = "openrouter"
_API_TYPES = {"completions": "chat", "embeddings": "embeddings", "responses": "responses"}


def fits(row: Row) -> bool:
    """Whether a row is one of these."""
    activity = "generation_id" in row and "created_at" in row
    return activity or ("id" in row and "created_at" in row and "native_tokens_prompt" in row)


def read(row: Row, now: float) -> Past:
    """The call of a row. InputError with the reason where it cannot be one."""
    cost = values.nusd(row, "cost_total", "total_cost", "usage")
    model = values.text(row, "model_permaslug", "model")
    # The provider's own count is what is billed.
    prompt = values.tokens(row, "native_tokens_prompt", "tokens_prompt")
    completion = values.tokens(row, "native_tokens_completion", "tokens_completion")
    took_ms = values.milliseconds(row, "generation_time", "generation_time_ms") or 0.0
    first_ms = values.milliseconds(row, "time_to_first_token_ms", "latency") or 0.0
    error = _error(row)
    return Past(
        program=PROGRAM,
        source=values.source(row, "generation_id", "id"),
        at=values.began(row, "created_at", now=now),
        endpoint=_API_TYPES.get(values.text(row, "api_type"), "chat"),
        model=model,
        answered=model,
        provider=values.text(row, "provider_name"),
        stream=values.flag(row, "streamed"),
        user=values.text(row, "external_user", "user"),
        group=values.text(row, "session_id", most=1_000),
        status=200 if error in ("", ErrorCategory.CLIENT_GONE.value) else 502,
        error=error,
        latency_ms=max(took_ms, first_ms),
        first_byte_ms=first_ms,
        prompt_tokens=prompt or 0,
        completion_tokens=completion or 0,
        cost_nusd=cost or 0,
        priced="unknown" if cost is None else "export",
    )


def _error(row: Row) -> str:
    if values.flag(row, "cancelled"):
        return ErrorCategory.CLIENT_GONE.value
    ended = values.text(row, "finish_reason_normalized", "finish_reason")
    return ErrorCategory.UPSTREAM_FAILED.value if ended == "error" else ""
