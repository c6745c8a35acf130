"""The basis of each workspace: made once, of the vectors of its first different prompts, and kept for good.

It is never made anew, so that a number of a context means the same in every decision that names the basis. Until there
is one, a workspace is routed by lexical features. Of the prompts themselves nothing is kept.
"""

from __future__ import annotations

import asyncio
import hashlib
import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import structlog
from numpy.typing import NDArray

from windlass.errors import LedgerError
from windlass.gateway.route.latest import Latest
from windlass.gateway.route.store import BasisTable, KeptBasis
from windlass.gateway.route.vectors import Vector
from windlass.records import Scope
from windlass.stats.basis import Basis

log = structlog.get_logger(__name__)
VERSION = 1
"""Of how a basis is made; with another one each workspace makes a new one."""
DIGEST_CHARS = 16
LOOK_S = 10.0
MOST_SCOPES = 1_000
"""So many workspaces are held here; the basis of another one is read again where it is asked for."""


class MadeBasis(NamedTuple):
    """A basis and its digest."""

    digest: str
    basis: Basis

    @property
    def featuriser(self) -> str:
        """What decisions carry whose context holds numbers of this basis."""
        return f"embedding64@{self.digest}"

    def numbers(self, vector: Vector) -> tuple[float, ...]:
        """A prompt's vector (384,) as the numbers (64,) that policies learn from."""
        return tuple(np.asarray(self.basis.transform(vector), np.float64).tolist())


class Bases:
    """The bases of all workspaces. Used on one event loop; table: where they are kept. embedder: whose vectors.

    prompts: of so many different ones a basis is made. clock: UTC seconds.
    """

    def __init__(self, table: BasisTable, embedder: str, prompts: int, clock: Callable[[], float]):
        self._table = table
        self._embedder = embedder
        self._prompts = prompts
        self._clock = clock
        self._made: Latest[Scope, MadeBasis | None] = Latest(MOST_SCOPES)
        self._looked: Latest[Scope, float] = Latest(MOST_SCOPES)
        self._first: Latest[Scope, dict[bytes, Vector]] = Latest(MOST_SCOPES)
        self._making: dict[Scope, asyncio.Task[None]] = {}

    async def of(self, scope: Scope) -> MadeBasis | None:
        """The basis of a workspace, None where there is none yet; another worker may make it, so it is looked for again
        every `LOOK_S`."""
        known, looked_at = self._made.get(scope, None), self._looked.get(scope, -math.inf)
        if known is None and abs(self._clock() - looked_at) >= LOOK_S:
            self._looked.put(scope, self._clock())
            found = await asyncio.to_thread(self._table.find, scope, self._embedder, VERSION)
            if found is not None and scope not in self._made:
                self._made.put(scope, _read(found))
        return self._made.get(scope, None)

    def seen(self, scope: Scope) -> int:
        """How many different prompts of a workspace without a basis have been seen by this process."""
        return len(self._first.get(scope, {}))

    @property
    def wanted(self) -> int:
        """Of how many prompts a basis is made."""
        return self._prompts

    def note(self, scope: Scope, digest: bytes, vector: Vector) -> None:
        """A prompt of a workspace that has no basis yet; the last one that is wanted makes it, in a thread."""
        first = self._first.get(scope, {})
        first.setdefault(digest, vector)
        self._first.put(scope, first)
        if len(first) >= self._prompts and scope not in self._making:
            making = self._making[scope] = asyncio.create_task(self._make(scope, np.stack(list(first.values()))))
            making.add_done_callback(lambda _: self._making.pop(scope, None))

    def forget(self, scope: Scope) -> None:
        """Let go of the vectors that a basis was to be made of: somebody of the workspace is forgotten."""
        self._first.drop(scope)

    async def settled(self) -> None:
        """Return once no basis is being made."""
        await asyncio.gather(*self._making.values(), return_exceptions=True)

    async def _make(self, scope: Scope, vectors: NDArray[np.float32]) -> None:
        """Another worker's basis holds where it was there first."""
        try:
            made = await asyncio.to_thread(self._kept, scope, vectors)
        except (LedgerError, ValueError, np.linalg.LinAlgError) as exc:
            log.error("routing_basis_waits", tenant=scope.tenant, reason=f"{type(exc).__name__}: {exc}")
            self._first.drop(scope)  # prompts that no basis can be made of: the next ones may do
            return
        self._made.put(scope, made)
        self._first.drop(scope)

    def _kept(self, scope: Scope, vectors: NDArray[np.float32]) -> MadeBasis:
        data = Basis.fit(vectors).to_bytes()
        digest = hashlib.sha256(data).hexdigest()[:DIGEST_CHARS]
        fresh = KeptBasis(digest, self._clock(), len(vectors), data)
        return _read(self._table.keep(scope, self._embedder, VERSION, fresh))


def _read(stored: KeptBasis) -> MadeBasis:
    return MadeBasis(stored.digest, Basis.from_bytes(stored.data))
