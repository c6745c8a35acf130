"""How a command is told to the parser, and how its answer comes onto the terminal."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

from windlass.errors import InputError

Command = Callable[[argparse.Namespace], int]


class Syntax(argparse.ArgumentParser):
    """A parser that says what is wrong by InputError, with its usage as the second argument."""

    def error(self, message: str) -> NoReturn:
        raise InputError(message, f"{self.format_usage()}{self.prog}: error: {message}\n")


def command(commands: Any, name: str, run: Command, about: str, example: str) -> argparse.ArgumentParser:
    """A command that `run` does, with its help and an example."""
    parser: argparse.ArgumentParser = commands.add_parser(
        name, help=about, description=about[0].upper() + about[1:] + ".", epilog=f"example: {example}"
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(command=run)
    return parser


def group(commands: Any, name: str, about: str) -> Any:
    """A command that has others beneath it."""
    made = commands.add_parser(name, help=about, description=about[0].upper() + about[1:] + ".")
    return made.add_subparsers(metavar="what", required=True)


def filters(parser: argparse.ArgumentParser, **words: str) -> None:
    """Options that leave out what does not fit; words: what stands behind the name in its help."""
    for name, about in words.items():
        parser.add_argument(f"--{name}", default="", help=f"{name} {about}")


def given(arguments: argparse.Namespace) -> dict[str, Any]:
    """The command's own arguments, by their names."""
    return {name: value for name, value in vars(arguments).items() if name not in ("json", "command")}


def wanted(arguments: argparse.Namespace) -> dict[str, Any]:
    """Of those the ones that were given."""
    return {name: value for name, value in given(arguments).items() if value not in (None, "")}


def text_of(name: str) -> str:
    """What a file holds, `-` for standard input. InputError where it cannot be read."""
    try:
        return sys.stdin.read() if name == "-" else Path(name).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as exc:
        raise InputError(f"{name} cannot be read: {exc}") from exc


def show(operation: str, wanted: dict[str, Any], as_json: bool) -> int:
    """One operation, by the folder's server or in this process, and its answer on the terminal."""
    from windlass.server import session, terminal
    from windlass.settings import load

    answer = session.operate(load(), operation, wanted)
    return terminal.show(operation, answer, as_json=as_json)
