"""Whatever is said around it and however it is cut: nothing personal is left, JSON stays JSON, a second time changes
nothing."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import example, given, settings
from hypothesis import strategies as st

from windlass.gateway.wire import Tally
from windlass.stats.redaction import Redaction

redaction = Redaction()
PLANTED = (
    *("alice@example.org", "+49 30 901820", "4111 1111 1111 1111", "DE89370400440532013000", "sk-a1b2c3d4e5f6g7h8i9j0"),
    *("(415) 555-2671", "AKIAIOSFODNN7EXAMPLE", "5555-5555-5555-4444"),
)
words = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
planted = st.sampled_from(PLANTED)
# Between two of them stands what ends both.
texts = st.lists(st.tuples(words, planted), max_size=4).map(
    lambda pairs: "".join(f"{word} ; {one} ; " for word, one in pairs)
)
messy = st.text(st.sampled_from("aZ09 @.+-()/\"'[]{}:,\\\n%=_é٤"), max_size=80)


def _left(text: str) -> list[str]:
    return [one for one in PLANTED if one in text]


@settings(max_examples=200, deadline=None)
@given(texts)
def test_nothing_planted_survives_in_a_text(text: str) -> None:
    left = redaction.text(text)
    assert _left(left) == []
    assert redaction.text(left) == left


@settings(max_examples=300, deadline=None)
@given(messy)
@example("tel [phone] 1234567")
@example("0049 30 901820 0049 30 901820")
def test_a_second_time_changes_nothing(text: str) -> None:
    left = redaction.text(text)
    assert redaction.text(left) == left


values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63)
    | st.floats(allow_nan=False, allow_infinity=False)
    | texts
    | messy,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["a", "b", "c"]), inner, max_size=3),
    max_leaves=8,
)


def _keys(value: Any) -> Any:
    """The form of a value: its keys, and how long its lists are."""
    if isinstance(value, dict):
        return {name: _keys(one) for name, one in value.items()}
    return [_keys(one) for one in value] if isinstance(value, list) else None


@settings(max_examples=200, deadline=None)
@given(values, st.booleans())
def test_json_stays_json_of_the_same_form(value: Any, escaped: bool) -> None:
    body = json.dumps({"v": value}, ensure_ascii=escaped).encode()
    left = redaction.body(body)
    assert _keys(json.loads(left)) == _keys(json.loads(body))
    assert _left(left.decode()) == []
    assert redaction.body(left) == left


@settings(max_examples=150, deadline=None)
@given(texts, st.lists(st.integers(1, 9), min_size=1, max_size=30))
def test_nothing_planted_survives_in_a_stream_however_it_is_cut(text: str, cuts: list[int]) -> None:
    pieces, at = [], 0
    while at < len(text):
        size = cuts[len(pieces) % len(cuts)]
        pieces.append(text[at : at + size])
        at += size
    events = [{"choices": [{"index": 0, "delta": {"content": piece}}]} for piece in pieces]
    stream = "".join(f"data: {json.dumps(event)}\n\n" for event in events).encode() + b"data: [DONE]\n\n"
    left = redaction.body(stream)
    tally = Tally(stream=True)
    tally.feed(left)
    tally.end()
    assert tally.malformed == 0
    assert tally.text == (redaction.text(text) if text[:1] not in ("{", "[") else tally.text)
    assert _left(tally.text) == []
    assert redaction.body(left) == left


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=200))
def test_bytes_of_any_kind_pass(body: bytes) -> None:
    left = redaction.body(body)
    assert redaction.body(left) == left
