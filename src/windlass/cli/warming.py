"""The commands about a warm start: what one would cost, and how far it is."""

from __future__ import annotations

import argparse
from typing import Any

from windlass.cli.syntax import command, group


def add(commands: Any) -> None:
    """Tell the parser of `warm`."""
    warm = group(
        commands, "warm", "warm start: the first prompts also go to every model, so that the router learns of all"
    )
    about = "what it would cost, by the newest calls, and what there is to learn; calls nobody"
    plan = command(warm, "plan", _plan, about, "windlass warm plan --prompts 300 --json")
    plan.add_argument("--prompts", type=int, help="how many (default: as set, or 300)")
    about = "how far it is, and what of its budget is spent"
    command(warm, "status", _status, about, "windlass warm status --json")


def _plan(arguments: argparse.Namespace) -> int:
    return _show("plan", {} if arguments.prompts is None else {"prompts": arguments.prompts}, as_json=arguments.json)


def _status(arguments: argparse.Namespace) -> int:
    return _show("status", {}, as_json=arguments.json)


def _show(what: str, wanted: dict[str, Any], *, as_json: bool) -> int:
    from windlass.server import session, warmlist
    from windlass.settings import load

    return warmlist.show(what, session.operate(load(), "warm_start", wanted), as_json=as_json)
