"""Evaluation: what another policy would have cost, and how good its answers would have been, on logged decisions.

Cost and quality are two questions with an answer, or a refusal, each. A choice of which the cost or the quality is not
known stands in the log with the others: those of the same action that are known count for it, as if it had been chance
who was rated. Errors count with quality 0, rated or not.

What is answered is the mean over calls like the logged ones. The value that is told is the doubly robust one, as the
one that covered best and erred least of those without a bias (benchmarks/replay.py); the others stand beside it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Final

import msgspec
import numpy as np

from windlass.policies.log_arrays import Observed, Rows, expected_of, known_of, rows_of
from windlass.policies.logged import Logged
from windlass.policies.policy import Policy
from windlass.stats import betting, offpolicy
from windlass.stats.offpolicy import LEVEL, Estimate, Floats, Overlap

NEEDED: Final = 200.0
"""Least effective sample size."""
UNCOVERED: Final = 0.01
"""Largest share of a policy's choices that the log may say nothing of; it widens the intervals by what it could be."""
TOO_FEW, TOO_MANY = -4.0, 5.0
"""Standard errors that the mean weight may be off 1: below it chances are missing, above it they are not true."""
_CERTAIN: Final = 1.0 - 1e-9


class Judgement(msgspec.Struct, frozen=True, kw_only=True):
    """What a log says of one quantity. refused: why it says nothing, in words; then there are no figures.

    known: decisions with a known value. uncovered: share of the policy's choices where the log leaves no chance.
    clipped: mean weight that a cap took away. was: of what was logged. value: of the policy, doubly robust. change:
    value - was, with the interval of their difference. sure: an interval that holds for any sample size; only of
    what is known to be within [0, 1] and without a cap. values: by estimator.
    """

    refused: tuple[str, ...]
    known: int
    uncovered: float
    overlap: Overlap
    clipped: float = 0.0
    was: Estimate | None = None
    value: Estimate | None = None
    change: Estimate | None = None
    sure: tuple[float, float] | None = None
    values: Mapping[str, Estimate] = {}


class Placed(msgspec.Struct, frozen=True, kw_only=True):
    """One action taken always, as the log has it; None where it is not known."""

    action: str
    chosen: int
    cost: Estimate | None
    quality: Estimate | None


class Evaluation(msgspec.Struct, frozen=True, kw_only=True):
    """All that a log says of a policy. Costs in nano-dollars a call; quality in [0, 1]."""

    decisions: int
    cost: Judgement
    quality: Judgement
    fixed: tuple[Placed, ...] = ()


def evaluate(
    choices: Sequence[Logged], policy: Policy, *, learning: bool = False, cap: float | None = None
) -> Evaluation:
    """What `policy` would have cost and achieved where `choices` were logged.

    learning: let it learn each decision once it was asked about it, as a policy in shadow does; else it stays as it
    is. cap: cut weights above it, which is told; None cuts none. PolicyError where the policy answers with what is no
    distribution.
    """
    if not choices:
        return Evaluation(decisions=0, cost=_nothing(), quality=_nothing())
    rows = rows_of(choices, policy, learning=learning)
    costs = [one.cost_nusd for one in choices]
    quality = [one.quality for one in choices]
    failed = np.array([one.failed for one in choices])
    expected = expected_of(choices, rows.actions)
    spent = known_of(rows, costs, np.zeros(len(choices), bool), expected, None)
    rated = known_of(rows, quality, failed, None, 1.0)
    return Evaluation(
        decisions=len(choices),
        cost=_answer(rows, spent, cap, bounded=False, missing="no cost is known of any decision in this log"),
        quality=_answer(rows, rated, cap, bounded=True, missing=_UNRATED),
        fixed=tuple(_placed(rows, spent, rated, arm) for arm in range(len(rows.actions))),
    )


_UNRATED: Final = "nobody and nothing said how good the answers were, so only cost can be answered"


def _nothing() -> Judgement:
    why = "the log holds no decision among several actions that was left to chance"
    return Judgement(refused=(why,), known=0, uncovered=0.0, overlap=offpolicy.overlap(np.zeros(1)))


def _answer(rows: Rows, known: Observed, cap: float | None, *, bounded: bool, missing: str) -> Judgement:
    seen = int((known.rate > 0.0).sum())
    blind = not known.told.any()
    uncovered = _uncovered(rows, known, rows.target)
    raw = offpolicy.weights(rows.target, rows.action, rows.propensity, known.rate)
    overlap = offpolicy.overlap(raw)
    if blind:
        refused: tuple[str, ...] = (missing,)
    elif rows.elsewhere:
        refused = (f"no overlap: {rows.elsewhere}; name an action that the log knows",)
    else:
        refused = refusals(overlap, float(uncovered.mean()), _where(rows, uncovered))
    w = raw if cap is None else np.minimum(raw, cap)
    clipped = float((raw - w).mean())
    found = Judgement(refused=refused, known=seen, uncovered=float(uncovered.mean()), overlap=overlap, clipped=clipped)
    if refused:
        return found
    widened = known.range * (float(uncovered.mean()) + clipped)
    most = 1.0 if bounded else math.inf
    values = {name: _wider(value, widened, most) for name, value in _values(rows, known, w).items()}
    ours = offpolicy.doubly_robust(w, known.y, rows.target, known.model, rows.action)
    was = _as_logged(rows, known)
    return msgspec.structs.replace(
        found,
        was=_wider(offpolicy.interval(was), 0.0, most),
        value=values["doubly robust"],
        change=_wider(offpolicy.interval(ours - was), widened, math.inf, -math.inf),
        sure=_sure(w, known, widened) if bounded and cap is None else None,
        values=values,
    )


