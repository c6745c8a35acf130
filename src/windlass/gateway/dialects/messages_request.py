"""A Messages request into the common form. Source: Anthropic API reference, "Create a Message"."""

from __future__ import annotations

import base64
from typing import Any

import msgspec

from windlass.gateway.dialects import fields, hub
from windlass.gateway.dialects.fields import refused
from windlass.gateway.dialects.messages_wire import (
    MessagesBlock,
    MessagesCitations,
    MessagesFields,
    MessagesFormat,
    MessagesMetadata,
    MessagesOutput,
    MessagesSource,
    MessagesThinking,
    MessagesTool,
    MessagesToolChoice,
    MessagesTurn,
)
from windlass.gateway.dialects.seals import REDACTED, seal

_REFUSED = {
    "container": "code runs in Anthropic's containers only",
    "mcp_servers": "the provider itself calls them; no other dialect can say so",
    "context_management": "the provider itself edits the conversation; no other dialect can say so",
}


def read(body: bytes, dropped: list[str]) -> hub.ModelRequest:
    """A Messages request in the common form; the names of what is left out go to `dropped`."""
    asked = fields.decoded(body, MessagesFields, "Messages")
    for name in fields.unknown(body, MessagesFields.__struct_fields__):
        if name in _REFUSED:
            raise refused(name, _REFUSED[name])
        dropped.append(name)
    output = asked.output_config or MessagesOutput()
    thinking = asked.thinking or MessagesThinking("disabled")
    return hub.ModelRequest(
        source="messages",
        turns=(*_system(asked.system, dropped), *_conversation(asked.messages, dropped)),
        tools=tuple(_tool(tool, f"tools[{at}]", dropped) for at, tool in enumerate(asked.tools or ())),
        tool_choice=_choice(asked.tool_choice),
        parallel=_parallel(asked.tool_choice),
        format=_format(asked.output_format or output.format),
        max_tokens=asked.max_tokens,
        temperature=asked.temperature,
        top_p=asked.top_p,
        top_k=asked.top_k,
        stop=tuple(asked.stop_sequences or ()),
        effort=output.effort,
        **_thinking(thinking),
        user=(asked.metadata or MessagesMetadata()).user_id or "",
    )


def _thinking(thinking: MessagesThinking) -> dict[str, Any]:
    """The budget, and whether the thoughts are to be shown."""
    if thinking.type == "disabled":
        return {}
    shown = {"summary": "auto"} if thinking.display == "summarized" else {}
    return {"thinking_tokens": thinking.budget_tokens if thinking.type == "enabled" else None, **shown}


def _conversation(messages: list[MessagesTurn], dropped: list[str]) -> list[hub.ChatTurn]:
    if messages and messages[-1].role == "assistant":
        raise refused("messages", "ends with the assistant's own words, which other models do not continue")
    return [turn for at, message in enumerate(messages) for turn in _turns(message, f"messages[{at}]", dropped)]


def _system(system: str | list[MessagesBlock] | None, dropped: list[str]) -> list[hub.ChatTurn]:
    match system:
        case None | "":
            return []
        case str(text):
            parts: tuple[hub.InputPart, ...] = (hub.TextPart(text),)
        case blocks:
            parts = tuple(part for block in blocks for part in _parts(block, "system", dropped))
    return [hub.ChatTurn("system", parts, "system")]


def _turns(message: MessagesTurn, at: str, dropped: list[str]) -> list[hub.ChatTurn]:
    """A message as turns: what tools answered is a turn of its own."""
    if isinstance(message.content, str):
        return [hub.ChatTurn(message.role, (hub.TextPart(message.content),), at)]
    parts = [
        part for index, block in enumerate(message.content) for part in _parts(block, f"{at}.content[{index}]", dropped)
    ]
    results = tuple(part for part in parts if isinstance(part, hub.ToolResult))
    rest = tuple(part for part in parts if not isinstance(part, hub.ToolResult))
    turns = [hub.ChatTurn("tool", results, at)] if results else []
    return [*turns, hub.ChatTurn(message.role, rest, at)] if rest or not results else turns


