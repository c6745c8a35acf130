"""The command line: `windlass up | run | ingest | ask | calls | decisions | doctor`.

Exit codes: 0 done, 1 failed, 2 wrong usage or settings that cannot work, 3 a log that cannot answer (`replay`) or a
variant that nothing speaks for (`experiment`), 130 interrupted. While a server runs on the state folder the commands
hand their work to it; otherwise they do it themselves. Without settings that can be read no command knows which
database is meant, so none but `doctor` and `reload` begins.
"""

from __future__ import annotations

import argparse
import io
import os
import sys
from collections.abc import Sequence
from importlib.metadata import version

from windlass.cli import (
    control,
    evaluating,
    experimenting,
    grading,
    health,
    listings,
    routing,
    serving,
    storing,
    warming,
)
from windlass.cli.syntax import Syntax
from windlass.errors import InputError, SettingsError, WindlassError
from windlass.ledger import collection

STDERR = 2


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    _open_streams()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    arguments = _arguments(sys.argv[1:] if argv is None else argv)
    from windlass.server import terminal

    try:
        with collection.rarely():  # nothing of what a command loads is garbage: looking took 7 % of a start
            code = int(arguments.command(arguments))
        sys.stdout.flush()
        return code
    except KeyboardInterrupt:
        terminal.note("interrupted")
        return 130
    except BrokenPipeError:
        sys.stderr.close()
        return 1
    except OSError as exc:
        # The rooms tell in their own words what the system refused them; what comes here is the output (`>/dev/full`),
        # or a file beside the ledger on a disk that is full.
        _drop_output()
        terminal.note(f"error: the output or a file cannot be written: {exc}")
        return 1
    except InputError as exc:
        terminal.fail(exc, as_json=arguments.json)
        return 2
    except SettingsError as exc:
        more = "" if "(from command line)" in str(exc) else "; `windlass doctor` tells what else is wrong"
        terminal.fail(SettingsError(f"{exc}{more}"), as_json=arguments.json)
        return 2
    except WindlassError as exc:
        terminal.fail(exc, as_json=arguments.json)
        return 1


def _arguments(words: Sequence[str]) -> argparse.Namespace:
    """The command's arguments; wrong usage ends with exit code 2 and, under --json, an error that programs can read."""
    try:
        return parser().parse_args(words)
    except InputError as exc:
        message, usage = exc.args
        if "--json" in words:
            from windlass.server import terminal

            terminal.fail(InputError(message), as_json=True)
        else:
            sys.stderr.write(usage)
        raise SystemExit(2) from None


def _open_streams() -> None:
    """Point standard streams that are closed (`>&-`) at nothing, or the next file that is opened would be one of them:
    a stray word for the terminal would land in it."""
    fresh = os.open(os.devnull, os.O_RDWR)
    while fresh <= STDERR:
        fresh = os.open(os.devnull, os.O_RDWR)
    os.close(fresh)
    # A program that was started with closed streams has none.
    sys.stdout = sys.stdout or os.fdopen(1, "w")
    sys.stderr = sys.stderr or os.fdopen(STDERR, "w")


def _drop_output() -> None:
    """Forget what could not be written, or Python tries again as it ends, and complains."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        nothing = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nothing, sys.stdout.fileno())
        os.close(nothing)


def parser() -> Syntax:
    """All commands, in the order of the help."""
    made = Syntax(
        prog="windlass",
        description="A runtime for LLM agents that only turns one way: better.",
        epilog="example: windlass ingest talks/ && windlass ask 'Why does a windlass turn only one way?'",
    )
    made.add_argument("--version", action="version", version=f"windlass {version('windlass')}")
    commands = made.add_subparsers(metavar="command", required=True)
    examining = (health.add, grading.add, control.add, health.add_audit)
    choosing = (routing.add, warming.add, evaluating.add, experimenting.add)
    for add in (serving.add, listings.add, *choosing, storing.add_logs, *examining, storing.add):
        add(commands)
    return made
