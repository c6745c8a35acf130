"""What scipy and statsmodels say of the same inputs, beside what `windlass.stats.trials` says."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from windlass.stats.trials import corrections, means, planning, rates, splits
from windlass.stats.trials.rates import Rate

CLOSE = 1e-5
DIFFERENT: Mapping[str, str] = {
    "scipy.barnard_exact": "made for fewer units than an experiment has",
    "statsmodels.multipletests(hommel)": "Holm and Benjamini-Hochberg are what the reports use",
    "statsmodels.confint_proportions_2indep(diff,score)": "its bounds are a root that was looked for coarsely: at them "
    "the score statistic is up to 0.015 from the quantile, at ours below 1e-9",
    "samplesize_proportions_2indep_onetail": "called with half of a two-sided level, it halves it once more; with "
    "alpha = 0.025 ours is the same to 1e-9",
}
"""What differs, or is not there, on purpose."""
ONE = {
    "wilson": rates.wilson,
    "agresti_coull": rates.agresti_coull,
    "beta": rates.clopper_pearson,
    "jeffreys": rates.jeffreys,
    "normal": rates.normal,
}
TWO = {
    "wald": rates.wald,
    "agresti-caffo": rates.agresti_caffo,
    "newcomb": rates.newcombe,
    "score": rates.miettinen_nurminen,
}
ADJUSTED = {
    "bonferroni": corrections.bonferroni,
    "sidak": corrections.sidak,
    "holm-sidak": corrections.holm_sidak,
    "holm": corrections.holm,
    "simes-hochberg": corrections.hochberg,
    "fdr_bh": corrections.benjamini_hochberg,
    "fdr_by": corrections.benjamini_yekutieli,
}
Case = Mapping[str, Any]


def matched(path: Path) -> tuple[float, list[str]]:
    """The share of all cases that come out the same, and a sentence for each function of which some do not."""
    cases: list[Case] = json.loads(path.read_bytes())["cases"]
    missed: Counter[str] = Counter()
    for case in cases:
        if not _same(_ours(case, cases), _flat(case["expected"])):
            missed[case["fn"]] += 1
    known = Counter(case["fn"] for case in cases)
    notes = [
        f"{name}: {count} of {known[name]} differ: {DIFFERENT.get(name, 'no reason known')}."
        for name, count in sorted(missed.items())
    ]
    return 1.0 - missed.total() / len(cases), notes


def _same(ours: Sequence[float], theirs: Sequence[float]) -> bool:
    return len(ours) == len(theirs) and all(
        abs(x - y) <= CLOSE * max(1.0, abs(y)) or (math.isnan(x) and math.isnan(y))
        for x, y in zip(ours, theirs, strict=True)
    )


def _flat(expected: Any) -> list[float]:
    """The numbers of an expected result, in their order; of adjusted p-values those alone."""
    if isinstance(expected, Mapping):
        kept = {key: value for key, value in expected.items() if key not in ("reject", "stat")}
        return [number for value in kept.values() for number in _flat(value)]
    if isinstance(expected, list):
        return [number for value in expected for number in _flat(value)]
    return [float(expected)]


def _ours(case: Case, cases: Sequence[Case]) -> list[float]:
    """The same numbers by our functions; none where there is no such function."""
    name, given = case["fn"], case["in"]
    method = name.rstrip(")").replace("(", ",").split(",")[-1]
    for start, work in WORK.items():
        if start in name:
            return work(method, given, cases)
    return []


def _sample(given: Any, cases: Sequence[Case]) -> Mapping[str, Any]:
    """The two samples that a case is about; some refer to those of another."""
    while "a" not in given:
        given = cases[given.get("ref", given.get("x_of_ref"))]["in"]
    return {side: np.array(given[side]) for side in ("a", "b")}


def _two(given: Sequence[Any]) -> tuple[Rate, Rate]:
    if isinstance(given[0], list):
        return Rate(given[0][0], sum(given[0])), Rate(given[1][0], sum(given[1]))
    return Rate(given[0], given[1]), Rate(given[2], given[3])


def _welch(_method: str, given: Any, cases: Sequence[Case]) -> list[float]:
    sample = _sample(given, cases)
    found = means.welch(means.moments(sample["a"]), means.moments(sample["b"]))
    return [found.t, found.p, found.degrees, *found.interval]


def _quantile(_method: str, given: Any, cases: Sequence[Case]) -> list[float]:
    x = _sample(given, cases)["a"]
    return [means.quantile_test(x, given["q"], given["p"]), *means.quantile_interval(x, given["p"])]


def _effect_size(_method: str, given: Any, _cases: Sequence[Case]) -> list[float]:
    h = planning.effect_of_rates(given[0], given[1])
    return [h, planning.size_for_means(h, given[2], given[3])]


def _rank(test: Callable[..., tuple[float, float]]) -> Callable[[str, Any, Sequence[Case]], list[float]]:
    return lambda _method, given, cases: list(test(*_sample(given, cases).values()))


WORK: Mapping[str, Callable[[str, Any, Sequence[Case]], list[float]]] = {
    "proportions_ztest": lambda _m, given, _c: list(rates.z_test(*_two(given))),
    "chi2_contingency": lambda _m, given, _c: [rates.z_test(*_two(given))[1]],
    "fisher": lambda _m, given, _c: [rates.fisher(*_two(given))],
    "proportion_confint": lambda method, given, _c: list(ONE[method](Rate(*given))),
    "confint_proportions_2indep": lambda method, given, _c: list(TWO[method](*_two(given))),
    "ttest_ind": _welch,
    "mannwhitneyu": _rank(means.mann_whitney),
    "ks_2samp": _rank(means.kolmogorov_smirnov),
    "quantile_test": _quantile,
    "SRM": lambda _m, given, _c: [splits.chi_square(given["observed"], given["weights"])],
    "multipletests": lambda method, given, _c: list(ADJUSTED[method](np.array(given))) if method in ADJUSTED else [],
    "TTestIndPower": lambda _m, given, _c: [planning.power_of_means(*given)],
    "effectsize": _effect_size,
    "NormalIndPower": lambda _m, given, _c: [planning.size_for_means(*given)],
    "samplesize": lambda _m, given, _c: [planning.size_for_rates(given[1], given[0], given[3], given[2])],
}
"""By a part of the function's name, the first that is in it."""
