"""What people said of the calls that a grader has graded: how far the two agree, and the map that follows from it.

Per tenant and workspace: nobody's labels move the values that another gets.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterator
from typing import Final, NamedTuple

from windlass.improve.grading.calibration import Agreement, CalibrationMap, Pair, agreement, fit
from windlass.improve.grading.panel import Seat
from windlass.ledger.ledger import FeedbackFilter, Ledger
from windlass.policies.reward import read
from windlass.records import Feedback, FeedbackSource, Scope

MOST_READ: Final = 20_000
"""Of the newest feedback of a grader, and of people."""
PAGE: Final = 1_000
EVERY_S: Final = 600.0
PEOPLE: Final[tuple[FeedbackSource, ...]] = ("user", "manager")


class Measured(NamedTuple):
    """A grader beside people: raw values, values as they were given, and the map that the labels give now.

    wanted: so many labels are needed for one. curve: None below that.
    """

    raw: Agreement | None
    given: Agreement | None
    curve: CalibrationMap | None
    wanted: int


class Measuring:
    """Reads pairs from the ledger. Thread-safe. clock: UTC seconds."""

    def __init__(self, ledger: Ledger, clock: Callable[[], float]):
        self._ledger = ledger
        self._clock = clock
        self._kept: dict[tuple[Scope, str], tuple[float, CalibrationMap | None]] = {}
        self._measuring = threading.Lock()

    def measure(self, scope: Scope, seat: Seat) -> Measured:
        """How a grader agrees with the people of one workspace."""
        labels = self._labels(scope)
        raw, given = list[Pair](), list[Pair]()
        for said in self._newest(scope, FeedbackFilter(source=seat.grader.source, metric=seat.metric)):
            if said.target not in labels or said.value is None or said.extra.get("grader") != seat.id:
                continue
            label = labels[said.target]
            given.append((said.value, label))
            raw.append((_raw(said), label))
        return Measured(agreement(raw), agreement(given), fit(raw, seat.options.labels), seat.options.labels)

    def calibrated(self, scope: Scope, seat: Seat, value: float) -> tuple[float, int]:
        """A judge's value as people would put it, and by how many labels; the value itself, and 0, below enough."""
        key, now = (scope, seat.metric), self._clock()
        with self._measuring:
            at, curve = self._kept.get(key, (-math.inf, None))
            if not at <= now < at + EVERY_S:
                curve = self.measure(scope, seat).curve
                self._kept[key] = (now, curve)
        return (value, 0) if curve is None else (min(1.0, max(0.0, curve(value))), curve.labels)

    def _labels(self, scope: Scope) -> dict[str, float]:
        """What people said of each call: the mean over managers and users, of each the newest word."""
        newest: dict[str, dict[FeedbackSource, float]] = {}
        for source in PEOPLE:
            for said in self._newest(scope, FeedbackFilter(source=source)):
                value = read(said).value
                if value is not None:
                    newest.setdefault(said.target, {}).setdefault(source, value)
        return {target: sum(values.values()) / len(values) for target, values in newest.items()}

    def _newest(self, scope: Scope, wanted: FeedbackFilter) -> Iterator[Feedback]:
        before, left = "", MOST_READ
        while left > 0:
            page = self._ledger.feedback(scope, limit=min(PAGE, left), before=before, wanted=wanted)
            yield from page
            if len(page) < PAGE:
                return
            before, left = page[-1].id, left - len(page)


def _raw(said: Feedback) -> float:
    """The value before it was calibrated."""
    raw = said.extra.get("raw")
    usable = isinstance(raw, int | float) and 0.0 <= raw <= 1.0
    return float(raw) if usable and raw is not None else float(said.value or 0.0)
