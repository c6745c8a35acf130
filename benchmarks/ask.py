"""Questions to 37 real episodes: how fast, how true, and does it know when it does not know?

Questions: `benchmarks/questions/ask.jsonl`, written by hand; the floor was chosen on its `dev` split, the figures here
are of its `test` split. Quotes are checked against the source files by a reader of its own, which shares no code with
the program. Peer: the same program without vectors (BM25 alone).
"""

from __future__ import annotations

import asyncio
import json
import re
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.common import Figures, Options, run
from windlass.content.ask import Asked, Quote
from windlass.content.ingest import COLLECTION, files_of
from windlass.records import Scope
from windlass.runtime import Runtime
from windlass.settings import load

QUESTIONS = Path(__file__).parent / "questions" / "ask.jsonl"
SIGNET = "Why was Signet created instead of Testnet?"
SIGNET_AT_S, SIGNET_WITHIN_S = 430.0, 30.0
HEADER = re.compile(r"^(?P<who>[^\n:]{1,60}?) ?:? ?(?P<h>\d\d):(?P<m>\d\d):(?P<s>\d\d):?\s*$")
LINK = re.compile(r"\[([^\]]*)\]\([^)]*\)")


class Turn(NamedTuple):
    """One stamped turn of a source file, as the benchmark reads it."""

    at_s: float
    text: str


class Round(NamedTuple):
    """One question and what came of it."""

    question: dict[str, str]
    answer: Asked
    took_ms: float


def measure(options: Options) -> Figures:
    """Index, ask every question of the test split once, in a seeded order, with and without vectors."""
    folder = options.path("transcripts", "bitcoin-explained")
    asked = [json.loads(line) for line in QUESTIONS.read_text().splitlines()]
    asked = [question for question in asked if question["split"] == "test"]
    order = np.random.default_rng(options.seed).permutation(len(asked))
    questions = [asked[place] for place in order]
    with tempfile.TemporaryDirectory() as home:
        index_s, rounds = asyncio.run(_asked(Path(home), folder, questions, embedder="auto"))
        _, lexical = asyncio.run(_asked(Path(home), folder, questions, embedder="off"))
    figures = Figures()
    figures.metrics["index_s"] = index_s
    sources = {title: turns for title, turns in map(_read, sorted(folder.glob("*.md")))}
    _score(figures, rounds, sources, options.seed)
    peer = Figures()
    _score(peer, lexical, sources, options.seed)
    figures.peers["bm25_alone"] = peer.metrics
    for name, bound in (
        ("index_s", "<= 3"),
        ("p95_ms", "<= 300"),
        ("verbatim_share", ">= 1"),
        ("time_error_max_s", "<= 15"),
        ("abstain_share", ">= 0.90"),
        ("answered_share", ">= 0.85"),
        ("signet_cited", ">= 1"),
    ):
        figures.target(name, bound)
    return figures


async def _asked(home: Path, folder: Path, questions: list[dict[str, str]], embedder: str) -> tuple[float, list[Round]]:
    """(seconds until the text of every file was indexed, the rounds)."""
    settings = load({"home": home, "memory.embedder": embedder})
    async with Runtime(settings, workflows=True) as runtime:
        began = time.perf_counter()
        batch = await asyncio.to_thread(lambda: runtime.ingest.submit(Scope(), files_of([folder])))
        index_s = 0.0
        while not {"running", "waiting"}.isdisjoint(await asyncio.to_thread(runtime.run_status, Scope(), batch.run)):
            events = runtime.ledger.events(Scope(), batch.run)
            if not index_s and sum(event.step == "text" for event in events) >= len(batch.items):
                index_s = time.perf_counter() - began
            await asyncio.sleep(0.05)
        counts = runtime.memory.counts(Scope(), COLLECTION)
        print(
            f"{counts.chunks} passages, {counts.vectors} vectors, {time.perf_counter() - began:.1f} s", file=sys.stderr
        )
        await runtime.ask.ask("What is this about?", Scope())
        rounds = []
        for question in questions:
            started = time.perf_counter()
            answer = await runtime.ask.ask(question["question"], Scope())
            rounds.append(Round(question, answer, (time.perf_counter() - started) * 1000))
        return index_s, rounds


def _score(figures: Figures, rounds: list[Round], sources: dict[str, list[Turn]], seed: int) -> None:
    took = [r.took_ms for r in rounds]
    figures.metrics["p50_ms"] = float(np.quantile(took, 0.5))
    figures.metrics["p95_ms"] = float(np.quantile(took, 0.95))
    errors = [_time_error_s(quote, sources) for r in rounds for quote in r.answer.quotes]
    figures.metrics["quotes"] = len(errors)
    figures.metrics["verbatim_share"] = float(np.mean([error is not None for error in errors]))
    figures.metrics["time_error_max_s"] = max(error for error in errors if error is not None)
    inside = [r for r in rounds if r.question["kind"] == "in"]
    outside = [r for r in rounds if r.question["kind"] == "out"]
    figures.mean("abstain_share", [not r.answer.answered for r in outside], seed)
    figures.mean("answered_share", [_from_gold(r) for r in inside], seed)
    figures.mean("within_30s_share", [any(_near(q, r.question) for q in r.answer.quotes) for r in inside], seed)
    figures.metrics["questions_in"], figures.metrics["questions_out"] = len(inside), len(outside)
    signet = next((r for r in rounds if r.question["question"] == SIGNET), None)
    if signet is not None:
        cited = [q for q in signet.answer.quotes if q.title == "Explaining Signet"]
        figures.metrics["signet_cited"] = any(abs(q.start_s - SIGNET_AT_S) <= SIGNET_WITHIN_S for q in cited)


def _from_gold(r: Round) -> bool:
    """At least one shown quote from the gold episode."""
    return any(quote.title == r.question["title"] for quote in r.answer.quotes)


def _near(quote: Quote, question: dict[str, str]) -> bool:
    hours, minutes, seconds = map(int, question["at"].split(":"))
    return quote.title == question["title"] and abs(quote.start_s - (hours * 3600 + minutes * 60 + seconds)) <= 30


def _time_error_s(quote: Quote, sources: dict[str, list[Turn]]) -> float | None:
    """Distance between the shown time and the start of a turn that holds the quote; None where no turn does."""
    holding = [abs(quote.start_s - turn.at_s) for turn in sources[quote.title] if quote.text in turn.text]
    return min(holding, default=None)


def _read(path: Path) -> tuple[str, list[Turn]]:
    """Title and stamped turns of a source file: every line counts to the stamp before it."""
    _, front, body = path.read_text().split("---\n", 2)
    title = next(line for line in front.splitlines() if line.startswith("title:")).removeprefix("title:").strip()
    if title[0] == title[-1] and title[0] in "'\"":
        title = title[1:-1].replace("''", "'")
    turns, at_s, said = [], 0.0, list[str]()
    for line in body.splitlines():
        stamped = HEADER.match(line.strip())
        if stamped:
            turns.append(Turn(at_s, " ".join(said)))
            at_s = int(stamped["h"]) * 3600 + int(stamped["m"]) * 60 + int(stamped["s"])
            said = []
        elif line.strip() and not line.startswith("#"):
            said.append(" ".join(LINK.sub(r"\1", line).split()))
    turns.append(Turn(at_s, " ".join(said)))
    return title, turns


if __name__ == "__main__":
    sys.exit(run("ask", measure))
