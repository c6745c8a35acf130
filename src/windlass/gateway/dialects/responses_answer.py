"""Answers a Responses client, whole. Source: OpenAI API reference, "The response object"."""

from __future__ import annotations

from typing import Any

import msgspec

from windlass.gateway.dialects import failures
from windlass.gateway.dialects.hub import (
    Completion,
    Failure,
    Finish,
    OutputPart,
    RefusalPart,
    TextPart,
    ThinkingPart,
    ToolCall,
)
from windlass.gateway.dialects.identity import Identity
from windlass.gateway.dialects.seals import opened, outside
from windlass.gateway.money.usage import Usage

_WHY: dict[Finish, str] = {"length": "max_output_tokens", "content_filter": "content_filter"}


def usage(used: Usage) -> dict[str, Any] | None:
    """The usage as Responses counts it; None where the provider said nothing."""
    if used.prompt_tokens is None and used.completion_tokens is None:
        return None
    prompt, completion = used.prompt_tokens or 0, used.completion_tokens or 0
    return {
        "input_tokens": prompt,
        "input_tokens_details": {
            "cached_tokens": used.cache_read_tokens,
            "cache_write_tokens": used.cache_write_tokens,
        },
        "output_tokens": completion,
        "output_tokens_details": {"reasoning_tokens": used.reasoning_tokens},
        "total_tokens": prompt + completion,
    }


def error(failure: Failure) -> bytes:
    """The error envelope, which chat has as well."""
    return msgspec.json.encode(failures.as_openai(failure))


def response(identity: Identity, reply_id: str, created_s: int, status: str) -> dict[str, Any]:
    """The object that stands around the output; nothing is kept, so nothing can be continued."""
    return {
        "id": identity.of("resp_", reply_id),
        "object": "response",
        "created_at": created_s or identity.at_s,
        "status": status,
        "error": None,
        "incomplete_details": None,
        "instructions": None,
        "max_output_tokens": None,
        "model": identity.model,
        "output": [],
        "parallel_tool_calls": True,
        "previous_response_id": None,
        "reasoning": {"effort": None, "summary": None},
        "store": False,
        "temperature": None,
        "text": {"format": {"type": "text"}},
        "tool_choice": "auto",
        "tools": [],
        "top_p": None,
        "truncation": "disabled",
        "usage": None,
        "metadata": {},
        **identity.echo,
    }


def ending(finish: Finish, *, refused: bool) -> dict[str, Any]:
    """Status and details for a finish reason; a refusal without words is the filter's."""
    why = _WHY.get("content_filter" if finish == "refusal" and not refused else finish)
    return {"status": "incomplete", "incomplete_details": {"reason": why}} if why else {"status": "completed"}


def whole(completion: Completion, identity: Identity) -> bytes:
    """A whole reply; the requests of this dialect ask for one choice."""
    choice = completion.choices[0]
    body = response(identity, completion.id, completion.created_s, "completed")
    refused = any(isinstance(part, RefusalPart) for part in choice.parts)
    body |= ending(choice.finish, refused=refused)
    return msgspec.json.encode(
        body | {"output": items(choice.parts, body["id"], body["status"]), "usage": usage(completion.usage)}
    )


def items(parts: tuple[OutputPart, ...], reply_id: str, status: str) -> list[dict[str, Any]]:
    """The output items; text and refusals in a row make one message."""
    made: list[dict[str, Any]] = []
    for part in parts:
        item_id = f"{reply_id}_{len(made)}"
        match part:
            case ThinkingPart(text, sealed):
                made.append(reasoning(item_id, text, sealed))
            case ToolCall(call_id, name, arguments, sealed):
                if sealed:
                    made.append(reasoning(item_id, "", sealed))
                    item_id = f"{reply_id}_{len(made)}"
                made.append(function_call(item_id, call_id, name, arguments))
            case TextPart() | RefusalPart():
                if not made or made[-1]["type"] != "message":
                    made.append(message(item_id, []))
                made[-1]["content"].append(content(part))
    if made and status == "incomplete" and made[-1]["type"] != "reasoning":
        made[-1] |= {"status": "incomplete"}
    return made


def content(part: TextPart | RefusalPart) -> dict[str, Any]:
    """A part of a message."""
    if isinstance(part, RefusalPart):
        return {"type": "refusal", "refusal": part.text}
    return {"type": "output_text", "text": part.text, "annotations": [], "logprobs": part.logprobs}


def message(item_id: str, parts: list[dict[str, Any]], status: str = "completed") -> dict[str, Any]:
    """A message item."""
    return {"id": f"msg_{item_id}", "type": "message", "role": "assistant", "status": status, "content": parts}


def function_call(item_id: str, call_id: str, name: str, arguments: str, status: str = "completed") -> dict[str, Any]:
    """A function-call item."""
    call = {"call_id": call_id, "name": name, "arguments": arguments, "status": status}
    return {"id": f"fc_{item_id}", "type": "function_call", **call}


def reasoning(item_id: str, text: str, sealed: str) -> dict[str, Any]:
    """A reasoning item. Its text is a summary, the form that OpenAI's own clients show; a seal of a Responses
    upstream brings its item's id along.
    """
    summary = [{"type": "summary_text", "text": text}] if text else []
    own_id, _, encrypted = opened("responses", sealed).partition(":")
    item: dict[str, Any] = {"id": own_id or f"rs_{item_id}", "type": "reasoning", "summary": summary}
    return item | ({"encrypted_content": encrypted or outside("responses", sealed)} if sealed else {})
