"""What one can ask a running Windlass to do: arguments that make no sense, roles, pages, and progress."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from tests.golden.application import Client, chat, inline_ingest, key, opened

from windlass.content.ingest import COLLECTION
from windlass.errors import AccessError, InputError
from windlass.gateway.admission import Caller
from windlass.records import RunEvent, Scope, StepResult
from windlass.runtime import Runtime
from windlass.server.app import Windlass
from windlass.server.operations import OPERATIONS
from windlass.testing import Echo

pytestmark = pytest.mark.asyncio(loop_scope="module")

OWNER = Caller(Scope(), "admin", "")
DATA = Path(__file__).parents[2] / "data" / "transcripts"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def runtime(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Runtime]:
    async with opened(tmp_path_factory.mktemp("home"), [Echo()]) as runtime:
        client = Client(Windlass(runtime))
        for number in range(5):
            await client.post("/v1/chat/completions", chat(f"n{number}"))
        yield runtime


@pytest.mark.parametrize(
    ("operation", "arguments"),
    [
        ("ask", {}),
        ("ask", {"question": 5}),
        ("ask", {"question": ""}),
        ("ask", {"question": "x" * 5_000}),
        ("ask", {"question": "x", "nope": 1}),
        ("ingest", {}),
        ("ingest", {"paths": "x"}),
        ("ingest", {"paths": []}),
        ("ingest", {"paths": ["/nope/nope"]}),
        ("progress", {}),
        ("progress", {"run": None}),
        ("calls", {"limit": 0}),
        ("calls", {"limit": 1_001}),
        ("calls", {"limit": "5"}),
        ("calls", {"limit": True}),
        ("calls", {"nope": 1}),
        ("decisions", {"point": 7}),
        ("doctor", {"replay": "yes"}),
    ],
)
async def test_arguments_that_make_no_sense_are_the_callers_mistake(
    runtime: Runtime, operation: str, arguments: dict[str, Any]
) -> None:
    with pytest.raises(InputError):
        await OPERATIONS[operation](runtime, OWNER, arguments)


async def test_calls_page_backwards(runtime: Runtime) -> None:
    first = (await OPERATIONS["calls"](runtime, OWNER, {"limit": 3}))["calls"]
    rest = (await OPERATIONS["calls"](runtime, OWNER, {"limit": 3, "before": first[-1]["call"]["id"]}))["calls"]
    ids = [trace["call"]["id"] for trace in (*first, *rest)]
    assert len(ids) == len(set(ids)) == 5
    assert first[0]["outcome"]["status"] == 200
    assert first[0]["decisions"][0]["point"] == "model"
    assert (await OPERATIONS["calls"](runtime, OWNER, {"before": "call_unknown"}))["calls"] == []
    for strange in ("\x00", "' OR 1=1 --", "⚓", "x" * 100_000):
        assert (await OPERATIONS["calls"](runtime, OWNER, {"before": strange}))["calls"] == []


async def test_decisions_are_those_of_a_point(runtime: Runtime) -> None:
    assert len((await OPERATIONS["decisions"](runtime, OWNER, {}))["decisions"]) == 5
    assert not (await OPERATIONS["decisions"](runtime, OWNER, {"point": "trim"}))["decisions"]


@pytest.mark.parametrize("operation", ["ingest", "doctor"])
async def test_a_viewer_may_look_but_not_run_things(runtime: Runtime, operation: str) -> None:
    viewer = Caller(Scope(), "viewer", "v")
    with pytest.raises(AccessError, match="needs the role"):
        await OPERATIONS[operation](runtime, viewer, {"paths": [str(DATA)]})
    assert (await OPERATIONS["calls"](runtime, viewer, {}))["calls"]


async def test_a_role_that_is_too_low_is_not_a_wrong_key(tmp_path: Path) -> None:
    async with opened(tmp_path, keys=[key("v", "acme", role="viewer")]) as runtime:
        response = await Client(Windlass(runtime), bearer="secret-v").post("/api/doctor")
        assert response.status in (401, 403)
        assert "needs the role" in response.json["error"]["message"]


async def test_a_tenants_operator_does_not_see_the_keys_of_others(tmp_path: Path) -> None:
    async with opened(tmp_path, keys=[key("mine", "acme"), key("theirs", "globex")]) as runtime:
        response = await Client(Windlass(runtime), bearer="secret-mine").post("/api/doctor")
        assert b"globex" not in response.body
        assert b"theirs" not in response.body


async def test_progress_counts_items_by_stage_and_tells_failures(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    ingest, _ = inline_ingest(runtime)
    monkeypatch.setattr(runtime, "_ingest", ingest)
    batch = await asyncio.to_thread(ingest.submit, Scope(), [DATA / "sample.md"])

    def event(step: str, item: str, result: StepResult) -> RunEvent:
        name = f"event_{batch.run}_{step}_{item}"
        return RunEvent(id=name, at=1.0, run=batch.run, workflow="w", step=step, item=item, result=result)

    failed = StepResult(status="failed", error="transcript_unreadable", message="no words")
    await runtime.ledger.append(
        event("text", "item_a", StepResult(status="ok")),
        event("text", "item_b", failed),
        event("analysis", "item_a", StepResult(status="ok")),
    )
    state = await OPERATIONS["progress"](runtime, OWNER, {"run": batch.run})
    assert (state["status"], state["vectors_status"], state["text"], state["analysis"]) == ("done", "done", 2, 1)
    assert state["failed"] == [
        {"item": "item_b", "step": "text", "error": "transcript_unreadable", "message": "no words"}
    ]
    assert state["chunks"] == runtime.memory.counts(Scope(), COLLECTION).chunks > 0
    stranger = Caller(Scope("acme"), "admin", "k")
    other = await OPERATIONS["progress"](runtime, stranger, {"run": batch.run})
    assert (other["text"], other["failed"], other["chunks"]) == (0, [], 0)


async def test_asking_gives_plain_data_with_the_citation(runtime: Runtime) -> None:
    ingest, _ = inline_ingest(runtime)
    await asyncio.to_thread(ingest.submit, Scope(), [DATA / "sample.md"])
    wanted = {
        "question": "What is filled with tallow, so that sand or shells stick to it?",
        "model": "local/quotes-fast",
    }
    answer = await OPERATIONS["ask"](runtime, OWNER, wanted)
    assert answer["quotes"][0]["cited"] == "[Sounding: how deep is the water? 00:00:37]"
    assert answer["answered"] is True
