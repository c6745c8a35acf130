"""What the guard `personal` keeps of users, as plain data, and how one of them is taken out of it."""

from __future__ import annotations

import math
from typing import Any, Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from windlass.stats.shrinkage import spread

DIGITS: Final = 13
"""Of a user's digest in base 16: 52 bits, which a float holds whole."""
MOST_ACTIONS: Final = 64
MOST_CELLS: Final = 18_432
"""Users times actions: 2,048 users of nine actions."""
MOST_KNOWN: Final = 4_096
"""So many of the newest rewards can be corrected."""


class KnownReward(msgspec.Struct, array_like=True):
    """A reward that may be corrected: of which user, about which action (by number), when, and its residual."""

    user: int
    action: int
    at: int
    residual: float


class StoredPersonal(msgspec.Struct, frozen=True, array_like=True):
    guard: str
    version: int
    options: tuple[int, ...]
    actions: list[tuple[str, int]]
    rewards: int
    users: list[tuple[int, int]]
    sums: bytes
    known: list[tuple[bytes, KnownReward]]
    spread: tuple[float, float, float]
    means: list[float]
    policy: bytes


def number_of(digest: str) -> int:
    """What stands for a user in a context, of the user's digest (`records.user_digest`); 0, which is nobody, of what is
    no digest."""
    try:
        return int(digest[:DIGITS], 16)
    except ValueError:
        return 0


def without(state: bytes, user: int) -> bytes:
    """The state of a policy, whatever its guards, without what it knows of a user; as it is where it knows nothing."""
    try:
        parts: Any = msgspec.msgpack.decode(state)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return state
    if not isinstance(parts, list) or not parts or not isinstance(parts[-1], bytes):
        return state
    if parts[0] == "personal":
        try:
            return _stripped(msgspec.msgpack.decode(state, type=StoredPersonal), user)
        except (msgspec.MsgspecError, ValueError):
            return state
    inside = without(parts[-1], user)
    return state if inside == parts[-1] else msgspec.msgpack.encode([*parts[:-1], inside])


def _stripped(stored: StoredPersonal, user: int) -> bytes:
    kept = [place for place, (one, _) in enumerate(stored.users) if one != user]
    sums = sums_of(stored)[:, kept]
    found = spread(*sums) if len(kept) < len(stored.users) else None
    return msgspec.msgpack.encode(
        msgspec.structs.replace(
            stored,
            users=[stored.users[place] for place in kept],
            sums=sums.tobytes(),
            known=[(key, one) for key, one in stored.known if one.user != user],
            policy=without(stored.policy, user),
            spread=stored.spread if found is None else (found.tastes, found.persons, found.noise),
            means=stored.means if found is None else found.means.tolist(),
        )
    )


def sums_of(stored: StoredPersonal) -> NDArray[np.float64]:
    """(3, users, actions) of a stored state. ValueError where its parts do not agree."""
    people, things = len(stored.users), len(stored.actions)
    found: NDArray[np.float64] = np.frombuffer(stored.sums, "<f8").astype(np.float64).reshape(3, people, things)
    _check_sizes(stored, people, things)
    numbers = [*stored.spread, *stored.means, *(one.residual for _, one in stored.known)]
    if not np.isfinite(found).all() or (found[[0, 2]] < 0.0).any() or not all(map(math.isfinite, numbers)):
        raise ValueError("residuals must be finite numbers, seen no less than never")
    return found


def _check_sizes(stored: StoredPersonal, people: int, things: int) -> None:
    if len({action for action, _ in stored.actions}) < things or things > MOST_ACTIONS or people * things > MOST_CELLS:
        raise ValueError(f"{people} users of {things} actions are too many, or some are twice there")
    if len({user for user, _ in stored.users}) < people or len(stored.known) > MOST_KNOWN or len(stored.means) > things:
        raise ValueError(f"{people} users, {len(stored.known)} rewards and {len(stored.means)} means do not agree")
    if any(not 0 <= one.action < things for _, one in stored.known):
        raise ValueError("a reward of an action that there is not")
