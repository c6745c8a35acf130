"""The values in rows of exports, each checked: a time, an amount, a count, a text. CSV has them all as text.

InputError of each says a reason and behind a colon what was found: `cost: nan is no amount of US dollars`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from datetime import UTC, datetime
from decimal import ROUND_HALF_EVEN, Context, Decimal, InvalidOperation
from typing import Any, Final, TypeAlias

import msgspec

from windlass.errors import ErrorCategory, InputError
from windlass.gateway.feedback import AHEAD_S, EARLIEST_S
from windlass.gateway.history.past import MOST_NUSD

Row: TypeAlias = Mapping[str, Any]
MOST_TOKENS: Final = 10**12
MOST_MS: Final = 1e12
SHOWN_CHARS: Final = 60
_EXACT: Final = Context(prec=400, rounding=ROUND_HALF_EVEN)
_ENCODE: Final = msgspec.json.Encoder(decimal_format="number").encode
_BY_STATUS: Final = {
    400: ErrorCategory.UPSTREAM_REQUEST_REFUSED,
    401: ErrorCategory.UPSTREAM_KEY_REFUSED,
    403: ErrorCategory.UPSTREAM_DENIED,
    404: ErrorCategory.UPSTREAM_MODEL_MISSING,
    408: ErrorCategory.TOTAL_TIMEOUT,
    409: ErrorCategory.UPSTREAM_CONFLICT,
    422: ErrorCategory.UPSTREAM_REQUEST_REFUSED,
    429: ErrorCategory.RATE_LIMITED,
    504: ErrorCategory.TOTAL_TIMEOUT,
}


def first(row: Row, *names: str) -> Any:
    """The first of the fields that is there and not empty; None where none is."""
    return next((row[name] for name in names if row.get(name) not in (None, "")), None)


def text(row: Row, *names: str, most: int = 500) -> str:
    """A text; '' where there is none. InputError for what no database can hold."""
    found = first(row, *names)
    if found is None:
        return ""
    if not isinstance(found, str | int | Decimal):
        raise InputError(f"{names[0]}: {shown(found)} is no text")
    said = str(found)
    if "\x00" in said or not _encodable(said):
        raise InputError(f"{names[0]}: holds a character that cannot be stored")
    return said[:most]


def source(row: Row, *names: str) -> str:
    """The row's own id, which tells it from all others. InputError where it has none, or one beyond measure."""
    found = text(row, *names, most=2_000)
    if not found or len(found) > 1_000:
        raise InputError(f"id: {shown(found) if found else f'{names[0]} is empty'}; a row needs one, of 1000 at most")
    return found


def moment(row: Row, *names: str, now: float) -> float | None:
    """A time as UTC seconds, None where there is none: seconds since 1970, or ISO 8601, which is UTC unless it says.

    InputError for what is no time, before 2000 or in the future.
    """
    found = first(row, *names)
    if found is None:
        return None
    at = _seconds(found, names[0])
    if not math.isfinite(at) or not EARLIEST_S <= at <= now + AHEAD_S:
        raise InputError(f"time: {names[0]} is {shown(found)}; times are from 2000 to now")
    return at


def began(row: Row, *names: str, now: float) -> float:
    """`moment` of what must have one."""
    at = moment(row, *names, now=now)
    if at is None:
        raise InputError(f"time: there is no {names[0]}")
    return at


def nusd(row: Row, *names: str) -> int | None:
    """US dollars as nano-dollars, exact and rounded half-even once; None where there are none."""
    found = first(row, *names)
    if found is None:
        return None
    usd = _number(found, "cost", names[0])
    if not 0 <= usd <= MOST_NUSD // 10**9:
        raise InputError(f"cost: {names[0]} is {shown(found)}; a call costs from 0 to a million US dollars")
    return int(usd.scaleb(9, _EXACT).quantize(Decimal(1), context=_EXACT))


def tokens(row: Row, *names: str) -> int | None:
    """A count of tokens; None where it is not said."""
    found = first(row, *names)
    if found is None:
        return None
    count = _number(found, "tokens", names[0])
    if not 0 <= count <= MOST_TOKENS or count != count.to_integral_value():
        raise InputError(f"tokens: {names[0]} is {shown(found)}; a count is a whole number of at least 0")
    return int(count)


