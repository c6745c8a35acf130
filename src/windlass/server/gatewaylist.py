"""What `windlass budgets` and `windlass providers` print."""

from __future__ import annotations

import time
from typing import Any

from rich.markup import escape

from windlass.server import terminal
from windlass.server.terminal import add_line, ago, clean, console, listing, when

Answer = dict[str, Any]
STANDS = {
    "answers": "answers",
    "fails": "FAILS",
    "left_alone": "LEFT ALONE",
    "on_probation": "on probation",
    "unused": "not used",
}
RECOVERED = {
    "retry": "a retry was answered",
    "probe": "the breaker's probe was answered",
    "call": "a call was answered",
}


def show(operation: str, answer: Answer, *, as_json: bool) -> int:
    """Print the answer of `budgets` or `providers`; returns the exit code."""
    if as_json:
        terminal.print_json(answer)
    elif operation == "budgets":
        _budgets(answer)
    else:
        _providers(answer)
    return 0


def _budgets(answer: Answer) -> None:
    """One line a count of a limit, then what was refused."""
    table = listing("limit", "of", "window", "at most", "used", "held", "left", "spent by")
    for one in answer["budgets"]:
        amounts = (_amount(one["measure"], one[name]) for name in ("most", "used", "held", "left"))
        add_line(table, one["name"], whom(one), one["window"], *amounts, _spent_by(one))
    if not table.row_count:
        console().print("No limits; [[limits]] in the settings and `windlass keys create --budget-usd` make some.")
        return
    console().print(table)
    refused = [
        f"{one['limit']}{' of ' + one['key'] if one['key'] else ''} {one['refused']}" for one in answer["refused"]
    ]
    console().print(escape(clean(f"Refused: {', '.join(refused) if refused else 'nothing'}.")))


def whom(one: Answer) -> str:
    """Whose count it is, in a few words.

    >>> whom({"of_key": "", "group": "ann", "per": "user", "about": {"model": "m"}})
    'user ann; model m'
    """
    if one["of_key"]:
        return f"key {one['of_key']}"
    own = f"{one['per']} {one['group']}" if one["group"] else ""
    return "; ".join(filter(None, (own, *(f"{name} {value}" for name, value in one["about"].items())))) or "all"


def _amount(measure: str, value: int | None) -> str:
    if value is None:
        return "-"
    return terminal.usd(value) if measure == "usd" else f"{value:,}"


def _spent_by(one: Answer) -> str:
    """When it will be spent, with an interval."""
    forecast = one["forecast"]
    if forecast is None or forecast["low_at"] is None:
        return ""
    if one["ends"] is not None and forecast["low_at"] > one["ends"]:
        return "lasts"
    late = forecast["high_at"]
    lasts = late is None or (one["ends"] is not None and late > one["ends"])
    return f"{when(forecast['low_at'])[:16]} to {'never' if lasts else when(late)[:16]}"


def _providers(answer: Answer) -> None:
    """One line a model, then what fails and what did."""
    table = listing(
        "provider", "model", "stands", "calls answered", "attempts failed", "p50 ms", "p95 ms", "first byte p95 ms"
    )
    for one in answer["providers"]:
        times = (one["latency"]["p50_ms"], one["latency"]["p95_ms"], one["first_byte"]["p95_ms"])
        counts = (f"{one['answered']:,}", f"{one['failed']:,}")
        shown = ("" if value is None else f"{value:.0f}" for value in times)
        add_line(table, one["provider"], one["model"], STANDS[one["standing"]], *counts, *shown)
    console().print(table if table.row_count else "No models yet; [[providers]] in the settings names some.")
    now = time.time()
    for title, episodes in (("Failing now", answer["failing"]), ("Over", answer["over"])):
        if episodes:
            table = listing(
                "provider",
                "model",
                "cause",
                "since",
                "last",
                "attempts failed",
                "what became of the calls",
                "recovered",
            )
            for one in episodes:
                add_line(table, *_episode(one, now))
            console().print(f"\n[bold]{title}[/bold]")
            console().print(table)


def _episode(one: Answer, now: float) -> list[str]:
    ends = {"retried": "answered by a retry", "failed_over": "answered by another model", "lost": "failed"}
    became = ", ".join(f"{one[name]} {words}" for name, words in ends.items() if one[name])
    became = f"of {one['calls']}: {became}" if became else ""
    by = RECOVERED.get(one["recovered_by"], "")
    recovered = f"{when(one['recovered_at'])}: {by}" if one["recovered_at"] is not None else "not yet"
    since = f"{when(one['since'])} ({ago(now - one['since'])})"
    return [
        one["provider"],
        one["model"],
        one["error"],
        since,
        when(one["last"]),
        str(one["failed"]),
        became,
        recovered,
    ]
