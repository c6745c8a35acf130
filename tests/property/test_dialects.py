"""Translated streams: a split of the bytes does not matter, streamed equals whole, and what is cut never succeeds."""

from __future__ import annotations

import json
import random
import re
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from windlass.errors import RequestError, UpstreamError
from windlass.gateway.dialects import Dialect, head, renamed, tally, translation
from windlass.gateway.dialects.events import EventLines
from windlass.gateway.dialects.gathering import gather
from windlass.gateway.dialects.hub import Completion
from windlass.gateway.dialects.readers import reader

GOLDEN = Path(__file__).parents[1] / "golden" / "dialects"
CLIENTS: tuple[Dialect, ...] = ("chat", "responses", "messages")
# Where a stream has said that it is whole: before these bytes it has not.
MARK: dict[Any, re.Pattern[bytes]] = {
    "chat": re.compile(rb'"finish_reason":"'),
    "responses": re.compile(rb'"type":"response.(completed|incomplete)"'),
    "messages": re.compile(rb'"type":"message_stop"'),
    "gemini": re.compile(rb'"finishReason"'),
}


def streams() -> dict[str, bytes]:
    return {
        path.stem: path.read_bytes() for path in sorted((GOLDEN / "streams").glob("*.txt")) if ".to-" not in path.name
    }


STREAMS = streams()
WHOLE = {name: body for name, body in STREAMS.items() if MARK[name.split(".")[1]].search(body)}


def ways(names: dict[str, bytes]) -> list[tuple[str, Dialect]]:
    """Every stream with every client that it can be translated for."""
    return [
        (name, client)
        for name in names
        for client in CLIENTS
        if client != name.split(".")[1] and (client == "chat" or not name.startswith("choices"))
    ]


def translated(name: str, client: Dialect, chunks: list[bytes]) -> bytes:
    upstream: Any = name.split(".")[1]
    stream = translation(client, upstream, call="c", at_s=1).stream("m", include_usage=True)
    return b"".join([*(stream.feed(chunk) for chunk in chunks), stream.end()])


def split(body: bytes, cuts: list[int]) -> list[bytes]:
    places = [0, *sorted(cut % (len(body) + 1) for cut in cuts), len(body)]
    return [body[start:end] for start, end in zip(places, places[1:], strict=False)]


def read(dialect: Dialect, body: bytes) -> list[Any]:
    """The pieces of a stream, as the reader of its dialect finds them."""
    lines, source = EventLines(), reader(dialect)
    return [*(piece for event in lines.feed(body) + lines.end() for piece in source.read(event)), *source.end()]


def succeeded(client: Dialect, out: bytes) -> bool:
    """Does the client see an ending that claims success?"""
    events = [event.data for event in EventLines().feed(out)]
    if client == "chat":
        parts = [json.loads(data) for data in events if data != b"[DONE]"]
        ended = any(choice["finish_reason"] for part in parts for choice in part.get("choices", ()))
        return ended or b"[DONE]" in events
    if client == "messages":
        return any(json.loads(data)["type"] in ("message_delta", "message_stop") for data in events)
    return any(json.loads(data)["type"] in ("response.completed", "response.incomplete") for data in events)


@given(st.sampled_from(ways(STREAMS)), st.lists(st.integers(0, 10**6), max_size=30))
def test_any_split_gives_the_same_bytes(way: tuple[str, Dialect], cuts: list[int]) -> None:
    name, client = way
    body = STREAMS[name]
    assert translated(name, client, split(body, cuts)) == translated(name, client, [body])


@pytest.mark.parametrize(("name", "client"), ways(STREAMS))
def test_byte_by_byte_gives_the_same_bytes(name: str, client: Dialect) -> None:
    body = STREAMS[name]
    assert translated(name, client, [bytes([byte]) for byte in body]) == translated(name, client, [body])


@pytest.mark.parametrize(("name", "client"), ways(WHOLE))
def test_streamed_equals_whole(name: str, client: Dialect) -> None:
    body = GOLDEN / "replies" / f"{name}.json"
    upstream: Any = name.split(".")[1]
    if name.startswith(("interleaved", "no-done")):
        assert not body.exists()
        return
    whole = reader(client).whole(translation(client, upstream, call="c", at_s=1).reply(200, body.read_bytes(), "m"))
    streamed = gather(read(client, translated(name, client, [WHOLE[name]])))
    assert isinstance(streamed, Completion)
    assert same(streamed) == same(gather(whole))


def same(completion: Any) -> Any:
    """A reply but for the spaces within arguments."""
    decoded = json.loads(msgspec.json.encode(completion))
    for choice in decoded["choices"]:
        for part in choice["parts"]:
            if "arguments" in part:
                part["arguments"] = json.loads(part["arguments"])
    return decoded


