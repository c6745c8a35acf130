"""Reads exports and hands their calls over in batches: what becomes of each row, how far it is, what was left out."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any, Final

import msgspec

from windlass.server import peer, terminal
from windlass.server.exports import Exports, ImportAsked
from windlass.server.operations import OPERATIONS
from windlass.server.serve import in_loop
from windlass.server.session import OWNER
from windlass.settings import Settings

BATCH_BYTES: Final = 2 * 1024 * 1024
Operate = Callable[[str, dict[str, Any]], Awaitable[dict[str, Any]]]


def run(settings: Settings, wanted: ImportAsked, *, as_json: bool) -> int:
    """Import, show how far it is and what came of it; exit code 1 where a file could not be read to its end."""
    reading = Exports(wanted, time.time(), most_bytes=min(BATCH_BYTES, settings.gateway.max_body_bytes // 4))
    running = peer.find(settings.home)
    if running is not None:
        found = running

        async def there(name: str, arguments: dict[str, Any]) -> dict[str, Any]:
            return await asyncio.to_thread(found.operate, name, arguments)

        report = in_loop(_hand_over(there, reading, quiet=as_json))
    else:
        report = in_loop(_here(settings, reading, quiet=as_json))
    if as_json:
        terminal.print_json(report)
    else:
        _tell(report)
    return 1 if report["unfinished"] else 0


async def _here(settings: Settings, reading: Exports, *, quiet: bool) -> dict[str, Any]:
    from windlass.runtime import Runtime

    async with Runtime(settings) as runtime:

        async def here(name: str, arguments: dict[str, Any]) -> dict[str, Any]:
            return await OPERATIONS[name](runtime, OWNER, arguments)

        return await _hand_over(here, reading, quiet=quiet)


async def _hand_over(operate_on: Operate, reading: Exports, *, quiet: bool) -> dict[str, Any]:
    """Batch by batch: a kill loses nothing that was counted, and the next run goes on where this one ended."""
    began = time.monotonic()
    wanted, sums = reading.wanted, Counter[str]()
    batches = reading.batches()
    steps = terminal.Steps(quiet=quiet)
    try:
        while (batch := await asyncio.to_thread(next, batches, None)) is not None:
            calls, words = batch
            arguments = {
                "calls": msgspec.to_builtins(calls),
                "said": msgspec.to_builtins(words),
                "tenant": wanted.tenant,
                "workspace": wanted.workspace,
                "dry": wanted.dry,
            }
            taken = await operate_on("history", arguments)
            reading.skipped.update(taken.pop("skipped"))
            sums.update(taken)
            steps.at("kB of the files", reading.position // 1024, reading.bytes // 1024)
    finally:
        steps.close()
    return {
        "read": reading.read,
        "imported": sums["imported"],
        "already": sums["already"],
        "feedback": {"imported": sums["said"], "already": sums["said_already"]},
        "skipped": dict(sorted(reading.skipped.items())),
        "joined": reading.joined,
        "without_bodies": reading.bare,
        "formats": reading.formats,
        "bad": reading.bad,
        "unfinished": reading.unfinished,
        "dry_run": wanted.dry,
        "took_s": round(time.monotonic() - began, 3),
    }


def _tell(report: dict[str, Any]) -> None:
    out = terminal.console()
    said = report["feedback"]
    would = "would be imported" if report["dry_run"] else "imported"
    out.print(
        f"{report['read']} rows read: {report['imported']} calls {would}, {report['already']} were there already; "
        f"feedback: {said['imported']} {would}, {said['already']} were there; {report['took_s']:.1f} s."
    )
    for reason, count in report["skipped"].items():
        out.print(f"skipped: {count} ({terminal.clean(reason)})")
    for one in report["bad"]:
        terminal.note(f"{one['file']}:{one['line']}: {one['reason']}: {one['why']}")
    for name in report["unfinished"]:
        terminal.note(f"error: {name} could not be read to its end; export it again")
