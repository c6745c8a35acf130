"""Policies in shadow beside the live one: what each would have earned more, and the regret that comes to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from windlass.policies.score import Score, foremost


@dataclass(frozen=True)
class Against:
    """A shadow policy against the live one. gain: by how much more it would have earned on average.

    regret: of what was live, over all its choices; doubt: half of its 95 % interval, as wide as both intervals are.
    """

    score: Score
    gain: float | None
    regret: float | None = None
    doubt: float | None = None


def against(scores: Sequence[Score]) -> list[Against]:
    """Every policy of the point against the one that was live most."""
    live = foremost(scores)
    return [Against(one, None) if one.live or live is None else _compared(one, live) for one in scores]


def _compared(one: Score, live: Score) -> Against:
    if one.value is None or live.value is None:
        return Against(one, None)
    gain, widths = one.value - live.value, (one.half_width, live.half_width)
    known = [width for width in widths if width is not None]
    doubt = sum(known) * live.decisions if len(known) == len(widths) else None
    return Against(one, gain, gain * live.decisions, doubt)
