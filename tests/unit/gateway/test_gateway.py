"""The walk of one call: what is recorded when, what goes through untouched, and what is left of a call that broke."""

from __future__ import annotations

import asyncio
import gc
import hashlib
import json
import sys
import time
from collections.abc import Iterable
from decimal import ROUND_HALF_EVEN, Decimal
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from tests.golden.application import DONE, LAST, Scripted, chat, event, resilience, streaming

from windlass.errors import AccessError, ErrorCategory, LedgerError, ModelUnknown, RequestError, UpstreamError, classify
from windlass.gateway import opening
from windlass.gateway import relay as module
from windlass.gateway.access.admission import Admission
from windlass.gateway.access.limits import Limits
from windlass.gateway.gateway import Answer, Gateway, Request
from windlass.gateway.money.estimate import estimate_tokens
from windlass.gateway.money.pricelist import PriceBook
from windlass.gateway.money.prices import cost_nusd, price_of
from windlass.gateway.money.usage import Usage
from windlass.gateway.options import GatewayOptions, KeyOptions, ModelOptions
from windlass.gateway.provider import Provider, Providers
from windlass.gateway.providers.echo import Echo
from windlass.ledger.ledger import ALL, Body, Ledger
from windlass.ledger.memory import MemoryLedger
from windlass.policies.fixed import Fixed
from windlass.policies.loop import Loop, PointOptions
from windlass.policies.policy import Choice
from windlass.records import Call, Decision, LedgerRecord, Outcome, Scope

NOW = 1_800_000_000.0
KEY = KeyOptions(
    name="ops",
    sha256=hashlib.sha256(b"secret-ops").hexdigest(),
    tenant="acme",
    workspaces=("one", "two"),
)
PLAIN = (
    b'{"choices":[{"message":{"content":"hi"},"finish_reason":"stop"}],'
    b'"usage":{"prompt_tokens":3,"completion_tokens":2}}'
)
GONE = ErrorCategory.CLIENT_GONE.value
CUT = ErrorCategory.STREAM_CUT.value


class Gated(MemoryLedger):
    """A ledger that says what it commits, in order, and commits nothing before `open` is set."""

    def __init__(self) -> None:
        super().__init__()
        self.log: list[str] = []
        self.waiting = asyncio.Event()
        self.open = asyncio.Event()
        self.open.set()

    async def append(self, *items: LedgerRecord | Body) -> int:
        self.waiting.set()
        await self.open.wait()
        self.log += [type(item).__name__ for item in items]
        return self.append_now(*items)


class Clock:
    """Seconds that pass by a fixed step with every look."""

    def __init__(self, step: float = 0.0):
        self.at = NOW
        self.step = step

    def __call__(self) -> float:
        self.at += self.step
        return self.at


def _gateway(
    ledger: Ledger,
    *providers: Provider,
    options: GatewayOptions | None = None,
    clock: Clock | None = None,
    point: PointOptions | None = None,
) -> Gateway:
    return Gateway(
        admission=Admission((), 1024 * 1024),
        providers=Providers(providers),
        loop=Loop({"model": point or PointOptions(mode="live", policy="fixed")}),
        ledger=ledger,
        options=options or GatewayOptions(),
        limits=Limits(()),
        prices=PriceBook(),
        resilience=resilience(),
        clock=clock or Clock(),
    )


def _request(**fields: Any) -> Request:
    return Request(json.dumps(chat(**fields)).encode(), parent="answer_1")


async def _read(answer: Answer) -> bytes:
    return b"".join([chunk async for chunk in answer.chunks])


def _recorded(ledger: MemoryLedger, kind: type[Any]) -> list[Any]:
    return [entry.record for entry in ledger.read(ALL) if isinstance(entry.record, kind)]


def _outcome(ledger: MemoryLedger) -> Outcome:
    (found,) = _recorded(ledger, Outcome)
    assert isinstance(found, Outcome)
    return found


# --- what is recorded, and when


async def test_a_plain_reply_leaves_only_after_its_commit() -> None:
    ledger = Gated()
    ledger.open.clear()
    answering = asyncio.create_task(_gateway(ledger, Scripted(PLAIN)).complete(_request(model="m")))
    await ledger.waiting.wait()
    await asyncio.sleep(0)
    assert not answering.done()
    ledger.open.set()
    answer = await answering
    assert ledger.log == ["Call", "Decision", "Outcome", "Body", "Body"]
    assert await _read(answer) == PLAIN


