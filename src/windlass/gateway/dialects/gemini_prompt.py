"""The common form as a Gemini request. Source: Gemini API reference, "Generating content", and its guides "Function
calling", "Thinking", "Thought signatures" and "OpenAI compatibility" (which words of effort stand for which budget).

The model and whether to stream stand in the URL, not in the body.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from windlass.gateway.dialects import fields, hub
from windlass.gateway.dialects.fields import arguments, impossible, refused
from windlass.gateway.dialects.messages_prompt import offered, split_system
from windlass.gateway.dialects.seals import opened

OWN_CALL = "wl_call_"
"""How the ids begin that we gave to calls for which Gemini had none; they are not sent back."""
_BUDGET = {"none": 0, "minimal": 1024, "low": 1024, "medium": 8192, "high": 24576, "xhigh": 24576, "max": 24576}
_MEDIA_TYPE = {
    "png": "image/png",
    "jpg": "image/jpeg",
    "jpeg": "image/jpeg",
    "webp": "image/webp",
    "heic": "image/heic",
    "heif": "image/heif",
    "pdf": "application/pdf",
}
_LEAVE_OUT = ("verbosity",)


def write(request: hub.ModelRequest, *, dropped: list[str]) -> bytes:
    """The request for a Gemini upstream. RequestError for what Gemini cannot carry."""
    _refuse(request, dropped)
    system, turns = split_system(request.turns, "Gemini")
    if not turns or turns[-1].role == "assistant":
        name = fields.field(request.source, "turns")
        raise refused(name, "ends with no word of the user or a tool; Gemini would continue the assistant's own")
    body: dict[str, Any] = {"contents": _contents(turns, dropped), **_tools(request)}
    if system:
        body["systemInstruction"] = {"parts": [{"text": text} for text in system]}
    if options := _options(request):
        body["generationConfig"] = options
    return msgspec.json.encode(body)


def _refuse(request: hub.ModelRequest, dropped: list[str]) -> None:
    if "moderation" in request.shared:
        raise impossible(request, "moderation", "gemini")
    if request.parallel is False and request.tools:
        raise impossible(request, "parallel", "gemini")
    dropped += (fields.field(request.source, name) for name in _LEAVE_OUT if getattr(request, name))
    dropped += request.shared
    if request.source == "messages" and request.user:
        dropped.append(fields.field("messages", "user"))
    if request.format is not None and request.format.description:
        dropped.append(f"{fields.field(request.source, 'format')}.description")
    if any(tool.strict for tool in request.tools):
        dropped.append("tools.strict")


def _options(request: hub.ModelRequest) -> dict[str, Any]:
    format = request.format
    return fields.without_none(
        {
            "candidateCount": request.n if request.n > 1 else None,
            "maxOutputTokens": request.max_tokens,
            "temperature": request.temperature,
            "topP": request.top_p,
            "topK": request.top_k,
            "stopSequences": list(request.stop) or None,
            "seed": request.seed,
            "presencePenalty": request.presence_penalty,
            "frequencyPenalty": request.frequency_penalty,
            "responseLogprobs": request.logprobs or None,
            "logprobs": request.top_logprobs if request.logprobs else None,
            "responseMimeType": "application/json" if format else None,
            "responseJsonSchema": format.schema if format else None,
            "thinkingConfig": _thinking(request),
        }
    )


def _thinking(request: hub.ModelRequest) -> dict[str, Any] | None:
    budget = request.thinking_tokens
    if budget is None and request.effort is not None:
        if request.effort not in _BUDGET:
            raise impossible(request, "effort", "gemini", f"send one of {', '.join(_BUDGET)}")
        budget = _BUDGET[request.effort]
    if budget is None:
        return None
    return {"thinkingBudget": budget, "includeThoughts": True} if budget else {"thinkingBudget": 0}


def _tools(request: hub.ModelRequest) -> dict[str, Any]:
    if not request.tools:
        return {}
    tools = [_declaration(tool) for tool in offered(request)]
    body: dict[str, Any] = {"tools": [{"functionDeclarations": tools}]}
    choice = request.tool_choice
    if choice is not None:
        modes = {"auto": "AUTO", "none": "NONE", "required": "ANY", "named": "ANY"}
        calling: dict[str, Any] = {"mode": modes[choice.mode]}
        names = (choice.name,) if choice.mode == "named" else choice.allowed
        if names and calling["mode"] == "ANY":
            calling["allowedFunctionNames"] = list(names)
        body["toolConfig"] = {"functionCallingConfig": calling}
    return body


def _declaration(tool: hub.ToolDefinition) -> dict[str, Any]:
    given = {"description": tool.description or None, "parametersJsonSchema": tool.schema}
    return fields.without_none({"name": tool.name, **given})


def _contents(turns: Iterable[hub.ChatTurn], dropped: list[str]) -> list[dict[str, Any]]:
    contents: list[dict[str, Any]] = []
    called: dict[str, str] = {}
    for turn in turns:
        role = "model" if turn.role == "assistant" else "user"
        parts = _parts(turn, called, dropped)
        if turn.name:
            dropped.append("messages.name")
        if contents and contents[-1]["role"] == role:
            contents[-1]["parts"] += parts
        elif parts:
            contents.append({"role": role, "parts": parts})
    return contents


def _parts(turn: hub.ChatTurn, called: dict[str, str], dropped: list[str]) -> list[dict[str, Any]]:
    """A turn's parts. A thought signature that came apart from its call goes back onto the call that follows it."""
    parts: list[dict[str, Any]] = []
    waiting = ""
    for part in turn.parts:
        match part:
            case hub.ThinkingPart(_, sealed):
                waiting = opened("gemini", sealed) or waiting
                if not opened("gemini", sealed):
                    dropped.append("thinking")
            case hub.ToolCall():
                called[part.id] = part.name
                parts.append(_call(part, opened("gemini", part.seal) or waiting, turn.at))
                waiting = ""
            case hub.ToolResult():
                parts += _result(part, called, turn.at)
            case hub.TextPart(text) | hub.RefusalPart(text):
                parts += [{"text": text}] if text else []
            case _:
                parts.append(_media(part, turn.at, dropped))
    return parts


