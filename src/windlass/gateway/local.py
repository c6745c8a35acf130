"""Models that run in this process and need no key: they answer by quoting the passages in the messages.

`local/quotes-fast` ranks sentences with BM25 (Robertson & Zaragoza 2009, eq. 3.15; k1 = 1.2, b = 0.75);
`local/quotes-semantic` ranks them by cosine between MiniLM embeddings. Both say that they are extractive.
"""

from __future__ import annotations

import asyncio
import math
import re
from collections import Counter
from collections.abc import Callable, Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray

from windlass.gateway import passages
from windlass.gateway.compose import completion
from windlass.gateway.options import ModelOptions
from windlass.gateway.passages import Excerpt, Material
from windlass.gateway.provider import ProviderReply, ProviderRequest
from windlass.memory.embedder import Embedder
from windlass.stats.sentences import sentences

FAST = "local/quotes-fast"
SEMANTIC = "local/quotes-semantic"
QUOTES = 3
MIN_WORDS = 5
MAX_SENTENCES = 600
K1, B = 1.2, 0.75
PASSAGE_WEIGHT = 0.15
_WORD = re.compile(r"\w+")

Ranker = Callable[[str, Sequence[str]], NDArray[np.float64]]


class Candidate(msgspec.Struct, frozen=True):
    """A sentence that could be quoted, and the passage it stands in."""

    text: str
    passage: Excerpt


class Local:
    """The provider of the local models. Without an embedder only `local/quotes-fast` is offered."""

    name = "local"
    local = True

    def __init__(self, embedder: Embedder | None, clock: Callable[[], float]):
        self._rankers: dict[str, Ranker] = {FAST: bm25}
        if embedder is not None:
            self._rankers[SEMANTIC] = _cosine(embedder)
        self.models = tuple(ModelOptions(name=name) for name in self._rankers)
        self._clock = clock

    async def send(self, request: ProviderRequest) -> ProviderReply:
        material = passages.read(request.chat.messages)
        text = await asyncio.to_thread(answer, material, self._rankers[request.model], request.model)
        return completion(request, text, int(self._clock()))

    async def close(self) -> None:
        """Nothing is held open."""


def answer(material: Material, rank: Ranker, model: str) -> str:
    """The best sentences for the question, quoted word for word, in the order of their worth."""
    candidates = _candidates(material.passages)
    if not candidates:
        return f"Extractive answer by {model}: the messages hold no passage to quote from."
    scores = rank(material.question, [candidate.text for candidate in candidates])
    order = np.argsort(-(scores + _passage_prior(material.passages, candidates)), kind="stable")
    lines = [passages.quote(candidates[i].text, candidates[i].passage) for i in order[:QUOTES]]
    return "\n".join((f"Extractive answer by {model}: sentences quoted word for word, nothing rephrased.", *lines))


def bm25(question: str, texts: Sequence[str]) -> NDArray[np.float64]:
    """BM25 of each text for the question, scaled to [0, 1] by the best; shape (n,)."""
    documents = [Counter(words(text)) for text in texts]
    lengths = np.array([max(1, sum(document.values())) for document in documents], dtype=np.float64)
    scores = np.zeros(len(texts))
    for term in set(words(question)):
        frequency = np.array([document[term] for document in documents], dtype=np.float64)
        holding = int(np.count_nonzero(frequency))
        if holding:
            idf = math.log(1 + (len(texts) - holding + 0.5) / (holding + 0.5))
            scores += idf * frequency * (K1 + 1) / (frequency + K1 * (1 - B + B * lengths / lengths.mean()))
    best = scores.max(initial=0.0)
    return scores / best if best > 0 else scores


def words(text: str) -> list[str]:
    """Lower-cased words, plural and verb endings cut off roughly, so that "blocks" meets "block"."""
    return [re.sub(r"(?<=\w{3})(ing|ed|es|s)$", "", word) for word in _WORD.findall(text.lower())]


def _cosine(embedder: Embedder) -> Ranker:
    def rank(question: str, texts: Sequence[str]) -> NDArray[np.float64]:
        vectors = embedder.embed([question, *texts])
        return np.asarray(vectors[1:] @ vectors[0], dtype=np.float64)

    return rank


def _candidates(found: Sequence[Excerpt]) -> list[Candidate]:
    """Sentences worth quoting; a passage of short ones only gives its whole text."""
    candidates: dict[str, Candidate] = {}
    for passage in found:
        spans = sentences(passage.text)
        long = [span for span in spans if len(passage.text[span[0] : span[1]].split()) >= MIN_WORDS]
        for start, end in long or spans:
            text = passage.text[start:end]
            if "\n" not in text:
                candidates.setdefault(text, Candidate(text, passage))
    return list(candidates.values())[:MAX_SENTENCES]


def _passage_prior(found: Sequence[Excerpt], candidates: Sequence[Candidate]) -> NDArray[np.float64]:
    """Passages come best first; a sentence of an earlier one wins a near tie."""
    place = {passage.id: number for number, passage in enumerate(found)}
    return np.array([PASSAGE_WEIGHT / (1 + place[candidate.passage.id]) for candidate in candidates])
