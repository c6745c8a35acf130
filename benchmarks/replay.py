"""Replay: whether off-policy intervals hold the truth, how far off values are, and whether poor logs refuse to answer.

Each routing set knows what every model would have answered, so the value of any policy is known. A replay draws 5,000
of its prompts (with replacement: calls like these), lets a policy of the registry choose with its own dice, keeps of
each prompt the answer of the chosen model alone, and asks `windlass.policies.evaluation` about another policy. Two
pairs a set: a context-free mix is logged and a fixed model asked about; a contextual learner is logged and one that
learned something else from other prompts asked about. Figures are over quality and cost; `_<set>`, `_quality`, `_cost`
and `_change` (the difference to what was logged) show each, `_sure` the intervals that hold for any size. Where there
is no overlap: a model that was never chosen, one tenth of the choices on it, one that chance chose too seldom, one that
a guard left out on half of the prompts, a log without dice.

The bounds of coverage are held against 1,000 intervals; the 40 of `--quick` cannot tell 0.93 from 0.99.
"""

from __future__ import annotations

import sys
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks import routing_sets
from benchmarks.common import Figures, Options, run
from benchmarks.routing_sets import SETS, RoutingSet
from windlass.policies import registry
from windlass.policies.evaluation import Judgement, evaluate
from windlass.policies.logged import Logged
from windlass.policies.policy import Choice, Guard, Policy
from windlass.records import ContextValue, Decision
from windlass.stats import offpolicy
from windlass.stats.basis import Basis
from windlass.stats.features import Context
from windlass.stats.offpolicy import Estimate, Floats

LOGGED = 5_000
REPLAYS, REPLAYS_QUICK = 50, 2
"""Of each pair; there are two a set."""
TAUGHT = 400
"""Prompts that a learner has learned from before it is frozen."""
FITTED = 256
NONE, NONE_QUICK = 6, 1
"""Of each log that cannot tell; there are five a set."""
SHORT = {
    "inverse propensity": "ips",
    "self-normalised": "snips",
    "direct": "dm",
    "doubly robust": "dr",
    "self-normalised doubly robust": "sndr",
    "SWITCH": "switch",
    "DRos": "dros",
}


class Remembered(Guard):
    """A policy of the registry that is asked about each prompt once: the replays ask about the same ones."""

    def __init__(self, policy: Policy, table: Floats, contexts: Sequence[Context]) -> None:
        super().__init__(policy)
        self.table = table
        self._rows = {id(context): row for context, row in zip(contexts, table, strict=True)}

    def probabilities(self, context: Context, actions: Sequence[str]) -> Floats:
        row: Floats = self._rows[id(context)]
        return row

    def choose(self, context: Context, actions: Sequence[str], rng: np.random.Generator) -> Choice:
        return self.policy.choose(context, actions, rng)


@dataclass(frozen=True)
class World:
    """A set with its contexts as the gateway would make them: lexical, 64 numbers of the embedding, expected costs."""

    set: RoutingSet
    contexts: tuple[dict[str, ContextValue], ...]

    def asked(self, name: str, options: dict[str, object], share: float) -> Remembered:
        """A rule of the registry."""
        return self.frozen(registry.guarded(registry.make(name, options), [], share))

    def learned(self, seed: int, price: float, share: float) -> Remembered:
        """A learner that was taught full of chance, with quality less `price` of a relative cost as its reward."""
        policy = registry.guarded(registry.make("linear_thompson", {}), [], share)
        rng = np.random.default_rng(seed)
        models, costs = self.set.models, self.set.cost_nusd / self.set.cost_nusd[:, self.set.best].mean()
        for row in rng.choice(len(self.contexts), TAUGHT, replace=False):
            arm = int(rng.integers(len(models)))
            reward = float(np.clip(self.set.quality[row, arm] - price * costs[row, arm], 0.0, 1.0))
            policy.learn(_decision(models, arm, 1.0 / len(models), self.contexts[row], f"{seed} {row}"), reward, None)
        return self.frozen(policy)

    def frozen(self, policy: Policy) -> Remembered:
        """`policy` with what it answers to every prompt."""
        table = np.array([policy.probabilities(context, self.set.models) for context in self.contexts])
        return Remembered(policy, table, self.contexts)

    def log(self, chances: Floats, seed: int) -> list[Logged]:
        """5,000 choices by `chances`: (n, k) of every prompt; recorded with these chances."""
        rng = np.random.default_rng(seed)
        rows = rng.integers(0, len(self.contexts), LOGGED)
        arms = _drawn(chances[rows], rng)
        quality, cost, models = self.set.quality, self.set.cost_nusd, self.set.models
        return [
            Logged(
                _decision(models, arm, float(chances[row, arm]), self.contexts[row], str(place)),
                float(quality[row, arm]),
                float(cost[row, arm]),
            )
            for place, (row, arm) in enumerate(zip(rows.tolist(), arms.tolist(), strict=True))
        ]


