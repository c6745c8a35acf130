"""What one can ask a running Windlass to do: arguments that make no sense, roles, pages, and progress."""

from __future__ import annotations

import asyncio
import doctest
import itertools
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from tests.golden.application import Client, chat, inline_ingest, key, opened
from tests.unit.server.dashboard.visitor import called, visiting

from windlass.content.ingest import COLLECTION
from windlass.errors import AccessError, InputError
from windlass.gateway.access.admission import Caller
from windlass.gateway.feedback import FeedbackRequest
from windlass.records import Decision, RunEvent, Scope, StepResult
from windlass.runtime import Runtime
from windlass.server import reading
from windlass.server.app import Windlass
from windlass.server.operations import OPERATIONS
from windlass.server.reading import ARGUMENTS
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
    assert not (await OPERATIONS["decisions"](runtime, OWNER, {"point": "answer"}))["decisions"]


async def test_a_filter_leaves_what_fits_and_says_what_it_cannot_read(runtime: Runtime) -> None:
    async def found(operation: str, **wanted: Any) -> list[Any]:
        answer = await OPERATIONS[operation](runtime, OWNER, {"limit": 1000, **wanted})
        return list(answer[operation])

    assert len(await found("calls", model="echo", error="none", since="24h")) == 5
    assert await found("calls", error="any") == []
    assert await found("calls", until="1d") == []
    assert await found("calls", text="no-such") == []
    newest = (await found("calls"))[0]["call"]["id"]
    assert [trace["call"]["id"] for trace in await found("calls", text=newest[5:])] == [newest]
    assert len(await found("decisions", point="model", live=True, action="echo", since=0)) == 5
    assert await found("decisions", live=False) == []
    for wanted in ({"since": "yesterday"}, {"until": float("inf")}, {"since": [1]}, {"kind": "shout"}, {"live": "yes"}):
        for operation in ("decisions", "feedback"):
            with pytest.raises(InputError):
                await OPERATIONS[operation](runtime, OWNER, wanted | {"nope": 1})


async def test_feedback_is_listed_by_kind_source_target_and_words(runtime: Runtime) -> None:
    call = (await OPERATIONS["calls"](runtime, OWNER, {"limit": 1}))["calls"][0]["call"]["id"]
    for kind, source, comment in (("praise", "manager", "100 % good"), ("complaint", "user", "too slow")):
        said = {"target": call, "kind": kind, "source": source, "comment": comment}
        await runtime.feedback(Scope(), FeedbackRequest.read(said))
    for wanted, expected in (
        ({}, ["complaint", "praise"]),
        ({"kind": "praise"}, ["praise"]),
        ({"source": "user"}, ["complaint"]),
        ({"target": call, "text": "% g"}, ["praise"]),
        ({"target": "call_other"}, []),
    ):
        listed = (await OPERATIONS["feedback"](runtime, OWNER, wanted))["feedback"]
        assert [said["kind"] for said in listed] == expected
    stranger = Caller(Scope("acme"), "admin", "k")
    assert (await OPERATIONS["feedback"](runtime, stranger, {}))["feedback"] == []


async def test_one_call_with_its_words_for_those_who_may_see_it(runtime: Runtime) -> None:
    call = (await OPERATIONS["calls"](runtime, OWNER, {"limit": 1}))["calls"][0]["call"]["id"]
    whole = await OPERATIONS["call"](runtime, OWNER, {"call": call, "bodies": True})
    assert whole["call"]["id"] == call
    assert [body["role"] for body in whole["bodies"]] == ["request", "reply"]
    assert "n4" in whole["bodies"][0]["text"]
    assert (await OPERATIONS["call"](runtime, OWNER, {"call": call}))["bodies"] == []
    for caller, wanted in ((Caller(Scope("acme"), "admin", "k"), call), (OWNER, "call_unknown"), (OWNER, "\x00")):
        with pytest.raises(InputError):
            await OPERATIONS["call"](runtime, caller, {"call": wanted})


async def test_points_tell_modes_shares_rewards_and_changes(runtime: Runtime) -> None:
    await runtime.caught_up()
    stranger = Caller(Scope("acme"), "operator", "k")
    await OPERATIONS["mode"](runtime, stranger, {"point": "model", "mode": "off", "reason": "to see"})
    (point,) = (await OPERATIONS["points"](runtime, OWNER, {"point": "model"}))["points"]
    assert (point["mode"], point["set_mode"], point["changes"]) == ("live", "live", [])
    assert point["deciders"] == (), "one model is no choice"
    assert [(one["action"], one["chosen"], one["share"]) for one in point["named"]] == [("echo", 5, 1.0)]
    (theirs,) = (await OPERATIONS["points"](runtime, stranger, {"point": "model"}))["points"]
    assert (theirs["mode"], theirs["set_mode"], theirs["deciders"]) == ("off", "live", ())
    assert [(one["change"]["mode"], one["reason"]) for one in theirs["changes"]] == [("off", "to see")]


@pytest.mark.parametrize("operation", ["decisions", "points"])
@pytest.mark.parametrize("point", ["modle", "foo", "\x00", "\ud800", "x" * 5_000, "%", "' OR 1=1 --"])
async def test_a_point_that_there_is_not_is_refused_with_those_there_are(
    runtime: Runtime, operation: str, point: str
) -> None:
    with pytest.raises(
        InputError, match=r"^there is no decision point .{3,220}; known: answer, experiment, model, rollout"
    ) as said:
        await OPERATIONS[operation](runtime, OWNER, {"point": point})
    assert ("did you mean 'model'?" in str(said.value)) == (point == "modle")


