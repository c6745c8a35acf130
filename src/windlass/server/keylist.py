"""What `windlass keys` prints."""

from __future__ import annotations

import sys
from typing import Any

from rich.markup import escape
from rich.table import Table

from windlass.server import terminal
from windlass.server.terminal import clean, console, note, when
from windlass.stats.dollars import NUSD, dollars

Answer = dict[str, Any]
_MEASURES = ("usd", "requests", "tokens", "concurrent")
_UNITS = {"usd": "USD", "concurrent": "at once"}


def show(operation: str, answer: Answer, *, as_json: bool) -> int:
    """Print the answer of an operation on keys; returns the exit code."""
    if as_json:
        terminal.print_json(answer)
    elif operation == "keys":
        _list(answer["keys"])
    elif operation == "key_revoke":
        console().print(escape(f"{answer['key']['name']} ({answer['key']['shown']}...) lets nobody in any more."))
    else:
        _made(answer)
    return 0


def _list(keys: list[Answer]) -> None:
    """One line a key."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("name", "key", "state", "role", "workspaces", "team", "may use", "limits", "made", "expires"):
        table.add_column(column, overflow="fold")
    for key in keys:
        row = (
            key["name"],
            f"{key['shown']}...",
            key["state"],
            key["role"],
            ", ".join(key["workspaces"]),
            key["team"],
            "; ".join(filter(None, (", ".join(key["models"]), ", ".join(key["endpoints"])))) or "everything",
            "; ".join(_limit(limit) for limit in key["limits"]),
            when(key["created_at"]),
            when(key["expires_at"]) if key["expires_at"] else "never",
        )
        table.add_row(*(escape(clean(cell)) for cell in row))
    console().print(table if table.row_count else "No keys yet; `windlass keys create NAME` makes one.")
    if any(key["state"] == "lost" for key in keys):
        note("lost: made under another key secret than the one in force; `windlass doctor` says what to do")


def _limit(limit: Answer) -> str:
    """`10 USD a month`."""
    amounts = {measure: limit[measure] for measure in _MEASURES if measure in limit}
    if "usd" in amounts:
        amounts["usd"] = dollars(round(amounts["usd"] * NUSD))
    said = ", ".join(f"{amount} {_UNITS.get(measure, measure)}" for measure, amount in amounts.items())
    window = limit["window"]
    if set(_MEASURES) & limit.keys() == {"concurrent"}:
        return said
    return f"{said} in all" if window == "total" else f"{said} a {window}"


def _made(answer: Answer) -> None:
    """The key alone on standard output, so that a script can take it; what there is to know beside it."""
    key = answer["key"]
    sys.stdout.write(answer["api_key"] + "\n")
    note(f"This is the key {key['name']} of tenant {key['tenant']}; it is never shown again, so keep it now.")
    if key["previous_until"]:
        note(f"The key before it is good until {when(key['previous_until'])} UTC.")
    if key["expires_at"]:
        note(f"It expires at {when(key['expires_at'])} UTC.")
    for sentence in answer.get("warnings", ()):
        note(f"warning: {sentence}")
    if answer["first"]:
        note("It is the first one: from now on every request needs a key, and the pages ask for one to sign in.")
