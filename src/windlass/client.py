"""The gateway's call path in process: `windlass.AsyncClient`, and `windlass.Client`, the same for plain threads.

async with AsyncClient() as client:
    reply = await client.chat([{"role": "user", "content": "Hello"}])

with Client() as client:
    reply = client.chat([{"role": "user", "content": "Hello"}])
    client.feedback(reply.call, "rating", value=1.0)
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine, Iterable, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar

import msgspec

from windlass.content.ask import Asked
from windlass.errors import ErrorCategory, LedgerError, RequestError
from windlass.gateway.embeddings import Embedded, embedded
from windlass.gateway.feedback import FeedbackRequest
from windlass.gateway.gateway import AUTO, Answer, Request
from windlass.ledger.ledger import EVERY_CALL, CallFilter, CallTrace
from windlass.records import (
    DEFAULT_TENANT,
    DEFAULT_WORKSPACE,
    Feedback,
    FeedbackKind,
    FeedbackSource,
    Outcome,
    Reply,
    Scope,
)
from windlass.runtime import Runtime
from windlass.settings import load

if TYPE_CHECKING:
    from windlass.gateway.provider import Provider

T = TypeVar("T")


class AsyncClient:
    """One state folder, opened on the running event loop; use it there, with `async with`.

    home: the state folder (default: settings). settings: overrides by dotted path, {"memory.embedder": "off"}.
    providers: more providers, e.g. `windlass.testing.Echo`.
    """

    def __init__(
        self,
        home: Path | str | None = None,
        *,
        key: str = "",
        settings: dict[str, Any] | None = None,
        providers: Iterable[Provider] = (),
    ):
        self._overrides = dict(settings or {}) | ({"home": Path(home)} if home is not None else {})
        self._key = key
        self._providers = tuple(providers)
        self._opened: Runtime | None = None

    async def __aenter__(self) -> Self:
        if self._opened is not None:
            raise LedgerError("this client is open already; enter it once")
        self._opened = await Runtime(load(self._overrides), providers=self._providers).__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def chat(
        self, messages: Sequence[dict[str, Any]], *, model: str = AUTO, parent: str = "", **fields: Any
    ) -> Reply:
        """One chat completion; `fields` go into the request as they are.

        Raises AccessError, RequestError, ModelUnknown or UpstreamError.
        """
        body = _json({"model": model, "messages": messages, **fields})
        answer, outcome, body = await self._complete(Request(body, key=self._key, parent=parent))
        return Reply(
            call=outcome.call,
            status=answer.status,
            model=outcome.model,
            provider=outcome.provider,
            body=body,
            text=answer.transit.tally.text,
            prompt_tokens=outcome.prompt_tokens,
            completion_tokens=outcome.completion_tokens,
            cost_nusd=outcome.cost_nusd,
            latency_ms=outcome.latency_ms,
        )

    async def embed(self, texts: Sequence[str], *, model: str = AUTO, parent: str = "", **fields: Any) -> Embedded:
        """Vectors for `texts`; `auto` is the embedder of this process.

        Raises AccessError, RequestError, ModelUnknown or UpstreamError.
        """
        if isinstance(texts, str):  # a text is a sequence of texts too, of its characters
            raise RequestError("texts is one text; give embed a list of texts", param="input")
        wanted = {"model": model, "input": list(texts), "encoding_format": "base64", **fields}
        request = Request(_json(wanted), "embeddings", key=self._key, parent=parent)
        _, outcome, body = await self._complete(request)
        return embedded(body, outcome)

    async def _complete(self, request: Request) -> tuple[Answer, Outcome, bytes]:
        """The answer to its end, what the ledger holds of it, and its body."""
        answer = await self._runtime.gateway.complete(request)
        try:
            body = b"".join([chunk async for chunk in answer.chunks])
        finally:
            await answer.chunks.aclose()
        outcome = answer.transit.outcome
        assert outcome is not None, "a reply that was read to its end has an outcome"
        return answer, outcome, body

    async def ask(self, question: str, *, model: str = AUTO) -> Asked:
        """Answer from this folder's memory with verified quotes."""
        caller = self._runtime.gateway.admission.identify(self._key, "") if self._key else None
        return await self._runtime.ask.ask(question, self._scope(), model=model, caller=caller)

    async def feedback(
        self,
        target: str,
        kind: FeedbackKind,
        *,
        value: float | None = None,
        metric: str = "quality",
        source: FeedbackSource = "user",
        comment: str = "",
    ) -> Feedback:
        """Say what you think of `target`, the id of a call or an answer. `value` is in [0, 1]."""
        fields = {"target": target, "kind": kind, "source": source, "metric": metric, "value": value}
        said = FeedbackRequest.read({**fields, "comment": comment})
        return await self._runtime.feedback(self._scope(), said)

    async def calls(self, wanted: CallFilter = EVERY_CALL, *, limit: int = 50, before: str = "") -> list[CallTrace]:
        """The newest calls first, with their decisions, outcome and feedback; `before` is a call id, for paging."""
        ledger, scope = self._runtime.ledger, self._scope()
        return list(await asyncio.to_thread(ledger.calls, scope, limit=limit, before=before, wanted=wanted))

    async def trace(self, call: str) -> CallTrace | None:
        """All that the ledger knows of one call, None where it is not there."""
        return await asyncio.to_thread(self._runtime.ledger.trace, self._scope(), call)

    def models(self) -> tuple[str, ...]:
        """What `model` of a chat may name."""
        return (AUTO, *self._runtime.gateway.providers.names())

    async def aclose(self) -> None:
        """Commit what waits and release the folder. A second call does nothing."""
        runtime, self._opened = self._opened, None
        if runtime is not None:
            await runtime.__aexit__(None, None, None)

    @property
    def _runtime(self) -> Runtime:
        if self._opened is None:
            closed = "this client is closed; open a new one with `async with AsyncClient(...)`"
            raise LedgerError(closed, category=ErrorCategory.LEDGER_CLOSED)
        return self._opened

    def _scope(self) -> Scope:
        if not self._key:
            return Scope(DEFAULT_TENANT, DEFAULT_WORKSPACE)
        return self._runtime.gateway.admission.identify(self._key, "").scope


