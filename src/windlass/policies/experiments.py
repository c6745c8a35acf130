"""The experiments of all workspaces, under way and ended, as a part of the learner's fold."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, assert_never

from windlass.errors import PolicyError
from windlass.ledger.folded import FoldedDecision
from windlass.policies.account import Account, Key, Metric
from windlass.policies.reward import RewardOptions, graded
from windlass.policies.rollout import Advance, Begin, End, Ship
from windlass.policies.trials.assignment import Running, running
from windlass.policies.trials.plan import Plan, Variant
from windlass.policies.trials.tally import Assigned, State, Trial, begun, told, unit_number
from windlass.records import Scope

_PAST: Final = 100
"""Ended experiments that are kept of a workspace; the ledger has them all."""


class Trials:
    """The experiments under way, at most one at each point of a workspace, and those that ended last.

    assigning: what the loop looks at, by (tenant, workspace, point).
    """

    def __init__(self, stored: Sequence[tuple[Key, Trial]] = ()) -> None:
        self.past: list[tuple[Key, Trial]] = [(key, trial) for key, trial in stored if trial.state != "running"]
        self.current: dict[Key, Trial] = {key: trial for key, trial in stored if trial.state == "running"}
        self.assigning: dict[Key, Running] = {
            key: running(trial.plan, trial.stage) for key, trial in self.current.items()
        }

    def stored(self) -> list[tuple[Key, Trial]]:
        """What a restart needs."""
        return [*self.past, *sorted(self.current.items())]

    def of(self, scope: Scope) -> list[Trial]:
        """Those of a workspace, the newest first."""
        owner = (scope.tenant, scope.workspace)
        found = [trial for key, trial in (*self.past, *self.current.items()) if key[:2] == owner]
        return sorted(found, key=lambda trial: -trial.seq)

    def check(self, key: Key, change: Begin | Advance | End | Ship) -> None:
        """PolicyError where `change` cannot be made now: another experiment is under way at the point, or none of that
        name is, it is not before that stage, it has no such variant, or one of just this plan has ended."""
        if isinstance(change, End) and self.alarmed(key, change.name) is not None:
            return
        if not isinstance(change, Begin):
            trial = self._named(key, change.name)
            if isinstance(change, Ship):
                trial.plan.variant(change.variant)
            elif isinstance(change, Advance) and not trial.stage < change.stage < len(trial.plan.ramp):
                at = f"at stage {trial.stage + 1} of {len(trial.plan.ramp)}"
                raise PolicyError(f"experiment {change.name} is {at}; {change.stage + 1} is none to go on with")
            return
        plan = change.plan
        if key in self.current:
            raise PolicyError(f"experiment {self.current[key].plan.name} is under way at {key[2]}; end it first")
        if any(other.id == plan.id for owner, other in self.past if owner == key):
            raise PolicyError(f"an experiment of just this plan ended; give another one a new name than {plan.name}")

    def follow(self, key: Key, change: Begin | Advance | End | Ship, made: FoldedDecision) -> Variant | None:
        """Make a change that was decided, as `check` allows; the variant that it ships.

        The end of one that an alarm has ended is the record of it.
        """
        self.check(key, change)
        alarmed = self.alarmed(key, change.name) if isinstance(change, End) else None
        if alarmed is not None:
            alarmed.moved = made.id
            return None
        if isinstance(change, Begin):
            trial = self.current[key] = begun(change.plan, made.seq, made.at)
            self.assigning[key] = running(change.plan, 0)
        else:
            trial = self.current[key]
        trial.moved = made.id
        match change:
            case Begin():
                pass
            case Advance():
                trial.enter(change.stage, made.at)
                self.assigning[key] = running(trial.plan, change.stage)
            case End():
                self._over(key, trial, "stopped" if change.how == "stop" else "rolled back", made.at)
            case Ship():
                self._over(key, trial, "shipped", made.at, change.variant)
                return trial.plan.variant(change.variant)
            case _ as other:
                assert_never(other)
        return None

    def alarmed(self, key: Key, name: str) -> Trial | None:
        """The last experiment of a point, if it has that name and was ended by an alarm."""
        found = [trial for owner, trial in self.past if owner == key]
        if key in self.current or not found or found[-1].plan.name != name or found[-1].state != "alarmed":
            return None
        return found[-1]

    def unrecorded(self) -> list[tuple[Key, Trial]]:
        """Those that an alarm has ended, which nobody has put on record yet."""
        return [(key, trial) for key, trial in self.past if trial.state == "alarmed" and not trial.moved]

    def moved(self, key: Key, decision: str) -> bool:
        """Whether that decision is one that an experiment of the point stands by."""
        if key in self.current and self.current[key].moved == decision:
            return True
        return any(owner == key and trial.moved == decision for owner, trial in self.past)

    def assigned(self, key: Key, account: Account, assigned: Assigned) -> None:
        """A call was assigned."""
        trial = self._by_id(key, assigned.trial)
        if trial is not None and assigned.stage == trial.stage and _fits(assigned, trial.plan):
            trial.assign(assigned.variant, _unit(trial.plan, key, account))

    def tell(
        self, seq: int, key: Key, account: Account, feedback: Mapping[Metric, float], options: RewardOptions
    ) -> None:
        """What is known of a call in experiments has changed; an alarm ends the experiment that it is of."""
        now = told(graded(account.error, feedback, options), account.cost_nusd, account.latency_ms, account.error)
        for assigned in account.assigned:
            trial = self._by_id(key, assigned.trial)
            if trial is None or assigned.told == now or not _fits(assigned, trial.plan):
                continue
            at = account.acted[0].at
            trial.tell(seq, at, assigned, now, _unit(trial.plan, key, account))
            if trial.alarm is not None:
                trial.moved = ""
                self._over((key[0], key[1], trial.plan.point), trial, "alarmed", at)

    def forget(self, owner: tuple[str, str], user: str) -> None:
        """Let go of one user, known by the digest; what is none is nobody's."""
        try:
            number = _number(bytes.fromhex(user))
        except ValueError:
            return
        for key, trial in (*self.past, *self.current.items()):
            if key[:2] == owner:
                trial.forget(number)

    def _named(self, key: Key, name: str) -> Trial:
        """The experiment of that name under way at a point. PolicyError where there is none."""
        trial = self.current.get(key)
        if trial is None or trial.plan.name != name:
            under_way = f"{trial.plan.name} is" if trial else "no experiment is"
            raise PolicyError(f"{under_way} under way at {key[2]}, not {name}")
        return trial

    def _over(self, key: Key, trial: Trial, state: State, at: float, shipped: str = "") -> None:
        trial.end(state, at, shipped)
        del self.current[key], self.assigning[key]
        theirs = [at for at, (owner, _) in enumerate(self.past) if owner[:2] == key[:2]]
        if len(theirs) >= _PAST:
            del self.past[theirs[0]]
        self.past.append((key, trial))

    def _by_id(self, key: Key, trial: str) -> Trial | None:
        for (tenant, workspace, _), current in self.current.items():
            if (tenant, workspace) == key[:2] and current.id == trial:
                return current
        return None


def _fits(assigned: Assigned, plan: Plan) -> bool:
    """Whether the plan has that variant and that stage."""
    return assigned.variant < len(plan.variants) and 0 <= assigned.stage < len(plan.ramp)


def _unit(plan: Plan, key: Key, account: Account) -> int | None:
    """Whose call it is, as a number; None where each call is by itself."""
    if plan.unit == "call":
        return None
    return _number(account.user) if plan.unit == "user" else unit_number(account.parent or key[2])


def _number(user: bytes) -> int:
    return int.from_bytes(user[:7], "little")
