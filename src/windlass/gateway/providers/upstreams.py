"""Providers from the settings: by `kind`, one of ours or a plugin's.

A kind that is not ours is looked for among the plugins (entry points of the group `windlass.providers`): a callable
that takes a ProviderOptions and the key ("" where none is named) and returns a Provider of that name with those models.
It is not called up on the way: `windlass.testing.check_provider` belongs into the tests of the plugin.
"""

from __future__ import annotations

from windlass import plugins
from windlass.errors import SettingsError
from windlass.gateway.options import (
    ANTHROPIC,
    AZURE,
    GEMINI,
    KIND_OPTIONS,
    LITELLM,
    OPENAI_COMPATIBLE,
    ProviderOptions,
)
from windlass.gateway.provider import Provider


def make(options: ProviderOptions, api_key: str = "") -> Provider:
    """The provider that `options` describe. SettingsError for an unknown kind, or a plugin that makes no such one."""
    if options.kind in KIND_OPTIONS:
        return _own(options, api_key)
    plugin = plugins.load(plugins.PROVIDERS, options.kind)
    if plugin is None:
        known = ", ".join((*KIND_OPTIONS, *plugins.names(plugins.PROVIDERS)))
        raise SettingsError(f"provider {options.name}: unknown kind {options.kind!r}; known: {known}")
    who = f"provider {options.name}, kind {options.kind!r} of {plugin.distribution}"
    try:
        made: Provider = plugin.value(options, api_key)
        found = made.name, tuple(made.models), made.local
        callables = callable(made.send) and callable(made.close)
    except Exception as exc:  # a stranger's provider may raise anything; whose it was must be said
        raise SettingsError(f"{who}, is not accepted: {type(exc).__name__}: {exc}") from exc
    if found[:2] != (options.name, options.models) or not isinstance(found[2], bool) or not callables:
        raise SettingsError(
            f"{who}, is not accepted: name, models, local, send and close must be those of a Provider, with the name "
            f"and the models of the settings; it gave name {found[0]!r} and {len(found[1])} models"
        )
    return made


def _own(options: ProviderOptions, api_key: str) -> Provider:
    """One of ours. Each brings aiohttp, which is 8 MB, so none is imported before it is asked for."""
    if options.kind == OPENAI_COMPATIBLE:
        from windlass.gateway.providers.openai_compatible import OpenAICompatible

        return OpenAICompatible(options, api_key)
    if options.kind == AZURE:
        from windlass.gateway.providers.azure import Azure

        return Azure(options, api_key)
    if options.kind == GEMINI:
        from windlass.gateway.providers.gemini import Gemini

        return Gemini(options, api_key)
    if options.kind == LITELLM:
        from windlass.gateway.providers.litellm import Litellm

        return Litellm(options, api_key)
    assert options.kind == ANTHROPIC, f"{options.kind} has options and no provider"
    from windlass.gateway.providers.anthropic import Anthropic

    return Anthropic(options, api_key)
