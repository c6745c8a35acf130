"""What stands in for `threading` and `time` in a module under a schedule, and how a module gets it.

The code under test is ours as it stands, with two changes that `stepping` makes to a copy of its module: `threading`
and `time` are those below, and before each statement of a function stands a call at which another thread may go on. So
what a single statement does is not interrupted; between two, and at each lock, wait, start and join, anything may run.
"""

from __future__ import annotations

import ast
import importlib.util
import itertools
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

from tests.simulation.schedules import Schedule, Simulated

_EPOCH_S = 1_800_000_000.0
_COPIES = itertools.count()


class _Lock:
    """threading.Lock, and RLock where `again` is set. Once nobody schedules any more it is free."""

    def __init__(self, again: bool = False):
        self._again = again
        self._owner: Simulated | None = None
        self._depth = 0

    def acquire(self) -> bool:
        schedule = Schedule.current
        if schedule is None or schedule.running is None:
            return True
        schedule.step()
        if not (self._again and self._owner is schedule.running):
            while self._owner is not None:
                schedule.block(lambda: self._owner is None)
            self._owner = schedule.running
        self._depth += 1
        return True

    def release(self) -> None:
        schedule = Schedule.current
        if schedule is None or schedule.running is None:
            return
        assert self._owner is schedule.running, "released by a thread that does not hold it"
        self._depth -= 1
        if not self._depth:
            self._owner = None
        schedule.step()

    def held(self) -> bool:
        return self._owner is Schedule.of_now().running

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
        self._owner, self._depth = schedule.running, depth
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
        self._thread: Simulated | None = None

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
    Lock=_Lock,
    RLock=lambda: _Lock(again=True),
    Condition=_Condition,
    Event=_Event,
    Thread=_Started,
    current_thread=lambda: Schedule.of_now().running,
)
"""`threading` for a module under test."""
clock: Any = SimpleNamespace(
    monotonic=lambda: Schedule.of_now().now_s,
    time=lambda: _EPOCH_S + Schedule.of_now().now_s,
    sleep=lambda seconds: Schedule.of_now().block(lambda: False, Schedule.of_now().now_s + seconds),
)
"""`time` for a module under test."""


def stepping(name: str, *edits: tuple[str, str], **names: Any) -> ModuleType:
    """A copy of module `name` that steps before each statement and waits by the schedule.

    edits: (text, what stands there instead), to plant a race; names: more of its globals to replace.
    """
    found = importlib.util.find_spec(name)
    origin = found.origin if found is not None else None
    assert origin is not None, f"there is no module {name}"
    source = Path(origin).read_text(encoding="utf-8")
    for old, new in edits:
        assert source.count(old) == 1, f"{name} has {source.count(old)} times {old!r}; plant the race anew"
        source = source.replace(old, new)
    copy = ModuleType(f"{name}_stepping_{next(_COPIES)}")
    copy.__file__ = origin
    # Data classes and typed structures look their own module up while they are made.
    sys.modules[copy.__name__] = copy
    tree = ast.fix_missing_locations(_Steps().visit(ast.parse(source)))
    exec(compile(tree, origin, "exec", dont_inherit=True), copy.__dict__)
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
