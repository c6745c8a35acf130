"""What one call is routed for: what the settings say for its tenant, key and endpoint, and what the request asks for.

Policies read it from names of the context that begin with `objective:`, which no model learns from.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import msgspec

from windlass.errors import AccessError, ErrorCategory, RequestError
from windlass.gateway.access.admission import Caller
from windlass.gateway.route.options import OBJECTIVES, Objective, ObjectiveOptions, RoutingOptions
from windlass.policies.slo_terms import ERRORS, LATENCY, QUANTILE

PREFIX = "objective:"
FLOOR = f"{PREFIX}quality_percent"
OBJECTIVE_HEADER = "x-windlass-objective"
FLOOR_HEADER = "x-windlass-quality-floor"
LATENCY_HEADER = "x-windlass-max-latency-ms"
ERRORS_HEADER = "x-windlass-max-error-percent"
HEADERS = (OBJECTIVE_HEADER, FLOOR_HEADER, LATENCY_HEADER, ERRORS_HEADER)
"""In the order in which `wish` takes their values."""
SHOWN_CHARS = 40
MOST_LATENCY_MS, MOST_ERROR_PERCENT = 86_400_000.0, 99.9
_ANY = ObjectiveOptions(locked=True)


class Wish(msgspec.Struct, frozen=True):
    """What a request itself asks to be routed for. quality_floor: percent of the reference model's quality.
    max_latency_ms, max_error_percent: what models must keep."""

    objective: Objective | None = None
    quality_floor: float | None = None
    max_latency_ms: float | None = None
    max_error_percent: float | None = None

    @property
    def limits_calls(self) -> bool:
        return self.max_latency_ms is not None or self.max_error_percent is not None


def wish(objective: str, floor: str, latency: str = "", errors: str = "") -> Wish | None:
    """The headers as a wish, None where all are empty. RequestError (400) for a value that is none."""
    if not (objective or floor or latency or errors):
        return None
    wanted = next((known for known in OBJECTIVES if known == objective.strip().lower()), None)
    if objective and wanted is None:
        known = f"{', '.join(OBJECTIVES[:-1])} or {OBJECTIVES[-1]}"
        has = f"{OBJECTIVE_HEADER} is {objective[:SHOWN_CHARS]!r}; give {known}"
        raise RequestError(has, param=OBJECTIVE_HEADER)
    return Wish(
        wanted,
        _number(FLOOR_HEADER, floor, 100.0, "percent of the reference model's quality, such as 95"),
        _number(LATENCY_HEADER, latency, MOST_LATENCY_MS, "milliseconds until the first token, such as 3000"),
        _number(ERRORS_HEADER, errors, MOST_ERROR_PERCENT, "percent of a model's calls that may fail, such as 2"),
    )


def _number(header: str, text: str, most: float, meaning: str) -> float | None:
    """A header's number above 0; None where it is empty."""
    if not text:
        return None
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not 0.0 < number <= most:
        within = f"above 0 and up to {most:.10g}"
        raise RequestError(f"{header} is {text[:SHOWN_CHARS]!r}; give {meaning}, {within}", param=header)
    return number


def aims(options: Sequence[ObjectiveOptions], asked: Wish | None, caller: Caller, endpoint: str) -> dict[str, float]:
    """The names of the context that tell policies what a call is routed for; none where nobody says anything.

    What a request asks for goes before the settings, each of the two by itself. AccessError where the settings are
    locked for this caller.
    """
    ruling = _ruling(options, caller, endpoint)
    if asked is not None and ruling.locked and ruling is not _ANY:
        has = f"key {caller.key!r} may not choose what its calls are routed for; leave out {OBJECTIVE_HEADER}"
        others = f"{', '.join(HEADERS[1:-1])} and {HEADERS[-1]}"
        raise AccessError(f"{has}, {others}", category=ErrorCategory.SCOPE_DENIED)
    wanted = asked or Wish()
    objective = wanted.objective or ruling.objective
    floor = ruling.quality_floor if wanted.quality_floor is None else wanted.quality_floor
    found = {f"{PREFIX}{objective}": 1.0} if objective else {}
    if floor is not None:
        found[FLOOR] = floor
    return found


def limits(options: RoutingOptions, asked: Wish | None, caller: Caller, endpoint: str) -> dict[str, float]:
    """The names of the context that tell the guard `service` what a call must keep; none where nothing must be kept.

    What a request asks for goes before what its objective says, and that before what holds for all, each by itself.
    """
    ruling, wanted = _ruling(options.objectives, caller, endpoint), asked or Wish()
    latency_ms = _first(wanted.max_latency_ms, ruling.max_latency_ms, options.max_latency_ms)
    quantile = _first(ruling.latency_quantile, options.latency_quantile)
    errors = _first(wanted.max_error_percent, ruling.max_error_percent, options.max_error_percent)
    found = {} if latency_ms is None else {LATENCY: latency_ms, QUANTILE: quantile or options.latency_quantile}
    return found if errors is None else {**found, ERRORS: errors}


def _first(*given: float | None) -> float | None:
    return next((one for one in given if one is not None), None)


def _ruling(options: Sequence[ObjectiveOptions], caller: Caller, endpoint: str) -> ObjectiveOptions:
    return next((one for one in options if _fits(one, caller, endpoint)), _ANY)


def _fits(options: ObjectiveOptions, caller: Caller, endpoint: str) -> bool:
    scope = caller.scope
    asked = (options.tenant, options.workspace, options.endpoint, options.key)
    found = (scope.tenant, scope.workspace, endpoint, caller.key)
    return all(name in ("", is_) for name, is_ in zip(asked, found, strict=True))
