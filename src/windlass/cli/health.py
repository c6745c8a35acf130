"""The commands that examine: `doctor`, `metrics`, `audit`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from windlass.cli.syntax import command


def add(commands: Any) -> None:
    """Tell the parser of `doctor` and `metrics`."""
    doctor = command(commands, "doctor", _doctor, "what is in force and what is wrong", "windlass doctor --replay")
    doctor.add_argument("--replay", action="store_true", help="rebuild every policy from the ledger and compare")
    about = "what Prometheus is told at /metrics, the alert rules for it, or a dashboard for Grafana"
    metrics = command(commands, "metrics", _metrics, about, "windlass metrics --rules > windlass.yml")
    shipped = metrics.add_mutually_exclusive_group()
    shipped.add_argument("--rules", action="store_true", help="print the alert rules that come with this release")
    shipped.add_argument("--grafana", action="store_true", help="print the dashboard that comes with it, which is JSON")


def add_audit(commands: Any) -> None:
    """Tell the parser of `audit`."""
    about = "the audit trail: verify it, list it, or show the key that signs it"
    audit = command(commands, "audit", _audit, about, "windlass audit verify --public-key safe/key.pub")
    audit.add_argument("what", choices=("verify", "list", "key"), help="what to do with it")
    audit.add_argument(
        "--public-key", type=Path, help="the key that must have signed (default: beside the checkpoints)"
    )
    audit.add_argument("--checkpoints", type=Path, action="append", default=[], help="a file of them (may be repeated)")
    audit.add_argument("--limit", type=int, default=20, help="how many rows `list` shows (1 to 1000)")
    audit.add_argument("--across", metavar="WHY", help="list the rows of all tenants; who and why is recorded")


def _doctor(arguments: argparse.Namespace) -> int:
    from windlass.server import session, terminal
    from windlass.settings import salvaged

    settings, refused = salvaged()
    report = session.examine(settings, refused, replay=arguments.replay)
    return terminal.show("doctor", report, as_json=arguments.json)


def _metrics(arguments: argparse.Namespace) -> int:
    from windlass.server import scraping
    from windlass.settings import load

    if arguments.rules:
        return scraping.show_rules(as_json=arguments.json)
    if arguments.grafana:
        return scraping.show_dashboard()
    return scraping.show(load(), as_json=arguments.json)


def _audit(arguments: argparse.Namespace) -> int:
    from windlass.server import auditing
    from windlass.settings import load

    match arguments.what:
        case "verify":
            return auditing.verify(load(), arguments.checkpoints, arguments.public_key, as_json=arguments.json)
        case "list":
            return auditing.show(load(), arguments.limit, arguments.across, as_json=arguments.json)
        case _:
            return auditing.key(load(), arguments.public_key, as_json=arguments.json)
