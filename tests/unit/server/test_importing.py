"""`windlass logs import`: what becomes of whole files, in this process and through a server's door."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.golden.application import Client, key, opened, settings

from windlass.errors import InputError
from windlass.gateway.feedback import FeedbackRequest
from windlass.gateway.history.past import MOST_NUSD, Past, PastWord, call_id
from windlass.ledger import ids, partitions
from windlass.ledger.ledger import ALL, CallFilter
from windlass.records import Call, Decision, Feedback, Outcome, Scope
from windlass.runtime import Runtime
from windlass.server import importing
from windlass.server.app import Windlass
from windlass.server.exports import Exports, ImportAsked
from windlass.settings import Settings
from windlass.testing import Echo

EXPORTS = Path(__file__).parents[2] / "data" / "exports"
EVERY = tuple(str(path) for path in sorted(EXPORTS.glob("*_*")))


def _settings(home: Path, **changes: Any) -> Settings:
    return settings(home, **changes)


def _run(home: Path, capsys: pytest.CaptureFixture[str], *paths: str, **more: Any) -> dict[str, Any]:
    """Import and return what `--json` prints; code is the exit code."""
    code = importing.run(_settings(home), ImportAsked(paths=paths or EVERY, **more), as_json=True)
    return {**json.loads(capsys.readouterr().out), "code": code}


def test_every_documented_export_comes_in_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first = _run(tmp_path, capsys)
    assert (first["code"], first["imported"], first["already"], first["joined"]) == (0, 21, 2, 5)
    assert first["feedback"] == {"imported": 4, "already": 0}
    assert first["skipped"] == {
        "no_model_call": 1, "no_such_call": 1, "not_asked": 1, "score_kind": 1, "score_scale": 1, "session_score": 1,
        "time": 1,
    }  # fmt: skip
    assert first["read"] == 21 + 2 + 5 + 4 + sum(first["skipped"].values())
    assert {one["line"] for one in first["bad"] if one["file"].endswith("scores.jsonl")} == {3, 4, 7}
    again = _run(tmp_path, capsys)
    assert (again["imported"], again["already"]) == (0, 23)
    assert again["feedback"] == {"imported": 0, "already": 4}


async def test_imported_calls_are_listed_and_teach_and_count_nothing(tmp_path: Path) -> None:
    async with opened(tmp_path, [Echo("a", "b")]) as runtime:
        await runtime.caught_up()
        before = msgspec.msgpack.decode(runtime.learner.state())
        await _take(runtime, EVERY)
        assert runtime.lag_s(0) == 0.0, "or no load balancer would send work during an import"
        await runtime.caught_up()
        runtime.watch.catch_up()
        kinds = [type(entry.record) for entry in runtime.ledger.read(ALL)]
        assert {kind: kinds.count(kind) for kind in kinds} == {Call: 21, Outcome: 21, Feedback: 4}
        assert Decision not in kinds
        assert runtime.overview.totals(Scope()).calls == 0
        assert runtime.overview.counted(Scope()) == (0, 0)
        assert not runtime.watch.outcomes.hours(Scope())
        assert not runtime.watch.outcomes.going_on(Scope())
        after = msgspec.msgpack.decode(runtime.learner.state())
        changed = [(was, now) for was, now in zip(before, after, strict=True) if was != now]
        assert changed == [(0, runtime.ledger.head())], "only how far it has read"
        traces = runtime.ledger.calls(Scope(), wanted=CallFilter(text="-langfuse"))
        assert len(traces) == 4
        said = {trace.call.extra["source"]: sorted(f.metric for f in trace.feedback) for trace in traces}
        assert said["obs-1"] == ["faithful", "helpful", "helpful", "helpful"]
        assert said["obs-4"] == []
        assert all(trace.call.extra["imported"] == "langfuse" for trace in traces)
        await runtime.feedback(
            Scope(), FeedbackRequest.read({"target": traces[0].call.id, "kind": "rating", "value": 1.0})
        )


async def test_bodies_come_along_where_bodies_are_kept(tmp_path: Path) -> None:
    for keeps in (True, False):
        home = tmp_path / str(keeps)
        async with opened(home, [Echo("a")], gateway={"keep_bodies": keeps}) as runtime:
            await _take(runtime, EVERY)
            kept = {
                trace.call.extra["source"]: {body.role: body for body in runtime.ledger.bodies(Scope(), trace.call.id)}
                for trace in runtime.ledger.calls(Scope(), limit=50)
            }
            if not keeps:
                assert not any(kept.values())
                continue
            asked = json.loads(kept["chatcmpl-stored-1"]["request"].data)
            assert [one["content"] for one in asked["messages"]] == ["Be brief.", "What is a pawl?"]
            assert json.loads(kept["batch_req_1"]["request"].data)["messages"][0]["content"] == "Question 1"
            assert set(kept["obs-4"]) == {"request"}, "no vectors"
            body = kept["obs-1"]["reply"]
            assert body.expires_at > runtime.clock() + 29 * 86_400, "kept as long as one of today"
            assert runtime.ledger.prune(runtime.clock()) == 0


def test_dry_run_counts_and_writes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    dry = _run(tmp_path, capsys, dry=True)
    assert (dry["dry_run"], dry["imported"]) == (True, 21)
    assert _run(tmp_path, capsys)["imported"] == 21
    assert _run(tmp_path, capsys, dry=True)["imported"] == 0


def test_only_the_asked_for_time_comes_in(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    spend = str(EXPORTS / "litellm_spend_logs.jsonl")
    report = _run(tmp_path, capsys, spend, since="2025-03-02", until="2025-03-04T09:00:00Z")
    assert (report["imported"], report["skipped"]) == (2, {"other_time": 3})


async def test_another_tenant_gets_calls_of_its_own(tmp_path: Path) -> None:
    async with opened(tmp_path, [Echo("a")]) as runtime:
        one, two = await _take(runtime, EVERY), await _take(runtime, EVERY, tenant="acme", workspace="lab")
        assert one["imported"] == two["imported"] == 21
        ours = {trace.call.id for trace in runtime.ledger.calls(Scope(), limit=100)}
        theirs = {trace.call.id for trace in runtime.ledger.calls(Scope("acme", "lab"), limit=100)}
        assert len(ours) == len(theirs) == 21
        assert not ours & theirs


async def test_a_forgotten_user_does_not_come_back(tmp_path: Path) -> None:
    async with opened(tmp_path, [Echo("a")]) as runtime:
        await _take(runtime, (str(EXPORTS / "litellm_spend_logs.csv"),))
        await runtime.forget(Scope(), "customer-1", by="test")
        report = await _take(runtime, (str(EXPORTS / "litellm_standard_logging.json"),))
        assert (report["imported"], report["skipped"]) == (1, {"forgotten_user": 1})
        assert not runtime.ledger.calls(Scope(), wanted=CallFilter(user="customer-1"))


def test_hostile_rows_are_skipped_with_their_reason(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    good = json.loads((EXPORTS / "litellm_spend_logs.jsonl").read_text().splitlines()[0])
    rows = [
        good,
        {**good, "spend": float("nan")},
        {**good, "prompt_tokens": -1},
        {**good, "startTime": "1970-01-01"},
        {**good, "request_id": "a\x00b"},
        {**good, "request_id": ""},
        {**good, "model": "\ud800"},
        good,
        {"hello": 1},
        {**good, "request_id": "big", "messages": [{"role": "user", "content": "x" * 3_000_000}]},
    ]
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows) + "no json\n", encoding="utf-8")
    report = _run(tmp_path / "home", capsys, str(path))
    assert (report["imported"], report["already"], report["without_bodies"], report["code"]) == (2, 1, 1, 0)
    assert report["skipped"] == {
        "cost": 1, "tokens": 1, "time": 1, "request_id": 1, "id": 1, "model": 1, "other_format": 1, "unreadable": 1
    }  # fmt: skip
    assert [one["line"] for one in report["bad"]] == [2, 3, 4, 5, 6, 7, 9, 11]


def test_a_file_of_no_known_program_is_refused_with_the_remedy(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    path.write_text("a,b\n1,2\n")
    with pytest.raises(InputError, match=r"x\.csv is no export .*its fields are a, b; name it with --format"):
        importing.run(_settings(tmp_path), ImportAsked(paths=(str(path),)), as_json=True)
    with pytest.raises(InputError, match="litellm"):
        importing.run(_settings(tmp_path), ImportAsked(paths=(str(path),), program="helicone"), as_json=True)


def test_a_file_that_breaks_off_ends_with_code_1(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = (EXPORTS / "litellm_spend_logs.jsonl").read_text().splitlines()
    path = tmp_path / "cut.json"
    path.write_text(f"[{rows[0]},{rows[1]},{rows[2][:40]}")
    report = _run(tmp_path / "home", capsys, str(path))
    assert (report["code"], report["imported"], report["unfinished"]) == (1, 2, [str(path)])


async def test_the_door_is_for_the_folders_own_command_line(tmp_path: Path) -> None:
    boss = key("boss", "acme", role="admin")
    past = Past(
        program="litellm", source="1", at=1_740_819_600.0, endpoint="chat", model="m", answered="m", provider="p"
    )
    word = PastWord(program="litellm", source="w", at=past.at, group="g", kind="praise", by="user", metric="quality")
    wanted = {"calls": [msgspec.to_builtins(past)], "said": [msgspec.to_builtins(word)], "tenant": "acme"}
    async with opened(tmp_path, [Echo("a")], keys=[boss]) as runtime:
        app = Windlass(runtime, token="folder-token")
        assert (await Client(app, bearer="secret-boss").post("/api/history", wanted)).status == 401
        told = await Client(app).post("/api/history", wanted, x_windlass_token="folder-token")
        assert told.status == 200
        assert told.json == {
            "imported": 1, "already": 0, "said": 0, "said_already": 0, "skipped": {"no_such_call": 1}
        }  # fmt: skip
        assert runtime.ledger.trace(Scope("acme"), call_id(Scope("acme"), past)) is not None
        for field, value in (
            *(("at", -1), ("at", 1e300), ("cost_nusd", -1), ("cost_nusd", MOST_NUSD + 1), ("user", "\x00")),
            *(
                ("prompt_tokens", -1),
                ("latency_ms", -1),
                ("program", "other"),
                ("source", ""),
                ("about", {"a": "\x00"}),
            ),
        ):
            spoilt = {"calls": [{**msgspec.to_builtins(past), field: value}]}
            refused = await Client(app).post("/api/history", spoilt, x_windlass_token="folder-token")
            assert refused.status == 400, field
        assert len(runtime.ledger.calls(ALL)) == 1


def test_an_id_tells_that_it_was_imported() -> None:
    assert not ids.is_imported(ids.new("call", 1.0))
    assert not ids.is_imported("c-1")
    for kind in ("call", "outcome", "feedback"):
        name = ids.imported(kind, 1.0, "f" * 64, "langfuse")
        assert ids.is_imported(name)
        assert name.startswith(f"{kind}_0000000003e8")
    assert partitions.day_of(ids.imported("call", 86_400.0, "f" * 64, "openai")) == 1


async def _take(runtime: Runtime, paths: tuple[str, ...], **more: Any) -> dict[str, Any]:
    """Import into a runtime that runs."""
    from windlass.server.operations import OPERATIONS
    from windlass.server.session import OWNER

    reading = Exports(ImportAsked(paths=paths, **more), runtime.clock(), most_bytes=2**20)

    async def here(name: str, arguments: dict[str, Any]) -> dict[str, Any]:
        return await OPERATIONS[name](runtime, OWNER, arguments)

    return await importing._hand_over(here, reading, quiet=True)
