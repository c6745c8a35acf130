"""Vectors of prompts: each is computed once, in a worker thread, and no call waits for it longer than it is told to."""

from __future__ import annotations

import asyncio
import hashlib
from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from windlass.errors import WindlassError
from windlass.gateway.route.latest import Generations, Latest
from windlass.memory.embedder import Embedder
from windlass.records import Scope

KEPT_VECTORS = 512
"""Of each workspace: 0.8 MB."""
KEPT_SCOPES = 64
MOST_FORGOTTEN = 1_000
UNDER_WAY = 16
"""So many texts are embedded at once at most; with more of them each would only be late."""
OF_ONE_SCOPE = 4
"""So many of them are of one workspace at most, so that none takes the embedder from the others."""
TEXT_CHARS = 4_000
"""The embedder reads 256 tokens, which are fewer characters than this in every language."""
Vector: TypeAlias = NDArray[np.float32]


class PromptVector(NamedTuple):
    """The vector of a text and the text's digest; vector None: there is none in time, and `missing` says why."""

    digest: bytes
    vector: Vector | None
    missing: str = ""


class PromptVectors:
    """The vectors of prompts that were embedded lately, apart for each workspace. Used on one event loop.

    embedder: None where there is none. generations: of each workspace; another begins where somebody is forgotten.
    """

    def __init__(self, embedder: Embedder | None):
        self.embedder = embedder
        self.generations: Generations[Scope] = Generations(MOST_FORGOTTEN)
        self._recent: Latest[Scope, Latest[bytes, Vector | None]] = Latest(KEPT_SCOPES)
        self._computing: dict[tuple[Scope, bytes], asyncio.Task[Vector]] = {}

    def known(self, scope: Scope, text: str) -> PromptVector:
        """The vector of a text where it is there already."""
        digest = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()
        vector = self._of(scope).get(digest, None)
        if vector is None:
            return PromptVector(digest, None, "no vector of this prompt yet" if self.embedder else "no embedder")
        return PromptVector(digest, vector)

    async def find(self, scope: Scope, text: str, timeout_s: float, generation: int | None = None) -> PromptVector:
        """The vector of a text, or why there is none after `timeout_s`; it is then computed to its end all the same,
        for the next call with this prompt.

        generation: that of the workspace when the call came, None: the present one. Of an older one nothing is kept.
        """
        found = self.known(scope, text)
        if found.vector is not None or self.embedder is None:
            return found
        computing = self._computing.get((scope, found.digest))
        if computing is None:
            if len(self._computing) >= UNDER_WAY:
                return found._replace(missing=f"the embedder is busy with {UNDER_WAY} other prompts")
            if sum(of == scope for of, _ in self._computing) >= OF_ONE_SCOPE:
                return found._replace(missing=f"the embedder is busy with {OF_ONE_SCOPE} prompts of this workspace")
            begun = self.generations.of(scope) if generation is None else generation
            computing = asyncio.create_task(self._computed(self.embedder, scope, found.digest, text, begun))
            self._computing[scope, found.digest] = computing
            computing.add_done_callback(_seen)
        try:
            async with asyncio.timeout(timeout_s):
                return found._replace(vector=await asyncio.shield(computing), missing="")
        except TimeoutError:
            return found._replace(missing=f"no embedding within {timeout_s * 1000:.0f} ms")
        except Exception as exc:  # noqa: BLE001 (what computes vectors raises types of its own, and may fail no call)
            words = str(exc) if isinstance(exc, WindlassError) else type(exc).__name__
            return found._replace(missing=f"the embedder failed: {words}"[:200])

    def forget(self, scope: Scope) -> None:
        """Let go of a workspace's vectors, and of those that are being computed: somebody of it is forgotten."""
        self.generations.end(scope)
        self._recent.drop(scope)

    async def close(self) -> None:
        """Wait for what is being computed."""
        await asyncio.gather(*self._computing.values(), return_exceptions=True)

    async def _computed(self, embedder: Embedder, scope: Scope, digest: bytes, text: str, generation: int) -> Vector:
        try:
            vector: Vector = np.array((await embedder.aembed([text[:TEXT_CHARS]]))[0], np.float32)
        finally:
            del self._computing[scope, digest]
        if generation == self.generations.of(scope):
            recent = self._of(scope)
            recent.put(digest, vector)
            self._recent.put(scope, recent)
        return vector

    def _of(self, scope: Scope) -> Latest[bytes, Vector | None]:
        return self._recent.get(scope, Latest(KEPT_VECTORS))


def _seen(task: asyncio.Task[Vector]) -> None:
    """A failure that nobody waits for any more is no news."""
    if not task.cancelled():
        task.exception()
