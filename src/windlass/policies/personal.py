"""Personal: what each user thinks of each action beside what is expected of it, as far as users differ at all.

The guard learns from what a user's calls earned less what the policy inside expected of them (stats/shrinkage.py), and
tells the policy by how much the expectation of each action is to be lifted for this user: `lift:<action>` in the
context. A policy that can (`Lifted`: joint_thompson) adds that to its expected rewards; around any other the guard does
nothing. How kindly a user rates everything moves nothing. Where users do not differ more than chance explains, every
lift is 0.

A user is a number made of a digest (`who:user` in the context); at most `users` of them are known, those heard of least
lately go, and one who is forgotten is forgotten here.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from windlass.errors import PolicyError
from windlass.policies.lifts import LIFT, USER, Lifted
from windlass.policies.personal_state import (
    DIGITS,
    MOST_ACTIONS,
    MOST_CELLS,
    MOST_KNOWN,
    KnownReward,
    StoredPersonal,
    sums_of,
)
from windlass.policies.policy import Choice, Guard, Policy, innermost
from windlass.records import Decision
from windlass.stats.features import Context
from windlass.stats.shrinkage import Spread, spread, tastes

_ANEW: Final = 32
_SETTLED: Final = 30
"""The first rewards of an action say how wrong the policy was, and not what users think."""
_LARGEST: Final = 1e5
_SHOWN: Final = 0.005

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class PersonalOptions:
    """`users`: at most so many are known, from 1 to 2,048; fewer where there are more than nine actions."""

    users: int = 2_048

    def __post_init__(self) -> None:
        if not 1 <= self.users <= 2_048:
            raise PolicyError(f"personal: users is {self.users}; give a number from 1 to 2048")


class _Place(NamedTuple):
    """Where a user's residuals are, and after how many rewards the user came."""

    place: int
    since: int


