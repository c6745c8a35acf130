"""Accounts: what is known of each call, so that a reward which comes late finds the decisions it belongs to.

Kept as small as a correction allows: of a live decision what a policy learns from, its context, where there is such a
policy, as raw float64 and all that decisions have in common once (forms.py); of a shadow decision its action; of a
user a digest. Nothing here can
form a ring, so the structs ask no time of the garbage collector.
"""

from __future__ import annotations

import hashlib
import sys
from collections import OrderedDict, deque
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Final, Never, TypeVar

import msgspec

from windlass.ledger.folded import FoldedCall, FoldedDecision, FoldedErasure, FoldedFeedback, FoldedOutcome, OutcomeForm
from windlass.policies.account import (
    MODELS,
    Account,
    Acted,
    Key,
    Metric,
    Note,
    Shadowed,
    StoredAccounts,
    Touched,
)
from windlass.policies.forms import Form, Forms, pack, unpack
from windlass.policies.loop import acting_id
from windlass.policies.reward import read
from windlass.policies.trials.tally import Assigned
from windlass.records import Decision, Erasure, Scope, user_digest

__all__ = ["MODELS", "NO_FEEDBACK", "Account", "Accounts", "Acted", "Key", "Metric", "StoredAccounts", "Touched"]

# One feedback moves at most this much, so that no chain or crowd of calls can hold up the others' decisions.
_MAX_DEPTH = 8
_MAX_CREDITED = 1_000
# Distinct (source, metric) pairs of one target, decisions of one call; whoever sends more is not rating or deciding.
_MAX_METRICS = 64
MAX_DECISIONS = 64
_DIGESTS_AT_HAND = 1_000
K = TypeVar("K")
V = TypeVar("V")


