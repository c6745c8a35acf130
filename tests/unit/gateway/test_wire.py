"""Reading OpenAI's dialect without re-modelling it."""

from __future__ import annotations

import json

import pytest

from windlass.errors import RequestError
from windlass.gateway.wire import Tally, parse_chat

BODY = (
    b'{"model": "auto", "messages": [{"role": "user", "content": "hi"}], "x_new": {"a": [1.50, "\\u00e9"]}, "n": 1e2}'
)


def test_only_the_model_is_replaced() -> None:
    chat = parse_chat(BODY)
    sent = chat.with_model("gpt")
    assert json.loads(sent) == {**json.loads(BODY), "model": "gpt"}
    assert b'{"a": [1.50, "\\u00e9"]}' in sent, "what is not understood stays byte for byte"
    assert b"1e2" in sent


def test_a_request_that_names_the_upstream_model_goes_on_as_it_came() -> None:
    assert parse_chat(BODY).with_model("auto") == BODY


@pytest.mark.parametrize(
    ("body", "param", "code"),
    [
        (b"", None, "invalid_json"),
        (b"{", None, "invalid_json"),
        (b"[" * 100_000, None, "invalid_request"),
        (b'{"a":' * 50_000, None, "invalid_json"),
        (b"\xff\xfe", None, "invalid_json"),
        (b"null", None, "invalid_request"),
        (b"[]", None, "invalid_request"),
        (b"{}", "model", "invalid_request"),
        (b'{"model": 1, "messages": []}', "model", "invalid_request"),
        (b'{"model": "m", "messages": []}', "messages", "invalid_request"),
        (b'{"model": "m", "messages": [{"content": "x"}]}', "messages", "invalid_request"),
        (b'{"model": "m", "messages": [{"role": 5}]}', "messages", "invalid_request"),
        (b'{"model": "m", "messages": [{"role": "user"}], "stream": "yes"}', "stream", "invalid_request"),
        (b'{"model": NaN, "messages": []}', None, "invalid_json"),
    ],
)
def test_bad_bodies_are_refused_with_the_field_at_fault(body: bytes, param: str | None, code: str) -> None:
    with pytest.raises(RequestError) as refused:
        parse_chat(body)
    assert (refused.value.status, refused.value.param, refused.value.code) == (400, param, code)


def test_content_parts_give_their_text_and_nothing_else() -> None:
    parts = [{"type": "text", "text": "a"}, {"type": "image_url", "image_url": {"url": "data:x"}}, {"text": 5}, "b"]
    chat = parse_chat(json.dumps({"model": "m", "messages": [{"role": "user", "content": parts}]}).encode())
    assert chat.messages[0].text == "a"


def _stream(*events: bytes) -> bytes:
    return b"".join(b"data: " + event + b"\n\n" for event in events)


PIECES = _stream(
    b'{"choices":[{"delta":{"role":"assistant","content":"Hel"}}]}',
    b'{"choices":[{"delta":{"content":"lo"}}]}',
    b'{"choices":[{"delta":{},"finish_reason":"stop"}],"usage":{"prompt_tokens":3,"completion_tokens":2}}',
    b"[DONE]",
)


@pytest.mark.parametrize("size", [1, 2, 7, 1000])
def test_a_stream_is_tallied_wherever_it_is_cut(size: int) -> None:
    tally = Tally(stream=True)
    for start in range(0, len(PIECES), size):
        tally.feed(PIECES[start : start + size])
    tally.end()
    assert (tally.text, tally.usage.prompt_tokens, tally.usage.completion_tokens) == ("Hello", 3, 2)
    assert tally.complete
    assert tally.malformed == 0


def test_a_cut_stream_is_not_complete() -> None:
    tally = Tally(stream=True)
    tally.feed(PIECES[: PIECES.index(b"lo") + 2])
    tally.end()
    assert not tally.complete


def test_a_stream_with_an_error_event_is_not_complete() -> None:
    tally = Tally(stream=True)
    tally.feed(_stream(b'{"error":{"message":"boom"}}', b"[DONE]"))
    tally.end()
    assert not tally.complete


def test_a_plain_reply_is_tallied_once_whole() -> None:
    tally = Tally(stream=False)
    tally.feed(b'{"choices":[{"message":{"content":"Hi"},"finish_reason":"stop"}],')
    tally.feed(b'"usage":{"prompt_tokens":1,"completion_tokens":1}}')
    tally.end()
    assert (tally.text, tally.usage.prompt_tokens, tally.complete) == ("Hi", 1, True)


def test_what_is_not_json_is_counted_not_raised() -> None:
    tally = Tally(stream=True)
    tally.feed(b"data: <html>\n\ndata: {\n\n: comment\n\n")
    tally.end()
    assert tally.malformed == 2
    assert not tally.complete
