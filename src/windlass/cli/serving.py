"""The commands that serve, take content in and answer: `up`, `reload`, `run`, `ingest`, `ask`."""

from __future__ import annotations

import argparse
from typing import Any

from windlass.cli.syntax import command, show


def add(commands: Any) -> None:
    """Tell the parser of them."""
    up = command(commands, "up", _up, "serve the gateway and the dashboard", "windlass up --port 8400")
    _listening(up)
    up.add_argument("--workers", type=int, help="so many processes on one PostgreSQL database")
    command(commands, "reload", _reload, "let the server read its settings again", "windlass reload")
    run = command(commands, "run", _run, "ingest, answer two questions, then serve", "windlass run talks/ --exit")
    run.add_argument("paths", nargs="*", help="files or folders; without any, the corpus in the package")
    run.add_argument("-q", "--question", action="append", default=[], help="ask this (may be repeated)")
    run.add_argument("--exit", action="store_true", help="stop after the answers")
    _listening(run)
    ingest = command(commands, "ingest", _ingest, "take transcripts into memory", "windlass ingest talks/ --no-wait")
    ingest.add_argument("paths", nargs="+", help="files (.md .vtt .srt .json .txt) or folders")
    ingest.add_argument("--no-wait", action="store_true", help="leave the vectors to the next `up`")
    ask = command(commands, "ask", _ask, "answer from memory with verified quotes", "windlass ask 'Why a pawl?'")
    ask.add_argument("question")
    ask.add_argument("--model", default="auto", help="a model of `windlass doctor`; auto lets the policy choose")


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

    overrides = _overrides(arguments)
    return session.up(
        load(overrides),
        dashboard=not arguments.no_dashboard,
        as_json=arguments.json,
        workers=arguments.workers,
        overrides=overrides,
    )


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


def _reload(arguments: argparse.Namespace) -> int:
    from windlass.server import session
    from windlass.settings import salvaged

    return session.reload(*salvaged(), as_json=arguments.json)


def _ingest(arguments: argparse.Namespace) -> int:
    from windlass.server import session
    from windlass.settings import load

    return session.ingest(load(), arguments.paths, wait=not arguments.no_wait, as_json=arguments.json)


def _ask(arguments: argparse.Namespace) -> int:
    return show("ask", {"question": arguments.question, "model": arguments.model}, arguments.json)
