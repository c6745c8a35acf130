"""What is read of a request in each client dialect, from honest and from hostile bodies."""

from __future__ import annotations

import json
from typing import Any

import pytest

from windlass.errors import RequestError
from windlass.gateway.dialects import Dialect, head, renamed

CLIENTS: tuple[Dialect, ...] = ("chat", "responses", "messages")
LEAST: dict[Dialect, dict[str, Any]] = {
    "chat": {"model": "m", "messages": [{"role": "user", "content": "Hi"}]},
    "responses": {"model": "m", "input": "Hi"},
    "messages": {"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": "Hi"}]},
}


def body(dialect: Dialect, **more: Any) -> bytes:
    return json.dumps(LEAST[dialect] | more).encode()


def texts(dialect: Dialect, raw: bytes) -> list[tuple[str, str]]:
    return [(message.role, message.text) for message in head(dialect, raw).messages]


@pytest.mark.parametrize("dialect", CLIENTS)
def test_the_least_request(dialect: Dialect) -> None:
    found = head(dialect, body(dialect))
    assert (found.model, found.stream, found.user, found.n) == ("m", False, "", 1)
    assert found.max_tokens == (9 if dialect == "messages" else None)
    assert texts(dialect, body(dialect)) == [("user", "Hi")]


def test_everything_of_chat() -> None:
    found = head("chat", body("chat", stream=True, user="u", max_tokens=5, max_completion_tokens=7, n=3))
    assert (found.stream, found.user, found.max_tokens, found.n) == (True, "u", 7, 3)
    assert head("chat", body("chat", safety_identifier="s")).user == "s"


def test_everything_of_responses() -> None:
    items = [
        {"role": "user", "content": [{"type": "input_text", "text": "Weather?"}]},
        {"type": "function_call", "call_id": "c", "name": "w", "arguments": '{"city":"Bonn"}'},
        {"type": "function_call_output", "call_id": "c", "output": "12 degrees"},
        {"type": "item_reference", "id": "x"},
    ]
    raw = body("responses", input=items, instructions="Be brief.", max_output_tokens=16, stream=True, user="u")
    found = head("responses", raw)
    assert (found.max_tokens, found.stream, found.user) == (16, True, "u")
    assert texts("responses", raw) == [
        ("system", "Be brief."),
        ("user", "Weather?"),
        ("assistant", '{"city":"Bonn"}'),
        ("tool", "12 degrees"),
        ("assistant", ""),
    ]


def test_a_kept_prompt_needs_no_input() -> None:
    assert head("responses", b'{"model":"m","prompt":{"id":"p"}}').messages == ()


def test_everything_of_messages() -> None:
    turn = {
        "role": "user",
        "content": [
            {"type": "tool_result", "tool_use_id": "t", "content": [{"type": "text", "text": "12 degrees"}]},
            {"type": "text", "text": "Go on."},
        ],
    }
    raw = body("messages", messages=[turn], system=[{"type": "text", "text": "Be brief."}], metadata={"user_id": "u"})
    assert head("messages", raw).user == "u"
    assert texts("messages", raw) == [("system", "Be brief."), ("tool", "12 degrees"), ("user", "Go on.")]


def test_counting_tokens_needs_no_limit() -> None:
    assert head("messages", b'{"model":"m","messages":[{"role":"user","content":"Hi"}]}').max_tokens is None


def test_gemini_is_a_dialect_of_upstreams_only() -> None:
    with pytest.raises(ValueError, match="no client speaks 'gemini'"):
        head("gemini", b"{}")


@pytest.mark.parametrize("dialect", CLIENTS)
@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"model": 3}, "model"),
        ({"model": None}, "model"),
        ({"stream": "yes"}, "stream"),
        ({"messages": [], "input": []}, None),
        ({"messages": {}, "input": {}}, None),
        ({"messages": [1], "input": [1]}, None),
        ({"max_tokens": -1, "max_output_tokens": -1}, None),
        ({"max_tokens": 2**60, "max_output_tokens": 2**60}, None),
        ({"max_tokens": 1.5, "max_output_tokens": 1.5}, None),
        ({"max_tokens": True, "max_output_tokens": True}, None),
        ({"user": 7, "metadata": {"user_id": 7}}, None),
        ({"user": "a\0b", "metadata": {"user_id": "a\0b"}}, None),
    ],
)
def test_a_wrong_field_is_named(dialect: Dialect, change: dict[str, Any], param: str | None) -> None:
    with pytest.raises(RequestError) as caught:
        head(dialect, body(dialect, **change))
    assert caught.value.status == 400
    assert caught.value.param in ((param,) if param else (*change, "metadata.user_id"))


