"""What is known of one request that was sent upstream: to whom, what came of it, and who pays for it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

import msgspec

from windlass.errors import ErrorCategory
from windlass.gateway.money.usage import Usage
from windlass.gateway.opening import Opened
from windlass.gateway.options import ModelOptions
from windlass.gateway.provider import Provider
from windlass.gateway.resilience.breaker import Key, Pass
from windlass.gateway.wire import ReplyTally

Bill = Literal["none", "reported", "estimated", "unsaid", "outcome"]
# Nothing of the request has arrived anywhere.
_UNSENT = frozenset(
    {
        ErrorCategory.URL_INVALID,
        ErrorCategory.DNS_FAILED,
        ErrorCategory.CONNECT_TIMEOUT,
        ErrorCategory.CONNECT_REFUSED,
        ErrorCategory.HOST_UNREACHABLE,
        ErrorCategory.PROXY_FAILED,
        ErrorCategory.TLS_FAILED,
    }
)


class Target(NamedTuple):
    """One model that may answer, and who offers it."""

    provider: Provider
    model: ModelOptions

    @property
    def key(self) -> Key:
        return self.provider.name, self.model.name


class Sent(NamedTuple):
    """An attempt that is under way: what its breaker said, and when it began by the monotonic clock."""

    target: Target
    admitted: Pass
    at: float
    hedge: bool


class Attempt(msgspec.Struct, frozen=True, kw_only=True):
    """One request that was sent upstream, or was not because its breaker is open (`sent` is False).

    started_ms, took_ms: since the call began to ask; until the opening had been read. status: 0 where no answer came.
    category: '' for the attempt that answers, `cancelled` where a faster one, or a client that left, made it needless.
    retry_after_s: as the provider asked. hedge: it was sent beside another one that was slow.
    bill: `none`: nothing was done; `reported`: `usage` is what the provider counted; `estimated`: it is our estimate
        of a part of the answer that went out, where the provider counted nothing; `unsaid`: the provider had the
        request and may charge for it; `outcome`: the call's outcome holds it.
    """

    provider: str
    model: str
    started_ms: float
    took_ms: float
    status: int = 0
    category: str = ""
    retry_after_s: float | None = None
    hedge: bool = False
    sent: bool = True
    bill: Bill = "none"
    usage: Usage = Usage()


@dataclass(slots=True)
class Reached:
    """The answer of `target`: read `opening` to its end, or close it. `attempt.category` tells a refusal from an
    answer.
    """

    target: Target
    opening: Opened
    attempt: Attempt

    def lost(self) -> Attempt:
        """The record of a good opening that is not needed any more."""
        usage = self.opening.tally.usage
        bill = bill_of(self.attempt.status, ErrorCategory.CANCELLED, usage)
        return msgspec.structs.replace(
            self.attempt, category=ErrorCategory.CANCELLED.value, bill=bill, usage=usage if says(usage) else Usage()
        )


@dataclass(slots=True)
class Continued:
    """A stream that broke off and goes on with what another request brings.

    first: who began it; used: what the first part used up, in our estimate where `estimated`. at_chars: so long was the
    text by then. prompt_tokens: about as many more than the client's own went into the second request. tally: reads the
    second reply alone. dropped_chars: of that, since the client had them.
    """

    first: Target
    used: Usage
    estimated: bool
    at_chars: int
    prompt_tokens: int
    tally: ReplyTally
    dropped_chars: int = 0

    def joined(self, prompt: int, completion: int, estimated: bool) -> tuple[int, int, bool]:
        """The tokens of both parts, from those of the second, and whether any of them are an estimate."""
        used = self.used
        both = prompt + (used.prompt_tokens or 0), completion + (used.completion_tokens or 0)
        return *both, estimated or self.estimated

    def told(self, target: Target) -> dict[str, str | int]:
        """What the outcome tells of it: that `target` went on, and where."""
        provider, model = target.key
        place = {"at_chars": self.at_chars, "dropped_chars": self.dropped_chars}
        return {"provider": provider, "model": model, **place}


def says(usage: Usage) -> bool:
    """Has the provider counted anything?"""
    return usage.prompt_tokens is not None or bool(usage.completion_tokens or usage.images or usage.audio_s)


def bill_of(status: int, category: ErrorCategory, usage: Usage) -> Bill:
    """Who pays for a failed attempt."""
    if says(usage):
        return "reported"
    return "none" if status >= 300 or category in _UNSENT else "unsaid"
