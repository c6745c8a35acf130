"""Plans as people write them: what is read, and that whatever is wrong is said with its key and in no time."""

from __future__ import annotations

import time

import msgspec
import pytest

from windlass.errors import InputError, PolicyError
from windlass.improve.experiments.reading import LIMIT_BYTES, TEMPLATE, plan_of
from windlass.policies.trials.plan import Guardrail, Variant, spell

SHORT = "name: a\nsize: 100\nvariants: {A: usual, B: {action: x}}\n"


class TestWhatIsRead:
    def test_the_template_is_a_plan(self):
        plan = plan_of(TEMPLATE)
        assert (plan.name, plan.size, plan.secondary, plan.ramp) == (
            "cheaper-model",
            1_000,
            ("cost", "latency"),
            (0.1, 1.0),
        )
        assert plan.variants == (Variant("as-usual", 0.5), Variant("small", 0.5, action="gpt-mini"))
        assert all(f"\n{key}:" in f"\n{TEMPLATE}" for key in plan.__struct_fields__)

    def test_a_plan_in_the_form_of_the_ledger_is_read_back(self):
        plan = plan_of(TEMPLATE)
        assert plan_of(spell(plan)) == plan_of(spell(plan).encode()) == plan_of(msgspec.to_builtins(plan)) == plan

    @pytest.mark.parametrize(
        "variants",
        [
            "{A: usual, B: {action: x}}",
            "{A: {usual: true}, B: {action: x, share: 0.5}}",
            "[{name: A, share: 0.5}, {name: B, action: x}]",
            "[{name: A, usual: true}, {name: B, action: x}]",
        ],
    )
    def test_variants_in_any_form(self, variants):
        plan = plan_of(f"name: a\nsize: 100\nvariants: {variants}\n")
        assert plan.variants == (Variant("A", 0.5), Variant("B", 0.5, action="x"))

    def test_shares_left_out_share_what_is_left(self):
        plan = plan_of(SHORT.replace("A: usual", "A: {share: 0.8}, C: {shadow: bold}"))
        assert [(one.name, round(one.share, 9)) for one in plan.variants] == [("A", 0.8), ("C", 0.1), ("B", 0.1)]

    @pytest.mark.parametrize(
        "written",
        [
            "{quality: 0.02, error: 0}",
            "[{metric: quality, margin: 0.02}, error]",
            "[{metric: quality, margin: 0.02}, {metric: error}]",
        ],
    )
    def test_guardrails_in_any_form(self, written):
        plan = plan_of(f"{SHORT}guardrails: {written}")
        assert plan.guardrails == (Guardrail("quality", 0.02), Guardrail("error"))

    def test_dates_are_words_and_no_guardrails_are_none(self):
        plan = plan_of(f"{SHORT}owner: 2026-13-45\nguardrails: []\n")
        assert (plan.owner, plan.guardrails) == ("2026-13-45", ())


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ("", "no list of"),
        ("[]", "no list of"),
        ("just words", "no list of"),
        (SHORT + "foo: 1", "the plan: key 'foo' is unknown"),
        (SHORT + "name: b", "key 'name' stands twice"),
        ('{"name": "a", "name": "b"}', "key 'name' stands twice"),
        (SHORT.replace("{action: x}", "{action: x, action: y}"), "key 'action' stands twice"),
        (SHORT.replace("{action: x}", "{action: x, shaer: 1}"), "variants.B: key 'shaer' is unknown"),
        (SHORT.replace("action: x", "action: x, shadow: y"), "variants.B: action and shadow; give one of"),
        (SHORT.replace("A: usual", "A: {usual: false}"), "variants.A: usual; give one of"),
        (SHORT.replace("A: usual", "A: 3"), "variants.A: write `usual`"),
        (SHORT.replace("A: usual", "A: {name: C}"), "variants.A: its name stands before it"),
        (SHORT.replace("A: usual", "1: usual"), "key '1' is no word"),
        ("name: a\nsize: 100\nvariants: [x]", "variants[0]: write"),
        ("name: a\nsize: 100\nvariants: 7", "variants: give one for each name"),
        ("size: 100\nvariants: {A: usual, B: {action: x}}", "missing required field `name`"),
        (SHORT + "alpha: .nan", "alpha: nan is no number"),
        (SHORT + "harm_alpha: -.inf", "harm_alpha: -inf is no number"),
        (SHORT + "ramp: [.nan, 1.0]", "ramp.0: nan is no number"),
        ('{"alpha": NaN}', "alpha: nan is no number"),
        (SHORT.replace("{action: x}", "{action: x, share: .nan}"), "variants.B.share: nan is no number"),
        (SHORT.replace("100", "9" * 4_000), "size: 99999999999999999999 is no number"),
        (SHORT.replace("100", "9" * 5_000), "neither YAML nor JSON"),
        (SHORT.replace("100", "'100'"), "size: expected `int`, got `str`; write a plain number"),
        (SHORT.replace("100", "yes"), "size: expected `int`, got `bool`"),
        (SHORT.replace("100", "10.5"), "size: expected `int`, got `float`"),
        (SHORT + "alpha: 1e-3", "alpha: expected `float`, got `str`; write a plain number"),
        (SHORT + "unit: planet", "unit: invalid enum value 'planet'"),
        (SHORT + "owner:", "owner: expected `str`, got `null`"),
        (SHORT + "secondary: cost", "secondary: expected `array`"),
        (SHORT + "guardrails: {speed: 1}", "guardrails: key 'speed' is unknown; known are quality, cost"),
        (SHORT + "guardrails: {quality: yes}", "guardrails[0].margin: expected `float`, got `bool`"),
        (SHORT + "guardrails: 3", "guardrails: give a margin"),
        (SHORT + "guardrails: [3]", "guardrails[0]: write"),
        (SHORT + "hypothesis: [[[[[[[1]]]]]]]", "nested too deeply"),
        (SHORT + "<<: {owner: x}", "key '<<' is unknown"),
        ("a: &x [1]\nb: *x", "a reference like *name"),
        ("a: !!python/object/apply:os.system [x]", "could not determine a constructor"),
        ("\x00", "neither YAML nor JSON"),
        (b"\xff\xfe", "neither YAML nor JSON"),
        ("\ud800: 1", "neither YAML nor JSON"),
        ("x" * (LIMIT_BYTES + 1), "give at most 65,536"),
        ({"name": "a", "size": float("nan")}, "size: nan is no number"),
        ({"variants": {"A": {"share": 10**400}, "B": {}}}, "is no number"),
        (f"size: 0x{'f' * 5_000}", "size: so large a number is no number"),
        ({1: 2}, "key '1' is unknown"),
        ({"variants": {1: {}}}, "variants[0].name: expected `str`"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said_with_its_key(written, said):
    with pytest.raises(InputError) as raised:
        plan_of(written)
    assert said in str(raised.value)


def test_what_no_plan_can_be_is_said_by_the_plan():
    with pytest.raises(PolicyError, match="the shares of the variants must sum to 1"):
        plan_of(SHORT.replace("A: usual", "A: {share: 0.9}").replace("action: x", "action: x, share: 0.9"))
    with pytest.raises(PolicyError, match="a metric is named twice"):
        plan_of(f"{SHORT}guardrails: [quality, quality]")


@pytest.mark.parametrize(
    "written",
    [
        "{" * 60_000, "[" * 60_000, "- " * 30_000, "? " * 30_000, "a: " * 20_000, "'" * 60_000, "#" * 60_000,
        "k: |\n" + " \n" * 30_000, '{"a": ' * 10_000, "&a " * 20_000,
        "\n".join(f"{number}" for number in range(12_000)),
        "\n".join(f"k{number}: 1" for number in range(6_000)), "{a: " * 199, "[" * 150 + "," * 60_000,
    ],
)  # fmt: skip
def test_nothing_takes_long_to_refuse(written):
    began = time.process_time()
    with pytest.raises(InputError):
        plan_of(written)
    assert time.process_time() - began < 5.0  # well below a second where nothing else runs
