"""What comes back from litellm, in OpenAI's dialect again: completions, chunks, vectors, and what its exceptions mean.

Nothing here imports it: its objects are read by their attributes, its exceptions by their qualified names.

Source: litellm documentation, "Output" and "Exception mapping".
"""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import msgspec
import numpy as np

from windlass.errors import ErrorCategory, UpstreamError, classify
from windlass.gateway.provider import JSON, ProviderReply
from windlass.gateway.relay import Once
from windlass.gateway.transport.http import KEPT_HEADERS, failure

_C = ErrorCategory
STANDS_FOR: dict[str, ErrorCategory] = {
    "APIConnectionError": _C.UPSTREAM_FAILED,  # also for whatever litellm itself stumbles over
    "APIError": _C.UPSTREAM_SERVER_ERROR,
    "APIResponseValidationError": _C.RESPONSE_MALFORMED,
    "AuthenticationError": _C.UPSTREAM_KEY_REFUSED,
    "BadGatewayError": _C.UPSTREAM_SERVER_ERROR,
    "BadRequestError": _C.UPSTREAM_REQUEST_REFUSED,
    "BudgetExceededError": _C.QUOTA_SPENT,
    "ContentPolicyViolationError": _C.CONTENT_FILTERED,
    "ContextWindowExceededError": _C.CONTEXT_TOO_LONG,
    "InternalServerError": _C.UPSTREAM_SERVER_ERROR,
    "MidStreamFallbackError": _C.UPSTREAM_FAILED,
    "NotFoundError": _C.UPSTREAM_MODEL_MISSING,
    "PaymentRequiredError": _C.QUOTA_SPENT,
    "PermissionDeniedError": _C.UPSTREAM_DENIED,
    "RateLimitError": _C.RATE_LIMITED,
    "ServiceUnavailableError": _C.MODEL_OVERLOADED,
    "Timeout": _C.TOTAL_TIMEOUT,
    "UnprocessableEntityError": _C.UPSTREAM_REQUEST_REFUSED,
}
"""What litellm's exceptions stand for, by their names in `litellm.exceptions`; a narrower one has its base's."""
# Where litellm says no more than that something went wrong, the status of the answer itself says more.
_VAGUE = frozenset({_C.UPSTREAM_FAILED, _C.UPSTREAM_SERVER_ERROR, _C.UPSTREAM_REQUEST_REFUSED, _C.MODEL_OVERLOADED})
_CODES = {_C.CONTEXT_TOO_LONG: "context_length_exceeded", _C.CONTENT_FILTERED: "content_policy_violation"}
_MOST_BEHIND = 20
_MOST_CHARS = 2_000


class LitellmFailure:
    """What one exception out of litellm stands for.

    hidden: what no message may show. streaming: parts of the answer had come.
    """

    def __init__(self, provider: str, exc: BaseException, hidden: Sequence[str], *, streaming: bool = False):
        exc = getattr(exc, "original_exception", None) or exc  # litellm wraps what ends a stream once more
        self._provider = provider
        self._exc = exc
        behind = list(_behind(exc))
        self._answer = next((found for link in behind if (found := _answer(link)) is not None), None)
        torn = next((link for link in behind if _is_of_the_way(link)), None) if self._answer is None else None
        self.category = classify(torn if torn is not None else exc)
        if self.category is _C.JSON_INVALID:
            self.category = _C.CHUNK_MALFORMED if streaming else _C.RESPONSE_MALFORMED
        elif self.category in (_C.UNKNOWN, _C.BUG):
            self.category = _C.UPSTREAM_FAILED
        self._torn = torn is not None
        said = str(exc).partition("\nTraceback (")[0]  # litellm puts one into some of its messages
        for secret in hidden:
            said = said.replace(secret, "***")
        self.message = said[:_MOST_CHARS]

    @property
    def error(self) -> UpstreamError:
        """For where no answer has come, or no end of one."""
        return failure(self._provider, self.message, self.category)

    def reply(self) -> ProviderReply:
        """The refusal as its upstream gave it, as far as litellm tells. UpstreamError where no answer has come."""
        status = self._status()
        if status is None:
            raise self.error from None  # litellm's own text may hold a key, and a traceback would show it
        body = getattr(self._exc, "body", None)
        told = body if isinstance(body, Mapping) else {}
        error = {
            "message": self.message,
            "type": told.get("type") or "upstream_error",
            "param": told.get("param"),
            "code": _CODES.get(self.category) or told.get("code"),
        }
        headers = getattr(self._answer, "headers", {})
        kept = {name: str(headers[name]) for name in KEPT_HEADERS if name in headers}
        return ProviderReply(status, JSON, Once(msgspec.json.encode({"error": error})), kept)

    def _status(self) -> int | None:
        """Of the answer; where litellm knows better than it, litellm's; None where there is none."""
        if self._torn:
            return None
        own = getattr(self._exc, "status_code", None)
        own = own if isinstance(own, int) and 400 <= own < 600 else None
        if self._answer is None:
            return own
        return own if own is not None and self.category not in _VAGUE else int(self._answer.status_code)


