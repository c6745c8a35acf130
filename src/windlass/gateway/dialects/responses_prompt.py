"""The common form as a Responses request. Source: OpenAI API reference, "Create a model response".

The conversation is sent whole (`store: false`), as the client's dialect has it; reasoning that the upstream encrypts
travels in the client's conversation and comes back as a reasoning item.
"""

from __future__ import annotations

from typing import Any

import msgspec

from windlass.gateway.dialects import chat_prompt, fields, hub
from windlass.gateway.dialects.fields import data_url, impossible
from windlass.gateway.dialects.seals import opened

_NONE_OF_IT = ("top_k", "seed", "presence_penalty", "frequency_penalty", "stop")


def write(request: hub.ModelRequest, model: str, *, stream: bool, dropped: list[str]) -> bytes:
    """The request for a Responses upstream. RequestError for what Responses cannot carry."""
    _refuse(request, dropped)
    effort = chat_prompt.effort(request)
    include = ["reasoning.encrypted_content"] if effort not in (None, "none") else []
    if request.logprobs:
        include.append("message.output_text.logprobs")
    body: dict[str, Any] = {
        "model": model,
        "input": [item for turn in request.turns for item in _items(turn, dropped)],
        "store": False,
        **request.shared,
        **_options(request, effort),
    }
    if include:
        body["include"] = include
    if stream:
        body["stream"] = True
    return msgspec.json.encode(body)


def _refuse(request: hub.ModelRequest, dropped: list[str]) -> None:
    if request.n > 1:
        raise impossible(request, "n", "responses", "ask once per answer")
    for name in _NONE_OF_IT:
        value = getattr(request, name)
        if name == "seed" and value is not None:
            dropped.append(name)  # best effort by its own documentation
        elif value:
            raise impossible(request, name, "responses")


def _options(request: hub.ModelRequest, effort: str | None) -> dict[str, Any]:
    text = fields.without_none(
        {"format": _format(request.format) if request.format else None, "verbosity": request.verbosity}
    )
    reasoning = fields.without_none({"effort": effort, "summary": request.summary})
    return fields.without_none(
        {
            "max_output_tokens": request.max_tokens,
            "temperature": request.temperature,
            "top_p": request.top_p,
            "top_logprobs": request.top_logprobs if request.logprobs else None,
            "reasoning": reasoning or None,
            "text": text or None,
            "tools": [_tool(tool) for tool in request.tools] or None,
            "tool_choice": _choice(request.tool_choice) if request.tool_choice else None,
            "parallel_tool_calls": request.parallel if request.tools else None,
            "user": request.user or None if request.source == "messages" else None,
        }
    )


def _format(wanted: hub.OutputFormat) -> dict[str, Any]:
    if wanted.schema is None:
        return {"type": "json_object"}
    return {"type": "json_schema", **chat_prompt.output_format(wanted)}


def _tool(tool: hub.ToolDefinition) -> dict[str, Any]:
    """A function. Responses checks strictly unless told not to, the other dialects only when told to."""
    described = {"description": tool.description} if tool.description else {}
    schema = tool.schema or {"type": "object", "properties": {}}
    return {"type": "function", "name": tool.name, **described, "parameters": schema, "strict": bool(tool.strict)}


def _choice(choice: hub.ToolChoice) -> Any:
    if choice.mode == "named":
        return {"type": "function", "name": choice.name}
    if choice.allowed:
        tools = [{"type": "function", "name": name} for name in choice.allowed]
        return {"type": "allowed_tools", "mode": choice.mode, "tools": tools}
    return choice.mode


def _items(turn: hub.ChatTurn, dropped: list[str]) -> list[dict[str, Any]]:
    """The items of one turn, in its order; a run of text and pictures makes one message."""
    items: list[dict[str, Any]] = []
    content: list[dict[str, Any]] = []

    def flush() -> None:
        if content:
            items.append({"type": "message", "role": turn.role, "content": _said(turn, content)})
            content.clear()

    if turn.name:
        dropped.append("messages.name")
    for part in turn.parts:
        item = _item(part, dropped)
        if item is None and not isinstance(part, hub.ThinkingPart):
            content += [_content(part, turn)] if part != hub.TextPart("") else []
        elif item is not None:
            flush()
            items.append(item)
    flush()
    return items


def _said(turn: hub.ChatTurn, content: list[dict[str, Any]]) -> Any:
    """A message's content. The model's own words, which have ids where Responses keeps them, go back as plain text."""
    return "\n".join(part["text"] for part in content) if turn.role == "assistant" else content.copy()


def _item(part: hub.InputPart, dropped: list[str]) -> dict[str, Any] | None:
    """An item of its own, where the part is one."""
    match part:
        case hub.ToolCall(call_id, name, arguments, sealed):
            if sealed:
                dropped.append("thinking")
            return {"type": "function_call", "call_id": call_id, "name": name, "arguments": arguments or "{}"}
        case hub.ToolResult():
            return {"type": "function_call_output", "call_id": part.call_id, "output": _output(part)}
        case hub.ThinkingPart(text, sealed):
            item_id, _, encrypted = opened("responses", sealed).partition(":")
            if not encrypted:
                dropped.append("thinking")
                return None
            summary = [{"type": "summary_text", "text": text}] if text else []
            return {"type": "reasoning", "id": item_id, "summary": summary, "encrypted_content": encrypted}
    return None


def _output(result: hub.ToolResult) -> Any:
    if all(isinstance(part, hub.TextPart) for part in result.parts):
        return chat_prompt.result_text(result)
    return [_content(part, hub.ChatTurn("tool", (), "output")) for part in result.parts]


def _content(part: hub.InputPart, turn: hub.ChatTurn) -> dict[str, Any]:
    match part:
        case hub.TextPart(text) | hub.RefusalPart(text):
            return {"type": "input_text", "text": text}
        case hub.ImagePart() | hub.FilePart() if turn.role == "assistant":
            raise fields.out_of_place(turn.at, part, "responses")
        case hub.ImagePart(url, media_type, data, file_id, detail):
            image = {"file_id": file_id} if file_id else {"image_url": url or data_url(media_type, data)}
            return {"type": "input_image", **image, "detail": detail or "auto"}
        case hub.FilePart(url=url, file_id=file_id) if url or file_id:
            return {"type": "input_file", **({"file_id": file_id} if file_id else {"file_url": url})}
        case hub.FilePart(media_type=media_type, data=data, name=name):
            return {"type": "input_file", "filename": name or "document", "file_data": data_url(media_type, data)}
    raise fields.out_of_place(turn.at, part, "responses")