async def test_a_stream_starts_after_its_call_and_ends_after_its_outcome() -> None:
    ledger = Gated()
    answer = await _gateway(ledger, streaming(event("a"), event("b"), LAST, DONE)).complete(
        _request(model="m", stream=True)
    )
    assert ledger.log == ["Call", "Decision"], "before the first byte"
    seen: list[tuple[bytes, bool]] = []
    async for chunk in answer.chunks:
        seen.append((chunk, "Outcome" in ledger.log))
    assert seen == [(event("a"), False), (event("b"), False), (LAST, False), (DONE, True)]
    assert _outcome(ledger).error == ""


async def test_a_stream_does_not_start_while_its_call_is_not_committed() -> None:
    ledger = Gated()
    ledger.open.clear()
    gateway = _gateway(ledger, streaming(event("a"), DONE))
    answering = asyncio.create_task(gateway.complete(_request(model="m", stream=True)))
    await ledger.waiting.wait()
    await asyncio.sleep(0)
    assert not answering.done()
    ledger.open.set()
    assert await _read(await answering) == event("a") + DONE


@pytest.mark.parametrize("at", range(1, len(DONE)))
async def test_the_end_waits_for_the_outcome_wherever_it_is_cut(at: int) -> None:
    ledger = Gated()
    answer = await _gateway(ledger, streaming(event("a"), DONE[:at], DONE[at:])).complete(
        _request(model="m", stream=True)
    )
    sent = b""
    async for chunk in answer.chunks:
        sent += chunk
        assert b"[DONE]" not in sent or "Outcome" in ledger.log
    assert sent == event("a") + DONE


async def test_the_end_waits_for_the_outcome_without_a_space_before_it() -> None:
    """A colon without a space is the same event (WHATWG HTML, 9.2.6)."""
    ledger = Gated()
    answer = await _gateway(ledger, streaming(event("a"), b"data:[DONE]\n\n")).complete(
        _request(model="m", stream=True)
    )
    seen = [(chunk, "Outcome" in ledger.log) async for chunk in answer.chunks]
    assert seen[-1] == (b"data:[DONE]\n\n", True)
    assert _outcome(ledger).error == ""


async def test_a_call_is_traced_with_its_parent_its_user_and_its_numbers() -> None:
    ledger, clock = MemoryLedger(), Clock(step=0.25)
    model = ModelOptions(name="m", upstream="gpt", prompt_usd_per_million=1.0, completion_usd_per_million=10.0)
    provider = Scripted(PLAIN, model=model)
    answer = await _gateway(ledger, provider, clock=clock).complete(_request(model="m", user="u", x=1.5))
    call, outcome = _recorded(ledger, Call)[0], _outcome(ledger)
    assert (call.parent, call.user, call.model, call.stream, call.endpoint) == ("answer_1", "u", "m", False, "chat")
    assert (outcome.call, outcome.model, outcome.provider, outcome.status) == (call.id, "m", "scripted", 200)
    assert (outcome.prompt_tokens, outcome.completion_tokens, outcome.tokens_estimated) == (3, 2, False)
    assert outcome.cost_nusd == 3 * 1_000 + 2 * 10_000
    assert outcome.latency_ms > outcome.first_byte_ms > 0.0
    assert json.loads(provider.requests[0].body)["model"] == "gpt"
    assert answer.headers["x-windlass-call"] == call.id
    assert answer.headers["x-windlass-model"] == "m"
    assert "fixed@1 p=1.000" in answer.headers["x-windlass-why"]


@pytest.mark.parametrize(
    ("point", "said"),
    [
        (PointOptions(mode="live", policy="fixed", default="b"), "; the policy failed (KeyError), the default acted"),
        (PointOptions(mode="live", policy="fixed", options={"action": "gone"}), "; fell back: gone not eligible"),
    ],
)
async def test_the_header_says_that_a_fallback_chose(
    monkeypatch: pytest.MonkeyPatch, point: PointOptions, said: str
) -> None:
    if point.default:

        def breaks(*_: object) -> Choice:
            raise KeyError("/etc/secret")

        monkeypatch.setattr(Fixed, "choose", breaks)
    models = GatewayOptions(auto=("a", "b"))
    gateway = _gateway(MemoryLedger(), Echo("a", "b"), options=models, point=point)
    answer = await gateway.complete(_request(model="auto"))
    assert answer.headers["x-windlass-why"].endswith(said)
    assert "secret" not in answer.headers["x-windlass-why"]
    assert answer.headers["x-windlass-model"] == (point.default or "a")


