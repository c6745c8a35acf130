"""The walk of one call, whatever its endpoint. `complete` shows the order; every step is a line of it.

What a client has received is in the ledger: a plain reply leaves after its commit; a stream starts after the call and
its decisions are committed, and its last event leaves after the outcome is.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from decimal import ROUND_HALF_EVEN, Decimal
from functools import partial
from typing import Literal, TypeAlias

from windlass.errors import RequestError
from windlass.gateway.admission import Admission
from windlass.gateway.compose import estimate_tokens
from windlass.gateway.options import GatewayOptions, ModelOptions
from windlass.gateway.prompt import FEATURISER, features
from windlass.gateway.provider import (
    EVENT_STREAM,
    EmbeddingRequest,
    Embeds,
    Provider,
    ProviderReply,
    ProviderRequest,
    Providers,
)
from windlass.gateway.relay import GONE, Incoming, Once, Record, Stream, ending, whole
from windlass.gateway.wire import Chat, EmbeddingInput, Tally, parse_chat, parse_embedding
from windlass.ledger import ids
from windlass.ledger.ledger import Body, Ledger
from windlass.policies.loop import Loop
from windlass.records import USER_CHARS, Call, Decision, Outcome, Scope

AUTO = "auto"
POINT = "model"
DAY_S = 86_400.0
Asked: TypeAlias = Chat | EmbeddingInput
"""A request, read as far as routing and accounting need."""
_READ: dict[str, Callable[[bytes], Asked]] = {"chat": parse_chat, "embeddings": parse_embedding}


@dataclass(frozen=True)
class Request:
    """One request as it came in, for one `endpoint`. `parent` is the typed id it is made for.

    `scope` is set by our own rooms, for whom the caller has been admitted already; clients are admitted by `key`.
    """

    body: bytes
    endpoint: str = "chat"
    key: str = ""
    workspace: str = ""
    parent: str = ""
    scope: Scope | None = None


@dataclass
class Transit:
    """One call on its way through: what the ledger will want to know of it at the end, where `outcome` is set."""

    call: Call
    asked: Asked
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
        """Which policy chose, with what probability, and the numbers behind it; '' where nothing was to be chosen."""
        if not self.decisions:
            return ""
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
        """Answer one request, streamed or not.

        Raises AccessError, RequestError, ModelUnknown before anything is recorded; UpstreamError, recorded, where the
        provider gave no answer.
        """
        scope = request.scope or self.admission.admit(request.key, request.workspace, len(request.body)).scope
        transit = self._decide(request, _READ[request.endpoint](request.body), scope)
        reply = await self._send(transit)
        streamed = transit.asked.stream and reply.content_type == EVENT_STREAM
        transit.tally = transit.asked.tally(stream=streamed)
        incoming = Incoming(reply, transit.tally)
        transit.kept = incoming.kept
        record = partial(self._record, transit)
        chunks: Stream | Once
        if streamed:
            await self._begin(transit, incoming, record)
            chunks = Stream(incoming, record)
        else:
            chunks = Once(await whole(incoming, record))
        headers = {**reply.headers, "x-windlass-call": transit.call.id, "x-windlass-model": transit.model.name}
        if transit.why:
            headers["x-windlass-why"] = transit.why
        status = reply.status if 200 <= reply.status <= 599 else 502
        return Answer(status, reply.content_type, headers, chunks, transit)

    def _decide(self, request: Request, asked: Asked, scope: Scope) -> Transit:
        """The point `model`: `auto` leaves the choice to the policy, a named model is the only action.

        For vectors there is no choice: those of two models do not compare.
        """
        started = self._clock()
        call = Call(
            id=ids.new("call", started),
            at=started,
            tenant=scope.tenant,
            workspace=scope.workspace,
            endpoint=request.endpoint,
            model=asked.model[:200],
            stream=asked.stream,
            parent=request.parent,
            user=asked.user[:USER_CHARS],
            request_bytes=len(request.body),
        )
        if isinstance(asked, EmbeddingInput):
            embeds, model = self.providers.embedding(asked.model)
            return Transit(call, asked, (), embeds, model, started, asked.tally(stream=False))
        actions = self._eligible() if asked.model == AUTO else (asked.model,)
        for action in actions:
            self.providers.find(action)
        action, decisions = self._loop.decide(
            POINT,
            call_id=call.id,
            at=started,
            scope=scope,
            context=features(asked),
            actions=actions,
            featuriser=FEATURISER,
        )
        provider, model = self.providers.find(action)
        return Transit(call, asked, decisions, provider, model, started, asked.tally(stream=asked.stream))

    def _eligible(self) -> tuple[str, ...]:
        return self._options.auto or self.providers.routable()

    async def _send(self, transit: Transit) -> ProviderReply:
        try:
            reply = await _sent(transit)
        except RequestError:
            raise  # the model cannot take this input: the client is told, no work was done
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
        estimated = answered and (prompt is None or completion is None or transit.provider.local)
        if prompt is None:
            prompt = transit.asked.tokens or sum(map(estimate_tokens, transit.asked.said)) if answered else 0
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


def _sent(transit: Transit) -> Awaitable[ProviderReply]:
    """The request on its way to the provider."""
    asked, model, provider = transit.asked, transit.model, transit.provider
    body = asked.with_model(model.upstream or model.name)
    if isinstance(asked, EmbeddingInput):
        assert isinstance(provider, Embeds), "only those are chosen for vectors"
        return provider.embed(EmbeddingRequest(transit.call.id, model.name, body, asked))
    return provider.send(ProviderRequest(transit.call.id, model.name, body, asked))


def _exchanged(transit: Transit) -> Iterator[tuple[Literal["request", "reply"], bytes]]:
    """What is kept of an exchange: not the vectors, which can be computed again."""
    yield "request", transit.asked.raw
    if not isinstance(transit.asked, EmbeddingInput):
        yield "reply", b"".join(transit.kept)


def cost_nusd(model: ModelOptions, prompt_tokens: int, completion_tokens: int) -> int:
    """The price of a call in nano-dollars, rounded half-even once. 1 USD per million tokens is 1,000 nano a token."""
    prompt, completion = repr(model.prompt_usd_per_million), repr(model.completion_usd_per_million)
    exact = (Decimal(prompt) * prompt_tokens + Decimal(completion) * completion_tokens) * 1000
    return int(exact.to_integral_value(ROUND_HALF_EVEN))
