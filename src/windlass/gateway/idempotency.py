"""Repeated requests: what was answered once under an idempotency key is answered from the store, and billed once.

The same key with the same request gets the bytes of the first answer, also while that is still on its way; with another
request it is refused. A call that failed, was cut or left has no answer to repeat: the next request runs by itself.
Source of the header and its rules: draft-ietf-httpapi-idempotency-key-header-07.
"""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import re
import secrets
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

import msgspec
import structlog

from windlass.errors import ErrorCategory, LedgerError, RequestError, SettingsError
from windlass.gateway.access.admission import Caller
from windlass.gateway.endpoints import FORM
from windlass.gateway.options import GatewayOptions
from windlass.gateway.relay import Once
from windlass.gateway.ticket import Replay, Terms, Ticket, unpacked
from windlass.gateway.transit import Answer, Request
from windlass.gateway.vault import Vault
from windlass.ledger.db import Database
from windlass.ledger.process import mark
from windlass.ledger.replies import DONE, LEASE_S, ReplyPlace, ReplyRow, ReplyTable

log = structlog.get_logger(__name__)
HEADER: Final = "Idempotency-Key"
REPLAYED: Final = "x-windlass-replayed"
MOST_CHARS: Final = 255
FIRST_LOOK_S, LOOK_S = 0.05, 0.5
"""So often another process's call is looked after: at first, and once it has taken long."""
RENEW_S: Final = LEASE_S / 4
AT_ONCE_BYTES: Final = 1024 * 1024
"""A larger body is digested in a thread, so that others are not kept waiting."""
IDLE_S: Final = 5.0
HOUR_S: Final = 3_600.0
_BOUNDARY = re.compile(r'boundary="?([^";,\s]{1,70})"?')
Walk = Callable[[Ticket], Awaitable[Answer]]


def key_of(values: Sequence[bytes]) -> str:
    """The idempotency key in the values of its header. RequestError for none, several, or one that is no key."""
    remedy = f"send one of 1 to {MOST_CHARS} visible ASCII characters, such as a UUID"
    if len(values) != 1:
        raise _refused(f"{len(values)} {HEADER} headers; {remedy}")
    value = values[0]
    if not 1 <= len(value) <= MOST_CHARS:
        raise _refused(f"the {HEADER} has {len(value)} bytes; {remedy}")
    if not all(0x21 <= byte <= 0x7E for byte in value):
        raise _refused(f"the {HEADER} {value[:40]!r} holds something else; {remedy}")
    return value.decode("ascii")


def opened(db: Database, secret: bytes, options: GatewayOptions, clock: Callable[[], float]) -> Repeats:
    """The store of a database. secret: the key secret. clock: UTC seconds."""
    table, ttl_s = ReplyTable(db, clock), options.idempotency_hours * HOUR_S
    return Repeats(Terms(table, Vault(secret), ttl_s, options.idempotency_max_bytes))


