"""What a translation refuses, drops and makes of broken replies."""

from __future__ import annotations

import json
from typing import Any

import pytest

from windlass.errors import ErrorCategory, RequestError, UpstreamError
from windlass.gateway.dialects import Dialect, translation
from windlass.gateway.dialects.messages_thinking import is_adaptive
from windlass.gateway.dialects.seals import opened, outside, seal

USER = [{"role": "user", "content": "Hi"}]
LEAST: dict[Dialect, dict[str, Any]] = {
    "chat": {"model": "m", "messages": USER},
    "responses": {"model": "m", "input": "Hi"},
    "messages": {"model": "m", "max_tokens": 9, "messages": USER},
}
STORED = {"type": "function_call_output", "call_id": "c", "output": "x"}
IMAGE = {"type": "image", "source": {"type": "file", "file_id": "f"}}
CITED = {"type": "document", "source": {"type": "url", "url": "u"}, "citations": {"enabled": True}}
CALL = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "[1]"}}
FILE_ID = {"type": "image_url", "image_url": {"url": "https://example.org/picture"}}

REFUSED: list[tuple[Dialect, Dialect, dict[str, Any], str]] = [
    ("responses", "chat", {"previous_response_id": "resp_1"}, "previous_response_id"),
    ("responses", "messages", {"conversation": "conv_1"}, "conversation"),
    ("responses", "chat", {"store": True}, "store"),
    ("responses", "chat", {"background": True}, "background"),
    ("responses", "chat", {"prompt": {"id": "p"}}, "prompt"),
    ("responses", "chat", {"truncation": "auto"}, "truncation"),
    ("responses", "chat", {"include": ["web_search_call.results"]}, "include"),
    ("responses", "chat", {"tools": [{"type": "web_search"}]}, "tools[0]"),
    ("responses", "chat", {"tool_choice": {"type": "web_search"}}, "tool_choice"),
    ("responses", "chat", {"tool_choice": {"type": "allowed_tools", "mode": "auto", "tools": []}}, "tool_choice"),
    ("responses", "chat", {"input": [{"type": "item_reference", "id": "x"}]}, "input[0]"),
    ("responses", "chat", {"input": [{"type": "web_search_call", "id": "x"}]}, "input[0]"),
    ("responses", "chat", {"input": [{"role": "user", "content": [{"type": "input_image"}]}]}, "input[0].content[0]"),
    ("responses", "gemini", {"input": [STORED]}, "input[0]"),
    ("responses", "chat", {"text": {"format": {"type": "grammar"}}}, "text.format"),
    ("responses", "messages", {"input": []}, "input"),
    ("responses", "messages", {"reasoning": {"effort": "low"}, "max_output_tokens": 1000}, "max_output_tokens"),
    ("chat", "messages", {"n": 2}, "n"),
    ("chat", "responses", {"n": 2}, "n"),
    ("chat", "messages", {"temperature": 1.5}, "temperature"),
    ("chat", "messages", {"frequency_penalty": 1}, "frequency_penalty"),
    ("chat", "messages", {"logit_bias": {"5": 1}}, "logit_bias"),
    ("chat", "responses", {"functions": [{"name": "f"}]}, "functions"),
    ("chat", "gemini", {"function_call": "auto"}, "function_call"),
    ("chat", "messages", {"web_search_options": {"a": 1}}, "web_search_options"),
    ("chat", "messages", {"modalities": ["text", "audio"]}, "modalities"),
    ("chat", "gemini", {"audio": {"voice": "a", "format": "mp3"}}, "audio"),
    ("chat", "messages", {"moderation": {"model": "m"}}, "moderation"),
    ("chat", "messages", {"reasoning_effort": "gigantic"}, "reasoning_effort"),
    ("chat", "gemini", {"reasoning_effort": "gigantic"}, "reasoning_effort"),
    ("chat", "messages", {"tools": [{"type": "custom", "custom": {"name": "f"}}]}, "tools[0]"),
    ("chat", "messages", {"messages": [*USER, {"role": "system", "content": "Now."}, *USER]}, "messages[1]"),
    ("chat", "gemini", {"messages": [*USER, {"role": "developer", "content": "Now."}, *USER]}, "messages[1]"),
    ("chat", "messages", {"messages": [*USER, {"role": "assistant", "content": "Yes"}]}, "messages"),
    ("chat", "gemini", {"messages": [*USER, {"role": "assistant", "content": "Yes"}]}, "messages"),
    ("chat", "messages", {"messages": [{"role": "system", "content": "Only."}]}, "messages"),
    ("chat", "messages", {"messages": [{"role": "assistant", "tool_calls": [CALL]}, *USER]}, "messages[0].tool_calls"),
    ("chat", "messages", {"messages": [{"role": "tool", "content": "x"}]}, "messages[0].tool_call_id"),
    ("chat", "gemini", {"messages": [{"role": "user", "content": [FILE_ID]}]}, "messages[0]"),
    ("chat", "messages", {"messages": [{"role": "user", "content": [{"type": "video"}]}]}, "messages[0].content[0]"),
    ("chat", "messages", {"user": 7}, "user"),
    ("messages", "chat", {"top_k": 4}, "top_k"),
    ("messages", "responses", {"stop_sequences": ["END"]}, "stop_sequences"),
    ("messages", "chat", {"container": "c"}, "container"),
    ("messages", "chat", {"mcp_servers": []}, "mcp_servers"),
    ("messages", "chat", {"tools": [{"type": "web_search_20250305", "name": "web_search"}]}, "tools[0]"),
    ("messages", "chat", {"messages": [*USER, {"role": "assistant", "content": "The answer is ("}]}, "messages"),
    ("messages", "chat", {"messages": [{"role": "user", "content": [IMAGE]}]}, "messages[0].content[0]"),
    ("messages", "chat", {"messages": [{"role": "user", "content": [CITED]}]}, "messages[0].content[0].citations"),
    ("messages", "gemini", {"messages": [{"role": "user", "content": [{"type": "x"}]}]}, "messages[0].content[0]"),
    ("messages", "chat", {"output_config": {"format": {"type": "x", "schema": {}}}}, "output_config.format"),
    ("messages", "chat", {"max_tokens": None}, "max_tokens"),
]


