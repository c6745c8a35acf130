"""The two published tables that prices.json.gz is made of, read into one form. Facts are taken, no code is run.

litellm's price map: MIT licence, Copyright (c) 2023 Berri AI. genai-prices' data: MIT licence, Copyright (c) Pydantic
Services Inc. Prices, limits and abilities are facts; texts and code of both are left where they are.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import date
from decimal import ROUND_HALF_EVEN, Decimal
from typing import Any

NUSD_PER_MILLION = Decimal(10**15)
"""One USD a unit, in nano-dollars a million units."""
PER_MTOK, PER_THOUSAND, PER_HOUR = Decimal(10**6), Decimal(1000), Decimal(3600)
MODES = {
    "chat", "responses", "completion", "embedding", "moderation", "audio_transcription", "audio_speech",
    "image_generation", "image_edit",
}  # fmt: skip
UNITS = {
    "input_cost_per_token": "input",
    "output_cost_per_token": "output",
    "cache_read_input_token_cost": "cache_read",
    "cache_creation_input_token_cost": "cache_write",
    "cache_creation_input_token_cost_above_1hr": "cache_write_1h",
    "output_cost_per_reasoning_token": "reasoning",
    "input_cost_per_audio_token": "audio_input",
    "output_cost_per_audio_token": "audio_output",
    "input_cost_per_image_token": "image_input",
    "output_cost_per_image_token": "image_output",
    "input_cost_per_character": "character",
    "input_cost_per_request": "request",
    "input_cost_per_second": "second",
    "output_cost_per_second": "second",
    "output_cost_per_image": "image",
}
MTOK = {
    "input_mtok": "input", "output_mtok": "output", "cache_read_mtok": "cache_read", "cache_write_mtok": "cache_write",
    "cache_write_1h_mtok": "cache_write_1h", "output_reasoning_mtok": "reasoning", "input_audio_mtok": "audio_input",
    "output_audio_mtok": "audio_output", "input_image_mtok": "image_input", "output_image_mtok": "image_output",
}  # fmt: skip
PER = {
    **{key: (rate, PER_MTOK) for key, rate in MTOK.items()},
    "audio_hours": ("second", PER_HOUR),
    "input_audio_hours": ("second", PER_HOUR),
    "input_mchars": ("character", PER_MTOK),
    "requests_kcount": ("request", PER_THOUSAND),
}
# genai-prices' name of a provider -> litellm's; a provider that is not here has one name in both, or is in one alone.
PROVIDERS = {
    "x-ai": ("xai",), "google": ("gemini", "vertex_ai"), "aws": ("bedrock",), "azure": ("azure", "azure_ai"),
    "fireworks": ("fireworks_ai",), "together": ("together_ai",), "voyageai": ("voyage",), "moonshotai": ("moonshot",),
    "zhipuai": ("bigmodel",), "github-copilot": ("github_copilot",),
}  # fmt: skip
RENAMED = {"cohere_chat": "cohere", "bedrock_converse": "bedrock", "azure_text": "azure", "amazon_nova": "amazon-nova"}
OTHER_API = {"openai-decisions"}
"""Not a chat, embedding, sound or picture API."""
_ABOVE = re.compile(r"_above_(\d+)k_tokens")
_SIZE = re.compile(r"(?:^|/)(\d+)-x-(\d+)/")
_HUGGING_FACE = "huggingface_"


@dataclass
class Row:
    """One model of one provider. `rates`: nano-dollars a million units, by `unit`, `batch.unit`, `200000.unit`."""

    mode: str = "chat"
    context: int = 0
    most_output: int = 0
    flags: str = ""
    rates: dict[str, int] = field(default_factory=dict)
    same_as: str = ""


Table = dict[tuple[str, str], Row]


def nusd(price: Decimal, per: Decimal = Decimal(1)) -> int:
    """A price in USD for `per` units as nano-dollars a million units."""
    return int((price * NUSD_PER_MILLION / per).to_integral_value(ROUND_HALF_EVEN))


def litellm(text: str) -> Table:
    """litellm's map by (provider, model), both in small letters. Where two keys come to one model, the first stands."""
    table: Table = {}
    for key, said in sorted(json.loads(text, parse_float=Decimal).items()):
        raw = str(said.get("litellm_provider", ""))
        if key == "sample_spec" or said.get("mode") not in MODES or "commitment/" in key:
            continue
        provider = _provider(raw)
        row = Row(said["mode"], _count(said.get("max_input_tokens")), _count(said.get("max_output_tokens")))
        row.flags = ("v" if said.get("supports_vision") else "") + (
            "t" if said.get("supports_function_calling") else ""
        )
        row.rates = dict(_litellm_rates(key, said))
        if row.rates:
            table.setdefault((provider, _model(key, raw, provider)), row)
    return table


