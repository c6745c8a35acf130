"""Numbers of tokens as providers report them, which may be anything."""

from __future__ import annotations

from typing import Any, TypeVar

import msgspec

from windlass.gateway.money.usage import Usage
from windlass.gateway.wire import count

__all__ = ["TokenShares", "count", "counts", "share", "total", "within_totals"]
S = TypeVar("S", bound=msgspec.Struct)


class TokenShares(msgspec.Struct):
    """What OpenAI says beside a total: how many of its tokens were of a kind."""

    cached_tokens: Any = None
    cache_write_tokens: Any = None
    audio_tokens: Any = None
    reasoning_tokens: Any = None


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


def within_totals(prompt: Any, completion: Any, prompt_shares: TokenShares | None, shares: TokenShares | None) -> Usage:
    """OpenAI's count in the one form, which counts shares within the two totals as it does; `shares`: of the
    completion."""
    into, out = prompt_shares or TokenShares(), shares or TokenShares()
    return Usage(
        prompt_tokens=count(prompt),
        completion_tokens=count(completion),
        cache_read_tokens=share(into.cached_tokens),
        cache_write_tokens=share(into.cache_write_tokens),
        reasoning_tokens=share(out.reasoning_tokens),
        audio_prompt_tokens=share(into.audio_tokens),
        audio_completion_tokens=share(out.audio_tokens),
    )
