"""Clusters of the prompts that a workspace routed lately: made off the event loop, and held for some minutes.

Of prompts they hold no word: they name the calls whose prompts are the most typical, and whoever shows them reads what
is kept of those by then.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

import structlog

from windlass.errors import LedgerError
from windlass.gateway.route.latest import Generations, Latest
from windlass.ledger.ledger import Ledger
from windlass.policies.reward import RewardOptions
from windlass.records import Scope
from windlass.watch.clustering import Clustered, clustered

log = structlog.get_logger(__name__)
RENEW_S: Final = 300.0
EMPTY_S: Final = 10.0
"""So long it is believed that there are too few prompts for clusters."""
MOST_SCOPES: Final = 64


class PromptClusters:
    """The clusters of each workspace, made where somebody asks and what is known is older than `RENEW_S`.

    Used on one event loop. reward: what feedback counts. clock: UTC seconds.
    """

    def __init__(self, ledger: Ledger, options: RewardOptions, clock: Callable[[], float]):
        self._ledger = ledger
        self._reward = options
        self._clock = clock
        self._known: Latest[Scope, Clustered | None] = Latest(MOST_SCOPES)
        self._generations: Generations[Scope] = Generations(MOST_SCOPES)
        self._making: dict[Scope, asyncio.Task[Clustered]] = {}

    async def of(self, scope: Scope) -> Clustered:
        """What is known of a workspace. LedgerError where nothing is, and nothing can be read.

        What is too old is told once more, while it is made anew for whoever asks next.
        """
        known, making = self._looked(scope)
        if known is None and making is not None:
            return await asyncio.shield(making)
        assert known is not None, "it is known, or being made"
        return known

    async def within(self, scope: Scope, patience_s: float) -> Clustered | None:
        """`of`, for whoever waits no longer than that; None where it is still being made then."""
        known, making = self._looked(scope)
        if making is None or known is not None:
            return known
        done, _ = await asyncio.wait((making,), timeout=patience_s)
        return making.result() if done else None

    def _looked(self, scope: Scope) -> tuple[Clustered | None, asyncio.Task[Clustered] | None]:
        """What is known of a workspace, and what makes it, None where it is as new as it has to be."""
        known = self._known.get(scope, None)
        if known is not None and abs(self._clock() - known.at) < (RENEW_S if known.clusters else EMPTY_S):
            return known, None
        making = self._making.get(scope)
        if making is None:
            making = self._making[scope] = asyncio.create_task(self._made(scope))
            making.add_done_callback(_heard)
        return known, making

    def forget(self, scope: Scope) -> None:
        """Let go of what was made of a workspace: somebody of it is forgotten."""
        self._generations.end(scope)
        self._known.drop(scope)
        self._making.pop(scope, None)

    async def close(self) -> None:
        """Wait for what is being made."""
        await asyncio.gather(*self._making.values(), return_exceptions=True)

    async def _made(self, scope: Scope) -> Clustered:
        generation, now = self._generations.of(scope), self._clock()
        try:
            found = await asyncio.to_thread(clustered, self._ledger, scope, self._reward, now)
        finally:
            if generation == self._generations.of(scope):
                self._making.pop(scope, None)
        if generation == self._generations.of(scope):
            self._known.put(scope, found)
        return found


def _heard(task: asyncio.Task[Clustered]) -> None:
    """A failure that nobody waits for is told in the log."""
    if task.cancelled():
        return
    exc = task.exception()
    if isinstance(exc, LedgerError):
        log.error("clusters_wait", reason=str(exc))
