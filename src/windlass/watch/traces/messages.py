"""What was asked and answered, in the form of the conventions: a list of messages, each with its parts, as JSON."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final

import msgspec

from windlass.errors import RequestError
from windlass.gateway.wire import Tally, parse_chat
from windlass.ledger.ledger import Body
from windlass.records import Call
from windlass.watch.traces import names

MOST_CHARS: Final = 65_536
"""Of a request, and of a reply."""
_CUT: Final = " … (cut)"


def attributes(call: Call, bodies: Iterable[Body]) -> dict[str, str]:
    """What is kept of a call's request and reply, by attribute: of a chat its messages, of others the text as it is."""
    found: dict[str, str] = {}
    for body in bodies:
        if body.role == "request":
            found[names.INPUT_MESSAGES] = _written(_asked(call, body.data))
        else:
            found[names.OUTPUT_MESSAGES] = _written(_answered(call, body.data))
    return found


def _asked(call: Call, data: bytes) -> Sequence[tuple[str, str]]:
    if call.endpoint == "chat":
        try:
            return [(message.role, message.text) for message in parse_chat(data).messages]
        except RequestError:
            pass  # it was refused, and is shown as it came
    return [("user", _text(data))]


def _answered(call: Call, data: bytes) -> Sequence[tuple[str, str]]:
    if call.endpoint == "chat":
        tally = Tally(stream=call.stream)
        tally.feed(data)
        tally.end()
        if tally.text:
            return [("assistant", tally.text)]
    return [("assistant", _text(data))] if data else []


def _text(data: bytes) -> str:
    return data[: 4 * MOST_CHARS].decode(errors="replace")


def _written(said: Sequence[tuple[str, str]]) -> str:
    """The newest messages first, as long as there is room; then in the order in which they were said."""
    left, shown = MOST_CHARS, list[dict[str, Any]]()
    for role, text in reversed(said):
        if left <= 0:
            break
        kept = text if len(text) <= left else text[:left] + _CUT
        shown.append({"role": role[:100], "parts": [{"type": "text", "content": kept}]})
        left -= len(kept)
    return msgspec.json.encode(shown[::-1]).decode()
