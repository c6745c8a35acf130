"""Entry points of other distributions: found by name, imported when asked for, and named when they fail."""

from __future__ import annotations

import pytest

from windlass import plugins
from windlass.errors import SettingsError


@pytest.fixture
def distribution(tmp_path, monkeypatch):
    """Put a distribution on the path: its metadata as an installer would leave it, and one module."""

    def put(name, entries, module="", folder="site"):
        site = tmp_path / folder
        info = site / f"{name}-1.5.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.5\n")
        (info / "entry_points.txt").write_text("[windlass.tests]\n" + "\n".join(entries))
        (site / f"{name}.py").write_text(module)
        monkeypatch.syspath_prepend(str(site))

    return put


def test_what_nobody_offers_is_none():
    assert plugins.load("windlass.tests", "nobody") is None
    assert plugins.names("windlass.tests") == ()


def test_a_plugin_is_imported_when_asked_for_and_knows_where_it_comes_from(distribution):
    distribution("plugged_good", ["two = plugged_good:VALUE", "broken = plugged_missing:VALUE"], "VALUE = 42\n")
    assert plugins.names("windlass.tests") == ("broken", "two")
    assert plugins.load("windlass.tests", "two") == ("two", 42, "plugged_good 1.5")


@pytest.mark.parametrize(
    ("entry", "module", "words"),
    [
        ("x = plugged_missing:VALUE", "", "ModuleNotFoundError: No module named 'plugged_missing'"),
        ("x = {name}:GONE", "", "AttributeError: .*GONE"),
        ("x = {name}:VALUE", "raise RuntimeError('no luck')", "RuntimeError: no luck"),
    ],
)
def test_what_cannot_be_loaded_names_its_distribution(distribution, entry, module, words):
    name = f"plugged_bad{abs(hash(entry + module)) % 10**8}"
    distribution(name, [entry.format(name=name)], module)
    with pytest.raises(SettingsError, match=rf"windlass.tests 'x' of {name} 1.5 cannot be loaded from .*{words}"):
        plugins.load("windlass.tests", "x")


def test_a_name_that_two_offer_is_refused(distribution):
    distribution("plugged_one", ["same = plugged_one:VALUE"], "VALUE = 1")
    distribution("plugged_two", ["same = plugged_two:VALUE"], "VALUE = 2", folder="other")
    with pytest.raises(SettingsError, match="'same' is offered by plugged_one and plugged_two; uninstall all but one"):
        plugins.load("windlass.tests", "same")


def test_a_distribution_that_is_found_twice_is_one(distribution):
    distribution("plugged_twice", ["same = plugged_twice:VALUE"], "VALUE = 1")
    distribution("plugged_twice", ["same = plugged_twice:VALUE"], "VALUE = 2", folder="other")
    assert plugins.load("windlass.tests", "same").value == 2
