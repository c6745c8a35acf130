"""What one can ask a running Windlass to do, as plain data in and out: for the command line and for `/api`.

Every operation takes the runtime, the caller it acts for, and its arguments as decoded JSON.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec

from windlass.content.ingest import COLLECTION, files_of, vectors_run
from windlass.gateway.access.admission import Caller, require
from windlass.gateway.gateway import AUTO
from windlass.records import RunEvent
from windlass.runtime import Runtime
from windlass.server import (
    budgets,
    control,
    doctor,
    experiments,
    graders,
    history,
    keyring,
    keys,
    pricing,
    providers,
    reading,
)
from windlass.server.clusters import clusters
from windlass.server.points import require_known
from windlass.server.reading import read
from windlass.server.reload import ReloadAsked, reload
from windlass.server.routing import RouteAsked, route
from windlass.server.warm import WarmAsked, warm_start

Arguments = dict[str, Any]
Operation = Callable[[Runtime, Caller, Arguments], Awaitable[dict[str, Any]]]


class QuestionAsked(msgspec.Struct, forbid_unknown_fields=True):
    """Arguments of `ask`."""

    question: str
    model: str = AUTO
    item: str = ""


class PathsAsked(msgspec.Struct, forbid_unknown_fields=True):
    """Arguments of `ingest`."""

    paths: list[str]


class RunAsked(msgspec.Struct, forbid_unknown_fields=True):
    """Arguments of `progress`."""

    run: str


class DoctorAsked(msgspec.Struct, forbid_unknown_fields=True):
    """Arguments of `doctor`."""

    replay: bool = False


async def ask(runtime: Runtime, caller: Caller, arguments: Arguments) -> dict[str, Any]:
    """Answer a question from memory."""
    wanted = read(arguments, QuestionAsked)
    asked = await runtime.ask.ask(wanted.question, caller.scope, model=wanted.model, item=wanted.item, caller=caller)
    quotes = [{**msgspec.to_builtins(quote), "cited": quote.cited} for quote in asked.quotes]
    return {**msgspec.to_builtins(asked), "quotes": quotes}


async def ingest(runtime: Runtime, caller: Caller, arguments: Arguments) -> dict[str, Any]:
    """Start taking files in; `progress` tells how far it is."""
    require(caller, "operator")
    files = files_of([Path(path) for path in read(arguments, PathsAsked).paths])
    batch = await asyncio.to_thread(lambda: runtime.ingest.submit(caller.scope, files))
    return msgspec.to_builtins(batch)  # type: ignore[no-any-return]


async def progress(runtime: Runtime, caller: Caller, arguments: Arguments) -> dict[str, Any]:
    """How far a run is: items by stage, failures in words, how the run and its embedding stand."""
    run = read(arguments, RunAsked).run
    return await asyncio.to_thread(_progress, runtime, caller, run)


def _progress(runtime: Runtime, caller: Caller, run: str) -> dict[str, Any]:
    events = [*runtime.ledger.events(caller.scope, run), *runtime.ledger.events(caller.scope, vectors_run(run))]
    counts = runtime.memory.counts(caller.scope, COLLECTION)
    status, vectors_status = runtime.run_status(caller.scope, run)
    return {
        "status": status,
        "vectors_status": vectors_status,
        "text": _ended(events, "text"),
        "analysis": _ended(events, "analysis"),
        "failed": [
            {"item": event.item, "step": event.step, "error": event.result.error, "message": event.result.message}
            for event in events
            if event.result.status == "failed"
        ],
        "items": counts.items,
        "chunks": counts.chunks,
        "vectors": counts.vectors,
    }


async def examine(runtime: Runtime, caller: Caller, arguments: Arguments) -> dict[str, Any]:
    """What `windlass doctor` tells."""
    require(caller, "operator")
    report = await doctor.examine(runtime, caller.scope.tenant, replay=read(arguments, DoctorAsked).replay)
    return report if not caller.key else doctor.for_tenant(report)


async def decisions(runtime: Runtime, caller: Caller, arguments: Arguments) -> dict[str, Any]:
    """The newest decisions that are wanted; InputError for those of a point that there is not."""
    found = await reading.decisions(runtime, caller, arguments)
    point = arguments.get("point")
    if point and not found["decisions"]:
        await asyncio.to_thread(require_known, runtime, caller.scope, point)
    return found


async def points(runtime: Runtime, caller: Caller, arguments: Arguments) -> dict[str, Any]:
    """How the points stand; InputError for one that there is not."""
    if point := read(arguments, reading.PointsAsked).point:
        await asyncio.to_thread(require_known, runtime, caller.scope, point)
    return await reading.points(runtime, caller, arguments)


OPERATIONS: dict[str, Operation] = {
    "ask": ask,
    "ingest": ingest,
    "progress": progress,
    "history": history.history,
    "calls": reading.calls,
    "call": reading.call,
    "decisions": decisions,
    "points": points,
    "feedback": reading.feedback,
    "doctor": examine,
    "prices": pricing.prices,
    "budgets": budgets.budgets,
    "providers": providers.providers,
    "snapshots": control.snapshots,
    "mode": control.set_mode,
    "rollback": control.roll_back,
    "promote": control.promote,
    "always": control.always,
    "experiments": experiments.experiments,
    "experiment": experiments.experiment,
    "experiment_plan": experiments.forecast,
    "experiment_start": experiments.start,
    "experiment_advance": experiments.advance,
    "experiment_stop": experiments.stop,
    "experiment_rollback": experiments.roll_back,
    "experiment_ship": experiments.ship,
    "forget": control.forget,
    "reload": reload,
    "route": route,
    "clusters": clusters,
    "keys": keyring.listed,
    "key_create": keys.create,
    "key_rotate": keys.rotate,
    "key_revoke": keys.revoke,
    "graders": graders.graders,
    "grade": graders.grade,
    "agreement": graders.agreement,
    "warm_start": warm_start,
}
ASKED: dict[str, type[msgspec.Struct]] = {
    **reading.ARGUMENTS,
    "ask": QuestionAsked,
    "ingest": PathsAsked,
    "progress": RunAsked,
    "history": history.HistoryAsked,
    "doctor": DoctorAsked,
    "snapshots": control.NothingAsked,
    "mode": control.ModeAsked,
    "rollback": control.RollBackAsked,
    "promote": control.PromoteAsked,
    "always": control.AlwaysAsked,
    "experiment_plan": experiments.PlanAsked,
    "experiment_start": experiments.StartAsked,
    "experiment_advance": experiments.AdvanceAsked,
    "experiment_stop": experiments.EndAsked,
    "experiment_rollback": experiments.EndAsked,
    "experiment_ship": experiments.ShipAsked,
    "forget": control.UserAsked,
    "reload": ReloadAsked,
    "route": RouteAsked,
    "keys": keys.TenantAsked,
    "key_create": keys.CreateAsked,
    "key_rotate": keys.RotateAsked,
    "key_revoke": keys.RevokeAsked,
    "graders": graders.GradersAsked,
    "grade": graders.GradeAsked,
    "agreement": graders.AgreementAsked,
    "warm_start": WarmAsked,
}
"""What the arguments of each are read as."""


def _ended(events: Sequence[RunEvent], step: str) -> int:
    return len({event.item for event in events if event.step == step})
