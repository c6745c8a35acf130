"""The multiplier that paces a budget, as the live policy told it of its newest choices, and its drawing.

Read from what was recorded with each decision, so that it is what acted then, whatever is believed by now.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

from markupsafe import Markup

from windlass.gateway.route.features import ALLOWANCE
from windlass.records import Decision
from windlass.server.dashboard import words
from windlass.server.dashboard.charts import PLOT_PX, frame, nice, stretched
from windlass.server.dashboard.svg import element
from windlass.server.held import cost_words, worth

ACROSS = 1_000
_PRICE = re.compile(r"0\.01 of quality may cost ([0-9.]+(?:e[+-]?[0-9]+)?) USD")
_COSTS = re.compile(r" at [0-9.]+(?:e[+-]?[0-9]+)? USD")


class Multiplier(NamedTuple):
    """What paced one choice. quality_per_usd: what a dollar more had to bring; allowance: what the budget left for a
    call, in words, "" without one."""

    at: float
    quality_per_usd: float
    allowance: str

    @property
    def told(self) -> str:
        return worth(self.quality_per_usd)

    @property
    def number(self) -> str:
        return number(self.quality_per_usd)


def paces(decisions: Sequence[Decision]) -> list[Multiplier]:
    """Of decisions, the newest first, those whose policy weighed costs; the oldest first."""
    found = (_pace(decision) for decision in reversed(decisions))
    return [one for one in found if one is not None]


def drawing(ident: str, shown: Sequence[Multiplier]) -> Markup:
    """The multiplier over time, from 0 to the largest; nothing where two choices are not apart."""
    if len(shown) < 2 or shown[-1].at <= shown[0].at:
        return Markup("")
    begin, span = shown[0].at, shown[-1].at - shown[0].at
    ceiling = nice(max(one.quality_per_usd for one in shown))
    points = [(ACROSS * (one.at - begin) / span, PLOT_PX * (1 - one.quality_per_usd / ceiling)) for one in shown]
    line = "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in points)
    labels = ["0", number(ceiling / 2), number(ceiling)]
    ends = (("0%", begin, "start"), ("100%", shown[-1].at, "end"))
    under = [element("text", words.clock(at), x=x, y=PLOT_PX + 18, text_anchor=anchor) for x, at, anchor in ends]
    told = f"{_told(shown[0])} at first, {_told(shown[-1])} at last, {number(ceiling)} at the top of the scale."
    title = "Quality that a dollar more had to bring"
    return frame(ident, title, told, ceiling, labels, [*stretched([("burnt", [line])], ACROSS), *under], ())


def number(quality_per_usd: float) -> str:
    """A multiplier to the digits that count.

    >>> number(90.909), number(123_456.7), number(0.0)
    ('90.9', '123,457', '0')
    """
    return f"{quality_per_usd:,.0f}" if quality_per_usd >= 1_000.0 else f"{quality_per_usd:.3g}"


def _told(one: Multiplier) -> str:
    return f"{number(one.quality_per_usd)} per dollar"


def _pace(decision: Decision) -> Multiplier | None:
    why = str(decision.extra.get("why", ""))
    price = _PRICE.search(why)
    if price is None and _COSTS.search(why) is None:
        return None  # it tells no costs: another policy, or another reason than these numbers
    usd = float(price[1]) if price is not None else 0.0
    allowed = decision.context.get(ALLOWANCE)
    left = cost_words(allowed) if isinstance(allowed, float | int) else ""
    return Multiplier(decision.at, 0.01 / usd if usd > 0.0 else 0.0, left)
