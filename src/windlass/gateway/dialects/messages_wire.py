"""What a Messages request looks like on the wire. Source: Anthropic API reference, "Create a Message"."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from windlass.gateway.dialects.fields import NULL, Tokens


class MessagesSource(msgspec.Struct):
    type: str
    media_type: str = ""
    data: str = ""
    url: str = ""
    file_id: str = ""
    content: Any = None


class MessagesCitations(msgspec.Struct):
    enabled: bool = False


class MessagesBlock(msgspec.Struct):
    type: str
    text: str = ""
    source: MessagesSource | None = None
    title: str | None = None
    context: str | None = None
    citations: MessagesCitations | list[Any] | None = None
    thinking: str = ""
    signature: str = ""
    data: str = ""
    id: str = ""
    name: str = ""
    input: msgspec.Raw = NULL
    tool_use_id: str = ""
    content: str | list[MessagesBlock] | None = None
    is_error: bool | None = None
    cache_control: Any = None


class MessagesTurn(msgspec.Struct):
    role: Literal["user", "assistant", "system"]
    content: str | list[MessagesBlock]


class MessagesTool(msgspec.Struct):
    name: str
    type: str | None = None
    description: str | None = None
    input_schema: msgspec.Raw = NULL
    strict: bool | None = None
    cache_control: Any = None


class MessagesToolChoice(msgspec.Struct):
    type: Literal["auto", "any", "tool", "none"]
    name: str = ""
    disable_parallel_tool_use: bool | None = None


class MessagesFormat(msgspec.Struct):
    type: str
    schema: msgspec.Raw


class MessagesOutput(msgspec.Struct):
    effort: str | None = None
    format: MessagesFormat | None = None


class MessagesThinking(msgspec.Struct):
    type: Literal["enabled", "disabled", "adaptive"]
    budget_tokens: Tokens | None = None
    display: str | None = None


class MessagesMetadata(msgspec.Struct):
    user_id: str | None = None


class MessagesFields(msgspec.Struct):
    model: str
    messages: list[MessagesTurn]
    max_tokens: Tokens
    stream: bool | None = None
    system: str | list[MessagesBlock] | None = None
    tools: list[MessagesTool] | None = None
    tool_choice: MessagesToolChoice | None = None
    output_config: MessagesOutput | None = None
    output_format: MessagesFormat | None = None
    thinking: MessagesThinking | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    stop_sequences: list[str] | None = None
    metadata: MessagesMetadata | None = None
