"""What admission and routing need of a request, in whichever dialect it comes; the rest stays as the bytes that came.

Sources: OpenAI API reference, "Create chat completion" and "Create a model response"; Anthropic API reference, "Create
a Message" and "Count tokens in a Message".
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from windlass.errors import RequestError
from windlass.gateway.dialects.fields import Answers, Tokens, decoded
from windlass.gateway.dialects.hub import Dialect
from windlass.gateway.wire import Message

NO_MESSAGES = "is empty; send at least one message"


class Head(msgspec.Struct, frozen=True):
    """A request as far as the gateway reads it. fields: the top level, each value raw, the last of duplicates.

    messages: the conversation with its text, instructions and tool answers among it. max_tokens: the most that may
    come out, None where the client sets no limit. n: how many answers are asked for.
    """

    dialect: Dialect
    raw: bytes
    fields: dict[str, msgspec.Raw]
    model: str
    stream: bool
    user: str
    messages: tuple[Message, ...]
    max_tokens: int | None = None
    n: int = 1


class ChatHeadStream(msgspec.Struct):
    include_usage: bool | None = None


class ChatHead(msgspec.Struct):
    model: str
    messages: tuple[Message, ...]
    stream: bool | None = None
    stream_options: ChatHeadStream | None = None
    user: str | None = None
    safety_identifier: str | None = None
    max_tokens: Tokens | None = None
    max_completion_tokens: Tokens | None = None
    n: Answers | None = None


class ResponsesHeadItem(msgspec.Struct):
    type: str = "message"
    role: str | None = None
    content: Any = None
    output: Any = None
    arguments: Any = None


class ResponsesHead(msgspec.Struct):
    model: str
    input: str | list[ResponsesHeadItem] | None = None
    instructions: str | None = None
    stream: bool | None = None
    user: str | None = None
    safety_identifier: str | None = None
    max_output_tokens: Tokens | None = None


class MessagesHeadUser(msgspec.Struct):
    user_id: str | None = None


class MessagesHead(msgspec.Struct):
    model: str
    messages: list[Message]
    system: Any = None
    stream: bool | None = None
    metadata: MessagesHeadUser | None = None
    max_tokens: Tokens | None = None


def head(dialect: Dialect, body: bytes) -> Head:
    """Read a request. RequestError (400) says which field is at fault. Clients do not speak Gemini: ValueError."""
    match dialect:
        case "chat":
            return _chat(body)
        case "responses":
            return _responses(body)
        case "messages":
            return _messages(body)
        case _:
            raise ValueError(f"no client speaks {dialect!r}; it is a dialect of upstreams only")


def renamed(fields: Mapping[str, msgspec.Raw], model: str, *, include_usage: bool = False) -> bytes:
    """The request of these raw fields for another model, and with its stream's usage asked for.

    Every other value keeps its bytes and its place. Built anew even where the name stays: of a field that came twice
    only the one remains that was read here, else the upstream might read the other.
    """
    encode = msgspec.json.encode
    values = {name: bytes(value) for name, value in fields.items()}
    values["model"] = encode(model)
    if include_usage:
        given = values.get("stream_options", b"null")
        options = msgspec.json.decode(given, type=dict[str, msgspec.Raw] | None) or {}
        values["stream_options"] = encode(options | {"include_usage": True})
    return b"{" + b",".join(encode(name) + b":" + value for name, value in values.items()) + b"}"


def _chat(body: bytes) -> Head:
    asked = decoded(body, ChatHead, "chat completions")
    if not asked.messages:
        raise RequestError(f"messages {NO_MESSAGES}", param="messages")
    most = asked.max_tokens if asked.max_completion_tokens is None else asked.max_completion_tokens
    user = _user(asked.user, "user") or _user(asked.safety_identifier, "safety_identifier")
    fields = _fields(body)
    return Head("chat", body, fields, asked.model, bool(asked.stream), user, asked.messages, most, asked.n or 1)


def _responses(body: bytes) -> Head:
    asked = decoded(body, ResponsesHead, "Responses")
    given = [Message("system", asked.instructions)] if asked.instructions else []
    match asked.input:
        case str(text):
            given.append(Message("user", text))
        case list(items):
            given += (_item(item) for item in items)
    fields = _fields(body)
    if not asked.input and not any(name in fields for name in ("prompt", "previous_response_id", "conversation")):
        raise RequestError(f"input {NO_MESSAGES}", param="input")
    user = _user(asked.user, "user") or _user(asked.safety_identifier, "safety_identifier")
    most = asked.max_output_tokens
    return Head("responses", body, fields, asked.model, bool(asked.stream), user, tuple(given), most)


def _item(item: ResponsesHeadItem) -> Message:
    """An input item as a message; what a tool answered, and what the model called it with, are text as well."""
    if item.role is not None:
        return Message(item.role, item.content)
    if item.output is not None:
        return Message("tool", item.output)
    return Message("assistant", item.arguments if item.arguments is not None else item.content)


def _messages(body: bytes) -> Head:
    asked = decoded(body, MessagesHead, "Messages")
    if not asked.messages:
        raise RequestError(f"messages {NO_MESSAGES}", param="messages")
    system = (Message("system", asked.system),) if asked.system else ()
    given = (*system, *(part for message in asked.messages for part in _split(message)))
    user = _user(asked.metadata.user_id if asked.metadata else None, "metadata.user_id")
    fields = _fields(body)
    return Head("messages", body, fields, asked.model, bool(asked.stream), user, given, asked.max_tokens)


def _split(message: Message) -> list[Message]:
    """A message, and what tools answered as messages of their own, as the other dialects have it."""
    blocks = message.content
    if not isinstance(blocks, list):
        return [message]
    answers = [block for block in blocks if isinstance(block, dict) and block.get("type") == "tool_result"]
    if not answers:
        return [message]
    rest = [block for block in blocks if not (isinstance(block, dict) and block.get("type") == "tool_result")]
    tools = [Message("tool", block.get("content")) for block in answers]
    return [*tools, Message(message.role, rest)] if rest else tools


def _fields(body: bytes) -> dict[str, msgspec.Raw]:
    """The top level; the body was decoded already and holds."""
    return msgspec.json.decode(body, type=dict[str, msgspec.Raw])


def _user(user: str | None, param: str) -> str:
    if "\x00" in (user or ""):
        raise RequestError(f"{param} holds a NUL character; remove it", param=param)
    return user or ""
