"""Which reader reads a dialect's replies."""

from __future__ import annotations

from typing import Protocol

import msgspec

from windlass.gateway.dialects.chat_reply import ChatReply
from windlass.gateway.dialects.events import ServerSent
from windlass.gateway.dialects.gemini_reply import GeminiReply
from windlass.gateway.dialects.hub import Dialect, StreamPiece
from windlass.gateway.dialects.messages_reply import MessagesReply
from windlass.gateway.dialects.responses_reply import ResponsesReply

UNREADABLE = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)
"""What the readers raise for bytes that are no reply."""


class ReplyReader(Protocol):
    """Reads one reply of one dialect, or raises one of UNREADABLE. It is whole where Finished is among its pieces."""

    def whole(self, body: bytes) -> list[StreamPiece]: ...

    def read(self, event: ServerSent) -> list[StreamPiece]: ...

    def end(self) -> list[StreamPiece]: ...


_READERS: dict[Dialect, type[ReplyReader]] = {
    "chat": ChatReply,
    "responses": ResponsesReply,
    "messages": MessagesReply,
    "gemini": GeminiReply,
}


def reader(dialect: Dialect) -> ReplyReader:
    """A reader for one reply."""
    return _READERS[dialect]()
