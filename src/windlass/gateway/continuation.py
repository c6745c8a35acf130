"""A stream of text that broke off, continued by another request: its client sees one stream, with one end.

It happens below the translation into the client's dialect, between chats, so it works for every client whose upstream
answers chats; where an upstream speaks the client's own dialect the stream ends with an error, as it does for tool
calls, structured output, logprobs and several choices.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from dataclasses import replace
from functools import partial
from typing import TypeAlias

import msgspec

from windlass.errors import (
    Audience,
    ErrorCategory,
    LedgerError,
    LimitReached,
    RequestError,
    UpstreamError,
    classify,
)
from windlass.gateway.access.limits import Hold
from windlass.gateway.endpoints import Raw
from windlass.gateway.money.estimate import estimate_tokens
from windlass.gateway.money.usage import Usage
from windlass.gateway.opening import Opened
from windlass.gateway.options import ModelOptions
from windlass.gateway.provider import EVENT_STREAM, Chunks, ProviderReply, ProviderRequest, Relays
from windlass.gateway.resilience.attempt import Attempt, Continued, Reached, Target, bill_of, says
from windlass.gateway.resilience.resilience import SLOW, Resilience
from windlass.gateway.resumption import ASK_TOKENS, asked, is_text, prefills
from windlass.gateway.splice import Heard, Joint, repeated, restored
from windlass.gateway.transit import Transit
from windlass.gateway.wire import Chat, EmbeddingInput, Tally

Send: TypeAlias = Callable[[Target], Awaitable[ProviderReply]]


class Continuation:
    """Watches the streams of one call, and goes on with the one that is its answer where that breaks off. What goes on
    is watched no more, so that happens once.

    send: brings the request to a target. deadline: of the call, by the event loop's clock. hold: takes what an answer
    to a prompt of so many tokens may cost at most, or raises LimitReached; None where nothing is limited.
    """

    def __init__(
        self,
        transit: Transit,
        send: Send,
        resilience: Resilience,
        deadline: float,
        hold: Callable[[int], Awaitable[Hold]] | None,
    ):
        self._transit = transit
        self._send = send
        self._resilience = resilience
        self._deadline = deadline
        self._hold = hold
        self._began = resilience.monotonic()

    @property
    def begun(self) -> bool:
        """Whether the answer has been chosen: before that a failure is none of the client's."""
        return self._transit.first_byte_at > 0

    def sent(self, target: Target) -> Awaitable[ProviderReply]:
        """The request on its way to one target, as `send` does it."""
        wanted, provider = self._transit.asked, target.provider
        if isinstance(wanted, Raw | EmbeddingInput) or not wanted.stream:
            return self._send(target)
        if not isinstance(wanted, Chat) and isinstance(provider, Relays) and provider.serves(wanted.dialect):
            return self._send(target)
        sending = self._send(Target(_Watched(target, self), target.model))
        self._transit.target = target
        return sending

    async def after(self, first: Target, request: ProviderRequest, heard: Heard, cause: ErrorCategory) -> Second | None:
        """What goes on behind a stream that broke off for `cause`; None: nothing does, and it is over."""
        transit, text = self._transit, heard.tally.text
        if not (self.begun and heard.cut and _may_mend(cause)):
            return None
        if not await self._holds(text):
            return None
        self._resilience.ended(first, cause)
        transit.told = True
        place = next(place for place, attempt in enumerate(transit.trail) if attempt.bill == "outcome")
        reached = await self._reached(first, request, text, cause)
        if reached is None:
            return None
        used, estimated = self._used_up(first, heard)
        transit.trail[place] = msgspec.structs.replace(
            transit.trail[place], category=cause.value, bill="estimated" if estimated else "reported", usage=used
        )
        transit.target, transit.told = reached.target, False
        prefilled = prefills(reached.target, request.chat)
        more, tally = estimate_tokens(text) + (0 if prefilled else ASK_TOKENS), reached.opening.tally
        transit.continued = Continued(first, used, estimated, len(text), more, tally)
        known = restored(text[len(text.rstrip()) :]) if prefilled else repeated(text)
        joint = Joint(heard.head, used, known, counts=request.chat.wants_usage)
        return Second(reached.opening, joint, transit.continued)

    async def _holds(self, text: str) -> bool:
        """Whether the limits leave room for it: then that is held."""
        if self._hold is None:
            return True
        try:
            self._transit.more = await self._hold(self._transit.most_prompt_tokens() + len(text.encode()) + ASK_TOKENS)
        except (LimitReached, LedgerError):  # the second where several processes share a limit, and its database fails
            return False
        return True

    async def _reached(
        self, first: Target, request: ProviderRequest, text: str, cause: ErrorCategory
    ) -> Reached | None:
        """Who goes on. Its attempts are told from where the call began."""
        trail: list[Attempt] = []
        later_ms = (self._resilience.monotonic() - self._began) * 1000
        try:
            reached = await self._resilience.reach(
                self._targets(first, cause),
                partial(asked, request, text),
                wants="events",
                tally=lambda streamed: Tally(stream=streamed),
                deadline=self._deadline,
                trail=trail,
            )
            if not reached.attempt.category:
                return reached
            await reached.opening.close()
            trail[:] = [_of_nothing(one, reached) if one is reached.attempt else one for one in trail]
        except (UpstreamError, RequestError):
            pass  # the trail says who failed, and the client hears of the first break
        finally:
            self._transit.trail += (msgspec.structs.replace(one, started_ms=one.started_ms + later_ms) for one in trail)
        return None

    def _targets(self, first: Target, cause: ErrorCategory) -> tuple[Target, ...]:
        """The same model first, unless it has cost its time already; then who else may answer."""
        every = self._transit.targets
        at = next(place for place, target in enumerate(every) if target.key == first.key)
        others = (*every[at + 1 :], *every[:at])
        return (*others, first) if cause in SLOW else (first, *others)

    def _used_up(self, first: Target, heard: Heard) -> tuple[Usage, bool]:
        """What the first part used up, and whether that is our estimate."""
        wanted, used = self._transit.asked, heard.tally.usage
        prompt, completion = used.prompt_tokens, used.completion_tokens
        estimated = prompt is None or completion is None or first.provider.local
        if prompt is None:
            prompt = wanted.tokens or sum(map(estimate_tokens, wanted.said))
        if completion is None:
            completion = estimate_tokens(heard.tally.text)
        return msgspec.structs.replace(used, prompt_tokens=prompt, completion_tokens=completion), estimated


