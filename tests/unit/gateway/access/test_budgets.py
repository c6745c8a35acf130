"""Budgets through the whole gateway: what the ledger says, what was committed of budgets and what limits count agree.

A thousand calls at once, failures, breaks, clients that leave, ledgers that cannot be written: to the nano-dollar.
"""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import AsyncGenerator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from tests.golden.application import NOW, chat, opened, resilience

from windlass.errors import ErrorCategory, LedgerError, LimitReached, RequestError, UpstreamError, WindlassError
from windlass.gateway.access.admission import Admission
from windlass.gateway.access.limits import USD, Limits
from windlass.gateway.gateway import Gateway, Request
from windlass.gateway.money.pricelist import PriceBook
from windlass.gateway.options import GatewayOptions, LimitOptions, ModelOptions
from windlass.gateway.provider import ProviderReply, ProviderRequest, Providers
from windlass.gateway.providers.compose import completion
from windlass.ledger import schema
from windlass.ledger.ledger import Item, Ledger, Spend
from windlass.ledger.memory import MemoryLedger
from windlass.policies.loop import Loop, PointOptions
from windlass.records import Outcome

HISTORIES, HISTORIES_SOAK = 200, 100_000
CALLS = 1_000
PER_MILLION = 1_000.0
"""US dollars for a million tokens: a call of a few tokens costs some thousandths of a dollar."""


class Fickle:
    """Echoes at a price, and as the seed says fails at once, breaks off, or takes its time. served: whole answers."""

    name = "fickle"
    local = False

    def __init__(self, rng: random.Random, failing: float = 0.0, beyond: float = 0.0):
        price = {"prompt_usd_per_million": PER_MILLION, "completion_usd_per_million": PER_MILLION}
        self.models = tuple(ModelOptions(name=name, **price) for name in ("one", "two"))  # type: ignore[arg-type]
        self.asked = 0
        self._rng, self._failing, self._beyond = rng, failing, beyond

    async def send(self, request: ProviderRequest) -> ProviderReply:
        self.asked += 1
        await self._wait()
        if self._rng.random() < self._failing:
            raise UpstreamError("it is set to fail", status=self._rng.choice((400, 429, 500, None)))
        again = 300 if self._rng.random() < self._beyond else 1
        reply = completion(request, request.chat.messages[-1].text * again, 0)
        return ProviderReply(reply.status, reply.content_type, self._chunks(reply))

    async def close(self) -> None:
        """Nothing is held open."""

    async def _wait(self) -> None:
        for _ in range(self._rng.randrange(4)):
            await asyncio.sleep(0)

    async def _chunks(self, reply: ProviderReply) -> AsyncGenerator[bytes, None]:
        async for chunk in reply.chunks:
            await self._wait()
            if self._rng.random() < self._failing / 4:
                raise UpstreamError("it breaks off", category=ErrorCategory.STREAM_CUT)
            yield chunk


class Kept(MemoryLedger):
    """A ledger that keeps what was spent too, and sometimes cannot be written. lost: what such calls cost."""

    def __init__(self, rng: random.Random, failing: float = 0.0):
        super().__init__()
        self.spent: list[Spend] = []
        self.outcomes: list[Outcome] = []
        self.lost = 0
        self._rng, self._failing = rng, failing

    async def append(self, *items: Item) -> int:
        ended = [item for item in items if isinstance(item, Outcome)]
        await asyncio.sleep(0)
        if self._rng.random() < self._failing:
            self.lost += sum(outcome.cost_nusd for outcome in ended)
            raise LedgerError("the disk is full")
        self.outcomes += ended
        self.spent += [item for item in items if isinstance(item, Spend)]
        return self.append_now(*items)


def _gateway(provider: Fickle, ledger: Ledger, limits: Limits) -> Gateway:
    return Gateway(
        admission=Admission((), 1024 * 1024),
        providers=Providers([provider]),
        loop=Loop({"model": PointOptions(mode="live", policy="fixed")}),
        ledger=ledger,
        options=GatewayOptions(keep_bodies=False, reserved_tokens=64),
        limits=limits,
        prices=PriceBook(),
        resilience=resilience(attempts=2),
        clock=lambda: NOW,
    )


def _request(rng: random.Random) -> Request:
    fields: dict[str, Any] = {"model": rng.choice(("one", "two", "auto")), "user": rng.choice(("u", "v"))}
    if rng.random() < 0.5:
        fields["max_tokens"] = 40
    if rng.random() < 0.5:
        fields["stream"] = True
    return Request(json.dumps(chat("a question of a few words\n" * rng.randrange(1, 3), **fields)).encode())


async def _call(gateway: Gateway, rng: random.Random, leaving: float) -> int:
    """One client; some leave before the answer, some within it, some never look at it. 1 where it was answered."""
    asking = asyncio.create_task(gateway.complete(_request(rng)))
    if rng.random() < leaving:
        for _ in range(rng.randrange(12)):
            await asyncio.sleep(0)
        asking.cancel()
    try:
        answer = await asking
    except asyncio.CancelledError:
        return 0
    except (UpstreamError, RequestError, LedgerError):  # LimitReached is one of them
        return 0
    try:
        most = rng.randrange(3) if rng.random() < leaving else 1 << 20
        with suppress(WindlassError):
            async for _ in answer.chunks:
                most -= 1
                if most < 0:
                    break
    finally:
        with suppress(WindlassError):
            await answer.chunks.aclose()
    return 1


