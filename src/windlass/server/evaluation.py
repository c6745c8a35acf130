"""`windlass replay`: what another policy would have cost and achieved on the ledger, or on the log of another system.

Reads the database itself, with or without a server, in a process of its own: no call waits for it.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final, NamedTuple

import msgspec

from windlass.errors import InputError, PolicyError
from windlass.ledger import workers
from windlass.ledger.db import Database
from windlass.ledger.ledger import Ledger
from windlass.ledger.sql import SqlLedger
from windlass.policies import registry
from windlass.policies.evaluation import Evaluation, evaluate
from windlass.policies.logged import Log
from windlass.policies.loop import Loop
from windlass.policies.points import PointOptions, ShadowOptions, shadow_place
from windlass.policies.policy import DEFAULT_SHARE, Policy, identity, innermost
from windlass.policies.replay import Learner
from windlass.policies.rule import Rule
from windlass.records import Scope
from windlass.server import evaluation_ledger, evaluation_log, evaluation_page, evaluation_report, terminal
from windlass.server.reading import moment
from windlass.settings import Settings
from windlass.watch.projections import LEARNER

REFUSED: Final = 3
"""Exit code where the log cannot answer all that it holds figures of."""


class ReplayAsked(msgspec.Struct, frozen=True, kw_only=True):
    """Arguments of the command. share: randomised share of the policy, None for that of its point, or the default.

    options: JSON; log: a file in place of the ledger; newest: at most so many calls of the ledger.
    """

    policy: str
    options: str = ""
    log: str = ""
    point: str = "model"
    learning: bool = False
    share: float | None = None
    cap: float | None = None
    since: str = ""
    until: str = ""
    newest: int = evaluation_ledger.NEWEST
    tenant: str = ""
    workspace: str = ""


class _Target(NamedTuple):
    """The policy that is evaluated, its share of chance, and what it knows, in words."""

    policy: Policy
    share: float
    knows: str


def run(settings: Settings, asked: ReplayAsked, page: Path | None, *, as_json: bool) -> int:
    """Evaluate, show, write the page where one is wanted; exit code 3 where the log refuses an answer."""
    options = _options(asked)
    if asked.cap is not None and not asked.cap > 0.0:
        raise InputError(f"--cap is {asked.cap}; give a weight above 0, or leave it out")
    answer = _of_file(settings, asked, options) if asked.log else _of_ledger(settings, asked, options)
    if page is not None:
        page.write_text(evaluation_page.page(answer), encoding="utf-8")
    if as_json:
        terminal.print_json(answer)
    else:
        evaluation_report.show(answer)
        if page is not None:
            terminal.console().print(f"written: {terminal.clean(str(page))}", markup=False)
    return REFUSED if answer["refused"] else 0


def _of_file(settings: Settings, asked: ReplayAsked, options: Mapping[str, Any] | None) -> dict[str, Any]:
    found = evaluation_log.read(Path(asked.log), asked.point)
    now = time.time()
    since, until = moment(asked.since, now), moment(asked.until, now)
    kept = tuple(
        one
        for one in found.log.choices
        if (since is None or one.decision.at >= since) and (until is None or one.decision.at < until)
    )
    left_out = dict(found.log.left_out)
    if other := len(found.log.choices) - len(kept):
        left_out["outside --since and --until"] = other
    target = _fresh(asked.policy, options or {}, (), DEFAULT_SHARE if asked.share is None else asked.share)
    told = {"file": asked.log, "rows": found.rows, "bad": list(found.bad), "unfinished": found.unfinished}
    return _answer(asked, Log(kept, left_out), _named(target, asked), told)


def _of_ledger(settings: Settings, asked: ReplayAsked, options: Mapping[str, Any] | None) -> dict[str, Any]:
    if asked.point not in settings.decided:
        known = ", ".join(sorted(settings.decided))
        raise InputError(f"there is no decision point {asked.point[:100]!r}; known: {known}")
    if not 1 <= asked.newest <= evaluation_log.MOST_ROWS:
        raise InputError(f"--newest is {asked.newest}; give a number from 1 to {evaluation_log.MOST_ROWS}")
    scope = Scope(asked.tenant or Scope().tenant, asked.workspace or Scope().workspace)
    now = time.time()
    with _ledger(settings) as ledger:
        target = _at_point(settings, asked, options, ledger, scope)
        since, until = moment(asked.since, now), moment(asked.until, now)
        bounds: dict[str, Any] = {"since": since, "until": until, "newest": asked.newest}
        log = evaluation_ledger.read(ledger, scope, asked.point, settings.reward, **bounds)
    told = {"tenant": scope.tenant, "workspace": scope.workspace}
    return _answer(asked, log, target, told)


@contextmanager
def _ledger(settings: Settings) -> Iterator[Ledger]:
    """The ledger as it is: a missing one is not made. On PostgreSQL this process is among its workers meanwhile."""
    where = settings.database
    if isinstance(where, Path) and not where.exists():
        raise InputError(f"there is no ledger at {where}; run `windlass up` first, set WINDLASS_HOME, or give --log")
    db = Database(where, durability=settings.storage.durability)
    try:
        name = "" if db.dialect == "sqlite" else workers.unique("replay", settings.home)
        ledger = SqlLedger(db, name)
        try:
            yield ledger
        finally:
            ledger.close()
            if name:
                workers.leave(db, name)
    finally:
        db.close()


def _at_point(
    settings: Settings, asked: ReplayAsked, options: Mapping[str, Any] | None, ledger: Ledger, scope: Scope
) -> _Target:
    """The policy as it would act at the point: with its guards and share, and what it has learned there."""
    point = settings.decided[asked.point]
    place, own = _place(asked, point, options)
    share = own.randomised_share if asked.share is None else asked.share
    guards = [(guard.guard, guard.options) for guard in own.guards]
    chosen = options if options is not None else own.options if own.policy == asked.policy else {}
    fresh = _fresh(asked.policy, chosen, guards, share)
    if asked.learning or isinstance(innermost(fresh.policy), Rule):
        return _named(fresh, asked)
    learner = _learned(settings, ledger)
    state = dict(learner.loop.states()).get((scope.tenant, scope.workspace, place))
    if state is not None:
        try:
            fresh.policy.restore(state)
        except PolicyError:
            return _named(fresh, asked)  # it is asked about with other options than those that it learned with
        return fresh._replace(knows=f"{_FROZEN} {learner.cursor}; {_LEANS}")
    return _named(fresh, asked)


def _learned(settings: Settings, ledger: Ledger) -> Learner:
    """What the policies of the settings know by now: the newest snapshot that is of them, and what came since."""
    learner = Learner(Loop(settings.decided, settings.reward))
    kept = ledger.snapshot(LEARNER, Learner.VERSION)
    if kept is not None:
        with suppress(PolicyError):  # of other settings: then it is learned anew
            learner.restore(kept.state)
    learner.catch_up(ledger)
    return learner


_FROZEN: Final = "frozen as it has learned up to entry"
_LEANS: Final = "it may have learned from these decisions, which leans the figures its way; --replay-learning does not"


def _place(
    asked: ReplayAsked, point: PointOptions, options: Mapping[str, Any] | None
) -> tuple[str, PointOptions | ShadowOptions]:
    """Where the policy stands at the point: live, in shadow, or nowhere, which counts as the point's own place."""
    beside: Sequence[tuple[str, PointOptions | ShadowOptions]] = [
        (asked.point, point),
        *((shadow_place(asked.point, shadow.name), shadow) for shadow in point.shadows),
    ]
    for place, own in beside:
        if own.policy == asked.policy and options in (None, dict(own.options)):
            return place, own
    return asked.point, point


