"""Scores: what the live decisions of a point earned, and what each shadow policy would have earned in their stead.

A shadow policy decides by itself, with dice of its own, and is not acted upon. Where it chose what the live decision
did, which was taken with propensity p, the reward r counts with the weight w = 1 / p, at most `MAX_WEIGHT`:

    value = sum w r / sum w        half width = 1.96 sqrt(sum w^2 (r - value)^2) / sum w

The self-normalised inverse-propensity estimator: Swaminathan, Joachims, "The Self-Normalized Estimator for
Counterfactual Learning", NIPS 2015, section 4; its variance by the delta method: Owen, "Monte Carlo theory, methods
and examples", 2013, section 9.2; clipped weights: Ionides, "Truncated Importance Sampling", JCGS 2008. For the live
decisions all weights are 1, and it is their mean.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Final, TypeAlias

import msgspec

from windlass.policies.loop import PolicyKey

MAX_WEIGHT = 100.0
_MAX_ROWS = 64
_NORMAL_95 = 1.96

Row: TypeAlias = tuple[str, str, bool]
"""(policy id, name of the shadow policy or "", live)."""


class Score(msgspec.Struct, frozen=True, kw_only=True):
    """How one policy did at a point.

    shadow: its name among the point's shadow policies; "" for the point's own policy and for the default. decisions:
    those with a known reward; matched: those among them where the live action was the same (all, if live). value:
    estimated mean reward, None without a match; half_width: of its 95 % interval by the normal approximation, None
    below two matches and worth little below some thirty. mean_weight: near 1 where the live decisions left a chance
    for everything this policy would do; far from 1, the value only speaks of the calls where both agreed.
    """

    policy: str
    shadow: str
    live: bool
    decisions: int
    matched: int
    value: float | None
    half_width: float | None
    mean_weight: float


def foremost(scores: Iterable[Score]) -> Score | None:
    """The live policy that others are compared with: the one that decided most, and not a default that filled in for an
    hour. None where nothing was live."""
    return max((one for one in scores if one.live), key=lambda one: one.decisions, default=None)


Sums: TypeAlias = tuple[int, int, float, float, float, float, float]
"""Over decisions with weight w and reward r: all, those that matched, and the sums of w, w r, w^2, w^2 r, w^2 r^2.

Unpacked and made anew, which takes half the time of seven attributes that change."""
_NOTHING: Final[Sums] = (0, 0, 0.0, 0.0, 0.0, 0.0, 0.0)
StoredScores: TypeAlias = list[tuple[PolicyKey, list[tuple[Row, Sums]]]]


class Scores:
    """The sums behind the scores, by (tenant, workspace, point) and row; at most `_MAX_ROWS` rows of each point."""

    def __init__(self, stored: StoredScores | None = None) -> None:
        self._rows: dict[PolicyKey, dict[Row, Sums]] = {key: dict(rows) for key, rows in stored or []}

    def stored(self) -> StoredScores:
        return [(key, list(rows.items())) for key, rows in self._rows.items()]

    def count(self, key: PolicyKey, row: Row, weight: float, reward: float, previous: float | None) -> None:
        """One decision earned `reward`. weight: 0 where it did not match; previous: what was counted for it before."""
        rows = self._rows.get(key)
        if rows is None:
            rows = self._rows[key] = {}
        sums = rows.get(row)
        if sums is None:
            if previous is not None:
                # Its row went, with what this reward would replace.
                return
            if len(rows) >= _MAX_ROWS:
                del rows[next(iter(rows))]
            sums = _NOTHING
        if weight == 1.0 and previous is None:
            # What nearly all live decisions come to: `_counted` without what changes nothing.
            decisions, matched, w, wr, ww, wwr, wwrr = sums
            earned = wwrr + reward * reward
            rows[row] = (decisions + 1, matched + 1, w + 1.0, wr + reward, ww + 1.0, wwr + reward, earned)
        else:
            rows[row] = _counted(sums, weight, reward, previous)

    def of(self, key: PolicyKey) -> list[Score]:
        """The live rows first, then by name."""
        found = [_score(row, sums) for row, sums in self._rows.get(key, {}).items()]
        return sorted(found, key=lambda score: (not score.live, score.shadow, score.policy))


def weight(live_propensity: float) -> float:
    """What a matching decision counts; 0 for a propensity that is none."""
    return min(1.0 / live_propensity, MAX_WEIGHT) if 0.0 < live_propensity <= 1.0 else 0.0


def _counted(sums: Sums, weight: float, reward: float, previous: float | None) -> Sums:
    """The sums with one more decision, or with another reward of one."""
    decisions, matched, w, wr, ww, wwr, wwrr = sums
    if previous is None:
        decisions += 1
        matched += weight > 0.0
        w += weight
        ww += weight * weight
        previous = 0.0
    if weight > 0.0:
        wr += weight * (reward - previous)
        wwr += weight * weight * (reward - previous)
        wwrr += weight * weight * (reward * reward - previous * previous)
    return decisions, matched, w, wr, ww, wwr, wwrr


def _score(row: Row, sums: Sums) -> Score:
    policy, shadow, live = row
    decisions, matched, w, wr, ww, wwr, wwrr = sums
    value = half_width = None
    if w > 0.0:
        value = min(max(wr / w, 0.0), 1.0)
        if matched > 1:
            # Rewards that were replaced leave rounding behind, which must not become a negative variance.
            spread = max(wwrr - 2.0 * value * wwr + value * value * ww, 0.0)
            half_width = _NORMAL_95 * math.sqrt(spread) / w
    return Score(
        policy=policy,
        shadow=shadow,
        live=live,
        decisions=decisions,
        matched=matched,
        value=value,
        half_width=half_width,
        mean_weight=w / decisions if decisions > 0 else 0.0,
    )
