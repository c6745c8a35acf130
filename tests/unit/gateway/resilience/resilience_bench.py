"""Upstreams that play their parts on a loop whose time is the test's: seconds pass at once, in order."""

from __future__ import annotations

import asyncio
import json
import random
import selectors
from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any

import msgspec

from windlass.errors import ErrorCategory, UpstreamError, classify
from windlass.gateway.opening import Wants
from windlass.gateway.options import ModelOptions
from windlass.gateway.provider import EVENT_STREAM, JSON, ProviderReply
from windlass.gateway.resilience.attempt import Attempt, Reached, Target
from windlass.gateway.resilience.resilience import Resilience, ResilienceOptions
from windlass.gateway.wire import Tally

NOW = 1_800_000_000.0
EVENT = b'data: {"choices":[{"index":0,"delta":{"content":"hi"}}]}\n\n'
LAST = b'data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\ndata: [DONE]\n\n'
PLAIN = b'{"choices":[{"message":{"content":"hi"}}],"usage":{"prompt_tokens":3,"completion_tokens":2}}'
FOREVER = 1e9


class _Selector(selectors.DefaultSelector):  # type: ignore[valid-type,misc]
    """Where nothing is ready, the time goes on to the next timer."""

    passed = 0.0

    def select(self, timeout: float | None = None) -> Any:
        found = super().select(0)
        if not found:
            assert timeout is not None, "nobody will ever wake up again"
            self.passed += timeout
        return found


class VirtualLoop(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        self._its = _Selector()
        super().__init__(self._its)

    def time(self) -> float:
        return 1_000.0 + self._its.passed


def play(story: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(story())


def now() -> float:
    """The loop's time; between two plays it is as at their beginning."""
    try:
        return asyncio.get_running_loop().time()
    except RuntimeError:
        return 1_000.0


class Chunks:
    """A body in steps: bytes, seconds to wait, or an exception. `open` until it is closed or has ended."""

    def __init__(self, *steps: Any):
        self.steps = list(steps)
        self.open = True
        self.closed_at = 0.0

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        while self.steps and self.open:
            match self.steps.pop(0):
                case float() as seconds:
                    await asyncio.sleep(seconds)
                case bytes() as chunk:
                    return chunk
                case BaseException() as failed:
                    self.open = False
                    raise failed
        self.open = False
        raise StopAsyncIteration

    async def aclose(self) -> None:
        if self.open:
            self.open = False
            self.closed_at = now()


@dataclass
class Play:
    """What an upstream does when asked: waits, then raises or replies."""

    status: int = 200
    kind: str = EVENT_STREAM
    body: tuple[Any, ...] = (EVENT, LAST)
    after_s: float = 0.0
    error: BaseException | None = None
    headers: dict[str, str] = field(default_factory=dict)


def fails(category: ErrorCategory, after_s: float = 0.0) -> Play:
    return Play(error=UpstreamError(f"made to fail: {category}", category=category), after_s=after_s)


def says(status: int, code: str = "", after_s: float = 0.0, **headers: str) -> Play:
    body = json.dumps({"error": {"message": "no", "code": code or None}}).encode()
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Play(status, JSON, (body,), after_s, headers=named)


GOOD = Play()
PLAIN_GOOD = Play(kind=JSON, body=(PLAIN[:20], PLAIN[20:]))
HANGS = Play(after_s=FOREVER)
STALLS = Play(body=(b": open\n\n", FOREVER))
DOWN = fails(ErrorCategory.CONNECT_REFUSED)
RESET = fails(ErrorCategory.CONNECTION_RESET)


@dataclass
class Named:
    """As much of a provider as resilience knows."""

    name: str


class Bench:
    """Upstreams that play their parts in order, the last one for ever; and what they have seen."""

    def __init__(self, options: dict[str, Any] | None = None, wants: Wants = "events", **plays: Any):
        self.plays = {model: list(parts) if isinstance(parts, tuple) else [parts] for model, parts in plays.items()}
        self.targets = [Target(Named("up"), ModelOptions(name=model)) for model in plays]  # type: ignore[arg-type]
        self.wants = wants
        self.sent: list[tuple[str, float]] = []
        self.replies: list[Chunks] = []
        self.slept: list[float] = []
        self.trail: list[Attempt] = []
        self.ended_at = 0.0
        fields = {"backoff_base_s": 1.0, "total_timeout_s": 100.0} | (options or {})
        self.resilience = Resilience(
            msgspec.convert(fields, ResilienceOptions),
            clock=lambda: NOW,
            monotonic=now,
            sleep=self._sleep,
            rng=random.Random(7),
        )

    async def _sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        await asyncio.sleep(seconds)

    async def send(self, target: Target) -> ProviderReply:
        self.sent.append((target.model.name, now()))
        parts = self.plays[target.model.name]
        part = parts.pop(0) if len(parts) > 1 else parts[0]
        if part.after_s:
            await asyncio.sleep(part.after_s)
        if part.error is not None:
            raise part.error
        chunks = Chunks(*part.body)
        self.replies.append(chunks)
        return ProviderReply(part.status, part.kind, chunks, part.headers)

    async def reach(self, **more: Any) -> Reached:
        try:
            return await self.resilience.reach(
                self.targets,
                self.send,
                wants=self.wants,
                tally=lambda stream: Tally(stream=stream),
                deadline=self.resilience.deadline(),
                trail=self.trail,
                **more,
            )
        finally:
            self.ended_at = now()

    async def read(self, **more: Any) -> bytes:
        """All of the answer."""
        reached = await self.reach(**more)
        return b"".join([*reached.opening.head, *[chunk async for chunk in reached.opening.rest]])

    @property
    def asked(self) -> list[str]:
        return [model for model, _ in self.sent]

    @property
    def categories(self) -> list[str]:
        return [attempt.category for attempt in self.trail]

    def nothing_open(self, *but: Chunks) -> bool:
        return all(not chunks.open for chunks in self.replies if chunks not in but)


def meet(bench: Bench, **more: Any) -> tuple[bytes, ErrorCategory | None]:
    """What the client gets: the bytes, or the cause."""

    async def story() -> tuple[bytes, ErrorCategory | None]:
        try:
            return await bench.read(**more), None
        except UpstreamError as exc:
            return b"", classify(exc)
        finally:
            await bench.resilience.close()
            assert bench.nothing_open()

    result: tuple[bytes, ErrorCategory | None] = play(story)
    return result


def lone() -> bool:
    """Is nothing else under way on this loop?"""
    return asyncio.all_tasks() == {asyncio.current_task()}
