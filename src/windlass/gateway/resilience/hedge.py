"""Two attempts side by side, where the first is slow: the first good opening is the answer, the other is let go.

Source: J. Dean, L. A. Barroso, "The Tail at Scale", CACM 56(2), 2013, "hedged requests".
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any, TypeAlias

from windlass.gateway.resilience.attempt import Attempt, Reached

LEAVE_S = 0.05
"""So long an attempt that lost is waited for; then it is left to end by itself."""
Asking: TypeAlias = Coroutine[Any, Any, Reached | None]
_Task: TypeAlias = asyncio.Task[Reached | None]


class Leaving:
    """Attempts that nobody waits for any more, on their way out."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()

    async def let_go(self, tasks: Sequence[_Task], trail: list[Attempt]) -> None:
        """Cancel attempts, close what they have opened meanwhile, and record it in `trail`."""
        for task in tasks:
            task.cancel()
        leaving = [asyncio.create_task(_farewell(task, trail)) for task in tasks]
        self._tasks.update(leaving)
        for going in leaving:
            going.add_done_callback(self._tasks.discard)
        if leaving:
            await asyncio.wait(leaving, timeout=LEAVE_S)

    async def close(self) -> None:
        """Wait until all have gone."""
        if self._tasks:
            await asyncio.wait(self._tasks)


async def race(
    first: Asking,
    second: Callable[[], Asking | None],
    *,
    after_s: float,
    settled: Callable[[], bool],
    leaving: Leaving,
    trail: list[Attempt],
) -> Reached | None:
    """The first good opening of the two; None where both failed.

    second: asked for after `after_s` without an opening; None: there is nobody else. settled: told after a failure
    whether the other attempt has become needless.
    """
    tasks = [asyncio.create_task(first)]
    won: Reached | None = None
    try:
        await asyncio.wait(tasks, timeout=after_s)
        other = None if tasks[0].done() else second()
        if other is not None:
            tasks.append(asyncio.create_task(other))
        won = await _first_of(tasks, settled)
    finally:
        await _unless_cancelled(leaving.let_go(tasks, trail), won)
    return won


async def _first_of(tasks: list[_Task], settled: Callable[[], bool]) -> Reached | None:
    """The first good opening, taken out of `tasks`."""
    while tasks:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in [task for task in tasks if task in done]:
            tasks.remove(task)
            reached = task.result()
            if reached is not None:
                return reached
        if settled():
            return None
    return None


async def _unless_cancelled(waiting: Awaitable[None], won: Reached | None) -> None:
    """Wait; a winner that nobody can take any more is closed."""
    try:
        await waiting
    except BaseException:
        if won is not None:
            await won.opening.close()
        raise


async def _farewell(task: _Task, trail: list[Attempt]) -> None:
    await asyncio.wait((task,))
    if task.cancelled() or task.exception() is not None:
        return
    reached = task.result()
    if reached is not None:
        trail.append(reached.lost())
        await reached.opening.close()
