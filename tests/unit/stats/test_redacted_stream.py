"""Streams, whose words may be cut anywhere: no cut hides anything, and the stream stays one."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pytest

from windlass.gateway.wire import Tally
from windlass.stats.redacted_stream import _shortened, shared
from windlass.stats.redaction import Redaction

redaction = Redaction()
SAID = "Mail alice@example.org or +49 30 901820 with 4111 1111 1111 1111 and sk-a1b2c3d4e5f6g7h8i9j0."
LEFT = "Mail [email] or [phone] with [card] and [key]."


def _events(parts: Sequence[dict[str, Any]], end: str = "data: [DONE]\n\n") -> bytes:
    return ("".join(f"data: {json.dumps(part, separators=(',', ':'))}\n\n" for part in parts) + end).encode()


def _chat(words: Sequence[str], index: int = 0, **more: Any) -> list[dict[str, Any]]:
    head = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1694268190, "model": "m"}
    deltas = [{"role": "assistant", "content": ""}, *({"content": word} for word in words), {}]
    return [{**head, "choices": [{"index": index, "delta": delta, "finish_reason": None}], **more} for delta in deltas]


def _read(stream: bytes) -> str:
    tally = Tally(stream=True)
    tally.feed(stream)
    tally.end()
    assert tally.malformed == 0
    return tally.text


@pytest.mark.parametrize("size", [1, 2, 3, 5, 7, 11, 200])
def test_no_cut_hides_anything(size: int) -> None:
    stream = _events(_chat([SAID[at : at + size] for at in range(0, len(SAID), size)]))
    left = redaction.body(stream)
    assert _read(left) == LEFT
    assert left.count(b"data: ") == stream.count(b"data: "), "as many events as came"
    assert left.endswith(b"data: [DONE]\n\n")
    assert redaction.body(left) == left


def test_events_that_change_nothing_keep_their_bytes() -> None:
    stream = _events(_chat(["Mail ", "alice@", "example.org", " now"])).replace(b'" now"', b'"\\u0020now"')
    lines, left = stream.split(b"\n\n"), redaction.body(stream).split(b"\n\n")
    assert [number for number, line in enumerate(lines) if line != left[number]] == [2, 3]


@pytest.mark.parametrize("filling", [{}, {"obfuscation": "aB3"}])
def test_a_stream_without_anything_is_told_at_a_glance_and_stays(filling: dict[str, str]) -> None:
    words = [f" word{number % 7}" for number in range(200)]
    parts = [
        {**part, **{name: value * (n % 5) for name, value in filling.items()}} for n, part in enumerate(_chat(words))
    ]
    stream = _events(parts)
    short = _shortened(stream)
    assert short is not None
    assert short.count(b"data: ") < 8
    assert _read(short) == "".join(words)
    assert redaction.body(stream) is stream


def test_two_answers_at_once_are_two_texts() -> None:
    first, second = _chat(["alice@", "example.org"]), _chat(["+49 30", " 901820"], index=1)
    mixed = [part for pair in zip(first, second, strict=True) for part in pair]
    left = redaction.body(_events(mixed))
    assert b"example.org" not in left
    assert b"[email]" in left
    assert b"[phone]" in left


@pytest.mark.parametrize(
    "parts",
    [
        [
            {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": word}}
            for word in ("al", "ice@exa", "mple.org")
        ],
        [
            {
                "type": "response.output_text.delta",
                "item_id": "m",
                "output_index": 0,
                "sequence_number": number,
                "delta": word,
            }
            for number, word in enumerate(("al", "ice@exa", "mple.org"))
        ],
        [{"candidates": [{"content": {"parts": [{"text": word}]}}]} for word in ("al", "ice@exa", "mple.org")],
        [{"choices": [{"index": 0, "text": word}]} for word in ("al", "ice@exa", "mple.org")],
    ],
    ids=["messages", "responses", "gemini", "completions"],
)
def test_every_dialect_is_joined(parts: list[dict[str, Any]]) -> None:
    left = redaction.body(b"event: x\n" + _events(parts, end=""))
    assert b"[email]" in left
    assert not any(piece in left for piece in (b"ice@", b"mple"))


def test_the_arguments_of_a_tool_stay_json() -> None:
    inner = json.dumps({"to": "alice@example.org", "card": 4111111111111111})
    calls = [
        {
            "choices": [
                {"index": 0, "delta": {"tool_calls": [{"index": 0, "function": {"arguments": inner[at : at + 5]}}]}}
            ]
        }
        for at in range(0, len(inner), 5)
    ]
    left = redaction.body(_events(calls))
    events = [json.loads(line[6:]) for line in left.split(b"\n\n") if line.startswith(b"data: {")]
    joined = "".join(event["choices"][0]["delta"]["tool_calls"][0]["function"]["arguments"] for event in events)
    assert json.loads(joined) == {"to": "[email]", "card": "[card]"}


def test_a_stream_that_was_cut_or_is_none_is_redacted_too() -> None:
    assert b"alice" not in redaction.body(b'data: {"choices": [{"delta": {"content": "alice@example.org')
    assert (
        redaction.body(b": alice@example.org\n\ndata: nonsense bob@example.org\n\n")
        == b": [email]\n\ndata: nonsense [email]\n\n"
    )
    assert redaction.body(b"data: [DONE]\r\n\r\n") == b"data: [DONE]\r\n\r\n"


def test_labels_stand_where_their_spans_begin() -> None:
    text = "".join(words := ["ab@", "x.org", " +49 30 90", "1820", "!"])
    assert shared(words, redaction.spans(text)) == ["[email]", "", " [phone]", "", "!"]


def test_events_that_are_stamped_one_by_one_hide_nothing() -> None:
    """The first are alike and can be joined at a glance; those that come a second later each are not."""
    words = [*(f" word{letter}" for letter in "abcdefghijklmnop"), " 411", "1 1", "111", " 11", "11 ", "111", "1"]
    parts = [
        {**part, "created": 1694268190 + max(0, number - 14)} for number, part in enumerate(_chat(words, finish="none"))
    ]
    assert _read(redaction.body(_events(parts))).endswith("wordp [card]")


def test_events_that_are_all_the_same_are_read_as_one_text() -> None:
    stream = _events(_chat(["42"] * 8))
    assert _read(redaction.body(stream)) == "[card]"
    assert redaction.body(_events(_chat([" again"] * 30))) == _events(_chat([" again"] * 30))
