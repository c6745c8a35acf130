"""Several processes on one port and one PostgreSQL database: `windlass up --workers 4`.

The first process only supervises: it owns the folder and the listening socket, starts the workers under fixed names and
starts one again that died. A worker that loses its supervisor (its standard input ends) stops.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import signal
import socket
import sys
import time
from asyncio.subprocess import PIPE, Process, create_subprocess_exec
from collections.abc import Callable, Iterable
from functools import partial

import msgspec
import structlog

from windlass.errors import ErrorCategory, LedgerError, SettingsError, classify
from windlass.gateway.access.store import KeyTable
from windlass.ledger.db import Database
from windlass.ledger.folder import owned
from windlass.runtime import Runtime
from windlass.server.exposure import guard
from windlass.server.reload import Hangup, Reloads
from windlass.server.serve import Address, announced, attend, in_loop, listen, url_of
from windlass.settings import Settings, load

log = structlog.get_logger(__name__)
WORKER = "windlass.server.workers"
# A worker that dies again and again is started ever more slowly, up to the second.
RESTART_S, RESTART_MOST_S = 0.2, 10.0
STOP_S = 10.0
DATABASE_S, AGAIN_S = 10.0, 0.2
# What a supervisor writes to its workers; a signal would end one that is only starting.
_RELOAD = b"reload\n"


class _Post(msgspec.Struct, frozen=True):
    """What a worker is told at its start, as one line of JSON."""

    name: str
    token: str
    listening: int
    dashboard: bool
    overrides: dict[str, str | int]


async def supervise(
    settings: Settings,
    count: int,
    *,
    overrides: dict[str, str | int],
    dashboard: bool,
    ready: Callable[[str], None],
) -> None:
    """Run `count` workers until SIGINT or SIGTERM. SettingsError where the database is a file of one process."""
    if not settings.storage.database_url.startswith("postgres"):
        raise SettingsError(f"{count} workers need PostgreSQL: set storage.database_url, or run without --workers")
    stopping = asyncio.Event()
    running = asyncio.get_running_loop()
    for caught in (signal.SIGINT, signal.SIGTERM):
        running.add_signal_handler(caught, stopping.set)
    await asyncio.to_thread(_prepare, settings)
    with owned(settings.home), contextlib.closing(listen(settings.server.host, settings.server.port)) as listening:
        url, token = url_of(settings.server.host, listening), secrets.token_urlsafe(24)
        posts = [_Post(f"worker-{number}", token, listening.fileno(), dashboard, overrides) for number in range(count)]
        living: dict[str, Process] = {}
        tasks = [asyncio.create_task(_keep_running(post, stopping, living)) for post in posts]
        running.add_signal_handler(signal.SIGHUP, Hangup(lambda: _tell(living.values()), stopping.set))
        with announced(settings.home, Address(url=url, token=token, pid=os.getpid())):
            ready(url)
            await stopping.wait()
            await asyncio.gather(*tasks)


def _prepare(settings: Settings) -> None:
    """Bring the database to the newest version; LedgerError, before anything is announced, where it is away, and
    SettingsError where it must not be served.

    A server that recovers from a crash, or starts at the same time, is waited for.
    """
    until = time.monotonic() + DATABASE_S
    while True:
        db = Database(settings.database, connections=1)
        try:
            db.migrate()
            guard(settings, open_to_all=not settings.keys and not KeyTable(db).rows())
            return
        except LedgerError as exc:
            if classify(exc) is not ErrorCategory.DATABASE_UNREACHABLE or time.monotonic() > until:
                raise
            log.warning("database_away", error=str(exc))
            time.sleep(AGAIN_S)
        finally:
            db.close()


def _tell(workers: Iterable[Process]) -> None:
    """Let every worker read its settings again; one that is only starting does so when it is there."""
    for worker in workers:
        if worker.stdin is not None and not worker.stdin.is_closing():
            worker.stdin.write(_RELOAD)


async def _keep_running(post: _Post, stopping: asyncio.Event, living: dict[str, Process]) -> None:
    """Start a worker, and again whenever it dies, until the server is told to stop."""
    patience_s = RESTART_S
    while not stopping.is_set():
        worker, started = await _start(post), asyncio.get_running_loop().time()
        living[post.name] = worker
        stop, died = asyncio.create_task(stopping.wait()), asyncio.create_task(worker.wait())
        await asyncio.wait((stop, died), return_when=asyncio.FIRST_COMPLETED)
        stop.cancel()
        if stopping.is_set():
            await _end(worker)
            return
        log.error("worker_died", worker=post.name, pid=worker.pid, status=worker.returncode)
        lived = asyncio.get_running_loop().time() - started > RESTART_MOST_S
        patience_s = RESTART_S if lived else min(2 * patience_s, RESTART_MOST_S)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(stopping.wait(), patience_s)


async def _start(post: _Post) -> Process:
    # -P: the folder that the server was started in is no place to import from.
    worker = await create_subprocess_exec(
        sys.executable, "-P", "-m", WORKER, stdin=PIPE, pass_fds=(post.listening,), start_new_session=True
    )
    if worker.stdin is not None:
        worker.stdin.write(msgspec.json.encode(post) + b"\n")
        with contextlib.suppress(ConnectionError):
            await worker.stdin.drain()
    return worker


async def _end(worker: Process) -> None:
    """Stop a worker in order; one that does not end in `STOP_S` is killed."""
    if worker.stdin is not None:
        worker.stdin.close()
    try:
        await asyncio.wait_for(worker.wait(), STOP_S)
    except TimeoutError:
        worker.kill()
        await worker.wait()


async def work(post: _Post) -> None:
    """One worker, until its supervisor is gone."""
    settings = load(post.overrides)
    running = asyncio.get_running_loop()
    reader = asyncio.StreamReader()
    await running.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    listening = socket.socket(fileno=post.listening)
    async with Runtime(settings, workflows=True, worker=post.name) as runtime:
        guard(settings, open_to_all=runtime.gateway.admission.open)
        runtime.pass_on = partial(_pass_on, os.getppid())
        reloads = Reloads(runtime)
        until = asyncio.create_task(_orders(reader, reloads))
        await attend(runtime, listening, token=post.token, dashboard=post.dashboard, reloads=reloads, until=until)


async def _orders(reader: asyncio.StreamReader, reloads: Reloads) -> None:
    """Do as the supervisor says, until it is gone."""
    while order := await reader.readline():
        if order == _RELOAD:
            reloads.begin()


def _pass_on(supervisor: int) -> None:
    """Let the supervisor tell all workers to reload, if it still is ours."""
    if os.getppid() == supervisor:
        os.kill(supervisor, signal.SIGHUP)


def main() -> None:
    """Read what to be from the first line of standard input, and be it."""
    in_loop(work(msgspec.json.decode(sys.stdin.buffer.readline(), type=_Post)))


if __name__ == "__main__":
    main()
