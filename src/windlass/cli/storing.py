"""The commands about what is stored as a whole: `logs import`, `db move | backup | restore`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from windlass.cli.syntax import command, group


def add_logs(commands: Any) -> None:
    """Tell the parser of `logs`."""
    about = "the history of other programs: take it in from their exports"
    kinds = group(commands, "logs", about)
    about = "take in calls that LiteLLM, Langfuse, OpenAI or OpenRouter logged; again changes nothing"
    taken = command(kinds, "import", _logs_import, about, "windlass logs import spend.jsonl.gz scores.csv --dry-run")
    taken.add_argument("paths", nargs="+", metavar="FILE", help="JSON Lines, JSON or CSV, plain or .gz")
    programs = ("auto", "litellm", "langfuse", "openai", "openrouter")
    taken.add_argument("--format", choices=programs, default="auto", help="whose export it is (default: auto)")
    taken.add_argument("--dry-run", action="store_true", help="say what would be imported, and write nothing")
    for owner in ("tenant", "workspace"):
        taken.add_argument(f"--{owner}", default="", help=f"the {owner} that they become part of (default: default)")
    for bound in ("since", "until"):
        taken.add_argument(f"--{bound}", default="", help="90m, 24h, 7d, an ISO 8601 time, or seconds since 1970")


def add(commands: Any) -> None:
    """Tell the parser of `db`."""
    about = "move the database, back it up, restore it"
    kinds = group(commands, "db", about)
    about = "copy everything to another database and check that it came"
    move = command(kinds, "move", _db_move, about, "windlass db move --to postgresql://windlass@localhost/windlass")
    move.add_argument("--to", required=True, metavar="URL", help="postgresql://... or sqlite:///path/ledger.db")
    about = "write all that is stored into one archive, also while a server runs"
    command(kinds, "backup", _db_backup, about, "windlass db backup monday.tar.gz").add_argument("file", type=Path)
    about = "put an archive back into an empty folder or an empty database, and check it"
    command(kinds, "restore", _db_restore, about, "windlass db restore monday.tar.gz").add_argument("file", type=Path)


def _logs_import(arguments: argparse.Namespace) -> int:
    from windlass.server import exports, importing
    from windlass.settings import load

    wanted = exports.ImportAsked(
        paths=tuple(arguments.paths),
        program=arguments.format,
        tenant=arguments.tenant,
        workspace=arguments.workspace,
        since=arguments.since,
        until=arguments.until,
        dry=arguments.dry_run,
    )
    return importing.run(load(), wanted, as_json=arguments.json)


def _db_move(arguments: argparse.Namespace) -> int:
    from windlass.server import databases
    from windlass.settings import load

    return databases.move_to(load(), arguments.to, as_json=arguments.json)


def _db_backup(arguments: argparse.Namespace) -> int:
    from windlass.server import databases
    from windlass.settings import load

    return databases.back_up(load(), arguments.file, as_json=arguments.json)


def _db_restore(arguments: argparse.Namespace) -> int:
    from windlass.server import databases
    from windlass.settings import load

    return databases.restore(load(), arguments.file, as_json=arguments.json)
