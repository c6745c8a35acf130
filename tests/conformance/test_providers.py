"""Every provider of ours keeps the contract, and providers that break it are told which promise they broke."""

from __future__ import annotations

import asyncio
import json
import re

import msgspec
import pytest

from windlass.errors import UpstreamError
from windlass.gateway.options import ModelOptions, ProviderOptions
from windlass.gateway.provider import ProviderReply
from windlass.gateway.providers import upstreams
from windlass.gateway.providers.compose import completion
from windlass.gateway.providers.echo import Echo
from windlass.gateway.providers.local import Local
from windlass.gateway.providers.openai_compatible import OpenAICompatible
from windlass.gateway.transport.transport import CLIENTS
from windlass.testing import check_provider


def _openai(url, transport):
    models = (ModelOptions(name="m"),)
    return OpenAICompatible(
        ProviderOptions(name="up", base_url=url, models=models, first_byte_timeout_s=10, transport=transport)
    )


async def _speak(reader, writer):
    """A stand-in upstream: plain or streamed, whatever is asked for; hangs up after each answer."""
    path, asked = await _read(reader)
    if b"/embeddings" in path:
        data = [{"index": place, "embedding": [0.6, 0.8]} for place in range(len(asked["input"]))]
        kind, body = "application/json", json.dumps({"data": data}).encode()
    elif asked.get("stream"):
        parts = [{"choices": [{"index": 0, "delta": {"content": word}}]} for word in ("one ", "word")]
        events = b"".join(b"data: %s\n\n" % json.dumps(part).encode() for part in parts) + b"data: [DONE]\n\n"
        kind, body = "text/event-stream", events
    else:
        message = {"role": "assistant", "content": "word"}
        kind, body = "application/json", json.dumps({"choices": [{"index": 0, "message": message}]}).encode()
    await _hang_up(writer, kind, body)


async def test_echo_keeps_the_contract():
    await check_provider(Echo, broken=lambda: Echo("m", failing=("m",)))


async def test_the_local_models_keep_the_contract():
    await check_provider(lambda: Local(None, lambda: 0.0))


@pytest.mark.parametrize("transport", CLIENTS)
async def test_an_openai_compatible_upstream_keeps_the_contract(transport):
    server = await asyncio.start_server(_speak, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    try:
        await check_provider(
            lambda: _openai(f"http://127.0.0.1:{port}/v1", transport),
            broken=lambda: _openai("http://127.0.0.1:1/v1", transport),
        )
    finally:
        server.close()
        await server.wait_closed()


async def _speak_messages(reader, writer):
    """A stand-in of Anthropic: plain or streamed, whatever is asked for; hangs up after each answer."""
    usage = {"input_tokens": 3, "output_tokens": 1}
    _, asked = await _read(reader)
    if not asked.get("stream"):
        message = {"type": "message", "id": "msg_1", "model": "m", "content": [{"type": "text", "text": "word"}]}
        return await _hang_up(writer, "application/json", _json(message | {"stop_reason": "end_turn", "usage": usage}))
    message = {"type": "message", "id": "msg_1", "model": "m", "content": [], "usage": usage}
    parts = [
        {"type": "message_start", "message": message},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
        *({"type": "content_block_delta", "delta": {"type": "text_delta", "text": word}} for word in ("one ", "word")),
        {"type": "content_block_stop", "index": 0},
        {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 2}},
        {"type": "message_stop"},
    ]
    events = b"".join(b"event: %s\ndata: %s\n\n" % (part["type"].encode(), _json(part)) for part in parts)
    return await _hang_up(writer, "text/event-stream", events)


async def _speak_gemini(reader, writer):
    """A stand-in of Gemini; the path says whether to stream."""
    path, _ = await _read(reader)
    parts = [{"candidates": [{"index": 0, "content": {"parts": [{"text": word}]}}]} for word in ("one ", "word")]
    parts[-1]["candidates"][0]["finishReason"] = "STOP"
    if b":streamGenerateContent?alt=sse" not in path:
        return await _hang_up(writer, "application/json", _json(parts[-1]))
    return await _hang_up(writer, "text/event-stream", b"".join(b"data: %s\r\n\r\n" % _json(part) for part in parts))


def _json(value):
    return json.dumps(value).encode()


