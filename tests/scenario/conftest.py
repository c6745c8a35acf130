"""The servers that scenarios share, and how they are run: the longest first, and none skipped in silence."""

from __future__ import annotations

import os
from collections.abc import Generator, Iterator

import pytest

from tests.scenario.postgres import Postgres

LONGEST = (
    "test_dashboard",
    "test_scale",
    "test_kill_server",
    "test_faults",
    "test_kill_ingest",
    "test_idempotency",
    "test_failover",
    "test_otlp",
)
"""The files that take minutes begin first, so that files beside one another end together."""


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    places = {name: place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: places.get(item.path.stem, len(LONGEST)))
    left = [item for item in items if _without(item)]
    if left:
        config.hook.pytest_deselected(items=left)
        items[:] = [item for item in items if not _without(item)]


def _without(item: pytest.Item) -> bool:
    """Whether it is a test of a suite of others that a class of ours names as none of its business."""
    return getattr(item, "originalname", "") in getattr(getattr(item, "cls", None), "without", ())


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Where all must run, as in CI, a scenario that was skipped has failed."""
    report = yield
    if report.skipped and not hasattr(report, "wasxfail") and os.environ.get("CI"):
        report.outcome = "failed"
        report.longrepr = f"skipped, and in CI every scenario runs: {report.longrepr}"
    return report


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """One PostgreSQL for all scenarios of a process; a test that kills it starts it again."""
    server = Postgres()
    try:
        server.start()
        yield server
    finally:
        server.stop()


@pytest.fixture
def database_url(postgres: Postgres) -> Iterator[str]:
    """The URL of a fresh database, dropped after the test."""
    url = postgres.create()
    try:
        yield url
    finally:
        postgres.drop(url)
