"""Reads along with a reply, in whichever dialect: its usage, its text, and whether it ended as it should."""

from __future__ import annotations

from windlass.gateway.dialects.events import EventLines, ServerSent
from windlass.gateway.dialects.hub import (
    Began,
    CallDelta,
    Counted,
    Dialect,
    Ended,
    Failed,
    Finished,
    RefusalDelta,
    StreamPiece,
    TextDelta,
    ThinkingDelta,
)
from windlass.gateway.dialects.readers import UNREADABLE, reader
from windlass.gateway.money.usage import Usage
from windlass.gateway.wire import MOST_REASONS, ReplyTally, Tally


class PieceTally:
    """The tally of the other dialects, over the pieces that their readers find.

    text: all that was generated, reasoning and the arguments of calls among it, as all of it is billed.
    """

    def __init__(self, dialect: Dialect, *, stream: bool):
        self.stream = stream
        self._reader = reader(dialect)
        self._lines = EventLines() if stream else None
        self._body: list[bytes] = []
        self._texts: list[str] = []
        self._finished = False
        self.usage = Usage()
        self.malformed = 0
        self.error = False
        self.code = ""
        self.model = ""
        self.finish: tuple[str, ...] = ()
        self.done = False

    @property
    def text(self) -> str:
        return "".join(self._texts)

    @property
    def complete(self) -> bool:
        return self._finished and not self.error

    def feed(self, chunk: bytes) -> None:
        """Take the next bytes; event borders may fall anywhere."""
        if self._lines is None:
            self._body.append(chunk)
            return
        for event in self._lines.feed(chunk):
            self._event(event)

    def end(self) -> None:
        """No more bytes will come."""
        if self._lines is not None:
            for event in self._lines.end():
                self._event(event)
            self._pieces(self._reader.end())
        elif body := b"".join(self._body):
            self._body = []
            self._whole(body)

    def _event(self, event: ServerSent) -> None:
        try:
            pieces = self._reader.read(event)
        except UNREADABLE:
            self.malformed += 1
            return
        self._pieces(pieces)
        self.done = self.done or self._finished or self.error

    def _whole(self, body: bytes) -> None:
        try:
            pieces = self._reader.whole(body)
        except UNREADABLE:
            self.malformed += 1
            return
        self._pieces(pieces)

    def _pieces(self, pieces: list[StreamPiece]) -> None:
        for piece in pieces:
            match piece:
                case TextDelta(text=text) | RefusalDelta(text=text) | ThinkingDelta(text=text):
                    self._texts.append(text)
                case CallDelta(arguments=arguments):
                    self._texts.append(arguments)
                case Counted(used) if used.prompt_tokens != 0:
                    # Nothing went in: a stream that was translated begins so, before its provider has counted.
                    self.usage = used
                case Began(model=model):
                    self.model = model
                case Ended(finish=finish) if len(self.finish) < MOST_REASONS:
                    self.finish = (*self.finish, finish)
                case Failed(failure):
                    self.error, self.code = True, failure.code
                case Finished():
                    self._finished = True


def tally(dialect: Dialect, *, stream: bool) -> ReplyTally:
    """The tally for one reply."""
    return Tally(stream=stream) if dialect == "chat" else PieceTally(dialect, stream=stream)
