"""Run the application on a port, and tell the other commands of the folder where it is."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import secrets
import signal
import socket
from collections.abc import Callable, Coroutine, Iterator
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import uvicorn
import uvloop

from windlass.errors import SettingsError
from windlass.gateway import redaction
from windlass.ledger import collection
from windlass.runtime import Runtime
from windlass.server import allocator, logs
from windlass.server.app import Windlass
from windlass.server.asgi import App, Receive, Scope, Send
from windlass.server.connection import Connection
from windlass.server.exposure import guard
from windlass.server.peer import FILE
from windlass.server.reload import Hangup, Reloads

PORTS_TRIED = 50
DRAIN_S = 5
T = TypeVar("T")


class Address(msgspec.Struct, frozen=True):
    """Where a folder's server listens, and the token that speaks for the folder's owner."""

    url: str
    token: str
    pid: int


def listen(host: str, port: int) -> socket.socket:
    """A listening socket on `port`, or on the next free one. SettingsError where none of 50 is free."""
    for candidate in range(port, min(port + PORTS_TRIED, 65536)):
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        server = socket.socket(family, socket.SOCK_STREAM)
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            server.bind((host, candidate))
            server.listen(512)
        except PermissionError as exc:
            server.close()
            raise SettingsError(f"port {candidate} on {host} is not ours to take; choose one above 1023") from exc
        except OSError:
            server.close()
            continue
        server.set_inheritable(False)
        return server
    raise SettingsError(f"no free port from {port} to {port + PORTS_TRIED - 1} on {host}; set server.port")


def url_of(host: str, listening: socket.socket) -> str:
    """Where a socket that listens on `host` is reached."""
    shown = f"[{host}]" if ":" in host else host
    return f"http://{shown}:{listening.getsockname()[1]}"


async def serve(runtime: Runtime, *, dashboard: bool, ready: Callable[[str], None]) -> None:
    """Serve until SIGINT or SIGTERM; running requests get `DRAIN_S` to end. `ready(url)` is called once it listens."""
    options = runtime.settings.server
    guard(runtime.settings, open_to_all=runtime.gateway.admission.open)
    listening = listen(options.host, options.port)
    url, token = url_of(options.host, listening), secrets.token_urlsafe(24)
    with announced(runtime.settings.home, Address(url=url, token=token, pid=os.getpid())):
        ready(url)
        await attend(runtime, listening, token=token, dashboard=dashboard)


async def attend(
    runtime: Runtime,
    listening: socket.socket,
    *,
    token: str,
    dashboard: bool,
    reloads: Reloads | None = None,
    until: asyncio.Task[None] | None = None,
) -> None:
    """Answer what comes in on `listening`, until a signal, or until the task `until` ends. reloads: who reads the
    settings again at a SIGHUP, if somebody else does as well."""
    server: uvicorn.Server | None = None
    pages = None
    if dashboard:
        # Open event streams end as soon as the server is told to stop, so that it does not wait for them.
        pages = _Pages(partial(_pages, runtime, token, lambda: server is not None and server.should_exit))
    config = uvicorn.Config(
        Windlass(
            runtime,
            token=token,
            dashboard=pages,
            stopping=lambda: server is not None and server.should_exit,
        ),
        loop="none",
        http=Connection,
        ws="none",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,  # a caller could say that it comes from elsewhere, and the audit trail would believe it
        timeout_graceful_shutdown=DRAIN_S,
    )
    server, reloads = _Server(config), reloads or Reloads(runtime)

    def end() -> None:
        server.should_exit = True

    server.hang_up = Hangup(reloads.begin, end)
    if until is not None:
        until.add_done_callback(lambda _: end())
    with collection.rarely():
        await server.serve(sockets=[listening])
    await reloads.idle()


class _Pages:
    """The dashboard, made by `make` in a thread when somebody first looks at it: 0.1 s and 5 MB for a gateway that is
    only called."""

    def __init__(self, make: Callable[[], App]):
        self._make = make
        self._made: asyncio.Future[App] | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._made is None:
            self._made = asyncio.ensure_future(asyncio.to_thread(self._make))
        pages = await asyncio.shield(self._made)
        await pages(scope, receive, send)


def _pages(runtime: Runtime, secret: str, stopping: Callable[[], bool]) -> App:
    from windlass.server.dashboard.pages import dashboard

    return dashboard(runtime, secret=secret, stopping=stopping)


class _Server(uvicorn.Server):
    """Ends quietly on a signal. uvicorn's own raises it again, which would cut off whoever closes after it."""

    hang_up: Callable[[], None] | None = None

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        loop = asyncio.get_running_loop()
        for caught in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(caught, self.handle_exit, caught, None)
        if self.hang_up is not None:
            loop.add_signal_handler(signal.SIGHUP, self.hang_up)
        try:
            yield
        finally:
            for caught in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                loop.remove_signal_handler(caught)


@contextlib.contextmanager
def announced(home: Path, address: Address) -> Iterator[None]:
    """Leave the address in the folder, readable by its owner only, while the server runs."""
    path = home / FILE
    fresh = home / f"{FILE}.{address.pid}"
    fresh.touch(mode=0o600)
    fresh.write_text(json.dumps(msgspec.to_builtins(address)))
    fresh.replace(path)
    try:
        yield
    finally:
        with contextlib.suppress(FileNotFoundError):
            path.unlink()


def in_loop(work: Coroutine[Any, Any, T]) -> T:
    """Run `work` to its end on a fresh event loop, with warnings and errors on standard error."""
    logs.begin(redaction.log_line, redaction.RedactedFormatter())
    allocator.settle()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(work)