def _ending(*reasons: str | None) -> bytes:
    return json.dumps({"choices": [{"message": {"content": "x"}, "finish_reason": one} for one in reasons]}).encode()


@pytest.mark.parametrize(
    ("reply", "kept"),
    [
        (_ending("stop"), None),
        (_ending("length"), ["length"]),
        (_ending("stop", "tool_calls"), ["stop", "tool_calls"]),
        (_ending(None), []),
        (_ending("\x00" + "x" * 9, "y" * 5_000), ["", "y" * 40]),
        (_ending(*["stop"] * 5_000), ["stop"] * 16),
    ],
)
async def test_why_an_answer_ended_is_kept_unless_it_is_the_usual(reply: bytes, kept: list[str] | None) -> None:
    ledger = MemoryLedger()
    await _read(await _gateway(ledger, Scripted(reply)).complete(_request(model="m")))
    assert _outcome(ledger).extra.get("finish_reasons") == kept


async def test_without_usage_the_tokens_are_a_marked_estimate() -> None:
    ledger = MemoryLedger()
    await _gateway(ledger, Scripted(b'{"choices":[{"message":{"content":"12345678"}}]}')).complete(_request(model="m"))
    outcome = _outcome(ledger)
    asked = estimate_tokens(chat()["messages"][0]["content"])
    assert (outcome.prompt_tokens, outcome.completion_tokens) == (asked, estimate_tokens("12345678"))
    assert outcome.tokens_estimated


async def test_bodies_are_kept_as_bytes_or_not_at_all() -> None:
    kept, bare = MemoryLedger(), MemoryLedger()
    request = _request(model="m")
    answer = await _gateway(kept, Scripted(PLAIN[:5], PLAIN[5:] + b" \n")).complete(request)
    bodies = kept.bodies(ALL, answer.transit.call.id)
    assert [(body.role, body.data) for body in bodies] == [("request", request.body), ("reply", PLAIN + b" \n")]
    assert bodies[0].expires_at == NOW + 30 * 86_400
    answer = await _gateway(bare, Scripted(PLAIN), options=GatewayOptions(keep_bodies=False)).complete(request)
    assert not bare.bodies(ALL, answer.transit.call.id)


# --- the point `model`


async def test_auto_leaves_the_choice_to_the_policy() -> None:
    ledger, echo = MemoryLedger(), Echo("a", "b")
    point = PointOptions(mode="live", policy="fixed", options={"action": "b"}, randomised_share=0.0)
    await _gateway(ledger, echo, point=point).complete(_request(model="auto"))
    (decision,) = _recorded(ledger, Decision)
    assert (decision.point, decision.actions, decision.action) == ("model", ("a", "b"), "b")
    assert (decision.live, decision.featuriser, echo.sent[0].model) == (True, "lexical@1", "b")
    assert json.loads(echo.sent[0].body)["model"] == "b"
    assert decision.context["messages"] == 1 / 20


async def test_auto_chooses_among_the_models_of_the_settings() -> None:
    ledger = MemoryLedger()
    gateway = _gateway(ledger, Echo("a", "b", "c"), options=GatewayOptions(auto=("c", "a")))
    await gateway.complete(_request(model="auto"))
    assert _recorded(ledger, Decision)[0].actions == ("c", "a")


async def test_a_named_model_is_the_only_action() -> None:
    ledger = MemoryLedger()
    await _gateway(ledger, Echo("a", "b")).complete(_request(model="b"))
    (decision,) = _recorded(ledger, Decision)
    assert (decision.actions, decision.action, decision.propensity) == (("b",), "b", 1.0)