class Second:
    """The reply that goes on, as the client gets it."""

    def __init__(self, opening: Opened, joint: Joint, told: Continued):
        self.opening = opening
        self._joint = joint
        self._told = told

    async def written(self) -> AsyncGenerator[bytes, None]:
        """Each chunk; where it is cut as well, all text that came. UpstreamError where it breaks off."""
        opening, joint, broken = self.opening, self._joint, None
        try:
            for chunk in opening.head:
                if written := joint.feed(chunk):
                    yield written
            if not opening.ended:
                async for chunk in opening.rest:
                    opening.tally.feed(chunk)
                    if written := joint.feed(chunk):
                        yield written
        except UpstreamError as exc:
            broken = exc
        finally:
            self._told.dropped_chars = joint.dropped
        if not opening.ended:
            opening.tally.end()
        if last := joint.end():
            yield last
        if broken is not None:
            raise broken


class Spliced:
    """The chunks of a stream, and of what goes on behind it. Closing it closes whichever is open."""

    def __init__(self, source: Chunks, first: Target, request: ProviderRequest, continuation: Continuation):
        self._source = source
        self._first = first
        self._request = request
        self._continuation = continuation
        self._second: Second | None = None
        self._chunks = self._run()

    def __aiter__(self) -> Spliced:
        return self

    async def __anext__(self) -> bytes:
        return await anext(self._chunks)

    async def aclose(self) -> None:
        await self._source.aclose()
        if self._second is not None:
            await self._second.opening.close()
        await self._chunks.aclose()

    async def _run(self) -> AsyncGenerator[bytes, None]:
        heard, arriving, broken = Heard(), aiter(self._source), None
        try:
            async for chunk in arriving:
                if passed := self._passed(heard, chunk):
                    yield passed
                if heard.failure:
                    break
        except UpstreamError as exc:
            broken = exc
        cause = heard.category if broken is None else classify(broken)
        self._second = await self._continuation.after(self._first, self._request, heard, cause)
        if self._second is not None:
            await self._source.aclose()
            async with aclosing(self._second.written()) as written:
                async for chunk in written:
                    yield chunk
            return
        if left := heard.failure + heard.rest:
            yield left
        if broken is not None:
            raise broken
        async for chunk in arriving:  # what stands behind an error
            yield chunk

    def _passed(self, heard: Heard, chunk: bytes) -> bytes:
        """What may go out of the next bytes: an error as well, as long as another attempt can take their place."""
        passed = heard.feed(chunk)
        return passed + heard.close() if heard.failure and not self._continuation.begun else passed


class _Watched:
    """A provider whose streams of chats are watched, for one call."""

    def __init__(self, target: Target, continuation: Continuation):
        provider = target.provider
        self.name: str = provider.name
        self.models: tuple[ModelOptions, ...] = provider.models
        self.local: bool = provider.local
        self._target = target
        self._continuation = continuation

    async def send(self, request: ProviderRequest) -> ProviderReply:
        reply = await self._target.provider.send(request)
        if reply.status >= 300 or not reply.content_type.startswith(EVENT_STREAM) or not is_text(request.chat):
            return reply
        return replace(reply, chunks=Spliced(reply.chunks, self._target, request, self._continuation))

    async def close(self) -> None:
        """It is not ours to close."""


def _may_mend(cause: ErrorCategory) -> bool:
    """Whether another request may do better: not where the client is to blame, or the time is over."""
    return cause is not ErrorCategory.TOTAL_TIMEOUT and cause.handling.audience is not Audience.CLIENT


def _of_nothing(attempt: Attempt, refused: Reached) -> Attempt:
    """The record of a refusal that is no answer after all."""
    usage = refused.opening.tally.usage
    bill = bill_of(attempt.status, ErrorCategory(attempt.category), usage)
    return msgspec.structs.replace(attempt, bill=bill, usage=usage if says(usage) else Usage())
