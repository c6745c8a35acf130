"""What waits to be written to the rollups: what was folded, by the row that shall count it.

Held apart from the rows that were read, because most of what those hold is never counted. Each keeps its place in the
ledger: another worker may have written it by then.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any, Final, TypeAlias, TypeVar

import msgspec

from windlass.ledger.folded import Folded, FoldedDecision, FoldedFeedback, FoldedOutcome
from windlass.ledger.ids import is_imported
from windlass.policies.points import NAMED

HOUR_S: Final = 3600

Key: TypeAlias = tuple[Any, ...]
"""The values of a rollup table's primary key, in its order."""


class Chosen(msgspec.Struct, gc=False):
    """Of a decision what is counted."""

    seq: int
    propensity: float


T = TypeVar("T", Chosen, FoldedOutcome, FoldedFeedback)


class Waiting:
    """Outcomes, decisions and feedback by the key of the row that shall count them, in ledger order.

    folded: so many entries were taken in.
    """

    def __init__(self) -> None:
        self.folded = 0
        self.ended: dict[Key, list[FoldedOutcome]] = defaultdict(list)
        self.decided: dict[Key, list[Chosen]] = defaultdict(list)
        self.said: dict[Key, list[FoldedFeedback]] = defaultdict(list)

    def add(self, rows: Sequence[Folded]) -> None:
        """Take in what follows in the ledger."""
        self.folded += len(rows)
        # Rows that were read together share their forms, so that one look at a form serves many of them.
        decided: dict[tuple[int, float], list[Chosen]] = {}
        ended: dict[tuple[int, float], list[FoldedOutcome]] = {}
        for row in rows:
            # Asked by identity, as in the learner: a `match` costs more than the rest of the loop.
            if type(row) is FoldedDecision:
                alike = (id(row.form), row.at // HOUR_S)
                chosen = decided.get(alike)
                if chosen is None:
                    chosen = decided[alike] = self.decided[_decision_key(row)]
                chosen.append(Chosen(row.seq, row.propensity))
            elif type(row) is FoldedOutcome:
                if "-" in row.call and is_imported(row.call):  # what another program did is none of our figures
                    continue
                alike = (id(row.form), row.at // HOUR_S)
                same = ended.get(alike)
                if same is None:
                    same = ended[alike] = self.ended[_outcome_key(row)]
                same.append(row)
            elif type(row) is FoldedFeedback and not is_imported(row.id):
                self.said[_feedback_key(row)].append(row)

    def beyond(self, place: int) -> Waiting:
        """What lies beyond that place; the rest is written."""
        left = Waiting()
        left.folded = self.folded
        left.ended.update(_beyond(place, self.ended))
        left.decided.update(_beyond(place, self.decided))
        left.said.update(_beyond(place, self.said))
        return left


def hour_of(at: float) -> int:
    """The start of the hour that holds `at`, in UTC seconds."""
    return int(at // HOUR_S) * HOUR_S


def _beyond(place: int, held: Mapping[Key, list[T]]) -> dict[Key, list[T]]:
    # In ledger order: where the first lies beyond, all do.
    kept = {
        key: rows if rows[0].seq > place else [row for row in rows if row.seq > place] for key, rows in held.items()
    }
    return {key: rows for key, rows in kept.items() if rows}


def _decision_key(row: FoldedDecision) -> Key:
    """One action is no choice of its policy: it is counted apart."""
    form = row.form
    policy = form.policy if len(form.actions) > 1 else NAMED
    return form.tenant, form.workspace, form.point, hour_of(row.at), policy, form.live, form.action


def _outcome_key(row: FoldedOutcome) -> Key:
    return row.form.tenant, row.form.workspace, hour_of(row.at), row.form.model


def _feedback_key(row: FoldedFeedback) -> Key:
    return row.tenant, row.workspace, hour_of(row.at), row.kind, row.source, row.metric
