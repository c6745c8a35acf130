"""A log as arrays: what a policy would have chosen where others chose, and what is known of what came of that."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from windlass.errors import PolicyError
from windlass.policies.logged import Logged, actions_of
from windlass.policies.policy import Costed, Policy, innermost
from windlass.policies.rule import Rule
from windlass.records import ContextValue
from windlass.stats import cross_fit
from windlass.stats.features import Context, hidden
from windlass.stats.offpolicy import Floats

EXPECTED: Final = "cost_nusd:"
"""Before an action's name: the feature that says what it is expected to cost."""
_FEATURES: Final = 512
_PROBED: Final = 500
_LARGEST: Final = 1e9


class Rows(NamedTuple):
    """The log as arrays: n choices among k actions. eligible: (n, k) of 0 and 1; target: (n, k) the policy's chances.

    elsewhere: why the policy, a rule that names actions, could not do what it was made for; '' where it could.
    """

    actions: tuple[str, ...]
    x: Floats
    eligible: Floats
    action: NDArray[np.intp]
    propensity: Floats
    target: Floats
    elsewhere: str = ""


class Observed(NamedTuple):
    """What is known of one quantity: y: (n,), 0 where unknown; rate: (n,) the chance that it became known, or 0.

    told: (k,) whether anything is known of an action beyond that it failed. model: (n, k) what each would have earned.
    """

    y: Floats
    rate: Floats
    told: NDArray[np.bool_]
    model: Floats
    range: float


def rows_of(choices: Sequence[Logged], policy: Policy, *, learning: bool) -> Rows:
    """Ask `policy` about every decision, and let it learn each after that where `learning`.

    PolicyError where it answers with what is no distribution.
    """
    actions = actions_of(choices)
    column = {action: place for place, action in enumerate(actions)}
    target, eligible = np.zeros((len(choices), len(actions))), np.zeros((len(choices), len(actions)))
    taught = _teacher(policy)
    for place, one in enumerate(choices):
        decision = one.decision
        columns = [column[action] for action in decision.actions]
        target[place, columns] = _distribution(policy, decision.context, decision.actions)
        eligible[place, columns] = 1.0
        if learning:
            taught(one)
    return Rows(
        actions,
        _features([one.decision.context for one in choices]),
        eligible,
        np.array([column[one.decision.action] for one in choices], np.intp),
        np.array([one.decision.propensity for one in choices], np.float64),
        target,
        _elsewhere(policy, choices),
    )


def _elsewhere(policy: Policy, choices: Sequence[Logged]) -> str:
    """What a rule says where it cannot follow what it was told, in more than one of a hundred decisions.

    `fixed` and `split` then take the first eligible action, and that is not what somebody asks who names another one.
    """
    inside = innermost(policy)
    if not isinstance(inside, Rule):
        return ""
    rng = np.random.Generator(np.random.Philox(key=0))
    probed = [one.decision for one in choices[:: -(-len(choices) // _PROBED)]]
    told = [said for one in probed if (said := inside.choose(one.context, one.actions, rng).fallback)]
    return (
        f"{told[0]} in {100 * len(told) / len(probed):.0f} % of the decisions" if 100 * len(told) > len(probed) else ""
    )


def _distribution(policy: Policy, context: Context, actions: Sequence[str]) -> Floats:
    found = np.asarray(policy.probabilities(context, actions), np.float64)
    whole = found.shape == (len(actions),) and bool((found >= -1e-9).all()) and abs(float(found.sum()) - 1.0) < 1e-6
    if not whole:
        raise PolicyError(f"{policy.name} answers {found.tolist()} for {len(actions)} actions; that is no distribution")
    return np.maximum(found, 0.0)


def _teacher(policy: Policy) -> Callable[[Logged], None]:
    """How `policy` is told what came of a decision: with the cost apart if it learns that so."""
    if not (isinstance(policy, Costed) and isinstance(innermost(policy), Costed)):

        def whole(one: Logged) -> None:
            reward = one.quality if one.reward is None else one.reward
            if reward is not None:
                policy.learn(one.decision, reward, None)

        return whole
    costed = policy

    def apart(one: Logged) -> None:
        if one.cost_nusd is not None:
            costed.spend(one.decision, one.cost_nusd, None)
        if one.quality is not None:
            policy.learn(one.decision, one.quality, None)

    return apart


def _features(contexts: Sequence[Context]) -> Floats:
    """(n, d): the named numbers but those of money, which are of another size and belong to single actions.

    What a context lacks is 0 there; beyond `_FEATURES` numbers the rest is left out, in the order in which they came.
    """
    names = list(dict.fromkeys(name for one in contexts for name in one if not hidden(name)))
    blocks, width = [np.zeros((len(contexts), 0))], 0
    for name in names:
        block = _block([one.get(name, 0.0) for one in contexts])[:, : _FEATURES - width]
        width += block.shape[1]
        blocks.append(block)
    return np.concatenate(blocks, axis=1)


def _block(values: Sequence[ContextValue]) -> Floats:
    """(n, width): one feature of every context, a number or a few; shorter ones are filled up with 0."""
    wide = [value if isinstance(value, tuple) else (value,) for value in values]
    width = max(map(len, wide))
    if any(len(value) != width for value in wide):
        wide = [value + (0.0,) * (width - len(value)) for value in wide]
    block = np.array(wide, np.float64).reshape(len(wide), width)
    # As a policy sees them: what is no finite number counts as 0, and squares must stay finite.
    return np.clip(np.nan_to_num(block, nan=0.0, posinf=0.0, neginf=0.0), -_LARGEST, _LARGEST)


def expected_of(choices: Sequence[Logged], actions: tuple[str, ...]) -> Floats:
    """(n, k): what each action was expected to cost by its price, NaN where the context does not say."""
    found = np.full((len(choices), len(actions)), np.nan)
    for place, one in enumerate(choices):
        for arm, action in enumerate(actions):
            guess = one.decision.context.get(f"{EXPECTED}{action}")
            if isinstance(guess, int | float):
                found[place, arm] = guess
    return found


def known_of(
    rows: Rows,
    values: Sequence[float | None],
    always: NDArray[np.bool_],
    expected: Floats | None,
    span: float | None,
) -> Observed:
    """One quantity, with a model of it that is cross-fitted. A value that is not known stands for nothing.

    always: (n,) where a value is known in any case, as that of an error is. expected: (n, k) see `expected_of`. span:
    the largest difference that there can be, None for that of the known values.
    """
    seen = np.array([value is not None for value in values])
    always = always & seen
    y = np.array([value or 0.0 for value in values], np.float64)
    rate, told = np.where(always, 1.0, 0.0), np.zeros(len(rows.actions), bool)
    for arm in range(len(rows.actions)):
        chosen = rows.action == arm
        mine = chosen & ~always
        told[arm] = chosen.any() and (not mine.any() or bool(seen[mine].any()))
        if mine.any():
            rate[mine & seen] = float(seen[mine].mean())
    weight = np.divide(1.0, rate, out=np.zeros_like(rate), where=rate > 0.0)
    model = cross_fit.predictions(rows.x, rows.action, y, weight, len(rows.actions), expected)
    width = float(np.ptp(y[seen])) if seen.any() else 0.0
    return Observed(y, rate, told, model, width if span is None else span)
