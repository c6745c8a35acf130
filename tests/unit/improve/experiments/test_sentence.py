"""The one sentence: what it says of each state, and that it claims no more than was found."""

from __future__ import annotations

import msgspec
import pytest
from tests.unit.improve.experiments.counted import Counted
from tests.unit.improve.experiments.test_verdict import THREE, alone
from tests.unit.policies.trials.test_plan import planned

from windlass.improve.experiments.sentence import sentence
from windlass.improve.experiments.verdict import view
from windlass.improve.experiments.view import AlarmView, ComparisonView, LookView
from windlass.policies.trials.plan import Guardrail


def changed(seen, one, *, units=1_487, **fields):
    """`seen` with another comparison of its primary metric, at a look of so many units."""
    primary = msgspec.structs.replace(seen.metrics[0], comparisons=(one,))
    look = LookView(one.variant, 1.0, units, units / seen.size, 3.0, 2.0, one.estimate, one.low, one.high)
    fields = {"metrics": (primary, *seen.metrics[1:]), "looks": (look,), "leader": one.variant} | fields
    return msgspec.structs.replace(seen, **fields)


@pytest.fixture(scope="module")
def seen():
    return view(Counted(alone(size=2_000)).run(20, (0.5, 0.5)))


@pytest.mark.parametrize(
    ("one", "fields", "said"),
    [
        (
            ComparisonView("B", 1_490, 1_487, "better", 3.14, 1.2, 5.0),
            {"decision": "better"},
            "B is better by 3.1 points, 95 % interval 1.2 to 5.0, after 1,487 calls each; there are no guardrails.",
        ),
        (
            ComparisonView("B", 1_490, 1_487, "worse", -3.14, -5.0, -1.2),
            {"decision": "worse"},
            "B is worse by 3.1 points, 95 % interval 1.2 to 5.0, after 1,487 calls each.",
        ),
        (
            ComparisonView("B", 1_490, 1_487, "open", 1.2, -0.8, 3.2),
            {"decision": "open"},
            "Not decided yet after 1,487 of 2,000 planned calls each: B's quality is 1.2 points higher, 95 % interval "
            "-0.8 to 3.2.",
        ),
        (
            ComparisonView("B", 1_490, 1_487, "undecided", -0.04, -2.0, 2.1),
            {"decision": "undecided", "state": "stopped"},
            "Nothing was decided after 1,487 of 2,000 planned calls each: B's quality is 0.04 points lower, 95 % "
            "interval -2.1 to 2.0; it was stopped.",
        ),
        (
            ComparisonView("B", 1_490, 1_487, "better", 3.14, 1.2, 5.0),
            {"decision": "harmful", "state": "rolled back"},
            "B is better by 3.1 points, 95 % interval 1.2 to 5.0, after 1,487 calls each, but its latency is worse "
            "than its guardrail accepts; it was rolled back.",
        ),
        (
            ComparisonView("B", 1_490, 1_487, "better"),
            {"decision": "better", "state": "shipped", "shipped": "B", "unit": "user"},
            "B is better, after 1,487 users each; there are no guardrails; B was shipped.",
        ),
    ],
)
def test_what_was_found(seen, one, fields, said):
    if fields["decision"] == "harmful":
        broken = msgspec.structs.replace(
            seen.metrics[0], metric="latency", role="guardrail", comparisons=(ComparisonView("B", 9, 9, "worse"),)
        )
        seen = msgspec.structs.replace(seen, metrics=(*seen.metrics, broken))
        primary = msgspec.structs.replace(seen.metrics[0], comparisons=(one,))
        fields = fields | {"metrics": (primary, broken)}
    assert sentence(changed(seen, one, **fields)) == said


