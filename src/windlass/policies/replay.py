"""Replay: the fold over the ledger that moves the policies. The same ledger gives the same state, bit by bit.

What one call earns is read off everything known of it, whenever that changes: its Outcome, and the newest feedback of
each (source, metric) on the call itself or on anything above it (`Call.parent`, and the parent of a parent that is a
call). So records may come late, twice or in any order. A changed reward replaces the one that was learned before.

A policy learns from every *live* decision of a call at whose point it decided itself, live or in shadow. A policy in
shadow thus learns from what really happened, not from what it would have done; and what was decided while a point was
`off`, or by another policy, teaches it nothing, whatever the settings say today.

What people decide stands in the ledger too and is folded in its place: a mode or a roll-back holds for what follows
(rollout.py), and an erased user's accounts go, while the numbers that the policies learned from them stay.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from typing import Final, assert_never, cast

import msgspec

from windlass.errors import PolicyError
from windlass.ledger import collection
from windlass.ledger.folded import (
    Folded,
    FoldedCall,
    FoldedDecision,
    FoldedErasure,
    FoldedEvent,
    FoldedFeedback,
    FoldedOutcome,
)
from windlass.ledger.folding import following, narrowed
from windlass.ledger.ids import is_imported
from windlass.ledger.ledger import ALL, Entry, Ledger
from windlass.policies.accounts import Accounts, Key, StoredAccounts, Touched
from windlass.policies.course import Courses
from windlass.policies.credit import Credit, Credits
from windlass.policies.experiments import Trials
from windlass.policies.loop import Loop, PolicyKey
from windlass.policies.personal_state import number_of, without
from windlass.policies.points import EXPERIMENT, ROLLOUT, Mode, shadow_place
from windlass.policies.rollout import Advance, Always, Begin, Change, End, Promote, RollBack, SetMode, Ship, parse
from windlass.policies.score import Score, Scores, StoredScores
from windlass.policies.trials.acting import Appointed
from windlass.policies.trials.tally import Trial
from windlass.records import Erasure, Scope

DEFAULT_WINDOW = 50_000
# Entries that are folded while decisions wait: some 0.3 ms.
_UNDER_ONE_LOCK = 50
Recall = Callable[[int], bytes | None]
"""The state that a Learner had after the entry with that sequence number, if it was kept."""


class _State(msgspec.Struct, frozen=True, array_like=True):
    format: int
    fingerprint: str
    cursor: int
    policies: list[tuple[PolicyKey, bytes]]
    modes: list[tuple[PolicyKey, Mode]]
    standing: list[tuple[PolicyKey, Appointed]]
    trials: list[tuple[Key, Trial]]
    scores: StoredScores
    accounts: StoredAccounts


class Learner:
    """Folds ledger entries into the policies of `loop`.

    window: calls, feedback targets and feedback ids kept, see `Accounts`. recall: for roll-backs. `ignored` counts, by
    reason, the feedback that carried no usable value and the rollouts that could not be followed. VERSION is that of
    its state.
    """

    VERSION: Final = 4

    def __init__(self, loop: Loop, window: int = DEFAULT_WINDOW, recall: Recall | None = None) -> None:
        if window < 1:
            raise PolicyError(f"window is {window}; keep at least one call")
        self.loop = loop
        self.window = window
        self.cursor = 0
        self.ignored: dict[str, int] = {}
        self._recall = recall
        self._accounts = Accounts(window, taught=loop.taught, timed=bool(loop.watched))
        self._scores = Scores()
        self.trials = Trials()
        loop.assigning = self.trials.assigning
        self._credits = Credits(loop, self._accounts, self._scores, self.trials)
        self._courses = Courses(loop, self._accounts, self._credits)

    def fold(self, *entries: Entry | Folded) -> None:
        """Take entries in; one at or before the cursor changes nothing."""
        found = narrowed(entries)
        at, end = 0, len(found)
        with collection.resting():
            while at < end:
                with self.loop.lock:
                    at = self._take(found, at, min(at + _UNDER_ONE_LOCK, end))

    def catch_up(self, ledger: Ledger, limit: int = 1000, until: int | None = None) -> int:
        """Fold what follows the cursor, `limit` entries at a time, up to the sequence number `until`, or to the end.

        Returns how many entries there were.
        """
        folded = 0
        while found := self._following(ledger, limit, until):
            self.fold(*found)
            folded += len(found)
        return folded

    def following(self, ledger: Ledger, limit: int) -> Sequence[Folded]:
        """Up to `limit` of the rows after the cursor, with the contexts that are needed here."""
        return following(ledger, ALL, self.cursor, limit, self.loop.taught)

    @property
    def calls(self) -> int:
        """How many calls are kept for rewards to come."""
        return len(self._accounts.calls)

    def on_credit(self, listener: Callable[[Credit], object]) -> None:
        """Call `listener` with every Credit, in the order of the fold and within it; it must be quick and not raise.

        Points that learn nothing are credited too. Entries that a `restore` jumps over are not heard of.
        """
        self._credits.listeners.append(listener)

    def scores(self, scope: Scope, point: str) -> list[Score]:
        """What the point's live decisions earned, and what each policy in shadow would have earned."""
        with self.loop.lock:
            return self._scores.of((scope.tenant, scope.workspace, point))

    def state(self) -> bytes:
        """Everything that the next entry can depend on, as canonical bytes: what a Snapshot keeps."""
        with self.loop.lock:
            return msgspec.msgpack.encode(
                _State(
                    format=self.VERSION,
                    fingerprint=self._fingerprint(),
                    cursor=self.cursor,
                    policies=self.loop.states(),
                    modes=sorted(self.loop.modes.items()),
                    standing=sorted(self.loop.standing.items()),
                    trials=self.trials.stored(),
                    scores=self._scores.stored(),
                    accounts=self._accounts.stored(),
                )
            )

    def restore(self, state: bytes) -> None:
        """Take over what `state` returned. PolicyError, and no change, where the settings differ: rebuild instead."""
        stored = _read(state)
        if stored.fingerprint != self._fingerprint():
            raise PolicyError("learned under other policies, options, rewards or window; rebuild it from the ledger")
        timed = bool(self.loop.watched)
        accounts, scores = Accounts(self.window, stored.accounts, self.loop.taught, timed), Scores(stored.scores)
        accounts.let_go()
        with self.loop.lock:
            self.loop.restore(stored.policies)
            self.loop.modes = dict(stored.modes)
            self.loop.standing = dict(stored.standing)
            self.trials = self._credits.trials = Trials(stored.trials)
            self.loop.assigning = self.trials.assigning
            self.cursor = stored.cursor
            self._accounts = self._credits.accounts = accounts
            self._scores = self._credits.scores = scores
            self._courses = Courses(self.loop, accounts, self._credits)

    def check(self, change: Change, scope: Scope) -> None:
        """PolicyError where `change` would not be followed, as far as can be known before it is in the ledger."""
        key = (scope.tenant, scope.workspace, change.point)
        self.loop.policy_id(change.point)
        with self.loop.lock:
            if isinstance(change, Begin | Advance | End | Ship):
                self.trials.check(key, change)
            elif isinstance(change, Promote | Always) and key in self.trials.current:
                name = self.trials.current[key].plan.name
                raise PolicyError(
                    f"experiment {name} is under way at {change.point} beside what is usual; end it first"
                )
            for shadow in self._shadows(key, change):
                self.loop.require_shadow(change.point, shadow)

    def made(self, change: Change, scope: Scope, decision: str) -> None:
        """PolicyError where an experiment did not take the step of that decision, as another one came first."""
        if isinstance(change, Begin | Advance | End | Ship):
            name = change.plan.name if isinstance(change, Begin) else change.name
            with self.loop.lock:
                if not self.trials.moved((scope.tenant, scope.workspace, change.point), decision):
                    raise PolicyError(f"another decision on experiment {name} came first; look at where it stands")

    def digest(self) -> str:
        """SHA-256 of the state: equal digests mean bitwise equal learners."""
        return hashlib.sha256(self.state()).hexdigest()

    def _following(self, ledger: Ledger, limit: int, until: int | None) -> Sequence[Folded]:
        found = self.following(ledger, limit)
        if until is None or not found or found[-1].seq <= until:
            return found
        return [row for row in found if row.seq <= until]

    def _take(self, rows: Sequence[Folded], at: int, end: int) -> int:
        """Take in what lies after the cursor, and settle what it changes, from one row to another.

        Returns where it stopped: a call that began before the end is taken in whole, if it can be.
        """
        accounts, settle, points, whole = self._accounts, self._credits.settle, self.loop.points, self._courses.take
        while at < end:
            row = rows[at]
            at += 1
            seq = row.seq
            if seq <= self.cursor:
                continue
            # Asked by identity: a `match` on msgspec's structs takes five times as long for each kind that it is not.
            # Nothing was decided for what is imported, and it must not push out of the window what was.
            calls: Touched
            if type(row) is FoldedCall:
                calls = ()
                if _is_ours(row.id):
                    rest = whole(row, rows, at)
                    if rest:
                        at += rest
                        self.cursor = rows[at - 1].seq
                        continue
                    calls = accounts.open(row)
            elif type(row) is FoldedDecision:
                ours = row.form.live and row.form.point in points
                calls = accounts.act(row) if ours else self._decision(row)
            elif type(row) is FoldedOutcome:
                calls = accounts.end(row) if _is_ours(row.call) else ()
            else:
                calls = self._seldom(row)
            if calls:
                settle(seq, calls)
            self.cursor = seq
        return at

    def _seldom(self, row: FoldedFeedback | FoldedErasure | FoldedEvent) -> Touched:
        """What comes less often than once a call."""
        if type(row) is FoldedFeedback:
            return self._said(row) if _is_ours(row.id) else ()
        if type(row) is FoldedErasure:
            self._accounts.erase(row)
            self.trials.forget((row.tenant, row.workspace), row.user)
            self.loop.forget(Scope(row.tenant, row.workspace), row.user)
        elif type(row) is not FoldedEvent:
            assert_never(row)
        return ()

    def _said(self, feedback: FoldedFeedback) -> Touched:
        """Somebody said something; what has no usable value is counted."""
        calls, ignored = self._accounts.note(feedback)
        if ignored:
            self._ignore(ignored)
        return calls

    def _decision(self, decision: FoldedDecision) -> Touched:
        """One that did not act at our points: only our policies' can ever be credited."""
        shared = decision.form
        point = shared.point
        if point == ROLLOUT:
            self._rollout(decision)
        elif point == EXPERIMENT and shared.live:
            return self._assigned(decision)
        elif point in self.loop.points:
            place = point if decision.shadow is None else shadow_place(point, decision.shadow)
            if self.loop.ids.get(place) == shared.policy:
                return self._accounts.shadow(decision, place)
        return ()

    def _rollout(self, decision: FoldedDecision) -> None:
        """Follow what people decided; what makes no sense is counted and changes nothing."""
        try:
            change = parse(decision.form.action)
        except PolicyError:
            self._ignore("rollout that cannot be read")
            return
        shared = decision.form
        if not shared.live or change.point not in self.loop.points:
            self._ignore("rollout in shadow" if not shared.live else "rollout of an unknown point")
            return
        self._followed((shared.tenant, shared.workspace, change.point), change, decision)

    def _followed(self, key: PolicyKey, change: Change, decision: FoldedDecision) -> None:
        """Make a change that was decided for a point of a workspace."""
        match change:
            case SetMode(mode="settings"):
                self.loop.modes.pop(key, None)
            case SetMode():
                self.loop.modes[key] = cast(Mode, change.mode)
            case RollBack():
                if change.cursor >= decision.seq or not self._roll_back(key, change.cursor):
                    self._ignore("rollout to a snapshot that was not kept or belongs to other settings")
            case Promote() | Always() if key in self.trials.current:
                self._ignore("rollout of who decides, within an experiment")
            case Promote():
                self._stand(key, "", change.shadow)
            case Always():
                self._stand(key, change.action, "")
            case Begin() | Advance() | End() | Ship():
                self._experiment(key, change, decision)
            case _ as other:
                assert_never(other)

    def _stand(self, key: PolicyKey, action: str, shadow: str) -> None:
        """From now on that action, or the policy of that shadow, acts at a point; neither: its own policy."""
        if shadow and not self.loop.has(key[2], shadow):
            self._ignore("rollout to an unknown shadow")
        elif action or shadow:
            self.loop.standing[key] = Appointed(action, shadow)
        else:
            self.loop.standing.pop(key, None)

    def _experiment(self, key: PolicyKey, change: Begin | Advance | End | Ship, decision: FoldedDecision) -> None:
        """An experiment goes on as people, or its evidence, decided."""
        try:
            shipped = self.trials.follow(key, change, decision)
        except PolicyError:
            self._ignore("rollout of an experiment that is not there, or at another stage")
            return
        if shipped is not None and (shipped.action or shipped.shadow):
            self._stand(key, shipped.action, shipped.shadow)

    def _assigned(self, decision: FoldedDecision) -> Touched:
        """A call was assigned to a variant of an experiment."""
        calls, assigned = self._accounts.assign(decision)
        if assigned is not None:
            form = decision.form
            key = (form.tenant, form.workspace, decision.call)
            self.trials.assigned(key, self._accounts.calls[key], assigned)
        return calls

    def _roll_back(self, key: PolicyKey, cursor: int) -> bool:
        """Put the policy of a point back to the snapshot at `cursor`, and with it what it knows of each call.

        A decision whose reward the snapshot had learned is corrected from that reward; one whose reward was learned
        since teaches this policy nothing more; one without a reward so far is learned from when it gets one.
        """
        try:
            kept = self._recalled(cursor) if cursor > 0 else None
            self.loop.replace(key, dict(kept.policies).get(key) if kept else None)
        except PolicyError:
            return False
        self._accounts.take_back(key, kept.accounts if kept else None)
        return True

    def _shadows(self, key: PolicyKey, change: Change) -> Sequence[str]:
        """The shadows whose policies a change would let decide."""
        match change:
            case Begin():
                return [one.shadow for one in change.plan.variants]
            case Promote():
                return [change.shadow]
            case Ship():
                return [self.trials.current[key].plan.variant(change.variant).shadow]
            case _:
                return ()

    def _recalled(self, cursor: int) -> _State:
        """The state kept at `cursor`. PolicyError where there is none that can be read."""
        state = self._recall(cursor) if self._recall is not None else None
        if state is None:
            raise PolicyError(f"no snapshot was kept at {cursor}; choose one of those that were")
        stored = _read(state)
        if stored.cursor != cursor:
            raise PolicyError(f"the snapshot kept at {cursor} is one of {stored.cursor}")
        return stored

    def _ignore(self, reason: str) -> None:
        self.ignored[reason] = self.ignored.get(reason, 0) + 1

    def _fingerprint(self) -> str:
        return f"{self.loop.fingerprint()} window {self.window}"