@settings(max_examples=300)
@given(st.sampled_from(ways(WHOLE)), st.floats(0, 1, exclude_max=True))
def test_a_cut_stream_never_succeeds(way: tuple[str, Dialect], share: float) -> None:
    name, client = way
    upstream: Any = name.split(".")[1]
    body = WHOLE[name]
    mark = MARK[upstream].search(body)
    assert mark is not None
    at = int(share * mark.start())
    out = translated(name, client, [body[:at]])
    assert not succeeded(client, out)
    assert b"error" in out.rsplit(b"data: ", 1)[1]
    assert not complete(client, out)
    assert not complete(upstream, body[:at])


@settings(max_examples=300)
@given(st.sampled_from(ways(STREAMS)), st.integers(0, 10**6), st.binary(max_size=4))
def test_the_tally_and_the_translation_agree_about_broken_streams(
    way: tuple[str, Dialect], place: int, noise: bytes
) -> None:
    name, client = way
    upstream: Any = name.split(".")[1]
    body = STREAMS[name]
    at = place % (len(body) + 1)
    broken = body[:at] + noise + body[at + len(noise) :]
    out = translated(name, client, [broken])
    if succeeded(client, out):
        assert complete(upstream, broken)
        assert complete(client, out)


def complete(dialect: Dialect, body: bytes) -> bool:
    read_along = tally(dialect, stream=True)
    read_along.feed(body)
    read_along.end()
    return read_along.complete


@pytest.mark.parametrize(("name", "client"), ways(WHOLE))
def test_usage_is_the_same_in_every_dialect(name: str, client: Dialect) -> None:
    upstream: Any = name.split(".")[1]
    before, after = tally(upstream, stream=True), tally(client, stream=True)
    out = translated(name, client, [WHOLE[name]])
    before.feed(WHOLE[name])
    after.feed(out)
    before.end()
    after.end()
    if not after.error:
        assert after.usage == before.usage
        assert before.usage.completion_tokens == 45


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
REQUESTS = [
    (path.name.split(".")[1], json.loads(path.read_bytes()))
    for path in sorted((GOLDEN / "requests").glob("*.json"))
    if ".to-" not in path.name
]


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every place in a JSON value."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(place for key, one in inner for place in places(one, (*path, key)))]


def put(value: Any, path: tuple[Any, ...], new: Any) -> Any:
    """The value with another one in one place."""
    if not path:
        return new
    copy = dict(value) if isinstance(value, dict) else list(value)
    copy[path[0]] = put(value[path[0]], path[1:], new)
    return copy


@settings(max_examples=300)
@given(
    st.sampled_from(REQUESTS), st.integers(0, 10**6), JSON, st.sampled_from(["chat", "responses", "messages", "gemini"])
)
def test_a_request_is_translated_or_refused(request: tuple[Any, Any], place: int, new: Any, upstream: Dialect) -> None:
    client, asked = request
    found = places(asked)
    body = json.dumps(put(asked, found[place % len(found)], new)).encode()
    try:
        read_head = head(client, body)
        assert json.loads(renamed(read_head.fields, "other"))["model"] == "other"
        if client != upstream:
            json.loads(translation(client, upstream).request(body, "m", stream=True).body)
    except RequestError as exc:
        refusal = exc
    else:
        return
    assert (refusal.status, bool(str(refusal))) == (400, True)


@settings(max_examples=300)
@given(st.sampled_from(sorted((GOLDEN / "replies").glob("*.json"))), st.integers(0, 10**6), JSON)
def test_a_reply_is_translated_or_malformed(path: Path, place: int, new: Any) -> None:
    name = path.name.partition(".to-")[0]
    upstream: Any = path.name.partition(".to-")[2].split(".")[0] or name.split(".")[1]
    upstream = "chat" if upstream == "json" else upstream
    asked = json.loads(path.read_bytes())
    found = places(asked)
    body = json.dumps(put(asked, found[place % len(found)], new)).encode()
    for client in CLIENTS:
        if client == upstream:
            continue
        try:
            out = translation(client, upstream).reply(200, body, "m")
        except UpstreamError:
            continue
        read_along = tally(client, stream=False)
        read_along.feed(out)
        read_along.end()
        assert read_along.complete or read_along.error


@given(st.sampled_from(CLIENTS), st.binary(max_size=300))
def test_bytes_that_are_no_request_are_refused(client: Dialect, body: bytes) -> None:
    with pytest.raises(RequestError):
        head(client, body)


def test_random_noise_between_events_is_never_a_success() -> None:
    rng = random.Random(7)
    for name, client in ways(WHOLE):
        body = WHOLE[name]
        broken = body.replace(b"data: {", b"data: {" + rng.randbytes(3) + b"\x80", 1)
        assert not succeeded(client, translated(name, client, [broken]))
