"""The decisions of the ledger for `windlass replay`, with what came of each, folded as the policies learn from them."""

from __future__ import annotations

from collections import Counter
from typing import Final

from windlass.ledger.ledger import Ledger
from windlass.policies.accounts import Account, Accounts, Acted, Key
from windlass.policies.logged import Log, Logged
from windlass.policies.loop import DEFAULT_POLICY
from windlass.policies.reward import RewardOptions, graded, worth
from windlass.records import Decision, Scope
from windlass.watch.known import known

NEWEST: Final = 50_000
"""So many calls are looked at unless told otherwise."""


def read(
    ledger: Ledger,
    scope: Scope,
    point: str,
    reward: RewardOptions,
    *,
    since: float | None = None,
    until: float | None = None,
    newest: int = NEWEST,
) -> Log:
    """The live decisions of one tenant's workspace at a point; nobody else's rows are read.

    since, until: of the decisions, in UTC seconds. newest: at most so many calls. What was said late, twice or again
    counts as it does for the policies: the newest of each source and metric.
    """
    accounts = known(ledger, scope, point, newest)
    left_out: Counter[str] = Counter()
    choices: list[Logged] = []
    for key, account in accounts.calls.items():
        for acted in account.acted:
            if (since is not None and acted.at < since) or (until is not None and acted.at >= until):
                continue
            decision = accounts.decision(key, acted)
            if why := _unusable(decision, account):
                left_out[why] += 1
            else:
                choices.append(_logged(accounts, key, account, acted, decision, reward))
    return Log(tuple(choices), dict(sorted(left_out.items())))


def _unusable(decision: Decision, account: Account) -> str:
    """Why a decision says nothing of other policies; '' where it does."""
    if len(decision.actions) < 2:
        return "one action was eligible"
    if decision.policy == DEFAULT_POLICY:
        return "no policy acted (mode off or shadow)"
    if decision.featuriser and not decision.context:
        return "its context was deleted"
    if account.latency_ms is None:
        return "no outcome is known"
    return ""


def _logged(
    accounts: Accounts, key: Key, account: Account, acted: Acted, decision: Decision, reward: RewardOptions
) -> Logged:
    feedback = accounts.feedback(key, account)
    instead = account.failed_over(accounts.forms[acted.form], acted.action)
    # Where another model had to answer, the choice was as good as none.
    error = account.error or ("failed over" if instead else "")
    cost = None if account.cost_nusd is None else float(account.cost_nusd)
    whole = worth(account.latency_ms, account.cost_nusd, error, feedback, reward)
    return Logged(decision, graded(error, feedback, reward), cost, bool(error), whole)
