"""What one worker counts by itself since it began, as plain numbers that another worker can show as well."""

from __future__ import annotations

import os
import resource
from pathlib import Path
from typing import Final

import msgspec

from windlass.ledger.commit import Pace

OVERHEAD_BOUNDS_S: Final = (0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0)
"""Upper bounds of the buckets of our own overhead, in seconds."""
STATES: Final = ("closed", "half_open", "open")
"""What a breaker is, by the number that stands for it."""
MOST_BREAKERS_TOLD: Final = 200


class Process(msgspec.Struct, frozen=True):
    """What the system says of this process. 0 where it does not say."""

    resident_bytes: int
    cpu_s: float
    open_fds: int
    most_fds: int


class BreakerFigure(msgspec.Struct, frozen=True, order=True):
    """A breaker. state: the place in `STATES`; breakers that hold nothing against their model are not told of."""

    provider: str
    model: str
    state: int


class LimitFigure(msgspec.Struct, frozen=True, order=True):
    """How much of a limit the group that has least left uses and holds, as a share; of one measure."""

    limit: str
    measure: str
    share: float


class WorkerFigures(msgspec.Struct, frozen=True, kw_only=True):
    """One worker. at, started: UTC seconds. overhead: how many calls took at most each of `OVERHEAD_BOUNDS_S`, apart
    from the time of providers; overhead_calls, overhead_s: all of them."""

    worker: str
    at: float
    started: float
    in_flight: int
    streams: dict[str, int]
    responses: dict[int, int]
    refused: dict[str, int]
    overhead: tuple[int, ...]
    overhead_calls: int
    overhead_s: float
    breakers: tuple[BreakerFigure, ...]
    limits: tuple[LimitFigure, ...]
    pace: Pace
    process: Process


def process() -> Process:
    """This process as it is now."""
    used, most = resource.getrusage(resource.RUSAGE_SELF), resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    try:
        resident = int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
        # One of them is the folder that is being listed.
        fds = len(os.listdir("/proc/self/fd")) - 1
    except (OSError, ValueError, IndexError):  # no Linux
        resident, fds = 0, 0
    return Process(resident, used.ru_utime + used.ru_stime, fds, 0 if most == resource.RLIM_INFINITY else most)
