"""The Provider contract: one upstream that answers chat requests with bytes in OpenAI's dialect.

A provider that turns texts into vectors as well also keeps `Embeds`; one that serves further endpoints, `Relays`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

import msgspec

from windlass.errors import ModelUnknown
from windlass.gateway.options import ModelOptions
from windlass.gateway.wire import Chat, EmbeddingInput

ANY = "*"
"""A model of this name stands for every name that no provider lists."""
MODEL_CHARS = 200
JSON = "application/json"
EVENT_STREAM = "text/event-stream"


class ProviderRequest(msgspec.Struct, frozen=True):
    """One request on its way up. `body` is what goes over the wire, with the upstream's name of the model in it.

    model: its name in the settings. chat: what the client wrote, read; its `model` may be `auto`.
    """

    call: str
    model: str
    body: bytes
    chat: Chat


class EmbeddingRequest(msgspec.Struct, frozen=True):
    """One embeddings request on its way up. `body` is what goes over the wire, `input` the same read."""

    call: str
    model: str
    body: bytes
    input: EmbeddingInput


class RawRequest(msgspec.Struct, frozen=True):
    """One request of an endpoint that client and provider speak alike. `path` is below the base URL, with the query."""

    call: str
    model: str
    method: str
    path: str
    body: bytes
    content_type: str


class Chunks(Protocol):
    """Bytes that arrive; an async generator is one. Closing it early lets the upstream stop."""

    def __aiter__(self) -> AsyncIterator[bytes]: ...

    async def aclose(self) -> None: ...


@dataclass(frozen=True)
class ProviderReply:
    """What came back. `chunks` must be read to the end or closed; closing it early cancels the upstream."""

    status: int
    content_type: str
    chunks: Chunks
    headers: Mapping[str, str] = field(default_factory=dict)


class Provider(Protocol):
    """What every provider offers. `send` raises UpstreamError where no answer arrives at all."""

    @property
    def name(self) -> str: ...

    @property
    def models(self) -> tuple[ModelOptions, ...]: ...

    @property
    def local(self) -> bool:
        """Runs in this process: extractive, no cost."""
        ...

    async def send(self, request: ProviderRequest) -> ProviderReply: ...

    async def close(self) -> None: ...


@runtime_checkable
class Embeds(Provider, Protocol):
    """A provider that turns texts into vectors as well. `embed` fails as `send` does."""

    @property
    def embedding_models(self) -> tuple[ModelOptions, ...]:
        """Those that may be asked for vectors."""
        ...

    async def embed(self, request: EmbeddingRequest) -> ProviderReply:
        """RequestError, before any work, for input that the model cannot take."""
        ...


@runtime_checkable
class Relays(Provider, Protocol):
    """A provider that serves further endpoints, in the words in which clients ask for them."""

    def serves(self, endpoint: str) -> bool:
        """Whether it speaks this endpoint itself: `responses`, `audio.speech`, `files`, ..."""
        ...

    async def relay(self, request: RawRequest) -> ProviderReply:
        """Fails as `send` does."""
        ...


class Providers:
    """All models that calls may name, each with the provider that answers for it."""

    def __init__(self, providers: Iterable[Provider]):
        self._providers = tuple(providers)
        self._by_model: dict[str, tuple[Provider, ModelOptions]] = {}
        self._embedding: dict[str, tuple[Embeds, ModelOptions]] = {}
        for provider in self._providers:
            for model in provider.models:
                if model.name in self._by_model:
                    raise ModelUnknown(f"two providers offer a model named {model.name!r}; rename one in windlass.toml")
                self._by_model[model.name] = (provider, model)
            if isinstance(provider, Embeds):
                self._embedding |= {
                    model.name: (provider, model)
                    for model in provider.embedding_models
                    if model.name not in self._embedding
                }

    def names(self) -> tuple[str, ...]:
        """Every model, in the order of the settings."""
        return tuple(name for name in self._by_model if name != ANY)

    def routable(self) -> tuple[str, ...]:
        """What `auto` chooses from unless set: all upstream models, or the local ones where there are none."""
        chats = {name: self._by_model[name][0] for name in self.names() if self._by_model[name][1].serves == "chat"}
        return tuple(name for name, provider in chats.items() if not provider.local) or tuple(chats)

    def owner(self, model: str) -> str:
        """The provider of `model`."""
        return self.find(model)[0].name

    def find(self, model: str) -> tuple[Provider, ModelOptions]:
        """The provider and the options of `model`; ModelUnknown lists what there is."""
        try:
            return self._by_model[model]
        except KeyError:
            if ANY in self._by_model and _is_name(model):
                provider, every = self._by_model[ANY]
                return provider, msgspec.structs.replace(every, name=model)
            known = ", ".join(("auto", *self.names()))
            raise ModelUnknown(f"model {model[:80]!r} is not configured; known models: {known}") from None

    def named(self, provider: str) -> Provider:
        """The provider of that name. ModelUnknown lists what there is."""
        for known in self._providers:
            if known.name == provider:
                return known
        names = ", ".join(known.name for known in self._providers)
        raise ModelUnknown(f"there is no provider {provider[:80]!r}; providers: {names}")

    def embedders(self) -> tuple[str, ...]:
        """Every model that may be asked for vectors."""
        return tuple(name for name in self._embedding if name != ANY)

    def embedding(self, model: str) -> tuple[Embeds, ModelOptions]:
        """Who embeds for `model`. `auto` is the one that runs in this process: vectors of two models do not compare,
        so there is nothing to choose. ModelUnknown lists what there is.
        """
        own = (name for name, (provider, _) in self._embedding.items() if provider.local)
        name = next(own, model) if model == "auto" else model
        if name not in self._embedding and ANY in self._embedding and _is_name(model):
            embeds, every = self._embedding[ANY]
            return embeds, msgspec.structs.replace(every, name=model)
        if name not in self._embedding:
            known = ", ".join(self.embedders()) or "none; `pip install windlass[embeddings]` adds one"
            raise ModelUnknown(f"model {model[:80]!r} makes no embeddings; models that do: {known}")
        return self._embedding[name]

    async def close(self) -> None:
        """Close every provider's connections."""
        for provider in self._providers:
            await provider.close()


def _is_name(model: str) -> bool:
    """Whether a model that nobody has listed may be called so: the ledger must be able to record it."""
    return 0 < len(model) <= MODEL_CHARS and model.isprintable()
