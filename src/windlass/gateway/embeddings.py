"""Texts to vectors, over the same admission and the same ledger as a chat: admit, send, commit, and then the reply.

The caller names the model, so there is no decision to record. The request is kept as a body like any other; the vectors
are not, because they can be computed again.
"""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

import msgspec
import numpy as np
from numpy.typing import NDArray

from windlass.errors import ErrorCategory, RequestError, UpstreamError
from windlass.gateway.admission import Admission
from windlass.gateway.compose import estimate_tokens
from windlass.gateway.gateway import DAY_S, Request, cost_nusd
from windlass.gateway.options import GatewayOptions, ModelOptions
from windlass.gateway.provider import EmbeddingRequest, Embeds, ProviderReply, Providers
from windlass.gateway.relay import Incoming, ending, whole
from windlass.gateway.wire import EmbeddingInput, EmbeddingTally, Tally, parse_embedding
from windlass.ledger import ids
from windlass.ledger.ledger import Body, Ledger
from windlass.records import USER_CHARS, Call, Outcome, Scope


@dataclass(frozen=True)
class EmbeddingReply:
    """What goes out, and what the ledger holds of it."""

    status: int
    content_type: str
    headers: dict[str, str]
    body: bytes
    outcome: Outcome


@dataclass(frozen=True, eq=False)
class Embedded:
    """Vectors, (n, d) float32 in the order of the texts, and what the ledger holds of the call."""

    call: str
    model: str
    provider: str
    vectors: NDArray[np.float32]
    prompt_tokens: int
    cost_nusd: int
    latency_ms: float


@dataclass
class _Passage:
    """One request on its way through: what the ledger will want to know of it at the end."""

    call: Call
    input: EmbeddingInput
    provider: Embeds
    model: ModelOptions
    tally: Tally = field(init=False)
    answered_at: float = 0.0
    outcome: Outcome | None = None

    def __post_init__(self) -> None:
        self.tally = EmbeddingTally(self.input.count)


