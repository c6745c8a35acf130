"""What policies are told of a call, through the gateway: once a workspace has a basis, by the vector of its prompt."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import sqlalchemy as sa
from numpy.typing import NDArray
from tests.golden.application import resilience

from windlass.errors import EmbedderMissing, LimitReached, RequestError
from windlass.gateway.access.admission import Admission, Caller
from windlass.gateway.access.limits import Limits
from windlass.gateway.gateway import Answer, Gateway, Request
from windlass.gateway.money.pricelist import PriceBook
from windlass.gateway.options import GatewayOptions, KeyOptions, LimitOptions, ModelOptions
from windlass.gateway.provider import Providers
from windlass.gateway.providers.echo import Echo
from windlass.gateway.route.costs import Prompt
from windlass.gateway.route.objectives import Wish
from windlass.gateway.route.options import ObjectiveOptions, RoutingOptions
from windlass.gateway.route.router import Router, costed, wanted
from windlass.gateway.route.store import BasisTable, bases
from windlass.gateway.wire import parse_chat
from windlass.ledger.db import Database
from windlass.ledger.ledger import ALL
from windlass.ledger.memory import MemoryLedger
from windlass.policies.loop import Loop
from windlass.policies.points import PointOptions, ShadowOptions
from windlass.records import Decision, LedgerRecord, Scope

NOW = 1_800_057_600.0
PROMPTS = 64
JOINT = PointOptions(mode="live", policy="joint_thompson")
LINEAR = PointOptions(mode="live", policy="linear_thompson")
ACME = Caller(Scope("acme", "one"), "operator", "ann")
OTHER = Caller(Scope("other", "one"), "operator", "bob")
KEYS = tuple(
    KeyOptions(
        name=one.key, sha256=hashlib.sha256(one.key.encode()).hexdigest(), tenant=one.scope.tenant, workspaces=("one",)
    )
    for one in (ACME, OTHER)
)


class Hashing:
    """An embedder whose vectors are drawn by the digest of a text."""

    name, dimensions = "hashing", 384

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.open = asyncio.Event()
        self.open.set()
        self.fails = False

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        seeds = (int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest()) for text in texts)
        rows = np.stack([np.random.default_rng(seed).standard_normal(384) for seed in seeds])
        return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)

    async def aembed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        self.asked += texts
        await self.open.wait()
        if self.fails:
            raise EmbedderMissing("the weights are damaged")
        return self.embed(texts)


@dataclass
class Bench:
    """A gateway that routes, over `echo` models of which `dear` costs ten times as much as `cheap`."""

    gateway: Gateway
    router: Router
    ledger: MemoryLedger
    embedder: Hashing
    models: Mapping[str, ModelOptions] = field(default_factory=dict)

    async def ask(self, text: str, caller: Caller = ACME, model: str = "auto", **more: Any) -> Answer:
        body = {"model": model, "messages": [{"role": "user", "content": text}], **more.pop("body", {})}
        answer = await self.gateway.complete(Request(json.dumps(body).encode(), caller=caller, **more))
        async for _ in answer.chunks:
            pass
        return answer

    async def decision(self, text: str, caller: Caller = ACME, **more: Any) -> Decision:
        answer = await self.ask(text, caller, **more)
        return answer.transit.decisions[0]

    async def warm(self, caller: Caller = ACME) -> None:
        """Let a workspace see the prompts that its basis is made of."""
        for number in range(PROMPTS):
            await self.ask(f"prompt number {number}", caller)
            await asyncio.gather(*self.router._beside)
        await self.router.close()


@asynccontextmanager
async def bench(
    folder: Path,
    point: PointOptions = JOINT,
    options: RoutingOptions | None = None,
    limits: tuple[LimitOptions, ...] = (),
    embedder: Hashing | None = None,
    ledger: MemoryLedger | None = None,
) -> AsyncIterator[Bench]:
    embedder = embedder or Hashing()
    priced = [
        ModelOptions(name=name, prompt_usd_per_million=usd, completion_usd_per_million=usd)
        for name, usd in (("cheap", 1.0), ("dear", 10.0))
    ]
    echo = Echo()
    echo.models = (*priced, ModelOptions(name="unpriced"))
    loop, ledger, db = Loop({"model": point}), ledger or MemoryLedger(), Database(folder / "ledger.db")
    db.migrate()
    options = options or RoutingOptions(basis_prompts=PROMPTS)
    router = Router(
        options, loop, embedder=embedder, table=BasisTable(db), ledger=ledger, limits=lambda: limits, clock=lambda: NOW
    )
    gateway = Gateway(
        admission=Admission(KEYS, 1024 * 1024),
        providers=Providers([echo]),
        loop=loop,
        ledger=ledger,
        options=GatewayOptions(),
        limits=Limits(limits),
        prices=PriceBook(),
        resilience=resilience(),
        clock=lambda: NOW,
        router=router,
    )
    try:
        yield Bench(gateway, router, ledger, embedder)
    finally:
        embedder.open.set()
        await router.close()
        db.close()


def _recorded(ledger: MemoryLedger) -> list[LedgerRecord]:
    return [entry.record for entry in ledger.read(ALL, limit=10_000)]


_PROMPT = Prompt(1, (), None, 1)


def test_there_is_a_router_where_a_policy_asks_for_one() -> None:
    shadowed = PointOptions(mode="live", shadows=(ShadowOptions(name="joint", policy="joint_thompson"),))
    assert costed(Loop({"model": JOINT}))
    assert costed(Loop({"model": shadowed}))
    assert not costed(Loop({"model": LINEAR, "answer": JOINT}))
    assert wanted(RoutingOptions(embedding="always"), Loop({"model": LINEAR}))
    assert not wanted(RoutingOptions(), Loop({"model": LINEAR}))


async def test_until_there_is_a_basis_calls_wait_for_nothing_and_say_why(tmp_path: Path) -> None:
    async with bench(tmp_path) as b:
        b.embedder.open.clear()
        decision = await b.decision("Why does it turn?")
        assert "embedding" not in decision.context
        assert decision.featuriser == "lexical@1"
        assert decision.fallback == ""
        assert "0 of 64 prompts seen that embeddings need" in decision.extra["why"]


async def test_with_a_basis_the_context_holds_the_prompts_numbers_and_names_the_basis(tmp_path: Path) -> None:
    async with bench(tmp_path) as b:
        await b.warm()
        b.embedder.asked.clear()
        answer = await b.ask("Why does it turn?")
        decision = answer.transit.decisions[0]
        made = await b.router.bases.of(ACME.scope)
        assert made is not None
        assert decision.featuriser == f"embedding64@{made.digest}"
        numbers = decision.context["embedding"]
        assert isinstance(numbers, tuple)
        assert numbers == made.numbers(b.embedder.embed(["Why does it turn?"])[0])
        assert len(numbers) == 64
        assert "routed on lexical" not in decision.extra["why"]
        assert answer.transit.seen is not None
        assert answer.transit.seen.vector is not None
        await b.ask("Why does it turn?")
        assert b.embedder.asked == ["Why does it turn?"], "a prompt is embedded once"


async def test_a_basis_is_kept_and_another_process_goes_on_with_it(tmp_path: Path) -> None:
    async with bench(tmp_path) as b:
        await b.warm()
        before = await b.decision("Why does it turn?")
    async with bench(tmp_path) as b:
        after = await b.decision("Why does it turn?")
    assert after.featuriser == before.featuriser
    assert after.context["embedding"] == before.context["embedding"]


async def test_each_tenant_has_a_basis_of_its_own(tmp_path: Path) -> None:
    async with bench(tmp_path) as b:
        await b.warm()
        assert "embedding" not in (await b.decision("Why?", OTHER)).context
        for number in range(PROMPTS):
            await b.ask(f"another prompt {number}", OTHER)
            await asyncio.gather(*b.router._beside)
        await b.router.close()
        mine, theirs = await b.decision("Why?"), await b.decision("Why?", OTHER)
    assert mine.featuriser != theirs.featuriser


async def test_the_same_prompt_again_makes_no_basis(tmp_path: Path) -> None:
    async with bench(tmp_path) as b:
        for _ in range(2 * PROMPTS):
            await b.ask("always the same")
        await b.router.close()
        assert b.router.bases.seen(ACME.scope) == 1
        assert await b.router.bases.of(ACME.scope) is None


async def test_a_vector_that_is_late_costs_the_call_its_time_limit_and_the_decision_says_so(tmp_path: Path) -> None:
    options = RoutingOptions(basis_prompts=PROMPTS, embedding_timeout_ms=5.0)
    async with bench(tmp_path, options=options) as b:
        await b.warm()
        b.embedder.open.clear()
        answer = await b.ask("a new prompt")
        decision = answer.transit.decisions[0]
        assert "embedding" not in decision.context
        assert decision.featuriser == "lexical@1"
        assert "no embedding within 5 ms" in decision.fallback
        assert "no embedding within 5 ms" in answer.headers["x-windlass-why"]
        named = await b.decision("another new prompt", model="cheap")
        assert named.fallback == "", "nothing was to be chosen, so nothing was missed"
        b.embedder.open.set()
        await b.router.vectors.close()
        assert "embedding" in (await b.decision("a new prompt")).context


async def test_an_embedder_that_fails_or_is_not_there_costs_no_call(tmp_path: Path) -> None:
    async with bench(tmp_path) as b:
        await b.warm()
        b.embedder.fails = True
        assert "the weights are damaged" in (await b.decision("new")).fallback
    off = RoutingOptions(basis_prompts=PROMPTS, embedding="off")
    async with bench(tmp_path, options=off) as b:
        decision = await b.decision("new")
        assert decision.fallback == ""
        assert "no embedder" in decision.extra["why"]
        assert b.embedder.asked == []


@pytest.mark.parametrize("content", ["", "   \n", None, [{"type": "image_url", "image_url": {"url": "x"}}]])
async def test_a_prompt_without_words_is_routed_all_the_same(tmp_path: Path, content: Any) -> None:
    async with bench(tmp_path) as b:
        body = {"messages": [{"role": "user", "content": content}]}
        assert (await b.ask("", body=body)).status in (200, 500)
        assert b.embedder.asked == []


async def test_costs_are_told_of_models_with_a_price(tmp_path: Path) -> None:
    async with bench(tmp_path) as b:
        decision = await b.decision("Why does it turn?")
        cheap, dear = (decision.context[f"cost_nusd:{name}"] for name in ("cheap", "dear"))
        assert isinstance(cheap, float)
        assert isinstance(dear, float)
        assert dear == pytest.approx(10 * cheap)
        assert "cost_nusd:unpriced" not in decision.context
        assert "allowance_nusd" not in decision.context
        bounded = await b.decision("Why does it turn?", body={"max_tokens": 1})
        assert bounded.context["cost_nusd:cheap"] < cheap


async def test_a_policy_that_learns_no_costs_is_told_none(tmp_path: Path) -> None:
    always = RoutingOptions(basis_prompts=PROMPTS, embedding="always")
    async with bench(tmp_path, LINEAR, always) as b:
        await b.warm()
        context = (await b.decision("Why does it turn?")).context
        assert "embedding" in context
        assert not [name for name in context if "nusd" in name]


async def test_a_budget_comes_as_an_allowance(tmp_path: Path) -> None:
    daily = LimitOptions(name="daily", tenant="acme", usd=1.0, window="day")
    async with bench(tmp_path, limits=(daily,)) as b:
        await b.ask("the first call opens the window")
        b.router._pace._found.drop((ACME.scope, "", "ann", ""))
        allowed = (await b.decision("the second")).context["allowance_nusd"]
        assert isinstance(allowed, float)
        assert 0.0 < allowed < 1e9
        assert "allowance_nusd" not in (await b.decision("x", OTHER)).context


async def test_objectives_reach_the_policy_and_change_what_it_would_do(tmp_path: Path) -> None:
    options = RoutingOptions(basis_prompts=PROMPTS, objectives=(ObjectiveOptions(tenant="acme", objective="best"),))
    async with bench(tmp_path, options=options) as b:
        plain = await b.decision("Why?")
        asked = await b.decision("Why?", wish=Wish("cheapest", 90.0))
        assert plain.context["objective:best"] == 1.0
        assert asked.context["objective:cheapest"] == 1.0
        assert asked.context["objective:quality_percent"] == 90.0
        assert "objective:best" not in asked.context


async def test_looking_leaves_no_trace(tmp_path: Path) -> None:
    async with bench(tmp_path) as b:
        chat = b.gateway._read(Request(b'{"model":"auto","messages":[{"role":"user","content":"Why?"}]}'))
        assert not isinstance(chat, bytes)
        question = b.gateway.question(Request(b"", caller=ACME), chat, ACME, looks=True)  # type: ignore[arg-type]
        seen = await b.router.seen(question)
        assert "cost_nusd:cheap" in seen.context
        assert b.embedder.asked == []
        assert b.router.bases.seen(ACME.scope) == 0


async def test_somebody_is_forgotten_and_so_are_the_vectors_of_the_workspace(tmp_path: Path) -> None:
    async with bench(tmp_path) as b:
        await b.warm()
        await b.ask("Why does it turn?")
        b.router.forget(ACME.scope)
        assert b.router.vectors.known(ACME.scope, "Why does it turn?").vector is None
        assert "embedding" in (await b.decision("Why does it turn?")).context, "the basis of all of them stays"


async def test_a_key_that_may_not_use_a_model_is_refused_before_its_prompt_is_read(tmp_path: Path) -> None:
    async with bench(tmp_path) as b:
        await b.warm()
        b.embedder.asked.clear()
        narrow = msgspec.structs.replace(ACME, endpoints=("embeddings",))
        with pytest.raises(Exception, match="may not use model"):
            await b.ask("secret words", narrow)
        assert b.embedder.asked == []
        with pytest.raises(RequestError, match="messages is empty"):
            await b.ask("", body={"messages": []})


async def test_streams_and_other_dialects_are_routed_alike(tmp_path: Path) -> None:
    async with bench(tmp_path) as b:
        await b.warm()
        plain = await b.decision("Why does it turn?")
        stream = await b.decision("Why does it turn?", body={"stream": True})
        messages = await b.decision("Why does it turn?", endpoint="messages", body={"max_tokens": 100})
        for other in (stream, messages):
            assert other.context["embedding"] == plain.context["embedding"]
            assert "cost_nusd:cheap" in other.context
    kept = [record for record in _recorded(b.ledger) if isinstance(record, Decision)]
    assert kept[-1].context == messages.context


async def test_the_length_of_answers_goes_on_after_a_restart(tmp_path: Path) -> None:
    async with bench(tmp_path) as b:
        for number in range(20):
            await b.ask("word " * number)
        before = await b.decision("Why does it turn?")
        ledger = b.ledger
    async with bench(tmp_path, ledger=ledger) as b:
        after = await b.decision("Why does it turn?")
        known = [b.router.costs.completion_tokens(ACME.scope, ("echo", "cheap"), prompt) for prompt in (_PROMPT,)]
    assert known != [256.0]
    assert after.context["cost_nusd:cheap"] != before.context["cost_nusd:cheap"], "one more answer is known by then"


async def test_another_workers_basis_is_found(tmp_path: Path) -> None:
    async with bench(tmp_path) as late:
        assert "embedding" not in (await late.decision("Why?")).context
        async with bench(tmp_path) as first:
            await first.warm()
            made = await first.router.bases.of(ACME.scope)
        late.router.bases._looked.drop(ACME.scope)
        assert made is not None
        assert (await late.decision("Why?")).featuriser == made.featuriser


async def test_where_the_point_is_off_no_prompt_is_embedded(tmp_path: Path) -> None:
    async with bench(tmp_path, PointOptions(mode="off", policy="joint_thompson")) as b:
        decision = await b.decision("Why does it turn?")
        await b.router.close()
        assert (decision.policy, decision.featuriser) == ("default@1", "lexical@1")
        assert b.embedder.asked == []


async def test_a_basis_that_is_damaged_fails_no_call(tmp_path: Path) -> None:
    async with bench(tmp_path) as b:
        await b.warm()
    db = Database(tmp_path / "ledger.db")
    with db.write() as connection:
        connection.execute(sa.update(bases).values(data=b"damaged"))
    db.close()
    async with bench(tmp_path) as b:
        assert "the basis cannot be read: not a basis" in (await b.decision("Why?")).fallback


async def test_calls_that_are_refused_make_no_budget_smaller(tmp_path: Path) -> None:
    daily = LimitOptions(name="daily", usd=1.0, window="day")
    rate = LimitOptions(name="rate", tenant="acme", requests=3, window="minute")
    async with bench(tmp_path, limits=(daily, rate)) as b:
        await b.ask("the first call opens the window")
        b.router._pace._found.drop((ACME.scope, "", "ann", ""))

        async def allowed() -> float:
            chat = parse_chat(b'{"model":"auto","messages":[{"role":"user","content":"Why?"}]}')
            question = b.gateway.question(Request(b"", caller=OTHER), chat, OTHER, looks=True)
            told = (await b.router.seen(question)).context["allowance_nusd"]
            assert isinstance(told, float)
            return told

        await b.ask("the second is counted")
        before = await allowed()
        await b.ask("and so is the third")
        after = await allowed()
        assert after < 0.75 * before
        for _ in range(50):
            with pytest.raises(LimitReached):
                await b.ask("one too many")
        assert await allowed() == after


async def test_a_prompt_under_way_while_somebody_is_forgotten_is_not_collected(tmp_path: Path) -> None:
    async with bench(tmp_path) as b:
        b.embedder.open.clear()
        await b.ask("secret words")
        await asyncio.sleep(0)
        assert b.embedder.asked == ["secret words"]
        b.router.forget(ACME.scope)
        b.embedder.open.set()
        await asyncio.gather(*b.router._beside)
        assert b.router.bases.seen(ACME.scope) == 0
        assert b.router.vectors.known(ACME.scope, "secret words").vector is None
        await b.ask("later words")
        await asyncio.gather(*b.router._beside)
        assert b.router.bases.seen(ACME.scope) == 1


async def test_workspaces_beyond_those_that_are_held_are_looked_up_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("windlass.gateway.route.bases.MOST_SCOPES", 1)
    async with bench(tmp_path) as b:
        await b.warm()
        before = await b.decision("Why?")
        await b.warm(OTHER)
        for caller in (ACME, OTHER):
            b.router.bases.note(caller.scope, b"digest", b.embedder.embed(["x"])[0])
        held = (b.router.bases._made, b.router.bases._looked, b.router.bases._first)
        assert [len(one) for one in held] == [1, 1, 1]
        assert (await b.decision("Why?")).featuriser == before.featuriser
