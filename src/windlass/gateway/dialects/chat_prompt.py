"""The common form as a chat-completions request. Source: OpenAI API reference, "Create chat completion"."""

from __future__ import annotations

from typing import Any

import msgspec

from windlass.gateway.dialects import fields, hub
from windlass.gateway.dialects.fields import data_url, impossible, refused

_EFFORTS = ((2048, "low"), (8192, "medium"))
_SHOWN = "[the tool's answer has content that follows in the next message]"


def write(request: hub.ModelRequest, model: str, *, stream: bool, dropped: list[str]) -> bytes:
    """The request for a chat upstream; a stream is asked for its usage. RequestError for what chat cannot carry."""
    if request.top_k is not None:
        raise impossible(request, "top_k", "chat")
    if request.summary is not None:
        dropped.append(fields.field(request.source, "summary"))
    body: dict[str, Any] = {
        "model": model,
        "messages": [message for turn in request.turns for message in _messages(turn, dropped)],
        **_sampling(request),
        **_tools(request),
        **_shared(request, dropped),
    }
    if stream:
        body |= {"stream": True, "stream_options": {"include_usage": True}}
    return msgspec.json.encode(body)


def effort(request: hub.ModelRequest) -> str | None:
    """reasoning_effort for a request, from its budget where it has no word for it; None where neither was said."""
    budget = request.thinking_tokens
    if request.effort is not None or not budget:
        return request.effort
    return next((word for most, word in _EFFORTS if budget <= most), "high")


def output_format(wanted: hub.OutputFormat) -> dict[str, Any]:
    """`json_schema` as chat and Responses have it, each in its own wrapping."""
    given = {"description": wanted.description or None, "schema": wanted.schema, "strict": wanted.strict}
    return fields.without_none({"name": wanted.name, **given})


def _sampling(request: hub.ModelRequest) -> dict[str, Any]:
    return fields.without_none(
        {
            "max_completion_tokens": request.max_tokens,
            "temperature": request.temperature,
            "top_p": request.top_p,
            "stop": list(request.stop) or None,
            "logprobs": request.logprobs or None,
            "top_logprobs": request.top_logprobs if request.logprobs else None,
            "reasoning_effort": effort(request),
            "verbosity": request.verbosity,
            "user": request.user or None if request.source == "messages" else None,
        }
    )


def _tools(request: hub.ModelRequest) -> dict[str, Any]:
    format = request.format
    formats = None
    if format is not None:
        schema = {"type": "json_schema", "json_schema": output_format(format)}
        formats = {"type": "json_object"} if format.schema is None else schema
    return fields.without_none(
        {
            "tools": [{"type": "function", "function": _definition(tool)} for tool in request.tools] or None,
            "tool_choice": _choice(request.tool_choice) if request.tool_choice else None,
            "parallel_tool_calls": request.parallel if request.tools else None,
            "response_format": formats,
        }
    )


def _definition(tool: hub.ToolDefinition) -> dict[str, Any]:
    given = {"description": tool.description or None, "parameters": tool.schema, "strict": tool.strict}
    return fields.without_none({"name": tool.name, **given})


def _choice(choice: hub.ToolChoice) -> Any:
    if choice.mode == "named":
        return {"type": "function", "function": {"name": choice.name}}
    if choice.allowed:
        tools = [{"type": "function", "function": {"name": name}} for name in choice.allowed]
        return {"type": "allowed_tools", "allowed_tools": {"mode": choice.mode, "tools": tools}}
    return choice.mode


def _shared(request: hub.ModelRequest, dropped: list[str]) -> dict[str, Any]:
    """The fields of both OpenAI dialects; chat takes `metadata` only for completions that it stores."""
    shared: dict[str, Any] = dict(request.shared)
    if "metadata" in shared and bytes(shared.get("store", b"")) != b"true":
        del shared["metadata"]
        dropped.append("metadata")
    return shared


def _messages(turn: hub.ChatTurn, dropped: list[str]) -> list[dict[str, Any]]:
    if turn.role == "tool":
        return _results(turn)
    if any(isinstance(part, hub.ThinkingPart) or getattr(part, "seal", "") for part in turn.parts):
        dropped.append("thinking")
    content = [_part(part, turn.at) for part in turn.parts if not isinstance(part, hub.ToolCall | hub.ThinkingPart)]
    calls = [_call(part) for part in turn.parts if isinstance(part, hub.ToolCall)]
    said = {"role": turn.role, "content": _plain(content, calls)}
    return [said | fields.without_none({"name": turn.name or None, "tool_calls": calls or None})]


def _plain(content: list[dict[str, Any]], calls: list[dict[str, Any]]) -> Any:
    """One text as a string: the form that every compatible server takes. Only calls may stand without any."""
    if not content:
        return None if calls else ""
    return content[0]["text"] if len(content) == 1 and content[0]["type"] == "text" else content


def _call(call: hub.ToolCall) -> dict[str, Any]:
    return {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}


def _part(part: hub.InputPart, at: str) -> dict[str, Any]:
    match part:
        case hub.TextPart(text):
            return {"type": "text", "text": text}
        case hub.RefusalPart(text):
            return {"type": "refusal", "refusal": text}
        case hub.ImagePart():
            return _image(part, at)
        case hub.FilePart():
            return _file(part, at)
        case hub.AudioPart(data, form):
            return {"type": "input_audio", "input_audio": {"data": data, "format": form}}
    raise fields.out_of_place(at, part, "chat")


def _image(image: hub.ImagePart, at: str) -> dict[str, Any]:
    if image.file_id:
        raise refused(at, "an image by file id cannot be carried to chat completions; send its data")
    shown = {"url": image.url or data_url(image.media_type, image.data), "detail": image.detail or None}
    return {"type": "image_url", "image_url": fields.without_none(shown)}


def _file(file: hub.FilePart, at: str) -> dict[str, Any]:
    if file.url:
        raise refused(at, "a file by URL cannot be carried to chat completions; send its data")
    if file.file_id:
        return {"type": "file", "file": fields.without_none({"file_id": file.file_id, "filename": file.name or None})}
    data = {"filename": file.name or "document", "file_data": data_url(file.media_type, file.data)}
    return {"type": "file", "file": data}


def result_text(result: hub.ToolResult) -> str:
    """A tool's answer as text. Only Anthropic and Gemini have a mark for errors: the others read it in words."""
    text = "\n".join(part.text for part in result.parts if isinstance(part, hub.TextPart))
    return f"Error: {text}" if result.is_error and not text.lower().startswith("error") else text


def _results(turn: hub.ChatTurn) -> list[dict[str, Any]]:
    """A message per answer. Pictures and files, which chat has only in user messages, follow in one of those."""
    messages: list[dict[str, Any]] = []
    shown: list[dict[str, Any]] = []
    for result in turn.parts:
        if not isinstance(result, hub.ToolResult):
            continue
        rest = [_part(part, turn.at) for part in result.parts if not isinstance(part, hub.TextPart)]
        text = result_text(result)
        if rest:
            text = f"{text}\n{_SHOWN}" if text else _SHOWN
            shown += [{"type": "text", "text": f"[answer to {result.call_id}]"}, *rest]
        messages.append({"role": "tool", "tool_call_id": result.call_id, "content": text})
    return [*messages, {"role": "user", "content": shown}] if shown else messages
