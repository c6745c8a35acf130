"""What one tenant writes, no other tenant, and no other workspace of the same one, ever reads: through any door.

Two worlds hold the same rows of the tenant `rival`; in one of them the tenant `acme` has written to every room as well.
Each probe asks both worlds the same thing as somebody who is not `acme/default`. What comes back must be equal, and
must hold nothing of what `acme` planted: a word in every text, a figure in every number. Every public method that takes
an owner is found by reflection: one that this file does not know fails the first test.
"""

from __future__ import annotations

import asyncio
import html
import importlib
import inspect
import itertools
import json
import pkgutil
import random
import re
import typing
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote, quote_plus

import msgspec
import pytest
from markupsafe import escape
from tests.golden.application import NOW, Inline, chat, inline_ingest, key, opened
from tests.golden.application import Client as ApiClient
from tests.unit.memory.conftest import BagOfWords
from tests.unit.server.dashboard.visitor import Visitor, called

import windlass
from windlass import records
from windlass.content.analysis import Chapter, KeyQuote
from windlass.content.ask import Ask
from windlass.content.ingest import COLLECTION, Ingest, item_id
from windlass.content.store import Contents
from windlass.content.transcript import Transcript, Turn
from windlass.errors import WindlassError
from windlass.gateway.echo import Echo
from windlass.gateway.feedback import FeedbackRequest
from windlass.gateway.gateway import Gateway, Request
from windlass.gateway.provider import Providers
from windlass.ledger import ids
from windlass.ledger.audit import Audit
from windlass.ledger.ledger import Body, CallFilter, DecisionFilter, FeedbackFilter
from windlass.ledger.memory import MemoryLedger
from windlass.ledger.sql import SqlLedger
from windlass.memory import retrieval
from windlass.memory.chunk import Passage
from windlass.memory.store import Memory
from windlass.policies.loop import Loop
from windlass.policies.replay import Learner
from windlass.records import Call, Decision, Erasure, Feedback, Outcome, RunEvent, Scope, StepResult, user_digest
from windlass.runtime import Runtime
from windlass.server.app import Windlass
from windlass.server.dashboard.answers import Answers
from windlass.server.dashboard.pages import dashboard
from windlass.server.operations import OPERATIONS
from windlass.watch.overview import Overview
from windlass.watch.projections import Projections
from windlass.watch.store import Rollups
from windlass.workflows.durable import Durable

PROBES = 10_000
SLICE = 2_500
HTTP_SHARE = 0.06
WORD, FIGURE = "zqxjkvault", 7_361_999
SECRET = re.compile(rf"(?i){WORD}|7[,.\s]?361[,.\s]?999|73619\.99|20:26:59")
OWNER, RIVAL = Scope("acme"), Scope("rival")
FRONTS = (
    *(SqlLedger, MemoryLedger, Audit, Memory, Contents, Ingest, Ask, Loop, Learner, Projections, Overview, Rollups),
    *(Gateway, Providers, Durable, Runtime, Answers),
)
"""What the rooms show to others: all their public methods are looked at, not those alone that take an owner."""

# --- everything that can be read, and how a probe reads it


class Probe(NamedTuple):
    """Who asks, with what."""

    scope: Scope
    text: str
    number: int


@dataclass
class World:
    """One application in process. known: what the owner's rows are called, for probes that ask for them by name."""

    runtime: Runtime
    ingest: Ingest
    audit: Audit
    ledger: MemoryLedger
    answers: Answers
    app: Windlass
    known: list[str] = field(default_factory=list)
    signed_in: dict[str, Visitor] = field(default_factory=dict)


Read = Callable[[World, Probe], Any]


def _ledger(name: str, read: Callable[[Any, Probe], Any]) -> dict[str, Read]:
    """The same read of the ledger on the database and of the one in memory."""
    return {
        f"SqlLedger.{name}": lambda world, probe: read(world.runtime.ledger, probe),
        f"MemoryLedger.{name}": lambda world, probe: read(world.ledger, probe),
    }


def _odd(probe: Probe) -> str:
    """What the probe holds, or nothing where its number is even."""
    return probe.text if probe.number % 2 else ""


