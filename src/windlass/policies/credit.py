"""Credit: what the reward of a call is worth to each decision in it, for the policies, the scores and who listens."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from windlass.policies.accounts import Account, Accounts, Acted, Key, Metric
from windlass.policies.experiments import Trials
from windlass.policies.loop import DEFAULT_POLICY, Loop, PolicyKey
from windlass.policies.points import NAMED, shadow_place
from windlass.policies.reward import graded, worth
from windlass.policies.score import Row, Scores, weight
from windlass.policies.served import UNTOLD, served_of
from windlass.records import Scope

_NOBODY = frozenset({NAMED, DEFAULT_POLICY})


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

    def __init__(self, loop: Loop, accounts: Accounts, scores: Scores, trials: Trials) -> None:
        self.accounts = accounts
        self.scores = scores
        self.trials = trials
        self.listeners: list[Callable[[Credit], object]] = []
        self._loop = loop
        self._reward = loop.reward
        # Points at which nothing is learned: all their policies are rules.
        self._ruled = loop.points.keys() - loop.taught - loop.costed

    def settle(self, seq: int, calls: Iterable[tuple[Key, Account]]) -> None:
        """Score, and let the policies learn, where the reward of the live decisions of a call has changed."""
        accounts = self.accounts
        for key, account in calls:
            if not account.acted:
                continue
            self.weigh(seq, key, account, accounts.feedback(key, account))

    def weigh(self, seq: int, key: Key, account: Account, feedback: Mapping[Metric, float]) -> None:
        """`settle` of one call of whose decisions some are known, with the feedback on it."""
        earned = worth(account.latency_ms, account.cost_nusd, account.error, feedback, self._reward)
        if earned is None:
            return
        for acted in account.acted:
            reward = earned if not account.instead else self._own(account, acted, earned)
            self._earn(seq, key, account, acted, reward)
        if account.shadowed:
            self._judge(seq, key, account, earned)
        if self._loop.costed:
            self._settle_apart(key, account, feedback)
        if self._loop.watched:
            self._settle_served(key, account)
        if account.assigned:
            self.trials.tell(seq, key, account, feedback, self._reward)

    def _earn(self, seq: int, key: Key, account: Account, acted: Acted, reward: float) -> None:
        """A live decision has earned `reward` by now: count it, and teach it to whoever decided and does not know."""
        point, row = self.accounts.forms.credited[acted.form]
        policy = (key[0], key[1], point)
        if acted.scored != reward:
            self.scores.count(policy, row, 1.0, reward, acted.scored)
            if self.listeners:
                self.tell(seq, policy, acted, row, 1.0, reward, acted.scored)
            acted.scored = reward
        if not account.shadowed and row[0] == self._loop.ids[point] and len(self._loop.places_of[point]) == 1:
            if point in self._ruled:
                self._loop.unteachable(policy)
            elif acted.learned.get(point) != reward and point not in self._loop.costed:
                self._teach(key, acted, policy, reward)
            return
        self._teach_all(key, account, acted, reward)

    def _teach_all(self, key: Key, account: Account, acted: Acted, reward: float) -> None:
        """Teach whoever decided, and whoever inherits it, but those who learn costs apart."""
        point, row = self.accounts.forms.credited[acted.form]
        places = self._deciders(key, account, point, row[0])
        heirs = self._heirs(places, point, row[0])
        for place in (*places, *heirs):
            if place not in self._loop.costed:
                self._teach(key, acted, (key[0], key[1], place), reward, inherited=place in heirs)

    def _settle_apart(self, key: Key, account: Account, feedback: Mapping[Metric, float]) -> None:
        """Teach the policies that learn costs apart from quality what they do not know of a call."""
        forms, costed = self.accounts.forms, self._loop.costed
        quality = graded(account.error, feedback, self._reward)
        for acted in account.acted:
            point, row = forms.credited[acted.form]
            failed_over = account.failed_over(forms[acted.form], acted.action)
            places = self._deciders(key, account, point, row[0])
            heirs = self._heirs(places, point, row[0])
            for place in (*places, *heirs):
                if place not in costed:
                    continue
                inherited = place in heirs
                # What another model cost says nothing of the one that was chosen, nor does a call that came to nothing.
                broken = failed_over or (account.error and not account.cost_nusd)
                if account.cost_nusd is not None and not broken:
                    self._charge(key, acted, place, float(account.cost_nusd), inherited=inherited)
                if failed_over or quality is not None:
                    reward = 0.0 if failed_over else quality or 0.0
                    self._teach(key, acted, (key[0], key[1], place), reward, inherited=inherited)

    def _settle_served(self, key: Key, account: Account) -> None:
        """Tell the guards that watch how calls go what they do not know of this one."""
        forms, watched = self.accounts.forms, self._loop.watched
        for acted in account.acted:
            point, row = forms.credited[acted.form]
            failed_over = account.failed_over(forms[acted.form], acted.action)
            served = served_of(account.first_byte_ms, account.latency_ms, account.error, failed_over=failed_over)
            for place in self._deciders(key, account, point, row[0]):
                previous = acted.served.get(place)
                # A later word that it shows nothing takes back what an earlier one showed.
                shown = UNTOLD if served is None and previous is not None else served
                # None beside the place: it was rolled back to before it knew.
                known = previous == shown or (previous is None and place in acted.served)
                if place not in watched or shown is None or known:
                    continue
                if self._loop.serve(self.accounts.decision(key, acted), shown, previous, place):
                    acted.observed(place, shown)

    def _charge(self, key: Key, acted: Acted, place: str, cost_nusd: float, *, inherited: bool = False) -> None:
        """Tell the policy at `place` what the decision cost, where it does not know."""
        previous = acted.spent.get(place)
        # None beside the place: it was rolled back to before it knew.
        if previous == cost_nusd or (previous is None and place in acted.spent):
            return
        if self._loop.spend(self.accounts.decision(key, acted), cost_nusd, previous, place, inherited=inherited):
            acted.charged(place, cost_nusd)

    def _deciders(self, key: Key, account: Account, point: str, policy: str) -> Sequence[str]:
        """The places whose policy decided in this call at `point`, where `policy` did: live or in shadow."""
        owned = (key[0], key[1], point)
        acting = self._loop.acts(owned, policy)
        if not acting and len(account.acted) > 1:
            forms = (self.accounts.forms[acted.form] for acted in account.acted)
            acting = any(other.point == point and self._loop.acts(owned, other.policy) for other in forms)
        found = (point,) if acting else ()
        return found if not account.shadowed else (*found, *_beside(account, point, acting))

    def _heirs(self, deciders: Sequence[str], point: str, policy: str) -> Sequence[str]:
        """The places of a point whose policy had no part in a decision, by other settings, and learns of it even so.

        Nothing is inherited of a choice that was the client's, nor of a default that nobody chose.
        """
        places = self._loop.places_of[point]
        if len(deciders) == len(places) or policy in _NOBODY:
            return ()
        return [place for place in places if place not in deciders]

    def _teach(self, key: Key, acted: Acted, policy: PolicyKey, reward: float, *, inherited: bool = False) -> None:
        """Let that policy learn what it does not know."""
        place, learned = policy[2], acted.learned
        untaught = self._loop.unteachable(policy)
        if untaught and place not in self.accounts.taught:
            # Nothing is learned at the whole point: who knows what need not be noted of each decision.
            return
        previous = learned.get(place)
        # None beside the place: it was rolled back to before it knew, and learns nothing more of this.
        if previous == reward or (previous is None and place in learned):
            return
        decision = self.accounts.decision(key, acted)
        if untaught or self._loop.learn(decision, reward, previous, place, inherited=inherited):
            acted.taught(place, reward)

    def _judge(self, seq: int, key: Key, account: Account, of_call: float) -> None:
        """Score what was decided in shadow, each against the first live decision of its point in this call."""
        for shadowed in account.shadowed:
            point, _, name = shadowed.place.partition(shadow_place("", ""))
            of_point = (acted for acted in account.acted if self.accounts.forms[acted.form].point == point)
            acted = next(of_point, None)
            if acted is None:
                continue
            reward = self._own(account, acted, of_call)
            if shadowed.scored != reward:
                earned = weight(acted.propensity) if acted.action == shadowed.action else 0.0
                row = (shadowed.policy, name, False)
                place = (key[0], key[1], point)
                self.scores.count(place, row, earned, reward, shadowed.scored)
                if self.listeners and earned > 0.0:
                    self.tell(seq, place, acted, row, earned, reward, shadowed.scored)
                shadowed.scored = reward

    def _own(self, account: Account, acted: Acted, earned: float) -> float:
        """What a decision has earned of what its call has: nothing, where the model that it chose did not answer."""
        return 0.0 if account.failed_over(self.accounts.forms[acted.form], acted.action) else earned

    def tell(
        self, seq: int, place: PolicyKey, acted: Acted, row: Row, weight: float, reward: float, previous: float | None
    ) -> None:
        """Tell all who listen what was just counted."""
        tenant, workspace, point = place
        policy, shadow, live = row
        scope, earned = Scope(tenant, workspace), (weight, reward, previous)
        choice = len(self.accounts.forms[acted.form].actions) > 1
        credit = Credit(seq, scope, acted.at, point, policy, shadow, acted.action, live, *earned, choice)
        for listener in self.listeners:
            listener(credit)


def _beside(account: Account, point: str, acting: bool) -> Iterator[str]:
    """The places of a call that decided in shadow at `point`; the point's own unless it was `acting`."""
    named = shadow_place(point, "")
    for shadowed in account.shadowed:
        if shadowed.place.startswith(named) or (shadowed.place == point and not acting):
            yield shadowed.place
