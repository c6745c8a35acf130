"""Listings that search for words: each page looks at so many records, and says from where the next one goes on."""

from __future__ import annotations

from collections.abc import Sequence

from windlass.ledger.ledger import SEARCHED, CallFilter, CallTrace, FeedbackFilter, Ledger
from windlass.records import Feedback, Scope

__all__ = ["SEARCHED", "calls", "feedback"]
LATE_S = 3_600.0
"""Records stand in the order in which they came; one may be so much older than those beside it."""


def calls(
    ledger: Ledger, scope: Scope, wanted: CallFilter, *, limit: int, before: str = ""
) -> tuple[Sequence[CallTrace], str]:
    """A page of calls; and the id of the call before which a search goes on, '' where nothing is left to look at.

    A full page is continued before its last call instead, as pages always are.
    """
    stop = _stop(ledger, scope, wanted, before)
    found = ledger.calls(scope, limit=limit, before=before, back_to=stop, wanted=wanted)
    return found, stop if len(found) < limit else ""


def feedback(
    ledger: Ledger, scope: Scope, wanted: FeedbackFilter, *, limit: int, before: str = ""
) -> tuple[Sequence[Feedback], str]:
    """`calls`, of feedback."""
    stop = _stop(ledger, scope, wanted, before)
    found = ledger.feedback(scope, limit=limit, before=before, back_to=stop, wanted=wanted)
    return found, stop if len(found) < limit else ""


def _stop(ledger: Ledger, scope: Scope, wanted: CallFilter | FeedbackFilter, before: str) -> str:
    """The id of the last record that this page looks at; '' where it is the last page, however many it looks at."""
    last = ledger.reach(scope, wanted, before=before, records=SEARCHED)
    if last is None or (wanted.since is not None and last.at < wanted.since - LATE_S):
        return ""
    return last.id