def milliseconds(row: Row, *names: str, unit_ms: float = 1.0) -> float | None:
    """How long something took; None where it is not said. unit_ms: of what the row says."""
    found = first(row, *names)
    if found is None:
        return None
    took = _number(found, "duration", names[0])
    if not 0 <= took <= Decimal(MOST_MS):
        raise InputError(f"duration: {names[0]} is {shown(found)}; it is at least 0")
    return min(float(took) * unit_ms, MOST_MS)


def share(row: Row, *names: str) -> float | None:
    """A number from 0 to 1, or a truth; None where it is not said."""
    found = first(row, *names)
    if isinstance(found, bool) or found is None:
        return None if found is None else float(found)
    value = _number(found, "score_scale", names[0])
    if not 0 <= value <= 1:
        raise InputError(f"score_scale: {names[0]} is {shown(found)}; only 0 to 1 has a known scale")
    return float(value)


def between_ms(start: float, end: float | None) -> float:
    """Milliseconds from one time to another; 0 where clocks disagree or the end is not known."""
    return min(max(0.0, ((end or start) - start) * 1000), MOST_MS)


def flag(row: Row, *names: str) -> bool:
    """A truth; False where it is not said."""
    found = first(row, *names)
    return found is True or (isinstance(found, str) and found.strip().lower() in ("true", "t", "1"))


def mapping(row: Row, *names: str) -> dict[str, Any]:
    """An object, which CSV has as JSON text; empty where there is none."""
    found = nested(row, *names)
    return found if isinstance(found, dict) else {}


def nested(row: Row, *names: str) -> Any:
    """A value that may be JSON in a text; what is no JSON stays text."""
    found = first(row, *names)
    if not isinstance(found, str) or not found.lstrip().startswith(("{", "[")):
        return found
    try:
        return parsed(found)
    except (ValueError, RecursionError):
        return found


def as_json(value: Any) -> str:
    """A body as JSON text; '' for nothing."""
    if value in (None, "", [], {}):
        return ""
    try:
        return _ENCODE(value).decode()
    except (TypeError, ValueError, RecursionError) as exc:
        raise InputError(f"body: cannot be kept: {exc}") from exc


def failure(status: int) -> str:
    """The cause that an upstream's status tells."""
    if status in _BY_STATUS:
        return _BY_STATUS[status].value
    refused = 400 <= status < 500
    server = ErrorCategory.UPSTREAM_SERVER_ERROR if status >= 500 else ErrorCategory.UPSTREAM_FAILED
    return (ErrorCategory.UPSTREAM_REQUEST_REFUSED if refused else server).value


def parsed(said: str) -> Any:
    """JSON, its fractions exact. ValueError, RecursionError where it is none."""
    return DECODER.decode(said)


def shown(value: Any) -> str:
    """A value in a message, cut."""
    said = str(value)[: SHOWN_CHARS + 1].encode(errors="replace").decode()
    return said if len(said) <= SHOWN_CHARS else f"{said[:SHOWN_CHARS]}…"


def _whole(digits: str) -> int | Decimal:
    """Python refuses to read whole numbers of thousands of digits as such."""
    return int(digits) if len(digits) < 100 else Decimal(digits)


DECODER: Final = json.JSONDecoder(parse_float=Decimal, parse_int=_whole, parse_constant=Decimal)
"""Exact for money, and NaN stays one that the reader of its field refuses."""


def _number(found: Any, reason: str, name: str) -> Decimal:
    try:
        number = Decimal(str(found).strip()) if isinstance(found, str | int | float | Decimal) else Decimal("NaN")
    except (InvalidOperation, ValueError):
        number = Decimal("NaN")
    if not number.is_finite() or isinstance(found, bool):
        raise InputError(f"{reason}: {name} is {shown(found)}, which is no number")
    return number


def _seconds(found: Any, name: str) -> float:
    if isinstance(found, str):
        try:
            return _written(found.strip())
        except (ValueError, OverflowError):
            pass
    number = _number(found, "time", name)
    return float(number) if abs(number) < 10**15 else math.inf


def _written(said: str) -> float:
    at = datetime.fromisoformat(said)
    return (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp()


def _encodable(said: str) -> bool:
    return said.isascii() or said == said.encode(errors="replace").decode()
