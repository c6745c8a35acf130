"""How the price table is made at a release, on sources of our own making."""

import gzip
import json
import zipfile
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from tools import prices
from tools.price_sources import Row, Table, genai_prices, litellm, matches, names_of
from tools.prices import Wheel

from windlass.gateway.money.pricelist import Pricelist

ON = date(2026, 11, 21)


def mapped(key: str, **said: Any) -> Table:
    """litellm's map with one model."""
    return litellm(json.dumps({key: {"litellm_provider": "openai", "mode": "chat", **said}}))


def source(models: str, provider: str = "openai") -> str:
    return f"providers: list[Provider] = [Provider(id={provider!r}, models=[{models}])]"


def model(prices_: str, match: str = "ClauseEquals(equals='m')", more: str = "") -> str:
    return f"ModelInfo(id='m', match={match}, prices={prices_}, {more})"


def test_figures_become_integers_without_a_binary_detour() -> None:
    table = litellm(
        '{"m": {"litellm_provider": "openai", "mode": "chat", "input_cost_per_token": 6.875e-08,'
        ' "output_cost_per_token": 0.00000015, "cache_read_input_token_cost": 1e-9}}'
    )
    assert table["openai", "m"].rates == {"input": 68_750_000, "output": 150_000_000, "cache_read": 1_000_000}


def test_thresholds_and_batches_stand_beside_the_standard_price() -> None:
    row = mapped(
        "m", input_cost_per_token=1e-6, input_cost_per_token_above_200k_tokens=2e-6, input_cost_per_token_batches=5e-7,
        input_cost_per_token_above_200k_tokens_batches=1e-6, input_cost_per_token_priority=9e-6,
        cache_creation_input_token_cost_above_1hr=3e-6, supports_vision=True, max_input_tokens=8_192,
    )["openai", "m"]  # fmt: skip
    assert row.rates == {
        "input": 10**9, "200000.input": 2 * 10**9, "batch.input": 5 * 10**8, "200000.batch.input": 10**9,
        "cache_write_1h": 3 * 10**9,
    }  # fmt: skip
    assert (row.flags, row.context) == ("v", 8_192)


def test_ranges_are_thresholds() -> None:
    ranges = [
        {"input_cost_per_token": 1e-6, "range": [0, 256e3]},
        {"input_cost_per_token": 2e-6, "range": [256e3, 1e6]},
    ]
    assert mapped("m", tiered_pricing=ranges)["openai", "m"].rates == {"input": 10**9, "256000.input": 2 * 10**9}


def test_a_second_that_is_named_twice_is_one() -> None:
    row = mapped("w", mode="audio_transcription", input_cost_per_second=0.0001, output_cost_per_second=0.0001)
    assert row["openai", "w"].rates == {"second": 10**11}


def test_pixels_become_pictures() -> None:
    row = mapped("azure/hd/1024-x-1024/d", mode="image_generation", input_cost_per_pixel=8.39233e-08)
    assert row["openai", "azure/hd/1024-x-1024/d"].rates["image"] == 88_000_000 * 10**6


@pytest.mark.parametrize(
    ("key", "provider", "expected"),
    [
        ("azure/eu/GPT-4o", "azure", ("azure", "eu/gpt-4o")),
        ("vertex_ai/claude", "vertex_ai-anthropic_models", ("vertex_ai", "claude")),
        ("us.anthropic.claude-v1:0", "bedrock_converse", ("bedrock", "us.anthropic.claude-v1:0")),
        ("1024-x-1024/50-steps/bedrock/nova", "bedrock", ("bedrock", "1024-x-1024/50-steps/nova")),
        ("openai/gpt-oss-120b", "groq", ("groq", "openai/gpt-oss-120b")),
    ],
)
def test_a_model_is_kept_under_its_provider(key: str, provider: str, expected: tuple[str, str]) -> None:
    assert list(mapped(key, litellm_provider=provider, input_cost_per_token=1e-6)) == [expected]


@pytest.mark.parametrize(
    "said",
    [{"mode": "search"}, {"mode": "video_generation"}, {"input_cost_per_query": 1}, {"source": "x"}, {"mode": None}],
)
def test_what_no_call_of_ours_can_use_is_left_out(said: dict[str, Any]) -> None:
    given = {"litellm_provider": "openai", "mode": "chat", **said}
    if said.get("mode", "chat") != "chat":
        given["input_cost_per_token"] = 1e-6
    assert litellm(json.dumps({"m": given})) == {}


def test_the_second_source_is_read_without_being_run() -> None:
    text = source(model("ModelPrice(input_mtok=Decimal('2.5'), output_mtok=__import__('os').abort())"))
    ((_, ((head, row),)),) = genai_prices(text.replace(", output_mtok=__import__('os').abort()", ""), ON)
    assert (head["id"], row.rates) == ("m", {"input": 2_500_000_000})
    # Run, it would end the tests; read, it is a call where a price should be.
    with pytest.raises(KeyError, match="base"):
        genai_prices(text, ON)


