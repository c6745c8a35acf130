"""Budgets under the real call path: calls under way never hold more than there is, and each is settled once."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import AsyncGenerator
from types import ModuleType
from typing import Any

from tests.simulation.schedules import Schedule, Story
from tests.simulation.stand_ins import clock
from windlass.errors import LimitReached, UpstreamError
from windlass.gateway.access.admission import Admission
from windlass.gateway.money.pricelist import PriceBook
from windlass.gateway.options import GatewayOptions, LimitOptions, ModelOptions
from windlass.gateway.provider import JSON, ProviderReply, ProviderRequest, Providers
from windlass.gateway.resilience.resilience import Resilience, ResilienceOptions
from windlass.gateway.transit import Request
from windlass.ledger.ledger import Item, Spend
from windlass.policies.loop import Loop, PointOptions
from windlass.records import Outcome, Scope

ASKED = {"model": "m", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 10}
TOKEN_USD = 0.001
REPLY = (
    b'{"choices":[{"message":{"content":"hi"},"finish_reason":"stop"}],'
    b'"usage":{"prompt_tokens":2,"completion_tokens":4}}'
)
BUDGET_USD = 3 * 12 * TOKEN_USD
"""Room for three calls at once: a prompt of two bytes, and ten tokens of an answer."""


class _Ledger:
    """Commits after a while. lines: what was committed."""

    def __init__(self) -> None:
        self.items: list[Item] = []

    async def append(self, *items: Item) -> int:
        await asyncio.sleep(0.001)
        self.items += items
        return len(self.items)

    def keep(self, *items: Item) -> asyncio.Future[int]:
        return asyncio.ensure_future(self.append(*items))

    def sum(self, kind: type[Outcome] | type[Spend]) -> int:
        found: list[Any] = [item for item in self.items if isinstance(item, kind)]
        return sum(item.nusd if isinstance(item, Spend) else item.cost_nusd for item in found)


class _Provider:
    """Answers after a while, or fails. check: called while a call is under way."""

    name, local = "up", False

    def __init__(self, rng: random.Random, check: Any):
        per_million = TOKEN_USD * 1e6
        price = {"prompt_usd_per_million": per_million, "completion_usd_per_million": per_million}
        self.models = (ModelOptions(name="m", **price),)  # type: ignore[arg-type]
        self._rng, self._check = rng, check

    async def send(self, _request: ProviderRequest) -> ProviderReply:
        self._check()
        await asyncio.sleep(self._rng.choice((0.0, 0.001, 0.01)))
        if self._rng.random() < 0.2:
            raise UpstreamError("it is set to fail", status=None)
        return ProviderReply(200, JSON, self._chunks())

    async def close(self) -> None:
        """Nothing is held open."""

    async def _chunks(self) -> AsyncGenerator[bytes, None]:
        await asyncio.sleep(0.001)
        self._check()
        yield REPLY


def budgets(limits: ModuleType, gateway: ModuleType) -> Story:
    """Clients call at the same time, fail, and leave, against a budget that has room for three of them at once."""

    async def story(schedule: Schedule) -> None:
        rng, ledger, beyond = random.Random(schedule.seed), _Ledger(), set[str]()
        made = limits.Limits([LimitOptions(name="budget", usd=BUDGET_USD, window="total", concurrent=3)])

        def check() -> None:
            # Said at the end: what is raised on the call path is an answer to the client.
            beyond.update(count.place.measure for count in made.counts() if count.used + count.held > count.most)

        call = gateway.Gateway(
            admission=Admission((), 1 << 20),
            providers=Providers([_Provider(rng, check)]),
            loop=Loop({"model": PointOptions(mode="live", policy="fixed")}),
            ledger=ledger,
            options=GatewayOptions(keep_bodies=False),
            limits=made,
            prices=PriceBook(),
            resilience=Resilience(
                ResilienceOptions(attempts=1), clock=clock.time, monotonic=clock.monotonic, sleep=asyncio.sleep, rng=rng
            ),
            clock=clock.time,
        ).complete

        async def client() -> None:
            body = json.dumps(ASKED).encode()
            for _ in range(2):
                asking = asyncio.create_task(call(Request(body, scope=Scope(tenant="a", workspace="w"))))
                if rng.random() < 0.3:
                    asyncio.get_running_loop().call_later(rng.choice((0.0, 0.001, 0.01)), asking.cancel)
                try:
                    await asking
                except (LimitReached, UpstreamError, asyncio.CancelledError):
                    await asyncio.sleep(rng.choice((0.0, 0.005)))

        await asyncio.gather(*(client() for _ in range(5)))
        await asyncio.sleep(1.0)
        check()
        assert not beyond, f"more than there is: {sorted(beyond)}"
        held = {count.place.measure: count.held for count in made.counts() if count.held}
        assert not held, f"held for ever: {held}"
        used = sum(count.used for count in made.counts() if count.place.measure == "nusd")
        sums = {"ledger": ledger.sum(Outcome), "budget": ledger.sum(Spend), "limits": used}
        assert len(set(sums.values())) == 1, f"the sums differ: {sums}"

    return story
