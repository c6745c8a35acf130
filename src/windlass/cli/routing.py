"""The command that tells where a prompt would go, and why a call went where it did: `route`."""

from __future__ import annotations

import argparse
import json
from typing import Any

from windlass.cli.syntax import command, text_of
from windlass.errors import InputError


def add(commands: Any) -> None:
    """Tell the parser of it."""
    about = "where a prompt would go, why a call went where it did, who answers which prompts; calls nobody"
    example = "windlass route --explain 'Why does a windlass turn only one way?' --objective cheapest"
    route = command(commands, "route", _route, about, example)
    what = route.add_mutually_exclusive_group(required=True)
    what.add_argument("--explain", default="", metavar="PROMPT", help="a prompt")
    what.add_argument("--file", default="", help="a file with a prompt, or with a chat in JSON; -: standard input")
    what.add_argument(
        "--clusters", action="store_true", help="the clusters of the newest prompts, and who answers them"
    )
    what.add_argument("--call", default="", help="the id of a call, as `windlass calls` prints it")
    route.add_argument("--objective", default="", help="cheapest, balanced or best, for this prompt")
    route.add_argument("--quality-floor", type=float, help="percent of the reference model's quality")
    route.add_argument("--max-latency-ms", type=float, help="a limit of time until the first token, for this prompt")
    route.add_argument("--max-error-percent", type=float, help="so many of a model's calls may fail, for this prompt")
    route.add_argument("--tenant", default="", help="whose policy (default: default)")
    route.add_argument("--workspace", default="", help="of the tenant (default: default)")


def _route(arguments: argparse.Namespace) -> int:
    from windlass.server import clusterlist, routing, session
    from windlass.settings import load

    if arguments.clusters:
        whose = {name: value for name in ("tenant", "workspace") if (value := getattr(arguments, name))}
        return clusterlist.show(session.operate(load(), "clusters", whose), as_json=arguments.json)
    names = ("call", "tenant", "workspace", "objective", "quality_floor", "max_latency_ms", "max_error_percent")
    wanted = {name: value for name in names if (value := getattr(arguments, name)) not in (None, "")}
    answer = session.operate(load(), "route", wanted | _asked(arguments))
    return routing.show(answer, as_json=arguments.json)


def _asked(arguments: argparse.Namespace) -> dict[str, Any]:
    """The prompt or the chat that is asked about. InputError for a file that cannot be read, and for no words."""
    if arguments.call:
        return {}
    text = text_of(arguments.file) if arguments.file else arguments.explain
    if not text.strip():
        raise InputError("the prompt is empty; give some words")
    chat = _chat(text) if arguments.file else None
    return {"prompt": text} if chat is None else {"chat": chat}


def _chat(text: str) -> dict[str, Any] | None:
    """A chat in JSON, None where it is a prompt in words."""
    if not text.lstrip().startswith("{"):
        return None
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) and "messages" in found else None
