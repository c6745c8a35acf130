"""Every setting, typed, with where its value came from: default, `windlass.toml`, environment or the command line.

The only reader of the environment. A variable names a setting by its path: `WINDLASS_SERVER__PORT=8400` is
`server.port`. Each section is defined in the room that uses it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import hashlib
import os
import re
import tomllib
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, get_type_hints

import msgspec
from msgspec import Meta

from windlass.content.options import AskOptions, ContentOptions
from windlass.errors import SettingsError
from windlass.gateway.access.keys import WELL_KNOWN
from windlass.gateway.options import GatewayOptions, KeyOptions, LimitOptions, ProviderOptions
from windlass.gateway.redaction import RedactionOptions
from windlass.gateway.resilience.resilience import ResilienceOptions
from windlass.gateway.route import kinds
from windlass.gateway.route.options import RoutingOptions
from windlass.improve.grading.options import GraderOptions, Name
from windlass.ledger.db import CONNECTIONS, Durability
from windlass.policies.points import GuardOptions, PointOptions
from windlass.policies.reward import RewardOptions
from windlass.watch.traces.options import HEADERS_SECRET, TelemetryOptions, installed

FILE = "windlass.toml"
PREFIX = "WINDLASS_"
KEY_SECRET = "keys:secret"  # no provider has this name among the secrets: see `Settings.secrets`
_WEAK = frozenset(hashlib.sha256(key.encode()).hexdigest() for key in WELL_KNOWN)
_PASSWORD = re.compile(r"://[^/@\s]*@")
DEFAULT_POINTS: dict[str, dict[str, Any]] = {
    "model": {"mode": "live", "policy": "linear_thompson", "options": {"prior_precision": 20.0}},
    "answer": {"mode": "live", "policy": "threshold", "default": "answer", "randomised_share": 0.0},
}
LOOPBACK = ("127.0.0.1", "localhost", "::1")


class ServerOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where the server listens. Beyond loopback it starts only with keys, of the settings or virtual ones."""

    host: str = "127.0.0.1"
    port: Annotated[int, Meta(ge=1, le=65535)] = 8321
    dashboard: bool = True


class StorageOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The state folder and the database; an empty `database_url` is SQLite inside the folder.

    connections: to PostgreSQL, at most, of each worker. context_days: how long the contexts of decisions are kept.
    """

    database_url: str = ""
    durability: Durability = "normal"
    connections: Annotated[int, Meta(ge=3, le=1000)] = CONNECTIONS
    context_days: Annotated[int, Meta(ge=1, le=36_500)] = 90


class MemoryOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`auto` embeds where the `embeddings` extra is installed; `off` works lexically."""

    embedder: Literal["auto", "off"] = "auto"


