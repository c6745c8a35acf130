"""What can be set about one grader: `[graders.<name>]`; the name is the metric of the feedback that it gives."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from msgspec import Meta

Name = Annotated[str, Meta(pattern=r"^[a-z][a-z0-9_]{0,63}\Z")]


class GraderOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One grader, which looks at finished calls in the folder's server.

    check: which one it is, by its name in the registry or of a plugin; empty: the name of the table. options: its own.
    share: of the calls, chosen by their ids. timeout_s: so long one grade may take. answers: a file of JSON lines with
    `question` and `expected` or `tests`, for calls whose metadata brings none. daily_usd: what a judge may spend in a
    UTC day, all tenants together; it takes one that is above 0. labels: so many calls with a person's value and the
    judge's are needed before its values are calibrated.
    """

    check: str = ""
    options: dict[str, Any] = {}
    share: Annotated[float, Meta(ge=0.0, le=1.0)] = 1.0
    timeout_s: Annotated[float, Meta(gt=0.0, le=600.0)] = 20.0
    answers: str = ""
    daily_usd: Annotated[float, Meta(ge=0.0, le=1e6)] = 0.0
    labels: Annotated[int, Meta(ge=20, le=100_000)] = 50
