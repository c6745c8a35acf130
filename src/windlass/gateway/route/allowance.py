"""What a call may spend on average from now on, so that the tightest budget that is about it lasts through its window.

    allowance = what is left of the budget / calls expected in the rest of the window

What was not spent is carried over to the rest of the window by itself. Calls are expected at the rate that was seen in
the window; those that are refused are none. Money that calls under way hold does not count as spent: it is what they
may cost at most, many times what they will.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence

from windlass.gateway.access.admission import Caller
from windlass.gateway.access.limits import Limits, Place, Used
from windlass.gateway.options import LimitOptions
from windlass.gateway.route.features import Question
from windlass.gateway.route.latest import Latest
from windlass.records import Scope

SMOOTHED = 0.01
"""Of a window: so long the first calls count as, or a burst at its begin would count as the pace of all of it."""
LOOK_S = 1.0
MOST_KNOWN = 10_000


class Allowances:
    """How many calls of each budget have ended in its window, in this process. options: the limits of the settings."""

    def __init__(self, options: Callable[[], Sequence[LimitOptions]]) -> None:
        self._options = options
        self._seen: Latest[Place, tuple[float, int]] = Latest(MOST_KNOWN)
        self._found: Latest[tuple[Scope, str, str, str], tuple[float, list[Used]]] = Latest(MOST_KNOWN)

    def allowance_nusd(self, limits: Limits, caller: Caller, user: str, now: float) -> float | None:
        """Nano-dollars that this call may spend by the tightest of its budgets; None without a budget that ends.

        now: UTC seconds.
        """
        budgets = self._budgets(limits, caller, user, now)
        return min((self._share(used, now) for used in budgets), default=None)

    def ended(self, asked: Question, now: float) -> None:
        """A call was let in and is over: budgets expect more like it. Whoever is beyond a rate makes nobody's part
        smaller by asking again."""
        for used in self._budgets(asked.limits, asked.caller, asked.asked.user, now):
            first, calls = self._pace(used, now)
            self._seen.put(used.place, (first, calls + 1))

    def _budgets(self, limits: Limits, caller: Caller, user: str, now: float) -> list[Used]:
        """The budgets of a caller, which are looked for once a second: each counts on by itself."""
        who = (caller.scope, caller.team, caller.key, user)
        until, found = self._found.get(who, (0.0, []))
        if until - LOOK_S <= now < until:
            return [used for used in found if now < used.ends]
        counts = [limits.budget(limit, group, now) for limit, group in _about(self._options(), caller, user)]
        found = [count for count in counts if count is not None and _paced(count, now)]
        self._found.put(who, (now + LOOK_S, found))
        return found

    def _share(self, used: Used, now: float) -> float:
        """What one call may take of a budget; never less than nothing."""
        first, calls = self._pace(used, now)
        rate = (calls + 1) / max(now - first, SMOOTHED * _length_s(used))
        return max(0.0, (used.most - used.used) / max(1.0, rate * (used.ends - now)))

    def _pace(self, used: Used, now: float) -> tuple[float, int]:
        """Since when the calls of a budget are counted, and how many they are."""
        return self._seen.get(used.place, (max(now - SMOOTHED * _length_s(used), used.place.since), 0))


def _length_s(used: Used) -> float:
    return used.ends - used.place.since


def _paced(used: Used, now: float) -> bool:
    """Whether it is money of a window that goes on and will end.

    Each worker of several has a part of a limit that says nothing of the whole.
    """
    since, ends = used.place.since, used.ends
    return used.place.measure == "nusd" and since <= now < ends and math.isfinite(ends) and used.lent is None


def _about(options: Iterable[LimitOptions], caller: Caller, user: str) -> Iterator[tuple[LimitOptions, str]]:
    """The budgets that are about a call whoever answers it, each with the group whose count holds for it."""
    tenant = caller.scope.tenant
    who = {"all": "", "tenant": tenant} | {
        name: f"{tenant}/{is_}" for name, is_ in (("team", caller.team), ("key", caller.key), ("user", user))
    }
    of = {"tenant": tenant, "team": caller.team, "key": caller.key, "user": user}
    for limit in options:
        about = all(getattr(limit, name) in ("", is_) for name, is_ in of.items())
        if limit.usd is not None and about and not limit.model and limit.per != "model":
            yield limit, who[limit.per]
    for limit in caller.limits:
        if limit.usd is not None and limit.per != "model":
            yield limit, f"/{tenant}/{caller.key}/{who[limit.per]}"
