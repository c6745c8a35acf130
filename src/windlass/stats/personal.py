"""Where a text holds personal data: addresses of e-mail, bank accounts, payment cards and telephone numbers.

Every pattern takes time linear in the text: what may repeat is possessive or bounded. What can be checked is checked
(Luhn, mod 97, country codes), so that order numbers, times and versions stay.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from typing import Final, NamedTuple

WINDOW_CHARS: Final = 32_768
_OVERLAP_CHARS: Final = 1_024


class Span(NamedTuple):
    """`text[start:end]` is personal; label: what of."""

    start: int
    end: int
    label: str


Recogniser = Callable[[str], Sequence[Span]]
"""Finds what is personal in a text."""


def matches(pattern: re.Pattern[str], text: str) -> Iterator[re.Match[str]]:
    """All matches, looked for window by window: while one is searched, no other thread of Python runs."""
    at = 0
    while at < len(text):
        limit = at + WINDOW_CHARS
        last = at
        for match in pattern.finditer(text, at, limit + _OVERLAP_CHARS):
            if match.start() >= limit:
                break
            last = match.end()
            yield match
        at = max(limit, last)


# --- e-mail (RFC 5321, 4.1.2 and 4.5.3.1; RFC 6531 for letters beyond ASCII)

_AT = re.compile(r"[@＠]|%40")
_LOCAL = re.compile(r"[\w.+\-%!#$'*^~&]{1,64}+")
_LABEL = r"[^\W_](?:[\w-]{0,61}[^\W_])?"
_DOMAIN = re.compile(
    rf"(?:{_LABEL}\.){{1,8}}(?:xn--[A-Za-z0-9-]{{1,59}}|[^\W\d_]{{2,63}})"
    r"|\[(?:IPv6:[0-9A-Fa-f:.]{2,45}|\d{1,3}(?:\.\d{1,3}){3})\]"
)
_QUOTED_CHARS = 66
_QUOTED = re.compile(r'"\w[\w.+ -]*+(?<=\w)"\Z')


def emails(text: str) -> Iterator[Span]:
    """Addresses of e-mail, with names in any script; a host without a dot is none."""
    if "@" not in text and "＠" not in text and "%40" not in text:
        return
    end = 0
    for at in matches(_AT, text):
        domain = _DOMAIN.match(text, at.end(), at.end() + 255)
        if domain is None:
            continue
        start = _local_start(text, at.start(), end)
        if start < at.start():
            end = domain.end()
            yield Span(start, end, "email")


def _local_start(text: str, at: int, after: int) -> int:
    """Where the part before the sign begins, which it is read from backwards; `at` where there is none."""
    least = max(after, at - _QUOTED_CHARS)
    if at > least and text[at - 1] == '"':
        name = _QUOTED.search(text, least, at)
        return at if name is None else name.start()
    before = _LOCAL.match(text[least:at][::-1])
    if before is None:
        return at
    start = at - before.end()
    while start < at and not (text[start].isalnum() or text[start] == "_"):
        start += 1
    return start


# --- bank accounts (ISO 13616: check digits by ISO 7064, mod 97-10; lengths of the IBAN registry)

_IBAN_LENGTHS: Final = {
    country: int(length)
    for length, countries in {
        "15": "NO",
        "16": "BE",
        "18": "DK FI FK FO GL NL SD",
        "19": "MK SI",
        "20": "AT BA EE KZ LT LU MN XK",
        "21": "CH HR LI LV",
        "22": "BG BH CR DE GB GE IE ME RS VA",
        "23": "AE GI IL IQ OM SO TL",
        "24": "AD CZ ES MD PK RO SA SE SK TN VG",
        "25": "LY PT ST",
        "26": "IS TR",
        "27": "BI DJ FR GR IT MC MR SM",
        "28": "AL AZ BY CY DO GT HN HU LB NI PL SV",
        "29": "BR EG PS QA UA",
        "30": "JO KW MU YE",
        "31": "MT SC",
        "32": "LC",
        "33": "RU",
    }.items()
    for country in countries.split()
}
_IBAN = re.compile(r"(?<![A-Za-z0-9])[A-Za-z]{2}[0-9]{2}(?:[ \u00a0-]?[A-Za-z0-9]){11,30}")
_ALNUM = re.compile(r"[A-Za-z0-9]")


def ibans(text: str) -> Iterator[Span]:
    """International bank account numbers whose length and check digits are right."""
    for match in matches(_IBAN, text):
        length = _IBAN_LENGTHS.get(match[0][:2].upper())
        if length is None:
            continue
        places = [found.end() for found in _ALNUM.finditer(match[0])]
        if len(places) < length:
            continue
        end = match.start() + places[length - 1]
        number = "".join(_ALNUM.findall(text[match.start() : end])).upper()
        if not _ALNUM.match(text, end) and _mod_97(number) == 1:
            yield Span(match.start(), end, "iban")


def _mod_97(number: str) -> int:
    return int("".join(str(int(char, 36)) for char in number[4:] + number[:4])) % 97


# --- payment cards (ISO/IEC 7812: issuer's first digits, 13 to 19 digits, Luhn's check digit)

_SEPARATOR = r"[ \u00a0\u2010-\u2013-]"
_DIGITS = re.compile(rf"(?<![\dA-Za-z_])(?<!\d[.,])\d(?:{_SEPARATOR}?\d){{12,}}+(?![A-Za-z_]|[.,]\d)")
_GROUP = re.compile(r"\d+")
_ISSUER = re.compile(
    r"(?:4|5[0-8]|6\d|3[0-9]|22[0-9]{2}|2[3-6]|27[0-2])"  # Visa; Mastercard, Maestro; UnionPay; Amex, JCB; Mir
)
_DOUBLED = str.maketrans("0123456789", "0246813579")
_MOST_GROUPS = 6


def cards(text: str) -> Iterator[Span]:
    """Numbers of payment cards, in one piece or in groups with blanks or hyphens between them."""
    for match in matches(_DIGITS, text):
        groups = [found.span() for found in _GROUP.finditer(text, match.start(), match.end())]
        if len(groups) <= 19 and all(end - start == 1 for start, end in groups):
            if _is_card(_plain(match[0])):
                yield Span(*match.span(), "card")
            continue
        first = 0
        while first < len(groups):
            last = _card_end(text, groups, first)
            if last >= 0:
                yield Span(groups[first][0], groups[last][1], "card")
            first = max(first, last) + 1


def _card_end(text: str, groups: Sequence[tuple[int, int]], first: int) -> int:
    """The last of the groups that make a card from `first` on, as many as do; -1 where none do."""
    if text[groups[first][0]] in "01789":
        return -1
    number, found = "", -1
    for last in range(first, min(first + _MOST_GROUPS, len(groups))):
        start, end = groups[last]
        number += _plain(text[start : min(end, start + 20)])
        if len(number) > 19:
            break
        if len(number) >= 13 and _is_card(number):
            found = last
        if end - start < 3:
            break
    return found


def _plain(digits: str) -> str:
    """The digits as 0 to 9, whichever script they were in."""
    if digits.isascii() and digits.isdecimal():
        return digits
    return "".join(str(int(char)) for char in digits if char.isdecimal())


def _is_card(number: str) -> bool:
    """Whether issuer and check digit are those of a card; digits that are all the same are none."""
    if not 13 <= len(number) <= 19 or not _ISSUER.match(number) or len(set(number)) < 2:
        return False
    doubled = number[-2::-2].translate(_DOUBLED)
    return (sum(map(int, number[-1::-2])) + sum(map(int, doubled))) % 10 == 0
