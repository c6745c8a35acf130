"""What tests of Windlass, and of what is built on it, start from: public doubles and conformance checks."""

from __future__ import annotations

from windlass.gateway.providers.check import check_provider
from windlass.gateway.providers.echo import Echo
from windlass.ledger.check import check_ledger
from windlass.ledger.memory import MemoryLedger
from windlass.memory.check import check_index
from windlass.policies.check import check_policy

__all__ = ["Clock", "Echo", "MemoryLedger", "check_index", "check_ledger", "check_policy", "check_provider"]


class Clock:
    """A clock that moves only when told to; call it for the time in UTC seconds."""

    def __init__(self, at: float = 1_800_000_000.0):
        self.at = at

    def __call__(self) -> float:
        return self.at

    def forward(self, seconds: float) -> None:
        """Let `seconds` pass (negative: the clock was set back)."""
        self.at += seconds
