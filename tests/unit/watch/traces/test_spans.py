"""Records as spans: one golden file for all kinds, and that no record, whatever it holds, has none."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from google.protobuf.json_format import MessageToDict
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from windlass.gateway.options import ModelOptions, ProviderOptions
from windlass.gateway.resilience.attempt import Attempt
from windlass.ledger.ledger import Body
from windlass.records import Call, Decision, Feedback, Outcome
from windlass.watch.traces import messages, names, otlp, spans
from windlass.watch.traces.span import TraceContext, TraceSpan, ns, traceparent

GOLDEN = Path(__file__).parents[3] / "golden" / "traces.json"
AT = 1_800_000_000.25
PLACE = TraceContext(bytes(range(16)), bytes(range(8)))
MODEL = (ModelOptions(name="large"),)
KNOWN = spans.servers(
    [
        ProviderOptions(name="main", models=MODEL, base_url="https://api.openai.com/v1"),
        ProviderOptions(name="claude", models=MODEL, kind="anthropic"),
        ProviderOptions(name="mine", models=MODEL, base_url="http://10.0.0.7:8000/v1"),
    ]
)
CALL = Call(id="call_1", at=AT, tenant="acme", endpoint="chat", model="auto", stream=True, user="ada", parent="run_1")
ATTEMPTS = (
    Attempt(provider="claude", model="large", started_ms=0.5, took_ms=20.0, status=503, category="model_overloaded"),
    Attempt(provider="main", model="large", started_ms=21.0, took_ms=30.0, status=200, bill="outcome"),
)
OUTCOME = Outcome(
    id="outcome_1",
    at=AT + 1,
    tenant="acme",
    call="call_1",
    model="large",
    provider="main",
    status=200,
    latency_ms=120.5,
    first_byte_ms=51.0,
    prompt_tokens=7,
    completion_tokens=8,
    cost_nusd=23_000_000,
    extra={"attempts": [msgspec.to_builtins(one) for one in ATTEMPTS]},
)
DECISION = Decision(
    id="decision_1",
    at=AT,
    tenant="acme",
    call="call_1",
    point="model",
    policy="linear_thompson@3",
    actions=("large", "small"),
    action="large",
    propensity=0.75,
    live=True,
    extra={"why": "0.8 against 0.6"},
)
FEEDBACK = Feedback(
    id="feedback_1",
    at=AT + 60,
    tenant="acme",
    target="call_1",
    kind="rating",
    source="user",
    value=0.5,
    comment="rather long",
)


def _decoded(made: Iterable[TraceSpan]) -> Any:
    sent = otlp.request(list(made), {names.SERVICE: "windlass"}, "1.2.3")
    return MessageToDict(ExportTraceServiceRequest.FromString(sent))


def _every() -> list[TraceSpan]:
    failed = msgspec.structs.replace(OUTCOME, id="outcome_2", error="connect_refused", status=502, extra={})
    failed = msgspec.structs.replace(failed, prompt_tokens=0, completion_tokens=0, cost_nusd=0, provider="gone")
    plain = msgspec.structs.replace(CALL, id="call_2", stream=False, user="", parent="", endpoint="embeddings")
    return [
        *spans.of_call(CALL, OUTCOME, PLACE, KNOWN, {}),
        *spans.of_call(plain, failed, TraceContext(PLACE.trace_id), KNOWN, {}),
        spans.of_decision(DECISION, PLACE),
        spans.of_feedback(FEEDBACK, PLACE, words=False),
    ]


def test_spans_are_as_they_were() -> None:
    """Who changes a name on purpose writes the file anew: `json.dumps(found, indent=1, sort_keys=True)`."""
    found = json.dumps(_decoded(_every()), indent=1, sort_keys=True) + "\n"
    assert found == GOLDEN.read_text()


def test_a_record_has_the_same_ids_whenever_it_is_sent() -> None:
    ids = [(span.trace_id, span.span_id) for span in _every()]
    assert ids == [(span.trace_id, span.span_id) for span in _every()]
    assert len(set(ids)) == len(ids)
    assert {len(span) for _, span in ids} == {8}
    other = msgspec.structs.replace(CALL, tenant="other")
    (first, *_), (second, *_) = (spans.of_call(call, OUTCOME, PLACE, KNOWN, {}) for call in (CALL, other))
    assert first.span_id != second.span_id, "two tenants may use one id"


def test_tokens_and_costs_are_told_once() -> None:
    """What backends sum up stands on the call alone, not again on each attempt."""
    call, *attempts = spans.of_call(CALL, OUTCOME, PLACE, KNOWN, {})
    assert len(attempts) == 2
    assert call.attributes[names.COST_USD] == 0.023
    for attempt in attempts:
        assert not [name for name in attempt.attributes if name.startswith("gen_ai.")]
        assert attempt.parent_id == call.span_id


@pytest.mark.parametrize(
    ("extra", "changes", "reasons"),
    [
        ({}, {}, ["stop"]),
        ({"finish_reasons": ["length", "tool_calls"]}, {}, ["length", "tool_calls"]),
        ({"finish_reasons": []}, {}, None),
        ({"finish_reasons": ["length"]}, {"error": "client_gone"}, ["length"]),
        ({"finish_reasons": "length"}, {"error": "client_gone"}, None),
        ({"finish_reasons": [1, None, "x" * 10_000]}, {}, ["x" * (spans.MOST_CHARS - 1) + "…"]),
        ({}, {"error": "connect_refused"}, None),
        ({"imported": "litellm"}, {}, None),
    ],
)
def test_why_an_answer_ended_is_told(extra: dict[str, Any], changes: dict[str, Any], reasons: list[str] | None) -> None:
    outcome = msgspec.structs.replace(OUTCOME, extra=extra, **changes)
    (span, *_) = spans.of_call(CALL, outcome, PLACE, KNOWN, {})
    assert span.attributes.get("gen_ai.response.finish_reasons") == reasons
    vectors = msgspec.structs.replace(CALL, endpoint="embeddings")
    (span, *_) = spans.of_call(vectors, msgspec.structs.replace(OUTCOME, extra={}), PLACE, KNOWN, {})
    assert "gen_ai.response.finish_reasons" not in span.attributes


def test_providers_have_the_names_of_the_conventions() -> None:
    assert {name: server.provider for name, server in KNOWN.items()} == {
        "main": "openai",
        "claude": "anthropic",
        "mine": "mine",
    }
    assert (KNOWN["mine"].host, KNOWN["mine"].port, KNOWN["main"].port) == ("10.0.0.7", 8000, 443)


def test_no_name_and_no_word_leaves_unless_it_is_asked_for() -> None:
    told = str(_every())
    assert "ada" not in told
    assert "rather long" not in told
    assert "rather long" in str(spans.of_feedback(FEEDBACK, PLACE, words=True))


@pytest.mark.parametrize(
    ("endpoint", "request_", "reply", "asked", "answered"),
    [
        ("chat", b'{"model":"m","messages":[{"role":"user","content":"Why?"}]}', b"", "Why?", None),
        (
            "chat",
            b"no JSON \xff",
            b'{"choices":[{"index":0,"message":{"role":"assistant","content":"So."},"finish_reason":"stop"}]}',
            "no JSON \ufffd",
            "So.",
        ),
        ("responses", b'{"input":"Why?"}', b"{}", '{"input":"Why?"}', "{}"),
    ],
)
def test_what_was_said_is_sent_in_messages(
    endpoint: str, request_: bytes, reply: bytes, asked: str, answered: str | None
) -> None:
    call = msgspec.structs.replace(CALL, endpoint=endpoint, stream=False)
    bodies = [
        Body(id=role, at=AT, call="call_1", role=role, data=data, expires_at=AT)  # type: ignore[arg-type]
        for role, data in (("request", request_), ("reply", reply))
    ]
    found = {name: json.loads(text) for name, text in messages.attributes(call, bodies).items()}
    assert found[names.INPUT_MESSAGES] == [{"role": "user", "parts": [{"type": "text", "content": asked}]}]
    replies = [part["content"] for message in found[names.OUTPUT_MESSAGES] for part in message["parts"]]
    assert replies == ([] if answered is None else [answered])


def test_a_long_talk_is_cut_at_its_beginning() -> None:
    said = [{"role": "user", "content": f"{number} " + "x" * 20_000} for number in range(10)]
    body = Body(
        id="b",
        at=AT,
        call="c",
        role="request",
        data=json.dumps({"model": "m", "messages": said}).encode(),
        expires_at=AT,
    )
    found = json.loads(messages.attributes(CALL, [body])[names.INPUT_MESSAGES])
    assert [message["parts"][0]["content"][0] for message in found] == ["6", "7", "8", "9"]
    assert len(json.dumps(found)) < messages.MOST_CHARS + 1_000


@pytest.mark.parametrize(
    "parent",
    [
        "",
        "call_1",
        "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7",
        "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
        "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
        "00-4BF92F3577B34DA6A3CE929D0E0E4736-00F067AA0BA902B7-01",
    ],
)
def test_what_is_no_traceparent_is_none(parent: str) -> None:
    assert traceparent(parent) is None


TEXTS = st.text(max_size=20) | st.just("x" * 9_000)
FLOATS = st.floats(allow_nan=True, allow_infinity=True)
JSON = st.recursive(
    st.none() | st.booleans() | FLOATS | st.integers() | TEXTS | st.just("half \ud800"),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=5), inner, max_size=2),
    max_leaves=4,
)
EXTRA = st.fixed_dictionaries({}, optional={"attempts": JSON, "why": JSON, "shadow": JSON})


@settings(max_examples=60, deadline=None)
@given(texts=st.tuples(*[TEXTS] * 6), floats=st.tuples(*[FLOATS] * 4), whole=st.integers(), extra=EXTRA)
def test_every_record_can_be_sent(texts: tuple[str, ...], floats: tuple[float, ...], whole: int, extra: Any) -> None:
    one, two, three, four, five, six = texts
    at, latency, first, value = floats
    call = Call(id=one, at=at, endpoint=two, model=three, parent=four, user=five, stream=whole % 2 == 0)
    outcome = Outcome(
        id=one, at=at, call=one, model=two, provider=three, status=whole, latency_ms=latency, first_byte_ms=first,
        prompt_tokens=whole, completion_tokens=whole, cost_nusd=min(abs(whole), 10**15), error=six, extra=extra,
    )  # fmt: skip
    decision = Decision(
        id=one, at=at, call=two, point=three, policy=four, actions=(five, six), action=five, propensity=value,
        live=whole % 2 == 0, extra=extra,
    )  # fmt: skip
    said = Feedback(id=one, at=at, target=two, kind="rating", source="user", metric=three, value=value, comment=four)
    made = [*spans.of_call(call, outcome, PLACE, KNOWN, {}), spans.of_decision(decision, PLACE)]
    decoded = _decoded([*made, spans.of_feedback(said, PLACE, words=True)])
    assert len(decoded["resourceSpans"][0]["scopeSpans"][0]["spans"]) >= 3
    assert all(0 <= span.start_ns <= span.end_ns < 2**64 for span in made)


@pytest.mark.parametrize("at", [float("nan"), float("-inf"), -1.0, 0.0])
def test_a_time_before_all_times_is_the_first(at: float) -> None:
    assert ns(at) == 0
