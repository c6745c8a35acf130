"""One span, and the ids that make a span which is sent twice the same one."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from typing import Final, Literal, NamedTuple, TypeAlias

import msgspec

from windlass.records import Scope

Value: TypeAlias = str | bool | int | float | Sequence[str]
Kind = Literal["client", "internal"]
_TRACEPARENT: Final = re.compile(r"[0-9a-f]{2}-([0-9a-f]{32})-([0-9a-f]{16})-[0-9a-f]{2}")
_LATEST_NS: Final = 2**63 - 1


class TraceContext(NamedTuple):
    """Where something hangs: its trace, and the span above it (b'' for none)."""

    trace_id: bytes
    parent_id: bytes = b""


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """Something that happened within a span."""

    name: str
    at_ns: int
    attributes: Mapping[str, Value]


class TraceSpan(msgspec.Struct, frozen=True, kw_only=True):
    """One span. times: nanoseconds of UTC. error: what went wrong, '' for nothing."""

    trace_id: bytes
    span_id: bytes
    name: str
    start_ns: int
    end_ns: int
    attributes: Mapping[str, Value]
    parent_id: bytes = b""
    kind: Kind = "internal"
    error: str = ""
    events: tuple[Event, ...] = ()


def trace_id(scope: Scope, top: str) -> bytes:
    """The trace of what stands at the top: 16 bytes, the same whenever it is asked."""
    return _digest(16, "trace", scope, top)


def span_id(scope: Scope, id: str, part: str = "") -> bytes:
    """The span of a record, or of a part of it: 8 bytes, the same whenever it is asked."""
    return _digest(8, "span", scope, id, part)


def traceparent(parent: str) -> TraceContext | None:
    """The place that a client names by a `traceparent` (W3C Trace Context, section 3.2); None where it is none."""
    found = _TRACEPARENT.fullmatch(parent)
    if found is None or parent.startswith("ff"):
        return None
    above = TraceContext(bytes.fromhex(found[1]), bytes.fromhex(found[2]))
    return above if any(above.trace_id) and any(above.parent_id) else None


def ns(at: float) -> int:
    """UTC seconds as nanoseconds, to the microsecond (a float holds no more), within what a span can hold."""
    if not at > 0:
        return 0
    return _LATEST_NS if at >= _LATEST_NS / 1e9 else round(at * 1e6) * 1000


def _digest(size: int, kind: str, scope: Scope, *parts: str) -> bytes:
    told = msgspec.msgpack.encode((kind, scope.tenant, scope.workspace, *parts))
    return hashlib.blake2b(told, digest_size=size).digest()
