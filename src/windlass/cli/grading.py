"""The commands about graders: how they stand, a run over past calls, how far they agree with people."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from windlass.cli.syntax import command, filters, group

PAGE = 20
MOST = 100_000


def add(commands: Any) -> None:
    """Tell the parser of `graders`."""
    graders = group(commands, "graders", "checks and judges that grade finished calls")
    about = "the graders of the settings: what each is and costs, what it has done since the server began"
    command(graders, "list", _list, about, "windlass graders list --json")
    about = "ask graders about past calls, newest first"
    run = command(graders, "run", _run, about, "windlass graders run exact --since 7d --answers answers.jsonl")
    run.add_argument("graders", nargs="*", help="names of the settings; without: all whose share a call is in")
    filters(run, call="one alone, by its id", user="that asked", model="that answered")
    for bound in ("since", "until"):
        run.add_argument(f"--{bound}", help="90m, 24h, 7d, an ISO 8601 time, or seconds since 1970")
    run.add_argument("--limit", type=int, default=100, help=f"how many calls (1 to {MOST})")
    run.add_argument("--answers", type=Path, metavar="FILE", help="JSON lines with `question`, `expected` or `tests`")
    run.add_argument("--dry", action="store_true", help="keep nothing; judges ask their models all the same")
    about = "how far graders agree with what people said of the same calls"
    agreement = command(graders, "agreement", _agreement, about, "windlass graders agreement judge --json")
    agreement.add_argument("graders", nargs="*", help="names of the settings; without: all that grade replies")


def _list(arguments: argparse.Namespace) -> int:
    return _show("graders", {}, as_json=arguments.json)


def _agreement(arguments: argparse.Namespace) -> int:
    return _show("agreement", {"graders": arguments.graders}, as_json=arguments.json)


def _show(operation: str, wanted: dict[str, Any], *, as_json: bool) -> int:
    from windlass.server import graderlist, session
    from windlass.settings import load

    return graderlist.show(operation, session.operate(load(), operation, wanted), as_json=as_json)


def _run(arguments: argparse.Namespace) -> int:
    from windlass.server import graderlist

    return graderlist.show("grade", graderlist.joined(_pages(arguments)), as_json=arguments.json)


def _pages(arguments: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Page by page, so that none takes longer than a server is waited for."""
    import msgspec

    from windlass.errors import InputError
    from windlass.improve.grading.answers import rows
    from windlass.server import session
    from windlass.settings import load

    if not 1 <= arguments.limit <= MOST:
        raise InputError(f"--limit is {arguments.limit}; give 1 to {MOST}")
    names = ("graders", "call", "user", "model", "since", "until", "dry")
    wanted = {name: value for name in names if (value := getattr(arguments, name))}
    if arguments.answers is not None:
        wanted["answers"] = msgspec.to_builtins(rows(arguments.answers))
    settings, left, before = load(), arguments.limit, ""
    while left > 0:
        page = session.operate(settings, "grade", {**wanted, "limit": min(PAGE, left), "before": before})
        yield page
        left, before = left - max(1, page["calls"]), page["before"]
        if not before:
            return
