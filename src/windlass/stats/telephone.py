"""Telephone numbers in a text: international ones (ITU-T E.164) and what countries write at home.

A number counts that says so: by a plus and a country code that there is, by the form of its groups, or by a word such
as "phone" before it. Ten digits in a row are no telephone number: they are a time or an order.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Final

from windlass.stats.personal import Span, matches

_CODES: Final = (
    "1 7 20 27 30 31 32 33 34 36 39 40 41 43 44 45 46 47 48 49 51 52 53 54 55 56 57 58 60 61 62 63 64 65 66 81 82 84 86"
    " 90 91 92 93 94 95 98 211 212 213 216 218 220 221 222 223 224 225 226 227 228 229 230 231 232 233 234 235 236 237"
    " 238 239 240 241 242 243 244 245 246 247 248 249 250 251 252 253 254 255 256 257 258 260 261 262 263 264 265 266"
    " 267 268 269 290 291 297 298 299 350 351 352 353 354 355 356 357 358 359 370 371 372 373 374 375 376 377 378 379"
    " 380 381 382 383 385 386 387 389 420 421 423 500 501 502 503 504 505 506 507 508 509 590 591 592 593 594 595 596"
    " 597 598 599 670 672 673 674 675 676 677 678 679 680 681 682 683 685 686 687 688 689 690 691 692 800 808 850 852"
    " 853 855 856 870 878 880 881 882 883 886 888 960 961 962 963 964 965 966 967 968 970 971 972 973 974 975 976 977"
    " 979 992 993 994 995 996 998"
)
_COUNTRIES: Final = frozenset(_CODES.split())
"""Assigned country codes (ITU-T Recommendation E.164, annexed list)."""
_BLANK = r"[ \u00a0\u2010-\u2013./-]"
_BEFORE = r"(?<![\w+])(?<!\d[.,:/-])(?<!\w-)"
_AFTER = r"(?![\w]|[.,:/-]\d|-\w)"
_EXTENSION = r"(?:,? ?(?:ext\.?|x|#) ?\d{1,6}(?!\w))?"
_INTERNATIONAL = re.compile(
    rf"(?<![\w+])(?<!\d[.,])(?:\+|＋|00 ?(?=[1-9]))(?:\(?\d\)?)"
    rf"(?:[ \u00a0\u2010-\u2013./()-]{{0,3}}\d){{6,14}}(?!\d){_EXTENSION}"
)
_NORTH_AMERICAN = re.compile(
    rf"{_BEFORE}(?:1[ .-]?)?(?:\([2-9]\d\d\) ?|[2-9]\d\d([ .\u2010-\u2013-]))[2-9]\d\d(?(1)\1|[ .-])\d{{4}}{_AFTER}"
    rf"{_EXTENSION}"
)
_TRUNK = re.compile(
    rf"{_BEFORE}\(?0[1-9]\d{{0,4}}\)?(?:(?: ?[/\u2010-\u2013-] ?|[ .\u00a0])\d{{2,8}}){{1,5}}{_AFTER}{_EXTENSION}"
)
_TRUNK_WHOLE = re.compile(rf"{_BEFORE}0[1-9]\d{{8,9}}{_AFTER}")
_BRACKETED = re.compile(rf"{_BEFORE}\((?!19|20)\d{{2,4}}\) ?\d{{3,5}}[ -]?\d{{3,5}}{_AFTER}")
_CHINESE = re.compile(rf"{_BEFORE}1[3-9]\d([ -])\d{{4}}\1\d{{4}}{_AFTER}")
_NAMED = re.compile(
    r"(?<!\w)(?:tele?phone|tel|telefon|telefono|teléfono|téléphone|tél|phone|mobile|mobil|cell|cellphone|handy|fax|whatsapp"
    r"|sms|call|text|dial|ring|rufnummer|telefonnummer|celular|móvil|portable|电话|手机|電話|携帯|телефон|тел)"
    r"[ \t.:#=/\"'-]{0,4}(?:(?:me|us|is|at|on|no|nr|num|number|numbers|nummer|unter)\b[ \t.:#=/\"'-]{0,4}){0,3}"
    r"([+(]{0,2}\d(?:[ ().\u00a0\u2010-\u2013/-]{0,3}\d){6,14})(?!\w|[.,:/-]\d)",
    re.IGNORECASE,
)
_LAST_GROUP = re.compile(r"[^\d]*+\d+\)?\Z")
_DATE = re.compile(r"\d{1,2}([./-])\d{1,2}\1\d{2,4}(?!\d)|\d{4}([./-])\d{1,2}\2\d{1,2}(?!\d)")


def telephones(text: str) -> Iterator[Span]:
    """Telephone numbers, their extension with them. One number may come from several forms."""
    for pattern, holds in _FORMS:
        for match in matches(pattern, text):
            number = match[0]
            while number and not holds(number):
                # A number behind it that is no part of it: the form of an international one leaves that open.
                number = _LAST_GROUP.sub("", number) if pattern is _INTERNATIONAL else ""
            if number:
                yield Span(match.start(), match.start() + len(number), "phone")
    for match in matches(_NAMED, text):
        if not _DATE.match(match[1]):
            yield Span(*match.span(1), "phone")


def _digits(number: str) -> str:
    """The digits of a number, without its extension."""
    return "".join(str(int(char)) for char in re.split("[x#e,]", number)[0] if char.isdecimal())


def _international(number: str) -> bool:
    """Whether a country has the code, and the number a length that may be."""
    digits = _digits(number).removeprefix("00")
    if digits.startswith("1"):
        return len(digits) == 11 and digits[1] in "23456789" and digits[4] in "23456789"
    return 8 <= len(digits) <= 15 and any(digits[:length] in _COUNTRIES for length in (1, 2, 3))


def _north_american(number: str) -> bool:
    """Area and exchange are no N11 codes (North American Numbering Plan)."""
    digits = _digits(number)[-10:]
    return digits[1:3] != "11" and digits[4:6] != "11"


def _trunk(number: str) -> bool:
    return 9 <= len(_digits(number)) <= 12 and not _DATE.match(number)


def _whole(number: str) -> bool:
    """Not the digits in their order, which are an example of digits."""
    return number not in "01234567890123"


def _bracketed(number: str) -> bool:
    return 8 <= len(_digits(number)) <= 12


def _any(number: str) -> bool:
    return True


_FORMS: tuple[tuple[re.Pattern[str], Callable[[str], bool]], ...] = (
    (_INTERNATIONAL, _international),
    (_NORTH_AMERICAN, _north_american),
    (_TRUNK, _trunk),
    (_TRUNK_WHOLE, _whole),
    (_BRACKETED, _bracketed),
    (_CHINESE, _any),
)
