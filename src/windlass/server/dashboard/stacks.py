"""Drawings of parts over time: how shares, rewards or counts moved; one path for each part keeps a week small."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from markupsafe import Markup

from windlass.server.dashboard.charts import frame, level, nice, stretched, upright

TONES = 6


class Part(NamedTuple):
    """One part over the places of an axis; None where there is nothing to show."""

    name: str
    values: Sequence[float | None]


def stacked(ident: str, title: str, told: str, times: Sequence[int], parts: Sequence[Part], *, shares: bool) -> Markup:
    """Bars of the parts upon each other: as shares of each place, or as counts."""
    sums = [sum(part.values[place] or 0.0 for part in parts) for place in range(len(times))]
    ceiling = 1.0 if shares else nice(max(sums, default=1.0))
    floor = [0.0] * len(times)
    paths: list[tuple[str, list[str]]] = []
    for tone, part in enumerate(parts):
        steps: list[str] = []
        for place, value in enumerate(part.values):
            height = (value or 0.0) / ((sums[place] or 1.0) if shares else ceiling)
            if height > 0.0:
                steps.append(upright(place, floor[place], floor[place] + height))
                floor[place] += height
        paths.append((f"upright t{tone % TONES}", steps))
    labels = ["0", "50 %", "100 %"] if shares else ["0", f"{ceiling / 2:g}", f"{ceiling:g}"]
    return frame(ident, title, told, ceiling, labels, stretched(paths, len(times)), times)


def levels(ident: str, title: str, told: str, times: Sequence[int], parts: Sequence[Part], ceiling: float) -> Markup:
    """A level for each part at each place where it is known, from 0 to `ceiling`."""
    paths = [
        (
            f"level l{tone % TONES}",
            [
                level(place, min(max(value / ceiling, 0.0), 1.0))
                for place, value in enumerate(part.values)
                if value is not None
            ],
        )
        for tone, part in enumerate(parts)
    ]
    labels = ["0", f"{ceiling / 2:g}", f"{ceiling:g}"]
    return frame(ident, title, told, ceiling, labels, stretched(paths, len(times)), times)
