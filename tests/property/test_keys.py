"""No key, nor any piece of it that would help to guess it, is anywhere but in the answer that shows it once."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import structlog
from hypothesis import given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs
from tests.golden.application import Client, chat, key, opened

from windlass.gateway.providers.echo import Echo
from windlass.server.app import Windlass

PIECE_CHARS = 12
TOKEN = {"x-windlass-token": "folder-token"}
BOSS = key("boss", "default", role="admin")
ACTS = ("create", "rotate", "revoke", "call", "misuse", "list")


def pieces(plain: str) -> set[bytes]:
    """Every run of 12 characters of a key; what is shown of it has 8."""
    return {plain[at : at + PIECE_CHARS].encode() for at in range(len(plain) - PIECE_CHARS + 1)}


def files(folder: Path) -> bytes:
    """All bytes below the state folder: the database, its log, the audit checkpoints."""
    return b"\n".join(path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file())


@contextmanager
def logged() -> Iterator[list[Any]]:
    structlog.reset_defaults()
    with capture_logs() as lines:
        yield lines


async def _act(client: Client, act: str, name: str, plains: dict[str, str]) -> bytes:
    """One thing that people do with keys; returns what anybody but the maker of a key is told."""
    match act:
        case "create" | "rotate":
            response = await client.post(f"/api/key_{act}", {"name": name}, **TOKEN)
            if response.status == 200:
                answer = response.json
                plains[answer.pop("api_key")] = name
                return repr(answer).encode()
        case "revoke":
            response = await client.post("/api/key_revoke", {"name": name}, **TOKEN)
        case "list":
            response = await client.post("/api/keys", {}, **TOKEN)
        case _:
            said = bytearray()
            for plain in plains:
                model, bearer = ("echo", plain) if act == "call" else ("nope", plain[:-1] + "?")
                for sent in (plain, bearer):
                    by = Client(client.app, bearer=sent)
                    wanted = await by.post("/v1/chat/completions", chat(model=model), x_windlass_workspace="default")
                    other = await by.post("/api/calls", {"before": 5}, x_windlass_workspace="elsewhere")
                    said += wanted.body + other.body + repr((wanted.headers, other.headers)).encode()
            return bytes(said)
    return response.body


async def _live(folder: Path, acts: list[tuple[str, str]]) -> None:
    said, plains = bytearray(), dict[str, str]()
    with logged() as lines:
        async with opened(folder, [Echo("echo")], keys=[BOSS]) as runtime:
            client = Client(Windlass(runtime, token="folder-token"))
            for act, name in [("create", "first"), *acts]:
                said += await _act(client, act, name, plains)
            runtime.refusals.flush(last=True)
            while_open = files(folder)
    everything = bytes(said) + while_open + files(folder) + repr(lines).encode()
    assert plains
    for plain in plains:
        found = {piece for piece in pieces(plain) if piece in everything}
        assert not found, f"{len(found)} pieces of the key {plains[plain]!r} are to be found"


@settings(max_examples=25)
@given(st.lists(st.tuples(st.sampled_from(ACTS), st.sampled_from(("first", "ann", "b.o-b"))), max_size=8))
def test_no_piece_of_a_key_is_kept_or_told(acts: list[tuple[str, str]]) -> None:
    with TemporaryDirectory() as folder:
        asyncio.run(_live(Path(folder) / "home", acts))


def test_the_search_would_find_a_piece(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "file").write_bytes(b"x" * 99 + b"LyYehJ_jsLvkNB" + b"y")
    assert any(piece in files(tmp_path) for piece in pieces("wl-xa75WLyYehJ_jsLvkNBZGFjACteb9Q6agfOjp"))
