"""What a call costs: integer nano-dollars, exact, rounded once.

A price is kept as nano-dollars for a million units, so that every published figure is an integer: 2.50 USD per million
tokens are 2,500,000,000. Prices come from `pricelist`, the published ones, and from the settings, which go before them.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from decimal import ROUND_HALF_EVEN, Decimal
from fractions import Fraction

import msgspec

from windlass.gateway.money.usage import Usage
from windlass.gateway.options import ModelOptions

MILLION = 1_000_000
NUSD = 1_000_000_000
PROMPT_SIDE = ("input", "cache_read", "cache_write", "cache_write_1h", "audio_input", "image_input")
COMPLETION_SIDE = ("output", "reasoning", "audio_output", "image_output")
# Which price holds for a share of the tokens that has none of its own.
INSTEAD = {
    "cache_read": "input",
    "cache_write": "input",
    "cache_write_1h": "cache_write",
    "reasoning": "output",
    "audio_input": "input",
    "audio_output": "output",
}
BATCH = "batch."
# Setting -> (what it prices, how many of that unit the setting names).
SETTINGS = {
    "prompt_usd_per_million": ("input", MILLION),
    "completion_usd_per_million": ("output", MILLION),
    "cache_read_usd_per_million": ("cache_read", MILLION),
    "cache_write_usd_per_million": ("cache_write", MILLION),
    "cache_write_1h_usd_per_million": ("cache_write_1h", MILLION),
    "reasoning_usd_per_million": ("reasoning", MILLION),
    "audio_prompt_usd_per_million": ("audio_input", MILLION),
    "audio_completion_usd_per_million": ("audio_output", MILLION),
    "batch_prompt_usd_per_million": ("batch.input", MILLION),
    "batch_completion_usd_per_million": ("batch.output", MILLION),
    "image_usd": ("image", 1),
    "audio_usd_per_minute": ("second", 60),
}


class Rates(msgspec.Struct, frozen=True):
    """What a token costs, by what it was for; nano-dollars a million tokens, none left open."""

    input: int = 0
    output: int = 0
    cache_read: int = 0
    cache_write: int = 0
    cache_write_1h: int = 0
    reasoning: int = 0
    audio_input: int = 0
    audio_output: int = 0


class Tier(msgspec.Struct, frozen=True):
    """What holds for the whole call once its prompt has more than `above_tokens`."""

    above_tokens: int
    rates: Rates
    batch: Rates


class Price(msgspec.Struct, frozen=True, kw_only=True):
    """All that is known of what one model of one provider costs, and of its limits; 0 is unknown.

    published: the figures as they were said, nano-dollars a million units by `unit`, `batch.unit`, `200000.unit`,
    `200000.batch.unit`; the rates are made of them. differs: what the second source says otherwise.
    by: where the figures come from. image, second, character, request: nano-dollars a million of these.
    """

    provider: str = ""
    model: str = ""
    mode: str = "chat"
    by: tuple[str, ...] = ()
    context_tokens: int = 0
    most_output_tokens: int = 0
    vision: bool = False
    tools: bool = False
    published: dict[str, int] = {}
    differs: dict[str, int] = {}
    rates: Rates = Rates()
    batch: Rates = Rates()
    tiers: tuple[Tier, ...] = ()
    image: int = 0
    second: int = 0
    character: int = 0
    request: int = 0

    @property
    def priced(self) -> bool:
        """Whether any price is known. Without one a call counts as free, and the books should say so."""
        return bool(self.published)


def resolved(price: Price) -> Price:
    """The price with its rates worked out from `published`, thresholds highest first."""
    said = price.published
    if price.mode.startswith("image") and "image_output" in said:
        said = {**said, "output": said["image_output"]}
    rates = _rates(said, "", None)
    heads = (path.split(".", 1)[0] for path in said)
    tiers = []
    for above in sorted({int(head) for head in heads if head.isdigit()}, reverse=True):
        higher = _rates(said, f"{above}.", rates)
        tiers.append(Tier(above, higher, _rates(said, f"{above}.{BATCH}", higher)))
    return msgspec.structs.replace(
        price,
        rates=rates,
        batch=_rates(said, BATCH, rates),
        tiers=tuple(tiers),
        **{unit: said.get(unit, 0) for unit in ("image", "second", "character", "request")},
    )


def _rates(said: Mapping[str, int], prefix: str, standard: Rates | None) -> Rates:
    """The rates that stand under `prefix`; what is not said there is as it stands in `standard`.

    Without a batch price there is no discount; a token read from the cache never costs more than a fresh one there.
    """
    if standard is not None and not any(path.startswith(prefix) for path in said):
        return standard
    rates: dict[str, int] = {}
    for unit in Rates.__struct_fields__:
        price = said.get(prefix + unit)
        if price is None and standard is not None and (unit in said or unit not in INSTEAD):
            price = getattr(standard, unit)
            if unit == "cache_read":
                price = min(price, rates["input"])
        if price is None:
            price = rates[INSTEAD[unit]] if unit in INSTEAD else 0
        rates[unit] = price
    return Rates(**rates)


def cost_nusd(price: Price, usage: Usage, *, batch: bool = False, cache_write_1h_tokens: int = 0) -> int:
    """What a call costs in nano-dollars, exact and rounded half-even once.

    The threshold of a tier is on the prompt, and its rates hold for the whole call. Tokens are the measure where the
    provider counted them; pictures and seconds where not. Shares that are larger than their whole are cut to it.
    cache_write_1h_tokens: how many of the cache writes are kept for an hour.
    """
    prompt, completion = max(0, usage.prompt_tokens or 0), max(0, usage.completion_tokens or 0)
    rates = _rates_at(price, prompt, batch) if batch or price.tiers else price.rates
    total: int | Fraction = prompt * rates.input + completion * rates.output + price.request
    if usage.cache_read_tokens or usage.cache_write_tokens or usage.audio_prompt_tokens:
        total += _prompt_shares(rates, usage, prompt, cache_write_1h_tokens)
    if usage.reasoning_tokens or usage.audio_completion_tokens:
        total += _completion_shares(rates, usage, completion)
    if usage.images or usage.audio_s:
        total += _uncounted(price, usage)
    return _rounded(total)


def most_nusd(prices: Iterable[Price], prompt: int, completion: int) -> int:
    """What a call of so many tokens costs in nano-dollars at the dearest of `prices`, at least one."""
    most, found = Usage(prompt_tokens=prompt, completion_tokens=completion), 0
    plain = 0
    for price in prices:
        if price.tiers:
            found = max(found, cost_nusd(price, most))
        else:
            plain = max(plain, prompt * price.rates.input + completion * price.rates.output + price.request)
    return max(found, _rounded(plain))  # the dearest stays the dearest when it is rounded


def _rounded(millionths: int | Fraction) -> int:
    """To a whole nano-dollar, halves to even; integers without a detour over fractions, which cost 5 us."""
    if not isinstance(millionths, int):
        return round(millionths / MILLION)
    whole, rest = divmod(millionths, MILLION)
    return whole + (rest > MILLION // 2 or (rest == MILLION // 2 and whole & 1))


def _rates_at(price: Price, prompt: int, batch: bool) -> Rates:
    for tier in price.tiers:
        if prompt > tier.above_tokens:
            return tier.batch if batch else tier.rates
    return price.batch if batch else price.rates


def _prompt_shares(rates: Rates, usage: Usage, prompt: int, hour: int) -> int:
    """What the shares of the prompt cost more, or less, than plain tokens."""
    read = _share(usage.cache_read_tokens, prompt)
    write = _share(usage.cache_write_tokens, prompt - read)
    audio = _share(usage.audio_prompt_tokens, prompt - read - write)
    hour = _share(hour, write)
    return (
        read * (rates.cache_read - rates.input)
        + (write - hour) * (rates.cache_write - rates.input)
        + hour * (rates.cache_write_1h - rates.input)
        + audio * (rates.audio_input - rates.input)
    )


def _completion_shares(rates: Rates, usage: Usage, completion: int) -> int:
    reasoning = _share(usage.reasoning_tokens, completion)
    audio = _share(usage.audio_completion_tokens, completion - reasoning)
    return reasoning * (rates.reasoning - rates.output) + audio * (rates.audio_output - rates.output)


def _uncounted(price: Price, usage: Usage) -> int | Fraction:
    """What pictures and seconds cost where no tokens were counted for them."""
    pictures = 0 if usage.completion_tokens else max(0, usage.images) * price.image
    if usage.prompt_tokens is not None or not (price.second and usage.audio_s):
        return pictures
    return pictures + _seconds(usage.audio_s) * price.second


def _share(tokens: int, whole: int) -> int:
    return max(0, min(tokens, whole))


def _seconds(seconds: float) -> Fraction:
    """Seconds as they were written, exact; what is no length of time is none."""
    return Fraction(repr(seconds)) if math.isfinite(seconds) and seconds > 0 else Fraction(0)


def price_of(model: ModelOptions, found: Price | None) -> Price:
    """The price that holds for a model: what its settings say, else what was found, else nothing known.

    A setting holds in every tier and batch. The price of the prompt or the completion speaks for that whole side: its
    shares (cached, audio, reasoning) cost the same unless they are set too.
    """
    price, said = found or Price(), _said(model)
    if not said:
        return price
    kept = {path: value for path, value in price.published.items() if not _set(path, said)}
    for above in {path.split(".", 1)[0] for path in kept if path[0].isdigit()}:
        kept |= {f"{above}.{path}": value for path, value in said.items() if path.startswith(BATCH)}
    named = price.model or model.name
    return resolved(msgspec.structs.replace(price, model=named, by=("settings", *price.by), published={**kept, **said}))


def _said(model: ModelOptions) -> dict[str, int]:
    """What the settings of a model price, as a published price says it."""
    found = ((*SETTINGS[name], getattr(model, name)) for name in SETTINGS)
    return {path: _nusd(usd, units) for path, units, usd in found if usd is not None}


def _set(path: str, said: Mapping[str, int]) -> bool:
    """Whether the settings speak for a published figure: by its unit, or by the side that it is on."""
    unit = path.rsplit(".", 1)[-1]
    side = next((side[0] for side in (PROMPT_SIDE, COMPLETION_SIDE) if unit in side), unit)
    return unit in said or side in said or (BATCH in path and f"{BATCH}{side}" in said)


def _nusd(usd: float, units: int) -> int:
    """USD for so many units as nano-dollars a million; the number as it was written, not its binary neighbour."""
    return int((Decimal(repr(usd)) * NUSD * MILLION / units).to_integral_value(ROUND_HALF_EVEN))
