"""Repeated requests through the whole application: one upstream call, one bill, the same bytes; whatever goes wrong.

The upstream counts what it is asked, the ledger what was billed; a promise holds where both say so.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import given
from hypothesis import strategies as st
from tests.golden.application import (
    DONE,
    LAST,
    NOW,
    Client,
    Response,
    Scripted,
    chat,
    event,
    key,
    opened,
    streaming,
)

from windlass.errors import LedgerError, UpstreamError
from windlass.gateway import idempotency, relay
from windlass.gateway.options import ModelOptions
from windlass.gateway.provider import EmbeddingRequest, ProviderReply, ProviderRequest
from windlass.gateway.transit import Request
from windlass.ledger import process, schema
from windlass.ledger.ledger import ALL, Item
from windlass.ledger.replies import LEASE_S, PENDING, ReplyPlace, ReplyTable
from windlass.records import Outcome, Scope
from windlass.runtime import Runtime
from windlass.server.app import Windlass

CHATS = "/v1/chat/completions"
PRICED = ModelOptions(name="m", prompt_usd_per_million=1.0, completion_usd_per_million=2.0)
COST_NUSD = 7 * 1_000 + 11 * 2_000
USAGE = {"prompt_tokens": 7, "completion_tokens": 11, "total_tokens": 18}
COUNTED = b'data: {"choices": [], "usage": ' + json.dumps(USAGE).encode() + b"}\n\n"
Act = bytes | BaseException | asyncio.Event


def plain(text: str = "yes") -> bytes:
    choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": text}}
    return json.dumps({"id": "x", "object": "chat.completion", "choices": [choice], "usage": USAGE}).encode()


class Turns:
    """A provider whose every answer is another: the scripts in turn, the last one for all that follow."""

    name = "turns"
    local = False
    models = (PRICED,)
    embedding_models = (ModelOptions(name="v"),)

    def __init__(self, *turns: Scripted):
        self.asked = 0
        self._turns = turns

    async def send(self, request: ProviderRequest) -> ProviderReply:
        return await self._turn().send(request)

    async def embed(self, _request: EmbeddingRequest) -> ProviderReply:
        self.asked += 1
        vectors = [{"object": "embedding", "index": 0, "embedding": [float(self.asked), 0.5]}]
        body = {"object": "list", "model": "v", "data": vectors, "usage": {"prompt_tokens": 3, "total_tokens": 3}}
        return await Scripted(json.dumps(body).encode()).send(None)  # type: ignore[arg-type]

    async def close(self) -> None:
        """Nothing is held open."""

    def _turn(self) -> Scripted:
        self.asked += 1
        return self._turns[min(self.asked, len(self._turns)) - 1]


def answers(*texts: str) -> list[Scripted]:
    return [Scripted(plain(text)) for text in texts]


class Clock:
    """UTC seconds that stand until they are moved."""

    def __init__(self) -> None:
        self.at = NOW

    def __call__(self) -> float:
        return self.at


@asynccontextmanager
async def serving(
    home: Path, provider: Turns, clock: Clock | None = None, **changes: Any
) -> AsyncIterator[tuple[Runtime, Client]]:
    changes = {"resilience__attempts": 1, **changes}
    async with opened(home, [provider], clock or Clock(), **changes) as runtime:
        yield runtime, Client(Windlass(runtime))


async def ask(client: Client, name: str = "k1", text: str = "what holds?", **fields: Any) -> Response:
    return await client.post(CHATS, chat(text, model="m", **fields), idempotency_key=name)


def outcomes(runtime: Runtime) -> list[Outcome]:
    return [entry.record for entry in runtime.ledger.read(ALL) if isinstance(entry.record, Outcome)]


def billed(runtime: Runtime) -> int:
    return sum(outcome.cost_nusd for outcome in outcomes(runtime))


def stored(runtime: Runtime) -> list[Any]:
    with runtime.db.read() as connection:
        return list(connection.execute(sa.select(schema.replies)).mappings())


async def until(seen: Any) -> None:
    async with asyncio.timeout(5):
        while not seen():
            await asyncio.sleep(0.005)


# --- what is answered again


async def test_a_repeated_request_gets_the_same_bytes_and_is_billed_once(tmp_path: Path) -> None:
    provider = Turns(*answers("first", "second"))
    limits = [{"name": "all", "window": "total", "usd": 1.0}]
    async with serving(tmp_path / "h", provider, limits=limits) as (runtime, client):
        first, again, other = await ask(client), await ask(client), await ask(client, "k2")
        assert (first.status, again.status, other.status) == (200, 200, 200)
        assert again.body == first.body == plain("first") != other.body
        same = ("x-windlass-call", "x-windlass-model", "x-windlass-cost-nusd", "content-type")
        assert [first.headers[name] for name in same] == [again.headers[name] for name in same]
        assert again.headers["x-windlass-replayed"] == "true"
        assert "x-windlass-overhead-ms" not in again.headers
        assert "x-windlass-replayed" not in first.headers | other.headers
        assert (provider.asked, billed(runtime)) == (2, 2 * COST_NUSD)
        with runtime.db.read() as connection:
            assert connection.scalar(sa.select(sa.func.sum(schema.spend.c.nusd))) == 2 * COST_NUSD
        assert runtime.gateway.limits.counts()[0].used == 2 * COST_NUSD


@pytest.mark.parametrize("wants_usage", [False, True])
async def test_a_stream_is_repeated_to_the_byte(tmp_path: Path, wants_usage: bool) -> None:
    parts = (event("a")[:9], event("a")[9:] + event("b")[:4], event("b")[4:] + LAST, COUNTED[:11], COUNTED[11:], DONE)
    provider = Turns(streaming(*parts), *answers("second"))
    more: dict[str, Any] = {"stream": True} | ({"stream_options": {"include_usage": True}} if wants_usage else {})
    async with serving(tmp_path / "h", provider) as (runtime, client):
        first, again = await ask(client, **more), await ask(client, **more)
        assert first.ended
        assert again.ended
        assert again.body == first.body
        assert first.body == event("a") + event("b") + LAST + (COUNTED if wants_usage else b"") + DONE
        assert again.headers["content-type"] == first.headers["content-type"] == "text/event-stream"
        assert again.headers["x-windlass-call"] == first.headers["x-windlass-call"]
        assert again.headers["x-windlass-cost-nusd"] == str(COST_NUSD), "the first answer could not know it yet"
        assert (provider.asked, billed(runtime)) == (1, COST_NUSD)


@given(st.lists(st.integers(0, 400), max_size=12), st.sampled_from([b"\n\n", b"\r\n\r\n"]))
def test_what_a_client_gets_hangs_on_no_border_of_chunks(cuts: list[int], end: bytes) -> None:
    whole = b"".join((event("a"), event("b"), LAST, COUNTED, event("c"), COUNTED, DONE, b"data: unfinished"))
    whole = whole.replace(b"\n\n", end)
    places = sorted({0, *(cut % len(whole) for cut in cuts), len(whole)})
    events = relay.UsageEvents()
    got = b"".join(events.without(whole[start:stop]) for start, stop in pairwise(places)) + events.rest
    assert got == whole.replace(COUNTED.replace(b"\n\n", end), b"")


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/embeddings", {"model": "v", "input": "a pawl"}),
        ("/v1/responses", {"model": "m", "input": "what holds?"}),
        ("/v1/messages", {"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": "what holds?"}]}),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
async def test_every_endpoint_repeats(tmp_path: Path, path: str, body: dict[str, Any], stream: bool) -> None:
    script = (event("a"), LAST, COUNTED, DONE) if stream else (plain(),)
    provider = Turns(streaming(*script) if stream else Scripted(*script))
    body = {**body, "stream": True} if stream and path != "/v1/embeddings" else body
    async with serving(tmp_path / "h", provider) as (runtime, client):
        first, again = [await client.post(path, body, idempotency_key="k") for _ in range(2)]
        assert (first.status, again.status) == (200, 200), first.body
        assert first.body == again.body != b""
        assert (provider.asked, len(outcomes(runtime))) == (1, 1)
        refused = await client.post(CHATS, chat(model="m"), idempotency_key="k")
        assert refused.status == 422, "the same key at another endpoint"
        assert provider.asked == 1


async def test_a_replay_takes_nothing_of_any_limit(tmp_path: Path) -> None:
    limits = [{"name": "few", "window": "total", "requests": 1, "usd": 0.01, "concurrent": 1}]
    async with serving(tmp_path / "h", Turns(*answers("a")), limits=limits) as (_, client):
        assert [(await ask(client)).status for _ in range(5)] == [200] * 5
        assert (await ask(client, "k2")).status == 429


async def test_what_was_stored_outlives_the_process(tmp_path: Path) -> None:
    provider = Turns(*answers("first", "second"))
    async with serving(tmp_path / "h", provider) as (_, client):
        first = await ask(client)
    async with serving(tmp_path / "h", provider) as (runtime, client):
        again = await ask(client)
        assert (again.body, again.headers["x-windlass-replayed"]) == (first.body, "true")
        assert (provider.asked, len(outcomes(runtime))) == (1, 1)


async def test_a_reply_is_repeated_until_it_expires(tmp_path: Path) -> None:
    provider, clock = Turns(*answers("first", "second")), Clock()
    async with serving(tmp_path / "h", provider, clock, gateway__idempotency_hours=2.0) as (runtime, client):
        await ask(client)
        clock.at += 7_199.0
        assert (await ask(client)).body == plain("first")
        clock.at += 2.0
        assert (await ask(client, text="another")).body == plain("second"), "the key is new again"
        assert (provider.asked, len(stored(runtime))) == (2, 1)
        clock.at += 7_201.0
        runtime.ledger.prune(clock.at)
        assert not stored(runtime)


async def test_a_reply_beyond_the_bound_is_not_stored(tmp_path: Path) -> None:
    long = plain("x" * 3_000)
    provider = Turns(Scripted(long), streaming(event("y" * 3_000), LAST, COUNTED, DONE), *answers("short"))
    async with serving(tmp_path / "h", provider, gateway__idempotency_max_bytes=2_000) as (runtime, client):
        assert (await ask(client)).body == long
        await until(lambda: not stored(runtime))
        assert (await ask(client, stream=True)).body.endswith(DONE), "another request, and nobody minds"
        assert [(await ask(client)).body for _ in range(2)] == [plain("short")] * 2
        assert provider.asked == 3


async def test_a_get_is_repeated_by_itself(tmp_path: Path) -> None:
    async with serving(tmp_path / "h", Turns(*answers("a"))) as (_, client):
        assert (await client.get("/v1/models", idempotency_key="k")).status == 200


# --- at the same time


async def test_who_comes_while_the_first_is_running_gets_its_answer(tmp_path: Path) -> None:
    gate = asyncio.Event()
    provider = Turns(Scripted(gate, plain("first")), *answers("second"))
    async with serving(tmp_path / "h", provider) as (runtime, client):
        asking = [asyncio.create_task(ask(client)) for _ in range(50)]
        await until(lambda: provider.asked)
        await asyncio.sleep(0.05)
        assert not any(task.done() for task in asking)
        gate.set()
        found = await asyncio.gather(*asking)
        assert {(one.status, one.body) for one in found} == {(200, plain("first"))}
        assert len({one.headers["x-windlass-call"] for one in found}) == 1
        assert sum("x-windlass-replayed" in one.headers for one in found) == 49
        assert (provider.asked, billed(runtime)) == (1, COST_NUSD)


async def test_who_comes_within_a_stream_waits_for_its_end(tmp_path: Path) -> None:
    gate = asyncio.Event()
    provider = Turns(streaming(event("a"), gate, event("b"), LAST, COUNTED, DONE), *answers("second"))
    async with serving(tmp_path / "h", provider) as (runtime, client):
        first = asyncio.create_task(ask(client, stream=True))
        await until(lambda: provider.asked)
        second = asyncio.create_task(ask(client, stream=True))
        await asyncio.sleep(0.05)
        gate.set()
        assert (await first).body == (await second).body == event("a") + event("b") + LAST + DONE
        assert (provider.asked, billed(runtime)) == (1, COST_NUSD)


async def test_another_process_waits_for_the_one_that_answers(tmp_path: Path) -> None:
    gate = asyncio.Event()
    provider, neighbour = Turns(Scripted(gate, plain("first"))), Turns(*answers("second"))
    async with (
        serving(tmp_path / "h", provider) as (runtime, client),
        serving(tmp_path / "h", neighbour) as (_, other),
    ):
        first = asyncio.create_task(ask(client))
        await until(lambda: provider.asked)
        waiting = [asyncio.create_task(ask(other)) for _ in range(5)]
        refused = await ask(other, text="something else")
        assert (refused.status, refused.code) == (422, "idempotency_key_reused")
        gate.set()
        found = [await first, *await asyncio.gather(*waiting)]
        assert {one.body for one in found} == {plain("first")}
        assert (provider.asked, neighbour.asked, billed(runtime)) == (1, 0, COST_NUSD)


async def test_who_leaves_while_waiting_stops_nobody(tmp_path: Path) -> None:
    gate = asyncio.Event()
    provider = Turns(Scripted(gate, plain("first")))
    async with serving(tmp_path / "h", provider) as (runtime, client):
        first = asyncio.create_task(ask(client))
        await until(lambda: provider.asked)
        leaving = Client(client.app)
        second = asyncio.create_task(ask(leaving))
        await asyncio.sleep(0.02)
        leaving.leave.set()
        await asyncio.wait_for(second, 1)
        gate.set()
        assert (await first).body == plain("first")
        assert (provider.asked, billed(runtime)) == (1, COST_NUSD)


async def test_a_wait_has_an_end(tmp_path: Path) -> None:
    gate = asyncio.Event()
    provider, neighbour = Turns(Scripted(gate, plain("first"))), Turns(*answers("second"))
    short: dict[str, Any] = {"resilience__total_timeout_s": 0.3}
    async with (
        serving(tmp_path / "h", provider) as (_, client),
        serving(tmp_path / "h", neighbour, **short) as (_, other),
    ):
        first = asyncio.create_task(ask(client))
        await until(lambda: provider.asked)
        found = await asyncio.gather(ask(other), ask(other))
        assert {(one.status, one.code) for one in found} == {(409, "idempotency_key_in_use")}
        gate.set()
        assert (await first).status == 200
        assert (await ask(other)).body == plain("first")
        assert neighbour.asked == 0


# --- another request under the same key


@pytest.mark.parametrize("running", [False, True])
async def test_another_request_under_the_key_is_refused(tmp_path: Path, running: bool) -> None:
    gate = asyncio.Event()
    provider = Turns(Scripted(gate, plain("first")), *answers("second"))
    async with serving(tmp_path / "h", provider) as (runtime, client):
        first = asyncio.create_task(ask(client))
        await until(lambda: provider.asked)
        if not running:
            gate.set()
            await first
        for body in (chat("other", model="m"), chat("what holds?", model="m", stream=True)):
            refused = await client.post(CHATS, body, idempotency_key="k1")
            assert (refused.status, refused.code) == (422, "idempotency_key_reused")
            assert "Idempotency-Key" in refused.json["error"]["message"]
        gate.set()
        assert (await first).body == (await ask(client)).body == plain("first")
        assert (provider.asked, len(outcomes(runtime))) == (1, 1)


async def test_a_key_is_its_senders_alone(tmp_path: Path) -> None:
    names = ("a", "b", "c")
    keys = [key("a", "acme", "one", "two"), key("b", "acme", "one"), key("c", "rival", "one")]
    provider = Turns(*answers("1", "2", "3", "4", "5"))
    async with serving(tmp_path / "h", provider, keys=keys) as (runtime, client):
        callers = [(Client(client.app, f"secret-{name}"), "one") for name in names]
        callers.append((callers[0][0], "two"))
        for _ in range(2):
            found = [
                await one.post(CHATS, chat(model="m"), idempotency_key="same", x_windlass_workspace=workspace)
                for one, workspace in callers
            ]
            assert [one.body for one in found] == [plain(text) for text in "1234"]
        assert provider.asked == 4
        # What is refused to one says nothing of what another has.
        assert (await callers[1][0].post(CHATS, chat("new", model="m"), idempotency_key="fresh")).status == 200
        owners = {(row["tenant"], row["workspace"], row["caller"]) for row in stored(runtime)}
        assert owners == {("acme", "one", "a"), ("acme", "one", "b"), ("rival", "one", "c"), ("acme", "two", "a")}


async def test_a_wrong_key_gets_no_stored_reply(tmp_path: Path) -> None:
    provider = Turns(*answers("first"))
    async with serving(tmp_path / "h", provider, keys=[key("a", "acme")]) as (_, client):
        assert (await ask(Client(client.app, "secret-a"))).status == 200
        assert (await ask(Client(client.app, "secret-b"))).status == 401
        assert (await ask(client)).status == 401


async def test_a_forms_boundary_is_no_part_of_the_request(tmp_path: Path) -> None:
    async with serving(tmp_path / "h", Turns(*answers("a"))) as (runtime, _):
        repeats = runtime._repeating()

        async def digest(boundary: str, value: str, kind: str = "multipart/form-data; boundary=") -> str:
            part = f'--{boundary}\r\nContent-Disposition: form-data; name="model"\r\n\r\n{value}\r\n--{boundary}--\r\n'
            request = Request(part.encode(), "audio", content_type=kind + boundary)
            return await repeats._asked("acme", request)

        assert await digest("one", "m") == await digest("another", "m")
        assert await digest("one", "m") != await digest("one", "n")
        assert await digest("one", "m", "text/plain; boundary=") != await digest("two", "m", "text/plain; boundary=")
        large = [Request(last * (idempotency.AT_ONCE_BYTES + 1)) for last in (b"a", b"b", b"a")]
        found = [await repeats._asked("acme", request) for request in large]
        assert found[0] == found[2] != found[1]
        assert await repeats._asked("rival", large[0]) != found[0], "tenants cannot compare what they asked"


# --- a first call that brings no answer

CUT: tuple[Act, ...] = (event("a"), UpstreamError("it breaks off"))
FAILED: dict[str, tuple[Scripted, bool]] = {
    "server error": (Scripted(b'{"error": {"message": "no"}}', status=500), False),
    "rate limited": (Scripted(b'{"error": {"message": "no"}}', status=429), False),
    "refused": (Scripted(b'{"error": {"message": "no"}}', status=400), False),
    "unreachable": (Scripted(UpstreamError("no answer")), False),
    "malformed": (Scripted(b"<html>"), False),
    "cut stream": (streaming(*CUT), True),
    "stream without an end": (streaming(event("a")), True),
    "error in the stream": (streaming(event("a"), b'data: {"error": {"message": "no", "code": "x"}}\n\n', DONE), True),
}


@pytest.mark.parametrize("how", FAILED)
async def test_after_a_failure_the_next_runs_by_itself(tmp_path: Path, how: str) -> None:
    failing, stream = FAILED[how]
    provider = Turns(failing, *answers("second"))
    if stream:
        provider = Turns(failing, streaming(event("b"), LAST, COUNTED, DONE))
    more: dict[str, Any] = {"stream": True} if stream else {}
    async with serving(tmp_path / "h", provider) as (runtime, client):
        first = await ask(client, **more)
        assert first.status >= 400 or b'"error"' in first.body
        await until(lambda: not stored(runtime))
        second, third = await ask(client, **more), await ask(client, **more)
        assert second.status == 200
        assert second.body == third.body != first.body
        assert "x-windlass-replayed" not in second.headers
        assert (provider.asked, len(stored(runtime))) == (2, 1)


async def test_who_waited_for_a_failure_runs_by_itself(tmp_path: Path) -> None:
    gate = asyncio.Event()
    provider = Turns(Scripted(gate, UpstreamError("no answer")), *answers("second"))
    async with serving(tmp_path / "h", provider) as (runtime, client):
        asking = [asyncio.create_task(ask(client)) for _ in range(10)]
        await until(lambda: provider.asked)
        gate.set()
        found = await asyncio.gather(*asking)
        assert sorted(one.status for one in found) == [200] * 9 + [502]
        assert {one.body for one in found if one.status == 200} == {plain("second")}
        assert (provider.asked, billed(runtime)) == (2, COST_NUSD)


@pytest.mark.parametrize("stream", [False, True])
async def test_who_waited_for_a_client_that_left_runs_by_itself(tmp_path: Path, stream: bool) -> None:
    never = asyncio.Event()
    script = (event("a"), never) if stream else (never,)
    provider = Turns(streaming(*script), streaming(event("b"), LAST, COUNTED, DONE))
    async with serving(tmp_path / "h", provider) as (runtime, client):
        leaving = Client(client.app)
        first = asyncio.create_task(ask(leaving, stream=True))
        await until(lambda: provider.asked)
        second = asyncio.create_task(ask(client, stream=True))
        await asyncio.sleep(0.05)
        leaving.leave.set()
        await asyncio.wait_for(first, 2)
        found = await asyncio.wait_for(second, 2)
        assert found.body == event("b") + LAST + DONE
        assert "x-windlass-replayed" not in found.headers
        assert [outcome.error for outcome in outcomes(runtime)] == ["client_gone", ""]


async def test_a_request_that_is_refused_holds_no_place(tmp_path: Path) -> None:
    provider = Turns(*answers("first"))
    limits = [{"name": "none", "user": "ben", "window": "total", "requests": 0}]
    async with serving(tmp_path / "h", provider, limits=limits) as (runtime, client):
        assert (await client.post(CHATS, b"{", idempotency_key="k1")).status == 400
        assert (await client.post(CHATS, chat(model="none"), idempotency_key="k1")).status == 404
        assert (await ask(client, user="ben")).status == 429
        assert not stored(runtime)
        assert (await ask(client)).body == plain("first")


async def test_a_commit_that_fails_stores_and_bills_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    provider = Turns(*answers("first", "second"))
    async with serving(tmp_path / "h", provider) as (runtime, client):
        append = runtime.ledger.append

        async def failing(*items: Item) -> int:
            monkeypatch.setattr(runtime.ledger, "append", append)
            raise LedgerError("the disk is full")

        monkeypatch.setattr(runtime.ledger, "append", failing)
        assert (await ask(client)).status == 503
        await until(lambda: not stored(runtime))
        assert (await ask(client)).body == (await ask(client)).body == plain("second")
        assert (provider.asked, billed(runtime)) == (2, COST_NUSD)


async def test_who_leaves_during_the_commit_is_billed_and_has_the_reply(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    provider, gate, waiting = Turns(*answers("first", "second")), asyncio.Event(), asyncio.Event()
    async with serving(tmp_path / "h", provider) as (runtime, client):
        append = runtime.ledger.append

        async def slow(*items: Item) -> int:
            waiting.set()
            await gate.wait()
            return await append(*items)

        monkeypatch.setattr(runtime.ledger, "append", slow)
        leaving = Client(client.app)
        first = asyncio.create_task(ask(leaving))
        await waiting.wait()
        leaving.leave.set()
        second = asyncio.create_task(ask(client))
        await asyncio.sleep(0.05)
        assert not second.done()
        gate.set()
        await first
        assert (await second).body == plain("first")
        assert (provider.asked, billed(runtime)) == (1, COST_NUSD)


# --- what a process that died left behind


def _left(runtime: Runtime, owner: str, leased_until: float) -> ReplyPlace:
    """A place that somebody took and did not end."""
    repeats = runtime._repeating()
    place = ReplyPlace("default", "default", "", hashlib.sha256(b"k1").hexdigest())
    assert repeats._table.claim(place, "f" * 64, repeats._vault.mark, owner) is None
    with runtime.db.write() as connection:
        connection.execute(sa.update(schema.replies).values(leased_until=leased_until))
    return place


def _dead() -> str:
    """The mark of a process of this machine that is no more: its number belongs to another one now."""
    machine, pid, started = process.mark().split(".")
    return f"{machine}.{pid}.{int(started) - 1}"


async def test_the_place_of_a_dead_process_is_taken_at_once(tmp_path: Path) -> None:
    provider = Turns(*answers("first"))
    async with serving(tmp_path / "h", provider) as (runtime, client):
        _left(runtime, f"{_dead()}:7", NOW + 1_000)
        assert (await ask(client)).body == (await ask(client)).body == plain("first")
        assert provider.asked == 1


@pytest.mark.parametrize("owner", ["elsewhere.1.2:7", "", ":", "x", "a.b.c:d", "ours:8"])
async def test_any_other_place_is_taken_when_its_lease_is_over(tmp_path: Path, owner: str) -> None:
    provider, clock = Turns(*answers("first")), Clock()
    async with serving(tmp_path / "h", provider, clock, resilience__total_timeout_s=0.2) as (runtime, client):
        _left(runtime, owner.replace("ours", process.mark()), NOW + LEASE_S)
        found = await client.post(CHATS, chat(model="m"), idempotency_key="k1")
        assert (found.status, found.code) == (422, "idempotency_key_reused")
        assert provider.asked == 0
        clock.at += LEASE_S
        assert (await ask(client)).body == plain("first")


async def test_who_was_taken_over_stores_nothing(tmp_path: Path) -> None:
    gate, clock = asyncio.Event(), Clock()
    provider, neighbour = Turns(Scripted(gate, plain("late"))), Turns(*answers("first"))
    async with (
        serving(tmp_path / "h", provider, clock) as (_, client),
        serving(tmp_path / "h", neighbour, clock) as (_, other),
    ):
        late = asyncio.create_task(ask(client))
        await until(lambda: provider.asked)
        clock.at += LEASE_S + 1
        assert (await ask(other)).body == plain("first")
        gate.set()
        assert (await late).body == plain("late")
        assert (await ask(other)).body == plain("first"), "what is stored stays"


async def test_a_running_call_keeps_its_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(idempotency, "RENEW_S", 0.01)
    gate, clock = asyncio.Event(), Clock()
    provider = Turns(Scripted(gate, plain("first")))
    async with serving(tmp_path / "h", provider, clock) as (runtime, client):
        first = asyncio.create_task(ask(client))
        await until(lambda: provider.asked)
        clock.at += LEASE_S * 10
        await until(lambda: stored(runtime)[0]["leased_until"] > clock.at)
        gate.set()
        await first
        assert stored(runtime)[0]["state"] == "done"


def test_a_mark_tells_processes_apart() -> None:
    mine = process.mark()
    assert mine
    assert not process.gone(mine)
    machine, pid, started = mine.split(".")
    assert process.gone(f"{machine}.{pid}.{int(started) + 1}")
    assert process.gone(f"{machine}.4194305.{started}"), "beyond the largest number that Linux gives"
    for other in ("", "x", f"x.{pid}.{started}", f"{machine}.-1.{started}", f"{machine}.1", f"{machine}..{started}"):
        assert not process.gone(other), "nobody can say"


# --- hostile headers, hostile rows

HOSTILE: dict[str, Sequence[bytes]] = {
    "empty": [b""],
    "too long": [b"k" * 256],
    "huge": [b"k" * 1_000_000],
    "a space": [b"two words"],
    "a tab": [b"a\tb"],
    "NUL": [b"a\x00b"],
    "not ASCII": ["schlüssel".encode()],
    "latin-1": [b"schl\xfcssel"],
    "DEL": [b"a\x7f"],
    "twice": [b"a", b"b"],
    "twice the same": [b"a", b"a"],
}


@pytest.mark.parametrize("how", HOSTILE)
async def test_a_header_that_is_no_key_is_refused(tmp_path: Path, how: str) -> None:
    provider = Turns(*answers("first"))
    async with serving(tmp_path / "h", provider) as (runtime, client):
        sent: list[Any] = []
        headers = [(b"host", b"127.0.0.1:8321"), *((b"idempotency-key", value) for value in HOSTILE[how])]
        scope = {"type": "http", "method": "POST", "path": CHATS, "query_string": b"", "headers": headers}

        async def receive() -> Any:
            return {"type": "http.request", "body": json.dumps(chat(model="m")).encode(), "more_body": False}

        async def send(said: Any) -> None:
            sent.append(said)

        await client.app(scope, receive, send)
        assert sent[0]["status"] == 400
        assert json.loads(sent[1]["body"])["error"]["code"] == "idempotency_key_invalid"
        assert len(sent[1]["body"]) < 1_000, "it is not said back at length"
        assert (provider.asked, stored(runtime)) == (0, [])


async def test_the_longest_key_is_good(tmp_path: Path) -> None:
    provider = Turns(*answers("first"))
    async with serving(tmp_path / "h", provider) as (_, client):
        long = "".join(chr(0x21 + n % 94) for n in range(255))
        assert [(await ask(client, long)).status for _ in range(2)] == [200, 200]
        assert provider.asked == 1


def _edit(runtime: Runtime, **values: Any) -> None:
    with runtime.db.write() as connection:
        connection.execute(sa.update(schema.replies).values(**values))


@pytest.mark.parametrize("how", ["bit", "short", "empty", "version", "tail", "call", "expired nonce"])
async def test_a_changed_row_is_an_error_and_no_second_bill(tmp_path: Path, how: str) -> None:
    provider = Turns(*answers("first", "second"))
    async with serving(tmp_path / "h", provider) as (runtime, client):
        await ask(client)
        (row,) = stored(runtime)
        data: bytes = row["data"]
        match how:
            case "bit":
                _edit(runtime, data=data[:40] + bytes([data[40] ^ 1]) + data[41:])
            case "short":
                _edit(runtime, data=data[:20])
            case "empty":
                _edit(runtime, data=b"")
            case "version":
                _edit(runtime, data=b"\x02" + data[1:])
            case "tail":
                _edit(runtime, data=data + b"x")
            case "call":
                _edit(runtime, call="call_of_somebody_else")
            case _:
                _edit(runtime, data=data[:1] + bytes(12) + data[13:])
        for _ in range(2):
            found = await ask(client)
            assert (found.status, found.code) == (503, "database_corrupt")
            assert "another Idempotency-Key" in found.json["error"]["message"]
        assert (provider.asked, billed(runtime)) == (1, COST_NUSD)
        assert (await ask(client, "k2")).body == plain("second")


async def test_a_row_in_anothers_place_does_not_open(tmp_path: Path) -> None:
    keys = [key("a", "acme"), key("b", "acme"), key("c", "rival")]
    provider = Turns(*answers("1", "2", "3"))
    async with serving(tmp_path / "h", provider, keys=keys) as (runtime, client):
        clients = [Client(client.app, f"secret-{name}") for name in "abc"]
        for one in clients:
            await ask(one)
        theirs = next(row for row in stored(runtime) if row["caller"] == "a")
        with runtime.db.write() as connection:
            moved = {name: theirs[name] for name in ("data", "call", "asked")}
            connection.execute(sa.update(schema.replies).where(schema.replies.c.caller != "a").values(**moved))
        assert (await ask(clients[0])).body == plain("1")
        assert (await ask(clients[1])).status == 503
        found = await ask(clients[2])
        assert found.status == 422, "the digest of the request, too, is its tenant's own"
        assert b"choices" not in found.body


async def test_another_secret_is_an_error_with_its_remedy(tmp_path: Path) -> None:
    provider = Turns(*answers("first", "second"))
    async with serving(tmp_path / "h", provider) as (_, client):
        await ask(client)
    secret = tmp_path / "h" / "keys.secret"
    kept = secret.read_bytes()
    secret.unlink()
    async with serving(tmp_path / "h", provider) as (runtime, client):
        found = await ask(client)
        assert (found.status, found.code) == (503, "settings_invalid")
        assert "keys.secret" in found.json["error"]["message"]
        assert (await ask(client, text="anything")).status == 503
        assert (provider.asked, len(outcomes(runtime))) == (1, 1)
    secret.chmod(0o600)
    secret.write_bytes(kept)
    async with serving(tmp_path / "h", provider) as (_, client):
        assert (await ask(client)).body == plain("first"), "put back, everything opens again"


async def test_nothing_of_it_lies_in_the_database_in_clear(tmp_path: Path) -> None:
    prompt, said, name = "the-secret-prompt", "the-secret-reply", "the-secret-idempotency-key"
    provider = Turns(*answers(said))
    changes: dict[str, Any] = {"gateway__keep_bodies": False}
    async with serving(tmp_path / "h", provider, **changes) as (runtime, client):
        first = await ask(client, name, prompt)
        assert said.encode() in first.body
        assert stored(runtime)[0]["data"]
    files = [path.read_bytes() for path in (tmp_path / "h").rglob("*") if path.is_file()]
    assert any(b"replies" in data for data in files)
    for word in (prompt, said, name):
        assert not any(word.encode() in data for data in files), word


async def test_forgetting_a_user_takes_the_stored_replies(tmp_path: Path) -> None:
    provider = Turns(*answers("for ann", "for ben", "again"))
    async with serving(tmp_path / "h", provider, Clock(), gateway__keep_bodies=False) as (runtime, client):
        await ask(client, "k1", user="ann")
        await ask(client, "k2", user="ben")
        runtime.clock.at += 1  # type: ignore[attr-defined]
        await runtime.forget(Scope(), "ann", by="test")
        assert [row["user"] for row in stored(runtime)] == ["ben"]
        assert (await ask(client, "k2", user="ben")).body == plain("for ben")
        assert (await ask(client, "k1", user="ann")).body == plain("again"), "a repetition is a call of its own"


async def test_a_user_forgotten_during_the_call_is_forgotten_by_the_next_erasure(tmp_path: Path) -> None:
    gate = asyncio.Event()
    provider, clock = Turns(streaming(event("a"), gate, LAST, COUNTED, DONE)), Clock()
    async with serving(tmp_path / "h", provider, clock) as (runtime, client):
        asking = asyncio.create_task(ask(client, user="ann", stream=True))
        await until(lambda: provider.asked and runtime.ledger.calls(ALL))
        clock.at += 1
        await runtime.forget(Scope(), "ann", by="test")
        gate.set()
        await asking
        clock.at += 1
        await runtime.forget(Scope(), "ann", by="test")
        assert not stored(runtime)


async def test_without_the_header_nothing_is_stored(tmp_path: Path) -> None:
    provider = Turns(*answers("first", "second"))
    async with serving(tmp_path / "h", provider) as (runtime, client):
        assert (await client.post(CHATS, chat(model="m"))).body == plain("first")
        assert (await client.post(CHATS, chat(model="m"))).body == plain("second")
        assert not stored(runtime)
        assert runtime._repeats is None


async def test_a_place_that_cannot_be_freed_is_free_when_its_lease_is_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    provider, clock = Turns(Scripted(UpstreamError("no answer")), *answers("second")), Clock()
    async with serving(tmp_path / "h", provider, clock, resilience__total_timeout_s=0.2) as (runtime, client):

        def away(*_: Any) -> None:
            raise LedgerError("the database is away")

        with monkeypatch.context() as patched:
            patched.setattr(ReplyTable, "release", away)
            assert (await ask(client)).status == 502
        assert stored(runtime)[0]["state"] == PENDING
        assert (await ask(client)).status == 409
        clock.at += LEASE_S
        assert (await ask(client)).body == plain("second")