async def test_a_policy_in_shadow_is_recorded_beside_the_default() -> None:
    ledger = MemoryLedger()
    point = PointOptions(mode="shadow", policy="fixed", options={"action": "b"}, default="a", randomised_share=0.0)
    await _gateway(ledger, Echo("a", "b"), point=point).complete(_request(model="auto"))
    assert [(d.action, d.live) for d in _recorded(ledger, Decision)] == [("a", True), ("b", False)]
    assert _outcome(ledger).model == "a"


# --- what is refused leaves nothing behind


@pytest.mark.parametrize(
    ("body", "refusal"),
    [
        (b"{", RequestError),
        (b"[]", RequestError),
        (json.dumps(chat(model="nope")).encode(), ModelUnknown),
        (b" " * 1024 * 1024 + b"{}", RequestError),
    ],
    ids=["json", "array", "model", "size"],
)
async def test_a_refused_call_reaches_neither_provider_nor_ledger(body: bytes, refusal: type[Exception]) -> None:
    ledger, echo = MemoryLedger(), Echo()
    with pytest.raises(refusal):
        await _gateway(ledger, echo).complete(Request(body))
    assert not ledger.read(ALL)
    assert not echo.sent


@pytest.mark.parametrize("fields", [{"user": "a\x00b"}, {"user": "a", "model": "a\x00b"}])
async def test_a_text_that_no_ledger_can_hold_is_refused_before_it_costs_anything(fields: dict[str, Any]) -> None:
    echo = Echo()
    with pytest.raises((RequestError, ModelUnknown)):
        await _gateway(MemoryLedger(), echo).complete(_request(**fields))
    assert not echo.sent


async def test_a_key_is_asked_for_before_the_body_is_read() -> None:
    ledger = MemoryLedger()
    gateway = _gateway(ledger, Echo())
    gateway.admission = Admission([KEY], 1024)
    with pytest.raises(AccessError):
        await gateway.complete(Request(b"not json"))


# --- what an upstream says, and what becomes of it


