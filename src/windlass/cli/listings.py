"""The commands that list what is in the ledger, what models cost, and how limits and providers stand."""

from __future__ import annotations

import argparse
from typing import Any

from windlass.cli.syntax import Command, command, filters, given, show, wanted


def add(commands: Any) -> None:
    """Tell the parser of them."""
    about = "what models cost: those of the settings, or all that is published"
    prices = command(commands, "prices", _prices, about, "windlass prices gpt-4o --provider openai --json")
    prices.add_argument("model", nargs="?", default="", help="part of a model's name")
    prices.add_argument("--provider", default="", help="of one provider, such as openai")
    prices.add_argument("--differ", action="store_true", help="only where the two sources differ")
    prices.add_argument("--limit", type=int, default=50, help="how many (1 to 10000)")
    _standing(commands)
    about = "the newest calls, what they cost and how long they took"
    calls = _listing(commands, "calls", about, "windlass calls --error any --since 24h --json")
    filters(calls, model="that answered", provider="that answered", user="that asked", endpoint="such as chat")
    calls.add_argument("--error", default="", help="any, none, or one cause of docs/reference/errors.md")
    calls.add_argument("--text", default="", help="part of an id, a user, a parent, an endpoint or a model asked for")
    call = command(commands, "call", _call, "one call and all that belongs to it", "windlass call call_019ab3 --bodies")
    call.add_argument("call", help="its id, as `windlass calls` prints it")
    call.add_argument("--bodies", action="store_true", help="also what was sent and received, where it is kept")
    about = "the newest automatic choices with their propensities"
    decisions = _listing(commands, "decisions", about, "windlass decisions --point model --shadow --limit 5 --json")
    filters(decisions, point="such as model", action="that was chosen", policy="such as linear_thompson@1")
    acting = decisions.add_mutually_exclusive_group()
    acting.add_argument("--live", action="store_true", default=None, help="those that acted")
    acting.add_argument("--shadow", dest="live", action="store_false", help="those that did not")
    about = "the decision points: modes, policies, what was chosen and what it earned"
    points = command(commands, "points", _points, about, "windlass points --since 7d --json")
    filters(points, point="one alone")
    points.add_argument("--since", help="90m, 24h, 7d, an ISO 8601 time, or seconds since 1970")
    about = "what people and checks said, newest first"
    feedback = _listing(commands, "feedback", about, "windlass feedback --kind complaint --since 7d --json")
    filters(feedback, metric="such as quality", target="the id that it is about")
    feedback.add_argument("--kind", choices=["rating", "correction", "suggestion", "complaint", "praise"])
    feedback.add_argument("--source", choices=["user", "manager", "system", "qa"])
    feedback.add_argument("--text", default="", help="part of the comment or of the target")


def _standing(commands: Any) -> None:
    about = "each limit: what is used, held and left of it, when it will be spent, what it refused"
    budgets = command(commands, "budgets", _stands("budgets"), about, "windlass budgets --name everybody --json")
    filters(budgets, name="of one limit")
    budgets.add_argument("--limit", type=int, default=20, help="counts of each limit, the fullest first (1 to 200)")
    about = "each model of each provider: whether it answers, how fast, what fails and what recovered"
    providers = command(commands, "providers", _stands("providers"), about, "windlass providers --since 7d --json")
    filters(providers, provider="one alone", model="one alone")
    providers.add_argument("--limit", type=int, default=20, help="how many failures that are over (1 to 200)")
    providers.add_argument("--before", type=int, help="those before this `place`, for the next page")
    for parser in (budgets, providers):
        parser.add_argument("--since", help="90m, 24h, 7d, an ISO 8601 time, or seconds since 1970; without: 24h")


def _listing(commands: Any, name: str, about: str, example: str) -> argparse.ArgumentParser:
    """A command that lists what a filter leaves, newest first."""
    listing = command(commands, name, _list(name), about, example)
    listing.add_argument("--limit", type=int, default=20, help="how many (1 to 1000)")
    listing.add_argument("--before", default="", metavar="ID", help="those before this one, for the next page")
    for bound in ("since", "until"):
        listing.add_argument(f"--{bound}", help="90m, 24h, 7d, an ISO 8601 time, or seconds since 1970")
    return listing


def _list(operation: str) -> Command:
    def run(arguments: argparse.Namespace) -> int:
        return show(operation, wanted(arguments), arguments.json)

    return run


def _call(arguments: argparse.Namespace) -> int:
    return show("call", {"call": arguments.call, "bodies": arguments.bodies}, arguments.json)


def _points(arguments: argparse.Namespace) -> int:
    return show("points", {"point": arguments.point, "since": arguments.since}, arguments.json)


def _prices(arguments: argparse.Namespace) -> int:
    from windlass.server import pricing, session, terminal
    from windlass.settings import load

    answer = session.operate(load(), "prices", given(arguments))
    if arguments.json:
        terminal.print_json(answer)
    else:
        pricing.show_prices(answer)
    return 0


def _stands(operation: str) -> Command:
    def run(arguments: argparse.Namespace) -> int:
        from windlass.server import gatewaylist, session
        from windlass.settings import load

        answer = session.operate(load(), operation, wanted(arguments))
        return gatewaylist.show(operation, answer, as_json=arguments.json)

    return run
