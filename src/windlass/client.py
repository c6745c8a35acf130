"""`windlass.Client`: the gateway's call path in process, synchronous. The only place that turns async into sync.

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
from windlass.gateway.feedback import FeedbackRequest
from windlass.gateway.gateway import AUTO, Request
from windlass.records import DEFAULT_TENANT, DEFAULT_WORKSPACE, Feedback, FeedbackKind, FeedbackSource, Reply, Scope
from windlass.runtime import Runtime
from windlass.settings import load

if TYPE_CHECKING:
    from windlass.gateway.provider import Provider

T = TypeVar("T")


class Client:
    """One state folder, opened in this process. Thread-safe; close it, or use it with `with`.

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
        overrides = dict(settings or {}) | ({"home": Path(home)} if home is not None else {})
        self._key = key
        self._closing = threading.Lock()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="windlass-client", daemon=True)
        self._thread.start()
        try:
            self._runtime = self._do(_opened(overrides, tuple(providers)))
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
        """One chat completion; `fields` go into the request as they are.

        Raises AccessError, RequestError, ModelUnknown or UpstreamError.
        """
        try:
            body = msgspec.json.encode({"model": model, "messages": messages, **fields})
        except (TypeError, ValueError, RecursionError) as exc:
            raise RequestError(f"the request cannot be JSON: {exc}", code="invalid_json") from exc
        return self._do(self._chat(Request(body, key=self._key, parent=parent)))

    def ask(self, question: str, *, model: str = AUTO) -> Asked:
        """Answer from this folder's memory with verified quotes."""
        return self._do(self._runtime.ask.ask(question, self._scope(), model=model))

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
        fields = {"target": target, "kind": kind, "source": source, "metric": metric, "value": value}
        said = FeedbackRequest.read({**fields, "comment": comment})
        return self._do(self._runtime.feedback(self._scope(), said))

    def models(self) -> tuple[str, ...]:
        """What `model` may name."""
        return (AUTO, *self._runtime.gateway.providers.names())

    def close(self) -> None:
        """Commit what waits and release the folder. A second call does nothing."""
        with self._closing:
            if self._loop.is_closed():
                return
            try:
                self._do(self._runtime.__aexit__(None, None, None))
            finally:
                self._stop_loop()

    def _scope(self) -> Scope:
        if not self._key:
            return Scope(DEFAULT_TENANT, DEFAULT_WORKSPACE)
        return self._runtime.gateway.admission.identify(self._key, "").scope

    async def _chat(self, request: Request) -> Reply:
        answer = await self._runtime.gateway.complete(request)
        body = b"".join([chunk async for chunk in answer.chunks])
        transit, outcome = answer.transit, answer.transit.outcome
        assert outcome is not None, "a reply that was read to its end has an outcome"
        return Reply(
            call=transit.call.id,
            status=answer.status,
            model=outcome.model,
            provider=outcome.provider,
            body=body,
            text=transit.tally.text,
            prompt_tokens=outcome.prompt_tokens,
            completion_tokens=outcome.completion_tokens,
            cost_nusd=outcome.cost_nusd,
            latency_ms=outcome.latency_ms,
        )

    def _do(self, work: Coroutine[Any, Any, T]) -> T:
        if self._loop.is_closed():
            work.close()
            raise LedgerError("this client is closed; open a new one", category=ErrorCategory.LEDGER_CLOSED)
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    def _stop_loop(self) -> None:
        self._do(self._loop.shutdown_default_executor())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


async def _opened(overrides: dict[str, Any], providers: tuple[Provider, ...]) -> Runtime:
    """A runtime, built on the loop that it will live on."""
    runtime = Runtime(load(overrides), providers=providers)
    return await runtime.__aenter__()
