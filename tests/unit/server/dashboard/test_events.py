"""The event stream: what a browser hears, how it resumes, and how it ends."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from tests.golden.application import HOST, key, opened
from tests.unit.server.dashboard.visitor import called, folded

from windlass.errors import LedgerError
from windlass.gateway.providers.echo import Echo
from windlass.ledger.ledger import ALL
from windlass.runtime import Runtime
from windlass.server.app import Windlass
from windlass.server.dashboard import events
from windlass.server.dashboard.pages import dashboard


@dataclass
class Listener:
    """One browser at the stream. While `reading` is clear, its buffer is full."""

    status: int = 0
    heads: list[int] = field(default_factory=list)
    text: str = ""
    ended: bool = False
    reading: asyncio.Event = field(default_factory=asyncio.Event)
    leave: asyncio.Event = field(default_factory=asyncio.Event)

    async def heard(self, count: int) -> list[int]:
        async with asyncio.timeout(5):
            while len(self.heads) < count:
                await asyncio.sleep(0.005)
        return self.heads

    async def send(self, event: Any) -> None:
        await self.reading.wait()
        if event["type"] == "http.response.start":
            self.status = event["status"]
            return
        part = event.get("body", b"").decode()
        self.text += part
        self.heads += [int(line[6:]) for line in part.split("\n") if line.startswith("data: ")]
        self.ended = not event.get("more_body", False)

    async def receive(self) -> Any:
        await self.leave.wait()
        return {"type": "http.disconnect"}


@asynccontextmanager
async def listening(app: Windlass, **headers: str) -> AsyncIterator[Listener]:
    listener = Listener()
    listener.reading.set()
    pairs = [(b"host", HOST.encode()), *((n.replace("_", "-").encode(), v.encode()) for n, v in headers.items())]
    scope = {
        "type": "http",
        "method": "GET",
        "scheme": "http",
        "path": "/events",
        "query_string": b"",
        "headers": pairs,
        "server": ("127.0.0.1", 8321),
    }
    task = asyncio.create_task(app(scope, listener.receive, listener.send))
    try:
        yield listener
    finally:
        listener.leave.set()
        listener.reading.set()
        await asyncio.wait_for(task, 5)


@asynccontextmanager
async def served(
    home: Path, stopping: Callable[[], bool] = lambda: False, **changes: Any
) -> AsyncIterator[tuple[Runtime, Windlass]]:
    async with opened(home, providers=(Echo(),), **changes) as runtime:
        yield runtime, Windlass(runtime, dashboard=dashboard(runtime, stopping=stopping))


async def test_a_browser_hears_the_head_and_then_every_move(tmp_path: Path) -> None:
    async with served(tmp_path) as (runtime, app), listening(app) as listener:
        assert await listener.heard(1) == [0]
        await called(runtime)
        assert await listener.heard(2) == [0, runtime.ledger.head()]
    assert listener.status == 200
    assert listener.text.startswith("retry: 1000\n\nevent: head\nid: 0\ndata: 0\n\n")


async def test_what_is_told_has_been_folded(tmp_path: Path) -> None:
    """The page that is fetched on an event must show what the event told of."""
    async with served(tmp_path) as (runtime, app), listening(app) as listener:
        await listener.heard(1)
        call = asyncio.create_task(called(runtime))
        assert (await listener.heard(2))[1] <= runtime.overview.cursor
        await call


@pytest.mark.parametrize(("last_id", "says"), [("head", []), ("0", ["head"]), ("x", ["head"]), ("9" * 30, ["head"])])
async def test_a_browser_that_comes_back_hears_only_what_it_missed(
    tmp_path: Path, last_id: str, says: list[str]
) -> None:
    async with served(tmp_path) as (runtime, app):
        await called(runtime)
        head = runtime.ledger.head()
        async with listening(app, last_event_id=str(head) if last_id == "head" else last_id) as listener:
            await asyncio.sleep(0.05)
            assert listener.heads == [head for _ in says]


async def test_a_slow_browser_skips_to_the_newest(tmp_path: Path) -> None:
    async with served(tmp_path) as (runtime, app), listening(app) as slow, listening(app) as quick:
        await slow.heard(1)
        slow.reading.clear()
        for count in range(5):
            await called(runtime)
            await quick.heard(count + 2)
        slow.reading.set()
        await slow.heard(2)
        await asyncio.sleep(0.05)
    assert len(slow.heads) <= 3, "the start, at most the one it was busy with, the newest"
    assert slow.heads[-1] == quick.heads[-1]


async def test_streams_end_when_the_server_stops(tmp_path: Path) -> None:
    stopping = asyncio.Event()
    async with served(tmp_path, stopping.is_set) as (_, app), listening(app) as first, listening(app) as second:
        await first.heard(1)
        await second.heard(1)
        stopping.set()
        async with asyncio.timeout(3 * events.TICK_S):
            while not (first.ended and second.ended):
                await asyncio.sleep(0.01)
        async with listening(app) as late:
            await asyncio.sleep(0.05)
        assert late.ended


async def test_a_quiet_stream_beats(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "HEARTBEAT_S", 0.02)
    async with served(tmp_path) as (_, app), listening(app) as listener:
        await listener.heard(1)
        await asyncio.sleep(0.1)
    assert listener.text.count(": still here\n\n") >= 2
    assert listener.heads == [0]


async def test_commits_of_other_processes_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "POLL_S", 0.05)
    monkeypatch.setattr(events, "TICK_S", 0.02)
    monkeypatch.setattr(events, "FOLD_WAIT_S", 0.05)
    async with served(tmp_path) as (runtime, app), listening(app) as listener:
        await listener.heard(1)
        async with opened(tmp_path, providers=(Echo(),)) as other:
            await called(other)
        assert (await listener.heard(2))[1] == runtime.ledger.head()


async def test_a_ledger_that_cannot_be_read_is_asked_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "POLL_S", 0.05)
    monkeypatch.setattr(events, "TICK_S", 0.02)
    async with served(tmp_path) as (runtime, app), listening(app) as listener:
        await listener.heard(1)
        read, broken = runtime.ledger.read, [LedgerError("disk is away")]

        def failing(owner: Any, **how: Any) -> Any:
            if owner is not ALL and broken:
                raise broken.pop()
            return read(owner, **how)

        monkeypatch.setattr(runtime.ledger, "read", failing)
        await called(runtime)
        assert len(await listener.heard(2)) == 2
        assert not broken


async def test_tenants_do_not_hear_each_other(tmp_path: Path) -> None:
    keys = (key("ann", "acme"), key("bob", "bolt"))
    async with served(tmp_path, keys=keys) as (runtime, _):
        audience = events.Streams(runtime, lambda: False)
        ann, bob = Listener(), Listener()
        tasks = []
        for listener, name in ((ann, "ann"), (bob, "bob")):
            listener.reading.set()
            owner = runtime.gateway.admission.identify(f"secret-{name}", "").scope
            tasks.append(audience.send(owner, "", listener.receive, listener.send, welcome=lambda: True))
        running = [asyncio.ensure_future(task) for task in tasks]
        await ann.heard(1)
        await bob.heard(1)
        await called(runtime, key="secret-bob")
        await bob.heard(2)
        await asyncio.sleep(0.05)
        assert len(ann.heads) == 1
        await called(runtime, key="secret-ann")
        assert (await ann.heard(2))[-1] == runtime.ledger.head()
        ann.leave.set()
        bob.leave.set()
        await asyncio.gather(*running)


async def test_a_stream_ends_with_its_session(tmp_path: Path) -> None:
    signed_in = [True]
    async with opened(tmp_path, providers=(Echo(),)) as runtime:
        streams, listener = events.Streams(runtime, lambda: False), Listener()
        listener.reading.set()
        scope = runtime.gateway.admission.identify("", "").scope
        task = asyncio.ensure_future(
            streams.send(scope, "", listener.receive, listener.send, welcome=lambda: signed_in[0])
        )
        await listener.heard(1)
        signed_in[0] = False
        await called(runtime)
        await asyncio.wait_for(task, 5)
        await folded(runtime)
    assert listener.ended
    assert len(listener.heads) == 1
