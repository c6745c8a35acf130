"""Vectors of prompts: computed once, never waited for too long, apart for each workspace."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import numpy as np
import pytest
from numpy.typing import NDArray

from windlass.errors import EmbedderMissing
from windlass.gateway.route import vectors
from windlass.gateway.route.vectors import PromptVectors
from windlass.records import Scope

ACME, OTHER = Scope("acme", "one"), Scope("other", "one")


class Counting:
    """An embedder that says what it was asked, and answers when it is let."""

    name, dimensions = "counting", 4

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.open = asyncio.Event()
        self.open.set()
        self.fails = False

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        return np.full((len(texts), 4), len(texts[0]), np.float32)

    async def aembed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        self.asked += texts
        await self.open.wait()
        if self.fails:
            raise EmbedderMissing("the weights are damaged")
        return self.embed(texts)


async def test_a_prompt_is_embedded_once_and_known_from_then_on() -> None:
    embedder = Counting()
    kept = PromptVectors(embedder)
    assert kept.known(ACME, "why").vector is None
    first = await kept.find(ACME, "why", 1.0)
    again = await kept.find(ACME, "why", 1.0)
    assert first.vector is not None
    assert first.vector.tolist() == [3.0] * 4
    assert again.vector is first.vector
    assert kept.known(ACME, "why").vector is first.vector
    assert embedder.asked == ["why"]


async def test_calls_at_once_share_one_computation() -> None:
    embedder = Counting()
    embedder.open.clear()
    kept = PromptVectors(embedder)
    waiting = [asyncio.create_task(kept.find(ACME, "why", 5.0)) for _ in range(5)]
    await asyncio.sleep(0)
    embedder.open.set()
    found = await asyncio.gather(*waiting)
    assert embedder.asked == ["why"]
    assert all(one.vector is found[0].vector is not None for one in found)


async def test_a_call_goes_on_without_a_vector_that_is_late_and_the_next_one_has_it() -> None:
    embedder = Counting()
    embedder.open.clear()
    kept = PromptVectors(embedder)
    late = await kept.find(ACME, "why", 0.01)
    assert late.vector is None
    assert late.missing == "no embedding within 10 ms"
    embedder.open.set()
    await kept.close()
    assert kept.known(ACME, "why").vector is not None


async def test_what_one_workspace_asked_is_not_known_to_another() -> None:
    embedder = Counting()
    kept = PromptVectors(embedder)
    await kept.find(ACME, "secret", 1.0)
    assert kept.known(OTHER, "secret").vector is None


async def test_no_more_is_kept_than_there_is_room_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vectors, "KEPT_VECTORS", 2)
    kept = PromptVectors(Counting())
    for text in ("a", "b", "c"):
        await kept.find(ACME, text, 1.0)
    assert [kept.known(ACME, text).vector is not None for text in ("a", "b", "c")] == [False, True, True]


async def test_a_crowd_of_new_prompts_does_not_queue_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vectors, "UNDER_WAY", 2)
    embedder = Counting()
    embedder.open.clear()
    kept = PromptVectors(embedder)
    waiting = [asyncio.create_task(kept.find(ACME, text, 5.0)) for text in ("a", "b")]
    await asyncio.sleep(0)
    third = await kept.find(ACME, "c", 5.0)
    assert third.missing == "the embedder is busy with 2 other prompts"
    embedder.open.set()
    await asyncio.gather(*waiting)
    assert (await kept.find(ACME, "c", 1.0)).vector is not None


async def test_one_workspace_leaves_the_embedder_to_others() -> None:
    embedder = Counting()
    embedder.open.clear()
    kept = PromptVectors(embedder)
    texts = [f"prompt {number}" for number in range(vectors.OF_ONE_SCOPE)]
    waiting = [asyncio.create_task(kept.find(ACME, text, 5.0)) for text in texts]
    await asyncio.sleep(0)
    beyond = await kept.find(ACME, "one more", 5.0)
    assert beyond.missing == f"the embedder is busy with {vectors.OF_ONE_SCOPE} prompts of this workspace"
    waiting.append(asyncio.create_task(kept.find(OTHER, "one more", 5.0)))
    await asyncio.sleep(0)
    embedder.open.set()
    assert all(one.vector is not None for one in await asyncio.gather(*waiting))


async def test_an_embedder_that_fails_costs_no_call_and_is_tried_again() -> None:
    embedder = Counting()
    embedder.fails = True
    kept = PromptVectors(embedder)
    assert (await kept.find(ACME, "why", 1.0)).missing == "the embedder failed: the weights are damaged"
    embedder.fails = False
    assert (await kept.find(ACME, "why", 1.0)).vector is not None


async def test_what_an_embedder_raises_is_its_own_and_fails_no_call(monkeypatch: pytest.MonkeyPatch) -> None:
    embedder = Counting()

    def broken(_texts: Sequence[str]) -> NDArray[np.float32]:
        raise ZeroDivisionError("x" * 10_000)

    monkeypatch.setattr(embedder, "embed", broken)
    assert (await PromptVectors(embedder).find(ACME, "why", 1.0)).missing == "the embedder failed: ZeroDivisionError"


async def test_without_an_embedder_it_says_so() -> None:
    assert (await PromptVectors(None).find(ACME, "why", 1.0)).missing == "no embedder"


async def test_a_workspace_whose_user_is_forgotten_is_let_go() -> None:
    kept = PromptVectors(Counting())
    await kept.find(ACME, "why", 1.0)
    await kept.find(OTHER, "why", 1.0)
    kept.forget(ACME)
    assert kept.known(ACME, "why").vector is None
    assert kept.known(OTHER, "why").vector is not None


@pytest.mark.parametrize("scope", [ACME, OTHER])
async def test_what_is_being_computed_while_somebody_is_forgotten_is_answered_but_not_kept(scope: Scope) -> None:
    embedder = Counting()
    embedder.open.clear()
    kept = PromptVectors(embedder)
    waiting = asyncio.create_task(kept.find(ACME, "why", 5.0))
    await asyncio.sleep(0)
    kept.forget(scope)
    embedder.open.set()
    assert (await waiting).vector is not None
    assert (kept.known(ACME, "why").vector is None) == (scope == ACME)
    assert (await kept.find(ACME, "why", 1.0)).vector is not None
    assert kept.known(ACME, "why").vector is not None, "what comes afterwards is kept"


async def test_a_call_that_came_before_somebody_was_forgotten_leaves_no_vector() -> None:
    kept = PromptVectors(Counting())
    came = kept.generations.of(ACME)
    kept.forget(ACME)
    assert (await kept.find(ACME, "why", 1.0, came)).vector is not None
    assert kept.known(ACME, "why").vector is None


async def test_half_a_surrogate_pair_is_a_prompt_like_any_other() -> None:
    assert (await PromptVectors(Counting()).find(ACME, "\ud800", 1.0)).vector is not None