def _used(limits: Limits, name: str) -> int:
    found = [count for count in limits.counts() if (count.place.limit, count.place.measure) == (name, "nusd")]
    assert all(count.held == 0 for count in limits.counts()), "something is held though nobody calls"
    return sum(count.used for count in found)


# --- a thousand at once


@pytest.mark.parametrize(("failing", "leaving"), [(0.0, 0.0), (0.3, 0.0), (0.0, 0.4), (0.2, 0.3)])
async def test_a_thousand_calls_at_once_never_exceed_a_dollar(tmp_path: Path, failing: float, leaving: float) -> None:
    rng = random.Random(7)
    provider = Fickle(rng, failing)
    rules = [
        {"name": "dollar", "usd": 1.0, "window": "day"},
        {"name": "each", "usd": 0.7, "window": "month", "per": "user"},
    ]
    options: dict[str, Any] = {"limits": rules, "gateway__keep_bodies": False, "gateway__reserved_tokens": 64}
    async with opened(tmp_path / "home", [provider], **options) as runtime:
        gateway, answered = runtime.gateway, 0
        watching = asyncio.create_task(_never_beyond(gateway.limits))
        answered += sum(await asyncio.gather(*(_call(gateway, rng, leaving) for _ in range(CALLS))))
        # One after the other, until nothing more fits.
        answered += sum([await _call(gateway, random.Random(number), 0.0) for number in range(CALLS // 4)])
        watching.cancel()
        with suppress(asyncio.CancelledError):
            await watching
        await _still(gateway.limits)
        with runtime.db.read() as connection:
            ledger = int(connection.scalar(sa.select(sa.func.sum(schema.outcomes.c.cost_nusd))) or 0)
            lost = sa.select(schema.spend.c.name, sa.func.sum(schema.spend.c.nusd)).group_by(schema.spend.c.name)
            rows = {name: int(nusd) for name, nusd in connection.execute(lost)}
        assert ledger == rows["dollar"] == rows["each"] == _used(gateway.limits, "dollar")
        assert _used(gateway.limits, "each") == ledger
        assert USD // 2 < ledger <= USD
        assert answered > 20
        assert provider.asked < CALLS, "most were refused before a byte went up"


async def _never_beyond(limits: Limits) -> None:
    while True:
        for count in limits.counts():
            assert count.used + count.held <= count.most, count
        await asyncio.sleep(0)


async def _still(limits: Limits) -> None:
    """Wait until what clients left behind is recorded."""
    async with asyncio.timeout(20):
        while any(count.held for count in limits.counts()):
            await asyncio.sleep(0.01)


# --- random histories


async def _history(seed: int) -> None:
    rng = random.Random(seed)
    ledger = Kept(rng, rng.choice((0.0, 0.0, 0.2)))
    provider = Fickle(rng, rng.choice((0.0, 0.3)), beyond=rng.choice((0.0, 0.1)))
    limits = Limits(
        [
            LimitOptions(name="all", usd=rng.choice((0.05, 0.5, 5.0)), window="day", requests=rng.choice((4, 100))),
            LimitOptions(name="each", usd=1.0, window="total", per="user", concurrent=4, tokens=5_000),
        ]
    )
    gateway = _gateway(provider, ledger, limits)
    for _ in range(rng.randrange(1, 4)):
        await asyncio.gather(*(_call(gateway, rng, rng.choice((0.0, 0.5))) for _ in range(rng.randrange(1, 6))))
    async with asyncio.timeout(20):
        while any(count.held for count in limits.counts()):
            await asyncio.sleep(0)
    await asyncio.sleep(0)
    recorded = sum(outcome.cost_nusd for outcome in ledger.outcomes)
    for name in ("all", "each"):
        rows = sum(one.nusd for one in ledger.spent if one.limit == name)
        assert rows == recorded, f"seed {seed}: {name} lost {rows}, the ledger says {recorded}"
        # What could not be recorded was paid all the same: it counts until a restart.
        assert _used(limits, name) == recorded + ledger.lost, f"seed {seed}: {name}"
        kept = sum(count.kept for count in limits.counts() if count.place.limit == name)
        assert kept == recorded, f"seed {seed}: {name}"


def test_in_any_history_the_three_sums_agree(request: pytest.FixtureRequest) -> None:
    async def every() -> None:
        for seed in range(HISTORIES_SOAK if request.config.getoption("--soak") else HISTORIES):
            await _history(seed)

    asyncio.run(every())


async def test_tools_are_held_for_as_well() -> None:
    """A short question with long tools costs what its tools cost."""
    limits = Limits([LimitOptions(name="small", usd=1.0, window="total")])
    provider = Fickle(random.Random(1))
    gateway = _gateway(provider, MemoryLedger(), limits)
    tool = {"type": "function", "function": {"name": "f", "description": "turn the drum " * 2_000, "parameters": {}}}
    await gateway.complete(Request(json.dumps(chat("Go", "one", max_tokens=1)).encode()))
    with pytest.raises(LimitReached, match="small"):
        await gateway.complete(Request(json.dumps(chat("Go", "one", max_tokens=1, tools=[tool])).encode()))
    assert provider.asked == 1
