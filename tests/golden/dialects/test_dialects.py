"""Translations, feature by feature, as they are kept beside this file: `<feature>.<dialect>.<ending>` is what comes in,
`<feature>.<dialect>.to-<other>.<ending>` what goes out.

requests: a client's request and what the upstream gets, with the names of dropped fields, or why it is refused.
replies, errors, streams: an upstream's answer and what the client gets. unstreamed: a whole reply of `replies` as the
stream that the client asked for. A change of a file is a change for clients.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from windlass.errors import RequestError
from windlass.gateway.dialects import translation
from windlass.gateway.dialects.identity import Identity
from windlass.gateway.dialects.unstreamed import unstreamed

HERE = Path(__file__).parent


def pairs(kind: str) -> list[Any]:
    """(what comes in, what is expected) of every pair; each input has at least one."""
    found = []
    for expected in sorted((HERE / kind).glob("*.to-*")):
        name, _, ending = expected.name.partition(".to-")
        found.append(pytest.param(HERE / kind / f"{name}{Path(ending).suffix}", expected, id=f"{kind}/{expected.name}"))
    return found


def dialects(given: Path, expected: Path) -> tuple[Any, Any]:
    """The dialect of what comes in, and that of what goes out."""
    return given.name.split(".")[1], expected.name.partition(".to-")[2].split(".")[0]


@pytest.mark.parametrize(("given", "expected"), pairs("requests"))
def test_request(given: Path, expected: Path) -> None:
    client, upstream = dialects(given, expected)
    try:
        translated = translation(client, upstream).request(given.read_bytes(), "sent", stream=False)
        outcome = {"body": json.loads(translated.body), "dropped": list(translated.dropped)}
    except RequestError as exc:
        outcome = {"refused": str(exc), "param": exc.param}
    assert outcome == json.loads(expected.read_bytes())


@pytest.mark.parametrize(("given", "expected"), pairs("replies"))
def test_reply(given: Path, expected: Path) -> None:
    upstream, client = dialects(given, expected)
    reply = translation(client, upstream, call="c1", at_s=1).reply(200, given.read_bytes(), "shown")
    assert json.loads(reply) == json.loads(expected.read_bytes())


@pytest.mark.parametrize(("given", "expected"), pairs("errors"))
def test_error(given: Path, expected: Path) -> None:
    upstream, client = dialects(given, expected)
    reply = translation(client, upstream).reply(int(given.name.split(".")[2]), given.read_bytes(), "shown")
    assert json.loads(reply) == json.loads(expected.read_bytes())


@pytest.mark.parametrize(("given", "expected"), pairs("streams"))
def test_stream(given: Path, expected: Path) -> None:
    upstream, client = dialects(given, expected)
    stream = translation(client, upstream, call="c1", at_s=1).stream("shown", include_usage=True)
    assert stream.feed(given.read_bytes()) + stream.end() == expected.read_bytes()


@pytest.mark.parametrize("expected", sorted((HERE / "unstreamed").iterdir()), ids=lambda path: path.name)
def test_unstreamed(expected: Path) -> None:
    name, _, to = expected.name.partition(".to-")
    upstream: Any = name.rpartition(".")[2]
    client: Any = to.removesuffix(".txt")
    given = (HERE / "replies" / f"{name}.json").read_bytes()
    written = unstreamed(client, upstream, given, Identity("shown", "c1", 1), include_usage=True)
    assert written == expected.read_bytes()


def test_every_input_is_translated() -> None:
    for kind in ("requests", "replies", "errors", "streams"):
        inputs = {path for path in (HERE / kind).iterdir() if ".to-" not in path.name}
        assert inputs == {param.values[0] for param in pairs(kind)}
