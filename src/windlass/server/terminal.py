"""What the commands print: tables and quotes for people, JSON for programs."""

from __future__ import annotations

import contextlib
import json
import re
import sys
import time
from collections.abc import Callable
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from windlass.errors import WindlassError, classify
from windlass.stats.dollars import dollars

if TYPE_CHECKING:  # rich is for commands that print something: a server would hold 5 MB of it for one line
    from rich.console import Console
    from rich.progress import Progress
    from rich.table import Table

Answer = dict[str, Any]
PIPE_WIDTH = 1_000
COLUMN = 80
"""Cells of a table that is wider are folded, elsewhere than on a terminal."""
_EXPONENT = re.compile(r"(?<=[\s\[])-?\d+(?:\.\d+)?e[+-]?\d+(?=[,\]}]|$)")


def console() -> Console:
    """Where people read. Highlighting and names of emoji are off: numbers and colons in quotes stay as they are."""
    from windlass.server import paper

    return paper.screen() if sys.stdout.isatty() else paper.Piped(PIPE_WIDTH)


def escape(text: str) -> str:
    """`text` as a `console` prints it, markup and all."""
    from rich.markup import escape as escaped

    return escaped(text)


def say(message: str) -> None:
    """A plain line of output."""
    sys.stdout.write(f"{clean(message)}\n")
    sys.stdout.flush()


def note(message: str) -> None:
    """A remark beside the output; where nothing can be written there, nobody misses it."""
    with contextlib.suppress(OSError):
        sys.stderr.write(f"{clean(message)}\n")
        sys.stderr.flush()


def fail(exc: WindlassError, *, as_json: bool) -> None:
    """An error, on stderr for people, on stdout for programs."""
    if as_json:
        print_json({"error": {"message": str(exc), "category": classify(exc).value}})
    else:
        note(f"error: {exc}")


def print_json(value: Any) -> None:
    """One JSON document; characters that the terminal cannot take are escaped."""
    text = json.dumps(value, indent=2, ensure_ascii=False)
    try:
        text.encode(sys.stdout.encoding or "utf-8")
    except UnicodeEncodeError:
        text = json.dumps(value, indent=2)
    sys.stdout.write(text + "\n")


def clean(text: str) -> str:
    """Text without control characters, so that no transcript or upstream can steer the terminal."""
    return "".join(c if c.isprintable() or c == "\n" else "\N{REPLACEMENT CHARACTER}" for c in text)


def show(operation: str, answer: Answer, *, as_json: bool) -> int:
    """Print an operation's answer; returns the exit code."""
    if as_json:
        print_json(answer)
    else:
        _SHOWN[operation](answer)
    return 1 if answer.get("findings") and operation == "doctor" else 0


def show_ask(answer: Answer) -> None:
    """A question, its quotes, and what it took."""
    out = console()
    out.print(f"\n[bold]Q: {escape(clean(answer['question']))}[/bold]")
    if not answer["answered"]:
        refused = "   The model answered, but none of its quotes could be verified, so nothing is shown."
        out.print(refused if answer["dropped"] else "   Not in memory.")
    for quote in answer["quotes"]:
        speaker = f"{quote['speaker']}: " if quote["speaker"] else ""
        out.print(f"   {escape(clean(speaker))}“{escape(clean(quote['text']))}” {escape(clean(quote['cited']))}")
        if quote["link"]:
            out.print(f"      [dim]{escape(clean(quote['link']))}[/dim]")
    chose = f"{answer['model']} ({answer['why']})" if answer["model"] else answer["why"]
    mode = ", lexical only" if answer["lexical_only"] else ""
    took = f"{answer['latency_ms']:.0f} ms, {usd(answer['cost_nusd'])}{mode}"
    out.print(f"   [dim]{escape(clean(f'decided: {chose}; took {took}'))}[/dim]")


def show_calls(answer: Answer) -> None:
    """One line a call."""
    table = listing("when", "call", "asked for", "answered by", "ms", "tokens", "cost", "feedback", "error")
    for trace in answer["calls"]:
        call, outcome = trace["call"], trace["outcome"] or {}
        tokens = f"{outcome['prompt_tokens']}+{outcome['completion_tokens']}" if outcome else ""
        said = ", ".join(
            f"{f['metric']} {f['value']}" if f["value"] is not None else f["kind"] for f in trace["feedback"]
        )
        latency = f"{outcome['latency_ms']:.1f}" if outcome else ""
        cost = usd(outcome["cost_nusd"]) if outcome else ""
        error = outcome.get("error", "no outcome")
        add_line(
            table,
            when(call["at"]),
            call["id"],
            call["model"],
            outcome.get("model", ""),
            latency,
            tokens,
            cost,
            said,
            error,
        )
    _show_page(answer, table, "No calls yet; `windlass ask` or any OpenAI client makes one.")


