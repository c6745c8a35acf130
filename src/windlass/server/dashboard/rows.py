"""One call as a line of a table: why it went where it went, and what was said of it."""

from __future__ import annotations

from dataclasses import dataclass

from windlass.gateway.gateway import POINT as MODEL_POINT
from windlass.ledger.ledger import CallTrace
from windlass.records import Decision, Feedback
from windlass.server.dashboard import words
from windlass.server.dashboard.learned import reason


@dataclass(frozen=True)
class CallRow:
    """One call as the table shows it: why it went where it went, and the policy's own account of that."""

    trace: CallTrace
    why: str
    account: str
    said: tuple[str, ...]


def row(trace: CallTrace) -> CallRow:
    """`trace` with its reasons."""
    decision = routed(trace)
    why = reason(decision) if decision else ""
    account = words.plain(str(decision.extra.get("why", ""))) if decision else ""
    return CallRow(trace, why, account, tuple(map(said, trace.feedback)))


def routed(trace: CallTrace) -> Decision | None:
    """The live decision about the model, None where none was made."""
    return next((made for made in trace.decisions if made.point == MODEL_POINT and made.live), None)


def said(feedback: Feedback) -> str:
    """One feedback in a few words."""
    if feedback.kind != "rating" or feedback.value is None:
        return feedback.kind
    if feedback.source == "user":
        return "helpful" if feedback.value >= 0.5 else "not helpful"
    name = {"citation_verified": "quotes verified"}.get(feedback.metric, feedback.metric)
    return f"{name} {words.percent(feedback.value)}"
