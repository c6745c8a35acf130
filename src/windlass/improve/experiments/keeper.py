"""The keeper: takes experiments on by what their evidence says, as recorded decisions.

An alarm ends an experiment in the fold of every worker, at the entry that raised it; what the keeper does is to put
that on record with its numbers, and to go on with a ramp whose stage has seen enough without one. The ids follow from
what was decided, so that of several workers that decide the same the ledger takes one.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Awaitable, Callable, Iterator
from typing import Any, Final, NamedTuple

import structlog

from windlass.errors import LedgerError, PolicyError
from windlass.ledger import ids
from windlass.policies.account import Key
from windlass.policies.experiments import Trials
from windlass.policies.rollout import Advance, Change, End
from windlass.policies.trials.tally import Trial
from windlass.records import Scope

log = structlog.get_logger(__name__)
EVERY_S: Final = 0.5
BY: Final = "windlass"


class DueStep(NamedTuple):
    """What is to be decided, why, and by which numbers. id: of the decision."""

    scope: Scope
    change: Change
    id: str
    reason: str
    evidence: dict[str, Any]


class Keeper:
    """Looks at the experiments of all workspaces.

    trials: those of the learner as it is now. decide: makes a step a recorded decision. leads: whether this worker is
    the one to do it, of those that there are.
    """

    def __init__(
        self, trials: Callable[[], Trials], decide: Callable[[DueStep], Awaitable[object]], leads: Callable[[], bool]
    ) -> None:
        self._trials = trials
        self._decide = decide
        self._leads = leads

    async def run(self) -> None:
        """Take each step that is due, until cancelled. A ledger that cannot be written now is tried again."""
        while True:
            await asyncio.sleep(EVERY_S)
            try:
                due = list(steps(self._trials()))
                leads = bool(due) and await asyncio.to_thread(self._leads)
                for step in due if leads else ():
                    await self._take(step)
            except LedgerError as exc:
                log.error("experiments_wait", reason=str(exc))

    async def _take(self, step: DueStep) -> None:
        try:
            await self._decide(step)
        except PolicyError as exc:
            log.info("experiment_moved", reason=str(exc))  # somebody was faster


def steps(trials: Trials) -> Iterator[DueStep]:
    """What the evidence has decided by now."""
    for key, trial in trials.unrecorded():
        yield _alarmed(key, trial)
    for key, trial in list(trials.current.items()):
        if not trial.deciding and seen(trial) >= wanted(trial):
            yield _advanced(key, trial)


def seen(trial: Trial) -> int:
    """Values of every guardrail that each candidate has, at least, since the beginning; without guardrails its units
    at this stage.

    A guardrail whose metric never arrives holds the ramp: nobody would know what it does.
    """
    if not trial.plan.guardrails:
        return min(trial.assigned[1:])
    return min(harm.candidates for harms in trial.harms for harm in harms)


def wanted(trial: Trial) -> int:
    """Of what `seen` counts, as much as ends this stage."""
    enough = trial.plan.ramp_after
    return enough * (trial.stage + 1) if trial.plan.guardrails else enough


def _alarmed(key: Key, trial: Trial) -> DueStep:
    alarm = trial.alarm
    if alarm is None:
        raise PolicyError(f"experiment {trial.plan.name} is alarmed without an alarm")
    evidence = {"variant": alarm.variant, "metric": alarm.metric, "after": alarm.after, "seq": alarm.seq}
    reason = f"harm in {alarm.metric} of {alarm.variant} after {alarm.after} values"
    return _step(key, trial, End(key[2], trial.plan.name, "rollback"), alarm.at, reason, evidence)


def _advanced(key: Key, trial: Trial) -> DueStep:
    stage = trial.stage + 1
    evidence = {"seen": seen(trial), "wanted": wanted(trial), "stage": stage}
    reason = f"no alarm within {seen(trial)} values of each candidate"
    return _step(key, trial, Advance(key[2], trial.plan.name, stage), trial.stage_at, reason, evidence)


def _step(key: Key, trial: Trial, change: Change, at: float, reason: str, evidence: dict[str, Any]) -> DueStep:
    named = "\0".join((*key, trial.id, str(trial.seq), type(change).__name__, str(trial.stage)))
    digest = hashlib.sha256(named.encode("utf-8", "surrogatepass")).hexdigest()
    return DueStep(Scope(key[0], key[1]), change, ids.fixed("decision", at, digest), reason, evidence)
