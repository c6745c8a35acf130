"""Wherever a stream breaks and wherever its bytes are cut: no word is lost, none comes twice, and every sum agrees."""

from __future__ import annotations

import asyncio
import json
import random
import time
from itertools import pairwise
from typing import Any

from hypothesis import example, given
from hypothesis import strategies as st
from tests.golden.application import DONE, Scripted, chat, streaming

from windlass.errors import ErrorCategory, UpstreamError
from windlass.gateway.access.admission import Admission
from windlass.gateway.access.limits import Limits
from windlass.gateway.gateway import Gateway, Request
from windlass.gateway.money.pricelist import PriceBook
from windlass.gateway.money.usage import Usage
from windlass.gateway.options import GatewayOptions, LimitOptions, ModelOptions
from windlass.gateway.provider import ProviderReply, ProviderRequest, Providers
from windlass.gateway.resilience.breaker import BreakerOptions
from windlass.gateway.resilience.resilience import Resilience, ResilienceOptions
from windlass.gateway.splice import LEAST_REPEATED, MOST_REPEATED, Heard, Joint, repeated, restored
from windlass.ledger.ledger import ALL
from windlass.ledger.memory import MemoryLedger
from windlass.policies.loop import Loop, PointOptions
from windlass.records import Outcome

NOW = 1_800_000_000.0
WORDS = st.sampled_from(
    ["A pawl", " lets", " the", " the ", "drum", "\n", "\n\n", "d\u00f6", "\u65e5\u672c", "\U0001f6a2"]
)
TEXTS = st.one_of(st.lists(WORDS, max_size=40).map("".join), st.text(st.characters(codec="utf-8"), max_size=60))
CUTS = st.lists(st.integers(0, 4_000), max_size=30)
STORIES = 150


def _chunk(choice: dict[str, Any] | None, number: int, escaped: bool = False, **more: Any) -> bytes:
    said = {"id": f"chatcmpl-{number}", "created": number, "model": f"m{number}", "choices": [choice] if choice else []}
    return b"data: " + json.dumps({**said, **more}, ensure_ascii=escaped).encode() + b"\n\n"


def _stream(text: str, number: int, parts: list[int], *, whole: bool, escaped: bool = False) -> bytes:
    """The bytes of a stream that says `text` in deltas with borders at `parts`."""
    told = [_chunk({"index": 0, "delta": {"role": "assistant", "content": ""}}, number)]
    told += [_chunk({"index": 0, "delta": {"content": one}}, number, escaped) for one in _parts(text, parts)]
    if whole:
        told += [_chunk({"index": 0, "delta": {}, "finish_reason": "stop"}, number), DONE]
    return b"".join(told)


def _parts(data: Any, cuts: list[int]) -> list[Any]:
    """`data` in pieces, with borders at `cuts` where it has such places; no piece is empty."""
    borders = sorted({0, len(data), *(at % len(data) for at in cuts if len(data))})
    return [data[at:to] for at, to in pairwise(borders)]


def _text(data: bytes) -> str:
    """What a client reads of these events, all of which must be whole."""
    told = []
    for event in data.split(b"\n\n"):
        if event and event != b"data: [DONE]":
            told += [choice["delta"].get("content") or "" for choice in json.loads(event[6:])["choices"]]
    return "".join(told)


def _joined(heard: Heard, rest: bytes, cuts: list[int], text: str) -> tuple[bytes, Joint]:
    joint = Joint(heard.head, Usage(), repeated(text), counts=False)
    return b"".join([joint.feed(part) for part in _parts(rest, cuts)]) + joint.end(), joint


@given(TEXTS, TEXTS, st.integers(0, 4_000), CUTS, CUTS, CUTS, st.integers(0, 300), st.booleans())
@example("A pawl lets the drum ", "turn", 10_000, [3], [], [], 21, False)
def test_two_streams_read_as_one(
    first: str, rest: str, cut: int, deltas: list[int], cuts: list[int], others: list[int], again: int, escaped: bool
) -> None:
    data = _stream(first, 1, deltas, whole=False, escaped=escaped)
    data = data[: cut % (len(data) + 1)]
    heard = Heard()
    out = b"".join([heard.feed(part) for part in _parts(data, cuts)])
    assert out + heard.failure + heard.rest == data
    assert not heard.failure
    text = _text(out)
    assert first.startswith(text)
    assert heard.tally.text == text
    assert heard.cut == bool(text.strip())
    if not heard.cut:
        return
    said = text[-again:] + rest if again else rest
    written, joint = _joined(heard, _stream(said, 2, deltas, whole=True, escaped=escaped), others, text)
    assert written == _joined(heard, _stream(said, 2, deltas, whole=True, escaped=escaped), [], text)[0]
    assert written.count(DONE) == 1
    assert written.count(b'"finish_reason":"stop"') == 1
    got = _text(written)
    assert said.endswith(got)
    assert joint.dropped == len(said) - len(got)
    assert text.endswith(said[: joint.dropped])
    assert joint.dropped == 0 or joint.dropped >= min(LEAST_REPEATED, len(text))
    if min(LEAST_REPEATED, len(text)) <= again <= MOST_REPEATED:
        assert joint.dropped >= min(again, len(text)), "what was said again is not said twice"


