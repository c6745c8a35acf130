"""Sums over the ledger for Prometheus: a fold, so that every worker tells the same numbers.

All of it is whole numbers, times in microseconds: sums of floats would depend on how the ledger was cut into slices,
and a counter that falls by 1e-9 between two workers is taken for one that began again. Series are bounded: names come
from clients and upstreams, so those that the ledger saw first have series of their own and the rest share one.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple, TypeVar

import msgspec

from windlass.errors import RecordInvalid

BOUNDS_S: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0)
"""Upper bounds of the buckets, in seconds: from a model in this process to one that thinks for minutes."""
MOST_SERIES: Final = 1_000
"""So many combinations of labels have a series of their own, of calls and of decisions each."""
OTHER: Final = "other"


class OutcomeKey(NamedTuple):
    """Which calls: the labels of a series."""

    provider: str
    model: str
    endpoint: str
    status: int
    error: str


class DecisionKey(NamedTuple):
    """Which decisions. policy: `NAMED` where there was one action to choose from."""

    point: str
    policy: str
    live: bool
    action: str


class OutcomeSum(msgspec.Struct, array_like=True):
    """What became of calls. latency, first_byte: how many took at most each of `BOUNDS_S`."""

    calls: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cost_nusd: int = 0
    estimated: int = 0
    latency_us: int = 0
    first_byte_us: int = 0
    latency: list[int] = msgspec.field(default_factory=lambda: [0] * len(BOUNDS_S))
    first_byte: list[int] = msgspec.field(default_factory=lambda: [0] * len(BOUNDS_S))

    def add(self, other: OutcomeSum) -> None:
        """Count the calls of `other` as well."""
        for name in ("calls", "prompt_tokens", "completion_tokens", "cost_nusd", "estimated", *_TIMES):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.latency = [mine + more for mine, more in zip(self.latency, other.latency, strict=True)]
        self.first_byte = [mine + more for mine, more in zip(self.first_byte, other.first_byte, strict=True)]


class Slice(msgspec.Struct, frozen=True):
    """What lies between two places of the ledger; each list in the order in which the ledger first saw its keys."""

    until: int
    outcomes: list[tuple[OutcomeKey, OutcomeSum]]
    decisions: list[tuple[DecisionKey, int]]
    feedback: list[tuple[tuple[str, str], int]]


class LedgerSums:
    """The fold. cursor: the place up to which everything is counted; feedback: by (kind, source)."""

    VERSION: Final = 1

    def __init__(self) -> None:
        self.cursor = 0
        self.outcomes: dict[OutcomeKey, OutcomeSum] = {}
        self.decisions: dict[DecisionKey, int] = {}
        self.feedback: dict[tuple[str, str], int] = {}

    def fold(self, part: Slice) -> None:
        """Count a slice that begins where the last one ended. ValueError for one that lies before that place."""
        if part.until < self.cursor:
            raise ValueError(f"a slice up to {part.until} comes after one up to {self.cursor}; fold them in order")
        for outcome, amounts in part.outcomes:
            key = _bounded(outcome, self.outcomes, outcome._replace(model=OTHER, endpoint=OTHER))
            self.outcomes.setdefault(key, OutcomeSum()).add(amounts)
        for decision, chosen in part.decisions:
            where = _bounded(decision, self.decisions, decision._replace(policy=OTHER, action=OTHER))
            self.decisions[where] = self.decisions.get(where, 0) + chosen
        for said, given in part.feedback:
            self.feedback[said] = self.feedback.get(said, 0) + given
        self.cursor = part.until

    def state(self) -> bytes:
        """Everything, for a snapshot. Keys keep their order, which says who came first."""
        kept = _Kept(
            self.cursor,
            list(self.outcomes.items()),
            list(self.decisions.items()),
            list(self.feedback.items()),
            BOUNDS_S,
        )
        return msgspec.msgpack.encode(kept)

    @classmethod
    def restored(cls, state: bytes) -> LedgerSums:
        """The fold that said `state`. RecordInvalid for bytes of another shape, or with other buckets."""
        try:
            kept = msgspec.msgpack.decode(state, type=_Kept)
        except (msgspec.MsgspecError, UnicodeDecodeError) as exc:
            raise RecordInvalid(f"these are no sums of a ledger: {exc}; count again from the first entry") from exc
        if kept.bounds_s != BOUNDS_S:
            raise RecordInvalid(f"the sums have other buckets: {kept.bounds_s}; count again from the first entry")
        sums = cls()
        sums.cursor = kept.cursor
        sums.outcomes = dict(kept.outcomes)
        sums.decisions = dict(kept.decisions)
        sums.feedback = dict(kept.feedback)
        return sums


class _Kept(msgspec.Struct, array_like=True):
    """The state as it is written."""

    cursor: int
    outcomes: list[tuple[OutcomeKey, OutcomeSum]]
    decisions: list[tuple[DecisionKey, int]]
    feedback: list[tuple[tuple[str, str], int]]
    bounds_s: tuple[float, ...]


_TIMES = ("latency_us", "first_byte_us")
K = TypeVar("K", OutcomeKey, DecisionKey)


def _bounded(key: K, known: dict[K, Any], shared: K) -> K:
    """`key`, unless there are so many that it has to share."""
    return key if key in known or len(known) < MOST_SERIES else shared
