"""Policies by name."""

from __future__ import annotations

import math
import sys
from dataclasses import fields

import pytest

from windlass import plugins
from windlass.errors import PolicyError, SettingsError
from windlass.policies import registry
from windlass.policies.linear import LinearThompson
from windlass.policies.split import Split


def test_makes_each_policy_it_names():
    for name in registry.names():
        assert registry.make(name, {}).name == name
    ours = {"epsilon_greedy", "fixed", "joint_thompson", "linear_thompson", "split", "threshold", "ucb", "ucb1"}
    assert set(registry.names()) == ours


def test_options_are_described():
    for name in (*registry.names(), *registry.guards()):
        assert all(f"{field.name}" in every_doc(registry.options(name)) for field in fields(registry.options(name)))


def every_doc(kind):
    return "".join(base.__doc__ or "" for base in kind.__mro__)


def test_options_arrive():
    assert registry.make("fixed", {"action": "b"}).probabilities({}, ("a", "b")).tolist() == [0.0, 1.0]
    assert registry.make("linear_thompson", {"alpha": 2}).options.alpha == 2.0
    assert registry.make("split", {"shares": {"a": 1, "b": 3}}).probabilities({}, ("a", "b")).tolist() == [0.25, 0.75]
    assert registry.make("ucb", {"half_life": 100}).options.half_life == 100.0
    guard = registry.guard("allowed", {"deny": ["b*"]}, registry.make("split", {}))
    assert guard.probabilities({}, ("a", "b1", "b2")).tolist() == [1.0, 0.0, 0.0]


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("thompson", {}, "unknown policy 'thompson'; known: epsilon_greedy, fixed, joint_thompson"),
        ("fixed", {"acton": "a"}, "policy fixed has no option acton; known: action"),
        ("linear_thompson", {"alpha": "much"}, "policy linear_thompson: .*alpha"),
        ("linear_thompson", {"alpha": -1.0}, "alpha is -1.0"),
        ("split", {"shares": {"a": "half"}}, "policy split"),
        ("threshold", {"floor": math.inf}, "floor is inf"),
        ("threshold", {"above": "x", "below": "x"}, "above and below are both 'x'"),
    ],
)
def test_what_it_does_not_know_is_refused_with_what_it_does(name, options, words):
    with pytest.raises(PolicyError, match=words):
        registry.make(name, options)


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("alowed", {}, "unknown guard 'alowed'; known: allowed, budget, cool_down, floor, personal, quality_floor, "),
        ("budget", {"cost": 1}, "guard budget has no option cost; known: remaining, prefix, costs_nusd"),
        ("allowed", {"deny": "all"}, "guard allowed: .*array"),
        ("quality_floor", {"floor": 3}, "floor is 3"),
    ],
)
def test_guards_it_does_not_know_are_refused(name, options, words):
    for make in (
        lambda: registry.guard(name, options, Split()),
        lambda: registry.guarded(Split(), [("allowed", {}), (name, options)]),
    ):
        with pytest.raises(PolicyError, match=words):
            make()


def test_guards_stand_in_the_safe_order_however_they_are_written():
    specs = [
        ("allowed", {"deny": ["cheap"]}),
        ("quality_floor", {"floor": 0.9, "reference": "fine"}),
        ("cool_down", {}),
        ("budget", {"costs_nusd": {"cheap": 1, "fine": 5, "dear": 9}}),
    ]
    actions = ("cheap", "fine", "dear")
    for turn in range(4):
        policy = registry.guarded(LinearThompson(), specs[turn:] + specs[:turn], 0.2)
        # The share audits the floor, among what is allowed and affordable; the cheapest is the cheapest allowed one.
        assert policy.probabilities({}, actions).tolist() == pytest.approx([0.0, 0.9, 0.1])
        assert policy.probabilities({"budget_nusd": 6.0}, actions).tolist() == pytest.approx([0.0, 1.0, 0.0])
        assert policy.probabilities({"budget_nusd": 2.0}, actions).tolist() == [0.0, 1.0, 0.0]


def test_without_guards_and_share_the_policy_is_left_alone():
    policy = Split()
    assert registry.guarded(policy, []) is policy
    with pytest.raises(PolicyError, match="randomised share"):
        registry.guarded(policy, [], -0.1)


class Coin(Split):
    """A plugin's policy that keeps the contract."""

    name = "coin"


class Loaded(Coin):
    """Draws what it does not say."""

    def choose(self, context, actions, rng):
        return super().choose(context, actions[::-1], rng)

    def probabilities(self, context, actions):
        return super().probabilities(context, actions) * (0.5 if len(actions) > 1 else 1.0)


def no_arguments():
    """A plugin that does not take what it is given."""
    return Coin()


@pytest.fixture
def offered(monkeypatch):
    """Let a distribution offer policies; returns the names that were asked for."""
    asked = []

    def offer(**values):
        def load(group, name):
            asked.append((group, name))
            return plugins.Plugin(name, values[name], "luck 1.0") if name in values else None

        monkeypatch.setattr(plugins, "load", load)
        monkeypatch.setattr(plugins, "names", lambda group: tuple(values))
        monkeypatch.setattr(registry, "_kept", {})
        return asked

    return offer


def test_a_plugin_is_checked_once_for_its_options_and_asked_for_only_by_an_unknown_name(offered):
    made = []
    asked = offered(coin=lambda options: made.append(options) or Coin())
    registry.make("split", {})
    assert asked == []
    assert registry.make("coin", {"x": 1}).name == "coin"
    checked = len(made)
    assert checked > 10
    registry.make("coin", {"x": 1})
    assert (len(made), asked) == (checked + 1, [("windlass.policies", "coin")])
    registry.make("coin", {"x": 2})
    assert len(made) > 2 * checked
    with pytest.raises(PolicyError, match="unknown policy 'dice'; known: coin, epsilon_greedy"):
        registry.make("dice", {})


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda options: Loaded(), "distribution: .* probabilities .* their sum 1"),
        (lambda options: Split(), "it calls itself 'split'"),
        (lambda options: 5, "its maker returned a int without a name; return a Policy"),
        (lambda options: sys.exit("bye"), "SystemExit: bye"),
        (no_arguments, "TypeError"),
        (lambda options: options["missing"], "KeyError: 'missing'"),
        (lambda options: Coin(options["shares"]), "KeyError: 'shares'"),
    ],
)
def test_a_plugin_that_breaks_the_contract_is_refused_each_time_with_whose_it_is(offered, make, words):
    offered(coin=make)
    for _ in range(2):
        with pytest.raises(PolicyError, match=rf"policy 'coin' of luck 1.0 is not accepted: .*{words}"):
            registry.make("coin", {})


def test_a_plugin_that_cannot_be_loaded_says_so(tmp_path, monkeypatch):
    info = tmp_path / "luckless-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: luckless\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[windlass.policies]\nluckless = luckless_module:make\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(SettingsError, match="'luckless' of luckless 1.0 cannot be loaded from luckless_module:make"):
        registry.make("luckless", {})
    with pytest.raises(PolicyError, match="known: .*luckless"):
        registry.make("nobody", {})
