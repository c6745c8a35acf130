"""Responses that are not done yet, and what a response repeats of its request."""

from __future__ import annotations

import json
from typing import Any

import pytest

from windlass.errors import UpstreamError
from windlass.gateway.dialects import tally, translation

CHAT = {
    "id": "c",
    "object": "chat.completion",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "{}"}, "finish_reason": "stop"}],
}
SCHEMA = {"type": "object", "properties": {"pawls": {"type": "integer"}}, "required": ["pawls"]}


def _response(**fields: Any) -> bytes:
    return json.dumps({"id": "resp_1", "object": "response", "model": "m", "output": [], **fields}).encode()


@pytest.mark.parametrize("status", ["queued", "in_progress", None])
def test_a_response_in_the_background_is_whole_and_no_answer_yet(status: str | None) -> None:
    body = _response(**({"status": status} if status else {"error": {"code": "server_error", "message": "x"}}))
    read = tally("responses", stream=False)
    read.feed(body)
    read.end()
    assert (read.complete, read.error, read.text) == (True, False, "")
    with pytest.raises(UpstreamError, match="no finished answer"):
        translation("chat", "responses").reply(200, body, "m")


@pytest.mark.parametrize(
    "body",
    [
        _response(status="failed", error={"code": "server_error", "message": "x"}),
        _response(status="cancelled"),
        b'{"error":{"code":"server_error","message":"x"}}',
        b'{"id":"resp_1"}',
    ],
)
def test_what_failed_or_is_no_response_is_not_whole(body: bytes) -> None:
    read = tally("responses", stream=False)
    read.feed(body)
    read.end()
    assert not read.complete


def test_a_response_repeats_what_was_asked_for_whole_and_streamed() -> None:
    form = {"type": "json_schema", "name": "drum", "schema": SCHEMA, "strict": True}
    tools = [{"type": "function", "name": "crew", "parameters": SCHEMA, "strict": False}]
    asked = {"model": "m", "input": "How many?", "text": {"format": form, "verbosity": "low"}, "tools": tools}
    asked |= {"instructions": "Count.", "temperature": 0.5, "metadata": {"ship": "Dora"}, "top_p": None}
    way = translation("responses", "chat", call="c1", at_s=1)
    way.request(json.dumps(asked).encode(), "up", stream=False)
    whole = json.loads(way.reply(200, json.dumps(CHAT).encode(), "m"))
    chunk = {**CHAT, "choices": [{"index": 0, "delta": {"content": "{}"}, "finish_reason": "stop"}]}
    stream = way.stream("m")
    written = stream.feed(b"data: " + json.dumps(chunk).encode() + b"\n\ndata: [DONE]\n\n") + stream.end()
    events = [json.loads(line[6:]) for line in written.decode().splitlines() if line.startswith("data: ")]
    assert [event["type"] for event in events if "response" in event] == [
        "response.created",
        "response.in_progress",
        "response.completed",
    ]
    for said in (whole, *(event["response"] for event in events if "response" in event)):
        assert {name: said[name] for name in asked.keys() - {"input", "top_p"}} == {
            name: asked[name] for name in asked.keys() - {"input", "top_p"}
        }
        assert said["top_p"] is None


def test_the_form_is_always_said_and_what_is_not_repeated_is_not() -> None:
    way = translation("responses", "chat", call="c1", at_s=1)
    way.request(b'{"model":"m","input":"x","text":{"verbosity":"low"},"safety_identifier":"s"}', "up", stream=False)
    said = json.loads(way.reply(200, json.dumps(CHAT).encode(), "m"))
    assert said["text"] == {"format": {"type": "text"}, "verbosity": "low"}
    assert "safety_identifier" not in said
    assert said["model"] == "m"
