"""Replies that we write ourselves, in OpenAI's dialect."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from windlass.gateway.provider import EVENT_STREAM, JSON, ProviderRequest
from windlass.gateway.providers.compose import completion, estimate_tokens
from windlass.gateway.wire import Tally, parse_chat

TEXT = st.text(st.characters(exclude_categories=["Cs"]))


def _request(*, stream: bool = False, **fields: Any) -> ProviderRequest:
    said = {"model": "m", "messages": [{"role": "user", "content": "12345678"}], "stream": stream, **fields}
    body = json.dumps(said).encode()
    return ProviderRequest("call_1", "m", body, parse_chat(body))


@pytest.mark.parametrize(("text", "tokens"), [("", 0), ("a", 1), ("abcd", 1), ("abcde", 2), ("⚓" * 8, 2)])
def test_a_token_is_about_four_characters(text: str, tokens: int) -> None:
    assert estimate_tokens(text) == tokens


@given(TEXT)
async def test_a_plain_reply_holds_the_text(text: str) -> None:
    reply = completion(_request(), text, 7)
    body = json.loads(b"".join([chunk async for chunk in reply.chunks]))
    assert (reply.status, reply.content_type) == (200, JSON)
    assert body["choices"][0]["message"] == {"role": "assistant", "content": text}
    assert body["usage"]["total_tokens"] == body["usage"]["prompt_tokens"] + body["usage"]["completion_tokens"]
    assert (body["id"], body["created"], body["model"]) == ("chatcmpl-call_1", 7, "m")


@given(TEXT)
async def test_a_stream_adds_up_to_the_text_and_ends(text: str) -> None:
    reply = completion(_request(stream=True), text, 7)
    chunks = [chunk async for chunk in reply.chunks]
    tally = Tally(stream=True)
    for chunk in chunks:
        tally.feed(chunk)
    tally.end()
    assert reply.content_type == EVENT_STREAM
    assert (tally.text, tally.complete, tally.malformed) == (text, True, 0)
    assert tally.usage.completion_tokens == estimate_tokens(text)
    assert chunks[-1] == b"data: [DONE]\n\n"
    first = json.loads(chunks[0].removeprefix(b"data: "))
    assert first["choices"][0]["delta"]["role"] == "assistant"


@pytest.mark.parametrize(
    ("options", "apart"),
    [({"include_usage": True}, True), ({"include_usage": False}, False), ({}, False), (None, False), ([], False)],
)
async def test_usage_comes_in_a_chunk_of_its_own_where_it_was_asked_for(options: Any, apart: bool) -> None:
    reply = completion(_request(stream=True, stream_options=options), "text", 7)
    *_, before, last, _ = [chunk async for chunk in reply.chunks]
    end = json.loads(last.removeprefix(b"data: "))
    assert end["usage"]["prompt_tokens"] == 2
    assert (end["choices"] == []) is apart
    assert ("usage" in json.loads(before.removeprefix(b"data: "))) is False


@pytest.mark.parametrize("stream", [False, True])
async def test_what_was_counted_stands_in_place_of_the_estimate(*, stream: bool) -> None:
    tally = Tally(stream=stream)
    async for chunk in completion(_request(stream=stream), "a long word", 7, tokens=(41, 7)).chunks:
        tally.feed(chunk)
    tally.end()
    assert (tally.usage.prompt_tokens, tally.usage.completion_tokens) == (41, 7)
