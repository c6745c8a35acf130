"""What every provider must do. `check_provider` is the one suite that all of them are held to.

Whoever writes a provider runs it in the tests of their own package, against a stand-in of their upstream:

    async def test_it_keeps_the_contract():
        await check_provider(lambda: Mine(options, "key"), broken=lambda: Mine(nowhere, "key"))

Whatever goes wrong is an AssertionError with the promise, what was asked and the remedy in plain words.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, NamedTuple

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
_AUTO = re.compile(rb'"model"\s*:\s*"auto"')
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
    Give a model another name there (`upstream`), and let the stand-in refuse all others: so two names are told apart.
    A provider that keeps `Embeds` is asked for vectors too, which its upstream may refuse.
    broken: makes providers whose upstream is not there. limit_s: for each promise.
    """
    for promise in _PROMISES:
        await _held(promise, make, limit_s)
    if broken is not None:
        await _held(_WITHOUT, broken, limit_s)


class _Promise(NamedTuple):
    """What every provider promises: a name for it, what is asked to try it, how, and what to do where it is broken."""

    name: str
    asked: str
    kept: Callable[[Provider], Awaitable[None]]
    remedy: str


async def _held(promise: _Promise, make: Callable[[], Provider], limit_s: float) -> None:
    limit = asyncio.timeout(limit_s)
    tried = f"{promise.name}: asked for {promise.asked}"
    try:
        async with limit:
            provider = _whole(make())
            await promise.kept(provider)
            await provider.close()
            await provider.close()
    except _Untrue as exc:
        raise AssertionError(f"{tried}: {exc}; {promise.remedy}") from exc
    except KeyboardInterrupt:
        raise
    except BaseException as exc:  # whatever a provider raises is what is looked for, SystemExit too
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            raise
        raised = f"not done within {limit_s} s" if limit.expired() else f"it raised {type(exc).__name__} ({exc})"
        raise AssertionError(f"{tried}: {raised}; {promise.remedy}") from exc


class _Untrue(AssertionError):
    """What a provider promised and did not keep, in words; `_held` says which promise it was."""


def _hold(kept: bool, words: str) -> None:
    if not kept:
        raise _Untrue(words)


def _whole(provider: Provider) -> Provider:
    """The provider, if it has all that one has."""
    missing = [name for name in ("name", "models", "local", "send", "close") if not hasattr(provider, name)]
    _hold(not missing, f"a {type(provider).__name__} has no {', '.join(missing)}")
    for name in ("send", "close"):
        _hold(callable(getattr(provider, name)), f"{name} is {getattr(provider, name)!r}, which is no method")
    return provider


async def _sent(provider: Provider, request: ProviderRequest) -> ProviderReply:
    """A reply of which at least the kinds are right."""
    return _of_kind(await provider.send(request))


def _of_kind(reply: ProviderReply) -> ProviderReply:
    _hold(isinstance(reply, ProviderReply), f"the answer is a {type(reply).__name__}, not a ProviderReply")
    _hold(type(reply.status) is int, f"the status is {reply.status!r}, not a whole number")
    _hold(isinstance(reply.content_type, str), f"the content type is {reply.content_type!r}, not a text")
    closable = hasattr(reply.chunks, "__aiter__") and hasattr(reply.chunks, "aclose")
    _hold(closable, f"chunks is a {type(reply.chunks).__name__}, not an async generator of bytes")
    _hold(isinstance(reply.headers, Mapping), f"headers is a {type(reply.headers).__name__}, not a mapping")
    return reply


async def _described(provider: Provider) -> None:
    _hold(isinstance(provider.name, str), f"name {provider.name!r} is no text")
    _hold(bool(provider.name.strip()), "a provider needs a name")
    _hold(provider.name.isprintable(), f"name {provider.name!r} is not one line of plain characters")
    _hold(isinstance(provider.local, bool), f"local is {provider.local!r}, not True or False")
    _hold(bool(provider.models), "a provider offers at least one model")
    _hold(all(isinstance(model, ModelOptions) for model in provider.models), "models are ModelOptions")
    names = [model.name for model in provider.models]
    _hold(len(set(names)) == len(names), f"models {', '.join(names)}: each has a name of its own")


