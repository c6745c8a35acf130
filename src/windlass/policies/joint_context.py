"""From a named context to the features of the joint model: numbers brought to one scale, tuples as they are."""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Sequence
from operator import itemgetter
from typing import Any, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from windlass.records import ContextValue
from windlass.stats.features import Context, hidden

_LIMIT = 5.0
"""Features are clipped to it: deviations of a number, entries of a tuple."""
_LARGEST = 1e4
_SOME = 8.0
_USUAL_SD = 0.3
"""Until many numbers of a name were seen, their deviation counts as this, as much as `_SOME` of them would say."""

Floats = NDArray[np.float64]


class Column(msgspec.Struct, frozen=True, array_like=True):
    """A feature: entry `index` of the tuple `name`, -1 for a plain number."""

    name: str
    index: int


class _Run(NamedTuple):
    """Features side by side that one look finds: numbers, or the beginning of a tuple (`length` > 0)."""

    values: Callable[[Context], Any]
    length: int


class StoredLayout(msgspec.Struct, frozen=True, array_like=True):
    """The features after the constant one in order; count, mean and sum of squares of each, raw float64."""

    places: tuple[Column, ...]
    moments: bytes


class Layout:
    """The features by position, the constant 1 first, in the order of learning; at most `limit` of them.

    A number counts in deviations from its mean over the contexts that were learned from; where it is missing it counts
    as usual (0). An entry of a tuple counts as it is; where it is missing as 0.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.places: list[Column] = []
        # The form of the context that was learned last: most are made alike.
        self._usual: tuple[list[str], list[int]] = [], []
        self._known: set[str] = set()
        self._segments: list[tuple[str, int, int, int]] = []
        self._runs: list[_Run] | None = []
        self._pack = struct.Struct("d")
        # Of each plain number, in plain lists: for the few that there are they are faster than arrays.
        self._names: list[str] = []
        self._counts: list[float] = []
        self._means: list[float] = []
        self._squares: list[float] = []
        self._center: Floats = np.zeros(1)
        self._per_scale: Floats = np.ones(1)
        self._numbers: NDArray[np.intp] = np.empty(0, np.intp)
        self._settle()

    @property
    def size(self) -> int:
        return 1 + len(self.places)

    @property
    def numbers(self) -> NDArray[np.intp]:
        """Positions of the plain numbers."""
        return self._numbers

    def knows(self, name: str) -> bool:
        return name in self._known

    def learn(self, context: Context) -> int:
        """Give a position to each feature of `context` that has none, count its numbers; how many are new."""
        form = list(context), [len(value) if isinstance(value, tuple) else -1 for value in context.values()]
        fresh: list[Column] = []
        if form != self._usual:
            fresh = [place for place in _places(context) if place not in self._of(place.name)]
            fresh = fresh[: max(self.limit - self.size, 0)]
            self._usual = form
        if fresh:
            self.places.extend(fresh)
            zeros = [0.0] * sum(place.index < 0 for place in fresh)
            self._counts, self._means, self._squares = self._counts + zeros, self._means + zeros, self._squares + zeros
            self._settle()
        self._count(context)
        return len(fresh)

    def narrow(self, limit: int) -> list[int]:
        """Keep at most `limit` features, the constant one and the first entries of tuples; the kept positions."""
        order = sorted(range(len(self.places)), key=lambda place: (self.places[place].index, place))
        kept = sorted(order[: limit - 1])
        positions = [0, *(1 + place for place in kept)]
        left = [place for place, position in enumerate(self._numbers.tolist()) if position in positions]
        self._counts, self._means = [self._counts[place] for place in left], [self._means[place] for place in left]
        self._squares = [self._squares[place] for place in left]
        self.places = [self.places[place] for place in kept]
        self.limit = min(limit, self.limit)
        self._settle()
        return positions

    def vector(self, context: Context) -> Floats:
        """(size,) float64, finite, the constant 1 first."""
        raw = self._copied(context)
        if raw is not None:
            x: Floats = raw - self._center
            x *= self._per_scale
            # As short as this, no entry of it can be beyond the limit.
            if x.dot(x) <= _LIMIT * _LIMIT:
                return x
        return self._gathered(context)

    def _copied(self, context: Context) -> Floats | None:
        """The features as the context has them, where it has all of them in the usual form; else None. Read only."""
        if self._runs is None:
            return None
        found = [1.0]
        try:
            for values, length in self._runs:
                found += values(context)[:length] if length else values(context)
            # Neither NaN nor numbers whose squares would be infinite.
            if not math.hypot(*found) <= _LARGEST * _LARGEST:
                return None
            return np.frombuffer(self._pack.pack(*found))
        except (KeyError, TypeError, OverflowError, struct.error):
            return None

    def _gathered(self, context: Context) -> Floats:
        """`vector` of a context in any form, one name after the other."""
        x = self._center.copy()
        for name, start, end, position in self._segments:
            value = context.get(name)
            if value is None:
                continue
            try:
                if start < 0:
                    x[position] = value[0] if isinstance(value, tuple) else value
                elif isinstance(value, tuple):
                    part = value if end - start == len(value) else value[start:end]
                    x[position : position + len(part)] = part
                elif start == 0:
                    x[position] = value
            except (IndexError, TypeError, ValueError, OverflowError):
                continue  # an empty tuple, or no number: as if it were missing
        reach = _LIMIT / self._per_scale
        np.minimum(x, self._center + reach, out=x)
        np.maximum(x, self._center - reach, out=x)
        x -= self._center
        x *= self._per_scale
        if not math.isfinite(x.dot(x)):
            x[np.isnan(x)] = 0.0
        x[0] = 1.0
        return x

    def stored(self) -> StoredLayout:
        moments = np.zeros((3, self.size))
        moments[:, self._numbers] = self._counts, self._means, self._squares
        return StoredLayout(tuple(self.places), moments.astype("<f8").tobytes())

    def restore(self, stored: StoredLayout, limit: int) -> None:
        """Take over what `stored` returned, bit by bit. ValueError where it cannot come from there."""
        moments = np.frombuffer(stored.moments, "<f8").astype(np.float64)
        places = list(stored.places)
        if len(moments) != 3 * (1 + len(places)) or not np.isfinite(moments).all() or len(set(places)) < len(places):
            raise ValueError("features and their moments do not agree")
        if (moments < 0.0)[: 1 + len(places)].any() or len(places) >= max(limit, 1):
            raise ValueError(f"{len(places)} features are more than {limit - 1} or were seen less than never")
        numbers = [1 + i for i, place in enumerate(places) if place.index < 0]
        self.limit, self.places = limit, places
        self._counts, self._means, self._squares = moments.reshape(3, 1 + len(places))[:, numbers].tolist()
        self._settle()

    def _settle(self) -> None:
        """Bring what is looked up per context in line with `places` and the moments."""
        self._known = {place.name for place in self.places}
        self._numbers = np.array([1 + i for i, place in enumerate(self.places) if place.index < 0], np.intp)
        self._names = [place.name for place in self.places if place.index < 0]
        segments: list[tuple[str, int, int, int]] = []
        for position, place in enumerate(self.places, start=1):
            if segments and place.index > 0:
                name, start, end, first = segments[-1]
                if (name, end) == (place.name, place.index) and start >= 0:
                    segments[-1] = (name, start, end + 1, first)
                    continue
            segments.append((place.name, place.index, place.index + 1, position))
        self._segments, self._runs = segments, _runs(segments)
        self._pack = struct.Struct(f"{self.size}d")
        self._center, self._per_scale = np.zeros(self.size), np.ones(self.size)
        self._scale()

    def _scale(self) -> None:
        self._center[self._numbers] = self._means
        self._per_scale[self._numbers] = [
            math.sqrt((count + _SOME) / (squares + _SOME * _USUAL_SD**2))
            for count, squares in zip(self._counts, self._squares, strict=True)
        ]

    def _count(self, context: Context) -> None:
        """Welford's update of count, mean and sum of squares of each plain number, within what is usual so far."""
        counts, means, all_squares = self._counts, self._means, self._squares
        for place, name in enumerate(self._names):
            value = _plain(context.get(name))
            if value is None:
                continue
            count, mean, squares = counts[place], means[place], all_squares[place]
            if count >= _SOME:
                reach = _LIMIT * math.sqrt((squares + _SOME * _USUAL_SD**2) / (count + _SOME))
                value = min(max(value, mean - reach), mean + reach)
            step = value - mean
            counts[place] = count + 1.0
            means[place] = mean + step / (count + 1.0)
            all_squares[place] = squares + step * (value - means[place])
        self._scale()

    def _of(self, name: str) -> Sequence[Column]:
        """The features of one name; a number and a tuple of the same name share them."""
        if name not in self._known:
            return ()
        found = [place for place in self.places if place.name == name]
        return [*found, Column(name, -1), Column(name, 0)]