class Client:
    """An AsyncClient on an event loop of its own. Thread-safe; close it, or use it with `with`.

    The arguments, and what each method gives and raises, are those of AsyncClient.
    """

    def __init__(
        self,
        home: Path | str | None = None,
        *,
        key: str = "",
        settings: dict[str, Any] | None = None,
        providers: Iterable[Provider] = (),
    ):
        self._client = AsyncClient(home, key=key, settings=settings, providers=providers)
        self._closing = threading.Lock()
        self._handing = threading.Lock()
        self._ended = False
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="windlass-client", daemon=True)
        self._thread.start()
        try:
            self._do(self._client.__aenter__())
        except BaseException:
            self._stop_loop()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def chat(self, messages: Sequence[dict[str, Any]], *, model: str = AUTO, parent: str = "", **fields: Any) -> Reply:
        """One chat completion; `fields` go into the request as they are."""
        return self._do(self._client.chat(messages, model=model, parent=parent, **fields))

    def embed(self, texts: Sequence[str], *, model: str = AUTO, parent: str = "", **fields: Any) -> Embedded:
        """Vectors for `texts`."""
        return self._do(self._client.embed(texts, model=model, parent=parent, **fields))

    def ask(self, question: str, *, model: str = AUTO) -> Asked:
        """Answer from this folder's memory with verified quotes."""
        return self._do(self._client.ask(question, model=model))

    def feedback(
        self,
        target: str,
        kind: FeedbackKind,
        *,
        value: float | None = None,
        metric: str = "quality",
        source: FeedbackSource = "user",
        comment: str = "",
    ) -> Feedback:
        """Say what you think of `target`, the id of a call or an answer. `value` is in [0, 1]."""
        said = self._client.feedback(target, kind, value=value, metric=metric, source=source, comment=comment)
        return self._do(said)

    def calls(self, wanted: CallFilter = EVERY_CALL, *, limit: int = 50, before: str = "") -> list[CallTrace]:
        """The newest calls first, with their decisions, outcome and feedback."""
        return self._do(self._client.calls(wanted, limit=limit, before=before))

    def trace(self, call: str) -> CallTrace | None:
        """All that the ledger knows of one call, None where it is not there."""
        return self._do(self._client.trace(call))

    def models(self) -> tuple[str, ...]:
        """What `model` of a chat may name."""
        return self._client.models()

    def close(self) -> None:
        """Commit what waits and release the folder. A second call does nothing."""
        with self._closing:
            if self._loop.is_closed():
                return
            try:
                self._do(self._client.aclose())
            finally:
                self._stop_loop()

    def _do(self, work: Coroutine[Any, Any, T]) -> T:
        with self._handing:
            if self._ended:
                work.close()
                raise LedgerError("this client is closed; open a new one", category=ErrorCategory.LEDGER_CLOSED)
            handed = asyncio.run_coroutine_threadsafe(work, self._loop)
        return handed.result()

    def _stop_loop(self) -> None:
        """Nothing more is taken on; what was is finished first, so that no caller waits for ever."""
        with self._handing:
            self._ended = True
            last = asyncio.run_coroutine_threadsafe(_finished(self._loop), self._loop)
        last.result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


async def _finished(loop: asyncio.AbstractEventLoop) -> None:
    """Return once every other task of the loop, and its threads, have ended."""
    others = asyncio.all_tasks() - {asyncio.current_task()}
    await asyncio.gather(*others, return_exceptions=True)
    await loop.shutdown_default_executor()


def _json(request: dict[str, Any]) -> bytes:
    try:
        return msgspec.json.encode(request)
    except (TypeError, ValueError, RecursionError) as exc:
        raise RequestError(f"the request cannot be JSON: {exc}", code="invalid_json") from exc
