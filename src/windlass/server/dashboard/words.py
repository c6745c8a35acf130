"""Numbers and times as the pages write them."""

from __future__ import annotations

import time

NUSD = 1_000_000_000
NONE = "–"


def usd(nusd: int) -> str:
    """Nano-dollars as dollars with as many places as the amount needs: `$0`, `$0.000012`, `$3.20`.

    >>> usd(12_000), usd(3_200_000_000)
    ('$0.000012', '$3.20')
    """
    amount = nusd / NUSD
    if not nusd:
        return "$0"
    if abs(amount) >= 0.1:
        return f"${amount:,.2f}"
    return f"${amount:.9f}".rstrip("0") if abs(amount) < 0.000_001 else f"${amount:.6f}".rstrip("0")


def ms(value: float | None) -> str:
    """Milliseconds in the unit that reads best; a dash where there is none.

    >>> ms(4.2), ms(250.0), ms(12_300.0), ms(None)
    ('4.2 ms', '250 ms', '12.3 s', '–')
    """
    if value is None:
        return NONE
    if value >= 10_000:
        return f"{value / 1000:,.1f} s"
    return f"{value:,.0f} ms" if value >= 100 else f"{value:.1f} ms"


def count(value: int) -> str:
    """An integer with separators."""
    return f"{value:,}"


def plural(value: int, one: str, many: str = "") -> str:
    """A count with its noun.

    >>> plural(1, "call"), plural(2, "call")
    ('1 call', '2 calls')
    """
    return f"{value:,} {one if value == 1 else many or one + 's'}"


def percent(share: float) -> str:
    """A share of 1 in per cent; what is neither none nor all never reads so.

    >>> percent(0.5), percent(0.001), percent(0.9999)
    ('50 %', '<1 %', '>99 %')
    """
    if 0.0 < share < 0.01:
        return "<1 %"
    if 0.99 < share < 1.0:
        return ">99 %"
    return f"{share * 100:.0f} %"


def clock(at: float) -> str:
    """UTC seconds as the time of day."""
    return time.strftime("%H:%M:%S", time.gmtime(at))


def day(at: float) -> str:
    """UTC seconds as a date."""
    return time.strftime("%-d %b", time.gmtime(at))


def stamp(at: float) -> str:
    """UTC seconds for machines, ISO 8601."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(at))
