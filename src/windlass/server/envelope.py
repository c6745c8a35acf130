"""Every failure as OpenAI's error envelope with the right status: `{"error": {message, type, param, code}}`.

Source: OpenAI API reference, "Error codes".
"""

from __future__ import annotations

from typing import Final

import msgspec

from windlass.errors import (
    AccessError,
    ErrorCategory,
    InputError,
    LimitReached,
    ModelUnknown,
    RequestError,
    UpstreamError,
    WindlassError,
    classify,
)

CONFLICT: Final = 409


def conflict(message: str) -> RequestError:
    """What fits the program, but not how things stand by now."""
    return RequestError(message, status=CONFLICT, code="conflict", category=ErrorCategory.REQUEST_CONFLICT)


def envelope(exc: BaseException) -> tuple[int, bytes]:
    """Status and body for `exc`. What is not ours on purpose keeps its words to itself."""
    match exc:
        case LimitReached():
            kind = "insufficient_quota" if exc.code == "budget_exceeded" else "rate_limit_error"
            return exc.status, _body(str(exc), kind, exc.code)
        case RequestError():
            return exc.status, _body(str(exc), "invalid_request_error", exc.code, exc.param)
        case AccessError() if classify(exc) is ErrorCategory.SCOPE_DENIED:
            # The key is good, so nobody is to look for another one; the status is that of every refusal at the door.
            return 401, _body(str(exc), "permission_error", ErrorCategory.SCOPE_DENIED.value)
        case AccessError():
            return 401, _body(str(exc), "authentication_error", "invalid_api_key")
        case ModelUnknown():
            return 404, _body(str(exc), "invalid_request_error", "model_not_found", "model")
        case InputError():
            return 400, _body(str(exc), "invalid_request_error", "invalid_request")
        case UpstreamError():
            category = classify(exc).value
            return (504 if "timeout" in category else 502), _body(str(exc), "upstream_error", category)
        case WindlassError():
            return 503, _body(str(exc), "server_error", classify(exc).value)
        case _:
            return 500, _body("an unexpected error; the server's log has it", "server_error", classify(exc).value)


def spoken(path: str, status: int, body: bytes) -> bytes:
    """An envelope in the dialect of the endpoint at `path`: Anthropic's for Messages."""
    if not path.startswith("/v1/messages"):
        return body
    from windlass.gateway.dialects.failures import as_anthropic, of_body

    return msgspec.json.encode(as_anthropic(of_body(status, body)))


def headers(exc: BaseException) -> dict[str, str]:
    """What goes out beside the envelope: which limit is reached, and when to come again (RFC 9110, 10.2.3).

    `x-should-retry` is what OpenAI's clients ask before they try again by themselves.
    """
    if not isinstance(exc, LimitReached):
        return {}
    found = {"x-windlass-limit": exc.limit, "x-should-retry": str(exc.code != "budget_exceeded").lower()}
    if exc.retry_after_s is not None:
        found["retry-after"] = str(exc.retry_after_s)
    return found


def _body(message: str, kind: str, code: str, param: str | None = None) -> bytes:
    return msgspec.json.encode({"error": {"message": message, "type": kind, "param": param, "code": code}})