def _model(key: str, *providers: str) -> str:
    """The model's name in a key: without the provider's, wherever that stands."""
    segments = [one for one in key.lower().split("/") if one]
    if (own := next((one for one in providers if one in segments[:-1]), None)) is not None:
        segments.remove(own)
    return "/".join(segments)


def _provider(raw: str) -> str:
    for family in ("vertex_ai", "fireworks_ai"):
        if raw.startswith(family):
            return family
    return RENAMED.get(raw, raw.removeprefix("text-completion-"))


def _litellm_rates(key: str, said: Mapping[str, Any]) -> Iterator[tuple[str, int]]:
    found: dict[str, int] = {}
    for name, value in said.items():
        if isinstance(value, int | Decimal) and not isinstance(value, bool):
            found |= _litellm_rate(name, Decimal(value), found)
    for tier in said.get("tiered_pricing", ()):
        above = f"{int(tier['range'][0])}." if "range" in tier and tier["range"][0] else ""
        found |= {f"{above}{UNITS[name]}": nusd(Decimal(tier[name])) for name in tier if name in UNITS}
    if said["mode"].startswith("image") and (pictures := _pictures(key, said)) is not None:
        found.setdefault("image", pictures)
    yield from found.items()


def _litellm_rate(name: str, value: Decimal, found: Mapping[str, int]) -> dict[str, int]:
    batch = name.endswith("_batches")
    above = _ABOVE.search(name)
    unit = UNITS.get(_ABOVE.sub("", name.removesuffix("_batches")))
    if unit is None:
        return {}
    path = f"{int(above[1]) * 1000}." if above else ""
    path += f"batch.{unit}" if batch else unit
    # whisper-1 gives the seconds twice, in and out: they are billed once.
    return {} if unit == "second" and path in found else {path: nusd(value)}


def _pictures(key: str, said: Mapping[str, Any]) -> int | None:
    """The price of one picture where it stands by the pixel (to a micro-dollar, as published) or as an input."""
    pixel = said.get("output_cost_per_pixel") or said.get("input_cost_per_pixel")
    if pixel and (size := _SIZE.search(key)):
        picture = Decimal(pixel) * int(size[1]) * int(size[2])
        return nusd(picture.quantize(Decimal("0.000001"), ROUND_HALF_EVEN))
    image = said.get("input_cost_per_image")
    return nusd(Decimal(image)) if image and "output_cost_per_token" not in said else None


def _count(value: Any) -> int:
    return int(value) if isinstance(value, int | Decimal) else 0


def genai_prices(source: str, on: date) -> list[tuple[str, list[tuple[dict[str, Any], Row]]]]:
    """genai-prices' providers with their models: how a model is matched, and what it costs on that day."""
    assigned = (node.value for node in ast.parse(source).body if isinstance(node, ast.AnnAssign) and node.value)
    providers = _literal(next(assigned))
    return [(one["id"], [_genai_model(model, on) for model in one["models"]]) for one in providers]


def providers_of(name: str) -> tuple[str, ...]:
    """litellm's names of genai-prices' provider."""
    return ("huggingface",) if name.startswith(_HUGGING_FACE) else PROVIDERS.get(name, (name,))


