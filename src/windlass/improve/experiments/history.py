"""The calls that a plan is reckoned from: those of the ledger that its experiment would have counted."""

from __future__ import annotations

from typing import Final

from windlass.improve.experiments.planning import PlainCall
from windlass.ledger.ledger import Ledger
from windlass.policies.account import Account, Key
from windlass.policies.reward import RewardOptions, graded
from windlass.policies.trials.assignment import Units
from windlass.policies.trials.plan import Plan
from windlass.policies.trials.tally import told
from windlass.records import Scope
from windlass.watch.known import known

NEWEST: Final = 20_000
"""So many calls are looked at unless told otherwise."""


def past(
    ledger: Ledger, scope: Scope, plan: Plan, reward: RewardOptions, *, newest: int = NEWEST, after: int = 0
) -> list[PlainCall]:
    """The newest calls that were decided at the plan's point, in the order in which they were. Those of which nobody
    knows whose they are, are left out, as the experiment leaves them out. after: the entry behind which it begins to
    read.
    """
    accounts = known(ledger, scope, plan.point, newest, after=after)
    found = []
    for key, account in accounts.calls.items():
        unit = _unit(key, account).of(plan.unit)
        acted = next((one for one in account.acted if accounts.forms[one.form].point == plan.point), None)
        if unit and acted is not None:
            quality = graded(account.error, accounts.feedback(key, account), reward)
            values = told(quality, account.cost_nusd, account.latency_ms, account.error)
            found.append(PlainCall(acted.at, unit, acted.action, values))
    return found


def _unit(key: Key, account: Account) -> Units:
    return Units(key[2], account.parent, account.user.hex())
