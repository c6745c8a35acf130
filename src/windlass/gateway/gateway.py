"""The walk of one call, whatever its endpoint. `complete` shows the order; every step is a line of it.

What a client has received is in the ledger: a plain reply leaves after all of it is kept there; a stream starts after
the call and its decisions are, and its last event leaves after the outcome is.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING

from windlass.errors import AccessError, ErrorCategory, RequestError
from windlass.gateway.access.admission import Admission, Caller
from windlass.gateway.access.limits import Claim, Hold, Limits
from windlass.gateway.endpoints import FOREIGN, RELAYED, Raw, checked_path, read_raw, whole_json
from windlass.gateway.money.pricelist import PriceBook
from windlass.gateway.money.prices import most_nusd
from windlass.gateway.opening import Opened, Wants
from windlass.gateway.options import GatewayOptions, ModelOptions
from windlass.gateway.prompt import FEATURISER, features
from windlass.gateway.provider import (
    EmbeddingRequest,
    Embeds,
    Provider,
    ProviderReply,
    ProviderRequest,
    Providers,
    RawRequest,
    Relays,
)
from windlass.gateway.relay import GONE, Incoming, Once, Record, Stream, ending, whole
from windlass.gateway.resilience.attempt import Target
from windlass.gateway.resilience.resilience import Resilience
from windlass.gateway.route import kinds
from windlass.gateway.transit import Answer, Asked, Request, Transit
from windlass.gateway.wire import Chat, EmbeddingInput, parse_chat, parse_embedding
from windlass.ledger import ids
from windlass.ledger.ledger import Item, Ledger
from windlass.policies.loop import Loop
from windlass.records import USER_CHARS, Call, Outcome

if TYPE_CHECKING:
    from windlass.gateway.foreign import Foreign
    from windlass.gateway.idempotency import Repeats
    from windlass.gateway.route.features import Question, Seen
    from windlass.gateway.route.router import Router
    from windlass.gateway.selection import Selected
    from windlass.gateway.ticket import Ticket

__all__ = ["AUTO", "POINT", "Answer", "Gateway", "Request"]

AUTO = "auto"
POINT = "model"
_READ: dict[str, Callable[[bytes], Asked]] = {"chat": parse_chat, "embeddings": parse_embedding}
_NO_MODEL = ModelOptions(name="none")


class Gateway:
    """The call path over its parts. `clock` gives UTC seconds.

    repeats: answers requests with an idempotency key; made at the first of them. Without it each is a call of its own.
    router: tells policies more than lexical features, where one wants to know.
    """

    def __init__(
        self,
        *,
        admission: Admission,
        providers: Providers,
        loop: Loop,
        ledger: Ledger,
        options: GatewayOptions,
        limits: Limits,
        prices: PriceBook,
        resilience: Resilience,
        clock: Callable[[], float],
        repeats: Callable[[], Repeats] | None = None,
        router: Router | None = None,
    ):
        self.admission = admission
        self.providers = providers
        self.limits = limits
        self._limited = limits.any
        self._known = {name: Target(*providers.find(name)) for name in providers.names()}
        self._every = options.auto or providers.routable()
        self.resilience = resilience
        self._continues = resilience.options.continue_streams
        self._prices = prices
        self._loop = loop
        self._ledger = ledger
        self._options = options
        self._clock = clock
        self._repeats = repeats
        self._router = router

    async def complete(self, request: Request) -> Answer:
        """Answer one request, streamed or not; what was answered under its idempotency key before, from the store.

        Raises AccessError, RequestError (LimitReached), ModelUnknown before anything is recorded; UpstreamError,
        recorded, where no provider gave an answer.
        """
        caller = self._admitted(request)
        if request.idempotency_key and self._repeats is not None:
            walk = partial(self._walk, request, caller)
            return await self._repeats().answer(request, caller, walk, self.resilience.deadline())
        return await self._walk(request, caller)

    async def _walk(self, request: Request, caller: Caller, ticket: Ticket | None = None) -> Answer:
        """One call from its admission to its answer. ticket: where others wait for the same answer."""
        asked = self._read(request)
        seen = None if self._router is None else await self._seen(self._router, request, asked, caller)
        transit = self._decide(request, asked, caller, seen)
        transit.key = caller.key
        deadline = self.resilience.deadline()
        await self._reserve(transit, caller)
        reply = await self._send(transit, deadline, caller)
        incoming = Incoming(reply, deadline, drop_usage=transit.adds_usage, copy=ticket is not None)
        transit.tally, transit.kept = incoming.tally, incoming.kept
        if ticket is not None:
            transit.ticket = ticket
            ticket.begin(incoming, partial(_headers, transit, reply.reply))
        record = partial(self._record, transit)
        chunks: Stream | Once
        if incoming.tally.stream or not incoming.keep:
            await self._begin(transit, incoming, record)
            chunks = Stream(incoming, record, transit.error_event)
        else:
            chunks = Once(await whole(incoming, record))
        return _answer(transit, reply.reply, chunks)

    def _admitted(self, request: Request) -> Caller:
        if request.caller is not None:
            return self.admission.current(request.caller)
        if request.scope is not None:
            return Caller(request.scope, "admin", "")
        return self.admission.admit(request.key, request.workspace, len(request.body))

    def _read(self, request: Request) -> Asked:
        read = _READ.get(request.endpoint)
        if read is not None:
            return read(request.body)
        if request.endpoint in FOREIGN:
            from windlass.gateway import foreign  # brings all dialects: 0.07 s that most processes never need

            return foreign.read(FOREIGN[request.endpoint], request.body, self._clock())
        path = checked_path(request.path) + (f"?{request.query}" if request.query else "")
        return read_raw(request.body, request.method, path, request.content_type)

    # --- who shall answer

    async def _seen(self, router: Router, request: Request, asked: Asked, caller: Caller) -> Seen | None:
        """What the policies are told of a chat beside lexical features."""
        if isinstance(asked, EmbeddingInput | Raw):
            return None
        return await router.seen(self.question(request, asked, caller))

    def question(self, request: Request, asked: Chat | Foreign, caller: Caller, *, looks: bool = False) -> Question:
        """A chat as the router asks about it. looks: only to know how it would be routed. AccessError, ModelUnknown."""
        from windlass.gateway.route.features import Question

        targets = tuple(map(self._target, self._actions(request.endpoint, asked, caller)))
        now, wish = self._clock(), request.wish
        return Question(asked, caller, request.endpoint, targets, self._prices, self.limits, now, wish, looks)

    def _actions(self, endpoint: str, asked: Asked, caller: Caller) -> tuple[str, ...]:
        """The models that a chat may get. AccessError, ModelUnknown."""
        actions = self._eligible(caller, endpoint) if asked.model == AUTO else (asked.model,)
        for action in actions:
            _allow(caller, endpoint, action)  # first: who may not use a model hears of none whether it is there
            self._target(action)
        return actions

    def _decide(self, request: Request, asked: Asked, caller: Caller, seen: Seen | None = None) -> Transit:
        """The point `model`: `auto` leaves the choice to the policy, a named model is the only action.

        For vectors and for speech see `selection`.
        """
        started, scope = self._clock(), caller.scope
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
        tally = asked.tally(stream=asked.stream)
        if isinstance(asked, EmbeddingInput | Raw):
            if asked.model == AUTO and request.endpoint in kinds.POINTS:
                targets, decisions = self._selected(call, asked, caller)
                return Transit(call, asked, decisions, targets, targets[0], started, tally)
            if asked.model:
                _allow(caller, request.endpoint, asked.model)
            target = self._named(request.endpoint, asked)
            _allow(caller, request.endpoint, asked.model)
            return Transit(call, asked, (), (target,), target, started, tally)
        actions = self._actions(request.endpoint, asked, caller)
        action, decisions = self._loop.decide(
            POINT,
            call_id=call.id,
            at=started,
            scope=scope,
            context=features(asked) if seen is None else seen.context,
            actions=actions,
            featuriser=FEATURISER if seen is None else seen.featuriser,
            session=call.parent,
            user=call.user,
        )
        targets = self._targets(action, actions, caller, request.endpoint)
        if seen is not None:
            decisions = seen.marked(decisions)
        return Transit(call, asked, decisions, targets, targets[0], started, tally, seen=seen)

    def _selected(self, call: Call, asked: EmbeddingInput | Raw, caller: Caller) -> Selected:
        """Who may answer a call for `auto` that is no chat."""
        from windlass.gateway import selection  # not for chats

        by = selection.Choosing(self.providers, self._options, self._loop, self._prices)
        return selection.selected(by, call, asked, caller)

    def _named(self, endpoint: str, asked: EmbeddingInput | Raw) -> Target:
        if isinstance(asked, EmbeddingInput):
            return Target(*self.providers.embedding(asked.model))
        if asked.counts:
            return self._target(asked.model)
        return Target(*self._relaying(endpoint, asked.model))

    def _targets(self, action: str, actions: Sequence[str], caller: Caller, endpoint: str) -> tuple[Target, ...]:
        """The chosen model, and those that may answer instead: its own `fallbacks`, else what else could be chosen."""
        first = self._target(action)
        if len(actions) == 1 and not first.model.fallbacks:
            return (first,)
        others = first.model.fallbacks or (name for name in actions if name != action)
        return first, *(self._target(name) for name in others if not caller.models or caller.may(endpoint, name))

    def _target(self, model: str) -> Target:
        """Who answers for a model. ModelUnknown lists what there is."""
        return self._known.get(model) or Target(*self.providers.find(model))

    def _relaying(self, endpoint: str, model: str) -> tuple[Provider, ModelOptions]:
        """Who gets a request as it came. RequestError where the model is not said, or its provider has no such."""
        if model == AUTO:
            has = f"`auto` chooses for chats, vectors and transcriptions, not for the endpoint {endpoint!r}"
            raise RequestError(f"{has}; name a model", param="model")
        if model:
            provider, options = self.providers.find(model)
        elif self._options.pass_through:
            provider, options = self.providers.named(self._options.pass_through), _NO_MODEL
        elif endpoint in RELAYED.values() or endpoint in FOREIGN:
            raise RequestError("model is missing; name one", param="model")
        else:
            remedy = "set gateway.pass_through to the provider that shall get it"
            raise RequestError(f"the endpoint {endpoint!r} is not served; {remedy}", status=404, code="not_found")
        if not (isinstance(provider, Relays) and provider.serves(endpoint)):
            message = f"provider {provider.name} has no endpoint {endpoint!r}; name a model of another"
            raise RequestError(message, status=404, code="not_found", param="model")
        return provider, options

    def _eligible(self, caller: Caller, endpoint: str) -> tuple[str, ...]:
        """What `auto` may choose for this caller. AccessError where its key leaves nothing."""
        if not caller.models:
            return self._every
        allowed = tuple(name for name in self._every if caller.may(endpoint, name))
        if not allowed:
            has = f"key {caller.key!r} may use {', '.join(caller.models)}, none of which `auto` chooses from"
            raise AccessError(has, category=ErrorCategory.SCOPE_DENIED)
        return allowed

    # --- there and back

    async def _reserve(self, transit: Transit, caller: Caller) -> None:
        """Hold what the call may cost at most, whoever of its targets answers."""
        if self._limited or caller.limits:
            transit.hold = await self._held(transit, caller, transit.most_prompt_tokens())

    async def _held(self, transit: Transit, caller: Caller, prompt: int, *, begins: bool = True) -> Hold:
        """What a prompt of so many tokens and its answer may cost at most. LimitReached where that is too much."""
        asked, call = transit.asked, transit.call
        most = self._options.reserved_tokens if asked.most_tokens is None else asked.most_tokens
        completion = most * asked.choices
        claim = Claim(
            tenant=call.tenant,
            team=caller.team,
            key=caller.key,
            user=call.user,
            model=transit.model.name,
            nusd=most_nusd(
                [self._prices.of(one.provider.name, one.model) for one in transit.targets], prompt, completion
            ),
            tokens=prompt + completion,
            begins=begins,
        )
        return await self.limits.reserve(claim, transit.started, caller.limits)

    async def _send(self, transit: Transit, deadline: float, caller: Caller) -> Opened:
        """The opening of an answer, from whoever gave one. What fails is recorded first."""
        wants: Wants = "events" if transit.asked.stream else "json"
        if isinstance(transit.asked, Raw):
            wants = transit.asked.wants
        try:
            reached = await self.resilience.reach(
                transit.targets,
                self._watched(transit, deadline, caller) if self._continues else partial(_sent, transit),
                wants=wants,
                tally=lambda streamed: transit.asked.tally(stream=streamed),
                deadline=deadline,
                trail=transit.trail,
                repeatable=not isinstance(transit.asked, Raw) or transit.asked.repeatable,
            )
        except RequestError:
            transit.let_go()  # the model cannot take this input: the client is told, no work was done
            raise
        except BaseException as exc:
            await asyncio.shield(self._record(transit, *ending(exc)))
            raise
        transit.target = reached.target
        transit.first_byte_at = self._clock()
        return reached.opening

    def _watched(
        self, transit: Transit, deadline: float, caller: Caller
    ) -> Callable[[Target], Awaitable[ProviderReply]]:
        """Sends the request to a target, and goes on with a stream that breaks off."""
        from windlass.gateway.continuation import Continuation  # most processes have it switched off

        held = partial(self._held, transit, caller, begins=False) if transit.hold is not None else None
        return Continuation(transit, partial(_sent, transit), self.resilience, deadline, held).sent

    async def _begin(self, transit: Transit, incoming: Incoming, record: Record) -> None:
        """Keep a stream's call and decisions before its first byte; a failure or a leaving client ends it here."""
        try:
            begun = self._ledger.keep(transit.call, *transit.decisions)
            if begun is not None:
                await asyncio.shield(begun)
            transit.begun = True
        except BaseException as exc:
            await incoming.close()
            if isinstance(exc, asyncio.CancelledError):
                await asyncio.shield(record(*GONE))
            else:
                transit.let_go()
            raise

    async def _record(self, transit: Transit, status: int, error: str) -> None:
        """Everything of a call at once, but what is kept of a stream since it began."""
        now, options = self._clock(), self._options
        outcome = transit.end(now, status, error, self._prices)
        if self._router is not None and transit.seen is not None:
            self._router.ended(transit.seen, outcome, transit.target, transit.tally.usage)
        spent = transit.settle(outcome)
        bodies = transit.bodies(now, options.body_retention_days) if options.keep_bodies else ()
        if transit.tally.stream and transit.first_byte_at and not transit.told:
            self.resilience.ended(transit.target, ErrorCategory(error) if error else None)
        committing = self._kept(transit, outcome, *bodies, *spent)
        if transit.hold is not None:
            transit.hold.follow(committing)
        if committing is not None:
            await asyncio.shield(committing)

    def _kept(self, transit: Transit, outcome: Outcome, *more: Item) -> asyncio.Future[int] | None:
        """Who tells that all of a call is in the ledger; None: it is."""
        begun: tuple[Item, ...] = () if transit.begun else (transit.call, *transit.decisions)
        ticket = transit.ticket
        if ticket is None:
            return self._ledger.keep(*begun, outcome, *more)
        # Other processes are to see at once that there is a reply.
        stored = ticket.stored(transit.call, outcome)
        committing = asyncio.ensure_future(self._ledger.append(*begun, outcome, *more, *stored))
        ticket.settle(committing)
        return committing


