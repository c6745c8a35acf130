"""Seals: signatures and encrypted reasoning that only their own provider can read, and that it wants back.

Inside, a seal says whose it is: `messages:<signature>`. In its own dialect it stands bare, as the documentation has
it; in another one it keeps its mark, so that it finds home when the client sends the conversation back, and so that a
provider is never handed a seal that another one made (it would refuse the whole request).

Marks: `messages` a thinking signature, `messages.redacted` the data of a redacted_thinking block, `responses` the
encrypted content of a reasoning item (`<item id>:<content>`), `gemini` a thought signature.
"""

from __future__ import annotations

REDACTED = "messages.redacted"
_MARKS = ("messages", REDACTED, "responses", "gemini")


def seal(mark: str, value: str) -> str:
    """The inner form of a value that came in its own dialect or marked in a foreign one; '' of ''."""
    return value if not value or value.partition(":")[0] in _MARKS else f"{mark}:{value}"


def opened(mark: str, sealed: str) -> str:
    """The bare value where the seal has this mark, else ''."""
    owner, _, value = sealed.partition(":")
    return value if owner == mark else ""


def outside(mark: str, sealed: str) -> str:
    """How a seal is written in the dialect of `mark`: bare at home, marked elsewhere."""
    return opened(mark, sealed) or sealed
