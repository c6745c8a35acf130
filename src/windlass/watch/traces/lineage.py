"""Where a record hangs: in the trace of what stands at the top of it."""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

from windlass.ledger.ledger import Ledger
from windlass.records import Call, Scope
from windlass.watch.traces.span import TraceContext, span_id, trace_id, traceparent

MOST_KNOWN: Final = 20_000
_DEPTH: Final = 16
_CALL, _SPANS = "call_", ("call_", "answer_")
"""Ids of what has a span of its own; of a run or a step the trace alone is known."""


class Lineage:
    """The parents of calls, as far as they were met lately; the others are looked up in the ledger."""

    def __init__(self, ledger: Ledger):
        self._ledger = ledger
        self._parents: OrderedDict[tuple[Scope, str], str] = OrderedDict()

    def learn(self, call: Call) -> None:
        """Take note of a call."""
        self._parents[call.scope, call.id] = call.parent
        if len(self._parents) > MOST_KNOWN:
            self._parents.popitem(last=False)

    def of_call(self, call: Call) -> TraceContext:
        """Where the span of a call hangs."""
        named = traceparent(call.parent)
        if named is not None:
            return named
        above = span_id(call.scope, call.parent) if call.parent.startswith(_SPANS) else b""
        return TraceContext(self._trace(call.scope, call.parent or call.id), above)

    def beneath(self, scope: Scope, target: str) -> TraceContext:
        """Where hangs what was decided for, or said of, `target` (any typed id)."""
        return TraceContext(self._trace(scope, target), span_id(scope, target) if target.startswith(_SPANS) else b"")

    def _trace(self, scope: Scope, id: str) -> bytes:
        """The trace of what stands above `id`, or of itself; parents that form a ring end somewhere on it."""
        for _ in range(_DEPTH):
            parent = self._parent(scope, id) if id.startswith(_CALL) else ""
            if not parent:
                break
            named = traceparent(parent)
            if named is not None:
                return named.trace_id
            id = parent
        return trace_id(scope, id)

    def _parent(self, scope: Scope, call: str) -> str:
        known = self._parents.get((scope, call))
        if known is not None:
            return known
        found = self._ledger.trace(scope, call)
        if found is None:
            return ""  # it may yet come, so nothing is noted
        self.learn(found.call)
        return found.call.parent
