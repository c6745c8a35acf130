"""Runs a check in a thread of its own, so that one that hangs holds up neither the loop nor the database's threads."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import TypeVar

from windlass.improve.grading.grader import GraderFailed

T = TypeVar("T")


async def apart(work: Callable[[], T], timeout_s: float, left: set[threading.Thread]) -> T:
    """What `work` returns or raises; TimeoutError where it takes longer. A thread cannot be ended: it goes into `left`.

    SystemExit and its like would end the thread without a word, and a TimeoutError of its own is none of ours: they
    come as GraderFailed.
    """
    loop = asyncio.get_running_loop()
    done: asyncio.Future[T] = loop.create_future()

    def settle(value: T | None, exc: BaseException | None) -> None:
        if done.done():
            return  # nobody waits any more
        if exc is None:
            done.set_result(value)  # type: ignore[arg-type]  # without an exception it is what `work` returned
        else:
            theirs = isinstance(exc, Exception) and not isinstance(exc, TimeoutError)
            done.set_exception(exc if theirs else GraderFailed(f"it raised {type(exc).__name__}"))

    def run() -> None:
        value, exc = None, None
        try:
            value = work()
        except BaseException as caught:  # noqa: BLE001 (a stranger's check; whoever waits must hear of it)
            exc = caught
            if isinstance(exc, StopIteration):  # which no future takes
                exc = GraderFailed("it raised StopIteration")
        try:
            loop.call_soon_threadsafe(settle, value, exc)
        except RuntimeError:
            return  # the loop is closed: the program ends

    thread = threading.Thread(target=run, name="grader", daemon=True)
    thread.start()
    try:
        async with asyncio.timeout(timeout_s):
            return await done
    except TimeoutError:
        left.add(thread)
        raise
