"""What a Responses request looks like on the wire. Source: OpenAI API reference, "Create a model response"."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from windlass.gateway.dialects.fields import NULL, Tokens


class ResponsesContent(msgspec.Struct):
    type: str
    text: str = ""
    refusal: str = ""
    image_url: str | None = None
    detail: str | None = None
    file_id: str | None = None
    file_url: str | None = None
    file_data: str | None = None
    filename: str | None = None


class ResponsesItem(msgspec.Struct):
    type: str = "message"
    role: Literal["user", "assistant", "system", "developer"] | None = None
    content: str | list[ResponsesContent] | None = None
    id: str | None = None
    call_id: str = ""
    name: str | None = None
    arguments: str = ""
    output: str | list[ResponsesContent] | None = None
    summary: list[ResponsesContent] | None = None
    encrypted_content: str | None = None


class ResponsesTool(msgspec.Struct):
    type: str
    name: str = ""
    description: str | None = None
    parameters: msgspec.Raw = NULL
    strict: bool | None = None


class ResponsesNamed(msgspec.Struct):
    type: str
    name: str = ""


class ResponsesChoice(msgspec.Struct):
    type: str
    name: str = ""
    mode: Literal["auto", "required"] = "auto"
    tools: list[ResponsesNamed] | None = None


class ResponsesFormat(msgspec.Struct):
    type: str
    name: str = "output"
    description: str | None = None
    schema: msgspec.Raw = NULL
    strict: bool | None = None


class ResponsesText(msgspec.Struct):
    format: ResponsesFormat | None = None
    verbosity: str | None = None


class ResponsesReasoning(msgspec.Struct):
    effort: str | None = None
    summary: str | None = None
    generate_summary: str | None = None


class ResponsesFields(msgspec.Struct):
    model: str
    input: str | list[ResponsesItem]
    instructions: str | None = None
    stream: bool | None = None
    stream_options: Any = None
    include: list[str] | None = None
    tools: list[ResponsesTool] | None = None
    tool_choice: Literal["none", "auto", "required"] | ResponsesChoice | None = None
    parallel_tool_calls: bool | None = None
    text: ResponsesText | None = None
    reasoning: ResponsesReasoning | None = None
    max_output_tokens: Tokens | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_logprobs: int | None = None
    store: bool | None = None
    truncation: str | None = None
