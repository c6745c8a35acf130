"""Numbers of tokens as providers report them, which may be anything."""

from __future__ import annotations

from typing import Any, TypeVar

import msgspec

from windlass.gateway.wire import count

__all__ = ["count", "counts", "share", "total"]
S = TypeVar("S", bound=msgspec.Struct)


def counts(given: Any, kind: type[S]) -> S | None:
    """A provider's usage as `kind`; details that make no sense count as not said, and None is what is no usage."""
    if not isinstance(given, dict):
        return None
    try:
        return msgspec.convert(given, kind)
    except msgspec.ValidationError:
        return msgspec.convert({name: one for name, one in given.items() if not str(name).endswith("etails")}, kind)


def share(tokens: Any) -> int:
    """A number of tokens that is a part of others: 0 where it was not said."""
    return count(tokens) or 0


def total(*tokens: int | None) -> int | None:
    """The sum of those that were said; None where none was."""
    said = [one for one in tokens if one is not None]
    return sum(said) if said else None