def _filter(kind: type[Any], probe: Probe) -> Any:
    """A filter with the probe's text in one of its fields; every other time one that asks nothing."""
    texts = [field.name for field in msgspec.structs.fields(kind) if field.type is str]
    at = probe.number // 2
    return kind(**{texts[at // 2 % len(texts)]: probe.text}) if at % 2 else kind()


CONTEXT = {"one": 1.0, "embedding": (0.5, -0.25)}
READS: dict[str, Read] = {
    **_ledger("read", lambda own, p: own.read(p.scope, after=p.number % 50, limit=1 + p.number % 2000)),
    **_ledger("calls", lambda own, p: own.calls(p.scope, limit=200, before=_odd(p), wanted=_filter(CallFilter, p))),
    **_ledger("decisions", lambda own, p: own.decisions(p.scope, point=_odd(p), wanted=_filter(DecisionFilter, p))),
    **_ledger("feedback", lambda own, p: own.feedback(p.scope, before=_odd(p), wanted=_filter(FeedbackFilter, p))),
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
    "Learner.scores": lambda w, p: w.runtime.learner.scores(p.scope, p.text if p.number % 2 else "model"),
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
    **{f"{kind}.calls": "before limit wanted" for kind in ("SqlLedger", "MemoryLedger")},
    **{f"{kind}.decisions": "before limit point wanted" for kind in ("SqlLedger", "MemoryLedger")},
    **{f"{kind}.feedback": "before limit wanted" for kind in ("SqlLedger", "MemoryLedger")},
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
}
"""What a read takes beside its owner, where that is more than one thing: a new one wants to be probed as well."""

OTHERS: dict[str, str] = {
    # Writes, which name their owner, and what they give back.
    **dict.fromkeys(("Audit.append", "Answers.keep", "Contents.put_analysis", "Contents.put_item"), "writes"),
    **dict.fromkeys(("Contents.put_source", "Memory.put_text", "Memory.put_vectors", "Memory.remove"), "writes"),
    **dict.fromkeys(("Memory.collection", "Ingest.submit", "Ingest.register", "Run.step"), "writes"),
    **dict.fromkeys(("Runtime.feedback", "Runtime.forget", "Runtime.roll_out"), "writes; what follows is read back"),
    **dict.fromkeys(("FeedbackRequest.record", "FeedbackRequest.said_by", "rollout.rollout"), "makes a record"),
    "admission.require": "compares roles",
    "Admission.knows": "compares a caller with the settings",
    "Loop.decide": "decides for the scope; probed through the gateway",
    "Ask.ask": "probed through /api/ask and the page",
    "Gateway.complete": "probed through /v1/chat/completions",
    # Of the process, not of a tenant: no door leads there but an operator's, or the folder's owner's.
    **{
        f"{kind}.{name}": "the ledger's own keeping: appends, snapshots of all policies together, pruning"
        for kind in ("SqlLedger", "MemoryLedger")
        for name in (
            *("append", "append_now", "post", "on_commit", "head", "close", "prune", "prune_contexts", "erase"),
            *("save_snapshot", "snapshot", "snapshots", "has_contexts", "rewrite_snapshot"),
        )
    },
    **{f"Audit.{name}": "keeps the chain" for name in ("checkpoint", "seal", "start", "stop", "tick")},
    "Audit.across": "gives the right to read across tenants, and records it",
    **{f"Loop.{name}": "the policies' own keeping" for name in ("learn", "replace", "restore", "states")},
    **{f"Loop.{name}": "of the settings, the same for all" for name in ("policy_id", "fingerprint")},
    **{f"Learner.{name}": "the fold" for name in ("catch_up", "digest", "fold", "on_credit", "restore", "state")},
    **{f"Projections.{name}": "the folds" for name in ("catch_up", "choices", "erase", "keep", "prune_contexts")},
    **{f"Projections.{name}": "the folds" for name in ("replay", "restore", "snapshots")},
    **{f"Rollups.{name}": "the fold" for name in ("clear", "credited", "flush", "fold", "look")},
    **{f"Providers.{name}": "of the settings" for name in ("embedders", "embedding")},
    "Overview.cursor": "how far the fold is",
    **{f"Providers.{name}": "of the settings" for name in ("close", "find", "names", "owner", "routable")},
    "Ingest.status": "by the id of a run; probed through /api/progress",
    **{f"Durable.{name}": "the engine, behind Ingest" for name in ("close", "drain", "enqueue", "register", "start")},
    **{f"Durable.{name}": "the engine" for name in ("status", "stopping", "submit", "take_over", "unfinished")},
    "Runtime.run_status": "by the id of a run; probed through /api/progress",
    "ingest.owns": "compares a run's id with its owner's tag",
    **{f"Runtime.{name}": "of the process" for name in ("caught_up", "ingest", "lags", "learner", "replay", "workers")},
}
PRIVATE_MODULES = {
    "windlass.ledger.check": "the contract's suite makes records",
    "windlass.memory.rows": "the statements of one room, behind Memory",
    "windlass.testing": "hands on what other modules define",
}
SHOWN = (
    *("/", "/ask", "/calls", "/calls/{id}", "/feedback"),
    *("/decisions", "/decisions/{point}", "/decisions/{point}/change"),
)
"""The pages that show a tenant's rows; `_page` asks them with each of `QUERY`."""
QUERY = (
    *("text", "model", "provider", "error", "endpoint", "user", "before", "range", "q", "a", "said", "point", "policy"),
    *("action", "live", "kind", "source", "metric", "target", "mode", "snapshot"),
)
PAGES = {*SHOWN, "/calls/{id}/feedback", "/events", "/login", "/logout", "/static/{name}"}
ENDPOINTS = {"/v1/chat/completions", "/v1/embeddings", "/v1/models", "/v1/feedback", "/healthz"}
ASKED = {"ask", "ingest", "progress", "calls", "decisions", "doctor", "snapshots", "mode", "rollback", "forget"}
ASKED |= {"call", "points", "feedback"}
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


def test_every_public_read_is_known_here() -> None:
    known = READS.keys() | OTHERS.keys()
    assert surface() - known == set(), "probe it in READS, or say in OTHERS why nobody else's rows can come of it"
    assert known - surface() == set(), "gone from the tree: take it out here as well"
    assert READS.keys() & OTHERS.keys() == set()


def test_every_argument_of_a_read_is_known_here() -> None:
    named = {front.__name__: front for front in FRONTS} | {"retrieval": retrieval, "records": records}
    for read in READS:
        home, _, name = read.partition(".")
        takes = sorted(inspect.signature(getattr(named[home], name)).parameters.keys() - {"self", "scope"})
        assert len(takes) <= 1 if read not in PARAMETERS else takes == PARAMETERS[read].split(), read


async def test_every_page_endpoint_and_operation_is_known_here(tmp_path: Path) -> None:
    async with opened(tmp_path) as runtime:
        pages: Any = dashboard(runtime)
        assert {route.path for route in pages._app.routes} == PAGES
        assert {path for _, path in Windlass(runtime)._routes} == ENDPOINTS
    assert OPERATIONS.keys() == ASKED, "ask it in DOORS"


# --- the worlds


def _records(scope: Scope, word: str, figure: int) -> list[Any]:
    """One record of each kind, two bodies; `word` stands in every text, `figure` in every number."""
    owner: dict[str, Any] = {"tenant": scope.tenant, "workspace": scope.workspace, "at": NOW}
    made: dict[str, Any] = {"extra": {word: figure, "why": word}}
    call, decided, run = f"call_{word}", f"decision_{word}", f"run_{word}"
    context = {word: float(figure), "one": 1.0}
    result = StepResult(status="failed", value={word: figure}, error=word, message=word, cost_nusd=figure)
    tokens = {"prompt_tokens": figure, "completion_tokens": figure, "cost_nusd": figure}
    took = {"latency_ms": float(figure), "first_byte_ms": float(figure)}
    said = {"target": call, "kind": "rating", "source": "user", "value": figure / 1e7, "comment": word, "metric": word}
    chosen = {
        "policy": f"{word}@1",
        "actions": (word, "echo"),
        "action": word,
        "propensity": figure / 1e7,
        "live": True,
    }
    body = {"call": call, "user": word, "data": word.encode(), "expires_at": NOW + 1e6}
    return [
        Call(
            id=call,
            endpoint=word,
            model=word,
            parent=f"answer_{word}",
            user=word,
            request_bytes=figure,
            **owner,
            **made,
        ),
        Decision(
            id=decided,
            call=call,
            point="model",
            context=context,
            featuriser=word,
            fallback=word,
            **chosen,
            **owner,
            **made,
        ),
        Decision(id=f"{decided}_2", call=call, point=f"point_{word}", **chosen, **owner),
        Outcome(
            id=f"outcome_{word}",
            call=call,
            model=word,
            provider=word,
            status=200,
            error=word,
            **tokens,
            **took,
            **owner,
            **made,
        ),
        Feedback(id=f"feedback_{word}", **said, **owner, **made),
        RunEvent(
            id=f"event_{word}", run=run, workflow=word, step=word, item=f"item_{word}", result=result, **owner, **made
        ),
        Erasure(id=f"erasure_{word}", user=word, **owner, **made),
        Body(id=f"{call}-request", role="request", **body, **owner),
        Body(id=f"{call}-reply", role="reply", **body, **owner),
    ]


def _fill(world: World, scope: Scope, word: str, figure: int) -> None:
    """Content, memory and the trail of one scope."""
    runtime, item, start_s = world.runtime, f"item_{word}", figure / 100
    turn = Turn(word, start_s, start_s + 1, f"The {word} windlass turns one way, {figure} times.")
    transcript = Transcript(word, word, word, (word,), (word,), True, (turn,), (), (word,))
    runtime.contents.put_source(scope, item, f"{word}.md", word.encode(), NOW)
    runtime.contents.put_item(scope, item, transcript, NOW)
    chapter = Chapter(word, start_s, start_s + 1, 0, 0, False)
    runtime.contents.put_analysis(scope, item, [chapter], [KeyQuote(turn.text, word, start_s, 0, 1.0)])
    passages = [Passage(number, 0, 0, start_s, f"{word} {number}: {turn.text}") for number in range(6)]
    for collection in (COLLECTION, f"collection_{word}"):
        runtime.memory.put_text(scope, collection, item, passages)
        runtime.memory.put_vectors(scope, collection, runtime.memory.pending(scope, collection, 3))
    world.audit.append(scope, f"key:{word}", word, {word: figure})
    world.known += [item, word, f"{word}.md", f"collection_{word}"]


async def _write(world: World, scope: Scope, secret: str, word: str, figure: int, folder: Path) -> None:
    """Everything that a tenant can write, through the rooms and through the doors."""
    runtime = world.runtime
    rows = _records(scope, word, figure)
    await runtime.ledger.append(*rows)
    await world.ledger.append(*rows)
    await asyncio.to_thread(_fill, world, scope, word, figure)
    call = await called(runtime, f"tell me of {word}", key=secret)
    await runtime.feedback(scope, FeedbackRequest(target=call, kind="rating", value=1.0, id=f"rating_{word}"))
    file = folder / f"{word}.md"
    file.write_text(f"# {word}\n\n{word}: The {word} capstan holds {figure} ropes in the harbour.\n")
    batch = await asyncio.to_thread(world.ingest.submit, scope, [file])
    await runtime.caught_up()  # so that the answer's model is chosen from the same knowledge in both worlds
    asked = await runtime.ask.ask(f"How many ropes does the {word} capstan hold?", scope)
    await world.answers.keep(scope, asked)
    await runtime.caught_up()
    names = [row.id for row in rows] + [f"run_{word}", f"answer_{word}", f"point_{word}"]
    world.known += [*names, call, batch.run, *batch.items, asked.id, item_id(file.read_bytes())]


@asynccontextmanager
async def _world(folder: Path, chance: Chance, *, planted: bool) -> AsyncIterator[World]:
    """The rival's rows, and after them, where `planted`, the owner's."""
    folder.mkdir()
    chance.random.seed(0)
    keys = [
        key("acme", "acme", "default", "other"),
        key("rival", "rival", role="admin"),
        key("looker", "rival", role="viewer"),
    ]
    providers = (Echo("echo", "parrot"),)
    async with opened(folder / "home", providers, keys=keys) as runtime:
        runtime.memory.embedder = BagOfWords()
        ingest, _ = inline_ingest(runtime)
        runtime._ingest = ingest
        app = Windlass(runtime, dashboard=dashboard(runtime))
        audit = Audit(runtime.db, folder / "audit", clock=runtime.clock)
        world = World(runtime, ingest, audit, MemoryLedger(), Answers(runtime.ledger, runtime.clock), app)
        await _write(world, RIVAL, "secret-rival", "plain", 12, folder)
        world.known.clear()
        if planted:
            await _write(world, OWNER, "secret-acme", WORD, FIGURE, folder)
        for name in ("rival", "looker"):
            world.signed_in[name] = await _sign_in(app, f"secret-{name}")
        yield world


async def _sign_in(app: Windlass, secret: str) -> Visitor:
    visitor = Visitor(app)
    form = (await visitor.get("/login")).form("/login")
    page = await visitor.post("/login", {**form, "key": secret})
    assert page.status == 303, page.text
    return visitor


# --- the probes

STRANGERS = [
    *(RIVAL, Scope("acme", "other"), Scope("default"), Scope("acme", ""), Scope("", "default"), Scope("", "")),
    *(Scope("ACME"), Scope("acme "), Scope(" acme"), Scope("acm_"), Scope("%"), Scope("acme%"), Scope("_" * 4)),
    *(Scope("аcme"), Scope("acme\u200b"), Scope("acme/default"), Scope("acme", "DEFAULT"), Scope("acme", "%")),
    *(Scope("acme' OR '1'='1"), Scope("acme'--"), Scope("*"), Scope("acme", "default' OR 1=1 --"), Scope("ＡＣＭＥ")),
]
FRAGMENTS = [
    *("", " ", "%", "_", "*", "%%", "?", "\\", "'", '"', "''", ";", "--", "/*", "\u200b", "0", "-1", "null", "None"),
    *("' OR '1'='1", "' OR 1=1 --", "x') OR ('1'='1", "' UNION SELECT data FROM bodies --", "1; DROP TABLE audit"),
    *(
        "$1",
        ":tenant",
        "%s",
        "{0}",
        "{{7*7}}",
        "../../acme",
        "text: *",
        "NEAR(windlass one)",
        "windlass*",
        '"turns one"',
    ),
    *("windlass OR capstan", "NOT windlass", "^windlass", "tenant:acme", "text MATCH 'windlass'", "(windlass", "& | !"),
    *("windlass turns one way", "the", "capstan ropes harbour", "call_", "item_", "run_", "content", "model"),
]


def _probes(count: int, known: Sequence[str], seed: int) -> Iterator[Probe]:
    """Who asks, and with what: the owner's names as they are, altered, in pieces, in other letters; syntax; guesses."""
    chance = random.Random(seed)
    for _ in range(count):
        scope = chance.choice(STRANGERS) if chance.random() < 0.7 else RIVAL
        yield Probe(scope, _text(chance, known), chance.randrange(1_000_000))


def _text(chance: random.Random, known: Sequence[str]) -> str:
    name, fragment = chance.choice(known), chance.choice(FRAGMENTS)
    cut = chance.randrange(len(name) + 1)
    match chance.randrange(10):
        case 0 | 1 | 2:
            return name
        case 3:
            return name[:cut] + chance.choice("%_*?")
        case 4:
            return name[:cut] + fragment + name[cut:]
        case 5:
            return chance.choice((name.upper(), name.swapcase(), name.replace("a", "а"), name + " ", "\u200b" + name))
        case 6:
            return f"{name} {fragment}"
        case 7:
            return f"{name.partition('_')[0]}_{chance.getrandbits(128):032x}"
        case _:
            return fragment


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


def _result(read: Read, world: World, probe: Probe) -> str:
    """What a read gives, in words; an error of ours is an answer, any other one is a mistake."""
    try:
        return _ADDRESS.sub("", repr(read(world, probe)))
    except WindlassError as exc:
        return f"{type(exc).__name__}: {exc}"


_ADDRESS = re.compile(" at 0x[0-9a-f]+")


def _leaks(said: str, *asked: str) -> str:
    """What of the owner stands in `said`, beyond the words that the probes themselves brought."""
    said = said.lower()
    spoken = {form.lower() for text in asked for form in _forms(text) if SECRET.search(form)}
    for part in sorted(spoken, key=len, reverse=True):
        said = said.replace(part, "")
    found = SECRET.search(said)
    return said[max(0, found.start() - 100) : found.end() + 100] if found else ""


def _forms(text: str) -> Iterator[str]:
    """How a text may come back: as it was, with its escapes, as a page or a header shows it."""
    yield from (html.escape(text), str(escape(text)), quote(text), quote_plus(text), quote(text, safe=""))
    yield from (text, repr(text)[1:-1], json.dumps(text, ensure_ascii=False)[1:-1], " ".join(text.split()))
    yield " ".join(text.encode("ascii", "ignore").decode().split())


class Chance:
    """In place of `secrets` where ids are made: both worlds name their rows alike, so that they can be compared."""

    def __init__(self) -> None:
        self.random = random.Random(0)

    def token_hex(self, size: int) -> str:
        return self.random.randbytes(size).hex()


@pytest.fixture
def chance(monkeypatch: pytest.MonkeyPatch) -> Chance:
    made = Chance()
    monkeypatch.setattr(ids, "secrets", made)
    return made


@pytest.fixture
async def worlds(tmp_path: Path, chance: Chance) -> AsyncIterator[tuple[World, World]]:
    """(with the owner's rows, without)."""
    async with (
        _world(tmp_path / "planted", chance, planted=True) as planted,
        _world(tmp_path / "bare", chance, planted=False) as bare,
    ):
        yield planted, bare


def _count(request: pytest.FixtureRequest) -> int:
    return PROBES if request.config.getoption("--soak") else SLICE


async def test_the_owner_finds_all_of_it(worlds: tuple[World, World]) -> None:
    """Each read can find what was planted: a probe that finds nothing is no proof otherwise."""
    planted, _ = worlds
    blind = {"Loop.explain", "Loop.mode", "Learner.scores", "Overview.counted", "records.user_digest", "Memory.counts"}
    blind |= {"Memory.pending", "Memory.view", "SqlLedger.calls_beneath", "MemoryLedger.calls_beneath"}
    for name, read in READS.items():
        said = {
            _result(read, planted, Probe(OWNER, text, number)) for text in ("", *planted.known) for number in (0, 1, 50)
        }
        if name in blind:
            strangers = {
                _result(read, planted, Probe(Scope("nobody"), text, n))
                for text in ("", *planted.known)
                for n in (0, 1, 50)
            }
            assert said != strangers or name == "Loop.mode", name
        else:
            assert any(SECRET.search(one) for one in said), name


async def test_no_read_of_any_room_finds_another_tenants_rows(
    worlds: tuple[World, World], request: pytest.FixtureRequest
) -> None:
    planted, bare = worlds
    count = int(_count(request) * (1 - HTTP_SHARE))
    # Each read once for each name that the owner's things have, then at random.
    named = [(Probe(who, text, 1), read) for who in STRANGERS[:2] for text in planted.known for read in READS]
    left = _probes(count - len(named), planted.known, 1)
    assert len(named) < count
    for probe, name in itertools.chain(named, zip(left, itertools.cycle(READS), strict=False)):
        said = _result(READS[name], planted, probe)
        assert not _leaks(said, probe.text), f"{name} {probe}"
        assert said == _result(READS[name], bare, probe), f"{name} {probe}: what others wrote changes the answer"


_FRESH = re.compile(r"[0-9a-f]{64}|value=\"[0-9a-f]{16}\"")


async def test_no_door_shows_another_tenants_rows(
    worlds: tuple[World, World], chance: Chance, request: pytest.FixtureRequest
) -> None:
    planted, bare = worlds
    before, sent = _owners_state(planted), set[str]()
    count = int(_count(request) * HTTP_SHARE)
    for turn, (probe, ask) in enumerate(zip(_probes(count, planted.known, 2), itertools.cycle(DOORS), strict=False)):
        answers = []
        for world in (planted, bare):
            chance.random.seed(turn + 1)
            await world.runtime.caught_up()  # or what was learned so far would depend on the speed of the moment
            answers.append(await ask(world, probe))
        sent.add(probe.text)
        assert not _leaks(answers[0], *sent), f"{ask.__name__} {probe}"
        said, other = (_FRESH.sub("", answer) for answer in answers)
        assert said == other, f"{ask.__name__} {probe}: what others wrote changes the answer"
    await planted.runtime.caught_up()
    assert _owners_state(planted) == before, "what others did changed what the owner sees"


def _owners_state(world: World) -> str:
    """What the owner sees of calls, learning and figures."""
    runtime = world.runtime
    calls = runtime.ledger.calls(OWNER, limit=1000)
    learned = runtime.loop.explain("model", OWNER, CONTEXT, ("echo", "parrot")), runtime.learner.scores(OWNER, "model")
    return repr((calls, learned, runtime.overview.totals(OWNER), runtime.rollups.feedback(OWNER)))


def _door(page: str) -> str:
    """A page or an answer without what changes by itself: the head of the ledger is the process's, not a tenant's."""
    places = (
        r'"snapshot":\d+|snapshot[ =]\d+|there are: [\d, ]+|<option value="\d+">|entry \d+'  # in the order of all rows
    )
    return re.sub(rf'"head":\d+|data-head="\d+"|/static/[^"]+|{places}', "", page)


async def _calls(world: World, probe: Probe) -> str:
    return await _api(world, "calls", {"limit": 1 + probe.number % 100, "before": probe.text})


async def _decisions(world: World, probe: Probe) -> str:
    before = probe.text if probe.number % 2 else ""
    return await _api(world, "decisions", {"limit": 100, "point": "" if before else probe.text, "before": before})


async def _reading(world: World, probe: Probe) -> str:
    """One call with its bodies, what was said of it, and how the points stand."""
    match probe.number % 3:
        case 0:
            return await _api(world, "call", {"call": probe.text, "bodies": True})
        case 1:
            field = ("target", "text", "metric", "before")[probe.number // 3 % 4]
            return await _api(world, "feedback", {"limit": 100, field: probe.text})
        case _:
            return await _api(world, "points", {"point": probe.text} if probe.number % 2 else {})


async def _asking(world: World, probe: Probe) -> str:
    item = probe.text if probe.number % 2 else ""
    answer = await _api(world, "ask", {"question": probe.text if not item else "What turns one way?", "item": item})
    return re.sub(r'"(took_ms|why|score|latency_ms|propensity)": ?[^,}]+', "", answer)


async def _ingesting(world: World, probe: Probe) -> str:
    return await _api(world, "ingest", {"paths": [probe.text or "x"]})


async def _examining(world: World, _probe: Probe) -> str:
    report = await _api(world, "doctor", {"replay": False})
    return re.sub(r'"[^"]*(?:planted|bare)[^"]*"', "", report)  # the two worlds' own folders


async def _snapshots(world: World, _probe: Probe) -> str:
    return await _api(world, "snapshots", {})


async def _deciding(world: World, probe: Probe) -> str:
    """The rival's own policies are switched and rolled back, whatever the owner's do."""
    point = probe.text if probe.number % 3 == 0 else "answer"
    if probe.number % 2:
        said = await _api(world, "rollback", {"point": point, "snapshot": probe.number % 5, "reason": probe.text})
        return re.sub(r"(?<=snapshot=)\d+", "", said)  # snapshots have places in the order of all rows
    mode = ("off", "shadow", "live", "settings")[probe.number // 2 % 4]
    return await _api(world, "mode", {"point": point, "mode": mode, "reason": probe.text})


async def _forgetting(world: World, probe: Probe) -> str:
    """The rival forgets a user who has the name of one of the owner's."""
    return await _api(world, "forget", {"user": probe.text or "x", "reason": "asked to"})


async def _models(world: World, _probe: Probe) -> str:
    response = await ApiClient(world.app, bearer="secret-rival").get("/v1/models")
    return response.body.decode()


async def _elsewhere(world: World, probe: Probe) -> str:
    """With the rival's key in a workspace of another name, as a header can hold it."""
    name = (probe.scope.workspace or probe.text).encode("ascii", "replace").decode().replace("\n", "")
    headers = {"x-windlass-workspace": name if name.strip() != "default" else "other"}
    response = await ApiClient(world.app, bearer="secret-rival").post("/api/calls", {"limit": 100}, **headers)
    assert response.status in (200, 401)
    return f"{response.status} {response.body.decode()}".replace(name, "")


async def _chatting(world: World, probe: Probe) -> str:
    """A call that claims to belong to one of the owner's things."""
    parent = probe.text.encode("ascii", "ignore").decode().replace("\n", "")
    client = ApiClient(world.app, bearer="secret-rival")
    response = await client.post("/v1/chat/completions", chat("hello"), **{"x-windlass-parent": parent})
    return f"{response.status} {response.json.get('choices')}"


async def _embedding(world: World, probe: Probe) -> str:
    """Vectors are made of what was sent, and of nothing that is kept."""
    wanted = {"model": "auto" if probe.number % 2 else "windlass-minilm", "input": probe.text}
    response = await ApiClient(world.app, bearer="secret-rival").post("/v1/embeddings", wanted)
    return f"{response.status} {response.body.decode()}"


async def _rating(world: World, probe: Probe) -> str:
    said = {"target": probe.text, "kind": "rating", "value": 0.0, "id": f"spite_{probe.number}"}
    response = await ApiClient(world.app, bearer="secret-rival").post("/v1/feedback", said)
    return response.body.decode()


async def _page(world: World, probe: Probe) -> str:
    text, number = quote(probe.text, safe="", errors="replace"), probe.number // 2
    where = re.sub(
        r"\{\w+\}", text or "x", SHOWN[number % len(SHOWN)].replace("{point}", "model" if number % 3 else "{point}")
    )
    asked = f"?range=all&{QUERY[number // len(SHOWN) % len(QUERY)]}={text}" if number % 5 else ""
    page = await world.signed_in[("rival", "looker")[probe.number % 2]].get(where + asked)
    return _door(f"{page.status} {page.headers.get('location', '')} {page.body}")


async def _saying(world: World, probe: Probe) -> str:
    """What the pages let a visitor say of one of the owner's calls or answers."""
    visitor = world.signed_in["looker"]
    token = (await visitor.get("/")).form("/logout")["token"]
    form = {"token": token, "kind": "complaint", "comment": "spite", "nonce": "0" * 16, "answer": probe.text}
    where = (
        f"/calls/{quote(probe.text, safe='', errors='replace') or 'x'}/feedback" if probe.number % 2 else "/feedback"
    )
    page = await visitor.post(where, form)
    return _door(f"{page.status} {page.headers.get('location', '')} {page.body}")


DOORS = (
    _calls,
    _reading,
    _decisions,
    _snapshots,
    _deciding,
    _forgetting,
    _asking,
    _ingesting,
    _examining,
    _models,
    _elsewhere,
    _chatting,
    _rating,
    _page,
    _page,
)


async def _api(world: World, operation: str, arguments: dict[str, Any]) -> str:
    response = await ApiClient(world.app, bearer="secret-rival").post(f"/api/{operation}", arguments)
    assert response.status < 500, response.body
    return _door(f"{response.status} {msgspec.json.encode(response.json).decode()}")


async def test_the_progress_of_a_run_is_its_tenants(worlds: tuple[World, World]) -> None:
    """A run of somebody else stands as one that never was."""
    planted, bare = worlds
    for name in [*planted.known, *FRAGMENTS]:
        said, other = [await _api(world, "progress", {"run": name}) for world in (planted, bare)]
        assert said == other, name


async def test_asking_for_progress_starts_no_engine(tmp_path: Path) -> None:
    """Whoever holds a key must not be able to make the process bigger by 20 MB and two threads."""
    async with opened(tmp_path, keys=[key("looker", "rival", role="viewer")]) as runtime:
        runtime._serve = ()
        started: list[bool] = []
        runtime._start_workflows = lambda: started.append(True) or typing.cast("Ingest", Inline())
        await ApiClient(Windlass(runtime), bearer="secret-looker").post("/api/progress", {"run": "run_1"})
        assert not started


@pytest.mark.parametrize("source", ["manager", "qa", "system"])
async def test_a_viewers_key_speaks_for_users_alone(tmp_path: Path, source: str) -> None:
    async with opened(tmp_path, keys=[key("looker", "rival", role="viewer"), key("ops", "rival")]) as runtime:
        said = {"target": "call_1", "kind": "rating", "value": 0.0, "source": source}
        app = Windlass(runtime)
        assert (await ApiClient(app, bearer="secret-looker").post("/v1/feedback", said)).status in (401, 403)
        assert (await ApiClient(app, bearer="secret-ops").post("/v1/feedback", said)).status == 200


async def test_an_operator_is_told_nothing_of_the_providers_that_all_share(tmp_path: Path) -> None:
    """Whose gateway it is knows the addresses; a tenant's operator needs the names of the models, no more."""
    model = {"name": "gpt", "upstream": f"{WORD}-deployment"}
    upstream = {
        "name": "shared",
        "base_url": f"http://{WORD}.internal/v1",
        "api_key_env": WORD.upper(),
        "models": [model],
    }
    async with opened(tmp_path, upstreams=[upstream], keys=[key("ops", "rival")]) as runtime:
        response = await ApiClient(Windlass(runtime), bearer="secret-ops").post("/api/doctor", {})
        assert response.status == 200
        assert not SECRET.search(response.body.decode())


async def test_a_call_of_another_workspace_is_refused(tmp_path: Path) -> None:
    async with opened(tmp_path, keys=[key("a", "acme", "one"), key("b", "acme", "two")]) as runtime:
        with pytest.raises(WindlassError, match="no workspace"):
            await runtime.gateway.complete(Request(b"{}", key="secret-b", workspace="one"))
