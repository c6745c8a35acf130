"""What a routing policy sees of a request: a few lexical numbers, all in [0, 1] or nearly so. No text leaves."""

from __future__ import annotations

import math

from windlass.gateway.passages import read
from windlass.gateway.wire import Chat
from windlass.records import ContextValue

FEATURISER = "lexical@1"
_ASKING = ("why", "how", "what", "who", "when")
_READ_CHARS = 20_000


def features(chat: Chat) -> dict[str, ContextValue]:
    """The named context of the `model` point for one chat request."""
    material = read(chat.messages)
    question = material.question[:_READ_CHARS].lower()
    asked = question.split()
    context: dict[str, ContextValue] = {
        "log_chars": math.log1p(sum(len(message.text) for message in chat.messages)) / 12,
        "log_question_words": math.log1p(len(asked)) / 6,
        "messages": min(len(chat.messages), 20) / 20,
        "passages": min(len(material.passages), 20) / 20,
        "mean_word_chars": min(sum(map(len, asked)) / max(1, len(asked)), 20) / 10,
        "digits": sum(character.isdigit() for character in question) / max(1, len(question)),
        "stream": float(chat.stream),
    }
    return context | {f"asks_{word}": float(word in asked) for word in _ASKING}
