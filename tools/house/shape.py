"""Lengths and branching: how long files and functions are, how many ways lead through a function."""

from __future__ import annotations

import ast
import statistics
import subprocess
from collections.abc import Iterable, Iterator
from pathlib import Path

from tools.house.tree import Measure, Module, at_most, not_taken, percentile

SHOWN = 10
ROOT_ENTRIES = 14
Function = ast.FunctionDef | ast.AsyncFunctionDef


def files(modules: Iterable[Module]) -> list[Measure]:
    """Lines per file, blank ones and docstrings included, empty files left out: median, 95th percentile, longest."""
    longest_first = sorted(((module.lines, module.path) for module in modules if module.lines), reverse=True)
    lengths = [lines for lines, _ in longest_first]
    shown = [f"{lines} lines {path}" for lines, path in longest_first[:SHOWN]]
    return [
        at_most("file lines, median", statistics.median(lengths) if lengths else 0, 200, offenders=shown),
        at_most("file lines, p95", percentile(lengths, 0.95), 500, offenders=shown),
        at_most("file lines, longest", max(lengths, default=0), 800, offenders=shown),
    ]


def functions(modules: Iterable[Module]) -> list[Measure]:
    """Lines per function from `def` to its last line (p95), and the greatest complexity."""
    found = [(node, f"{module.path}:{node.lineno} {node.name}") for module in modules for node in _functions(module)]
    lengths = sorted(((_length(node), where) for node, where in found), reverse=True)
    branching = sorted(((complexity(node), where) for node, where in found), reverse=True)
    return [
        at_most(
            "function lines, p95",
            percentile([lines for lines, _ in lengths], 0.95),
            45,
            offenders=[f"{lines} lines {where}" for lines, where in lengths[:SHOWN]],
        ),
        at_most(
            "complexity, greatest",
            branching[0][0] if branching else 0,
            12,
            offenders=[f"complexity {ways} {where}" for ways, where in branching[:SHOWN]],
        ),
    ]


def _functions(module: Module) -> Iterator[Function]:
    return (node for node in ast.walk(module.tree) if isinstance(node, Function))


def _length(node: Function) -> int:
    return (node.end_lineno or node.lineno) - node.lineno + 1


def complexity(function: Function) -> int:
    """Cyclomatic complexity of one function, those nested in it included: 1 + the number of its decisions.

    McCabe, "A Complexity Measure", IEEE TSE SE-2(4), 1976: v = pi + 1 with pi the number of predicates, where each
    condition of a compound predicate counts, hence also `and`, `or`, conditional expressions and comprehensions.
    """
    return 1 + sum(_decisions(node) for node in ast.walk(function))


def _decisions(node: ast.AST) -> int:
    match node:
        case ast.If() | ast.IfExp() | ast.For() | ast.AsyncFor() | ast.While() | ast.ExceptHandler():
            return 1
        case ast.BoolOp(values=values):
            return len(values) - 1
        case ast.comprehension(ifs=ifs):
            return 1 + len(ifs)
        case ast.match_case(pattern=ast.MatchAs(pattern=None), guard=None):
            return 0
        case ast.match_case():
            return 1
        case _:
            return 0


def root_entries(root: Path) -> Measure:
    """Counts what stands in the project's root folder and is not ignored by git."""
    name, aim = "entries of the root folder", f"<= {ROOT_ENTRIES}"
    command = ["git", "-C", str(root), "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    try:
        listed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError) as error:
        return not_taken(name, aim, f"needs a git checkout at {root}: {error}")
    entries = sorted({path.split("/")[0] for path in listed.split("\0") if path})
    return at_most(name, len(entries), ROOT_ENTRIES, offenders=entries)