def _allow(caller: Caller, endpoint: str, model: str) -> None:
    if (caller.models or caller.endpoints) and not caller.may(endpoint, model):
        has = f"key {caller.key!r} may not use model {model[:80]!r} at the endpoint {endpoint!r}"
        raise AccessError(has, category=ErrorCategory.SCOPE_DENIED)


def _sent(transit: Transit, target: Target) -> Awaitable[ProviderReply]:
    """The request on its way to one target."""
    transit.target = target
    asked, (provider, model) = transit.asked, target
    name = model.upstream or model.name
    # Without it a stream does not tell what it cost; what was not asked for is taken out again on the way down.
    if not isinstance(asked, Chat | EmbeddingInput | Raw):
        return asked.send(transit.call.id, provider, model)
    body = asked.with_usage(name) if isinstance(asked, Chat) and transit.adds_usage else asked.with_model(name)
    if isinstance(asked, EmbeddingInput):
        assert isinstance(provider, Embeds), "only those are chosen for vectors"
        return provider.embed(EmbeddingRequest(transit.call.id, model.name, body, asked))
    if isinstance(asked, Raw):
        if asked.counts and not (isinstance(provider, Relays) and provider.serves("messages")):
            from windlass.gateway.foreign import counted

            return counted(asked.raw, model.name)
        assert isinstance(provider, Relays), "only those are chosen for other endpoints"
        raw = RawRequest(transit.call.id, model.name, asked.method, asked.path, body, asked.content_type)
        return provider.relay(raw)
    request = ProviderRequest(transit.call.id, model.name, body, asked)
    if not asked.stream:
        return provider.send(request)
    return _streamed(provider, request, include_usage=transit.adds_usage or asked.wants_usage)


