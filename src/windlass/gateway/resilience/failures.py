"""What failed on the way of one call: told to the breakers, kept in its trail, and shown where nothing else is left."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from windlass.errors import Audience, ErrorCategory, UpstreamError, classify
from windlass.gateway.money.usage import Usage
from windlass.gateway.opening import Opened, retry_after_s
from windlass.gateway.resilience.attempt import Attempt, Reached, Sent, Target, bill_of, says
from windlass.gateway.resilience.breaker import Breakers, Pass

LATE_S = 0.01
"""Event loops round their timers; so much before the deadline counts as after it."""


@dataclass(slots=True)
class FailedTarget:
    """Why a target did not answer. again_at: when its call may ask it again, by the monotonic clock; None: never."""

    category: ErrorCategory
    attempt: Attempt
    error: UpstreamError | None
    opening: Opened | None
    again_at: float | None = None

    @property
    def for_client(self) -> bool:
        """Is it the client's own fault?"""
        return self.category.handling.audience is Audience.CLIENT

    @property
    def for_all(self) -> bool:
        """Would every other target say the same? A context that is too long for one may fit into another."""
        return self.for_client and self.category is not ErrorCategory.CONTEXT_TOO_LONG


@dataclass(slots=True)
class Failures:
    """The failures of one call, the last one of each target by its place among `targets`.

    began, deadline: of the call, by the monotonic clock.
    """

    breakers: Breakers
    clock: Callable[[], float]
    monotonic: Callable[[], float]
    targets: Sequence[Target]
    trail: list[Attempt]
    began: float
    deadline: float
    by_place: dict[int, FailedTarget] = field(default_factory=dict)

    def failed(
        self,
        sent: Sent,
        status: int,
        category: ErrorCategory,
        *,
        error: UpstreamError | None = None,
        opening: Opened | None = None,
    ) -> FailedTarget:
        """An attempt failed, with an exception or with an opening that is no good."""
        key = sent.target.key
        if category.handling.counts_against_breaker:
            self.breakers.failed(key, sent.admitted, category)
        elif status:
            self.breakers.answered(key, sent.admitted)
        else:
            self.breakers.left(key, sent.admitted)
        usage = opening.tally.usage if opening is not None else Usage()
        attempt = self._record(
            sent,
            status=status,
            category=category.value,
            retry_after_s=retry_after_s(opening.reply.headers, self.clock()) if opening is not None else None,
            bill=bill_of(status, category, usage),
            usage=usage if says(usage) else Usage(),
        )
        return FailedTarget(category, attempt, error, opening)

    def broken_off(self, sent: Sent, status: int, exc: BaseException) -> None:
        """An attempt was ended from outside, or broke in a way that says nothing of the provider."""
        category, now = classify(exc), self.monotonic()
        if isinstance(exc, asyncio.CancelledError):
            late = now >= self.deadline - LATE_S
            category = ErrorCategory.TOTAL_TIMEOUT if late else ErrorCategory.CANCELLED
        # Who took most of the time that a call has is to blame for it; who was asked last may just have come late.
        if category is ErrorCategory.TOTAL_TIMEOUT and now - sent.at > (self.deadline - self.began) / 2:
            self.breakers.failed(sent.target.key, sent.admitted, category)
        else:
            self.breakers.left(sent.target.key, sent.admitted)
        self._record(sent, status=status, category=category.value, bill=bill_of(status, category, Usage()))

    def refused(self, place: int) -> None:
        """The breaker of a target is open: nothing was sent."""
        target = self.targets[place]
        category = self.breakers.known[target.key].last or ErrorCategory.UPSTREAM_FAILED
        self._record(Sent(target, Pass.REFUSED, self.monotonic(), False), category=category.value, sent=False)

    def shown(self) -> Reached:
        """What the client should see: its own fault, else the cause of the most preferred target that was asked."""
        if not self.by_place:
            raise self._left_alone()
        clients = [place for place, failure in self.by_place.items() if failure.for_client]
        place = min(clients or self.by_place)
        failure, target = self.by_place[place], self.targets[place]
        error = failure.error
        if error is not None:
            self.by_place.clear()
            try:
                raise error
            finally:
                del failure, error  # its traceback leads back here: without this both wait for the garbage collector
        opening = failure.opening
        assert opening is not None, "a failure without an exception has an opening"
        if opening.ended and (opening.reply.status >= 300 or failure.for_client):
            # Its usage is read from the reply, like that of any answer; it must not be counted twice.
            passed_on = msgspec.structs.replace(failure.attempt, bill="outcome", usage=Usage())
            self.trail[:] = [passed_on if attempt is failure.attempt else attempt for attempt in self.trail]
            return Reached(target, opening, passed_on)
        raise UpstreamError(
            f"provider {target.provider.name} failed: {failure.category.value} (status {opening.reply.status}, content "
            f"type {opening.reply.content_type[:80]!r}) for model {target.model.name}; see its own log",
            category=failure.category,
        )

    def _left_alone(self) -> UpstreamError:
        waits = ", ".join(
            f"{target.model.name} for {self.breakers.opens_in_s(target.key):.1f} s" for target in self.targets
        )
        category = ErrorCategory(self.trail[0].category)
        return UpstreamError(
            f"every model that could answer is left alone after failures ({category.value}): {waits}; try again then",
            category=category,
        )

    def _record(self, at: Sent, **fields: Any) -> Attempt:
        attempt = Attempt(
            provider=at.target.provider.name,
            model=at.target.model.name,
            started_ms=(at.at - self.began) * 1000,
            took_ms=(self.monotonic() - at.at) * 1000,
            hedge=at.hedge,
            **fields,
        )
        self.trail.append(attempt)
        return attempt
