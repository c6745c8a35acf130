"""Write docs/reference/*.md from the program itself: commands, settings, errors, names. `--check` only compares."""

from __future__ import annotations

import argparse
import contextlib
import inspect
import io
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import MISSING, fields, is_dataclass
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

import msgspec

import windlass
from windlass import cli, plugins, testing
from windlass.errors import HANDLING
from windlass.gateway.options import (
    AnthropicOptions,
    AzureOptions,
    KeyOptions,
    LimitOptions,
    LitellmOptions,
    ModelOptions,
    ProviderOptions,
)
from windlass.improve.grading import registry as graders
from windlass.improve.grading.options import GraderOptions
from windlass.policies import registry
from windlass.policies.points import GuardOptions, PointOptions, ShadowOptions
from windlass.settings import Settings, flat, load

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "docs" / "reference"
LISTS = {
    "[[providers]]": ProviderOptions,
    "options of kind anthropic": AnthropicOptions,
    "options of kind azure": AzureOptions,
    "options of kind litellm": LitellmOptions,
    "models of a provider": ModelOptions,
    "[[keys]]": KeyOptions,
    "[[limits]]": LimitOptions,
}
POINTS = {
    "[points.<point>]": PointOptions,
    "shadows of a point": ShadowOptions,
    "guards": GuardOptions,
    "[graders.<name>]": GraderOptions,
}
GROUPS = {
    plugins.POLICIES: "a callable that takes the options and returns a policy ([how to](../howto/own-policy.md))",
    plugins.PROVIDERS: "a callable that takes a ProviderOptions and the key and returns a provider "
    "([how to](../howto/own-provider.md))",
    plugins.RECOGNISERS: "a callable that takes the options and returns a recogniser ([how to](../howto/redaction.md))",
    plugins.GRADERS: "a callable that takes the options and returns a grader ([how to](../howto/graders.md))",
}


EXIT_CODES = (
    "| exit code | means |\n|---|---|\n"
    "| 0 | done |\n"
    "| 1 | failed; of `doctor` and `audit verify`: something is wrong, and they say what |\n"
    "| 2 | wrong usage, or settings that cannot work (a broken file, a plugin that is not installed) |\n"
    "| 3 | of `replay`: the log cannot tell; of `experiment`: nothing speaks for a variant, or it stands otherwise |\n"
    "| 130 | interrupted |\n",
    "Settings that cannot work end every command with 2, those that only read too: they say which database is meant, "
    "and a guess could answer from another one. The message names the mistake. `windlass doctor` alone goes on: it "
    "names all mistakes, makes every check that needs no ledger, and ends with 1; `windlass reload` leaves the reading "
    "to the server, which records what it refuses.\n",
)


def commands() -> str:
    """The help of every command, as the program prints it."""
    parts = ["# Commands\n", *EXIT_CODES]
    for words in _commands(cli.parser(), ()):
        parts.append(f"## `{' '.join(('windlass', *words))}`\n\n```text\n{_help(words).rstrip()}\n```\n")
    return "\n".join(parts)


def settings() -> str:
    """Every setting with its default, and the options of whatever can be named in one."""
    lines = [
        "# Settings\n",
        "From defaults, then `windlass.toml` (or the file that `WINDLASS_CONFIG` names), then the environment",
        "(`WINDLASS_SERVER__PORT=8400` is `server.port`), then the command line. `windlass doctor` shows what is in",
        "force.\n",
        "| setting | default |",
        "|---|---|",
    ]
    for path, (value, _) in flat(load(environ={"HOME": "/home/you"})).items():
        lines.append(f"| `{path}` | `{value}` |")
    lines.append("\n## What the sections are for\n")
    for name, kind in _sections():
        lines += [f"### `{name}`\n", "\n\n".join(_about(kind)), ""]
        if ranges := [*_ranges(name, kind)]:
            lines += [*ranges, ""]
    lines.append("## Entries of lists\n")
    for title, kind in {**LISTS, **POINTS}.items():
        lines += [*_struct(title, kind), ""]
    described = (
        ("Policies", registry.names(), registry.options),
        ("Guards", registry.guards(), registry.options),
        ("Graders", graders.names(), graders.options),
    )
    for title, names, options in described:
        lines.append(f"## {title}\n")
        for name in names:
            lines += [*_options(name, options(name)), ""]
    lines += [
        "## Plugins\n",
        "Entry points of other packages, found by their name and imported when a setting names them.\n",
        "| group | what it refers to |",
        "|---|---|",
        *(f"| `{group}` | {about} |" for group, about in GROUPS.items()),
    ]
    return "\n".join(lines) + "\n"


def _sections() -> Iterator[tuple[str, type]]:
    """The sections of the settings that have names of their own."""
    for name, hint in get_type_hints(Settings).items():
        if isinstance(hint, type) and (is_dataclass(hint) or issubclass(hint, msgspec.Struct)):
            yield name, hint


