"""One timer for many waits: late is late, in time is in time, and who cancels is not mistaken for the timer."""

from __future__ import annotations

import asyncio
import time

import pytest

from windlass.gateway.transport.http import Patience


async def late(value: int, after_s: float) -> int:
    await asyncio.sleep(after_s)
    return value


def until(seconds: float) -> float:
    return asyncio.get_running_loop().time() + seconds


async def test_what_comes_in_time_is_given_wait_after_wait() -> None:
    patience = Patience()
    for number in range(20):
        assert await patience.wait(late(number, 0.005), until(0.05)) == number
    assert not patience.expired
    patience.close()


async def test_what_is_late_is_a_timeout_and_the_next_wait_starts_anew() -> None:
    patience = Patience()
    began = time.monotonic()
    with pytest.raises(TimeoutError):
        await patience.wait(late(1, 5.0), until(0.02))
    assert patience.expired
    assert 0.015 < time.monotonic() - began < 2.0
    assert await patience.wait(late(2, 0.0), until(0.5)) == 2
    assert not patience.expired
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0
    patience.close()


async def test_the_time_between_waits_is_nobodys() -> None:
    """The timer rings while the reader is busy elsewhere: it is not cancelled, and its next wait is a whole one."""
    patience = Patience()
    assert await patience.wait(late(1, 0.0), until(0.01)) == 1
    await asyncio.sleep(0.05)
    assert await patience.wait(late(2, 0.03), until(0.2)) == 2
    with pytest.raises(TimeoutError):
        await patience.wait(late(3, 5.0), until(0.02))
    patience.close()


async def test_an_earlier_end_than_that_of_the_wait_before_holds() -> None:
    patience = Patience()
    assert await patience.wait(late(1, 0.0), until(60.0)) == 1
    began = time.monotonic()
    with pytest.raises(TimeoutError):
        await patience.wait(late(2, 5.0), until(0.02))
    assert time.monotonic() - began < 2.0
    patience.close()


async def test_a_wait_that_is_over_before_it_begins_is_late() -> None:
    patience = Patience()
    with pytest.raises(TimeoutError):
        await patience.wait(late(1, 5.0), until(-1.0))
    patience.close()


async def test_who_is_cancelled_is_cancelled() -> None:
    patience = Patience()
    waiting = asyncio.create_task(patience.wait(late(1, 5.0), until(5.0)))
    await asyncio.sleep(0.01)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert not patience.expired
    patience.close()


async def test_two_of_them_around_each_other_know_who_was_late() -> None:
    outer, inner = Patience(), Patience()
    with pytest.raises(TimeoutError):
        await outer.wait(inner.wait(late(1, 5.0), until(5.0)), until(0.02))
    assert (outer.expired, inner.expired) == (True, False)
    with pytest.raises(TimeoutError):
        await outer.wait(inner.wait(late(1, 5.0), until(0.02)), until(5.0))
    assert (outer.expired, inner.expired) == (False, True)
    for patience in (outer, inner):
        patience.close()


async def test_what_was_raised_passes() -> None:
    async def failing() -> None:
        raise ConnectionResetError("gone")

    patience = Patience()
    with pytest.raises(ConnectionResetError, match="gone"):
        await patience.wait(failing(), until(1.0))
    patience.close()
