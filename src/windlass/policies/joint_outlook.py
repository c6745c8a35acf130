"""What the joint Thompson sampler believes of the actions of one call, as numbers and in words."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

_SHOWN = 3
_ONE = "%s %.2f +- %.2f at %.2g USD"
_FORMS = tuple(", ".join([_ONE] * count) for count in range(_SHOWN + 1))


class Outlook(NamedTuple):
    """What is believed of k actions in one context: quality, its deviation, cost; and the price of money.

    means: of all arms, at `places` those of the actions. scores: quality less the price of what it costs. forced: what
    is tried because it is new, None where nothing is.
    """

    means: list[float]
    places: list[int]
    sds: list[float]
    costs_nusd: list[float]
    price: float
    scores: list[float]
    forced: list[float] | None

    def why(self, actions: Sequence[str]) -> str:
        """The likeliest actions with quality, deviation and cost, and what quality is worth; for people."""
        means, places, sds, costs, price = self.means, self.places, self.sds, self.costs_nusd, self.price
        order = sorted(range(len(actions)), key=self.scores.__getitem__, reverse=True)[:_SHOWN]
        numbers: list[str | float] = []
        for i in order:
            numbers += actions[i], means[places[i]], sds[i], costs[i] / 1e9
        form = _FORMS[len(order)]
        if len(actions) > _SHOWN:
            form += f", {len(actions) - _SHOWN} more"
        if price:
            form += f"; 0.01 of quality may cost {1e-11 / price:.2g} USD"
        return form % tuple(numbers)
