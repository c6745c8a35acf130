"""Logged decisions: who chose what with which chance, what it cost and how good it was, as evaluation reads them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from windlass.records import Decision


class Logged(NamedTuple):
    """One decision and what came of it; None for what is not known.

    quality: in [0, 1], 0 for an error. cost_nusd: at least 0. failed: it ended in an error. reward: what a policy
    learns from that does not learn costs apart.
    """

    decision: Decision
    quality: float | None
    cost_nusd: float | None
    failed: bool = False
    reward: float | None = None


class Log(NamedTuple):
    """What there is to evaluate on, in the order in which it happened, and how much was left out, by the reason."""

    choices: tuple[Logged, ...]
    left_out: Mapping[str, int]


def actions_of(choices: Sequence[Logged]) -> tuple[str, ...]:
    """All that was eligible somewhere, in the order in which it came up."""
    return tuple(dict.fromkeys(action for one in choices for action in one.decision.actions))
