"""What a chat-completions request looks like on the wire. Source: OpenAI API reference, "Create chat completion".

Beyond the reference, assistant messages may hold `reasoning_content` and `thinking_blocks`, which OpenAI-compatible
servers use for reasoning, and a tool call `extra_content.google.thought_signature` (Gemini's OpenAI compatibility).
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from windlass.gateway.dialects.fields import NULL, Answers, Tokens


class ChatImageUrl(msgspec.Struct):
    url: str
    detail: str | None = None


class ChatFile(msgspec.Struct):
    filename: str | None = None
    file_data: str | None = None
    file_id: str | None = None


class ChatAudio(msgspec.Struct):
    data: str
    format: str


class ChatPart(msgspec.Struct):
    type: str
    text: str | None = None
    refusal: str | None = None
    image_url: ChatImageUrl | None = None
    file: ChatFile | None = None
    input_audio: ChatAudio | None = None


class ChatFunction(msgspec.Struct):
    name: str
    arguments: str = ""


class ChatGoogle(msgspec.Struct):
    thought_signature: str = ""


class ChatExtra(msgspec.Struct):
    google: ChatGoogle | None = None


class ChatToolCall(msgspec.Struct):
    id: str
    type: str = "function"
    function: ChatFunction | None = None
    extra_content: ChatExtra | None = None


class ChatThinking(msgspec.Struct):
    type: str
    thinking: str = ""
    signature: str = ""
    data: str = ""


class ChatMessage(msgspec.Struct):
    role: Literal["system", "developer", "user", "assistant", "tool", "function"]
    content: str | list[ChatPart] | None = None
    name: str | None = None
    refusal: str | None = None
    tool_calls: list[ChatToolCall] | None = None
    tool_call_id: str | None = None
    reasoning_content: str | None = None
    thinking_blocks: list[ChatThinking] | None = None
    audio: Any = None
    function_call: Any = None


class ChatToolFunction(msgspec.Struct):
    name: str
    description: str | None = None
    parameters: msgspec.Raw = NULL
    strict: bool | None = None


class ChatTool(msgspec.Struct):
    type: str
    function: ChatToolFunction | None = None


class ChatJsonSchema(msgspec.Struct):
    name: str = "output"
    description: str | None = None
    schema: msgspec.Raw = NULL
    strict: bool | None = None


class ChatFormat(msgspec.Struct):
    type: str
    json_schema: ChatJsonSchema | None = None


class ChatNamed(msgspec.Struct):
    name: str


class ChatAllowedTool(msgspec.Struct):
    type: str = "function"
    function: ChatNamed | None = None


class ChatAllowed(msgspec.Struct):
    mode: Literal["auto", "required"]
    tools: list[ChatAllowedTool]


class ChatChoice(msgspec.Struct):
    type: str
    function: ChatNamed | None = None
    allowed_tools: ChatAllowed | None = None


class ChatStreamOptions(msgspec.Struct):
    include_usage: bool | None = None


class ChatFields(msgspec.Struct):
    model: str
    messages: list[ChatMessage]
    stream: bool | None = None
    stream_options: ChatStreamOptions | None = None
    tools: list[ChatTool] | None = None
    tool_choice: Literal["none", "auto", "required"] | ChatChoice | None = None
    parallel_tool_calls: bool | None = None
    response_format: ChatFormat | None = None
    max_tokens: Tokens | None = None
    max_completion_tokens: Tokens | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    stop: str | list[str] | None = None
    n: Answers | None = None
    seed: int | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    logprobs: bool | None = None
    top_logprobs: int | None = None
    reasoning_effort: str | None = None
    verbosity: str | None = None
    modalities: list[str] | None = None
