"""How well memory supports a question, as one number."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from windlass.content.support import support
from windlass.memory.retrieval import Hit, Results

HIT = Hit(
    chunk=1, item="i", ordinal=0, first_segment=0, last_segment=0, start_s=0.0, text="t", score=1.0, bm25=1.0,
    cosine=0.5, coverage=0.5,
)  # fmt: skip
SHARE = st.floats(0.0, 1.0)


def _support(*, cosine: float = 0.0, coverage: float = 0.0, lexical_only: bool = False, hits: bool = True) -> float:
    found = Results(hits=(HIT,) if hits else (), cosine=cosine, coverage=coverage, lexical_only=lexical_only)
    value = support(found)["support"]
    assert isinstance(value, float)
    return value


@pytest.mark.parametrize("lexical_only", [False, True])
def test_nothing_found_supports_nothing(lexical_only: bool) -> None:
    assert _support(cosine=1.0, coverage=1.0, lexical_only=lexical_only, hits=False) == 0.0


@given(st.floats(-1.0, 1.0), SHARE, st.booleans())
def test_support_is_a_probability(cosine: float, coverage: float, lexical_only: bool) -> None:
    value = _support(cosine=cosine, coverage=coverage, lexical_only=lexical_only)
    assert math.isfinite(value)
    assert 0.0 < value < 1.0


@given(SHARE, SHARE, SHARE, st.booleans())
def test_more_evidence_never_supports_less(low: float, high: float, other: float, lexical_only: bool) -> None:
    low, high = sorted((low, high))
    for less, more in (((low, other), (high, other)), ((other, low), (other, high))):
        assert _support(cosine=less[0], coverage=less[1], lexical_only=lexical_only) <= _support(
            cosine=more[0], coverage=more[1], lexical_only=lexical_only
        )


def test_without_vectors_the_words_decide_alone() -> None:
    assert _support(cosine=0.0, coverage=0.6, lexical_only=True) == _support(
        cosine=0.9, coverage=0.6, lexical_only=True
    )
    assert _support(coverage=1.0, lexical_only=True) > 0.5 > _support(coverage=0.1, lexical_only=True)


def test_both_kinds_of_evidence_together_pass_the_floor_and_none_does_not() -> None:
    assert _support(cosine=0.8, coverage=1.0) > 0.5
    assert _support(cosine=0.05, coverage=0.1) < 0.5


def test_the_evidence_is_in_the_context() -> None:
    context = support(Results(hits=(HIT,), cosine=0.25, coverage=0.75, lexical_only=False))
    assert (context["cosine"], context["coverage"]) == (0.25, 0.75)
