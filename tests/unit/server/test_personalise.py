"""What single users like, in a whole program: decisions name them by a number, and forgetting leaves none behind."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
from tests.golden.application import opened

from windlass.gateway.feedback import FeedbackRequest
from windlass.gateway.options import ModelOptions
from windlass.gateway.providers.echo import Echo
from windlass.gateway.transit import Request
from windlass.policies.lifts import USER
from windlass.policies.personal import Personal
from windlass.policies.personal_state import number_of
from windlass.policies.policy import guards_of
from windlass.records import Decision, Scope, user_digest
from windlass.runtime import Runtime
from windlass.watch.projections import LEARNER

JOINT = {"model": {"policy": "joint_thompson"}}


@asynccontextmanager
async def running(folder: Path, **more: Any) -> AsyncIterator[Runtime]:
    echo = Echo()
    echo.models = tuple(ModelOptions(name=name) for name in ("cheap", "dear"))
    values = {"points": JOINT, "routing__personalise": True} | more
    async with opened(folder, providers=(echo,), **values) as runtime:
        yield runtime


async def rated(runtime: Runtime, calls: int, user: str = "") -> Decision:
    """Calls of a user, each rated; the last decision."""
    for number in range(calls):
        body = {"model": "auto", "user": user, "messages": [{"role": "user", "content": f"question {number}"}]}
        answer = await runtime.gateway.complete(Request(json.dumps(body).encode()))
        async for _ in answer.chunks:
            pass
        await runtime.feedback(Scope(), FeedbackRequest(target=answer.transit.call.id, kind="rating", value=0.7))
    await runtime.caught_up()
    return answer.transit.decisions[0]


def guards(runtime: Runtime) -> list[Personal]:
    policy = runtime.loop._learned["default", "default", "model"]
    return [one for one in guards_of(policy) if isinstance(one, Personal)]


def guard(runtime: Runtime) -> Personal:
    (found,) = guards(runtime)
    return found


def stands_for(user: str) -> int:
    return number_of(user_digest(Scope(), user))


async def test_a_user_is_known_by_a_number_and_forgotten_everywhere(tmp_path: Path) -> None:
    ann, bob = stands_for("ann"), stands_for("bob")
    async with running(tmp_path) as runtime:
        made = await rated(runtime, 40)
        assert USER not in made.context
        # The first 30 rewards of each of two models are passed over.
        made = await rated(runtime, 35, "ann")
        assert made.context[USER] == float(ann)
        await rated(runtime, 35, "bob")
        assert guard(runtime).users == 2
        runtime.projections.keep("before")
        mark = msgspec.msgpack.encode(ann)
        assert mark in runtime.learner.state()
        await runtime.forget(Scope(), "ann", by="test")
        assert guard(runtime).users == 1
        assert bob in guard(runtime)._rows
        assert mark not in runtime.learner.state()
        snapshots = runtime.projections.snapshots()
        assert snapshots
        for bare in snapshots:
            kept = runtime.ledger.snapshot(LEARNER, type(runtime.learner).VERSION, cursor=bare.cursor)
            assert kept is not None
            assert mark not in kept.state
        assert all(USER not in one.context or one.context[USER] != ann for one in decisions(runtime))
        _, live, replayed = runtime.projections.replay()
        assert live == replayed
    async with running(tmp_path) as again:
        assert again.learner.digest() == live


def decisions(runtime: Runtime) -> list[Decision]:
    return list(runtime.ledger.decisions(Scope(), point="model", limit=200))


async def test_it_is_off_unless_it_is_asked_for(tmp_path: Path) -> None:
    async with running(tmp_path, routing__personalise=False) as runtime:
        made = await rated(runtime, 3, "ann")
        assert USER not in made.context
        assert guards(runtime) == []
