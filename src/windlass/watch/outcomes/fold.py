"""The fold over outcomes: who answered, who failed and why, since when, and what recovered.

An episode is a run of failures of one model of one provider for one cause. It goes on until the model answers again,
and a failure within `QUIET_S` of its last one belongs to it still, so that a provider that flaps makes one episode,
not hundreds. Nothing here looks at a clock or a database: the same outcomes in the same order make the same episodes,
in batches of any size.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final, NamedTuple, TypeAlias

import msgspec

from windlass.errors import HANDLING, Audience, ErrorCategory
from windlass.watch.sketch import Sketch

QUIET_S: Final = 900.0
HOUR_S: Final = 3_600
NAME_CHARS: Final = 200
"""Of a name, where it is part of a key: PostgreSQL refuses long ones."""

Target: TypeAlias = tuple[str, str, str, str]
"""Tenant, workspace, provider, model."""
Cause: TypeAlias = tuple[str, str, str, str, str]
"""A target and an error category."""
Row: TypeAlias = dict[str, Any]


class EndedCall(NamedTuple):
    """One outcome as it is read for this fold; `extra` is its JSON."""

    seq: int
    tenant: str
    workspace: str
    at: float
    model: str
    provider: str
    latency_ms: float
    first_byte_ms: float
    cost_nusd: int
    error: str
    extra: str


class Tried(msgspec.Struct, frozen=True):
    """What of an attempt counts here."""

    provider: str = ""
    model: str = ""
    category: str = ""
    sent: bool = True
    started_ms: float = 0.0
    took_ms: float = 0.0


class _Extra(msgspec.Struct, frozen=True):
    attempts: tuple[Tried, ...] = ()
    key: str = ""
    imported: str = ""


_EXTRA = msgspec.json.Decoder(_Extra).decode
_NOTHING = _Extra()
_NOBODYS = frozenset(category.value for category, how in HANDLING.items() if how.audience is Audience.NOBODY)
"""Nobody failed: the client left, the process ended, a faster attempt made this one needless."""


class Gains:
    """What a batch of outcomes adds to the tables.

    failing: the episodes that are not over. newest: finds the newest episode of a cause, None where there was none.
    `hours`, `keys` and `episodes` are rows by the primary keys of their tables.
    """

    def __init__(self, failing: Iterable[Row], newest: Callable[[Cause], Row | None]):
        self.hours: dict[tuple[str, str, int, str, str], Row] = {}
        self.keys: dict[tuple[str, str, int, str], Row] = {}
        self.episodes: dict[tuple[str, str, str, str, str, int], Row] = {}
        self._newest = newest
        self._known: dict[Cause, Row | None] = {}
        self._failing: dict[Target, dict[Cause, Row]] = defaultdict(dict)
        for row in failing:
            cause = cause_of(row)
            self._failing[cause[:4]][cause] = row
            self._known[cause] = row

    def take(self, ended: EndedCall) -> None:
        """Count one outcome; the outcomes of a ledger in its order."""
        extra = _read(ended.extra)
        if extra.imported:  # the providers of another program, at another time
            return
        if extra.key:
            self._used(ended, extra.key)
        failures = _failures(ended, extra.attempts)
        answered = not ended.error
        target = _target(ended, ended.provider, ended.model)
        met: set[tuple[str, str, str]] = set()
        for tried in failures:
            came_of_it = "" if (tried.provider, tried.model, tried.category) in met else _became(ended, tried)
            self._failed(ended, tried, came_of_it)
            if tried.sent:
                met.add((tried.provider, tried.model, tried.category))
        if answered and ended.provider:
            self._answered(ended, target, extra.attempts)

    def _used(self, ended: EndedCall, key: str) -> None:
        place = ended.tenant, ended.workspace, _hour(ended.at), key[:NAME_CHARS]
        row = self.keys.setdefault(place, {"calls": 0, "errors": 0, "cost_nusd": 0, "last_at": ended.at})
        row["calls"] += 1
        row["errors"] += ended.error != ""
        row["cost_nusd"] += ended.cost_nusd
        row["last_at"] = max(row["last_at"], ended.at)

    def _hour(self, ended: EndedCall, target: Target) -> Row:
        tenant, workspace, provider, model = target
        place = tenant, workspace, _hour(ended.at), provider, model
        row = self.hours.get(place)
        if row is None:
            row = self.hours[place] = {
                "answered": 0, "failed": 0, "skipped": 0, "latency": Sketch(), "first_byte": Sketch()
            }  # fmt: skip
        return row

    def _answered(self, ended: EndedCall, target: Target, attempts: Sequence[Tried]) -> None:
        row = self._hour(ended, target)
        row["answered"] += 1
        # A call that came here by fail-over is this target's from the moment when it was asked.
        mine = next((one for one in reversed(attempts) if not one.category), None)
        waited_ms = mine.started_ms if mine is not None else 0.0
        row["latency"].add(max(0.0, ended.latency_ms - waited_ms))
        row["first_byte"].add(mine.took_ms if mine is not None else ended.first_byte_ms)
        for cause, episode in self._failing.pop(target, {}).items():
            retried = any((one.provider, one.model, one.category) == cause[2:] for one in attempts)
            by = "probe" if episode["left_alone"] else "retry" if retried else "call"
            episode.update(recovered_at=max(ended.at, episode["last"]), recovered_by=by, left_alone=False)
            self._touch(episode)

    def _failed(self, ended: EndedCall, tried: Tried, came_of_it: str) -> None:
        """Count an attempt that failed. came_of_it: of the call, '' where it met this failure before."""
        target = _target(ended, tried.provider, tried.model)
        hour = self._hour(ended, target)
        hour["failed" if tried.sent else "skipped"] += 1
        episode = self._episode(ended, (*target, tried.category[:NAME_CHARS]))
        episode["last"] = max(episode["last"], ended.at)
        episode["failed" if tried.sent else "skipped"] += 1
        if came_of_it:
            episode[came_of_it] += 1
        episode.update(recovered_at=None, recovered_by="", left_alone=not tried.sent)
        self._touch(episode)

    def _episode(self, ended: EndedCall, cause: Cause) -> Row:
        """The episode that goes on, or a new one."""
        row = self._known[cause] if cause in self._known else self._newest(cause)
        if row is None or (row["recovered_at"] is not None and ended.at - row["last"] > QUIET_S):
            row = {
                **dict(zip(("tenant", "workspace", "provider", "model", "error"), cause, strict=True)),
                **{"place": ended.seq, "since": ended.at, "last": ended.at},
                **dict.fromkeys(("failed", "skipped", "retried", "failed_over", "lost"), 0),
                **{"left_alone": False, "recovered_at": None, "recovered_by": ""},
            }
        self._known[cause] = self._failing[cause[:4]][cause] = row
        return row

    def _touch(self, episode: Row) -> None:
        self.episodes[(*cause_of(episode), episode["place"])] = episode


def cause_of(row: Row) -> Cause:
    """Whose episode it is."""
    return row["tenant"], row["workspace"], row["provider"], row["model"], row["error"]


def _read(extra: str) -> _Extra:
    """What other programs wrote there in another shape is none of this."""
    if extra == "{}":
        return _NOTHING
    try:
        return _EXTRA(extra)
    except (msgspec.MsgspecError, UnicodeEncodeError):
        return _NOTHING


def _failures(ended: EndedCall, attempts: Sequence[Tried]) -> list[Tried]:
    """The attempts that failed, and the stream that broke off after a good beginning."""
    failed = [one for one in attempts if one.category and one.category not in _NOBODYS]
    if not ended.error or ended.error in _NOBODYS:
        return failed
    if attempts and all(one.category for one in attempts):
        return failed
    return [*failed, Tried(ended.provider, ended.model, ended.error)] if ended.provider else failed


def _became(ended: EndedCall, tried: Tried) -> str:
    """What came of a call that met a failure; '' where that attempt was never sent, or nobody waited for the end."""
    if not tried.sent or ended.error in _NOBODYS:
        return ""
    if ended.error:
        return "lost"
    return "retried" if (ended.provider, ended.model) == (tried.provider, tried.model) else "failed_over"


def _target(ended: EndedCall, provider: str, model: str) -> Target:
    return ended.tenant, ended.workspace, provider[:NAME_CHARS], model[:NAME_CHARS]


def _hour(at: float) -> int:
    return int(at // HOUR_S) * HOUR_S


def whose(error: str) -> str:
    """Who can mend a cause: `client`, `operator`, `developer` or `nobody`; of one that is not known, `operator`."""
    known = error in ErrorCategory._value2member_map_
    return HANDLING[ErrorCategory(error)].audience.value if known else Audience.OPERATOR.value
