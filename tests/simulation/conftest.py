"""What both simulators need: their marker, and how much of the full count this run does."""

from __future__ import annotations

import pytest


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "simulation: seeded power cuts and schedules; --soak runs the full counts")


@pytest.fixture
def share(request: pytest.FixtureRequest) -> float:
    """1 with --soak, else the part of the full count that a usual run does."""
    return 1.0 if request.config.getoption("--soak") else 0.02
