"""What the opening of a reply says: the causes that providers name, and first events of any size and cut."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from tests.scenario.faulty_upstream import TOKENS, ChatWriter, MessagesWriter, ResponsesWriter

from windlass.errors import ErrorCategory, UpstreamError
from windlass.gateway import opening as module
from windlass.gateway.dialects.tally import tally
from windlass.gateway.opening import Opened, Wants, opened, retry_after_s
from windlass.gateway.provider import EVENT_STREAM, JSON, ProviderReply
from windlass.gateway.wire import Tally

EVENT = b'data: {"choices":[{"index":0,"delta":{"content":"hi"}}]}\n\n'
LAST = b'data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\ndata: [DONE]\n\n'


async def _parts(*parts: bytes) -> AsyncIterator[bytes]:
    for part in parts:
        yield part


async def _opened(*parts: bytes, status: int = 200, kind: str = EVENT_STREAM, wants: Wants = "any") -> Opened:
    reply = ProviderReply(status, kind, _parts(*parts))  # type: ignore[arg-type]
    return await opened(reply, wants, lambda stream: Tally(stream=stream))


def _said(error: Any, **more: Any) -> bytes:
    return json.dumps({"error": error} | more).encode()


@pytest.mark.parametrize(
    ("status", "body", "category"),
    [
        (400, _said({"code": "context_length_exceeded"}), "context_too_long"),
        (
            400,
            _said({"message": "The maximum context length is 4096 tokens", "code": 400}),
            "context_too_long",
        ),
        (400, _said({"message": "the request exceeds the available context size"}), "context_too_long"),
        (400, _said({"type": "invalid_request_error", "message": "prompt is too long: 9 > 8"}), "context_too_long"),
        (400, _said({"status": "X", "message": "The input token count (9) exceeds the maximum"}), "context_too_long"),
        (413, _said({"message": "Prompt is too large for model with 8 maximum context length"}), "context_too_long"),
        (400, _said({"message": "temperature must be a number"}), "upstream_request_refused"),
        (500, _said({"message": "context length unknown"}), "upstream_server_error"),
        (400, _said("the context window"), "context_too_long"),
        (400, _said(None, message="prompt is too long"), "context_too_long"),
        (429, _said({"type": "insufficient_quota", "code": None}), "quota_spent"),
        (429, _said({"code": "insufficient_quota"}), "quota_spent"),
        (429, b"", "rate_limited"),
        (401, b"<html>", "upstream_key_refused"),
        (529, b"\xff\xfe", "model_overloaded"),
        (500, b"[" * 100_000, "upstream_server_error"),
        (503, b'"text"', "model_overloaded"),
        (999, b"null", "upstream_server_error"),
        (302, b"", "redirect_refused"),
        (200, _said({"code": 429}), "rate_limited"),
        (200, _said({"code": "rate_limit_exceeded"}), "rate_limited"),
        (200, _said({"code": True}), "upstream_server_error"),
        (200, _said({"code": 10**30, "type": ["x"], "message": {}}), "upstream_server_error"),
        (200, _said(""), "upstream_server_error"),
        (200, _said({"type": "overloaded_error"}, type="error"), "model_overloaded"),
        (200, _said({"type": "authentication_error"}, type="error"), "upstream_key_refused"),
        (200, _said({"code": "content_filter"}), "content_filtered"),
    ],
)
async def test_what_a_refusal_stands_for(status: int, body: bytes, category: str) -> None:
    found = await _opened(body, status=status, kind=JSON)
    assert found.category is ErrorCategory(category)
    assert (b"".join(found.head), found.ended) == (body, True)
    if status == 200:
        streamed = await _opened(b"event: error\ndata: " + body + b"\n\n")
        assert streamed.category is ErrorCategory(category)


@pytest.mark.parametrize(
    ("first", "category"),
    [
        (EVENT, None),
        (b"data:" + EVENT[6:], None),
        (b"id: 1\nevent: x\nretry: 5\n" + EVENT, None),
        (b"data: {}\n\n" + EVENT, None),
        (b"data:\n\n" + EVENT, None),
        (EVENT + b"data: {oops\n\n", None),
        (b"data: {oops\n\n" + EVENT, "chunk_malformed"),
        (b"data: \xff\xfe\n\n" + EVENT, "chunk_malformed"),
        (b"data: " + b"[" * 10_000 + b"\n\n" + EVENT, "chunk_malformed"),
        (b"data: [DONE]\n\n", "stream_empty"),
        (b"", "stream_empty"),
        (b"\r\n\r\n: x\r\n\r\n", "stream_empty"),
        (b"nonsense\n\n", "chunk_malformed"),
        (EVENT[:30], "stream_cut"),
        (b"dat", "chunk_malformed"),
        (b"data:", "chunk_malformed"),
        (EVENT[:-2], "stream_cut"),
        (LAST[:-1], None),
    ],
)
async def test_what_a_stream_begins_with(first: bytes, category: str | None) -> None:
    found = await _opened(first, *([LAST] if first.startswith(b"data: {}") else []))
    assert found.category is (ErrorCategory(category) if category else None)
    assert b"".join([*found.head, *[chunk async for chunk in found.rest]]).startswith(first)


@given(cuts=st.lists(st.integers(0, len(EVENT + EVENT + LAST)), max_size=12))
@example(cuts=list(range(len(EVENT + EVENT + LAST))))
async def test_borders_may_fall_anywhere(cuts: list[int]) -> None:
    whole = b": hello\n\n" + EVENT + EVENT + LAST
    places = sorted({0, *cuts, len(whole)})
    parts = [whole[start:end] for start, end in zip(places, places[1:], strict=False)]
    found = await _opened(*parts)
    assert found.category is None
    assert EVENT[:-1] in b"".join(found.head)
    assert b"".join([*found.head, *[chunk async for chunk in found.rest]]) == whole
    assert EVENT[:-1] not in b"".join(found.head[:-1]), "no longer than needed"


async def test_a_very_long_first_event_is_passed_on_unread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_EVENT_BYTES", 1_000)
    long = b'data: {"instructions": "' + b"x" * 5_000 + b'"}\n\n'
    parts = [long[at : at + 100] for at in range(0, len(long), 100)]
    found = await _opened(*parts)
    assert (found.category, found.ended) == (None, False)
    assert sum(map(len, found.head)) <= 1_100
    endless = await _opened(*[b": wait\n\n"] * 1_000)
    assert endless.category is ErrorCategory.STREAM_EMPTY
    assert sum(map(len, endless.head)) <= 1_100


async def test_many_small_pieces_do_not_cost_the_square_of_their_number() -> None:
    async def took_s(pieces: int) -> float:
        began = time.process_time()
        await _opened(*[b":\n"] * pieces, EVENT)
        return time.process_time() - began

    small = min([await took_s(2_000) for _ in range(3)])
    large = min([await took_s(32_000) for _ in range(3)])
    # Linear is 16 times as much, the square 256 times.
    assert large < 64 * small


async def test_a_body_without_end_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_WHOLE_BYTES", 1_000)
    with pytest.raises(UpstreamError, match="more than 1000 bytes"):
        await _opened(*[b" " * 100] * 11, kind=JSON)
    monkeypatch.setattr(module, "MOST_REFUSAL_BYTES", 1_000)
    found = await _opened(*[b" " * 100] * 50, kind=JSON, status=500)
    assert (sum(map(len, found.head)), found.ended) == (1_000, True)


@pytest.mark.parametrize(
    ("body", "category"),
    [
        (b'{"choices":[]}', None),
        (b"", "response_malformed"),
        (b"{}", "response_malformed"),
        (b'{"choices":[', "response_malformed"),
        (b"[1]", "response_malformed"),
        (b"\xff", "response_malformed"),
    ],
)
async def test_a_plain_reply_is_whole_or_no_good(body: bytes, category: str | None) -> None:
    found = await _opened(body, kind="application/json; charset=utf-8", wants="json")
    assert found.category is (ErrorCategory(category) if category else None)


@pytest.mark.parametrize("kind", ["text/html", "", "application/octet-stream", "text/plain", EVENT_STREAM])
async def test_for_json_nothing_else_will_do(kind: str) -> None:
    assert (await _opened(b"{}", kind=kind, wants="json")).category is ErrorCategory.CONTENT_TYPE_WRONG


def test_headers_are_read_as_they_are_written() -> None:
    assert retry_after_s({}, 0.0) is None
    assert retry_after_s({"retry-after": " 3 "}, 0.0) == 3.0
    assert retry_after_s({"retry-after": "Thu, 01 Jan 1970 00:01:00 GMT"}, 10.0) == 50.0
    assert retry_after_s({"retry-after": "Thursday, 01-Jan-70 00:01:00 GMT"}, 10.0) == 50.0


DIALECTS = {"chat": ChatWriter, "responses": ResponsesWriter, "messages": MessagesWriter}


def _events(writer: Any) -> bytes:
    """A whole stream as its provider sends it."""
    events = [*writer.opening(), *(writer.token(token) for token in TOKENS), *writer.ending()]
    lines = [(f"event: {name}\n" if name else "") + f"data: {json.dumps(data)}\n\n" for name, data in events]
    return "".join(lines).encode() + writer.done


async def _of(dialect: Any, *parts: bytes, status: int = 200, kind: str = EVENT_STREAM) -> Opened:
    reply = ProviderReply(status, kind, _parts(*parts))  # type: ignore[arg-type]
    return await opened(reply, "any", lambda stream: tally(dialect, stream=stream))  # type: ignore[arg-type,return-value]


@pytest.mark.parametrize("dialect", DIALECTS)
async def test_every_dialect_opens_with_its_first_event(dialect: str) -> None:
    stream = _events(DIALECTS[dialect]("m", {}))
    first = stream.index(b"\n\n") + 1
    for cut in range(1, first):
        broken = await _of(dialect, stream[:cut])
        # The last line may be whole without its end; then it is a stream that stops after its first event.
        assert broken.category in (ErrorCategory.STREAM_CUT, ErrorCategory.CHUNK_MALFORMED), stream[:cut]
    found = await _of(dialect, stream[:first], stream[first:])
    assert (found.category, found.head, found.ended) == (None, [stream[:first]], False)
    whole = await _of(dialect, json.dumps(DIALECTS[dialect]("m", {}).whole()).encode(), kind=JSON)
    assert (whole.category, whole.tally.text) == (None, "".join(TOKENS))
    assert (whole.tally.usage.prompt_tokens, whole.tally.usage.completion_tokens) == (7, 8)


@pytest.mark.parametrize(
    ("dialect", "said", "category"),
    [
        ("messages", {"type": "error", "error": {"type": "overloaded_error", "message": "x"}}, "model_overloaded"),
        ("messages", {"type": "error", "error": {"type": "rate_limit_error", "message": "x"}}, "rate_limited"),
        ("responses", {"type": "error", "code": "rate_limit_exceeded", "message": "x"}, "rate_limited"),
        (
            "responses",
            {"type": "response.failed", "response": {"status": "failed", "error": {"code": "server_error"}}},
            "upstream_server_error",
        ),
        ("chat", {"error": {"type": "server_error", "message": "x", "code": None}}, "upstream_server_error"),
    ],
)
async def test_every_dialect_may_begin_with_an_error(dialect: str, said: dict[str, Any], category: str) -> None:
    name = f"event: {said['type']}\n" if "type" in said else ""
    event = f"{name}data: {json.dumps(said)}\n\n".encode()
    for cut in range(len(event)):
        found = await _of(dialect, event[:cut], event[cut:])
        assert (found.category, b"".join(found.head)) == (ErrorCategory(category), event)
    good = _events(DIALECTS[dialect]("m", {})).split(b"\n\n")[0] + b"\n\n"
    assert (await _of(dialect, good + event + good)).category is ErrorCategory(category), "nothing has gone out yet"


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize(
    ("status", "category"), [(401, "upstream_key_refused"), (429, "rate_limited"), (503, "model_overloaded")]
)
async def test_every_dialect_refuses(dialect: str, status: int, category: str) -> None:
    found = await _of(dialect, json.dumps(DIALECTS[dialect].error(status, "x")).encode(), status=status, kind=JSON)
    assert found.category is ErrorCategory(category)
