"""What acts at a point of a workspace beside its own policy: a variant of an experiment, or what was shipped for good.

Either is a policy in the place of the innermost one, so that the point's guards and its randomised share stand around
it too: no experiment gets past a budget, a floor or a list of what is allowed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

from windlass.policies.fixed import Fixed, FixedOptions
from windlass.policies.policy import Policy, guards_of
from windlass.policies.trials.assignment import Running, Units
from windlass.policies.trials.plan import Variant
from windlass.records import Decision, Scope


class Appointed(NamedTuple):
    """What decides within a point's guards until somebody says otherwise: always an action, or a shadow's policy."""

    action: str = ""
    shadow: str = ""


@contextmanager
def seated(policy: Policy, inner: Policy) -> Iterator[Policy]:
    """`policy` with `inner` in the place of its innermost; nobody else may use it meanwhile."""
    guards = list(guards_of(policy))
    if not guards:
        yield inner
        return
    last = guards[-1]
    own, last.policy = last.policy, inner
    try:
        yield policy
    finally:
        last.policy = own


def always(action: str) -> Policy:
    """The policy that takes `action`."""
    return Fixed(FixedOptions(action))


def assigned(
    trial: Running, units: Units, scope: Scope, actions: tuple[str, ...], has: Callable[[str], bool]
) -> int | None:
    """The index of the call's variant; None where it is not in the experiment: nobody knows whose it is, or one of the
    variants is not there to be chosen, so that those who get it would not be like those who do not.

    has: whether there is a shadow policy of that name.
    """
    unit = units.of(trial.plan.unit)
    if not unit or len(actions) < 2:
        return None
    for variant in trial.plan.variants:
        if (variant.action and variant.action not in actions) or (variant.shadow and not has(variant.shadow)):
            return None
    return trial.assign(scope.tenant, scope.workspace, unit)


def usual(variant: Variant, standing: Appointed | None) -> Appointed | None:
    """What a variant stands for, None for the point as its settings have it."""
    if variant.action or variant.shadow:
        return Appointed(variant.action, variant.shadow)
    return standing


def recorded(made: Decision, trial: Running, index: int, name: str, id: str) -> Decision:
    """The assignment of the call that `made` acted in: itself a decision, whose propensity is the variant's share."""
    return Decision(
        id=id,
        at=made.at,
        tenant=made.tenant,
        workspace=made.workspace,
        call=made.call,
        point=name,
        policy=trial.id,
        actions=tuple(variant.name for variant in trial.plan.variants),
        action=trial.variant(index).name,
        propensity=trial.shares[index],
        live=True,
        featuriser=f"stage:{trial.stage}",
    )
