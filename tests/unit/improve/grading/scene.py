"""What the tests of graders start from: a case by hand, a provider that answers by a function, a finished call."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from windlass.gateway.options import ModelOptions
from windlass.gateway.provider import ProviderReply, ProviderRequest
from windlass.gateway.providers.compose import completion
from windlass.gateway.transit import Request
from windlass.gateway.wire import Message
from windlass.improve.grading.grader import Case
from windlass.records import Call, Feedback, Scope
from windlass.runtime import Runtime


def case(reply: str, expected: Any = None, question: str = "What?", **fields: Any) -> Case:
    """A case without a ledger."""
    call = Call(id="call_01a3185c5000aaaaaaaaaaaaaaaaaaaa", at=1_800_000_000.0, endpoint="chat", model="m")
    given = {"messages": (Message("user", question),), **fields}
    return Case(call=call, question=question, reply=reply, expected=expected, **given)


class Says:
    """A provider of models that answer what a function makes of the request. usd: per million tokens, each way."""

    local = False

    def __init__(self, *models: str, by: Callable[[ProviderRequest], str], usd: float = 0.0, name: str = "says"):
        self.name = name
        self.models = tuple(
            ModelOptions(name=model, prompt_usd_per_million=usd, completion_usd_per_million=usd) for model in models
        )
        self.asked: list[ProviderRequest] = []
        self._by = by

    async def send(self, request: ProviderRequest) -> ProviderReply:
        self.asked.append(request)
        return completion(request, self._by(request), 0, tokens=(1000, 1000))

    async def close(self) -> None:
        """Nothing is held open."""


async def called(
    runtime: Runtime, text: str, *, scope: Scope | None = None, parent: str = "", model: str = "auto", **fields: Any
) -> str:
    """The id of a finished call that asked `text`."""
    body = {"model": model, "messages": [{"role": "user", "content": text}], **fields}
    answer = await runtime.gateway.complete(Request(msgspec.json.encode(body), scope=scope or Scope(), parent=parent))
    assert [chunk async for chunk in answer.chunks]
    return answer.transit.call.id


async def graded(runtime: Runtime) -> None:
    """Let the graders see all that is committed, their own feedback too."""
    assert runtime.grading is not None
    await runtime.grading.step()
    while await runtime.grading.step():
        pass


def ready(runtime: Runtime) -> None:
    """As the server's background does before its first look."""
    assert runtime.grading is not None
    runtime.grading.begin()


def grades(runtime: Runtime, metric: str, scope: Scope | None = None) -> list[Feedback]:
    """What a grader's feedback in the ledger is, oldest first."""
    return [said for said in runtime.ledger.feedback(scope or Scope(), limit=1000) if said.metric == metric][::-1]
