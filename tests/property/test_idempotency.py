"""Whatever clients, upstream and ledger do in whatever order: a key has one answer, and one bill for it.

Two runtimes on one folder stand for two processes. Each story is drawn from a seed; a failing one names it.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter, defaultdict
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest import mock

import pytest
import sqlalchemy as sa
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.golden.application import NOW, Client, Response, chat, opened

from windlass.errors import ErrorCategory, LedgerError, UpstreamError
from windlass.gateway import idempotency
from windlass.gateway.options import ModelOptions
from windlass.gateway.provider import ProviderReply, ProviderRequest
from windlass.gateway.providers.compose import completion
from windlass.ledger import schema
from windlass.ledger.ledger import ALL, Item
from windlass.records import Call, Outcome
from windlass.runtime import Runtime
from windlass.server.app import Windlass

STORIES, PROCESSES, CLIENTS, KEYS = 25, 2, 12, 3
FAILS, BREAKS, LEAVES, UNWRITTEN = 0.15, 0.1, 0.2, 0.1


class _Fickle:
    """Answers each call in other words, late; some it refuses, some it breaks off. asked: by prompt."""

    name = "fickle"
    local = False
    models = (ModelOptions(name="m", prompt_usd_per_million=1.0, completion_usd_per_million=2.0),)

    def __init__(self, rng: random.Random):
        self.asked = Counter[str]()
        self._rng = rng

    async def send(self, request: ProviderRequest) -> ProviderReply:
        prompt = request.chat.messages[-1].text
        self.asked[prompt] += 1
        await self._wait()
        if self._rng.random() < FAILS:
            raise UpstreamError("it is set to fail", status=self._rng.choice((400, 429, 500, None)))
        reply = completion(request, f"{prompt}, said {self.asked[prompt]} times", 0)
        return ProviderReply(reply.status, reply.content_type, self._chunks(reply))

    async def close(self) -> None:
        """Nothing is held open."""

    async def _wait(self) -> None:
        await asyncio.sleep(self._rng.choice((0, 0, 0.001, 0.004)))

    async def _chunks(self, reply: ProviderReply) -> AsyncGenerator[bytes, None]:
        async for chunk in reply.chunks:
            await self._wait()
            if self._rng.random() < BREAKS:
                raise UpstreamError("it breaks off", category=ErrorCategory.STREAM_CUT)
            yield chunk


def _unreliable(runtime: Runtime, rng: random.Random) -> None:
    """Make some commits fail before they begin, and some take long."""
    append = runtime.ledger.append

    async def appending(*items: Item) -> int:
        if rng.random() < UNWRITTEN:
            raise LedgerError("the disk is full")
        await asyncio.sleep(rng.choice((0, 0.002)))
        return await append(*items)

    runtime.ledger.append = appending  # type: ignore[method-assign]


async def _ask(app: Windlass, rng: random.Random, name: str) -> Response | None:
    """One client; some leave at any moment. None for whoever left, or got no whole answer."""
    client = Client(app)
    stream = name.endswith("0")
    asking = asyncio.create_task(
        client.post("/v1/chat/completions", chat(f"about {name}", model="m", stream=stream), idempotency_key=name)
    )
    if rng.random() < LEAVES:
        await asyncio.sleep(rng.uniform(0, 0.02))
        client.leave.set()
    found = await asking
    return found if found.ended and found.status == 200 and b'"error"' not in found.body else None


async def _story(seed: int, folder: Path) -> None:
    rng = random.Random(seed)
    provider = _Fickle(rng)
    got: dict[str, set[tuple[bytes, str]]] = defaultdict(set)
    async with AsyncExitStack() as stack:
        runtimes = [
            await stack.enter_async_context(
                opened(folder / "home", [provider], lambda: NOW, resilience__attempts=1, gateway__keep_bodies=False)
            )
            for _ in range(PROCESSES)
        ]
        for runtime in runtimes:
            _unreliable(runtime, rng)
        apps = [Windlass(runtime) for runtime in runtimes]

        async def client() -> None:
            for _ in range(4):
                name = f"key-{rng.randrange(KEYS)}"
                found = await _ask(rng.choice(apps), rng, name)
                if found is not None:
                    got[name].add((found.body, found.headers["x-windlass-call"]))

        await asyncio.gather(*(client() for _ in range(CLIENTS)))
        for runtime in runtimes:
            assert runtime._repeats is not None
            await runtime._repeats.idle()
            assert not runtime._repeats._tickets, "nobody holds a place"
        _check(runtimes[0], got)


def _check(runtime: Runtime, got: dict[str, set[tuple[bytes, str]]]) -> None:
    for name, answers in got.items():
        assert len(answers) == 1, f"{name} has {len(answers)} answers"
    records: list[Any] = [entry.record for entry in runtime.ledger.read(ALL)]
    good = {record.call for record in records if isinstance(record, Outcome) and not record.error}
    with runtime.db.read() as connection:
        rows = list(connection.execute(sa.select(schema.replies)).mappings())
    assert {row["state"] for row in rows} <= {"done"}, "a place is left behind"
    assert sorted(row["call"] for row in rows) == sorted(good), "what was billed is what is stored"
    assert {call for answers in got.values() for _, call in answers} <= good
    assert {record.id for record in records if isinstance(record, Call)} >= good


@settings(max_examples=STORIES, deadline=None)
@given(st.integers(0, 2**32))
def test_a_key_has_one_answer_and_one_bill(seed: int) -> None:
    with (
        TemporaryDirectory() as folder,
        mock.patch.object(idempotency, "FIRST_LOOK_S", 0.002),
        mock.patch.object(idempotency, "LOOK_S", 0.01),
    ):
        asyncio.run(_story(seed, Path(folder)))


def test_the_stories_are_real() -> None:
    """Without the store the same story has several answers for a key."""

    async def answer(_self: Any, _request: Any, _caller: Any, walk: Any, _until: float) -> Any:
        return await walk(None)

    with (
        TemporaryDirectory() as folder,
        mock.patch.object(idempotency.Repeats, "answer", answer),
        pytest.raises(AssertionError, match="has [0-9]+ answers"),
    ):
        asyncio.run(_story(1, Path(folder)))


def test_a_request_is_told_from_any_other() -> None:
    """No two requests that differ have one digest, also where their parts run into each other."""
    from windlass.gateway.vault import Vault

    vault, seen = Vault(b"s" * 32), dict[str, Any]()
    for parts in ((b"ab", b"c"), (b"a", b"bc"), (b"abc",), (b"abc", b""), (b"", b"abc"), (b"",), ()):
        for tenant in ("acme", "rival"):
            digest = vault.digest(tenant, *parts)
            assert seen.setdefault(digest, (tenant, parts)) == (tenant, parts)
    assert len(seen) == 14