class Settings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The whole tree. `sources` says for each set path where its value came from."""

    home: Path = Path(".windlass")
    cache: Path = Path("~/.cache/windlass")
    server: ServerOptions = ServerOptions()
    storage: StorageOptions = StorageOptions()
    gateway: GatewayOptions = GatewayOptions()
    routing: RoutingOptions = RoutingOptions()
    memory: MemoryOptions = MemoryOptions()
    content: ContentOptions = ContentOptions()
    ask: AskOptions = AskOptions()
    reward: RewardOptions = RewardOptions()
    points: dict[str, PointOptions] = msgspec.field(default_factory=lambda: _points({}))
    providers: tuple[ProviderOptions, ...] = ()
    keys: tuple[KeyOptions, ...] = ()
    limits: tuple[LimitOptions, ...] = ()
    resilience: ResilienceOptions = ResilienceOptions()
    telemetry: TelemetryOptions = TelemetryOptions()
    redaction: RedactionOptions = RedactionOptions()
    graders: dict[Name, GraderOptions] = {}
    secrets: dict[str, str] = {}
    sources: dict[str, str] = {}

    @property
    def database(self) -> str | Path:
        """The database in force: a URL, or the file in the state folder."""
        return self.storage.database_url or self.home / "ledger.db"

    @property
    def decided(self) -> dict[str, PointOptions]:
        """The points at which something is decided: `points`, and those of the kinds of work that `auto` does beside
        chats, where there is something to choose."""
        return kinds.decided(self.points, self.gateway, self.providers)

    @property
    def key_secret(self) -> str:
        """What virtual keys are hashed under, '' where the state folder holds it."""
        return self.secrets.get(KEY_SECRET, "")

    def __repr__(self) -> str:
        """Without secrets, so that a traceback or a log line cannot leak one."""
        return f"Settings(home={str(self.home)!r}, set={sorted(self.sources)})"


# What a running server can take over; a dot at the end: all that is below. Of these all but `_FIXED`.
_RELOADED = (
    "gateway.",
    "routing.objectives",
    "routing.max_latency_ms",
    "routing.latency_quantile",
    "routing.max_error_percent",
    "providers",
    "keys",
    "limits",
    "resilience.",
    "ask.",
    "storage.context_days",
)
_FIXED = ("gateway.key_secret_env",)
# Not settings: where the file is, and the key that the examples of the dashboard send.
_NO_SETTINGS = (PREFIX + "CONFIG", PREFIX + "KEY")
_OURS = ("secrets", "sources")


def load(overrides: Mapping[str, Any] | None = None, *, environ: Mapping[str, str] | None = None) -> Settings:
    """Settings from defaults, file, environment and `overrides` (dotted paths), the later winning.

    `environ` replaces the process environment. Raises SettingsError naming the path, the value and the nearest
    known name.
    """
    env = os.environ if environ is None else environ
    tree: dict[str, Any] = {}
    sources: dict[str, str] = {}
    for source, values in _layers(env, overrides or {}):
        for path, value in values:
            _put(tree, path, value, source)
            sources[".".join(path)] = source
    return _checked(_convert(tree, sources), env)


def salvaged(*, environ: Mapping[str, str] | None = None) -> tuple[Settings, str]:
    """The settings as far as they can be read, and why not all of them can, '' where they can.

    A section with a mistake is as if nothing were set in it. For those who look for mistakes: nothing may work by them.
    """
    env = os.environ if environ is None else environ
    try:
        return load(environ=env), ""
    except SettingsError as exc:
        reason = str(exc)
    tree: dict[str, Any] = {}
    sources: dict[str, str] = {}
    for layer in (_file_layer(env), _given_layers(env, {})):
        with contextlib.suppress(SettingsError):
            for source, values in layer:
                for path, value in values:
                    _put(tree, path, value, source)
                    sources[".".join(path)] = source
    sections, _ = _converted(tree, sources)
    sources = {path: source for path, source in sources.items() if path.partition(".")[0] in sections}
    return _with_secrets(Settings(**sections, sources=sources), env), reason


def reread(settings: Settings, *, environ: Mapping[str, str] | None = None) -> Settings:
    """The settings as file and environment give them by now; what the command line set stays.

    SettingsError as `load`, and where the file is gone that `settings` came from.
    """
    tree = msgspec.to_builtins(settings, enc_hook=str)
    given = {path: _at(tree, path) for path, source in settings.sources.items() if source == "command line"}
    for source in sorted(set(settings.sources.values()) - {"environment", "command line"}):
        if not Path(source).exists():
            raise SettingsError(f"{source} is gone, which settings in force came from; put it back, or restart")
    return load(given, environ=environ)


def changed(before: Settings, after: Settings) -> tuple[str, ...]:
    """The paths of what differs. SettingsError names those that a running server cannot take over."""
    first, then = (_values(one) for one in (before, after))
    paths = [path for path in sorted({*first, *then}) if first.get(path) != then.get(path)]
    if before.key_secret != after.key_secret:
        paths.append(_FIXED[0])
    if fixed := [path for path in paths if path in _FIXED or not path.startswith(_RELOADED)]:
        remedy = "restart for it, or put back what was there"
        raise SettingsError(f"{', '.join(fixed)}: a running server cannot take over another value; {remedy}")
    return tuple(paths)


def _values(settings: Settings) -> dict[str, Any]:
    """Every setting by its dotted path; of what a list holds only the whole."""
    tree = msgspec.to_builtins(settings, enc_hook=str)
    return {".".join(path): value for path, value in _leaves({k: v for k, v in tree.items() if k not in _OURS}, [])}


def _at(tree: Any, path: str) -> Any:
    for name in path.split("."):
        tree = tree[name]
    return tree


def _layers(env: Mapping[str, str], overrides: Mapping[str, Any]) -> Iterator[tuple[str, list[tuple[list[str], Any]]]]:
    yield from _file_layer(env)
    yield from _given_layers(env, overrides)


def _given_layers(
    env: Mapping[str, str], overrides: Mapping[str, Any]
) -> Iterator[tuple[str, list[tuple[list[str], Any]]]]:
    yield (
        "environment",
        [
            (name.removeprefix(PREFIX).lower().split("__"), value)
            for name, value in env.items()
            if name.startswith(PREFIX) and name not in _NO_SETTINGS
        ],
    )
    yield "command line", [(path.split("."), value) for path, value in overrides.items()]


def _file_layer(env: Mapping[str, str]) -> Iterator[tuple[str, list[tuple[list[str], Any]]]]:
    path = Path(env.get(PREFIX + "CONFIG") or FILE)
    try:
        text = path.read_bytes()
    except FileNotFoundError:
        if PREFIX + "CONFIG" in env:
            raise SettingsError(f"{path} (from {PREFIX}CONFIG) does not exist; create it or unset it") from None
        return
    except OSError as exc:
        raise SettingsError(f"{path} cannot be read: {exc}") from exc
    try:
        yield str(path), list(_leaves(tomllib.loads(text.decode()), []))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as exc:
        raise SettingsError(f"{path} is not valid TOML: {exc}") from exc


def _leaves(tree: Mapping[str, Any], path: list[str]) -> Iterator[tuple[list[str], Any]]:
    for name, value in tree.items():
        if isinstance(value, dict) and value:
            yield from _leaves(value, [*path, name])
        else:
            yield [*path, name], value


def _put(tree: dict[str, Any], path: list[str], value: Any, source: str) -> None:
    for name in path[:-1]:
        tree = tree.setdefault(name, {})
        if not isinstance(tree, dict):
            raise SettingsError(f"{'.'.join(path)} ({source}) lies under {name!r}, which is a plain value")
    tree[path[-1]] = value


def _convert(tree: dict[str, Any], sources: dict[str, str]) -> Settings:
    """The typed tree; all sections are tried, so that one run names every mistake."""
    values, problems = _converted(tree, sources)
    if problems:
        raise SettingsError("; ".join(problems))
    return Settings(**values, sources=sources)


def _converted(tree: dict[str, Any], sources: dict[str, str]) -> tuple[dict[str, Any], list[str]]:
    """The sections that can be read, and what is wrong with the others."""
    types = {name: hint for name, hint in get_type_hints(Settings, include_extras=True).items() if name not in _OURS}
    problems = [_unknown(name, types) for name in tree if name not in types]
    values: dict[str, Any] = {}
    for name, hint in types.items():
        if name not in tree:
            continue
        try:
            problems += _unread(name, tree[name])
            given = _with_defaults(tree[name]) if name == "points" else tree[name]
            values[name] = msgspec.convert(given, hint, strict=False, dec_hook=_path)
        except msgspec.ValidationError as exc:
            problems.append(_problem(name, str(exc), sources))
    return values, problems


def _points(given: dict[str, Any]) -> dict[str, PointOptions]:
    return msgspec.convert(_with_defaults(given), dict[str, PointOptions])


def _with_defaults(given: Any) -> Any:
    """The decision points as set over what they are by default; another policy does not inherit options."""
    if not isinstance(given, dict):
        return given
    merged: dict[str, Any] = {**DEFAULT_POINTS, **given}
    for point, default in DEFAULT_POINTS.items():
        changed = given.get(point, {})
        if isinstance(changed, dict):
            other = changed.get("policy", default["policy"]) != default["policy"]
            merged[point] = {**default, **({"options": {}} if other else {}), **changed}
    return merged


def _path(kind: type, value: Any) -> Any:
    if kind is Path and isinstance(value, str | Path) and str(value):
        return Path(value).expanduser()
    raise ValueError(f"expected a path, got {value!r}")


def _unknown(name: str, types: Mapping[str, Any]) -> str:
    near = difflib.get_close_matches(name, types, n=1)
    return f"unknown setting {name!r}" + (f"; did you mean {near[0]!r}?" if near else f"; known: {', '.join(types)}")


def _unread(section: str, value: Any) -> list[str]:
    """Unknown names in the sections that are dataclasses, which msgspec would pass over in silence."""
    nested = {"reward": (RewardOptions, {"": value}), "points": (PointOptions, value)}
    kind, parts = nested.get(section, (RewardOptions, {}))
    known = [field.name for field in dataclasses.fields(kind)]
    if not isinstance(parts, dict):
        return []
    return [
        f"{section}{'.' if point else ''}{point}: {_unknown(name, dict.fromkeys(known))}"
        for point, part in parts.items()
        if isinstance(part, dict)
        for name in part
        if name not in known
    ]


def _problem(section: str, message: str, sources: Mapping[str, str]) -> str:
    """msgspec's sentence with our path in front: `server.port: Expected `int` <= 65535 (from environment)`."""
    what, _, where = message.partition(" - at `$")
    path = section + where.rstrip("`")
    origin = sources.get(path) or next((s for p, s in sources.items() if p.startswith(section)), "defaults")
    return f"{path}: {what} (from {origin})"


