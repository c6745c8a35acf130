"""Histories of calls through the real gateway: providers fail in many ways, clients leave, the process is killed.

A history is a few lives of a process over one ledger. Within a life clients call at the same time, in every dialect;
then it ends, in order or by SIGKILL: what was not committed by then is gone, and the next life reads from the ledger
what was spent. All waiting is counted in rounds of the event loop, so that a seed gives one history.
"""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass, field
from typing import Any, Final

from windlass.errors import ErrorCategory, LimitReached, UpstreamError, WindlassError
from windlass.gateway.access.admission import Admission
from windlass.gateway.access.limits import Limits
from windlass.gateway.gateway import Answer, Gateway
from windlass.gateway.money.pricelist import PriceBook
from windlass.gateway.options import GatewayOptions, LimitOptions, ModelOptions
from windlass.gateway.provider import (
    EVENT_STREAM,
    JSON,
    EmbeddingRequest,
    ProviderReply,
    ProviderRequest,
    Providers,
    RawRequest,
)
from windlass.gateway.resilience.resilience import Resilience, ResilienceOptions
from windlass.gateway.transit import Request
from windlass.ledger.ledger import Item, Spend
from windlass.policies.loop import Loop, PointOptions
from windlass.records import Outcome, Scope

NOW: Final = 1_800_000_000.0
LIVES: Final = (1, 1, 2, 3)
CLIENTS, CALLS = 2, (1, 1, 2)
LIMITS: Final = (
    LimitOptions(name="ever", usd=1.0, window="total"),
    LimitOptions(name="users", usd=0.5, window="month", per="user", tokens=10**9),
    LimitOptions(name="small", usd=0.02, window="day", per="key", model="dear"),
    LimitOptions(name="rate", requests=10**6, concurrent=20),
)
BUDGETS: Final = ("ever", "users")
"""Those that are about every call."""
PRICES: Final = {"cheap": (1.0, 2.0), "dear": (40.0, 333.333_333)}
"""USD for a million tokens, in and out."""
FIELDS: Final[dict[str, dict[str, Any]]] = {
    "chat": {"messages": [{"role": "user", "content": "ahoy there"}], "max_tokens": 20},
    "responses": {"input": "ahoy there", "max_output_tokens": 20},
    "messages": {"messages": [{"role": "user", "content": "ahoy there"}], "max_tokens": 20},
    "embeddings": {"input": ["ahoy", "there"]},
    "moderations": {"input": "ahoy there"},
}


class Books:
    """The ledger of all lives. A commit is atomic, at some moment between its asking and its answer."""

    def __init__(self) -> None:
        self.outcomes: dict[str, Outcome] = {}
        self.spends: list[Spend] = []

    def commit(self, items: tuple[Item, ...]) -> None:
        for item in items:
            if isinstance(item, Outcome):
                assert item.call not in self.outcomes, "a call is billed twice"
                self.outcomes[item.call] = item
            elif isinstance(item, Spend):
                self.spends.append(item)

    def spent(self) -> dict[tuple[str, str, int], int]:
        """What a process that starts reads, as `gateway.store.spent`."""
        found: dict[tuple[str, str, int], int] = {}
        for one in self.spends:
            found[one.limit, one.group, one.since] = found.get((one.limit, one.group, one.since), 0) + one.nusd
        return found


@dataclass
class Life:
    """One process: until it is killed its commits reach the books. received: the answers that came whole, by call,
    with the cost in their headers; None where a stream cannot say it beforehand."""

    books: Books
    rng: random.Random
    dead: bool = False
    received: dict[str, int | None] = field(default_factory=dict)
    counted: int = 0

    async def append(self, *items: Item) -> int:
        """As the ledger's."""
        await self.rounds(4)
        self.books.commit(items)
        await self.rounds(4)
        return len(self.books.outcomes)

    def keep(self, *items: Item) -> asyncio.Future[int] | None:
        """As the ledger's, which writes to a journal, and now and then cannot."""
        if self.dead or self.rng.random() < 0.3:
            return asyncio.ensure_future(self.append(*items))
        self.books.commit(items)
        return None

    async def rounds(self, most: int) -> None:
        """Let others go on; in a process that is dead nothing goes on."""
        for _ in range(self.rng.randrange(most)):
            await asyncio.sleep(0)
        if self.dead:
            raise asyncio.CancelledError