class Repeats:
    """The calls with idempotency keys of one process, and the store that it shares with all of the database."""

    def __init__(self, terms: Terms):
        self._terms = terms
        self._table, self._vault = terms.table, terms.vault
        self._process = mark()
        self._numbers = itertools.count()
        self._tickets: dict[ReplyPlace, Ticket] = {}
        self._renewing: asyncio.Task[None] | None = None

    async def answer(self, request: Request, caller: Caller, walk: Walk, until: float) -> Answer:
        """The stored answer to `request`, or that of the same one under way, or what `walk` brings.

        until: of the event loop's clock; who waits longer for another's call is sent away. RequestError for a key that
        stands for another request (422) or whose call is still under way by then (409); LedgerError, SettingsError
        where the stored reply cannot be read.
        """
        digest = hashlib.sha256(request.idempotency_key.encode()).hexdigest()
        place = ReplyPlace(caller.scope.tenant, caller.scope.workspace, caller.virtual or caller.key, digest)
        asked = await self._asked(place.tenant, request)
        while (first := self._tickets.get(place)) is not None:
            replay = await _awaited(first, asked, until)
            if replay is not None:
                return _again(replay)
        ticket = self._tickets[place] = self._ticket(place, asked)
        try:
            replay = await self._claimed(ticket, until)
            if replay is not None:
                ticket.end(replay)
                return _again(replay)
            ticket.running = True
            self._renew()
            return await walk(ticket)
        except BaseException:
            await asyncio.shield(ticket.release())
            raise

    def renew(self, options: GatewayOptions) -> None:
        """Store later replies by other options."""
        ttl_s = options.idempotency_hours * HOUR_S
        self._terms = self._terms._replace(ttl_s=ttl_s, max_bytes=options.idempotency_max_bytes)

    async def idle(self) -> None:
        """Return once no place is held any more, or soon: the calls have ended, and what they left is on its way."""
        if self._tickets:
            await asyncio.wait([ticket.over for ticket in self._tickets.values()], timeout=IDLE_S)
        if self._renewing is not None:
            self._renewing.cancel()
            await asyncio.gather(self._renewing, return_exceptions=True)

    def _ticket(self, place: ReplyPlace, asked: str) -> Ticket:
        owner = f"{self._process}:{next(self._numbers)}.{secrets.token_hex(8)}"
        return Ticket(self._terms, place, asked, owner, lambda: self._tickets.pop(place))

    async def _asked(self, tenant: str, request: Request) -> str:
        """What stands for the request. A form's boundary is drawn anew with every attempt, so it does not count."""
        body, kind = request.body, request.content_type
        if kind.lower().startswith(FORM):
            if found := _BOUNDARY.search(kind):
                body = body.replace(b"--" + found[1].encode(errors="replace"), b"--")
            kind = FORM
        head = msgspec.msgpack.encode((request.endpoint, request.method, request.path, request.query, kind))
        if len(body) <= AT_ONCE_BYTES:
            return self._vault.digest(tenant, head, body)
        return await asyncio.to_thread(self._vault.digest, tenant, head, body)

    async def _claimed(self, ticket: Ticket, until: float) -> Replay | None:
        """The reply that is stored, once it is; None where the call is this one's to make."""
        clock, pause_s = asyncio.get_running_loop().time, FIRST_LOOK_S
        while True:
            claim = asyncio.to_thread(self._table.claim, ticket.place, ticket.asked, self._vault.mark, ticket.owner)
            ticket.claiming = asyncio.ensure_future(claim)
            found = await asyncio.shield(ticket.claiming)
            if found is None:
                return None
            if found.state == DONE or found.secret == self._vault.mark:
                self._check(found, ticket)
            if found.state == DONE:
                return self._opened(ticket.place, found)
            if clock() + pause_s >= until:
                raise _busy()
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, LOOK_S)

    def _check(self, found: ReplyRow, ticket: Ticket) -> None:
        """RequestError where the key stands for another request, SettingsError where nobody can tell."""
        if found.secret != self._vault.mark:
            raise SettingsError(
                f"the reply of call {found.call} is stored under another key secret than the one in force; put that "
                f"back (gateway.key_secret_env, or keys.secret in the state folder), or send another {HEADER}"
            )
        _same(found.asked, ticket.asked)

    def _opened(self, place: ReplyPlace, found: ReplyRow) -> Replay:
        sealed = self._vault.open(place.tenant, found.call, found.data, (*place, found.asked))
        return unpacked(found.asked, sealed)

    def _renew(self) -> None:
        if self._renewing is None or self._renewing.done():
            self._renewing = asyncio.ensure_future(self._renewed())

    async def _renewed(self) -> None:
        """Keep the places of all calls under way, for as long as there are any."""
        while held := [(ticket.place, ticket.owner) for ticket in self._tickets.values() if ticket.running]:
            await asyncio.sleep(RENEW_S)
            try:
                await asyncio.to_thread(self._table.renew, held)
            except LedgerError as exc:
                log.warning("idempotency_keys_not_renewed", reason=str(exc))


def _again(replay: Replay) -> Answer:
    return Answer(replay.status, replay.content_type, {**replay.headers, REPLAYED: "true"}, Once(replay.body))


async def _awaited(first: Ticket, asked: str, until: float) -> Replay | None:
    """The reply of the call that is under way in this process; None where it brings none."""
    if first.running:
        _same(first.asked, asked)
    left_s = until - asyncio.get_running_loop().time()
    await asyncio.wait((first.over,), timeout=max(0.0, left_s))
    if not first.over.done():
        raise _busy()
    replay = first.over.result()
    if replay is not None:
        _same(replay.asked, asked)
    return replay


def _same(first: str, asked: str) -> None:
    if first != asked:
        message = f"this {HEADER} was sent with another request before; send a new one with each new request"
        raise RequestError(
            message, status=422, code="idempotency_key_reused", param=HEADER, category=ErrorCategory.REQUEST_CONFLICT
        )


def _busy() -> RequestError:
    message = f"the first call under this {HEADER} is still under way; ask again later"
    return RequestError(
        message, status=409, code="idempotency_key_in_use", param=HEADER, category=ErrorCategory.REQUEST_CONFLICT
    )


def _refused(message: str) -> RequestError:
    return RequestError(message, code="idempotency_key_invalid", param=HEADER)
