"""The token estimate against real tokenizers: how far off, how often the reserve is too small, and how fast.

Texts: the half of the transcripts, prompts, code and languages that tools/tokens.py did not fit on, in seeded pieces of
40 to 8,000 characters. Truth: o200k_base, and for the reserve the largest count of four tokenizers; their vocabularies
come in litellm's wheel, which is unpacked, not installed, into `.peers/estimate`. Peer: four characters a token.
"""

from __future__ import annotations

import subprocess
import sys
import time
import zipfile
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tools import tokens
from tools.prices import LITELLM, fetched

from benchmarks.common import Figures, NotRunnable, Options, run
from windlass.gateway.money.estimate import estimate_tokens, reserve_tokens

KEPT = Path(__file__).resolve().parents[1] / ".peers" / "estimate"
FOLDER = "litellm/litellm_core_utils/tokenizers/"
MAIN = ("transcripts", "prompts", "code")
EACH, EACH_QUICK = 1_000, 250
SIZES = {"1kb": 1_000, "64kb": 65_536, "1mb": 1_000_000}
TRIES = 7


def measure(options: Options) -> Figures:
    """Errors by kind of text, the share of pieces that the reserve covers, megabytes a second of one core."""
    options.path("transcripts")
    counters = tokens.tokenizers(_vocabularies())
    tokens.RANDOM.seed(options.seed)
    kinds = tokens.texts(options.data, 1)
    some = [*tokens.pieces(kinds, EACH_QUICK if options.quick else EACH), *tokens.hostile(10)]
    counts = np.array([[count(text) for count in counters.values()] for _, text in some], np.float64)
    names = np.array(["language" if kind.startswith("language") else kind for kind, _ in some])
    guessed = np.array([[estimate_tokens(text), -(-len(text) // 4)] for _, text in some], np.float64)
    figures, peer = Figures(), Figures()
    for name in (*MAIN, "json", "language", "hostile"):
        mine = names == name
        for column, into in ((0, figures), (1, peer)):
            error = 100 * np.abs(guessed[mine, column] - counts[mine, 0]) / counts[mine, 0]
            into.metrics |= {f"{name}_median_pct": float(np.median(error))}
            into.metrics |= {f"{name}_p95_pct": float(np.percentile(error, 95))}
    _reserve(figures, some, counts, names)
    figures.peers["four_characters"] = peer.metrics
    _speed(figures, "\n".join(kinds["transcripts"]))
    for name, bound in (
        ("transcripts_median_pct", "<= 3"),
        ("transcripts_p95_pct", "<= 12"),
        ("reserve_covers_pct", ">= 99"),
        ("mb_per_s_64kb", ">= 50"),
    ):
        figures.target(name, bound)
    return figures


def _reserve(figures: Figures, some: list[tuple[str, str]], counts: np.ndarray, names: np.ndarray) -> None:
    reserved = np.array([reserve_tokens(text) for _, text in some], np.float64)
    covers = reserved >= counts.max(axis=1)
    figures.metrics["reserve_covers_pct"] = 100 * float(covers.mean())
    figures.metrics["reserve_covers_main_pct"] = 100 * float(covers[np.isin(names, MAIN)].mean())
    over = 100 * (reserved / counts[:, 0] - 1)
    figures.metrics["reserve_over_transcripts_pct"] = float(np.median(over[names == "transcripts"]))
    figures.metrics["reserve_over_median_pct"] = float(np.median(over))


def _speed(figures: Figures, text: str) -> None:
    for name, size in SIZES.items():
        piece, times = text[:size], max(1, 2_000_000 // size)
        best = min(_seconds(piece, times) for _ in range(TRIES))
        figures.metrics[f"mb_per_s_{name}"] = len(piece.encode()) * times / best / 1e6


def _seconds(text: str, times: int) -> float:
    began = time.thread_time()
    for _ in range(times):
        reserve_tokens(text)
    return time.thread_time() - began


def _vocabularies() -> Path:
    """The folder of the tokenizers; made when it is missing."""
    if not (KEPT / FOLDER).exists():
        KEPT.mkdir(parents=True, exist_ok=True)
        try:
            wheel = fetched(LITELLM, KEPT)
        except (subprocess.CalledProcessError, SystemExit) as exc:
            raise NotRunnable(f"the wheel {LITELLM.package} {LITELLM.version} cannot be had: {exc}") from exc
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(KEPT, [name for name in archive.namelist() if name.startswith(FOLDER)])
        wheel.unlink()
    return KEPT / FOLDER


if __name__ == "__main__":
    sys.exit(run("estimate", measure))
