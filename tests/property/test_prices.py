from fractions import Fraction
from types import SimpleNamespace
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from windlass.gateway.money.estimate import estimate_tokens, reserve_tokens
from windlass.gateway.money.overhead import prompt_tokens, reserve_prompt_tokens
from windlass.gateway.money.pricelist import find
from windlass.gateway.money.prices import SETTINGS, Price, cost_nusd, price_of, resolved
from windlass.gateway.money.usage import Usage

UNITS = ("input", "output", "cache_read", "cache_write", "cache_write_1h", "reasoning", "audio_input", "audio_output")
INSTEAD = {"cache_write_1h": "cache_write", "reasoning": "output", "audio_output": "output"}
nusd = st.integers(0, 10**15)
tokens = st.integers(0, 2**40)
published = st.dictionaries(st.sampled_from([*UNITS, "image", "second", "request"]), nusd)


def rate(said: dict[str, int], unit: str) -> int:
    """A unit's price as a reader of the documentation would look it up."""
    if unit in said:
        return said[unit]
    return 0 if unit in ("input", "output") else rate(said, INSTEAD.get(unit, "input"))


@st.composite
def usages(draw: st.DrawFn) -> Usage:
    read, write, heard, plain = (draw(tokens) for _ in range(4))
    thought, spoken, said = (draw(tokens) for _ in range(3))
    return Usage(
        prompt_tokens=read + write + heard + plain, cache_read_tokens=read, cache_write_tokens=write,
        audio_prompt_tokens=heard, completion_tokens=thought + spoken + said, reasoning_tokens=thought,
        audio_completion_tokens=spoken,
    )  # fmt: skip


@given(published, usages(), st.integers(0, 2**40))
def test_a_cost_is_the_exact_sum_rounded_once(said: dict[str, int], usage: Usage, hour: int) -> None:
    prompt, completion = usage.prompt_tokens or 0, usage.completion_tokens or 0
    hour = min(hour, usage.cache_write_tokens)
    shares = usage.cache_read_tokens, usage.cache_write_tokens, usage.audio_prompt_tokens
    exact = Fraction(said.get("request", 0))
    exact += (prompt - sum(shares)) * rate(said, "input")
    exact += usage.cache_read_tokens * rate(said, "cache_read")
    exact += (usage.cache_write_tokens - hour) * rate(said, "cache_write") + hour * rate(said, "cache_write_1h")
    exact += usage.audio_prompt_tokens * rate(said, "audio_input")
    exact += (completion - usage.reasoning_tokens - usage.audio_completion_tokens) * rate(said, "output")
    exact += usage.reasoning_tokens * rate(said, "reasoning")
    exact += usage.audio_completion_tokens * rate(said, "audio_output")
    found = cost_nusd(resolved(Price(published=said)), usage, cache_write_1h_tokens=hour)
    assert found == round(exact / 10**6)
    assert type(found) is int


@given(published, st.floats(), st.integers(-5, 1000))
def test_seconds_and_pictures_are_exact_too(said: dict[str, int], audio_s: float, images: int) -> None:
    whole = Fraction(repr(audio_s)) if 0 < audio_s < float("inf") else Fraction(0)
    exact = whole * said.get("second", 0) + max(0, images) * said.get("image", 0) + said.get("request", 0)
    assert cost_nusd(resolved(Price(published=said)), Usage(audio_s=audio_s, images=images)) == round(exact / 10**6)


@given(published, st.sets(st.integers(1, 10**6), max_size=3), usages())
def test_a_tier_that_says_what_holds_anyway_changes_nothing(
    said: dict[str, int], above: set[int], usage: Usage
) -> None:
    plain = resolved(Price(published=said))
    repeated = {f"{start}.{unit}": price for start in above for unit, price in said.items() if unit in UNITS}
    # What was read from the cache costs no more than a fresh token there.
    if rate(said, "cache_read") <= rate(said, "input"):
        assert cost_nusd(resolved(Price(published=said | repeated)), usage) == cost_nusd(plain, usage)


@given(
    st.floats(0, 1e4), st.floats(0, 1e4), published, st.sets(st.integers(1, 10**6), max_size=2), usages(), st.booleans()
)
def test_set_prices_hold_whatever_was_published(
    prompt: float, completion: float, said: dict[str, int], above: set[int], usage: Usage, batch: bool
) -> None:
    found = {f"{start}.{unit}": price for start in above for unit, price in said.items()} | said
    found |= {f"batch.{unit}": price // 2 for unit, price in said.items()}
    found.pop("request", None)
    options: Any = SimpleNamespace(
        name="m",
        **{**dict.fromkeys(SETTINGS), "prompt_usd_per_million": prompt, "completion_usd_per_million": completion},
    )
    exact = Fraction(repr(prompt)) * (usage.prompt_tokens or 0) + Fraction(repr(completion)) * (
        usage.completion_tokens or 0
    )
    cost = cost_nusd(price_of(options, resolved(Price(published=found))), usage, batch=batch)
    # A setting is kept to a nano-dollar a million: beyond that it cannot be paid.
    slack = Fraction((usage.prompt_tokens or 0) + (usage.completion_tokens or 0), 10**6) + 1
    assert abs(cost - exact * 1000) <= slack


@given(st.sampled_from(["openai_compatible", "anthropic", "gemini", "azure", "litellm", "x"]), st.text(), st.text())
def test_looking_up_never_fails(kind: str, url: str, model: str) -> None:
    for where in (url, f"https://{url}", "https://api.openai.com"):
        found = find(kind, where, model)
        assert found is None or found.priced


@given(st.text(st.characters(codec=None)), st.text(st.characters(codec=None)))
def test_reserves_grow_with_the_text_and_stay_below_its_bytes(text: str, more: str) -> None:
    size = len(text.encode("utf-8", "surrogatepass"))
    assert 0 <= reserve_tokens(text) <= size
    assert reserve_tokens(text) <= reserve_tokens(text + more)
    assert (estimate_tokens(text) == 0) == (text == "")


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(["role", "content", "type", "image_url", "url", "source", "data", "input_audio", "name"])
            | st.text(max_size=5),
            inner | st.sampled_from(["image", "image_url", "base64", "text", "data:image/png;base64,iVBORw0K"]),
            max_size=5,
        )
    ),
    max_leaves=20,
)


@settings(deadline=None)
@given(json_values, json_values)
def test_any_json_is_a_prompt_of_some_size(messages: Any, tools: Any) -> None:
    assert prompt_tokens(messages, tools) >= 3
    assert reserve_prompt_tokens(messages, tools) >= 3