class Personal(Guard):
    """Lifts what the policy inside expects by what the user of a call thinks of each action."""

    STATE_VERSION: Final = 1

    def __init__(self, policy: Policy, options: PersonalOptions | None = None) -> None:
        super().__init__(policy)
        self.options = options or PersonalOptions()
        inside = innermost(policy)
        self._inside = inside if isinstance(inside, Lifted) else None
        # Of each action its number, and how many rewards of it were passed over at first.
        self._actions: dict[str, int] = {}
        self._settling: list[int] = []
        self._rewards = 0
        self._rows: OrderedDict[int, _Place] = OrderedDict()
        self._free: list[int] = []
        # (3, users, actions): how many residuals, their sum, and the sum of their squares.
        self._sums: Floats = np.zeros((3, 0, 0))
        self._known: OrderedDict[bytes, KnownReward] = OrderedDict()
        self._spread = Spread(0.0, 0.0, 0.0, np.zeros(0))

    def probabilities(self, context: Context, actions: Sequence[str]) -> Floats:
        return self.policy.probabilities(self.shown(context), actions)

    def choose(self, context: Context, actions: Sequence[str], rng: np.random.Generator) -> Choice:
        lifts = self.lifts(context)
        if not lifts:
            return self.policy.choose(context, actions, rng)
        choice = self.policy.choose(_lifted(context, lifts), actions, rng)
        told = [f"{action} {lifts[action]:+.2f}" for action in actions if abs(lifts.get(action, 0.0)) >= _SHOWN]
        words = f"for this user {', '.join(told[:3])}" if told else ""
        return msgspec.structs.replace(choice, why="; ".join(filter(None, (choice.why, words))))

    def shown(self, context: Context) -> Context:
        lifts = self.lifts(context)
        return _lifted(context, lifts) if lifts else context

    def lifts(self, context: Context) -> dict[str, float]:
        """By how much what is expected of each action is lifted for the user of a call; {} where by nothing."""
        if self._inside is None or USER not in context or self._spread.tastes <= 0.0:
            return {}
        user = _number(context[USER])
        row = None if user is None else self._rows.get(user)
        if row is None:
            return {}
        known = len(self._spread.means)
        counts, sums = self._sums[:2, row.place, :known].tolist()
        found = tastes(counts, sums, self._spread)
        return {action: lift for action, lift in zip(self._actions, found, strict=False) if lift != 0.0}

    def learn(self, decision: Decision, reward: float, previous: float | None) -> None:
        user = _number(decision.context.get(USER))
        if previous is not None or self._inside is None:
            self.policy.learn(decision, reward, previous)
            if previous is not None:
                self._correct(decision, reward - previous)
            return
        residual = 0.0 if user is None else float(reward - self._inside.expected(decision.context, decision.action))
        self.policy.learn(decision, reward, previous)
        action = self._number_of(decision.action)
        if action is not None and self._settling[action] < _SETTLED:
            self._settling[action] += 1
        elif action is not None and user is not None and abs(residual) <= _LARGEST:
            self._rate(decision, user, action, residual)

    def _rate(self, decision: Decision, user: int, action: int, residual: float) -> None:
        """A user has given so much more than was expected of an action."""
        self._rewards += 1
        row = self._row(user)
        self._sums[:, row.place, action] += 1.0, residual, residual * residual
        self._known[_digest(decision)] = KnownReward(user, action, self._rewards, residual)
        if len(self._known) > MOST_KNOWN:
            self._known.popitem(last=False)
        if self._rewards % _ANEW == 0:
            self._estimate()

    def forget(self, user: int) -> None:
        """Let go of all that is known of one user; the number is what `number_of` makes of the digest."""
        row = self._rows.pop(user, None)
        self._known = OrderedDict((key, one) for key, one in self._known.items() if one.user != user)
        if row is not None:
            self._sums[:, row.place] = 0.0
            self._free.append(row.place)
        if user:
            # Known or not: what is replayed from a snapshot that was stripped of the user comes by here too.
            self._estimate()

    @property
    def spread(self) -> Spread:
        """By how much users are known to differ."""
        return self._spread

    @property
    def users(self) -> int:
        """How many users are known."""
        return len(self._rows)

    def state(self) -> bytes:
        places = [row.place for row in self._rows.values()]
        return msgspec.msgpack.encode(
            StoredPersonal(
                "personal",
                self.STATE_VERSION,
                (self.options.users,),
                list(zip(self._actions, self._settling, strict=True)),
                self._rewards,
                [(user, row.since) for user, row in self._rows.items()],
                self._sums[:, places, : len(self._actions)].astype("<f8").tobytes(),
                list(self._known.items()),
                (self._spread.tastes, self._spread.persons, self._spread.noise),
                self._spread.means.tolist(),
                self.policy.state(),
            )
        )

    def restore(self, state: bytes) -> None:
        try:
            stored = msgspec.msgpack.decode(state, type=StoredPersonal)
            sums = sums_of(stored)
        except (msgspec.MsgspecError, UnicodeDecodeError, ValueError) as exc:
            raise PolicyError(f"not a state of personal around {self.name}: {exc}; rebuild it from the ledger") from exc
        written, mine = (stored.guard, stored.version, stored.options), ("personal", 1, (self.options.users,))
        if written != mine:
            raise PolicyError(f"a state of {written} cannot become one of {mine}; rebuild it from the ledger")
        self.policy.restore(stored.policy)
        self._actions = {action: number for number, (action, _) in enumerate(stored.actions)}
        self._settling = [passed for _, passed in stored.actions]
        self._rewards, self._sums, self._free = stored.rewards, sums, []
        self._rows = OrderedDict((user, _Place(place, since)) for place, (user, since) in enumerate(stored.users))
        self._known = OrderedDict(stored.known)
        self._spread = Spread(*stored.spread, np.array(stored.means, np.float64))

    def _correct(self, decision: Decision, more: float) -> None:
        """The reward of a decision is so much more than was learned before."""
        known = self._known.get(_digest(decision))
        row = None if known is None else self._rows.get(known.user)
        if known is None or row is None or known.at < row.since:
            return
        before, known.residual = known.residual, float(known.residual + more)
        _, total, squares = self._sums[:, row.place, known.action].tolist()
        # Rounding may take what is left of squares that were replaced below 0.
        squares = max(squares + known.residual**2 - before**2, 0.0)
        self._sums[1:, row.place, known.action] = total + more, squares

    def _number_of(self, action: str) -> int | None:
        """The number of an action, a new one where it has none; None where there are too many."""
        number = self._actions.get(action)
        if number is None and len(self._actions) < MOST_ACTIONS:
            number = self._actions[action] = len(self._settling)
            self._settling.append(0)
            while len(self._rows) > self._most:
                self._leave()
            self._lay_out(len(self._rows))
        return number

    @property
    def _most(self) -> int:
        return min(self.options.users, MOST_CELLS // max(len(self._actions), 1))

    def _row(self, user: int) -> _Place:
        """Where the residuals of a user are, who is now the one heard of last."""
        row = self._rows.get(user)
        if row is None:
            if len(self._rows) >= self._most:
                self._leave()
            row = self._rows[user] = _Place(self._free.pop() if self._free else len(self._rows), self._rewards)
        self._rows.move_to_end(user)
        if row.place >= self._sums.shape[1]:
            self._lay_out(min(2 * len(self._rows) + 8, self._most))
        return self._rows[user]

    def _lay_out(self, rows: int) -> None:
        """Make room for so many users and for all actions, the users in the order in which they were heard of."""
        places = [row.place for row in self._rows.values() if row.place < self._sums.shape[1]]
        sums = np.zeros((3, rows, len(self._actions)))
        sums[:, : len(places), : self._sums.shape[2]] = self._sums[:, places]
        self._sums, self._free = sums, []
        self._rows = OrderedDict((user, row._replace(place=at)) for at, (user, row) in enumerate(self._rows.items()))

    def _leave(self) -> None:
        """Forget the user heard of least lately."""
        _, row = self._rows.popitem(last=False)
        self._sums[:, row.place] = 0.0
        self._free.append(row.place)

    def _estimate(self) -> None:
        # In the order of the users, so that a state that was taken over gives the same sums.
        counts, sums, squares = self._sums[:, [row.place for row in self._rows.values()]]
        self._spread = spread(counts, sums, squares)


def _lifted(context: Context, lifts: dict[str, float]) -> Context:
    return {**context, **{f"{LIFT}{action}": lift for action, lift in lifts.items()}}


def _number(value: object) -> int | None:
    """The number of a user, None for what is none."""
    return int(value) if isinstance(value, float | int) and 0 < value < 2 ** (4 * DIGITS) else None


def _digest(decision: Decision) -> bytes:
    name = decision.id.encode("utf-8", "surrogatepass")
    return hashlib.blake2b(name, digest_size=8).digest()
