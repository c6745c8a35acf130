from __future__ import annotations

import pytest

from windlass.content.terms import Term, terms


@pytest.mark.parametrize(
    ("text", "stems"),
    [
        ("The nodes and a node", ["node", "node"]),
        ("Alice's keys, Bob’s key", ["alice", "key", "bob", "key"]),
        ("I don't think we can't", []),
        ("OP_RETURN v0.21 peer-to-peer", ["op_return", "v0.21", "peer-to-peer"]),
        ("policies bus class basis gas", ["policy", "bus", "class", "basis", "gas"]),
        ("a b c 7 42", ["42"]),
        ("", []),
    ],
)
def test_keeps_the_words_that_tell_the_subject(text: str, stems: list[str]) -> None:
    assert [term.stem for term in terms(text)] == stems


def test_remembers_how_a_word_was_written() -> None:
    assert terms("Merkle’s Trees") == [Term("merkle", "Merkle"), Term("tree", "Trees")]
