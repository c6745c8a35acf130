"""Refused keys and sign-ins in the audit trail: every one is counted, and no flood of them fills the trail.

The first one leaves a row at once. Those of the minute after it are counted by where they came from and what they
brought, and leave one row together, and so on for as long as they come.
"""

from __future__ import annotations

import hashlib
import threading
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import structlog

from windlass.errors import LedgerError
from windlass.ledger.audit import SYSTEM, WINDLASS, Audit

log = structlog.get_logger(__name__)
REFUSED = "refused"
EVERY_S = 60.0
NAMED = 20
"""So many origins are told apart in a row; the rest of its minute is one number."""
DIGITS = 8
PEER_CHARS = 100


class Refusals:
    """What was refused since the last row. Thread-safe; `flush` blocks for a commit."""

    def __init__(self, audit: Audit, clock: Callable[[], float] = time.monotonic):
        self._audit = audit
        self._clock = clock
        self._lock = threading.Lock()
        self._counts: Counter[tuple[str, str, str]] = Counter()
        self._others = 0
        self._written_at: float | None = None

    def count(self, peer: str, key: str, reason: str) -> bool:
        """Note one. peer: the address it came from; reason: its error category. True where `flush` is due now."""
        digest = hashlib.sha256(key.encode(errors="replace")).hexdigest()[:DIGITS] if key else ""
        origin = (peer[:PEER_CHARS], digest, reason)
        with self._lock:
            if origin in self._counts or len(self._counts) < NAMED:
                self._counts[origin] += 1
            else:
                self._others += 1
            return self._due()

    def flush(self, *, last: bool = False) -> None:
        """Write the row, if there is anything to write and a minute has passed. last: also before it has.

        Where the trail takes no row the counts stay for the next one.
        """
        with self._lock:
            if not self._counts or not (last or self._due()):
                return
            counts, others, before = self._counts, self._others, self._written_at
            self._counts, self._others, self._written_at = Counter(), 0, self._clock()
        origins = [{"peer": p, "key_sha256": k, "reason": r, "count": n} for (p, k, r), n in counts.items()]
        told: dict[str, Any] = {"from": origins} | ({"others": others} if others else {})
        try:
            self._audit.append(SYSTEM, WINDLASS, REFUSED, told)
        except LedgerError as exc:
            log.error("refusals_wait", reason=str(exc))
            with self._lock:
                self._counts, self._others = counts + self._counts, others + self._others
                self._written_at = before

    def _due(self) -> bool:
        return self._written_at is None or self._clock() - self._written_at >= EVERY_S
