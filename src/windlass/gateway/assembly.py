"""Gateways from settings, one after the other: what other settings change is made anew, what they do not goes on.

A gateway takes the place of the one before it in one step, between two steps of any call. Calls under way end on the
gateway that they began with; what nobody else has is closed after the last of them. Counts of limits, and breakers of
models that are the same, go on.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from random import Random
from typing import Protocol

import msgspec
import structlog

from windlass.errors import ModelUnknown, SettingsError
from windlass.gateway.access.limits import checked
from windlass.gateway.gateway import Gateway
from windlass.gateway.money.pricelist import PriceBook
from windlass.gateway.options import GatewayOptions, KeyOptions, LimitOptions, ProviderOptions
from windlass.gateway.provider import ANY, Provider, Providers
from windlass.gateway.resilience.breaker import Key
from windlass.gateway.resilience.resilience import Resilience, ResilienceOptions

log = structlog.get_logger(__name__)


class Wanted(Protocol):
    """The settings of a gateway. secrets: the keys of providers, by name."""

    @property
    def gateway(self) -> GatewayOptions: ...
    @property
    def providers(self) -> tuple[ProviderOptions, ...]: ...
    @property
    def keys(self) -> tuple[KeyOptions, ...]: ...
    @property
    def limits(self) -> tuple[LimitOptions, ...]: ...
    @property
    def resilience(self) -> ResilienceOptions: ...
    @property
    def secrets(self) -> dict[str, str]: ...


@dataclass(frozen=True)
class Provided:
    """A provider, and what it was made from."""

    options: ProviderOptions
    secret: str
    provider: Provider


@dataclass(frozen=True)
class Drafted:
    """All of a gateway to come that can fail."""

    wanted: Wanted
    providers: Providers
    made: tuple[Provided, ...]


class Assembly:
    """Builds the gateways of one process. given: providers before those of the settings; own: those after them.

    clock: UTC seconds. SettingsError for settings that no gateway can work by.
    """

    def __init__(
        self,
        wanted: Wanted,
        clock: Callable[[], float],
        *,
        given: Iterable[Provider] = (),
        own: Iterable[Provider] = (),
    ):
        self._clock = clock
        self._given, self._own = tuple(given), tuple(own)
        self._now = self._drafted(wanted, ())
        self._make: Callable[..., Gateway] | None = None
        self._gateway: Gateway | None = None
        self._in_use: list[asyncio.Event] = []
        self._leaving: set[asyncio.Task[None]] = set()

    def begin(self, make: Callable[..., Gateway]) -> Gateway:
        """The first gateway. make: `Gateway` with all that no settings change."""
        self._make = make
        self._gateway = self._made(make, self._now)
        return self._gateway

    def draft(self, wanted: Wanted) -> Drafted:
        """What `wanted` come to, with everything tried that can fail; changes nothing, and may run in any thread.

        Stricter than a start: what that lets pass with a finding of `windlass doctor` would break a server that runs.
        SettingsError says what it is.
        """
        checked(wanted.limits)
        drafted = self._drafted(wanted, self._now.made)
        models = [model for options in wanted.providers for model in options.models]
        try:
            auto = wanted.gateway
            for name in (*auto.auto, *auto.auto_transcriptions, *(name for one in models for name in one.fallbacks)):
                drafted.providers.find(name)
            for name in auto.auto_embeddings:
                drafted.providers.embedding(name)
            if wanted.gateway.pass_through:
                drafted.providers.named(wanted.gateway.pass_through)
        except ModelUnknown as exc:
            raise SettingsError(f"gateway.auto, gateway.pass_through or the fallbacks of a model: {exc}") from exc
        return drafted

    def follow(self, draft: Drafted) -> Gateway:
        """The gateway of `draft`, in the place of the one before it, whose counts, keys and breakers it takes over.

        On the event loop, without a pause; nothing in it fails.
        """
        old, before, make = self._gateway, self._now, self._make
        assert old is not None, "the first one has begun"
        assert make is not None, "the first one has begun"
        wanted = draft.wanted
        old.limits.replace(wanted.limits)
        old.admission.renew(wanted.keys, wanted.gateway.max_body_bytes, wanted.gateway.max_upload_bytes)
        self._now, self._gateway = draft, self._made(make, draft)
        first, then = _identities(before), _identities(draft)
        same = partial(_same, first, then)
        self._gateway.resilience.breakers.adopt(old.resilience.breakers, same)
        self._retire(old, [made.provider for made in before.made if made not in draft.made])
        return self._gateway

    async def close(self) -> None:
        """Close everything, also what calls before had; for when there are no more."""
        for over in self._in_use:
            over.set()
        if self._leaving:
            await asyncio.wait(self._leaving)
        if self._gateway is not None:
            await self._gateway.resilience.close()
        await self._now.providers.close()

    def _drafted(self, wanted: Wanted, before: Sequence[Provided]) -> Drafted:
        """Providers there are go on, with their connections, where nothing of them changes."""
        made = tuple(_provider(one, wanted.secrets.get(one.name, ""), before) for one in wanted.providers)
        try:
            return Drafted(wanted, Providers([*self._given, *(one.provider for one in made), *self._own]), made)
        except ModelUnknown as exc:
            raise SettingsError(f"providers: {exc}") from exc

    def _made(self, make: Callable[..., Gateway], draft: Drafted) -> Gateway:
        wanted = draft.wanted
        return make(
            providers=draft.providers,
            options=wanted.gateway,
            prices=PriceBook({one.name: (one.kind, one.base_url) for one in wanted.providers}),
            resilience=Resilience(
                wanted.resilience, clock=self._clock, monotonic=time.monotonic, sleep=asyncio.sleep, rng=Random()
            ),
        )

    def _retire(self, old: Gateway, gone: Sequence[Provider]) -> None:
        """Close what only `old` had once nothing refers to it any more: each call under way does, and calls pay
        nothing for being counted. An older one may have had the same, so those must be gone as well."""
        over = asyncio.Event()
        weakref.finalize(old, _tell, asyncio.get_running_loop(), over).atexit = False
        self._in_use = [*(one for one in self._in_use if not one.is_set()), over]
        # A call that waited for another one's answer before it began has the time of two.
        patience_s = 2 * old.resilience.options.total_timeout_s + 1.0
        closing = asyncio.create_task(_closed(tuple(self._in_use), patience_s, old.resilience, gone))
        self._leaving.add(closing)
        closing.add_done_callback(self._leaving.discard)


def _provider(options: ProviderOptions, secret: str, before: Sequence[Provided]) -> Provided:
    for known in before:
        if (known.options, known.secret) == (options, secret):
            return known
    from windlass.gateway.providers import (
        upstreams,  # brings the plugins; many processes have no provider of the settings
    )

    return Provided(options, secret, upstreams.make(options, secret))


def _identities(draft: Drafted) -> dict[Key, object]:
    """What makes a model the same model, by provider and name: its own options, and where and as whom it is asked."""
    return {
        (one.options.name, model.name): (msgspec.structs.replace(one.options, models=()), one.secret, model)
        for one in draft.made
        for model in one.options.models
    }


def _same(first: Mapping[Key, object], then: Mapping[Key, object], key: Key) -> bool:
    """Whether a model is what it was; providers that are in no settings stay."""
    every = (key[0], ANY)
    return first.get(key, first.get(every)) == then.get(key, then.get(every))


def _tell(running: asyncio.AbstractEventLoop, over: asyncio.Event) -> None:
    """From whichever thread lets go of the last reference."""
    with contextlib.suppress(RuntimeError):  # the loop has ended, and all is closed
        running.call_soon_threadsafe(over.set)


async def _closed(
    in_use: Sequence[asyncio.Event], patience_s: float, resilience: Resilience, gone: Sequence[Provider]
) -> None:
    """Wait for the last call, at most as long as one may take, and close what it was the last to have."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(patience_s):
            for over in in_use:
                await over.wait()
    await resilience.close()
    for provider in gone:
        try:
            await provider.close()
        except Exception as exc:  # noqa: BLE001 (a stranger's provider may raise anything; the others are closed)
            log.error("provider_not_closed", provider=provider.name, reason=f"{type(exc).__name__}: {exc}")