def show_decisions(answer: Answer) -> None:
    """One line a decision."""
    table = listing("when", "point", "action", "propensity", "of", "policy", "live", "fallback")
    for decision in answer["decisions"]:
        add_line(
            table,
            when(decision["at"]),
            decision["point"],
            _short(decision["action"]),
            f"{decision['propensity']:.3f}",
            _short(", ".join(decision["actions"])),
            decision["policy"],
            "live" if decision["live"] else "shadow",
            decision["fallback"],
        )
    console().print(table if table.row_count else "No decisions yet; every call makes at least one.")


def _short(text: str) -> str:
    """Text for a column: an experiment's whole plan is one action."""
    return text if len(text) <= COLUMN else f"{text[: COLUMN - 1]}…"


def show_call(answer: Answer) -> None:
    """One call: what it was, what was decided, what came of it, what was said."""
    out, call, outcome = console(), answer["call"], answer["outcome"]
    table = listing("what", "")
    facts = {name: str(call[name]) for name in ("id", "endpoint", "model", "user", "parent")} | {"at": when(call["at"])}
    if outcome:
        names = ("model", "provider", "status", "error", "latency_ms", "prompt_tokens", "completion_tokens")
        facts |= {f"answered: {name}": str(outcome[name]) for name in names} | {"cost": usd(outcome["cost_nusd"])}
    for name, value in facts.items():
        if value:
            add_line(table, name, value)
    out.print(table)
    show_decisions(answer)
    for said in answer["feedback"]:
        value = "" if said["value"] is None else f" {said['value']}"
        out.print(escape(clean(f"{said['source']}: {said['kind']} {said['metric']}{value} {said['comment']}")))
    for body in answer["bodies"]:
        out.print(f"\n[bold]{escape(clean(body['role']))}[/bold]\n{escape(clean(body['text']))}")


def show_points(answer: Answer) -> None:
    """One line an action of a policy at a point; then what was asked for by name, which nobody chose."""
    table = listing("point", "mode", "policy", "acts", "action", "chosen", "share", "reward")
    for point in answer["points"]:
        mode = point["mode"] or "unknown"
        for decider in point["deciders"] or [
            {"policy": point["policy"], "live": point["mode"] == "live", "actions": []}
        ]:
            acts = "live" if decider["live"] else "shadow"
            for action in decider["actions"] or [{"action": "", "chosen": 0, "share": 0.0, "reward": None}]:
                reward = "" if action["reward"] is None else f"{action['reward']:.3f}"
                share = f"{100 * action['share']:.1f} %"
                row = point["point"], mode, decider["policy"], acts, action["action"], str(action["chosen"]), share
                add_line(table, *row, reward)
        for action in point["named"]:
            reward = "" if action["reward"] is None else f"{action['reward']:.3f}"
            add_line(table, point["point"], mode, "", "by name", action["action"], str(action["chosen"]), "", reward)
    console().print(table if table.row_count else "No decision point is known.")
    _show_in_place(answer)


def _show_in_place(answer: Answer) -> None:
    """One line a point at which something acts in place of its policy."""
    for point in answer["points"]:
        if told := point["standing"]["told"]:
            console().print(escape(clean(f"now at {point['point']}: {told}")))


def show_feedback(answer: Answer) -> None:
    """One line a feedback."""
    table = listing("when", "from", "kind", "metric", "value", "target", "comment")
    for said in answer["feedback"]:
        value = "" if said["value"] is None else f"{said['value']:g}"
        row = when(said["at"]), said["source"], said["kind"], said["metric"], value, said["target"], said["comment"]
        add_line(table, *row)
    _show_page(answer, table, "No feedback fits; POST /v1/feedback brings some.")


def _show_page(answer: Answer, table: Table, none: str) -> None:
    """The table, or `none` where there is nothing in it; and how a search goes on that stopped short of the oldest."""
    out, further = console(), answer.get("further")
    if table.row_count or not further:
        out.print(table if table.row_count else none)
    if further:
        found = "Nothing else fits" if table.row_count else "Nothing fits"
        out.print(f"{found} as far as this page looks; --before {escape(clean(further))} looks further back.")


def show_doctor(answer: Answer) -> None:
    """The settings in force, then the findings."""
    table = listing("setting", "from", "value")
    for path, setting in answer["settings"].items():
        add_line(table, path, setting["source"], _written(setting["value"]))
    out = console()
    out.print(table)
    for worker in answer.get("workers", ()):
        out.print(f"worker {escape(clean(worker['name']))}: {worker['lag_s']:.1f} s behind")
    if traces := answer.get("traces"):
        told = f"{traces['sent']} spans sent, {traces['refused']} refused, {traces['lag_s']:.1f} s behind"
        out.print(f"traces to {escape(clean(traces['endpoint']))}: {told}")
    out.print(f"models that a call may name: {escape(clean(', '.join(('auto', *answer['models']))))}")
    if "replay" not in answer:
        out.print("`windlass doctor --replay` rebuilds every policy from the ledger and compares it with the live one.")
    else:
        replay = answer["replay"]
        verdict = "equal, bit for bit" if replay["equal"] else "DIFFERENT"
        out.print(f"replay up to entry {replay['cursor']}: {verdict} ({replay['rebuilt'][:16]})")
    for finding in answer["findings"]:
        out.print(f"[bold]finding:[/bold] {escape(clean(finding))}")
    if not answer["findings"]:
        out.print("All is well.")


