"""Replay: the fold over the ledger that moves the policies. The same ledger gives the same state, bit by bit.

What one call earns is read off everything known of it, whenever that changes: its Outcome, and the newest feedback of
each (source, metric) on the call itself or on anything above it (`Call.parent`, and the parent of a parent that is a
call). So records may come late, twice or in any order. A changed reward replaces the one that was learned before.

A policy learns from every *live* decision of a call at whose point it decided itself, live or in shadow. A policy in
shadow thus learns from what really happened, not from what it would have done; and what was decided while a point was
`off`, or by another policy, teaches it nothing, whatever the settings say today.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Final, TypeAlias, TypeVar, assert_never

import msgspec

from windlass.errors import PolicyError
from windlass.ledger.ledger import ALL, Entry, Ledger
from windlass.policies.loop import Loop, PolicyKey
from windlass.policies.reward import Signals, read, scalar
from windlass.records import Call, Decision, Feedback, FeedbackSource, Outcome, Record, RunEvent, Scope

DEFAULT_WINDOW = 50_000
_MAX_METRICS = 64
# One feedback moves at most this much, so that no chain or crowd of calls can hold up the others' decisions.
_MAX_DEPTH = 8
_MAX_CREDITED = 1_000
"""Distinct (source, metric) pairs kept per target; whoever sends more is not rating."""

Key: TypeAlias = tuple[str, str, str]
"""(tenant, workspace, id)."""
Note: TypeAlias = tuple[int, float]
"""(sequence number, value) of the newest feedback of one source and metric."""
Metric: TypeAlias = tuple[FeedbackSource, str]
V = TypeVar("V")


class _Credit(msgspec.Struct, array_like=True):
    """One live decision, packed, and the reward that was learned for it last."""

    point: str
    packed: bytes
    reward: float | None = None


class _Account(msgspec.Struct, array_like=True):
    """What is known of one call. order: sequence number of its first record; deciders: points our policy decided."""

    order: int
    parent: str = ""
    user: str = ""
    signals: Signals | None = None
    deciders: list[str] = []
    credits: dict[str, _Credit] = {}


class _State(msgspec.Struct, frozen=True, array_like=True):
    format: int
    fingerprint: str
    cursor: int
    policies: list[tuple[PolicyKey, bytes]]
    calls: list[tuple[Key, _Account]]
    notes: list[tuple[Key, list[tuple[Metric, Note]]]]
    seen: list[Key]


class Learner:
    """Folds ledger entries into the policies of `loop`.

    At most `window` calls, feedback targets and feedback ids are kept; the oldest in ledger order go first, and what
    comes later for a call that went changes nothing. `ignored` counts the feedback that carried no usable value.
    VERSION is that of its state.
    """

    VERSION: Final = 1

    def __init__(self, loop: Loop, window: int = DEFAULT_WINDOW) -> None:
        if window < 1:
            raise PolicyError(f"window is {window}; keep at least one call")
        self.loop = loop
        self.window = window
        self.cursor = 0
        self.ignored: dict[str, int] = {}
        self._calls: dict[Key, _Account] = {}
        self._children: dict[Key, set[str]] = {}
        self._notes: dict[Key, dict[Metric, Note]] = {}
        self._seen: dict[Key, None] = {}

    def fold(self, entry: Entry) -> None:
        """Take one entry in; an entry at or before the cursor changes nothing."""
        with self.loop.lock:
            if entry.seq <= self.cursor:
                return
            self.cursor = entry.seq
            match entry.record:
                case Call() as call:
                    self._call(call)
                case Decision() as decision:
                    self._decision(decision)
                case Outcome() as outcome:
                    self._outcome(outcome)
                case Feedback() as feedback:
                    self._feedback(feedback)
                case RunEvent():
                    pass
                case _ as other:
                    assert_never(other)

    def catch_up(self, ledger: Ledger, limit: int = 1000, until: int | None = None) -> int:
        """Fold what follows the cursor, `limit` entries at a time, up to the sequence number `until`, or to the end.

        Returns how many entries there were.
        """
        folded = 0
        while entries := self._following(ledger, limit, until):
            for entry in entries:
                self.fold(entry)
            folded += len(entries)
        return folded

    def _following(self, ledger: Ledger, limit: int, until: int | None) -> list[Entry]:
        entries = ledger.read(ALL, after=self.cursor, limit=limit)
        return [entry for entry in entries if until is None or entry.seq <= until]

    def state(self) -> bytes:
        """Everything that the next entry can depend on, as canonical bytes: what a Snapshot keeps."""
        with self.loop.lock:
            return msgspec.msgpack.encode(
                _State(
                    format=self.VERSION,
                    fingerprint=self._fingerprint(),
                    cursor=self.cursor,
                    policies=self.loop.states(),
                    calls=list(self._calls.items()),
                    notes=[(key, list(notes.items())) for key, notes in self._notes.items()],
                    seen=list(self._seen),
                )
            )

    def restore(self, state: bytes) -> None:
        """Take over what `state` returned. PolicyError, and no change, where the settings differ: rebuild instead."""
        try:
            stored = msgspec.msgpack.decode(state, type=_State)
        except (msgspec.MsgspecError, UnicodeDecodeError) as exc:
            raise PolicyError(f"not the state of a learner: {exc}; rebuild it from the ledger") from exc
        if (stored.format, stored.fingerprint) != (self.VERSION, self._fingerprint()):
            raise PolicyError("learned under other policies, options, rewards or window; rebuild it from the ledger")
        with self.loop.lock:
            self.loop.restore(stored.policies)
            self.cursor = stored.cursor
            self._calls = dict(stored.calls)
            self._notes = {key: dict(notes) for key, notes in stored.notes}
            self._seen = dict.fromkeys(stored.seen)
            self._children = {}
            for key, account in self._calls.items():
                self._adopt(key, account.parent)

    def digest(self) -> str:
        """SHA-256 of the state: equal digests mean bitwise equal learners."""
        return hashlib.sha256(self.state()).hexdigest()

    def forget(self, scope: Scope, *, user: str) -> int:
        """Drop the calls of one user with their contexts, and return how many went. What was learned from them stays.

        Save a snapshot afterwards: the ledger's contexts are gone too, and an older snapshot still holds them.
        """
        with self.loop.lock:
            mine = (scope.tenant, scope.workspace)
            gone = [key for key, account in self._calls.items() if key[:2] == mine and account.user == user]
            for key in gone:
                self._drop(key)
            return len(gone)

    def _call(self, call: Call) -> None:
        key = _key(call, call.id)
        account = self._account(key)
        if not account.parent:
            account.parent, account.user = call.parent, call.user
            self._adopt(key, call.parent)
        self._credit_beneath(key)

    def _decision(self, decision: Decision) -> None:
        points = self.loop.points
        if decision.point not in points:
            return
        key = _key(decision, decision.call)
        account = self._account(key)
        if decision.policy == self.loop.policy_id(decision.point) and decision.point not in account.deciders:
            account.deciders.append(decision.point)
        if decision.live and decision.id not in account.credits:
            account.credits[decision.id] = _Credit(decision.point, msgspec.msgpack.encode(decision))
        self._credit(key)

    def _outcome(self, outcome: Outcome) -> None:
        key = _key(outcome, outcome.call)
        error = outcome.error or (f"status {outcome.status}" if outcome.status >= 400 else "")
        self._account(key).signals = Signals(outcome.latency_ms, outcome.cost_nusd, error)
        self._credit(key)

    def _feedback(self, feedback: Feedback) -> None:
        own = _key(feedback, feedback.id)
        if own in self._seen:
            return
        self._seen[own] = None
        _keep_newest(self._seen, self.window)
        value, ignored = read(feedback)
        target = _key(feedback, feedback.target)
        metric: Metric = (feedback.source, feedback.metric)
        notes = self._notes.get(target, {})
        if not ignored and metric not in notes and len(notes) >= _MAX_METRICS:
            ignored = "too many metrics"
        if ignored:
            self.ignored[ignored] = self.ignored.get(ignored, 0) + 1
        if value is None or ignored:
            return
        self._notes.setdefault(target, notes)[metric] = (self.cursor, value)
        _keep_newest(self._notes, self.window)
        self._credit_beneath(target)

    def _credit_beneath(self, target: Key) -> None:
        """Credit the target, if it is a call, and all calls beneath it, in the order in which they began."""
        beneath = level = {target}
        for _ in range(_MAX_DEPTH):
            children = {(key[0], key[1], child) for key in level for child in self._children.get(key, ())}
            level = children - beneath
            beneath = beneath | level
        calls = sorted((key for key in beneath if key in self._calls), key=lambda key: self._calls[key].order)
        for key in calls[:_MAX_CREDITED]:
            self._credit(key)

    def _credit(self, key: Key) -> None:
        """Let the policies learn where the reward of the call's live decisions has changed."""
        account = self._calls[key]
        reward = scalar(self._signals(key, account), self.loop.reward)
        if reward is None:
            return
        for credit in account.credits.values():
            if credit.point not in account.deciders or credit.reward == reward:
                continue
            decision = msgspec.msgpack.decode(credit.packed, type=Decision)
            if self.loop.learn(decision, reward, credit.reward):
                credit.reward = reward

    def _signals(self, key: Key, account: _Account) -> Signals:
        newest: dict[Metric, Note] = {}
        for target in self._chain(key):
            for metric, note in self._notes.get(target, {}).items():
                newest[metric] = max(newest.get(metric, note), note)
        # In ledger order, so that the sum over them does not depend on which target they came by.
        values = {metric: value for metric, (_, value) in sorted(newest.items(), key=lambda item: item[1])}
        return msgspec.structs.replace(account.signals or Signals(), feedback=values)

    def _chain(self, key: Key) -> Iterator[Key]:
        """The call and what is above it, `_MAX_DEPTH` levels at most, each once even where parents form a ring."""
        passed: set[Key] = set()
        while key not in passed and len(passed) <= _MAX_DEPTH:
            yield key
            passed.add(key)
            account = self._calls.get(key)
            if account is None or not account.parent:
                return
            key = (key[0], key[1], account.parent)

    def _account(self, key: Key) -> _Account:
        """The call's account; a new one may push the oldest out."""
        if key not in self._calls:
            self._calls[key] = _Account(self.cursor)
            if len(self._calls) > self.window:
                self._drop(next(iter(self._calls)))
        return self._calls[key]

    def _adopt(self, key: Key, parent: str) -> None:
        if parent:
            self._children.setdefault((key[0], key[1], parent), set()).add(key[2])

    def _drop(self, key: Key) -> None:
        parent = (key[0], key[1], self._calls.pop(key).parent)
        children = self._children.get(parent, set())
        children.discard(key[2])
        if not children:
            self._children.pop(parent, None)

    def _fingerprint(self) -> str:
        return f"{self.loop.fingerprint()} window {self.window}"


def rebuild(
    ledger: Ledger, loop: Loop, *, window: int = DEFAULT_WINDOW, snapshot: bytes = b"", until: int | None = None
) -> Learner:
    """A new learner over `loop` (one that has learned nothing), folded from zero or from `snapshot`, up to `until`.

    snapshot: a Learner's `state`. Compare the `digest` with a running learner's by giving that one's cursor as `until`.
    """
    learner = Learner(loop, window)
    if snapshot:
        learner.restore(snapshot)
    learner.catch_up(ledger, until=until)
    return learner


def _key(record: Record, name: str) -> Key:
    return (record.tenant, record.workspace, name)


def _keep_newest(kept: dict[Key, V], window: int) -> None:
    """Drop what came first where there is more than the window holds."""
    while len(kept) > window:
        del kept[next(iter(kept))]