def _behind(exc: BaseException) -> Iterator[BaseException]:
    """The exception and those it came of, the outermost first. litellm names few of them as the cause."""
    link: BaseException | None = exc
    for _ in range(_MOST_BEHIND):
        if link is None:
            return
        yield link
        link = link.__cause__ or link.__context__


def _answer(link: BaseException) -> Any:
    """The answer of the upstream that httpx made an exception of."""
    if any(f"{cls.__module__}.{cls.__qualname__}" == "httpx.HTTPStatusError" for cls in type(link).__mro__):
        return getattr(link, "response", None)
    return None


def _is_of_the_way(link: BaseException) -> bool:
    """Did the connection, or the bytes that came over it, break?"""
    module = type(link).__module__
    return module.partition(".")[0] == "aiohttp" or module == "json.decoder" or isinstance(link, OSError)


def completion(reply: Any) -> dict[str, Any]:
    """A chat completion. A count of nothing at all is none: litellm writes it where the upstream has not counted."""
    found = _dumped(reply)
    for choice in found.get("choices", ()):
        choice.setdefault("message", {}).setdefault("content", None)
        choice.setdefault("logprobs", None)
    if not _counts(found.get("usage")):
        found.pop("usage", None)
    return found


def chunks(part: Any, *, counted: bool) -> Iterator[bytes]:
    """The events of one chunk: its choices, then its usage by itself, as OpenAI sends it.

    counted: the upstream has counted; litellm estimates where it has not, which must not pass for a count.
    """
    found = _dumped(part)
    usage = found.pop("usage", None)
    choices = found.get("choices", [])
    for choice in choices:
        choice.setdefault("finish_reason", None)
    if usage is None or any(choice.get("delta") or choice["finish_reason"] for choice in choices):
        yield _event(found)
    if counted and _counts(usage):
        yield _event({**found, "choices": [], "usage": usage})


def vectors(reply: Any, *, as_base64: bool) -> dict[str, Any]:
    """An embeddings reply; its vectors as base64 of float32 where the client has asked for that."""
    found = _dumped(reply)
    for item in found.get("data", ()):
        item.setdefault("object", "embedding")
        numbers = item.get("embedding")
        if as_base64 and isinstance(numbers, list):
            item["embedding"] = base64.b64encode(np.array(numbers, "<f4").tobytes()).decode()
    if not _counts(found.get("usage")):
        found.pop("usage", None)
    return found


def _dumped(reply: Any) -> dict[str, Any]:
    """One of litellm's models as JSON holds it."""
    found: dict[str, Any] = reply.model_dump(mode="json", exclude_none=True, warnings=False)
    return found


def _counts(usage: Any) -> bool:
    """Does this usage say anything?"""
    return isinstance(usage, dict) and bool(usage.get("prompt_tokens") or usage.get("completion_tokens"))


def _event(found: dict[str, Any]) -> bytes:
    return b"data: " + msgspec.json.encode(found) + b"\n\n"
