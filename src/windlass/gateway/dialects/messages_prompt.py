"""The common form as a Messages request. Source: Anthropic API reference, "Create a Message", and its guides
"Tool use" and "Structured outputs".
"""

from __future__ import annotations

import base64
from collections.abc import Iterable
from typing import Any

import msgspec

from windlass.gateway.dialects import fields, hub
from windlass.gateway.dialects.fields import arguments, impossible, refused
from windlass.gateway.dialects.messages_thinking import effort, thinking
from windlass.gateway.dialects.seals import REDACTED, opened

_NONE_OF_IT = ("presence_penalty", "frequency_penalty", "logprobs")
_LEAVE_OUT = ("seed", "verbosity")


def write(
    request: hub.ModelRequest, model: str, *, stream: bool, dropped: list[str], max_tokens: int, adaptive: bool
) -> bytes:
    """The request for a Messages upstream. RequestError for what it cannot carry.

    max_tokens: for the answer where the client sets no limit. adaptive: the model takes an effort for its budget.
    """
    _refuse(request, dropped)
    system, turns = _system(request)
    body: dict[str, Any] = {
        "model": model,
        **thinking(request, max_tokens, adaptive=adaptive),
        "messages": _messages(turns, dropped),
        **_options(request, adaptive=adaptive),
        **_tools(request),
    }
    if system:
        body["system"] = system[0] if len(system) == 1 else [{"type": "text", "text": text} for text in system]
    if stream:
        body["stream"] = True
    return msgspec.json.encode(body)


def split_system(turns: tuple[hub.ChatTurn, ...], upstream: str) -> tuple[list[str], tuple[hub.ChatTurn, ...]]:
    """The instructions that a conversation opens with, and the rest of it. RequestError for later ones."""
    first = next((at for at, turn in enumerate(turns) if turn.role not in ("system", "developer")), len(turns))
    late = next((turn for turn in turns[first:] if turn.role in ("system", "developer")), None)
    if late is not None:
        raise refused(late.at, f"{upstream} takes system text only before the conversation; move it to the front")
    texts = [part.text for turn in turns[:first] for part in turn.parts if isinstance(part, hub.TextPart) and part.text]
    return texts, turns[first:]


def offered(request: hub.ModelRequest) -> tuple[hub.ToolDefinition, ...]:
    """The tools that may be called: where only some are allowed, the others are not even shown."""
    allowed = request.tool_choice.allowed if request.tool_choice else ()
    return tuple(tool for tool in request.tools if not allowed or tool.name in allowed)


def _refuse(request: hub.ModelRequest, dropped: list[str]) -> None:
    if request.n > 1:
        raise impossible(request, "n", "messages", "ask once per answer")
    for name in _NONE_OF_IT:
        if getattr(request, name):
            raise impossible(request, name, "messages")
    if request.temperature is not None and request.temperature > 1:
        raise refused("temperature", f"is {request.temperature}, and Anthropic takes 0 to 1; lower it")
    if request.format is not None and request.format.schema is None:
        raise impossible(request, "format", "messages", "give a JSON schema")
    if "moderation" in request.shared:
        raise impossible(request, "moderation", "messages")
    _drop(request, dropped)


def _drop(request: hub.ModelRequest, dropped: list[str]) -> None:
    """Name what Anthropic has nothing for and what the answer does not hang on."""
    if request.format is not None and request.format.description:
        dropped.append(f"{fields.field(request.source, 'format')}.description")
    dropped += (fields.field(request.source, name) for name in _LEAVE_OUT if getattr(request, name) is not None)
    dropped += (name for name in request.shared if name not in ("user", "safety_identifier"))


def _system(request: hub.ModelRequest) -> tuple[list[str], tuple[hub.ChatTurn, ...]]:
    system, turns = split_system(request.turns, "Anthropic")
    if not turns or turns[-1].role == "assistant":
        name = fields.field(request.source, "turns")
        raise refused(name, "ends with no word of the user or a tool; Anthropic would continue the assistant's own")
    return system, turns


def _options(request: hub.ModelRequest, *, adaptive: bool) -> dict[str, Any]:
    format = request.format
    output = {
        "effort": effort(request) if adaptive else None,
        "format": {"type": "json_schema", "schema": format.schema} if format else None,
    }
    return fields.without_none(
        {
            "temperature": request.temperature,
            "top_p": request.top_p,
            "top_k": request.top_k,
            "stop_sequences": list(request.stop) or None,
            "metadata": {"user_id": request.user} if request.user else None,
            "output_config": fields.without_none(output) or None,
        }
    )


