"""A report as one HTML file: no script, nothing from elsewhere, every text escaped."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from markupsafe import Markup

from windlass.server.dashboard.svg import element

# Neither quotes nor `>`, here and in what is added to it: what stands in an element is escaped.
_STYLE: Final = """
:root { --paper: #f6f5f1; --ink: #1c2426; --soft: #566064; --line: #dedbd2; --accent: #0a6b66; --other: #8a5300; }
@media (prefers-color-scheme: dark) { :root { --paper: #111618; --ink: #e7eae8; --soft: #a0abae; --line: #2c3539;
  --accent: #6cc8bf; --other: #e6b566; } }
html { color-scheme: light dark; }
body { margin: 0 auto; max-width: 60rem; padding: 1.5rem; background: var(--paper); color: var(--ink);
  font: 1rem/1.5 system-ui, sans-serif; }
h1 { font-size: 1.6rem; margin: 0; } h2 { font-size: 1.2rem; margin: 2rem 0 .5rem; }
.note, caption { color: var(--soft); font-size: .85rem; text-align: left; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; } th, td { text-align: left; padding: .25rem 1rem .25rem 0;
  border-bottom: 1px solid var(--line); white-space: nowrap; }
.sentence { font-size: 1.1rem; margin: .5rem 0; } .refused { color: var(--other); }
svg text { fill: var(--ink); font-size: 12px; }
"""


def sheet(title: str, *parts: str, style: str) -> str:
    """The whole file. style: of the drawings in it."""
    head = element(
        "head",
        Markup('<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'),
        element("title", title),
        element("style", _STYLE + style),
    )
    body = element("body", element("main", element("h1", title), *parts))
    return f"<!DOCTYPE html>\n{element('html', head, body, lang='en')}\n"


def table(caption: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> Markup:
    """Rows under their columns, which scroll sideways where they are too wide."""
    head = element("thead", element("tr", *(element("th", one, scope="col") for one in columns)))
    body = element("tbody", *(element("tr", *(element("td", cell) for cell in row)) for row in rows))
    told = [element("caption", caption)] if caption else []
    return element("div", element("table", *told, head, body), class_="scroll")


def as_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> Markup:
    """What a drawing shows, for those who want its numbers."""
    return element("details", element("summary", "show as table"), table("", columns, rows))
