"""Google's Gemini: chats are translated into `generateContent`. The key travels in a header, never in the URL.

Source: Gemini API reference, "Generating content"; Google AIP-193 and `google/rpc/error_details.proto` for refusals.
"""

from __future__ import annotations

import math
import re
import time
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from windlass.errors import RequestError
from windlass.gateway.dialects import translation
from windlass.gateway.options import ModelOptions, ProviderOptions
from windlass.gateway.provider import ProviderReply, ProviderRequest
from windlass.gateway.providers import translated
from windlass.gateway.transport.transport import Transport

_MODEL = re.compile(r"(?:(models|tunedModels)/)?([A-Za-z0-9_-][A-Za-z0-9._-]*)")
_SECONDS = re.compile(r"\d{1,9}(\.\d{1,9})?s")


class GeminiStatus(msgspec.Struct):
    details: list[Any] = []


class GeminiRefusal(msgspec.Struct):
    """A refusal, of which a stream's may come as the one element of a list."""

    error: GeminiStatus


class Gemini:
    """A provider behind the Gemini API. clock: UTC seconds, for replies, which do not say when they were made."""

    local = False

    def __init__(self, options: ProviderOptions, api_key: str = "", *, clock: Callable[[], float] = time.time):
        self.name = options.name
        self.models: tuple[ModelOptions, ...] = options.models
        self._clock = clock
        self._transport = Transport(options, {"x-goog-api-key": api_key} if api_key else {})

    async def send(self, request: ProviderRequest) -> ProviderReply:
        method = "streamGenerateContent?alt=sse" if request.chat.stream else "generateContent"

        async def post(model: str, body: bytes) -> ProviderReply:
            return await self._transport.request("POST", f"/{_resource(model)}:{method}", body)

        way = translation("chat", "gemini", call=request.call, at_s=int(self._clock()))
        return await translated.answer(way, request, post, _told)

    async def close(self) -> None:
        await self._transport.close()


def _resource(model: str) -> str:
    """The model as a path; the name may be a client's where one entry stands for any name. RequestError (404)."""
    found = _MODEL.fullmatch(model)
    if found is None:
        message = f"{model[:80]!r} is no name of a Gemini model; write it as in its list of models"
        raise RequestError(message, status=404, code="model_not_found", param="model")
    return f"{found[1] or 'models'}/{found[2]}"


def _told(status: int, body: bytes) -> tuple[int, Mapping[str, str]]:
    """A wrong key is answered with 400, as if the client had erred; how long to wait stands in the body alone."""
    headers: dict[str, str] = {}
    for detail in _details(body):
        if status == 400 and detail.get("reason") == "API_KEY_INVALID":
            status = 401
        delay = detail.get("retryDelay")
        if isinstance(delay, str) and _SECONDS.fullmatch(delay):
            headers["retry-after"] = str(math.ceil(float(delay.removesuffix("s"))))
    return status, headers


def _details(body: bytes) -> list[dict[str, Any]]:
    try:
        found = msgspec.json.decode(body, type=GeminiRefusal | list[GeminiRefusal])
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return []
    told = [found] if isinstance(found, GeminiRefusal) else found
    return [detail for one in told for detail in one.error.details if isinstance(detail, dict)]
