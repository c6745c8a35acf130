"""The Ledger contract: append what happened, read it back in one order, project it.

One sequence orders all records of all kinds; a fold over it is the only state that counts. Every query takes a Scope.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Final, Literal, NamedTuple, Protocol, TypeAlias

import msgspec

from windlass.records import Call, Decision, Erasure, Feedback, LedgerRecord, Outcome, Record, RunEvent, Scope


class AllScopes:
    """The explicit right to read across tenants (operators; `Scope.ALL` of the design)."""

    def __repr__(self) -> str:
        return "ALL"


ALL: Final = AllScopes()
AnyScope: TypeAlias = Scope | AllScopes


class Entry(NamedTuple):
    """One committed record with its place in the order of the ledger."""

    seq: int
    record: LedgerRecord


class Body(Record, frozen=True, kw_only=True):
    """The bytes of a request or a reply. Not part of the ledger proper: it expires and can be deleted."""

    call: str
    role: Literal["request", "reply"]
    data: bytes
    user: str = ""
    expires_at: float


class Spend(msgspec.Struct, frozen=True, kw_only=True):
    """What a call used up of a budget, committed with its outcome. since: when the window began, in UTC seconds.

    outcome: of the call; with the same outcome again nothing is added.
    """

    limit: str
    group: str
    since: int
    nusd: int
    outcome: str = ""


class StoredReply(msgspec.Struct, frozen=True, kw_only=True):
    """The reply of a call that carried an idempotency key, sealed, and committed with its outcome.

    caller, digest: the place that the call holds; without effect where `owner` holds it no more.
    """

    tenant: str
    workspace: str
    caller: str
    digest: str
    owner: str
    call: str
    user: str
    at: float
    expires_at: float
    data: bytes


Item: TypeAlias = LedgerRecord | Body | Spend | StoredReply
"""What one commit may hold."""


class Snapshot(msgspec.Struct, frozen=True, kw_only=True):
    """The state of one projection after the record with sequence `cursor`.

    note: why it must stay (`base`: what came before cannot be folded again; `restored`: a policy was rolled back to
    it; `replaced`: one was rolled back from it); '' for one that newer ones may replace.
    """

    projection: str
    version: int
    cursor: int
    at: float
    state: bytes
    note: str = ""


class CallTrace(msgspec.Struct, frozen=True, kw_only=True):
    """Everything the ledger knows of one call."""

    call: Call
    decisions: tuple[Decision, ...]
    outcome: Outcome | None
    feedback: tuple[Feedback, ...]


class CallFilter(msgspec.Struct, frozen=True, kw_only=True):
    """Which calls are wanted; what is left empty asks nothing.

    model, provider, error: of the outcome; error is `any`, `none` or one `ErrorCategory` value. endpoint, user: exact.
    since, until: the time of the call in UTC seconds, from the first on, before the second. text: stands in the id, the
    parent, the user, the endpoint or the model asked for, letter by letter; bodies are not searched.
    """

    model: str = ""
    provider: str = ""
    error: str = ""
    endpoint: str = ""
    user: str = ""
    since: float | None = None
    until: float | None = None
    text: str = ""

    def fits(self, trace: CallTrace) -> bool:
        """Whether `trace` is wanted: the filter in plain words, which the databases are held to."""
        call, outcome = trace.call, trace.outcome
        if not self._ended(outcome):
            return False
        if self.endpoint not in ("", call.endpoint) or self.user not in ("", call.user):
            return False
        found = any(self.text in field for field in (call.id, call.parent, call.user, call.endpoint, call.model))
        return found and _within(call.at, self.since, self.until)

    def _ended(self, outcome: Outcome | None) -> bool:
        """Whether what came of the call is wanted."""
        if outcome is None:
            return not (self.model or self.provider or self.error)
        wrong = {"": False, "any": not outcome.error, "none": outcome.error != ""}
        other = self.model not in ("", outcome.model) or self.provider not in ("", outcome.provider)
        return not other and not wrong.get(self.error, outcome.error != self.error)


class DecisionFilter(msgspec.Struct, frozen=True, kw_only=True):
    """Which decisions are wanted; what is left empty asks nothing. policy: `name@version`; times as in `CallFilter`."""

    point: str = ""
    action: str = ""
    policy: str = ""
    live: bool | None = None
    since: float | None = None
    until: float | None = None

    def fits(self, decision: Decision) -> bool:
        """Whether `decision` is wanted."""
        asked = (self.point, decision.point), (self.action, decision.action), (self.policy, decision.policy)
        same = all(wanted in ("", is_) for wanted, is_ in asked) and self.live in (None, decision.live)
        return same and _within(decision.at, self.since, self.until)


class FeedbackFilter(msgspec.Struct, frozen=True, kw_only=True):
    """Which feedback is wanted; what is left empty asks nothing.

    kind, source, metric, target: exact. times: as in `CallFilter`. text: stands in the comment or the target.
    """

    kind: str = ""
    source: str = ""
    metric: str = ""
    target: str = ""
    since: float | None = None
    until: float | None = None
    text: str = ""

    def fits(self, said: Feedback) -> bool:
        """Whether `said` is wanted."""
        asked = (self.kind, said.kind), (self.source, said.source), (self.metric, said.metric)
        same = all(wanted in ("", is_) for wanted, is_ in (*asked, (self.target, said.target)))
        found = self.text in said.comment or self.text in said.target
        return same and found and _within(said.at, self.since, self.until)


SEARCHED: Final = 50_000
"""So many records a page of a search by words looks at. No index helps a search for any part of a text: over 5 million
calls a word that is nowhere took 4.5 s."""
EVERY_CALL: Final = CallFilter()
EVERY_DECISION: Final = DecisionFilter()
EVERY_FEEDBACK: Final = FeedbackFilter()


class Ledger(Protocol):
    """What every ledger offers; `check_ledger` in `windlass.testing` holds an implementation to it.

    Appending is idempotent by (tenant, workspace, id): the same id again changes nothing.
    """

    async def append(self, *items: Item) -> int:
        """Commit `items` in order, then return the ledger's head. Survives kill -9 once it returned."""
        ...

    def keep(self, *items: Item) -> asyncio.Future[int] | None:
        """`append`, of which nobody needs the place: None where `items` survive kill -9 already, else who tells it.

        Other processes see them within about 50 ms. To be called in an event loop.
        """
        ...

    def post(self, *items: Item) -> None:
        """Hand over telemetry; it is committed within 50 ms, or by the next `append`, whichever is first."""
        ...

    def append_now(self, *items: Item) -> int:
        """`append` for a plain thread, such as a workflow step: block until committed."""
        ...

    def on_commit(self, listener: Callable[[], object]) -> None:
        """Call `listener()` after every commit, from another thread; it must be quick.

        Commits of other processes are heard of as well where the database is shared, within about 50 ms.
        """
        ...

    def head(self) -> int:
        """The sequence number of the last committed record, 0 for an empty ledger."""
        ...

    def read(self, scope: AnyScope, *, after: int = 0, limit: int = 1000) -> Sequence[Entry]:
        """Up to `limit` entries with `seq > after`, in order."""
        ...

    def calls(
        self, scope: AnyScope, *, limit: int = 50, before: str = "", back_to: str = "", wanted: CallFilter = EVERY_CALL
    ) -> Sequence[CallTrace]:
        """The newest calls first that are wanted; `before` is a call id for the next page.

        back_to: the id of the oldest call that is looked at, see `reach`.
        """
        ...

    def decisions(
        self,
        scope: AnyScope,
        *,
        point: str = "",
        limit: int = 50,
        before: str = "",
        wanted: DecisionFilter = EVERY_DECISION,
    ) -> Sequence[Decision]:
        """The newest decisions first that are wanted; `before` is a decision id for the next page.

        point: in place of the filter's.
        """
        ...

    def feedback(
        self,
        scope: AnyScope,
        *,
        limit: int = 50,
        before: str = "",
        back_to: str = "",
        wanted: FeedbackFilter = EVERY_FEEDBACK,
    ) -> Sequence[Feedback]:
        """The newest feedback first that is wanted; `before` is a feedback id for the next page.

        back_to: the id of the oldest feedback that is looked at, see `reach`.
        """
        ...

    def reach(
        self, scope: AnyScope, wanted: CallFilter | FeedbackFilter, *, before: str = "", records: int = SEARCHED
    ) -> Call | Feedback | None:
        """Where a page that looks for words stops: at the last of `records` before `before`, the newest first.

        Counted are those of the filter's user or target, which an index finds, and of everyone where it names none.
        None where there are fewer, and where `wanted` asks for no words: then a page may look at all there are.
        """
        ...

    def trace(self, scope: AnyScope, call: str) -> CallTrace | None:
        """One call with all that belongs to it, or None where the scope does not hold it."""
        ...

    def calls_beneath(self, scope: Scope, target: str) -> Sequence[str]:
        """Ids of the calls that `target` (any typed id) stands above: itself, or all whose parent chain reaches it."""
        ...

    def events(self, scope: AnyScope, run: str) -> Sequence[RunEvent]:
        """What happened in one durable run, in order."""
        ...

    def bodies(self, scope: AnyScope, call: str) -> Sequence[Body]:
        """The kept bytes of one call, request first."""
        ...

    def erase(self, erasure: Erasure) -> int:
        """Delete what the user of `erasure` left: bodies, contexts, comments, the name; returns how many rows changed.

        `erasure` is in the ledger already; what follows it there stays. Doing it again changes nothing.
        """
        ...

    def prune(self, now: float) -> int:
        """Delete the bodies whose retention has passed; returns how many went."""
        ...

    def has_contexts(self, before: float) -> bool:
        """Whether there is a decision context from before that time (UTC seconds)."""
        ...

    def prune_contexts(self, before: float) -> int:
        """Delete the decision contexts from before that time (UTC seconds); returns how many went.

        Save a snapshot with the note `base` first: the entries before it cannot be folded again.
        """
        ...

    def save_snapshot(self, snapshot: Snapshot) -> None:
        """Keep a projection's state. Routine ones make room for newer ones; those before a `base` are refused."""
        ...

    def snapshot(
        self, projection: str, version: int, *, cursor: int | None = None, note: str | None = None
    ) -> Snapshot | None:
        """The newest snapshot of a projection, or the one at `cursor`, or the newest with that `note`; or None."""
        ...

    def rewrite_snapshot(self, snapshot: Snapshot) -> None:
        """Replace the state of a kept snapshot, which a forgotten user stood in."""
        ...

    def snapshots(self, projection: str, version: int) -> Sequence[Snapshot]:
        """All kept snapshots, oldest first, with an empty `state`."""
        ...

    def close(self) -> None:
        """Commit what is waiting and release the files. A second call does nothing."""
        ...


def _within(at: float, since: float | None, until: float | None) -> bool:
    return (since is None or at >= since) and (until is None or at < until)
