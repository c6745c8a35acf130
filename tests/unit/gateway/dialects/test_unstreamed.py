"""Whole replies as streams; what they say is what they said whole."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from windlass.errors import ErrorCategory, UpstreamError
from windlass.gateway.dialects import Dialect, tally
from windlass.gateway.dialects.identity import Identity
from windlass.gateway.dialects.unstreamed import unstreamed

REPLIES = Path(__file__).parents[3] / "golden" / "dialects" / "replies"
WHO = Identity("shown", "c1", 1)
CLIENTS: tuple[Dialect, ...] = ("chat", "responses", "messages")


@pytest.mark.parametrize("client", CLIENTS)
@pytest.mark.parametrize("upstream", CLIENTS)
@pytest.mark.parametrize("name", ["text", "tools", "length"])
def test_a_stream_counts_and_says_what_the_whole_reply_did(client: Dialect, upstream: Dialect, name: str) -> None:
    body = (REPLIES / f"{name}.{upstream}.json").read_bytes()
    whole, streamed = tally(upstream, stream=False), tally(client, stream=True)
    whole.feed(body)
    streamed.feed(unstreamed(client, upstream, body, WHO, include_usage=True))
    for read in (whole, streamed):
        read.end()
        assert read.complete
    assert streamed.done
    assert streamed.usage.prompt_tokens == whole.usage.prompt_tokens
    assert streamed.usage.completion_tokens == whole.usage.completion_tokens
    if name == "text":
        assert streamed.text == whole.text != ""


def test_a_chat_that_did_not_ask_for_usage_gets_none() -> None:
    body = (REPLIES / "text.chat.json").read_bytes()
    assert b'"usage"' not in unstreamed("chat", "chat", body, WHO, include_usage=False)


@pytest.mark.parametrize("client", CLIENTS)
def test_a_failure_with_status_200_is_an_error_event_and_no_end(client: Dialect) -> None:
    body = json.dumps({"error": {"message": "full", "type": "server_error", "code": "overloaded"}}).encode()
    written = unstreamed(client, "chat", body, WHO, include_usage=True)
    assert b'"error"' in written
    assert b"[DONE]" not in written
    read = tally(client, stream=True)
    read.feed(written)
    read.end()
    assert read.error
    assert not read.complete


@pytest.mark.parametrize("body", [b"", b"{}", b"[1]", b"\xff", b'{"choices":[]}', b'{"choices":7}', b"[" * 100_000])
def test_what_is_no_reply_is_malformed(body: bytes) -> None:
    with pytest.raises(UpstreamError) as raised:
        unstreamed("chat", "chat", body, WHO, include_usage=True)
    assert raised.value.category is ErrorCategory.RESPONSE_MALFORMED
