"""What was used last, of what nobody can know how much there will be."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class Latest(Generic[K, V]):
    """Values by key, at most `most` of them: of more, the one that was put longest ago goes."""

    def __init__(self, most: int):
        self._most = most
        self._kept: OrderedDict[K, V] = OrderedDict()

    def get(self, key: K, other: V) -> V:
        """The value of a key, or `other`."""
        return self._kept.get(key, other)

    def put(self, key: K, value: V) -> None:
        """The newest of all from now on."""
        self._kept[key] = value
        self._kept.move_to_end(key)
        if len(self._kept) > self._most:
            self._kept.popitem(last=False)

    def drop(self, key: K) -> None:
        """Let go of a key, whether it is there or not."""
        self._kept.pop(key, None)

    def all(self) -> list[K]:
        """The keys that are there now, the oldest first."""
        return list(self._kept)

    def __contains__(self, key: object) -> bool:
        return key in self._kept

    def __len__(self) -> int:
        return len(self._kept)


class Generations(Generic[K]):
    """Which generation of a key's values is the present one, so that what was begun for an older one can be dropped.

    Of more than `most` keys, the one whose generation ended longest ago is taken for new.
    """

    def __init__(self, most: int):
        self._ended: Latest[K, int] = Latest(most)
        self._ends = 0

    def of(self, key: K) -> int:
        """The present one; another one than any before, once it has ended."""
        return self._ended.get(key, 0)

    def end(self, key: K) -> None:
        """Let another one begin."""
        self._ends += 1
        self._ended.put(key, self._ends)