def _parts(block: MessagesBlock, at: str, dropped: list[str]) -> list[hub.InputPart]:
    if block.cache_control is not None:
        dropped.append("cache_control")
    match block.type:
        case "text":
            return [hub.TextPart(block.text)]
        case "thinking":
            return [hub.ThinkingPart(block.thinking, seal("messages", block.signature))]
        case "redacted_thinking":
            return [hub.ThinkingPart("", seal(REDACTED, block.data))]
        case "tool_use":
            written = fields.compact(block.input) if fields.given(block.input) else "{}"
            return [hub.ToolCall(block.id, block.name, written)]
        case "tool_result":
            return [hub.ToolResult(block.tool_use_id, _answer(block, at, dropped), bool(block.is_error))]
        case "image" if block.source is not None:
            return [_image(block.source, at)]
        case "document" if block.source is not None:
            return _document(block, block.source, at)
    raise refused(at, f"a block of type {block.type[:40]!r} cannot be carried to another dialect")


def _answer(
    block: MessagesBlock, at: str, dropped: list[str]
) -> tuple[hub.TextPart | hub.ImagePart | hub.FilePart, ...]:
    if block.content is None or isinstance(block.content, str):
        return (hub.TextPart(block.content or ""),)
    given = [part for inner in block.content for part in _parts(inner, f"{at}.content", dropped)]
    kept = tuple(part for part in given if isinstance(part, hub.TextPart | hub.ImagePart | hub.FilePart))
    if len(kept) < len(given):
        raise refused(at, "a tool answers with text, images and documents; the rest cannot be carried")
    return kept


def _image(source: MessagesSource, at: str) -> hub.ImagePart:
    match source.type:
        case "base64":
            return hub.ImagePart(media_type=source.media_type, data=source.data)
        case "url":
            return hub.ImagePart(url=source.url)
    raise refused(at, f"an image from {source.type[:40]!r} stays with Anthropic; send its data or a URL")


def _document(block: MessagesBlock, source: MessagesSource, at: str) -> list[hub.InputPart]:
    if isinstance(block.citations, MessagesCitations) and block.citations.enabled:
        raise refused(f"{at}.citations", "no other dialect cites documents so; switch citations off")
    about: list[hub.InputPart] = [hub.TextPart(block.context)] if block.context else []
    name = block.title or ""
    match source.type:
        case "base64":
            return [*about, hub.FilePart(media_type=source.media_type, data=source.data, name=name)]
        case "url":
            return [*about, hub.FilePart(url=source.url, name=name)]
        case "text":
            data = base64.b64encode(source.data.encode()).decode()
            return [*about, hub.FilePart(media_type="text/plain", data=data, name=name)]
    raise refused(at, f"a document from {source.type[:40]!r} stays with Anthropic; send its data or a URL")


def _tool(tool: MessagesTool, at: str, dropped: list[str]) -> hub.ToolDefinition:
    if tool.type not in (None, "custom"):
        raise refused(at, f"the built-in tool {tool.type[:40]!r} stays with Anthropic; define a tool of your own")
    if tool.cache_control is not None:
        dropped.append("cache_control")
    return hub.ToolDefinition(tool.name, tool.description or "", fields.given(tool.input_schema), tool.strict)


def _choice(choice: MessagesToolChoice | None) -> hub.ToolChoice | None:
    if choice is None:
        return None
    match choice.type:
        case "any":
            return hub.ToolChoice("required")
        case "tool":
            return hub.ToolChoice("named", choice.name)
        case mode:
            return hub.ToolChoice(mode)


def _parallel(choice: MessagesToolChoice | None) -> bool | None:
    if choice is None or choice.disable_parallel_tool_use is None:
        return None
    return not choice.disable_parallel_tool_use


def _format(given: MessagesFormat | None) -> hub.OutputFormat | None:
    if given is None:
        return None
    if given.type != "json_schema":
        raise refused("output_config.format", f"type {given.type[:40]!r} cannot be carried; use json_schema")
    return hub.OutputFormat(msgspec.Raw(given.schema), strict=True)
