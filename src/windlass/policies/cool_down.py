"""CoolDown: an action that disappointed several times in a row rests for a while."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import astuple, dataclass
from typing import Final

import msgspec

from windlass.errors import PolicyError
from windlass.policies.eligible import Narrowing
from windlass.policies.policy import Policy
from windlass.records import Decision
from windlass.stats.features import Context


@dataclass(frozen=True, slots=True)
class CoolDownOptions:
    """`below`: a reward under it is a bad one, in [0, 1]. `bad`: so many bad ones in a row, from 1 to 100, send an
    action to rest. `rest`: for so many rewards of the point, from 1 to 1,000,000."""

    below: float = 0.2
    bad: int = 3
    rest: int = 50

    def __post_init__(self) -> None:
        for name, value, low, high in (
            ("below", self.below, 0.0, 1.0),
            ("bad", self.bad, 1, 100),
            ("rest", self.rest, 1, 1_000_000),
        ):
            if not low <= value <= high:
                raise PolicyError(f"cool_down: {name} is {value}; give a number from {low} to {high}")


class _Seen(msgspec.Struct, array_like=True):
    """One decision that was rewarded: which, at which step for the first time, and whether the last reward was bad."""

    decision: str
    step: int
    bad: bool


class _StoredRest(msgspec.Struct, frozen=True, array_like=True):
    guard: str
    version: int
    options: tuple[float, ...]
    steps: int
    seen: dict[str, list[_Seen]]
    policy: bytes


class CoolDown(Narrowing):
    """Leaves out the actions that rest.

    A step is a decision that is rewarded for the first time, of any action. Of each action the last `bad` ones are
    kept. It rests while all of these went badly, until `rest` steps after the newest of them; the first one after its
    rest decides whether it rests again. A reward that is replaced changes whether its decision went badly, never when
    it came, so that the last reward counts as if it had been the first; a decision that is not among the kept ones
    any more has no say. Where all actions rest all are eligible, with `fallback`: somebody must be tried.
    """

    label = "cool-down"
    STATE_VERSION: Final = 1

    def __init__(self, policy: Policy, options: CoolDownOptions | None = None) -> None:
        super().__init__(policy)
        self.options = options or CoolDownOptions()
        self._steps = 0
        self._seen: dict[str, list[_Seen]] = {}

    def left(self, context: Context, actions: Sequence[str]) -> tuple[list[int], str]:
        places = [place for place, action in enumerate(actions) if not self._rests(action)]
        return (places, "") if places else (list(range(len(actions))), "cool-down: every action rests")

    def learn(self, decision: Decision, reward: float, previous: float | None) -> None:
        self.policy.learn(decision, reward, previous)
        bad = reward < self.options.below
        if previous is None:
            self._steps += 1
            seen = self._seen.setdefault(decision.action, [])
            seen.append(_Seen(decision.id, self._steps, bad))
            del seen[: -self.options.bad]
            return
        for one in self._seen.get(decision.action, ()):
            if one.decision == decision.id:
                one.bad = bad
                return

    def state(self) -> bytes:
        seen = dict(sorted(self._seen.items()))
        return msgspec.msgpack.encode(
            _StoredRest("cool_down", self.STATE_VERSION, self._settled(), self._steps, seen, self.policy.state())
        )

    def restore(self, state: bytes) -> None:
        try:
            stored = msgspec.msgpack.decode(state, type=_StoredRest)
        except msgspec.MsgspecError as exc:
            raise PolicyError(
                f"not a state of cool_down around {self.name}: {exc}; rebuild it from the ledger"
            ) from exc
        written = (stored.guard, stored.version, stored.options)
        fits = all(
            0 < len(seen) <= self.options.bad and all(one.step <= stored.steps for one in seen)
            for seen in stored.seen.values()
        )
        if written != ("cool_down", self.STATE_VERSION, self._settled()) or not fits:
            raise PolicyError(
                f"a state of {stored.guard}@{stored.version} with options {stored.options} cannot become one of "
                f"cool_down@{self.STATE_VERSION} with {self._settled()}; rebuild it from the ledger"
            )
        self.policy.restore(stored.policy)
        self._steps, self._seen = stored.steps, stored.seen

    def _rests(self, action: str) -> bool:
        seen = self._seen.get(action, [])
        return (
            len(seen) == self.options.bad
            and all(one.bad for one in seen)
            and self._steps - seen[-1].step < self.options.rest
        )

    def _settled(self) -> tuple[float, ...]:
        return tuple(float(value) for value in astuple(self.options))
