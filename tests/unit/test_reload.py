"""Other settings in force between two calls: what ends on the old ones, what goes on, and what changes nothing."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.golden.application import DONE, LAST, Scripted, chat, event, key, opened, settings

from windlass.errors import AccessError, ErrorCategory, LimitReached, SettingsError
from windlass.gateway.access.keys import VirtualKey
from windlass.gateway.gateway import Request
from windlass.gateway.options import ProviderOptions
from windlass.gateway.providers import upstreams
from windlass.gateway.resilience.breaker import Pass
from windlass.gateway.transit import Answer
from windlass.records import Scope
from windlass.runtime import Runtime
from windlass.settings import Settings

USAGE = b'"usage":{"prompt_tokens":1,"completion_tokens":1}'
REPLY = b'{"choices":[{"message":{"content":"x"},"finish_reason":"stop"}],%b}' % USAGE
PRICED = {"prompt_usd_per_million": 1_000.0, "completion_usd_per_million": 1_000.0}


class Closing(Scripted):
    """A provider that says whether it was closed."""

    shut = False

    async def close(self) -> None:
        self.shut = True


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[Closing]:
    """Every provider that settings led to, in order; each answers once, streams wait for `go` of theirs."""
    found: list[Closing] = []

    def make(options: ProviderOptions, _secret: str = "") -> Closing:
        if options.base_url.endswith("broken"):
            raise SettingsError(f"provider {options.name} cannot be made")
        script: tuple[Any, ...] = (REPLY,)
        kind = "application/json"
        if "stream" in options.base_url:
            script, kind = (event("a"), asyncio.Event(), event("b"), LAST, DONE), "text/event-stream"
        provider = Closing(*script, name=options.name, content_type=kind)
        provider.models = options.models  # type: ignore[assignment]
        found.append(provider)
        return provider

    monkeypatch.setattr(upstreams, "make", make)
    return found


def up(name: str = "up", model: str = "m", path: str = "v1", **more: Any) -> dict[str, Any]:
    return {"name": name, "base_url": f"http://127.0.0.1:1/{path}", "models": [{"name": model, **PRICED}], **more}


class World:
    """A runtime, and settings for it that differ in what is named."""

    def __init__(self, runtime: Runtime, home: Path, first: dict[str, Any]):
        self.runtime, self._home, self._first = runtime, home, first

    def settings(self, **changes: Any) -> Settings:
        return settings(self._home, **(self._first | changes))

    async def reload(self, **changes: Any) -> tuple[str, ...]:
        return await self.runtime.reload(self.settings(**changes))

    async def call(self, bearer: str = "", **fields: Any) -> Answer:
        body = Request(json.dumps(chat(**{"model": "m", **fields})).encode(), key=bearer)
        return await self.runtime.gateway.complete(body)

    async def answered(self, bearer: str = "", **fields: Any) -> bytes:
        return b"".join([chunk async for chunk in (await self.call(bearer, **fields)).chunks])


@asynccontextmanager
async def world(home: Path, **first: Any) -> AsyncIterator[World]:
    async with opened(
        home, upstreams=first["providers"], **{k: v for k, v in first.items() if k != "providers"}
    ) as runtime:
        yield World(runtime, home, first)


async def until(what: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not what():
            await asyncio.sleep(0.005)


async def test_what_did_not_change_goes_on_and_what_did_is_made_anew(tmp_path: Path, made: list[Closing]) -> None:
    first = [up("a", "m"), up("b", "n"), up("c", "o")]
    async with world(tmp_path, providers=first) as here:
        assert await here.reload(providers=[up("a", "m"), up("b", "n", "v2")]) == ("providers",)
        assert here.runtime.gateway.providers.names() == ("m", "n", "local/quotes-fast")
        assert here.runtime.gateway.providers.find("m")[0] is made[0]
        assert here.runtime.gateway.providers.find("n")[0] is made[3]
        await until(lambda: made[1].shut and made[2].shut)
        assert not made[0].shut
        assert await here.answered() == REPLY
        assert await here.reload(providers=[up("a", "m"), up("b", "n", "v2")]) == (), "nothing is nothing"
    assert all(one.shut for one in made)


async def test_a_stream_ends_on_the_parts_that_it_began_with(tmp_path: Path, made: list[Closing]) -> None:
    async with world(tmp_path, providers=[up(path="stream")]) as here:
        answer = await here.call(stream=True)
        chunks = answer.chunks
        begun = await anext(chunks)
        for path in ("v2", "v3", "v4"):  # nor do further reloads
            await here.reload(providers=[up(path=path)], gateway__keep_bodies=False)
            assert await here.answered() == REPLY
        await asyncio.sleep(0.02)
        assert not made[0].shut
        assert answer.transit.target.provider is made[0]
        made[0]._script[1].set()  # type: ignore[union-attr]
        rest = begun + b"".join([chunk async for chunk in chunks])
        assert rest == event("a") + event("b") + LAST + DONE
        assert answer.transit.outcome is not None
        assert answer.transit.outcome.error == ""
        assert answer.transit.outcome.cost_nusd > 0
        assert here.runtime.ledger.bodies(Scope(), answer.transit.call.id), "by the settings that it began with"
        del answer, chunks
        await until(lambda: all(one.shut for one in made[:3]))
        assert not made[3].shut


async def test_one_that_left_the_settings_serves_whoever_still_has_it(tmp_path: Path, made: list[Closing]) -> None:
    """`a` is shared by two gateways, and dropped by the third: a call of the first must find it open."""
    async with world(tmp_path, providers=[up("a", "m", "stream"), up("b", "n")]) as here:
        answer = await here.call(stream=True)
        chunks = answer.chunks
        await anext(chunks)
        await here.reload(providers=[up("a", "m", "stream"), up("b", "n", "v2")])
        await here.reload(providers=[up("b", "n", "v2")])
        await asyncio.sleep(0.02)
        assert not made[0].shut
        made[0]._script[1].set()  # type: ignore[union-attr]
        assert [chunk async for chunk in chunks][-1] == DONE
        del answer, chunks
        await until(lambda: made[0].shut)


async def test_who_stops_closes_what_still_waits(tmp_path: Path, made: list[Closing]) -> None:
    async with world(tmp_path, providers=[up(path="stream")]) as here:
        answer = await here.call(stream=True)
        await anext(answer.chunks)
        await here.reload(providers=[up(path="v2")])
        assert not made[0].shut
        await answer.chunks.aclose()
    assert made[0].shut


async def test_budgets_and_rates_go_on(tmp_path: Path, made: list[Closing]) -> None:
    """A call held against a limit is settled against the same one, be it lowered, gone and back meanwhile."""

    def limits(usd: float, **more: Any) -> list[dict[str, Any]]:
        return [{"name": "all", "usd": usd, "window": "total", **more}]

    async with world(tmp_path, providers=[up()], limits=limits(1.0, requests=3)) as here:
        await here.answered(max_tokens=1)
        waiting = here.settings(providers=[up(path="stream")], limits=limits(1.0, requests=3))
        await here.runtime.reload(waiting)
        answer = await here.call(stream=True, max_tokens=100)
        chunks = answer.chunks
        await anext(chunks)
        counts = {count.place.measure: count for count in here.runtime.gateway.limits.counts()}
        held = counts["nusd"].held
        assert counts["nusd"].used == 2_000_000
        assert held >= 100_000_000
        await here.reload(limits=limits(0.05, requests=3))
        with pytest.raises(LimitReached, match="budget of 0.05 USD"):
            await here.answered(max_tokens=1)
        await here.reload(limits=[])
        await here.answered(max_tokens=1)
        await here.reload(limits=limits(1.0, requests=3))
        assert counts["nusd"].held == held, "the same count"
        made[1]._script[1].set()  # type: ignore[union-attr]
        assert [chunk async for chunk in chunks][-1] == DONE
        assert answer.transit.outcome is not None
        assert counts["nusd"].held == 0
        assert counts["nusd"].used == 2_000_000 + answer.transit.outcome.cost_nusd
        await here.answered(max_tokens=1)
        with pytest.raises(LimitReached, match="request rate of 3"):
            await here.answered(max_tokens=1)
    async with opened(tmp_path, limits=limits(1.0)) as later:
        assert later.gateway.limits._spent[("all", "", 0)] == counts["nusd"].used, "a restart knows the same"


async def test_calls_side_by_side_never_overspend_across_reloads(tmp_path: Path, made: list[Closing]) -> None:
    def limits(usd: float) -> list[dict[str, Any]]:
        return [{"name": "all", "usd": usd, "window": "total"}]

    async with world(tmp_path, providers=[up()], limits=limits(0.04)) as here:

        async def one() -> int:
            try:
                await here.answered(max_tokens=1)
            except LimitReached:
                return 0
            return 1

        async def turning() -> None:
            for number in range(20):
                await here.reload(limits=limits(0.04), providers=[up(path=f"v{number}")])

        turns = asyncio.create_task(turning())
        let_in = 0
        for _ in range(12):
            let_in += sum(await asyncio.gather(*(one() for _ in range(5))))
        await turns
        (count,) = here.runtime.gateway.limits.counts()
        assert count.held == 0
        assert count.used == let_in * 2_000_000
        assert 0 < count.used <= 40_000_000


async def test_keys_follow_the_settings_and_virtual_ones_stay(tmp_path: Path, made: list[Closing]) -> None:
    async with world(tmp_path, providers=[up()], keys=[key("ann", "acme")]) as here:
        _, plain = here.runtime.keys.create(VirtualKey(id="", name="vera", tenant="acme"))
        assert await here.answered("secret-ann") == REPLY
        assert await here.reload(keys=[key("ben", "acme")]) == ("keys",)
        for bearer in ("secret-ben", plain):
            assert await here.answered(bearer) == REPLY
        with pytest.raises(AccessError):
            await here.answered("secret-ann")


async def test_a_key_that_goes_while_its_request_comes_in_is_refused(tmp_path: Path, made: list[Closing]) -> None:
    """Let in before its body was read; by the end of it the key is gone, or is not what it was."""
    first = [key("ann", "acme"), key("ben", "acme"), key("cat", "acme")]
    async with world(tmp_path, providers=[up()], keys=first) as here:
        let_in = {name: here.runtime.gateway.admission.identify(f"secret-{name}", "") for name in ("ann", "ben", "cat")}
        await here.reload(keys=[key("ann", "acme"), key("cat", "acme", role="viewer")])
        body = json.dumps(chat(model="m")).encode()
        answer = await here.runtime.gateway.complete(Request(body, caller=let_in["ann"]))
        assert b"".join([chunk async for chunk in answer.chunks]) == REPLY
        for name in ("ben", "cat"):
            with pytest.raises(AccessError, match=f"key '{name}' is no longer in the settings"):
                await here.runtime.gateway.complete(Request(body, caller=let_in[name]))


async def test_breakers_of_models_that_stay_the_same_go_on(tmp_path: Path, made: list[Closing]) -> None:
    first = [up("a", "m"), up("b", "n"), up("c", "o")]
    async with world(tmp_path, providers=first, resilience__breaker__failures=1) as here:
        old = here.runtime.gateway.resilience
        for one in (("a", "m"), ("b", "n"), ("c", "o")):
            old.breakers.failed(one, Pass.FREE, ErrorCategory.UPSTREAM_SERVER_ERROR)
        then = [up("a", "m", models=[*up("a", "m")["models"], {"name": "m2"}]), up("b", "n", "v2"), up("c", "o")]
        await here.reload(providers=then, resilience__breaker__open_cap_s=999.0)
        new = here.runtime.gateway.resilience
        assert new is not old
        assert new.options.breaker.open_cap_s == 999.0
        assert [(one.provider, one.state) for one in new.breakers.state()] == [("a", "open"), ("c", "open")]
        new.breakers.known["a", "m"].until = 0.0
        assert new.breakers.admit(("a", "m")) is Pass.PROBE
        await here.reload(providers=then, resilience__breaker__open_cap_s=998.0)
        new.breakers.answered(("a", "m"), Pass.PROBE)
        newest = here.runtime.gateway.resilience.breakers
        assert newest.admit(("a", "m")) is Pass.FREE, "a probe of a call under way ends here as well"
        await here.reload(providers=then, resilience__breaker__failures=0)
        assert here.runtime.gateway.resilience.breakers.state() == ()


async def test_prices_auto_and_the_rest_follow(tmp_path: Path, made: list[Closing]) -> None:
    async with world(tmp_path, providers=[up("a", "m"), up("b", "n")], gateway__auto=["m"]) as here:
        assert (await here.call(model="auto")).transit.model.name == "m"
        dear = up("a", "m", models=[{"name": "m", "prompt_usd_per_million": 5e6, "completion_usd_per_million": 0.0}])
        changed = await here.reload(
            providers=[dear, up("b", "n")], gateway__auto=["n"], ask__passages=3, storage__context_days=7
        )
        assert changed == ("ask.passages", "gateway.auto", "providers", "storage.context_days")
        assert (await here.call(model="auto")).transit.model.name == "n"
        outcome = (await here.call(model="m")).transit.outcome
        assert outcome is not None
        assert outcome.cost_nusd == 5_000_000_000 * outcome.prompt_tokens


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"cache": "elsewhere"}, "^cache: a running server cannot"),
        ({"server__port": 9_999, "limits": []}, "^server.port: a running"),
        ({"storage__durability": "full", "memory__embedder": "auto"}, "^memory.embedder, storage.durability: "),
        ({"storage__database_url": "postgresql://x/y"}, "^storage.database_url: "),
        ({"points": {"model": {"mode": "off"}}}, "^points.model.mode: "),
        ({"gateway__key_secret_env": "OTHER"}, "^gateway.key_secret_env: "),
        ({"gateway__auto": ["nobody"]}, "gateway.auto.*'nobody' is not configured"),
        ({"gateway__pass_through": "nobody"}, "there is no provider 'nobody'"),
        ({"providers": [up(models=[{"name": "m", "fallbacks": ["nobody"]}])]}, "fallbacks.*'nobody' is not"),
        ({"providers": [up("a"), up("b")]}, "two providers offer a model named 'm'"),
        ({"providers": [up(path="broken")]}, "provider up cannot be made"),
        ({"limits": [{"name": "all", "usd": float("inf")}]}, "usd of 'all' is inf"),
        ({"limits": [{"name": "all", "usd": float("nan")}]}, "usd"),
    ],
)
async def test_what_cannot_be_taken_over_changes_nothing(
    tmp_path: Path, made: list[Closing], changes: dict[str, Any], said: str
) -> None:
    limits = [{"name": "all", "requests": 5}]
    async with world(tmp_path, providers=[up()], limits=limits, keys=[key("ann", "acme")]) as here:
        before, gateway = here.runtime.settings, here.runtime.gateway
        with pytest.raises(SettingsError, match=said):
            await here.reload(**({"keys": []} | changes))
        assert (here.runtime.settings, here.runtime.gateway) == (before, gateway)
        assert await here.answered("secret-ann") == REPLY
        with pytest.raises(AccessError):
            await here.answered("")
        (count,) = here.runtime.gateway.limits.counts()
        assert (count.place.limit, count.used, count.most) == ("all", 1, 5)


async def test_an_idempotency_key_is_good_across_a_reload(tmp_path: Path, made: list[Closing]) -> None:
    async with world(tmp_path, providers=[up(path="stream")]) as here:
        body = json.dumps(chat(model="m", stream=True)).encode()
        request = Request(body, idempotency_key="k" * 20)
        first = await here.runtime.gateway.complete(request)
        chunks = first.chunks
        begun = await anext(chunks)
        await here.reload(providers=[up(path="v2")], gateway__idempotency_hours=1.0)
        again = asyncio.create_task(here.runtime.gateway.complete(request))
        await asyncio.sleep(0.02)
        assert not again.done()
        made[0]._script[1].set()  # type: ignore[union-attr]
        whole = begun + b"".join([chunk async for chunk in chunks])
        assert b"".join([chunk async for chunk in (await again).chunks]) == whole
        assert made[1].requests == []


async def test_reloads_side_by_side_are_one_after_the_other(tmp_path: Path, made: list[Closing]) -> None:
    async with world(tmp_path, providers=[up()]) as here:
        wanted = [here.settings(providers=[up(path=f"v{number}")]) for number in range(2, 6)]
        assert await asyncio.gather(*map(here.runtime.reload, wanted)) == [("providers",)] * 4
        assert await here.answered() == REPLY
        await until(lambda: sum(not one.shut for one in made) == 1)
