"""A database as it is after months of calls, made through the real ledger and the real folds, and how fast it answers.

What `benchmarks/ledger.py` and tests/scenario/test_scale.py share.
"""

from __future__ import annotations

import asyncio
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path

import numpy as np
from tests.scenario.program import server

from windlass.ledger import ids
from windlass.ledger.db import Database
from windlass.ledger.sql import SqlLedger
from windlass.records import Call, Decision, Feedback, LedgerRecord, Outcome
from windlass.runtime import Runtime
from windlass.settings import Settings, load

AT = 1_800_000_000.0
MODELS = ("m1", "m2", "m3")
# As the point `model` of the default settings records it: its policy and the shape of its context.
POLICY, FEATURISER = "linear_thompson@1", "lexical@1"
FEATURES = (
    "log_chars", "log_question_words", "messages", "passages", "mean_word_chars", "digits", "stream",
    "asks_why", "asks_how", "asks_what", "asks_who", "asks_when",
)  # fmt: skip
LARGE = 3_000
DAY_S = 86_400.0
DAYS = 60
CHUNK = 1_000
TRIES = 7
PATHS = {
    "overview": "/",
    "overview_all": "/?range=all",
    "decisions": "/decisions",
    "decisions_all": "/decisions?range=all",
    "point": "/decisions/model",
    "calls": "/calls",
}


def calls(
    count: int, seed: int, start: float = AT, *, every_s: float = 0.05, policy: str = POLICY
) -> Iterator[tuple[LedgerRecord, ...]]:
    """The records of `count` calls, `every_s` apart: a call, its decision, its outcome; every tenth one is rated."""
    rng = np.random.default_rng(seed)
    for first in range(0, count, CHUNK):
        numbers = rng.random((CHUNK, len(FEATURES) + 1)).round(3).tolist()
        for number in range(first, min(first + CHUNK, count)):
            yield _call(number, start + number * every_s, policy, *numbers[number - first])


def _call(number: int, at: float, policy: str, luck: float, *features: float) -> tuple[LedgerRecord, ...]:
    name = ids.new("call", at)
    suffix = name.removeprefix("call_")
    action = MODELS[number % len(MODELS)]
    made: list[LedgerRecord] = [
        Call(id=name, at=at, endpoint="chat", model="auto", request_bytes=300),
        Decision(
            id=f"decision_{suffix}-model", at=at, call=name, point="model", policy=policy, actions=MODELS,
            action=action, propensity=0.5, live=True, context=dict(zip(FEATURES, features, strict=True)),
            featuriser=FEATURISER, extra={"why": "m1 0.71 +- 0.05, m2 0.70 +- 0.05"},
        ),
        Outcome(
            id=f"outcome_{suffix}", at=at + 0.4, call=name, model=action, provider="p", status=200,
            latency_ms=round(120.0 + 3_000.0 * features[0] ** 3, 1), first_byte_ms=90.0,
            prompt_tokens=75, completion_tokens=40, cost_nusd=155_000,
        ),
    ]  # fmt: skip
    if number % 10 == 0:
        made.append(
            Feedback(id=f"feedback_{suffix}", at=at + 5, target=name, kind="rating", source="user",
                     value=float(luck < 0.7))
        )  # fmt: skip
    return tuple(made)


def flat(count: int, seed: int, policy: str = POLICY) -> list[LedgerRecord]:
    """The records of `count` calls in one list."""
    return [record for made in calls(count, seed, policy=policy) for record in made]


def fill(where: Path | str, count: int, seed: int, now: float) -> float:
    """Append `count` calls, spread over the `DAYS` before `now`, in large batches; returns events a second."""
    db = Database(where)
    db.migrate()
    ledger = SqlLedger(db, "loader")
    start = now - DAYS * DAY_S
    made = (record for call in calls(count, seed, start, every_s=DAYS * DAY_S / count) for record in call)

    async def append() -> int:
        events = 0
        while batch := list(islice(made, LARGE)):
            await ledger.append(*batch)
            events += len(batch)
        return events

    began = time.perf_counter()
    events = asyncio.run(append())
    seconds = time.perf_counter() - began
    ledger.close()
    db.close()
    return events / seconds


def settings(home: Path, database_url: str = "") -> Settings:
    """The default settings over one database, without the embedding model."""
    changed = {"home": home, "memory.embedder": "off", "storage.database_url": database_url}
    return load(changed, environ={})


def fold(chosen: Settings) -> float:
    """Fold everything into policies and rollups, as a start does, and keep the snapshot; returns the seconds."""

    async def enter() -> float:
        began = time.perf_counter()
        async with Runtime(chosen):
            return time.perf_counter() - began

    return asyncio.run(enter())


def answers(home: Path, paths: Mapping[str, str], **more: str) -> dict[str, list[float]]:
    """Milliseconds of each of `TRIES` requests to each path of a server just started; a status but 200 is an error.

    more: its environment.
    """
    with server(home, WINDLASS_MEMORY__EMBEDDER="off", **more) as url:
        return {name: [_get_ms(url + path) for _ in range(TRIES)] for name, path in paths.items()}


def middle(took: Sequence[float]) -> float:
    """The median of what came after the first, which fills caches."""
    return float(np.median(took[1:]))


def _get_ms(url: str) -> float:
    began = time.perf_counter()
    with urllib.request.urlopen(url, timeout=120) as response:
        response.read()
    return (time.perf_counter() - began) * 1000
