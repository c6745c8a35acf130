"""Schedules: threads and one event loop, interleaved by a seed, in virtual time. The same seed gives the same run.

The code under test is ours as it stands, with two changes that `stepping` makes to a copy of a module: `threading` and
`time` are the ones below, and before each statement of a function stands a call at which another thread may go on.
A simulated thread is a greenlet, so a switch costs about a microsecond and needs no lock of the machine. What a single
statement does is not interrupted; between two statements, and at each lock, wait, start and join, anything may run.
"""

from __future__ import annotations

import ast
import asyncio
import concurrent.futures
import contextvars
import gc
import heapq
import importlib.util
import itertools
import random
import sys
import warnings
from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from types import ModuleType, SimpleNamespace
from typing import Any
from unittest.mock import patch

import greenlet

_EPOCH_S = 1_800_000_000.0
_COPIES = itertools.count()


class Stuck(AssertionError):
    """Every thread waits for another, for ever."""


class SeededLoop(asyncio.BaseEventLoop):
    """An event loop in virtual time that runs whichever callback is ready and the seed picks.

    asyncio runs what is ready in order; no code of ours may need that, save for what other threads hand over: it keeps
    the order in which it came.
    """

    def __init__(self, schedule: Schedule):
        super().__init__()
        self._schedule = schedule
        self._handed: deque[asyncio.Handle] = deque()

    def call_soon_threadsafe(self, *arguments: Any, **options: Any) -> asyncio.Handle:
        handle = super().call_soon_threadsafe(*arguments, **options)
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
            timer._scheduled = False
            self._ready.append(timer)
        for kind in ("_ready", "_handed"):
            setattr(self, kind, deque(handle for handle in getattr(self, kind) if not handle.cancelled()))
        return bool(self._ready) or self._stopping

    def run_in_executor(self, _executor: Any, function: Callable[..., Any], *arguments: Any) -> Any:
        settled = concurrent.futures.Future[Any]()

        def work() -> None:
            if settled.set_running_or_notify_cancel():
                try:
                    settled.set_result(function(*arguments))
                except Exception as exc:
                    settled.set_exception(exc)

        self._schedule.spawn(work, "executor")
        return asyncio.wrap_future(settled, loop=self)


@dataclass
class _Thread:
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
        self._threads: list[_Thread] = []
        self._running: _Thread | None = None
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

    def spawn(self, function: Callable[[], Any], name: str) -> _Thread:
        """A new thread, which runs when it is picked."""
        thread = _Thread(name, function)
        thread.switch = greenlet.greenlet(lambda: self._life(thread), self._hub)
        # As in a real thread, what a context variable holds elsewhere is not seen here.
        thread.switch.gr_context = contextvars.Context()
        self._threads.append(thread)
        return thread

    def step(self) -> None:
        """Maybe let another thread go on."""
        if self._running is not None and self._rng.random() < self._share:
            self._hub.switch()

    def block(self, ready: Callable[[], bool], until_s: float | None = None) -> bool:
        """Let others go on until `ready()`, or until that time; False where it was the time."""
        me = self._running
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
            self._running = None
            for thread in self._threads:
                if not thread.done and thread.switch:
                    thread.switch.throw(greenlet.GreenletExit)
            Schedule.current = None

    def _next(self, alive: list[_Thread]) -> _Thread:
        while True:
            ready = [thread for thread in alive if thread.ready is None or thread.due(self.now_s) or thread.ready()]
            if ready:
                return ready[self.pick(len(ready))]
            times = [thread.until_s for thread in alive if thread.until_s is not None]
            if not times:
                names = ", ".join(thread.name for thread in alive)
                raise Stuck(f"for ever waiting: {names}; failed before: {self.failures or 'nothing'}")
            self.now_s = min(times)

    def _go_on(self, thread: _Thread) -> None:
        thread.timed_out = thread.ready is not None and not thread.ready()
        thread.ready = thread.until_s = None
        self._running = thread
        thread.switch.switch()
        self._running = None

    def _life(self, thread: _Thread) -> None:
        try:
            thread.run()
        except greenlet.GreenletExit:
            pass
        except BaseException as exc:
            self.failures.append(exc)
        thread.done = True


class _Lock:
    """threading.Lock, and RLock where `again` is set. Once nobody schedules any more it is free."""

    def __init__(self, again: bool = False):
        self._again = again
        self._owner: _Thread | None = None
        self._depth = 0

    def acquire(self) -> bool:
        schedule = Schedule.current
        if schedule is None or schedule._running is None:
            return True
        schedule.step()
        if not (self._again and self._owner is schedule._running):
            while self._owner is not None:
                schedule.block(lambda: self._owner is None)
            self._owner = schedule._running
        self._depth += 1
        return True

    def release(self) -> None:
        schedule = Schedule.current
        if schedule is None or schedule._running is None:
            return
        assert self._owner is schedule._running, "released by a thread that does not hold it"
        self._depth -= 1
        if not self._depth:
            self._owner = None
        schedule.step()

    def held(self) -> bool:
        return self._owner is Schedule.of_now()._running

    def __enter__(self) -> bool:
        return self.acquire()

    def __exit__(self, *_exc: object) -> None:
        self.release()