async def test_a_point_that_only_the_ledger_knows_is_one(runtime: Runtime) -> None:
    """Its decisions outlive its settings; nobody else's do for a stranger."""
    made = {"call": "call_1", "policy": "x@1", "actions": ("a",), "action": "a", "propensity": 1.0, "live": True}
    await runtime.ledger.append(Decision(id="decision_bygone", at=1.0, point="bygone", **made))
    asked = {"point": "bygone", "since": 2.0}
    assert (await OPERATIONS["decisions"](runtime, OWNER, asked))["decisions"] == []
    with pytest.raises(InputError, match="no decision point 'bygone'"):
        await OPERATIONS["decisions"](runtime, Caller(Scope("other"), "admin", ""), asked)


async def test_what_reads_is_got_as_well(tmp_path: Path) -> None:
    async with visiting(tmp_path, providers=(Echo(),)) as (visitor, runtime):
        await called(runtime)
        got = await visitor.get("/api/calls?limit=5&error=none&since=1h")
        live = await visitor.get("/api/decisions?live=false")
        wrong = [
            await visitor.get(f"/api/{query}") for query in ("calls?limit=0", "calls?nope=1", "call", "calls?text=%ff")
        ]
        crossed = await visitor.get("/api/calls", sec_fetch_site="cross-site")
        posted_only = await visitor.get("/api/forget?user=x")
    assert got.headers["x-content-type-options"] == "nosniff"
    assert len(json.loads(got.body)["calls"]) == 1
    assert json.loads(live.body) == {"decisions": []}
    assert [page.status for page in wrong] == [400] * 4
    assert (crossed.status, posted_only.status) == (403, 404)


async def test_reading_needs_a_key_and_shows_its_own_tenant_alone(tmp_path: Path) -> None:
    keys = [key("v", "acme", role="viewer"), key("o", "globex")]
    async with visiting(tmp_path, providers=(Echo(),), keys=keys) as (visitor, runtime):
        mine = await called(runtime, key="secret-v")
        for name in ARGUMENTS:
            assert (await visitor.get(f"/api/{name}")).status == 401
        bearer = {"authorization": "Bearer secret-v"}
        assert mine in (await visitor.get("/api/calls", **bearer)).body
        theirs = {"authorization": "Bearer secret-o"}
        assert json.loads((await visitor.get("/api/calls", **theirs)).body) == {"calls": []}
        assert (await visitor.get(f"/api/call?call={mine}", **theirs)).status == 400


@pytest.mark.parametrize("name", sorted(OPERATIONS))
async def test_every_operation_is_documented_with_its_arguments(name: str) -> None:
    """docs/reference/api.md is written by hand, so this is what keeps it whole."""
    text = (Path(__file__).parents[3] / "docs" / "reference" / "api.md").read_text()
    if name not in ARGUMENTS:
        assert f"`{name}`" in text.split("## Operations that do something")[1]
        return
    section = text.split(f"## `{name}`\n")[1].split("\n## ")[0]
    missing = [field for field in ARGUMENTS[name].__struct_fields__ if f"`{field}`" not in section]
    assert not missing, f"{name}: {missing}"
    commands = {"clusters": "route --clusters", "experiments": "experiment list", "experiment": "experiment show"}
    command = commands.get(name, name)
    assert f"$ windlass {command} " in section, "an example"


async def test_the_examples_hold() -> None:
    assert doctest.testmod(reading).failed == 0


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
    monkeypatch.setattr(runtime.runs, "_ingest", ingest)
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


async def test_a_call_that_names_its_model_is_no_choice_of_the_policy(tmp_path: Path) -> None:
    async with opened(tmp_path, [Echo("small", "large")]) as runtime:
        client = Client(Windlass(runtime))
        for model in ("small", "small", "small", "auto", "auto"):
            call = (await client.post("/v1/chat/completions", chat(model=model))).headers["x-windlass-call"]
            await client.post("/v1/feedback", {"target": call, "kind": "rating", "value": 1.0})
        await runtime.caught_up()
        (point,) = (await OPERATIONS["points"](runtime, OWNER, {"point": "model"}))["points"]
        (decider,) = point["deciders"]
        assert (decider["policy"], decider["chosen"]) == ("linear_thompson@1", 2)
        assert sum(action["rewarded"] for action in decider["actions"]) == 2
        (named,) = point["named"]
        assert (named["action"], named["chosen"], named["rewarded"]) == ("small", 3, 3)
        assert runtime.overview.totals(Scope()).calls == 5
        arms = runtime.loop.explain("model", Scope(), {}, ("small", "large"))
        assert sum(arm.observations for arm in arms) == 5, "it learns from all of them"


async def test_a_listing_of_snapshots_does_not_move_them(tmp_path: Path) -> None:
    """Each command that opens the folder keeps what was learned as it ends."""
    now = itertools.count(1_800_000_000.0, 1.0)
    async with opened(tmp_path, [Echo()], clock=lambda: next(now)) as runtime:
        await Client(Windlass(runtime)).post("/v1/chat/completions", chat("x"))
    seen = []
    for _ in range(3):
        async with opened(tmp_path, [Echo()], clock=lambda: next(now)) as runtime:
            seen.append(await OPERATIONS["snapshots"](runtime, OWNER, {}))
    assert seen[0] == seen[1] == seen[2]
