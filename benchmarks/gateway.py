"""The gateway: CPU time of a request, added latency, memory and start, against LiteLLM's proxy and TensorZero.

Rounds are interleaved: the upstream itself, Windlass with its default transport and with `turbo`, the peers; gateway,
load and upstream have a core of their own, and go before other work of the machine where that is allowed. What every
gateway has on is told in contenders.py. CPU time is the scheduler's, over the process tree.

Plain names mean a body of 1 kB at 32 connections, `_c1` one connection, `_16kb` and `_64kb` larger bodies; `sse_` is a
stream of 32 events, 1 ms apart, `sse_at_once_` the same events without a pause. A ratio is the mean over the rounds.
`added_p50_ms` and `ttft_added_ms` are at one connection, less the same without a gateway. `_tensorzero` is its gateway
as a library of Python programs, less the loop that calls it; `_tensorzero_http` the same gateway over HTTP, under the
same load as the others. Parts that can be run by themselves: gateway_routed.py (`cpu_us_joint`, `cpu_us_embed`),
gateway_scaling.py (`scaling_2_workers`, PostgreSQL) and gateway_growth.py (`growth_mb_per_million` over 200,000
requests, which takes the full run).
"""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from statistics import median

import numpy as np

from benchmarks import contenders, load
from benchmarks.common import Figures, Options, run
from benchmarks.contenders import Contender, Home
from benchmarks.gateway_bench import FULL, OURS, QUICK, note, prepared
from benchmarks.gateway_growth import growth
from benchmarks.gateway_routed import embedding, joint
from benchmarks.gateway_scaling import scaling
from benchmarks.load import Sample
from benchmarks.machine import pin, rss_mb
from benchmarks.peers import PeerMissing
from benchmarks.rounds import ALONE, AT_ONCE, LIBRARY, PLAIN, SSE, SSE_ALONE, Bench, Cell, Measured
from windlass.gateway.options import ProviderOptions

DIRECT, TURBO, LITELLM, SERVED = "direct", "turbo", "litellm", "tensorzero_http"
CANCELS, CANCELS_QUICK, GONE_S = 200, 20, 5.0
BOUNDS = {
    "cpu_ratio_litellm": 1 / 60,
    "turbo_cpu_ratio_litellm": 1 / 130,
    "cpu_ratio_tensorzero": 1.5,
    "turbo_cpu_ratio_tensorzero": 0.8,
    "sse_cpu_ratio_tensorzero": 0.6,
    "turbo_sse_cpu_ratio_tensorzero": 0.3,
    "added_p50_ms": 0.45,
    "turbo_added_p50_ms": 0.3,
}
STARTS_QUICK, STARTS = 1, 5


def measure(options: Options) -> Figures:
    """All of it; without a peer's environment its figures are absent, and the promises about them do not hold."""
    plan, figures = QUICK if options.quick else FULL, Figures()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # what runs is stopped, whoever ends this
    with prepared() as bench, ExitStack() as stack:
        # It takes ten seconds, so it does so on a core that nobody needs yet.
        starting = stack.enter_context(ThreadPoolExecutor(1))
        slow = starting.submit(contenders.litellm, bench.folder, bench.upstream.port, [bench.on.upstream])
        homes = {OURS: Home(bench.folder / OURS, bench.upstream.port)}
        if "transport" in ProviderOptions.__struct_fields__:
            homes[TURBO] = Home(bench.folder / TURBO, bench.upstream.port, transport=TURBO)
        else:
            note("turbo is absent: the settings know no transport of that name")
        _started(figures, bench, homes, STARTS_QUICK if options.quick else STARTS, stack)
        _peers(bench, figures, slow, stack)
        seen = bench.rounds(plan, (OURS, TURBO))
        _compared(figures, seen, options.seed)
        _cancels(figures, bench, CANCELS_QUICK if options.quick else CANCELS)
        for name, limit in BOUNDS.items():
            if TURBO in homes or not name.startswith(TURBO):
                figures.target(name, f"<= {limit:.6g}")
        _prove(seen)
        ours = next(one for one in bench.running if one.name == OURS)
        joint(figures, bench, ours, plan, options.seed)
        if not options.quick:
            growth(figures, ours)
    embedding(figures)
    scaling(figures, options)
    return figures


def _started(figures: Figures, bench: Bench, homes: dict[str, Home], starts: int, stack: ExitStack) -> None:
    """Start ours, the default a few times; memory is looked at before any load but the first answer."""
    took = []
    for _ in range(starts - 1):
        first = homes[OURS].up(OURS, [bench.on.gateway])
        took.append(first.start_s)
        first.stop()
    for name, home in homes.items():
        made = home.up(name, [bench.on.gateway])
        stack.callback(made.stop)
        bench.running.append(made)
        if name == OURS:
            took.append(made.start_s)
            time.sleep(1.0)
            figures.metrics["rss_mb"] = rss_mb(made.pid)
            figures.metrics["start_s"] = median(took)
            figures.target("rss_mb", "<= 90")
            figures.target("start_s", "<= 1")


