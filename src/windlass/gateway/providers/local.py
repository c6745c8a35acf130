"""Models that run in this process and need no key: they answer by quoting the passages in the messages.

`local/quotes-fast` ranks sentences with BM25 (Robertson & Zaragoza 2009, eq. 3.15; k1 = 1.2, b = 0.75);
`local/quotes-semantic` ranks them by cosine between MiniLM embeddings. Both say that they are extractive.
`all-minilm-l6-v2` turns texts into vectors: the first 256 tokens of a text, 384 numbers, length 1.
"""

from __future__ import annotations

import asyncio
import base64
import math
import re
from collections import Counter
from collections.abc import Callable, Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray

from windlass.errors import RequestError, UpstreamError, WindlassError, classify
from windlass.gateway import prompt
from windlass.gateway.options import ModelOptions
from windlass.gateway.prompt import Excerpt, Material
from windlass.gateway.provider import JSON, EmbeddingRequest, ProviderReply, ProviderRequest
from windlass.gateway.providers.compose import completion, estimate_tokens
from windlass.gateway.relay import Once
from windlass.memory.embedder import Embedder
from windlass.stats.sentences import sentences
from windlass.stats.stopwords import STOP_WORDS

FAST = "local/quotes-fast"
SEMANTIC = "local/quotes-semantic"
EMBEDDING = "all-minilm-l6-v2"
QUOTES = 3
MIN_WORDS = 5
MAX_SENTENCES = 600
K1, B = 1.2, 0.75
PASSAGE_WEIGHT = 0.15
PENALTY = 2.0
KEPT_SHARE = 0.5
STOP_SHARE = 0.5  # what function words count: "why ... because" tells a little, but less than what is asked about
EMBEDDED = 32
TOGETHER = 64  # texts embedded in one go, some 3 s at most: a client that leaves stops the rest
AT_ONCE = 2  # batches embedded side by side: everything else needs worker threads and cores too
_WORD = re.compile(r"\w+")

Ranker = Callable[[str, Sequence[str]], NDArray[np.float64]]


class Candidate(msgspec.Struct, frozen=True):
    """A sentence that could be quoted, the passage it stands in, and what speaks for it beforehand."""

    text: str
    excerpt: Excerpt
    prior: float


class Local:
    """The provider of the local models. Without an embedder only `local/quotes-fast` is offered, and no vectors."""

    name = "local"
    local = True

    def __init__(self, embedder: Embedder | None, clock: Callable[[], float]):
        self._rankers: dict[str, Ranker] = {FAST: bm25}
        if embedder is not None:
            self._rankers[SEMANTIC] = _cosine(embedder)
        self.models = tuple(ModelOptions(name=name) for name in self._rankers)
        self.embedding_models = () if embedder is None else (ModelOptions(name=EMBEDDING),)
        self._embedder = embedder
        self._turns = asyncio.Semaphore(AT_ONCE)
        self._clock = clock

    async def send(self, request: ProviderRequest) -> ProviderReply:
        material = prompt.read(request.chat.messages)
        try:
            text = await asyncio.to_thread(answer, material, self._rankers[request.model], request.model)
        except WindlassError as exc:
            raise UpstreamError(f"model {request.model} failed: {exc}", category=classify(exc)) from exc
        return completion(request, text, int(self._clock()))

    async def embed(self, request: EmbeddingRequest) -> ProviderReply:
        """Vectors as float32 little-endian where the request asks for base64. Tokens are estimates."""
        assert self._embedder is not None, "offered only with an embedder"
        wanted, texts = request.input, _texts(request, self._embedder.dimensions)
        items: list[bytes] = []
        for start in range(0, len(texts), TOGETHER):
            async with self._turns:
                try:
                    vectors = await self._embedder.aembed(texts[start : start + TOGETHER])
                except WindlassError as exc:
                    raise UpstreamError(f"model {request.model} failed: {exc}", category=classify(exc)) from exc
            items += (_item(start + row, vector, wanted.base64) for row, vector in enumerate(vectors))
        tokens = sum(map(estimate_tokens, texts))
        usage = msgspec.json.encode({"prompt_tokens": tokens, "total_tokens": tokens})
        named = msgspec.json.encode(request.model)
        body = b'{"object":"list","data":[%b],"model":%b,"usage":%b}' % (b",".join(items), named, usage)
        return ProviderReply(200, JSON, Once(body))

    async def close(self) -> None:
        """Nothing is held open."""


