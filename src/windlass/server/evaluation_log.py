"""Logs of other systems for `windlass replay --log`: JSON Lines, JSON or CSV with one decision a row.

    {"actions": ["small", "large"], "action": "small", "propensity": 0.8, "context": {"words": 12},
     "quality": 0.9, "cost_usd": 0.0004, "id": "7", "at": 1760000000}

`quality` (or `reward`) in [0, 1] and `cost_usd` (or `cost_nusd`) may be missing, as may `context`, `id` and `at`. A row
that cannot be used is left out, counted and named; a quality or a cost that is none is counted, and the row stays, as
to drop rows by what came of them would bend every figure. Of rows with one id the last counts.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

import msgspec

from windlass.errors import InputError
from windlass.gateway.history.past import MOST_NUSD
from windlass.gateway.history.shapes import Broken, Found
from windlass.gateway.history.source import Export
from windlass.gateway.history.values import shown
from windlass.policies.logged import Log, Logged
from windlass.records import ContextValue, Decision
from windlass.stats.dollars import NUSD

SHOWN: Final = 10
MOST_ACTIONS: Final = 200
MOST_ROWS: Final = 1_000_000
MOST_NAMES: Final = 1_000
"""Different actions in all rows together: the arrays have a column for each."""
_FEATURES: Final = 4_096


class FileLog(NamedTuple):
    """What a file holds. bad: the first rows that are wrong, with line, reason and cause. unfinished: it ends early."""

    log: Log
    rows: int
    bad: tuple[dict[str, Any], ...]
    unfinished: bool


class _Unusable(InputError):
    """A row, or a value in it, that cannot be used: the reason by which it is counted, and the cause."""

    def __init__(self, reason: str, why: str) -> None:
        super().__init__(reason, why)
        self.reason, self.why = reason, why


class _Pass:
    """One pass over a file."""

    def __init__(self, point: str) -> None:
        self.point = point
        self.kept: dict[str, Logged] = {}
        self.names: set[str] = set()
        self.left_out: Counter[str] = Counter()
        self.bad: list[dict[str, Any]] = []
        self.rows = 0
        self.unfinished = False

    def take(self, item: Found | Broken) -> None:
        self.rows += 1
        if isinstance(item, Broken):
            self.unfinished = self.unfinished or item.rest
            self.note(item.line, "the row cannot be read", item.why)
            return
        try:
            one = self._one(item)
        except _Unusable as exc:
            self.note(item.line, exc.reason, exc.why)
            return
        self.names.update(one.decision.actions)
        if len(self.names) > MOST_NAMES:
            raise InputError(f"the rows name more than {MOST_NAMES:,} different actions; replay those of one point")
        name = one.decision.id
        if name in self.kept:
            same = (
                msgspec.structs.replace(one.decision, at=0.0)
                == msgspec.structs.replace(self.kept[name].decision, at=0.0)
                and one[1:] == self.kept[name][1:]
            )
            self.left_out["the same row again" if same else "a later row of that id took its place"] += 1
        self.kept[name] = one

    def note(self, line: int, reason: str, why: str) -> None:
        self.left_out[reason] += 1
        if len(self.bad) < SHOWN:
            self.bad.append({"line": line, "reason": reason, "why": why[:200]})

    def _one(self, item: Found) -> Logged:
        row = item.row
        actions = _actions(row)
        action = row.get("action")
        if action not in actions:
            raise _Unusable("the action is none of its actions", f"action is {shown(action)}")
        if len(actions) < 2:
            raise _Unusable("one action was eligible", f"actions are {shown(list(actions))}")
        decision = Decision(
            id=str(row["id"]) if row.get("id") not in (None, "") else f"row {item.line}",
            at=self._known(item, "at", 0.0, math.inf) or 0.0,
            call="",
            point=self.point,
            policy="log@1",
            actions=actions,
            action=str(action),
            propensity=_propensity(row),
            live=True,
            context=_context(row),
        )
        quality = self._known(item, "quality" if "quality" in row else "reward", 0.0, 1.0)
        nusd = self._known(item, "cost_nusd", 0.0, MOST_NUSD)
        usd = self._known(item, "cost_usd", 0.0, MOST_NUSD / NUSD)
        return Logged(decision, quality, usd * NUSD if nusd is None and usd is not None else nusd)

    def _known(self, item: Found, name: str, low: float, high: float) -> float | None:
        """A number that may be missing; one that is none, or out of range, is counted and counts as missing."""
        value = item.row.get(name)
        if value is None or value == "":
            return None
        number = _number(value)
        if number is None or not low <= number <= high or math.isinf(number):
            self.note(item.line, f"{name} is no number from {low:g} to {high:g}", f"{name} is {shown(value)}")
            return None
        return number


def read(path: Path, point: str) -> FileLog:
    """All usable decisions of a file. InputError where it cannot be opened, or holds more than `MOST_ROWS` rows."""
    reading = _Pass(point)
    for item in Export(path).rows():
        if reading.rows >= MOST_ROWS:
            raise InputError(f"{path} holds more than {MOST_ROWS:,} rows; replay a part of it")
        reading.take(item)
    log = Log(tuple(reading.kept.values()), dict(sorted(reading.left_out.items())))
    return FileLog(log, reading.rows, tuple(reading.bad), reading.unfinished)


def _propensity(row: Mapping[str, Any]) -> float:
    value = row.get("propensity")
    if value is None or value == "":
        raise _Unusable("it has no propensity", "the chance with which the action was chosen is not there")
    number = _number(value)
    if number is None or not 0.0 < number <= 1.0:
        raise _Unusable("the propensity is not in (0, 1]", f"propensity is {shown(value)}")
    return number


def _actions(row: Mapping[str, Any]) -> tuple[str, ...]:
    found = _unpacked(row.get("actions"))
    if not isinstance(found, list) or not all(isinstance(one, str) for one in found) or len(found) > MOST_ACTIONS:
        raise _Unusable("it has no list of actions", f"actions is {shown(found)}")
    if not _writable("".join(found)):
        raise _Unusable("an action's name is no text", f"actions is {shown(found)}")
    return tuple(dict.fromkeys(found))


def _context(row: Mapping[str, Any]) -> dict[str, ContextValue]:
    found = _unpacked(row.get("context")) or {}
    if not isinstance(found, Mapping) or len(found) > _FEATURES:
        raise _Unusable("the context is no mapping of names to numbers", f"context is {shown(found)}")
    if not _writable("".join(map(str, found))):
        raise _Unusable("the name of a feature is no text", f"context is {shown(found)}")
    return {str(name): _feature(str(name), value) for name, value in found.items()}


def _writable(name: str) -> bool:
    """Whether it is text that a report can hold; bytes that are none come as halves of surrogate pairs."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _feature(name: str, value: Any) -> ContextValue:
    numbers = [_number(one) for one in (value if isinstance(value, list) else (value,))]
    if len(numbers) > _FEATURES or any(number is None or not math.isfinite(number) for number in numbers):
        raise _Unusable("the context holds what is no number", f"{name[:60]} is {shown(value)}")
    kept = tuple(number for number in numbers if number is not None)
    return kept if isinstance(value, list) else kept[0]


def _number(value: Any) -> float | None:
    """A number, also one that is written as text; None for what is none, NaN among it."""
    if isinstance(value, bool) or value is None:
        return None
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return None if math.isnan(number) else number


def _unpacked(value: Any) -> Any:
    """A list or a mapping that a table holds as text."""
    if not isinstance(value, str) or not value.strip():
        return value or None
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        return value
