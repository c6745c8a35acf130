"""The one way to write SVG: elements as functions, every text and attribute escaped, nothing styled inline.

Horizontal places are percentages and vertical ones pixels, so that a drawing takes any width while its text and lines
keep their size.
"""

from __future__ import annotations

from markupsafe import Markup, escape


def element(name: str, *children: str, **attributes: str | float) -> Markup:
    """One element. `class_` is written `class`, underscores become hyphens, numbers are shortened.

    >>> element("text", "a < b", x=12.5, text_anchor="end")
    Markup('<text x="12.5" text-anchor="end">a &lt; b</text>')
    """
    written = "".join(f' {key.rstrip("_").replace("_", "-")}="{_value(value)}"' for key, value in attributes.items())
    inside = "".join(escape(child) for child in children)
    return Markup(f"<{name}{written}>{inside}</{name}>")  # every part is escaped above


def picture(ident: str, title: str, summary: str, *children: str, class_: str, height: float) -> Markup:
    """A drawing with a name and a text summary for those who do not see it."""
    return element(
        "svg",
        element("title", title, id=f"{ident}-title"),
        element("desc", summary, id=f"{ident}-desc"),
        *children,
        role="img",
        aria_labelledby=f"{ident}-title",
        aria_describedby=f"{ident}-desc",
        class_=class_,
        width="100%",
        height=height,
    )


def percent(share: float) -> str:
    """A share of the width, kept inside it."""
    return f"{_short(100 * min(max(share, 0.0), 1.0))}%"


def _value(value: str | float) -> str:
    return str(escape(value)) if isinstance(value, str) else _short(value)


def _short(value: float) -> str:
    return f"{value:.2f}".rstrip("0").rstrip(".") or "0"
