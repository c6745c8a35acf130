"""Numbers and times as the pages write them."""

from __future__ import annotations

import math
import re
import time

NUSD = 1_000_000_000
NONE = "–"
NBSP = "\N{NO-BREAK SPACE}"
_LONG_DECIMAL = re.compile(r"\d+\.\d{4,}(?! USD)")


def usd(nusd: int) -> str:
    """Nano-dollars as dollars, to the cent, or to three digits where that is too coarse.

    >>> usd(12_345), usd(3_200_000_000), usd(0)
    ('$0.0000123', '$3.20', '$0')
    """
    amount = nusd / NUSD
    if not nusd:
        return "$0"
    if abs(amount) >= 0.1:
        return f"${amount:,.2f}"
    places = min(9, 2 - math.floor(math.log10(abs(amount))))
    return f"${amount:.{places}f}".rstrip("0")


def ms(value: float | None) -> str:
    """Milliseconds in the unit that reads best, held together by a space that does not break; a dash for none.

    >>> [ms(value).replace(NBSP, " ") for value in (4.2, 250.0, 1_234.0, 12_300.0, None)]
    ['4.2 ms', '250 ms', '1.23 s', '12.3 s', '–']
    """
    if value is None:
        return NONE
    if value >= 999.5:
        return f"{value / 1000:,.1f}{NBSP}s" if value >= 9_995 else f"{value / 1000:.2f}{NBSP}s"
    return f"{value:.0f}{NBSP}ms" if value >= 99.95 else f"{value:.1f}{NBSP}ms"


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

    >>> [percent(share).replace(NBSP, " ") for share in (0.5, 0.001, 0.9999)]
    ['50 %', '<1 %', '>99 %']
    """
    if 0.0 < share < 0.01:
        return f"<1{NBSP}%"
    if 0.99 < share < 1.0:
        return f">99{NBSP}%"
    return f"{share * 100:.0f}{NBSP}%"


def clock(at: float) -> str:
    """UTC seconds as the time of day."""
    return time.strftime("%H:%M:%S", time.gmtime(at))


def day(at: float) -> str:
    """UTC seconds as a date."""
    return time.strftime("%-d %b", time.gmtime(at))


def lasting(seconds: float) -> str:
    """A stretch of time in the unit that reads best; none where it is over.

    >>> [lasting(value).replace(NBSP, " ") for value in (0.4, 45.0, 600.0, 7_200.0, 200_000.0)]
    ['1 s', '45 s', '10 min', '2 h', '2 d']
    """
    for unit, length_s in (("d", 86_400.0), ("h", 3_600.0), ("min", 60.0)):
        if seconds >= 1.5 * length_s:
            return f"{seconds / length_s:.0f}{NBSP}{unit}"
    return f"{max(1.0, seconds):.0f}{NBSP}s"


def stamp(at: float) -> str:
    """UTC seconds for machines, ISO 8601."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(at))


def plain(why: str) -> str:
    """A policy's account of itself with numbers that can be read.

    >>> plain("support 0.9493636769 against 0.5, a 0.70 +- 0.05")
    'support 0.949 against 0.5, a 0.70 ± 0.05'
    """
    return _LONG_DECIMAL.sub(lambda number: f"{float(number[0]):.3f}", why).replace("+-", "±")


def sentence(message: str) -> str:
    """An error message as a sentence.

    >>> sentence("the disk is full")
    'The disk is full.'
    """
    ended = message if message.endswith((".", "!", "?")) else f"{message}."
    return ended[:1].upper() + ended[1:]
