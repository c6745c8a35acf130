"""A receiver of OTLP over HTTP, run in a process of its own: `python otlp_receiver.py [PORT]`.

It shares no code with the program: the standard library, and OpenTelemetry's own messages. It prints its port and
serves until its standard input ends. `POST /_mode` with a word says how it answers from then on (see `MODES`);
`GET /_seen` gives each request that it took apart: its headers, resource and spans, in order, as JSON.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.common.v1.common_pb2 import AnyValue

MODES = ("ok", "500", "503", "429", "401", "400", "413", "garbage", "hang", "trickle", "partial", "odd")
"""`garbage`: no HTTP; `hang`: no answer; `trickle`: one byte a second; `odd`: 200 with a body that is no protobuf."""
HANG_S = 60.0


class Receiver(ThreadingHTTPServer):
    """What it was sent, and how it answers."""

    daemon_threads = True

    def __init__(self, port: int):
        super().__init__(("127.0.0.1", port), Handler)
        self.mode = "ok"
        self.seen: list[dict[str, Any]] = []
        self.refused: dict[str, int] = {}


class Handler(BaseHTTPRequestHandler):
    """One request."""

    server: Receiver

    def do_GET(self) -> None:
        told = {"requests": self.server.seen, "refused": self.server.refused}
        self._send(200, json.dumps(told).encode(), "application/json")

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        if self.path == "/_mode":
            assert body.decode() in MODES
            self.server.mode = body.decode()
            self._send(200)
            return
        mode = self.server.mode
        if mode not in ("ok", "odd", "partial") and not (mode == "413" and len(body) < 2_000):
            self.server.refused[mode] = self.server.refused.get(mode, 0) + 1
            self._refuse(mode)
            return
        assert self.path == "/v1/traces", self.path
        assert self.headers["content-type"] == "application/x-protobuf"
        self.server.seen.append({"headers": dict(self.headers), **_read(body)})
        answer = ExportTraceServiceResponse()
        if mode == "partial":
            answer.partial_success.rejected_spans, answer.partial_success.error_message = 1, "one is enough"
        self._send(200, b"\xff\xff\xff" if mode == "odd" else answer.SerializeToString())

    def _refuse(self, mode: str) -> None:
        if mode == "garbage":
            self.wfile.write(b"\x00\x01\x02 hello\r\n\r\n")
        elif mode == "hang":
            time.sleep(HANG_S)
        elif mode == "trickle":
            self.wfile.write(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n")
            with suppress(OSError):
                for _ in range(int(HANG_S)):
                    self.wfile.write(b" ")
                    time.sleep(1.0)
        else:
            self._send(int(mode), b"not now", "text/plain", {"retry-after": "1"} if mode in ("429", "503") else {})

    def _send(
        self, status: int, body: bytes = b"", kind: str = "application/x-protobuf", more: dict[str, str] | None = None
    ) -> None:
        self.send_response(status)
        for name, value in {"content-type": kind, "content-length": str(len(body)), **(more or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Nothing is said of requests."""


def _read(body: bytes) -> dict[str, Any]:
    """The request in plain data."""
    resources = ExportTraceServiceRequest.FromString(body).resource_spans
    return {
        "resource": _attributes(resources[0].resource.attributes),
        "spans": [_span(span) for one in resources for within in one.scope_spans for span in within.spans],
    }


def _span(span: Any) -> dict[str, Any]:
    return {
        "trace": span.trace_id.hex(),
        "id": span.span_id.hex(),
        "parent": span.parent_span_id.hex(),
        "name": span.name,
        "kind": span.kind,
        "start_ns": span.start_time_unix_nano,
        "end_ns": span.end_time_unix_nano,
        "status": span.status.code,
        "message": span.status.message,
        "attributes": _attributes(span.attributes),
        "events": [{"name": event.name, "attributes": _attributes(event.attributes)} for event in span.events],
    }


def _attributes(pairs: Any) -> dict[str, Any]:
    return {pair.key: _value(pair.value) for pair in pairs}


def _value(value: AnyValue) -> Any:
    kind = value.WhichOneof("value")
    if kind == "array_value":
        return [_value(part) for part in value.array_value.values]
    return getattr(value, kind)


def main() -> None:
    """Serve until the standard input ends."""
    receiver = Receiver(int(sys.argv[1]) if len(sys.argv) > 1 else 0)
    threading.Thread(target=receiver.serve_forever, daemon=True).start()
    sys.stdout.write(f"{receiver.server_address[1]}\n")
    sys.stdout.flush()
    sys.stdin.read()


if __name__ == "__main__":
    main()
