"""Which model answers a call for `auto` that is no chat: one for vectors, or one for speech, by a policy of its own.

Of vectors only those of one space are chosen among, since those of two models do not compare: a collection that was
embedded by one is searched by it. Whoever fails is replaced by another one of the same.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

from windlass.errors import AccessError, ErrorCategory, RequestError
from windlass.gateway.access.admission import Caller
from windlass.gateway.endpoints import Raw
from windlass.gateway.money.estimate import estimate_tokens
from windlass.gateway.money.pricelist import PriceBook
from windlass.gateway.money.prices import MILLION
from windlass.gateway.options import GatewayOptions
from windlass.gateway.provider import Provider, Providers, Relays
from windlass.gateway.resilience.attempt import Target
from windlass.gateway.route import kinds
from windlass.gateway.wire import EmbeddingInput
from windlass.policies.loop import Loop
from windlass.records import Call, ContextValue, Decision

SPEECH_BYTES_PER_S: Final = 16_000.0
"""Of sound as it is usually sent, 128 kbit/s: what a recording costs is known only once it was heard."""
_FEATURISER: Final[Mapping[str, str]] = {
    kinds.EMBEDDINGS: "embeddings@1",
    kinds.TRANSCRIPTIONS: "transcriptions@1",
}


class Selected(NamedTuple):
    """Who may answer, the chosen one first, and what was decided: nothing where there was nothing to choose."""

    targets: tuple[Target, ...]
    decisions: tuple[Decision, ...]


class Choosing(NamedTuple):
    """What a choice is made of."""

    providers: Providers
    options: GatewayOptions
    loop: Loop
    prices: PriceBook


def selected(by: Choosing, call: Call, asked: EmbeddingInput | Raw, caller: Caller) -> Selected:
    """The models for a call whose endpoint is one of `kinds.POINTS`.

    RequestError where there is none, or where vectors do not compare; AccessError where the key leaves none.
    """
    point = kinds.POINTS[call.endpoint]
    every = _vectors(by) if point == kinds.EMBEDDINGS else _speech(by, call.endpoint)
    if len(every) == 1 and caller.may(call.endpoint, "auto"):
        return Selected(tuple(every), ())
    targets = _allowed(every, call, caller)
    if len(every) == 1 or point not in by.loop.points:
        return Selected(tuple(targets), ())
    actions = tuple(one.model.name for one in targets)
    action, decisions = by.loop.decide(
        point,
        call_id=call.id,
        at=call.at,
        scope=call.scope,
        context=_context(by, point, call, asked, targets),
        actions=actions,
        featuriser=_FEATURISER[point],
        session=call.parent,
        user=call.user,
    )
    first = targets[actions.index(action)]
    return Selected((first, *(one for one in targets if one is not first)), decisions)


def _allowed(every: Sequence[Target], call: Call, caller: Caller) -> list[Target]:
    """Those that the caller may use. AccessError where there is none."""
    targets = [one for one in every if caller.may(call.endpoint, one.model.name)]
    if not targets:
        has = f"key {caller.key!r} may use none of {', '.join(one.model.name for one in every)}"
        raise AccessError(f"{has}, which `auto` chooses from", category=ErrorCategory.SCOPE_DENIED)
    return targets


def _vectors(by: Choosing) -> Sequence[Target]:
    """The models of one space. Unless set: the one in this process, else those that the settings name for vectors."""
    named = by.options.auto_embeddings or _usual(by)
    if not named:
        return [Target(*by.providers.embedding("auto"))]  # ModelUnknown says what there is, and how to add one
    targets = [Target(*by.providers.embedding(name)) for name in named]
    if mixed := kinds.spaces([one.model for one in targets]):
        raise RequestError(f"{mixed} in gateway.auto_embeddings, or one model in the request", param="model")
    return targets


def _usual(by: Choosing) -> tuple[str, ...]:
    """Whom vectors are asked of where the settings name nobody."""
    offered = [Target(*by.providers.embedding(name)) for name in by.providers.embedders()]
    own = [one for one in offered if one.provider.local][:1]
    return tuple(one.model.name for one in own or offered if own or one.model.serves == "embeddings")


def _speech(by: Choosing, endpoint: str) -> Sequence[Target]:
    """The models that are for speech, and whose provider has the endpoint."""
    found = [by.providers.find(name) for name in by.options.auto_transcriptions or _serving(by.providers)]
    targets = [Target(provider, model) for provider, model in found if _has(provider, endpoint)]
    if not targets:
        remedy = 'name a model, or give one `serves = "transcriptions"` or a place in gateway.auto_transcriptions'
        raise RequestError(f"`auto` has no model for {endpoint}; {remedy}", param="model")
    return targets


def _serving(providers: Providers) -> tuple[str, ...]:
    return tuple(name for name in providers.names() if providers.find(name)[1].serves == "transcriptions")


def _has(provider: Provider, endpoint: str) -> bool:
    return isinstance(provider, Relays) and provider.serves(endpoint)


def _context(
    by: Choosing, point: str, call: Call, asked: EmbeddingInput | Raw, targets: Sequence[Target]
) -> dict[str, ContextValue]:
    """What a policy is told: how much there is to do, and what it costs with each model whose price is known."""
    context: dict[str, ContextValue]
    if isinstance(asked, EmbeddingInput):
        chars = sum(map(len, asked.said))
        context = {
            "log_chars": math.log1p(chars) / 12,
            "log_texts": math.log1p(asked.count) / 8,
            "tokens_given": float(asked.texts is None),
        }
    else:
        context = {
            "log_bytes": math.log1p(len(asked.raw)) / 20,
            "translates": float(call.endpoint == "audio.translations"),
            "prompted": float(bool(asked.said)),
            "stream": float(asked.stream),
        }
    if point in by.loop.costed:
        tokens = 0
        if isinstance(asked, EmbeddingInput):  # once: a large request takes 0.1 s
            tokens = asked.tokens or sum(map(estimate_tokens, asked.said))
        for one in targets:
            cost = _expected_nusd(by.prices, one, asked, tokens)
            if cost is not None:
                context[f"cost_nusd:{one.model.name}"] = cost
    return context


def _expected_nusd(prices: PriceBook, target: Target, asked: EmbeddingInput | Raw, tokens: int) -> float | None:
    """What the call costs by the price list, with so many tokens of text; None where the list has no price for it."""
    if target.provider.local:
        return 0.0
    price = prices.of(target.provider.name, target.model)
    if not price.priced:
        return None
    if isinstance(asked, EmbeddingInput):
        return (tokens * price.rates.input + price.request) / MILLION
    if not price.second:
        return None  # by tokens of sound: how many these are is known to the provider alone
    return (len(asked.raw) / SPEECH_BYTES_PER_S * price.second + price.request) / MILLION
