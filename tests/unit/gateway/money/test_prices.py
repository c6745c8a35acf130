import gzip
import math
import timeit
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from windlass.gateway.money.pricelist import TABLE, Pricelist, find, names, published
from windlass.gateway.money.prices import SETTINGS, Price, Rates, cost_nusd, most_nusd, price_of, resolved
from windlass.gateway.money.usage import Usage
from windlass.gateway.options import ModelOptions

OPENAI = "https://api.openai.com/v1"
COMPATIBLE = "openai_compatible"


def price(**published_nusd: int) -> Price:
    return resolved(
        Price(model="m", published={path.replace("__", "."): nusd for path, nusd in published_nusd.items()})
    )


def usd(amount: float) -> int:
    """USD per million tokens as the table has it."""
    return round(amount * 10**9)


def settings(**fields: Any) -> Any:
    """The options of a model with only these prices set."""
    return SimpleNamespace(name="m", **{**dict.fromkeys(SETTINGS), **fields})


def test_a_plain_call_costs_its_tokens() -> None:
    found = find(COMPATIBLE, OPENAI, "gpt-4o")
    assert found is not None
    # 1,000 x 2.50 USD + 500 x 10 USD a million.
    assert cost_nusd(found, Usage(prompt_tokens=1_000, completion_tokens=500)) == 2_500_000 + 5_000_000


def test_cached_reasoning_and_audio_shares_have_their_own_prices() -> None:
    costly = price(
        input=usd(10), output=usd(20), cache_read=usd(1), cache_write=usd(12), cache_write_1h=usd(15),
        reasoning=usd(30), audio_input=usd(40), audio_output=usd(80),
    )  # fmt: skip
    usage = Usage(
        prompt_tokens=1_000, cache_read_tokens=300, cache_write_tokens=200, audio_prompt_tokens=100,
        completion_tokens=500, reasoning_tokens=100, audio_completion_tokens=50,
    )  # fmt: skip
    prompt = 400 * 10 + 300 * 1 + 200 * 12 + 100 * 40
    completion = 350 * 20 + 100 * 30 + 50 * 80
    assert cost_nusd(costly, usage) == (prompt + completion) * 1_000
    assert cost_nusd(costly, usage, cache_write_1h_tokens=150) == (prompt + completion + 150 * 3) * 1_000


def test_a_share_without_a_price_costs_what_its_whole_costs() -> None:
    plain = price(input=usd(10), output=usd(20))
    usage = Usage(prompt_tokens=9, completion_tokens=4, cache_read_tokens=5, reasoning_tokens=3, audio_prompt_tokens=2)
    assert cost_nusd(plain, usage) == (9 * 10 + 4 * 20) * 1_000


@pytest.mark.parametrize(
    "usage",
    [
        Usage(prompt_tokens=10, completion_tokens=5, cache_read_tokens=99, reasoning_tokens=99),
        Usage(prompt_tokens=10, completion_tokens=5, cache_read_tokens=10, cache_write_tokens=10, reasoning_tokens=5),
    ],
)
def test_shares_larger_than_their_whole_are_cut(usage: Usage) -> None:
    costly = price(input=usd(10), output=usd(20), cache_read=usd(1), cache_write=usd(100), reasoning=usd(7))
    assert cost_nusd(costly, usage) == (10 * 1 + 5 * 7) * 1_000


@pytest.mark.parametrize(
    "usage",
    [
        Usage(),
        Usage(prompt_tokens=-5, completion_tokens=-7),
        Usage(cache_read_tokens=-3, audio_prompt_tokens=-1, reasoning_tokens=-9, images=-2),
        Usage(audio_s=math.nan),
        Usage(audio_s=math.inf),
        Usage(audio_s=-4.0),
    ],
)
def test_usage_that_makes_no_sense_costs_nothing(usage: Usage) -> None:
    assert cost_nusd(price(input=usd(1), output=usd(1), image=10**15, second=10**15, cache_read=1), usage) == 0


def test_a_tier_holds_for_the_whole_call_once_the_prompt_is_above_it() -> None:
    gemini = find("gemini", "", "gemini-2.5-pro")
    assert gemini is not None
    assert gemini.tiers[0].above_tokens == 200_000
    at = cost_nusd(gemini, Usage(prompt_tokens=200_000, completion_tokens=10))
    above = cost_nusd(gemini, Usage(prompt_tokens=200_001, completion_tokens=10))
    assert at == 200_000 * 1_250 + 10 * 10_000
    assert above == 200_001 * 2_500 + 10 * 15_000


def test_the_highest_tier_that_is_passed_counts() -> None:
    stepped = price(input=usd(1), **{"1000__input": usd(2), "5000__input": usd(3)})
    for tokens, each in ((1_000, 1), (1_001, 2), (5_000, 2), (5_001, 3)):
        assert cost_nusd(stepped, Usage(prompt_tokens=tokens)) == tokens * each * 1_000


