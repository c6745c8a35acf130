"""The bench of the gateway's benchmarks: the upstream on its core, the load in this process on another."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks import contenders
from benchmarks.load import Refused
from benchmarks.machine import cores, prefer
from benchmarks.rounds import Bench, Plan
from benchmarks.upstream import Upstream

REPLY_BYTES, EVENTS, GAP_US = 600, 32, 1_000
OURS = "windlass"
QUICK, FULL = Plan(2, 0.3, 12, everybody=False), Plan(5, 2.0, 60, everybody=True)


@contextmanager
def prepared() -> Iterator[Bench]:
    """A bench on which only the way past all gateways stands yet."""
    folder, on, before = Path(tempfile.mkdtemp(prefix="windlass-bench-")), cores(), os.sched_getaffinity(0)
    upstream = Upstream(folder, on.upstream, reply_bytes=REPLY_BYTES, events=EVENTS, gap_us=GAP_US)
    os.sched_setaffinity(0, [on.load])
    prefer(os.getpid())
    try:
        yield Bench(upstream, on, folder, [contenders.direct(upstream.port)])
    except (Refused, TimeoutError) as exc:
        raise OSError(f"an answer was wrong: {exc}") from exc
    finally:
        os.sched_setaffinity(0, before)
        prefer(os.getpid(), 0)
        upstream.stop()
        shutil.rmtree(folder)


def note(what: str) -> None:
    """A remark beside the figures."""
    print(f"gateway: {what}", file=sys.stderr)