async def _read(reader):
    """The first line of a request, and its body."""
    head = await reader.readuntil(b"\r\n\r\n")
    length = int(re.search(rb"content-length: (\d+)", head.lower())[1])
    return head.split(b"\r\n")[0], json.loads(await reader.readexactly(length))


async def _hang_up(writer, kind, body):
    writer.write(f"HTTP/1.1 200 OK\r\ncontent-type: {kind}\r\nconnection: close\r\n\r\n".encode() + body)
    await writer.drain()
    writer.close()


@pytest.mark.parametrize("transport", CLIENTS)
@pytest.mark.parametrize(
    ("kind", "speak"), [("anthropic", _speak_messages), ("gemini", _speak_gemini), ("azure", _speak)]
)
async def test_every_other_kind_keeps_the_contract(kind, speak, transport):
    server = await asyncio.start_server(speak, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]

    def made(url):
        models = (ModelOptions(name="m", upstream="up-m"),)
        timeout = {"first_byte_timeout_s": 10, "transport": transport}
        options = ProviderOptions(name="up", kind=kind, base_url=url, models=models, **timeout)
        return upstreams.make(options, "key")

    try:
        await check_provider(lambda: made(f"http://127.0.0.1:{port}/v1"), broken=lambda: made("http://127.0.0.1:1/v1"))
    finally:
        server.close()
        await server.wait_closed()


class _Broken(Echo):
    """`Echo` with a part that each test makes worse."""

    def __init__(self, **parts):
        super().__init__()
        self.__dict__.update(parts)


def _answering(**changed):
    async def send(request):
        return ProviderReply(**{**vars(await Echo().send(request)), **changed})

    return send


def _saying(*parts):
    async def chunks():
        for part in parts:
            yield part

    return chunks()


async def _raises(request):
    raise KeyError("choices")


async def _swallows(request):
    try:
        await asyncio.sleep(0.01)
    except asyncio.CancelledError:
        raise UpstreamError("left") from None
    return await Echo().send(request)


async def _drops_the_end(request):
    reply = await Echo().send(request)
    parts = [part async for part in reply.chunks]
    return ProviderReply(200, reply.content_type, _saying(*parts[:-1]))


async def _raises_when_odd(request):
    if "unheard_of" in request.chat.fields:
        raise ValueError("odd")
    return await Echo().send(request)


async def _hangs(request):
    await asyncio.Event().wait()


async def _leaves(request):
    raise SystemExit(3)


async def _lets_go(request):
    raise asyncio.CancelledError


async def _gives_up(request):
    raise TimeoutError("mine")


async def _gives_nothing(request):
    return None


async def _never_streams(request):
    return completion(type(request)(request.call, request.model, request.body, _plain(request)), "x", 0)


def _plain(request):
    return msgspec.structs.replace(request.chat, stream=False)


