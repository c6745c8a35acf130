"""Finding the right passage: section headings in podcasts (whole corpus), questions about a meeting (inside it).

Section hit@k: the query is a `##` heading of a transcript (openings, closings and sponsor messages left out; headings
are not in the indexed text); a hit is a chunk of the right episode that begins inside that section. QMSum nDCG@10: a
chunk is relevant (gain 1) if it overlaps a turn that the annotators marked; the ideal order has all relevant chunks
of the meeting first. Beside each figure of the product's ranking stand those of its parts in the same session: BM25
alone (`_lexical`, what the product does without vectors) and cosine alone.
"""

from __future__ import annotations

import re
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import msgspec
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.common import Figures, NotRunnable, Options, run
from windlass.content.parse import parse
from windlass.content.transcript import Heading, Transcript, Turn
from windlass.ledger.db import Database
from windlass.memory import embedder as embedders
from windlass.memory.chunk import chunk
from windlass.memory.retrieval import search
from windlass.memory.store import Memory
from windlass.records import Scope
from windlass.settings import load

EPISODES, MEETINGS = "episodes", "meetings"
SCOPE = Scope()
THREADS = 2
BATCH = 64
_LEVEL_2 = re.compile(r"^##[ \t]+(.+)$", re.MULTILINE)
_WELCOME = re.compile(
    r"(intro(duction)?|preamble|outro|conclusion|closing( \w+)?|final thoughts|farewell( \w+)?|.*\bsponsor\b.*)\s*",
    re.IGNORECASE,
)
# What the transcribers of the meetings noted down beside the words: {vocalsound}, {disfmarker}.
_NOTE = re.compile(r"\s*\{\w+\}")


class Span(msgspec.Struct):
    """A question about a meeting; the turns that answer it, both ends included, as numbers in strings."""

    query: str
    relevant_text_span: list[tuple[str, str]]


class Said(msgspec.Struct):
    """A turn of a meeting."""

    speaker: str
    content: str


class AnnotatedMeeting(msgspec.Struct):
    """One line of QMSum."""

    specific_query_list: list[Span]
    meeting_transcripts: list[Said]


@dataclass(frozen=True)
class Query:
    """A query, and where in one item its answer stands.

    spans: first and last segment, both included. relevant: how many chunks of the item overlap them.
    """

    text: str
    item: str
    spans: tuple[tuple[int, int], ...]
    relevant: int = 0


@dataclass(frozen=True)
class Found:
    """A retrieved chunk, as far as grading needs it."""

    item: str
    first_segment: int
    last_segment: int


Ranker = Callable[[str, str, str | None], list[Found]]
"""(collection, query, item or None) -> the ten best chunks."""


def measure(options: Options) -> Figures:
    """Index both corpora as the product does, ask every query three ways."""
    figures = Figures(targets={"section_hit5": ">= 0.77", "qmsum_ndcg10": ">= 0.53"})
    with tempfile.TemporaryDirectory() as folder:
        db = Database(f"sqlite:///{folder}/ledger.db")
        db.migrate()
        memory = Memory(db, embedders.load(load().cache))
        sections = index_episodes(memory, options, figures)
        questions = index_meetings(memory, options)
        embed(memory, figures)
        rankers = {"": searching(memory), "_lexical": searching(Memory(db, None)), "_cosine": nearest(memory)}
        for suffix, ranker in rankers.items():
            grade_sections(figures, suffix, ranker, sections, options.seed)
            grade_questions(figures, suffix, ranker, questions, options.seed)
        time_search(figures, memory, sections)
        db.close()
    for peer, suffix in (("bm25", "_lexical"), ("cosine", "_cosine")):
        graded = ("section_hit1", "section_hit5", "qmsum_ndcg10", "qmsum_hit1")
        figures.peers[peer] = {name: figures.metrics[name + suffix] for name in graded}
    return figures


def index_episodes(memory: Memory, options: Options, figures: Figures) -> list[Query]:
    """Put every episode's text into memory; returns the headings to find."""
    files = sorted(options.path("transcripts").rglob("*.md"))
    if not files:
        raise NotRunnable(f"no transcripts in {options.path('transcripts')}")
    sections: list[Query] = []
    started = time.perf_counter()
    for file in files:
        transcript = parse(file.name, file.read_bytes())
        passages = chunk(transcript.turns, breaks=[heading.turn for heading in transcript.headings])
        memory.put_text(SCOPE, EPISODES, file.stem, passages)
        sections.extend(_sections(file, transcript))
    figures.metrics |= {"index_s": time.perf_counter() - started, "queries_section": len(sections)}
    return sections


def _sections(file: Path, transcript: Transcript) -> Iterator[Query]:
    """The sections of level 2; those of deeper levels belong to them."""
    wanted = [_letters(title) for title in _LEVEL_2.findall(file.read_text("utf-8"))]
    headings: list[Heading] = []
    for heading in transcript.headings:
        if len(headings) < len(wanted) and _letters(heading.title) == wanted[len(headings)]:
            headings.append(heading)
    if len(headings) < len(wanted):
        raise NotRunnable(f"{file}: heading {wanted[len(headings)]!r} is not among those that parsing found")
    ends = [*(heading.turn for heading in headings), len(transcript.turns)][1:]
    for heading, end in zip(headings, ends, strict=True):
        if not _WELCOME.fullmatch(heading.title):
            yield Query(heading.title, file.stem, ((heading.turn, end - 1),))


