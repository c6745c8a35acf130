"""What a prompt holds: its question, the passages that travel inside it, and the numbers that routing sees of it.

A message that carries passages is JSON: `{"question": ..., "passages": [{"id": "p1", "title": ..., "at": "00:07:10",
"speaker": ..., "text": ...}]}`. JSON strings cannot be broken out of, so what a transcript says stays inside its
passage. A reply quotes with one line per quote: `> the words, exactly [p1]`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Protocol

import msgspec

from windlass.gateway.wire import Message
from windlass.records import ContextValue

FEATURISER = "lexical@1"
_ASKING = tuple((f"asks_{word}", word) for word in ("why", "how", "what", "who", "when"))
_READ_CHARS = 20_000
_ID = re.compile(r"p\d{1,4}")


class Excerpt(msgspec.Struct, frozen=True, kw_only=True):
    """A piece of a source that an answer may quote from."""

    id: str
    text: str
    title: str = ""
    at: str = ""
    speaker: str = ""


class Quoted(msgspec.Struct, frozen=True):
    """A quote as a model wrote it: the words and the passage it names."""

    text: str
    passage: str


class Material(msgspec.Struct, frozen=True):
    """What a message gives an extractive model to work on."""

    question: str
    passages: tuple[Excerpt, ...]


def render(material: Material) -> str:
    """The message content that carries `material`."""
    return msgspec.json.encode(material).decode()


def read(messages: Sequence[Message]) -> Material:
    """The newest material in `messages`; without any, the last message asks and the earlier ones are the passages."""
    for message in reversed(messages):
        found = _material(message.text)
        if found is not None:
            return found
    *before, last = messages
    texts = [text for message in before if message.role != "system" for text in _paragraphs(message.text)]
    *inside, question = _paragraphs(last.text) or [""]
    numbered = enumerate((*texts, *inside), start=1)
    return Material(question, tuple(Excerpt(id=f"p{number}", text=text) for number, text in numbered))


def quote(text: str, passage: Excerpt) -> str:
    """One quote line of a reply."""
    return f"> {text} [{passage.id}]"


def quotes(reply: str) -> tuple[Quoted, ...]:
    """Every quote line in a reply, in order."""
    return tuple(quoted for quoted in map(_quoted, reply.split("\n")) if quoted is not None)


def _quoted(line: str) -> Quoted | None:
    """`> words [p1]` as a quote; in time that grows with the line, whatever a model sends."""
    stripped = line.strip(" \t\r")
    if not (stripped.startswith(">") and stripped.endswith("]")):
        return None
    text, _, name = stripped[1:-1].rpartition("[")
    words = text.strip(" \t")
    return Quoted(words, name) if words and _ID.fullmatch(name) else None


def _material(text: str) -> Material | None:
    if not text.lstrip().startswith("{"):
        return None
    try:
        return msgspec.json.decode(text, type=Material)
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        return None


def _paragraphs(text: str) -> list[str]:
    return [part.strip() for part in re.split(r"\n\s*\n", text) if part.strip()]


class Prompted(Protocol):
    """A request with messages, in whichever dialect."""

    @property
    def messages(self) -> tuple[Message, ...]: ...

    @property
    def stream(self) -> bool: ...


def features(chat: Prompted) -> dict[str, ContextValue]:
    """The named context of the `model` point for one chat request: lexical, all in [0, 1] or nearly so; no text."""
    material = read(chat.messages)
    question = material.question[:_READ_CHARS].lower()
    asked = question.split()
    context: dict[str, ContextValue] = {
        "log_chars": math.log1p(sum([len(message.text) for message in chat.messages])) / 12,
        "log_question_words": math.log1p(len(asked)) / 6,
        "messages": min(len(chat.messages), 20) / 20,
        "passages": min(len(material.passages), 20) / 20,
        "mean_word_chars": min(sum(map(len, asked)) / max(1, len(asked)), 20) / 10,
        "digits": _digits(question) / max(1, len(question)),
        "stream": float(chat.stream),
    }
    for name, word in _ASKING:
        context[name] = float(word in asked)
    return context


def question(messages: Sequence[Message]) -> str:
    """The text that says what a chat is about: the question of the newest material, else what the user said last."""
    for message in reversed(messages):
        found = _material(message.text)
        if found is not None:
            return found.question
    users = (message.text for message in reversed(messages) if message.role == "user")
    return next(users, messages[-1].text if messages else "")


def _digits(text: str) -> int:
    """How many characters of a text are digits, of any script."""
    if text.isascii():
        return len(text) - len(text.encode().translate(None, b"0123456789"))
    return sum(map(str.isdigit, text))
