"""Streams that break off and are continued: what the client sees, who pays, and where it stays an error.

Through the whole application, for clients of every dialect; the upstreams answer chats, in scripts of bytes.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from tests.golden.application import DONE, Client, Response, Scripted, chat, key, opened, streaming, upstream

from windlass.errors import ErrorCategory, UpstreamError
from windlass.gateway.money.estimate import estimate_tokens
from windlass.gateway.options import ModelOptions
from windlass.gateway.provider import ProviderReply, ProviderRequest
from windlass.gateway.resumption import ASK
from windlass.ledger.ledger import ALL
from windlass.records import Outcome, Scope
from windlass.runtime import Runtime
from windlass.server.app import Windlass

FIRST, REST = "A pawl lets the drum ", "turn one way only."
WHOLE = FIRST + REST
PROMPT = "Why has a windlass a pawl?"
DIALECTS = {
    "chat": ("/v1/chat/completions", chat(PROMPT, "a", stream=True)),
    "responses": ("/v1/responses", {"model": "a", "input": PROMPT, "stream": True}),
    "messages": (
        "/v1/messages",
        {"model": "a", "max_tokens": 500, "messages": [{"role": "user", "content": PROMPT}], "stream": True},
    ),
}
Act = bytes | BaseException | asyncio.Event
CUT = UpstreamError("it hung up", category=ErrorCategory.STREAM_CUT)
PRICES = {"a": (1_000, 2_000), "b": (10_000, 20_000)}
"""Nano-dollars a token, in and out."""


def chunk(number: int, *choices: dict[str, Any], **more: Any) -> bytes:
    """One chunk of the `number`th reply."""
    head = {"id": f"chatcmpl-{number}", "object": "chat.completion.chunk", "created": number, "model": f"up-{number}"}
    return b"data: " + json.dumps({**head, "choices": choices, **more}, ensure_ascii=False).encode() + b"\n\n"


def says(text: str, number: int = 1, **more: Any) -> bytes:
    return chunk(number, {"index": 0, "delta": {"content": text}, "finish_reason": None, **more})


def opens(number: int = 1) -> bytes:
    return chunk(number, {"index": 0, "delta": {"role": "assistant", "content": ""}, "finish_reason": None})


def ends(number: int = 2, reason: str = "stop") -> bytes:
    return chunk(number, {"index": 0, "delta": {}, "finish_reason": reason})


def counts(prompt: int, completion: int, number: int = 2) -> bytes:
    used = {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}
    return chunk(number, usage=used)


def broken(*acts: Act) -> Scripted:
    """A stream that says `FIRST` and then goes as `acts` say."""
    return streaming(opens(), says(FIRST[:7]), says(FIRST[7:]), *acts)


def goes_on(text: str = REST, *, prompt: int = 40, completion: int = 5) -> Scripted:
    """The reply that continues it."""
    return streaming(opens(2), says(text, 2), ends(), counts(prompt, completion), DONE)


ENDS = {"chat": ["stop", "[DONE]"], "responses": ["response.completed"], "messages": ["message_stop"]}
DOWN = Scripted(b'{"error": {"message": "no", "code": "overloaded"}}', status=503)


class Turns:
    """A provider of one model whose every answer is another: the scripts in turn, the last one for all that follow."""

    local = False

    def __init__(self, name: str, *turns: Scripted, **options: Any):
        self.name = f"of-{name}"
        into, out = PRICES[name]
        prices = {"prompt_usd_per_million": into / 1_000, "completion_usd_per_million": out / 1_000}
        self.models = (ModelOptions(name=name, **prices, **options),)
        self.requests: list[dict[str, Any]] = []
        self.turns = turns

    async def send(self, request: ProviderRequest) -> ProviderReply:
        self.requests.append(json.loads(request.body))
        return await self.turns[min(len(self.requests), len(self.turns)) - 1].send(request)

    async def close(self) -> None:
        """Nothing is held open."""


@dataclass
class Bench:
    """Two models, `a` falling back on `b`, behind the application."""

    runtime: Runtime
    client: Client
    a: Turns
    b: Turns

    async def ask(self, dialect: str = "chat", client: Client | None = None, **fields: Any) -> Response:
        path, body = DIALECTS[dialect]
        headers = {"idempotency_key": fields.pop("idempotency_key")} if "idempotency_key" in fields else {}
        return await (client or self.client).post(path, {**body, **fields}, **headers)

    @property
    def outcome(self) -> Outcome:
        (found,) = (entry.record for entry in self.runtime.ledger.read(ALL) if isinstance(entry.record, Outcome))
        return found


@asynccontextmanager
async def bench(home: Path, *a: Scripted, b: tuple[Scripted, ...] = (DOWN,), **changes: Any) -> AsyncIterator[Bench]:
    named = {"resilience__continue_streams": True, "resilience__backoff_base_s": 0.0, **changes}
    first, second = Turns("a", *a, fallbacks=("b",)), Turns("b", *b)
    async with opened(home, [first, second], **named) as runtime:
        yield Bench(runtime, Client(Windlass(runtime)), first, second)


def events(response: Response) -> list[Any]:
    lines = (line[5:].strip() for line in response.body.split(b"\n") if line.startswith(b"data:"))
    return ["[DONE]" if line == b"[DONE]" else json.loads(line) for line in lines]


def text_of(dialect: str, told: list[Any]) -> str:
    """The text that a client would show."""
    match dialect:
        case "responses":
            return "".join(one["delta"] for one in told if one.get("type") == "response.output_text.delta")
        case "messages":
            return "".join(one["delta"]["text"] for one in told if one.get("type") == "content_block_delta")
        case _:
            choices = (choice for one in told if isinstance(one, dict) for choice in one.get("choices", ()))
            return "".join(choice["delta"].get("content") or "" for choice in choices)


def endings(dialect: str, told: list[Any]) -> list[Any]:
    """What tells a client that all is there, each time that it is told."""
    match dialect:
        case "responses":
            return [one["type"] for one in told if one.get("type") == "response.completed"]
        case "messages":
            return [one["type"] for one in told if one.get("type") == "message_stop"]
        case _:
            choices = (choice for one in told if isinstance(one, dict) for choice in one.get("choices", ()))
            reasons = [choice["finish_reason"] for choice in choices if choice.get("finish_reason")]
            return [*reasons, *(one for one in told if one == "[DONE]")]


def failure(dialect: str, told: list[Any]) -> str:
    """The cause that a stream ends with."""
    error = told[-1]["error"]
    return str(error["message"].rpartition(": ")[2] if dialect == "messages" else error["code"])


def usage_of(dialect: str, told: list[Any]) -> tuple[int, int]:
    """The tokens that a client is told of, in and out."""
    match dialect:
        case "responses":
            used = told[-1]["response"]["usage"]
            return used["input_tokens"], used["output_tokens"]
        case "messages":
            (used,) = (one["usage"] for one in told if one["type"] == "message_delta")
            return used["input_tokens"], used["output_tokens"]
        case _:
            (used,) = (one["usage"] for one in told if isinstance(one, dict) and one.get("usage"))
            assert used["total_tokens"] == used["prompt_tokens"] + used["completion_tokens"]
            return used["prompt_tokens"], used["completion_tokens"]


def part_nusd(model: str, prompt: int, completion: int) -> int:
    into, out = PRICES[model]
    return prompt * into + completion * out


SAID = estimate_tokens(PROMPT), estimate_tokens(FIRST)
"""What the first part is taken to have used up where its provider has counted nothing."""
COUNTED = {"stream_options": {"include_usage": True}}
BREAKS: dict[str, tuple[Act, ...]] = {
    "raised": (CUT,),
    "hung up": (),
    "idle": (UpstreamError("late", category=ErrorCategory.STREAM_IDLE),),
    "said so": (b'data: {"error": {"message": "busy", "type": "overloaded_error", "code": 529}}\n\n', DONE),
    "said so at once": (says("") + b'data: {"error": {"message": "busy"}}\n\ndata: [DONE]\n\n',),
    "half an event": (says("lost")[:-20],),
    "within a character": (says("d\u00f6")[: says("d\u00f6").index("\u00f6".encode()) + 1], CUT),
}


# --- one stream


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("how", BREAKS)
async def test_a_stream_that_breaks_off_goes_on_as_one(tmp_path: Path, dialect: str, how: str) -> None:
    async with bench(tmp_path, broken(*BREAKS[how]), goes_on(), b=(goes_on(),)) as it:
        told = events(await it.ask(dialect))
        assert text_of(dialect, told) == WHOLE
        assert endings(dialect, told) == ENDS[dialect]
        assert all("error" not in one or one["error"] is None for one in told if isinstance(one, dict))
        assert it.outcome.error == ""
        # A model that let the client wait has had its time; any other is asked once more.
        by = "b" if how == "idle" else "a"
        assert (it.outcome.model, it.outcome.extra["continued"]["model"]) == (by, by)
        assert (len(it.a.requests), len(it.b.requests)) == ((1, 1) if how == "idle" else (2, 0))


async def test_every_chunk_has_the_head_of_the_first(tmp_path: Path) -> None:
    async with bench(tmp_path, broken(CUT), goes_on()) as it:
        *chunks, done = events(await it.ask())
        assert done == "[DONE]"
        assert {(one["id"], one["model"], one["created"]) for one in chunks} == {("chatcmpl-1", "up-1", 1)}
        assert [one for one in chunks if one["choices"][0]["delta"].get("role")] == chunks[:1], "one role"


@pytest.mark.parametrize("dialect", DIALECTS)
async def test_the_second_request_holds_the_text_so_far(tmp_path: Path, dialect: str) -> None:
    async with bench(tmp_path, broken(CUT), goes_on()) as it:
        await it.ask(dialect, **({"max_output_tokens": 500} if dialect == "responses" else {"max_tokens": 500}))
        first, second = it.a.requests
        said = [{"role": "assistant", "content": FIRST}, {"role": "user", "content": ASK}]
        assert second["messages"] == [*first["messages"], *said]
        assert second["stream"] is True
        assert second["stream_options"] == {"include_usage": True}
        limit = "max_tokens" if dialect == "chat" else "max_completion_tokens"
        assert second[limit] == 500 - estimate_tokens(FIRST)


@pytest.mark.parametrize("again", [FIRST, FIRST[-15:], "", FIRST[-1:], FIRST[3:]])
async def test_what_is_said_again_is_left_out(tmp_path: Path, again: str) -> None:
    once = streaming(*(says(letter, 2) for letter in again + REST), ends(), DONE)
    async with bench(tmp_path, broken(CUT), once) as it:
        told = text_of("chat", events(await it.ask()))
        # One character may be chance; a client would rather see a blank twice than miss a letter.
        chance = again if 0 < len(again) < 12 else ""
        assert told == FIRST + chance + REST
        place = {"at_chars": len(FIRST), "dropped_chars": 0 if chance else len(again)}
        assert it.outcome.extra["continued"] == {"provider": "of-a", "model": "a", **place}


async def test_an_error_beside_the_first_words_is_a_failure_as_before(tmp_path: Path) -> None:
    at_once = streaming(says(FIRST) + b'data: {"error": {"message": "busy"}}\n\n')
    async with bench(tmp_path, at_once, goes_on(WHOLE)) as it:
        told = events(await it.ask())
        assert (text_of("chat", told), it.a.requests[1]) == (WHOLE, it.a.requests[0])
        assert "continued" not in it.outcome.extra


async def test_reasoning_comes_before_the_text_and_not_within_it(tmp_path: Path) -> None:
    thought = chunk(2, {"index": 0, "delta": {"reasoning_content": "Where was I?"}, "finish_reason": None})
    begun = streaming(chunk(1, {"index": 0, "delta": {"reasoning_content": "Well."}}), says(FIRST), CUT)
    async with bench(tmp_path, begun, streaming(thought, says(REST, 2), ends(), DONE)) as it:
        response = await it.ask("messages")
        kinds = [one["content_block"]["type"] for one in events(response) if one["type"] == "content_block_start"]
        assert kinds == ["thinking", "text"]
        assert b"Where was I?" not in response.body


async def test_a_tool_may_be_called_behind_it(tmp_path: Path) -> None:
    call = {"index": 0, "id": "call_1", "type": "function", "function": {"name": "turn", "arguments": "{}"}}
    calls = chunk(2, {"index": 0, "delta": {"role": "assistant", "content": None, "tool_calls": [call]}})
    tool = {"type": "function", "function": {"name": "turn", "parameters": {}}}
    script = streaming(says("A", 2), calls, ends(2, "tool_calls"), DONE)
    async with bench(tmp_path, broken(CUT), script) as it:
        told = events(await it.ask(tools=[tool]))
        assert text_of("chat", told) == FIRST + "A", "what was held back comes before the call"
        deltas = [one["choices"][0]["delta"] for one in told[:-1]]
        assert [delta["tool_calls"] for delta in deltas if "tool_calls" in delta] == [[call]]
        assert endings("chat", told) == ["tool_calls", "[DONE]"]


async def test_a_reply_that_comes_whole_goes_on_as_well(tmp_path: Path) -> None:
    choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": REST}}
    used = {"prompt_tokens": 40, "completion_tokens": 5}
    whole = Scripted(json.dumps({"id": "x", "choices": [choice], "usage": used}).encode())
    async with bench(tmp_path, broken(CUT), whole) as it:
        told = events(await it.ask(**COUNTED))
        assert (text_of("chat", told), endings("chat", told)) == (WHOLE, ["stop", "[DONE]"])
        assert usage_of("chat", told) == (SAID[0] + 40, SAID[1] + 5)


# --- who pays


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("by", ["a", "b"])
async def test_both_parts_are_billed_at_their_own_prices(tmp_path: Path, dialect: str, by: str) -> None:
    turns = (goes_on(prompt=41, completion=6),)
    a = (broken(CUT), *(turns if by == "a" else (DOWN,)))
    async with bench(tmp_path, *a, b=turns) as it:
        told = events(await it.ask(dialect, **(COUNTED if dialect == "chat" else {})))
        outcome = it.outcome
        assert text_of(dialect, told) == WHOLE
        used = SAID[0] + 41, SAID[1] + 6
        assert (outcome.prompt_tokens, outcome.completion_tokens) == used == usage_of(dialect, told)
        assert outcome.cost_nusd == part_nusd("a", *SAID) + part_nusd(by, 41, 6)
        assert (outcome.tokens_estimated, outcome.model, outcome.provider) == (True, by, f"of-{by}")
        cut, *failed, last = outcome.extra["attempts"]
        assert (cut["model"], cut["category"], cut["bill"]) == ("a", "stream_cut", "estimated")
        assert [(one["model"], one["category"]) for one in failed] == ([] if by == "a" else [("a", "model_overloaded")])
        assert (last["model"], last["category"], last["bill"]) == (by, "", "outcome")
        assert last["started_ms"] >= cut["started_ms"] + cut["took_ms"]


async def test_a_count_that_came_before_the_break_is_no_estimate(tmp_path: Path) -> None:
    used = {"prompt_tokens": 9, "completion_tokens": 3, "prompt_tokens_details": {"cached_tokens": 4}}
    first = streaming(chunk(1, {"index": 0, "delta": {"content": FIRST}}, usage=used), CUT)
    async with bench(tmp_path, first, goes_on(prompt=41, completion=6)) as it:
        told = events(await it.ask(**COUNTED))
        assert told[-2]["usage"]["prompt_tokens_details"] == {"cached_tokens": 4}
        assert (told[-2]["usage"]["prompt_tokens"], told[-2]["usage"]["completion_tokens"]) == (9 + 41, 3 + 6)
        outcome = it.outcome
        assert (outcome.prompt_tokens, outcome.completion_tokens, outcome.tokens_estimated) == (50, 9, False)
        assert outcome.extra["attempts"][0]["bill"] == "reported"
        assert outcome.cost_nusd == part_nusd("a", 9, 3) + part_nusd("a", 41, 6)


@pytest.mark.parametrize("asked", [True, False])
async def test_who_has_not_asked_for_the_count_gets_none(tmp_path: Path, asked: bool) -> None:
    async with bench(tmp_path, broken(CUT), goes_on()) as it:
        response = await it.ask(**(COUNTED if asked else {}))
        assert (b'"usage"' in response.body) is asked
        assert it.outcome.completion_tokens == SAID[1] + 5, "counted either way"


async def test_a_second_part_that_nobody_counts_is_estimated_too(tmp_path: Path) -> None:
    async with bench(tmp_path, broken(CUT), streaming(says(REST, 2), ends(), DONE)) as it:
        await it.ask()
        outcome = it.outcome
        assert outcome.completion_tokens == estimate_tokens(FIRST) + estimate_tokens(REST)
        assert outcome.prompt_tokens > 2 * estimate_tokens(PROMPT) + estimate_tokens(FIRST)
        assert outcome.tokens_estimated


async def test_the_model_that_did_not_finish_earns_nothing(tmp_path: Path) -> None:
    points = {"points__model__mode": "live", "points__model__policy": "fixed", "gateway__auto": ["a", "b"]}
    points["points__model__randomised_share"] = 0.0
    async with bench(tmp_path, broken(CUT), DOWN, b=(goes_on(),), **points) as it:
        await it.ask(model="auto")
        (trace,) = it.runtime.ledger.calls(Scope())
        assert trace.outcome is not None
        assert ([one.action for one in trace.decisions], trace.outcome.model) == (["a"], "b")
        rating = {"id": "feedback_1", "target": trace.call.id, "kind": "rating", "source": "user", "value": 1.0}
        assert (await it.client.post("/v1/feedback", rating)).status < 300
        await it.runtime.caught_up()
        (score,) = it.runtime.learner.scores(Scope(), "model")
        assert (score.decisions, score.value) == (1, 0.0)


# --- limits


LIMIT = {"name": "day", "window": "day", "usd": 1.0, "requests": 100, "tokens": 1_000_000, "concurrent": 10}


async def test_what_was_held_is_given_back_and_the_sum_is_spent(tmp_path: Path) -> None:
    async with bench(tmp_path, broken(CUT), DOWN, b=(goes_on(),), limits=[LIMIT]) as it:
        await it.ask(max_tokens=100)
        counts = {count.place.measure: count for count in it.runtime.gateway.limits.counts()}
        outcome = it.outcome
        assert all(count.held == 0 for count in counts.values())
        assert counts["nusd"].used == counts["nusd"].kept == outcome.cost_nusd
        assert counts["tokens"].used == outcome.prompt_tokens + outcome.completion_tokens
        assert (counts["requests"].used, counts["concurrent"].used) == (1, 0), "it is one call"


@pytest.mark.parametrize("short", [{"usd": 0.01}, {"tokens": 800}], ids=lambda one: next(iter(one)))
async def test_without_room_for_another_answer_it_stays_an_error(tmp_path: Path, short: dict[str, float]) -> None:
    limit = {"name": "day", "window": "day", **short}
    # Enough for one answer of at most 400 tokens, by either model, not for two.
    async with bench(tmp_path, broken(CUT), goes_on(), b=(goes_on(),), limits=[limit]) as it:
        told = events(await it.ask(max_tokens=400))
        assert (text_of("chat", told), failure("chat", told)) == (FIRST, "stream_cut")
        assert (len(it.a.requests), len(it.b.requests)) == (1, 0)
        assert (it.outcome.error, it.outcome.cost_nusd) == ("stream_cut", part_nusd("a", *SAID))
        assert all(count.held == 0 for count in it.runtime.gateway.limits.counts())


async def test_the_last_call_of_a_limit_goes_on(tmp_path: Path) -> None:
    limit = {"name": "day", "window": "day", "requests": 1, "concurrent": 1}
    async with bench(tmp_path, broken(CUT), DOWN, b=(goes_on(),), limits=[limit]) as it:
        assert events(await it.ask(max_tokens=400))[-1] == "[DONE]"
        assert it.outcome.error == ""
        counts = {count.place.measure: (count.used, count.held) for count in it.runtime.gateway.limits.counts()}
        assert counts == {"requests": (1, 0), "concurrent": (0, 0)}


async def test_a_long_text_needs_more_room(tmp_path: Path) -> None:
    limit = {"name": "day", "window": "day", "tokens": 2_000}
    async with bench(tmp_path, streaming(says("a pawl " * 300), CUT), goes_on(), limits=[limit]) as it:
        assert failure("chat", events(await it.ask(max_tokens=400))) == "stream_cut"
        assert len(it.a.requests) == 1


async def test_a_model_that_does_not_count_is_not_asked_to(tmp_path: Path) -> None:
    first, second = Turns("a", broken(CUT), DOWN, fallbacks=("b",)), Turns("b", goes_on(), include_usage=False)
    on = {"resilience__continue_streams": True, "resilience__backoff_base_s": 0.0}
    async with opened(tmp_path, [first, second], **on) as runtime:
        await Client(Windlass(runtime)).post(*DIALECTS["chat"])
    assert "stream_options" in first.requests[1]
    assert "stream_options" not in second.requests[0]


# --- where it breaks again, or never began


async def test_the_cause_of_a_second_break_is_told(tmp_path: Path) -> None:
    late = streaming(says("turn ", 2), UpstreamError("late", category=ErrorCategory.STREAM_IDLE))
    async with bench(tmp_path, broken(CUT), late) as it:
        assert failure("chat", events(await it.ask())) == it.outcome.error == "stream_idle"


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("how", ["raised", "hung up", "said so", "half an event", "within a character"])
async def test_a_second_break_is_an_error(tmp_path: Path, dialect: str, how: str) -> None:
    again = streaming(opens(2), says("turn ", 2), *BREAKS[how])
    async with bench(tmp_path, broken(CUT), again, goes_on(), b=(goes_on(),)) as it:
        told = events(await it.ask(dialect))
        assert (text_of(dialect, told), endings(dialect, told)) == (FIRST + "turn ", [])
        assert failure(dialect, told)
        assert (len(it.a.requests), len(it.b.requests)) == (2, 0), "once, and not again"
        outcome = it.outcome
        assert (outcome.status, outcome.extra["continued"]["at_chars"]) == (200, len(FIRST))
        assert outcome.error in ("stream_cut", "upstream_server_error", "upstream_failed", "model_overloaded")
        assert outcome.completion_tokens == estimate_tokens(FIRST) + estimate_tokens("turn ")
        assert outcome.cost_nusd == part_nusd("a", outcome.prompt_tokens, outcome.completion_tokens)


async def test_what_was_held_back_is_not_lost_with_a_second_break(tmp_path: Path) -> None:
    async with bench(tmp_path, broken(CUT), streaming(says(FIRST[:5], 2), CUT)) as it:
        told = events(await it.ask())
        assert (text_of("chat", told), failure("chat", told)) == (FIRST + FIRST[:5], "stream_cut")


@pytest.mark.parametrize("dialect", DIALECTS)
async def test_nobody_who_goes_on_is_an_error(tmp_path: Path, dialect: str) -> None:
    async with bench(tmp_path, broken(CUT), DOWN) as it:
        told = events(await it.ask(dialect))
        assert (text_of(dialect, told), endings(dialect, told), failure(dialect, told)) == (FIRST, [], "stream_cut")
        outcome = it.outcome
        assert (outcome.error, outcome.model, outcome.cost_nusd) == ("stream_cut", "a", part_nusd("a", *SAID))
        assert "continued" not in outcome.extra
        first, *tried = outcome.extra["attempts"]
        assert (first["category"], first["bill"]) == ("", "outcome")
        assert {one["category"] for one in tried} == {"model_overloaded"}


async def test_a_refusal_of_the_second_request_is_no_answer(tmp_path: Path) -> None:
    refusal = Scripted(b'{"error": {"message": "this model does not take that"}}', status=400)
    async with bench(tmp_path, broken(CUT), refusal) as it:
        response = await it.ask()
        assert failure("chat", events(response)) == "stream_cut"
        assert b"does not take that" not in response.body
        assert refusal.closed.is_set()
        first, second = it.outcome.extra["attempts"]
        assert (first["bill"], second["bill"], second["category"]) == ("outcome", "none", "upstream_request_refused")
        assert it.runtime.gateway.resilience.breakers.state() == (), "one break, forgiven by one that was answered"


CALL = {"index": 0, "id": "c", "type": "function", "function": {"name": "f", "arguments": ""}}
LEFT: dict[str, tuple[dict[str, Any], tuple[Act, ...]]] = {
    "before any text": ({}, (opens(), CUT)),
    "white space alone": ({}, (opens(), says(" \n"), CUT)),
    "in its reasoning": ({}, (chunk(1, {"index": 0, "delta": {"reasoning_content": "Hm"}}), CUT)),
    "in a call": ({}, (says("Wait"), chunk(1, {"index": 0, "delta": {"tool_calls": [CALL]}}), CUT)),
    "in a refusal": ({}, (says("No"), chunk(1, {"index": 0, "delta": {"refusal": "never"}}), CUT)),
    "of another choice": ({}, (says("One"), chunk(1, {"index": 1, "delta": {"content": "Two"}}), CUT)),
    "with logprobs": ({"logprobs": True}, (says("One", logprobs={"content": []}), CUT)),
    "of several": ({"n": 2}, (says("One"), CUT)),
    "as JSON": ({"response_format": {"type": "json_object"}}, (says('{"a": '), CUT)),
    "spoken": ({"modalities": ["text", "audio"]}, (says("One"), CUT)),
    "begun by the client": (
        {"messages": [*chat()["messages"], {"role": "assistant", "content": "A"}]},
        (says("B"), CUT),
    ),
    "unreadable": ({}, (says("One"), b"data: {]\n\n", CUT)),
    "over": ({}, (says("One"), ends(1), b'data: {"error": {"message": "busy"}}\n\n')),
    "out of time": ({}, (says("One"), UpstreamError("late", category=ErrorCategory.TOTAL_TIMEOUT))),
    "filtered": ({}, (says("One"), b'data: {"error": {"message": "no", "code": "content_filter"}}\n\n')),
}


@pytest.mark.parametrize("how", LEFT)
async def test_what_nobody_could_go_on_with_stays_an_error(tmp_path: Path, how: str) -> None:
    fields, script = LEFT[how]
    async with bench(tmp_path / "on", streaming(*script), goes_on(), b=(goes_on(),)) as it:
        told = await it.ask(**fields)
        assert (len(it.a.requests), len(it.b.requests)) == (1, 0)
        assert it.outcome.error
    async with bench(tmp_path / "off", streaming(*script), resilience__continue_streams=False) as it:
        assert (await it.ask(**fields)).body == told.body, "as without the option, to the byte"


@pytest.mark.parametrize("dialect", DIALECTS)
async def test_a_whole_stream_goes_through_to_the_byte(tmp_path: Path, dialect: str) -> None:
    script = (opens(), says(FIRST), b": ping\n\n", says(REST), ends(1), counts(7, 8, 1), DONE)
    data = b"".join(script)
    halves = [data[at : at + 11] for at in range(0, len(data), 11)]
    told = []
    for name, acts in (("off", script), ("on", script), ("split", tuple(halves))):
        async with bench(tmp_path / name, streaming(*acts), resilience__continue_streams=name != "off") as it:
            told.append((await it.ask(dialect)).body)
            assert (it.outcome.prompt_tokens, it.outcome.completion_tokens, it.outcome.error) == (7, 8, "")
    assert len(set(told)) == 1 or dialect == "responses"  # its ids hold the call's own


async def test_an_end_without_a_line_break_is_an_end(tmp_path: Path) -> None:
    async with bench(tmp_path, broken(says(REST), b"data: [DONE]"), goes_on()) as it:
        assert (await it.ask()).body.endswith(b"data: [DONE]")
        assert (len(it.a.requests), it.outcome.error) == (1, "")


async def test_switched_off_it_ends_with_an_error(tmp_path: Path) -> None:
    async with bench(tmp_path, broken(CUT), goes_on(), resilience__continue_streams=False) as it:
        told = events(await it.ask())
        assert (text_of("chat", told), failure("chat", told), len(it.a.requests)) == (FIRST, "stream_cut", 1)


def test_switched_off_nothing_of_it_is_loaded(tmp_path: Path) -> None:
    code = (
        "import sys, windlass\n"
        "with windlass.Client(home=sys.argv[1], settings={'memory.embedder': 'off'}) as client:\n"
        "    client.chat([{'role': 'user', 'content': 'hi'}])\n"
        "found = [f'windlass.gateway.{name}' in sys.modules for name in ('gateway', 'continuation', 'splice')]\n"
        "assert found == [True, False, False]\n"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True, timeout=60)


# --- who else hears of it


async def test_breakers_hear_of_every_break_once(tmp_path: Path) -> None:
    breaker = {"resilience__breaker": {"failures": 2}}
    async with bench(tmp_path, broken(CUT), goes_on(), broken(CUT), DOWN, b=(goes_on(),), **breaker) as it:
        breakers = it.runtime.gateway.resilience.breakers
        await it.ask()
        (state,) = breakers.state() or [None]
        assert state is None or state.failures == 0, "one break, forgiven by one answer"
        told = events(await it.ask())
        assert text_of("chat", told) == WHOLE
        (state,) = breakers.state()
        assert (state.provider, state.state) == ("of-a", "open"), "a break and a refusal"


async def test_a_model_that_is_left_alone_is_not_asked_again(tmp_path: Path) -> None:
    breaker = {"resilience__breaker": {"failures": 1}}
    async with bench(tmp_path, broken(CUT), goes_on(), b=(goes_on(),), **breaker) as it:
        assert text_of("chat", events(await it.ask())) == WHOLE
        assert (len(it.a.requests), len(it.b.requests), it.outcome.model) == (1, 1, "b")


async def test_a_repetition_gets_the_bytes_of_the_first(tmp_path: Path) -> None:
    async with bench(tmp_path, broken(CUT), DOWN, b=(goes_on(),)) as it:
        first = await it.ask(idempotency_key="k-1")
        again = await it.ask(idempotency_key="k-1")
        assert text_of("chat", events(first)) == WHOLE
        assert again.body == first.body
        assert (again.headers["x-windlass-replayed"], again.headers["x-windlass-model"]) == ("true", "a")
        assert (first.headers["x-windlass-model"], again.headers["x-windlass-continued"]) == ("a", "b")
        assert again.headers["x-windlass-cost-nusd"] == str(it.outcome.cost_nusd)


async def test_what_is_kept_is_what_the_client_got(tmp_path: Path) -> None:
    async with bench(tmp_path, broken(CUT), goes_on()) as it:
        response = await it.ask(**COUNTED)
        (trace,) = it.runtime.ledger.calls(Scope())
        (kept,) = (body.data for body in it.runtime.ledger.bodies(Scope(), trace.call.id) if body.role == "reply")
        assert kept == response.body


async def test_who_leaves_meanwhile_stops_the_second_upstream(tmp_path: Path) -> None:
    waiting, seen = asyncio.Event(), asyncio.Event()
    second = streaming(opens(2), says(REST, 2), waiting)
    async with bench(tmp_path, broken(CUT), second, limits=[LIMIT]) as it:

        async def sent(told: Any) -> None:
            if REST[-5:].encode() in told.get("body", b""):
                assert it.a.turns[0].closed.is_set(), "nothing more is wanted of the first"
                seen.set()

        client = Client(Windlass(it.runtime), sent=sent)
        asking = asyncio.create_task(it.ask(client=client))
        await asyncio.wait_for(seen.wait(), 5)
        client.leave.set()
        await asyncio.wait_for(asking, 5)
        assert second.closed.is_set()
        assert it.a.turns[0].closed.is_set()
        outcome = it.outcome
        assert (outcome.error, outcome.extra["continued"]["model"]) == ("client_gone", "a")
        assert all(count.held == 0 for count in it.runtime.gateway.limits.counts())


async def test_who_leaves_before_it_goes_on_stops_the_attempt(tmp_path: Path) -> None:
    silent = streaming(asyncio.Event())
    async with bench(tmp_path, broken(CUT), silent, limits=[LIMIT]) as it:
        client = Client(Windlass(it.runtime))
        asking = asyncio.create_task(it.ask(client=client))
        async with asyncio.timeout(5):
            while len(it.a.requests) < 2:
                await asyncio.sleep(0.001)
        client.leave.set()
        await asyncio.wait_for(asking, 5)
        assert silent.closed.is_set()
        outcome = it.outcome
        assert (outcome.error, outcome.cost_nusd) == ("client_gone", part_nusd("a", *SAID))
        assert [one["category"] for one in outcome.extra["attempts"]] == ["", "cancelled"]
        assert all(count.held == 0 for count in it.runtime.gateway.limits.counts())


async def test_the_time_of_the_call_is_that_of_both(tmp_path: Path) -> None:
    total = {"resilience__total_timeout_s": 0.4}
    async with bench(tmp_path, broken(CUT), streaming(says(REST, 2), asyncio.Event()), **total) as it:
        told = events(await it.ask())
        assert (text_of("chat", told), failure("chat", told)) == (WHOLE, "total_timeout")
        assert endings("chat", told) == []


# --- Anthropic


def messages(*texts: str, whole: bool) -> bytes:
    """A reply of Anthropic, over a connection that ends with it."""
    start = {"id": "msg_1", "type": "message", "role": "assistant", "model": "claude", "content": []}
    start |= {"stop_reason": None, "stop_sequence": None, "usage": {"input_tokens": 9, "output_tokens": 1}}
    told: list[dict[str, Any]] = [
        {"type": "message_start", "message": start},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
        *({"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": one}} for one in texts),
    ]
    if whole:
        ended = {"stop_reason": "end_turn", "stop_sequence": None}
        told += [
            {"type": "content_block_stop", "index": 0},
            {"type": "message_delta", "delta": ended, "usage": {"output_tokens": 5}},
            {"type": "message_stop"},
        ]
    body = "".join(f"event: {one['type']}\ndata: {json.dumps(one)}\n\n" for one in told).encode()
    return b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n" + body


@pytest.mark.parametrize(
    ("model", "fields", "prefilled"),
    [
        ("claude-sonnet-4-5", {"max_tokens": 500}, True),
        ("claude-sonnet-4-5", {}, False),
        ("claude-sonnet-4-5", {"max_tokens": 5_000, "reasoning_effort": "low"}, False),
        ("claude-opus-4-6", {"max_tokens": 500}, False),
        ("other", {"max_tokens": 500}, False),
    ],
)
async def test_anthropic_gets_the_text_as_its_own_where_it_goes_on_with_it(
    tmp_path: Path, model: str, fields: dict[str, Any], prefilled: bool
) -> None:
    replies = [messages("A pawl ", "lets the drum ", whole=False)]
    replies.append(messages(" turn one" if prefilled else "turn one", " way only.", whole=True))

    async def answer(writer: asyncio.StreamWriter) -> None:
        writer.write(replies.pop(0))
        await writer.drain()
        writer.close()

    async with upstream(answer) as server:
        provider = {
            "name": "p",
            "kind": "anthropic",
            "base_url": server.url,
            "models": [{"name": "m", "upstream": model}],
        }
        on = {"resilience__continue_streams": True}
        async with opened(tmp_path, upstreams=[provider], **on) as runtime:
            response = await Client(Windlass(runtime)).post(*_of_m(fields))
        assert text_of("chat", events(response)) == WHOLE
        assert endings("chat", events(response)) == ["stop", "[DONE]"]
        first, second = (json.loads(request.partition(b"\r\n\r\n")[2]) for request in server.requests)
        said: list[dict[str, Any]] = [{"role": "assistant", "content": "A pawl lets the drum"}]
        if not prefilled:
            said = [{"role": "assistant", "content": FIRST}, {"role": "user", "content": ASK}]
        assert second["messages"] == [*first["messages"], *said]


def _of_m(fields: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    return "/v1/chat/completions", chat(PROMPT, "m", stream=True, **fields)


async def test_a_dialect_that_the_upstream_speaks_itself_ends_with_an_error(tmp_path: Path) -> None:
    async def answer(writer: asyncio.StreamWriter) -> None:
        writer.write(messages(FIRST, whole=False))
        await writer.drain()
        writer.close()

    async with upstream(answer) as server:
        provider = {"name": "p", "kind": "anthropic", "base_url": server.url, "models": [{"name": "m"}]}
        async with opened(tmp_path, upstreams=[provider], resilience__continue_streams=True) as runtime:
            path, body = DIALECTS["messages"]
            told = events(await Client(Windlass(runtime)).post(path, {**body, "model": "m"}))
        assert (text_of("messages", told), failure("messages", told)) == (FIRST, "stream_cut")
        assert len(server.requests) == 1


async def test_a_key_pays_for_both(tmp_path: Path) -> None:
    keys = [key("ops", "acme", "one", role="admin")]
    async with bench(tmp_path, broken(CUT), goes_on(), keys=keys, limits=[{**LIMIT, "per": "key"}]) as it:
        it.client.bearer = "secret-ops"
        await it.ask()
        (count,) = (one for one in it.runtime.gateway.limits.counts() if one.place.measure == "nusd")
        assert (count.place.group, count.used) == ("acme/ops", it.outcome.cost_nusd)
