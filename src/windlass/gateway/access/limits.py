"""Budgets and rates: what a call may use up is held before it is sent, and settled by what it did use.

    asked -> hold (an upper bound of what it may cost) -> settle (what it cost)

A call is let in where used + held + its own bound fits into every limit that is about it, so that calls under way can
never overspend together. Checking and holding happen without a pause between them: one event loop, no lock. What was
used of a budget is committed with the outcome of the call; what was only held is gone with the process. Where several
processes share a database, each counts against the part of a limit that it was lent (leases.py).
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final, Literal, NamedTuple, Protocol, TypeAlias

import msgspec

from windlass.errors import LimitReached, SettingsError
from windlass.gateway.options import LimitOptions
from windlass.ledger.ledger import Spend
from windlass.stats.dollars import dollars

Measure: TypeAlias = Literal["nusd", "requests", "tokens", "concurrent"]
SECONDS: Final = {"minute": 60, "hour": 3_600, "day": 86_400}
KNOWN: Final = 1_024
"""Of so many callers it is remembered which limits are about them; with twice as many counts as the last time, but no
fewer than this, those of windows that are over are let go."""
USD: Final = 10**9
TRIES: Final = 16
"""So often a call asks for a larger part of a limit, where others of its process take what it got."""


class Place(NamedTuple):
    """Which count: of a limit, for a group (a key, a user, ...), of a measure, in the window that began at `since`."""

    limit: str
    group: str
    measure: Measure
    since: int


@dataclass(slots=True)
class Used:
    """What of `most` is used, and what is held by calls under way.

    lent: the part of `most` that this process may use, where it shares the limit with others; None: all of it.
    kept: what of `used` is committed. elsewhere: others hold a part of it that they do not use.
    """

    place: Place
    most: int
    ends: float
    used: int = 0
    held: int = 0
    lent: int | None = None
    kept: int = 0
    elsewhere: bool = False

    @property
    def left(self) -> int:
        # What was lent may be more than a limit that was lowered since.
        return (self.most if self.lent is None else min(self.lent, self.most)) - self.used - self.held


class Claim(msgspec.Struct, frozen=True):
    """Who wants to use up how much, at most. `key`, `team` and `user` are '' where there is none.

    begins: whether a call begins with it; what goes on with one counts as none of its own.
    """

    tenant: str
    team: str
    key: str
    user: str
    model: str
    nusd: int
    tokens: int
    begins: bool = True


class Short(NamedTuple):
    """A count with less left than the `amount` that a call wants."""

    limit: LimitOptions
    used: Used
    amount: int


class _Asked(NamedTuple):
    """One thing that a call is held against: at most so much of a measure for a group, by a limit."""

    limit: LimitOptions
    group: str
    measure: Measure
    most: int


class Lender(Protocol):
    """Who divides limits among the processes that share them."""

    def fresh(self) -> bool:
        """Whether what was lent still stands."""
        ...

    async def lend(self, short: Sequence[Short]) -> bool:
        """Raise `lent` of the counts, by as much as there is; whether it was enough for all."""
        ...


class Hold:
    """What one call holds until it is settled. Settling twice changes nothing."""

    def __init__(self, held: Sequence[tuple[Used, int]] = ()):
        self._held = held
        self._settled: list[tuple[Used, int]] = []

    def settle(self, nusd: int, tokens: int, outcome: str = "") -> tuple[Spend, ...]:
        """Give back what was held, count what was used; returns what must be committed with the outcome."""
        held, self._held = self._held, ()
        spent = []
        used = {"nusd": nusd, "tokens": tokens, "concurrent": 0}
        for count, amount in held:
            measure = count.place.measure
            count.held -= amount
            count.used += used.get(measure, amount)  # requests: as many as were held
            if measure == "nusd" and nusd:
                self._settled.append((count, nusd))
                name, group, _, since = count.place
                spent.append(Spend(limit=name, group=group, since=since, nusd=nusd, outcome=outcome))
        return tuple(spent)

    def follow(self, commit: asyncio.Future[int] | None) -> None:
        """What `settle` returned is in the ledger, or will be once `commit` is over."""
        if commit is None:
            self.committed()
        else:
            commit.add_done_callback(self.committed)

    def committed(self, commit: asyncio.Future[int] | None = None) -> None:
        """It is, unless `commit` failed."""
        if commit is not None and (commit.cancelled() or commit.exception() is not None):
            return
        settled, self._settled = self._settled, []
        for count, nusd in settled:
            count.kept += nusd


class Limits:
    """All limits of the settings and of the keys.

    spent: what of budgets was used before this process, nano-dollars by (limit, group, begin of the window).
    lender: set where other processes count against the same limits; then what they used is its business.
    """

    def __init__(
        self,
        limits: Iterable[LimitOptions],
        spent: Mapping[tuple[str, str, int], int] | None = None,
        lender: Lender | None = None,
    ):
        self._limits = checked(limits)
        self._spent = dict(spent or {})
        self._lender = lender
        self._counts: dict[Place, Used] = {}
        self._sweep_at = KNOWN
        self._windows: dict[str, tuple[int, float]] = {}
        self._about: dict[tuple[str, str, str, str, str], tuple[Sequence[LimitOptions], Sequence[_Asked]]] = {}

    @property
    def any(self) -> bool:
        """Whether there is anything to hold a call against."""
        return bool(self._limits)

    def replace(self, limits: Iterable[LimitOptions]) -> None:
        """Other limits from now on, for calls under way as well. What is used and held of one goes on where another of
        the same name counts the same: for the same group, in a window that began at the same time."""
        self._limits = checked(limits)
        self._about.clear()

    async def reserve(self, claim: Claim, now: float, more: Sequence[LimitOptions] = ()) -> Hold:
        """Hold what a call may use up. more: the limits of its key. LimitReached, and nothing held, where it is too
        much."""
        for left in reversed(range(TRIES)):
            held, short = self._look(claim, now, more)
            if not short:
                for count, amount in held:
                    count.held += amount
                return Hold(held)
            if not (left and await self._lent(short)):
                break
        raise _refused(_worst(short), now)

    async def _lent(self, short: Sequence[Short]) -> bool:
        """Whether another process has given enough for a second look; nobody can for more than the whole limit."""
        if self._lender is None or any(one.amount > one.used.most for one in short):
            return False
        return await self._lender.lend(short)

    def _look(
        self, claim: Claim, now: float, more: Sequence[LimitOptions]
    ) -> tuple[list[tuple[Used, int]], list[Short]]:
        """What a call would hold, and where that is more than there is."""
        if len(self._counts) >= self._sweep_at:
            self._sweep(now)
        held: list[tuple[Used, int]] = []
        short = []
        stale = self._lender is not None and not self._lender.fresh()
        calls = int(claim.begins)
        amounts: dict[Measure, int] = {
            "nusd": claim.nusd,
            "requests": calls,
            "tokens": claim.tokens,
            "concurrent": calls,
        }
        for limit, group, measure, most in self._asked(claim, more):
            count, amount = self._count(limit, group, measure, most, now), amounts[measure]
            if count.left < amount or stale:
                short.append(Short(limit, count, amount))
            held.append((count, amount))
        return held, short

    def counts(self) -> list[Used]:
        """Every count of a window that is not over, for the pages."""
        return sorted(self._counts.values(), key=lambda count: count.place)

    def budget(self, limit: LimitOptions, group: str, now: float) -> Used | None:
        """What a group has used of a limit's money in the window of `now`; None where nothing was held of it yet."""
        return self._counts.get(Place(limit.name, group, "nusd", self._window(limit.window, now)[0]))

    def _asked(self, claim: Claim, more: Sequence[LimitOptions]) -> Sequence[_Asked]:
        """What a caller is held against; found once for each. The limits of a key count for it alone, whatever else is
        named like them."""
        who = (claim.tenant, claim.team, claim.key, claim.user, claim.model)
        known = self._about.get(who)
        if known is not None and known[0] is more:
            return known[1]
        if len(self._about) >= KNOWN:
            self._about.clear()
        groups = [(limit, _GROUPS[limit.per](claim)) for limit in self._limits if _is_about(who, limit)]
        groups += [(limit, f"/{claim.tenant}/{claim.key}/{_GROUPS[limit.per](claim)}") for limit in more]
        found = [_Asked(limit, group, *counted) for limit, group in groups for counted in _counted(limit)]
        self._about[who] = more, found
        return found

    def _count(self, limit: LimitOptions, group: str, measure: Measure, most: int, now: float) -> Used:
        since, ends = (0, math.inf) if measure == "concurrent" else self._window(limit.window, now)
        place = Place(limit.name, group, measure, since)
        count = self._counts.get(place)
        if count is None:
            spent = self._spent.pop((limit.name, group, since), 0) if measure == "nusd" else 0
            lent = None if self._lender is None else 0
            count = self._counts[place] = Used(place, most, ends, used=spent, lent=lent)
        count.most, count.ends = most, ends  # the limit may have been changed
        return count

    def _window(self, kind: str, now: float) -> tuple[int, float]:
        """`window`, which most often is the one that was asked for last."""
        known = self._windows.get(kind)
        if known is None or not known[0] <= now < known[1]:
            known = self._windows[kind] = window(kind, now)
        return known

    def _sweep(self, now: float) -> None:
        """Let go what nobody will ask for: a window is kept for its own length after its end, as a clock may be set
        back, and every total is kept."""
        over = [place for place, count in self._counts.items() if not count.held and _is_over(count, now)]
        for place in over:
            del self._counts[place]
        self._sweep_at = max(KNOWN, 2 * len(self._counts))


