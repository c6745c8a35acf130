"""How a translated reply calls itself: nothing in a dialect invents an id or reads a clock."""

from __future__ import annotations

import msgspec

from windlass.gateway.dialects.fields import copied

ECHOED = (
    *("instructions", "max_output_tokens", "metadata", "parallel_tool_calls", "reasoning", "temperature", "text"),
    *("tool_choice", "tools", "top_logprobs", "top_p", "truncation", "user"),
)
"""What a response repeats of its request (OpenAI API reference, "The response object")."""
_PREFIXES = ("chatcmpl-", "resp_", "msg_")


class Identity(msgspec.Struct, frozen=True):
    """What a reply takes from its call. model: the name that the client sees. call: the id for replies that come
    without one. at_s: the time for those that come without, seconds since 1970. echo: what a response repeats of its
    request, by which clients know how to read it.
    """

    model: str
    call: str = ""
    at_s: int = 0
    echo: dict[str, msgspec.Raw] = {}

    def of(self, prefix: str, reply_id: str) -> str:
        """The upstream's id as an id of the client's dialect."""
        own = reply_id or self.call or "windlass"
        for known in _PREFIXES:
            own = own.removeprefix(known)
        return prefix + own


def echo(body: bytes) -> dict[str, msgspec.Raw]:
    """What a response repeats of this request, which was read before; what is null there has its default."""
    given = msgspec.json.decode(body, type=dict[str, msgspec.Raw])
    kept = {name: copied(given[name]) for name in ECHOED if name in given and bytes(given[name]) != b"null"}
    if "text" in kept:  # a response always says the form, a request only where it is not plain text
        form = {"format": {"type": "text"}} | msgspec.json.decode(kept["text"], type=dict[str, msgspec.Raw])
        kept["text"] = msgspec.Raw(msgspec.json.encode(form))
    return kept
