"""Limits of time and errors: simulated hours of calls through the guard `service` of the registry, two models alike.

One of them, `a`, has a share of late calls from hour 3 to hour 6; before and after, and always of `b`, 2 of 100 calls
are late, where 5 of 100 may be. Calls come at random times (Poisson). Everything is as by default.

- `minutes_to_leave_<calls an hour>_<late share>`: the median until `a` is left out; nothing where it never is.
- `bad_hours_share_<..>`: the share of the calls of hours 3.5 to 6 that went to `a`, where none left out gives 0.5.
- `minutes_to_return_<..>`: the median from hour 6 on until `a` is taken again for good.
- `healthy_left_out_share`: of the time of all streams in which `b` is left out. `at_limit_left_out_share`: the same of
  models of which exactly 5 of 100 calls are late, the worst that still keep the limit; 1 - confidence bounds it.
"""

from __future__ import annotations

import sys

import numpy as np

from benchmarks.common import Figures, Options, run
from windlass.policies import registry
from windlass.policies.policy import Policy
from windlass.policies.served import Served
from windlass.policies.slo_terms import SloOptions
from windlass.records import Decision

ACTIONS = ("a", "b")
HOUR_S = 3_600.0
HOURS = 12
BAD = (3 * HOUR_S, 6 * HOUR_S)
LIMIT_MS = 3_000.0
FINE, LATE = Served(1_000.0, failed=False), Served(4_000.0, failed=False)
USUAL = 0.02
Timeline = list[tuple[float, str, bool, bool]]
"""Of each call when it came (s), who answered, and whether `a` and `b` were left out after it."""


def guarded() -> Policy:
    return registry.guarded(registry.make("split", {}), [("service", {"max_latency_ms": LIMIT_MS})], 0.02)


def stream(seed: int, per_hour: int, bad: float, usual: float = USUAL) -> Timeline:
    rng, policy, at, found = np.random.default_rng(seed), guarded(), 0.0, []
    for number in range(per_hour * HOURS):
        at += float(rng.exponential(HOUR_S / per_hour))
        choice = policy.choose({}, ACTIONS, rng)
        late = bad if choice.action == "a" and BAD[0] <= at < BAD[1] else usual
        made = Decision(
            id=f"decision_{number}",
            at=at,
            call=f"call_{number}",
            point="model",
            policy="split@1",
            actions=ACTIONS,
            action=choice.action,
            propensity=float(choice.propensity),
            live=True,
        )
        policy.serve(made, LATE if rng.random() < late else FINE, None)  # type: ignore[attr-defined]
        first, second = policy.probabilities({}, ACTIONS).tolist()
        found.append((at, choice.action, first < 0.1, second < 0.1))
    return found


def hours(figures: Figures, count: int, seed: int) -> list[float]:
    """The figures of each rate and each share of late calls; how long `b` was left out in each stream."""
    healthy = []
    for per_hour in (20, 100, 1_000):
        for bad in (0.15, 0.5, 1.0):
            name = f"{per_hour}_{bad:g}"
            leaves, taken, returns = [], [], []
            for number in range(max(count // (10 if per_hour > 100 else 1), 2)):
                found = stream(seed + number, per_hour, bad)
                left = [at for at, _, out, _ in found if out and at >= BAD[0]]
                leaves.append((left[0] - BAD[0]) / 60.0 if left else np.inf)
                after = [at for at in left if at >= BAD[1]]
                returns.append((after[-1] - BAD[1]) / 60.0 if after else 0.0)
                taken += [action == "a" for at, action, _, _ in found if BAD[0] + HOUR_S / 2 <= at < BAD[1]]
                healthy.append(float(np.mean([out for _, _, _, out in found])))
            if np.isfinite(np.median(leaves)):
                figures.metrics[f"minutes_to_leave_{name}"] = float(np.median(leaves))
            figures.metrics[f"minutes_to_return_{name}"] = float(np.median(returns))
            figures.mean(f"bad_hours_share_{name}", taken, seed)
    return healthy


def measure(options: Options) -> Figures:
    figures = Figures()
    healthy = hours(figures, 4 if options.quick else 40, options.seed)
    figures.mean("healthy_left_out_share", healthy, options.seed)
    worst = [
        float(np.mean([one or other for _, _, one, other in stream(options.seed + number, 300, 0.05, 0.05)]))
        for number in range(3 if options.quick else 20)
    ]
    figures.mean("at_limit_left_out_share", worst, options.seed)
    figures.target("at_limit_left_out_share", f"<= {2.0 * (1.0 - SloOptions().confidence):.2g}")
    return figures


if __name__ == "__main__":
    sys.exit(run("slo", measure))