@given(st.text(" \n\t", max_size=5), TEXTS, CUTS)
def test_white_space_at_the_border_comes_once(space: str, rest: str, deltas: list[int]) -> None:
    joint = Joint({}, Usage(), restored(space), counts=False)
    written = joint.feed(_stream(space + rest, 2, deltas, whole=True)) + joint.end()
    assert _text(written) == rest


@given(st.binary(max_size=300), CUTS)
@example(b'data: {"choices": [{"index": 0, "delta": 7}]}\n\n', [])
@example(b'data: {"choices": 3, "usage": {"prompt_tokens": 1e999}}\n\ndata: []\n\n', [])
@example(b'data: {"choices": [{"delta": {"content": ["a"]}, "finish_reason": 1}, null], "usage": 1}\n\n', [])
def test_any_bytes_are_borne(data: bytes, cuts: list[int]) -> None:
    heard = Heard()
    out = b"".join([heard.feed(part) for part in _parts(data, cuts)])
    assert out + heard.failure + heard.rest == data
    joint = Joint({"id": "x"}, Usage(prompt_tokens=1), repeated("A pawl"), counts=True)
    for part in _parts(data, cuts):
        joint.feed(part)
    joint.end()


# --- any story


class _Fickle:
    """A model that breaks off, refuses, falls silent or answers, by its own dice; it keeps its own accounts."""

    local = False

    def __init__(self, name: str, rng: random.Random, others: tuple[str, ...]):
        self.name = f"of-{name}"
        self.rng = rng
        self.models = (
            ModelOptions(
                name=name, fallbacks=others, prompt_usd_per_million=rng.randint(0, 9), completion_usd_per_million=1.5
            ),
        )
        self.sent = 0
        self.open: list[Scripted] = []

    async def send(self, request: ProviderRequest) -> ProviderReply:
        self.sent += 1
        made = self._reply(json.loads(request.body))
        self.open.append(made)
        return await made.send(request)

    async def close(self) -> None:
        """Nothing is held open."""

    def _reply(self, body: dict[str, Any]) -> Scripted:
        rng = self.rng
        if rng.random() < 0.15:
            return Scripted(b'{"error": {"message": "no", "code": "overloaded"}}', status=rng.choice([429, 500, 503]))
        words = [rng.choice(["a ", "pawl ", "d\u00f6 ", "lets\n"]) for _ in range(rng.randint(0, 12))]
        if len(body["messages"]) > 1 and rng.random() < 0.5:
            words[:0] = [body["messages"][-2]["content"][-30:]]
        used = {"prompt_tokens": rng.randint(1, 50), "completion_tokens": rng.randint(1, 50)}
        often = {"usage": used} if rng.random() < 0.2 else {}
        told = [_chunk({"index": 0, "delta": {"role": "assistant"}}, self.sent)]
        told += [_chunk({"index": 0, "delta": {"content": word}}, self.sent, **often) for word in words]
        told += [_chunk({"index": 0, "delta": {}, "finish_reason": "stop"}, self.sent)]
        told += [_chunk(None, self.sent, usage=used)] if rng.random() < 0.8 else []
        data = b"".join([*told, DONE])
        how = rng.choice(["whole", "whole", "cut", "raised", "error", "idle"])
        if how != "whole":
            data = data[: rng.randrange(len(data))]
        last: dict[str, tuple[bytes | BaseException, ...]] = {
            "raised": (UpstreamError("broken", category=ErrorCategory.STREAM_CUT),),
            "idle": (UpstreamError("late", category=ErrorCategory.STREAM_IDLE),),
            "error": (b'\n\ndata: {"error": {"message": "busy"}}\n\n',),
        }
        return streaming(*_parts(data, [rng.randrange(4_000) for _ in range(9)]), *last.get(how, ()))


