"""Budget pacing: the price of money at which the choices of the last requests would have cost what may be spent.

Each request takes the action with the largest `quality - price x cost`. The higher the price (quality per nano-dollar),
the less is spent: summed over a window of requests this is the dual of the linear programme that picks the best
quality for a mean cost, and its only variable is the price (Agrawal, Devanur, "Linear Contextual Bandits with
Knapsacks", NeurIPS 2016, section 3; Badanidiyuru, Kleinberg, Slivkins, "Bandits with Knapsacks", J. ACM 65(3), 2018).
A `Curve` holds mean cost and mean quality at a few prices, so that a request asks it in a microsecond.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from operator import neg

import msgspec
import numpy as np
from numpy.typing import NDArray

_PRICES = 48
_STEEPER = 1.05
"""Beyond the last price at which any choice changes, so that there all take their cheapest."""

Floats = NDArray[np.float64]


class Curve(msgspec.Struct, frozen=True, array_like=True):
    """Mean predicted cost and quality of the window at each price: prices rise, costs and qualities fall.

    best: mean predicted quality of each action that was eligible throughout, by its column.
    """

    prices: tuple[float, ...]
    costs_nusd: tuple[float, ...]
    qualities: tuple[float, ...]
    best: tuple[tuple[int, float], ...]

    def sound(self) -> bool:
        """Whether it can be one that `curve` made: finite numbers, as many of each."""
        numbers = (*self.prices, *self.costs_nusd, *self.qualities, *[mean for _, mean in self.best])
        sizes = {len(self.prices), len(self.costs_nusd), len(self.qualities)}
        return len(sizes) == 1 and bool(self.prices) and all(map(math.isfinite, numbers))

    def price_within(self, allowance_nusd: float) -> float:
        """The lowest price at which the mean cost is at most `allowance_nusd`; the highest where none is enough."""
        falling = self.costs_nusd
        above = bisect_left(falling, -allowance_nusd, key=neg)
        return self._between(above, falling, allowance_nusd)

    def cost_nusd(self, price: float) -> float:
        """The mean cost at `price`, by a straight line between the two nearest."""
        prices, falling = self.prices, self.costs_nusd
        above = bisect_right(prices, price)
        if above == 0 or above == len(prices):
            return falling[max(above - 1, 0)]
        share = (price - prices[above - 1]) / (prices[above] - prices[above - 1])
        return falling[above - 1] + share * (falling[above] - falling[above - 1])

    def price_keeping(self, quality: float) -> float:
        """The highest price at which the mean quality is at least `quality`; the lowest where none is enough."""
        falling = self.qualities
        above = bisect_right(falling, -quality, key=neg)
        return self._between(above, falling, quality)

    def _between(self, place: int, falling: tuple[float, ...], wanted: float) -> float:
        """The price just before `place`, the first that is at or below what is wanted, by a straight line."""
        prices = self.prices
        if place == 0:
            return prices[0]
        if place == len(prices):
            return prices[-1]
        before, after = falling[place - 1], falling[place]
        share = (before - wanted) / (before - after) if before > after else 1.0
        return prices[place - 1] + share * (prices[place] - prices[place - 1])


def curve(quality: Floats, drawn: Floats, cost_nusd: Floats, eligible: NDArray[np.bool_]) -> Curve:
    """The curve of n requests with k actions, each argument (n, k), at least one action eligible per request.

    quality: predicted. drawn: what the choice would go by, the prediction with its exploration. cost_nusd: predicted.
    """
    drawn = np.where(eligible, drawn, -np.inf)
    prices = _prices(drawn, cost_nusd, eligible)
    rows = np.arange(len(drawn))
    taken = np.empty((len(prices), len(drawn)), np.intp)
    for place, price in enumerate(prices):
        taken[place] = np.argmax(drawn - price * cost_nusd, axis=1)
    costs = np.minimum.accumulate(cost_nusd[rows, taken].mean(axis=1))
    qualities = np.minimum.accumulate(quality[rows, taken].mean(axis=1))
    always = np.flatnonzero(eligible.mean(axis=0) >= 0.5)
    means = [(int(column), float(quality[eligible[:, column], column].mean())) for column in always]
    return Curve(tuple(prices.tolist()), tuple(costs.tolist()), tuple(qualities.tolist()), tuple(means))


def _prices(drawn: Floats, cost_nusd: Floats, eligible: NDArray[np.bool_]) -> Floats:
    """0 and so many prices at which choices change, each as often as others; then one at which none does any more."""
    first, second = np.triu_indices(drawn.shape[1], 1)
    both = eligible[:, first] & eligible[:, second]
    gain = np.where(both, drawn[:, first], 0.0) - np.where(both, drawn[:, second], 0.0)
    dearer = cost_nusd[:, first] - cost_nusd[:, second]
    steps = np.sort((gain[both & (gain * dearer > 0.0)] / dearer[both & (gain * dearer > 0.0)]).ravel())
    if not len(steps):
        return np.zeros(1)
    places = np.linspace(0, len(steps) - 1, _PRICES).astype(np.intp)
    return np.concatenate([[0.0], np.unique(steps[places]), [steps[-1] * _STEEPER]])