@pytest.mark.parametrize(
    ("metric", "unit", "said"),
    [
        (
            "latency",
            "ratio",
            "B is better: its latency is 10.0 % lower, 95 % interval 5.0 to 15.0, after 40 calls each",
        ),
        ("cost", "ratio", "B is better: its cost is 10.0 % lower, 95 % interval 5.0 to 15.0, after 40"),
        ("error", "points", "B is better: its error rate is 0.9 points lower, 95 % interval 0.8 to 0.9, after 40"),
    ],
)
def test_of_other_metrics_it_says_which(seen, metric, unit, said):
    one = ComparisonView("B", 40, 40, "better", *((0.9, 0.85, 0.95) if unit == "ratio" else (-0.9, -0.95, -0.85)))
    told = changed(seen, one, units=40, decision="better")
    primary = msgspec.structs.replace(told.metrics[0], metric=metric, unit=unit)
    assert sentence(msgspec.structs.replace(told, metrics=(primary,))).startswith(said)


class TestWhatIsNotKnown:
    def test_nothing_was_assigned(self):
        assert view(Counted(alone()).trial).sentence == "Nothing is known: no call was assigned."
        trial = Counted(alone()).trial
        trial.end("stopped", 2.0)
        assert view(trial).sentence == "Nothing is known: no call was assigned; it was stopped."

    def test_the_ramp_decides_nothing(self):
        counted = Counted(planned(unit="session"))
        counted.trial.enter(0, 0.0)
        assert view(counted.trial).sentence == "Nothing is known: no session was assigned."
        counted.call(1, 1.0, unit=5)
        assert view(counted.trial).sentence == (
            "Nothing is decided at 10 % of the shares, stage 1 of 2, which found no harm so far."
        )

    def test_metrics_that_never_arrive(self):
        counted = Counted(alone())
        for number in range(300):
            counted.call(number % 2)
        assert view(counted.trial).sentence == (
            "Nothing is decided: of 300 calls no quality is known, which comes from feedback on the calls."
        )
        counted.call(0, 1.0)
        assert view(counted.trial).sentence == (
            "Nothing is decided: of 150 calls of b no quality is known, which comes from feedback on the calls."
        )

    def test_before_the_first_look(self):
        counted = Counted(alone(size=1_000))
        for number in range(84):
            counted.call(number % 2, 0.5)
        said = "Not decided yet: 42 of 1,000 planned calls each are known, and the first look is at 100."
        assert view(counted.trial).sentence == said

    def test_a_sample_ratio_that_cannot_be(self):
        counted = Counted(alone())
        for number in range(1_000):
            counted.call(0 if number % 10 < 7 else 1, 0.5)
        assert view(counted.trial).sentence == (
            "Nothing is decided, as the shares are not those that were planned: 700 to usual and 300 to b of 1,000 "
            "calls, planned were 50 %, 50 %; find out why before believing any number."
        )

    def test_harm_is_said_before_anything_else(self, seen):
        alarmed = msgspec.structs.replace(
            seen, alarm=AlarmView("B", "latency", 43, 1.0), state="alarmed", decision="harmful", withheld=True
        )
        assert sentence(alarmed) == "B was rolled back for harm in latency after 43 calls of it."
        one = msgspec.structs.replace(alarmed, alarm=AlarmView("B", "error", 1, 1.0), unit="user")
        assert sentence(one) == "B was rolled back for harm in error rate after 1 user of it."


class TestGuardrailsAndOthers:
    def test_guardrails_hold_where_it_was_shown(self):
        held = alone(guardrails=(Guardrail("quality"), Guardrail("latency", 0.5)))
        assert view(Counted(held).run(1_000, (0.5, 0.8))).sentence.endswith("; guardrails hold.")
        guarded = alone(guardrails=(Guardrail("quality"), Guardrail("error"), Guardrail("latency")))
        said = view(Counted(guarded).run(1_000, (0.5, 0.8))).sentence
        assert said.endswith("; no harm was found in error rate and latency.")

    def test_the_other_candidates_are_named_with_the_level(self):
        said = view(Counted(alone(variants=THREE)).run(1_600, (0.6, 0.85, 0.6))).sentence
        assert "b is better by " in said
        assert "97.5 % interval" in said
        assert said.endswith("; there are no guardrails; c is not shown to differ.")