def _letters(title: str) -> str:
    """A heading without its markup."""
    return re.sub(r"[\W_]+", "", title).casefold()


def index_meetings(memory: Memory, options: Options) -> list[Query]:
    """Put the meetings' text into memory, with --quick a seeded half of them; returns the questions about them."""
    lines = options.path("retrieval", "qmsum_even.jsonl").read_bytes().splitlines()
    chosen = np.random.default_rng(options.seed).permutation(len(lines))
    questions: list[Query] = []
    for place in sorted(chosen[: len(lines) // 2] if options.quick else chosen):
        meeting, item = msgspec.json.decode(lines[place], type=AnnotatedMeeting), f"meeting-{place}"
        said = [
            Turn(turn.speaker, float(number), float(number + 1), _NOTE.sub("", turn.content).strip())
            for number, turn in enumerate(meeting.meeting_transcripts)
        ]
        passages = chunk(said)
        memory.put_text(SCOPE, MEETINGS, item, passages)
        for asked in meeting.specific_query_list:
            spans = tuple((int(first), int(last)) for first, last in asked.relevant_text_span)
            relevant = sum(_overlaps(passage.first_segment, passage.last_segment, spans) for passage in passages)
            if relevant:
                questions.append(Query(asked.query, item, spans, relevant))
    return questions


def embed(memory: Memory, figures: Figures) -> None:
    """Embed every chunk, on two threads."""
    started, cpu_started, done = time.perf_counter(), time.process_time(), 0
    for collection in (EPISODES, MEETINGS):
        ids = memory.pending(SCOPE, collection, 1_000_000)
        parts = [ids[at : at + BATCH] for at in range(0, len(ids), BATCH)]
        with ThreadPoolExecutor(THREADS) as threads:
            done += sum(threads.map(partial(memory.put_vectors, SCOPE, collection), parts))
    figures.metrics |= {
        "chunks": done,
        "embed_s": time.perf_counter() - started,
        "embed_cpu_ms": (time.process_time() - cpu_started) / done * 1000,
    }


def searching(memory: Memory) -> Ranker:
    """The product's own search."""

    def ranked(collection: str, query: str, item: str | None) -> list[Found]:
        hits = search(memory, SCOPE, collection, query, k=10, item=item).hits
        return [Found(hit.item, hit.first_segment, hit.last_segment) for hit in hits]

    return ranked


def nearest(memory: Memory) -> Ranker:
    """Cosine alone: the nearest rows of the product's index."""

    def ranked(collection: str, query: str, item: str | None) -> list[Found]:
        view = memory.view(SCOPE, collection, query, item)
        if view is None or view.flat is None or memory.embedder is None:
            raise NotRunnable(f"{collection} has chunks without a vector")
        among = None if view.among is None else view.among.tolist()
        ids = [chunk for chunk, _ in view.flat.search(memory.embedder.embed([query])[0], 10, among)]
        stored = {chunk.id: chunk for chunk in memory.chunks(SCOPE, collection, ids)}
        return [Found(stored[at].item, stored[at].first_segment, stored[at].last_segment) for at in ids]

    return ranked


def grade_sections(figures: Figures, suffix: str, ranker: Ranker, sections: Sequence[Query], seed: int) -> None:
    """Section hit@1 and hit@5, the whole corpus searched."""
    hits = []
    for section in sections:
        ((first, last),) = section.spans
        found = ranker(EPISODES, section.text, None)
        hits.append([hit.item == section.item and first <= hit.first_segment <= last for hit in found])
    figures.mean(f"section_hit1{suffix}", [any(hit[:1]) for hit in hits], seed)
    figures.mean(f"section_hit5{suffix}", [any(hit[:5]) for hit in hits], seed)


def grade_questions(figures: Figures, suffix: str, ranker: Ranker, questions: Sequence[Query], seed: int) -> None:
    """nDCG@10 and hit@1 inside the meeting."""
    gains, firsts = [], []
    for question in questions:
        hits = ranker(MEETINGS, question.text, question.item)
        found = [_overlaps(hit.first_segment, hit.last_segment, question.spans) for hit in hits]
        gains.append(_ndcg(found, question.relevant))
        firsts.append(any(found[:1]))
    figures.mean(f"qmsum_ndcg10{suffix}", gains, seed)
    figures.mean(f"qmsum_hit1{suffix}", firsts, seed)


def _overlaps(first: int, last: int, spans: Iterable[tuple[int, int]]) -> bool:
    """Whether segments `first` to `last` share one with the spans."""
    return any(first <= end and last >= start for start, end in spans)


def _ndcg(found: Sequence[bool], relevant: int) -> float:
    """Binary nDCG@10 (Järvelin and Kekäläinen 2002, doi 10.1145/582415.582418, eq. 1 and 3 with log2(1 + rank))."""
    discounts = 1.0 / np.log2(np.arange(2, 12))
    return float(discounts[: len(found)] @ np.array(found, float)) / float(discounts[: min(relevant, 10)].sum())


def time_search(figures: Figures, memory: Memory, sections: Sequence[Query]) -> None:
    """Median time of a search over all episodes; the question's own vector is in the embedder's cache already."""
    taken = []
    for section in sections:
        search(memory, SCOPE, EPISODES, section.text)
        started = time.perf_counter()
        search(memory, SCOPE, EPISODES, section.text)
        taken.append((time.perf_counter() - started) * 1000)
    figures.metrics["search_p50_ms"] = statistics.median(taken)


if __name__ == "__main__":
    sys.exit(run("retrieval", measure))
