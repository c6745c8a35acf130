"""The command line: `windlass up | run | ingest | ask | calls | decisions | doctor`.

Exit codes: 0 done, 1 failed, 2 wrong usage, 130 interrupted. While a server runs on the state folder the commands
hand their work to it; otherwise they do it themselves.
"""

from __future__ import annotations

import argparse
import io
import os
import sys
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, NoReturn

from windlass.errors import InputError, SettingsError, WindlassError

Command = Callable[[argparse.Namespace], int]
STDERR = 2


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    _open_streams()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    arguments = _arguments(sys.argv[1:] if argv is None else argv)
    from windlass.server import terminal

    try:
        code = int(arguments.command(arguments))
        sys.stdout.flush()
        return code
    except KeyboardInterrupt:
        terminal.note("interrupted")
        return 130
    except BrokenPipeError:
        sys.stderr.close()
        return 1
    except OSError as exc:
        # The rooms tell in their own words what the system refused them; what comes here is the output (`>/dev/full`),
        # or a file beside the ledger on a disk that is full.
        _drop_output()
        terminal.note(f"error: the output or a file cannot be written: {exc}")
        return 1
    except (InputError, SettingsError) as exc:
        terminal.fail(exc, as_json=arguments.json)
        return 2
    except WindlassError as exc:
        terminal.fail(exc, as_json=arguments.json)
        return 1


class Syntax(argparse.ArgumentParser):
    """A parser that says what is wrong by InputError, with its usage as the second argument."""

    def error(self, message: str) -> NoReturn:
        raise InputError(message, f"{self.format_usage()}{self.prog}: error: {message}\n")


def _arguments(words: Sequence[str]) -> argparse.Namespace:
    """The command's arguments; wrong usage ends with exit code 2 and, under --json, an error that programs can read."""
    try:
        return _parser().parse_args(words)
    except InputError as exc:
        message, usage = exc.args
        if "--json" in words:
            from windlass.server import terminal

            terminal.fail(InputError(message), as_json=True)
        else:
            sys.stderr.write(usage)
        raise SystemExit(2) from None


def _open_streams() -> None:
    """Point standard streams that are closed (`>&-`) at nothing, or the next file that is opened would be one of them:
    a stray word for the terminal would land in it."""
    fresh = os.open(os.devnull, os.O_RDWR)
    while fresh <= STDERR:
        fresh = os.open(os.devnull, os.O_RDWR)
    os.close(fresh)
    # A program that was started with closed streams has none.
    sys.stdout = sys.stdout or os.fdopen(1, "w")
    sys.stderr = sys.stderr or os.fdopen(STDERR, "w")