def sent(client: Dialect, upstream: Dialect, *, stream: bool = False, **more: Any) -> Any:
    body = json.dumps(LEAST[client] | more).encode()
    return translation(client, upstream).request(body, "m", stream=stream)


@pytest.mark.parametrize(("client", "upstream", "more", "param"), REFUSED)
def test_what_cannot_be_carried_is_refused_by_name(
    client: Dialect, upstream: Dialect, more: dict[str, Any], param: str
) -> None:
    with pytest.raises(RequestError) as caught:
        sent(client, upstream, **more)
    assert (caught.value.status, caught.value.param) == (400, param)


@pytest.mark.parametrize(
    ("client", "upstream", "more"),
    [
        ("responses", "chat", {"previous_response_id": None, "background": False, "store": False}),
        ("chat", "messages", {"presence_penalty": 0, "logit_bias": {}, "n": 1, "modalities": ["text"]}),
        ("chat", "responses", {"stop": None, "frequency_penalty": 0.0}),
        ("messages", "chat", {"thinking": {"type": "disabled"}}),
    ],
)
def test_what_says_nothing_is_carried(client: Dialect, upstream: Dialect, more: dict[str, Any]) -> None:
    assert sent(client, upstream, **more).dropped == ()


def test_a_stream_is_asked_for_with_its_usage() -> None:
    assert json.loads(sent("messages", "chat", stream=True).body)["stream_options"] == {"include_usage": True}
    assert json.loads(sent("chat", "messages", stream=True).body)["stream"] is True
    assert json.loads(sent("chat", "responses", stream=True).body)["stream"] is True


def test_a_chat_client_says_whether_it_wants_the_usage() -> None:
    assert not sent("chat", "messages").include_usage
    assert sent("chat", "messages", stream_options={"include_usage": True}).include_usage