def _fresh(
    name: str, options: Mapping[str, Any], guards: Sequence[tuple[str, Mapping[str, Any]]], share: float
) -> _Target:
    """One that has learned nothing. InputError for a policy, an option or a share that cannot be."""
    try:
        return _Target(registry.guarded(registry.make(name, options), guards, share), share, "")
    except PolicyError as exc:
        raise InputError(str(exc)) from exc


def _named(target: _Target, asked: ReplayAsked) -> _Target:
    if isinstance(innermost(target.policy), Rule):
        return target._replace(knows="a rule that learns nothing")
    if asked.learning:
        return target._replace(knows="learning from each logged decision after it was asked about it, from nothing on")
    return target._replace(knows="it has learned nothing, and stays so; --replay-learning lets it learn from the log")


def _options(asked: ReplayAsked) -> Mapping[str, Any] | None:
    """The options of the policy; None where none are given."""
    if not asked.options:
        return None
    try:
        return msgspec.json.decode(asked.options, type=dict[str, Any])
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as exc:
        raise InputError(f'--options is no JSON object: {exc}; write it like \'{{"action": "small"}}\'') from exc


def _answer(asked: ReplayAsked, log: Log, target: _Target, told: Mapping[str, Any]) -> dict[str, Any]:
    try:
        found: Evaluation = evaluate(log.choices, target.policy, learning=asked.learning, cap=asked.cap)
    except PolicyError as exc:
        raise InputError(f"policy {asked.policy!r} cannot be evaluated: {exc}") from exc
    at = [one.decision.at for one in log.choices]
    head = {
        "policy": identity(target.policy),
        "share": target.share,
        "knows": target.knows,
        "learning": asked.learning,
        "cap": asked.cap,
        "point": asked.point,
        "log": {**told, "from": min(at, default=None), "to": max(at, default=None), "left_out": dict(log.left_out)},
    }
    return evaluation_report.report(head, found)
