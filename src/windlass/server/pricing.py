"""What models cost: the operation behind `windlass prices`, and its table on the terminal.

Without arguments the models of the settings with the price that is in force; with them what was published, at the
release, for all models, and where the two sources of it differ.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from decimal import Decimal
from typing import Annotated, Any

import msgspec
from msgspec import Meta
from rich.markup import escape
from rich.table import Table

from windlass.gateway.admission import Caller
from windlass.gateway.options import ProviderOptions
from windlass.gateway.pricelist import SOURCES, Pricelist, find, published
from windlass.gateway.prices import NUSD, Price, price_of
from windlass.runtime import Runtime
from windlass.server.reading import read
from windlass.server.terminal import clean, console

Arguments = dict[str, Any]
PER_UNIT = ("image", "second")
_NOTE = "USD per million tokens; per picture (image) and per second of sound (second)."


class PricesAsked(msgspec.Struct, forbid_unknown_fields=True):
    """Arguments of `prices`."""

    model: str = ""
    provider: str = ""
    differ: bool = False
    limit: Annotated[int, Meta(ge=1, le=10_000)] = 50


async def prices(runtime: Runtime, caller: Caller, arguments: Arguments) -> dict[str, Any]:
    """Published prices of the models whose name holds `model`, of one provider, or where the two sources differ."""
    asked = read(arguments, PricesAsked)
    table = await asyncio.to_thread(published)
    if not (asked.model or asked.provider or asked.differ):
        found = await asyncio.to_thread(lambda: in_force(runtime.settings.providers))
    else:
        found = await asyncio.to_thread(lambda: _found(table, asked))
    about = {"on": table.about.on, "sources": table.about.sources, "unit": _NOTE}
    return {**about, "found": len(found), "prices": [_shown(name, price) for name, price in found[: asked.limit]]}


def in_force(providers: Iterable[ProviderOptions]) -> list[tuple[str, Price]]:
    """Every model of the settings and what its calls cost: its own prices, else the published ones."""
    return [
        (model.name, price_of(model, find(provider.kind, provider.base_url, model.upstream or model.name)))
        for provider in providers
        for model in provider.models
    ]


def _found(table: Pricelist, asked: PricesAsked) -> list[tuple[str, Price]]:
    wanted, provider = asked.model.strip().lower(), asked.provider.strip().lower()
    found = [
        price
        for price in table.all()
        if wanted in f"{price.provider}/{price.model}"
        and (not provider or price.provider == provider)
        and (price.differs or not asked.differ)
    ]
    # The shortest name is the one that was most likely meant; the order is the same in every run.
    found.sort(key=lambda price: (len(price.model) if wanted else 0, price.provider, price.model))
    return [("", price) for price in found]


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
        table = Table(box=None, pad_edge=False, header_style="bold")
        for column in ("provider", "model", "in", "out", "cached", "batch in/out", "context", "more", "by", ""):
            table.add_column(column, overflow="fold")
        for price in answer["prices"]:
            _row(table, *_cells(price))
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


def _row(table: Table, *cells: str) -> None:
    table.add_row(*(escape(clean(cell)) for cell in cells))
