"""Graders by name, and those of other distributions, which are let in only if they keep the contract."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.unit.improve.grading.scene import case

from windlass import plugins
from windlass.errors import SettingsError
from windlass.improve.grading import registry
from windlass.improve.grading.grader import Check

MODULE = """
from windlass.improve.grading.grader import said

class Polite:
    name, version, source, on, needs_model, cost_nusd = "polite", "1", "qa", "reply", False, 0
    def __init__(self, word): self.word = word
    def grade(self, case): return said(float(self.word in case.reply), "polite or not")

class Named(Polite): name = "someone"
class Wild(Polite):
    name = "wild"
    def grade(self, case): return said(2.0, "too much")
class Fickle(Polite):
    name, count = "fickle", 0
    def grade(self, case):
        Fickle.count += 1
        return said(float(Fickle.count % 2), "now so, now so")
class Costly(Polite): name, cost_nusd = "costly", -1
class Liar(Polite): name, needs_model = "liar", True
class Source(Polite): name, source = "source", "user"

polite = lambda options: Polite(options["word"])
named, wild, fickle, costly, liar, source = (lambda options, kind=kind: kind("x") for kind in
    (Named, Wild, Fickle, Costly, Liar, Source))
nothing = lambda options: None
def leaves(options): raise SystemExit(3)
"""
NAMES = ("polite", "named", "wild", "fickle", "costly", "liar", "source", "nothing", "leaves")


@pytest.fixture(autouse=True)
def plugged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    info = tmp_path / "plugged_graders-1.5.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: plugged-graders\nVersion: 1.5\n")
    entries = [f"{name} = plugged_graders:{name}" for name in NAMES]
    (info / "entry_points.txt").write_text(f"[{plugins.GRADERS}]\n" + "\n".join(entries))
    (tmp_path / "plugged_graders.py").write_text(MODULE)
    monkeypatch.syspath_prepend(str(tmp_path))


def test_a_plugin_is_a_grader_like_ours() -> None:
    made = registry.make("polite", {"word": "please"})
    assert isinstance(made, Check)
    assert made.grade(case("yes, please")).value == 1.0  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("polite", "KeyError: 'word'"),
        ("named", "it calls itself 'someone'"),
        ("wild", "is no verdict"),
        ("fickle", "and then .* of the same case"),
        ("costly", "its cost_nusd is -1"),
        ("liar", "`needs_model` must be"),
        ("source", "its source is 'user'"),
        ("nothing", "a NoneType is no grader"),
        ("leaves", "SystemExit: 3"),
    ],
)
def test_one_that_breaks_the_contract_is_refused_by_name(name: str, words: str) -> None:
    with pytest.raises(SettingsError, match=f"grader '{name}' of plugged-graders 1.5 is not accepted: .*({words})"):
        registry.make(name, {})


def test_an_unknown_name_is_told_the_known_ones_of_both_kinds() -> None:
    with pytest.raises(SettingsError, match=r"there is no grader 'nope'; known: .*exact.*polite"):
        registry.make("nope", {})
