"""How well memory supports a question: one number in [0, 1] from what retrieval found. Below the floor we abstain.

A logistic of the best cosine and the best term coverage. The weights were fitted on the `dev` split of
`benchmarks/questions/ask.jsonl` and are reported on its `test` split (`benchmarks/ask.py`).
"""

from __future__ import annotations

import math

from windlass.memory.retrieval import Results
from windlass.records import ContextValue

HYBRID = (-12.0, 16.9, 9.4)
LEXICAL = (-5.0, 0.0, 11.8)


def support(results: Results) -> dict[str, ContextValue]:
    """The context of the point `answer`: the evidence, and the support it adds up to."""
    if not results.hits:
        return {"cosine": 0.0, "coverage": 0.0, "support": 0.0}
    bias, by_cosine, by_coverage = LEXICAL if results.lexical_only else HYBRID
    odds = bias + by_cosine * results.cosine + by_coverage * results.coverage
    return {"cosine": results.cosine, "coverage": results.coverage, "support": 1.0 / (1.0 + math.exp(-odds))}