def _places(context: Context) -> list[Column]:
    """The features of a context, by name and index."""
    found: list[Column] = []
    for name in sorted(name for name in context if not hidden(name)):
        value = context[name]
        if isinstance(value, tuple):
            found.extend(Column(name, index) for index in range(len(value)))
        else:
            found.append(Column(name, -1))
    return found


def _runs(segments: Sequence[tuple[str, int, int, int]]) -> list[_Run] | None:
    """How to copy these segments (name, first and last entry, position); None where a tuple does not begin at 0."""
    runs: list[_Run] = []
    numbers: list[str] = []
    for place, (name, start, end, _) in enumerate(segments):
        if start > 0:
            return None
        if start == 0:
            runs.append(_Run(itemgetter(name), end))
            continue
        numbers.append(name)
        if place + 1 == len(segments) or segments[place + 1][1] >= 0:
            values = itemgetter(*numbers) if len(numbers) > 1 else _alone(name)
            runs.append(_Run(values, 0))
            numbers = []
    return runs


def _alone(name: str) -> Callable[[Context], Any]:
    return lambda context: (context[name],)


def _plain(value: ContextValue | None) -> float | None:
    """A plain number within reason, or the first entry of a tuple; None for what is none."""
    if type(value) is float and -_LARGEST <= value <= _LARGEST:
        return value
    if isinstance(value, tuple):
        value = value[0] if value else None
    try:
        number = float(value)  # type: ignore[arg-type]  # whatever float() does not take is missing
    except (TypeError, ValueError, OverflowError):
        return None
    return min(max(number, -_LARGEST), _LARGEST) if math.isfinite(number) else None
