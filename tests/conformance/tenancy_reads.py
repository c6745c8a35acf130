"""Everything that the rooms let one read, and how a probe reads it.

`surface` finds it by reflection: what is neither in `READS` nor in `OTHERS` fails the first test.
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import re
from collections.abc import Callable, Iterator
from typing import Any

import msgspec
from tests.conformance.tenancy_world import Probe, Read

import windlass
from windlass.content.ask import Ask
from windlass.content.ingest import COLLECTION, Ingest
from windlass.content.store import Contents
from windlass.gateway.access.keys import Keys
from windlass.gateway.access.limits import Limits
from windlass.gateway.gateway import Gateway
from windlass.gateway.provider import Providers
from windlass.ledger.audit import Audit
from windlass.ledger.ledger import CallFilter, DecisionFilter, FeedbackFilter
from windlass.ledger.memory import MemoryLedger
from windlass.ledger.sql import SqlLedger
from windlass.memory import retrieval
from windlass.memory.store import Memory
from windlass.policies.experiments import Trials
from windlass.policies.loop import Loop
from windlass.policies.replay import Learner
from windlass.records import user_digest
from windlass.runtime import Runtime
from windlass.server.dashboard.answers import Answers
from windlass.watch.outcomes.store import OutcomeTables
from windlass.watch.overview import Overview
from windlass.watch.projections import Projections
from windlass.watch.spending.store import Spending
from windlass.watch.store import Rollups
from windlass.workflows.durable import Durable

FRONTS = (
    *(SqlLedger, MemoryLedger, Audit, Memory, Contents, Ingest, Ask, Loop, Learner, Projections, Overview, Rollups),
    *(Trials, Gateway, Providers, Durable, Runtime, Answers, OutcomeTables, Spending, Keys, Limits),
)
"""What the rooms show to others: all their public methods are looked at, not those alone that take an owner."""


def _ledger(name: str, read: Callable[[Any, Probe], Any]) -> dict[str, Read]:
    """The same read of the ledger on the database and of the one in memory."""
    return {
        f"SqlLedger.{name}": lambda world, probe: read(world.runtime.ledger, probe),
        f"MemoryLedger.{name}": lambda world, probe: read(world.ledger, probe),
    }


def _odd(probe: Probe) -> str:
    """What the probe holds, or nothing where its number is even."""
    return probe.text if probe.number % 2 else ""


def _page(probe: Probe) -> dict[str, str]:
    """Between which records a page stands: every fourth time back to what the probe holds."""
    return {"before": _odd(probe), "back_to": probe.text if probe.number % 4 == 2 else ""}


def _search(probe: Probe) -> CallFilter | FeedbackFilter:
    """A search by words for a call of a user, or for feedback on a target."""
    return CallFilter(text="a", user=probe.text) if probe.number % 2 else FeedbackFilter(text="a", target=probe.text)


def _filter(kind: type[Any], probe: Probe) -> Any:
    """A filter with the probe's text in one of its fields; every other time one that asks nothing."""
    texts = [field.name for field in msgspec.structs.fields(kind) if field.type is str]
    at = probe.number // 2
    return kind(**{texts[at // 2 % len(texts)]: probe.text}) if at % 2 else kind()


CONTEXT = {"one": 1.0, "embedding": (0.5, -0.25)}
READS: dict[str, Read] = {
    **_ledger("read", lambda own, p: own.read(p.scope, after=p.number % 50, limit=1 + p.number % 2000)),
    **_ledger("calls", lambda own, p: own.calls(p.scope, limit=200, **_page(p), wanted=_filter(CallFilter, p))),
    **_ledger("decisions", lambda own, p: own.decisions(p.scope, point=_odd(p), wanted=_filter(DecisionFilter, p))),
    **_ledger("feedback", lambda own, p: own.feedback(p.scope, **_page(p), wanted=_filter(FeedbackFilter, p))),
    **_ledger("reach", lambda own, p: own.reach(p.scope, _search(p), before=_page(p)["back_to"], records=1)),
    **_ledger("trace", lambda own, p: own.trace(p.scope, p.text)),
    **_ledger("calls_beneath", lambda own, p: own.calls_beneath(p.scope, p.text)),
    **_ledger("events", lambda own, p: own.events(p.scope, p.text)),
    **_ledger("bodies", lambda own, p: own.bodies(p.scope, p.text)),
    "Audit.rows": lambda w, p: w.audit.rows(p.scope, limit=100, before=p.number % 20),
    "Memory.chunks": lambda w, p: w.runtime.memory.chunks(p.scope, _some(p), range(p.number % 60)),
    "Memory.counts": lambda w, p: w.runtime.memory.counts(p.scope, _some(p)),
    "Memory.pending": lambda w, p: w.runtime.memory.pending(p.scope, _some(p), 1 + p.number % 100),
    "Memory.view": lambda w, p: _seen(
        w.runtime.memory.view(p.scope, _some(p), p.text, p.text if p.number % 3 else None)
    ),
    "retrieval.search": lambda w, p: retrieval.search(w.runtime.memory, p.scope, COLLECTION, p.text, 1 + p.number % 20),
    "Contents.source": lambda w, p: w.runtime.contents.source(p.scope, p.text),
    "Contents.items": lambda w, p: w.runtime.contents.items(p.scope, [p.text] if p.number % 2 else None),
    "Contents.segments": lambda w, p: w.runtime.contents.segments(p.scope, p.text, 0, p.number % 9 or None),
    "Contents.chapters": lambda w, p: w.runtime.contents.chapters(p.scope, p.text),
    "Contents.key_quotes": lambda w, p: w.runtime.contents.key_quotes(p.scope, p.text),
    "Contents.headings": lambda w, p: w.runtime.contents.headings(p.scope, [p.text, *w.known]),
    "Loop.explain": lambda w, p: w.runtime.loop.explain("model", p.scope, CONTEXT, ("echo", "parrot")),
    "Loop.mode": lambda w, p: w.runtime.loop.mode("model", p.scope),
    "Trials.of": lambda w, p: w.runtime.learner.trials.of(p.scope),
    "Learner.scores": lambda w, p: w.runtime.learner.scores(p.scope, p.text if p.number % 2 else "model"),
    "OutcomeTables.hours": lambda w, p: w.runtime.watch.outcomes.hours(p.scope, float(p.number % 3)),
    "OutcomeTables.going_on": lambda w, p: w.runtime.watch.outcomes.going_on(p.scope),
    "OutcomeTables.over": lambda w, p: w.runtime.watch.outcomes.over(p.scope, limit=1 + p.number % 9),
    "OutcomeTables.keys": lambda w, p: w.runtime.watch.outcomes.keys(p.scope, key=_odd(p)),
    "OutcomeTables.last_used": lambda w, p: w.runtime.watch.outcomes.last_used(p.scope, p.text),
    "Spending.refused": lambda w, p: w.runtime.watch.spending.refused(p.scope),
    "Overview.totals": lambda w, p: w.runtime.overview.totals(p.scope, float(p.number % 3)),
    "Overview.by_model": lambda w, p: w.runtime.overview.by_model(p.scope),
    "Overview.by_hour": lambda w, p: w.runtime.overview.by_hour(p.scope),
    "Overview.counted": lambda w, p: w.runtime.overview.counted(p.scope),
    "Rollups.outcomes": lambda w, p: w.runtime.rollups.outcomes(p.scope),
    "Rollups.decisions": lambda w, p: w.runtime.rollups.decisions(p.scope, point=p.text if p.number % 2 else ""),
    "Rollups.feedback": lambda w, p: w.runtime.rollups.feedback(p.scope),
    "Answers.find": lambda w, p: w.answers.find(p.scope, p.text),
    "records.user_digest": lambda w, p: user_digest(p.scope, p.text),
}

PARAMETERS = {
    **{f"{kind}.calls": "back_to before limit wanted" for kind in ("SqlLedger", "MemoryLedger")},
    **{f"{kind}.decisions": "before limit point wanted" for kind in ("SqlLedger", "MemoryLedger")},
    **{f"{kind}.feedback": "back_to before limit wanted" for kind in ("SqlLedger", "MemoryLedger")},
    **{f"{kind}.reach": "before records wanted" for kind in ("SqlLedger", "MemoryLedger")},
    **{f"{kind}.read": "after limit" for kind in ("SqlLedger", "MemoryLedger")},
    "Audit.rows": "before limit",
    "Memory.chunks": "collection ids",
    "Memory.pending": "collection limit",
    "Memory.view": "collection item query",
    "retrieval.search": "collection item k memory query",
    "Contents.segments": "first item last",
    "Loop.explain": "actions context point shadow",
    "Rollups.outcomes": "since until",
    "Rollups.decisions": "point since until",
    "Rollups.feedback": "since until",
    "OutcomeTables.keys": "key since",
    "OutcomeTables.over": "before limit",
}
"""What a read takes beside its owner, where that is more than one thing: a new one wants to be probed as well."""

OTHERS: dict[str, str] = {
    # Writes, which name their owner, and what they give back.
    **dict.fromkeys(("Audit.append", "Answers.keep", "Contents.put_analysis", "Contents.put_item"), "writes"),
    **dict.fromkeys(("Contents.put_source", "Memory.put_text", "Memory.put_vectors", "Memory.remove"), "writes"),
    **dict.fromkeys(("Memory.collection", "Ingest.submit", "Ingest.register", "Run.step"), "writes"),
    **dict.fromkeys(("Runtime.feedback", "Runtime.forget", "Runtime.roll_out"), "writes; what follows is read back"),
    "Runtime.refused": "writes to the trail of the process",
    "Runtime.reload": "writes; of the machine's owner alone",
    **dict.fromkeys(("FeedbackRequest.record", "FeedbackRequest.said_by", "rollout.rollout"), "makes a record"),
    **{f"past.{name}": "makes a record" for name in ("call_of", "feedback_of")},
    **{f"past.{name}": "makes an id" for name in ("call_id", "group_id", "word_id")},
    "admission.require": "compares roles",
    "Admission.knows": "compares a caller with the settings",
    "Admission.current": "of the caller's own key",
    "Admission.workspaces": "of the caller's own key",
    "Loop.decide": "decides for the scope; probed through the gateway",
    "Ask.ask": "probed through /api/ask and the page",
    "Gateway.complete": "probed through /v1/chat/completions",
    # Of the process, not of a tenant: no door leads there but an operator's, or the folder's owner's.
    **{
        f"{kind}.{name}": "the ledger's own keeping: appends, snapshots of all policies together, pruning"
        for kind in ("SqlLedger", "MemoryLedger")
        for name in (
            *("append", "append_now", "keep", "post", "on_commit", "head", "close", "prune", "prune_contexts", "erase"),
            *("save_snapshot", "snapshot", "snapshots", "has_contexts", "rewrite_snapshot"),
        )
    },
    **{f"Keys.{name}": "opens doors by the key itself" for name in ("find", "get", "now", "refresh")},
    **{f"Keys.{name}": "of all tenants; probed through /api/keys" for name in ("all", "strange")},
    **{f"Keys.{name}": "by tenant and name; probed through /api/key_*" for name in ("create", "revoke", "rotate")},
    **{
        f"Limits.{name}": "of all tenants; probed through /api/budgets"
        for name in ("any", "budget", "counts", "reserve")
    },
    "Limits.replace": "writes; of the machine's owner alone",
    **{f"Audit.{name}": "keeps the chain" for name in ("checkpoint", "seal", "start", "stop", "tick")},
    "SqlLedger.folded": "reads over all scopes, for the folds alone",
    "Runtime.lag_s": "a time, of no record in particular",
    "Projections.follow": "the folds",
    "Learner.calls": "how many calls are kept, of all",
    "Lineage.beneath": "gives ids of a trace, made of the scope and the call's id",
    **{f"span.{name}": "an id made of the owner and the call's id" for name in ("span_id", "trace_id")},
    "SqlLedger.pace": "how the writer of the process keeps up",
    "Learner.following": "reads over all scopes, for the fold alone",
    "Repeats.answer": "its place holds the tenant, the workspace and the key of the caller",
    "Audit.across": "gives the right to read across tenants, and records it",
    **{f"Loop.{name}": "the policies' own keeping" for name in ("learn", "replace", "restore", "states")},
    "Loop.unteachable": "says of what kind a policy of the settings is",
    **{f"Loop.{name}": "of the settings, the same for all" for name in ("policy_id", "fingerprint")},
    **{f"Learner.{name}": "the fold" for name in ("catch_up", "digest", "fold", "on_credit", "restore", "state")},
    **{f"Projections.{name}": "the folds" for name in ("catch_up", "choices", "erase", "keep", "prune_contexts")},
    **{f"Projections.{name}": "the folds" for name in ("replay", "restore", "snapshots")},
    **{f"Rollups.{name}": "the fold" for name in ("clear", "credited", "flush", "fold", "look")},
    **{f"Providers.{name}": "of the settings" for name in ("embedders", "embedding")},
    **{
        f"Learner.{name}": "asks by the scope; behind /api/experiment_start, which is probed"
        for name in ("check", "made")
    },
    **{
        f"Loop.{name}": "of the settings, and of what stands at the key that is given"
        for name in ("acts", "has", "require_shadow")
    },
    **{
        f"Trials.{name}": "the fold" for name in ("alarmed", "assigned", "check", "follow", "forget", "moved", "stored")
    },
    **{f"Trials.{name}": "the fold" for name in ("tell", "unrecorded")},
    "known.known": "reads by the scope, behind /api/experiment_plan, which is probed",
    "history.past": "reads by the scope, behind /api/experiment_plan, which is probed",
    "acting.assigned": "draws by the scope; probed through the gateway",
    "Loop.look": "of one workspace's policy, behind /api/route and the page, which are probed",
    **{f"Loop.{name}": "the policies' own keeping" for name in ("forget", "serve", "spend")},
    **{f"PromptClusters.{name}": "of one workspace; probed through /api/clusters" for name in ("of", "within")},
    "PromptClusters.forget": "lets go of one workspace's",
    "choices.choices": "reads by the scope, behind /api/clusters, which is probed",
    "clustering.clustered": "reads by the scope, behind /api/clusters, which is probed",
    "judged.said_of": "makes a record",
    "objectives.limits": "of the settings, for the caller's own call",
    "selection.selected": "decides for the scope; probed through the gateway",
    "Grading.grade": "reads by the scope that it is given, behind /api/grade, which is probed",
    **{
        f"Measuring.{name}": "reads by the scope, behind /api/agreement, which is probed"
        for name in ("calibrated", "measure")
    },
    "Asking.ask": "asks the gateway in the name of the call's owner",
    "Seat.grade_id": "makes an id",
    "Forced.decide": "of one call, by what was chosen beside it",
    **{f"Forced.{name}": "of a loop without points" for name in ("explain", "forget", "look", "mode")},
    **{f"WarmTable.{name}": "of one workspace; probed through /api/warm_start" for name in ("claim", "progress")},
    "WarmTable.forget": "lets go of what is one user's",
    "prompt.parent_of": "makes an id",
    "Gateway.question": "the context of one call, of the caller's own workspace; probed through /api/route",
    "Allowances.allowance_nusd": "of the limits that hold the caller's own call; probed through /api/route",
    **{
        f"Bases.{name}": "of one workspace, for its own prompts; probed through /api/route"
        for name in ("of", "note", "seen")
    },
    **{f"BasisTable.{name}": "of one workspace, behind Bases" for name in ("find", "keep")},
    **{f"CallCosts.{name}": "counts of one workspace" for name in ("answered", "completion_tokens", "ended", "knows")},
    **{f"CallCosts.{name}": "counts of one workspace" for name in ("expected_nusd", "recall")},
    **{f"PromptVectors.{name}": "by workspace and digest" for name in ("find", "known")},
    **{f"{kind}.forget": "lets go of what is one user's" for kind in ("Bases", "CallCosts", "PromptVectors", "Router")},
    "objectives.aims": "of the settings",
    "Overview.cursor": "how far the fold is",
    **{f"OutcomeTables.{name}": "the fold" for name in ("catch_up", "clear")},
    **{f"Spending.{name}": "the keeping of the tables" for name in ("flush", "refuse", "sample")},
    **{f"Spending.{name}": "of a limit's count; probed through /api/budgets" for name in ("series", "used")},
    **{f"Providers.{name}": "of the settings" for name in ("close", "find", "named", "names", "owner", "routable")},
    "retention.forgotten": "yes or no, of the scope's own rows; behind SqlLedger",
    "Ingest.status": "by the id of a run; probed through /api/progress",
    **{f"Durable.{name}": "the engine, behind Ingest" for name in ("close", "drain", "enqueue", "register", "start")},
    **{f"Durable.{name}": "the engine" for name in ("status", "stopping", "submit", "take_over", "unfinished")},
    **dict.fromkeys(("Runtime.run_status", "Runs.status"), "by the id of a run; probed through /api/progress"),
    "Rollups.together": "lets the writing wait",
    "ingest.owns": "compares a run's id with its owner's tag",
    **{f"Runtime.{name}": "of the process" for name in ("caught_up", "ingest", "lags", "learner", "replay", "workers")},
}
PRIVATE_MODULES = {
    "windlass.ledger.check": "the contract's suite makes records",
    "windlass.memory.rows": "the statements of one room, behind Memory",
    "windlass.testing": "hands on what other modules define",
}


_OWNED = re.compile(r"\b(Scope|AnyScope|Caller)\b")


def surface() -> set[str]:
    """Every public method or function that takes an owner, and every public method of the fronts."""
    found = {f"{front.__name__}.{name}" for front in FRONTS for name in _public(front)}
    for about in pkgutil.walk_packages(windlass.__path__, "windlass."):
        if "migrations" in about.name or about.name.startswith(("windlass.server", "windlass.__main__")):
            continue
        if about.name not in PRIVATE_MODULES:
            found |= set(_owned(importlib.import_module(about.name)))
    return found


def _owned(module: Any) -> Iterator[str]:
    for name, thing in vars(module).items():
        if name.startswith("_") or getattr(thing, "__module__", "") != module.__name__:
            continue
        if inspect.isclass(thing) and thing.__name__ != "Ledger":  # the Protocol of the two that are fronts
            yield from (f"{name}.{method}" for method in _public(thing) if _takes_owner(getattr(thing, method)))
        elif inspect.isfunction(thing) and _takes_owner(thing):
            yield f"{module.__name__.rpartition('.')[2]}.{name}"


def _public(kind: type) -> list[str]:
    return [name for name, thing in inspect.getmembers(kind) if not name.startswith("_") and _active(thing)]


def _active(thing: Any) -> bool:
    return callable(thing) or isinstance(thing, property)


def _takes_owner(thing: Any) -> bool:
    try:
        parameters = inspect.signature(thing).parameters.values()
    except (TypeError, ValueError):
        return False
    return any(_OWNED.search(str(parameter.annotation)) for parameter in parameters)


def _some(probe: Probe) -> str:
    """The name of a collection: the usual one, or whatever the probe holds."""
    return COLLECTION if probe.number % 3 else probe.text


def _seen(view: Any) -> Any:
    """A view of memory as plain data."""
    if view is None:
        return None
    among = None if view.among is None else view.among.tolist()
    flat = None if view.flat is None else view.flat.ids.tolist()
    return view.size, among, flat, [getattr(part, "tolist", lambda part=part: part)() for part in _parts(view.matches)]


def _parts(matches: Any) -> list[Any]:
    return [getattr(matches, name) for name in ("ids", "bm25", "coverage") if hasattr(matches, name)]
