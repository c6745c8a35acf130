"""What the policy of the point `model` is held to now: the price of money that paces it, the floors that it keeps.

Read from the policy itself, with its guards, of one scope. Nothing is chosen and nothing learned.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from windlass.gateway.gateway import POINT
from windlass.policies.floor import Floor, FloorReport
from windlass.policies.joint import JointThompson
from windlass.policies.loop import Loop
from windlass.policies.policy import Guard, Policy
from windlass.policies.slo import Slo
from windlass.policies.slo_terms import SloReport
from windlass.records import Scope
from windlass.stats.dollars import dollars
from windlass.stats.features import Context

_POINT_OF_QUALITY = 0.01
_NUSD_PER_USD = 1e9
_DEAREST = 1e15
"""Quality per dollar: above any price that means something, and a number that JSON can hold."""
_DIGITS = 2


class Held(msgspec.Struct, frozen=True, kw_only=True):
    """quality_per_usd: what one dollar more for a call has to bring in quality now; None where the policy weighs no
    costs. expected_nusd: what it expects a call of each action to cost, () where it learns no costs. floors: what its
    guards `floor` know, outermost first, () before the first reward. service: how each action keeps the limits of its
    guards `service`, None where it has none."""

    quality_per_usd: float | None = None
    expected_nusd: tuple[float, ...] = ()
    floors: tuple[FloorReport, ...] = ()
    service: tuple[SloReport, ...] | None = None


def held(loop: Loop, scope: Scope, context: Context, actions: Sequence[str], place: str = POINT) -> Held:
    """What the policy of a scope is held to where it chooses among `actions`; without any, its floors alone.

    Nothing of a policy that fails to say; that is counted. PolicyError for an unknown place.
    """
    return loop.look(place, scope, lambda policy: _of(policy, context, actions)) or Held()


def worth(quality_per_usd: float) -> str:
    """The price of money, in words.

    >>> worth(0.0)
    'cost does not count now: the best quality is taken'
    >>> worth(20.0), worth(1e15)
    ('0.01 of quality may cost 0.0005 USD more a call now', 'no quality may cost more now: the cheapest is taken')
    """
    if quality_per_usd <= 0.0:
        return "cost does not count now: the best quality is taken"
    nusd = _POINT_OF_QUALITY / quality_per_usd * _NUSD_PER_USD
    if nusd < 1.0:
        return "no quality may cost more now: the cheapest is taken"
    return f"{_POINT_OF_QUALITY:g} of quality may cost {cost_words(nusd)} more a call now"


def cost_words(nusd: float) -> str:
    """An expected cost, to two digits that count: `0.0007 USD`.

    >>> cost_words(712_345.0), cost_words(0.0), cost_words(12_345_678_900.0)
    ('0.00071 USD', '0 USD', '12 USD')
    """
    whole = round(nusd)
    return f"{dollars(round(whole, _DIGITS - len(str(abs(whole)))))} USD"


def floor_words(report: FloorReport) -> str:
    """What is known of one floor, as a sentence without its full stop."""
    whose = f"floor of {report.content}" if report.content else "floor"
    acts = f"; the reference acts: {report.why}" if report.moved else ""
    return f"{whose}: {report.told}; window {report.window}, {report.audited} audited calls{acts}"


def service_words(report: SloReport) -> str:
    """How an action keeps one limit, as a sentence without its full stop.

    >>> service_words(SloReport("big", 0.95, 4_210.0, 3_000.0, 120.0, kept=False))
    'big left out: p95 4.2 s, limit 3 s, over 120 calls'
    """
    return f"{report.action} {'keeps' if report.kept else 'left out'}: {report.words}"


def _of(policy: Policy, context: Context, actions: Sequence[str]) -> Held:
    floors: tuple[FloorReport, ...] = ()
    service: tuple[SloReport, ...] | None = None
    while isinstance(policy, Guard):
        floors += policy.reports() if isinstance(policy, Floor) else ()
        if isinstance(policy, Slo):
            service = (*(service or ()), *policy.reports(context, actions))
        context, policy = policy.shown(context), policy.policy
    if not (isinstance(policy, JointThompson) and actions):
        return Held(floors=floors, service=service)
    return Held(
        quality_per_usd=min(policy.price(context) * _NUSD_PER_USD, _DEAREST),
        expected_nusd=policy.costs_nusd(context, actions),
        floors=floors,
        service=service,
    )
