"""The Provider contract: one upstream that answers chat requests with bytes in OpenAI's dialect."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from windlass.errors import ModelUnknown
from windlass.gateway.options import ModelOptions
from windlass.gateway.wire import Chat

JSON = "application/json"
EVENT_STREAM = "text/event-stream"


@dataclass(frozen=True)
class ProviderRequest:
    """One request on its way up. `body` is what goes over the wire, `chat` the same read."""

    call: str
    model: str
    body: bytes
    chat: Chat


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


class Providers:
    """All models that calls may name, each with the provider that answers for it."""

    def __init__(self, providers: Iterable[Provider]):
        self._providers = tuple(providers)
        self._by_model: dict[str, tuple[Provider, ModelOptions]] = {}
        for provider in self._providers:
            for model in provider.models:
                if model.name in self._by_model:
                    raise ModelUnknown(f"two providers offer a model named {model.name!r}; rename one in windlass.toml")
                self._by_model[model.name] = (provider, model)

    def names(self) -> tuple[str, ...]:
        """Every model, in the order of the settings."""
        return tuple(self._by_model)

    def routable(self) -> tuple[str, ...]:
        """What `auto` chooses from unless set: all upstream models, or the local ones where there are none."""
        upstream = tuple(name for name, (provider, _) in self._by_model.items() if not provider.local)
        return upstream or self.names()

    def owner(self, model: str) -> str:
        """The provider of `model`."""
        return self.find(model)[0].name

    def find(self, model: str) -> tuple[Provider, ModelOptions]:
        """The provider and the options of `model`; ModelUnknown lists what there is."""
        try:
            return self._by_model[model]
        except KeyError:
            known = ", ".join(("auto", *self._by_model))
            raise ModelUnknown(f"model {model[:80]!r} is not configured; known models: {known}") from None

    async def close(self) -> None:
        """Close every provider's connections."""
        for provider in self._providers:
            await provider.close()
