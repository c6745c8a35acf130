"""Around the providers: who is asked, how often, after what pause, and who else when that one fails.

All of it happens before the first byte goes to the client, so a failed attempt leaves nothing behind but its record;
only a stream that broke off may be asked to be continued (`continuation`).
Targets are asked in order of preference; what is done about which cause says `errors.HANDLING`, nothing else:

- the client's fault: the refusal is the answer; only a context that is too long may fit elsewhere;
- the fault of a moment (`short`): once more at the same target, after a pause;
- the other side needs time, or cannot do it at all: the next target at once; with none left, back to the one that may
  be asked again first, after its pause, or after as long as it asked for (`Retry-After`).

No target is asked again where that costs another one its only attempt.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Annotated, TypeAlias

import msgspec
from msgspec import Meta

from windlass.errors import Backoff, ErrorCategory, UpstreamError, classify
from windlass.gateway.opening import Wants, opened
from windlass.gateway.provider import ProviderReply
from windlass.gateway.resilience.attempt import Attempt, Reached, Sent, Target
from windlass.gateway.resilience.breaker import BreakerOptions, Breakers, Pass
from windlass.gateway.resilience.failures import FailedTarget, Failures
from windlass.gateway.resilience.hedge import Asking, Leaving, race
from windlass.gateway.wire import ReplyTally

NotNegative = Annotated[float, Meta(ge=0)]
# They have cost their time already: with another target left, none of it is spent at the same one again.
SLOW = frozenset({ErrorCategory.FIRST_BYTE_TIMEOUT, ErrorCategory.STREAM_IDLE, ErrorCategory.TOTAL_TIMEOUT})


class ResilienceOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How failures of providers are met: before the first byte has gone to the client, and after it.

    attempts: requests that one call may send in all. backoff_base_s, backoff_cap_s: before its n-th retry (from 0) a
        target is left alone for uniform(0, min(cap, base * 2**n)) seconds; source: M. Brooker, "Exponential Backoff
        And Jitter", AWS Architecture Blog, 2015 ("full jitter").
    retry_after_cap_s: a provider that asks for more time than this is not asked again by the same call.
    total_timeout_s: from the start of a call to its last byte.
    hedge_after_s: without a first byte after this time the next target is asked as well, and the faster one answers;
        both cost. 0: off.
    continue_streams: a stream of text that breaks off is continued, once, by another request that holds the prompt and
        the text so far; both cost, and where they meet a word may be missing or come twice. Off: it ends with an error.
    """

    attempts: Annotated[int, Meta(ge=1, le=100)] = 3
    backoff_base_s: NotNegative = 0.25
    backoff_cap_s: NotNegative = 8.0
    retry_after_cap_s: NotNegative = 20.0
    total_timeout_s: Annotated[float, Meta(gt=0, le=604_800)] = 600.0
    hedge_after_s: NotNegative = 0.0
    continue_streams: bool = False
    breaker: BreakerOptions = BreakerOptions()


class Resilience:
    """Retry, fail-over, breakers and hedging, for all calls.

    monotonic: seconds that never go back, the event loop's own; all is timed by it. clock: UTC seconds.
    """

    def __init__(
        self,
        options: ResilienceOptions,
        *,
        clock: Callable[[], float],
        monotonic: Callable[[], float],
        sleep: Callable[[float], Awaitable[None]],
        rng: Random,
    ):
        self.options = options
        self.clock = clock
        self.monotonic = monotonic
        self.sleep = sleep
        self.rng = rng
        self.breakers = Breakers(options.breaker, monotonic=monotonic, clock=clock, rng=rng)
        self.leaving = Leaving()

    def deadline(self) -> float:
        """When a call that begins now must be at its end, on the monotonic clock."""
        return self.monotonic() + self.options.total_timeout_s

    async def reach(
        self,
        targets: Sequence[Target],
        send: Callable[[Target], Awaitable[ProviderReply]],
        *,
        wants: Wants,
        tally: Callable[[bool], ReplyTally],
        deadline: float,
        trail: list[Attempt],
        repeatable: bool = True,
    ) -> Reached:
        """The first good opening, or the refusal that the client should see.

        targets: in order of preference, at least one. tally: makes what reads along with a reply, streamed or not.
        trail: takes a record of each attempt as it ends, however this ends. repeatable: False where the same request
        twice would do the same thing twice; then nothing is sent again that may have arrived.

        Raises UpstreamError where nobody answered, with the cause of the most preferred target that was asked, or
        `total_timeout` where the deadline came first. What else `send` raises ends the call at once. Cancelled, it
        closes what is open.
        """
        if not targets:
            raise ValueError("no target to send to; name at least one")
        walk = _Walk(self, targets, send, wants, tally, deadline, trail, repeatable)
        return await _in_time(walk, max(0.0, deadline - walk.began))

    def ended(self, target: Target, category: ErrorCategory | None) -> None:
        """A stream that had begun is over: as it should be (None), or broken off for `category`."""
        if category is not None:
            self.breakers.failed(target.key, Pass.FREE, category)
        elif self.breakers.known:
            self.breakers.answered(target.key, Pass.FREE)

    async def close(self) -> None:
        """Wait for attempts that are still on their way out."""
        await self.leaving.close()


