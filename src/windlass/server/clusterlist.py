"""What `windlass route --clusters` prints."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.markup import escape
from rich.table import Table

from windlass.server import terminal
from windlass.server.held import cost_words


def show(answer: dict[str, Any], *, as_json: bool) -> int:
    """Print the answer of `clusters`; returns the exit code."""
    if as_json:
        terminal.print_json(answer)
        return 0
    out = terminal.console()
    if not answer["clusters"]:
        out.print(escape(terminal.clean(f"No clusters: {answer['missing']}.")))
        return 0
    told = f"{answer['embedded']} choices since {terminal.when(answer['since'])} UTC, made {answer['age_s']:.0f} s ago"
    out.print(escape(terminal.clean(f"{answer['policy']}, tenant {answer['tenant']}, {told}")))
    for cluster in answer["clusters"]:
        out.print(f"\n[bold]{escape(terminal.clean(cluster['name']))}[/bold]")
        cost = "" if cluster["cost_nusd"] is None else f", {cost_words(cluster['cost_nusd'])} a call"
        differs = f"; {cluster['words']}" if cluster["words"] else ""
        out.print(f"[dim]{cluster['calls']} calls ({cluster['share']:.0%}){cost}{escape(differs)}[/dim]")
        out.print(_table(cluster["models"]))
    return 0


def _table(models: Sequence[dict[str, Any]]) -> Table:
    table = terminal.listing("model", "share", "graded", "quality", "predicted", "cost", "expected cost")
    for one in models:
        cells = (f"{one['share']:.0%}", str(one["graded"]), measured(one["quality"], one["half_width"]))
        costs = ("" if one[name] is None else cost_words(one[name]) for name in ("cost_nusd", "expected_nusd"))
        terminal.add_line(table, one["model"], *cells, measured(one["predicted"], one["sd"]), *costs)
    return table


def measured(value: float | None, width: float | None) -> str:
    """A quality with its interval or deviation.

    >>> measured(0.912, 0.03), measured(0.5, None), measured(None, None)
    ('0.91 +- 0.03', '0.50', '')
    """
    if value is None:
        return ""
    return f"{value:.2f}" if width is None else f"{value:.2f} +- {width:.2f}"
