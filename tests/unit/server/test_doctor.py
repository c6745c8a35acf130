"""What is in force, what is wrong, and how to mend it."""

from __future__ import annotations

import json
import shutil
import sqlite3
from collections import namedtuple
from contextlib import closing
from pathlib import Path

import pytest
from tests.golden.application import Client, chat, key, opened, settings

from windlass.errors import ErrorCategory, LedgerError, classify
from windlass.memory import embedder
from windlass.policies.points import GuardOptions, PointOptions, ShadowOptions
from windlass.records import Scope
from windlass.server import doctor, session
from windlass.server.app import Windlass
from windlass.settings import load
from windlass.testing import Echo

Usage = namedtuple("Usage", "total used free")
PROVIDER = {
    "name": "up",
    "base_url": "http://127.0.0.1:1/v1",
    "models": [{"name": "m"}],
    "api_key_env": "UP_KEY",
}


async def test_it_tells_every_setting_with_its_source(tmp_path: Path) -> None:
    async with opened(tmp_path, [Echo()]) as runtime:
        report = await doctor.examine(runtime, replay=False)
    shown = report["settings"]
    assert shown["home"] == {"value": str(tmp_path), "source": "command line"}
    assert shown["server.port"] == {"value": 8321, "source": "default"}
    assert shown["memory.embedder"] == {"value": "off", "source": "command line"}
    assert report["findings"] == []
    assert (report["ledger"], "replay" in report) == ({"head": 0, "database": "sqlite"}, False)
    assert json.loads(json.dumps(report))["settings"]["gateway.auto"] == {"value": [], "source": "default"}


async def test_replay_compares_the_live_policies_with_a_rebuild(tmp_path: Path) -> None:
    async with opened(tmp_path, [Echo("a", "b")]) as runtime:
        client = Client(Windlass(runtime))
        for _ in range(3):
            call = (await client.post("/v1/chat/completions", chat(model="auto"))).headers["x-windlass-call"]
            await client.post("/v1/feedback", {"target": call, "kind": "rating", "value": 1.0})
        await runtime.caught_up()
        report = await doctor.examine(runtime, replay=True)
        assert report["replay"]["equal"] is True
        assert report["replay"]["live"] == report["replay"]["rebuilt"]
        assert report["replay"]["cursor"] == report["ledger"]["head"]
        assert report["findings"] == []


async def test_policies_that_differ_from_the_ledger_are_a_finding(tmp_path: Path) -> None:
    async with opened(tmp_path, [Echo("a", "b")]) as runtime:
        await Client(Windlass(runtime)).post("/v1/chat/completions", chat(model="auto"))
        await runtime.caught_up()
        (decision,) = runtime.ledger.decisions(Scope())
        assert runtime.loop.learn(decision, 1.0, None), "a reward that no record holds"
        report = await doctor.examine(runtime, replay=True)
    assert report["replay"]["equal"] is False
    assert "differ from a rebuild" in report["findings"][0]


def test_a_key_that_is_not_set_is_a_finding(tmp_path: Path) -> None:
    found = doctor.findings(settings(tmp_path, providers=[PROVIDER]))
    assert found == ["provider up: the variable UP_KEY is not set; export it or clear api_key_env"]


@pytest.mark.parametrize("kind", ["anthropic", "gemini", "azure"])
def test_an_upstream_that_answers_nobody_without_a_key_is_a_finding(tmp_path: Path, kind: str) -> None:
    bare = {"name": "up", "kind": kind, "models": []} | ({"base_url": "https://r.example"} if kind == "azure" else {})
    (found,) = doctor.findings(settings(tmp_path, providers=[bare]))
    assert found == f"provider up: {kind} answers nobody without a key; set api_key_env to the variable with it"
    own = {"name": "own", "kind": "anthropic", "base_url": "http://127.0.0.1:8000/v1", "models": []}
    assert doctor.findings(settings(tmp_path, providers=[own])) == [], "a server of one's own may want none"


def test_without_an_embedder_it_says_how_to_get_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedder, "available", lambda: False)
    (found,) = doctor.findings(settings(tmp_path, memory__embedder="auto"))
    assert "pip install windlass[embeddings]" in found
    assert doctor.findings(settings(tmp_path, memory__embedder="off")) == []


def test_a_disk_that_fills_is_a_finding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: Usage(0, 0, 5 * 1024 * 1024))
    (found,) = doctor.findings(settings(tmp_path))
    assert found == f"only 5 MB are free under {tmp_path}; make room before it fills"
    assert doctor.findings(settings(tmp_path / "not-yet")) == []


def test_a_model_that_auto_names_and_nobody_offers_is_a_finding(tmp_path: Path) -> None:
    """Otherwise every call to `auto` fails, and nothing told the operator."""
    found = doctor.findings(settings(tmp_path, gateway__auto=["gpt-nope"]))
    assert any("gpt-nope" in one for one in found)


