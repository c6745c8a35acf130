"""The long tail of upstreams by way of litellm (Bedrock, Vertex, Cohere, ...): the one file that imports it.

Only at the first request: the import takes seconds of a thread and 170 MB. It is kept to what it is here for, the
translation: its retries, fall-backs, caches and callbacks are off, and so is what it would fetch from the network.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import importlib
import io
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextvars import ContextVar
from dataclasses import replace
from typing import Any

import msgspec

from windlass.errors import ErrorCategory, RequestError, UpstreamError, register
from windlass.gateway.options import LitellmOptions, ModelOptions, ProviderOptions
from windlass.gateway.provider import EVENT_STREAM, JSON, EmbeddingRequest, ProviderReply, ProviderRequest
from windlass.gateway.providers.litellm_replies import STANDS_FOR, LitellmFailure, chunks, completion, vectors
from windlass.gateway.providers.litellm_requests import CHAT_FIELDS, check, fields_of, keys, refuse
from windlass.gateway.providers.translated import DROPPED, refused
from windlass.gateway.relay import Once
from windlass.gateway.transport.http import failure
from windlass.gateway.wire import DONE

# Read as the `.env` that litellm reads at its import, and in place of it: prices and lists come from its wheel, and no
# limit of connections stands beside ours.
QUIET = """
LITELLM_MODE=PRODUCTION
LITELLM_LOCAL_MODEL_COST_MAP=True
LITELLM_LOCAL_ANTHROPIC_BETA_HEADERS=True
LITELLM_LOCAL_BLOG_POSTS=True
LITELLM_LOCAL_AUTOROUTER_PRESETS=True
LITELLM_LOCAL_POLICY_TEMPLATES=True
LITELLM_RUST=False
AIOHTTP_CONNECTOR_LIMIT=0
AIOHTTP_CONNECTOR_LIMIT_PER_HOST=0
"""

_ANSWERS: ContextVar[list[Any]] = ContextVar("litellm_answers")
"""The answers that the call of this context has got from its upstream."""


@functools.cache
def _library() -> Any:
    """litellm, quiet. Takes seconds, so it is for a thread."""
    importlib.import_module("dotenv").load_dotenv(stream=io.StringIO(QUIET), override=True)
    import litellm  # type: ignore[import-not-found, unused-ignore]  # an extra that the checks do without

    for name in ("LiteLLM", "LiteLLM Router", "LiteLLM Proxy"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    litellm.suppress_debug_info = True
    litellm.drop_params = litellm.modify_params = False
    litellm.num_retries = litellm.model_fallbacks = litellm.cache = None
    litellm.disable_token_counter = litellm.disable_hf_tokenizer_download = True
    litellm.disable_aiohttp_trust_env = True
    litellm.user_url_validation, litellm.user_url_allowed_hosts = True, []
    for name, category in STANDS_FOR.items():
        register(f"litellm.exceptions.{name}", category)
    _tame(importlib.import_module("litellm.llms.custom_httpx.aiohttp_transport").LiteLLMAiohttpTransport)
    with contextlib.suppress(Exception):  # what they would import at the first request, a second on the event loop
        importlib.import_module("openai").AsyncOpenAI(api_key="none").chat.completions.with_raw_response  # noqa: B018
        litellm.completion(model="openai/none", messages=[{"role": "user", "content": ""}], mock_response="none")
        anyio = importlib.import_module("anyio")
        anyio.run(anyio.sleep, 0)
    return litellm


def _tame(transport: Any) -> None:
    """Have litellm's transport note its answers in `_ANSWERS`, and lead nobody elsewhere.

    Not every stream of litellm closes its own: the one from Anthropic leaves it to the garbage collector, and the
    upstream talks on until then. A redirect would take prompt and key (`x-api-key`) to whatever host it names; without
    its location it is an answer like any other.
    """
    handle = transport.handle_async_request

    async def tamed(self: Any, request: Any) -> Any:
        answer = await handle(self, request)
        if request.method != "GET":  # those are litellm's fetches of pictures, which checks each hop
            answer.headers.pop("location", None)
        if (answers := _ANSWERS.get(None)) is not None:
            answers.append(answer)
        return answer

    transport.handle_async_request = tamed


class Litellm:
    """A provider whose models are litellm's (`upstream = "bedrock/..."`); each may be asked for vectors too."""

    local = False

    def __init__(self, options: ProviderOptions, api_key: str = ""):
        """SettingsError without the extra, or for models and fields by which a client could choose the host."""
        told = options.of_kind(LitellmOptions)
        check(options, told)
        self.name = options.name
        self.models: tuple[ModelOptions, ...] = options.models
        self.embedding_models = options.models
        self._fields = CHAT_FIELDS | set(told.fields)
        self._links = told.links
        held = keys(options.name, api_key)
        # The last one: for each chat with tools litellm would look for MCP's servers, with a library that is not here.
        self._params = {**told.params, **held, "num_retries": 0, "max_retries": 0, "_skip_mcp_handler": True}
        if options.base_url:
            self._params["api_base"] = options.base_url
        self._hidden = tuple(key for key in held.values() if isinstance(key, str) and key)
        self._connect_s = options.connect_timeout_s
        self._first_byte_s = options.first_byte_timeout_s
        self._idle_s = options.idle_timeout_s
        self._loading: asyncio.Future[Any] | None = None

    async def send(self, request: ProviderRequest) -> ProviderReply:
        stream = request.chat.stream
        try:
            body = fields_of(request.body)
            model = body.pop("model")
            asked = {name: value for name, value in body.items() if name in self._fields and value is not None}
            refuse(asked, links=self._links, stream=stream)
            litellm = await self._ready()
            answering = litellm.acompletion(**asked, **self._told(model))
            reply = await self._in_time(self._begun(answering) if stream else self._whole(answering, completion))
        except RequestError as exc:
            return refused(exc)
        except _Refused as exc:
            return exc.failed.reply()
        left = [name for name in body if name not in self._fields and name.isascii() and name.isprintable()]
        return replace(reply, headers={DROPPED: ", ".join(left)[:1000]}) if left else reply

    async def embed(self, request: EmbeddingRequest) -> ProviderReply:
        written = functools.partial(vectors, as_base64=request.input.base64)
        try:
            body = fields_of(request.body)
            asked = {name: body[name] for name in ("input", "dimensions", "user") if body.get(name) is not None}
            litellm = await self._ready()
            return await self._in_time(self._whole(litellm.aembedding(**asked, **self._told(body["model"])), written))
        except RequestError as exc:
            return refused(exc)
        except _Refused as exc:
            return exc.failed.reply()

    async def close(self) -> None:
        """Litellm's connections are shared by all providers of this kind: the last one closes them."""
        _OPEN.discard(self)
        loading, self._loading = self._loading, None
        if _OPEN or loading is None or not loading.done() or loading.exception() is not None:
            return
        litellm = loading.result()
        await litellm.close_litellm_async_clients()
        litellm.in_memory_llm_clients_cache.flush_cache()
        vars(litellm).pop("module_level_aclient", None)  # closed as well; litellm makes it again when it is asked for

    async def _ready(self) -> Any:
        """litellm, imported in a thread by whoever comes first; the others wait for it."""
        _OPEN.add(self)
        if self._loading is None or (self._loading.done() and self._loading.exception() is not None):
            self._loading = asyncio.ensure_future(asyncio.to_thread(_library))
        try:
            return await asyncio.shield(self._loading)
        except Exception as exc:  # whatever an environment that is not whole brings up
            said = f"provider {self.name}: litellm cannot be imported ({exc!s:.200}); install windlass[litellm] anew"
            raise UpstreamError(said, category=ErrorCategory.DEPENDENCY_MISSING) from exc

    def _told(self, model: str) -> dict[str, Any]:
        """What the settings say. Litellm's own time-outs lie behind ours, for what ours cannot break off."""
        longest_s = self._first_byte_s + self._idle_s
        timeout = importlib.import_module("httpx").Timeout(longest_s, connect=self._connect_s)
        return {**self._params, "model": model, "timeout": timeout}

    async def _in_time(self, answering: Awaitable[ProviderReply]) -> ProviderReply:
        try:
            async with asyncio.timeout(self._first_byte_s):
                return await answering
        except TimeoutError:
            raise failure(self.name, f"{self._first_byte_s:.3g} s", ErrorCategory.FIRST_BYTE_TIMEOUT) from None

    async def _whole(self, answering: Awaitable[Any], written: Callable[[Any], dict[str, Any]]) -> ProviderReply:
        """All of a reply."""
        try:
            body = msgspec.json.encode(written(await answering))
        except Exception as exc:  # noqa: BLE001 (the adapters of a hundred upstreams raise what they like)
            raise _Refused(LitellmFailure(self.name, exc, self._hidden)) from None
        return ProviderReply(200, JSON, Once(body))

    async def _begun(self, answering: Awaitable[Any]) -> ProviderReply:
        """A stream whose first chunk is there: until then it can be refused."""
        answers: list[Any] = []
        _ANSWERS.set(answers)
        try:
            stream = await answering
        except Exception as exc:  # noqa: BLE001 (as above)
            raise _Refused(LitellmFailure(self.name, exc, self._hidden)) from None
        arriving = LitellmChunks(self.name, stream, answers, self._hidden, self._idle_s)
        try:
            await arriving.begin()
        except BaseException:
            await arriving.aclose()
            raise
        return ProviderReply(200, EVENT_STREAM, arriving)


