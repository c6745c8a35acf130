"""Fit the token estimate to real tokenizers, and write the golden counts that its tests compare it with.

    python -m tools.tokens --vocabularies FOLDER --data ../shared/data [--golden]

FOLDER holds the tokenizer files that litellm's wheel carries (litellm/litellm_core_utils/tokenizers, the pin is in
tools/prices.py): o200k_base and cl100k_base (MIT, OpenAI), DeepSeek's (MIT) and Claude 2's (MIT, Anthropic). Needs
tiktoken and tokenizers. Nothing of this is needed at run time: the costs stand in gateway/money/estimate.py.
"""

from __future__ import annotations

import argparse
import base64
import gettext
import gzip
import json
import random
import string
import sys
import uuid
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.optimize import linprog, lsq_linear

from windlass.gateway.money.estimate import CLASSES, MILLI, pairs

ROOT = Path(__file__).resolve().parent.parent
GOLDEN = ROOT / "tests" / "data" / "tokens" / "counts.json"
LOCALES = (Path("/usr/share/locale"), Path("/usr/share/vim/vim90/lang"))
"""Translated messages of whatever programs are installed: running text in many languages."""
RANDOM = random.Random(7)
NAMED = "sa sA aA pa pA 0a a0 A0 0A s0 00 pp sp ss ns nn pn na nA np sl sc sg sr sw so si al xp p0 AA tt ap"
PAIRS = tuple(NAMED.split())
SMALLEST = 12
"""Errors are relative; below so many tokens they are relative to this."""
TAU = 0.997
Counter = Callable[[str], int]
Floats = NDArray[np.float64]


def tokenizers(folder: Path) -> dict[str, Counter]:
    """What counts tokens, by the tokenizer's name; the first is the one that the estimate is fitted to."""
    from tiktoken import Encoding
    from tiktoken.load import load_tiktoken_bpe
    from tiktoken_ext import openai_public  # type: ignore[import-untyped]
    from tokenizers import Tokenizer

    # tiktoken names a kept vocabulary by the SHA-1 of its address.
    kept = {"o200k_base": "fb374d41", "cl100k_base": "9b5ad71b"}

    def openai(name: str) -> Counter:
        file = next(folder.glob(f"{kept[name]}*"))
        openai_public.load_tiktoken_bpe = lambda *_, **__: load_tiktoken_bpe(str(file))
        encoding = Encoding(**getattr(openai_public, name)())
        return lambda text: len(encoding.encode_ordinary(text))

    def other(name: str) -> Counter:
        tokenizer = Tokenizer.from_file(str(folder / f"{name}_tokenizer.json"))
        return lambda text: len(tokenizer.encode(text, add_special_tokens=False).ids)

    named = {name: openai(name) for name in kept}
    return {**named, "deepseek": other("deepseek"), "claude_2": other("anthropic")}


def texts(data: Path, half: int) -> dict[str, list[str]]:
    """Texts by kind. half: 0 to fit, 1 to test; no text is in both."""
    found: dict[str, list[str]] = {
        "transcripts": _read(data / "transcripts", "*.md"),
        "prompts": [line["prompt"] for path in sorted(data.glob("routing/*.gz")) for line in _lines(path)],
        "code": _read(ROOT / "src", "*.py"),
        "tabs": [text.replace("    ", "\t") for text in _read(ROOT / "tools", "*.py")],
        "json": [json.dumps(json.loads(path.read_text()), indent=1) for path in sorted(data.glob("statistics/*.json"))],
    }
    for path in [path for folder in LOCALES for path in sorted(folder.glob("*/LC_MESSAGES/*.mo"))]:
        language = path.parts[-3].split("@")[0].split(".")[0]
        found.setdefault(f"language {language}", []).append(_translated(path))
    return {kind: some for kind, all_ in found.items() if (some := [text for text in all_[half::2] if text.strip()])}


def _read(folder: Path, pattern: str) -> list[str]:
    return [path.read_text() for path in sorted(folder.rglob(pattern))]


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    with gzip.open(path, "rt") as lines:
        yield from (json.loads(line) for line in list(lines)[:2000])


def _translated(path: Path) -> str:
    try:
        with path.open("rb") as file:
            catalog = gettext.GNUTranslations(file)
    except (OSError, ValueError, LookupError):
        return ""
    said: dict[Any, str] = vars(catalog)["_catalog"]
    return "\n".join(text for key, text in said.items() if key)[:300_000]


