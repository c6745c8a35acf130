"""Run every benchmark with `--quick` and write docs/reference/benchmarks.md from what they print."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "reference" / "benchmarks.md"
NAMES = ("ledger", "ask", "retrieval", "gateway", "routing", "floor", "replay", "slo", "personal", "experiment")


def main() -> int:
    """Exit status: the worst of the benchmarks'."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data")
    parser.add_argument("--full", action="store_true", help="all orders instead of --quick")
    options = parser.parse_args()
    worst, parts = (
        0,
        ["# Benchmarks\n", "Printed by `make bench`; ratios and shares travel between machines, times do not.\n"],
    )
    for name in NAMES:
        status, printed = _run(name, options.data, quick=not options.full)
        worst = max(worst, status)
        if printed:
            parts.append(_section(printed))
    PAGE.write_text("\n".join(parts))
    return worst


def _run(name: str, data: Path, *, quick: bool) -> tuple[int, dict[str, Any]]:
    command = [sys.executable, "-m", f"benchmarks.{name}", "--json", "--data", str(data.resolve())]
    done = subprocess.run([*command, *(["--quick"] if quick else [])], cwd=ROOT, stdout=subprocess.PIPE, check=False)
    found: dict[str, Any] = json.loads(done.stdout) if done.stdout.strip() else {}
    return done.returncode, found


def _section(printed: dict[str, Any]) -> str:
    peers = list(printed["peers"])
    lines = [
        f"## {printed['benchmark']}\n",
        f"Seed {printed['seed']}; {printed['machine']}.\n",
        f"| metric | value | spread |{''.join(f' {peer} |' for peer in peers)} target |",
        f"|---|---|---|{'---|' * len(peers)}---|",
    ]
    for metric, value in printed["metrics"].items():
        spread = f"{printed['spread'][metric]:.3g}" if metric in printed["spread"] else ""
        beside = "".join(f" {_figure(printed['peers'][peer].get(metric))} |" for peer in peers)
        target = printed["targets"].get(metric)
        promise = f"{target['bound']}: {'holds' if target['holds'] else 'does not hold'}" if target else ""
        lines.append(f"| `{metric}` | {_figure(value)} | {spread} |{beside} {promise} |")
    lines += [f"\n{note}" for note in printed["notes"]]
    return "\n".join(lines) + "\n"


def _figure(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"


if __name__ == "__main__":
    sys.exit(main())
