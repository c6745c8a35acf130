import json
from types import SimpleNamespace
from typing import Any

import pytest

from windlass.errors import InputError
from windlass.gateway.access.admission import Caller
from windlass.gateway.options import ModelOptions, ProviderOptions
from windlass.records import Scope
from windlass.server.pricing import in_force, prices, show_prices

CALLER = Caller(Scope("acme", "default"), "viewer", "key")
OPENAI = ProviderOptions(
    "openai",
    (ModelOptions("fast", "gpt-4o-mini", prompt_usd_per_million=9.0, completion_usd_per_million=8.0),),
    base_url="https://api.openai.com/v1",
)


def runtime(*providers: ProviderOptions) -> Any:
    return SimpleNamespace(settings=SimpleNamespace(providers=providers))


async def ask(*providers: ProviderOptions, **arguments: Any) -> dict[str, Any]:
    answer = await prices(runtime(*providers), CALLER, arguments)
    assert json.loads(json.dumps(answer)) == answer
    return answer


async def test_a_model_is_shown_with_exact_dollars_and_its_sources() -> None:
    answer = await ask(model="GPT-4o-mini", provider="openai")
    first = answer["prices"][0]
    assert (first["provider"], first["model"], first["by"]) == ("openai", "gpt-4o-mini", ["litellm", "genai-prices"])
    assert first["usd"]["input"] == "0.15"
    assert first["usd"]["output"] == "0.6"
    assert answer["sources"].keys() == {"litellm", "genai-prices"}
    assert all(one["provider"] == "openai" and "gpt-4o-mini" in one["model"] for one in answer["prices"])


async def test_seconds_and_pictures_are_shown_for_one() -> None:
    whisper = (await ask(model="whisper-1", provider="openai"))["prices"][0]
    assert whisper["usd"]["second"] == "0.0001"
    painted = (await ask(model="hd/1024-x-1024/dall-e-3", provider="azure"))["prices"][0]
    assert painted["usd"]["image"] == "0.088"


async def test_differ_shows_only_models_about_which_the_sources_disagree() -> None:
    answer = await ask(differ=True, provider="anthropic")
    assert answer["found"] >= 1
    assert all(one["differs"] for one in answer["prices"])
    assert answer["prices"][0]["differs"]["200000.input"] == "6"


async def test_pages_are_bounded_and_say_how_many_there_are() -> None:
    answer = await ask(provider="bedrock", limit=3)
    assert len(answer["prices"]) == 3
    assert answer["found"] > 100


async def test_without_arguments_the_models_of_the_settings_with_what_is_in_force() -> None:
    local = ProviderOptions("mine", (ModelOptions("llama"),), base_url="http://localhost:8000/v1")
    answer = await ask(OPENAI, local)
    assert [one["name"] for one in answer["prices"]] == ["fast", "llama"]
    fast = answer["prices"][0]
    assert (fast["model"], fast["by"][0]) == ("gpt-4o-mini", "settings")
    assert (fast["usd"]["input"], fast["usd"]["output"]) == ("9", "8")


def test_in_force_names_no_price_for_a_host_that_nobody_publishes() -> None:
    ((name, price),) = in_force([ProviderOptions("mine", (ModelOptions("gpt-4o"),), base_url="http://localhost:1/v1")])
    assert (name, price.provider) == ("gpt-4o", "")


@pytest.mark.parametrize("arguments", [{"model": 5}, {"limit": 0}, {"limit": 10**9}, {"differ": "yes"}, {"x": 1}])
async def test_arguments_that_make_no_sense_are_refused(arguments: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="the arguments are"):
        await prices(runtime(), CALLER, arguments)


async def test_the_terminal_shows_differences_and_what_is_missing(capsys: pytest.CaptureFixture[str]) -> None:
    show_prices(await ask(model="claude-sonnet-4-5", provider="anthropic"))
    shown = capsys.readouterr().out
    assert "genai-prices says" in shown
    assert "200000.input=6" in shown
    assert "litellm 1." in shown
    show_prices(await ask(model="\x1b[31mno-such-model"))
    shown = capsys.readouterr().out
    assert "No published price fits" in shown
    assert "\x1b" not in shown
