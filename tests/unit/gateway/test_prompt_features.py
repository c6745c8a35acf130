"""What routing sees: a few numbers, the same names for every request, none of them able to drown the others."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from windlass.gateway.prompt import features
from windlass.gateway.wire import Chat, parse_chat
from windlass.records import ContextValue

TEXT = st.text(st.characters(exclude_categories=["Cs"]))


def _chat(*contents: Any, **fields: Any) -> Chat:
    messages = [{"role": "user", "content": content} for content in contents]
    return parse_chat(json.dumps({"model": "m", "messages": messages, **fields}).encode())


def _numbers(context: dict[str, ContextValue]) -> dict[str, float]:
    return {name: value for name, value in context.items() if isinstance(value, float | int)}


NAMES = set(features(_chat("x")))


@given(st.lists(TEXT, min_size=1, max_size=30))
def test_every_request_gives_the_same_names_and_finite_numbers(contents: list[str]) -> None:
    found = features(_chat(*contents))
    assert set(found) == NAMES
    assert all(math.isfinite(value) and value >= 0.0 for value in _numbers(found).values())


@pytest.mark.parametrize(
    "content",
    [
        "",
        None,
        [],
        [{"type": "image_url", "image_url": {"url": "x"}}],
        "9" * 50_000,
        "why " * 50_000,
        "w" * 1_000_000,
        "\n\n".join(["Passage."] * 10_000),
        "\x00\x1b[2J",
    ],
    ids=["empty", "none", "no parts", "image", "one number", "whys", "one word", "paragraphs", "controls"],
)
def test_no_request_gives_a_number_far_beyond_one(content: Any) -> None:
    found = _numbers(features(_chat(content)))
    assert {name: value for name, value in found.items() if value > 2.0} == {}


def test_the_question_word_and_the_stream_show() -> None:
    found = features(_chat("Why does it turn?", stream=True))
    assert (found["asks_why"], found["asks_how"], found["stream"]) == (1.0, 0.0, 1.0)
    assert features(_chat("Whyever"))["asks_why"] == 0.0


def test_no_text_of_the_request_is_kept() -> None:
    assert "harbour" not in str(features(_chat("the harbour at night")))


@pytest.mark.parametrize(
    ("text", "share"), [("a1b2", 0.5), ("\u0661\u0662ab", 0.5), ("\u00b2\u00bd", 0.5), ("x", 0.0), ("", 0.0)]
)
def test_digits_are_those_of_any_script(text: str, share: float) -> None:
    assert features(_chat(text))["digits"] == share