def _written(value: Any) -> str:
    """A setting as it may be written, a price of 0.00001 not as 1e-05.

    >>> _written({"usd": 1e-05, "of": [1e-07, "at 1e-07 each"], "n": 1e22})
    '{"usd": 0.00001, "of": [0.0000001, "at 1e-07 each"], "n": 10000000000000000000000}'
    """
    text = json.dumps(value)
    return _EXPONENT.sub(lambda number: f"{Decimal(number[0]):f}", f" {text}")[1:]


def usd(nusd: int) -> str:
    """Nano-dollars as dollars, exact."""
    return f"{dollars(nusd)} USD"


def when(at: float) -> str:
    """UTC seconds as a UTC time."""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(at))


def ago(seconds: float) -> str:
    """How long ago, in the largest unit that fits: `3 min`.

    >>> ago(0.2), ago(200.0), ago(90_000.0), ago(-5.0)
    ('now', '3 min', '1 d', 'now')
    """
    for unit, length_s in (("d", 86_400), ("h", 3_600), ("min", 60), ("s", 1)):
        if seconds >= length_s:
            return f"{seconds // length_s:.0f} {unit}"
    return "now"


class Steps:
    """Progress of one ingest: a bar on a terminal, a plain line per stage elsewhere, nothing where `quiet`."""

    def __init__(self, *, quiet: bool):
        self._quiet = quiet
        self._said: dict[str, int] = {}
        self._bar: Progress | None = None
        self._tasks: dict[str, Any] = {}
        if not quiet and sys.stderr.isatty():
            from windlass.server import paper

            self._bar = paper.progress()
            self._bar.start()

    def at(self, stage: str, done: int, total: int) -> None:
        """`done` of `total` in `stage`."""
        if self._bar is not None:
            if stage not in self._tasks:
                self._tasks[stage] = self._bar.add_task(stage, total=total)
            self._bar.update(self._tasks[stage], completed=done, total=total)
        elif not self._quiet and total and done >= total and self._said.get(stage) != total:
            self._said[stage] = total
            note(f"{stage}: {done} of {total}")

    def close(self) -> None:
        """Leave the terminal as it was."""
        if self._bar is not None:
            self._bar.stop()


def listing(*columns: str) -> Table:
    """A table with these columns, without lines around it."""
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column, overflow="fold")
    return table


def add_line(table: Table, *cells: str) -> None:
    """Add one line to a `listing`: plain text, whatever it holds."""
    table.add_row(*(escape(clean(cell)) for cell in cells))


def show_snapshots(answer: Answer) -> None:
    """One line a snapshot."""
    table = listing("snapshot", "when (UTC)", "ago", "kept because")
    now = time.time()
    for one in answer["snapshots"]:
        add_line(table, str(one["snapshot"]), when(one["at"]), ago(now - one["at"]), one["note"])
    console().print(table if table.row_count else "No snapshots yet; one is taken every 5,000 records and at the end.")


def show_rollout(answer: Answer) -> None:
    """What was decided, and under which id it is recorded."""
    console().print(escape(clean(f"{answer['told']}; recorded as {answer['decision']['id']}")))


def show_forgotten(answer: Answer) -> None:
    """How much went, and what is left for others to do."""
    if answer["changed"]:
        console().print(f"{answer['changed']} rows deleted or cleared.")
    else:
        console().print("No call of that user in this workspace; nothing was deleted.")
    for sentence in answer["remains"]:
        console().print(f"[bold]still to do:[/bold] {escape(clean(sentence))}")


def show_reloaded(answer: Answer) -> None:
    """What a reload changed, and what is wrong with it."""
    out = console()
    out.print(f"reloaded: {escape(', '.join(answer['changed']))}" if answer["changed"] else "nothing has changed")
    if answer["passed_on"]:
        out.print("every worker reads its settings again")
    for finding in answer["findings"]:
        out.print(f"[yellow]{escape(clean(finding))}[/yellow]")


_SHOWN: dict[str, Callable[[Answer], None]] = {
    "ask": show_ask,
    "calls": show_calls,
    "call": show_call,
    "points": show_points,
    "feedback": show_feedback,
    "decisions": show_decisions,
    "doctor": show_doctor,
    "snapshots": show_snapshots,
    "mode": show_rollout,
    "rollback": show_rollout,
    "promote": show_rollout,
    "always": show_rollout,
    "forget": show_forgotten,
    "reload": show_reloaded,
}