def _drop_output() -> None:
    """Forget what could not be written, or Python tries again as it ends, and complains."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        nothing = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nothing, sys.stdout.fileno())
        os.close(nothing)


def _parser() -> Syntax:
    parser = Syntax(
        prog="windlass",
        description="A runtime for LLM agents that only turns one way: better.",
        epilog="example: windlass ingest talks/ && windlass ask 'Why does a windlass turn only one way?'",
    )
    parser.add_argument("--version", action="version", version=f"windlass {version('windlass')}")
    commands = parser.add_subparsers(metavar="command", required=True)

    up = _command(commands, "up", _up, "serve the gateway and the dashboard", "windlass up --port 8400")
    _listening(up)
    up.add_argument("--workers", type=int, help="so many processes on one PostgreSQL database")
    _command(commands, "reload", _reload, "let the server read its settings again", "windlass reload")
    run = _command(commands, "run", _run, "ingest, answer two questions, then serve", "windlass run talks/ --exit")
    run.add_argument("paths", nargs="*", help="files or folders; without any, the corpus in the package")
    run.add_argument("-q", "--question", action="append", default=[], help="ask this (may be repeated)")
    run.add_argument("--exit", action="store_true", help="stop after the answers")
    _listening(run)
    ingest = _command(commands, "ingest", _ingest, "take transcripts into memory", "windlass ingest talks/ --no-wait")
    ingest.add_argument("paths", nargs="+", help="files (.md .vtt .srt .json .txt) or folders")
    ingest.add_argument("--no-wait", action="store_true", help="leave the vectors to the next `up`")
    ask = _command(commands, "ask", _ask, "answer from memory with verified quotes", "windlass ask 'Why a pawl?'")
    ask.add_argument("question")
    ask.add_argument("--model", default="auto", help="a model of `windlass doctor`; auto lets the policy choose")
    _listings(commands)
    _logs(commands)
    doctor = _command(commands, "doctor", _doctor, "what is in force and what is wrong", "windlass doctor --replay")
    doctor.add_argument("--replay", action="store_true", help="rebuild every policy from the ledger and compare")
    about = "what Prometheus is told at /metrics, or the alert rules for it"
    metrics = _command(commands, "metrics", _metrics, about, "windlass metrics --rules > windlass.yml")
    metrics.add_argument("--rules", action="store_true", help="print the alert rules that come with this release")
    _policy_commands(commands)
    _key_commands(commands)
    _auditing(commands)
    _databases(commands)
    return parser


def _listings(commands: Any) -> None:
    about = "what models cost: those of the settings, or all that is published"
    prices = _command(commands, "prices", _prices, about, "windlass prices gpt-4o --provider openai --json")
    prices.add_argument("model", nargs="?", default="", help="part of a model's name")
    prices.add_argument("--provider", default="", help="of one provider, such as openai")
    prices.add_argument("--differ", action="store_true", help="only where the two sources differ")
    prices.add_argument("--limit", type=int, default=50, help="how many (1 to 10000)")
    _standing(commands)
    about = "the newest calls, what they cost and how long they took"
    calls = _listing(commands, "calls", about, "windlass calls --error any --since 24h --json")
    _filters(calls, model="that answered", provider="that answered", user="that asked", endpoint="such as chat")
    calls.add_argument("--error", default="", help="any, none, or one cause of docs/reference/errors.md")
    calls.add_argument("--text", default="", help="part of an id, a user, a parent, an endpoint or a model asked for")
    call = _command(
        commands, "call", _call, "one call and all that belongs to it", "windlass call call_019ab3 --bodies"
    )
    call.add_argument("call", help="its id, as `windlass calls` prints it")
    call.add_argument("--bodies", action="store_true", help="also what was sent and received, where it is kept")
    about = "the newest automatic choices with their propensities"
    decisions = _listing(commands, "decisions", about, "windlass decisions --point model --shadow --limit 5 --json")
    _filters(decisions, point="such as model", action="that was chosen", policy="such as linear_thompson@1")
    acting = decisions.add_mutually_exclusive_group()
    acting.add_argument("--live", action="store_true", default=None, help="those that acted")
    acting.add_argument("--shadow", dest="live", action="store_false", help="those that did not")
    about = "the decision points: modes, policies, what was chosen and what it earned"
    points = _command(commands, "points", _points, about, "windlass points --since 7d --json")
    _filters(points, point="one alone")
    points.add_argument("--since", help="90m, 24h, 7d, an ISO 8601 time, or seconds since 1970")
    about = "what people and checks said, newest first"
    feedback = _listing(commands, "feedback", about, "windlass feedback --kind complaint --since 7d --json")
    _filters(feedback, metric="such as quality", target="the id that it is about")
    feedback.add_argument("--kind", choices=["rating", "correction", "suggestion", "complaint", "praise"])
    feedback.add_argument("--source", choices=["user", "manager", "system", "qa"])
    feedback.add_argument("--text", default="", help="part of the comment or of the target")


def _standing(commands: Any) -> None:
    about = "each limit: what is used, held and left of it, when it will be spent, what it refused"
    budgets = _command(commands, "budgets", _stands("budgets"), about, "windlass budgets --name everybody --json")
    _filters(budgets, name="of one limit")
    budgets.add_argument("--limit", type=int, default=20, help="counts of each limit, the fullest first (1 to 200)")
    about = "each model of each provider: whether it answers, how fast, what fails and what recovered"
    providers = _command(commands, "providers", _stands("providers"), about, "windlass providers --since 7d --json")
    _filters(providers, provider="one alone", model="one alone")
    providers.add_argument("--limit", type=int, default=20, help="how many failures that are over (1 to 200)")
    providers.add_argument("--before", type=int, help="those before this `place`, for the next page")
    for parser in (budgets, providers):
        parser.add_argument("--since", help="90m, 24h, 7d, an ISO 8601 time, or seconds since 1970; without: 24h")


def _logs(commands: Any) -> None:
    about = "the history of other programs: take it in from their exports"
    group = commands.add_parser("logs", help=about, description=about[0].upper() + about[1:] + ".")
    kinds = group.add_subparsers(metavar="what", required=True)
    about = "take in calls that LiteLLM, Langfuse, OpenAI or OpenRouter logged; again changes nothing"
    taken = _command(kinds, "import", _logs_import, about, "windlass logs import spend.jsonl.gz scores.csv --dry-run")
    taken.add_argument("paths", nargs="+", metavar="FILE", help="JSON Lines, JSON or CSV, plain or .gz")
    programs = ("auto", "litellm", "langfuse", "openai", "openrouter")
    taken.add_argument("--format", choices=programs, default="auto", help="whose export it is (default: auto)")
    taken.add_argument("--dry-run", action="store_true", help="say what would be imported, and write nothing")
    for owner in ("tenant", "workspace"):
        taken.add_argument(f"--{owner}", default="", help=f"the {owner} that they become part of (default: default)")
    for bound in ("since", "until"):
        taken.add_argument(f"--{bound}", default="", help="90m, 24h, 7d, an ISO 8601 time, or seconds since 1970")


def _listing(commands: Any, name: str, about: str, example: str) -> argparse.ArgumentParser:
    """A command that lists what a filter leaves, newest first."""
    listing = _command(commands, name, _list(name), about, example)
    listing.add_argument("--limit", type=int, default=20, help="how many (1 to 1000)")
    listing.add_argument("--before", default="", metavar="ID", help="those before this one, for the next page")
    for bound in ("since", "until"):
        listing.add_argument(f"--{bound}", help="90m, 24h, 7d, an ISO 8601 time, or seconds since 1970")
    return listing


def _filters(parser: argparse.ArgumentParser, **words: str) -> None:
    for name, about in words.items():
        parser.add_argument(f"--{name}", default="", help=f"{name} {about}")


def _policy_commands(commands: Any) -> None:
    about = "snapshots of the policies, rolling one back, switching the mode of a decision point"
    group = commands.add_parser("policy", help=about, description=about[0].upper() + about[1:] + ".")
    kinds = group.add_subparsers(metavar="what", required=True)
    _command(kinds, "snapshots", _policy_snapshots, "what a policy can be rolled back to", "windlass policy snapshots")
    about = "let a point's policy be what it was at a snapshot (0: nothing learned)"
    back = _command(kinds, "rollback", _policy_rollback, about, "windlass policy rollback model 12000 --reason 'worse'")
    back.add_argument("point", help="a decision point, such as model")
    back.add_argument("snapshot", type=int, help="its number in `windlass policy snapshots`")
    about = "decide a point in another mode from now on; settings: as the settings say"
    mode = _command(kinds, "mode", _policy_mode, about, "windlass policy mode model shadow --reason 'watch first'")
    mode.add_argument("point", help="a decision point, such as model")
    mode.add_argument("mode", choices=["off", "shadow", "live", "settings"])
    about = "delete everything that one user left: texts, contexts, comments, the name"
    forget = _command(commands, "forget", _forget, about, "windlass forget user-1234 --reason 'asked for it'")
    forget.add_argument("user", help="the `user` that the calls carried")
    for parser in (back, mode, forget):
        parser.add_argument("--reason", default="", help="why; recorded")


def _key_commands(commands: Any) -> None:
    about = "virtual keys: list them, make one, replace one, let one in no more"
    group = commands.add_parser("keys", help=about, description=about[0].upper() + about[1:] + ".")
    kinds = group.add_subparsers(metavar="what", required=True)
    about = "the keys of a tenant, without the keys themselves"
    listed = _command(kinds, "list", _keys("keys"), about, "windlass keys list --tenant acme --json")
    about = "make a key, which is shown once and never again"
    example = "windlass keys create ann --models 'gpt-5*,local/*' --budget-usd 10 --window month --expires 30d"
    create = _command(kinds, "create", _keys("key_create"), about, example)
    about = "a new key in the place of another, which stays good for a while"
    rotate = _command(kinds, "rotate", _keys("key_rotate"), about, "windlass keys rotate ann --grace 1h")
    about = "let a key in no more, at once"
    revoke = _command(kinds, "revoke", _keys("key_revoke"), about, "windlass keys revoke ann --tenant acme")
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
    create.add_argument("--window", choices=windows, default="month", help="of the budget, in UTC (default: month)")
    create.add_argument("--rpm", type=int, metavar="N", help="at most so many requests a minute")
    create.add_argument("--tpm", type=int, metavar="N", help="at most so many tokens a minute")
    create.add_argument("--concurrent", type=int, metavar="N", help="at most so many calls at once")


def _names(text: str) -> list[str]:
    """`a,b` as a list."""
    return [name.strip() for name in text.split(",") if name.strip()]


def _command(commands: Any, name: str, run: Command, about: str, example: str) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(
        name, help=about, description=about[0].upper() + about[1:] + ".", epilog=f"example: {example}"
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(command=run)
    return parser


def _listening(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--host", help="address to listen on (server.host)")
    parser.add_argument("--port", type=int, help="port to listen on (server.port); the next free one if taken")
    parser.add_argument("--no-dashboard", action="store_true", help="serve the gateway only")


def _auditing(commands: Any) -> None:
    about = "the audit trail: verify it, list it, or show the key that signs it"
    audit = _command(commands, "audit", _audit, about, "windlass audit verify --public-key safe/key.pub")
    audit.add_argument("what", choices=("verify", "list", "key"), help="what to do with it")
    audit.add_argument(
        "--public-key", type=Path, help="the key that must have signed (default: beside the checkpoints)"
    )
    audit.add_argument("--checkpoints", type=Path, action="append", default=[], help="a file of them (may be repeated)")
    audit.add_argument("--limit", type=int, default=20, help="how many rows `list` shows (1 to 1000)")
    audit.add_argument("--across", metavar="WHY", help="list the rows of all tenants; who and why is recorded")


def _databases(commands: Any) -> None:
    about = "move the database, back it up, restore it"
    group = commands.add_parser("db", help=about, description=about[0].upper() + about[1:] + ".")
    kinds = group.add_subparsers(metavar="what", required=True)
    about = "copy everything to another database and check that it came"
    move = _command(kinds, "move", _db_move, about, "windlass db move --to postgresql://windlass@localhost/windlass")
    move.add_argument("--to", required=True, metavar="URL", help="postgresql://... or sqlite:///path/ledger.db")
    about = "write all that is stored into one archive, also while a server runs"
    _command(kinds, "backup", _db_backup, about, "windlass db backup monday.tar.gz").add_argument("file", type=Path)
    about = "put an archive back into an empty folder or an empty database, and check it"
    _command(kinds, "restore", _db_restore, about, "windlass db restore monday.tar.gz").add_argument("file", type=Path)


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
    from windlass.settings import load

    return session.reload(load(), as_json=arguments.json)


def _ingest(arguments: argparse.Namespace) -> int:
    from windlass.server import session
    from windlass.settings import load

    return session.ingest(load(), arguments.paths, wait=not arguments.no_wait, as_json=arguments.json)


def _ask(arguments: argparse.Namespace) -> int:
    return _show("ask", {"question": arguments.question, "model": arguments.model}, arguments.json)


def _list(operation: str) -> Command:
    def run(arguments: argparse.Namespace) -> int:
        given = {name: value for name, value in vars(arguments).items() if name not in ("json", "command")}
        return _show(
            operation, {name: value for name, value in given.items() if value not in (None, "")}, arguments.json
        )

    return run


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


def _call(arguments: argparse.Namespace) -> int:
    return _show("call", {"call": arguments.call, "bodies": arguments.bodies}, arguments.json)


def _points(arguments: argparse.Namespace) -> int:
    return _show("points", {"point": arguments.point, "since": arguments.since}, arguments.json)


def _doctor(arguments: argparse.Namespace) -> int:
    from windlass.server import session, terminal
    from windlass.settings import load

    report = session.examine(load(), replay=arguments.replay)
    return terminal.show("doctor", report, as_json=arguments.json)


def _metrics(arguments: argparse.Namespace) -> int:
    from windlass.server import scraping
    from windlass.settings import load

    if arguments.rules:
        return scraping.show_rules(as_json=arguments.json)
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


def _prices(arguments: argparse.Namespace) -> int:
    from windlass.server import pricing, session, terminal
    from windlass.settings import load

    wanted = {name: getattr(arguments, name) for name in ("model", "provider", "differ", "limit")}
    answer = session.operate(load(), "prices", wanted)
    if arguments.json:
        terminal.print_json(answer)
    else:
        pricing.show_prices(answer)
    return 0


def _policy_snapshots(arguments: argparse.Namespace) -> int:
    return _show("snapshots", {}, arguments.json)


def _policy_rollback(arguments: argparse.Namespace) -> int:
    wanted = {"point": arguments.point, "snapshot": arguments.snapshot, "reason": arguments.reason}
    return _show("rollback", wanted, arguments.json)


def _policy_mode(arguments: argparse.Namespace) -> int:
    wanted = {"point": arguments.point, "mode": arguments.mode, "reason": arguments.reason}
    return _show("mode", wanted, arguments.json)


def _keys(operation: str) -> Command:
    def run(arguments: argparse.Namespace) -> int:
        from windlass.server import keylist, session
        from windlass.settings import load

        given = {name: value for name, value in vars(arguments).items() if name not in ("json", "command")}
        return keylist.show(operation, session.operate(load(), operation, given), as_json=arguments.json)

    return run


def _stands(operation: str) -> Command:
    def run(arguments: argparse.Namespace) -> int:
        from windlass.server import gatewaylist, session
        from windlass.settings import load

        given = {name: value for name, value in vars(arguments).items() if name not in ("json", "command")}
        wanted = {name: value for name, value in given.items() if value not in (None, "")}
        return gatewaylist.show(operation, session.operate(load(), operation, wanted), as_json=arguments.json)

    return run


def _forget(arguments: argparse.Namespace) -> int:
    return _show("forget", {"user": arguments.user, "reason": arguments.reason}, arguments.json)


def _show(operation: str, wanted: dict[str, Any], as_json: bool) -> int:
    """One operation, by the folder's server or in this process, and its answer on the terminal."""
    from windlass.server import session, terminal
    from windlass.settings import load

    answer = session.operate(load(), operation, wanted)
    return terminal.show(operation, answer, as_json=as_json)


if __name__ == "__main__":
    sys.exit(main())