@pytest.mark.parametrize(
    ("status", "content_type", "body", "error"),
    [
        (400, "application/json", b'{"error": {"message": "no"}}', "upstream_request_refused"),
        (401, "application/json", b"{}", "upstream_key_refused"),
        (404, "text/plain", b"gone", "upstream_model_missing"),
        (429, "application/json", b'{"error": {"message": "slow down"}}', "rate_limited"),
        (500, "text/html", b"<html>\xff\xfe Oops</html>", "upstream_server_error"),
        (503, "application/json", b"", "model_overloaded"),
        (307, "text/plain", b"moved", "redirect_refused"),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
async def test_an_answer_goes_through_byte_for_byte_with_the_right_outcome(
    status: int, content_type: str, body: bytes, error: str, stream: bool
) -> None:
    ledger = MemoryLedger()
    provider = Scripted(body[:5], body[5:], status=status, content_type=content_type)
    answer = await _gateway(ledger, provider).complete(_request(model="m", stream=stream))
    assert (answer.status, answer.content_type, await _read(answer)) == (status, content_type, body)
    outcome = _outcome(ledger)
    assert (outcome.status, outcome.error) == (status, error)


async def test_a_completion_goes_through_byte_for_byte() -> None:
    ledger, body = MemoryLedger(), b' {"choices": [], "x_new": 1.50} \n'
    answer = await _gateway(ledger, Scripted(body[:5], body[5:])).complete(_request(model="m"))
    assert (answer.status, answer.content_type, await _read(answer)) == (200, "application/json", body)
    assert (_outcome(ledger).status, _outcome(ledger).error) == (200, "")


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("body", [b"<html>captive portal</html>", b"", b'{"error": {"message": "boom"}}'])
async def test_a_good_status_over_no_completion_is_not_a_success(body: bytes, stream: bool) -> None:
    """A router or a portal in between answers 200 to everything; the policy must not learn that all went well."""
    ledger = MemoryLedger()
    provider = Scripted(body)
    with pytest.raises(UpstreamError) as raised:
        await _gateway(ledger, provider).complete(_request(model="m", stream=stream))
    assert _outcome(ledger).error == classify(raised.value).value
    assert _outcome(ledger).status == 502
    assert provider.closed.is_set()


async def test_the_code_in_the_body_is_narrower_than_the_status() -> None:
    ledger = MemoryLedger()
    said = b'{"error": {"code": "insufficient_quota", "message": "pay"}}'
    await _gateway(ledger, Scripted(said, status=429)).complete(_request(model="m"))
    assert _outcome(ledger).error == ErrorCategory.QUOTA_SPENT.value


@pytest.mark.parametrize(
    "usage",
    [
        b'{"prompt_tokens": -5, "completion_tokens": -7}',
        b'{"prompt_tokens": 1000000000000000000000, "completion_tokens": 1}',
        b'{"prompt_tokens": 9223372036854775807, "completion_tokens": 9223372036854775807}',
        b'{"prompt_tokens": "3", "completion_tokens": 1.5}',
        b'{"prompt_tokens": null}',
        b"[]",
    ],
)
async def test_a_nonsensical_usage_costs_neither_the_reply_nor_the_ledger(usage: bytes) -> None:
    body = b'{"choices":[{"message":{"content":"12345678"},"finish_reason":"stop"}],"usage":' + usage + b"}"
    ledger = MemoryLedger()
    model = ModelOptions(name="m", prompt_usd_per_million=1.0, completion_usd_per_million=1.0)
    answer = await _gateway(ledger, Scripted(body, model=model)).complete(_request(model="m"))
    assert await _read(answer) == body
    assert _outcome(ledger).cost_nusd >= 0


async def test_unknown_fields_go_up_as_they_came() -> None:
    provider = Scripted(PLAIN)
    body = b'{"messages": [{"role": "user", "content": "h\\u00e9", "x": [1.0]}], "model": "m", "seed": 1e2, "z": {}}'
    await _gateway(MemoryLedger(), provider).complete(Request(body))
    assert provider.requests[0].body == body


async def test_a_provider_without_an_answer_is_recorded_and_raised() -> None:
    ledger = MemoryLedger()
    with pytest.raises(UpstreamError):
        await _gateway(ledger, Echo(failing=("echo",))).complete(_request())
    outcome = _outcome(ledger)
    assert (outcome.status, outcome.error) == (502, "upstream_failed")
    assert outcome.first_byte_ms == outcome.latency_ms
    assert len(_recorded(ledger, Call)) == len(_recorded(ledger, Decision)) == 1


async def test_a_plain_reply_that_breaks_off_is_recorded_and_raised() -> None:
    ledger = MemoryLedger()
    provider = Scripted(PLAIN[:9], UpstreamError("cut", category=ErrorCategory.STREAM_CUT))
    with pytest.raises(UpstreamError):
        await _gateway(ledger, provider).complete(_request(model="m"))
    assert _outcome(ledger).error == CUT
    assert provider.closed.is_set()


async def test_a_reply_beyond_the_limit_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(opening, "MOST_WHOLE_BYTES", 10)
    ledger, provider = MemoryLedger(), Scripted(b"x" * 6, b"x" * 6)
    with pytest.raises(UpstreamError, match="more than 10 bytes"):
        await _gateway(ledger, provider).complete(_request(model="m"))
    assert provider.closed.is_set()
    assert _outcome(ledger).status == 502


async def test_a_stream_beyond_the_limit_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_REPLY_BYTES", 100)
    ledger, provider = MemoryLedger(), streaming(*[event("x")] * 10, LAST, DONE)
    sent = await _read(await _gateway(ledger, provider).complete(_request(model="m", stream=True)))
    assert len(sent) < 500
    assert b"[DONE]" not in sent
    assert _outcome(ledger).error != ""


# --- streams that break


def _events(data: bytes) -> list[dict[str, Any]]:
    return [json.loads(line[6:]) for line in data.split(b"\n") if line.startswith(b"data: {")]


@pytest.mark.parametrize(
    "script",
    [
        (event("a"),),
        (event("a"), b'data: {"choices": [{"del'),
        (event("a"), UpstreamError("cut", category=ErrorCategory.STREAM_CUT)),
    ],
    ids=["no end", "half an event", "broken off"],
)
async def test_a_cut_stream_ends_with_an_error_and_never_with_done(script: Iterable[Any]) -> None:
    ledger = MemoryLedger()
    answer = await _gateway(ledger, streaming(*script)).complete(_request(model="m", stream=True))
    sent = await _read(answer)
    assert b"[DONE]" not in sent
    assert _outcome(ledger).error == CUT
    last = sent.rpartition(b"data: ")[2]
    assert json.loads(last)["error"]["code"] == CUT


@pytest.mark.parametrize("script", [(), (b": keep-alive\n\n",)], ids=["nothing", "comments"])
async def test_a_stream_without_an_event_never_begins(script: Iterable[Any]) -> None:
    ledger = MemoryLedger()
    with pytest.raises(UpstreamError):
        await _gateway(ledger, streaming(*script)).complete(_request(model="m", stream=True))
    assert _outcome(ledger).error == "stream_empty"


async def test_the_error_event_stands_alone_after_half_an_event() -> None:
    """Without a line break before it the client would read one broken event instead of the error."""
    half = b'data: {"choices": [{"del'
    answer = await _gateway(MemoryLedger(), streaming(event("a"), half)).complete(_request(model="m", stream=True))
    lines = (await _read(answer)).split(b"\n")
    assert any(line.startswith(b'data: {"error"') for line in lines)


async def test_an_idle_stream_says_so() -> None:
    ledger = MemoryLedger()
    idle = UpstreamError("idle", category=ErrorCategory.STREAM_IDLE)
    answer = await _gateway(ledger, streaming(event("a"), idle)).complete(_request(model="m", stream=True))
    assert _events(await _read(answer))[-1]["error"]["code"] == "stream_idle"
    assert _outcome(ledger).error == "stream_idle"


async def test_an_error_inside_the_stream_is_passed_on_and_recorded() -> None:
    ledger = MemoryLedger()
    said = b'data: {"error": {"message": "context length exceeded"}}\n\n'
    answer = await _gateway(ledger, streaming(event("a"), said, DONE)).complete(_request(model="m", stream=True))
    sent = await _read(answer)
    assert said in sent
    assert b"[DONE]" not in sent
    assert _outcome(ledger).error == CUT


async def test_what_stands_before_done_in_the_same_chunk_is_not_lost() -> None:
    said = b'data: {"error": {"message": "context length exceeded"}}\n\n'
    answer = await _gateway(MemoryLedger(), streaming(event("b"), event("a") + said + DONE)).complete(
        _request(model="m", stream=True)
    )
    sent = await _read(answer)
    assert event("a") in sent
    assert said in sent


async def test_bytes_after_the_end_leave_with_it() -> None:
    answer = await _gateway(MemoryLedger(), streaming(event("a"), DONE, b": bye\n\n")).complete(
        _request(model="m", stream=True)
    )
    assert await _read(answer) == event("a") + DONE + b": bye\n\n"


async def test_a_stream_without_done_but_with_a_finish_reason_is_whole() -> None:
    ledger = MemoryLedger()
    answer = await _gateway(ledger, streaming(event("a"), LAST)).complete(_request(model="m", stream=True))
    assert await _read(answer) == event("a") + LAST
    assert _outcome(ledger).error == ""


# --- clients that leave


async def _until(condition: asyncio.Event) -> None:
    async with asyncio.timeout(2):
        await condition.wait()


async def test_a_client_that_leaves_before_the_answer_is_recorded() -> None:
    class Slow(Echo):
        entered = asyncio.Event()
        stopped = False

        async def send(self, request: Any) -> Any:
            self.entered.set()
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                self.stopped = True
                raise

    ledger, slow = MemoryLedger(), Slow()
    answering = asyncio.create_task(_gateway(ledger, slow).complete(_request()))
    await _until(slow.entered)
    answering.cancel()
    with pytest.raises(asyncio.CancelledError):
        await answering
    assert slow.stopped
    assert (_outcome(ledger).status, _outcome(ledger).error) == (499, GONE)
    assert len(_recorded(ledger, Call)) == len(_recorded(ledger, Decision)) == 1


async def test_a_client_that_leaves_during_a_plain_reply_is_recorded() -> None:
    ledger, provider = MemoryLedger(), Scripted(PLAIN[:5], asyncio.Event())
    answering = asyncio.create_task(_gateway(ledger, provider).complete(_request(model="m")))
    async with asyncio.timeout(2):
        while not provider.requests:
            await asyncio.sleep(0)
    await asyncio.sleep(0)
    answering.cancel()
    with pytest.raises(asyncio.CancelledError):
        await answering
    assert provider.closed.is_set()
    assert (_outcome(ledger).status, _outcome(ledger).error) == (499, GONE)


async def test_a_client_that_leaves_after_the_first_byte_stops_the_upstream() -> None:
    ledger, provider = MemoryLedger(), streaming(event("a"), event("b"), LAST, DONE)
    answer = await _gateway(ledger, provider).complete(_request(model="m", stream=True))
    assert await anext(answer.chunks) == event("a")
    await answer.chunks.aclose()
    assert provider.closed.is_set()
    assert (_outcome(ledger).error, _outcome(ledger).completion_tokens) == (GONE, 1)


@pytest.mark.parametrize("begun", [1, 2])
async def test_a_stream_that_is_left_is_closed_all_the_way_in(begun: int) -> None:
    """What a generator within it leaves to the collector ends some time later, or never where the loop ends first."""
    before, left = sys.get_asyncgen_hooks(), list[Any]()
    answer = await _gateway(MemoryLedger(), streaming(event("a"), event("b"), LAST, DONE)).complete(
        _request(model="m", stream=True)
    )
    sys.set_asyncgen_hooks(finalizer=left.append)
    try:
        for _ in range(begun):
            await anext(answer.chunks)
        await answer.chunks.aclose()
        gc.collect()
    finally:
        sys.set_asyncgen_hooks(*before)
    assert left == []


async def test_a_client_that_leaves_while_a_stream_is_silent_stops_the_upstream() -> None:
    ledger, provider = MemoryLedger(), streaming(event("a"), asyncio.Event())
    answer = await _gateway(ledger, provider).complete(_request(model="m", stream=True))
    assert await anext(answer.chunks) == event("a")
    reading = asyncio.create_task(_read(answer))
    await asyncio.sleep(0)
    reading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reading
    assert provider.closed.is_set()
    assert _outcome(ledger).error == GONE


async def test_a_client_that_leaves_before_the_stream_began_stops_the_upstream() -> None:
    """The answer's generator has not begun; closing such a one runs none of its lines."""
    ledger, provider = MemoryLedger(), streaming(event("a"), DONE)
    answer = await _gateway(ledger, provider).complete(_request(model="m", stream=True))
    await answer.chunks.aclose()
    assert provider.closed.is_set()
    assert _outcome(ledger).error == GONE


async def test_a_client_that_leaves_while_a_streams_call_is_committed_stops_the_upstream() -> None:
    ledger, provider = Gated(), streaming(event("a"), DONE)
    ledger.open.clear()
    answering = asyncio.create_task(_gateway(ledger, provider).complete(_request(model="m", stream=True)))
    await _until(ledger.waiting)
    answering.cancel()
    ledger.open.set()
    with pytest.raises(asyncio.CancelledError):
        await answering
    await asyncio.sleep(0.01)
    assert provider.closed.is_set()
    assert _outcome(ledger).error == GONE


async def test_a_client_that_leaves_while_its_reply_is_committed_is_still_charged() -> None:
    """The provider has done its work and wants its money: the call may not vanish from the ledger."""
    ledger = Gated()
    ledger.open.clear()
    answering = asyncio.create_task(_gateway(ledger, Scripted(PLAIN)).complete(_request(model="m")))
    await _until(ledger.waiting)
    answering.cancel()
    ledger.open.set()
    with pytest.raises(asyncio.CancelledError):
        await answering
    await asyncio.sleep(0.01)
    assert _outcome(ledger).completion_tokens == 2


async def test_a_ledger_that_fails_does_not_leave_the_upstream_running() -> None:
    ledger, provider = MemoryLedger(), streaming(event("a"), DONE)
    gateway = _gateway(ledger, provider)
    ledger.close()
    with pytest.raises(LedgerError):
        await gateway.complete(_request(model="m", stream=True))
    assert provider.closed.is_set()


# --- money


def _exact(model: ModelOptions, prompt: int, completion: int) -> int:
    usd = (
        Decimal(repr(model.prompt_usd_per_million)) * prompt
        + Decimal(repr(model.completion_usd_per_million)) * completion
    )
    return int((usd * 1000).quantize(Decimal(1), ROUND_HALF_EVEN))


@pytest.mark.parametrize(
    ("price", "tokens", "nusd"),
    [(0.0005, 1, 0), (0.0015, 1, 2), (0.0025, 1, 2), (0.0035, 1, 4), (1.0, 1, 1_000), (0.0, 10**9, 0)],
)
def test_half_a_nano_dollar_goes_to_the_even_side(price: float, tokens: int, nusd: int) -> None:
    into = price_of(ModelOptions(name="m", prompt_usd_per_million=price), None)
    out = price_of(ModelOptions(name="m", completion_usd_per_million=price), None)
    assert cost_nusd(into, Usage(prompt_tokens=tokens, completion_tokens=0)) == nusd
    assert cost_nusd(out, Usage(prompt_tokens=0, completion_tokens=tokens)) == nusd


PRICE = st.integers(0, 10_000_000).map(lambda units: units / 10_000)


@given(PRICE, PRICE, st.integers(0, 200_000), st.integers(0, 20_000))
@example(92.628, 50.3925, 86_132, 5_571)
@example(5.3895, 14_499.17, 4_791, 6_594)
def test_money_is_exact_in_the_decimal_prices_of_the_settings(a: float, b: float, prompt: int, completion: int) -> None:
    model = ModelOptions(name="m", prompt_usd_per_million=a, completion_usd_per_million=b)
    usage = Usage(prompt_tokens=prompt, completion_tokens=completion)
    assert cost_nusd(price_of(model, None), usage) == _exact(model, prompt, completion)


async def test_a_call_is_recorded_for_the_tenant_of_its_key() -> None:
    ledger = MemoryLedger()
    gateway = _gateway(ledger, Echo())
    gateway.admission = Admission([KEY], 1024)
    await gateway.complete(Request(json.dumps(chat()).encode(), key="secret-ops", workspace="two"))
    assert {entry.record.scope for entry in ledger.read(ALL)} == {Scope("acme", "two")}


@pytest.mark.parametrize(
    "message",
    [
        b'{"content": null, "tool_calls": [{"id": "t", "function": {"name": "f", "arguments": "{}"}}]}',
        b'{"content": [{"type": "text", "text": "parts"}]}',
        b'{"content": "x", "reasoning": {"steps": []}}',
        b'{"refusal": "no"}',
        b"{}",
    ],
)
async def test_a_completion_in_another_dialect_is_still_one(message: bytes) -> None:
    """Calls of tools, contents in parts: what we do not read is no failure of the provider."""
    ledger = MemoryLedger()
    body = b'{"choices": [{"message": ' + message + b', "finish_reason": "tool_calls"}], "usage": null}'
    answer = await _gateway(ledger, Scripted(body)).complete(_request(model="m"))
    assert await _read(answer) == body
    assert _outcome(ledger).error == ""


@pytest.mark.parametrize("stream", [False, True])
async def test_a_provider_with_a_bug_is_recorded_as_that(stream: bool) -> None:
    """The client did not leave; who reads `client_gone` would look in the wrong place."""
    ledger = MemoryLedger()
    provider = (streaming if stream else Scripted)(event("a"), ValueError("a bug in a provider"))
    with pytest.raises(ValueError, match="a bug"):
        await _read(await _gateway(ledger, provider).complete(_request(model="m", stream=stream)))
    await asyncio.sleep(0.01)
    assert provider.closed.is_set()
    assert _outcome(ledger).error not in ("", GONE)


async def test_a_provider_whose_send_has_a_bug_leaves_a_record() -> None:
    class Buggy(Echo):
        async def send(self, request: Any) -> Any:
            raise ValueError("a bug in a provider")

    ledger = MemoryLedger()
    with pytest.raises(ValueError, match="a bug"):
        await _gateway(ledger, Buggy()).complete(_request())
    assert _outcome(ledger).error != ""


async def test_one_very_long_event_does_not_hold_the_loop() -> None:
    """An image in a stream is one line of megabytes; joining it anew with every chunk takes the square of that."""
    line = b'data: {"choices": [{"delta": {"content": "' + b"x" * 4_000_000 + b'"}}]}\n\n'
    chunks = [line[start : start + 4_096] for start in range(0, len(line), 4_096)]
    answer = await _gateway(MemoryLedger(), streaming(*chunks, DONE)).complete(_request(model="m", stream=True))
    started = time.process_time()
    assert len(await _read(answer)) == len(line) + len(DONE)
    assert time.process_time() - started < 1.0
