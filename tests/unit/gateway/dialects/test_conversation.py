"""A second turn: what a provider said comes back to it through a client of another dialect as it said it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from windlass.gateway.dialects import Dialect, translation

REPLIES = Path(__file__).parents[3] / "golden" / "dialects" / "replies"


def sent_back(client: Dialect, upstream: Dialect, reply: Any) -> Any:
    """The upstream's request for a second turn, out of a reply as the client got it."""
    user = {"role": "user", "content": "And now?"}
    asked: dict[str, Any] = {"model": "m"}
    match client:
        case "chat":
            message = reply["choices"][0]["message"]
            answers = [
                {"role": "tool", "tool_call_id": call["id"], "content": "12 degrees"}
                for call in message.get("tool_calls", ())
            ]
            asked["messages"] = [user, message, *(answers or [user])]
        case "responses":
            answers = [
                {"type": "function_call_output", "call_id": item["call_id"], "output": "12 degrees"}
                for item in reply["output"]
                if item["type"] == "function_call"
            ]
            asked["input"] = [user, *reply["output"], *(answers or [user])]
        case _:
            answers = [
                {"type": "tool_result", "tool_use_id": block["id"], "content": "12 degrees"}
                for block in reply["content"]
                if block["type"] == "tool_use"
            ]
            said = {"role": "assistant", "content": reply["content"]}
            asked |= {
                "max_tokens": 9,
                "messages": [user, said, {"role": "user", "content": answers} if answers else user],
            }
    return json.loads(translation(client, upstream).request(json.dumps(asked).encode(), "m", stream=False).body)


def round_trip(client: Dialect, upstream: Dialect, name: str) -> tuple[Any, Any]:
    """A golden reply, and the request that follows it."""
    body = (REPLIES / f"{name}.{upstream}.json").read_bytes()
    reply = json.loads(translation(client, upstream, call="c").reply(200, body, "m"))
    return json.loads(body), sent_back(client, upstream, reply)


@pytest.mark.parametrize("client", ["chat", "responses"])
@pytest.mark.parametrize("name", ["reasoning", "tools"])
def test_anthropic_gets_its_blocks_back(client: Dialect, name: str) -> None:
    reply, asked = round_trip(client, "messages", name)
    assert asked["messages"][1] == {"role": "assistant", "content": reply["content"]}


@pytest.mark.parametrize("client", ["chat", "responses", "messages"])
def test_gemini_gets_its_calls_and_signatures_back(client: Dialect) -> None:
    reply, asked = round_trip(client, "gemini", "tools")
    assert asked["contents"][1] == {"role": "model", "parts": reply["candidates"][0]["content"]["parts"]}
    assert [part["functionResponse"] for part in asked["contents"][2]["parts"]] == [
        {"name": "weather", "response": {"output": "12 degrees"}},
        {"name": "now", "response": {"output": "12 degrees"}, "id": "g2"},
    ]


@pytest.mark.parametrize("client", ["chat", "messages"])
def test_openai_gets_its_encrypted_reasoning_back(client: Dialect) -> None:
    _, asked = round_trip(client, "responses", "reasoning")
    assert asked["input"][1] == {
        "type": "reasoning",
        "id": "rs_1",
        "summary": [{"type": "summary_text", "text": "Two \n\nand two."}],
        "encrypted_content": "ENC",
    }


@pytest.mark.parametrize("client", ["responses", "messages"])
def test_chat_gets_its_calls_back(client: Dialect) -> None:
    reply, asked = round_trip(client, "chat", "tools")
    calls = reply["choices"][0]["message"]["tool_calls"]
    for given, back in zip(calls, asked["messages"][1]["tool_calls"], strict=True):
        assert (back["id"], back["function"]["name"]) == (given["id"], given["function"]["name"])
        assert json.loads(back["function"]["arguments"]) == json.loads(given["function"]["arguments"])


@pytest.mark.parametrize("client", ["chat", "responses"])
def test_another_provider_never_sees_a_foreign_seal(client: Dialect) -> None:
    body = (REPLIES / "reasoning.messages.json").read_bytes()
    reply = json.loads(translation(client, "messages", call="c").reply(200, body, "m"))
    for other in ("gemini", "responses" if client == "chat" else "chat"):
        assert "SIG" not in json.dumps(sent_back(client, other, reply))  # type: ignore[arg-type]
