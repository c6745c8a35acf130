"""Clock stamps of recordings: seconds to `HH:MM:SS` and back."""

from __future__ import annotations

import math
import re

LIMIT_S = 360_000.0
"""No recording is longer than 100 hours; a larger time is a mistake in the data."""

_STAMP = re.compile(r"(?:([0-9]{1,4}):)?([0-9]{1,4}):([0-9]{1,2})(?:[.,]([0-9]{1,9}))?")


def usable(seconds: float) -> bool:
    """Whether `seconds` can be a time in a recording: finite, not negative, below 100 hours."""
    return math.isfinite(seconds) and 0.0 <= seconds < LIMIT_S


def format(seconds: float) -> str:
    """The whole seconds of a time as `HH:MM:SS`, rounded down so that the stamp is never after the words.

    Raises ValueError for a time that is negative, not finite or beyond 100 hours.

    >>> format(430.9)
    '00:07:10'
    """
    if not usable(seconds):
        raise ValueError(f"{seconds} s is not a time in a recording; it must lie in [0, {LIMIT_S:.0f})")
    minutes, second = divmod(int(seconds), 60)
    hour, minute = divmod(minutes, 60)
    return f"{hour:02d}:{minute:02d}:{second:02d}"


def parse(text: str) -> float:
    """Seconds of a stamp `HH:MM:SS` or `MM:SS`, with an optional fraction after a point or comma.

    Without hours the minutes may exceed 59 (`75:30` is an hour and a quarter). Raises ValueError for anything else,
    for minutes or seconds past 59 (`99:99:99`) and for times beyond 100 hours.

    >>> parse("00:07:10")
    430.0
    """
    match = _STAMP.fullmatch(text.strip())
    if match is None:
        raise ValueError(f"{text[:40]!r} is not a time stamp; write HH:MM:SS or MM:SS")
    hour, minute, second, fraction = match.groups()
    if int(second) > 59 or (hour is not None and int(minute) > 59):
        raise ValueError(f"{text[:40]!r} has minutes or seconds past 59; write HH:MM:SS or MM:SS")
    seconds = int(hour or 0) * 3600 + int(minute) * 60 + int(second) + float(f"0.{fraction or 0}")
    if not usable(seconds):
        raise ValueError(f"{text[:40]!r} is beyond 100 hours; correct the stamp")
    return seconds
