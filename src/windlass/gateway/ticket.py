"""One idempotency key while its call runs in this process: who waits for it, and what becomes of it.

A ticket is over with the commit that holds the outcome and the reply, or once its place is free again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Final, NamedTuple

import msgspec
import structlog

from windlass.errors import LedgerError
from windlass.gateway.relay import Incoming
from windlass.gateway.vault import Vault
from windlass.ledger.ledger import StoredReply
from windlass.ledger.replies import ReplyPlace, ReplyRow, ReplyTable
from windlass.records import Call, Outcome

log = structlog.get_logger(__name__)
_OF_THE_FIRST: Final = frozenset({"x-windlass-overhead-ms"})
"""Headers that say something of the first answer alone."""


class Terms(NamedTuple):
    """Where replies are stored, how they are sealed, for how long, and up to which size."""

    table: ReplyTable
    vault: Vault
    ttl_s: float
    max_bytes: int


class Replay(NamedTuple):
    """A reply that was given once. asked: digest of the request that it answers."""

    asked: str
    status: int
    content_type: str
    headers: dict[str, str]
    body: bytes


class Ticket:
    """The right to make the call of one key. owner: by which the database knows whose it is. ended: told at the end.

    running: the place is held, and a reply may come of the call. over: ends with the reply; None: nothing to repeat.
    """

    def __init__(self, terms: Terms, place: ReplyPlace, asked: str, owner: str, ended: Callable[[], object]):
        self.place = place
        self.asked = asked
        self.owner = owner
        self.running = False
        self.over: asyncio.Future[Replay | None] = asyncio.get_running_loop().create_future()
        self.claiming: asyncio.Future[ReplyRow | None] | None = None
        self._terms = terms
        self._ended = ended
        self._incoming: Incoming | None = None
        self._headers: Callable[[], dict[str, str]] = dict
        self._replay: Replay | None = None
        self._committing = False
        self._releasing: asyncio.Task[None] | None = None

    def begin(self, incoming: Incoming, headers: Callable[[], dict[str, str]]) -> None:
        """The reply has begun. headers: what the client is told beside it, as far as it is known when asked."""
        self._incoming, self._headers = incoming, headers

    def stored(self, call: Call, outcome: Outcome) -> tuple[StoredReply, ...]:
        """What the commit of `outcome` shall hold: the reply, if it is a good one and not too large."""
        incoming = self._incoming
        if incoming is None or not incoming.keep or outcome.error or not 200 <= outcome.status < 400:
            return ()
        if sum(map(len, incoming.sent)) > self._terms.max_bytes:
            return ()
        headers = {name: value for name, value in self._headers().items() if name not in _OF_THE_FIRST}
        reply = incoming.reply
        self._replay = Replay(self.asked, reply.status, reply.content_type, headers, b"".join(incoming.sent))
        place, vault = self.place, self._terms.vault
        return (
            StoredReply(
                **place._asdict(),
                owner=self.owner,
                call=call.id,
                user=call.user,
                at=call.at,
                expires_at=outcome.at + self._terms.ttl_s,
                data=vault.seal(place.tenant, call.id, _packed(self._replay), (*place, self.asked)),
            ),
        )

    def settle(self, committing: asyncio.Future[Any]) -> None:
        """The outcome, with what was `stored`, is on its way into the ledger."""
        self._committing = True
        committing.add_done_callback(self._committed)

    async def release(self) -> None:
        """Nobody goes on with the call; returns once whoever waits has the reply after all, or may make it anew."""
        if not self._committing:
            self._release()
        await asyncio.wait((self.over,))

    def end(self, replay: Replay | None) -> None:
        """Let go of whoever waits. Later than the first time it does nothing."""
        if not self.over.done():
            self._ended()
            self.over.set_result(replay)

    def _committed(self, committing: asyncio.Future[Any]) -> None:
        failed = committing.cancelled() or committing.exception() is not None
        if self._replay is not None and not failed:
            self.end(self._replay)
        else:
            self._release()

    def _release(self) -> None:
        self.running = False
        if self._releasing is None and not self.over.done():
            self._releasing = asyncio.ensure_future(self._freed())

    async def _freed(self) -> None:
        """Empty the place in the database, if it was taken; where that fails its lease runs out."""
        try:
            if self.claiming is not None and await self.claiming is None:
                await asyncio.to_thread(self._terms.table.release, self.place, self.owner)
        except LedgerError as exc:
            log.warning("idempotency_key_held", reason=str(exc))
        finally:
            self.end(None)


def unpacked(asked: str, data: bytes) -> Replay:
    """The reply in what was sealed."""
    return Replay(asked, *msgspec.msgpack.decode(data, type=tuple[int, str, dict[str, str], bytes]))


def _packed(replay: Replay) -> bytes:
    return msgspec.msgpack.encode((replay.status, replay.content_type, replay.headers, replay.body))
