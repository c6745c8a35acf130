"""Calls whose model was chosen, with what came of them, as the ledger holds them: four topics in turn."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import numpy as np
from tests.golden.application import NOW, chat

from windlass.gateway.options import ModelOptions
from windlass.gateway.providers.echo import Echo
from windlass.ledger.ledger import Body
from windlass.records import Call, Decision, Feedback, Outcome, Scope
from windlass.runtime import Runtime

HERE = Scope()
TOPICS = ("winch", "tax", "poem", "proof")
ACTIONS = ("cheap", "dear")
BASIS = "embedding64@0123456789abcdef"


def priced() -> Echo:
    echo = Echo()
    echo.models = tuple(ModelOptions(name=name, prompt_usd_per_million=1.0) for name in ACTIONS)
    return echo


def numbers(topic: int, rng: np.random.Generator) -> tuple[float, ...]:
    center = np.zeros(64)
    center[topic] = 1.0
    return tuple((center + 0.02 * rng.standard_normal(64)).tolist())


async def routed(
    runtime: Runtime,
    calls: int,
    *,
    scope: Scope = HERE,
    topics: Sequence[str] = TOPICS,
    user: str = "",
    bodies: bool = True,
    featuriser: str = BASIS,
    first: int = 0,
) -> None:
    """So many calls, their topics in turn: `dear` is good at all of them, `cheap` at the first two."""
    rng = np.random.default_rng(first + 1)
    for number in range(first, first + calls):
        topic = number % len(topics)
        action = ACTIONS[(number // len(topics)) % 2]
        at = NOW - 1_000.0 + number
        ident = f"{round(at * 1_000):012x}{number:020x}"
        own = {"tenant": scope.tenant, "workspace": scope.workspace, "at": at}
        context = {"embedding": numbers(topic, rng), "digits": float(topic == 1), "cost_nusd:cheap": 100.0}
        call = Call(id=f"call_{ident}", endpoint="chat", model="auto", user=user, **own)
        await runtime.ledger.append(
            call,
            Decision(
                id=f"decision_{ident}-model",
                call=call.id,
                point="model",
                policy="joint_thompson@1",
                actions=ACTIONS,
                action=action,
                propensity=0.5,
                live=True,
                context=context,
                featuriser=featuriser,
                extra={"why": "cheap 0.90 +- 0.10 at 1e-06 USD; 0.01 of quality may cost 0.001 USD"},
                **own,
            ),
            Outcome(
                id=f"outcome_{ident}",
                call=call.id,
                model=action,
                provider="echo",
                status=200,
                latency_ms=1.0,
                first_byte_ms=1.0,
                prompt_tokens=1,
                completion_tokens=1,
                cost_nusd=1_000 if action == "cheap" else 50_000,
                **own,
            ),
            Feedback(
                id=f"feedback_{ident}",
                target=call.id,
                kind="rating",
                source="user",
                value=0.9 if action == "dear" or topic < 2 else 0.2,
                **own,
            ),
        )
        if bodies:
            data = msgspec.json.encode(chat(f"{topics[topic]} number {number}\n\x1b[31m<b>?", "auto"))
            kept = Body(
                id=f"{call.id}-request", call=call.id, role="request", data=data, user=user, expires_at=NOW + 1e6, **own
            )
            await runtime.ledger.append(kept)