class Upstream:
    """A provider of two models that does well or fails, as its seed says. local: never."""

    local = False

    def __init__(self, name: str, life: Life):
        self.name = name
        self._life = life
        self.models = tuple(
            ModelOptions(name=f"{model}", prompt_usd_per_million=into, completion_usd_per_million=out)
            for model, (into, out) in PRICES.items()
        )
        self.embedding_models = self.models

    def serves(self, endpoint: str) -> bool:
        return endpoint in ("moderations", "embeddings")

    async def send(self, request: ProviderRequest) -> ProviderReply:
        return await self._answer(_chat_events if request.chat.stream else _chat)

    async def embed(self, _request: EmbeddingRequest) -> ProviderReply:
        return await self._answer(_vectors)

    async def relay(self, _request: RawRequest) -> ProviderReply:
        return await self._answer(_flags)

    async def close(self) -> None:
        """Nothing is held open."""

    async def _answer(self, write: Callable[[dict[str, int] | None], list[bytes]]) -> ProviderReply:
        rng = self._life.rng
        await self._life.rounds(4)
        usage = {"prompt_tokens": rng.randrange(50), "completion_tokens": rng.randrange(50)}
        said = usage if rng.random() < 0.8 else None
        parts = write(said)
        kind = EVENT_STREAM if write is _chat_events else JSON
        match rng.randrange(12):
            case 0:
                raise UpstreamError("it is set to fail", category=ErrorCategory.CONNECT_REFUSED)
            case 1:
                refusal = json.dumps({"error": {"message": "no", "code": "x"}, "usage": said}).encode()
                return ProviderReply(rng.choice((400, 429, 500, 503)), JSON, self._chunks([refusal]))
            case 2:
                return ProviderReply(200, kind, self._chunks([*parts[: rng.randrange(len(parts))], b'{"br']))
            case 3:
                cut = rng.randrange(len(parts))
                return ProviderReply(
                    200, kind, self._chunks(parts[:cut], UpstreamError("cut", category=ErrorCategory.STREAM_CUT))
                )
            case 4:
                return ProviderReply(200, "text/html", self._chunks([b"<p>"]))
            case _:
                return ProviderReply(200, kind, self._chunks(parts))

    async def _chunks(self, parts: list[bytes], end: Exception | None = None) -> AsyncGenerator[bytes, None]:
        for part in parts:
            await self._life.rounds(3)
            yield part
        if end is not None:
            raise end


def _total(usage: dict[str, int] | None) -> dict[str, int] | None:
    return usage and {**usage, "total_tokens": sum(usage.values())}


def _chat(usage: dict[str, int] | None) -> list[bytes]:
    message = {"role": "assistant", "content": "ahoy yourself"}
    whole = {"id": "x", "object": "chat.completion", "created": 1, "model": "m", "usage": _total(usage)}
    whole["choices"] = [{"index": 0, "message": message, "finish_reason": "stop"}]
    return [json.dumps(whole).encode()]


def _chat_events(usage: dict[str, int] | None) -> list[bytes]:
    head = {"id": "x", "object": "chat.completion.chunk", "created": 1, "model": "m"}
    deltas: list[Any] = [{"role": "assistant", "content": "ahoy"}, {"content": " yourself"}, {}]
    events: list[Any] = [
        {**head, "choices": [{"index": 0, "delta": delta, "finish_reason": None if delta else "stop"}]}
        for delta in deltas
    ]
    events += [{**head, "choices": [], "usage": _total(usage)}] if usage else []
    return [*(b"data: " + json.dumps(one).encode() + b"\n\n" for one in events), b"data: [DONE]\n\n"]


def _vectors(usage: dict[str, int] | None) -> list[bytes]:
    data = [{"object": "embedding", "index": index, "embedding": [0.5]} for index in range(2)]
    return [json.dumps({"object": "list", "data": data, "usage": _total(usage)}).encode()]


def _flags(usage: dict[str, int] | None) -> list[bytes]:
    return [json.dumps({"id": "m", "results": [], "usage": _total(usage)}).encode()]


# --- what happens, and what must hold


async def history(seed: int, make: Callable[..., Gateway] = Gateway, limits: Callable[..., Limits] = Limits) -> None:
    """Play one history; AssertionError where a sum is not what the others are."""
    rng, books = random.Random(seed), Books()
    received: dict[str, int | None] = {}
    for life_left in reversed(range(rng.choice(LIVES))):
        life = Life(books, rng)
        counts = limits(LIMITS, books.spent())
        gateway = _gateway(make, counts, life)
        await _live(life, gateway, killed=life_left > 0 and rng.random() < 0.8)
        received |= life.received
        if not life.dead:
            _check_limits(counts, books)
    _check(books, received)


