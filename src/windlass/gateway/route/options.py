"""What can be set about routing: what calls are routed for, and how their prompts are embedded."""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

import msgspec
from msgspec import Meta

Objective: TypeAlias = Literal["cheapest", "balanced", "best"]
OBJECTIVES: tuple[Objective, ...] = ("cheapest", "balanced", "best")
Percent = Annotated[float, Meta(gt=0, le=100)]


class ObjectiveOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What some calls are routed for. The first that fits a call holds.

    tenant, workspace, endpoint, key: which calls; what is left empty fits all of them. objective: `cheapest`,
    `balanced` or `best`; empty: as the policy's own options say. quality_floor: percent of the quality of the
    reference model. locked: requests may not ask for another one.
    """

    tenant: str = ""
    workspace: str = ""
    endpoint: str = ""
    key: str = ""
    objective: Objective | Literal[""] = ""
    quality_floor: Percent | None = None
    locked: bool = False

    def __post_init__(self) -> None:
        if not self.objective and self.quality_floor is None and not self.locked:
            raise ValueError("an objective sets nothing; give objective, quality_floor or locked")


class RoutingOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How calls for `auto` are routed by policies that read prompts and prices.

    embedding: `auto` embeds prompts where a policy at the point `model` learns costs apart from quality
    (`joint_thompson`), `always` whatever the policy, `off` never. embedding_timeout_ms: so long a call waits for the
    vector of its prompt, and goes on without it. basis_prompts: of so many different prompts of a workspace the basis
    is made that turns vectors into 64 numbers. prefix_minutes: so long a provider is taken to hold the beginning of a
    conversation that one of its models has answered. objectives: what calls are routed for.
    """

    embedding: Literal["auto", "always", "off"] = "auto"
    embedding_timeout_ms: Annotated[float, Meta(gt=0, le=10_000)] = 50.0
    basis_prompts: Annotated[int, Meta(ge=64, le=4_096)] = 64
    prefix_minutes: Annotated[float, Meta(ge=0, le=1_440)] = 5.0
    objectives: tuple[ObjectiveOptions, ...] = ()