@pytest.mark.parametrize("n", [0, -1, 129, "2", 1.5])
def test_n_is_bounded(n: Any) -> None:
    with pytest.raises(RequestError) as caught:
        head("chat", body("chat", n=n))
    assert caught.value.param == "n"


@pytest.mark.parametrize("dialect", CLIENTS)
@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"null",
        b"[]",
        b'"text"',
        b"{",
        b"\xff\xfe{}",
        b"[" * 100_000,
        b'{"model":' + b'{"a":' * 100_000,
        b'{"model":"m","messages":[{"role":"user","content":"\xc3("}],"input":"\xc3(","max_tokens":1}',
        b'{"model":"m","messages":[{"role":"user","content":"Hi"}],"input":"Hi","unknown":"\xff"}',
        b'{"model":"m","messages":[{"role":"user","content":"\\ud800"}],"input":"\\ud800"}',
        b'{"model":"m","messages":[{"role":"user","content":"Hi"}],"input":"Hi"} and more',
        b'{"model":"m","messages":[{"role":"user","content":1e999}],"input":1e999}',
    ],
    ids=range(13),
)
def test_what_is_no_request_is_refused(dialect: Dialect, raw: bytes) -> None:
    with pytest.raises(RequestError) as caught:
        head(dialect, raw)
    assert caught.value.status == 400


def test_eight_megabytes_are_read() -> None:
    raw = body("chat", messages=[{"role": "user", "content": "x" * 2**23}])
    assert len(head("chat", raw).messages[0].text) == 2**23


def test_only_the_model_changes() -> None:
    raw = b'{ "temperature": 1.0e0, "model": "a", "unknown": {"b" : [1,  2.50]}, "messages":[{"role":"user"}] }'
    assert renamed(head("chat", raw).fields, "b") == (
        b'{"temperature":1.0e0,"model":"b","unknown":{"b" : [1,  2.50]},"messages":[{"role":"user"}]}'
    )


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("", b'{"include_usage":true}'),
        (',"stream_options":null', b'{"include_usage":true}'),
        (',"stream_options":{}', b'{"include_usage":true}'),
        (',"stream_options":{"include_usage":false,"x":1.0}', b'{"include_usage":true,"x":1.0}'),
        (',"stream_options":{"x":1.0}', b'{"x":1.0,"include_usage":true}'),
    ],
)
def test_the_usage_is_asked_for(given: str, expected: bytes) -> None:
    raw = b'{"model":"m","messages":[{"role":"user"}],"stream":true' + given.encode() + b"}"
    out = renamed(head("chat", raw).fields, "m", include_usage=True)
    assert out == b'{"model":"m","messages":[{"role":"user"}],"stream":true,"stream_options":' + expected + b"}"


@pytest.mark.parametrize("options", ["1", "[]", '"x"', '{"include_usage":1}'])
def test_stream_options_of_a_wrong_type_are_refused(options: str) -> None:
    with pytest.raises(RequestError) as caught:
        head("chat", b'{"model":"m","messages":[{"role":"user"}],"stream_options":' + options.encode() + b"}")
    assert caught.value.param == "stream_options"


def test_of_duplicates_only_the_one_remains_that_was_read() -> None:
    raw = b'{"model":"dear","messages":[{"role":"user"}],"mod\\u0065l":"cheap","stream":false,"stream":true}'
    found = head("chat", raw)
    assert (found.model, found.stream) == ("cheap", True)
    assert renamed(found.fields, "cheap") == b'{"model":"cheap","messages":[{"role":"user"}],"stream":true}'
