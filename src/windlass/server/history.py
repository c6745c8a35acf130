"""`windlass logs import`: past calls of other programs are written, by the folder's server or in-process."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from msgspec import Meta

from windlass.errors import InputError
from windlass.gateway.access.admission import Caller, require
from windlass.gateway.feedback import AHEAD_S, EARLIEST_S
from windlass.gateway.history.past import Past, PastWord
from windlass.gateway.history.taking import Taking
from windlass.records import Scope
from windlass.runtime import Runtime
from windlass.server.reading import read

AT_ONCE = 1_000
Owner = Annotated[str, Meta(max_length=64, pattern=r"^[A-Za-z0-9._-]*\Z")]


class HistoryAsked(msgspec.Struct, forbid_unknown_fields=True):
    """Arguments of `history`. tenant, workspace: whose they become, those of the caller where empty; dry: only look."""

    calls: Annotated[list[Past], Meta(max_length=AT_ONCE)] = []
    said: Annotated[list[PastWord], Meta(max_length=AT_ONCE)] = []
    tenant: Owner = ""
    workspace: Owner = ""
    dry: bool = False


async def history(runtime: Runtime, caller: Caller, arguments: dict[str, Any]) -> dict[str, Any]:
    """Write calls that other programs logged, and what was said of them, unless they are there already.

    They teach no policy and use up no budget. `said` is linked to calls of this request or of earlier ones.
    """
    require(caller, "admin")
    wanted = read(arguments, HistoryAsked)
    now = runtime.clock()
    told: list[Past | PastWord] = [*wanted.calls, *wanted.said]
    for one in told:
        _storable(one, now)
    scope = Scope(wanted.tenant or caller.scope.tenant, wanted.workspace or caller.scope.workspace)
    if caller.key and scope != caller.scope:
        raise InputError("a key imports into its own workspace; the folder's owner may name another one")
    options = runtime.settings.gateway
    taking = Taking(runtime.db, runtime.ledger, options, scope, dry=wanted.dry)
    return msgspec.to_builtins(await taking.take(wanted.calls, wanted.said, now))  # type: ignore[no-any-return]


def _storable(one: Past | PastWord, now: float) -> None:
    """InputError for a time that is none, and for text that no database holds, before anything is written."""
    if not EARLIEST_S <= one.at <= now + AHEAD_S:
        raise InputError(f"at is {one.at}; send seconds since 1970 in UTC, not in the future")
    texts = [value for value in msgspec.structs.astuple(one) if isinstance(value, str)]
    if isinstance(one, Past):
        texts += [*one.about, *one.about.values()]
    if any("\x00" in text for text in texts):
        raise InputError(f"{one.source[:100]!r} holds a NUL character; leave it out")
