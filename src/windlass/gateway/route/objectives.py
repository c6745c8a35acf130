"""What one call is routed for: what the settings say for its tenant, key and endpoint, and what the request asks for.

Policies read it from names of the context that begin with `objective:`, which no model learns from.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import msgspec

from windlass.errors import AccessError, ErrorCategory, RequestError
from windlass.gateway.access.admission import Caller
from windlass.gateway.route.options import OBJECTIVES, Objective, ObjectiveOptions

PREFIX = "objective:"
FLOOR = f"{PREFIX}quality_percent"
OBJECTIVE_HEADER = "x-windlass-objective"
FLOOR_HEADER = "x-windlass-quality-floor"
SHOWN_CHARS = 40
_ANY = ObjectiveOptions(locked=True)


class Wish(msgspec.Struct, frozen=True):
    """What a request itself asks to be routed for. quality_floor: percent of the reference model's quality."""

    objective: Objective | None = None
    quality_floor: float | None = None


def wish(objective: str, floor: str) -> Wish | None:
    """The two headers as a wish, None where both are empty. RequestError (400) for a value that is none."""
    if not (objective or floor):
        return None
    wanted = next((known for known in OBJECTIVES if known == objective.strip().lower()), None)
    if objective and wanted is None:
        known = f"{', '.join(OBJECTIVES[:-1])} or {OBJECTIVES[-1]}"
        has = f"{OBJECTIVE_HEADER} is {objective[:SHOWN_CHARS]!r}; give {known}"
        raise RequestError(has, param=OBJECTIVE_HEADER)
    return Wish(wanted, _percent(floor) if floor else None)


def _percent(text: str) -> float:
    try:
        percent = float(text)
    except ValueError:
        percent = math.nan
    if not 0.0 < percent <= 100.0:
        has = f"{FLOOR_HEADER} is {text[:SHOWN_CHARS]!r}; give percent of the reference model's quality, such as 95"
        raise RequestError(has, param=FLOOR_HEADER)
    return percent


def aims(options: Sequence[ObjectiveOptions], asked: Wish | None, caller: Caller, endpoint: str) -> dict[str, float]:
    """The names of the context that tell policies what a call is routed for; none where nobody says anything.

    What a request asks for goes before the settings, each of the two by itself. AccessError where the settings are
    locked for this caller.
    """
    ruling = next((one for one in options if _fits(one, caller, endpoint)), _ANY)
    if asked is not None and ruling.locked and ruling is not _ANY:
        has = f"key {caller.key!r} may not choose what its calls are routed for; leave out {OBJECTIVE_HEADER}"
        raise AccessError(f"{has} and {FLOOR_HEADER}", category=ErrorCategory.SCOPE_DENIED)
    wanted = asked or Wish()
    objective = wanted.objective or ruling.objective
    floor = ruling.quality_floor if wanted.quality_floor is None else wanted.quality_floor
    found = {f"{PREFIX}{objective}": 1.0} if objective else {}
    if floor is not None:
        found[FLOOR] = floor
    return found


def _fits(options: ObjectiveOptions, caller: Caller, endpoint: str) -> bool:
    scope = caller.scope
    asked = (options.tenant, options.workspace, options.endpoint, options.key)
    found = (scope.tenant, scope.workspace, endpoint, caller.key)
    return all(name in ("", is_) for name, is_ in zip(asked, found, strict=True))