async def test_no_secret_is_told(tmp_path: Path) -> None:
    named = {"home": tmp_path, "memory.embedder": "off", "providers": [PROVIDER], "keys": [key("k", "acme")]}
    loaded = load(named, environ={"UP_KEY": "sk-hunter2"})
    assert "sk-hunter2" not in str(doctor.findings(loaded))
    async with opened(tmp_path, upstreams=[PROVIDER], keys=[key("k", "acme")]) as runtime:
        report = json.dumps(await doctor.examine(runtime, replay=False))
    assert key("k", "acme")["sha256"] not in report


async def test_a_password_in_an_url_is_not_told(tmp_path: Path) -> None:
    secret = {**PROVIDER, "base_url": "http://user:hunter2@127.0.0.1:1/v1", "api_key_env": ""}
    async with opened(tmp_path, upstreams=[secret]) as runtime:
        assert "hunter2" not in json.dumps(await doctor.examine(runtime, replay=False))


# --- a folder that cannot be opened


def test_a_damaged_file_is_named_with_the_remedy(tmp_path: Path) -> None:
    (tmp_path / "runs.db").write_bytes(b"not a database\n" * 500)
    (found,) = doctor.storage(settings(tmp_path))
    assert found.startswith(f"{tmp_path / 'runs.db'} is damaged (file is not a database)")
    assert "restore a backup" in found
    assert list(doctor.damages(settings(tmp_path), largest_bytes=100)) == []


def test_a_folder_that_is_not_there_yet_is_well(tmp_path: Path) -> None:
    assert doctor.storage(settings(tmp_path / "not-yet")) == []
    assert not (tmp_path / "not-yet").exists()


def test_what_cannot_be_written_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.access", lambda _path, _mode: False)
    assert doctor.storage(settings(tmp_path)) == [
        f"{tmp_path} cannot be written; make it this user's own, on a disk that takes writes"
    ]


def test_on_a_server_the_folder_has_only_the_workflows(tmp_path: Path) -> None:
    chosen = settings(tmp_path, storage__database_url="postgresql://127.0.0.1:1/nowhere")
    assert doctor.files(chosen) == (tmp_path / "runs.db",)


def test_the_report_without_a_ledger_has_all_but_what_it_holds(tmp_path: Path) -> None:
    report = doctor.unopened(settings(tmp_path), "database x: gone")
    assert report["findings"] == ["database x: gone"]
    assert report["ledger"] == {"head": None, "database": ""}
    assert report["settings"]["server.port"]["source"] == "default"
    assert doctor.unopened(settings(tmp_path), "")["findings"] == []


def test_examine_reports_a_ledger_that_cannot_be_opened(tmp_path: Path) -> None:
    """The file is whole, and not ours."""
    with closing(sqlite3.connect(tmp_path / "ledger.db")) as connection:
        connection.execute("CREATE TABLE alembic_version (version_num TEXT)")
        connection.execute("INSERT INTO alembic_version VALUES ('from the future')")
        connection.commit()
    report = session.examine(settings(tmp_path), replay=True)
    assert any("newer release" in finding for finding in report["findings"])
    assert "replay" not in report


def test_examine_writes_nothing_to_a_damaged_ledger(tmp_path: Path) -> None:
    (tmp_path / "ledger.db").write_bytes(b"not a database\n" * 500)
    report = session.examine(settings(tmp_path), replay=True)
    assert ["is damaged" in finding for finding in report["findings"]] == [True]
    assert [path.name for path in tmp_path.iterdir()] == ["ledger.db"]


@pytest.mark.parametrize("command", ["up", "run"])
def test_nothing_is_served_on_a_damaged_ledger(tmp_path: Path, command: str) -> None:
    (tmp_path / "ledger.db").write_bytes(b"not a database\n" * 500)
    with pytest.raises(LedgerError, match="is damaged") as refused:
        if command == "up":
            session.up(settings(tmp_path), dashboard=False, as_json=True)
        else:
            session.run(settings(tmp_path), paths=(), questions=(), stay=False, dashboard=False, as_json=True)
    assert classify(refused.value) is ErrorCategory.DATABASE_CORRUPT


# --- actions that a point does not have


async def test_a_default_that_is_no_action_is_a_finding_with_what_was_meant(tmp_path: Path) -> None:
    """Otherwise the first eligible action is taken for ever, and nothing told the operator."""
    chosen = {"model": {"mode": "shadow", "default": "ech"}, "answer": {"default": "anser"}}
    async with opened(tmp_path, [Echo("echo", "parrot")], points=chosen) as runtime:
        report = await doctor.examine(runtime, replay=False)
    assert report["findings"] == [
        "points.model.default is 'ech', which is no action of the point model: the first eligible one is taken; "
        "did you mean 'echo'?",
        "points.answer.default is 'anser', which is no action of the point answer: the first eligible one is taken; "
        "did you mean 'answer'?",
    ]


