"""A Responses request into the common form. Source: OpenAI API reference, "Create a model response"."""

from __future__ import annotations

import msgspec

from windlass.gateway.dialects import fields, hub
from windlass.gateway.dialects.chat_request import SHARED
from windlass.gateway.dialects.fields import refused
from windlass.gateway.dialects.responses_wire import (
    ResponsesChoice,
    ResponsesContent,
    ResponsesFields,
    ResponsesFormat,
    ResponsesItem,
    ResponsesReasoning,
    ResponsesTool,
)
from windlass.gateway.dialects.seals import seal

_STORED = "the conversation is not kept here; send it whole in `input`"
_REFUSED = {
    "previous_response_id": _STORED,
    "conversation": _STORED,
    "prompt": "a prompt that OpenAI keeps cannot be carried to another dialect; send its text",
    "background": "an answer in the background needs an upstream that speaks Responses",
    "context_management": "the provider itself shortens the conversation; no other dialect can say so",
    "max_tool_calls": "it counts calls of built-in tools, which cannot be carried to another dialect",
}
_NOTHING = (b"false", b"[]", b"{}", b'""')
_LOGPROBS = "message.output_text.logprobs"
_ENCRYPTED = "reasoning.encrypted_content"


def read(body: bytes, dropped: list[str]) -> hub.ModelRequest:
    """A Responses request in the common form; the names of what is left out go to `dropped`."""
    asked = fields.decoded(body, ResponsesFields, "Responses")
    shared = _shared(body, asked, dropped)
    text, reasoning = asked.text, asked.reasoning or ResponsesReasoning()
    return hub.ModelRequest(
        source="responses",
        turns=_turns(asked),
        tools=tuple(_tool(tool, f"tools[{at}]") for at, tool in enumerate(asked.tools or ())),
        tool_choice=_choice(asked.tool_choice),
        parallel=asked.parallel_tool_calls,
        format=_format(text.format if text else None),
        max_tokens=asked.max_output_tokens,
        temperature=asked.temperature,
        top_p=asked.top_p,
        logprobs=_LOGPROBS in (asked.include or ()),
        top_logprobs=asked.top_logprobs,
        effort=reasoning.effort,
        summary=reasoning.summary or reasoning.generate_summary,
        verbosity=text.verbosity if text else None,
        user=fields.user(shared),
        shared=shared,
    )


def _shared(body: bytes, asked: ResponsesFields, dropped: list[str]) -> dict[str, msgspec.Raw]:
    """What chat takes as it is. The rest is refused where it means something, else dropped by name."""
    raw = msgspec.json.decode(body, type=dict[str, msgspec.Raw])
    rest = fields.unknown(body, ResponsesFields.__struct_fields__)
    for name in rest:
        if name in _REFUSED and bytes(raw[name]) not in _NOTHING:
            raise refused(name, _REFUSED[name])
    _check(asked)
    dropped += (name for name in rest if name not in SHARED and name not in _REFUSED)
    return {name: raw[name] for name in rest if name in SHARED}


def _check(asked: ResponsesFields) -> None:
    """RequestError for what only OpenAI's own servers can do."""
    if asked.store:
        raise refused("store", f"{_STORED}, and leave `store` false")
    if asked.truncation not in (None, "disabled"):
        raise refused("truncation", "no other dialect shortens the conversation by itself; shorten it yourself")
    for name in asked.include or ():
        if name not in (_LOGPROBS, _ENCRYPTED):
            raise refused("include", f"{name[:60]!r} belongs to a built-in tool, which cannot be carried")


def _turns(asked: ResponsesFields) -> tuple[hub.ChatTurn, ...]:
    turns = [hub.ChatTurn("system", (hub.TextPart(asked.instructions),), "instructions")] if asked.instructions else []
    if isinstance(asked.input, str):
        return (*turns, hub.ChatTurn("user", (hub.TextPart(asked.input),), "input"))
    for index, item in enumerate(asked.input):
        turn = _turn(item, f"input[{index}]")
        if turns and turn.role == turns[-1].role in ("assistant", "tool"):
            turns[-1] = hub.ChatTurn(turn.role, (*turns[-1].parts, *turn.parts), turns[-1].at)
        else:
            turns.append(turn)
    return tuple(turns)


