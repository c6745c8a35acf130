"""Settings that are read again: what the operation answers, what the trail says, what a broken file does."""

from __future__ import annotations

import asyncio
import json
import os
import pty
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from tests.golden.application import Client, chat, key

from windlass.errors import AccessError, InputError, SettingsError
from windlass.gateway.access.admission import Caller
from windlass.ledger.audit import SYSTEM
from windlass.ledger.ledger import ALL
from windlass.records import Scope
from windlass.runtime import Runtime
from windlass.server import doctor, session
from windlass.server.app import Windlass
from windlass.server.reload import Hangup, Reloads, reload, renewed
from windlass.server.serve import _Server
from windlass.settings import load, reread

OWNER = Caller(Scope(), "admin", "")
LIMIT = '[[limits]]\nname = "all"\nrequests = {}\n'


@asynccontextmanager
async def world(folder: Path, monkeypatch: pytest.MonkeyPatch, text: str, **given: Any) -> AsyncIterator[Runtime]:
    """A runtime by `windlass.toml` in the folder where it stands."""
    monkeypatch.chdir(folder)
    monkeypatch.setenv("WINDLASS_MEMORY__EMBEDDER", "off")
    (folder / "windlass.toml").write_text(text)
    async with Runtime(load({"home": folder / "home", **given})) as runtime:
        yield runtime


def _trail(runtime: Runtime) -> list[tuple[str, str, dict[str, Any]]]:
    rows = runtime.audit.rows(ALL)
    return [
        (row.actor, row.action, json.loads(row.detail)) for row in reversed(rows) if row.action.startswith("reload")
    ]


def _most(runtime: Runtime) -> list[int | None]:
    return [limit.requests for limit in runtime.settings.limits]


async def test_it_says_what_changed_and_the_trail_says_who(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with world(tmp_path, monkeypatch, LIMIT.format(5)) as runtime:
        (tmp_path / "windlass.toml").write_text(LIMIT.format(6))
        answer = await reload(runtime, OWNER, {})
        assert (answer["changed"], answer["passed_on"]) == (["limits"], False)
        assert _most(runtime) == [6]
        assert (await reload(runtime, OWNER, {}))["changed"] == []
        assert _trail(runtime) == [("local", "reload", {"changed": ["limits"]})]


async def test_it_is_passed_on_where_there_are_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with world(tmp_path, monkeypatch, LIMIT.format(5)) as runtime:
        told: list[int] = []
        runtime.pass_on = lambda: told.append(1)
        (tmp_path / "windlass.toml").write_text("nonsense = ")
        with pytest.raises(InputError):
            await reload(runtime, OWNER, {})
        assert told == []
        (tmp_path / "windlass.toml").write_text(LIMIT.format(6))
        assert (await reload(runtime, OWNER, {}))["passed_on"]
        assert told == [1]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[[limits]\n", "is not valid TOML"),
        ("\x00\xff", "is not valid TOML"),
        ("limmits = 1\n", "unknown setting 'limmits'; did you mean 'limits'"),
        (LIMIT.format('"many"'), r"limits\[0\].requests: Expected `int"),
        (LIMIT.format(1) * 2, "all stands there more than once"),
        ("[server]\nport = 9999\n", "server.port: a running server cannot"),
        (None, "windlass.toml is gone"),
    ],
)
async def test_a_broken_file_changes_nothing_and_is_a_finding(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str | None, said: str
) -> None:
    async with world(tmp_path, monkeypatch, LIMIT.format(5)) as runtime:
        before = runtime.settings, runtime.gateway
        if text is None:
            (tmp_path / "windlass.toml").unlink()
        else:
            (tmp_path / "windlass.toml").write_bytes(text.encode("latin-1"))
        with pytest.raises(InputError, match=f"{said}.*stay as they were"):
            await reload(runtime, OWNER, {})
        assert (runtime.settings, runtime.gateway) == before
        ((actor, action, detail),) = _trail(runtime)
        assert (actor, action) == ("local", "reload_refused")
        assert detail["reason"] in runtime.refused_settings
        report = await doctor.examine(runtime, replay=False)
        assert any("the last reload was refused" in finding for finding in report["findings"])
        (tmp_path / "windlass.toml").write_text(LIMIT.format(6))
        await reload(runtime, OWNER, {})
        report = await doctor.examine(runtime, replay=False)
        assert not any("reload" in finding for finding in report["findings"])


async def test_the_command_line_still_wins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given = {"server.port": 8_500, "gateway.reserved_tokens": 7}
    async with world(tmp_path, monkeypatch, "", **given) as runtime:
        (tmp_path / "windlass.toml").write_text("[server]\nport = 9999\n[gateway]\nreserved_tokens = 8\n")
        assert (await reload(runtime, OWNER, {}))["changed"] == []
        assert reread(runtime.settings).gateway.reserved_tokens == 7