def _tools(request: hub.ModelRequest) -> dict[str, Any]:
    if not request.tools:
        return {}
    choice = request.tool_choice or hub.ToolChoice("auto")
    kind = {"required": "any", "named": "tool"}.get(choice.mode, choice.mode)
    chosen: dict[str, Any] = {"type": kind}
    if choice.mode == "named":
        chosen["name"] = choice.name
    if request.parallel is False and choice.mode != "none":
        chosen["disable_parallel_tool_use"] = True
    tools = [_tool(tool) for tool in offered(request)]
    return {"tools": tools, "tool_choice": chosen} if chosen != {"type": "auto"} else {"tools": tools}


def _tool(tool: hub.ToolDefinition) -> dict[str, Any]:
    schema: Any = tool.schema if tool.schema and fields.compact(tool.schema) != "{}" else None
    given: dict[str, Any] = {"input_schema": schema or {"type": "object", "properties": {}}}
    if tool.description:
        given["description"] = tool.description
    if tool.strict:
        given["strict"] = True
    return {"name": tool.name, **given}


def _messages(turns: Iterable[hub.ChatTurn], dropped: list[str]) -> list[dict[str, Any]]:
    """Turns of one role in a row are one message: the answers to parallel calls must stand together."""
    messages: list[dict[str, Any]] = []
    for turn in turns:
        role = "assistant" if turn.role == "assistant" else "user"
        content = [block for part in turn.parts for block in _blocks(part, turn.at, dropped)]
        if turn.name:
            dropped.append("messages.name")
        if messages and messages[-1]["role"] == role:
            messages[-1]["content"] += content
        elif content:
            messages.append({"role": role, "content": content})
    for message in messages:
        if len(message["content"]) == 1 and message["content"][0]["type"] == "text":
            message["content"] = message["content"][0]["text"]
    return messages


def _blocks(part: hub.InputPart, at: str, dropped: list[str]) -> list[dict[str, Any]]:
    match part:
        case hub.TextPart(text) | hub.RefusalPart(text):
            return [{"type": "text", "text": text}] if text else []
        case hub.ThinkingPart(text, sealed):
            return _thought(text, sealed, dropped)
        case hub.ToolCall(call_id, name, written, sealed):
            if sealed:
                dropped.append("thinking")
            given = arguments(written, f"{at}.tool_calls")
            return [{"type": "tool_use", "id": call_id, "name": name, "input": given}]
        case hub.ToolResult(call_id, parts, is_error):
            content = [block for one in parts for block in _blocks(one, at, dropped)]
            error = {"is_error": True} if is_error else {}
            return [{"type": "tool_result", "tool_use_id": call_id, "content": content, **error}]
        case hub.ImagePart():
            return [_image(part, at, dropped)]
        case hub.FilePart():
            return [_document(part, at)]
    raise fields.out_of_place(at, part, "messages")


def _thought(text: str, sealed: str, dropped: list[str]) -> list[dict[str, Any]]:
    """A block of thinking that Anthropic itself made; it would refuse any other."""
    if data := opened(REDACTED, sealed):
        return [{"type": "redacted_thinking", "data": data}]
    if signature := opened("messages", sealed):
        return [{"type": "thinking", "thinking": text, "signature": signature}]
    dropped.append("thinking")
    return []


def _image(image: hub.ImagePart, at: str, dropped: list[str]) -> dict[str, Any]:
    if image.file_id:
        raise refused(at, "a file id of another provider means nothing to Anthropic; send the image's data")
    if image.detail not in ("", "auto"):
        dropped.append("image_url.detail")
    if image.url:
        return {"type": "image", "source": {"type": "url", "url": image.url}}
    return {"type": "image", "source": {"type": "base64", "media_type": image.media_type, "data": image.data}}


def _document(file: hub.FilePart, at: str) -> dict[str, Any]:
    title = {"title": file.name} if file.name else {}
    if file.file_id:
        raise refused(at, "a file id of another provider means nothing to Anthropic; send the file's data")
    if file.url:
        return {"type": "document", "source": {"type": "url", "url": file.url}, **title}
    source = {"type": "base64", "media_type": file.media_type, "data": file.data}
    if file.media_type.startswith("text/"):
        try:
            text = base64.b64decode(file.data, validate=True).decode()
        except ValueError as exc:
            raise refused(at, f"the file is no base64 of UTF-8 text: {exc}") from exc
        source = {"type": "text", "media_type": "text/plain", "data": text}
    elif file.media_type != "application/pdf":
        raise refused(at, f"Anthropic reads PDF and text, not {file.media_type[:40]!r}; convert the file")
    return {"type": "document", "source": source, **title}
