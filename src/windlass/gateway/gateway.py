"""The walk of one call. `complete` shows the order; every step is a line of it.

What a client has received is in the ledger: a plain reply leaves after its commit; a stream starts after the call and
its decisions are committed, and its last event leaves after the outcome is.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass, field
from typing import Literal

from windlass.errors import ErrorCategory, UpstreamError, classify
from windlass.gateway.admission import Admission, Caller
from windlass.gateway.compose import estimate_tokens
from windlass.gateway.features import FEATURISER, features
from windlass.gateway.options import GatewayOptions, ModelOptions
from windlass.gateway.provider import EVENT_STREAM, Provider, ProviderReply, ProviderRequest, Providers
from windlass.gateway.wire import DONE, Chat, Tally, parse_chat
from windlass.ledger import ids
from windlass.ledger.ledger import Body, Ledger
from windlass.policies.loop import Loop
from windlass.records import Call, Decision, Outcome

AUTO = "auto"
POINT = "model"
DAY_S = 86_400.0
MAX_REPLY_BYTES = 64 * 1024 * 1024


@dataclass(frozen=True)
class Request:
    """One chat request as it came in. `parent` is the typed id it is made for."""

    body: bytes
    key: str = ""
    workspace: str = ""
    parent: str = ""


@dataclass
class Transit:
    """One call on its way through: what the ledger will want to know of it at the end, where `outcome` is set."""

    call: Call
    chat: Chat
    decisions: tuple[Decision, ...]
    provider: Provider
    model: ModelOptions
    started: float
    tally: Tally
    first_byte_at: float = 0.0
    kept: list[bytes] = field(default_factory=list)
    outcome: Outcome | None = None

    @property
    def why(self) -> str:
        """Which policy chose, with what probability, and the numbers behind it."""
        decision = self.decisions[0]
        numbers = f"; {decision.extra['why']}" if "why" in decision.extra else ""
        return f"{decision.policy} p={decision.propensity:.3f}{numbers}"


@dataclass(frozen=True)
class Answer:
    """What goes out: status, headers, and the bytes, which must be read to the end or closed."""

    status: int
    content_type: str
    headers: dict[str, str]
    chunks: AsyncGenerator[bytes, None]
    transit: Transit


class Gateway:
    """The call path over its parts. `clock` gives UTC seconds."""

    def __init__(
        self,
        *,
        admission: Admission,
        providers: Providers,
        loop: Loop,
        ledger: Ledger,
        options: GatewayOptions,
        clock: Callable[[], float],
    ):
        self.admission = admission
        self.providers = providers
        self._loop = loop
        self._ledger = ledger
        self._options = options
        self._clock = clock

    async def complete(self, request: Request) -> Answer:
        """Answer one chat request, streamed or not.

        Raises AccessError, RequestError, ModelUnknown before anything is recorded; UpstreamError, recorded, where the
        provider gave no answer.
        """
        caller = self.admission.admit(request.key, request.workspace, len(request.body))
        transit = self._decide(request, parse_chat(request.body), caller)
        reply = await self._send(transit)
        if transit.chat.stream and reply.content_type == EVENT_STREAM:
            await self._ledger.append(transit.call, *transit.decisions)
            chunks = self._stream(transit, reply)
        else:
            chunks = _once(await self._whole(transit, reply))
        headers = {
            **reply.headers,
            "x-windlass-call": transit.call.id,
            "x-windlass-model": transit.model.name,
            "x-windlass-why": transit.why,
        }
        return Answer(reply.status, reply.content_type, headers, chunks, transit)

    def _decide(self, request: Request, chat: Chat, caller: Caller) -> Transit:
        """The point `model`: `auto` leaves the choice to the policy, a named model is the only action."""
        started = self._clock()
        call = Call(
            id=ids.new("call", started),
            at=started,
            tenant=caller.scope.tenant,
            workspace=caller.scope.workspace,
            endpoint="chat",
            model=chat.model[:200],
            stream=chat.stream,
            parent=request.parent,
            user=chat.user[:200],
            request_bytes=len(request.body),
        )
        actions = self._eligible() if chat.model == AUTO else (chat.model,)
        for action in actions:
            self.providers.find(action)
        action, decisions = self._loop.decide(
            POINT,
            call_id=call.id,
            at=started,
            scope=caller.scope,
            context=features(chat),
            actions=actions,
            featuriser=FEATURISER,
        )
        provider, model = self.providers.find(action)
        return Transit(call, chat, decisions, provider, model, started, Tally(stream=chat.stream))

    def _eligible(self) -> tuple[str, ...]:
        return self._options.auto or self.providers.routable()

    async def _send(self, transit: Transit) -> ProviderReply:
        upstream = transit.model.upstream or transit.model.name
        body = transit.chat.with_model(upstream)
        try:
            reply = await transit.provider.send(
                ProviderRequest(transit.call.id, transit.model.name, body, transit.chat)
            )
        except UpstreamError as exc:
            await self._record(transit, 502, classify(exc).value)
            raise
        except asyncio.CancelledError:
            await asyncio.shield(self._record(transit, 499, ErrorCategory.CLIENT_GONE.value))
            raise
        transit.first_byte_at = self._clock()
        return reply

    async def _whole(self, transit: Transit, reply: ProviderReply) -> bytes:
        """The whole body, committed before it leaves."""
        transit.tally = Tally(stream=False)
        size = 0
        try:
            async for chunk in reply.chunks:
                transit.kept.append(chunk)
                size += len(chunk)
                if size > MAX_REPLY_BYTES:
                    raise UpstreamError(f"provider {transit.provider.name} sent more than {MAX_REPLY_BYTES} bytes")
        except UpstreamError as exc:
            await self._record(transit, 502, classify(exc).value)
            raise
        except asyncio.CancelledError:
            await asyncio.shield(self._record(transit, 499, ErrorCategory.CLIENT_GONE.value))
            raise
        finally:
            await reply.chunks.aclose()
        body = b"".join(transit.kept)
        transit.tally.feed(body)
        transit.tally.end()
        await self._record(transit, reply.status, _error_of(reply.status))
        return body

    async def _stream(self, transit: Transit, reply: ProviderReply) -> AsyncGenerator[bytes, None]:
        """Events as they come. What follows `[DONE]` waits for the commit; a cut stream ends with an error event."""
        error, held = ErrorCategory.CLIENT_GONE.value, b""
        try:
            async for chunk in reply.chunks:
                transit.kept.append(chunk)
                transit.tally.feed(chunk)
                if held or DONE in chunk:
                    held += chunk
                else:
                    yield chunk
            transit.tally.end()
            error = _error_of(reply.status) if transit.tally.complete else ErrorCategory.STREAM_CUT.value
        except UpstreamError as exc:
            error = classify(exc).value
        finally:
            await reply.chunks.aclose()
            await asyncio.shield(self._outcome(transit, reply.status, error))
        if error:
            held = _error_event(error)
        if held:
            yield held

    async def _record(self, transit: Transit, status: int, error: str) -> None:
        """Everything of a call whose reply has not left yet, in one commit."""
        await self._ledger.append(
            transit.call, *transit.decisions, self._outcome_of(transit, status, error), *self._bodies(transit)
        )

    async def _outcome(self, transit: Transit, status: int, error: str) -> None:
        await self._ledger.append(self._outcome_of(transit, status, error), *self._bodies(transit))

    def _outcome_of(self, transit: Transit, status: int, error: str) -> Outcome:
        now, tally, call = self._clock(), transit.tally, transit.call
        estimated = tally.completion_tokens is None
        prompt = tally.prompt_tokens
        if prompt is None:
            prompt = sum(estimate_tokens(message.text) for message in transit.chat.messages)
        completion = tally.completion_tokens
        if completion is None:
            completion = estimate_tokens(tally.text)
        transit.outcome = Outcome(
            id=ids.new("outcome", now),
            at=now,
            tenant=call.tenant,
            workspace=call.workspace,
            call=call.id,
            model=transit.model.name,
            provider=transit.provider.name,
            status=status,
            latency_ms=max(0.0, now - transit.started) * 1000,
            first_byte_ms=max(0.0, (transit.first_byte_at or now) - transit.started) * 1000,
            prompt_tokens=prompt,
            completion_tokens=completion,
            cost_nusd=cost_nusd(transit.model, prompt, completion),
            tokens_estimated=estimated,
            error=error,
        )
        return transit.outcome

    def _bodies(self, transit: Transit) -> tuple[Body, ...]:
        if not self._options.keep_bodies:
            return ()
        call, now = transit.call, self._clock()
        expires_at = now + self._options.body_retention_days * DAY_S
        return tuple(
            Body(
                id=f"{call.id}-{role}",
                at=now,
                tenant=call.tenant,
                workspace=call.workspace,
                call=call.id,
                role=role,
                data=data,
                user=call.user,
                expires_at=expires_at,
            )
            for role, data in _exchanged(transit)
        )


def _exchanged(transit: Transit) -> tuple[tuple[Literal["request", "reply"], bytes], ...]:
    return ("request", transit.chat.raw), ("reply", b"".join(transit.kept))


def cost_nusd(model: ModelOptions, prompt_tokens: int, completion_tokens: int) -> int:
    """The price of a call in nano-dollars, rounded half-even once. 1 USD per million tokens is 1,000 nano a token."""
    exact = prompt_tokens * model.prompt_usd_per_million + completion_tokens * model.completion_usd_per_million
    return round(exact * 1000)


def _error_of(status: int) -> str:
    return "" if status < 400 else classify(UpstreamError(f"status {status}", status=status)).value


def _error_event(category: str) -> bytes:
    """An error inside a stream that has begun: never a false `[DONE]`."""
    return b'data: {"error": {"message": "the stream ended early: %s", "type": "upstream_error", "code": "%s"}}\n\n' % (
        category.encode(),
        category.encode(),
    )


async def _once(body: bytes) -> AsyncGenerator[bytes, None]:
    yield body
