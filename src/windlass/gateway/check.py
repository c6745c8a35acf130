"""What every provider must do. `check_provider` is the one suite that all of them are held to.

Whoever writes a provider runs it in the tests of their own package, against a stand-in of their upstream:

    async def test_it_keeps_the_contract():
        await check_provider(lambda: Mine(options, "key"), broken=lambda: Mine(nowhere, "key"))
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from windlass.errors import UpstreamError
from windlass.gateway.options import ModelOptions
from windlass.gateway.provider import (
    EVENT_STREAM,
    JSON,
    EmbeddingRequest,
    Embeds,
    Provider,
    ProviderReply,
    ProviderRequest,
)
from windlass.gateway.wire import EmbeddingTally, Tally, parse_chat, parse_embedding

_TOGETHER = 8
_HOSTILE: tuple[list[dict[str, Any]], ...] = (
    [{"role": "user", "content": ""}],
    [{"role": "system"}, {"role": "user", "content": "été 日本語 🙂 \u202e \x1b[31m"}],
    [{"role": "user", "content": [{"type": "text", "text": "in parts"}, {"type": "unheard_of"}]}],
    [{"role": "user", "content": "many words " * 20_000}],
    [{"role": "unheard of", "content": "x", "tool_calls": None}] * 50,
)


async def check_provider(
    make: Callable[[], Provider], *, broken: Callable[[], Provider] | None = None, limit_s: float = 60.0
) -> None:
    """Hold fresh providers from `make` to the contract of `provider.py`; AssertionError says which promise broke.

    It sends some thirty requests to the first model, up to 220 kB large, so let the upstream be one that costs nothing.
    A provider that keeps `Embeds` is asked for vectors too, which its upstream may refuse.
    broken: makes providers whose upstream is not there. limit_s: for each promise.
    """
    for promise in (_described, _plain, _streamed, _closed_early, _together, _hostile, _cancelled, _embeds):
        await _held(promise, make(), limit_s)
    if broken is not None:
        await _held(_fails, broken(), limit_s)


async def _held(promise: Callable[[Provider], Any], provider: Provider, limit_s: float) -> None:
    try:
        async with asyncio.timeout(limit_s):
            await promise(provider)
            await provider.close()
            await provider.close()
    except AssertionError:
        raise
    except TimeoutError as exc:
        raise AssertionError(f"{promise.__name__.strip('_')}: not done within {limit_s} s") from exc
    except Exception as exc:  # whatever a provider raises is what is looked for
        raise AssertionError(f"{promise.__name__.strip('_')}: raised {type(exc).__name__} ({exc})") from exc


async def _described(provider: Provider) -> None:
    assert isinstance(provider.name, str), f"name {provider.name!r} is no text"
    assert provider.name.strip(), "a provider needs a name"
    assert provider.name.isprintable(), f"name {provider.name!r} is not one line of plain characters"
    assert isinstance(provider.local, bool), f"local is {provider.local!r}, not True or False"
    assert provider.models, "a provider offers at least one model"
    assert all(isinstance(model, ModelOptions) for model in provider.models), "models are ModelOptions"
    names = [model.name for model in provider.models]
    assert len(set(names)) == len(names), f"models {', '.join(names)}: each has a name of its own"


async def _plain(provider: Provider) -> None:
    reply = await provider.send(_request(provider))
    assert reply.status == 200, f"a plain request was answered with status {reply.status}"
    assert reply.content_type.startswith(JSON), f"a plain reply is {JSON}, not {reply.content_type!r}"
    _told(reply)
    await _read(reply, stream=False)


async def _streamed(provider: Provider) -> None:
    reply = await provider.send(_request(provider, stream=True))
    assert reply.status == 200, f"a request for a stream was answered with status {reply.status}"
    assert reply.content_type == EVENT_STREAM, f"a stream is {EVENT_STREAM}, not {reply.content_type!r}"
    _told(reply)
    tally = await _read(reply, stream=True)
    assert tally.done, "a stream ends with `data: [DONE]`"


async def _closed_early(provider: Provider) -> None:
    """Whoever stops listening closes: before the first chunk, after it, and twice. The next request is answered."""
    for wanted in (0, 1):
        reply = await provider.send(_request(provider, stream=True))
        arriving = aiter(reply.chunks)
        for _ in range(wanted):
            await anext(arriving)
        await reply.chunks.aclose()
        await reply.chunks.aclose()
    await _read(await provider.send(_request(provider)), stream=False)


async def _together(provider: Provider) -> None:
    """Several at once, read in the order in which they were sent."""
    requests = [_request(provider, call=f"call_{number}") for number in range(_TOGETHER)]
    for reply in await asyncio.gather(*(provider.send(request) for request in requests)):
        await _read(reply, stream=False)


async def _hostile(provider: Provider) -> None:
    """Odd messages and fields end in an answer of any status, or in UpstreamError."""
    for messages in _HOSTILE:
        request = _request(provider, messages=messages, temperature=None, unheard_of={"deep": [1, 2]})
        try:
            reply = await provider.send(request)
            chunks = [chunk async for chunk in reply.chunks]
            await reply.chunks.aclose()
        except UpstreamError:
            continue
        except Exception as exc:  # whatever a provider raises is what is looked for
            raise AssertionError(f"raised {type(exc).__name__} ({exc}), not UpstreamError") from exc
        assert all(isinstance(chunk, bytes) for chunk in chunks), "a chunk is not bytes"


async def _cancelled(provider: Provider) -> None:
    """A caller that leaves is let go, and nothing stays behind that breaks the next request."""
    sending = asyncio.ensure_future(provider.send(_request(provider)))
    await asyncio.sleep(0)
    sending.cancel()
    try:
        reply = await sending
    except asyncio.CancelledError:
        pass
    except BaseException as exc:
        raise AssertionError(f"cancelled, it raised {type(exc).__name__} ({exc}); let CancelledError through") from exc
    else:
        await reply.chunks.aclose()
    await _read(await provider.send(_request(provider)), stream=False)


async def _embeds(provider: Provider) -> None:
    """As many vectors as there are texts, or an error with its status."""
    if not isinstance(provider, Embeds) or not provider.embedding_models:
        return
    model = provider.embedding_models[0]
    body = msgspec.json.encode({"model": model.upstream or model.name, "input": ["one text", "another"]})
    reply = await provider.embed(EmbeddingRequest("call_check", model.name, body, parse_embedding(body)))
    tally = EmbeddingTally(2)
    async for chunk in reply.chunks:
        tally.feed(chunk)
    tally.end()
    await reply.chunks.aclose()
    assert tally.complete or reply.status >= 400, (
        f"two texts were embedded with status {reply.status}, without 2 vectors"
    )


async def _fails(provider: Provider) -> None:
    """Where no answer arrives there is an UpstreamError; an answer that says so has a status from 400 on."""
    try:
        reply = await provider.send(_request(provider))
    except UpstreamError:
        return
    except Exception as exc:  # whatever a provider raises is what is looked for
        raise AssertionError(f"without its upstream it raised {type(exc).__name__}, not UpstreamError") from exc
    await reply.chunks.aclose()
    assert reply.status >= 400, f"without its upstream it answered with status {reply.status}"


def _request(
    provider: Provider,
    *,
    call: str = "call_check",
    messages: Sequence[dict[str, Any]] = ({"role": "user", "content": "Say one word."},),
    **fields: Any,
) -> ProviderRequest:
    model = provider.models[0]
    body = msgspec.json.encode({"model": model.upstream or model.name, "messages": messages, **fields})
    return ProviderRequest(call, model.name, body, parse_chat(body))


def _told(reply: ProviderReply) -> None:
    plain = all(
        isinstance(part, str) and part.isascii() and part.isprintable()
        for pair in reply.headers.items()
        for part in pair
    )
    assert plain, f"headers {dict(reply.headers)} are not one line of ASCII each"


async def _read(reply: ProviderReply, *, stream: bool) -> Tally:
    """Read a reply as the gateway does: complete, without events that cannot be read, with sane usage."""
    tally = Tally(stream=stream)
    async for chunk in reply.chunks:
        assert isinstance(chunk, bytes), f"a chunk is {type(chunk).__name__}, not bytes"
        tally.feed(chunk)
    tally.end()
    await reply.chunks.aclose()
    assert not tally.malformed, f"{tally.malformed} parts are not JSON of OpenAI's dialect"
    assert tally.complete, "a stream has a finish reason or [DONE]" if stream else "a completion has `choices`"
    assert tally.text, "the answer has no text"
    return tally
