"""The last requests, as far as budget pacing needs them: features, what was eligible, price list, what was spent."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import NormalDist
from typing import NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

WINDOW = 256
_COLUMNS = 64
_NORMALS = np.array([NormalDist().inv_cdf((i + 0.5) / 1024) for i in range(1024)])

Floats = NDArray[np.float64]


_DOUBT = 32.0
"""So many calls more, each as planned, stand beside what was spent against the plan."""


class Spent(NamedTuple):
    """What was kept of one call: its row, features, the price list for its action, which call of that arm it was."""

    row: int
    x: Floats
    listed: float
    number: int


class StoredWindow(msgspec.Struct, frozen=True, array_like=True):
    """Raw numbers of features, price list, noise, calls, and excess; eligibility as bytes; which call a row is of."""

    names: tuple[str, ...]
    count: int
    keys: tuple[str, ...]
    chosen: tuple[int, ...]
    numbers: bytes
    excess: bytes
    features: bytes
    listed: bytes
    noise: bytes
    eligible: bytes


class RecentWindow:
    """At most 256 rows, the oldest is replaced; a column for each of the first 64 actions that were eligible."""

    def __init__(self, features: int) -> None:
        self.names: list[str] = []
        self.count = 0
        self.keys: list[str] = []
        self._places: dict[str, int] = {}
        self.chosen: list[int] = []
        self.numbers: list[int] = []
        # What each call cost beyond what the curve had planned for it; 0 where there was no allowance.
        self.excess: Floats = np.zeros(WINDOW)
        self.x: Floats = np.zeros((WINDOW, features))
        self.listed: Floats = np.zeros((WINDOW, 0))
        self.noise: Floats = np.zeros((WINDOW, 0))
        self.eligible: NDArray[np.bool_] = np.zeros((WINDOW, 0), np.bool_)
        # What a call cost beyond its plan, on average: the randomised share, and what is predicted badly.
        self.mean_excess_nusd = 0.0
        # The eligible actions of the last call: which of them have a column, and which.
        self._last: tuple[str, ...] = ()
        self._known: NDArray[np.intp] = np.empty(0, np.intp)
        self._columns: NDArray[np.intp] = np.empty(0, np.intp)
        # Whether all of them have one; then what of a new row is the same for each call with these actions.
        self._all_known = False
        self._mask: NDArray[np.bool_] = np.empty(0, np.bool_)
        self._strides: NDArray[np.intp] = np.empty(0, np.intp)
        self._starts: NDArray[np.intp] = np.empty(0, np.intp)

    @property
    def rows(self) -> int:
        return len(self.keys)

    def add(
        self, key: str, x: Floats, actions: Sequence[str], listed: Sequence[float], sds: Floats, chosen: str, nth: int
    ) -> int:
        """A request with these eligible actions, their prices and deviations when choosing (k,) was answered by
        `chosen`, as the `nth` call of it. Its choice is noisy like a draw of Thompson sampling, but by a table:
        the same requests give the same window. Returns the row."""
        self._name(actions)
        row, known, columns = self.count % WINDOW, self._known, self._columns
        self.x[row] = x
        self.eligible[row] = self._mask
        prices = np.array(listed)
        self.listed[row, columns] = prices if self._all_known else prices[known]
        steps = (self.count * self._strides + self._starts) % len(_NORMALS)
        self.noise[row, columns] = (sds if self._all_known else sds[known]) * _NORMALS[steps]
        entry = (key, self.names.index(chosen) if chosen in self.names else 0, nth)
        if row == self.rows:
            self.keys.append("")
            self.chosen.append(0)
            self.numbers.append(0)
        elif self._places.get(self.keys[row]) == row:
            del self._places[self.keys[row]]
        self._places[key] = row
        self.keys[row], self.chosen[row], self.numbers[row] = entry
        self.count += 1
        self.exceed(row, 0.0)
        return row

    def exceed(self, row: int, nusd: float) -> None:
        """The call of that row cost so much beyond its plan."""
        self.excess[row] = nusd
        self.mean_excess_nusd = float(self.excess[: self.rows].sum()) / (self.rows + _DOUBT)

    def find(self, key: str) -> Spent | None:
        """What was kept of the call `key`, if it is among the last ones."""
        row = self._places.get(key)
        if row is None:
            return None
        return Spent(row, self.x[row], float(self.listed[row, self.chosen[row]]), self.numbers[row])

    def features(self, key: str) -> Floats | None:
        """The features of the call `key`, if it is among the last ones."""
        row = self._places.get(key)
        return None if row is None else self.x[row]

    def widen(self, features: int) -> None:
        """New features count as 0 in what was before."""
        x = np.zeros((WINDOW, features))
        x[:, : self.x.shape[1]] = self.x
        self.x = x

    def narrow(self, kept: Sequence[int]) -> None:
        self.x = self.x[:, list(kept)]

    def stored(self) -> StoredWindow:
        rows = self.rows
        return StoredWindow(
            tuple(self.names),
            self.count,
            tuple(self.keys),
            tuple(self.chosen),
            np.array(self.numbers, "<i8").tobytes(),
            self.excess[:rows].astype("<f8").tobytes(),
            self.x[:rows].astype("<f8").tobytes(),
            self.listed[:rows].astype("<f8").tobytes(),
            self.noise[:rows].astype("<f8").tobytes(),
            self.eligible[:rows].tobytes(),
        )

    @staticmethod
    def restored(stored: StoredWindow, features: int) -> RecentWindow:
        """What `stored` was of, bit by bit. ValueError where it cannot come from there."""
        window, rows, columns = RecentWindow(features), len(stored.keys), len(stored.names)
        numbers = np.frombuffer(stored.numbers, "<i8").tolist()
        right = rows == len(stored.chosen) == len(numbers) == min(stored.count, WINDOW) and columns <= _COLUMNS
        if not right or any(not 0 <= column < max(columns, 1) for column in stored.chosen):
            raise ValueError(f"a window of {rows} rows and {columns} actions does not agree with itself")
        window.names, window.count = list(stored.names), stored.count
        window.keys, window.chosen, window.numbers = list(stored.keys), list(stored.chosen), numbers
        # In the order in which they came: of a key that came twice the later row.
        oldest = window.count % WINDOW if rows == WINDOW else 0
        window._places = {stored.keys[row % rows]: row % rows for row in range(oldest, oldest + rows)}
        window.excess[:rows] = np.frombuffer(stored.excess, "<f8")
        window.x[:rows] = np.frombuffer(stored.features, "<f8").reshape(rows, features)
        window.listed, window.noise = np.zeros((WINDOW, columns)), np.zeros((WINDOW, columns))
        window.listed[:rows] = np.frombuffer(stored.listed, "<f8").reshape(rows, columns)
        window.noise[:rows] = np.frombuffer(stored.noise, "<f8").reshape(rows, columns)
        window.eligible = np.zeros((WINDOW, columns), np.bool_)
        window.eligible[:rows] = np.frombuffer(stored.eligible, np.bool_).reshape(rows, columns)
        if not all(np.isfinite(part).all() for part in (window.x, window.noise, window.excess)):
            raise ValueError("a stored window must be finite")
        window.mean_excess_nusd = float(window.excess[:rows].sum()) / (rows + _DOUBT)
        return window

    def _name(self, actions: Sequence[str]) -> None:
        """Give a column to each of `actions` that has none, as long as there are some; and look all of them up."""
        if actions == self._last:
            return
        fresh = [action for action in actions if action not in self.names][: _COLUMNS - len(self.names)]
        if fresh:
            self.names.extend(fresh)
            wide = [(0, 0), (0, len(fresh))]
            self.listed = np.pad(self.listed, wide, constant_values=math.nan)
            self.noise, self.eligible = np.pad(self.noise, wide), np.pad(self.eligible, wide)
        known = [place for place, action in enumerate(actions) if action in self.names]
        self._known = np.array(known, np.intp)
        self._columns = np.array([self.names.index(actions[place]) for place in known], np.intp)
        self._all_known = len(known) == len(actions)
        self._mask = np.isin(np.arange(len(self.names)), self._columns)
        self._strides, self._starts = (2 * self._columns + 1) * 389, 97 * self._columns
        self._last = tuple(actions)
