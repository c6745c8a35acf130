"""Vectors as callers in process want them, read back from the reply to an embeddings request."""

from __future__ import annotations

import base64
from dataclasses import dataclass

import msgspec
import numpy as np
from numpy.typing import NDArray

from windlass.errors import ErrorCategory, UpstreamError
from windlass.records import Outcome


@dataclass(frozen=True, eq=False)
class Embedded:
    """Vectors, (n, d) float32 in the order of the texts, and what the ledger holds of the call."""

    call: str
    model: str
    provider: str
    vectors: NDArray[np.float32]
    prompt_tokens: int
    cost_nusd: int
    latency_ms: float


class _Item(msgspec.Struct):
    embedding: str | list[float]
    index: int = 0


class _Items(msgspec.Struct):
    data: list[_Item]


def embedded(body: bytes, outcome: Outcome) -> Embedded:
    """The vectors in a reply's body. UpstreamError where it holds none, or some that cannot be."""
    if outcome.error:
        text = body[:200].decode(errors="replace")
        said = f"{outcome.provider} answered {outcome.status} ({outcome.error}): {text}"
        raise UpstreamError(said, status=outcome.status, category=ErrorCategory(outcome.error))
    try:
        items = sorted(msgspec.json.decode(body, type=_Items).data, key=lambda item: item.index)
        with np.errstate(over="ignore"):  # a number beyond float32 becomes infinite, and is refused as such
            vectors = np.array([_numbers(item.embedding) for item in items], np.float32)
        sound = vectors.ndim == 2 and bool(np.isfinite(vectors).all())
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, ValueError, OverflowError) as exc:
        sound, reason = False, str(exc)
    else:
        reason = "they are not rows of finite numbers"
    if not sound:
        unusable = f"the vectors of {outcome.provider}, model {outcome.model}, cannot be used: {reason}"
        raise UpstreamError(unusable, category=ErrorCategory.RESPONSE_MALFORMED)
    return Embedded(
        call=outcome.call,
        model=outcome.model,
        provider=outcome.provider,
        vectors=vectors,
        prompt_tokens=outcome.prompt_tokens,
        cost_nusd=outcome.cost_nusd,
        latency_ms=outcome.latency_ms,
    )


def _numbers(embedding: str | list[float]) -> NDArray[np.float32]:
    """One vector, from numbers or from base64 of float32 little-endian."""
    if isinstance(embedding, str):
        return np.frombuffer(base64.b64decode(embedding, validate=True), "<f4").astype(np.float32)
    return np.array(embedding, np.float32)
