"""Served: how the call of a decision went, in time and in failures, for the guards that watch it."""

from __future__ import annotations

from typing import Final, NamedTuple, Protocol, runtime_checkable

from windlass.errors import ErrorCategory
from windlass.policies.policy import Policy, guards_of
from windlass.records import Decision

_AT_FAULT: Final = frozenset(str(cause) for cause in ErrorCategory if cause.handling.counts_against_breaker)
_LATE: Final = frozenset(
    str(cause)
    for cause in (
        ErrorCategory.CONNECT_TIMEOUT,
        ErrorCategory.FIRST_BYTE_TIMEOUT,
        ErrorCategory.STREAM_IDLE,
        ErrorCategory.TOTAL_TIMEOUT,
    )
)
_RATE_LIMITED: Final = str(ErrorCategory.RATE_LIMITED)
_OF_SERVERS: Final = "status 5"


class Served(NamedTuple):
    """took_ms: how long the client waited for the first byte, None where no answer came and not for its being late.
    failed: the model that was decided on did not answer, and it is its provider's fault."""

    took_ms: float | None
    failed: bool


UNTOLD: Final = Served(None, failed=False)
"""A call that speaks neither for nor against its model."""


@runtime_checkable
class Watcher(Protocol):
    """A guard that is told how the calls of live decisions went."""

    def serve(self, decision: Decision, served: Served, previous: Served | None) -> None:
        """`previous` is what was told of the same decision before: replace it.

        ValueError, and no change, where a time is not a finite number of at least 0.
        """
        ...


def watchers(policy: Policy) -> list[Watcher]:
    """The guards of a policy that want to know how calls went, the outermost first."""
    return [guard for guard in guards_of(policy) if isinstance(guard, Watcher)]


def served_of(first_byte_ms: float | None, latency_ms: float | None, error: str, *, failed_over: bool) -> Served | None:
    """What a call shows of the model that was decided on; None where it shows nothing.

    The first byte of a stream is its first token, that of any other answer the whole of it. Where another model had to
    answer, the time is the one that the client waited because of the choice. What a client did wrong, or went away
    from, is nobody's failure.
    """
    if latency_ms is None:
        return None
    took_ms = first_byte_ms or latency_ms
    if failed_over or not error:
        return Served(took_ms, failed_over)
    if error in _LATE:
        return Served(took_ms, True)
    failed = error in _AT_FAULT or error == _RATE_LIMITED or error.startswith(_OF_SERVERS)
    return Served(None, True) if failed else None