def world(folder: Path, name: str) -> World:
    """A set and its contexts. The basis is fitted on the first prompts."""
    whole = routing_sets.load(folder, name)
    numbers = Basis.fit(whole.embeddings[:FITTED]).transform(whole.embeddings)
    prices = [f"cost_nusd:{model}" for model in whole.models]
    contexts = tuple(
        {**words, "embedding": tuple(numbers[row].tolist()), **dict(zip(prices, whole.price_nusd[row], strict=True))}
        for row, words in enumerate(whole.lexical)
    )
    return World(whole, contexts)


def measure(options: Options) -> Figures:
    """Coverage, relative error and refusals on all sets; the estimators of obp to rounding."""
    figures = Figures()
    hits: dict[str, list[float]] = defaultdict(list)
    errors: dict[str, list[float]] = defaultdict(list)
    refused: dict[str, list[float]] = defaultdict(list)
    for number, name in enumerate(SETS):
        on = world(options.path("routing"), name)
        seed = 1_000_000 * options.seed + 10_000 * number
        for logging, target in _pairs(on, seed):
            for replay in range(REPLAYS_QUICK if options.quick else REPLAYS):
                _replayed(on, logging, target, seed + replay, hits, errors, refused)
        for replay in range(NONE_QUICK if options.quick else NONE):
            refused["low_ess"] += [float(one) for one in _without_overlap(on, seed + replay)]
    for key, found in sorted(hits.items()):
        figures.metrics[f"interval_coverage{key}"] = float(np.mean(found))
        figures.spread[f"interval_coverage{key}"] = float(np.std(found) / np.sqrt(len(found)))
    for key, gone in sorted(errors.items()):
        figures.metrics[f"relative_rmse{key}"] = float(np.sqrt(np.mean(np.square(gone))))
    figures.metrics["refused_share_low_ess"] = float(np.mean(refused["low_ess"]))
    figures.metrics["refused_share_covered"] = float(np.mean(refused["covered"]))
    _peers(figures)
    figures.metrics["obp_error_max"] = _obp(options.path("statistics", "ope_obp.json"))
    figures.metrics["interval_missed"] = 1.0 - figures.metrics["interval_coverage"]
    if not options.quick:
        figures.target("interval_coverage", ">= 0.93")
        figures.target("interval_missed", ">= 0.025")
    figures.target("refused_share_low_ess", ">= 1")
    figures.target("obp_error_max", "<= 1e-09")
    return figures


def _pairs(on: World, seed: int) -> Iterator[tuple[Remembered, Remembered]]:
    """(who chose, who is asked about)."""
    models = on.set.models
    shares: dict[str, object] = {"shares": {model: 1.0 + place for place, model in enumerate(models)}}
    yield on.asked("split", shares, 0.1), on.asked("fixed", {"action": models[on.set.best]}, 0.02)
    yield on.learned(seed + 1, 0.0, 0.5), on.learned(seed + 2, 0.5, 0.02)


def _replayed(
    on: World,
    logging: Remembered,
    target: Remembered,
    seed: int,
    hits: dict[str, list[float]],
    errors: dict[str, list[float]],
    refused: dict[str, list[float]],
) -> None:
    """One replay, into the lists of what is measured."""
    found = evaluate(on.log(logging.table, seed), target)
    for quantity, table, answer in (
        ("quality", on.set.quality, found.quality),
        ("cost", on.set.cost_nusd, found.cost),
    ):
        truth, was = (float((policy.table * table).sum(axis=1).mean()) for policy in (target, logging))
        refused["covered"].append(float(bool(answer.refused)))
        if answer.value is None or answer.change is None:
            continue
        for key in ("", f"_{quantity}", f"_{on.set.name}"):
            hits[key].append(_holds(answer.value, truth))
            errors[key].append(answer.value.value / truth - 1.0)
        hits["_change"].append(_holds(answer.change, truth - was))
        _beside(answer, truth, quantity, hits, errors)


