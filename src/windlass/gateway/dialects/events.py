"""Server-sent events: bytes, split anywhere, into events, and events into bytes.

Source: WHATWG HTML Living Standard, "Server-sent events", 9.2.6 "Interpreting an event stream".
"""

from __future__ import annotations

from typing import NamedTuple


class ServerSent(NamedTuple):
    """One event: its name ('' where none was given) and its data, the lines joined."""

    name: str
    data: bytes


class EventLines:
    """Takes bytes as they arrive and hands out whole events. A line break may be LF or CRLF."""

    def __init__(self) -> None:
        self._rest: list[bytes] = []
        self._name = b""
        self._data: list[bytes] = []

    def feed(self, chunk: bytes) -> list[ServerSent]:
        """The events that are whole now."""
        if b"\n" not in chunk:
            self._rest.append(chunk)
            return []
        *lines, rest = b"".join((*self._rest, chunk)).split(b"\n")
        self._rest = [rest]
        events: list[ServerSent] = []
        for line in lines:
            self._line(line.removesuffix(b"\r"), events)
        return events

    def end(self) -> list[ServerSent]:
        """What stands there without its empty line: some servers end so after their last event."""
        events: list[ServerSent] = []
        rest, self._rest = b"".join(self._rest), []
        self._line(rest.rstrip(b"\r"), events)
        self._line(b"", events)
        return events

    def _line(self, line: bytes, events: list[ServerSent]) -> None:
        if line.startswith(b"data:"):
            self._data.append(line[5:].strip(b" "))
        elif line.startswith(b"event:"):
            self._name = line[6:].strip(b" ")
        elif not line:
            data = b"\n".join(self._data)
            if data:  # an event without any only keeps the connection open
                events.append(ServerSent(self._name.decode("utf-8", "replace"), data))
            self._name, self._data = b"", []


def data_event(data: bytes) -> bytes:
    """An event without a name."""
    return b"data: " + data + b"\n\n"


def named_event(name: str, data: bytes) -> bytes:
    """An event with its name."""
    return b"event: " + name.encode() + b"\ndata: " + data + b"\n\n"
