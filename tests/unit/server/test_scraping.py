"""`windlass metrics`: the text of a scrape, from a running server or from the folder, and the alert rules."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from windlass.cli import main
from windlass.server import scraping
from windlass.watch.metrics.exposition import Exposition
from windlass.watch.metrics.sums import LedgerSums


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("WINDLASS_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("WINDLASS_MEMORY__EMBEDDER", "off")
    monkeypatch.chdir(tmp_path)
    return tmp_path / "home"


def test_without_a_server_it_opens_the_folder(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["metrics"]) == 0
    text = capsys.readouterr().out
    assert "windlass_totals_complete 1.0" in text
    assert home.exists()
    assert main(["metrics", "--json"]) == 0
    assert "windlass_build_info" in json.loads(capsys.readouterr().out)["metrics"]


def test_the_rules_are_printed_without_touching_anything(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["metrics", "--rules"]) == 0
    assert capsys.readouterr().out == scraping.rules()
    assert not home.exists()
    assert main(["metrics", "--rules", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"rules": scraping.rules()}


def test_the_rules_ask_only_for_families_that_there_are(tmp_path: Path) -> None:
    """A rule on a family that is called otherwise by now would never fire, and nobody would know."""
    from tests.unit.watch.metrics.test_exposition import scraped

    told = {family.name for family in Exposition(scraped(), LedgerSums()).collect()}
    told |= {f"{name}{end}" for name in told for end in ("_total", "_bucket")}
    groups: list[dict[str, Any]] = yaml.safe_load(scraping.rules())["groups"]
    every = [rule for group in groups for rule in group["rules"]]
    recorded = {rule["record"] for rule in every if "record" in rule}
    for rule in every:
        asked = {word.strip("()") for word in _words(rule["expr"]) if word.strip("()").startswith("windlass")}
        assert asked, rule
        assert asked <= told | recorded, asked - told - recorded
        assert "record" in rule or {"summary", "description"} == rule["annotations"].keys()


def test_the_dashboard_asks_only_for_what_there_is(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Every family and every label of a panel is told by /metrics, or recorded by the rules."""
    from tests.unit.watch.metrics.test_exposition import scraped, sums

    assert main(["metrics", "--grafana"]) == 0
    assert not home.exists()
    board: dict[str, Any] = json.loads(capsys.readouterr().out)
    families = list(Exposition(scraped(), sums()).collect())
    told = {family.name for family in families}
    told |= {f"{name}{end}" for name in told for end in ("_total", "_bucket")}
    rules = [rule for group in yaml.safe_load(scraping.rules())["groups"] for rule in group["rules"]]
    told |= {rule["record"] for rule in rules if "record" in rule}
    labels = {name for family in families for sample in family.samples for name in sample.labels}
    ids, places = [panel["id"] for panel in board["panels"]], set[tuple[int, int]]()
    assert len(ids) == len(set(ids))
    for panel in board["panels"]:
        at = panel["gridPos"]
        assert at["x"] + at["w"] <= 24
        cells = {(at["x"] + x, at["y"] + y) for x in range(at["w"]) for y in range(at["h"])}
        assert not cells & places, f"{panel['title']} lies on another panel"
        places |= cells
        for target in panel["targets"]:
            asked = {word for word in _words(target["expr"]) if word.startswith("windlass")}
            assert asked, target
            assert asked <= told, asked - told
            shown = set(re.findall(r"{{(\w+)}}", target["legendFormat"]))
            assert shown <= labels
            grouped = re.search(r"by \(([\w, ]+)\)", target["expr"])
            assert grouped is None or shown == set(grouped[1].split(", ")), target


def _words(expression: str) -> list[str]:
    for sign in "()[]{}/*+-<>=,":
        expression = expression.replace(sign, " ")
    return expression.split()
