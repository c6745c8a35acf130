"""`clusters`: who answers which prompts and how well, named by what is kept of them, of one tenant alone."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.golden.application import NOW, opened
from tests.unit.server.clustered import BASIS, HERE, priced, routed

from windlass.errors import AccessError, InputError, LedgerError
from windlass.gateway.access.admission import Caller
from windlass.records import Scope
from windlass.runtime import Runtime
from windlass.server import clusterlist
from windlass.server.clusters import shown
from windlass.server.operations import OPERATIONS
from windlass.watch import clustering, clusters

OWNER = Caller(HERE, "admin", "")
JOINT: dict[str, Any] = {"model": {"policy": "joint_thompson", "mode": "live"}}


async def _clusters(runtime: Runtime, caller: Caller = OWNER, **arguments: Any) -> dict[str, Any]:
    return await OPERATIONS["clusters"](runtime, caller, arguments)


async def test_each_topic_is_a_cluster_named_by_two_of_its_prompts(tmp_path: Path) -> None:
    async with opened(tmp_path, providers=(priced(),), points=JOINT) as runtime:
        await routed(runtime, 160)
        await runtime.caught_up()
        found = await _clusters(runtime)
    assert (found["choices"], found["embedded"], found["missing"]) == (160, 160, "")
    assert [one["calls"] for one in found["clusters"]] == [40] * 4
    for one in found["clusters"]:
        topics = {example.split()[0] for example in one["examples"]}
        assert len(one["examples"]) == 2
        assert len(topics) == 1
        assert "\x1b" not in one["name"]
        assert one["cost_nusd"] == pytest.approx((1_000 + 50_000) / 2)
        assert one["share"] == pytest.approx(0.25)
        models = {model["model"]: model for model in one["models"]}
        assert {name: model["share"] for name, model in models.items()} == {"cheap": 0.5, "dear": 0.5}
        worth = 0.9 if topics & {"winch", "tax"} else 0.2
        assert models["cheap"]["quality"] == pytest.approx(worth)
        assert models["cheap"]["half_width"] == pytest.approx(0.0, abs=1e-9)
        assert models["cheap"]["predicted"] == pytest.approx(worth, abs=0.2)
        assert 0.0 < models["cheap"]["sd"] < 0.3
        assert models["dear"]["expected_nusd"] > models["cheap"]["expected_nusd"] > 0.0
    tax = next(one for one in found["clusters"] if "tax" in one["name"])
    assert tax["words"] == "many digits"


async def test_without_bodies_clusters_have_numbers_and_features(tmp_path: Path) -> None:
    async with opened(tmp_path, providers=(priced(),), points=JOINT) as runtime:
        await routed(runtime, 80, bodies=False)
        found = await _clusters(runtime)
    assert all(one["examples"] == () or one["examples"] == [] for one in found["clusters"])
    names = [one["name"] for one in found["clusters"]]
    assert [name.split(":")[0] for name in names] == [f"Cluster {number}" for number in range(1, 5)]
    assert sum("many digits" in name for name in names) == 1


async def test_a_forgotten_user_names_no_cluster_and_is_in_none(tmp_path: Path) -> None:
    async with opened(tmp_path, providers=(priced(),), points=JOINT) as runtime:
        await routed(runtime, 80, topics=("secret", "tax", "poem", "proof"), user="ann")
        await routed(runtime, 80, first=80)
        assert "secret" in str(await _clusters(runtime))
        await runtime.forget(Scope(), "ann", by="test")
        found = await _clusters(runtime)
    assert "secret" not in str(found)
    assert found["embedded"] == 80


async def test_what_is_no_longer_kept_is_not_shown_though_clusters_are_cached(tmp_path: Path) -> None:
    now = [NOW]
    async with opened(tmp_path, providers=(priced(),), points=JOINT, clock=lambda: now[0]) as runtime:
        await routed(runtime, 80)
        first = await _clusters(runtime)
        runtime.ledger.prune(NOW + 1e9)
        now[0] += 60.0
        found = await _clusters(runtime)
    assert first["clusters"][0]["examples"]
    assert (found["at"], found["age_s"]) == (first["at"], 60.0)


async def test_another_tenants_prompts_are_apart(tmp_path: Path) -> None:
    acme = Scope("acme", "default")
    async with opened(tmp_path, providers=(priced(),), points=JOINT) as runtime:
        await routed(runtime, 80, scope=acme, topics=("acme-secret",) * 4)
        mine = await _clusters(runtime)
        theirs = await _clusters(runtime, tenant="acme")
        with pytest.raises(AccessError, match="sees tenant 'other'"):
            await _clusters(runtime, Caller(Scope("other", "default"), "admin", "k"), tenant="acme")
        keyed = await _clusters(runtime, Caller(acme, "viewer", "k"))
    assert (mine["choices"], mine["clusters"]) == (0, [])
    assert "acme-secret" in str(theirs["clusters"])
    assert [one["name"] for one in keyed["clusters"]] == [one["name"] for one in theirs["clusters"]]


@pytest.mark.parametrize(
    ("calls", "points", "words"),
    [
        (0, JOINT, 'send some with "model": "auto"'),
        (10, JOINT, "10 of the newest 10 choices hold the numbers of their prompt: prompts are not embedded here"),
        (10, {}, "no policy at the point model reads prompts"),
    ],
)
async def test_why_there_are_none_is_told(tmp_path: Path, calls: int, points: dict[str, Any], words: str) -> None:
    async with opened(tmp_path, providers=(priced(),), points=points) as runtime:
        await routed(runtime, calls)
        found = await _clusters(runtime)
    assert words in found["missing"]
    assert found["clusters"] == []


async def test_numbers_of_an_older_basis_are_left_out(tmp_path: Path) -> None:
    async with opened(tmp_path, providers=(priced(),), points=JOINT) as runtime:
        await routed(runtime, 40, featuriser="embedding64@older")
        await routed(runtime, 40, first=40)
        found = await _clusters(runtime)
    assert (found["choices"], found["embedded"], found["featuriser"]) == (80, 40, BASIS)


async def test_prompts_that_are_all_alike_are_one_cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.unit.server.clustered.numbers", lambda topic, rng: (0.5,) * 64)
    async with opened(tmp_path, providers=(priced(),), points=JOINT) as runtime:
        await routed(runtime, 60)
        found = await _clusters(runtime)
    assert [one["calls"] for one in found["clusters"]] == [60]
    assert found["clusters"][0]["share"] == 1.0


async def test_rows_of_different_lengths_are_no_points(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lengths = iter(range(3, 1_000))
    monkeypatch.setattr("tests.unit.server.clustered.numbers", lambda topic, rng: (0.5,) * (3 + next(lengths) % 2))
    async with opened(tmp_path, providers=(priced(),), points=JOINT) as runtime:
        await routed(runtime, 30)
        found = await _clusters(runtime)
    assert "not all of one length" in found["missing"]


async def test_they_are_made_off_the_loop_once_and_anew_when_they_are_old(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[int] = []
    real = clustering.clustered

    def counted(*args: Any) -> clustering.Clustered:
        made.append(threading.get_ident())
        return real(*args)

    monkeypatch.setattr(clusters, "clustered", counted)
    now = [NOW]
    async with opened(tmp_path, providers=(priced(),), points=JOINT, clock=lambda: now[0]) as runtime:
        await routed(runtime, 40)
        first = await _clusters(runtime)
        await routed(runtime, 40, first=40)
        assert (await _clusters(runtime))["at"] == first["at"]
        now[0] += clusters.RENEW_S + 1.0
        assert (await _clusters(runtime))["at"] == first["at"]  # told once more, while it is made anew
        await runtime.clusters.close()
        assert (await _clusters(runtime))["embedded"] == 80
    assert len(made) == 2
    assert threading.get_ident() not in made


async def test_a_ledger_that_cannot_be_read_is_told_and_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with opened(tmp_path, providers=(priced(),), points=JOINT) as runtime:
        await routed(runtime, 40)
        with monkeypatch.context() as broken:
            broken.setattr(runtime.ledger, "calls", _fails)
            with pytest.raises(LedgerError, match="away"):
                await _clusters(runtime)
        assert (await _clusters(runtime))["embedded"] == 40


def _fails(*args: Any, **named: Any) -> None:
    raise LedgerError("the database is away")


async def test_a_page_waits_for_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    may = threading.Event()
    real = clustering.clustered

    def slow(*args: Any) -> clustering.Clustered:
        assert may.wait(10)
        return real(*args)

    monkeypatch.setattr(clusters, "clustered", slow)
    async with opened(tmp_path, providers=(priced(),), points=JOINT) as runtime:
        await routed(runtime, 40)
        assert "being made" in (await shown(runtime, Scope()))["missing"]
        may.set()
        await runtime.clusters.close()
        assert (await shown(runtime, Scope()))["embedded"] == 40
        runtime.clusters.forget(Scope())
        monkeypatch.setattr(runtime.ledger, "calls", _fails)
        monkeypatch.setattr("windlass.server.clusters.PATIENCE_S", 10.0)
        assert "the database is away" in (await shown(runtime, Scope()))["missing"]


async def test_unknown_arguments_are_refused(tmp_path: Path) -> None:
    async with opened(tmp_path) as runtime:
        with pytest.raises(InputError, match="limit"):
            await _clusters(runtime, limit=5)


async def test_the_terminal_shows_them(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    async with opened(tmp_path, providers=(priced(),), points=JOINT) as runtime:
        empty = await _clusters(runtime)
        await routed(runtime, 80)
        runtime.clusters.forget(Scope())
        full = await _clusters(runtime)
    assert clusterlist.show(empty, as_json=False) == 0
    assert 'No clusters: no call has left the choice of its model open yet; send some with "model": "auto".' in (
        capsys.readouterr().out
    )
    assert clusterlist.show(full, as_json=False) == 0
    said = capsys.readouterr().out
    assert "20 calls (25%), 0.000026 USD a call" in said
    assert "0.20 +- 0.00" in said
    assert clusterlist.show(full, as_json=True) == 0
    assert msgspec.json.decode(capsys.readouterr().out)["embedded"] == 80