@pytest.mark.parametrize(
    ("parts", "said"),
    [
        ({"name": ""}, "needs a name"),
        ({"name": 5}, "is no text"),
        ({"name": "a\x1b[31m"}, "plain characters"),
        ({"local": None}, "local is None"),
        ({"models": ()}, "at least one model"),
        ({"models": ("m",)}, "models are ModelOptions"),
        ({"models": (ModelOptions(name="m"),) * 2}, "a name of its own"),
        ({"send": _answering(status=201)}, "status 201"),
        ({"send": _answering(content_type="text/html")}, "not 'text/html'"),
        ({"send": _answering(headers={"x-a": "b\r\nc"})}, "headers"),
        ({"send": _answering(chunks=_saying("text"))}, "not bytes"),
        ({"send": _answering(chunks=_saying(b"{"))}, "not JSON"),
        ({"send": _answering(chunks=_saying(b'{"id": 1}'))}, "`choices`"),
        ({"send": _answering(chunks=_saying(b'{"choices": []}'))}, "no text"),
        ({"send": _never_streams}, "a stream is text/event-stream"),
        ({"send": _raises_when_odd}, "raised ValueError"),
        ({"send": _swallows}, "let CancelledError through"),
        (
            {"send": _raises},
            r"^plain: asked for a chat completion: it raised KeyError \('choices'\); answer in OpenAI's dialect",
        ),
        ({"send": _hangs}, "^plain: asked for a chat completion: not done within 2.0 s; "),
        ({"send": _leaves}, r"^plain: asked for a chat completion: it raised SystemExit \(3\); "),
        ({"send": _lets_go}, r"^plain: asked for a chat completion: it raised CancelledError \(\); "),
        ({"send": _gives_up}, r"^plain: asked for a chat completion: it raised TimeoutError \(mine\); "),
        ({"send": _gives_nothing}, "^plain: .*the answer is a NoneType, not a ProviderReply; "),
        ({"send": _answering(chunks=b"{}")}, "^plain: .*chunks is a bytes, not an async generator of bytes; "),
        ({"send": _answering(status="200")}, "^plain: .*the status is '200', not a whole number; "),
        ({"send": _answering(content_type=None)}, "^plain: .*the content type is None, not a text; "),
        ({"send": _answering(headers=None)}, "^plain: .*headers is a NoneType, not a mapping; "),
        ({"close": None}, "^described: .*close is None, which is no method; "),
    ],
)
async def test_a_broken_promise_is_named(parts, said):
    with pytest.raises(AssertionError, match=said):
        await check_provider(lambda: _Broken(**parts), limit_s=2.0)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (object, "^described: asked for what it is: a object has no name, models, local, send, close; "),
        (lambda: {}["base_url"], r"^described: asked for what it is: it raised KeyError \('base_url'\); "),
    ],
)
async def test_what_is_no_provider_is_told_which_promise_it_broke(make, said):
    with pytest.raises(AssertionError, match=said):
        await check_provider(make)


async def test_an_odd_message_is_shown_with_what_it_did():
    with pytest.raises(
        AssertionError, match=r"^hostile: .*for messages \[.*\] it raised ValueError \(odd\), not Upstream"
    ):
        await check_provider(lambda: _Broken(send=_raises_when_odd))


async def test_who_cancels_the_check_is_heard():
    checking = asyncio.ensure_future(check_provider(lambda: _Broken(send=_hangs)))
    await asyncio.sleep(0.01)
    checking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await checking


async def test_a_stream_without_its_end_is_found():
    async def send(request):
        return await (_drops_the_end if request.chat.stream else Echo().send)(request)

    with pytest.raises(AssertionError, match=r"`data: \[DONE\]`"):
        await check_provider(lambda: _Broken(send=send))


def _upstream(known, model_of):
    """A provider whose upstream knows one model, and which is asked for what `model_of` makes of a request."""

    async def send(request):
        asked = model_of(request)
        if asked != known:
            return ProviderReply(404, "application/json", _saying(b'{"error": {"message": "no such model"}}'))
        return await Echo().send(request)

    return _Broken(models=(ModelOptions(name="m", upstream=known),), send=send)


def _in_body(request):
    return json.loads(request.body)["model"]


@pytest.mark.parametrize("model_of", [lambda request: request.chat.model, lambda request: request.model])
async def test_what_the_client_or_the_settings_call_a_model_does_not_go_up(model_of):
    await check_provider(lambda: _upstream("up-m", _in_body))
    with pytest.raises(AssertionError, match=r"status 404"):
        await check_provider(lambda: _upstream("up-m", model_of))


async def test_a_client_that_wrote_auto_is_told_apart():
    """By an upstream that takes any name it is given, and says it back."""

    async def send(request):
        return await Echo().send(type(request)(request.call, request.chat.model, request.body, request.chat))

    with pytest.raises(AssertionError, match=r"^renamed: .*model `auto`.*send up `request.body`"):
        await check_provider(lambda: _Broken(send=send))


class _Vectors(Echo):
    """`Echo` that also embeds, one text too few."""

    embedding_models = (ModelOptions(name="echo"),)

    async def embed(self, request):
        return ProviderReply(200, "application/json", _saying(b'{"data": [{"index": 0, "embedding": [1.0]}]}'))


async def test_a_vector_too_few_is_found():
    with pytest.raises(AssertionError, match="without 2 vectors"):
        await check_provider(_Vectors)


@pytest.mark.parametrize(("broken", "said"), [(_raises, "raised KeyError"), (Echo().send, "status 200")])
async def test_a_missing_upstream_is_an_upstream_error(broken, said):
    with pytest.raises(AssertionError, match=said):
        await check_provider(Echo, broken=lambda: _Broken(send=broken))
