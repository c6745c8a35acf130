from __future__ import annotations

import itertools
import random

import pytest

from windlass.content import tiling


def talk(subject: str, turns: int, words: int = 25, seed: int = 1) -> list[list[str]]:
    """Turns about one subject: words of a small vocabulary of its own, with a fifth of small talk."""
    rng = random.Random(f"{subject}{seed}")
    own, small = [f"{subject}{n}" for n in range(40)], [f"small{n}" for n in range(40)]
    return [[rng.choice(own if rng.random() < 0.8 else small) for _ in range(words)] for _ in range(turns)]


def test_finds_where_the_subject_changes_to_the_turn() -> None:
    turns = talk("sea", 30) + talk("rope", 25) + talk("lamp", 35)
    assert len(tiling.borders(turns)) >= 2
    assert min(abs(border - 30) for border in tiling.borders(turns)) <= 1
    assert min(abs(border - 55) for border in tiling.borders(turns)) <= 1


def test_the_deepest_gaps_are_the_changes() -> None:
    turns = talk("sea", 16, words=20) + talk("rope", 16, words=20)
    assert tiling.borders(turns) == [16]


@pytest.mark.parametrize(
    "turns",
    [[], [[]], [["one"]], [["same"] * 20] * 50, talk("sea", 3), [[]] * 100],
    ids=["none", "no words", "one word", "one word always", "short", "silence"],
)
def test_finds_nothing_where_nothing_changes(turns: list[list[str]]) -> None:
    assert tiling.borders(turns) == []


def test_borders_are_ordered_and_a_block_apart() -> None:
    turns = [turn for n in range(40) for turn in talk(f"subject{n}", 3)]
    found = tiling.borders(turns)
    assert found == sorted(set(found))
    assert all(0 < border < len(turns) for border in found)
    assert all(later - earlier >= 7 for earlier, later in itertools.pairwise(found))


def test_one_endless_turn_has_no_border_inside() -> None:
    assert tiling.borders([[word for turn in talk("sea", 30) + talk("rope", 30) for word in turn]]) == []