def _turn(item: ResponsesItem, at: str) -> hub.ChatTurn:
    match item.type:
        case "message" if item.role is not None:
            return hub.ChatTurn(item.role, tuple(_contents(item.content, f"{at}.content")), at)
        case "function_call":
            return hub.ChatTurn("assistant", (hub.ToolCall(item.call_id, item.name or "", item.arguments),), at)
        case "function_call_output":
            parts = [part for part in _contents(item.output, f"{at}.output")]
            kept = tuple(part for part in parts if isinstance(part, hub.TextPart | hub.ImagePart | hub.FilePart))
            return hub.ChatTurn("tool", (hub.ToolResult(item.call_id, kept),), at)
        case "reasoning":
            return hub.ChatTurn("assistant", (_thinking(item),), at)
    raise refused(at, f"an item of type {item.type[:40]!r} cannot be carried to another dialect")


def _thinking(item: ResponsesItem) -> hub.ThinkingPart:
    content = item.content if isinstance(item.content, list) else []
    text = "\n".join(part.text for part in (content or item.summary or ()))
    encrypted = item.encrypted_content or ""
    foreign = seal("", encrypted) == encrypted
    return hub.ThinkingPart(text, encrypted if foreign else f"responses:{item.id or ''}:{encrypted}")


def _contents(content: str | list[ResponsesContent] | None, at: str) -> list[hub.InputPart]:
    match content:
        case None:
            return []
        case str(text):
            return [hub.TextPart(text)]
        case parts:
            return [_part(part, f"{at}[{index}]") for index, part in enumerate(parts)]


def _part(part: ResponsesContent, at: str) -> hub.InputPart:
    match part.type:
        case "input_text" | "output_text":
            return hub.TextPart(part.text)
        case "refusal":
            return hub.RefusalPart(part.refusal)
        case "input_image":
            detail = part.detail or ""
            if part.file_id:
                return hub.ImagePart(file_id=part.file_id, detail=detail)
            media = fields.split_data_url(part.image_url or "")
            if media:
                return hub.ImagePart(media_type=media[0], data=media[1], detail=detail)
            if part.image_url:
                return hub.ImagePart(url=part.image_url, detail=detail)
        case "input_file":
            return _file(part, at)
    raise refused(at, f"a part of type {part.type[:40]!r} is unknown or lacks its content")


def _file(part: ResponsesContent, at: str) -> hub.FilePart:
    name = part.filename or ""
    if part.file_id:
        return hub.FilePart(file_id=part.file_id, name=name)
    if part.file_url:
        return hub.FilePart(url=part.file_url, name=name)
    media = fields.split_data_url(part.file_data or "")
    if media is None:
        raise refused(f"{at}.file_data", "send the file as data:<media type>;base64,<data>")
    return hub.FilePart(media_type=media[0], data=media[1], name=name)


def _tool(tool: ResponsesTool, at: str) -> hub.ToolDefinition:
    if tool.type != "function":
        raise refused(at, f"the built-in tool {tool.type[:40]!r} cannot be carried; define a function")
    return hub.ToolDefinition(tool.name, tool.description or "", fields.given(tool.parameters), tool.strict)


def _choice(choice: str | ResponsesChoice | None) -> hub.ToolChoice | None:
    match choice:
        case None:
            return None
        case "none" | "auto" | "required":
            return hub.ToolChoice(choice)
        case ResponsesChoice(type="function", name=name) if name:
            return hub.ToolChoice("named", name)
        case ResponsesChoice(type="allowed_tools", mode=mode, tools=list(tools)) if tools:
            if all(tool.type == "function" for tool in tools):
                return hub.ToolChoice(mode, allowed=tuple(tool.name for tool in tools))
    raise refused("tool_choice", "only functions can be named or allowed")


def _format(given: ResponsesFormat | None) -> hub.OutputFormat | None:
    match given:
        case None | ResponsesFormat(type="text"):
            return None
        case ResponsesFormat(type="json_object"):
            return hub.OutputFormat()
        case ResponsesFormat("json_schema", name, description, schema, strict) if fields.given(schema):
            return hub.OutputFormat(schema, name, description or "", strict)
    raise refused("text.format", f"type {given.type[:40]!r} cannot be carried; use json_schema")