class Accounts:
    """At most `window` calls, feedback targets and feedback ids; the oldest in ledger order go first.

    What comes later for a call that went changes nothing. taught: the points whose decisions keep their contexts.
    timed: whether anybody wants to know how long calls took.
    """

    def __init__(
        self, window: int, stored: StoredAccounts | None = None, taught: Collection[str] = (), timed: bool = False
    ) -> None:
        self.window = window
        self.taught = taught
        self._timed = timed
        self.calls: dict[Key, Account] = dict(stored.calls if stored else ())
        # The keys of `calls` in their order: a dict finds its oldest by passing over all that went before it, 16 us
        # once the window is full, and an OrderedDict takes three times as long to add one.
        self._oldest = deque(self.calls)
        notes = ((key, dict(notes)) for key, notes in stored.notes) if stored else ()
        self.notes: OrderedDict[Key, dict[Metric, Note]] = OrderedDict(notes)
        self._seen: OrderedDict[bytes, None] = OrderedDict.fromkeys(stored.seen if stored else ())
        used = (acted.form for account in self.calls.values() for acted in account.acted)
        self.forms = Forms(stored.forms, used, stored.next_form) if stored else Forms((), (), 0)
        self._digests: dict[tuple[str, str, str], bytes] = {}
        self._children: dict[Key, set[str]] = {}
        for key, account in self.calls.items():
            self._adopt(key, account.parent)

    def let_go(self) -> None:
        """Of what no policy learns from, contexts and lessons: a state may hold some that was kept before they were
        left out."""
        for account in self.calls.values():
            for acted in account.acted:
                form = self.forms[acted.form]
                if form.point in self.taught:
                    continue
                acted.learned = UNTAUGHT
                if form.names:
                    acted.form, acted.values = self.forms.take(form._replace(names=(), lengths=())), b""
        self._number()

    def stored(self) -> StoredAccounts:
        """What a restart needs. Forms are numbered anew, by their first use: the same accounts give the same bytes,
        whatever went before them."""
        self._number()
        notes = [(key, list(notes.items())) for key, notes in self.notes.items()]
        return StoredAccounts(list(self.calls.items()), notes, list(self._seen), self.forms.stored(), self.forms.next)

    def open(self, call: FoldedCall) -> Touched:
        """The call began; who stands above it is known from the first record that says so.

        Returns, like `act`, `shadow`, `end` and `note`, the calls whose rewards may have changed.
        """
        key = (call.tenant, call.workspace, call.id)
        account = self.calls.get(key)
        if account is None:
            # Each row brings strings of its own; so many calls share few owners.
            account = self._opened((sys.intern(key[0]), sys.intern(key[1]), key[2]), call.seq)
        if call.user and not account.user:
            account.user = self._digest(call)
        if call.parent and not account.parent:
            account.parent = call.parent
            self._adopt(key, call.parent)
        return self._beneath(key) if account.acted or (self._children and key in self._children) else ()

    def knows(self, key: Key) -> bool:
        """Whether anything was told or said of the call before, or of what was called for it."""
        return key in self.calls or key in self.notes or bool(self._children and key in self._children)

    def whole(
        self, key: Key, call: FoldedCall, acted: tuple[Acted, ...], outcome: FoldedOutcome, error: str, instead: str
    ) -> Account:
        """`open`, `act` and `end` in one go, of a call without a parent of which nothing is known."""
        user = self._digest(call) if call.user else b""
        latency_ms, cost_nusd = outcome.latency_ms, outcome.cost_nusd
        account = Account(call.seq, "", user, latency_ms, cost_nusd, error, acted, (), instead)
        if self._timed:
            account.first_byte_ms = outcome.first_byte_ms
        return self._keep(key, account)

    def act(self, decision: FoldedDecision) -> Touched:
        """A live decision was taken. The same one again changes nothing."""
        shared = decision.form
        key = (shared.tenant, shared.workspace, decision.call)
        account = self.calls.get(key) or self._opened(key, decision.seq)
        if not account.acted or self._is_new(account, decision):
            account.acted = (*account.acted, self.kept(decision))
            if shared.point in MODELS and account.instead == shared.action:
                account.instead = ""
        return self._observed(key, account)

    def shadow(self, decision: FoldedDecision, place: str) -> Touched:
        """The policy at `place` said what it would do; what it said first counts."""
        shared = decision.form
        key = (shared.tenant, shared.workspace, decision.call)
        account = self.calls.get(key) or self._opened(key, decision.seq)
        known = any(shadowed.place == place for shadowed in account.shadowed)
        if not known and len(account.shadowed) < MAX_DECISIONS:
            account.shadowed = (*account.shadowed, Shadowed(place, shared.policy, shared.action))
        return self._observed(key, account)

    def assign(self, decision: FoldedDecision) -> tuple[Touched, Assigned | None]:
        """The call was assigned to a variant; what was said first counts. The Assigned: None where it was known."""
        shared = decision.form
        key = (shared.tenant, shared.workspace, decision.call)
        account = self.calls.get(key) or self._opened(key, decision.seq)
        known = any(assigned.trial == shared.policy for assigned in account.assigned)
        if known or len(account.assigned) >= MAX_DECISIONS or shared.action not in shared.actions:
            return (), None
        made = Assigned(shared.policy, shared.actions.index(shared.action), _stage(shared.featuriser))
        account.assigned = (*account.assigned, made)
        return self._observed(key, account), made

    def end(self, outcome: FoldedOutcome) -> Touched:
        """The call ended; a later outcome of it replaces an earlier one."""
        shared = outcome.form
        key = (shared.tenant, shared.workspace, outcome.call)
        account = self.calls.get(key) or self._opened(key, outcome.seq)
        self._ended(account, outcome)
        return ((key, account),)

    def note(self, feedback: FoldedFeedback) -> tuple[Touched, str]:
        """Somebody said something: (calls, "") or, where that has no usable value, none and the reason."""
        owned = (feedback.tenant, feedback.workspace, feedback.id)
        own = hashlib.blake2b(msgspec.msgpack.encode(owned), digest_size=16).digest()
        if own in self._seen:
            return (), ""
        self._seen[own] = None
        _keep_newest(self._seen, self.window)
        value, ignored = read(feedback)
        target = (feedback.tenant, feedback.workspace, feedback.target)
        metric: Metric = (feedback.source, feedback.metric)
        notes = self.notes.get(target, {})
        if not ignored and metric not in notes and len(notes) >= _MAX_METRICS:
            ignored = "too many metrics"
        if value is None or ignored:
            return (), ignored
        self.notes.setdefault(target, notes)[metric] = (feedback.seq, value)
        _keep_newest(self.notes, self.window)
        return self._beneath(target), ""

    def erase(self, erasure: Erasure | FoldedErasure) -> int:
        """Let go of one user's calls and of what was made for them alone, and return how many accounts went.

        With a call go the calls beneath it that name no other user, and what stands above it and above nothing else
        (the answer that it was made for), each with the notes on it.
        """
        self._digests.clear()
        owner = (erasure.tenant, erasure.workspace)
        users = {key: account.user.hex() for key, account in self.calls.items() if key[:2] == owner}
        gone = self._made_above(self._made_beneath(users, erasure.user), users)
        for key in gone:
            self.notes.pop(key, None)
            if key in self.calls:
                self._drop(key)
        self._oldest = deque(self.calls)
        self._number()
        return len(gone & users.keys())

    def take_back(self, place: Key, kept: StoredAccounts | None) -> None:
        """Let the policy at the point of `place` (tenant, workspace, point) know of each decision what it knew then.

        kept: the accounts at that time, None for the time before all. A reward that it learned since is never its,
        nor is a cost, or how a call went.
        """
        knew: dict[tuple[Key, str], Acted] = {}
        if kept is not None:
            for key, acted in _acted(kept.calls, dict(kept.forms), place):
                knew[key, acted.id] = acted
        for key, acted in _acted(self.calls.items(), self.forms, place):
            before = knew.get((key, acted.id), _NOTHING)
            if place[2] in before.learned and place[2] in self.taught:
                acted.taught(place[2], before.learned[place[2]])
            elif place[2] in acted.learned:
                acted.taught(place[2], None)
            if place[2] in before.spent:
                acted.charged(place[2], before.spent[place[2]])
            elif place[2] in acted.spent:
                acted.charged(place[2], None)
            if place[2] in before.served:
                acted.observed(place[2], before.served[place[2]])
            elif place[2] in acted.served:
                acted.observed(place[2], None)

    def _beneath(self, target: Key) -> Touched:
        """The target, if it is a call, and all calls beneath it, in the order in which they began."""
        if target not in self._children:
            account = self.calls.get(target)
            return ((target, account),) if account is not None else ()
        beneath = level = {target}
        for _ in range(_MAX_DEPTH):
            children = {(key[0], key[1], child) for key in level for child in self._children.get(key, ())}
            level = children - beneath
            beneath = beneath | level
        calls = sorted((key for key in beneath if key in self.calls), key=lambda key: self.calls[key].order)
        return [(key, self.calls[key]) for key in calls[:_MAX_CREDITED]]

    def feedback(self, key: Key, account: Account) -> Mapping[Metric, float]:
        """The newest feedback of each source and metric on a call or above it."""
        if not account.parent and key not in self.notes:
            return NO_FEEDBACK
        heard = self._heard(key, account)
        if not heard:
            return NO_FEEDBACK
        if len(heard) == 1 and len(heard[0]) == 1:
            ((metric, (_, value)),) = heard[0].items()
            return {metric: value}
        newest: dict[Metric, Note] = {}
        for notes in heard:
            for metric, note in notes.items():
                newest[metric] = max(newest.get(metric, note), note)
        # In ledger order, so that the sum over them does not depend on which target they came by.
        return {metric: value for metric, (_, value) in sorted(newest.items(), key=lambda item: item[1])}

    def decision(self, key: Key, acted: Acted) -> Decision:
        """The decision as a policy learns from it: without `fallback` and `extra`."""
        form = self.forms[acted.form]
        return Decision(
            id=acted.id or acting_id(key[2], form.point),
            at=acted.at,
            tenant=key[0],
            workspace=key[1],
            call=key[2],
            point=form.point,
            policy=form.policy,
            actions=form.actions,
            action=acted.action,
            propensity=acted.propensity,
            live=True,
            context=unpack(form, acted.values),
            featuriser=form.featuriser,
        )

    def _is_new(self, account: Account, decision: FoldedDecision) -> bool:
        """Whether a live decision of that id at the point is not known of the call, and there is room for it."""
        point, name = decision.form.point, _name(decision)
        return len(account.acted) < MAX_DECISIONS and all(
            acted.id != name or self.forms[acted.form].point != point for acted in account.acted
        )

    def kept(self, decision: FoldedDecision) -> Acted:
        """What is kept of a live decision."""
        shared, name, at, chance = decision.form, _name(decision), decision.at, decision.propensity
        if shared.point not in self.taught or not decision.context:
            form = self.forms.take_bare(shared)
            return Acted(form, name, at, shared.action, chance, b"", None, UNTAUGHT, UNTAUGHT, UNTAUGHT)
        names, lengths, values = pack(decision.context)
        form = self.forms.take((shared.point, shared.policy, shared.featuriser, shared.actions, names, lengths))
        return Acted(form, name, at, shared.action, chance, values, None, UNTAUGHT, UNTAUGHT, UNTAUGHT)

    def _ended(self, account: Account, outcome: FoldedOutcome) -> None:
        """Note how a call ended."""
        shared = outcome.form
        account.latency_ms, account.cost_nusd = outcome.latency_ms, outcome.cost_nusd
        account.error = error_of(shared)
        account.first_byte_ms = outcome.first_byte_ms if self._timed else None
        # Kept only where it says something, and as long as the decision is not there yet.
        account.instead = model = shared.model
        for acted in account.acted:
            if acted.action == model and self.forms.credited[acted.form][0] in MODELS:
                account.instead = ""

    def _observed(self, key: Key, account: Account) -> Touched:
        """The call, if anything is known by which it could be rewarded."""
        if account.latency_ms is not None or ((account.parent or key in self.notes) and self._heard(key, account)):
            return ((key, account),)
        return ()

    def _heard(self, key: Key, account: Account) -> list[dict[Metric, Note]]:
        """The notes on the call and on what is above it, at most `_MAX_DEPTH` levels, each once even in a ring."""
        own = self.notes.get(key)
        heard = [own] if own else []
        above: Account | None = account
        passed = {key}
        while above is not None and above.parent and len(passed) <= _MAX_DEPTH:
            key = (key[0], key[1], above.parent)
            if key in passed:
                break
            passed.add(key)
            if notes := self.notes.get(key):
                heard.append(notes)
            above = self.calls.get(key)
        return heard

    def _number(self) -> None:
        """Number the forms in the order in which the decisions use them, without those that none has any more."""
        decisions = [acted for account in self.calls.values() for acted in account.acted]
        numbers = {old: new for new, old in enumerate(dict.fromkeys(acted.form for acted in decisions))}
        for acted in decisions:
            acted.form = numbers[acted.form]
        forms = [(new, self.forms[old]) for old, new in numbers.items()]
        self.forms = Forms(forms, (acted.form for acted in decisions), len(forms))

    def _digest(self, call: FoldedCall) -> bytes:
        """Of the call's user; those of the calls just before are at hand."""
        who = (call.tenant, call.workspace, call.user)
        digest = self._digests.get(who)
        if digest is None:
            if len(self._digests) >= _DIGESTS_AT_HAND:
                self._digests.clear()
            digest = self._digests[who] = bytes.fromhex(user_digest(Scope(*who[:2]), call.user))
        return digest

    def _opened(self, key: Key, seq: int) -> Account:
        """A new account of the call."""
        return self._keep(key, Account(seq))

    def _keep(self, key: Key, account: Account) -> Account:
        """Keep a new account, which may push the oldest out."""
        self.calls[key] = account
        self._oldest.append(key)
        if len(self.calls) > self.window:
            self._drop(self._oldest.popleft())
            if self.forms.crowded:
                self._number()
        return account

    def _adopt(self, key: Key, parent: str) -> None:
        if parent:
            self._children.setdefault((key[0], key[1], parent), set()).add(key[2])

    def _made_beneath(self, users: Mapping[Key, str], user: str) -> set[Key]:
        """The calls of `user` and what was called for them, as far as it names nobody else."""
        found = level = {key for key, theirs in users.items() if theirs == user}
        while level:
            beneath = {(key[0], key[1], child) for key in level for child in self._children.get(key, ())}
            level = {key for key in beneath - found if users[key] in ("", user)}
            found = found | level
        return found

    def _made_above(self, calls: set[Key], users: Mapping[Key, str]) -> set[Key]:
        """`calls` and whatever stands above them, above nothing else, and is no user's."""
        found = level = calls
        while level:
            above = {(key[0], key[1], self.calls[key].parent) for key in level if key in self.calls} - found
            bare = {key for key in above if key[2] and not users.get(key)}
            level = {key for key in bare if all((key[0], key[1], child) in found for child in self._children[key])}
            found = found | level
        return found

    def _drop(self, key: Key) -> None:
        account = self.calls.pop(key)
        if account.parent:
            parent = (key[0], key[1], account.parent)
            children = self._children[parent]
            children.discard(key[2])
            if not children:
                del self._children[parent]


