"""What can be set about routing: what calls are routed for, and how their prompts are embedded."""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

import msgspec
from msgspec import Meta

Objective: TypeAlias = Literal["cheapest", "balanced", "best"]
OBJECTIVES: tuple[Objective, ...] = ("cheapest", "balanced", "best")
Percent = Annotated[float, Meta(gt=0, le=100)]
Milliseconds = Annotated[float, Meta(gt=0, le=86_400_000)]
Quantile = Annotated[float, Meta(ge=0.5, le=0.999)]
ErrorPercent = Annotated[float, Meta(gt=0, lt=100)]


class ObjectiveOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What some calls are routed for. The first that fits a call holds.

    tenant, workspace, endpoint, key: which calls; what is left empty fits all of them. objective: `cheapest`,
    `balanced` or `best`; empty: as the policy's own options say. quality_floor: percent of the quality of the
    reference model. max_latency_ms, latency_quantile, max_error_percent: in the place of those of `routing`. locked:
    requests may not ask for another one.
    """

    tenant: str = ""
    workspace: str = ""
    endpoint: str = ""
    key: str = ""
    objective: Objective | Literal[""] = ""
    quality_floor: Percent | None = None
    max_latency_ms: Milliseconds | None = None
    latency_quantile: Quantile | None = None
    max_error_percent: ErrorPercent | None = None
    locked: bool = False

    def __post_init__(self) -> None:
        limits = (self.max_latency_ms, self.latency_quantile, self.max_error_percent)
        if not self.objective and self.quality_floor is None and not self.locked and limits == (None, None, None):
            raise ValueError("an objective sets nothing; give objective, quality_floor, a limit or locked")


class RoutingOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How calls for `auto` are routed by policies that read prompts and prices.

    embedding: `auto` embeds prompts where a policy at the point `model` learns costs apart from quality
    (`joint_thompson`), `always` whatever the policy, `off` never. embedding_timeout_ms: so long a call waits for the
    vector of its prompt, and goes on without it. basis_prompts: of so many different prompts of a workspace the basis
    is made that turns vectors into 64 numbers. prefix_minutes: so long a provider is taken to hold the beginning of a
    conversation that one of its models has answered. objectives: what calls are routed for.
    max_latency_ms: a model of which it is shown that it takes longer is left out, all but a small share of the calls:
    until the first token of a stream, until the whole of another answer. latency_quantile: the share of a model's calls
    that must keep it. max_error_percent: so many of a model's calls may fail; one that is shown to fail oftener is left
    out likewise. personalise: learn by how much each user rates a model above or below what is expected of it, as far
    as users differ at all.
    warm_start_prompts: so many prompts of each workspace, from now on, also go to every other model that could have
    been chosen, whose answers no client sees; graders say how good they are, so it takes one. 0: none.
    warm_start_budget_usd: all that this may cost, all tenants together; it takes one that is above 0.
    """

    embedding: Literal["auto", "always", "off"] = "auto"
    embedding_timeout_ms: Annotated[float, Meta(gt=0, le=10_000)] = 50.0
    basis_prompts: Annotated[int, Meta(ge=64, le=4_096)] = 64
    prefix_minutes: Annotated[float, Meta(ge=0, le=1_440)] = 5.0
    objectives: tuple[ObjectiveOptions, ...] = ()
    max_latency_ms: Milliseconds | None = None
    latency_quantile: Quantile = 0.95
    max_error_percent: ErrorPercent | None = None
    personalise: bool = False

    @property
    def limits_calls(self) -> bool:
        """Whether any call must keep a limit of time or of errors."""
        named = [(one.max_latency_ms, one.max_error_percent) for one in self.objectives]
        return any(one != (None, None) for one in ((self.max_latency_ms, self.max_error_percent), *named))

    warm_start_prompts: Annotated[int, Meta(ge=0, le=10_000)] = 0
    warm_start_budget_usd: Annotated[float, Meta(ge=0.0, le=1e6)] = 0.0

    def __post_init__(self) -> None:
        if self.warm_start_prompts and self.warm_start_budget_usd <= 0.0:
            wanted = f"warm_start_prompts is {self.warm_start_prompts}, and each is asked of every model for money"
            raise ValueError(f"{wanted}; set warm_start_budget_usd above 0 (`windlass warm plan` says how much)")
