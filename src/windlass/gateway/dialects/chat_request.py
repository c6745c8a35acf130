"""A chat-completions request into the common form. Source: OpenAI API reference, "Create chat completion"."""

from __future__ import annotations

import msgspec

from windlass.errors import RequestError
from windlass.gateway.dialects import fields, hub
from windlass.gateway.dialects.chat_wire import (
    ChatAllowed,
    ChatAudio,
    ChatChoice,
    ChatFields,
    ChatFile,
    ChatFormat,
    ChatImageUrl,
    ChatJsonSchema,
    ChatMessage,
    ChatNamed,
    ChatPart,
    ChatTool,
    ChatToolCall,
)
from windlass.gateway.dialects.fields import refused
from windlass.gateway.dialects.seals import REDACTED, seal

SHARED = (
    "metadata",
    "service_tier",
    "store",
    "prompt_cache_key",
    "prompt_cache_retention",
    "prompt_cache_options",
    "moderation",
    "user",
    "safety_identifier",
)
"""Fields that chat and Responses both have, with one meaning."""
_REFUSED = {
    "functions": "use tools",
    "function_call": "use tool_choice",
    "audio": "spoken answers need a model that speaks chat completions",
    "web_search_options": "a built-in tool of the provider cannot be carried to another dialect",
    "logit_bias": "token numbers mean something else to another model; leave it out",
}


def read(body: bytes, dropped: list[str]) -> hub.ModelRequest:
    """A chat request in the common form; the names of what is left out go to `dropped`."""
    asked = fields.decoded(body, ChatFields, "chat completions")
    shared = _shared(body, dropped)
    if (asked.modalities or ["text"]) != ["text"]:
        raise refused("modalities", "only text comes out of a model of another dialect")
    return hub.ModelRequest(
        source="chat",
        turns=tuple(_turn(message, f"messages[{at}]") for at, message in enumerate(asked.messages)),
        tools=tuple(_tool(tool, f"tools[{at}]") for at, tool in enumerate(asked.tools or ())),
        tool_choice=_choice(asked.tool_choice),
        parallel=asked.parallel_tool_calls,
        format=_format(asked.response_format),
        max_tokens=asked.max_tokens if asked.max_completion_tokens is None else asked.max_completion_tokens,
        temperature=asked.temperature,
        top_p=asked.top_p,
        top_k=asked.top_k,
        stop=(asked.stop,) if isinstance(asked.stop, str) else tuple(asked.stop or ()),
        n=asked.n or 1,
        seed=asked.seed,
        presence_penalty=asked.presence_penalty,
        frequency_penalty=asked.frequency_penalty,
        logprobs=bool(asked.logprobs),
        top_logprobs=asked.top_logprobs,
        effort=asked.reasoning_effort,
        verbosity=asked.verbosity,
        user=fields.user(shared),
        include_usage=bool(asked.stream_options and asked.stream_options.include_usage),
        shared=shared,
    )


def _shared(body: bytes, dropped: list[str]) -> dict[str, msgspec.Raw]:
    """What Responses takes as it is. The rest is refused where it means something, else dropped by name."""
    raw = msgspec.json.decode(body, type=dict[str, msgspec.Raw])
    rest = fields.unknown(body, ChatFields.__struct_fields__)
    for name in rest:
        if name in _REFUSED and bytes(raw[name]) != b"{}":
            raise refused(name, _REFUSED[name])
    dropped += (name for name in rest if name not in SHARED and name not in _REFUSED)
    return {name: raw[name] for name in rest if name in SHARED}


def _turn(message: ChatMessage, at: str) -> hub.ChatTurn:
    if message.audio is not None or message.function_call is not None or message.role == "function":
        raise refused(at, "audio answers and the old function messages cannot be carried; use tool_calls")
    if message.role == "tool":
        result = hub.ToolResult(_required(message.tool_call_id, f"{at}.tool_call_id"), _texts(message, at))
        return hub.ChatTurn("tool", (result,), at)
    parts: list[hub.InputPart] = [*_thinking(message), *_content(message, at)]
    if message.refusal:
        parts.append(hub.RefusalPart(message.refusal))
    parts += (_call(call, f"{at}.tool_calls[{index}]") for index, call in enumerate(message.tool_calls or ()))
    return hub.ChatTurn(message.role, tuple(parts), at, message.name or "")