def test_batches_have_their_own_prices_and_no_discount_that_nobody_published() -> None:
    halved = price(
        input=usd(10), output=usd(20), cache_read=usd(8), batch__input=usd(5), batch__output=usd(10),
        **{"100__input": usd(40), "100__batch__input": usd(20)},
    )  # fmt: skip
    usage = Usage(prompt_tokens=10, completion_tokens=10, cache_read_tokens=4)
    # What is read from the cache is not dearer than what is fresh.
    assert cost_nusd(halved, usage, batch=True) == (10 * 5 + 10 * 10) * 1_000
    assert cost_nusd(halved, Usage(prompt_tokens=101), batch=True) == 101 * 20 * 1_000
    full = price(input=usd(10), output=usd(20))
    assert cost_nusd(full, usage, batch=True) == cost_nusd(full, usage)


def test_seconds_and_pictures_are_billed_where_tokens_are_not_the_measure() -> None:
    heard = price(input=usd(2.5), second=10**11)
    assert cost_nusd(heard, Usage(audio_s=12.345)) == 1_234_500
    assert cost_nusd(heard, Usage(prompt_tokens=100, audio_s=12.345)) == 250_000
    seen = price(output=usd(40), image=40_000_000 * 10**6)
    assert cost_nusd(seen, Usage(images=2)) == 80_000_000
    assert cost_nusd(seen, Usage(completion_tokens=1_000, images=2)) == 40_000_000


def test_picture_tokens_are_what_a_picture_model_puts_out() -> None:
    painter = find(COMPATIBLE, OPENAI, "gpt-image-1")
    assert painter is not None
    assert cost_nusd(painter, Usage(prompt_tokens=100, completion_tokens=1_000)) == 100 * 5_000 + 1_000 * 40_000


@pytest.mark.parametrize(("nusd_per_million", "cost"), [(500_000, 0), (1_500_000, 2), (500_001, 1), (2_500_000, 2)])
def test_halves_are_rounded_to_even_once(nusd_per_million: int, cost: int) -> None:
    assert cost_nusd(price(input=nusd_per_million), Usage(prompt_tokens=1)) == cost
    assert cost_nusd(price(second=nusd_per_million), Usage(audio_s=1.0)) == cost


def test_one_rounding_for_all_parts_of_a_call() -> None:
    # Three parts of 0.4 nano-dollars: rounded apart they would be nothing.
    thirds = price(input=400_000, output=400_000, request=400_000)
    assert cost_nusd(thirds, Usage(prompt_tokens=1, completion_tokens=1)) == 1


def test_a_plain_call_is_priced_in_microseconds() -> None:
    found = find(COMPATIBLE, OPENAI, "gpt-4o")
    assert found is not None
    usage = Usage(prompt_tokens=1_234, completion_tokens=567)
    best_s = min(timeit.repeat(lambda: cost_nusd(found, usage), number=2_000, repeat=20)) / 2_000
    assert best_s < 10e-6  # 1 us measured; the rest is room for a busy machine


@pytest.mark.parametrize(
    ("kind", "url", "model", "expected"),
    [
        (COMPATIBLE, OPENAI, "gpt-4o", "openai/gpt-4o"),
        (COMPATIBLE, OPENAI, " OpenAI/GPT-4o ", "openai/gpt-4o"),
        (COMPATIBLE, OPENAI, "gpt-4o-2024-05-13", "openai/gpt-4o-2024-05-13"),
        (COMPATIBLE, OPENAI, "gpt-4o-2031-01-01", "openai/gpt-4o"),
        (COMPATIBLE, OPENAI, "ft:gpt-4o-2024-08-06:acme::abc", "openai/ft:gpt-4o-2024-08-06"),
        (COMPATIBLE, "https://API.OpenAI.com:443/v1", "gpt-4o", "openai/gpt-4o"),
        (COMPATIBLE, "https://openrouter.ai/api/v1", "openai/gpt-4o", "openrouter/openai/gpt-4o"),
        (COMPATIBLE, "https://api.groq.com/openai/v1", "llama-3.3-70b-versatile", "groq/llama-3.3-70b-versatile"),
        ("anthropic", "", "claude-sonnet-4-5@20250929", "anthropic/claude-sonnet-4-5"),
        ("gemini", "", "models/gemini-2.5-pro-001", "gemini/gemini-2.5-pro"),
        ("azure", "https://me.openai.azure.com", "gpt-4o", "azure/gpt-4o"),
        ("litellm", "", "groq/llama-3.3-70b-versatile", "groq/llama-3.3-70b-versatile"),
        ("litellm", "", "gpt-4o", "openai/gpt-4o"),
        (
            COMPATIBLE, "https://us-central1-aiplatform.googleapis.com/v1", "publishers/google/models/gemini-2.5-pro",
            "vertex_ai/gemini-2.5-pro",
        ),
        (
            COMPATIBLE, "https://bedrock-runtime.us-east-1.amazonaws.com", "us.amazon.nova-lite-v1:0",
            "bedrock/us.amazon.nova-lite-v1:0",
        ),
    ],
)  # fmt: skip
def test_a_model_is_found_under_its_names(kind: str, url: str, model: str, expected: str) -> None:
    found = find(kind, url, model)
    assert found is not None
    assert f"{found.provider}/{found.model}" == expected