NO_FEEDBACK: Final[Mapping[Metric, float]] = {}
UNTAUGHT: Final[Mapping[str, Never]] = {}
"""What all share of which no policy knows anything."""
_NOTHING: Final = Acted(0, "", 0.0, "", 0.0, b"")


def _acted(
    calls: Iterable[tuple[Key, Account]], forms: Mapping[int, Form] | Forms, place: Key
) -> Iterator[tuple[Key, Acted]]:
    """The live decisions of one tenant's workspace at one point, with their calls."""
    for key, account in calls:
        if key[:2] == place[:2]:
            for acted in account.acted:
                if forms[acted.form].point == place[2]:
                    yield key, acted


def _stage(featuriser: str) -> int:
    """The stage of the ramp that an assignment was made at; -1 where it says none."""
    stage = featuriser.removeprefix("stage:")
    return int(stage) if stage.isdecimal() and len(stage) < 3 else -1


def error_of(ended: OutcomeForm) -> str:
    """The error of a call that ended like this, "" where there was none."""
    return ended.error or (f"status {ended.status}" if ended.status >= 400 else "")


def _name(decision: FoldedDecision) -> str:
    """The id of a live decision, "" where its call and its point give it."""
    call, name, point = decision.call, decision.id, decision.form.point
    # As `acting_id` has it, in half the time for a call of ours.
    if name == f"decision_{call[5:]}-{point}" and call[:5] == "call_" != call:
        return ""
    return "" if name == acting_id(call, point) else name


def _keep_newest(kept: OrderedDict[K, V], window: int) -> None:
    """Drop what came first where there is more than the window holds."""
    while len(kept) > window:
        kept.popitem(last=False)