def _ranges(section: str, kind: type) -> Iterator[str]:
    """A line for each name whose values its type bounds."""
    found = {name: _bounds(hint) for name, hint in get_type_hints(kind, include_extras=True).items()}
    if any(found.values()):
        yield "| setting | takes |\n|---|---|"
        yield from (f"| `{section}.{name}` | {bounds} |" for name, bounds in found.items() if bounds)


def _bounds(hint: Any) -> str:
    """What a type allows, in words: a range, or one of several.

    >>> _bounds(Literal["a", "b"]), _bounds(str)
    ('`a`, `b`', '')
    """
    if get_origin(hint) is Literal:
        return ", ".join(f"`{one}`" for one in get_args(hint))
    for meta in getattr(hint, "__metadata__", ()):
        least, most = (meta.ge, meta.le) if isinstance(meta, msgspec.Meta) else (None, None)
        if least is not None and most is not None:
            return f"{least} to {most}"
        if least is not None:
            return f"{least} or more"
        if getattr(meta, "gt", None) is not None:
            return f"more than {meta.gt}"
    return ""


def errors() -> str:
    """The closed list of causes and how each is handled."""
    lines = [
        "# Error categories\n",
        "Retry, breaker, alerts and dashboards read this one table.\n",
        "| category | retryable | backoff | counts against breaker | who is told |",
        "|---|---|---|---|---|",
    ]
    for category, how in HANDLING.items():
        breaker = "yes" if how.counts_against_breaker else "no"
        retry = "yes" if how.retryable else "no"
        lines.append(f"| `{category.value}` | {retry} | {_word(how.backoff)} | {breaker} | {_word(how.audience)} |")
    return "\n".join(lines) + "\n"


def names() -> str:
    """What `import windlass` and `windlass.testing` offer."""
    lines = ["# Names\n", "What programs of others may rely on.\n"]
    for module in (windlass, testing):
        lines += [f"## `{module.__name__}`\n", "| name | what it is for |", "|---|---|"]
        lines += [f"| `{name}` | {_about(getattr(module, name))[0]} |" for name in module.__all__]
        lines.append("")
    lines += ["## Methods of `windlass.Client`\n", "| method | what it does |", "|---|---|"]
    for name, method in inspect.getmembers(windlass.Client, inspect.isfunction):
        if not name.startswith("_"):
            shown = ", ".join(str(part) for part in inspect.signature(method).parameters if part != "self")
            lines.append(f"| `{name}({shown})` | {_about(method)[0]} |")
    return "\n".join(lines) + "\n"


PAGES: dict[str, Callable[[], str]] = {
    "commands.md": commands,
    "settings.md": settings,
    "errors.md": errors,
    "names.md": names,
}


def main() -> int:
    """Write the pages, or (`--check`) say which are stale."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true")
    check = parser.parse_args().check
    FOLDER.mkdir(parents=True, exist_ok=True)
    stale = [name for name, page in PAGES.items() if not _same(FOLDER / name, page())]
    for name in [] if check else stale:
        (FOLDER / name).write_text(PAGES[name]())
    if check and stale:
        sys.stderr.write(f"stale: {', '.join(stale)}; run `make docs`\n")
    return 1 if check and stale else 0


def _same(path: Path, text: str) -> bool:
    return path.exists() and path.read_text() == text


def _commands(parser: argparse.ArgumentParser, words: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    """Every command and what is beneath it, in the order of the help."""
    yield words
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for name, below in action.choices.items():
                yield from _commands(below, (*words, name))


def _help(words: tuple[str, ...]) -> str:
    os.environ["COLUMNS"] = "100"
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed), contextlib.suppress(SystemExit):
        cli.main([*words, "--help"])
    return printed.getvalue()


def _struct(title: str, kind: type) -> Iterator[str]:
    """What an entry of a list, or a point, may hold."""
    yield f"### `{title}`\n"
    yield "\n\n".join(_about(kind))
    yield "\n| name | default |\n|---|---|"
    if issubclass(kind, msgspec.Struct):
        for field in msgspec.structs.fields(kind):
            default = field.default_factory() if callable(field.default_factory) else field.default
            shown = "**required**" if field.required else f"`{msgspec.to_builtins(default)}`"
            yield f"| `{field.name}` | {shown} |"
    else:
        yield from _defaults(kind)


def _options(name: str, kind: type) -> Iterator[str]:
    """The options of one policy, guard or grader."""
    yield f"### `{name}`\n"
    # What a class inherits is explained in the class that it comes from.
    yield "\n\n".join(part for one in kind.__mro__ if is_dataclass(one) for part in _about(one))
    yield "\n| option | default |\n|---|---|"
    yield from _defaults(kind)


def _defaults(kind: type) -> Iterator[str]:
    for field in fields(kind):
        default = field.default_factory() if field.default_factory is not MISSING else field.default
        yield f"| `{field.name}` | `{msgspec.to_builtins(default)}` |"


def _about(thing: object) -> list[str]:
    """The paragraphs of a docstring, each as one line."""
    return [" ".join(part.split()) for part in (inspect.getdoc(thing) or "").split("\n\n")]


def _word(value: object) -> str:
    return str(getattr(value, "value", value)).replace("_", " ")


if __name__ == "__main__":
    sys.exit(main())
