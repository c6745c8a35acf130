"""Error envelopes: each dialect's into the common form and out again.

OpenAI `{"error": {message, type, code, param}}`, Anthropic `{"type": "error", "error": {type, message}}`, Gemini
`{"error": {code, message, status}}`. Sources: OpenAI API reference "Error codes", Anthropic API reference "Errors",
Google AIP-193.
"""

from __future__ import annotations

from typing import Any

import msgspec

from windlass.errors.codes import TYPE_STATUS
from windlass.gateway.dialects.hub import Failure

MOST_TEXT = 500
"""Characters of a body that is no envelope (a proxy's HTML page) that are passed on."""
_ANTHROPIC = {
    400: "invalid_request_error",
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    408: "timeout_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
    504: "timeout_error",
    529: "overloaded_error",
}
_OPENAI = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "invalid_request_error",
    413: "invalid_request_error",
    429: "rate_limit_error",
}
# What an error inside a stream stands for, OpenAI's code for a spent quota and Gemini's names among it.
_STATUS = {
    **TYPE_STATUS,
    "insufficient_quota": 429,
    "invalid_argument": 400,
    "unauthenticated": 401,
    "permission_denied": 403,
    "not_found": 404,
    "resource_exhausted": 429,
    "deadline_exceeded": 504,
    "unavailable": 503,
}
# Anthropic's and Gemini's names where OpenAI has one of its own, which the error table knows.
_CODE = {
    "rate_limit_error": "rate_limit_exceeded",
    "resource_exhausted": "rate_limit_exceeded",
    "authentication_error": "invalid_api_key",
    "unauthenticated": "invalid_api_key",
    "not_found_error": "model_not_found",
    "not_found": "model_not_found",
}


def openai(error: Any) -> Failure:
    """OpenAI's error object; some compatible servers send a string instead."""
    if not isinstance(error, dict):
        return Failure(str(error)[:MOST_TEXT])
    code, kind = _text(error.get("code")), _text(error.get("type"))
    named = code or kind
    param = error.get("param")
    return Failure(
        message=_text(error.get("message")) or "the provider reported an error",
        kind=kind or "upstream_error",
        code=code,
        param=param if isinstance(param, str) else None,
        status=_STATUS.get(named, 0) or _STATUS.get(kind, 0),
    )


def anthropic(error: Any) -> Failure:
    """Anthropic's inner error object."""
    if not isinstance(error, dict):
        return Failure(str(error)[:MOST_TEXT])
    kind = _text(error.get("type")) or "api_error"
    message = _text(error.get("message")) or "the provider reported an error"
    return Failure(message, kind, _CODE.get(kind, kind), status=_STATUS.get(kind, 0))


def gemini(error: Any) -> Failure:
    """Google's inner error object: `status` is the name, `code` the HTTP status."""
    if not isinstance(error, dict):
        return Failure(str(error)[:MOST_TEXT])
    name = _text(error.get("status")).lower()
    code = error.get("code")
    status = code if type(code) is int and 400 <= code < 600 else _STATUS.get(name, 0)
    message = _text(error.get("message")) or "the provider reported an error"
    return Failure(message, _OPENAI.get(status, "server_error"), _CODE.get(name, name), status=status)


def of_body(status: int, body: bytes) -> Failure:
    """The error of a whole body with an error status, whichever envelope it has, or none."""
    try:
        decoded = msgspec.json.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        decoded = None
    if isinstance(decoded, list) and decoded:  # Gemini's streaming endpoint wraps it in an array
        decoded = decoded[0]
    error = decoded.get("error") if isinstance(decoded, dict) else None
    if error is None:
        shown = body[:MOST_TEXT].decode("utf-8", "replace").strip()
        failure = Failure(shown or f"the provider answered with status {status} and no body")
    elif isinstance(decoded, dict) and decoded.get("type") == "error":
        failure = anthropic(error)
    elif isinstance(error, dict) and isinstance(error.get("status"), str):
        failure = gemini(error)
    else:
        failure = openai(error)
    return msgspec.structs.replace(failure, status=status)


def as_openai(failure: Failure) -> dict[str, Any]:
    """OpenAI's envelope."""
    kind = failure.kind
    if kind == "upstream_error" or kind in _ANTHROPIC.values():
        kind = _OPENAI.get(failure.status, "server_error" if failure.status >= 500 else kind)
    code = failure.code or None
    return {"error": {"message": failure.message, "type": kind, "param": failure.param, "code": code}}


def as_anthropic(failure: Failure) -> dict[str, Any]:
    """Anthropic's envelope; its type follows from the status, as it documents."""
    fallback = "invalid_request_error" if 400 <= failure.status < 500 else "api_error"
    return {"type": "error", "error": {"type": _ANTHROPIC.get(failure.status, fallback), "message": failure.message}}


def _text(value: Any) -> str:
    """A name or message; numbers (some servers send a status as `code`) as text."""
    return str(value)[:4000] if isinstance(value, str | int) and not isinstance(value, bool) else ""
