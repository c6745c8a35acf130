"""The dialects that clients and upstreams speak, and the ways between them.

    translation("messages", "chat").request(body, "gpt-4o", stream=True)   -> bytes for the upstream, what was dropped
    head("responses", body)                                                -> what admission and routing need
    tally("messages", stream=True)                                         -> reads along: usage, text, whole or cut

Every dialect has its files: `<dialect>_wire` and `_request` read a client's request into the common form (`hub`),
`_prompt` writes it for an upstream, `_reply` reads the upstream's reply, `_answer` writes it for a client.
"""

from __future__ import annotations

from windlass.gateway.dialects.head import Head, head, renamed
from windlass.gateway.dialects.hub import Dialect
from windlass.gateway.dialects.tally import tally
from windlass.gateway.dialects.translation import StreamTranslation, Translated, Translation, translation

__all__ = [
    "Dialect",
    "Head",
    "StreamTranslation",
    "Translated",
    "Translation",
    "head",
    "renamed",
    "tally",
    "translation",
]
