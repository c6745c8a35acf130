"""Courses: how a call goes that is told from its beginning to its end at once, which is how most are recorded.

Such a call is kept and credited in one go. What follows from what its rows have in common with those of other calls,
such as which policies learn nothing from it, is worked out once for all calls that go alike.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple, cast

from windlass.ledger.folded import DecisionForm, Folded, FoldedCall, FoldedDecision, FoldedOutcome, OutcomeForm
from windlass.policies.accounts import MAX_DECISIONS, MODELS, NO_FEEDBACK, UNTAUGHT, Accounts, Acted, error_of
from windlass.policies.credit import Credits
from windlass.policies.loop import Loop, PolicyKey
from windlass.policies.reward import worth
from windlass.policies.score import Row

_AT_HAND: Final = 1_000


class Step(NamedTuple):
    """What follows from the form of a live decision whose context is not kept and that teaches nobody.

    number: of the form. tail: how an id ends that the call and the point give. replaced: another model had to answer
    than the one decided on. ours: whether its point's own policy made it, which so counts as one that was credited.
    """

    number: int
    tail: str
    action: str
    replaced: bool
    policy: PolicyKey
    row: Row
    ours: bool


class Course(NamedTuple):
    """What follows for all calls of one owner that go alike. steps: () where one of the decisions teaches, or its
    context is kept."""

    tenant: str
    workspace: str
    error: str
    instead: str
    steps: tuple[Step, ...]


_ROW_BY_ROW: Final = Course("", "", "", "", ())
"""Of calls that are not simple enough."""


class Fork:
    """Where calls part that went alike so far. ways: by the identity of the form of the row that follows.

    form: what led here, held so that no other gets its identity. course: of the calls that end here, once it is known.
    """

    __slots__ = ("course", "form", "ways")

    def __init__(self, form: DecisionForm | OutcomeForm | None = None) -> None:
        self.form = form
        self.ways: dict[int, Fork] = {}
        self.course: Course | None = None


class Courses:
    """Takes whole calls into `accounts` and has `credits` count them, as far as they are simple."""

    def __init__(self, loop: Loop, accounts: Accounts, credits: Credits) -> None:
        self._loop = loop
        self._accounts = accounts
        self._credits = credits
        self._forms = accounts.forms
        self._start = Fork()
        self._forks = 0

    def take(self, call: FoldedCall, rows: Sequence[Folded], at: int) -> int:
        """Take in a call together with the rows from `at` on, where these are its live decisions and then its outcome.

        Returns how many of them there were; 0, and no change, where it is otherwise, or less simple: something is known
        of the call already, or not all is its owner's.
        """
        if self._forms is not self._accounts.forms or self._forks > _AT_HAND:
            # Numbered anew, or too many: whatever is known of them is worked out again.
            self._forms, self._start, self._forks = self._accounts.forms, Fork(), 0
        name, seq, fork, place, end = call.id, call.seq, self._start, at, len(rows)
        while place < end:
            row = rows[place]
            if type(row) is not FoldedDecision:
                break
            if row.call != name or row.seq <= seq:
                return 0
            seq, form = row.seq, row.form
            fork = fork.ways.get(id(form)) or self._parted(fork, form)
            place += 1
        return self._ended(fork, call, rows, at, place) if at < place < end else 0

    def _ended(self, fork: Fork, call: FoldedCall, rows: Sequence[Folded], at: int, place: int) -> int:
        """`take`, where the decisions go up to `place`."""
        row = rows[place]
        if type(row) is not FoldedOutcome or row.call != call.id or row.seq <= rows[place - 1].seq:
            return 0
        fork = fork.ways.get(id(row.form)) or self._parted(fork, row.form)
        decided = cast(Sequence[FoldedDecision], rows[at:place])
        return place + 1 - at if self._whole(fork, call, decided, row) else 0

    def _whole(self, fork: Fork, call: FoldedCall, decided: Sequence[FoldedDecision], outcome: FoldedOutcome) -> bool:
        """Take in such a call, if nothing is known of it."""
        course = fork.course or self._known(fork, [one.form for one in decided], outcome.form)
        tenant, workspace, error, instead, steps = course
        accounts, name, key = self._accounts, call.id, (tenant, workspace, call.id)
        if call.parent or call.tenant != tenant or call.workspace != workspace or accounts.knows(key):
            return False
        if not steps:
            if course is _ROW_BY_ROW:
                return False
            acted = tuple([accounts.kept(one) for one in decided])
            account = accounts.whole(key, call, acted, outcome, error, instead)
            self._credits.weigh(outcome.seq, key, account, NO_FEEDBACK)
            return True
        earned = worth(outcome.latency_ms, outcome.cost_nusd, error, NO_FEEDBACK, self._loop.reward) or 0.0
        suffix = name.partition("_")[2] or name
        acted = self._all_stepped(outcome.seq, decided, steps, suffix, earned)
        accounts.whole(key, call, acted, outcome, error, instead)
        return True

    def _all_stepped(
        self, seq: int, decided: Sequence[FoldedDecision], steps: Sequence[Step], suffix: str, earned: float
    ) -> tuple[Acted, ...]:
        if len(steps) == 1:
            return (self._stepped(seq, decided[0], steps[0], suffix, earned),)
        both = zip(decided, steps, strict=True)
        return tuple([self._stepped(seq, one, step, suffix, earned) for one, step in both])

    def _stepped(self, seq: int, decided: FoldedDecision, step: Step, suffix: str, earned: float) -> Acted:
        """What is kept of a decision that teaches nobody, once it is counted."""
        number, tail, action, replaced, policy, row, ours = step
        reward, own = 0.0 if replaced else earned, decided.id
        # As `acting_id` makes it.
        if own == f"decision_{suffix}{tail}":
            own = ""
        acted = Acted(number, own, decided.at, action, decided.propensity, b"", reward, UNTAUGHT, UNTAUGHT, UNTAUGHT)
        credits = self._credits
        credits.scores.count(policy, row, 1.0, reward, None)
        if credits.listeners:
            credits.tell(seq, policy, acted, row, 1.0, reward, None)
        if ours:
            self._loop.unteachable(policy)
        return acted

    def _parted(self, fork: Fork, form: DecisionForm | OutcomeForm) -> Fork:
        """A new way from a fork."""
        made = fork.ways[id(form)] = Fork(form)
        self._forks += 1
        return made

    def _known(self, fork: Fork, forms: Sequence[DecisionForm], ended: OutcomeForm) -> Course:
        """How calls go whose rows have these forms, noted where they lead."""
        owners = {(ended.tenant, ended.workspace), *((form.tenant, form.workspace) for form in forms)}
        points = {form.point for form in forms}
        ours = all(form.live and form.point in self._loop.points for form in forms)
        simple = ours and len(owners) == 1 and len(points) == len(forms) <= MAX_DECISIONS
        fork.course = self._course(forms, ended) if simple else _ROW_BY_ROW
        return fork.course

    def _course(self, forms: Sequence[DecisionForm], ended: OutcomeForm) -> Course:
        chosen = any(form.action == ended.model and form.point in MODELS for form in forms)
        instead = "" if chosen else ended.model
        tenant, workspace = forms[0].tenant, forms[0].workspace
        steps = () if any(self._teaches(form) for form in forms) else tuple(self._step(form, instead) for form in forms)
        return Course(tenant, workspace, error_of(ended), instead, steps)

    def _teaches(self, form: DecisionForm) -> bool:
        """Whether a policy or a guard may learn from decisions of this form, or their contexts are kept."""
        return form.point in self._loop.taught | self._loop.costed | self._loop.watched

    def _step(self, form: DecisionForm, instead: str) -> Step:
        number, point = self._forms.take_bare(form), form.point
        replaced = point in MODELS and instead != form.action and instead in form.actions
        ours = self._loop.ids[point] == form.policy
        policy, row = (form.tenant, form.workspace, point), self._forms.credited[number][1]
        return Step(number, f"-{point}", form.action, replaced, policy, row, ours)