def checked(limits: Iterable[LimitOptions]) -> tuple[LimitOptions, ...]:
    """The limits as they are. SettingsError for one that no number is."""
    found = tuple(limits)
    for limit in found:
        if limit.usd is not None and not math.isfinite(limit.usd):
            raise SettingsError(f"limits: usd of {limit.name!r} is {limit.usd}; give a number of US dollars")
    return found


def _is_over(count: Used, now: float) -> bool:
    if count.place.measure == "concurrent":
        return not count.lent
    return count.ends + (count.ends - count.place.since) <= now


def window(kind: str, now: float) -> tuple[int, float]:
    """(begin, end) in UTC seconds of the window that `now` lies in."""
    if kind == "total":
        return 0, math.inf
    if kind == "month":
        first = datetime.fromtimestamp(now, UTC).replace(day=1, hour=0, minute=0, second=0, microsecond=0)
        after = first.replace(year=first.year + first.month // 12, month=first.month % 12 + 1)
        return int(first.timestamp()), after.timestamp()
    begin = int(now // SECONDS[kind]) * SECONDS[kind]
    return begin, begin + SECONDS[kind]


def _is_about(who: tuple[str, str, str, str, str], limit: LimitOptions) -> bool:
    names = (limit.tenant, limit.team, limit.key, limit.user, limit.model)
    return all(name in ("", is_) for name, is_ in zip(names, who, strict=True))


_GROUPS: Final[Mapping[str, Callable[[Claim], str]]] = {
    "all": lambda claim: "",
    "tenant": lambda claim: claim.tenant,
    "team": lambda claim: f"{claim.tenant}/{claim.team}",
    "key": lambda claim: f"{claim.tenant}/{claim.key}",
    "user": lambda claim: f"{claim.tenant}/{claim.user}",
    "model": lambda claim: claim.model,
}


def _counted(limit: LimitOptions) -> Iterator[tuple[Measure, int]]:
    """(measure, at most) for all that a limit counts."""
    if limit.usd is not None:
        # A key's own may be beyond all numbers; such a one leaves nothing.
        yield "nusd", round(limit.usd * USD) if math.isfinite(limit.usd) else 0
    if limit.requests is not None:
        yield "requests", limit.requests
    if limit.tokens is not None:
        yield "tokens", limit.tokens
    if limit.concurrent is not None:
        yield "concurrent", limit.concurrent


_WORDS: Final[Mapping[Measure, str]] = {
    "nusd": "budget",
    "requests": "request rate",
    "tokens": "token rate",
    "concurrent": "number of calls at once",
}


def _worst(short: Sequence[Short]) -> Short:
    """What to tell of: a call beyond the whole limit, else what is still too little, else the first."""
    beyond = (one for one in short if one.amount > one.used.most)
    still = (one for one in short if one.used.left < one.amount)
    return next(beyond, None) or next(still, None) or short[0]


def _refused(short: Short, now: float) -> LimitReached:
    limit, count, amount = short
    measure = count.place.measure
    wait_s = None if math.isinf(count.ends) else max(1, math.ceil(count.ends - now))
    if amount > count.most:
        wait_s = None
    elif measure == "concurrent" or count.elsewhere:
        wait_s = 1
    shown, unit = (dollars, " USD") if measure == "nusd" else (str, "")
    said = f"{shown(count.used)} used, {shown(count.held)} held by calls under way, {shown(amount)} wanted"
    by = "" if count.lent is None else "; more by other workers"
    window_said = "" if measure == "concurrent" or limit.window == "total" else f" a {limit.window}"
    return LimitReached(
        f"limit {limit.name!r}: {_WORDS[measure]} of {shown(count.most)}{unit}{window_said} is reached ({said}{by})",
        limit=limit.name,
        retry_after_s=wait_s,
        spent=measure == "nusd",
    )
