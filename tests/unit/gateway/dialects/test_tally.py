"""Tallies of whole and streamed replies in every dialect."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from windlass.gateway.dialects import Dialect, tally
from windlass.gateway.money.usage import Usage
from windlass.gateway.wire import ReplyTally

GOLDEN = Path(__file__).parents[3] / "golden" / "dialects"
ALL: tuple[Dialect, ...] = ("chat", "responses", "messages", "gemini")
CACHED = {
    "chat": Usage(prompt_tokens=120, completion_tokens=45, cache_read_tokens=100, reasoning_tokens=30),
    "responses": Usage(prompt_tokens=120, completion_tokens=45, cache_read_tokens=100, reasoning_tokens=30),
    "messages": Usage(
        prompt_tokens=120, completion_tokens=45, cache_read_tokens=90, cache_write_tokens=10, reasoning_tokens=30
    ),
    "gemini": Usage(prompt_tokens=120, completion_tokens=45, cache_read_tokens=100, reasoning_tokens=30),
}


def over(dialect: Dialect, body: bytes, *, stream: bool) -> ReplyTally:
    read_along = tally(dialect, stream=stream)
    read_along.feed(body)
    read_along.end()
    return read_along


def golden(kind: str, name: str) -> bytes:
    return (GOLDEN / kind / f"{name}.{'txt' if kind == 'streams' else 'json'}").read_bytes()


@pytest.mark.parametrize("dialect", ALL)
@pytest.mark.parametrize("kind", ["replies", "streams"])
def test_a_whole_answer(dialect: Dialect, kind: str) -> None:
    found = over(dialect, golden(kind, f"text.{dialect}"), stream=kind == "streams")
    assert (found.complete, found.error, found.code, found.malformed) == (True, False, "", 0)
    assert found.text == "Good day, Zoë — 日本 👋"
    assert found.usage == CACHED[dialect]
    assert found.finish == ("stop",)
    assert over(dialect, golden(kind, f"tools.{dialect}"), stream=kind == "streams").finish == ("tool_calls",)


@pytest.mark.parametrize("dialect", ["responses", "messages", "gemini"])
@pytest.mark.parametrize("kind", ["replies", "streams"])
def test_the_text_holds_all_that_was_generated(dialect: Dialect, kind: str) -> None:
    assert "Bonn" in over(dialect, golden(kind, f"tools.{dialect}"), stream=kind == "streams").text
    assert "and two." in over(dialect, golden(kind, f"reasoning.{dialect}"), stream=kind == "streams").text


@pytest.mark.parametrize(
    ("dialect", "end"),
    [("chat", b"data: [DONE]"), ("responses", b"event: response.completed"), ("messages", b"stop\n")],
)
def test_done_is_the_end_mark_and_nothing_before_it(dialect: Dialect, end: bytes) -> None:
    body = golden("streams", f"text.{dialect}")
    read_along = tally(dialect, stream=True)
    at = body.rindex(end)
    read_along.feed(body[:at])
    assert not read_along.done
    read_along.feed(body[at:])
    assert read_along.done


def test_gemini_has_no_end_mark() -> None:
    read_along = tally("gemini", stream=True)
    read_along.feed(golden("streams", "text.gemini"))
    assert (read_along.done, read_along.complete) == (False, False)
    read_along.end()
    assert read_along.complete


@pytest.mark.parametrize("dialect", ALL)
def test_a_cut_stream_is_not_complete(dialect: Dialect) -> None:
    found = over(dialect, golden("streams", f"cut.{dialect}"), stream=True)
    assert (found.complete, found.error) == (False, False)


@pytest.mark.parametrize(
    ("dialect", "code"),
    [
        ("chat", "internal"),
        ("responses", "rate_limit_exceeded"),
        ("messages", "overloaded_error"),
        ("gemini", "unavailable"),
    ],
)
def test_an_error_inside_a_stream(dialect: Dialect, code: str) -> None:
    found = over(dialect, golden("streams", f"error.{dialect}"), stream=True)
    assert (found.complete, found.error, found.code) == (False, True, code)


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("rate.chat.429", "rate_limit_exceeded"),
        ("overloaded.messages.529", "overloaded_error"),
        ("auth.messages.401", "invalid_api_key"),
        ("invalid.gemini.400", "invalid_argument"),
        ("server.responses.500", "server_error"),
    ],
)
def test_an_error_body(name: str, code: str) -> None:
    dialect: Any = name.split(".")[1]
    found = over(dialect, golden("errors", name), stream=False)
    assert (found.complete, found.error) == (False, True)
    assert found.code == ("" if dialect == "responses" else code)


def test_a_failed_response_ends_its_stream() -> None:
    found = over("responses", golden("streams", "failed.responses"), stream=True)
    assert (found.done, found.complete, found.error, found.code) == (True, False, True, "server_error")


@pytest.mark.parametrize("dialect", ALL)
@pytest.mark.parametrize("body", [b"", b"[]", b"{}", b"null", b"<html>", b'{"content":null,"output":null}', b"\xff"])
def test_what_is_no_reply_is_not_complete(dialect: Dialect, body: bytes) -> None:
    assert not over(dialect, body, stream=False).complete
    assert not over(dialect, b"data: " + body + b"\n\n", stream=True).complete


@pytest.mark.parametrize("dialect", ALL)
def test_malformed_events_are_counted_and_passed_over(dialect: Dialect) -> None:
    body = b"data: {]\n\ndata: [1]\n\n" + golden("streams", f"text.{dialect}")
    found = over(dialect, body, stream=True)
    assert (found.malformed, found.complete) == (2, True)


@pytest.mark.parametrize("tokens", [-1, 2**41, 1.5, "9", True, None, [1]])
def test_counts_that_make_no_sense_are_unsaid(tokens: Any) -> None:
    bodies: dict[Dialect, Any] = {
        "chat": {"prompt_tokens": tokens, "completion_tokens": 1, "prompt_tokens_details": {"cached_tokens": tokens}},
        "responses": {"input_tokens": tokens, "output_tokens": 1, "input_tokens_details": {"cached_tokens": tokens}},
        "messages": {"input_tokens": tokens, "output_tokens": 1, "cache_read_input_tokens": tokens},
    }
    for dialect, usage in bodies.items():
        found = over(dialect, json.dumps({"usage": usage, "choices": []}).encode(), stream=False).usage
        assert found == Usage(prompt_tokens=None, completion_tokens=1)
    gemini = {"usageMetadata": {"promptTokenCount": tokens, "candidatesTokenCount": 1}}
    assert over("gemini", json.dumps(gemini).encode(), stream=False).usage.prompt_tokens is None


def test_audio_is_counted() -> None:
    chat = {"prompt_tokens": 9, "prompt_tokens_details": {"audio_tokens": 5}, "completion_tokens": 0}
    assert over("chat", json.dumps({"usage": chat}).encode(), stream=False).usage.audio_prompt_tokens == 5
    details = [{"modality": "TEXT", "tokenCount": 4}, {"modality": "AUDIO", "tokenCount": 5}]
    gemini = {"usageMetadata": {"promptTokenCount": 9, "promptTokensDetails": details}}
    assert over("gemini", json.dumps(gemini).encode(), stream=False).usage.audio_prompt_tokens == 5


@pytest.mark.parametrize("details", [7, "x", [1], {"cached_tokens": {}}, None])
def test_details_that_make_no_sense_do_not_spoil_the_rest(details: Any) -> None:
    bodies: dict[Dialect, Any] = {
        "chat": {"prompt_tokens": 9, "completion_tokens": 1, "prompt_tokens_details": details},
        "responses": {"input_tokens": 9, "output_tokens": 1, "input_tokens_details": details},
        "messages": {"input_tokens": 9, "output_tokens": 1, "output_tokens_details": details},
    }
    for dialect, usage in bodies.items():
        found = over(dialect, json.dumps({"usage": usage, "choices": []}).encode(), stream=False)
        assert found.usage == Usage(prompt_tokens=9, completion_tokens=1)
    gemini = {"usageMetadata": {"promptTokenCount": 9, "candidatesTokenCount": 1, "promptTokensDetails": details}}
    found = over("gemini", json.dumps(gemini).encode(), stream=False)
    assert found.usage == Usage(prompt_tokens=9, completion_tokens=1)
