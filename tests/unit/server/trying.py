"""An application with two models and an experiment between them: what the tests of experiments start from."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from tests.golden.application import Client, chat, key

from windlass.runtime import Runtime
from windlass.server.app import Windlass

KEYS = [
    key("view", "acme", role="viewer"),
    key("op", "acme"),
    key("boss", "acme", role="approver"),
    key("far", "other", role="admin"),
]
POINT: dict[str, Any] = {
    "points__model__mode": "live",
    "points__model__policy": "fixed",
    "points__model__options": {"action": "a"},
    "points__model__randomised_share": 0.0,
    "points__model__shadows": [{"name": "bold", "policy": "fixed", "options": {"action": "b"}}],
}


def plan(**changes: Any) -> dict[str, Any]:
    """The plan of an experiment whose first stage decides, after ten to a variant at the latest."""
    variants = [{"name": "old", "share": 0.5}, {"name": "new", "share": 0.5, "action": "b"}]
    return {"name": "newer", "variants": variants, "size": 10, "ramp": [1.0], "guardrails": []} | changes


def client(runtime: Runtime, name: str) -> Client:
    """Who has that key."""
    return Client(Windlass(runtime, token="folder-token"), bearer=f"secret-{name}")


async def called(one: Client, words: Iterable[str], worth: dict[str, float]) -> list[str]:
    """One call for each word, with feedback by the model that answered; who answered."""
    answered = []
    for word in words:
        sent = await one.post("/v1/chat/completions", chat(word, model="auto"))
        model = sent.headers["x-windlass-model"]
        said = {"target": sent.headers["x-windlass-call"], "kind": "rating", "value": worth[model]}
        assert (await one.post("/v1/feedback", said)).status == 200
        answered.append(model)
    return answered