def _texts(request: EmbeddingRequest, dimensions: int) -> tuple[str, ...]:
    """The texts to embed. RequestError where they are tokens, empty, or to become vectors of another length."""
    texts, wanted = request.input.texts, request.input.dimensions
    if texts is None:
        remedy = "send the text itself (langchain-openai: check_embedding_ctx_length=False)"
        raise RequestError(f"model {request.model} takes texts, not tokens; {remedy}", param="input")
    if "" in texts:
        raise RequestError(f"input {texts.index('')} is empty; leave it out", param="input")
    if wanted not in (None, dimensions):
        has = f"dimensions is {wanted}; {request.model} has {dimensions}, leave it out"
        raise RequestError(has, param="dimensions")
    return texts


def _item(index: int, vector: NDArray[np.float32], as_base64: bool) -> bytes:
    embedding = base64.b64encode(vector.astype("<f4").tobytes()).decode() if as_base64 else vector.tolist()
    return msgspec.json.encode({"object": "embedding", "index": index, "embedding": embedding})


def answer(material: Material, rank: Ranker, model: str) -> str:
    """The best sentences for the question, quoted word for word, in the order of their worth."""
    candidates = _candidates(material)
    if not candidates:
        return f"Extractive answer by {model}: the messages hold no passage to quote from."
    scores = rank(material.question, [candidate.text for candidate in candidates])
    worth = scores + [candidate.prior for candidate in candidates]
    order = np.argsort(-worth, kind="stable")[:QUOTES]
    best = worth[order[0]]
    kept = [candidates[place] for place in order if worth[place] >= best * KEPT_SHARE or place == order[0]]
    lines = [prompt.quote(candidate.text, candidate.excerpt) for candidate in kept]
    return "\n".join((f"Extractive answer by {model}: sentences quoted word for word, nothing rephrased.", *lines))


def bm25(question: str, texts: Sequence[str]) -> NDArray[np.float64]:
    """BM25 of each text for the question, function words counting less, scaled to [0, 1] by the best; shape (n,)."""
    documents = [Counter(words(text)) for text in texts]
    lengths = np.array([max(1, sum(document.values())) for document in documents], dtype=np.float64)
    scores = np.zeros(len(texts))
    for term in set(words(question)):
        frequency = np.array([document[term] for document in documents], dtype=np.float64)
        holding = int(np.count_nonzero(frequency))
        if holding:
            idf = math.log(1 + (len(texts) - holding + 0.5) / (holding + 0.5))
            weight = idf * (STOP_SHARE if term in STOP_WORDS else 1.0)
            scores += weight * frequency * (K1 + 1) / (frequency + K1 * (1 - B + B * lengths / lengths.mean()))
    best = scores.max(initial=0.0)
    return scores / best if best > 0 else scores


def words(text: str) -> list[str]:
    """Lower-cased words, plural and verb endings cut off roughly, so that "blocks" meets "block"."""
    return [re.sub(r"(?<=\w{3})(ing|ed|es|s)$", "", word) for word in _WORD.findall(text.lower())]


def _cosine(embedder: Embedder) -> Ranker:
    """Cosine to the question, of the sentences that words alone rank first; embedding all of them would take long."""

    def rank(question: str, texts: Sequence[str]) -> NDArray[np.float64]:
        scores = np.zeros(len(texts))
        first = np.argsort(-bm25(question, texts), kind="stable")[:EMBEDDED]
        vectors = embedder.embed([question, *(texts[place] for place in first)])
        scores[first] = vectors[1:] @ vectors[0]
        return scores

    return rank


def _says_little(text: str) -> bool:
    """A question does not answer, and neither do a few words."""
    return text.rstrip("\"'”’)").endswith("?") or len(text.split()) < MIN_WORDS


def _candidates(material: Material) -> list[Candidate]:
    """Sentences worth quoting, each once; a passage of short ones only gives its whole text.

    A sentence of a passage that retrieval ranked higher wins a near tie; a sentence that asks does not answer.
    """
    candidates: dict[str, Candidate] = {}
    for place, excerpt in enumerate(material.passages):
        spans = sentences(excerpt.text)
        long = [span for span in spans if len(excerpt.text[span[0] : span[1]].split()) >= MIN_WORDS]
        for start, end in long or spans:
            text = excerpt.text[start:end]
            prior = PASSAGE_WEIGHT / (1 + place) - (PENALTY if _says_little(text) else 0.0)
            if "\n" not in text:
                candidates.setdefault(text, Candidate(text, excerpt, prior))
    return list(candidates.values())[:MAX_SENTENCES]
