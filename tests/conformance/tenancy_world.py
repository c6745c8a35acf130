"""Tenancy's two worlds: one application with the rival's rows, one with the owner's rows as well."""

from __future__ import annotations

import asyncio
import random
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import sqlalchemy as sa
from tests.golden.application import NOW, inline_ingest, key, opened
from tests.unit.memory.conftest import BagOfWords
from tests.unit.server.dashboard.visitor import Visitor, called

from windlass.content.analysis import Chapter, KeyQuote
from windlass.content.ingest import COLLECTION, Ingest, item_id
from windlass.content.transcript import Transcript, Turn
from windlass.gateway.access.keys import VirtualKey
from windlass.gateway.feedback import FeedbackRequest
from windlass.gateway.providers.echo import Echo
from windlass.ledger.audit import Audit
from windlass.ledger.ledger import Body
from windlass.ledger.memory import MemoryLedger
from windlass.ledger.schema import spend
from windlass.memory.chunk import Passage
from windlass.policies.rollout import Begin
from windlass.policies.trials.plan import Plan, Variant
from windlass.records import Call, Decision, Erasure, Feedback, Outcome, RunEvent, Scope, StepResult
from windlass.runtime import Runtime
from windlass.server.app import Windlass
from windlass.server.dashboard.answers import Answers
from windlass.server.dashboard.pages import dashboard

LIMITS = [
    {"name": "everybody", "window": "total", "usd": 1e6},
    {"name": "each tenant", "per": "tenant", "window": "total", "usd": 1e6},
    {"name": "each user", "per": "user", "window": "total", "usd": 1e6},
]
WORD, FIGURE = "zqxjkvault", 7_361_999
VARIANTS = (Variant("usual", 0.5), Variant("b", 0.5, action="parrot"))
SECRET = re.compile(rf"(?i){WORD}|7[,.\s]?361[,.\s]?999|73619\.99|20:26:59")
OWNER, RIVAL = Scope("acme"), Scope("rival")


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


def _records(scope: Scope, word: str, figure: int) -> list[Any]:
    """One record of each kind, two bodies; `word` stands in every text, `figure` in every number."""
    owner: dict[str, Any] = {"tenant": scope.tenant, "workspace": scope.workspace, "at": NOW}
    made: dict[str, Any] = {"extra": {word: figure, "why": word, "key": word}}
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
        *_recovered(word, owner),
        Feedback(id=f"feedback_{word}", **said, **owner, **made),
        RunEvent(
            id=f"event_{word}", run=run, workflow=word, step=word, item=f"item_{word}", result=result, **owner, **made
        ),
        Erasure(id=f"erasure_{word}", user=word, **owner, **made),
        Body(id=f"{call}-request", role="request", **body, **owner),
        Body(id=f"{call}-reply", role="reply", **body, **owner),
    ]