class Embeddings:
    """The path of an embeddings request. `clock` gives UTC seconds."""

    def __init__(
        self,
        admission: Admission,
        providers: Providers,
        ledger: Ledger,
        options: GatewayOptions,
        clock: Callable[[], float],
    ):
        self._admission = admission
        self._providers = providers
        self._ledger = ledger
        self._options = options
        self._clock = clock

    async def embed(self, request: Request) -> EmbeddingReply:
        """Answer one embeddings request.

        Raises AccessError, RequestError, ModelUnknown before anything is recorded; UpstreamError, recorded, where the
        provider gave no answer.
        """
        scope = request.scope or self._admission.admit(request.key, request.workspace, len(request.body)).scope
        passage = self._begin(request, parse_embedding(request.body), scope)
        reply = await self._send(passage)
        incoming = Incoming(reply, stream=False)
        incoming.tally = passage.tally
        body = await whole(incoming, partial(self._record, passage))
        assert passage.outcome is not None, "a reply that was read to its end has an outcome"
        headers = {**reply.headers, "x-windlass-call": passage.call.id, "x-windlass-model": passage.model.name}
        status = reply.status if 200 <= reply.status <= 599 else 502
        return EmbeddingReply(status, reply.content_type, headers, body, passage.outcome)

    def _begin(self, request: Request, wanted: EmbeddingInput, scope: Scope) -> _Passage:
        provider, model = self._providers.embedding(wanted.model)
        now = self._clock()
        call = Call(
            id=ids.new("call", now),
            at=now,
            tenant=scope.tenant,
            workspace=scope.workspace,
            endpoint="embeddings",
            model=wanted.model[:200],
            parent=request.parent,
            user=wanted.user[:USER_CHARS],
            request_bytes=len(request.body),
        )
        return _Passage(call, wanted, provider, model)

    async def _send(self, passage: _Passage) -> ProviderReply:
        wanted, model = passage.input, passage.model
        body = wanted.with_model(model.upstream or model.name)
        try:
            reply = await passage.provider.embed(EmbeddingRequest(passage.call.id, model.name, body, wanted))
        except RequestError:
            raise  # the model cannot take this input: the client is told, no work was done
        except BaseException as exc:
            await asyncio.shield(self._record(passage, *ending(exc)))
            raise
        passage.answered_at = self._clock()
        return reply

    async def _record(self, passage: _Passage, status: int, error: str) -> None:
        passage.outcome = self._outcome_of(passage, status, error)
        committing = self._ledger.append(passage.call, passage.outcome, *self._bodies(passage))
        await asyncio.shield(committing)

    def _outcome_of(self, passage: _Passage, status: int, error: str) -> Outcome:
        now, call, model = self._clock(), passage.call, passage.model
        tokens, answered = passage.tally.prompt_tokens, passage.answered_at > 0 and (status < 400 or status == 499)
        estimated = answered and (tokens is None or passage.provider.local)
        if tokens is None:
            guessed = passage.input.tokens or sum(map(estimate_tokens, passage.input.texts or ()))
            tokens = guessed if answered else 0
        return Outcome(
            id=ids.new("outcome", call.at),
            at=now,
            tenant=call.tenant,
            workspace=call.workspace,
            call=call.id,
            model=model.name,
            provider=passage.provider.name,
            status=status,
            latency_ms=max(0.0, now - call.at) * 1000,
            first_byte_ms=max(0.0, (passage.answered_at or now) - call.at) * 1000,
            prompt_tokens=tokens,
            completion_tokens=0,
            cost_nusd=cost_nusd(model, tokens, 0),
            tokens_estimated=estimated,
            error=error,
        )

    def _bodies(self, passage: _Passage) -> tuple[Body, ...]:
        if not self._options.keep_bodies:
            return ()
        call, now = passage.call, self._clock()
        kept = Body(
            id=f"{call.id}-request",
            at=now,
            tenant=call.tenant,
            workspace=call.workspace,
            call=call.id,
            role="request",
            data=passage.input.raw,
            user=call.user,
            expires_at=now + self._options.body_retention_days * DAY_S,
        )
        return (kept,)


class _Item(msgspec.Struct):
    embedding: str | list[float]
    index: int = 0


class _Items(msgspec.Struct):
    data: list[_Item]


def embedded(reply: EmbeddingReply) -> Embedded:
    """The vectors in a reply. UpstreamError where it holds none, or some that cannot be."""
    outcome = reply.outcome
    if outcome.error:
        said = (
            f"{outcome.provider} answered {reply.status} ({outcome.error}): {reply.body[:200].decode(errors='replace')}"
        )
        raise UpstreamError(said, status=reply.status, category=ErrorCategory(outcome.error))
    try:
        items = sorted(msgspec.json.decode(reply.body, type=_Items).data, key=lambda item: item.index)
        with np.errstate(over="ignore"):  # a number beyond float32 becomes infinite, and is refused as such
            vectors = np.array([_numbers(item.embedding) for item in items], np.float32)
        sound = vectors.ndim == 2 and bool(np.isfinite(vectors).all())
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, ValueError, OverflowError) as exc:
        sound, reason = False, str(exc)
    else:
        reason = "they are not rows of finite numbers"
    if not sound:
        unusable = f"the vectors of {outcome.provider}, model {outcome.model}, cannot be used: {reason}"
        raise UpstreamError(unusable, category=ErrorCategory.RESPONSE_MALFORMED)
    return Embedded(
        call=outcome.call,
        model=outcome.model,
        provider=outcome.provider,
        vectors=vectors,
        prompt_tokens=outcome.prompt_tokens,
        cost_nusd=outcome.cost_nusd,
        latency_ms=outcome.latency_ms,
    )


def _numbers(embedding: str | list[float]) -> NDArray[np.float32]:
    """One vector, from numbers or from base64 of float32 little-endian."""
    if isinstance(embedding, str):
        return np.frombuffer(base64.b64decode(embedding, validate=True), "<f4").astype(np.float32)
    return np.array(embedding, np.float32)
