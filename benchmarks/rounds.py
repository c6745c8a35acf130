"""Interleaved rounds of load over several gateways: of each, CPU time a request and what the load saw."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks import load
from benchmarks.contenders import Contender
from benchmarks.load import Sample
from benchmarks.machine import Cores, cpu_s
from benchmarks.upstream import Upstream

LIBRARY = "tensorzero"


@dataclass(frozen=True)
class Cell:
    """One kind of load. at_once: the events of a stream come without a pause."""

    connections: int = 32
    kilobytes: int = 1
    streamed: bool = False
    at_once: bool = False

    def name(self, metric: str) -> str:
        """The metric's name for this load."""
        kind = "sse_at_once_" if self.at_once else "sse_" if self.streamed else ""
        one = "_c1" if self.connections == 1 else ""
        return f"{kind}{metric}{one}{'' if self.kilobytes == 1 else f'_{self.kilobytes}kb'}"


PLAIN, SSE, AT_ONCE = Cell(), Cell(streamed=True), Cell(streamed=True, at_once=True)
ALONE, SSE_ALONE = Cell(1), Cell(1, streamed=True)
SMALL = (PLAIN, SSE, AT_ONCE, ALONE, SSE_ALONE)
LARGE = tuple(Cell(32, size, kind) for size in (16, 64) for kind in (False, True))


@dataclass(frozen=True)
class Plan:
    """How much: rounds, seconds of load of each contender and cell in each, but at least so many requests.

    everybody: whether the large bodies are sent to all, or to us alone.
    """

    rounds: int
    seconds: float
    least: int
    everybody: bool


@dataclass(frozen=True)
class Seen:
    """One round: CPU microseconds a request of the gateway and of the upstream; a library has no sample."""

    cpu_us: float
    upstream_us: float = 0.0
    sample: Sample = field(default_factory=Sample)


Measured = dict[tuple[str, Cell], list[Seen]]


@dataclass
class Bench:
    """What runs while the rounds go on. library: TensorZero in a process of its own, without HTTP."""

    upstream: Upstream
    on: Cores
    folder: Path
    running: list[Contender] = field(default_factory=list)
    library: Contender | None = None
    _rates: dict[tuple[str, Cell], float] = field(default_factory=dict)

    def rounds(self, plan: Plan, ours: tuple[str, ...], cells: tuple[Cell, ...] = (*SMALL, *LARGE)) -> Measured:
        """All rounds. ours: who gets the large bodies in any case."""
        seen: Measured = {}
        for _ in range(plan.rounds):
            for cell in cells:
                everybody = plan.everybody or cell in SMALL
                for contender in self.running:
                    if everybody or contender.name in ours:
                        seen.setdefault((contender.name, cell), []).append(self._round(contender, cell, plan))
                if everybody and self.library is not None:
                    seen.setdefault((LIBRARY, cell), []).append(self._called(self.library, cell, plan))
        return seen

    def _round(self, contender: Contender, cell: Cell, plan: Plan) -> Seen:
        sending = contender.request(cell.kilobytes, streamed=cell.streamed, at_once=cell.at_once)
        warm = cell.connections + 4
        if (contender.name, cell) not in self._rates:
            sample = load.drive(contender.port, sending, warm, cell.connections, streamed=cell.streamed)
            self._rates[contender.name, cell] = sample.rate
        count = max(plan.least, cell.connections, int(plan.seconds * self._rates[contender.name, cell]))
        before = self._clocks(contender)
        sample = load.drive(contender.port, sending, count, cell.connections, streamed=cell.streamed)
        upstream, gateway = (
            1e6 * (now - was) / count for now, was in zip(self._clocks(contender), before, strict=True)
        )
        self._rates[contender.name, cell] = sample.rate
        return Seen(gateway, upstream, sample)

    def _clocks(self, contender: Contender) -> tuple[float, float]:
        return cpu_s(self.upstream.pid), cpu_s(contender.pid) if contender.running else 0.0

    def _called(self, library: Contender, cell: Cell, plan: Plan) -> Seen:
        """The process reads its own CPU clock, and takes off what its loop costs."""
        assert library.running is not None, "the library is in a process"
        words = f"{cell.connections} {cell.kilobytes} {int(cell.streamed)} {int(cell.at_once)}"
        if (LIBRARY, cell) not in self._rates:
            began, count = time.perf_counter(), cell.connections + 4
            library.running.ask(f"{count} {words}")
            self._rates[LIBRARY, cell] = count / (time.perf_counter() - began)
        count = max(plan.least, cell.connections, int(plan.seconds * self._rates[LIBRARY, cell]))
        return Seen(1e6 * float(library.running.ask(f"{count} {words}")) / count)
