"""The servers that scenarios share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.scenario.postgres import Postgres


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """One PostgreSQL for all scenarios; a test that kills it starts it again."""
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
