"""Answers, kept for a day so that a reload, a thumb or the way back never asks a second time, on any worker."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

import msgspec

from windlass.content.ask import Asked
from windlass.ledger.ledger import Body, Ledger
from windlass.records import Scope

MAX_KEPT = 500
KEPT_S = 86_400.0


@dataclass
class Answered:
    """One answer and what was last said of it on this worker: `up`, `down` or ''."""

    asked: Asked
    rating: str = ""
    corrected: bool = False


class Answers:
    """The newest answers by owner and id: the last `limit` at hand, the others as bodies that expire."""

    def __init__(self, ledger: Ledger, clock: Callable[[], float], limit: int = MAX_KEPT) -> None:
        self._ledger = ledger
        self._clock = clock
        self._limit = limit
        self._kept: OrderedDict[tuple[Scope, str], Answered] = OrderedDict()

    async def keep(self, scope: Scope, asked: Asked) -> None:
        """Remember an answer; it is committed when this returns."""
        self._remember(scope, asked)
        now = self._clock()
        body = Body(
            id=f"{asked.id}-reply",
            at=now,
            tenant=scope.tenant,
            workspace=scope.workspace,
            call=asked.id,
            role="reply",
            data=msgspec.msgpack.encode(asked),
            expires_at=now + KEPT_S,
        )
        await self._ledger.append(body)

    def find(self, scope: Scope, answer: str) -> Answered | None:
        """The answer with this id, if it is the scope's and still here. Reads the ledger: call it in a thread."""
        at_hand = self._kept.get((scope, answer))
        if at_hand is not None:
            return at_hand
        stored = [body for body in self._ledger.bodies(scope, answer) if body.expires_at > self._clock()]
        try:
            return self._remember(scope, msgspec.msgpack.decode(stored[0].data, type=Asked)) if stored else None
        except msgspec.MsgspecError:
            return None  # the bodies of a call, whose id somebody put in the place of an answer's

    def _remember(self, scope: Scope, asked: Asked) -> Answered:
        kept = self._kept[scope, asked.id] = Answered(asked)
        while len(self._kept) > self._limit:
            self._kept.popitem(last=False)
        return kept