@pytest.mark.parametrize(
    ("kind", "url", "model"),
    [
        (COMPATIBLE, "http://localhost:8000/v1", "gpt-4o"),
        (COMPATIBLE, "https://api.openai.com.example.org/v1", "gpt-4o"),
        (COMPATIBLE, "https://my-openrouter.ai/v1", "openai/gpt-4o"),
        (COMPATIBLE, "https://eu.api.openai.com/v1", "gpt-4o"),
        (COMPATIBLE, "https://models.eu-west-1.elb.amazonaws.com", "anthropic.claude-3-haiku-20240307-v1:0"),
        (COMPATIBLE, "http://[bad", "gpt-4o"),
        (COMPATIBLE, "", "gpt-4o"),
        (COMPATIBLE, OPENAI, "no-such-model"),
        (COMPATIBLE, OPENAI, ""),
        (COMPATIBLE, OPENAI, "gpt-4o\t{}"),
        (COMPATIBLE, OPENAI, "x\nopenai\tgpt-4o"),
        (COMPATIBLE, OPENAI, "gpt-4"  * 10_000),
        ("somebody's plugin", OPENAI, "gpt-4o"),
        ("litellm", "", "nobody/gpt-4o"),
    ],
)  # fmt: skip
def test_no_price_is_guessed(kind: str, url: str, model: str) -> None:
    assert find(kind, url, model) is None


def test_a_dated_model_is_found_by_its_undated_name() -> None:
    rows = "\n".join(
        f'anthropic\tclaude-x-{day}\t{{"by":"l","rates":{{"input":{nusd}}}}}'
        for day, nusd in (("20250101", 1), ("20260301", 3), ("20250909", 2))
    )
    listed = Pricelist(f'{{"on":"2026-01-01","sources":{{}},"rows":3}}\n{rows}\n'.encode())
    newest = listed.newest("anthropic", "claude-x")
    assert newest is not None
    assert newest.rates.input == 3
    assert listed.newest("anthropic", "claude") is None


def test_further_names_lead_to_a_model_and_circles_end() -> None:
    rows = 'p\ta\t{"as":"b"}\np\tb\t{"rates":{"input":7}}\np\tc\t{"as":"d"}\np\td\t{"as":"c"}\n'
    listed = Pricelist(b'{"on":"2026-01-01","sources":{},"rows":4}\n' + rows.encode())
    found = listed.exact("p", "a")
    assert found is not None
    assert found.model == "b"
    assert listed.exact("p", "c") is None
    assert [one.model for one in listed.all()] == ["b"]


def test_names_come_nearest_first() -> None:
    assert names("openai", "openai/gpt-4o-2024-08-06") == [
        "openai/gpt-4o-2024-08-06", "gpt-4o-2024-08-06", "openai/gpt-4o", "gpt-4o",
    ]  # fmt: skip


def test_the_table_is_small_and_says_what_it_is() -> None:
    about = published().about
    assert TABLE.stat().st_size < 150_000
    assert set(about.sources) == {"litellm", "genai-prices"}
    assert about.on >= "2026-11-21"
    lines = gzip.decompress(TABLE.read_bytes()).decode().splitlines()[1:]
    assert len(lines) == about.rows > 5_000
    keys = [tuple(line.split("\t")[:2]) for line in lines]
    assert keys == sorted(set(keys))


def test_every_price_of_the_table_can_be_used() -> None:
    everything = Usage(
        prompt_tokens=300_000, completion_tokens=9, cache_read_tokens=5, cache_write_tokens=4, reasoning_tokens=3,
    )  # fmt: skip
    differing = 0
    for one in published().all():
        assert one.priced, one.model
        assert all(type(nusd) is int and nusd >= 0 for nusd in one.published.values())
        # A token costs less than 10 USD; a wrong unit would show.
        assert all(nusd < 10**16 for nusd in msgspec.structs.astuple(one.rates)), (one.provider, one.model)
        assert cost_nusd(one, everything) >= 0
        assert cost_nusd(one, everything, batch=True) <= cost_nusd(one, everything), (one.provider, one.model)
        differing += bool(one.differs)
    assert differing > 50