def _call(call: hub.ToolCall, signature: str, at: str) -> dict[str, Any]:
    function = {"name": call.name, "args": arguments(call.arguments, f"{at}.tool_calls"), **_id(call.id)}
    return {"functionCall": function, **({"thoughtSignature": signature} if signature else {})}


def _id(call_id: str) -> dict[str, str]:
    return {} if call_id.startswith(OWN_CALL) else {"id": call_id}


def _result(result: hub.ToolResult, called: Mapping[str, str], at: str) -> list[dict[str, Any]]:
    if result.call_id not in called:
        raise refused(at, f"answers call {result.call_id[:60]!r}, which no earlier turn made")
    text = "\n".join(part.text for part in result.parts if isinstance(part, hub.TextPart))
    response = {"error" if result.is_error else "output": text}
    answer = {"name": called[result.call_id], "response": response, **_id(result.call_id)}
    rest = [_media(part, at, []) for part in result.parts if not isinstance(part, hub.TextPart)]
    return [{"functionResponse": answer}, *rest]


def _media(part: hub.InputPart, at: str, dropped: list[str]) -> dict[str, Any]:
    match part:
        case hub.AudioPart(data, form):
            return {"inlineData": {"mimeType": f"audio/{form}", "data": data}}
        case hub.ImagePart(detail=detail) | hub.FilePart(name=detail):
            if detail not in ("", "auto"):
                dropped.append("image_url.detail" if isinstance(part, hub.ImagePart) else "file.filename")
            if part.file_id:
                raise refused(at, "a file id of another provider means nothing to Gemini; send the data")
            if not part.url:
                return {"inlineData": {"mimeType": part.media_type, "data": part.data}}
            kind = _MEDIA_TYPE.get(part.url.partition("?")[0].rpartition(".")[2].lower())
            if kind is None:
                raise refused(at, "Gemini must be told the media type of a URL, and this one does not end in one")
            return {"fileData": {"mimeType": kind, "fileUri": part.url}}
    raise fields.out_of_place(at, part, "gemini")
