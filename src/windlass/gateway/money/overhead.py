"""How many tokens a whole prompt has: its texts, and what is around them: messages, names, tools, pictures, files.

Takes decoded JSON of any dialect (a chat's `messages`, a Responses `input`, Anthropic's `system`), whatever its shape.
Sources: OpenAI cookbook, "How to count tokens with tiktoken" (messages 6, tools 7, figures for gpt-4o); pictures.py.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from windlass.gateway.money.estimate import estimate_tokens, reserve_tokens
from windlass.gateway.money.pictures import UNKNOWN_SIDE, most_picture_tokens, picture_tokens, size_of

MESSAGE_TOKENS, NAME_TOKENS, REPLY_TOKENS = 3, 1, 3
FUNCTION_TOKENS, FUNCTIONS_TOKENS = 7, 12
PROPERTIES_TOKENS, PROPERTY_TOKENS, CHOICES_TOKENS, CHOICE_TOKENS = 3, 3, -3, 3
SOUND_BYTES_PER_TOKEN = 1_600
"""Ten tokens a second (OpenAI, "Realtime costs") of sound that has 128 kbit/s."""
FILE_BYTES_PER_TOKEN = 16
"""3,000 tokens a page (Anthropic, "PDF support": 1,500 to 3,000) of 50 kB."""
MOST_DEPTH = 100
_PICTURES = frozenset({"image_url", "input_image", "image"})
_UNREAD = frozenset(
    {"type", "role", "id", "detail", "media_type", "format", "cache_control", "tool_call_id", "file_id"}
)


@dataclass
class _Prompt:
    """What has been found so far: texts, to be counted at once, and tokens that are no text."""

    model: str
    most: bool
    texts: list[str] = field(default_factory=list)
    tokens: int = 0


def prompt_tokens(messages: Any, tools: Any = None, *, model: str = "") -> int:
    """About how many tokens a prompt has; `model` is the upstream's name, for its pictures."""
    return _count(messages, tools, _Prompt(model, most=False))


def reserve_prompt_tokens(messages: Any, tools: Any = None, *, model: str = "") -> int:
    """As many as a prompt will hardly exceed (see `reserve_tokens`): what a budget holds back for it."""
    return _count(messages, tools, _Prompt(model, most=True))


def _count(messages: Any, tools: Any, total: _Prompt) -> int:
    for message in messages if isinstance(messages, list) else [messages]:
        total.tokens += MESSAGE_TOKENS
        if isinstance(message, dict):
            total.tokens += 1 if "role" in message else 0
            total.tokens += NAME_TOKENS if "name" in message else 0
        _content(message, total, 0)
    if isinstance(tools, list) and tools:
        total.tokens += FUNCTIONS_TOKENS
        for tool in tools:
            _tool(tool, total)
    text = "\n".join(total.texts)
    return total.tokens + REPLY_TOKENS + (reserve_tokens(text) if total.most else estimate_tokens(text))


def _content(part: Any, total: _Prompt, depth: int) -> None:
    """Everything under `part` that a model reads. What is nested deeper than anybody writes is taken as text."""
    if depth > MOST_DEPTH:
        total.texts.append(str(part)[:1_000_000] if not total.most else repr(part))
    elif isinstance(part, str):
        total.texts.append(part)
    elif isinstance(part, list):
        for one in part:
            _content(one, total, depth + 1)
    elif isinstance(part, dict):
        _object(part, total, depth)
    elif part is not None:
        total.texts.append(str(part))


def _object(part: dict[Any, Any], total: _Prompt, depth: int) -> None:
    """A picture, sound, a file, or whatever stands in its fields."""
    kind = part.get("type")
    if isinstance(kind, str) and kind in _PICTURES:
        total.tokens += _picture(part, total)
    elif (held := _held(part)) is not None:
        data, per_token = held
        total.tokens += len(data) * 3 // 4 // per_token + 1
    else:
        for name, value in part.items():
            if name not in _UNREAD:
                _content(value, total, depth + 1)


def _held(part: dict[Any, Any]) -> tuple[str, int] | None:
    """Sound or a file that a part holds as base64, and how many of its bytes make a token."""
    sound, source, file = part.get("input_audio"), part.get("source"), part.get("file", part)
    if isinstance(sound, dict) and isinstance(sound.get("data"), str):
        return sound["data"], SOUND_BYTES_PER_TOKEN
    if isinstance(source, dict) and source.get("type") == "base64" and isinstance(source.get("data"), str):
        return source["data"], FILE_BYTES_PER_TOKEN
    if isinstance(file, dict) and isinstance(file.get("file_data"), str):
        return file["file_data"], FILE_BYTES_PER_TOKEN
    return None


def _picture(part: dict[Any, Any], total: _Prompt) -> int:
    """A picture in OpenAI's forms (`image_url` an object or an address) or Anthropic's (`source`)."""
    said, source = part.get("image_url"), part.get("source")
    url, detail = (said.get("url"), said.get("detail")) if isinstance(said, dict) else (said, part.get("detail"))
    if isinstance(source, dict) and isinstance(source.get("data"), str):
        url = f"data:{source.get('media_type')};base64,{source['data'][: 64 * 1024]}"
    size = size_of(url) if isinstance(url, str) else None
    detail = detail if isinstance(detail, str) else "auto"
    if size is None and total.most and detail != "low":
        return most_picture_tokens(total.model)
    width, height = size or (UNKNOWN_SIDE, UNKNOWN_SIDE)
    return picture_tokens(width, height, model=total.model, detail=detail)


def _tool(tool: Any, total: _Prompt) -> None:
    """A function by the cookbook's count; OpenAI nests it in `function`, others do not."""
    function = tool.get("function", tool) if isinstance(tool, dict) else tool
    if not isinstance(function, dict):
        _content(function, total, 0)
        return
    total.tokens += FUNCTION_TOKENS
    total.texts.append(f"{function.get('name', '')}:{function.get('description', '')}")
    _schema(function.get("parameters", function.get("input_schema")), total, 0)


def _schema(schema: Any, total: _Prompt, depth: int) -> None:
    if not isinstance(schema, dict) or depth > MOST_DEPTH:
        return
    properties, choices = schema.get("properties"), schema.get("enum")
    if isinstance(properties, dict) and properties:
        total.tokens += PROPERTIES_TOKENS
        for name, said in properties.items():
            total.tokens += PROPERTY_TOKENS
            about = said if isinstance(said, dict) else {}
            total.texts.append(f"{name}:{about.get('type', '')}:{about.get('description', '')}")
            _schema(said, total, depth + 1)
    if isinstance(choices, list) and choices:
        total.tokens += CHOICES_TOKENS + CHOICE_TOKENS * len(choices)
        total.texts.extend(str(one) for one in choices)
    for inner in _inner(schema):
        _schema(inner, total, depth + 1)


def _inner(schema: dict[Any, Any]) -> Iterator[Any]:
    """The schemas inside one, beside its properties."""
    for name, inner in schema.items():
        if name in ("items", "additionalProperties", "not"):
            yield inner
        elif name in ("anyOf", "oneOf", "allOf", "prefixItems") and isinstance(inner, list):
            yield from inner
        elif name in ("$defs", "definitions") and isinstance(inner, dict):
            yield from inner.values()
