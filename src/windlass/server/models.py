"""The models that a caller may call, as `GET /v1/models` lists them: what lies beyond a key's scopes is not there."""

from __future__ import annotations

from collections.abc import Sequence

from windlass.errors import ModelUnknown
from windlass.gateway.access.admission import Caller
from windlass.gateway.gateway import AUTO
from windlass.gateway.options import ModelOptions
from windlass.gateway.provider import Providers

EMBEDDINGS, CHAT, METRICS = "embeddings", "chat", "metrics"
OWNER = "windlass"


def listed(providers: Providers, routed: Sequence[str], caller: Caller) -> list[tuple[str, str]]:
    """(model, its provider): `auto`, the models of the settings in their order, then those that only embed.

    routed: what `auto` chooses from, where the settings say it.
    """
    embedders = {name: providers.embedding(name)[0].name for name in providers.embedders()}
    owned = {name: providers.owner(name) for name in providers.names()}
    routed = routed or providers.routable()
    found = [(AUTO, OWNER)] if _routes(providers, routed, caller) else []
    found += [(name, owner) for name, owner in owned.items() if _reaches(providers, name, caller)]
    own = ((name, owner) for name, owner in embedders.items() if name not in owned)
    return found + [(name, owner) for name, owner in own if caller.may(EMBEDDINGS, name)]


def owner(providers: Providers, routed: Sequence[str], caller: Caller, name: str) -> str:
    """Whose a model is. ModelUnknown where there is none of that name, or none that the caller may call."""
    if name == AUTO:
        if _routes(providers, routed or providers.routable(), caller):
            return OWNER
        raise unknown(caller)
    if name in providers.embedders() and caller.may(EMBEDDINGS, name):
        return providers.embedding(name)[0].name
    try:
        provider, model = providers.find(name)
    except ModelUnknown as exc:
        raise unknown(caller, exc) from None
    if not _chats(model, caller):
        raise unknown(caller)
    return provider.name


def unknown(caller: Caller, exc: ModelUnknown | None = None) -> ModelUnknown:
    """The same for a model that is not there and for one beyond the key: the words of the gateway name every model."""
    if exc is not None and not (caller.models or caller.endpoints):
        return exc
    return ModelUnknown(f"key {caller.key!r} reaches no model of that name; GET /v1/models lists what it may call")


def _answers(name: str, caller: Caller) -> bool:
    """Whether any endpoint but the one for vectors is open to the caller with this model."""
    endpoints = caller.endpoints or (CHAT,)
    return any(caller.may(endpoint, name) for endpoint in endpoints if endpoint not in (EMBEDDINGS, METRICS))


def _chats(model: ModelOptions, caller: Caller) -> bool:
    """`_answers`, where the model is for more than vectors; whoever may use every endpoint sees it anyhow."""
    return (model.serves != EMBEDDINGS or not caller.endpoints) and _answers(model.name, caller)


def _reaches(providers: Providers, name: str, caller: Caller) -> bool:
    if name in providers.embedders() and caller.may(EMBEDDINGS, name):
        return True
    return _chats(providers.find(name)[1], caller)


def _routes(providers: Providers, routed: Sequence[str], caller: Caller) -> bool:
    """Whether `auto` leaves the caller anything to choose, as the gateway has it."""
    if any(_answers(name, caller) for name in routed):
        return True
    return caller.may(EMBEDDINGS, AUTO) and any(providers.embedding(name)[0].local for name in providers.embedders())
