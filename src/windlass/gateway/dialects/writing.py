"""Writes a stream of a dialect in which parts come one after the other, each opened, written and closed."""

from __future__ import annotations

from abc import ABC, abstractmethod

from windlass.gateway.dialects.hub import (
    Began,
    CallBegan,
    CallDelta,
    Counted,
    Ended,
    Failed,
    Failure,
    Finished,
    RefusalDelta,
    StreamPiece,
    TextDelta,
    ThinkingDelta,
)
from windlass.gateway.money.usage import Usage

UNNAMED = Began("", "", 0)
INTERLEAVED = Failed(Failure("the provider mixed the arguments of two tool calls", code="calls_interleaved"))
"""A call is closed once the next begins; arguments that come for it after that have no place."""


class PartWriter(ABC):
    """What both such dialects do alike: one choice, an ending that waits for the end, silence after an error."""

    def __init__(self) -> None:
        self._failed = False
        self._end = Ended(0, "stop")
        self._usage = Usage()

    def write(self, piece: StreamPiece) -> bytes:
        """The bytes that this piece makes."""
        if self._failed or getattr(piece, "choice", None):  # one choice was asked for
            return b""
        match piece:
            case Ended():
                self._end = piece
                return b""
            case Counted(used):
                self._usage = used
                return b""
            case Failed(failure):
                self._failed = True
                return self._fail(failure)
            case _:
                return self._part(piece)

    def _part(self, piece: StreamPiece) -> bytes:
        match piece:
            case TextDelta():
                return self._text(piece)
            case CallDelta():
                return self._arguments(piece)
            case ThinkingDelta():
                return self._thinking(piece.text, piece.seal)
            case CallBegan():
                sealed = self._close() + self._thinking("", piece.seal) if piece.seal else b""
                return sealed + self._call(piece)
            case RefusalDelta():
                return self._refusal(piece)
            case Began():
                return self._begin(piece)
            case Finished():
                return self._finished()
        return b""

    @abstractmethod
    def _begin(self, began: Began) -> bytes: ...

    @abstractmethod
    def _close(self) -> bytes: ...

    @abstractmethod
    def _text(self, delta: TextDelta) -> bytes: ...

    @abstractmethod
    def _refusal(self, delta: RefusalDelta) -> bytes: ...

    @abstractmethod
    def _thinking(self, text: str, sealed: str) -> bytes: ...

    @abstractmethod
    def _call(self, call: CallBegan) -> bytes: ...

    @abstractmethod
    def _arguments(self, delta: CallDelta) -> bytes: ...

    @abstractmethod
    def _finished(self) -> bytes: ...

    @abstractmethod
    def _fail(self, failure: Failure) -> bytes: ...
