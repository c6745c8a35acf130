"""What models cost: the operation behind `windlass prices`, and its table on the terminal.

Without arguments the models of the settings with the price that is in force; with them what was published, at the
release, for all models, and where the two sources of it differ.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from decimal import Decimal
from functools import cache
from typing import Any, NamedTuple

from windlass.gateway.access.admission import Caller
from windlass.gateway.money.pricelist import SOURCES, find, published
from windlass.gateway.money.prices import NUSD, SETTINGS, Price, price_of
from windlass.gateway.options import ProviderOptions
from windlass.runtime import Runtime
from windlass.server.reading import PricesAsked, read
from windlass.server.terminal import add_line, console, escape, listing

Arguments = dict[str, Any]
PER_UNIT = ("image", "second")
_NOTE = "USD per million tokens; per picture (image) and per second of sound (second)."


async def prices(runtime: Runtime, caller: Caller, arguments: Arguments) -> dict[str, Any]:
    """Published prices of the models whose name holds `model`, of one provider, or where the two sources differ.

    after: `provider/model`, the last of the page before.
    """
    asked = read(arguments, PricesAsked)
    return await asyncio.to_thread(look, runtime, asked)


def look(runtime: Runtime, asked: PricesAsked, *, everything: bool = False) -> dict[str, Any]:
    """What `prices` answers. everything: also where nothing is asked for, the published prices."""
    table = published()
    about = {"on": table.about.on, "sources": table.about.sources, "unit": _NOTE}
    if not (asked.model or asked.provider or asked.differ or everything):
        own = in_force(runtime.settings.providers)
        shown = [_shown(name, price) for name, price in own[: asked.limit]]
        return {**about, "found": len(own), "begin": 0, "prices": shown}
    found = _found(asked)
    names = [f"{one.provider}/{one.model}" for one in found]
    begin = names.index(asked.after) + 1 if asked.after in names else 0
    prices = (table.exact(one.provider, one.model) for one in found[begin : begin + asked.limit])
    return {**about, "found": len(found), "begin": begin, "prices": [_shown("", price) for price in prices if price]}


def configured(runtime: Runtime) -> list[dict[str, Any]]:
    """The models of the settings with the price in force, each with the provider that offers it and what of the price
    the settings say themselves (`own`)."""
    offered = [(provider.name, model) for provider in runtime.settings.providers for model in provider.models]
    found = in_force(runtime.settings.providers)
    return [
        {
            **_shown(name, price),
            "offered_by": provider,
            "own": sorted(SETTINGS[field][0] for field in SETTINGS if getattr(model, field) is not None),
        }
        for (provider, model), (name, price) in zip(offered, found, strict=True)
    ]


def in_force(providers: Iterable[ProviderOptions]) -> list[tuple[str, Price]]:
    """Every model of the settings and what its calls cost: its own prices, else the published ones."""
    return [
        (model.name, price_of(model, find(provider.kind, provider.base_url, model.upstream or model.name)))
        for provider in providers
        for model in provider.models
    ]


class _Listed(NamedTuple):
    """What of a published price a search looks at."""

    provider: str
    model: str
    differs: bool


@cache
def _listing() -> tuple[_Listed, ...]:
    """All of them: 0.2 s the first time, and a megabyte from then on."""
    return tuple(_Listed(price.provider, price.model, bool(price.differs)) for price in published().all())


def _found(asked: PricesAsked) -> list[_Listed]:
    wanted, provider = asked.model.strip().lower(), asked.provider.strip().lower()
    found = [
        one
        for one in _listing()
        if wanted in f"{one.provider}/{one.model}"
        and (not provider or one.provider == provider)
        and (one.differs or not asked.differ)
    ]
    # The shortest name is the one that was most likely meant; the order is the same in every run.
    found.sort(key=lambda one: (len(one.model) if wanted else 0, one.provider, one.model))
    return found


def _shown(name: str, price: Price) -> dict[str, Any]:
    return {
        "name": name,
        "provider": price.provider,
        "model": price.model,
        "mode": price.mode,
        "context_tokens": price.context_tokens or None,
        "most_output_tokens": price.most_output_tokens or None,
        "vision": price.vision,
        "tools": price.tools,
        "priced": price.priced,
        "by": list(price.by),
        "usd": {path: _usd(path, nusd) for path, nusd in sorted(price.published.items())},
        "differs": {path: _usd(path, nusd) for path, nusd in price.differs.items()},
    }


def _usd(path: str, nusd: int) -> str:
    """A published figure in dollars, exact: of a picture or a second for one, of everything else for a million."""
    units = Decimal(10**6) if path.rsplit(".", 1)[-1] in PER_UNIT else Decimal(1)
    return f"{(Decimal(nusd) / NUSD / units).normalize():f}"


def show_prices(answer: dict[str, Any]) -> None:
    """One line a model, with what the second source says otherwise."""
    out = console()
    if not answer["prices"]:
        out.print("No published price fits; set prompt_usd_per_million and completion_usd_per_million in the settings.")
    else:
        columns = ("provider", "model", "in", "out", "cached", "batch in/out", "context", "more", "by", "")
        table = listing(*columns)
        for price in answer["prices"]:
            add_line(table, *_cells(price))
        out.print(table)
    versions = ", ".join(f"{name} {version}" for name, version in answer["sources"].items())
    left = f"{len(answer['prices'])} of {answer['found']}; " if answer["found"] > len(answer["prices"]) else ""
    out.print(escape(f"{left}{answer['unit']} Published prices as of {answer['on']}, from {versions}."))


def _cells(price: dict[str, Any]) -> list[str]:
    usd = dict(price["usd"])
    main = [usd.pop(name, "") for name in ("input", "output", "cache_read")]
    batch = [usd.pop(f"batch.{name}", "") for name in ("input", "output")]
    more = " ".join(f"{path}={value}" for path, value in usd.items())
    context = f"{price['context_tokens']:,}" if price["context_tokens"] else ""
    named = price["name"] or price["model"]
    by = ", ".join(price["by"]) if price["priced"] else "NO PRICE KNOWN: counted as free"
    differs = " ".join(f"{path}={value}" for path, value in price["differs"].items())
    says = f"{SOURCES['g']} says: {differs}" if differs else ""
    return [price["provider"], named, *main, "/".join(batch) if any(batch) else "", context, more, by, says]
