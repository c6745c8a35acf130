"""The harm clock: whether a candidate is worse than its baseline, asked after every call, with one chance of error.

Call t goes to the candidate with chance p, by a coin of its own, else to the baseline. Before its value y is known a
yardstick g is fixed, from earlier values alone, that grows with harm: how far y is from the baseline's mean, or the
rank of y among a block of its newest values; in [-1, 1]. The compared number is

    a g(y) of a candidate's value, -b g(y) of a baseline's;    a = min(1, (1 - p) / p), b = min(1, p / (1 - p)).

A margin is taken off what the candidate's value says.

Without harm its mean, given all before, is 0: as p a = (1 - p) b, what g says of a value that is the same under both
variants cancels, however values drift, hang together or are spread, and whatever g is. (The candidate against the
block alone would find harm in whatever falls, as the past was always better.) With harm the mean is min(p, 1 - p)
times what g says of the difference. Over the worst that this call could give, which is known beforehand too, it is a
bet (`confseq.Wealth`): wealth is a martingale of mean 1, or falls, so that it ever reaches 1 / alpha with a chance of
at most alpha (Ville 1939). "No harm" of a bounded metric: the candidate's mean, given the past, is never worse than the
baseline's by more than the margin. Of a ranked one: its values, less the margin, are stochastically no larger.

What it asks for: p is the coin's, so that calls of a unit which keeps its variant are one value. Values may come late,
and for some of the calls only; where that is not alike for both variants, what drifts meanwhile shows.

Corrections: the shares that are staked are fixed, and so is the yardstick of each call, so that a corrected value
counts as if it had been the first. The mean of the wealth at any one moment is then at most 1, if corrections come to
both variants alike. Ville's bound for all moments at once holds for the first values; and for those in force as long
as corrections are fair: on average, given what is known, they speak no more of harm than what they replace. Values of
the baseline may be corrected or left as they were; what they did to later yardsticks stays, and is sound, as a
yardstick may be any that was known beforehand.

Sources: Waudby-Smith, Ramdas, "Estimating means of bounded random variables by betting", JRSS B 86(1), 2024, section 4;
Waudby-Smith, Wu, Ramdas, Karampatziakis, Mineiro, "Anytime-valid off-policy inference for contextual bandits", ACM/IMS
J. Data Science 1(3), 2024, section 2 (bets on what is weighted by its propensity).
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from typing import Final, Literal, TypeAlias

import msgspec

from windlass.stats.confseq import Wealth, even

Kind: TypeAlias = Literal["bounded", "ranked"]
_BLOCK: Final = 16
"""Values in a block. Twice as many find harm after 2 to 4 % fewer calls, and double what is remembered of each."""
_LEAST: Final = 1e-9
"""What a worst number is at least, so that no bet is without limit."""
_MEMORY: Final = 256
"""Of the mean that bounded values are compared with, in values: it follows what drifts."""


class Bet(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """A value as it was compared: what is remembered with the call, so that it can be corrected.

    against: the mean, or the block in ascending order. bet: the number that was bet, of at least -1.
    """

    candidate: bool
    share: float
    against: tuple[float, ...]
    bet: float


class Harm(msgspec.Struct, array_like=True):
    """Evidence that one metric of one candidate is worse than its baseline's.

    kind: bounded for values in [0, 1], compared by their means; ranked for values of at least 0 without a limit, like
    milliseconds. sign: 1 where a high value is harm, -1 where a low one is. margin: so much harm is accepted; of ranked
    values as a share, 0.1 for a tenth. candidates, baselines: values so far. mean, block: what the next value is
    compared with; recent: the baseline's values since that block.
    """

    kind: Kind
    sign: int
    margin: float = 0.0
    candidates: int = 0
    baselines: int = 0
    mean: float = 0.5
    recent: list[float] = []
    block: tuple[float, ...] = ()
    wealth: Wealth = msgspec.field(default_factory=lambda: even(1.0))

    def __post_init__(self) -> None:
        if self.kind not in ("bounded", "ranked") or self.sign not in (-1, 1) or not 0.0 <= self.margin < 1.0:
            told = f"kind {self.kind}, sign {self.sign}, margin {self.margin}"
            raise ValueError(f"{told}; give bounded or ranked, 1 or -1, and a margin of at least 0 and below 1")
        if not (0.0 <= self.mean <= 1.0 and self.wealth.worst == 1.0 and self.wealth.sound()):
            raise ValueError(f"mean {self.mean}, wealth {self.wealth}; give what was stored")

    def note_baseline(self, value: float, share: float) -> Bet:
        """One more value of the baseline. share: the chance that this call had to go to the candidate, if it went to
        one of both. ValueError, and nothing changed, for what is no value or no chance."""
        compared = self._compared(False, share, (self.mean,) if self.kind == "bounded" else self.block, value)
        self.wealth.bet(compared.bet)
        self.baselines += 1
        if self.kind == "bounded":
            self.mean += (value - self.mean) / min(self.baselines + 1, _MEMORY)
            return compared
        self.recent.append(value)
        # The first blocks are of 1, 2, 4 and 8 values, so that the first calls count.
        if len(self.recent) >= min(2 * len(self.block), _BLOCK):
            self.block = tuple(sorted(self.recent))
            if len(self.block) == _BLOCK:
                self.recent = []
        return compared

    def note_candidate(self, value: float, share: float) -> Bet:
        """One more value of the candidate; as above."""
        compared = self._compared(True, share, (self.mean,) if self.kind == "bounded" else self.block, value)
        self.wealth.bet(compared.bet)
        self.candidates += 1
        return compared

    def correct(self, compared: Bet, value: float) -> Bet:
        """Put `value` in the place of the one that gave `compared`. ValueError as above."""
        again = self._compared(compared.candidate, compared.share, compared.against, value)
        self.wealth.take_back(compared.bet)
        self.wealth.bet(again.bet)
        return again

    def evidence(self) -> float:
        """The logarithm of the wealth: what was made of 1 by betting on harm."""
        return self.wealth.log()

    def alarmed(self, alpha: float) -> bool:
        """Whether harm is found now. Without harm there is a chance of at most `alpha` that it ever is; several metrics
        share one chance by having parts of it."""
        return self.wealth.reached(alpha)

    def _compared(self, candidate: bool, share: float, against: tuple[float, ...], value: float) -> Bet:
        if not 0.0 < share < 1.0:
            raise ValueError(f"share {share}; give the candidate's of both, above 0 and below 1")
        odds = share / (1.0 - share)
        a, b = (1.0, odds) if odds <= 1.0 else (1.0 / odds, 1.0)
        if self.kind == "bounded":
            return Bet(candidate, share, against, self._by_mean(candidate, a, b, against[0], value))
        return Bet(candidate, share, against, self._by_rank(candidate, a, b, against, value))

    def _by_mean(self, candidate: bool, a: float, b: float, mean: float, value: float) -> float:
        """The compared number, less the margin, over the worst that this call could have given."""
        if not 0.0 <= value <= 1.0:
            raise ValueError(f"value {value} of a bounded metric; give one in [0, 1]")
        gap = self.sign * (value - mean)
        most = 1.0 - mean if self.sign > 0 else mean
        worst = max(a * (1.0 - most + self.margin), b * most, _LEAST)
        return (a * (gap - self.margin) if candidate else -b * gap) / worst

    def _by_rank(self, candidate: bool, a: float, b: float, block: tuple[float, ...], value: float) -> float:
        """As above; one of `a` and `b` is 1, and that is the worst."""
        if not 0.0 <= value < math.inf:
            raise ValueError(f"value {value} of a ranked metric; give a finite one of at least 0")
        if not block:
            return 0.0
        if candidate and self.margin:
            value = value / (1.0 + self.margin) if self.sign > 0 else value * (1.0 + self.margin)
        rank = (bisect_left(block, value) + bisect_right(block, value)) / len(block) - 1.0
        return self.sign * (a if candidate else -b) * rank
