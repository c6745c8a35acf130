"""Evidence: what the rewards say of a floor, of one content type. The mathematics of the guard in floor.py.

Of each call let p be the probability that the reference had, s the audited share, c a guess of the reference's quality
that was made before the window began, q the share of the reference's quality that the floor is, y the reward. Then

    x = y - q c                                                                another action was taken
    x = -q (y - c) (1 - p) / p  +  (1 - q) y (p - forced) / p                  the reference was taken

where `forced` is the chance with which the guard itself takes the reference (s; 1 - s while the reference acts). Given
the past, x has the mean `(1 - forced) (v - q r)`: v the quality of what the policy inside would take, r that of the
reference, both on this very call. The weights (1 - p) / p are at most (1 - s) / s, since p >= s. That c is a guess
costs no truth: it only takes the noise of a constant out (Robins, Rotnitzky, Zhao, JASA 89, 1994, augmented weighting).
Where the probability of the reference was not what this guard gives, nothing is counted.
"""

from __future__ import annotations

import hashlib
import math
from typing import Final, NamedTuple

import msgspec

from windlass.records import Decision
from windlass.stats.confseq import Wealth, WeightedSums, even

_WARM: Final = 32
"""So many audited calls guess the reference's quality before the first window begins."""
_REMEMBERED: Final = 8_192
"""Decisions of a window whose rewards can still be corrected."""
_SLACK: Final = 1e-9


class FloorTerms(NamedTuple):
    """What is promised. share: of the reference's quality, in (0, 1]. audit: the audited share of calls. margin: in
    quality. window: in audited calls. delta: the chance of each of the two errors."""

    reference: str
    share: float
    audit: float
    margin: float
    window: int
    delta: float