def names_of(provider: str, match: Mapping[str, Any], model: str) -> list[str]:
    """What genai-prices calls a model: its id, then the other names that it is equal to."""
    names = [model.lower(), *(name.lower() for name in _equals(match))]
    if provider.startswith(_HUGGING_FACE):
        names = [f"{name}:{provider.removeprefix(_HUGGING_FACE)}" for name in names]
    return list(dict.fromkeys(names))


def matches(clause: Mapping[str, Any], name: str) -> bool:
    """Whether genai-prices' rule takes `name`."""
    match clause["is"]:
        case "ClauseEquals":
            return bool(clause["equals"] == name)
        case "ClauseStartsWith":
            return name.startswith(clause["starts_with"])
        case "ClauseEndsWith":
            return name.endswith(clause["ends_with"])
        case "ClauseContains":
            return clause["contains"] in name
        case "ClauseRegex":
            return re.search(clause["regex"], name) is not None
        case "ClauseOr":
            return any(matches(one, name) for one in clause["or_"])
        case "ClauseAnd":
            return all(matches(one, name) for one in clause["and_"])
        case other:
            raise ValueError(f"genai-prices has a rule {other!r} that is not known here; teach `matches`")


def _equals(clause: Mapping[str, Any]) -> list[str]:
    if clause["is"] == "ClauseEquals":
        return [clause["equals"]]
    return [name for one in clause.get("or_", ()) for name in _equals(one)]


def _genai_model(model: Mapping[str, Any], on: date) -> tuple[dict[str, Any], Row]:
    row = Row(context=_count(model.get("context_window")))
    row.rates = dict(_genai_rates(_in_force(model.get("prices"), on)))
    for variant in model.get("price_variants") or ():
        if variant["when"] == {"processing": "batch"} and _active(variant.get("constraint"), on):
            rates = _genai_rates(variant["prices"])
            row.rates |= {re.sub(r"^(\d+\.)?", r"\1batch.", path): price for path, price in rates}
    return {"id": model["id"], "match": model["match"]}, row


def _in_force(prices: Any, on: date) -> Mapping[str, Any]:
    """The prices of a day. Where they hang on the hour, the dearest: an account must not come out too low."""
    if not isinstance(prices, list):
        return prices or {}
    active = [one for one in prices if _active(one.get("constraint"), on)] or prices[:1]
    hourly = [one["prices"] for one in active if (one.get("constraint") or {}).get("is") == "TimeOfDateConstraint"]
    last: Mapping[str, Any] = active[-1]["prices"]
    return max(hourly, key=lambda one: Decimal(str(one["input_mtok"]))) if hourly else last


def _active(constraint: Mapping[str, Any] | None, on: date) -> bool:
    return constraint is None or "start_date" not in constraint or date(*constraint["start_date"]["values"]) <= on


def _genai_rates(prices: Mapping[str, Any]) -> Iterator[tuple[str, int]]:
    for key, price in prices.items():
        if key not in PER:
            continue
        unit, per = PER[key]
        if isinstance(price, Decimal):
            yield unit, nusd(price, per)
        else:
            yield unit, nusd(price["base"], per)
            for tier in price["tiers"]:
                # "From 200,000 on" is written as 199,999 there, "above 200,000" as 200,000: one threshold for us.
                start = tier["start"] + (tier["start"] % 1000 == 999)
                yield f"{start}.{unit}", nusd(tier["price"], per)


def _literal(node: ast.expr) -> Any:
    """The value of a literal, where a call of a class is a dict with its name under `is`. Nothing is executed."""
    match node:
        case ast.Constant():
            return node.value
        case ast.List() | ast.Tuple():
            return [_literal(one) for one in node.elts]
        case ast.Dict():
            return {_literal(key): _literal(value) for key, value in zip(node.keys, node.values, strict=True) if key}
        case ast.Call(func=ast.Name(id="Decimal")):
            return Decimal(str(_literal(node.args[0])))
        case ast.Call():
            named = {one.arg: _literal(one.value) for one in node.keywords if one.arg}
            return {**named, "is": ast.unparse(node.func), "values": [_literal(one) for one in node.args]}
        case _:
            return ast.unparse(node)