def refusals(overlap: Overlap, uncovered: float, where: str = "") -> tuple[str, ...]:
    """Why logged choices cannot answer for a policy, in words; () where they can. uncovered: see `Judgement`."""
    found = []
    if uncovered > UNCOVERED:
        found.append(
            f"no overlap: the policy makes {100 * uncovered:.1f} % of its choices where the log leaves no chance"
            f"{where}; give the logging policy a randomised share and log again"
        )
    if overlap.size < NEEDED:
        found.append(
            f"too few: the log is worth {overlap.size:.0f} choices of this policy (effective sample size), and "
            f"{NEEDED:.0f} are needed; log more, or with a larger randomised share"
        )
    elif overlap.deviation < TOO_FEW:
        found.append(
            f"no overlap: the weights average {overlap.mean_weight:.3f} in place of 1, so some of the policy's choices "
            "could not happen in the log, such as those of models that a guard left out"
        )
    elif overlap.deviation > TOO_MANY:
        found.append(
            f"the weights average {overlap.mean_weight:.3f} in place of 1, so the recorded propensities are not the "
            "chances with which the log's choices were made"
        )
    return tuple(found)


def _uncovered(rows: Rows, known: Observed, target: Floats) -> Floats:
    """(n,): chances that the policy gives to actions of which nothing is known, or that could not happen then."""
    own = np.arange(len(rows.actions))[None, :] == rows.action[:, None]
    forced = (rows.propensity >= _CERTAIN)[:, None] & ~own
    return np.asarray(np.where(~known.told[None, :] | forced, target, 0.0).sum(axis=1), np.float64)


def _where(rows: Rows, uncovered: Floats) -> str:
    if not (rows.propensity >= _CERTAIN).any():
        never = [action for arm, action in enumerate(rows.actions) if not (rows.action == arm).any()]
        return f" ({', '.join(never[:5])} was never chosen)" if never else ""
    return f" ({int((uncovered > 0.0).sum())} of {len(uncovered)} decisions)"


def _values(rows: Rows, known: Observed, w: Floats) -> dict[str, Estimate]:
    """Every estimator by its name. The direct one has the spread of the model's answers, which is not its error."""
    y, target, model, action = known.y, rows.target, known.model, rows.action
    return {
        "inverse propensity": offpolicy.interval(offpolicy.ips(w, y)),
        "self-normalised": offpolicy.interval(offpolicy.self_normalised(w, y)),
        "direct": offpolicy.interval(offpolicy.direct(target, model)),
        "doubly robust": offpolicy.interval(offpolicy.doubly_robust(w, y, target, model, action)),
        "self-normalised doubly robust": offpolicy.interval(offpolicy.self_normalised_dr(w, y, target, model, action)),
        "SWITCH": offpolicy.tuned(offpolicy.switch, w, y, target, model, action),
        "DRos": offpolicy.tuned(offpolicy.shrunk, w, y, target, model, action),
    }


def _as_logged(rows: Rows, known: Observed) -> Floats:
    """Contributions (n,) to the mean of what was logged, which is known itself wherever nothing is missing."""
    own = np.eye(len(rows.actions))[rows.action]
    w = np.divide(1.0, known.rate, out=np.zeros_like(known.rate), where=known.rate > 0.0)
    return offpolicy.doubly_robust(w, known.y, own, known.model, rows.action)


def _sure(w: Floats, known: Observed, widened: float) -> tuple[float, float] | None:
    """None where something is not known: that others stand for it holds only as far as they are like it."""
    if not (known.rate == 1.0).all():
        return None
    low, high = betting.weighted_mean(w, known.y, LEVEL)
    return low, min(high + widened, 1.0)


def _wider(estimate: Estimate, by: float, most: float, least: float = 0.0) -> Estimate:
    """Ends further off by so much, and within what is possible; the value itself is left as it is."""
    low, high = estimate.low - by, estimate.high + by
    return estimate._replace(low=min(max(low, least), most), high=max(min(high, most), least))


def _placed(rows: Rows, spent: Observed, rated: Observed, arm: int) -> Placed:
    """What the log says of taking one action always, where it is eligible nearly always."""
    target = np.zeros_like(rows.target)
    target[:, arm] = rows.eligible[:, arm]
    # Where it was not eligible, what was chosen stays.
    elsewhere = rows.eligible[:, arm] == 0.0
    target[elsewhere, rows.action[elsewhere]] = 1.0
    swapped = rows._replace(target=target, propensity=np.where(elsewhere, 1.0, rows.propensity))
    found = [
        None if elsewhere.mean() > UNCOVERED else _placed_at(swapped, known, most)
        for known, most in ((spent, math.inf), (rated, 1.0))
    ]
    chosen = int((rows.action == arm).sum())
    return Placed(action=rows.actions[arm], chosen=chosen, cost=found[0], quality=found[1])


def _placed_at(rows: Rows, known: Observed, most: float) -> Estimate | None:
    w = offpolicy.weights(rows.target, rows.action, rows.propensity, known.rate)
    uncovered = float(_uncovered(rows, known, rows.target).mean())
    if refusals(offpolicy.overlap(w), uncovered):
        return None
    value = offpolicy.interval(offpolicy.doubly_robust(w, known.y, rows.target, known.model, rows.action))
    return _wider(value, known.range * uncovered, most)