class Evidence(msgspec.Struct, array_like=True):
    """The fold. moved: whether the reference acts. window: its number, 0 for the guess before the first.

    sampled: in this window, the calls that the other one took: the reference, or while it acts the policy inside.
    tries, before: windows of this period so far, and the calls sampled in those that are over.
    since: decisions from before it belong to the phase before. words: why the reference acts, "" if it does not.
    unsure: later ones may belong there too, because rewards come late: the policy inside acts again, and no choice has
    been seen yet that the phase before could not have made.
    counted: hashes of the window's newest decisions, the oldest first.
    """

    below: Wealth
    shown: Wealth
    moved: bool = False
    window: int = 0
    guess: float = 0.5
    calls: int = 0
    sampled: int = 0
    tries: int = 0
    before: int = 0
    alarms: int = 0
    since: float = -math.inf
    words: str = ""
    routed: WeightedSums = msgspec.field(default_factory=WeightedSums)
    reference: WeightedSums = msgspec.field(default_factory=WeightedSums)
    counted: dict[int, None] = msgspec.field(default_factory=dict)
    unsure: bool = False

    def learn(self, decision: Decision, reward: float, previous: float | None, terms: FloorTerms) -> None:
        """One reward, in place of `previous` where there was one. What the window does not know is not corrected."""
        if not self._usable(decision, terms):
            return
        key = int.from_bytes(hashlib.blake2b(decision.id.encode("utf-8", "replace"), digest_size=8).digest())
        known = key in self.counted
        if known != (previous is not None):
            return
        if previous is None:
            self.counted[key] = None
            if len(self.counted) > _REMEMBERED:
                del self.counted[next(iter(self.counted))]
        else:
            self._count(decision, previous, -1, terms)
        self._count(decision, reward, 1, terms)
        self._judge(decision.at, terms)

    def sound(self) -> bool:
        """Whether it can be one that was stored."""
        return self.below.sound() and self.shown.sound() and len(self.counted) <= _REMEMBERED

    def _usable(self, decision: Decision, terms: FloorTerms) -> bool:
        """Whether it was a choice that this guard stood around, in this phase.

        The phase is told by the propensity alone, never by what came of it, so that the bets stay fair.
        """
        p, reference = float(decision.propensity), terms.reference
        # Not `<`: a time that is no number is of no phase.
        if len(decision.actions) < 2 or reference not in decision.actions or not decision.at >= self.since:
            return False
        if self.unsure:
            if _fits(p, terms.audit, moved=True, reference=decision.action == reference):
                return False
            self.unsure, self.since = False, decision.at
        return _fits(p, terms.audit, moved=self.moved, reference=decision.action == reference)

    def _count(self, decision: Decision, value: float, sign: int, terms: FloorTerms) -> None:
        # NaN, which only a `previous` can be, fails both comparisons.
        y = value if 0.0 <= value <= 1.0 else float(value > 1.0)
        q, s, c = terms.share, terms.audit, self.guess
        taken = decision.action == terms.reference
        if taken:
            p = max(float(decision.propensity), s)
            own = max(p - (1.0 - s if self.moved else s), 0.0) / p
            x = (1.0 - q) * y * own - q * (y - c) * (1.0 - p) / p
            self.reference.add(s / p, y, sign)
        else:
            own, x = 1.0, y - q * c
        if own > 0.0:
            self.routed.add(own, y, sign)
        offset = terms.margin * (s if self.moved else 1.0 - s)
        if sign > 0:
            self.below.bet(-x)
            self.shown.bet(x + offset)
        else:
            self.below.take_back(-x)
            self.shown.take_back(x + offset)
        self.calls += sign
        self.sampled += sign * (taken != self.moved)

    def _judge(self, at: float, terms: FloorTerms) -> None:
        """Close the window where it has been decided, or where it is over."""
        seldom = terms.delta / max(self.tries * (self.tries + 1), 1)
        if not self.window:
            if self.sampled >= _WARM:
                self._renew(terms)
        elif self.moved:
            if self.shown.reached(seldom):
                self.moved, self.words, self.since, self.unsure = False, "", at, True
                self._renew(terms, period=True)
            elif self.below.reached(terms.delta) or self.sampled >= terms.window:
                # A window full of what was bad would hide for long that it is good again.
                self._renew(terms)
        elif self.below.reached(seldom):
            self._alarm(at, terms, "it is below the floor")
        elif self.shown.reached(terms.delta):
            self._renew(terms)
        elif self.sampled >= terms.window:
            self._alarm(at, terms, f"not shown to be less than {100 * terms.margin:g} points below the floor")

    def _alarm(self, at: float, terms: FloorTerms, verdict: str) -> None:
        self.alarms += 1
        self.words = f"{self.told(terms)}; {verdict} by {self.sampled} audited calls; alarm {self.alarms}"
        self.moved, self.since, self.unsure = True, at, False
        self._renew(terms, period=True)

    def told(self, terms: FloorTerms) -> str:
        """The window's numbers as one line: `routed 0.71 in [0.66, 0.76], reference large 0.80 in ...`."""
        mean = self.reference.mean()
        floor = "unknown" if mean is None else f"{terms.share * mean:.2f}"
        reference = f"reference {terms.reference} {_words(self.reference, terms.delta)}"
        percent = f"{100 * terms.share:g} % of the reference"
        return f"routed {_words(self.routed, terms.delta)}, {reference}, floor {floor} ({percent})"

    def _renew(self, terms: FloorTerms, *, period: bool = False) -> None:
        """Begin a window, with the reference's quality in the last one as the guess, and maybe a period.

        A period is `terms.window` sampled calls, and the rest of the window in which these are reached. Its n-th window
        may raise a false alarm, or give way to a router that is not good, with a chance of delta / (n (n + 1)), so that
        all of them share in delta.
        """
        self.before += self.sampled
        period = period or not self.window or self.before >= terms.window
        self.tries, self.before = (1, 0) if period else (self.tries + 1, self.before)
        self.guess = min(max((self.reference.wy + 0.5) / (self.reference.w + 1.0), 0.05), 0.95)
        self.window, self.calls, self.sampled = self.window + 1, 0, 0
        self.below, self.shown = _fresh(self.guess, terms)
        self.routed, self.reference, self.counted = WeightedSums(), WeightedSums(), {}


def _fits(p: float, audit: float, *, moved: bool, reference: bool) -> bool:
    """Whether a choice can have had the propensity `p` in that phase: the reference's is at least `audit`, or all but
    `audit` while it acts, and what is left is divided among the others."""
    least = (1.0 - audit if moved else audit) - _SLACK
    return least <= p <= 1.0 if reference else 0.0 < p <= 1.0 - least


def begun(terms: FloorTerms) -> Evidence:
    """Nothing is known yet."""
    return Evidence(*_fresh(0.5, terms))


def _fresh(guess: float, terms: FloorTerms) -> tuple[Wealth, Wealth]:
    """Bets on `below` and `shown`, by how far x can be from 0 on either side."""
    most = (1.0 - terms.audit) / terms.audit
    low = terms.share * max(guess, (1.0 - guess) * most)
    high = max(1.0 - terms.share * guess, terms.share * guess * most, 1.0 - terms.share)
    return even(high), even(low)


def _words(tally: WeightedSums, alpha: float) -> str:
    mean = tally.mean()
    if mean is None:
        return "unknown"
    low, high = tally.interval(alpha)
    return f"{mean:.2f} in [{low:.2f}, {high:.2f}]"