def test_where_the_sources_differ_both_figures_are_kept() -> None:
    sonnet = find("anthropic", "", "claude-sonnet-4-5")
    assert sonnet is not None
    assert sonnet.by == ("litellm", "genai-prices")
    assert sonnet.differs["200000.input"] == usd(6)
    assert "200000.input" not in sonnet.published


def test_without_settings_the_published_price_holds() -> None:
    found = find(COMPATIBLE, OPENAI, "gpt-4o")
    assert price_of(settings(), found) is found
    nothing = price_of(settings(), None)
    assert not nothing.priced
    assert cost_nusd(nothing, Usage(prompt_tokens=10**6, completion_tokens=10**6)) == 0


def test_a_set_side_holds_for_its_shares_its_tiers_and_batches() -> None:
    found = find("gemini", "", "gemini-2.5-pro")
    assert found is not None
    mine = price_of(settings(prompt_usd_per_million=0.07), found)
    assert mine.by == ("settings", "litellm", "genai-prices")
    usage = Usage(prompt_tokens=300_000, cache_read_tokens=100_000, completion_tokens=10)
    assert cost_nusd(mine, usage) == 300_000 * 70 + 10 * 15_000
    assert cost_nusd(mine, Usage(prompt_tokens=300_000), batch=True) == 300_000 * 70


def test_a_set_share_leaves_the_rest_as_published() -> None:
    found = find("gemini", "", "gemini-2.5-pro")
    assert found is not None
    mine = price_of(settings(cache_read_usd_per_million=0.01), found)
    assert mine.rates == msgspec.structs.replace(found.rates, cache_read=usd(0.01))
    assert mine.tiers[0].rates == msgspec.structs.replace(found.tiers[0].rates, cache_read=usd(0.01))


def test_set_batch_prices_hold_in_every_tier_and_leave_the_others() -> None:
    found = find("gemini", "", "gemini-2.5-pro")
    assert found is not None
    mine = price_of(settings(batch_prompt_usd_per_million=0.5), found)
    assert (mine.rates, mine.tiers[0].rates) == (found.rates, found.tiers[0].rates)
    assert (mine.batch.input, mine.tiers[0].batch.input) == (usd(0.5), usd(0.5))
    assert mine.tiers[0].batch.output == found.tiers[0].batch.output


def test_settings_are_taken_as_they_were_written() -> None:
    mine = price_of(settings(prompt_usd_per_million=0.1, image_usd=0.04, audio_usd_per_minute=0.006), None)
    assert (mine.rates.input, mine.image, mine.second) == (100_000_000, 40_000_000_000_000, 100_000_000_000)
    assert cost_nusd(mine, Usage(audio_s=60.0)) == 6_000_000


def test_the_options_of_today_go_before_the_table() -> None:
    options = ModelOptions("m", prompt_usd_per_million=2.5, completion_usd_per_million=10.0)
    mine = price_of(options, find(COMPATIBLE, OPENAI, "gpt-4o"))
    assert mine.rates == Rates(
        input=usd(2.5), output=usd(10), cache_read=usd(2.5), cache_write=usd(2.5), cache_write_1h=usd(2.5),
        reasoning=usd(10), audio_input=usd(2.5), audio_output=usd(10),
    )  # fmt: skip


def test_a_table_that_is_cut_off_is_not_taken_for_a_price(tmp_path: Path) -> None:
    broken = tmp_path / "prices.json.gz"
    broken.write_bytes(TABLE.read_bytes()[:5_000])
    with pytest.raises(EOFError):
        gzip.decompress(broken.read_bytes())


@given(
    st.lists(
        st.tuples(st.integers(0, 10**12), st.integers(0, 10**12), st.integers(0, 10**9), st.booleans()), min_size=1
    ),
    st.integers(0, 10**6),
    st.integers(0, 10**6),
)
def test_the_most_is_what_the_dearest_costs(
    said: list[tuple[int, int, int, bool]], prompt: int, completion: int
) -> None:
    prices = []
    for into, out, request, tiered in said:
        published = {"input": into, "output": out, "request": request}
        prices.append(resolved(Price(published=published | ({"1000.input": 2 * into} if tiered else {}))))
    usage = Usage(prompt_tokens=prompt, completion_tokens=completion)
    assert most_nusd(prices, prompt, completion) == max(cost_nusd(price, usage) for price in prices)


def test_a_host_without_published_prices_does_not_unpack_the_table() -> None:
    published.cache_clear()
    assert find("openai_compatible", "http://127.0.0.1:8000/v1", "gpt-4o") is None
    assert published.cache_info().currsize == 0