async def _plain(provider: Provider) -> None:
    reply = await _sent(provider, _request(provider))
    _hold(reply.status == 200, f"a plain request was answered with status {reply.status}")
    _hold(reply.content_type.startswith(JSON), f"a plain reply is {JSON}, not {reply.content_type!r}")
    _told(reply)
    await _read(reply, stream=False)


async def _streamed(provider: Provider) -> None:
    reply = await _sent(provider, _request(provider, stream=True))
    _hold(reply.status == 200, f"a request for a stream was answered with status {reply.status}")
    _hold(reply.content_type == EVENT_STREAM, f"a stream is {EVENT_STREAM}, not {reply.content_type!r}")
    _told(reply)
    tally = await _read(reply, stream=True)
    _hold(tally.done, "a stream ends with `data: [DONE]`")


async def _renamed(provider: Provider) -> None:
    """The three names of a model apart: the client wrote `auto`, the settings have their own, the upstream another."""
    model = next((one for one in provider.models if one.upstream), provider.models[0])
    messages = [{"role": "user", "content": "Say one word."}]
    for stream in (False, True):
        chat = parse_chat(msgspec.json.encode({"model": "auto", "messages": messages, "stream": stream}))
        body = msgspec.json.encode({"model": model.upstream or model.name, "messages": messages, "stream": stream})
        reply = await _sent(provider, ProviderRequest("call_check", model.name, body, chat))
        _hold(reply.status == 200, f"it was answered with status {reply.status}")
        said: list[bytes] = []
        await _read(reply, stream=stream, said=said)
        _hold(_AUTO.search(b"".join(said)) is None, "the answer is of a model `auto`, which is nobody's name for one")


async def _closed_early(provider: Provider) -> None:
    """Whoever stops listening closes: before the first chunk, after it, and twice. The next request is answered."""
    for wanted in (0, 1):
        reply = await _sent(provider, _request(provider, stream=True))
        arriving = aiter(reply.chunks)
        for _ in range(wanted):
            await anext(arriving)
        await reply.chunks.aclose()
        await reply.chunks.aclose()
    await _read(await _sent(provider, _request(provider)), stream=False)


async def _together(provider: Provider) -> None:
    """Several at once, read in the order in which they were sent."""
    requests = [_request(provider, call=f"call_{number}") for number in range(_TOGETHER)]
    for reply in await asyncio.gather(*(_sent(provider, request) for request in requests)):
        await _read(reply, stream=False)


async def _hostile(provider: Provider) -> None:
    """Odd messages and fields end in an answer of any status, or in UpstreamError."""
    for messages in _HOSTILE:
        request = _request(provider, messages=messages, temperature=None, unheard_of={"deep": [1, 2]})
        told = f"for messages {str(messages)[:100]}"
        try:
            reply = await _sent(provider, request)
            chunks = [chunk async for chunk in reply.chunks]
            await reply.chunks.aclose()
        except UpstreamError:
            continue
        except _Untrue as exc:
            raise _Untrue(f"{told}: {exc}") from exc
        except Exception as exc:  # whatever a provider raises is what is looked for
            raise _Untrue(f"{told} it raised {type(exc).__name__} ({exc}), not UpstreamError") from exc
        _hold(all(isinstance(chunk, bytes) for chunk in chunks), f"{told} a chunk is not bytes")


async def _cancelled(provider: Provider) -> None:
    """A caller that leaves is let go, and nothing stays behind that breaks the next request."""
    sending = asyncio.ensure_future(provider.send(_request(provider)))
    await asyncio.sleep(0)
    sending.cancel()
    try:
        reply = _of_kind(await sending)
    except asyncio.CancelledError:
        pass
    except _Untrue:
        raise
    except BaseException as exc:
        raise _Untrue(f"cancelled, it raised {type(exc).__name__} ({exc}); let CancelledError through") from exc
    else:
        await reply.chunks.aclose()
    await _read(await _sent(provider, _request(provider)), stream=False)


