"""The plan: what is refused, what its digest is of, and how its ramp divides the units."""

from __future__ import annotations

import math

import msgspec
import pytest

from windlass.errors import PolicyError
from windlass.policies.rollout import Advance, Always, Begin, End, Promote, Ship, parse, spell
from windlass.policies.trials import plan as plans
from windlass.policies.trials.plan import Guardrail, Plan, Variant


def planned(**fields):
    variants = (Variant("usual", 0.5), Variant("b", 0.5, action="deep"))
    return Plan(**({"name": "deeper", "variants": variants, "size": 100} | fields))


def test_what_is_spelled_is_read_back():
    plan = planned(unit="user", guardrails=(Guardrail("latency", 0.1),), hypothesis='it "says"\nmore: {é}')
    assert plans.parse(plans.spell(plan)) == plan
    assert parse(spell(Begin(plan))) == Begin(plan)


@pytest.mark.parametrize(
    "change",
    [
        Promote("model", "bold"),
        Promote("model"),
        Always("model", "meta/llama:8b=x"),
        Advance("model", "deeper", 1),
        End("model", "deeper", "stop"),
        End("model", "deeper", "rollback"),
        Ship("model", "deeper", "b"),
    ],
)
def test_changes_are_read_back(change):
    assert parse(spell(change)) == change


@pytest.mark.parametrize(
    "action",
    [
        "model:policy=",
        "model:action=",
        "model:action=a\nb",
        "model:experiment={}",
        "model:experiment={",
        'model:experiment={"name": 1}',
        "model:trial=x",
        "model:trial=x:stage=",
        "model:trial=x:stage=-1",
        "model:trial=x:stage=100",
        "model:trial=x:ship=",
        "model:trial=x y:stop",
        "model:trial=x:stop:stop",
    ],
)
def test_nonsense_is_no_change(action):
    with pytest.raises(PolicyError):
        parse(action)


def test_a_plan_of_another_point_is_no_change():
    action = spell(Begin(planned())).replace("model:experiment", "prompt:experiment")
    with pytest.raises(PolicyError, match="of the point 'model'"):
        parse(action)


def test_the_digest_is_of_every_field():
    one = planned()
    others = [
        planned(name="other"),
        planned(size=101),
        planned(unit="user"),
        planned(hypothesis="h"),
        planned(ramp=(0.5, 1.0)),
        planned(variants=(Variant("usual", 0.5), Variant("b", 0.5, action="fast"))),
    ]
    assert len({plan.digest for plan in (one, *others)}) == 1 + len(others)
    assert one.digest == planned().digest
    assert one.id == f"deeper@{one.digest[:12]}"


def _variants(*given):
    return tuple(Variant(f"v{at}", share, action) for at, (share, action) in enumerate(given))


@pytest.mark.parametrize(
    "fields",
    [
        {"name": ""},
        {"name": "a b"},
        {"name": ".."},
        {"name": "x" * 41},
        {"point": ""},
        {"point": "p" * 201},
        {"variants": ()},
        {"variants": _variants((0.5, "a"))},
        {"variants": _variants((0.5, "a"), (0.6, "b"))},
        {"variants": _variants((0.5, "a"), (0.5, "a"))},
        {"variants": _variants((0.0, "a"), (1.0, "b"))},
        {"variants": _variants((math.nan, "a"), (0.5, "b"))},
        {"variants": (Variant("b", 0.5), Variant("b", 0.5, action="a"))},
        {"variants": (Variant("a", 0.5), Variant("b", 0.5, action="a", shadow="s"))},
        {"variants": (Variant("a", 0.5), Variant("b c", 0.5, action="a"))},
        {"variants": _variants(*((1 / 7, str(at)) for at in range(7)))},
        {"size": 1},
        {"size": 10**9},
        {"alpha": 0.0},
        {"alpha": math.nan},
        {"harm_alpha": 0.6},
        {"ramp": ()},
        {"ramp": (0.5,)},
        {"ramp": (0.5, 0.5, 1.0)},
        {"ramp": (0.0, 1.0)},
        {"ramp": (math.nan, 1.0)},
        {"ramp": (*((at + 1) / 13 for at in range(12)), 1.0)},
        {"ramp_after": 0},
        {"secondary": ("quality",)},
        {"guardrails": (Guardrail("error"), Guardrail("error", 0.1))},
        {"guardrails": (Guardrail("error", -0.1),)},
        {"guardrails": (Guardrail("error", math.nan),)},
        {"owner": "x" * 201},
        {"hypothesis": "x" * 1_001},
    ],
)
def test_what_makes_no_sense_is_refused(fields):
    with pytest.raises(PolicyError):
        planned(**fields)


@pytest.mark.parametrize("text", ["", "[]", "null", '{"name": "x", "what": 1}', b"\xff", "{" * 10_000])
def test_what_is_no_plan_is_refused(text):
    with pytest.raises(PolicyError, match="not the plan"):
        plans.parse(text)


def test_unknown_fields_are_refused():
    fields = msgspec.to_builtins(planned()) | {"sise": 3}
    with pytest.raises(PolicyError, match="sise"):
        plans.parse(msgspec.json.encode(fields))


def test_the_ramp_gives_the_candidates_a_part_of_their_shares():
    plan = planned(variants=_variants((0.4, ""), (0.4, "b"), (0.2, "c")), ramp=(0.1, 1.0))
    assert plan.shares(0) == pytest.approx((0.94, 0.04, 0.02))
    assert plan.shares(1) == pytest.approx((0.4, 0.4, 0.2))


def test_an_unknown_variant_is_named_with_those_there_are():
    with pytest.raises(PolicyError, match="no variant 'c'; it has usual, b"):
        planned().variant("c")


@pytest.mark.parametrize(
    ("shares", "ramp"),
    [((1e-7, 0.5, 0.5000005), (1.0,)), ((0.5, 0.5), (5e-324, 1.0)), ((0.9999999, 1e-310), (1e-20, 1.0))],
)
def test_every_variant_has_a_share_at_every_stage(shares, ramp):
    variants = [Variant(f"v{at}", share, action=f"a{at}") for at, share in enumerate(shares)]
    with pytest.raises(PolicyError, match="at every stage of the ramp"):
        planned(variants=tuple(variants), ramp=ramp)


@pytest.mark.parametrize("wrong", [{"hypothesis": "\ud800"}, {"owner": "\udfff"}, {"point": "a\ud800"}])
def test_half_characters_are_refused(wrong):
    with pytest.raises(PolicyError, match="half a character"):
        planned(**wrong)
    with pytest.raises(PolicyError, match="half a character"):
        planned(variants=(Variant("usual", 0.5), Variant("b", 0.5, action="\ud800")))