def _recovered(word: str, owner: dict[str, Any]) -> list[Outcome]:
    """A good answer, which ends the failures before it, and a new failure; they add nothing to any sum."""
    nothing: dict[str, Any] = dict.fromkeys(
        ("latency_ms", "first_byte_ms", "prompt_tokens", "completion_tokens", "cost_nusd"), 0
    )
    made: dict[str, Any] = {"model": word, "provider": word, "status": 200, **nothing, **owner}
    return [
        Outcome(id=f"outcome_{word}_{number}", call=f"call_{word}_{number}", error=error, **made)
        for number, error in ((2, ""), (3, f"{word}_again"))
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
    _spend(runtime, scope, word, figure)
    world.known += [item, word, f"{word}.md", f"collection_{word}"]


def _spend(runtime: Runtime, scope: Scope, word: str, figure: int) -> None:
    """What was used of a budget that all share, and of those of the tenant; and a call that a limit refused."""
    groups = {"everybody": "", "each tenant": scope.tenant, "each user": f"{scope.tenant}/{word}"}
    row = {"since": 0, "worker": word, "nusd": figure}
    with runtime.db.write() as connection:
        connection.execute(sa.insert(spend), [{**row, "name": name, "grp": group} for name, group in groups.items()])
    runtime.watch.sample()
    runtime.watch.spending.refuse(scope, word, word, NOW)


async def _write(world: World, scope: Scope, secret: str, word: str, figure: int, folder: Path) -> None:
    """Everything that a tenant can write, through the rooms and through the doors."""
    runtime = world.runtime
    rows = _records(scope, word, figure)
    await runtime.ledger.append(*rows)
    await world.ledger.append(*rows)
    await asyncio.to_thread(_fill, world, scope, word, figure)
    tried = Plan(name=f"try-{word}", variants=VARIANTS, size=figure, owner=word, hypothesis=word)
    await runtime.roll_out(scope, Begin(tried), by=f"key:{word}", reason=word)
    made = VirtualKey(id="", name=f"key_{word}", tenant=scope.tenant, team=word, models=(word,))
    await asyncio.to_thread(runtime.keys.create, made)
    call = await called(runtime, f"tell me of {word}", key=secret)
    await runtime.feedback(scope, FeedbackRequest(target=call, kind="rating", value=1.0, id=f"rating_{word}"))
    file = folder / f"{word}.md"
    file.write_text(f"# {word}\n\n{word}: The {word} capstan holds {figure} ropes in the harbour.\n")
    batch = await asyncio.to_thread(world.ingest.submit, scope, [file])
    await runtime.caught_up()  # so that the answer's model is chosen from the same knowledge in both worlds
    asked = await runtime.ask.ask(f"How many ropes does the {word} capstan hold?", scope)
    await world.answers.keep(scope, asked)
    await runtime.caught_up()
    names = [row.id for row in rows] + [f"key_{word}", f"run_{word}", f"answer_{word}", f"point_{word}"]
    names += [tried.name, tried.id]
    world.known += [*names, call, batch.run, *batch.items, asked.id, item_id(file.read_bytes())]


@asynccontextmanager
async def make_world(folder: Path, chance: Chance, *, planted: bool) -> AsyncIterator[World]:
    """The rival's rows, and after them, where `planted`, the owner's."""
    folder.mkdir()
    chance.random.seed(0)
    keys = [
        key("acme", "acme", "default", "other"),
        key("rival", "rival", role="admin"),
        key("looker", "rival", role="viewer"),
    ]
    providers = (Echo("echo", "parrot"),)
    async with opened(folder / "home", providers, keys=keys, limits=LIMITS) as runtime:
        runtime.memory.embedder = BagOfWords()
        ingest, _ = inline_ingest(runtime)
        runtime.runs._ingest = ingest
        app = Windlass(runtime, dashboard=dashboard(runtime))
        audit = Audit(runtime.db, folder / "audit", clock=runtime.clock)
        world = World(runtime, ingest, audit, MemoryLedger(), Answers(runtime.ledger, runtime.clock), app)
        await _write(world, RIVAL, "secret-rival", "plain", 12, folder)
        world.known.clear()
        if planted:
            await _write(world, OWNER, "secret-acme", WORD, FIGURE, folder)
        await asyncio.to_thread(runtime.watch.catch_up)
        for name in ("rival", "looker"):
            world.signed_in[name] = await _sign_in(app, f"secret-{name}")
        yield world


async def _sign_in(app: Windlass, secret: str) -> Visitor:
    visitor = Visitor(app)
    form = (await visitor.get("/login")).form("/login")
    page = await visitor.post("/login", {**form, "key": secret})
    assert page.status == 303, page.text
    return visitor


class Chance:
    """In place of what ids are made of: both worlds name their rows alike, so that they can be compared."""

    def __init__(self) -> None:
        self.random = random.Random(0)

    def digits(self) -> str:
        return self.random.randbytes(10).hex()
