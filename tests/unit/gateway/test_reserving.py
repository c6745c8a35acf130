"""What is held of limits for a prompt: the short way for plain chats never holds less than the long one."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from windlass.gateway.money.overhead import reserve_prompt_tokens
from windlass.gateway.options import ModelOptions
from windlass.gateway.providers.echo import Echo
from windlass.gateway.resilience.attempt import Target
from windlass.gateway.transit import Transit
from windlass.gateway.wire import parse_chat
from windlass.records import Call

FIELDS = ("messages", "input", "system", "instructions", "response_format", "text")
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=200)


def _held(body: dict[str, Any]) -> int:
    chat = parse_chat(json.dumps(body).encode())
    call = Call(id="call_1", at=0.0, endpoint="chat", model="m")
    target = Target(Echo(), ModelOptions(name="m"))
    return Transit(call, chat, (), (target,), target, 0.0, chat.tally(stream=False)).most_prompt_tokens()


def _long_way(body: dict[str, Any]) -> int:
    texts = sum(len(message["content"].encode()) for message in body["messages"])
    return max(texts, reserve_prompt_tokens([body.get(name) for name in FIELDS], body.get("tools"), model="m"))


@given(st.lists(TEXT, min_size=1, max_size=20))
def test_a_plain_chat_holds_no_less_than_by_the_long_way(texts: list[str]) -> None:
    body = {"model": "m", "messages": [{"role": "user", "content": text} for text in texts]}
    held = _held(body)
    assert _long_way(body) <= held
    assert held <= sum(len(text.encode()) for text in texts) + 20 + 4 * len(texts)


TOOLS = [{"type": "function", "function": {"name": "haul", "description": "x" * 900, "parameters": {"type": "object"}}}]
PICTURE = [{"type": "image_url", "image_url": {"url": "https://example.com/a.png"}}]


@pytest.mark.parametrize(
    ("message", "fields"),
    [
        ({}, {"tools": TOOLS}),
        ({}, {"response_format": {"type": "json_schema", "json_schema": {"name": "x" * 900}}}),
        ({"content": PICTURE}, {}),
        ({"tool_calls": [{"id": "1", "function": {"name": "haul", "arguments": "x" * 900}}]}, {}),
        ({"reasoning_content": "x" * 900}, {}),
    ],
    ids=["tools", "format", "picture", "calls", "a field of its own"],
)
def test_what_goes_in_beside_texts_is_held_for(message: dict[str, Any], fields: dict[str, Any]) -> None:
    said = {"role": "user", "content": "haul away", **message}
    plain = _held({"model": "m", "messages": [{"role": "user", "content": "haul away"}]})
    assert _held({"model": "m", "messages": [said], **fields}) > plain + 40