def test_the_limit_that_anthropic_wants_is_handed_in() -> None:
    body = json.dumps(LEAST["chat"]).encode()
    translated = translation("chat", "messages", max_tokens=777).request(body, "m", stream=False)
    assert json.loads(translated.body)["max_tokens"] == 777


def test_dropped_names_fit_into_a_header() -> None:
    more = {"a\r\nset-cookie: x": 1, "ünknown": 1, "fine.name-1": 1, "x" * 99: 1} | {f"f{at}": 1 for at in range(99)}
    dropped = sent("chat", "messages", **more).dropped
    assert dropped[:3] == ("?", "fine.name-1", "x" * 64)
    assert len(dropped) == 32


@pytest.mark.parametrize(("client", "upstream"), [("chat", "chat"), ("gemini", "chat"), ("messages", "messages")])
def test_there_is_nothing_to_translate(client: Dialect, upstream: Dialect) -> None:
    with pytest.raises(ValueError, match="no translation"):
        translation(client, upstream)


@pytest.mark.parametrize("depth", [300, 700, 1000, 100_000])
def test_depth_is_carried_or_refused(depth: int) -> None:
    schema = b'{"a":' * depth + b"1" + b"}" * depth
    for upstream in ("responses", "messages", "gemini"):
        tool = b'{"type":"function","function":{"name":"f","parameters":' + schema + b"}}"
        body = b'{"model":"m","messages":[{"role":"user","content":"Hi"}],"tools":[' + tool + b"]}"
        try:
            assert schema in translation("chat", upstream).request(body, "m", stream=False).body  # type: ignore[arg-type]
        except RequestError:
            assert depth > 300


@pytest.mark.parametrize(
    "body",
    [b"", b"{}", b"[]", b"<html>", b'{"choices":[]}', b'{"content":[{"type":"text","text":"x"}]}', b'{"output":[]}'],
)
def test_a_reply_that_is_none_is_the_upstreams_fault(body: bytes) -> None:
    for client, upstream in (("messages", "chat"), ("chat", "messages"), ("chat", "responses"), ("chat", "gemini")):
        with pytest.raises(UpstreamError) as caught:
            translation(client, upstream).reply(200, body, "m")  # type: ignore[arg-type]
        assert caught.value.category is ErrorCategory.RESPONSE_MALFORMED


def test_a_usage_that_was_not_said_is_not_made_up() -> None:
    body = b'{"choices":[{"index":0,"message":{"content":"Hi"},"finish_reason":"stop"}]}'
    assert json.loads(translation("responses", "chat").reply(200, body, "m"))["usage"] is None
    message = b'{"content":[{"type":"text","text":"Hi"}],"stop_reason":"end_turn"}'
    assert json.loads(translation("chat", "messages").reply(200, message, "m"))["usage"] is None


def test_ids_and_times_are_handed_in() -> None:
    body = b'{"content":[{"type":"text","text":"Hi"}],"stop_reason":"end_turn"}'
    reply = json.loads(translation("chat", "messages", call="call-1", at_s=5).reply(200, body, "shown"))
    assert (reply["id"], reply["created"], reply["model"]) == ("chatcmpl-call-1", 5, "shown")


def test_nothing_follows_an_error() -> None:
    stream = translation("chat", "messages").stream("m")
    error = b'event: error\ndata: {"type":"error","error":{"type":"api_error","message":"no"}}\n\n'
    assert stream.feed(error).count(b"data: ") == 1
    assert stream.feed(error) + stream.end() + stream.end() == b""


def test_other_choices_of_a_wilful_upstream_are_left_out() -> None:
    two = [{"index": at, "delta": {"content": f"c{at}"}, "finish_reason": "stop"} for at in (0, 1)]
    body = b"data: " + json.dumps({"choices": two}).encode() + b"\n\ndata: [DONE]\n\n"
    for client in ("messages", "responses"):
        stream = translation(client, "chat").stream("m")  # type: ignore[arg-type]
        out = stream.feed(body) + stream.end()
        assert b"c0" in out
        assert b"c1" not in out