def test_the_price_of_the_day_counts() -> None:
    start = "ConditionalPrice(constraint=StartDateConstraint(start_date=datetime.date({})), prices=ModelPrice({}))"
    listed = (
        "[ConditionalPrice(prices=ModelPrice(input_mtok=Decimal('1'))), "
        + start.format("2026, 11, 21", "input_mtok=Decimal('2')")
        + ", "
        + start.format("2027, 1, 1", "input_mtok=Decimal('3')")
        + "]"
    )
    for day, input_usd in ((date(2026, 11, 20), 1), (ON, 2), (date(2027, 1, 1), 3)):
        assert genai_prices(source(model(listed)), day)[0][1][0][1].rates == {"input": input_usd * 10**9}


def test_of_prices_by_the_hour_the_dearest_counts() -> None:
    hours = "TimeOfDateConstraint(start_time=datetime.time(1, 0), end_time=datetime.time(4, 0))"
    listed = (
        "[ConditionalPrice(prices=ModelPrice(input_mtok=Decimal('0.15'))), "
        f"ConditionalPrice(constraint={hours}, prices=ModelPrice(input_mtok=Decimal('0.3')))]"
    )
    assert genai_prices(source(model(listed)), ON)[0][1][0][1].rates == {"input": 300_000_000}


def test_tiers_and_batches_of_the_second_source() -> None:
    tiered = "TieredPrices(base=Decimal('1'), tiers=[Tier(start=199999, price=Decimal('2'))])"
    batch = f"price_variants=[PriceVariant(when={{'processing': 'batch'}}, prices=ModelPrice(input_mtok={tiered}))]"
    row = genai_prices(source(model(f"ModelPrice(input_mtok={tiered})", more=batch)), ON)[0][1][0][1]
    assert row.rates == {
        "input": 10**9, "200000.input": 2 * 10**9, "batch.input": 10**9, "200000.batch.input": 2 * 10**9,
    }  # fmt: skip


def test_rules_of_matching() -> None:
    either = {
        "is": "ClauseOr",
        "or_": [{"is": "ClauseEquals", "equals": "a"}, {"is": "ClauseRegex", "regex": "^b-\\d$"}],
    }
    assert [matches(either, name) for name in ("a", "b-1", "b-12", "ab")] == [True, True, False, False]
    with pytest.raises(ValueError, match="ClauseOdd"):
        matches({"is": "ClauseOdd"}, "a")
    assert names_of("huggingface_groq", {"is": "ClauseEquals", "equals": "X"}, "Y") == ["y:groq", "x:groq"]


def test_where_the_sources_differ_the_first_stands_and_the_second_is_kept() -> None:
    first: Table = {("openai", "m"): Row(rates={"input": 5, "output": 7})}
    clause = {"is": "ClauseEquals", "equals": "m"}
    other = Row(context=100, rates={"input": 6, "output": 7, "cache_read": 1, "200000.input": 9})
    rows, counts = prices._joined(first, [("openai", [({"id": "m", "match": clause}, other)])])
    assert rows["openai", "m"] == {
        "by": "lg", "mode": "chat", "context": 100, "rates": {"input": 5, "output": 7, "cache_read": 1},
        "differs": {"input": 6, "200000.input": 9},
    }  # fmt: skip
    assert counts == "1 in both sources, 1 of them differ"


def test_models_of_the_second_source_alone_are_there_under_all_their_names() -> None:
    clause = {"is": "ClauseOr", "or_": [{"is": "ClauseEquals", "equals": name} for name in ("new", "newer")]}
    rows, _ = prices._joined({}, [("x-ai", [({"id": "new", "match": clause}, Row(rates={"input": 3}))])])
    listed = Pricelist(gzip.decompress(prices.packed(rows)))
    for name in ("new", "newer"):
        found = listed.exact("xai", name)
        assert found is not None
        assert (found.model, found.by, found.rates.input) == ("new", ("genai-prices",), 3)


def test_the_same_sources_give_the_same_bytes() -> None:
    rows = {("b", "m"): {"by": "l", "rates": {"input": 1}}, ("a", "m"): {"by": "g", "rates": {"input": 2}}}
    assert prices.packed(rows) == prices.packed(dict(reversed(rows.items())))


def test_a_wheel_that_is_not_the_pinned_one_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "litellm-9.9-py3-none-any.whl", "w") as archive:
        archive.writestr("x", "y")
    with pytest.raises(SystemExit, match="pinned is 00"):
        prices.checked(Wheel("litellm", "9.9", "00", "x"), tmp_path)


def test_the_pins_are_not_the_compromised_releases() -> None:
    assert prices.LITELLM.version not in ("1.82.7", "1.82.8")