async def _story(seed: int) -> tuple[str, bool]:
    """One call with everything that may go wrong in it; returns its error, and whether its stream was continued."""
    rng = random.Random(seed)
    models = [_Fickle(name, rng, tuple(one for one in "abc" if one != name)) for name in "abc"]
    ledger, limits = MemoryLedger(), Limits([LimitOptions(name="all", window="day", usd=rng.choice([0.008, 5.0]))])
    gateway = Gateway(
        admission=Admission((), 1024 * 1024),
        providers=Providers(models),
        loop=Loop({"model": PointOptions(mode="live", policy="fixed")}),
        ledger=ledger,
        options=GatewayOptions(),
        limits=limits,
        prices=PriceBook(),
        resilience=Resilience(
            ResilienceOptions(
                continue_streams=True, backoff_base_s=0.0, breaker=BreakerOptions(failures=rng.choice([0, 1, 5]))
            ),
            clock=lambda: NOW,
            monotonic=time.monotonic,
            sleep=asyncio.sleep,
            rng=random.Random(seed),
        ),
        clock=lambda: NOW,
    )
    asked = chat("why?", "a", stream=True, max_tokens=200, stream_options={"include_usage": rng.random() < 0.5})
    left = rng.randrange(1, 9) if rng.random() < 0.15 else None
    out = b""
    try:
        answer = await gateway.complete(Request(json.dumps(asked).encode()))
        async for chunk in answer.chunks:
            out += chunk
            left = left and left - 1
            if left == 0:
                break
        await answer.chunks.aclose()
        error = _outcome(ledger).error
        assert out.count(DONE) <= (not error), "never a false end"
        assert answer.status != 200 or error or b'"finish_reason":"stop"' in out.replace(b": ", b":")
    except UpstreamError:
        pass
    _agrees(ledger, limits, models, out)
    return _outcome(ledger).error, "continued" in _outcome(ledger).extra


def _outcome(ledger: MemoryLedger) -> Outcome:
    (found,) = (entry.record for entry in ledger.read(ALL) if isinstance(entry.record, Outcome))
    return found


def _agrees(ledger: MemoryLedger, limits: Limits, models: list[_Fickle], out: bytes) -> None:
    outcome = _outcome(ledger)
    (count,) = limits.counts()
    assert (count.held, count.used) == (0, outcome.cost_nusd)
    attempts = outcome.extra.get("attempts", [])
    sent = [one for one in attempts if one["sent"]]
    assert sum(model.sent for model in models) == (len(sent) or 1)
    assert all(made.closed.is_set() for model in models for made in model.open), "nothing is left open"
    part = outcome.extra.get("continued")
    prices = {model.models[0].name: model.models[0] for model in models}
    billed = [one for one in attempts if one["bill"] in ("reported", "estimated")]
    assert ("estimated" in [one["bill"] for one in billed]) <= (part is not None and outcome.tokens_estimated)
    first = [one for one in billed if one["category"] and part is not None and one is attempts[_first(attempts)]]
    before = (sum(_tokens(first, "prompt_tokens")), sum(_tokens(first, "completion_tokens")))
    last = outcome.prompt_tokens - before[0], outcome.completion_tokens - before[1]
    cost = _nusd(prices[outcome.model], *last) + sum(
        _nusd(prices[one["model"]], *(one["usage"].get(name) or 0 for name in ("prompt_tokens", "completion_tokens")))
        for one in billed
    )
    assert outcome.cost_nusd == cost
    assert out.replace(b": ", b":").count(b'"finish_reason":"stop"') <= 1


def _first(attempts: list[dict[str, Any]]) -> int:
    """Which attempt began the stream that was continued: the first with a good beginning."""
    return next(
        at for at, one in enumerate(attempts) if one["bill"] in ("reported", "estimated") and one["status"] == 200
    )


def _tokens(attempts: list[dict[str, Any]], name: str) -> list[int]:
    return [one["usage"].get(name) or 0 for one in attempts]


def _nusd(model: ModelOptions, prompt: int, completion: int) -> int:
    assert model.prompt_usd_per_million is not None
    return round(prompt * model.prompt_usd_per_million * 1_000 + completion * 1_500)


async def test_whatever_breaks_every_sum_agrees() -> None:
    ends = [await _story(seed) for seed in range(STORIES)]
    assert ends.count(("", True)) > STORIES / 20
    assert ends.count(("", False)) > STORIES / 10
    assert len(set(ends)) > 5, "the stories differ"


@given(st.one_of(st.none(), st.booleans(), st.integers(), st.text(max_size=3), st.lists(st.integers(), max_size=2)))
def test_details_of_a_count_that_are_none_stop_nothing(details: Any) -> None:
    joint = Joint({}, Usage(prompt_tokens=1, completion_tokens=1, cache_read_tokens=3), repeated("abc"), counts=True)
    usage = {"prompt_tokens": 5, "completion_tokens": 2, "prompt_tokens_details": details}
    event = b"data: " + json.dumps({"choices": [], "usage": usage}).encode() + b"\n\n"
    told = json.loads(joint.feed(event).removeprefix(b"data:"))["usage"]
    assert told["prompt_tokens_details"] == {"cached_tokens": 3}
    assert told["total_tokens"] == 9