def pieces(kinds: dict[str, list[str]], each: int) -> list[tuple[str, str]]:
    """Pieces of 40 to 8,000 characters, lengths log-uniform: `each` of a main kind, fewer of a language."""
    made = []
    for kind, some in kinds.items():
        for _ in range(max(2, each // 60) if kind.startswith("language") else each):
            text, size = RANDOM.choice(some), round(np.exp(RANDOM.uniform(np.log(40), np.log(8000))))
            at = RANDOM.randrange(max(1, len(text) - size))
            made.append((kind, text[at : at + size]))
    return made


def hostile(count: int) -> list[tuple[str, str]]:
    """What no person wrote: encodings, numbers, repeated and random characters."""
    made = []
    for _ in range(count):
        size = RANDOM.randrange(40, 4000)
        raw, wide = RANDOM.randbytes(size), (range(0x20, 0x7F), range(0xA0, 0x2000), range(0x4E00, 0x9FFF))
        made += [base64.b64encode(raw).decode(), raw.hex(), " ".join(str(uuid.UUID(bytes=raw[:16])) for _ in range(9))]
        made += ["".join(RANDOM.choices(pool, k=size)) for pool in (string.digits, string.printable)]
        made += [character * size for character in " \n\ta=0"]
        made += ["".join(chr(RANDOM.choice(RANDOM.choice(wide))) for _ in range(size))]
        made += ["".join(chr(RANDOM.randrange(0x1F600, 0x1F64F)) for _ in range(size))]
    return [("hostile", text) for text in made]


def features(some: Sequence[str]) -> Floats:
    """(n, classes + pairs + 1): how often each class and each of `PAIRS` comes in a text, and once 1."""
    size = len(CLASSES)
    rows = []
    for text in some:
        counted = np.bincount(pairs(text.encode("utf-8", "surrogatepass")), minlength=size * size).reshape(size, size)
        named = [counted[CLASSES.index(pair[0]), CLASSES.index(pair[1])] for pair in PAIRS]
        rows.append([*counted.sum(axis=0), *named, 1])
    return np.array(rows, np.float64)


def fit_estimate(x: Floats, y: Floats, weight: Floats) -> Floats:
    """Least absolute relative error by reweighted least squares; a pair may lower what its class costs."""
    low = np.array([0.0] * len(CLASSES) + [-2.0] * len(PAIRS) + [0.0])
    ridge = np.diag([0.01] * len(CLASSES) + [0.3] * len(PAIRS) + [0.01])
    robust, size = np.ones(len(y)), np.maximum(y, SMALLEST)
    cost: Floats = low
    for _ in range(12):
        scale = weight * robust / size
        rows, wanted = np.vstack([x * scale[:, None], ridge]), np.append(y * scale, np.zeros(x.shape[1]))
        cost = lsq_linear(rows, wanted, bounds=(low, np.full(len(low), 6.0))).x
        robust = np.sqrt(1 / np.maximum(np.abs(x @ cost - y) / size, 0.03))
    return cost


def fit_reserve(x: Floats, y: Floats, weight: Floats) -> Floats:
    """The `TAU` quantile by linear programming (Koenker and Bassett 1978, eq. 3.1); nothing lowers a cost."""
    size, (count, wide) = np.maximum(y, SMALLEST), x.shape
    objective = np.concatenate([np.zeros(wide), TAU * weight, (1 - TAU) * weight])
    equal = sparse.hstack([sparse.csr_matrix(x / size[:, None]), sparse.identity(count), -sparse.identity(count)])
    names = [*CLASSES, *PAIRS, ""]
    bounds = [(0.05 if name in {"a", "A", "0", "p"} else 0.0, 3.0) for name in names] + [(0.0, None)] * (2 * count)
    cost: Floats = linprog(objective, A_eq=equal, b_eq=y / size, bounds=bounds, method="highs").x[:wide]
    return cost


def golden(counters: dict[str, Counter]) -> None:
    """Keep pieces of texts of our own, with their counts, for tests without tokenizers."""
    own = {
        "talks": _read(ROOT / "src", "samples/*.md"),
        "guide": _read(ROOT / "docs", "*.md"),
        "code": _read(ROOT / "src", "*.py")[1::2],
    }
    rows = [{"kind": kind, "text": text[:800]} for kind, text in pieces(own, 40) + hostile(2)]
    counted = [{**row, "tokens": {name: count(row["text"]) for name, count in counters.items()}} for row in rows]
    GOLDEN.parent.mkdir(exist_ok=True)
    GOLDEN.write_text("[\n" + ",\n".join(json.dumps(row) for row in counted) + "\n]\n")


def main() -> int:
    """Print the two tables of costs, or write the golden counts."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--vocabularies", type=Path, required=True)
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data")
    parser.add_argument("--golden", action="store_true", help="write the tests' counts instead")
    chosen = parser.parse_args()
    counters = tokenizers(chosen.vocabularies)
    if chosen.golden:
        golden(counters)
        return 0
    some = pieces(texts(chosen.data, 0), 600) + hostile(60)
    x = features([text for _, text in some])
    y = np.array([[count(text) for count in counters.values()] for _, text in some], np.float64)
    names = [*CLASSES, *PAIRS, "once"]
    # Latin letters are mostly English to a gateway; the other scripts have classes of their own.
    for title, fit, wanted, rare, language in (
        ("ESTIMATE", fit_estimate, y[:, 0], 0.15, 0.25),
        ("RESERVE", fit_reserve, y.max(1), 0.3, 1.0),
    ):
        by_kind = {"hostile": rare, "language": language}
        weight = np.array([by_kind.get(kind.split(" ", maxsplit=1)[0], 1.5) for kind, _ in some])
        cost = fit(x, wanted, weight) * MILLI
        rounded = np.ceil(cost - 1e-9) if title == "RESERVE" else np.round(cost)
        print(title, {name: int(value) for name, value in zip(names, rounded, strict=True) if value})
    return 0


if __name__ == "__main__":
    sys.exit(main())
