"""Write docs/reference/*.md from the program itself: commands, settings, errors, names. `--check` only compares."""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import sys
from collections.abc import Callable
from pathlib import Path

import windlass
from windlass import cli
from windlass.errors import HANDLING
from windlass.policies import registry
from windlass.settings import flat, load

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "docs" / "reference"
COMMANDS = ("", "up", "run", "ingest", "ask", "calls", "decisions", "doctor")


def commands() -> str:
    """The help of every command, as the program prints it."""
    parts = ["# Commands\n", "Exit codes: 0 done, 1 failed, 2 wrong usage, 130 interrupted.\n"]
    for name in COMMANDS:
        parts.append(f"## `windlass{' ' + name if name else ''}`\n\n```text\n{_help(name).rstrip()}\n```\n")
    return "\n".join(parts)


def settings() -> str:
    """Every setting with its default."""
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
    lines += ["", f"Policies by name: {', '.join(f'`{name}`' for name in registry.names())}."]
    return "\n".join(lines) + "\n"


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
    """What `import windlass` offers."""
    lines = ["# Names\n", "| name | what it is for |", "|---|---|"]
    for name in windlass.__all__:
        about = (getattr(windlass, name).__doc__ or "").strip().splitlines()[0]
        lines.append(f"| `windlass.{name}` | {about} |")
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


def _help(name: str) -> str:
    os.environ["COLUMNS"] = "100"
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed), contextlib.suppress(SystemExit):
        cli.main([*([name] if name else []), "--help"])
    return printed.getvalue()


def _word(value: object) -> str:
    return str(getattr(value, "value", value)).replace("_", " ")


if __name__ == "__main__":
    sys.exit(main())
