"""The pages that need a PostgreSQL server are run against one, from top to bottom, in an empty folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.docs.blocks import POSTGRES, ROOT, blocks, run_page
from tests.scenario.postgres import Postgres

PAGES = sorted(
    page
    for page in (str(path.relative_to(ROOT)) for path in (ROOT / "docs").glob("*/*.md"))
    if any(block.note == POSTGRES for block in blocks(page))
)
pytestmark = pytest.mark.scenario


def test_there_are_such_pages() -> None:
    assert "docs/howto/several-workers.md" in PAGES


@pytest.mark.parametrize("page", PAGES)
def test_a_page_runs_from_top_to_bottom(page: str, postgres: Postgres, database_url: str, tmp_path: Path) -> None:
    assert run_page(page, tmp_path, postgres_url=database_url) > 0
