"""Spans as OTLP's protobuf: the only file that imports `opentelemetry`, and only its messages.

Format: opentelemetry-proto, `trace.proto` and `trace_service.proto`; OTLP specification, "OTLP/HTTP Response".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final

from google.protobuf.message import DecodeError
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.trace.v1 import trace_pb2 as messages

from windlass.watch.traces.span import TraceSpan, Value

if TYPE_CHECKING:
    from google.protobuf.internal.containers import RepeatedCompositeFieldContainer
    from opentelemetry.proto.common.v1.common_pb2 import KeyValue

CONTENT_TYPE: Final = "application/x-protobuf"
_KINDS: Final = {"client": messages.Span.SPAN_KIND_CLIENT, "internal": messages.Span.SPAN_KIND_INTERNAL}
_MOST: Final = 2**63 - 1


def request(spans: Sequence[TraceSpan], resource: Mapping[str, Value], version: str) -> bytes:
    """What is posted for `spans`. resource: what they all come from; version: of the program."""
    # Messages are filled where they lie: made apart and handed over they took four times as long.
    whole = ExportTraceServiceRequest()
    of_resource = whole.resource_spans.add()
    _fill(of_resource.resource.attributes, resource)
    of_scope = of_resource.scope_spans.add()
    of_scope.scope.name, of_scope.scope.version = "windlass", version
    for span in spans:
        _write(of_scope.spans.add(), span)
    encoded: bytes = whole.SerializeToString()
    return encoded


def refused(answer: bytes) -> tuple[int, str]:
    """How many spans the receiver says that it did not take, and why; (0, '') where it says nothing we can read."""
    try:
        partial = ExportTraceServiceResponse.FromString(answer).partial_success
    except DecodeError:
        return 0, ""
    return max(0, partial.rejected_spans), partial.error_message


def _write(into: messages.Span, span: TraceSpan) -> None:
    into.trace_id, into.span_id, into.parent_span_id = span.trace_id, span.span_id, span.parent_id
    into.name, into.kind = _text(span.name), _KINDS[span.kind]
    into.start_time_unix_nano, into.end_time_unix_nano = span.start_ns, span.end_ns
    _fill(into.attributes, span.attributes)
    for event in span.events:
        told = into.events.add()
        told.name, told.time_unix_nano = event.name, event.at_ns
        _fill(told.attributes, event.attributes)
    if span.error:
        into.status.code = messages.Status.STATUS_CODE_ERROR
        into.status.message = _text(span.error)


def _fill(pairs: RepeatedCompositeFieldContainer[KeyValue], attributes: Mapping[str, Value]) -> None:
    for name, value in attributes.items():
        pair = pairs.add()
        pair.key = name
        # A bool is an int as well, so it is asked for first.
        match value:
            case str():
                pair.value.string_value = _text(value)
            case bool():
                pair.value.bool_value = value
            case int():
                pair.value.int_value = max(-_MOST, min(_MOST, value))
            case float():
                pair.value.double_value = value
            case _:
                for part in value:
                    pair.value.array_value.values.add().string_value = _text(part)


def _text(text: str) -> str:
    """Protobuf takes no halves of characters, which JSON can name."""
    return text if text.isascii() else text.encode(errors="replace").decode()
