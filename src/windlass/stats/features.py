"""From a named context to a vector: every named number gets a position, in the order of learning."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import TypeAlias, cast

import numpy as np
from numpy.typing import NDArray

from windlass.records import ContextValue

Context: TypeAlias = Mapping[str, ContextValue]
HIDDEN = ("_nusd", "_nusd:", "objective:", "who:")
"""What a name ends in, holds or begins with that is no feature: prices, allowances, what is asked for and by whom."""
_PLAIN = frozenset((float,))


def hidden(name: str) -> bool:
    """Whether a name is read by itself and no feature."""
    return name.endswith(HIDDEN[0]) or HIDDEN[1] in name or name.startswith(HIDDEN[2:])


def finite(context: Context) -> dict[str, ContextValue]:
    """`context` with everything that is no finite number as 0: what a ledger can store and a policy can read."""
    values = context.values()
    # Nearly all are plain numbers, or beside them tuples of such.
    if _plain(values):
        return dict(context)
    tuples = [value for value in values if type(value) is tuple]
    numbers = [value for value in values if type(value) is float]
    if len(tuples) + len(numbers) == len(context) and _plain(numbers) and all(map(_plain, tuples)):
        return dict(context)
    return {
        str(name): tuple(_number(v) for v in value) if isinstance(value, (tuple, list)) else _number(value)
        for name, value in context.items()
    }


def _plain(values: Collection[object]) -> bool:
    """Whether all are plain finite numbers, as their length is where each of them is; huge ones count as none."""
    return _PLAIN.issuperset(map(type, values)) and math.hypot(*cast(Iterable[float], values)) < math.inf


class Features:
    """The positions of named features in a vector whose first entry is the constant 1.

    Position by (name, index within a tuple); a plain number is index 0. Names that one context brings for the first
    time are appended in sorted order, so that positions depend on the order of learning alone. At most `limit` features
    are kept: later ones are ignored, which bounds the state whatever a caller sends. Names that are `hidden` get none.
    """

    def __init__(self, limit: int, names: Sequence[tuple[str, int]] = ()) -> None:
        self.limit = limit
        self._positions: dict[tuple[str, int], int] = {key: place for place, key in enumerate(names, start=1)}
        # Of the last context that was learned from, if it held plain numbers alone: most contexts are made alike.
        self._usual: tuple[str, ...] = ()
        # Those of it that are features; None where all are, as nearly always.
        self._shown: tuple[str, ...] | None = None
        self._places: NDArray[np.intp] = np.empty(0, np.intp)
        self._known: Context | None = None

    @property
    def names(self) -> tuple[tuple[str, int], ...]:
        return tuple(self._positions)

    def learn(self, context: Context) -> None:
        """Give a position to each feature of `context` that has none."""
        if context is self._known:
            return
        names = tuple(context)
        if names == self._usual and tuple not in map(type, context.values()):
            return
        for key, _ in self._sorted(context)[1]:
            self._positions[key] = len(self._positions) + 1
        if tuple not in map(type, context.values()):
            self._learn_usual(names)

    def _learn_usual(self, names: tuple[str, ...]) -> None:
        """Note where plain numbers of these names stand, if each has a position or is hidden."""
        if all((name, 0) in self._positions or hidden(name) for name in names):
            shown = tuple(name for name in names if (name, 0) in self._positions)
            self._usual, self._shown = names, None if len(shown) == len(names) else shown
            self._places = np.array([self._positions[name, 0] for name in shown], np.intp)

    def vector(self, context: Context) -> NDArray[np.float64]:
        """(1 + features,) float64: the constant, the known features (0 where absent), then the unknown ones in the
        order in which `learn` would place them. NaN and infinities pass: the posterior knows what to do with them."""
        self._known = None
        if tuple(context) == self._usual:
            x = np.zeros(1 + len(self._positions))
            x[0] = 1.0
            values = context.values() if self._shown is None else [context[name] for name in self._shown]
            try:
                x[self._places] = np.fromiter(values, np.float64, len(self._places))
            except (TypeError, ValueError):
                pass  # a tuple is among them
            else:
                self._known = context
                return x
        known, unknown = self._sorted(context)
        x = np.zeros(1 + len(self._positions) + len(unknown))
        x[0] = 1.0
        for place, number in known:
            x[place] = number
        x[1 + len(self._positions) :] = [number for _, number in unknown]
        return x

    def _sorted(self, context: Context) -> tuple[list[tuple[int, float]], list[tuple[tuple[str, int], float]]]:
        """The features with a position, and those that would get one, in order."""
        known, unknown = [], []
        for name, value in context.items():
            for index, number in enumerate(value if isinstance(value, tuple) else (value,)):
                place = self._positions.get((name, index))
                if place is not None:
                    known.append((place, number))
                elif not hidden(name):
                    unknown.append(((name, index), number))
        unknown.sort(key=lambda item: item[0])
        return known, unknown[: max(self.limit - len(self._positions), 0)]


def _number(value: object) -> float:
    try:
        number = float(value)  # type: ignore[arg-type]  # whatever float() does not take counts as 0
    except (TypeError, ValueError, OverflowError):
        return 0.0
    return number if math.isfinite(number) else 0.0