def test_a_thought_comes_home_through_every_dialect() -> None:
    for mark in ("messages", "responses", "gemini", "messages.redacted"):
        sealed = seal(mark, "value")
        for abroad in ("messages", "responses", "gemini"):
            assert opened(mark, seal(abroad, outside(abroad, sealed))) == "value"
    assert opened("gemini", seal("messages", "value")) == ""
    assert seal("messages", "") == ""


@pytest.mark.parametrize(
    ("model", "adaptive"),
    [
        ("claude-3-7-sonnet-20250219", False),
        ("claude-sonnet-4-20250514", False),
        ("claude-haiku-4-5-20251001", False),
        ("us.anthropic.claude-3-5-sonnet-20241022-v2:0", False),
        ("claude-2.1", False),
        ("claude-opus-4-6", True),
        ("anthropic.claude-opus-4-7-v1", True),
        ("claude-sonnet-5", True),
        ("claude-latest", True),
        ("other-5", False),
        ("", False),
    ],
)
def test_the_models_name_tells_how_it_is_asked_to_think(model: str, adaptive: bool) -> None:
    assert is_adaptive(model) is adaptive


@pytest.mark.parametrize(
    ("more", "adaptive", "expected"),
    [
        (
            {"reasoning_effort": "minimal"},
            True,
            {"max_tokens": 5120, "thinking": {"type": "adaptive"}, "effort": "low"},
        ),
        (
            {"reasoning_effort": "max", "max_tokens": 5},
            True,
            {"max_tokens": 5, "thinking": {"type": "adaptive"}, "effort": "max"},
        ),
        ({"reasoning_effort": "none"}, True, {"max_tokens": 4096}),
        (
            {"reasoning_effort": "low"},
            False,
            {"max_tokens": 6144, "thinking": {"type": "enabled", "budget_tokens": 2048}},
        ),
        (
            {"reasoning_effort": "high", "max_tokens": 1500},
            False,
            {"max_tokens": 1500, "thinking": {"type": "enabled", "budget_tokens": 1024}},
        ),
        ({"max_tokens": 0}, False, {"max_tokens": 0}),
    ],
)
def test_an_effort_for_anthropic(more: dict[str, Any], adaptive: bool, expected: dict[str, Any]) -> None:
    body = json.dumps(LEAST["chat"] | more).encode()
    made = json.loads(translation("chat", "messages", adaptive=adaptive).request(body, "m", stream=False).body)
    made["effort"] = made.get("output_config", {}).get("effort")
    kept = {name: made.get(name) for name in ("max_tokens", "thinking", "effort")}
    assert {name: value for name, value in kept.items() if value is not None} == expected


def test_a_summary_that_was_asked_for_is_shown() -> None:
    body = json.dumps(LEAST["responses"] | {"reasoning": {"effort": "low", "summary": "auto"}}).encode()
    made = translation("responses", "messages").request(body, "claude-opus-4-7", stream=False)
    assert json.loads(made.body)["thinking"] == {"type": "adaptive", "display": "summarized"}


@pytest.mark.parametrize("index", [10**12, -5, None])
def test_a_call_may_have_any_number(index: int | None) -> None:
    call = {"index": index, "id": "c", "function": {"name": "f", "arguments": "{}"}}
    choice = {"delta": {"tool_calls": [call]}, "finish_reason": "tool_calls"}
    body = b"data: " + json.dumps({"id": 7, "created": 1.5, "usage": 3, "choices": [choice]}).encode() + b"\n\n"
    stream = translation("messages", "chat").stream("m")
    out = stream.feed(body) + stream.end()
    assert b'"stop_reason":"tool_use"' in out
    assert b'"partial_json":"{}"' in out


def test_arguments_of_no_call_are_left_out() -> None:
    delta = {"type": "content_block_delta", "index": 0, "delta": {"type": "input_json_delta", "partial_json": "{}"}}
    stream = translation("chat", "messages").stream("m")
    assert stream.feed(b"data: " + json.dumps(delta).encode() + b"\n\n") == b""