def _gateway(make: Callable[..., Gateway], limits: Limits, life: Life) -> Gateway:
    async def no_pause(_seconds: float) -> None:
        await life.rounds(3)

    return make(
        admission=Admission((), 1 << 20),
        providers=Providers([Upstream("one", life)]),
        loop=Loop({"model": PointOptions(mode="live", policy="fixed")}),
        ledger=life,
        options=GatewayOptions(keep_bodies=False),
        limits=limits,
        prices=PriceBook(),
        resilience=Resilience(
            ResilienceOptions(attempts=3, backoff_base_s=0.0),
            clock=lambda: NOW,
            monotonic=asyncio.get_running_loop().time,
            sleep=no_pause,
            rng=life.rng,
        ),
        clock=lambda: NOW,
    )


async def _live(life: Life, gateway: Gateway, *, killed: bool) -> None:
    clients = [asyncio.create_task(_client(life, gateway, number)) for number in range(CLIENTS)]
    if killed:
        for _ in range(life.rng.randrange(60)):
            await asyncio.sleep(0)
        life.dead = True
        # What a dead process leaves behind ends here without effect: none of its commits arrives.
        while left := asyncio.all_tasks() - {asyncio.current_task()}:
            for task in left:
                task.cancel()
            await asyncio.wait(left)
        return
    await asyncio.gather(*clients)
    for _ in range(20):
        await asyncio.sleep(0)


async def _client(life: Life, gateway: Gateway, number: int) -> None:
    rng = life.rng
    for _ in range(rng.choice(CALLS)):
        endpoint = rng.choice(list(FIELDS))
        stream = endpoint in ("chat", "responses", "messages") and rng.random() < 0.5
        model = rng.choice(("cheap", "dear", "auto")) if endpoint in ("chat", "responses", "messages") else "cheap"
        body = {**FIELDS[endpoint], "model": model, "stream": stream}
        if endpoint == "chat":
            body["user"] = f"user{number % 2}"
        asked = Request(json.dumps(body).encode(), endpoint, path=f"/{endpoint}", scope=Scope("acme", "w"))
        calling = asyncio.create_task(_call(life, gateway, asked))
        if rng.random() < 0.25:
            for _ in range(rng.randrange(25)):
                await asyncio.sleep(0)
            calling.cancel()
        await asyncio.wait([calling])


async def _call(life: Life, gateway: Gateway, asked: Request) -> None:
    """One call as the server makes it; a client reads all of a stream, or leaves in the middle."""
    try:
        answer = await gateway.complete(asked)
    except (LimitReached, WindlassError):
        return
    patience = life.rng.choice((0, 1, 3, 1_000, 1_000, 1_000, 1_000))
    try:
        await _read(life, answer, patience)
    finally:
        await answer.chunks.aclose()


async def _read(life: Life, answer: Answer, patience: int) -> None:
    async for _ in answer.chunks:
        await life.rounds(2)
        patience -= 1
        if patience < 0:
            return
    if not life.dead:
        cost = answer.headers.get("x-windlass-cost-nusd")
        life.received[answer.headers["x-windlass-call"]] = None if cost is None else int(cost)


def _check_limits(limits: Limits, books: Books) -> None:
    """Nothing is held, and what the process counts is what the books say."""
    for count in limits.counts():
        assert count.held == 0, f"{count.place} holds {count.held} for ever"
    for (name, group, since), nusd in books.spent().items():
        used = [c.used for c in limits.counts() if c.place == (name, group, "nusd", since)]
        assert used in ([], [nusd]), f"budget {name} of {group!r}: {used} counted, {nusd} committed"


def _check(books: Books, received: dict[str, int | None]) -> None:
    """The ledger's sum, each budget's, and what the clients were told."""
    costs = {call: outcome.cost_nusd for call, outcome in books.outcomes.items()}
    ledger = sum(costs.values())
    for name in BUDGETS:
        budget = sum(one.nusd for one in books.spends if one.limit == name)
        assert budget == ledger, f"budget {name} has {budget}, the ledger {ledger}"
    lost = received.keys() - costs.keys()
    assert not lost, f"answered, and not in the ledger: {lost}"
    told = {call: cost for call, cost in received.items() if cost is not None}
    wrong = {call: (cost, costs[call]) for call, cost in told.items() if cost != costs[call]}
    assert not wrong, f"told and billed differ: {wrong}"
    left = sum(cost for call, cost in costs.items() if call not in told)
    assert sum(told.values()) + left == ledger
