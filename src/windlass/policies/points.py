"""What is set of one decision point: its mode, its policy, and the policies that stand in shadow beside it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import msgspec

from windlass.errors import SettingsError
from windlass.policies.policy import DEFAULT_SHARE

ROLLOUT = "rollout"
"""The point at which people decide about the other points, see rollout.py. It has no settings."""
EXPERIMENT = "experiment"
"""The point at which calls are assigned to the variants of an experiment, see trials/. It has no settings."""
SHADOW = "-shadow"
NAMED = "named@1"
"""Who decided, in the tallies, where there was one eligible action: whoever named it. Nothing was left to a policy."""
Mode = Literal["off", "shadow", "live"]
_SHADOW_NAME = re.compile(r"[A-Za-z0-9_.]{1,40}\Z")


class GuardOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A guard around a policy, by its name in the registry."""

    guard: str
    options: dict[str, Any] = {}


class ShadowOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A policy that is recorded, taught and scored beside the one that acts, and never acts itself.

    name: its own among the shadows of the point, letters, digits, `_` and `.`. The rest as in `PointOptions`; the
    randomised share is that which it would have if it acted, so that it is scored as it would act.
    """

    name: str
    policy: str
    options: dict[str, Any] = {}
    guards: tuple[GuardOptions, ...] = ()
    randomised_share: float = DEFAULT_SHARE

    def __post_init__(self) -> None:
        if not _SHADOW_NAME.match(self.name):
            raise SettingsError(f"shadow policy {self.name!r}: name it with 1 to 40 letters, digits, _ or .")
        _check_share(self.randomised_share)


@dataclass(frozen=True, slots=True)
class PointOptions:
    """How one decision point is decided.

    mode: `off` the default action, nothing learned; `shadow` the default action acts, the policy is recorded beside it
    and learns; `live` the policy acts. policy, options: as in the registry. default: the action without a policy, ""
    for the first eligible. randomised_share: of the policy's choices, in [0, 1]; 0 for none. guards: around the policy,
    in the order of `registry.guarded`. shadows: more policies, recorded and scored unless the point is `off`.
    """

    mode: Mode = "shadow"
    policy: str = "linear_thompson"
    options: Mapping[str, Any] = field(default_factory=dict)
    default: str = ""
    randomised_share: float = DEFAULT_SHARE
    guards: tuple[GuardOptions, ...] = ()
    shadows: tuple[ShadowOptions, ...] = ()

    def __post_init__(self) -> None:
        if self.mode not in ("off", "shadow", "live"):
            raise SettingsError(f"mode is {self.mode!r}; give off, shadow or live")
        _check_share(self.randomised_share)
        names = [shadow.name for shadow in self.shadows]
        if len(set(names)) < len(names):
            raise SettingsError(f"shadow policies {', '.join(names)}: give each a name of its own")


def shadow_place(point: str, name: str) -> str:
    """The place of a point's shadow policy of that name: where it learns, and the end of its decisions' ids."""
    return f"{point}{SHADOW}-{name}"


def _check_share(share: float) -> None:
    if not 0.0 <= share <= 1.0:
        raise SettingsError(f"randomised_share is {share}; give a number from 0 to 1")
