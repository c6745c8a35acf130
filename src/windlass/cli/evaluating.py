"""The command that asks what another policy would have done: `replay`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from windlass.cli.syntax import command


def add(commands: Any) -> None:
    """Tell the parser of it."""
    about = "what another policy would have cost, and how good, on the ledger or on a log; exit code 3: not answerable"
    example = 'windlass replay --policy fixed --options \'{"action": "small"}\' --html report.html'
    replay = command(commands, "replay", _replay, about, example)
    replay.add_argument("--policy", required=True, metavar="NAME", help="such as joint_thompson, fixed, split")
    replay.add_argument("--options", default="", metavar="JSON", help="of the policy (default: those of the settings)")
    replay.add_argument("--log", default="", metavar="FILE", help="one decision a row, in place of the ledger")
    replay.add_argument("--point", default="model", help="the decision point (default: model)")
    learning = "let the policy learn from the log as it goes, in place of staying as it is"
    replay.add_argument("--replay-learning", dest="learning", action="store_true", help=learning)
    replay.add_argument("--share", type=float, metavar="S", help="its randomised share (default: that of the point)")
    replay.add_argument("--cap", type=float, metavar="W", help="cut weights above it, which is told (default: none)")
    for bound in ("since", "until"):
        replay.add_argument(f"--{bound}", default="", help="90m, 24h, 7d, an ISO 8601 time, or seconds since 1970")
    replay.add_argument("--newest", type=int, default=50_000, metavar="N", help="calls of the ledger (default: 50000)")
    for owner in ("tenant", "workspace"):
        replay.add_argument(f"--{owner}", default="", help=f"the {owner} whose decisions are read (default: default)")
    replay.add_argument("--html", type=Path, metavar="FILE", help="write the report as a page too")


def _replay(arguments: argparse.Namespace) -> int:
    from windlass.server import evaluation
    from windlass.settings import load

    asked = evaluation.ReplayAsked(
        policy=arguments.policy,
        options=arguments.options,
        log=arguments.log,
        point=arguments.point,
        learning=arguments.learning,
        share=arguments.share,
        cap=arguments.cap,
        since=arguments.since,
        until=arguments.until,
        newest=arguments.newest,
        tenant=arguments.tenant,
        workspace=arguments.workspace,
    )
    return evaluation.run(load(), asked, arguments.html, as_json=arguments.json)