_Step: TypeAlias = tuple[int, Pass]
"""One target about to be asked: its place among the targets, and what its breaker said."""


@dataclass(slots=True)
class _Walk:
    """One call on its way along its targets. fresh: the first of them that was not considered yet.

    Most calls are answered at once: what only failures need is made for the first of them.
    """

    over: Resilience
    targets: Sequence[Target]
    send: Callable[[Target], Awaitable[ProviderReply]]
    wants: Wants
    tally: Callable[[bool], ReplyTally]
    deadline: float
    trail: list[Attempt]
    repeatable: bool
    began: float = field(init=False)
    sends: int = 0
    fresh: int = 0
    sent_to: dict[int, int] = field(default_factory=dict)
    known: Failures | None = None

    def __post_init__(self) -> None:
        self.began = self.over.monotonic()

    @property
    def failures(self) -> Failures:
        """What has failed so far."""
        if self.known is None:
            over = self.over
            self.known = Failures(
                over.breakers, over.clock, over.monotonic, self.targets, self.trail, self.began, self.deadline
            )
        return self.known

    async def run(self) -> Reached:
        options, step = self.over.options, self._next()
        while step is not None:
            hedged = options.hedge_after_s > 0 and self.fresh < len(self.targets)
            reached = await (self._hedged(step) if hedged else self._attempt(step))
            if reached is not None:
                self.trail.append(reached.attempt)
                return reached
            step = await self._after(step[0])
        return self.failures.shown()

    # --- who is asked

    def _next(self) -> _Step | None:
        """The next target that was not asked yet and whose breaker lets it be asked."""
        breakers = self.over.breakers
        while self.fresh < len(self.targets) and self.sends < self.over.options.attempts:
            place, self.fresh = self.fresh, self.fresh + 1
            admitted = breakers.admit(self.targets[place].key) if breakers.known else Pass.FREE
            if admitted is not Pass.REFUSED:
                return place, admitted
            self.failures.refused(place)
        return None

    async def _after(self, place: int) -> _Step | None:
        """Who is asked after the target at `place` has failed; None: nobody."""
        left = self.over.options.attempts - self.sends
        if left <= 0 or self._settled():
            return None
        category = self.failures.by_place[place].category
        moment = category.handling.backoff is Backoff.SHORT and category not in SLOW
        step = None
        if moment and self.sent_to[place] == 1 and left > len(self.targets) - self.fresh:
            step = await self._again(place)
        step = step or self._next()
        while step is None:
            due = {
                other: failure.again_at
                for other, failure in self.failures.by_place.items()
                if failure.again_at is not None
            }
            if not due:
                break
            step = await self._again(min(due, key=lambda other: due[other]))
        return step

    def _settled(self) -> bool:
        """Is what has failed the answer already, or may nothing be sent again?"""
        failures = self.failures.by_place.values()
        if not self.repeatable and any(failure.attempt.bill != "none" for failure in failures):
            return True
        return any(failure.for_all for failure in failures)

    async def _again(self, place: int) -> _Step | None:
        """Wait until the target at `place` may be asked again. None where that is never, or its breaker says no."""
        failure = self.failures.by_place[place]
        if failure.again_at is None:
            return None
        pause_s = failure.again_at - self.over.monotonic()
        if pause_s > 0:
            await self.over.sleep(pause_s)
        admitted = self.over.breakers.admit(self.targets[place].key)
        if admitted is not Pass.REFUSED:
            return place, admitted
        failure.again_at = None
        self.failures.refused(place)
        return None

    async def _hedged(self, step: _Step) -> Reached | None:
        """Ask the next target as well, where this one is slow."""

        def second() -> Asking | None:
            other = self._next()
            return self._attempt(other, hedge=True) if other is not None else None

        return await race(
            self._attempt(step),
            second,
            after_s=self.over.options.hedge_after_s,
            settled=self._settled,
            leaving=self.over.leaving,
            trail=self.trail,
        )

    # --- one attempt

    async def _attempt(self, step: _Step, *, hedge: bool = False) -> Reached | None:
        """Ask one target. None where it failed, which is recorded; a good opening is recorded by who takes it."""
        (place, admitted), over = step, self.over
        target, started, status = self.targets[place], over.monotonic(), 0
        self.sends += 1
        self.sent_to[place] = self.sent_to.get(place, 0) + 1
        try:
            reply = await self.send(target)
            status = reply.status
            opening = await opened(reply, self.wants, self.tally)
            category = opening.category
            if category is not None:
                await opening.close()
        except UpstreamError as exc:
            sent = Sent(target, admitted, started, hedge)
            self._keep(place, self.failures.failed(sent, exc.status or status, classify(exc), error=exc))
            return None
        except BaseException as exc:
            self.failures.broken_off(Sent(target, admitted, started, hedge), status, exc)
            raise
        if category is not None:
            sent = Sent(target, admitted, started, hedge)
            self._keep(place, self.failures.failed(sent, status, category, opening=opening))
            return None
        # That a stream begins does not show that it ends: `Resilience.ended` tells that.
        if over.breakers.known and (opening.ended or admitted is Pass.PROBE):
            over.breakers.answered(target.key, admitted)
        attempt = Attempt(
            provider=target.provider.name,
            model=target.model.name,
            started_ms=(started - self.began) * 1000,
            took_ms=(over.monotonic() - started) * 1000,
            status=status,
            hedge=hedge,
            bill="outcome",
        )
        return Reached(target, opening, attempt)

    def _keep(self, place: int, failure: FailedTarget) -> None:
        """Work out when, by the monotonic clock, this call may ask the target again."""
        over, options = self.over, self.over.options
        handling, wait_s = failure.category.handling, failure.attempt.retry_after_s or 0.0
        if handling.retryable and wait_s <= options.retry_after_cap_s:
            retry = 0 if handling.backoff is Backoff.SHORT else self.sent_to[place] - 1
            longest = min(options.backoff_cap_s, options.backoff_base_s * 2.0 ** min(retry, 64))
            at = over.monotonic() + wait_s + over.rng.uniform(0.0, longest)
            failure.again_at = at if at < self.deadline else None
        self.failures.by_place[place] = failure


async def _in_time(walk: _Walk, remaining_s: float) -> Reached:
    """Walk until the deadline, as within `asyncio.timeout`, which costs three times as much."""
    task = asyncio.current_task()
    assert task is not None, "a coroutine runs in a task"
    late, cancelling = False, task.cancelling()

    def expire() -> None:
        nonlocal late
        late = True
        task.cancel()

    timer = asyncio.get_running_loop().call_later(remaining_s, expire)
    try:
        return await walk.run()
    except asyncio.CancelledError as exc:
        if not late or task.cancelling() > cancelling + 1:  # the client has left as well
            raise
        asked = ", ".join(dict.fromkeys(attempt.model for attempt in walk.trail)) or "nobody yet"
        raise UpstreamError(
            f"no answer within {remaining_s:.3g} s; asked: {asked}; raise resilience.total_timeout_s, or lower the "
            "time-outs of the provider so that another one can be asked in time",
            category=ErrorCategory.TOTAL_TIMEOUT,
        ) from exc
    finally:
        timer.cancel()
        if late:
            task.uncancel()
