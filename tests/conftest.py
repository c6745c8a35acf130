"""What every test may use."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog
from hypothesis import settings

settings.register_profile("house", deadline=None, derandomize=True, print_blob=True)
settings.load_profile("house")
DATA = Path(__file__).parent / "data"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--soak", action="store_true", help="run the full counts instead of a seeded slice")


@pytest.fixture(autouse=True)
def _logs_as_they_were() -> Iterator[None]:
    """A test that runs a command to its end points the log at its own standard error, which is closed after it."""
    yield
    structlog.reset_defaults()


@pytest.fixture
def transcripts() -> Path:
    """The folder of small transcripts in every format."""
    return DATA / "transcripts"
