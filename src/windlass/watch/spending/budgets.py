"""Which windows of which budgets are looked up, and how often."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from windlass.gateway.access.limits import window
from windlass.gateway.options import LimitOptions
from windlass.watch.spending.store import Window

STEPS_S: Final[Mapping[str, float]] = {"hour": 60.0, "day": 900.0, "month": 21_600.0, "total": 86_400.0}
"""How far the points of a budget lie apart: some 60 to 120 in its window. A minute is over before it is drawn."""


def windows(limits: Iterable[LimitOptions], now: float) -> dict[str, list[Window]]:
    """The windows that are now, of the limits that are budgets, by their names.

    >>> windows([LimitOptions(name="each day", window="day", usd=1.0)], 90_000.0)
    {'each day': [Window(since=86400, step_s=900.0)]}
    """
    found: dict[str, list[Window]] = {}
    for limit in limits:
        if limit.usd is not None and limit.window in STEPS_S:
            one = Window(window(limit.window, now)[0], STEPS_S[limit.window])
            if one not in found.setdefault(limit.name, []):
                found[limit.name].append(one)
    return found
