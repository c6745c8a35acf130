"""A chat that was answered, as it is asked again of another model: read from the body that was kept of it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from windlass.gateway.money.overhead import reserve_prompt_tokens
from windlass.gateway.wire import count
from windlass.records import Scope

ENDPOINTS: Final = ("chat", "responses", "messages")
PERSONAL: Final = "personal"
MOST_BYTES: Final = 1024 * 1024
"""A larger request is not asked again."""
_ASIDE: Final = frozenset({"model", "stream", "stream_options", "user", "metadata", "store", "safety_identifier"})
"""Fields that make no other prompt."""
_ELSEWHERE: Final = frozenset({"previous_response_id", "conversation", "background", "prompt", "container"})
"""Fields that stand for what one provider holds and no other has."""
_HELD: Final = (b'"file_id"', b'"item_reference"', b'"encrypted_content"')
"""What stands for it inside a prompt; where a text holds such a word, its quotes are escaped."""
_HOSTED: Final = ("mcp_servers", "web_search_options")
_OWN_TOOLS: Final = (None, "function", "custom")
"""Kinds of tools that the client works itself. Others act where the model is: what they do would be done again."""
_ASKED: Final = ("messages", "input", "system", "instructions", "response_format", "text")
_LENGTHS: Final = ("max_completion_tokens", "max_output_tokens", "max_tokens")


@dataclass(frozen=True)
class AskedPrompt:
    """A prompt and its digest, the same for whoever asks it. fields: of the request, as they came, in JSON.

    most_tokens: how long its answer may be; None where that is open. parts, tools: what a model reads of it, decoded.
    """

    endpoint: str
    digest: str
    fields: Mapping[str, msgspec.Raw]
    most_tokens: int | None
    parts: Sequence[Any] = ()
    tools: Any = None

    def most_prompt_tokens(self, upstream: str) -> int:
        """What goes in at most: a token for each byte, or what pictures come to that an address stands for."""
        size = sum(len(bytes(value)) for value in self.fields.values())
        return max(size, reserve_prompt_tokens(self.parts, self.tools, model=upstream))

    def body(self, model: str, user: str = "") -> bytes:
        """The request for one model, which is to answer in one piece. user: who asked; what is kept of a request may
        hold another word in that place, by which nobody would find the call to forget."""
        kept: dict[str, Any] = {name: value for name, value in self.fields.items() if name != "stream_options"}
        if user and self.endpoint == "messages":
            told = _value(self.fields, "metadata")
            kept["metadata"] = {**(told if isinstance(told, dict) else {}), "user_id": user}
        elif user:
            kept["user"] = user
        return msgspec.json.encode({**kept, "model": model, "stream": False})


def read(endpoint: str, request: bytes) -> AskedPrompt | str:
    """The prompt of a request; where it must not or cannot be asked again, why.

    `"store": false` and `metadata.data_class = "personal"` keep a request to the model that it was sent to. Of several
    choices no grader says how good they are.
    """
    if endpoint not in ENDPOINTS:
        return "other_endpoint"
    if len(request) > MOST_BYTES:
        return "too_large"
    try:
        fields = msgspec.json.decode(request, type=dict[str, msgspec.Raw])
        lengths = [length for name in _LENGTHS if (length := count(_value(fields, name)))]
        parts, tools = [_value(fields, name) for name in _ASKED], _value(fields, "tools")
        kept = _kept(fields, tools)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return "unreadable"
    if kept:
        return kept
    return AskedPrompt(endpoint, _digest(endpoint, fields), fields, lengths[0] if lengths else None, parts, tools)


def _kept(fields: Mapping[str, msgspec.Raw], tools: Any) -> str:
    """Why a request is for the model alone that it was sent to; "" where it is not."""
    store, metadata = (_value(fields, name) for name in ("store", "metadata"))
    reasons = {
        "private": store is False or (isinstance(metadata, dict) and metadata.get("data_class") == PERSONAL),
        "held_elsewhere": _held(fields),
        "hosted_tools": _hosted(fields, tools),
        "several_choices": (count(_value(fields, "n")) or 1) > 1,
    }
    return next((name for name, holds in reasons.items() if holds), "")


def _held(fields: Mapping[str, msgspec.Raw]) -> bool:
    """Whether something of it lies with one provider."""
    inside = [bytes(fields[name]) for name in ("messages", "input") if name in fields]
    return not _ELSEWHERE.isdisjoint(fields) or any(mark in part for part in inside for mark in _HELD)


def _hosted(fields: Mapping[str, msgspec.Raw], tools: Any) -> bool:
    """Whether a provider itself would work tools for it."""
    kinds = [tool.get("type") for tool in tools if isinstance(tool, dict)] if isinstance(tools, list) else []
    return any(name in fields for name in _HOSTED) or any(kind not in _OWN_TOOLS for kind in kinds)


def parent_of(scope: Scope, digest: str, model: str) -> str:
    """What a model's answer to a prompt is made for: an id of its own, by which the call is found again.

    No two calls share one, so that none of them counts as the one before another, and feedback on the call that
    brought the prompt speaks of that one alone.
    """
    told = msgspec.msgpack.encode((scope.tenant, scope.workspace, digest, model))
    return f"{PARENT}{hashlib.sha256(told).hexdigest()[:32]}"


PARENT: Final = "warm_"
"""Calls of a warm start have a parent of this kind."""


def _value(fields: Mapping[str, msgspec.Raw], name: str) -> Any:
    return msgspec.json.decode(fields[name]) if name in fields else None


def _digest(endpoint: str, fields: Mapping[str, msgspec.Raw]) -> str:
    told = [(name, bytes(fields[name])) for name in sorted(fields) if name not in _ASIDE]
    return hashlib.sha256(msgspec.msgpack.encode((endpoint, told))).hexdigest()[:40]