async def test_a_server_beyond_loopback_keeps_a_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    entry = key("ann", "acme")
    text = f'[[keys]]\nname = "ann"\nsha256 = "{entry["sha256"]}"\ntenant = "acme"\n'
    async with world(tmp_path, monkeypatch, text, **{"server.host": "0.0.0.0"}) as runtime:
        (tmp_path / "windlass.toml").write_text("")
        with pytest.raises(SettingsError, match="beyond loopback, but there is no key"):
            await renewed(runtime, SYSTEM, "signal")
        assert not runtime.gateway.admission.open


async def test_only_the_folders_owner_may(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with world(tmp_path, monkeypatch, LIMIT.format(5)) as runtime:
        app = Windlass(runtime, token="t" * 24)
        assert (await Client(app).post("/api/reload", {})).status == 401
        response = await Client(app).post("/api/reload", {}, x_windlass_token="t" * 24)
        assert (response.status, response.json["changed"]) == (200, [])
        (tmp_path / "windlass.toml").write_text("limits = 3\n")
        response = await Client(app).post("/api/reload", {}, x_windlass_token="t" * 24)
        assert (response.status, response.code) == (400, "invalid_request")
        assert (await Client(app).post("/api/reload", {"x": 1}, x_windlass_token="t" * 24)).status == 400
        with pytest.raises(AccessError):
            await reload(runtime, Caller(Scope("acme", "default"), "operator", "ann"), {})


async def test_calls_through_the_application_meet_the_new_settings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with world(tmp_path, monkeypatch, "") as runtime:
        app = Windlass(runtime, token="t" * 24)
        asked = chat("A pawl holds.\n\nWhat holds?", model="auto")
        assert (await Client(app).post("/v1/chat/completions", asked)).status == 200
        (tmp_path / "windlass.toml").write_text(LIMIT.format(1))
        await Client(app).post("/api/reload", {}, x_windlass_token="t" * 24)
        statuses = [(await Client(app).post("/v1/chat/completions", asked)).status for _ in range(2)]
        assert statuses == [200, 429]
        (tmp_path / "windlass.toml").write_text("[gateway]\nmax_body_bytes = 1024\n")
        await Client(app).post("/api/reload", {}, x_windlass_token="t" * 24)
        assert (await Client(app).post("/v1/chat/completions", chat("x" * 2_000, model="auto"))).status == 413


async def test_a_signals_reload_fails_in_the_log_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with world(tmp_path, monkeypatch, LIMIT.format(5)) as runtime:
        reloads = Reloads(runtime)
        (tmp_path / "windlass.toml").write_text(LIMIT.format(6))
        reloads.begin()
        await reloads.idle()
        assert _most(runtime) == [6]
        (tmp_path / "windlass.toml").write_text("[")
        reloads.begin()
        await reloads.idle()
        assert _most(runtime) == [6]
        assert [(actor, action) for actor, action, _ in _trail(runtime)] == [
            ("signal", "reload"),
            ("signal", "reload_refused"),
        ]

        async def breaks(_settings: object) -> tuple[str, ...]:
            raise RuntimeError("a plugin's")

        (tmp_path / "windlass.toml").write_text(LIMIT.format(7))
        monkeypatch.setattr(runtime, "reload", breaks)
        reloads.begin()
        await reloads.idle()
        assert _most(runtime) == [6]


def test_without_a_server_there_is_nothing_to_reload(tmp_path: Path) -> None:
    settings = load({"home": tmp_path}, environ={"HOME": str(tmp_path)})
    with pytest.raises(InputError, match="no server runs on"):
        session.reload(settings, as_json=True)


def test_a_hangup_reloads_and_where_the_terminal_is_gone_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[str] = []

    def hangup() -> Hangup:
        return Hangup(lambda: done.append("again"), lambda: done.append("end"))

    monkeypatch.setattr(os, "isatty", lambda _: False)
    hangup()()
    master, slave = pty.openpty()
    try:
        monkeypatch.undo()
        with monkeypatch.context() as patched:
            real = os.isatty
            patched.setattr(os, "isatty", lambda _: real(slave))
            at_terminal = hangup()
            at_terminal()
            os.close(master)
            at_terminal()
    finally:
        os.close(slave)
    assert done == ["again", "again", "end"]


async def test_the_signal_reaches_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told = asyncio.Event()
    server = _Server(uvicorn.Config(app=lambda: None))
    server.hang_up = told.set
    with server.capture_signals():
        os.kill(os.getpid(), signal.SIGHUP)
        async with asyncio.timeout(5):
            await told.wait()
