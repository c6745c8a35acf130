"""Listening, announcing, and taking both back."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import stat
import threading
import urllib.request
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from tests.golden.application import key, opened

from windlass.errors import SettingsError
from windlass.gateway.access.keys import VirtualKey
from windlass.server import peer
from windlass.server import serve as module
from windlass.server.exposure import guard
from windlass.server.serve import PORTS_TRIED, listen, serve


def test_a_taken_port_gives_the_next_free_one() -> None:
    with listen("127.0.0.1", _free()) as first:
        port = first.getsockname()[1]
        with listen("127.0.0.1", port) as second:
            assert port < second.getsockname()[1] < port + PORTS_TRIED


def test_an_address_that_is_not_ours_is_said() -> None:
    with pytest.raises(SettingsError, match=r"no free port .* on 203\.0\.113\.7; set server\.port"):
        listen("203.0.113.7", 8400)


def test_the_last_port_is_not_passed() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 65_535))
        taken.listen()
        with pytest.raises(SettingsError, match="no free port"):
            listen("127.0.0.1", 65_535)


def test_a_port_that_is_not_ours_to_take_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_self: socket.socket, _address: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(socket.socket, "bind", refuse)
    with pytest.raises(SettingsError, match="choose one above 1023"):
        listen("127.0.0.1", 80)


def _free() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1"])
async def test_beyond_loopback_it_needs_a_key_of_either_kind(tmp_path: Path, host: str) -> None:
    async with opened(tmp_path, server__host=host) as runtime:
        with pytest.raises(SettingsError, match=r"beyond loopback, but there is no key.*windlass keys create"):
            await serve(runtime, dashboard=False, ready=lambda _: pytest.fail("it listens"))
        assert not (tmp_path / peer.FILE).exists()
        runtime.keys.create(VirtualKey(id="", name="ann", tenant="default"))
        guard(runtime.settings, open_to_all=runtime.gateway.admission.open)
        runtime.keys.revoke("default", "ann")
        guard(runtime.settings, open_to_all=runtime.gateway.admission.open)
    async with opened(tmp_path / "other", server__host=host, keys=[key("ops", "acme")]) as runtime:
        guard(runtime.settings, open_to_all=runtime.gateway.admission.open)


@pytest.mark.parametrize("dashboard", [False, True])
async def test_it_announces_itself_serves_and_takes_the_announcement_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dashboard: bool
) -> None:
    """The server in this process, told to stop as the signal of Ctrl-C tells it."""
    servers: list[uvicorn.Server] = []

    class Stoppable(module._Server):
        def __init__(self, config: uvicorn.Config):
            super().__init__(config)
            servers.append(self)

    monkeypatch.setattr(module, "_Server", Stoppable)
    seen: dict[str, Any] = {}

    def look(url: str) -> None:
        try:
            seen["mode"] = stat.S_IMODE((tmp_path / peer.FILE).stat().st_mode)
            seen["address"] = json.loads((tmp_path / peer.FILE).read_text())
            found = peer.find(tmp_path)
            assert found is not None
            seen["url"] = (found.url, url)
            seen["calls"] = found.operate("calls", {})
            with urllib.request.urlopen(f"{url}/{'' if dashboard else 'healthz'}", timeout=5) as page:
                seen["page"] = page.read()
        finally:
            servers[0].should_exit = True

    async with opened(tmp_path, server__port=_free()) as runtime:
        looking: list[asyncio.Task[None]] = []
        await serve(
            runtime,
            dashboard=dashboard,
            ready=lambda url: looking.append(asyncio.create_task(asyncio.to_thread(look, url))),
        )
        await looking[0]
    assert seen["mode"] == 0o600
    assert seen["address"]["pid"] == os.getpid()
    assert len(seen["address"]["token"]) >= 32
    assert seen["url"][0] == seen["url"][1] == seen["address"]["url"]
    assert seen["calls"] == {"calls": []}
    assert (b"<html" in seen["page"].lower()) is dashboard
    assert not (tmp_path / peer.FILE).exists()


async def test_pages_are_made_once_when_somebody_looks_at_them() -> None:
    made, seen = list[int](), list[str]()

    async def pages(scope: Any, _receive: Any, _send: Any) -> None:
        seen.append(scope["path"])

    def make() -> Any:
        made.append(threading.get_ident())
        return pages

    lazy = module._Pages(make)
    assert made == []
    await asyncio.gather(*(lazy({"path": f"/{number}"}, None, None) for number in range(5)))  # type: ignore[arg-type]
    assert sorted(seen) == [f"/{number}" for number in range(5)]
    assert len(made) == 1
    assert made[0] != threading.get_ident(), "what it imports does not hold up calls"
