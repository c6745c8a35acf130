"""A whole reply written as the events of a stream, for clients that asked an upstream for one that does not stream.

It passes through the common form, as between two dialects: fields that no other dialect knows are left out.
"""

from __future__ import annotations

from windlass.gateway.dialects.hub import Dialect, Failed, Finished
from windlass.gateway.dialects.identity import Identity
from windlass.gateway.dialects.readers import UNREADABLE, reader
from windlass.gateway.dialects.translation import malformed, writer


def unstreamed(client: Dialect, upstream: Dialect, body: bytes, identity: Identity, *, include_usage: bool) -> bytes:
    """The events for the client, up to the end of the stream; an error's event is the last.

    include_usage: a chat client asked for its usage; the other dialects always tell it. UpstreamError where the body
    is no finished reply.
    """
    try:
        pieces = reader(upstream).whole(body)
    except UNREADABLE as exc:
        raise malformed(upstream, str(exc)) from exc
    if not pieces or not isinstance(pieces[-1], Finished | Failed):
        raise malformed(upstream, "it holds no finished answer")
    writing = writer(client, identity, include_usage=include_usage)
    return b"".join(map(writing.write, pieces))
