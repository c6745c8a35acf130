"""How a translated reply calls itself: nothing in a dialect invents an id or reads a clock."""

from __future__ import annotations

import msgspec

_PREFIXES = ("chatcmpl-", "resp_", "msg_")


class Identity(msgspec.Struct, frozen=True):
    """What a reply takes from its call. model: the name that the client sees. call: the id for replies that come
    without one. at_s: the time for those that come without, seconds since 1970.
    """

    model: str
    call: str = ""
    at_s: int = 0

    def of(self, prefix: str, reply_id: str) -> str:
        """The upstream's id as an id of the client's dialect."""
        own = reply_id or self.call or "windlass"
        for known in _PREFIXES:
            own = own.removeprefix(known)
        return prefix + own
