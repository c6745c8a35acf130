"""Chunks of any transcript: every sentence stands in exactly one, word for word, in order."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from windlass.content.transcript import Turn
from windlass.memory.chunk import chunk
from windlass.stats.sentences import sentences

TEXTS = st.one_of(
    st.text(max_size=200),
    st.lists(
        st.sampled_from(["A word.", "Why? ", "e.g. this", "0.21", "...", "日本。", "and so", "\n", "  "]), max_size=60
    ).map(" ".join),
)
TURNS = st.lists(
    st.builds(Turn, st.sampled_from(["", "Host", "Guest"]), st.floats(0, 1e5), st.just(1e5), TEXTS), max_size=12
)
BREAKS = st.lists(st.integers(-2, 14), max_size=5)


@given(TURNS, st.integers(1, 200), BREAKS)
def test_every_sentence_stands_in_one_passage_in_order(turns, words, breaks):
    passages = chunk(turns, words, breaks)
    spoken = [turn.text[first:last] for turn in turns for first, last in sentences(turn.text)]
    rest = iter(spoken)
    for passage in passages:
        speakers = {turn.speaker for turn in turns[passage.first_segment : passage.last_segment + 1]}
        name = next((name for name in speakers if name and passage.text.startswith(f"{name}: ")), "")
        body = passage.text.removeprefix(f"{name}: ")
        held = ""
        while held != body:
            held = f"{held} {next(rest)}" if held else next(rest)
            assert body.startswith(held)
    assert next(rest, None) is None


@given(TURNS, st.integers(1, 200), BREAKS)
def test_passages_are_numbered_and_never_go_back(turns, words, breaks):
    passages = chunk(turns, words, breaks)
    assert [passage.ordinal for passage in passages] == list(range(len(passages)))
    for passage in passages:
        assert 0 <= passage.first_segment <= passage.last_segment < len(turns)
        assert passage.start_s == turns[passage.first_segment].start_s
        assert not any(passage.first_segment < at <= passage.last_segment for at in breaks if _speaks(turns, at))
    for one, next_one in pairwise(passages):
        assert one.last_segment <= next_one.first_segment


@given(TURNS, st.integers(1, 200))
def test_a_passage_is_too_long_only_for_a_single_sentence(turns, words):
    for passage in chunk(turns, words):
        inside = turns[passage.first_segment : passage.last_segment + 1]
        longest = max(turn.text.count(" ", *span) + 1 for turn in inside for span in sentences(turn.text))
        assert len(passage.text.split(" ")) <= words + 1.5 * longest + 1


def _speaks(turns: list[Turn], at: int) -> bool:
    return 0 <= at < len(turns) and bool(sentences(turns[at].text))