def _required(value: str | None, at: str) -> str:
    if value is None:
        raise RequestError(f"{at} is missing; send it", param=at)
    return value


def _texts(message: ChatMessage, at: str) -> tuple[hub.TextPart, ...]:
    parts = _content(message, at)
    if not all(isinstance(part, hub.TextPart) for part in parts):
        raise refused(f"{at}.content", "a tool answers with text in chat completions")
    return tuple(part for part in parts if isinstance(part, hub.TextPart))


def _thinking(message: ChatMessage) -> list[hub.ThinkingPart]:
    if message.thinking_blocks:
        return [
            hub.ThinkingPart("", seal(REDACTED, block.data))
            if block.type == "redacted_thinking"
            else hub.ThinkingPart(block.thinking, seal("messages", block.signature))
            for block in message.thinking_blocks
        ]
    return [hub.ThinkingPart(message.reasoning_content)] if message.reasoning_content else []


def _content(message: ChatMessage, at: str) -> list[hub.InputPart]:
    match message.content:
        case None:
            return []
        case str(text):
            return [hub.TextPart(text)]
        case parts:
            return [_part(part, f"{at}.content[{index}]") for index, part in enumerate(parts)]


def _part(part: ChatPart, at: str) -> hub.InputPart:
    match part:
        case ChatPart(type="text", text=str(text)):
            return hub.TextPart(text)
        case ChatPart(type="refusal", refusal=str(text)):
            return hub.RefusalPart(text)
        case ChatPart(type="image_url", image_url=ChatImageUrl(url, detail)):
            media = fields.split_data_url(url)
            if media:
                return hub.ImagePart(media_type=media[0], data=media[1], detail=detail or "")
            return hub.ImagePart(url=url, detail=detail or "")
        case ChatPart(type="file", file=ChatFile() as file):
            return _file(file, at)
        case ChatPart(type="input_audio", input_audio=ChatAudio(data, form)):
            return hub.AudioPart(data, form)
    raise refused(at, f"a part of type {part.type[:40]!r} is unknown or lacks its content")


def _file(file: ChatFile, at: str) -> hub.FilePart:
    if file.file_id:
        return hub.FilePart(file_id=file.file_id, name=file.filename or "")
    media = fields.split_data_url(file.file_data or "")
    if media is None:
        raise refused(f"{at}.file.file_data", "send the file as data:<media type>;base64,<data>")
    return hub.FilePart(media_type=media[0], data=media[1], name=file.filename or "")


def _call(call: ChatToolCall, at: str) -> hub.ToolCall:
    if call.function is None:
        raise refused(at, f"a call of type {call.type[:40]!r} cannot be carried; only function calls can")
    google = call.extra_content.google if call.extra_content else None
    sealed = seal("gemini", google.thought_signature) if google else ""
    return hub.ToolCall(call.id, call.function.name, call.function.arguments, sealed)


def _tool(tool: ChatTool, at: str) -> hub.ToolDefinition:
    function = tool.function
    if tool.type != "function" or function is None:
        raise refused(at, f"a tool of type {tool.type[:40]!r} cannot be carried; only functions can")
    return hub.ToolDefinition(
        function.name, function.description or "", fields.given(function.parameters), function.strict
    )


def _choice(choice: str | ChatChoice | None) -> hub.ToolChoice | None:
    match choice:
        case None:
            return None
        case "none" | "auto" | "required":
            return hub.ToolChoice(choice)
        case ChatChoice(type="function", function=ChatNamed(name)):
            return hub.ToolChoice("named", name)
        case ChatChoice(type="allowed_tools", allowed_tools=ChatAllowed(mode, tools)):
            names = tuple(tool.function.name for tool in tools if tool.function)
            if len(names) == len(tools) > 0:
                return hub.ToolChoice(mode, allowed=names)
    raise refused("tool_choice", "only functions can be named or allowed")


def _format(given: ChatFormat | None) -> hub.OutputFormat | None:
    match given:
        case None | ChatFormat(type="text"):
            return None
        case ChatFormat(type="json_object"):
            return hub.OutputFormat()
        case ChatFormat(type="json_schema", json_schema=ChatJsonSchema(name, description, schema, strict)):
            return hub.OutputFormat(fields.given(schema) or msgspec.Raw(b"{}"), name, description or "", strict)
    raise refused("response_format", f"type {given.type[:40]!r} cannot be carried; use json_schema")
