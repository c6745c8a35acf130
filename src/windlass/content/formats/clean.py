"""Taking out of text what a screen or a terminal would obey instead of show."""

from __future__ import annotations

import re

# Escape sequences of terminals (ECMA-48: CSI, OSC and other strings, two-character escapes) go as a whole; then the
# control characters, the bidirectional overrides and isolates (CVE-2021-42574), invisible "tag" letters, byte order
# marks inside the text, and lone surrogates, which no database stores.
_UNSEEN = re.compile(
    r"(?:\x1b\[|\x9b)[0-?]*+[ -/]*+[@-~]?"
    r"|\x1b[\]PX^_][^\x07\x1b\n]*+(?:\x07|\x1b\\)?"
    r"|\x1b[ -/]*+[0-~]"
    r"|[\x00-\x08\x0e-\x1f\x7f-\x84\x86-\x9f\u202a-\u202e\u2066-\u2069\ufeff\ud800-\udfff\U000e0000-\U000e007f]"
)
_LINK = re.compile(r"!?\[([^\[\]]*+)\]\((?:[^()\s]|\([^()\s]*+\))*+(?:\s+\"[^\"]*+\")?\)")


def without_controls(text: str) -> tuple[str, int]:
    """`text` without control characters and escape sequences, and how many of them went. Line breaks stay."""
    # Asking for printability first is 20 times as fast as the search, and most texts have nothing to remove.
    return (text, 0) if text.replace("\n", "").isprintable() else _UNSEEN.subn("", text)


def line(text: str, limit: int = 0) -> str:
    """`text` on one line: no control characters, white space as single spaces, at most `limit` characters (0: all)."""
    joined = " ".join(text.split())
    if not joined.isprintable():
        joined = " ".join(_UNSEEN.sub("", text).split())
    return joined[:limit].rstrip() if limit else joined


def visible_links(text: str) -> str:
    """Markdown links and images as the words a reader sees: `[text](address)` becomes `text`."""
    return _LINK.sub(r"\1", text) if "](" in text else text