class _Condition(_Lock):
    """threading.Condition. A waiter that was not notified sleeps on; notify wakes any one of them, as the seed says."""

    def __init__(self) -> None:
        super().__init__(again=True)
        self._waiting: list[list[bool]] = []

    def wait(self, timeout: float | None = None) -> bool:
        schedule = Schedule.of_now()
        assert self.held(), "wait without the lock"
        ticket, depth = [False], self._depth
        self._waiting.append(ticket)
        self._owner, self._depth = None, 0
        until_s = None if timeout is None else schedule.now_s + timeout
        notified = schedule.block(lambda: ticket[0], until_s)
        if not notified and ticket in self._waiting:
            self._waiting = [other for other in self._waiting if other is not ticket]
        while self._owner is not None:
            schedule.block(lambda: self._owner is None)
        self._owner, self._depth = schedule._running, depth
        return notified

    def notify(self, count: int = 1) -> None:
        assert self.held(), "notify without the lock"
        for _ in range(min(count, len(self._waiting))):
            self._waiting.pop(Schedule.of_now().pick(len(self._waiting)))[0] = True

    def notify_all(self) -> None:
        self.notify(len(self._waiting))


class _Event:
    def __init__(self) -> None:
        self._set = False

    def is_set(self) -> bool:
        return self._set

    def set(self) -> None:
        self._set = True
        Schedule.of_now().step()

    def wait(self, timeout: float | None = None) -> bool:
        schedule = Schedule.of_now()
        return schedule.block(lambda: self._set, None if timeout is None else schedule.now_s + timeout)


class _Started:
    """threading.Thread."""

    def __init__(self, *, target: Callable[..., Any], args: Sequence[Any] = (), name: str = "", daemon: bool = False):
        self._run = lambda: target(*args)
        self.name = name
        self._thread: _Thread | None = None

    def start(self) -> None:
        self._thread = Schedule.of_now().spawn(self._run, self.name)
        Schedule.of_now().step()

    def join(self) -> None:
        thread = self._thread
        assert thread is not None, "join before start"
        Schedule.of_now().block(lambda: thread.done)

    def is_alive(self) -> bool:
        return self._thread is not None and not self._thread.done


threads: Any = SimpleNamespace(
    Lock=_Lock, RLock=lambda: _Lock(again=True), Condition=_Condition, Event=_Event, Thread=_Started
)
"""`threading` for a module under test."""
clock: Any = SimpleNamespace(
    monotonic=lambda: Schedule.of_now().now_s,
    time=lambda: _EPOCH_S + Schedule.of_now().now_s,
    sleep=lambda seconds: Schedule.of_now().block(lambda: False, Schedule.of_now().now_s + seconds),
)
"""`time` for a module under test."""


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


def stepping(name: str, *edits: tuple[str, str], **names: Any) -> ModuleType:
    """A copy of module `name` that steps before each statement and waits by the schedule.

    edits: (text, what stands there instead), to plant a race; names: more of its globals to replace.
    """
    found = importlib.util.find_spec(name)
    assert found is not None and found.origin is not None, f"there is no module {name}"
    with open(found.origin, encoding="utf-8") as file:
        source = file.read()
    for old, new in edits:
        assert source.count(old) == 1, f"{name} has {source.count(old)} times {old!r}; plant the race anew"
        source = source.replace(old, new)
    copy = ModuleType(f"{name}_stepping_{next(_COPIES)}")
    copy.__file__ = found.origin
    # Data classes and typed structures look their own module up while they are made.
    sys.modules[copy.__name__] = copy
    tree = ast.fix_missing_locations(_Steps().visit(ast.parse(source)))
    exec(compile(tree, found.origin, "exec", dont_inherit=True), copy.__dict__)
    copy.__dict__.update({"__step__": _step} | names)
    for global_name, stand_in in (("threading", threads), ("time", clock)):
        if global_name in copy.__dict__ and global_name not in names:
            copy.__dict__[global_name] = stand_in
    return copy


def _step() -> None:
    if Schedule.current is not None:
        Schedule.current.step()


class _Steps(ast.NodeTransformer):
    """Puts `__step__()` before each statement of each function."""

    def __init__(self) -> None:
        self._inside = False

    def generic_visit(self, node: ast.AST) -> ast.AST:
        outside, self._inside = self._inside, self._inside or isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        super().generic_visit(node)
        if self._inside:
            for block in ("body", "orelse", "finalbody"):
                statements = getattr(node, block, None)
                if isinstance(statements, list):
                    setattr(node, block, [part for one in statements for part in (*self._steps(one), one)])
        self._inside = outside
        return node

    def _steps(self, statement: ast.stmt) -> list[ast.stmt]:
        called = ast.Call(ast.Name("__step__", ast.Load()), [], [])
        return [ast.copy_location(ast.Expr(called), statement)]
