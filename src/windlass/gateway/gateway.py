"""The walk of one call. `complete` shows the order; every step is a line of it.

What a client has received is in the ledger: a plain reply leaves after its commit; a stream starts after the call and
its decisions are committed, and its last event leaves after the outcome is.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from decimal import ROUND_HALF_EVEN, Decimal
from functools import partial
from typing import Literal

from windlass.gateway.admission import Admission
from windlass.gateway.compose import estimate_tokens
from windlass.gateway.options import GatewayOptions, ModelOptions
from windlass.gateway.prompt import FEATURISER, features
from windlass.gateway.provider import EVENT_STREAM, Provider, ProviderReply, ProviderRequest, Providers
from windlass.gateway.relay import GONE, Incoming, Once, Record, Stream, ending, whole
from windlass.gateway.wire import Chat, Tally, parse_chat
from windlass.ledger import ids
from windlass.ledger.ledger import Body, Ledger
from windlass.policies.loop import Loop
from windlass.records import USER_CHARS, Call, Decision, Outcome, Scope

AUTO = "auto"
POINT = "model"
DAY_S = 86_400.0


@dataclass(frozen=True)
class Request:
    """One chat request as it came in. `parent` is the typed id it is made for.

    `scope` is set by our own rooms, for whom the caller has been admitted already; clients are admitted by `key`.
    """

    body: bytes
    key: str = ""
    workspace: str = ""
    parent: str = ""
    scope: Scope | None = None


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
    kept: list[bytes] = field(default_factory=list)
    first_byte_at: float = 0.0
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
    chunks: Stream | Once
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
        scope = request.scope or self.admission.admit(request.key, request.workspace, len(request.body)).scope
        transit = self._decide(request, parse_chat(request.body), scope)
        reply = await self._send(transit)
        streamed = transit.chat.stream and reply.content_type == EVENT_STREAM
        incoming = Incoming(reply, stream=streamed)
        transit.tally, transit.kept = incoming.tally, incoming.kept
        record = partial(self._record, transit)
        chunks: Stream | Once
        if streamed:
            await self._begin(transit, incoming, record)
            chunks = Stream(incoming, record)
        else:
            chunks = Once(await whole(incoming, record))
        headers = {
            **reply.headers,
            "x-windlass-call": transit.call.id,
            "x-windlass-model": transit.model.name,
            "x-windlass-why": transit.why,
        }
        status = reply.status if 200 <= reply.status <= 599 else 502
        return Answer(status, reply.content_type, headers, chunks, transit)

    def _decide(self, request: Request, chat: Chat, scope: Scope) -> Transit:
        """The point `model`: `auto` leaves the choice to the policy, a named model is the only action."""
        started = self._clock()
        call = Call(
            id=ids.new("call", started),
            at=started,
            tenant=scope.tenant,
            workspace=scope.workspace,
            endpoint="chat",
            model=chat.model[:200],
            stream=chat.stream,
            parent=request.parent,
            user=chat.user[:USER_CHARS],
            request_bytes=len(request.body),
        )
        actions = self._eligible() if chat.model == AUTO else (chat.model,)
        for action in actions:
            self.providers.find(action)
        action, decisions = self._loop.decide(
            POINT,
            call_id=call.id,
            at=started,
            scope=scope,
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
        request = ProviderRequest(transit.call.id, transit.model.name, body, transit.chat)
        try:
            reply = await transit.provider.send(request)
        except BaseException as exc:
            await asyncio.shield(self._record(transit, *ending(exc)))
            raise
        transit.first_byte_at = self._clock()
        return reply

    async def _begin(self, transit: Transit, incoming: Incoming, record: Record) -> None:
        """Commit a stream's call and decisions before its first byte; a failure or a leaving client ends it here."""
        begun = asyncio.ensure_future(self._ledger.append(transit.call, *transit.decisions))
        try:
            await asyncio.shield(begun)
        except BaseException as exc:
            await incoming.close()
            if isinstance(exc, asyncio.CancelledError):
                await asyncio.shield(record(*GONE))
            raise

    async def _record(self, transit: Transit, status: int, error: str) -> None:
        """Everything of a call in one commit; what a stream has committed before changes nothing."""
        outcome = self._outcome_of(transit, status, error)
        committing = self._ledger.append(transit.call, *transit.decisions, outcome, *self._bodies(transit))
        await asyncio.shield(committing)

    def _outcome_of(self, transit: Transit, status: int, error: str) -> Outcome:
        now, tally, call = self._clock(), transit.tally, transit.call
        prompt, completion = tally.prompt_tokens, tally.completion_tokens
        # Usage that a provider reports counts, whatever else went wrong; guesses only bill what was answered.
        answered = transit.first_byte_at > 0 and (status < 400 or status == 499)
        estimated = answered and (prompt is None or completion is None)
        if prompt is None:
            prompt = sum(estimate_tokens(message.text) for message in transit.chat.messages) if answered else 0
        if completion is None:
            completion = estimate_tokens(tally.text) if answered else 0
        transit.outcome = Outcome(
            # By the call's own time, so that both lie on one day even where the clock is set meanwhile.
            id=ids.new("outcome", call.at),
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
    prompt, completion = repr(model.prompt_usd_per_million), repr(model.completion_usd_per_million)
    exact = (Decimal(prompt) * prompt_tokens + Decimal(completion) * completion_tokens) * 1000
    return int(exact.to_integral_value(ROUND_HALF_EVEN))
