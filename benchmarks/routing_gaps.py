"""APGR: routers of two models held to shares of strong calls, online; ours by its budget, LinUCB by ranking."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

import numpy as np

from benchmarks import routing_reference, routing_streams
from benchmarks.routing_metrics import Chosen, Point, Table, apgr, point, ranked
from benchmarks.routing_runs import LINUCB, Numbers, Where, prices, streamed
from benchmarks.routing_sets import STRONG, WEAK
from benchmarks.routing_streams import Contender, Stream, World, play
from windlass.policies.policy import identity
from windlass.records import Decision

STRONG_NUSD = 1_000_000.0
"""What a strong call costs where the share of strong calls is the cost; a weak one is free."""
WINDOW, FEWEST = 256, 10
"""Calls among which LinUCB's lead is ranked; with fewer than `FEWEST` the share is drawn."""


def gaps(where: Where, ours: Contender) -> Numbers:
    """APGR, whole and in the last third, of ours, LinUCB and the full-information router; cost and quality of ours."""
    on = streamed(where)
    quality = on.world.quality
    shares = where.shares
    runs = [_strong_share(on, quality, ours, share, where.key) for share in shares]
    lower = [ranked_online(LINUCB, on, quality, share, where.key) for share in shares]
    known = routing_reference.informed(where.folder, where.set).quality[on.rows]
    upper = [ranked(known[:, STRONG] - known[:, WEAK], share) for share in shares]
    areas = _areas(ours.name, quality, runs) | _areas(LINUCB.name, quality, lower)
    return areas | _areas("full_information", quality, upper) | prices(on, runs)


def permuted(where: Where, ours: Contender) -> Numbers:
    """APGR where the rewards belong to other prompts, so that nothing can be learned of a prompt."""
    on = streamed(where)
    moved = np.random.default_rng([where.seed, where.order, 1]).permutation(len(on.rows))
    quality = on.world.quality[moved]
    return _areas(ours.name, quality, [_strong_share(on, quality, ours, share, where.key) for share in where.shares])


def _strong_share(on: Stream, quality: Table, ours: Contender, share: float, key: int) -> Chosen:
    """Ours, paced to a share of strong calls: a budget in a world where only they cost anything."""
    cost = np.zeros_like(quality)
    cost[:, STRONG] = STRONG_NUSD
    return play(ours, on, World(quality, cost, cost, (0, 0), share * STRONG_NUSD), key)


def _areas(name: str, quality: Table, runs: Sequence[Chosen]) -> Numbers:
    late = 2 * len(quality) // 3
    whole: list[Point] = [point(quality, chosen) for chosen in runs]
    last = [point(quality[late:], chosen[late:]) for chosen in runs]
    return {f"apgr {name}": apgr(whole), f"apgr_last_third {name}": apgr(last)}


def ranked_online(contender: Contender, on: Stream, quality: Table, share: float, key: int) -> Chosen:
    """A linear policy that knows no budget, held to a share of strong calls by ranking: (n,).

    The strong model is taken where its bound leads by more than in all but `share` of the last calls, this one among
    them; the share is what is left of the whole over what is left of the calls.
    """
    policy, chosen = contender.made(), np.empty(len(quality), np.intp)
    alpha = float(contender.options.get("alpha", 1.0))
    rng = np.random.default_rng([key, round(share * 100)])
    leads: deque[float] = deque(maxlen=WINDOW)
    models, left = on.set.models, share * len(quality)
    for call, context in enumerate(on.contexts[contender.view]):
        weak, strong = ((arm.mean or 0.0) + alpha * (arm.sd or 0.0) for arm in policy.explain(context, models))
        # A ten millionth of chance, so that equal leads are told apart.
        leads.append(strong - weak + 1e-7 * rng.random())
        wanted = min(max(left / (len(quality) - call), 0.0), 1.0)
        place = STRONG if sum(lead > leads[-1] for lead in leads) < wanted * len(leads) else WEAK
        if len(leads) < FEWEST:
            place = STRONG if rng.random() < wanted else WEAK
        chosen[call], left = place, left - place
        policy.learn(_decided(call, models, place, context, identity(policy)), float(quality[call, place]), None)
    return chosen


def _decided(call: int, models: tuple[str, ...], place: int, context: routing_streams.Named, name: str) -> Decision:
    return Decision(
        id=f"decision_{call}", at=float(call), call=f"call_{call}", point="model", policy=name,
        actions=models, action=models[place], propensity=1.0, live=True, context=context,
    )  # fmt: skip