def _is_ours(name: str) -> bool:
    """Whether the id `name` is of what Windlass itself did."""
    return "-" not in name or not is_imported(name)


def rebuild(
    ledger: Ledger,
    loop: Loop,
    *,
    window: int = DEFAULT_WINDOW,
    snapshot: bytes = b"",
    until: int | None = None,
    recall: Recall | None = None,
) -> Learner:
    """A new learner over `loop` (one that has learned nothing), folded from zero or from `snapshot`, up to `until`.

    snapshot: a Learner's `state`. recall: as the running learner has it, or roll-backs are passed over. Compare the
    `digest` with a running learner's by giving that one's cursor as `until`.
    """
    learner = Learner(loop, window, recall)
    if snapshot:
        learner.restore(snapshot)
    learner.catch_up(ledger, until=until)
    return learner


def erased(state: bytes, erasure: Erasure) -> bytes:
    """A kept Learner state without what is that user's alone, so that a snapshot outlives the user it knew.

    Rolling back to it gives the same as before: an erased account has nothing left to correct. PolicyError where
    `state` is none of this version.
    """
    stored = _read(state)
    # No limit but what is there: this must drop nobody else.
    accounts = Accounts(len(stored.accounts.calls) + 1, stored.accounts)
    accounts.erase(erasure)
    owner, user = (erasure.tenant, erasure.workspace), number_of(erasure.user)
    policies = [(key, without(one, user) if key[:2] == owner else one) for key, one in stored.policies]
    trials = Trials(stored.trials)
    trials.forget(owner, erasure.user)
    kept = msgspec.structs.replace(stored, policies=policies, trials=trials.stored(), accounts=accounts.stored())
    return msgspec.msgpack.encode(kept)


def _read(state: bytes) -> _State:
    try:
        stored = msgspec.msgpack.decode(state, type=_State)
    except (msgspec.MsgspecError, UnicodeDecodeError) as exc:
        raise PolicyError(f"not the state of a learner: {exc}; rebuild it from the ledger") from exc
    if stored.format != Learner.VERSION:
        raise PolicyError(
            f"a learner's state of version {stored.format}, not {Learner.VERSION}; rebuild it from the ledger"
        )
    return stored
