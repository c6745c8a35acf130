"""Schedules: threads and one event loop, interleaved by a seed, in virtual time. The same seed gives the same run.

A simulated thread is a greenlet, so that a switch costs about a microsecond and needs no lock of the machine. Threads
give way where they wait for one another, and at each `Schedule.step`; stand_ins.py puts those into a module.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextvars
import gc
import heapq
import random
import warnings
from collections import deque
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any
from unittest.mock import patch

import greenlet  # type: ignore[import-untyped]


class Stuck(AssertionError):
    """Every thread waits for another, for ever."""


class SeededLoop(asyncio.BaseEventLoop):
    """An event loop in virtual time that runs whichever callback is ready and the seed picks.

    asyncio runs what is ready in order; no code of ours may need that, save for what other threads hand over: it keeps
    the order in which it came.
    """

    def __init__(self, schedule: Schedule):
        super().__init__()
        self._ready: deque[asyncio.Handle]
        self._scheduled: list[asyncio.TimerHandle]
        self._stopping: bool
        self._schedule = schedule
        self._handed: deque[asyncio.Handle] = deque()

    def call_soon_threadsafe(  # type: ignore[override]
        self, callback: Callable[..., object], *arguments: Any, context: Any = None
    ) -> asyncio.Handle:
        handle = super().call_soon_threadsafe(callback, *arguments, context=context)
        self._handed.append(handle)
        return handle

    def time(self) -> float:
        return self._schedule.now_s

    def _write_to_self(self) -> None:
        """Another thread has called: `_run_once` looks by itself."""

    def _process_events(self, _events: Any) -> None:
        """There are no files to watch."""

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        # What a callback raises breaks the story; tasks that a broken story leaves behind are no news.
        if "handle" in context:
            self._schedule.failures.append(context["exception"])

    def _run_once(self) -> None:
        while not self._wakeable():
            due_s = self._scheduled[0].when() if self._scheduled else None
            self._schedule.block(self._wakeable, due_s)
        self._schedule.step()
        self._run_one()
        # A loop that is stopped still runs what is ready.
        for _ in range(len(self._ready) if self._stopping else 0):
            self._run_one()

    def _run_one(self) -> None:
        if self._ready:
            handle = self._ready[self._schedule.pick(len(self._ready))]
            if handle in self._handed:
                handle = self._handed.popleft()
            self._ready.remove(handle)
            handle._run()

    def _wakeable(self) -> bool:
        """Move the timers that are due to what is ready; whether anything is."""
        while self._scheduled and (self._scheduled[0].when() <= self.time() or self._scheduled[0].cancelled()):
            timer = heapq.heappop(self._scheduled)
            timer._scheduled = False  # type: ignore[attr-defined]
            self._ready.append(timer)
        for kind in ("_ready", "_handed"):
            setattr(self, kind, deque(handle for handle in getattr(self, kind) if not handle.cancelled()))
        return bool(self._ready) or self._stopping

    def run_in_executor(  # type: ignore[override]
        self, executor: Any, func: Callable[..., Any], *arguments: Any
    ) -> asyncio.Future[Any]:
        settled = concurrent.futures.Future[Any]()

        def work() -> None:
            if settled.set_running_or_notify_cancel():
                try:
                    settled.set_result(func(*arguments))
                except Exception as exc:
                    settled.set_exception(exc)

        self._schedule.spawn(work, "executor")
        return asyncio.wrap_future(settled, loop=self)


@dataclass
class Simulated:
    """A thread. It waits where `ready` is set: until that is true or, at the latest, the time is `until_s`."""

    name: str
    run: Callable[[], Any]
    ready: Callable[[], bool] | None = None
    until_s: float | None = None
    timed_out: bool = False
    done: bool = False
    switch: Any = None

    def due(self, now_s: float) -> bool:
        return self.until_s is not None and self.until_s <= now_s


class Schedule:
    """One interleaving. trace: who went on at each choice; failures: what threads and callbacks raised."""

    current: Schedule | None = None

    def __init__(self, seed: int):
        self.seed = seed
        self.now_s = 0.0
        self.trace: list[int] = []
        self.failures: list[BaseException] = []
        self._rng = random.Random(seed)
        self._share = self._rng.choice((0.02, 0.1, 0.3, 0.6))
        self._threads: list[Simulated] = []
        self.running: Simulated | None = None
        self._hub: Any = None

    @classmethod
    def of_now(cls) -> Schedule:
        """The schedule that runs now."""
        assert cls.current is not None, "this code runs in a Schedule only"
        return cls.current

    def pick(self, choices: int) -> int:
        """One of `choices`, by the seed."""
        found = self._rng.randrange(choices) if choices > 1 else 0
        self.trace.append(found)
        return found

    def spawn(self, function: Callable[[], Any], name: str) -> Simulated:
        """A new thread, which runs when it is picked."""
        thread = Simulated(name, function)
        thread.switch = greenlet.greenlet(lambda: self._life(thread), self._hub)
        # As in a real thread, what a context variable holds elsewhere is not seen here.
        thread.switch.gr_context = contextvars.Context()
        self._threads.append(thread)
        return thread

    def step(self) -> None:
        """Maybe let another thread go on."""
        if self.running is not None and self._rng.random() < self._share:
            self._hub.switch()

    def block(self, ready: Callable[[], bool], until_s: float | None = None) -> bool:
        """Let others go on until `ready()`, or until that time; False where it was the time."""
        me = self.running
        assert me is not None, "only a simulated thread may wait"
        me.ready, me.until_s, me.timed_out = ready, until_s, False
        self._hub.switch()
        return not me.timed_out

    def run(self, main: Callable[[], Any]) -> None:
        """Run `main` as a thread, and all that it starts, to their ends. Stuck where that cannot be.

        Raises what the first failing thread raised.
        """
        self._hub = greenlet.getcurrent()
        Schedule.current = self
        self.spawn(main, "main")
        try:
            while alive := [thread for thread in self._threads if not thread.done]:
                self._go_on(self._next(alive))
            if self.failures:
                raise self.failures[0]
        finally:
            self.running = None
            for thread in self._threads:
                if not thread.done and thread.switch:
                    thread.switch.throw(greenlet.GreenletExit)
            Schedule.current = None

    def _next(self, alive: list[Simulated]) -> Simulated:
        while True:
            ready = [thread for thread in alive if thread.ready is None or thread.due(self.now_s) or thread.ready()]
            if ready:
                return ready[self.pick(len(ready))]
            times = [thread.until_s for thread in alive if thread.until_s is not None]
            if not times:
                names = ", ".join(thread.name for thread in alive)
                raise Stuck(f"for ever waiting: {names}; failed before: {self.failures or 'nothing'}")
            self.now_s = min(times)

    def _go_on(self, thread: Simulated) -> None:
        thread.timed_out = thread.ready is not None and not thread.ready()
        thread.ready = thread.until_s = None
        self.running = thread
        thread.switch.switch()
        self.running = None

    def _life(self, thread: Simulated) -> None:
        try:
            thread.run()
        except greenlet.GreenletExit:
            pass
        except BaseException as exc:
            self.failures.append(exc)
        thread.done = True


def _result(future: concurrent.futures.Future[Any], timeout: float | None = None) -> Any:
    """Future.result that waits by the schedule."""
    schedule = Schedule.of_now()
    if not schedule.block(future.done, None if timeout is None else schedule.now_s + timeout):
        raise TimeoutError(f"not done in {timeout} s")
    return _REAL_RESULT(future, 0)


_REAL_RESULT = concurrent.futures.Future.result


Story = Callable[[Schedule], Coroutine[Any, Any, None] | None]
"""What happens: a coroutine, which gets a SeededLoop, or plain calls; AssertionError where a promise is broken."""


def play(seed: int, story: Story) -> Schedule:
    """Run `story` under the schedule of `seed`, threads and all, and return the schedule."""
    schedule = Schedule(seed)

    def main() -> None:
        begun = story(schedule)
        if begun is not None:
            loop = SeededLoop(schedule)
            try:
                loop.run_until_complete(begun)
            finally:
                loop.close()

    with patch.object(concurrent.futures.Future, "result", _result):
        schedule.run(main)
    return schedule


def search(story: Story, seeds: int, first: int = 0) -> str:
    """The first of `seeds` schedules that breaks the story, as text that replays it; "" where none does."""
    found = ""
    for seed in range(first, first + seeds):
        try:
            play(seed, story)
        except Exception as exc:
            found = f"seed {seed} shows it again: {type(exc).__name__}: {exc}"
            break
    if found:
        with warnings.catch_warnings():
            # A story that broke leaves coroutines behind that nobody will ever await.
            warnings.simplefilter("ignore")
            gc.collect()
    return found
