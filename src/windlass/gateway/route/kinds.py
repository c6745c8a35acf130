"""The kinds of work beside chats for which `auto` chooses a model, and the point at which each is decided.

Each has a point of its own, which is decided as `model` is unless the settings say otherwise. What it learns stays
apart: how good a vector is says nothing of an answer, and one that nobody grades would raise what a quality floor of
answers is measured against.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Final

from windlass.errors import SettingsError
from windlass.gateway.options import GatewayOptions, ModelOptions, ProviderOptions
from windlass.policies.points import PointOptions

MODEL: Final = "model"
EMBEDDINGS: Final = "model_embeddings"
TRANSCRIPTIONS: Final = "model_transcriptions"
POINTS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "embeddings": EMBEDDINGS,
        "audio.transcriptions": TRANSCRIPTIONS,
        "audio.translations": TRANSCRIPTIONS,
    }
)
"""The point of each endpoint that has one beside `model`."""
KINDS: Final = (EMBEDDINGS, TRANSCRIPTIONS)


def decided(
    points: Mapping[str, PointOptions], gateway: GatewayOptions, providers: Iterable[ProviderOptions]
) -> dict[str, PointOptions]:
    """The points of the settings, and those of the kinds for which there is something to choose.

    A kind is decided as `model` is, by the same policy with the same options, in the same mode; without its guards and
    its default, which name models for chats.
    """
    found = dict(points)
    if MODEL not in found:
        return found
    shadows = tuple(
        type(one)(one.name, one.policy, one.options, (), one.randomised_share) for one in found[MODEL].shadows
    )
    like = dataclasses.replace(found[MODEL], default="", guards=(), shadows=shadows)
    models = [model for provider in providers for model in provider.models]
    for kind in KINDS:
        if len(_choices(kind, gateway, models)) > 1:
            found.setdefault(kind, like)
    return found


def check(gateway: GatewayOptions, providers: Iterable[ProviderOptions]) -> None:
    """SettingsError where `gateway.auto_embeddings` would mix vectors that do not compare, as far as the providers of
    the settings tell; a call among others is refused."""
    models = [model for provider in providers for model in provider.models]
    if mixed := spaces([model for model in models if model.name in gateway.auto_embeddings]):
        raise SettingsError(f"gateway.auto_embeddings: {mixed}")


def spaces(models: Sequence[ModelOptions]) -> str:
    """Why nothing can be chosen among these models for vectors, "" where it can: all are of one space.

    >>> one = ModelOptions(name="small"), ModelOptions(name="hosted", space="small")
    >>> spaces(one)
    ''
    >>> spaces([*one, ModelOptions(name="large")])
    "vectors of small, hosted (space 'small') and large (space 'large') do not compare; name models of one `space`"
    """
    by_space: dict[str, list[str]] = {}
    for model in models:
        by_space.setdefault(model.space or model.name, []).append(model.name)
    if len(by_space) < 2:
        return ""
    told = " and ".join(f"{', '.join(names)} (space {space!r})" for space, names in by_space.items())
    return f"vectors of {told} do not compare; name models of one `space`"


def _choices(kind: str, gateway: GatewayOptions, models: Iterable[ModelOptions]) -> Sequence[str]:
    """What may be chosen from, as far as the settings tell."""
    if kind == EMBEDDINGS:
        return gateway.auto_embeddings or [model.name for model in models if model.serves == "embeddings"]
    return gateway.auto_transcriptions or [model.name for model in models if model.serves == "transcriptions"]