_OPEN: set[Litellm] = set()
"""Those that may have connections."""


class _Refused(UpstreamError):
    """Litellm raised something before any of an answer had come."""

    def __init__(self, failed: LitellmFailure):
        super().__init__(failed.message, category=failed.category)
        self.failed = failed


class LitellmChunks:
    """A stream as it comes out of litellm, as events. Closed early, the upstream is broken off.

    Litellm ends every stream with a finish reason, be it one that it made up: those of an upstream that has given none
    are the sign that it broke off, and are not passed on.
    """

    def __init__(self, name: str, stream: Any, answers: list[Any], hidden: tuple[str, ...], idle_s: float):
        """answers: those that the stream is read from; more may come."""
        self._name = name
        self._stream = stream
        self._answers = answers
        self._hidden = hidden
        self._idle_s = idle_s
        self._waiting: list[bytes] = []
        self._begun = self._over = False

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def begin(self) -> None:
        """Wait for the first chunk. `_Refused` where it does not come."""
        while not self._waiting and not self._over:
            self._waiting += await self._next()

    async def __anext__(self) -> bytes:
        while not self._waiting:
            if self._over:
                raise StopAsyncIteration
            try:
                async with asyncio.timeout(self._idle_s):
                    self._waiting += await self._next()
            except TimeoutError:
                await self.aclose()
                raise failure(self._name, f"{self._idle_s:.3g} s", ErrorCategory.STREAM_IDLE) from None
            except _Refused as exc:
                await self.aclose()
                error = exc.failed.error
                raise error from None
        said, self._waiting = b"".join(self._waiting), []
        return said

    async def aclose(self) -> None:
        self._over = True
        self._waiting = []
        for answer in self._answers:
            with contextlib.suppress(OSError):
                await answer.aclose()
        await self._stream.aclose()

    async def _next(self) -> list[bytes]:
        try:
            part = await anext(self._stream)
            finished = any(choice.finish_reason for choice in part.choices)
            told = self._stream.received_finish_reason or self._stream.intermittent_finish_reason
            usage = getattr(part, "usage", None)
            counted = usage is not None and any(getattr(one, "usage", None) for one in self._stream.chunks)
            said = list(chunks(part, counted=counted))
        except StopAsyncIteration:
            self._over = True
            return [b"data: " + DONE + b"\n\n"]
        except Exception as exc:  # noqa: BLE001 (as above)
            raise _Refused(LitellmFailure(self._name, exc, self._hidden, streaming=True)) from None
        if finished and not told:
            category = ErrorCategory.STREAM_CUT if self._begun else ErrorCategory.STREAM_EMPTY
            raise failure(self._name, "the stream has no end", category)
        self._begun = True
        return said