def _checked(settings: Settings, env: Mapping[str, str]) -> Settings:
    _check_rules(settings)
    return _with_secrets(_with_guards(settings), env)


def _with_guards(settings: Settings) -> Settings:
    """`settings` in which the point `model` has the guards that routing asks for."""
    point, routing = settings.points["model"], settings.routing
    asked = [("service", routing.limits_calls), ("personal", routing.personalise)]
    there = {guard.guard for guard in point.guards}
    more = tuple(GuardOptions(name) for name, wanted in asked if wanted and name not in there)
    if not more:
        return settings
    guarded = dataclasses.replace(point, guards=(*point.guards, *more))
    return msgspec.structs.replace(settings, points={**settings.points, "model": guarded})


def _with_secrets(settings: Settings, env: Mapping[str, str]) -> Settings:
    """`settings` with the secrets that they name by variable, and with the user's own folder for what is cached."""
    if "cache" not in settings.sources:
        base = env.get("XDG_CACHE_HOME") or str(Path(env.get("HOME") or "~").expanduser() / ".cache")
        settings = msgspec.structs.replace(settings, cache=Path(base) / "windlass")
    secrets = {p.name: env.get(p.api_key_env, "") for p in settings.providers if p.api_key_env}
    if settings.gateway.key_secret_env:
        secrets[KEY_SECRET] = env.get(settings.gateway.key_secret_env, "")
    if settings.telemetry.headers_env:
        secrets[HEADERS_SECRET] = env.get(settings.telemetry.headers_env, "")
    return msgspec.structs.replace(settings, secrets=secrets)