def _peers(bench: Bench, figures: Figures, slow: Future[Contender], stack: ExitStack) -> None:
    """Take in LiteLLM's proxy, which began to start long ago, and TensorZero's gateway in both its forms."""
    where = bench.folder, bench.upstream.port, [bench.on.gateway]
    makers: dict[str, Callable[[], Contender]] = {
        LITELLM: slow.result,
        SERVED: lambda: contenders.tensorzero(SERVED, *where),
        LIBRARY: lambda: contenders.tensorzero(LIBRARY, *where, "embedded"),
    }
    for name, make in makers.items():
        try:
            made = make()
        except (PeerMissing, OSError) as exc:
            note(f"{name} is absent: {exc}")
            continue
        stack.callback(made.stop)
        pin(made.pid, where[2])
        if name == LIBRARY:
            bench.library = made
        else:
            bench.running.append(made)
        figures.peers[name] = {"start_s": made.start_s, "rss_mb": rss_mb(made.pid)}
    note(f"peers: {', '.join((*contenders.LITELLM, contenders.TENSORZERO[0]))}. {contenders.__doc__}")


def _compared(figures: Figures, seen: Measured, seed: int) -> None:
    for (name, cell), rounds in seen.items():
        used = [one.cpu_us for one in rounds]
        if name in (OURS, TURBO):
            figures.mean(cell.name("cpu_us" if name == OURS else "cpu_us_turbo"), used, seed)
        elif name != DIRECT:
            figures.peers[name][cell.name("cpu_us")] = float(np.mean(used))
    for prefix, ours in (("", OURS), ("turbo_", TURBO)):
        for peer in (LITELLM, LIBRARY, SERVED):
            for cell in (PLAIN, SSE, AT_ONCE):
                pairs = zip(seen.get((ours, cell), ()), seen.get((peer, cell), ()), strict=False)
                if ratios := [mine.cpu_us / theirs.cpu_us for mine, theirs in pairs]:
                    figures.mean(f"{prefix}{cell.name('cpu_ratio')}_{peer}", ratios, seed)
    for name in (OURS, TURBO, LITELLM, SERVED):
        _latency(figures, seen, name, seed)


def _latency(figures: Figures, seen: Measured, name: str, seed: int) -> None:
    """What a gateway adds at one connection, round by round."""
    metrics: Sequence[tuple[str, Cell, Callable[[Sample], float]]] = (
        ("added_p50_ms", ALONE, lambda sample: sample.latency_ms(0.5)),
        ("ttft_added_ms", SSE_ALONE, lambda sample: sample.first_ms(0.5)),
    )
    for metric, cell, read in metrics:
        pairs = list(zip(seen.get((name, cell), ()), seen[(DIRECT, cell)], strict=False))
        added = [read(with_it.sample) - read(without.sample) for with_it, without in pairs]
        if added and name in (OURS, TURBO):
            figures.mean(f"turbo_{metric}" if name == TURBO else metric, added, seed)
        elif added:
            figures.peers[name][metric] = float(np.mean(added))


def _prove(seen: Measured) -> None:
    """Say how far the upstream is from being what limits the others."""
    for cell, kind in ((PLAIN, "answers"), (SSE, "streams")):
        for (name, of), rounds in seen.items():
            if of != cell or name == LIBRARY:
                continue
            rate = float(np.mean([one.sample.rate for one in rounds]))
            used = float(np.mean([one.upstream_us for one in rounds]))
            share = f"{rate * used / 1e4:.1f} % of a core"
            note(f"{name}: {rate:.0f} {kind}/s; the upstream took {used:.0f} us each, {share}")


def _cancels(figures: Figures, bench: Bench, count: int) -> None:
    """From a client's leaving in the middle of a stream to the upstream's seeing it."""
    for contender in bench.running:
        if contender.name not in (OURS, TURBO):
            continue
        sending, took = contender.request(1, streamed=True), []
        for _ in range(count):
            number = len(bench.upstream.gone_ns)
            left = load.leave(contender.port, sending, 1_000)
            seen = bench.upstream.left(number, GONE_S)
            took.append(GONE_S * 1000 if seen is None else (seen - left) / 1e6)
        name = "cancel_p99_ms" if contender.name == OURS else "turbo_cancel_p99_ms"
        figures.metrics[name] = float(np.quantile(took, 0.99))
        figures.target(name, "<= 50")


if __name__ == "__main__":
    sys.exit(run("gateway", measure))
