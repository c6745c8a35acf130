"""Bodies with what is personal in them: it goes, and all else stays, to the byte."""

from __future__ import annotations

import json
from typing import Any

import pytest

from windlass.stats.personal import Span
from windlass.stats.redaction import LABELS, Redaction

redaction = Redaction()
SAID = (
    "I am alice@example.org, +49 30 901820, card 4111 1111 1111 1111, DE89 3704 0044 0532 0130 00, "
    "sk-a1b2c3d4e5f6g7h8i9j0"
)
LEFT = "I am [email], [phone], card [card], [iban], [key]"


def _asked(text: Any) -> dict[str, Any]:
    return {"model": "auto", "messages": [{"role": "user", "content": text}], "temperature": 0.1, "user": "u-1"}


def test_a_text_keeps_everything_but_what_is_personal() -> None:
    assert redaction.text(SAID) == LEFT
    assert redaction.text(LEFT) == LEFT


@pytest.mark.parametrize("label", LABELS)
def test_only_what_is_looked_for_is_found(label: str) -> None:
    left = Redaction([label]).text(SAID)
    assert f"[{label}]" in left
    assert not any(f"[{other}]" in left for other in LABELS if other != label)
    assert Redaction([]).text(SAID) == SAID


def test_json_stays_json_and_its_keys_stay() -> None:
    body = json.dumps(
        _asked([{"type": "text", "text": SAID}, {"alice@example.org": "bob@example.org"}]), indent=2
    ).encode()
    left = redaction.body(body)
    assert json.loads(left) == _asked([{"type": "text", "text": LEFT}, {"alice@example.org": "[email]"}])
    assert left == body.replace(SAID.encode(), LEFT.encode()).replace(b"bob@example.org", b"[email]")


@pytest.mark.parametrize(
    "body",
    [
        json.dumps(_asked("nothing here, ünd no\u2028 harm")).encode(),
        b'{"created": 1694268190, "id": "chatcmpl-9xKq1ZabBcDeFgHiJkLmNoPqRsTu", "model": "gpt-4o-2024-08-06", "x": 1}',
        b'{"embedding": [0.0036910512, -0.00985979475080967, 12345678901234567890]}',
        b'{"url": "data:image/png;base64,iVBORw0KGgo4111111111111111AKIAIOSFODNN7EXAMPLE+/=="}',
        *(b"", b"{}", b"null", b"\x82\xa2id\xb1alice@example.org", b'{"a": "', b"[" * 5_000),
    ],
)
def test_what_holds_nothing_stays_the_very_bytes(body: bytes) -> None:
    assert redaction.body(body) is body or redaction.body(body) == body


@pytest.mark.parametrize(
    ("body", "left"),
    [
        (b'{"a": "alice\\u0040example.org"}', b'{"a": "[email]"}'),
        (b'{"a": "x\\nalice@example.org\\t"}', b'{"a": "x\\n[email]\\t"}'),
        (b'{"a": "\\ud800 alice@example.org"}', b'{"a": "\\ud800 [email]"}'),
        (b'{"a": "b@example.org", "a": "c"}', b'{"a": "[email]", "a": "c"}'),
        (b'{"card": 4111111111111111}', b'{"card": "[card]"}'),
        (b'{"a": "alice@example.org', b'{"a": "[email]'),
        (b"alice@example.org \xff\xfe", b"[email] \xff\xfe"),
        (b'{"a": "alice@example.org"}\n{"b": "bob@example.org"}\n', b'{"a": "[email]"}\n{"b": "[email]"}\n'),
        ('{"a": "müller@example.org ü"}'.encode(), '{"a": "[email] ü"}'.encode()),
        (
            b'{"u": "see data:text/plain;base64,AAAA of alice@example.org"}',
            b'{"u": "see data:text/plain;base64,AAAA of [email]"}',
        ),
    ],
)
def test_what_hides_is_found(body: bytes, left: bytes) -> None:
    assert redaction.body(body) == left


def test_the_arguments_of_a_tool_stay_json() -> None:
    inner = json.dumps(
        {"to": "müller@example.org", "card": 4111111111111111, "n": [1, {"deep": json.dumps({"a": SAID})}]}
    )
    left = json.loads(json.loads(redaction.body(json.dumps({"arguments": inner}).encode()))["arguments"])
    assert (left["to"], left["card"]) == ("[email]", "[card]")
    assert json.loads(left["n"][1]["deep"]) == {"a": LEFT}


def test_what_others_find_is_joined_to_ours() -> None:
    def names(text: str) -> list[Span]:
        at = text.find("Alice Smith")
        return [Span(at, at + 30, "person")] if at >= 0 else []

    more = Redaction(recognisers=[names])
    assert more.text("It is Alice Smith <alice@example.org> there") == "It is [email]> there"
    assert more.body(b'{"a": "Alice Smith is here and goes home"}') == b'{"a": "[person]ome"}'
