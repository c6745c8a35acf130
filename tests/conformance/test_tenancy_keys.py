"""What a key may do within its tenant, and what it is told of what all tenants share."""

from __future__ import annotations

import typing
from pathlib import Path

import pytest
from tests.conformance.tenancy_world import SECRET, WORD
from tests.golden.application import Client as ApiClient
from tests.golden.application import Inline, key, opened

from windlass.content.ingest import Ingest
from windlass.errors import WindlassError
from windlass.gateway.gateway import Request
from windlass.server.app import Windlass


async def test_asking_for_progress_starts_no_engine(tmp_path: Path) -> None:
    """Whoever holds a key must not be able to make the process bigger by 20 MB and two threads."""
    async with opened(tmp_path, keys=[key("looker", "rival", role="viewer")]) as runtime:
        runtime.runs.serve = ()
        started: list[bool] = []
        runtime.runs.start = lambda: started.append(True) or typing.cast("Ingest", Inline())
        await ApiClient(Windlass(runtime), bearer="secret-looker").post("/api/progress", {"run": "run_1"})
        assert not started


@pytest.mark.parametrize("source", ["manager", "qa", "system"])
async def test_a_viewers_key_speaks_for_users_alone(tmp_path: Path, source: str) -> None:
    async with opened(tmp_path, keys=[key("looker", "rival", role="viewer"), key("ops", "rival")]) as runtime:
        said = {"target": "call_1", "kind": "rating", "value": 0.0, "source": source}
        app = Windlass(runtime)
        assert (await ApiClient(app, bearer="secret-looker").post("/v1/feedback", said)).status in (401, 403)
        assert (await ApiClient(app, bearer="secret-ops").post("/v1/feedback", said)).status == 200


async def test_an_operator_is_told_nothing_of_the_providers_that_all_share(tmp_path: Path) -> None:
    """Whose gateway it is knows the addresses; a tenant's operator needs the names of the models, no more."""
    model = {"name": "gpt", "upstream": f"{WORD}-deployment"}
    upstream = {
        "name": "shared",
        "base_url": f"http://{WORD}.internal/v1",
        "api_key_env": WORD.upper(),
        "models": [model],
    }
    async with opened(tmp_path, upstreams=[upstream], keys=[key("ops", "rival")]) as runtime:
        response = await ApiClient(Windlass(runtime), bearer="secret-ops").post("/api/doctor", {})
        assert response.status == 200
        assert not SECRET.search(response.body.decode())


async def test_a_call_of_another_workspace_is_refused(tmp_path: Path) -> None:
    async with opened(tmp_path, keys=[key("a", "acme", "one"), key("b", "acme", "two")]) as runtime:
        with pytest.raises(WindlassError, match="no workspace"):
            await runtime.gateway.complete(Request(b"{}", key="secret-b", workspace="one"))
