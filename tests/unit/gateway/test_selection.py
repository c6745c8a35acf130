"""`auto` beside chats: who embeds and who listens is chosen by a policy, recorded and learned; vectors never mix."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.golden.application import opened
from tests.unit.gateway.test_embeddings import Directions

from windlass.errors import AccessError, ModelUnknown, RequestError, SettingsError, UpstreamError
from windlass.gateway.access.admission import Caller
from windlass.gateway.feedback import FeedbackRequest
from windlass.gateway.gateway import Answer, Request
from windlass.gateway.money.pricelist import PriceBook
from windlass.gateway.options import GatewayOptions, ModelOptions
from windlass.gateway.provider import JSON, EmbeddingRequest, ProviderReply, ProviderRequest, Providers, RawRequest
from windlass.gateway.providers.local import EMBEDDING, Local
from windlass.gateway.relay import Once
from windlass.gateway.route import kinds
from windlass.gateway.selection import Choosing, selected
from windlass.gateway.wire import parse_embedding
from windlass.ledger.ledger import CallTrace
from windlass.policies.loop import Loop
from windlass.policies.points import GuardOptions, PointOptions
from windlass.records import Call, Scope
from windlass.runtime import Runtime
from windlass.settings import load

JOINT: dict[str, Any] = {"policy": "joint_thompson", "mode": "live"}
SPACE = {"space": "small"}
MODELS = (
    ModelOptions(name="chat"),
    ModelOptions(name="small-a", serves="embeddings", prompt_usd_per_million=1.0, space="small"),
    ModelOptions(name="small-b", serves="embeddings", prompt_usd_per_million=50.0, space="small"),
    ModelOptions(name="large", serves="embeddings", prompt_usd_per_million=100.0),
    ModelOptions(name="whisper", serves="transcriptions", audio_usd_per_minute=0.006),
    ModelOptions(name="turbo", serves="transcriptions", audio_usd_per_minute=0.0006),
)
BOTH = ("small-a", "small-b")
HEARD = ("whisper", "turbo")


class Studio:
    """One upstream for everything: vectors of two numbers, and what it heard. `failing` models raise."""

    name = "up"
    local = False

    def __init__(self, *failing: str, models: tuple[ModelOptions, ...] = MODELS):
        self.models = models
        self.embedding_models = models
        self.asked: list[tuple[str, bytes]] = []
        self._failing = failing

    async def send(self, request: ProviderRequest) -> ProviderReply:
        raise UpstreamError("it chats not", status=None)

    async def embed(self, request: EmbeddingRequest) -> ProviderReply:
        rows = [{"object": "embedding", "index": row, "embedding": [0.5, 1.0]} for row in range(request.input.count)]
        return self._said(request.model, request.body, {"object": "list", "data": rows, "usage": {"prompt_tokens": 9}})

    def serves(self, endpoint: str) -> bool:
        return endpoint.startswith("audio.")

    async def relay(self, request: RawRequest) -> ProviderReply:
        return self._said(request.model, request.body, {"text": "Ahoy", "duration": 60.0})

    def _said(self, model: str, body: bytes, said: Any) -> ProviderReply:
        self.asked.append((model, body))
        if model in self._failing:
            raise UpstreamError(f"{model} is set to fail", status=None)
        return ProviderReply(200, JSON, Once(json.dumps(said).encode()))

    async def close(self) -> None:
        """Nothing is held open."""


@asynccontextmanager
async def studio(
    folder: Path, *failing: str, points: Any = None, models: tuple[ModelOptions, ...] = MODELS, **changes: Any
) -> AsyncIterator[tuple[Runtime, Studio]]:
    up = Studio(*failing, models=models)
    given = {"points": {"model": JOINT} if points is None else points, "resilience__attempts": 1} | changes
    async with opened(folder, providers=(up,), **given) as runtime:
        yield runtime, up


def _embedding(texts: Any = "Ahoy", model: str = "auto") -> Request:
    return Request(msgspec.json.encode({"model": model, "input": texts, "user": "ann"}), endpoint="embeddings")


def _sound(model: str = "auto", endpoint: str = "audio.transcriptions", seconds: float = 60.0) -> Request:
    parts = [
        b'--b\r\ncontent-disposition: form-data; name="file"; filename="a.mp3"\r\n\r\n',
        b"\x00\xff" * int(seconds * 8_000),
        b'\r\n--b\r\ncontent-disposition: form-data; name="model"\r\n\r\n' + model.encode() + b"\r\n--b--\r\n",
    ]
    path = "/" + endpoint.replace(".", "/")
    kind = "multipart/form-data; boundary=b"
    return Request(b"".join(parts), endpoint=endpoint, path=path, content_type=kind)


async def _call(runtime: Runtime, request: Request, caller: Caller | None = None) -> tuple[Answer, CallTrace]:
    asked = request if caller is None else msgspec.structs.replace(request, caller=caller)
    answer = await runtime.gateway.complete(asked)
    async for _ in answer.chunks:
        pass
    trace = runtime.ledger.trace(answer.transit.call.scope, answer.transit.call.id)
    assert trace is not None
    return answer, trace


async def test_the_embedding_model_is_chosen_recorded_and_costed(tmp_path: Path) -> None:
    async with studio(tmp_path, gateway__auto_embeddings=BOTH) as (runtime, up):
        answer, trace = await _call(runtime, _embedding(["Ahoy", "there"]))
    (decision,) = trace.decisions
    assert (decision.point, decision.actions, decision.live) == ("model_embeddings", BOTH, True)
    assert 0.0 < decision.propensity < 1.0
    assert decision.policy == "joint_thompson@1"
    assert decision.featuriser == "embeddings@1"
    assert decision.context["cost_nusd:small-b"] == pytest.approx(50.0 * decision.context["cost_nusd:small-a"])  # type: ignore[operator]
    assert trace.outcome is not None
    assert trace.outcome.model == decision.action == answer.headers["x-windlass-model"]
    assert trace.outcome.cost_nusd == 9 * (1_000 if decision.action == "small-a" else 50_000)
    assert answer.headers["x-windlass-why"].startswith("joint_thompson@1 p=")
    assert json.loads(up.asked[0][1])["model"] == decision.action


async def test_the_transcription_model_is_chosen_and_named_in_the_form(tmp_path: Path) -> None:
    async with studio(tmp_path, gateway__auto_transcriptions=HEARD) as (runtime, up):
        answer, trace = await _call(runtime, _sound())
        _, translated = await _call(runtime, _sound(endpoint="audio.translations"))
    (decision,) = trace.decisions
    assert (decision.point, decision.actions) == ("model_transcriptions", HEARD)
    assert decision.context["cost_nusd:whisper"] == pytest.approx(6_000_000, rel=0.01), "a minute by its bytes"
    assert b'name="model"\r\n\r\n' + decision.action.encode() + b"\r\n--b--" in up.asked[0][1]
    assert trace.outcome is not None
    assert trace.outcome.cost_nusd == (6_000_000 if decision.action == "whisper" else 600_000)
    assert answer.headers["x-windlass-model"] == decision.action
    assert translated.decisions[0].context["translates"] == 1.0


async def test_feedback_teaches_who_is_chosen(tmp_path: Path) -> None:
    points = {"model": {**JOINT, "options": {"quality_per_usd": 0.0}}}
    async with studio(tmp_path, points=points, gateway__auto_transcriptions=HEARD) as (runtime, _):
        chosen: Counter[str] = Counter()
        for number in range(60):
            _, trace = await _call(runtime, _sound(seconds=1.0))
            action = trace.decisions[0].action
            chosen[action] += number >= 30
            value = 0.95 if action == "whisper" else 0.1
            await runtime.feedback(Scope(), FeedbackRequest(target=trace.call.id, kind="rating", value=value))
            await runtime.caught_up()
        context, actions = trace.decisions[0].context, trace.decisions[0].actions
        learned = {
            arm.action: arm.mean for arm in runtime.loop.explain(kinds.TRANSCRIPTIONS, Scope(), context, actions)
        }
        chats = runtime.loop.explain("model", Scope(), {}, ("chat", "whisper"))
    assert chosen["whisper"] > chosen["turbo"]
    assert learned["whisper"] == pytest.approx(0.95, abs=0.2)
    assert {arm.observations for arm in chats} == {0}, "what is learned of speech says nothing of chats"


async def test_vectors_of_two_spaces_are_refused(tmp_path: Path) -> None:
    async with studio(tmp_path) as (runtime, up):
        with pytest.raises(RequestError, match=r"small-a, small-b \(space 'small'\) and large .* do not compare"):
            await _call(runtime, _embedding())
        assert up.asked == []
        assert runtime.ledger.head() == 0
    apart = [{"name": "p", "base_url": "http://localhost/v1", "models": [{"name": "a"}, {"name": "b", **SPACE}]}]
    with pytest.raises(SettingsError, match=r"gateway.auto_embeddings: vectors of a .* do not compare"):
        load({"gateway.auto_embeddings": ["a", "b"], "providers": apart}, environ={"HOME": str(tmp_path)})
    same = [
        {"name": "p", "base_url": "http://localhost/v1", "models": [{"name": "a", **SPACE}, {"name": "b", **SPACE}]}
    ]
    load({"gateway.auto_embeddings": ["a", "b"], "providers": same}, environ={"HOME": str(tmp_path)})


def test_the_embedder_of_this_process_is_a_model_for_nothing() -> None:
    own = Local(Directions(), lambda: 0.0)
    hosted = Studio(models=(ModelOptions(name="hosted", prompt_usd_per_million=1.0, space=EMBEDDING),))
    loop = Loop({kinds.EMBEDDINGS: PointOptions("live", "joint_thompson")})
    options = GatewayOptions(auto_embeddings=(EMBEDDING, "hosted"))
    by = Choosing(Providers([hosted, own]), options, loop, PriceBook({"up": ("x", "")}))
    call = Call(id="call_01a3185c5000aaaaaaaaaaaaaaaaaaaa", at=1.8e9, endpoint="embeddings", model="auto")
    asked = parse_embedding(_embedding().body)
    found = selected(by, call, asked, Caller(Scope(), "admin", ""))
    assert found.decisions[0].context[f"cost_nusd:{EMBEDDING}"] == 0.0
    assert {one.model.name for one in found.targets} == {EMBEDDING, "hosted"}
    unset = by._replace(options=GatewayOptions())
    alone = selected(unset, call, asked, Caller(Scope(), "admin", ""))
    assert ([one.model.name for one in alone.targets], alone.decisions) == ([EMBEDDING], ())
    mixed = by._replace(providers=Providers([Studio(models=(ModelOptions(name="hosted"),)), own]))
    with pytest.raises(RequestError, match="do not compare"):
        selected(mixed, call, asked, Caller(Scope(), "admin", ""))


@pytest.mark.parametrize("endpoint", ["embeddings", "audio.transcriptions"])
async def test_whoever_fails_is_replaced_by_another_one_of_the_same(tmp_path: Path, endpoint: str) -> None:
    points = {"model": {"policy": "fixed", "mode": "live", "randomised_share": 0.0}}
    lists = {"gateway__auto_embeddings": BOTH, "gateway__auto_transcriptions": HEARD}
    async with studio(tmp_path, "small-a", "whisper", points=points, resilience__attempts=2, **lists) as (runtime, up):
        answer, trace = await _call(runtime, _embedding() if endpoint == "embeddings" else _sound())
    first, other = BOTH if endpoint == "embeddings" else HEARD
    assert [model for model, _ in up.asked] == [first, other]
    assert (trace.decisions[0].action, answer.headers["x-windlass-model"]) == (first, other)
    assert answer.status == 200


async def test_speech_is_billed_by_the_minute_where_no_tokens_are_told(tmp_path: Path) -> None:
    async with studio(tmp_path) as (runtime, _):
        _, trace = await _call(runtime, _sound("whisper"))
    assert trace.outcome is not None
    assert (trace.outcome.cost_nusd, trace.outcome.prompt_tokens) == (6_000_000, 0)


async def test_a_key_gets_what_it_may_use_alone(tmp_path: Path) -> None:
    def caller(*models: str) -> Caller:
        return Caller(Scope(), "operator", "", models=models)

    async with studio(tmp_path, gateway__auto_embeddings=BOTH) as (runtime, _):
        for _ in range(5):
            _, trace = await _call(runtime, _embedding(), caller("small-b", "chat"))
            assert (trace.decisions[0].actions, trace.decisions[0].propensity) == (("small-b",), 1.0)
        with pytest.raises(AccessError, match="may use none of small-a, small-b"):
            await _call(runtime, _embedding(), caller("chat"))
        assert len(runtime.ledger.calls(Scope())) == 5


async def test_where_there_is_one_nothing_is_decided(tmp_path: Path) -> None:
    models = tuple(model for model in MODELS if model.name in ("chat", "large", "whisper"))
    async with studio(tmp_path, models=models) as (runtime, up):
        _, vectors = await _call(runtime, _embedding())
        _, heard = await _call(runtime, _sound())
        points = set(runtime.loop.points)
    assert [model for model, _ in up.asked] == ["large", "whisper"]
    assert (vectors.decisions, heard.decisions) == ((), ())
    assert not points & set(kinds.KINDS)


async def test_where_there_is_none_the_remedy_is_told(tmp_path: Path) -> None:
    async with studio(tmp_path, models=MODELS[:1]) as (runtime, _):
        with pytest.raises(ModelUnknown, match=r"pip install windlass\[embeddings\]|models that do: chat"):
            await _call(runtime, _embedding())
        with pytest.raises(RequestError, match="has no model for audio.transcriptions; name a model, or give one"):
            await _call(runtime, _sound())
    async with studio(tmp_path, gateway__auto_embeddings=("gone",)) as (runtime, _):
        with pytest.raises(ModelUnknown, match="'gone' makes no embeddings"):
            await _call(runtime, _embedding())


@pytest.mark.parametrize("endpoint", ["audio.speech", "images.generations", "moderations"])
async def test_elsewhere_auto_chooses_nothing(tmp_path: Path, endpoint: str) -> None:
    async with studio(tmp_path) as (runtime, up):
        request = Request(b'{"model":"auto","input":"x"}', endpoint=endpoint, path="/" + endpoint.replace(".", "/"))
        with pytest.raises(RequestError, match=r"not for the endpoint .*; name a model"):
            await _call(runtime, request)
        assert up.asked == []


async def test_a_named_model_is_asked_as_ever(tmp_path: Path) -> None:
    async with studio(tmp_path, gateway__auto_embeddings=BOTH) as (runtime, up):
        _, trace = await _call(runtime, _embedding(model="large"))
        _, heard = await _call(runtime, _sound("turbo"))
    assert [model for model, _ in up.asked] == ["large", "turbo"]
    assert (trace.decisions, heard.decisions) == ((), ())


@pytest.mark.parametrize(
    "texts", ["", [], [""], [[1, 2]], ["x"] * 100, "x" * 100_000, "\x00\ud7ff", [3, 4]], ids=range(8)
)
async def test_odd_input_is_refused_or_chosen_for(tmp_path: Path, texts: Any) -> None:
    async with studio(tmp_path, gateway__auto_embeddings=BOTH) as (runtime, _):
        try:
            _, trace = await _call(runtime, _embedding(texts))
        except RequestError:
            assert runtime.ledger.head() == 0
        else:
            assert all(abs(value) < 1e12 for value in trace.decisions[0].context.values())  # type: ignore[arg-type]


async def test_one_tenants_feedback_moves_no_other_ones_choice(tmp_path: Path) -> None:
    acme = Caller(Scope("acme", "default"), "operator", "")
    async with studio(tmp_path, gateway__auto_embeddings=BOTH) as (runtime, _):
        for _ in range(10):
            _, trace = await _call(runtime, _embedding(), acme)
            await runtime.feedback(acme.scope, FeedbackRequest(target=trace.call.id, kind="rating", value=0.0))
        await runtime.caught_up()
        arms = runtime.loop.explain(kinds.EMBEDDINGS, Scope(), {}, BOTH)
        theirs = runtime.loop.explain(kinds.EMBEDDINGS, acme.scope, {}, BOTH)
    assert {arm.observations for arm in arms} == {0}
    assert sum(arm.observations for arm in theirs) == 10


def test_a_kind_is_decided_as_model_is_without_what_names_chat_models() -> None:
    guards = (GuardOptions("floor", {"reference": "chat"}),)
    model = PointOptions("shadow", "joint_thompson", {"quality_percent": 90.0}, "chat", 0.1, guards)
    options = load({"gateway.auto_transcriptions": ["a", "b"]}, environ={"HOME": "/nowhere"}).gateway
    found = kinds.decided({"model": model}, options, ())
    assert set(found) == {"model", kinds.TRANSCRIPTIONS}
    assert found[kinds.TRANSCRIPTIONS] == PointOptions("shadow", "joint_thompson", {"quality_percent": 90.0}, "", 0.1)
    own = PointOptions("off")
    assert kinds.decided({"model": model, kinds.TRANSCRIPTIONS: own}, options, ())[kinds.TRANSCRIPTIONS] is own
    assert kinds.decided({}, options, ()) == {}


async def test_more_to_choose_takes_a_restart(tmp_path: Path) -> None:
    async with studio(tmp_path) as (runtime, _):
        wanted = msgspec.structs.replace(
            runtime.settings,
            gateway=msgspec.structs.replace(runtime.settings.gateway, auto_transcriptions=HEARD),
        )
        with pytest.raises(SettingsError, match=r"more for `auto` to choose now, at model_transcriptions; restart"):
            await runtime.reload(wanted)


@pytest.mark.parametrize("endpoint", ["embeddings", "audio.transcriptions"])
async def test_who_failed_earns_nothing_for_it(tmp_path: Path, endpoint: str) -> None:
    points = {"model": {"policy": "fixed", "mode": "live", "randomised_share": 0.0}}
    lists = {"gateway__auto_embeddings": BOTH, "gateway__auto_transcriptions": HEARD}
    async with studio(tmp_path, "small-a", "whisper", points=points, resilience__attempts=2, **lists) as (runtime, _):
        _, trace = await _call(runtime, _embedding() if endpoint == "embeddings" else _sound())
        await runtime.feedback(Scope(), FeedbackRequest(target=trace.call.id, kind="rating", value=1.0))
        await runtime.caught_up()
        scores = runtime.learner.scores(Scope(), trace.decisions[0].point)
    assert trace.outcome is not None
    assert trace.outcome.model != trace.decisions[0].action
    assert [one.value for one in scores if one.live] == [0.0]
