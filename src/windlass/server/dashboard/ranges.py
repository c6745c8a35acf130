"""The one time-range picker: a stretch of time that ends now, kept in the address."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import urlencode

from starlette.requests import Request

from windlass.watch.store import HOUR_S

DAY_HOURS = 24
WEEK_HOURS = 7 * DAY_HOURS


@dataclass(frozen=True)
class Range:
    """A stretch of time that ends now; `hours` 0 is everything."""

    name: str
    label: str
    words: str
    hours: int

    def since(self, now: float) -> float:
        """Where it begins, UTC seconds."""
        return now - self.hours * HOUR_S if self.hours else 0.0

    def axis(self, first: float, now: float) -> tuple[float, float]:
        """(first, last) of a chart by the hour: at least a day, to have something to compare with, at most a week, so
        that a mark stays a mark. first: where the data begin, for the range of everything."""
        day, week = now - (DAY_HOURS - 1) * HOUR_S, now - (WEEK_HOURS - 1) * HOUR_S
        return min(max(self.since(now) or max(week, first), week), day), now


RANGES = (
    Range("1h", "1 h", "the last hour", 1),
    Range("24h", "24 h", "the last 24 hours", DAY_HOURS),
    Range("7d", "7 d", "the last 7 days", WEEK_HOURS),
    Range("all", "All", "all time", 0),
)
DEFAULT_RANGE, EVERYTHING = RANGES[1], RANGES[3]


def chosen(request: Request, default: Range = DEFAULT_RANGE) -> Range:
    """The range in the address, or the default."""
    return next((known for known in RANGES if known.name == request.query_params.get("range")), default)


def asked(request: Request, name: str, limit: int = 200) -> str:
    """One word of a filter in the address, '' where it is absent."""
    return request.query_params.get(name, "").strip()[:limit]


def address(path: str, fields: dict[str, str], anchor: str = "") -> str:
    """`path` with those of `fields` that say something."""
    query = urlencode({name: value for name, value in fields.items() if value})
    return path + (f"?{query}" if query else "") + (f"#{anchor}" if anchor else "")