async def _embeds(provider: Provider) -> None:
    """As many vectors as there are texts, or an error with its status."""
    if not isinstance(provider, Embeds) or not provider.embedding_models:
        return
    model = provider.embedding_models[0]
    body = msgspec.json.encode({"model": model.upstream or model.name, "input": ["one text", "another"]})
    reply = _of_kind(await provider.embed(EmbeddingRequest("call_check", model.name, body, parse_embedding(body))))
    tally = EmbeddingTally(2)
    async for chunk in reply.chunks:
        tally.feed(chunk)
    tally.end()
    await reply.chunks.aclose()
    told = f"two texts were embedded with status {reply.status}, without 2 vectors"
    _hold(tally.complete or reply.status >= 400, told)


async def _fails(provider: Provider) -> None:
    """Where no answer arrives there is an UpstreamError; an answer that says so has a status from 400 on."""
    try:
        reply = await _sent(provider, _request(provider))
    except UpstreamError:
        return
    except _Untrue:
        raise
    except Exception as exc:  # whatever a provider raises is what is looked for
        raise _Untrue(f"without its upstream it raised {type(exc).__name__}, not UpstreamError") from exc
    await reply.chunks.aclose()
    _hold(reply.status >= 400, f"without its upstream it answered with status {reply.status}")


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
    _hold(plain, f"headers {dict(reply.headers)} are not one line of ASCII each")


async def _read(reply: ProviderReply, *, stream: bool, said: list[bytes] | None = None) -> Tally:
    """Read a reply as the gateway does: complete, without events that cannot be read, with sane usage. said: takes the
    chunks."""
    tally = Tally(stream=stream)
    async for chunk in reply.chunks:
        _hold(isinstance(chunk, bytes), f"a chunk is {type(chunk).__name__}, not bytes")
        tally.feed(chunk)
        if said is not None:
            said.append(chunk)
    tally.end()
    await reply.chunks.aclose()
    _hold(not tally.malformed, f"{tally.malformed} parts are not JSON of OpenAI's dialect")
    _hold(tally.complete, "a stream has a finish reason or [DONE]" if stream else "a completion has `choices`")
    _hold(bool(tally.text), "the answer has no text")
    return tally


_DIALECT = "answer in OpenAI's dialect; `windlass.gateway.providers.compose.completion` writes it for you"
_CLOSING = "closing chunks early and twice, begun or not, is ordinary and must leave the provider able to answer"
_FAILING = "raise UpstreamError where no answer arrives"
_NAMES = "send up `request.body` or its model, which is the upstream's name; `request.chat.model` may be `auto`"
_PROMISES = (
    _Promise("described", "what it is", _described, "name, models and local are what provider.py says of them"),
    _Promise("plain", "a chat completion", _plain, _DIALECT),
    _Promise("streamed", "a streamed chat completion", _streamed, _DIALECT),
    _Promise("renamed", "a model with an `upstream`, by a client that wrote `auto`", _renamed, _NAMES),
    _Promise("closed early", "a stream that is not read to its end", _closed_early, _CLOSING),
    _Promise("together", f"{_TOGETHER} completions at once", _together, "keep nothing of a request in the provider"),
    _Promise("hostile", "odd messages and fields", _hostile, f"answer with any status, or {_FAILING}"),
    _Promise("cancelled", "a completion that is cancelled", _cancelled, "let CancelledError through, leave no trace"),
    _Promise("embeds", "vectors of two texts", _embeds, "give as many vectors as texts, or a status from 400 on"),
)
_WITHOUT = _Promise("fails", "a completion without its upstream", _fails, f"{_FAILING}, or a status from 400 on")
