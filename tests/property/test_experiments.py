"""Experiments, whatever is handed in: a plan is read or refused, and what there is to see is plain JSON."""

from __future__ import annotations

import math

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from windlass.errors import InputError, PolicyError
from windlass.improve.experiments.reading import TEMPLATE, plan_of
from windlass.improve.experiments.verdict import view
from windlass.improve.experiments.view import ExperimentView
from windlass.policies.trials.plan import METRICS, Guardrail, Plan, Variant, spell
from windlass.policies.trials.tally import Assigned, begun, told

KEYS = st.sampled_from((*Plan.__struct_fields__, *Variant.__struct_fields__, "usual", "metric", "margin", "x"))
WORDS = st.sampled_from(("", "usual", "a", "b", "quality", "cost", "call", "user")) | st.text(max_size=5)
LEAVES = st.none() | st.booleans() | st.integers() | st.floats() | WORDS
TREES = st.recursive(
    LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=4), max_leaves=12
)
CALLS = st.tuples(
    st.integers(0, 2),
    st.none() | st.floats(0.0, 1.0),
    st.none() | st.integers(0, 10**15),
    st.none() | st.floats(0.0, 1e12),
    st.sampled_from(("", "boom")),
    st.integers(0, 6),
)
VARIANTS = (Variant("a", 0.4), Variant("b", 0.3, action="x"), Variant("c", 0.3, action="y"))


def read_or_refused(written):
    try:
        return plan_of(written)
    except (InputError, PolicyError):
        return None


@given(st.dictionaries(KEYS, TREES, max_size=8))
def test_any_mapping_is_a_plan_or_refused(written):
    plan = read_or_refused(written)
    assert plan is None or plan_of(spell(plan)) == plan


@given(st.text(max_size=200) | st.binary(max_size=200))
def test_any_text_is_a_plan_or_refused(written):
    read_or_refused(written)


@given(st.integers(0, len(TEMPLATE)), st.integers(0, 20), st.text(alphabet="{}[]:,-&*!?|>'\"#%@`~\n\t 0a.", max_size=8))
def test_a_template_with_a_slip_is_a_plan_or_refused(place, gone, typed):
    read_or_refused(TEMPLATE[:place] + typed + TEMPLATE[place + gone :])


@given(
    st.lists(CALLS, max_size=120),
    st.sampled_from(METRICS),
    st.sampled_from(("call", "session")),
    st.integers(1, 3),
    st.sampled_from(("running", "stopped")),
)
def test_whatever_was_told_can_be_seen(calls, primary, unit, times, state):
    secondary = tuple(metric for metric in METRICS if metric != primary)
    guarded = tuple(Guardrail(metric, 0.1) for metric in METRICS)
    plan = Plan(
        name="p",
        variants=VARIANTS,
        unit=unit,
        primary=primary,
        size=10,
        secondary=secondary,
        guardrails=guarded,
        ramp=(1.0,),
    )
    trial = begun(plan, 1, 0.0)
    for seq, (variant, quality, cost, ms, error, who) in enumerate(calls * times):
        number = who + 7 * variant if unit == "session" else None
        trial.assign(variant, number)
        trial.tell(seq, float(seq), Assigned(plan.id, variant, 0), told(quality, cost, ms, error), number)
    if state != "running":
        trial.end(state, 1e6)
    seen = view(trial)
    assert msgspec.json.decode(msgspec.json.encode(seen), type=ExperimentView) == seen
    for row in seen.metrics:
        for one in row.comparisons:
            if one.low is not None and one.estimate is not None:
                assert one.low <= one.estimate <= one.high
            assert one.p is None or 0.0 <= one.p <= 1.0
            assert all(
                value is None or math.isfinite(value) for value in (one.estimate, one.low, one.high, one.now_low)
            )
    assert seen.sentence.endswith(".")
    assert (seen.decision == "open") <= (seen.state == "running")