def test_a_default_that_auto_leaves_out_is_a_finding() -> None:
    (found,) = doctor.unknown_actions({"model": PointOptions(default="zebra")}, ("small", "large"))
    assert found.endswith("write one of large, small")
    assert doctor.unknown_actions({"model": PointOptions(default="small"), "answer": PointOptions()}, ("small",)) == []


def test_a_point_at_which_nothing_decides_is_a_finding() -> None:
    (found,) = doctor.unknown_actions({"modle": PointOptions()}, ())
    assert found == "points.modle: nothing decides at a point of that name; did you mean 'model'?"


def test_the_actions_of_policies_guards_and_shadows_are_looked_at() -> None:
    floor = GuardOptions(guard="quality_floor", options={"reference": "larg"})
    steady = ShadowOptions(name="steady", policy="fixed", options={"action": "smal"}, guards=(floor,))
    options = PointOptions(policy="fixed", options={"action": "smalll"}, guards=(floor,), shadows=(steady,))
    found = doctor.unknown_actions({"model": options}, ("small", "large"))
    assert [finding.partition(" is ")[0] for finding in found] == [
        "points.model.options.action",
        "points.model.guards: reference",
        "points.model.shadows.steady.options.action",
        "points.model.shadows.steady.guards: reference",
    ]


@pytest.mark.parametrize(
    ("guard", "consequence"),
    [("quality_floor", "the first eligible one is taken"), ("floor", "no floor is kept")],
)
def test_a_floor_whose_reference_is_no_model_says_what_that_means(guard: str, consequence: str) -> None:
    around = PointOptions(guards=(GuardOptions(guard=guard, options={"reference": "larg"}),))
    assert doctor.unknown_actions({"model": around}, ("small", "large")) == [
        "points.model.guards: reference is 'larg', which is no action of the point model: "
        f"{consequence}; did you mean 'large'?"
    ]
    right = PointOptions(guards=(GuardOptions(guard=guard, options={"reference": "large"}),))
    assert doctor.unknown_actions({"model": right}, ("small", "large")) == []


def test_other_guards_name_no_reference() -> None:
    odd = PointOptions(guards=(GuardOptions(guard="cool_down", options={"reference": "larg"}),))
    assert doctor.unknown_actions({"model": odd}, ("small", "large")) == []


async def test_it_lists_the_models_that_calls_may_name(tmp_path: Path) -> None:
    async with opened(tmp_path, [Echo("echo")], upstreams=[{**PROVIDER, "api_key_env": ""}]) as runtime:
        assert (await doctor.examine(runtime, replay=False))["models"][:2] == ["echo", "m"]
    assert doctor.unopened(settings(tmp_path, providers=[PROVIDER]), "")["models"][-1] == "m"


async def test_a_policy_that_fails_is_a_finding(tmp_path: Path) -> None:
    async with opened(tmp_path, [Echo()]) as runtime:
        runtime.loop.failures["model: ZeroDivisionError"] = 3
        report = await doctor.examine(runtime, replay=False)
    assert report["findings"] == [
        "policy failed at model: ZeroDivisionError, 3 times since the start; the default acted, mend the policy"
    ]


def test_what_others_can_read_is_a_finding(tmp_path: Path) -> None:
    home = tmp_path / "home"
    assert doctor.exposed(settings(home)) == []
    home.mkdir(mode=0o700)
    (home / "audit").mkdir()
    for name in ("ledger.db", "ledger.db-wal", "runs.db", "audit/key.pem", "audit/key.pub"):
        (home / name).touch(mode=0o600)
    assert doctor.exposed(settings(home)) == []
    for path in (home, *home.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)
    found = doctor.exposed(settings(home))
    assert [finding.split()[0] for finding in found] == [
        str(home),
        *(str(home / name) for name in ("ledger.db", "ledger.db-wal", "runs.db", "audit/key.pem")),
    ]
    assert f"`chmod 700 {home}`" in found[0]
    assert all("`chmod 600 " in finding for finding in found[1:])
    lasting = {finding for finding in found if "-wal" not in finding}
    assert lasting <= set(session.examine(settings(home), replay=False)["findings"])
    home.chmod(0o700)
    assert doctor.exposed(settings(home)) == [], "nobody else gets that far"


@pytest.mark.parametrize(("policy", "told"), [("linear_thompson", True), ("joint_thompson", False)])
async def test_objectives_that_nobody_reads_are_a_finding(tmp_path: Path, policy: str, told: bool) -> None:
    asked = {"points": {"model": {"policy": policy}}, "routing": {"objectives": [{"objective": "cheapest"}]}}
    async with opened(tmp_path, [Echo("small", "large")], **asked) as runtime:
        report = await doctor.examine(runtime, replay=False)
    assert any("read by nobody" in finding for finding in report["findings"]) is told