def _beside(
    answer: Judgement, truth: float, quantity: str, hits: dict[str, list[float]], errors: dict[str, list[float]]
) -> None:
    for name, estimate in answer.values.items():
        hits[f"|{name}"].append(_holds(estimate, truth))
        errors[f"|{name}"].append(estimate.value / truth - 1.0)
    if answer.sure is not None:
        hits["_sure"].append(float(answer.sure[0] <= truth <= answer.sure[1]))


def _without_overlap(on: World, seed: int) -> Iterator[bool]:
    """Whether each log that cannot tell refuses both of its answers."""
    models, best = on.set.models, on.set.best
    count, k = len(on.contexts), len(models)
    fixed = on.asked("fixed", {"action": models[best]}, 0.0)
    tenth = on.asked("fixed", {"action": models[(best + 1) % k]}, 0.0)
    tenth.table[:, best], tenth.table[:, (best + 1) % k] = 0.1, 0.9
    others = np.full((count, k), 1.0 / (k - 1))
    others[:, best] = 0.0
    thin = 0.998 * others
    thin[:, best] = 0.002
    half, mixed = np.arange(count) % 2 == 0, np.full((count, k), 1.0 / k)
    mixed[half] = others[half]
    sure = np.zeros((count, k))
    sure[np.arange(count), (np.arange(count) + best) % k] = 1.0
    for chances, target in ((others, fixed), (others, tenth), (thin, fixed), (mixed, fixed), (sure, fixed)):
        found = evaluate(on.log(chances, seed), target)
        yield bool(found.quality.refused) and bool(found.cost.refused)


def _peers(figures: Figures) -> None:
    """Each estimator as a peer of the one that is told."""
    for name in [name for name in figures.metrics if "|" in name]:
        metric, _, estimator = name.partition("|")
        figures.peers.setdefault(SHORT[estimator], {})[metric] = figures.metrics.pop(name)
        figures.spread.pop(name, None)


def _obp(path: Path) -> float:
    """The largest difference to what obp 0.5.7 says of the same logs."""
    worst = 0.0
    for case in msgspec.json.decode(path.read_bytes())["cases"]:
        y, target, q = (np.array(case[name], np.float64) for name in ("reward", "eval_policy", "q_hat"))
        action = np.array(case["action"], np.intp)
        w = offpolicy.weights(target, action, np.array(case["pscore"], np.float64))
        found = {
            "ips": offpolicy.ips(w, y),
            "clipped_ips_lambda5": offpolicy.ips(np.minimum(w, 5.0), y),
            "snips": offpolicy.self_normalised(w, y),
            "dm": offpolicy.direct(target, q),
            "dr": offpolicy.doubly_robust(w, y, target, q, action),
            "sndr": offpolicy.self_normalised_dr(w, y, target, q, action),
            "switch_dr_tau5": offpolicy.switch(w, y, target, q, action, 5.0),
            "dr_shrink_lambda5": offpolicy.shrunk(w, y, target, q, action, 5.0),
        }
        worst = max(worst, *(abs(float(found[name].mean()) - value) for name, value in case["expected"].items()))
    return worst


def _holds(estimate: Estimate, truth: float) -> float:
    return float(estimate.low <= truth <= estimate.high)


def _drawn(chances: Floats, rng: np.random.Generator) -> NDArray[np.intp]:
    """One action for each row of `chances`: (n, k); never one of chance 0."""
    reached = rng.random((len(chances), 1)) * chances.sum(axis=1, keepdims=True) < chances.cumsum(axis=1)
    return np.asarray(reached.argmax(axis=1), np.intp)


def _decision(models: tuple[str, ...], arm: int, chance: float, context: Context, name: str) -> Decision:
    return Decision(
        id=name,
        at=0.0,
        call=name,
        point="model",
        policy="logging@1",
        actions=models,
        action=models[arm],
        propensity=chance,
        live=True,
        context=context if isinstance(context, dict) else dict(context),
    )


if __name__ == "__main__":
    sys.exit(run("replay", measure))
