"""OpenAI's exports: stored chat completions and responses as the API lists them, and the files of a batch.

What was asked stands in files of its own: the input file of a batch, the messages of a stored completion. No export
says what a call cost; that is worked out from the published prices of this release, for a batch from those of batches.
Sources: platform.openai.com/docs/api-reference (chat, responses, batch), docs/guides/batch.
"""

from __future__ import annotations

from typing import Any, Final

from windlass.errors import InputError
from windlass.gateway.history import values
from windlass.gateway.history.past import Past, PastRequest
from windlass.gateway.history.values import Row
from windlass.gateway.money.pricelist import find
from windlass.gateway.money.prices import cost_nusd
from windlass.gateway.money.usage import Usage

PROGRAM: Final = "openai"
MESSAGE = "message:"
CUSTOM_ID = "custom_id"
_FAILED = 500
_URL = "https://api.openai.com/v1"
_OBJECTS = {"chat.completion": "chat", "text_completion": "completions", "response": "responses", "list": "embeddings"}


def fits(row: Row) -> bool:
    """Whether a row is one of these."""
    return str(row.get("object", "")) in _OBJECTS or requests(row) or ("custom_id" in row and "response" in row)


def requests(row: Row) -> bool:
    """Whether it only says what was asked."""
    batch = "custom_id" in row and "url" in row and "body" in row
    return batch or ("role" in row and "content" in row and str(row.get("id", "")).startswith("chatcmpl-"))


def read(row: Row, now: float) -> Past | PastRequest:
    """The call of a row, or what one asked. InputError with the reason where it is neither."""
    if requests(row):
        return _asked(row)
    if "custom_id" not in row:
        return _answer(row, row, 200, now, batch=False)
    if not row.get("response"):
        code = values.text(values.mapping(row, "error"), "code") or "unknown"
        raise InputError(f"not_asked: the batch ended before it came to this request ({code})")
    response = values.mapping(row, "response")
    body = values.mapping(response, "body")
    return _answer(row, body, values.tokens(response, "status_code") or 0, now, batch=True)


def _asked(row: Row) -> PastRequest:
    if "custom_id" in row:
        return PastRequest(key=values.source(row, "custom_id"), request=values.as_json(row.get("body")))
    # The messages of `chatcmpl-1` are `chatcmpl-1-0`, `chatcmpl-1-1`, ...
    completion, _, _ = values.source(row, "id").rpartition("-")
    said = {name: value for name, value in row.items() if name != "id" and value is not None}
    return PastRequest(key=MESSAGE + completion, request=values.as_json(said))


def _answer(row: Row, body: Row, status: int, now: float, *, batch: bool) -> Past:
    endpoint = _OBJECTS.get(str(body.get("object", "")), "")
    status = status if status >= 400 or body.get("status") != "failed" else _FAILED
    if not endpoint and status < 400:
        raise InputError(f"answer: {values.shown(body.get('object'))} is no answer of a known endpoint")
    used = values.mapping(body, "usage")
    prompt, completion = _counts(used)
    model = values.text(body, "model")
    cost = _cost(model, used, prompt, completion, batch=batch)
    return Past(
        program=PROGRAM,
        source=values.source(row, "id"),
        at=values.began(body, "created", "created_at", now=now),
        endpoint=endpoint or "chat",
        model=model,
        answered=model,
        provider=PROGRAM,
        user=values.text(body, "user", "safety_identifier"),
        status=status,
        error=values.failure(status) if status >= 400 else "",
        prompt_tokens=prompt,
        completion_tokens=completion,
        cost_nusd=cost or 0,
        priced="unknown" if cost is None else "published",
        request=values.as_json({"model": model, "input": body["input"]}) if body.get("input") else "",
        reply=values.as_json(dict(body)),
        about={CUSTOM_ID: values.source(row, CUSTOM_ID)} if batch else {},
    )


def _counts(used: Row) -> tuple[int, int]:
    """Tokens that went in and came out, under the names of either API."""
    prompt = values.tokens(used, "prompt_tokens", "input_tokens")
    completion = values.tokens(used, "completion_tokens", "output_tokens")
    return prompt or 0, completion or 0


def _cost(model: str, used: dict[str, Any], prompt: int, completion: int, *, batch: bool) -> int | None:
    """By the published prices; None where there is none, and where nothing was counted."""
    price = find("openai_compatible", _URL, model) if used and model else None
    if price is None or not price.priced:
        return None
    went_in = values.mapping(used, "prompt_tokens_details", "input_tokens_details")
    came_out = values.mapping(used, "completion_tokens_details", "output_tokens_details")
    usage = Usage(
        prompt_tokens=prompt,
        completion_tokens=completion,
        cache_read_tokens=values.tokens(went_in, "cached_tokens") or 0,
        audio_prompt_tokens=values.tokens(went_in, "audio_tokens") or 0,
        reasoning_tokens=values.tokens(came_out, "reasoning_tokens") or 0,
        audio_completion_tokens=values.tokens(came_out, "audio_tokens") or 0,
    )
    return cost_nusd(price, usage, batch=batch)
