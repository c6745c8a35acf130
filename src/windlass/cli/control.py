"""The commands by which people decide: `policy`, `forget`, `keys`."""

from __future__ import annotations

import argparse
from typing import Any

from windlass.cli.syntax import Command, command, given, group, show


def add(commands: Any) -> None:
    """Tell the parser of them."""
    about = "snapshots of the policies, rolling one back, the mode of a decision point, who decides there"
    kinds = group(commands, "policy", about)
    command(kinds, "snapshots", _policy_snapshots, "what a policy can be rolled back to", "windlass policy snapshots")
    about = "let a point's policy be what it was at a snapshot (0: nothing learned)"
    back = command(
        kinds, "rollback", _policy("rollback"), about, "windlass policy rollback model 12000 --reason 'worse'"
    )
    back.add_argument("point", help="a decision point, such as model")
    back.add_argument("snapshot", type=int, help="its number in `windlass policy snapshots`")
    about = "decide a point in another mode from now on; settings: as the settings say"
    mode = command(kinds, "mode", _policy("mode"), about, "windlass policy mode model shadow --reason 'watch first'")
    mode.add_argument("point", help="a decision point, such as model")
    mode.add_argument("mode", choices=["off", "shadow", "live", "settings"])
    about = "let the policy in shadow of that name decide, within the point's guards; settings: the point's own again"
    example = "windlass policy promote model bold --reason 'ahead for a week'"
    promote = command(kinds, "promote", _policy("promote"), about, example)
    promote.add_argument("point", help="a decision point, such as model")
    promote.add_argument("shadow", help="the name of one of its shadows, or settings")
    about = "take one action from now on, within the point's guards, until `promote` hands the point to settings"
    always = command(kinds, "always", _policy("always"), about, "windlass policy always model gpt-mini --reason 'cost'")
    always.add_argument("point", help="a decision point, such as model")
    always.add_argument("action", help="such as the name of a model")
    about = "delete everything that one user left: texts, contexts, comments, the name"
    forget = command(commands, "forget", _forget, about, "windlass forget user-1234 --reason 'asked for it'")
    forget.add_argument("user", help="the `user` that the calls carried")
    for parser in (back, mode, promote, always, forget):
        parser.add_argument("--reason", default="", help="why; recorded")
    _key_commands(commands)


def _key_commands(commands: Any) -> None:
    about = "virtual keys: list them, make one, replace one, let one in no more"
    kinds = group(commands, "keys", about)
    about = "the keys of a tenant, without the keys themselves"
    listed = command(kinds, "list", _keys("keys"), about, "windlass keys list --tenant acme --json")
    about = "make a key, which is shown once and never again"
    example = "windlass keys create ann --models 'gpt-5*,local/*' --budget-usd 10 --window month --expires 30d"
    create = command(kinds, "create", _keys("key_create"), about, example)
    about = "a new key in the place of another, which stays good for a while"
    rotate = command(kinds, "rotate", _keys("key_rotate"), about, "windlass keys rotate ann --grace 1h")
    about = "let a key in no more, at once"
    revoke = command(kinds, "revoke", _keys("key_revoke"), about, "windlass keys revoke ann --tenant acme")
    for parser in (create, rotate, revoke):
        parser.add_argument("name", help="letters a to z, digits, dots, dashes and underscores")
    for parser in (listed, create, rotate, revoke):
        parser.add_argument("--tenant", default="", help="whose (default: default)")
    rotate.add_argument(
        "--grace", default="24h", help="so long the old one stays good, such as 1h or 7d; 0: not at all"
    )
    _scopes(create)


def _scopes(create: argparse.ArgumentParser) -> None:
    """What a new key is for, and how much it may use up."""
    create.add_argument("--team", default="", help="which counts for limits of teams")
    create.add_argument(
        "--workspaces", type=_names, default=["default"], metavar="A,B", help="the first is the default"
    )
    create.add_argument("--role", choices=["viewer", "operator", "approver", "admin"], default="operator")
    create.add_argument("--models", type=_names, default=[], metavar="A,B", help="names or patterns; without: all")
    create.add_argument("--endpoints", type=_names, default=[], metavar="A,B", help="chat,embeddings; without: all")
    create.add_argument("--expires", default="", metavar="TIME", help="90m, 24h, 30d from now; without: never")
    create.add_argument("--budget-usd", type=float, metavar="USD", help="at most so many US dollars in a window")
    windows = ["minute", "hour", "day", "month", "total"]
    create.add_argument("--window", choices=windows, help="of the budget, in UTC (default: month)")
    create.add_argument("--rpm", type=int, metavar="N", help="at most so many requests a minute")
    create.add_argument("--tpm", type=int, metavar="N", help="at most so many tokens a minute")
    create.add_argument("--concurrent", type=int, metavar="N", help="at most so many calls at once")


def _names(text: str) -> list[str]:
    """`a,b` as a list."""
    return [name.strip() for name in text.split(",") if name.strip()]


def _policy_snapshots(arguments: argparse.Namespace) -> int:
    return show("snapshots", {}, arguments.json)


def _policy(operation: str) -> Command:
    def run(arguments: argparse.Namespace) -> int:
        return show(operation, given(arguments), arguments.json)

    return run


def _forget(arguments: argparse.Namespace) -> int:
    return show("forget", {"user": arguments.user, "reason": arguments.reason}, arguments.json)


def _keys(operation: str) -> Command:
    def run(arguments: argparse.Namespace) -> int:
        from windlass.server import keylist, session
        from windlass.settings import load

        answer = session.operate(load(), operation, given(arguments))
        return keylist.show(operation, answer, as_json=arguments.json)

    return run
