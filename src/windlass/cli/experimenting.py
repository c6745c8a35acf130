"""The commands about experiments: plan one, let it begin, watch it, end it, report it."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from windlass.cli.syntax import Command, command, filters, group, text_of, wanted
from windlass.errors import InputError

WITHHELD = 3
"""Exit code where nothing is said for a variant: not better, withheld, or refused by how the experiment stands."""
MOST_S = 366 * 86_400.0


def add(commands: Any) -> None:
    """Tell the parser of `experiment`."""
    about = "experiments at a decision point: who gets which variant, what came of it, who may ship it"
    kinds = group(commands, "experiment", about)
    _planning(kinds)
    _looking(kinds)
    _deciding(kinds)


def _planning(kinds: Any) -> None:
    about = "a plan with comments, to be filled in; without a file it is printed"
    new = command(kinds, "new", _new, about, "windlass experiment new plan.yaml")
    new.add_argument("file", nargs="?", type=Path, help="where to; a file that is there is left as it is")
    about = "how many calls and days it takes to find which effect, by the newest calls; exit code 3: they cannot tell"
    plan = command(kinds, "plan", _plan, about, "windlass experiment plan plan.yaml --json")
    plan.add_argument("--newest", type=int, help="calls that are looked at (100 to 20000; default: 5000)")
    plan.add_argument("--power", type=float, help="the chance to find an effect (default: 0.8)")
    about = "let it begin; the plan is recorded first and never changes"
    start = command(kinds, "start", _start, about, "windlass experiment start plan.yaml --reason 'cheaper by half?'")
    start.add_argument("--reason", default="", help="why; recorded")
    for parser in (plan, start):
        parser.add_argument("plan", help="a file with the plan as YAML or JSON; -: standard input")


def _looking(kinds: Any) -> None:
    about = "the experiments of the workspace, newest first: those under way, and those that ended last"
    listed = command(kinds, "list", _list, about, "windlass experiment list --state running --json")
    filters(listed, state="such as running, alarmed, shipped", point="one alone")
    listed.add_argument("--limit", type=int, default=20, help="how many (1 to 100)")
    about = "how one stands: what came of each variant, what that says, who took which step; exit code 3: withheld"
    show = command(kinds, "show", _show, about, "windlass experiment show shorter --json")
    about = "wait until it is decided; exit code 0: a variant is better, or shipped, 3: not so, or not in time"
    watch = command(kinds, "watch", _watch, about, "windlass experiment watch shorter --timeout 3600")
    watch.add_argument("--timeout", type=float, metavar="S", help="seconds to wait at most (default: for ever)")
    watch.add_argument("--every", type=float, default=1.0, metavar="S", help="seconds between two looks (default: 1)")
    about = "write down how it stands, as Markdown or as a page; exit code 3: withheld"
    report = command(kinds, "report", _report, about, "windlass experiment report shorter --out shorter.html")
    report.add_argument("--out", type=Path, metavar="FILE", help="a file .md or .html; without: Markdown, printed")
    for parser in (show, watch, report):
        _named(parser)


def _deciding(kinds: Any) -> None:
    about = "go on with the next stage of the ramp at once"
    example = "windlass experiment advance shorter --reason 'looks well'"
    advance = command(kinds, "advance", _step("experiment_advance"), about, example)
    advance.add_argument("--stage", type=int, metavar="N", help="a later one, counted from 1")
    about = "end it without a decision; everybody gets what is usual again"
    example = "windlass experiment stop shorter --reason 'no time'"
    stop = command(kinds, "stop", _step("experiment_stop"), about, example)
    about = "end it because it does harm; everybody gets what is usual again"
    example = "windlass experiment rollback shorter --reason 'complaints'"
    back = command(kinds, "rollback", _step("experiment_rollback"), about, example)
    about = "end it and give everybody the variant that is better; exit code 3: nothing shows that one is"
    ship = command(kinds, "ship", _step("experiment_ship"), about, "windlass experiment ship shorter --reason 'proven'")
    ship.add_argument("--variant", default="", help="which (default: the one that is better)")
    ship.add_argument("--force", action="store_true", help="although nothing shows that it is better; takes a --reason")
    for parser in (advance, stop, back, ship):
        _named(parser)
        parser.add_argument("--reason", default="", help="why; recorded")


def _named(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", help="of the experiment, or its id")
    parser.add_argument("--point", default="", help="where two of that name are under way")


def _new(arguments: argparse.Namespace) -> int:
    from windlass.improve.experiments.reading import TEMPLATE
    from windlass.server import terminal

    if arguments.file is not None:
        try:
            with arguments.file.open("x", encoding="utf-8") as file:
                file.write(TEMPLATE)
        except OSError as exc:
            raise InputError(f"{arguments.file} cannot be made: {exc}; name a file that is not there yet") from exc
    if arguments.json:
        terminal.print_json({"plan": TEMPLATE, "file": str(arguments.file or "")})
    elif arguments.file is None:
        sys.stdout.write(TEMPLATE)
    else:
        terminal.say(f"written: {arguments.file}; then `windlass experiment plan {arguments.file}`")
    return 0


def _plan(arguments: argparse.Namespace) -> int:
    return _told("experiment_plan", {**wanted(arguments), "plan": text_of(arguments.plan)}, arguments)


def _start(arguments: argparse.Namespace) -> int:
    return _told("experiment_start", {"plan": text_of(arguments.plan), "reason": arguments.reason}, arguments)


def _list(arguments: argparse.Namespace) -> int:
    return _told("experiments", wanted(arguments), arguments)


def _show(arguments: argparse.Namespace) -> int:
    return _told("experiment", wanted(arguments), arguments)


def _step(operation: str) -> Command:
    def run(arguments: argparse.Namespace) -> int:
        return _told(operation, wanted(arguments), arguments)

    return run


def _told(operation: str, asked: dict[str, Any], arguments: argparse.Namespace) -> int:
    """The answer of one operation on the terminal; what the state of the experiment refuses ends with 3."""
    from windlass.errors import RequestError
    from windlass.server import envelope, experimentlist, session, terminal
    from windlass.settings import load

    try:
        answer = session.operate(load(), operation, asked)
    except RequestError as exc:
        if exc.status != envelope.CONFLICT:
            raise
        terminal.fail(exc, as_json=arguments.json)
        return WITHHELD
    return experimentlist.show(operation, answer, as_json=arguments.json)


def _watch(arguments: argparse.Namespace) -> int:
    from windlass.server import experimentlist
    from windlass.settings import load

    if arguments.timeout is not None and not 0.0 <= arguments.timeout <= MOST_S:
        raise InputError(f"--timeout is {arguments.timeout}; give seconds from 0 to {MOST_S:.0f}")
    if not 0.1 <= arguments.every <= 3_600.0:
        raise InputError(f"--every is {arguments.every}; give seconds from 0.1 to 3600")
    asked = {"name": arguments.name, "point": arguments.point}
    return experimentlist.watch(load(), asked, arguments.timeout, arguments.every, as_json=arguments.json)


def _report(arguments: argparse.Namespace) -> int:
    from windlass.server import experimentlist, session
    from windlass.settings import load

    asked = {"name": arguments.name, "point": arguments.point}
    return experimentlist.report(session.operate(load(), "experiment", asked), arguments.out, as_json=arguments.json)
