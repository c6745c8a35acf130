"""Credit: what the reward of a call is worth to each decision in it, for the policies, the scores and who listens."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from windlass.policies.accounts import Account, Accounts, Acted, Key
from windlass.policies.forms import Form
from windlass.policies.loop import Loop
from windlass.policies.points import shadow_place
from windlass.policies.reward import worth
from windlass.policies.score import Row, Scores, weight
from windlass.records import Scope


class Credit(NamedTuple):
    """A decision earned `reward`, in place of `previous` (None: its first); `seq` is the entry that made it so.

    A shadow decision earns where the live action was the same; `weight` is what it counts there, 1 for a live one.
    choice: whether there were two or more actions to choose from.
    """

    seq: int
    scope: Scope
    at: float
    point: str
    policy: str
    shadow: str
    action: str
    live: bool
    weight: float
    reward: float
    previous: float | None
    choice: bool


class Credits:
    """Settles accounts: brings scores and policies of `loop` up to what is known of a call now."""

    def __init__(self, loop: Loop, accounts: Accounts, scores: Scores) -> None:
        self.accounts = accounts
        self.scores = scores
        self.listeners: list[Callable[[Credit], object]] = []
        self._loop = loop

    def settle(self, seq: int, calls: Sequence[Key]) -> None:
        """Score, and let the policies learn, where the reward of the live decisions of a call has changed."""
        accounts, options = self.accounts, self._loop.reward
        for key in calls:
            account = accounts.calls[key]
            if not account.acted:
                continue
            feedback = accounts.feedback(key, account)
            earned = worth(account.latency_ms, account.cost_nusd, account.error, feedback, options)
            if earned is None:
                continue
            for acted in account.acted:
                form = accounts.forms.by_number[acted.form]
                reward = earned if not account.instead else _own(account, form, acted, earned)
                if acted.scored != reward:
                    self._score(seq, key, acted, form.point, (form.policy, "", True), 1.0, reward, acted.scored)
                    acted.scored = reward
                for place in self._deciders(account, form):
                    previous = acted.learned.get(place)
                    # None beside the place: it was rolled back to before it knew, and learns nothing more of this.
                    if previous != reward and (previous is not None or place not in acted.learned):
                        self._teach(key, acted, place, reward, previous)
            if account.shadowed:
                self._judge(seq, key, account, earned)

    def _deciders(self, account: Account, form: Form) -> Sequence[str]:
        """The places whose policy decided in this call at the point of `form`, live or in shadow."""
        own = self._loop.ids[form.point]
        acting = form.policy == own
        if acting and not account.shadowed:
            return (form.point,)
        if not acting and len(account.acted) > 1:
            forms = (self.accounts.forms[acted.form] for acted in account.acted)
            acting = any(other.point == form.point and other.policy == own for other in forms)
        found = (form.point,) if acting else ()
        return found if not account.shadowed else (*found, *_beside(account, form.point, acting))

    def _teach(self, key: Key, acted: Acted, place: str, reward: float, previous: float | None) -> None:
        """Let the policy at `place` learn what it does not know."""
        untaught = self._loop.unteachable((key[0], key[1], place))
        if untaught or self._loop.learn(self.accounts.decision(key, acted), reward, previous, place):
            acted.learned[place] = reward

    def _judge(self, seq: int, key: Key, account: Account, of_call: float) -> None:
        """Score what was decided in shadow, each against the first live decision of its point in this call."""
        for shadowed in account.shadowed:
            point, _, name = shadowed.place.partition(shadow_place("", ""))
            of_point = (acted for acted in account.acted if self.accounts.forms[acted.form].point == point)
            acted = next(of_point, None)
            if acted is None:
                continue
            reward = _own(account, self.accounts.forms[acted.form], acted, of_call)
            if shadowed.scored != reward:
                earned = weight(acted.propensity) if acted.action == shadowed.action else 0.0
                row = (shadowed.policy, name, False)
                self._score(seq, key, acted, point, row, earned, reward, shadowed.scored)
                shadowed.scored = reward

    def _score(
        self,
        seq: int,
        key: Key,
        acted: Acted,
        point: str,
        row: Row,
        weight: float,
        reward: float,
        previous: float | None,
    ) -> None:
        self.scores.count((key[0], key[1], point), row, weight, reward, previous)
        if self.listeners and weight > 0.0:
            policy, shadow, live = row
            scope, earned = Scope(key[0], key[1]), (weight, reward, previous)
            choice = len(self.accounts.forms[acted.form].actions) > 1
            credit = Credit(seq, scope, acted.at, point, policy, shadow, acted.action, live, *earned, choice)
            for listener in self.listeners:
                listener(credit)


def _own(account: Account, form: Form, acted: Acted, earned: float) -> float:
    """What a decision has earned of what its call has: nothing, where the model that it chose did not answer."""
    return 0.0 if account.failed_over(form, acted.action) else earned


def _beside(account: Account, point: str, acting: bool) -> Iterator[str]:
    """The places of a call that decided in shadow at `point`; the point's own unless it was `acting`."""
    named = shadow_place(point, "")
    for shadowed in account.shadowed:
        if shadowed.place.startswith(named) or (shadowed.place == point and not acting):
            yield shadowed.place
