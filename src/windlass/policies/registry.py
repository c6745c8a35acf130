"""The one registry of policies, and of guards around them, by the name that settings, server and benchmarks use.

A name that is not ours is looked for among the plugins (entry points of the group `windlass.policies`): a callable
that takes the options as a mapping and returns a Policy of that name. It is accepted only if it keeps the contract:
`check_policy` runs once in a process for each plugin and each set of options, when it is first made. That takes about
a second for a policy that chooses in 0.1 ms, at the start of the program, as decision points make theirs at once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from typing import Any, NamedTuple, TypeVar

import msgspec

from windlass import plugins
from windlass.errors import PolicyError
from windlass.policies.budget import Budget, BudgetOptions
from windlass.policies.check import check_policy
from windlass.policies.cool_down import CoolDown, CoolDownOptions
from windlass.policies.eligible import (
    Allowed,
    AllowedOptions,
    QualityFloor,
    QualityFloorOptions,
)
from windlass.policies.epsilon_greedy import EpsilonGreedy, EpsilonGreedyOptions
from windlass.policies.fixed import Fixed, FixedOptions
from windlass.policies.floor import Floor, FloorOptions
from windlass.policies.joint import JointThompson
from windlass.policies.joint_options import JointThompsonOptions
from windlass.policies.linear import LinearThompson, LinearThompsonOptions
from windlass.policies.personal import Personal, PersonalOptions
from windlass.policies.policy import Policy, Randomised
from windlass.policies.slo import Slo
from windlass.policies.slo_terms import SloOptions
from windlass.policies.split import Split, SplitOptions
from windlass.policies.threshold import Threshold, ThresholdOptions
from windlass.policies.ucb import Ucb, UcbOptions
from windlass.policies.ucb1 import Ucb1, Ucb1Options

O = TypeVar("O")  # noqa: E741  # the options of one policy


class _Entry(NamedTuple):
    """How to make one: `make(options)`, or for a guard `make(policy, options)`, with the options as their class."""

    options: type[Any]
    make: Callable[..., Policy]


_POLICIES: dict[str, _Entry] = {
    "epsilon_greedy": _Entry(EpsilonGreedyOptions, EpsilonGreedy),
    "fixed": _Entry(FixedOptions, Fixed),
    "joint_thompson": _Entry(JointThompsonOptions, JointThompson),
    "linear_thompson": _Entry(LinearThompsonOptions, LinearThompson),
    "split": _Entry(SplitOptions, Split),
    "threshold": _Entry(ThresholdOptions, Threshold),
    "ucb": _Entry(UcbOptions, Ucb),
    "ucb1": _Entry(Ucb1Options, Ucb1),
}
_GUARDS: dict[str, _Entry] = {
    "personal": _Entry(PersonalOptions, Personal),
    "quality_floor": _Entry(QualityFloorOptions, QualityFloor),
    "service": _Entry(SloOptions, Slo),
    "cool_down": _Entry(CoolDownOptions, CoolDown),
    "budget": _Entry(BudgetOptions, Budget),
    "floor": _Entry(FloorOptions, Floor),
    "allowed": _Entry(AllowedOptions, Allowed),
}
"""From the innermost to the outermost, see `guarded`."""
_INSIDE = ("personal", "quality_floor")
"""Those that the randomised share is around."""
_kept: dict[tuple[str, bytes], plugins.Plugin] = {}
"""Which plugins kept the contract in this process, and with which options."""


def names() -> tuple[str, ...]:
    """Every name of ours that `make` knows, sorted; those of plugins are not among them."""
    return tuple(sorted(_POLICIES))


def guards() -> tuple[str, ...]:
    """Every name that `guard` knows, sorted."""
    return tuple(sorted(_GUARDS))


def options(name: str) -> type[Any]:
    """The class of the options of a policy or a guard of ours; its docstring says what each of them does."""
    return ({**_POLICIES, **_GUARDS})[name].options


def make(name: str, options: Mapping[str, Any]) -> Policy:
    """A fresh policy. PolicyError, naming the known ones, for an unknown name or option or a value out of range, and
    for a plugin that breaks the contract; SettingsError for one that cannot be loaded."""
    if name not in _POLICIES:
        return _plugged(name, options)
    entry = _POLICIES[name]
    made: Policy = entry.make(_options(f"policy {name}", options, entry.options))
    return made


def guard(name: str, options: Mapping[str, Any], policy: Policy) -> Policy:
    """`policy` with a guard around it. PolicyError for an unknown name or option or a value out of range."""
    if name not in _GUARDS:
        raise PolicyError(f"unknown guard {name!r}; known: {', '.join(guards())}")
    entry = _GUARDS[name]
    made: Policy = entry.make(policy, _options(f"guard {name}", options, entry.options))
    return made


def guarded(policy: Policy, specs: Sequence[tuple[str, Mapping[str, Any]]], share: float = 0.0) -> Policy:
    """`policy` with guards, (name, options) each, and a randomised share around it, in the one order that is safe.

    What users think is innermost, as part of the policy. The quality floor is inside the randomised share, which audits
    it. The share picks only among what
    keeps its limits of service, is not resting, and what the budget allows. Around these is the floor that is tested:
    what it audits must always have its chance. Outermost is what is allowed at all: the cheapest action is the
    cheapest of the allowed ones. Several guards of one name keep their order, the first one innermost.
    """
    for name in (name for name, _ in specs if name not in _GUARDS):
        raise PolicyError(f"unknown guard {name!r}; known: {', '.join(guards())}")
    order = list(_GUARDS)
    ordered = sorted(specs, key=lambda spec: order.index(spec[0]))
    inside = [spec for spec in ordered if spec[0] in _INSIDE]
    outside = [spec for spec in ordered if spec[0] not in _INSIDE]
    for name, options in inside:
        policy = guard(name, options, policy)
    if share != 0.0:
        policy = Randomised(policy, share)
    for name, options in outside:
        policy = guard(name, options, policy)
    return policy


def _options(what: str, options: Mapping[str, Any], kind: type[O]) -> O:
    known = [field.name for field in fields(kind)]  # type: ignore[arg-type]  # every options class is a dataclass
    unknown = sorted(set(options) - set(known))
    if unknown:
        raise PolicyError(f"{what} has no option {', '.join(unknown)}; known: {', '.join(known)}")
    try:
        return msgspec.convert(dict(options), kind)
    except msgspec.ValidationError as exc:
        raise PolicyError(f"{what}: {exc}; got {dict(options)}") from exc


def _plugged(name: str, options: Mapping[str, Any]) -> Policy:
    """A policy of a plugin, checked when it is made with these options for the first time."""
    key = (name, msgspec.msgpack.encode(options, enc_hook=repr, order="sorted"))
    plugin = _kept.get(key) or plugins.load(plugins.POLICIES, name)
    if plugin is None:
        known = sorted({*names(), *plugins.names(plugins.POLICIES)})
        raise PolicyError(f"unknown policy {name!r}; known: {', '.join(known)}")
    try:
        # First, so that an option that is out of range is told in the maker's own words, not as a broken promise.
        made = _fresh(plugin, options)
        if key not in _kept:
            check_policy(lambda: _fresh(plugin, options))
            _kept[key] = plugin
        return made
    except KeyboardInterrupt:
        raise
    except BaseException as exc:  # a stranger's policy may raise anything, SystemExit too; whose it was must be said
        words = str(exc) if isinstance(exc, PolicyError) else f"{type(exc).__name__}: {exc}"
        raise PolicyError(f"policy {name!r} of {plugin.distribution} is not accepted: {words}") from exc


def _fresh(plugin: plugins.Plugin, options: Mapping[str, Any]) -> Policy:
    policy: Policy = plugin.value(dict(options))
    name = getattr(policy, "name", None)
    if name is None:
        raise PolicyError(f"its maker returned a {type(policy).__name__} without a name; return a Policy")
    if name != plugin.name:
        raise PolicyError(f"it calls itself {name!r}; decisions must carry the name of the entry point")
    return policy
