"""The folds of one process, kept together: policies and rollups see the same entries, and snapshots of both agree."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence

import msgspec
import structlog

from windlass.errors import PolicyError
from windlass.ledger.ledger import Ledger, Snapshot
from windlass.ledger.retention import BASE
from windlass.policies.credit import Credit
from windlass.policies.loop import Loop
from windlass.policies.points import NAMED
from windlass.policies.replay import Learner, erased
from windlass.policies.rollout import Change, RollBack
from windlass.records import Erasure, Scope
from windlass.watch.store import Rollups, hour_of

log = structlog.get_logger(__name__)
LEARNER = "policies"
RESTORED = "restored"
REPLACED = "replaced"
# A snapshot costs time for every call that is kept, so it is taken after so many entries, or half as many as there are
# calls: at every 5,000, it took an eighth of a call once the window was full.
SNAPSHOT_EVERY = 5_000
READ = 4_000
# The background writes the rollups at most so often; whoever reads them, or asks to be level, has them written.
ROLLUPS_EVERY_S = 1.0


class Projections:
    """Folds the ledger into the policies of `loop` and into the rollups. Thread-safe; nothing here touches a call.

    make_loop: a loop under the same settings that has learned nothing, for folding again.
    """

    def __init__(
        self,
        ledger: Ledger,
        loop: Loop,
        rollups: Rollups,
        *,
        make_loop: Callable[[], Loop],
        clock: Callable[[], float],
    ):
        self._ledger = ledger
        self._make_loop = make_loop
        self._rollups = rollups
        self._clock = clock
        self._folding = threading.RLock()
        self._folded = 0
        self._written_s = time.monotonic()
        self.learner = Learner(loop, recall=self._recall)
        self.learner.on_credit(self._credited)

    def catch_up(self) -> None:
        """Fold all that was committed since; the rollups' tables hold it too."""
        with self._folding:
            self._fold()
            self._write()

    def follow(self) -> None:
        """`catch_up` for whoever comes again and again: the tables are written at most once a second."""
        with self._folding:
            self._fold()
            if time.monotonic() - self._written_s >= ROLLUPS_EVERY_S:
                self._write()

    def restore(self) -> None:
        """Take over the newest snapshot that fits the settings, fill the rollups where they are behind, catch up."""
        with self._folding:
            for kept in (self._newest(), self._base()):
                if kept is not None and _restored(self.learner, kept):
                    break
            if self._rollups.look() < self.learner.cursor:
                self._fill(self.learner.cursor)
            self.catch_up()

    def keep(self, note: str = "") -> None:
        """Save a snapshot of what was learned, unless the same is kept already: it stays what it was, its time too."""
        with self._folding:
            self._folded = 0
            self._write()  # tables that lie behind a snapshot would be filled from the first entry at the next start
            kept = self._ledger.snapshot(LEARNER, Learner.VERSION, cursor=self.learner.cursor)
            if kept is not None and note in ("", kept.note) and kept.state == self.learner.state():
                return
            self._ledger.save_snapshot(
                Snapshot(
                    projection=LEARNER,
                    version=Learner.VERSION,
                    cursor=self.learner.cursor,
                    at=self._clock(),
                    state=self.learner.state(),
                    note=note,
                )
            )

    def snapshots(self) -> Sequence[Snapshot]:
        """What a policy can be rolled back to, oldest first, without the states."""
        return self._ledger.snapshots(LEARNER, Learner.VERSION)

    def choices(self, change: Change, scope: Scope) -> list[int]:
        """The cursors that a roll-back could name; the one that it does name is kept from now on.

        PolicyError where there is no such point or snapshot, or where an experiment cannot take that step.
        """
        self.catch_up()
        self.learner.check(change, scope)
        if not isinstance(change, RollBack):
            return []
        if change.cursor:
            kept = self._ledger.snapshot(LEARNER, Learner.VERSION, cursor=change.cursor)
            if kept is None:
                known = ", ".join(str(one.cursor) for one in self.snapshots()) or "none"
                raise PolicyError(f"there is no snapshot at {change.cursor}; there are: {known}; 0 is an empty policy")
            if not kept.note:
                self._ledger.save_snapshot(msgspec.structs.replace(kept, note=RESTORED))
        # What is replaced can be had back.
        self.keep(REPLACED)
        return [kept.cursor for kept in self.snapshots()]

    def erase(self, erasure: Erasure) -> int:
        """Let snapshots and tables go of a user whose `erasure` has been folded; returns how many rows changed."""
        with self._folding:
            for bare in self.snapshots():
                kept = self._ledger.snapshot(LEARNER, Learner.VERSION, cursor=bare.cursor)
                if kept is not None:
                    state = erased(kept.state, erasure)
                    self._ledger.rewrite_snapshot(msgspec.structs.replace(kept, state=state))
            self.keep(BASE)
            return self._ledger.erase(erasure)

    def prune_contexts(self, before: float) -> int:
        """Delete the contexts from before that time (UTC seconds), after a snapshot that makes up for them."""
        with self._folding:
            if not self._ledger.has_contexts(before):
                return 0
            self.catch_up()
            self.keep(BASE)
            return self._ledger.prune_contexts(before)

    def replay(self) -> tuple[int, str, str]:
        """(cursor, digest of the live policies, digest of policies folded again up to the same cursor).

        From the first entry, or from the last snapshot before which contexts are gone.
        """
        with self._folding:
            cursor, live = self.learner.cursor, self.learner.digest()
        base = self._base()
        fresh = Learner(self._make_loop(), self.learner.window, self._recall)
        if base is not None:
            _restored(fresh, base)
        fresh.catch_up(self._ledger, until=cursor)
        return cursor, live, fresh.digest()

    def _fold(self) -> None:
        self._skip_to_base()
        while entries := self.learner.following(self._ledger, READ):
            with self._rollups.together():
                self._rollups.fold(*entries)
                self.learner.fold(*entries)
            self._folded += len(entries)
        if self._folded >= max(SNAPSHOT_EVERY, self.learner.calls // 2):
            self.keep()

    def _write(self) -> None:
        self._rollups.flush()
        self._written_s = time.monotonic()

    def _skip_to_base(self) -> None:
        """Take over a base that lies ahead: what comes before it has lost its contexts, and was folded elsewhere."""
        if any(one.note == BASE and one.cursor > self.learner.cursor for one in self.snapshots()):
            base = self._base()
            if base is not None:
                _restored(self.learner, base)

    def _newest(self) -> Snapshot | None:
        return self._ledger.snapshot(LEARNER, Learner.VERSION)

    def _base(self) -> Snapshot | None:
        return self._ledger.snapshot(LEARNER, Learner.VERSION, note=BASE)

    def _recall(self, cursor: int) -> bytes | None:
        kept = self._ledger.snapshot(LEARNER, Learner.VERSION, cursor=cursor)
        return None if kept is None else kept.state

    def _fill(self, until: int) -> None:
        """Make the rollups from the first entry on, with a learner that only tells the rewards."""
        self._rollups.clear()
        teller = Learner(self._make_loop(), self.learner.window, self._recall)
        teller.on_credit(self._credited)
        while entries := teller.following(self._ledger, READ):
            wanted = [entry for entry in entries if entry.seq <= until]
            with self._rollups.together():
                self._rollups.fold(*wanted)
                teller.fold(*wanted)
            self._rollups.flush()
            if len(wanted) < len(entries):
                return

    def _credited(self, credit: Credit) -> None:
        if credit.live:
            owner = credit.scope.tenant, credit.scope.workspace
            policy = credit.policy if credit.choice else NAMED
            key = (*owner, credit.point, hour_of(credit.at), policy, True, credit.action)
            self._rollups.credited(credit.seq, key, credit.reward, credit.previous)


def _restored(learner: Learner, kept: Snapshot) -> bool:
    try:
        learner.restore(kept.state)
    except PolicyError as exc:
        log.info("rebuilding_policies", reason=str(exc))
        return False
    return True
