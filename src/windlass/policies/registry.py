"""The one registry of policies by the name that settings, server and benchmarks use."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import fields
from typing import Any, TypeVar

import msgspec

from windlass.errors import PolicyError
from windlass.policies.fixed import Fixed, FixedOptions
from windlass.policies.linear_thompson import LinearThompson, LinearThompsonOptions
from windlass.policies.policy import Policy
from windlass.policies.threshold import Threshold, ThresholdOptions

O = TypeVar("O")  # noqa: E741  # the options of one policy


def names() -> tuple[str, ...]:
    """Every name that `make` knows, sorted."""
    return tuple(sorted(_MAKERS))


def make(name: str, options: Mapping[str, Any]) -> Policy:
    """A fresh policy. PolicyError, naming the known ones, for an unknown name or option or a value out of range."""
    if name not in _MAKERS:
        raise PolicyError(f"unknown policy {name!r}; known: {', '.join(names())}")
    return _MAKERS[name](options)


def _fixed(options: Mapping[str, Any]) -> Policy:
    return Fixed(_options("fixed", options, FixedOptions))


def _linear_thompson(options: Mapping[str, Any]) -> Policy:
    return LinearThompson(_options("linear_thompson", options, LinearThompsonOptions))


def _threshold(options: Mapping[str, Any]) -> Policy:
    return Threshold(_options("threshold", options, ThresholdOptions))


def _options(name: str, options: Mapping[str, Any], kind: type[O]) -> O:
    known = [field.name for field in fields(kind)]  # type: ignore[arg-type]  # every options class is a dataclass
    unknown = sorted(set(options) - set(known))
    if unknown:
        raise PolicyError(f"policy {name} has no option {', '.join(unknown)}; known: {', '.join(known)}")
    try:
        return msgspec.convert(dict(options), kind)
    except msgspec.ValidationError as exc:
        raise PolicyError(f"policy {name}: {exc}; got {dict(options)}") from exc


_MAKERS: dict[str, Callable[[Mapping[str, Any]], Policy]] = {
    "fixed": _fixed,
    "linear_thompson": _linear_thompson,
    "threshold": _threshold,
}
