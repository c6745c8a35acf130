"""Requests that go up as they came: what they are called, and what of their replies is read."""

from __future__ import annotations

import json
from typing import Any

import pytest

from windlass.gateway.endpoints import FOREIGN, RELAYED, RawTally, family, whole_json
from windlass.gateway.provider import ProviderReply
from windlass.gateway.relay import Once


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("/files/file-1/content", "files"),
        ("/batches", "batches"),
        ("/chat/completions/chatcmpl-1/messages", "chat.stored"),
        ("/responses/resp_1", "responses.stored"),
        ("/messages/batches", "messages.stored"),
        ("/embeddings/x", "embeddings.stored"),
        (f"/{'x' * 500}", "x" * 40),
    ],
)
def test_what_is_stored_never_goes_by_the_name_of_an_endpoint_that_asks_a_model(path: str, name: str) -> None:
    assert family(path) == name
    assert family(path) not in {"chat", "embeddings", *FOREIGN, *RELAYED.values()}


def _tally(body: Any, *, stream: bool = False) -> RawTally:
    read = RawTally(stream=stream, ends=False)
    read.feed(body if isinstance(body, bytes) else json.dumps(body).encode())
    read.end()
    return read


FAILED = {"message": "it broke", "code": "server_error"}


@pytest.mark.parametrize("thing", [{"id": "resp_1"}, {"object": "fine_tuning.job"}, {"id": "b", "object": "batch"}])
def test_a_thing_that_failed_is_no_failed_call(thing: dict[str, str]) -> None:
    read = _tally({**thing, "error": FAILED, "usage": {"input_tokens": 3, "output_tokens": 2}})
    assert (read.error, read.code, read.complete) == (False, "", True)
    assert (read.usage.prompt_tokens, read.usage.completion_tokens) == (3, 2)


@pytest.mark.parametrize("body", [{"error": FAILED}, {"error": FAILED, "id": None}, {"error": "it broke", "type": "x"}])
def test_an_error_alone_is_a_failed_call(body: dict[str, Any]) -> None:
    read = _tally(body)
    assert read.error
    assert not read.complete


def test_an_error_in_a_stream_is_a_failed_call() -> None:
    read = _tally(b"data: " + json.dumps({"id": "x", "error": FAILED}).encode() + b"\n\n", stream=True)
    assert (read.error, read.code) == (True, "server_error")


@pytest.mark.parametrize(
    ("status", "kind", "expected"),
    [
        (200, "application/json", True),
        (200, "Application/JSON; charset=utf-8", True),
        (200, "text/event-stream", False),
        (200, "application/jsonl", False),
        (500, "application/json", False),
        (200, "", False),
    ],
)
def test_only_an_answer_in_json_is_whole(status: int, kind: str, expected: bool) -> None:
    assert whole_json(ProviderReply(status, kind, Once(b""))) is expected
