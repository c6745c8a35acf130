"""The command line: `windlass up | run | ingest | ask | calls | decisions | doctor`.

Exit codes: 0 done, 1 failed, 2 wrong usage, 130 interrupted. While a server runs on the state folder the commands
hand their work to it; otherwise they do it themselves.
"""

from __future__ import annotations

import argparse
import io
import sys
from collections.abc import Callable, Sequence
from importlib.metadata import version
from typing import Any

from windlass.errors import InputError, SettingsError, WindlassError

Command = Callable[[argparse.Namespace], int]


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    arguments = _parser().parse_args(argv)
    from windlass.server import terminal

    try:
        return int(arguments.command(arguments))
    except KeyboardInterrupt:
        terminal.note("interrupted")
        return 130
    except BrokenPipeError:
        sys.stderr.close()
        return 1
    except (InputError, SettingsError) as exc:
        terminal.fail(exc, as_json=arguments.json)
        return 2
    except WindlassError as exc:
        terminal.fail(exc, as_json=arguments.json)
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="windlass",
        description="A runtime for LLM agents that only turns one way: better.",
        epilog="example: windlass ingest talks/ && windlass ask 'Why does a windlass turn only one way?'",
    )
    parser.add_argument("--version", action="version", version=f"windlass {version('windlass')}")
    commands = parser.add_subparsers(metavar="command", required=True)

    up = _command(commands, "up", _up, "serve the gateway and the dashboard", "windlass up --port 8400")
    _listening(up)
    run = _command(commands, "run", _run, "ingest, answer two questions, then serve", "windlass run talks/ --exit")
    run.add_argument("paths", nargs="*", help="files or folders; without any, the corpus in the package")
    run.add_argument("-q", "--question", action="append", default=[], help="ask this (may be repeated)")
    run.add_argument("--exit", action="store_true", help="stop after the answers")
    _listening(run)
    ingest = _command(commands, "ingest", _ingest, "take transcripts into memory", "windlass ingest talks/ --no-wait")
    ingest.add_argument("paths", nargs="+", help="files (.md .vtt .srt .json .txt) or folders")
    ingest.add_argument("--no-wait", action="store_true", help="leave the vectors to the next `up`")
    ask = _command(commands, "ask", _ask, "answer from memory with verified quotes", "windlass ask 'Why a pawl?'")
    ask.add_argument("question")
    ask.add_argument("--model", default="auto", help="a model of `windlass doctor`; auto lets the policy choose")
    for name, run_it, about in (
        ("calls", _calls, "the newest calls, what they cost and how long they took"),
        ("decisions", _decisions, "the newest automatic choices with their propensities"),
    ):
        listing = _command(commands, name, run_it, about, f"windlass {name} --limit 5 --json")
        listing.add_argument("--limit", type=int, default=20, help="how many (1 to 1000)")
    doctor = _command(commands, "doctor", _doctor, "what is in force and what is wrong", "windlass doctor --replay")
    doctor.add_argument("--replay", action="store_true", help="rebuild every policy from the ledger and compare")
    return parser


def _command(commands: Any, name: str, run: Command, about: str, example: str) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(
        name, help=about, description=about[0].upper() + about[1:] + ".", epilog=f"example: {example}"
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(command=run)
    return parser


def _listening(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--host", help="address to listen on (server.host)")
    parser.add_argument("--port", type=int, help="port to listen on (server.port); the next free one if taken")
    parser.add_argument("--no-dashboard", action="store_true", help="serve the gateway only")


def _overrides(arguments: argparse.Namespace) -> dict[str, Any]:
    named = {"server.host": arguments.host, "server.port": arguments.port}
    return {path: value for path, value in named.items() if value is not None}


def _up(arguments: argparse.Namespace) -> int:
    from windlass.server import session
    from windlass.settings import load

    return session.up(load(_overrides(arguments)), dashboard=not arguments.no_dashboard, as_json=arguments.json)


def _run(arguments: argparse.Namespace) -> int:
    from windlass.server import session
    from windlass.settings import load

    return session.run(
        load(_overrides(arguments)),
        paths=arguments.paths,
        questions=arguments.question,
        stay=not arguments.exit,
        dashboard=not arguments.no_dashboard,
        as_json=arguments.json,
    )


def _ingest(arguments: argparse.Namespace) -> int:
    from windlass.server import session
    from windlass.settings import load

    return session.ingest(load(), arguments.paths, wait=not arguments.no_wait, as_json=arguments.json)


def _ask(arguments: argparse.Namespace) -> int:
    return _show("ask", {"question": arguments.question, "model": arguments.model}, arguments.json)


def _calls(arguments: argparse.Namespace) -> int:
    return _show("calls", {"limit": arguments.limit}, arguments.json)


def _decisions(arguments: argparse.Namespace) -> int:
    return _show("decisions", {"limit": arguments.limit}, arguments.json)


def _doctor(arguments: argparse.Namespace) -> int:
    return _show("doctor", {"replay": arguments.replay}, arguments.json)


def _show(operation: str, wanted: dict[str, Any], as_json: bool) -> int:
    """One operation, by the folder's server or in this process, and its answer on the terminal."""
    from windlass.server import session, terminal
    from windlass.settings import load

    answer = session.operate(load(), operation, wanted)
    return terminal.show(operation, answer, as_json=as_json)


if __name__ == "__main__":
    sys.exit(main())
