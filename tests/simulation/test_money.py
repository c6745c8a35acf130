"""Money in random histories of calls with faults and kills: the three sums agree to the nano-dollar.

The ledger's costs, what the budgets have spent, and what the headers have told the clients. 10^5 histories with --soak,
2,000 otherwise.
"""

from __future__ import annotations

from typing import Any

import pytest

from tests.simulation.money_stories import history
from tests.simulation.stand_ins import stepping
from windlass.gateway.gateway import Answer, Gateway, Request

pytestmark = pytest.mark.simulation
HISTORIES = 100_000
BOUND = 300
"""Within so many histories each planted fault must show."""


async def test_the_three_sums_agree(share: float) -> None:
    for seed in range(round(HISTORIES * share)):
        try:
            await history(seed)
        except AssertionError as exc:
            raise AssertionError(f"history {seed}: {exc}") from exc


class _Mistaken(Gateway):
    """Tells its clients a nano-dollar more than it bills."""

    async def complete(self, request: Request) -> Answer:
        answer = await super().complete(request)
        if cost := answer.headers.get("x-windlass-cost-nusd"):
            answer.headers["x-windlass-cost-nusd"] = str(int(cost) + 1)
        return answer


FAULTS = {
    "a small cost that no budget hears of": (
        'if measure == "nusd" and nusd:',
        'if measure == "nusd" and nusd > 9_000:',
    ),
    "what was used counts twice": ("+= used.get(measure, amount)", "+= 2 * used.get(measure, amount)"),
    "what was held is never given back": ("            count.held -= amount\n", "            pass\n"),
    "the next life forgets what was spent": ('if measure == "nusd" else 0', 'if measure == "tokens" else 0'),
}


async def _first_wrong(**parts: Any) -> str:
    """What the first history that goes wrong says; '' where none does."""
    for seed in range(BOUND):
        try:
            await history(seed, **parts)
        except AssertionError as exc:
            return str(exc)
    return ""


@pytest.mark.parametrize("fault", FAULTS)
async def test_a_planted_fault_shows(fault: str) -> None:
    limits = stepping("windlass.gateway.access.limits", FAULTS[fault])
    assert await _first_wrong(limits=limits.Limits)


async def test_a_wrong_header_shows() -> None:
    assert "told and billed differ" in await _first_wrong(make=_Mistaken)
