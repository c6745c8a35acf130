"""What `windlass graders` prints."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from typing import Any

from rich.markup import escape

from windlass.server import terminal
from windlass.server.terminal import add_line, clean, console, listing, usd

Answer = dict[str, Any]
_FAILED = "failed: "


def show(operation: str, answer: Answer, *, as_json: bool) -> int:
    """Print the answer of `graders`, `grade` or `agreement`; returns the exit code."""
    if as_json:
        terminal.print_json(answer)
    else:
        _SHOWN[operation](answer)
    return 0


def _standing(answer: Answer) -> None:
    """One line a grader, then what went wrong."""
    table = listing("grader", "is", "asked on", "source", "costs", "share", "given", "skipped", "failed", "spent today")
    for one in answer["graders"]:
        cost = "by its model" if one["cost_nusd"] is None else usd(one["cost_nusd"])
        counts = ("", "", "", "")
        if answer["since_start"]:
            spent = f"{usd(one['spent_today_nusd'])} of {usd(one['daily_nusd'])}" if one["needs_model"] else ""
            counts = (str(one["given"]), _reasons(one["skipped"]), str(one["failed"]), spent)
        cells = (one["grader"], one["id"], one["asked_on"], one["source"], cost, f"{one['share']:g}", *counts)
        add_line(table, *cells)
    if not table.row_count:
        console().print("No graders; [graders.<name>] in the settings makes one.", markup=False)
        return
    console().print(table)
    for one in answer["graders"]:
        if one.get("last_failure"):
            console().print(escape(clean(f"{one['grader']} failed last: {one['last_failure']}")))


def _graded(answer: Answer) -> None:
    """One line a grader: what it said of how many calls, and why of others it said nothing."""
    given: dict[str, list[Answer]] = defaultdict(list)
    for one in answer["given"]:
        given[one["grader"]].append(one)
    table = listing("grader", "graded", "mean", "new", "nothing said", "cost")
    for name, theirs in sorted(given.items()):
        add_line(table, name, *_said_by(theirs))
    out = console()
    out.print(table if table.row_count else "None of the calls is in the share of a grader.")
    out.print(f"{answer['calls']} calls looked at.")
    for reason in dict.fromkeys(one["why"] for one in answer["given"] if one["why"].startswith(_FAILED)):
        out.print(escape(clean(reason)))


def _said_by(given: list[Answer]) -> tuple[str, str, str, str, str]:
    """Of one grader: how many calls it graded, the mean, how many are new, why it said nothing of others, the cost."""
    values = [one["value"] for one in given if one["value"] is not None]
    silent = Counter(
        "failed" if one["why"].startswith(_FAILED) else one["why"] for one in given if one["value"] is None
    )
    mean = f"{sum(values) / len(values):.3f}" if values else ""
    new, cost = sum(one["new"] for one in given), sum(one["cost_nusd"] for one in given)
    return str(len(values)), mean, str(new), _reasons(silent), usd(cost)


def _agreeing(answer: Answer) -> None:
    """One line a grader beside people."""
    table = listing("grader", "labels", "same yes/no", "95 %", "kappa", "Brier", "ECE", "calibrated")
    for one in answer["agreement"]:
        raw = one["raw"]
        if raw is None:
            add_line(table, one["grader"], "0", "not measured", "", "", "", "", "")
            continue
        kappa = "undefined" if raw["kappa"] is None else f"{raw['kappa']:.2f}"
        interval = f"{raw['low']:.2f}-{raw['high']:.2f}"
        figures = (f"{raw['accuracy']:.2f}", interval, kappa, f"{raw['brier']:.3f}", f"{raw['ece']:.3f}")
        add_line(table, one["grader"], str(raw["n"]), *figures, _calibration(one))
    console().print(table if table.row_count else "No graders that people's words can be compared with.")


def _calibration(one: Answer) -> str:
    curve = one["curve"]
    if not one["calibrates"]:
        return "no: a check"
    if curve is None:
        return f"not yet: {one['raw']['n']} of {one['labels_wanted']} labels"
    return f"{curve['kind']}, held-out Brier {curve['held_out']:.3f}"


def _reasons(counts: Answer) -> str:
    return ", ".join(f"{why} {count}" for why, count in sorted(counts.items(), key=lambda pair: (-pair[1], pair[0])))


def joined(pages: Iterable[Answer]) -> Answer:
    """The answers of several pages of `grade` as one."""
    whole: Answer = {"calls": 0, "before": "", "given": []}
    for page in pages:
        whole["calls"] += page["calls"]
        whole["given"] += page["given"]
        whole["before"] = page["before"]
    return whole


_SHOWN: dict[str, Callable[[Answer], None]] = {"graders": _standing, "grade": _graded, "agreement": _agreeing}