def _check_rules(settings: Settings) -> None:
    """SettingsError where a rule that spans sections is broken."""
    kinds.check(settings.gateway, settings.providers)
    if weak := [key.name for key in settings.keys if key.sha256 in _WEAK]:
        raise SettingsError(f"keys {', '.join(weak)}: everybody knows this key; make one with `windlass keys create`")
    twice = [name for name, count in Counter(limit.name for limit in settings.limits).items() if count > 1]
    if twice:
        raise SettingsError(f"limits: {', '.join(twice)} stands there more than once; give each a name of its own")
    if settings.routing.warm_start_prompts:
        _check_warm_start(settings)
    if settings.telemetry.otlp_endpoint and not installed():
        remedy = "`pip install windlass[telemetry]`, or clear telemetry.otlp_endpoint"
        raise SettingsError(f"telemetry.otlp_endpoint is set, but what sends traces is not installed; {remedy}")


def _check_warm_start(settings: Settings) -> None:
    """SettingsError where it is on, and what it stands on is not."""
    if not settings.graders:
        remedy = "add a grader, such as [graders.exact], or set it to 0"
        raise SettingsError(f"routing.warm_start_prompts: nobody would say how good the extra answers are; {remedy}")
    if not settings.gateway.keep_bodies:
        remedy = "set gateway.keep_bodies to true, or this to 0"
        raise SettingsError(f"routing.warm_start_prompts: prompts are asked again from the bodies kept; {remedy}")


def flat(settings: Settings) -> dict[str, tuple[Any, str]]:
    """Every setting in force: dotted path -> (value, source). Key digests are shortened, secrets left out."""
    found: dict[str, tuple[Any, str]] = {}
    for name, value in _values(settings).items():
        shown = [{**key, "sha256": key["sha256"][:8] + "..."} for key in value] if name == "keys" else _veiled(value)
        found[name] = (shown, settings.sources.get(name, "default"))
    return found


def _veiled(value: Any) -> Any:
    """`value` without the passwords that URLs carry."""
    match value:
        case str():
            return _PASSWORD.sub("://***@", value)
        case list() | tuple():
            return [_veiled(part) for part in value]
        case dict():
            return {name: _veiled(part) for name, part in value.items()}
        case _:
            return value


def missing_secrets(settings: Settings) -> list[str]:
    """A sentence for each provider whose key variable is not set, and for the headers of the traces' receiver."""
    unset = settings.telemetry.headers_env if not settings.secrets.get(HEADERS_SECRET) else ""
    remedy = "export it or clear telemetry.headers_env"
    return [f"traces are sent without headers: the variable {unset} is not set; {remedy}"] * bool(unset) + [
        f"provider {provider.name}: the variable {provider.api_key_env} is not set; export it or clear api_key_env"
        for provider in settings.providers
        if provider.api_key_env and not settings.secrets.get(provider.name)
    ]
