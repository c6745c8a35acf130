"""Sends what the ledger holds, in a thread of its own: a fold whose place is kept, so that nothing is left out.

The ledger is the queue. What cannot be sent waits there, so memory is bounded by one batch, and no call waits for
anything here. One worker of a database exports at a time; a batch that was sent but not noted, because its worker died,
is sent again with the same ids.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from random import Random
from typing import Final, NamedTuple

import structlog

from windlass.errors import LedgerError
from windlass.gateway.options import ProviderOptions
from windlass.ledger import ids
from windlass.ledger.db import Database
from windlass.ledger.ledger import ALL, Entry, Ledger
from windlass.records import Call, Decision, Feedback, LedgerRecord, Outcome
from windlass.watch.traces import messages, otlp, spans
from windlass.watch.traces.lineage import Lineage
from windlass.watch.traces.options import TelemetryOptions
from windlass.watch.traces.receiver import Receipt, Receiver
from windlass.watch.traces.span import TraceSpan, Value
from windlass.watch.traces.store import ExportTurn

log = structlog.get_logger(__name__)
EVERY_S: Final = 1.0
READ: Final = 500
"""Entries of the ledger in a batch."""
MOST_SPANS: Final = 256
MOST_CHARS: Final = 2_000_000
"""Text in a request; receivers refuse those beyond some megabytes."""
BACKOFF_S: Final = 1.0
BACKOFF_CAP_S: Final = 60.0
RETRY_AFTER_CAP_S: Final = 600.0
UNSURE_S: Final = 3_600.0
"""So long spans are sent again to a receiver that fails with a status of its own; then it may be for their sake."""
PROLONG_S: Final = 2.0


class ExportState(NamedTuple):
    """How the export stands. lag_s: the age of the first entry that is not exported. waiting: why nothing moves, ''
    where it does. refused_now, reason: spans refused since this process began, and what was said of the last ones."""

    endpoint: str
    cursor: int
    lag_s: float
    sent: int
    refused: int
    waiting: str
    refused_now: int
    reason: str


class Exporter:
    """Reads, maps, sends. Start it, and close it before the database.

    providers: of the settings in force. resource: what all spans say of this program. clock: UTC seconds. rng: spreads
    retries.
    """

    def __init__(
        self,
        options: TelemetryOptions,
        receiver: Receiver,
        providers: Callable[[], Iterable[ProviderOptions]],
        *,
        db: Database,
        ledger: Ledger,
        clock: Callable[[], float],
        resource: Mapping[str, Value],
        version: str,
        rng: Random | None = None,
    ):
        self._options = options
        self._providers = providers
        self._ledger = ledger
        self._clock = clock
        self._resource = resource
        self._version = version
        self._rng = rng or Random()
        # A turn is longer than any request, so nobody takes it from a worker that is at work.
        self._turn = ExportTurn(db, clock, max(10.0, 2.0 * options.timeout_s))
        self._lineage = Lineage(ledger)
        self._receiver = receiver
        self._stop = threading.Event()
        self._until = float("inf")
        self._waiting = ""
        self._refused_now, self._reason = 0, ""
        # It holds up nobody who wants to leave.
        self._thread = threading.Thread(target=self._run, name="traces", daemon=True)

    def start(self) -> None:
        """Note where the first export begins, then go on off the caller's way. LedgerError where that cannot be."""
        self._turn.begin(self._ledger.head())
        self._thread.start()

    def close(self, grace_s: float = 2.0) -> None:
        """Send what is there by now, for `grace_s` at most, and end; the rest waits for the next start."""
        if not self._thread.is_alive():
            return
        self._until = time.monotonic() + grace_s
        self._stop.set()
        self._thread.join(grace_s)
        self._receiver.cut()
        self._thread.join(grace_s)

    def state(self) -> ExportState:
        """How it stands, whichever worker exports. LedgerError where the database does not answer."""
        cursor, sent, refused = self._turn.progress()
        own = _own(self._ledger.read(ALL, after=cursor, limit=READ))
        lag_s = max(0.0, self._clock() - own[0].record.at) if own else 0.0
        told = self._waiting, self._refused_now, self._reason
        return ExportState(self._options.url, cursor, lag_s, sent, refused, *told)

    def _run(self) -> None:
        while True:
            stopping = self._stop.wait(EVERY_S)
            try:
                while self._step() and time.monotonic() < self._until:
                    pass
                if stopping:
                    self._turn.leave()
                    return
            except LedgerError as exc:
                log.error("traces_wait", reason=str(exc))
            except Exception as exc:  # noqa: BLE001 (a plugged-in record may hold anything; the thread must not die of it)
                self._waiting = f"{type(exc).__name__}: {exc}"
                log.error("traces_fail", reason=self._waiting)
            if stopping:
                return

    def _step(self) -> bool:
        """Export one batch; whether there may be more to do now."""
        if self._turn.progress().cursor >= self._ledger.head() or not self._turn.take():
            return False
        # Read once the turn is ours: until then another one may have moved it.
        entries = self._ledger.read(ALL, after=self._turn.progress().cursor, limit=READ)
        if not entries:
            return False
        sent = refused = 0
        for parcel in _parcels(self._spans(_own(entries))):
            taken = self._deliver(parcel)
            if taken is None:
                return False
            sent, refused = sent + taken, refused + len(parcel) - taken
        return self._turn.move(entries[-1].seq, sent=sent, refused=refused)

    def _spans(self, entries: Sequence[Entry]) -> Iterator[TraceSpan]:
        calls: dict[tuple[str, str, str], Call] = {}
        known = spans.servers(self._providers())
        for _, record in entries:
            match record:
                case Call():
                    calls[record.tenant, record.workspace, record.id] = record
                    self._lineage.learn(record)
                case Outcome():
                    yield from self._ended(record, calls.get((record.tenant, record.workspace, record.call)), known)
                case Decision():
                    yield spans.of_decision(record, self._lineage.beneath(record.scope, record.call))
                case Feedback():
                    place = self._lineage.beneath(record.scope, record.target)
                    yield spans.of_feedback(record, place, words=self._options.export_bodies)
                case _:
                    pass  # runs and erasures have no spans

    def _ended(self, outcome: Outcome, call: Call | None, known: Mapping[str, spans.Server]) -> Iterator[TraceSpan]:
        """The spans of a call, which a stream commits long before it ends."""
        if call is None:
            found = self._ledger.trace(outcome.scope, outcome.call)
            if found is None:
                return
            call = found.call
        bodies = self._ledger.bodies(call.scope, call.id) if self._options.export_bodies else ()
        said = messages.attributes(call, bodies)
        yield from spans.of_call(call, outcome, self._lineage.of_call(call), known, said)

    def _deliver(self, parcel: Sequence[TraceSpan]) -> int | None:
        """Send until the receiver has them or never will: how many it took. None where it must wait for later."""
        body, tries, began = otlp.request(parcel, self._resource, self._version), 0, time.monotonic()
        while True:
            if not self._turn.take():
                return None
            answer = self._receiver.send(body, otlp.CONTENT_TYPE)
            match answer.verdict:
                case "taken":
                    return self._taken(parcel, answer)
                case "too_large" if len(parcel) > 1:
                    halves = [self._deliver(half) for half in (parcel[: len(parcel) // 2], parcel[len(parcel) // 2 :])]
                    return None if None in halves else sum(filter(None, halves))
                case "too_large" | "refused":
                    return self._lost(parcel, answer.reason)
                case "unsure" if time.monotonic() - began > UNSURE_S:
                    return self._lost(parcel, answer.reason)
                case _:
                    self._told(answer.reason)
            if not self._paused(answer, tries):
                return None
            tries += 1

    def _taken(self, parcel: Sequence[TraceSpan], answer: Receipt) -> int:
        if self._waiting:
            log.info("traces_go_on", endpoint=self._options.url)
            self._waiting = ""
        refused, reason = otlp.refused(answer.body)
        refused = min(refused, len(parcel))
        if refused:
            self._lost(parcel[:refused], reason or "it does not say why")
        return len(parcel) - refused

    def _lost(self, parcel: Sequence[TraceSpan], reason: str) -> int:
        """The receiver will not have them: say so, and go on without."""
        self._refused_now += len(parcel)
        self._reason = reason
        self._waiting = ""
        log.error("traces_refused", endpoint=self._options.url, spans=len(parcel), reason=reason)
        return 0

    def _told(self, reason: str) -> None:
        if reason != self._waiting:
            log.warning("traces_wait", endpoint=self._options.url, reason=reason)
        self._waiting = reason

    def _paused(self, answer: Receipt, tries: int) -> bool:
        """Wait as long as the receiver asks, else for longer each time, and keep the turn; False to stop."""
        pause_s = min(BACKOFF_CAP_S, BACKOFF_S * 2.0 ** min(tries, 10)) * self._rng.uniform(0.5, 1.0)
        if answer.retry_after_s is not None:
            pause_s = min(RETRY_AFTER_CAP_S, max(pause_s, answer.retry_after_s))
        until = time.monotonic() + pause_s
        while (left := until - time.monotonic()) > 0:
            if self._stop.wait(min(left, PROLONG_S)):
                return False
            if left > PROLONG_S and not self._turn.take():
                return False
        return not self._stop.is_set()


def _own(entries: Sequence[Entry]) -> Sequence[Entry]:
    """Without what was imported: other programs made those calls, and had their own traces."""
    return [entry for entry in entries if not _imported(entry.record)]


def _imported(record: LedgerRecord) -> bool:
    match record:
        case Outcome():
            return ids.is_imported(record.call)
        case Call() | Feedback():
            return ids.is_imported(record.id)
        case _:
            return False  # nobody else's decisions are imported


def _parcels(made: Iterator[TraceSpan]) -> Iterator[list[TraceSpan]]:
    """Spans for one request each: not too many, nor too much text."""
    parcel, chars = list[TraceSpan](), 0
    for span in made:
        size = sum(len(value) for value in span.attributes.values() if isinstance(value, str))
        if parcel and (len(parcel) >= MOST_SPANS or chars + size > MOST_CHARS):
            yield parcel
            parcel, chars = [], 0
        parcel.append(span)
        chars += size
    if parcel:
        yield parcel