async def _streamed(provider: Provider, request: ProviderRequest, *, include_usage: bool) -> ProviderReply:
    """The reply to a chat that shall stream; an upstream that gives all of it at once has it written as events."""
    reply = await provider.send(request)
    if not whole_json(reply):
        return reply
    from windlass.gateway.foreign import in_events

    return in_events("chat", "chat", reply, request.call, request.model, include_usage=include_usage)


def _answer(transit: Transit, reply: ProviderReply, chunks: Stream | Once) -> Answer:
    status = reply.status if 200 <= reply.status <= 599 else 502
    return Answer(status, reply.content_type, _headers(transit, reply), chunks, transit)


def _headers(transit: Transit, reply: ProviderReply) -> dict[str, str]:
    headers = {**reply.headers, "x-windlass-call": transit.call.id, "x-windlass-model": transit.model.name}
    if transit.continued is not None:  # as its first client was told, who is gone before anybody could know more
        headers["x-windlass-continued"] = transit.model.name
        headers["x-windlass-model"] = transit.continued.first.model.name
    if why := transit.why:
        headers["x-windlass-why"] = why
    if transit.outcome is not None:  # a stream has no end yet
        headers["x-windlass-cost-nusd"] = str(transit.outcome.cost_nusd)
        headers["x-windlass-overhead-ms"] = f"{transit.overhead_ms:.3f}"
    if transit.dropped:
        before = headers.get("x-windlass-dropped", "")
        headers["x-windlass-dropped"] = ", ".join(filter(None, (*transit.dropped, before)))
    return headers
