"""The clusters of a workspace's prompts, as people and programs see them: named by example prompts, with what the
policy predicts at the center of each.

What is cached holds no word of a prompt; the examples are read from the kept bodies each time, so that what has been
forgotten, or not been kept, is not shown.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal, cast

import msgspec

from windlass.errors import LedgerError, RequestError
from windlass.gateway.access.admission import Caller
from windlass.gateway.dialects.readers import UNREADABLE
from windlass.gateway.gateway import POINT
from windlass.gateway.prompt import question
from windlass.gateway.wire import parse_chat
from windlass.improve.grading.cases import GRADED, MOST_BYTES
from windlass.policies.policy import Arm
from windlass.records import Call, Scope
from windlass.runtime import Runtime
from windlass.server import terminal
from windlass.server.held import held
from windlass.server.reading import ClustersAsked, read
from windlass.server.routing import Expected, expected, speaking
from windlass.watch.clustering import LEAST, Answering, Cluster, Clustered

Arguments = dict[str, Any]
PATIENCE_S: Final = 0.2
EXAMPLES: Final = 2
EXAMPLE_CHARS: Final = 160


class Member(msgspec.Struct, frozen=True, kw_only=True):
    """One model in a cluster: what its calls came to, and what is predicted of it at the center now.

    share: of the cluster's calls. half_width: of the 95 % interval of the mean quality. predicted, sd: quality;
    expected_nusd: cost; None where the policy says nothing of it.
    """

    model: str
    calls: int
    share: float
    cost_nusd: float | None
    graded: int
    quality: float | None
    half_width: float | None
    predicted: float | None = None
    sd: float | None = None
    expected_nusd: float | None = None


class Named(msgspec.Struct, frozen=True, kw_only=True):
    """One cluster. examples: the prompts nearest to its center, as far as they are kept; words: how its prompts differ
    from the others."""

    number: int
    name: str
    examples: tuple[str, ...]
    words: str
    calls: int
    share: float
    cost_nusd: float | None
    models: tuple[Member, ...]


async def clusters(runtime: Runtime, caller: Caller, arguments: Arguments) -> dict[str, Any]:
    """The clusters of the newest prompts whose model was chosen: calls, shares, quality and cost by model, and what
    the policy predicts at each center."""
    asked = read(arguments, ClustersAsked)
    scope = speaking(caller, asked.tenant, asked.workspace).scope
    return await asyncio.to_thread(_told, runtime, scope, await runtime.clusters.of(scope))


async def shown(runtime: Runtime, scope: Scope) -> dict[str, Any]:
    """`clusters` for a page, which waits for nothing."""
    try:
        found = await runtime.clusters.within(scope, PATIENCE_S)
    except LedgerError as exc:
        return {"clusters": [], "missing": f"they cannot be made now: {exc}"}
    if found is None:
        return {"clusters": [], "missing": "they are being made; look again in a moment"}
    return await asyncio.to_thread(_told, runtime, scope, found)


def _told(runtime: Runtime, scope: Scope, found: Clustered) -> dict[str, Any]:
    return {
        "tenant": scope.tenant,
        "workspace": scope.workspace,
        "policy": runtime.loop.policy_id(POINT),
        "at": found.at,
        "age_s": max(0.0, runtime.clock() - found.at),
        "choices": found.choices,
        "since": found.since,
        "embedded": found.embedded,
        "featuriser": found.featuriser,
        "missing": missing(runtime, found),
        "clusters": [msgspec.to_builtins(one) for one in _named(runtime, scope, found)],
    }


def missing(runtime: Runtime, found: Clustered) -> str:
    """Why there are no clusters, "" where there are."""
    if found.clusters:
        return ""
    if not found.choices:
        return 'no call has left the choice of its model open yet; send some with "model": "auto"'
    has = f"{found.embedded} of the newest {found.choices} choices hold the numbers of their prompt"
    if found.embedded >= LEAST:
        return f"{has}, but not all of one length"
    if runtime.router is None:
        return f"{has}: no policy at the point {POINT} reads prompts; joint_thompson does, or set routing.embedding"
    if runtime.router.vectors.embedder is None:
        return f"{has}: prompts are not embedded here; `pip install windlass[embeddings]`, and see routing.embedding"
    basis = f"the first {runtime.router.bases.wanted} different prompts of a workspace make the basis of these numbers"
    return f"{has}, and it takes {LEAST}: {basis}"


def _named(runtime: Runtime, scope: Scope, found: Clustered) -> list[Named]:
    total = sum(cluster.calls for cluster in found.clusters)
    taken: set[str] = set()
    return [
        _one(runtime, scope, number, cluster, total, taken) for number, cluster in enumerate(found.clusters, start=1)
    ]


def _one(runtime: Runtime, scope: Scope, number: int, cluster: Cluster, total: int, taken: set[str]) -> Named:
    examples = _examples(runtime, scope, cluster.nearest, taken)
    known = _predicted(runtime, scope, cluster)
    bare = f"Cluster {number}: {cluster.words}" if cluster.words else f"Cluster {number}"
    return Named(
        number=number,
        name=" / ".join(f"“{one}”" for one in examples) or bare,
        examples=examples,
        words=cluster.words,
        calls=cluster.calls,
        share=cluster.calls / total,
        cost_nusd=cluster.cost_nusd,
        models=tuple(_member(one, cluster.calls, known.get(one.model)) for one in cluster.models),
    )


def _predicted(runtime: Runtime, scope: Scope, cluster: Cluster) -> Mapping[str, Expected]:
    """What the policy of the scope believes at the center of a cluster now, by model."""
    context = {**cluster.context, **cluster.listed_nusd}
    actions = tuple(one.model for one in cluster.models)
    arms: Sequence[Arm] = runtime.loop.explain(POINT, scope, context, actions)
    costs = held(runtime.loop, scope, context, actions).expected_nusd if arms else ()
    return {one.model: one for one in expected(arms, context, costs)}


def _member(one: Answering, calls: int, known: Expected | None) -> Member:
    return Member(
        **msgspec.structs.asdict(one),
        share=one.calls / calls,
        predicted=None if known is None else known.quality,
        sd=None if known is None else known.sd,
        expected_nusd=None if known is None else known.expected_nusd,
    )


def _examples(runtime: Runtime, scope: Scope, calls: Sequence[Call], taken: set[str]) -> tuple[str, ...]:
    """The first prompts of these calls that are kept and differ, also from those `taken` before."""
    found: list[str] = []
    for call in calls:
        text = _prompt(runtime, scope, call)
        if text and text not in taken:
            taken.add(text)
            found.append(text)
        if len(found) == EXAMPLES:
            break
    return tuple(found)


def _prompt(runtime: Runtime, scope: Scope, call: Call) -> str:
    """What a call asked, as it is kept, in one line; "" where it is not."""
    kept = next((body.data for body in runtime.ledger.bodies(scope, call.id) if body.role == "request"), b"")
    if not kept or len(kept) > MOST_BYTES:
        return ""
    try:
        text = _asked(call, kept)
    except (RequestError, *UNREADABLE):
        return ""
    line = " ".join(terminal.clean(text).split())
    return line if len(line) <= EXAMPLE_CHARS else f"{line[: EXAMPLE_CHARS - 1].rstrip()}…"


def _asked(call: Call, request: bytes) -> str:
    if call.endpoint not in GRADED:
        return ""
    if call.endpoint == "chat":
        return question(parse_chat(request).messages)
    from windlass.gateway import foreign  # brings all dialects, for calls in one of them

    read_as = foreign.read(cast(Literal["responses", "messages"], call.endpoint), request, call.at)
    return question(read_as.messages) if isinstance(read_as, foreign.Foreign) else ""
