"""Settings that are read again while the server runs: for `windlass reload`, and for the signal SIGHUP."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable
from typing import Any

import msgspec
import structlog

from windlass.errors import InputError, LedgerError, SettingsError
from windlass.gateway.access.admission import Caller, require
from windlass.ledger.audit import SYSTEM
from windlass.records import Scope
from windlass.runtime import Runtime
from windlass.server import doctor
from windlass.server.exposure import guard
from windlass.server.reading import read
from windlass.settings import reread

log = structlog.get_logger(__name__)
SIGNAL = "signal"
_REASON_CHARS = 1_000


class ReloadAsked(msgspec.Struct, forbid_unknown_fields=True):
    """Arguments of `reload`: none."""


async def reload(runtime: Runtime, caller: Caller, arguments: dict[str, Any]) -> dict[str, Any]:
    """Read the settings again. InputError, and nothing changed, where they are refused."""
    require(caller, "admin")
    read(arguments, ReloadAsked)
    by = f"key:{caller.key}" if caller.key else "local"
    try:
        paths = await renewed(runtime, caller.scope, by)
    except SettingsError as exc:
        raise InputError(f"{exc}; the settings in force stay as they were") from exc
    if runtime.pass_on is not None:
        runtime.pass_on()
    found = await asyncio.to_thread(doctor.findings, runtime.settings)
    return {"changed": list(paths), "passed_on": runtime.pass_on is not None, "findings": found}


async def renewed(runtime: Runtime, scope: Scope, by: str) -> tuple[str, ...]:
    """The paths of what changed, which is in the audit trail then. SettingsError, which is there as well, where the
    settings cannot be taken over; those in force stay."""
    try:
        settings = await asyncio.to_thread(reread, runtime.settings)
        guard(settings, open_to_all=not settings.keys and not runtime.keys.any)
        paths = await runtime.reload(settings)
    except SettingsError as exc:
        reason = str(exc)[:_REASON_CHARS]
        runtime.refused_settings = reason
        log.error("reload_refused", reason=reason)
        await asyncio.to_thread(runtime.audit.append, scope, by, "reload_refused", {"reason": reason})
        raise
    runtime.refused_settings = ""
    if paths:
        log.warning("reloaded", changed=", ".join(paths))
        await asyncio.to_thread(runtime.audit.append, scope, by, "reload", {"changed": list(paths)})
    return paths


class Hangup:
    """What the signal SIGHUP brings about: settings are read again; where it says that the terminal which the server
    was started in has gone, the server ends."""

    def __init__(self, again: Callable[[], None], end: Callable[[], None]):
        self._again = again
        self._end = end
        self._terminal = _at_a_terminal()

    def __call__(self) -> None:
        if self._terminal and not _at_a_terminal():
            self._end()
        else:
            self._again()


class Reloads:
    """Reloads of one process that nobody waits for."""

    def __init__(self, runtime: Runtime):
        self._runtime = runtime
        self._tasks: set[asyncio.Task[None]] = set()

    def begin(self) -> None:
        """Read the settings again; what comes of it is in the log."""
        task = asyncio.create_task(self._one())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def idle(self) -> None:
        """Wait for those under way."""
        if self._tasks:
            await asyncio.wait(self._tasks)

    async def _one(self) -> None:
        try:
            await renewed(self._runtime, SYSTEM, SIGNAL)
        except SettingsError:
            pass  # logged, and a finding of `windlass doctor`
        except LedgerError as exc:
            log.error("reload_not_audited", reason=str(exc))
        except Exception as exc:  # noqa: BLE001 (nobody waits for it: whatever a plugin raised must be said)
            log.error("reload_failed", reason=f"{type(exc).__name__}: {exc}")


def _at_a_terminal() -> bool:
    return sys.stdin is not None and os.isatty(0)
