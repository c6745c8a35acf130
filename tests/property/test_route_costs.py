"""Whatever is said, and whatever providers count: an expected cost is a finite amount of at least nothing."""

from __future__ import annotations

import math
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from windlass.gateway.money.pricelist import PriceBook
from windlass.gateway.money.usage import Usage
from windlass.gateway.options import ModelOptions
from windlass.gateway.providers.echo import Echo
from windlass.gateway.resilience.attempt import Target
from windlass.gateway.route.costs import CACHED_FROM_TOKENS, CallCosts, prompt_of
from windlass.gateway.wire import MOST_CHOICES, MOST_TOKENS, Message
from windlass.records import Scope

SCOPE = Scope("acme", "one")
NOW = 1_800_000_000.0
TEXT = st.text(max_size=200) | st.integers(0, 20_000).map("word ".__mul__)
CONTENT: st.SearchStrategy[Any] = TEXT | st.none() | st.lists(st.fixed_dictionaries({"text": TEXT}), max_size=3)
MESSAGES = st.lists(st.builds(Message, st.sampled_from(["user", "assistant", "system"]), CONTENT), max_size=6)
COUNT = st.integers(0, MOST_TOKENS)
TARGET = Target(
    Echo("m"),
    ModelOptions(name="m", prompt_usd_per_million=3.0, completion_usd_per_million=15.0, cache_read_usd_per_million=0.3),
)


@given(
    MESSAGES,
    st.none() | COUNT,
    st.integers(1, MOST_CHOICES),
    st.lists(st.tuples(st.none() | COUNT, COUNT, COUNT, st.floats(-1e9, 1e9)), max_size=5),
)
def test_an_expected_cost_is_a_finite_amount(
    messages: list[Message], most: int | None, choices: int, answers: list[tuple[int | None, int, int, float]]
) -> None:
    known, prompt, prices = CallCosts(300.0), prompt_of(messages, most, choices), PriceBook()
    for prompt_tokens, cached, completion, at in answers:
        usage = Usage(prompt_tokens=prompt_tokens, cache_read_tokens=cached)
        known.ended(SCOPE, TARGET.key, prompt, usage, completion, NOW + at)
    found = known.expected_nusd(SCOPE, [TARGET], prices, prompt, NOW)["m"]
    fresh = CallCosts(300.0).expected_nusd(SCOPE, [TARGET], prices, prompt, NOW)["m"]
    assert math.isfinite(found)
    assert found >= 0.0
    if not answers:
        assert found == fresh


@given(MESSAGES)
def test_beginnings_grow_and_end_with_the_prompt(messages: list[Message]) -> None:
    prompt = prompt_of(messages, None, 1)
    tokens = [count for _, count in prompt.beginnings]
    assert tokens == sorted(tokens)
    assert all(count >= CACHED_FROM_TOKENS for count in tokens)
    assert len({digest for digest, _ in prompt.beginnings}) == len(tokens)
    if prompt.tokens >= CACHED_FROM_TOKENS:
        assert tokens[-1] == prompt.tokens
