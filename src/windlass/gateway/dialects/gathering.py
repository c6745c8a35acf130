"""A whole reply out of its pieces: what a stream said, put together."""

from __future__ import annotations

from collections.abc import Iterable

from windlass.gateway.dialects.hub import (
    Began,
    CallBegan,
    CallDelta,
    Completion,
    CompletionChoice,
    Counted,
    Ended,
    Failed,
    Failure,
    OutputPart,
    RefusalDelta,
    RefusalPart,
    StreamPiece,
    TextDelta,
    TextPart,
    ThinkingDelta,
    ThinkingPart,
    ToolCall,
)
from windlass.gateway.money.usage import Usage


class _Choice:
    """One choice as it grows: its parts in the order in which they began."""

    def __init__(self) -> None:
        self.parts: list[OutputPart] = []
        self.ended: Ended | None = None
        self._calls: dict[int, int] = {}

    def add(self, piece: TextDelta | RefusalDelta | ThinkingDelta | CallBegan | CallDelta) -> None:
        last = self.parts[-1] if self.parts else None
        match piece:
            case TextDelta(_, text, logprobs):
                if isinstance(last, TextPart):
                    self.parts[-1] = TextPart(last.text + text, last.logprobs + logprobs)
                else:
                    self.parts.append(TextPart(text, logprobs))
            case RefusalDelta(_, text):
                if isinstance(last, RefusalPart):
                    self.parts[-1] = RefusalPart(last.text + text)
                else:
                    self.parts.append(RefusalPart(text))
            case ThinkingDelta(_, text, sealed):
                if isinstance(last, ThinkingPart) and not last.seal:
                    self.parts[-1] = ThinkingPart(last.text + text, sealed)
                else:
                    self.parts.append(ThinkingPart(text, sealed))
            case CallBegan(_, index, call_id, name, sealed):
                self._calls[index] = len(self.parts)
                self.parts.append(ToolCall(call_id, name, "", sealed))
            case CallDelta(_, index, arguments):
                call = self.parts[self._calls[index]]
                if isinstance(call, ToolCall):
                    self.parts[self._calls[index]] = ToolCall(call.id, call.name, call.arguments + arguments, call.seal)


def gather(pieces: Iterable[StreamPiece]) -> Completion | Failure:
    """The reply that these pieces make; the first failure among them where there is one."""
    choices: dict[int, _Choice] = {}
    began, usage = Began("", "", 0), None
    for piece in pieces:
        match piece:
            case Began():
                began = piece
            case Counted(counted):
                usage = counted
            case Failed(failure):
                return failure
            case Ended(choice):
                choices.setdefault(choice, _Choice()).ended = piece
            case TextDelta() | RefusalDelta() | ThinkingDelta() | CallBegan() | CallDelta():
                choices.setdefault(piece.choice, _Choice()).add(piece)
    return Completion(began.id, began.model, began.created_s, _choices(choices), usage or Usage())


def _choices(choices: dict[int, _Choice]) -> tuple[CompletionChoice, ...]:
    return tuple(
        CompletionChoice(at, tuple(choice.parts), choice.ended.finish, choice.ended.stop_sequence)
        for at, choice in sorted(choices.items())
        if choice.ended is not None
    )
