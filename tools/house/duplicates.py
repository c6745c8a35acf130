"""Code that stands twice: windows of consecutive lines that occur more than once in the tree."""

from __future__ import annotations

import ast
import io
import tokenize
from collections import defaultdict
from collections.abc import Iterable, Mapping

from tools.house.tree import Measure, Module, at_most

WINDOW = 6
LIMIT_PERCENT = 1.0
Line = tuple[int, str]
Place = tuple[str, int]


def duplicated_windows(modules: Iterable[Module]) -> Measure:
    """The share, in percent, of windows of `WINDOW` significant lines that occur more than once, all copies counted.

    Significant lines are those that are no import, blank, comment or docstring; identifiers and literals are kept,
    indentation and trailing comments are not.
    """
    code = {module.path: significant_lines(module) for module in modules}
    places: dict[tuple[str, ...], list[Place]] = defaultdict(list)
    for path, lines in code.items():
        for start in range(len(lines) - WINDOW + 1):
            places[tuple(text for _, text in lines[start : start + WINDOW])].append((path, start))
    total = sum(len(where) for where in places.values())
    copied = [where for where in places.values() if len(where) > 1]
    percent = 100 * sum(len(where) for where in copied) / total if total else 0.0
    return at_most("duplicated windows, percent", round(percent, 2), LIMIT_PERCENT, offenders=_blocks(copied, code))


def significant_lines(module: Module) -> list[Line]:
    """The lines that count, stripped, each with its number in the file."""
    hidden = {number for node in ast.walk(module.tree) for number in _hidden_by(node)}
    text = module.text.splitlines()
    for token in tokenize.generate_tokens(io.StringIO(module.text).readline):
        if token.type == tokenize.COMMENT:
            row, column = token.start
            text[row - 1] = text[row - 1][:column]
    return [(number, line.strip()) for number, line in enumerate(text, 1) if line.strip() and number not in hidden]


def _hidden_by(node: ast.AST) -> range:
    """The lines of an import or of a string that stands alone (the docstring of a module, class, function or name)."""
    match node:
        case ast.Import(lineno=first, end_lineno=last) | ast.ImportFrom(lineno=first, end_lineno=last):
            return range(first, (last or first) + 1)
        case ast.Expr(value=ast.Constant(value=str()), lineno=first, end_lineno=last):
            return range(first, (last or first) + 1)
        case _:
            return range(0)


def _blocks(copied: list[list[Place]], code: Mapping[str, list[Line]]) -> list[str]:
    """Pairs of equal blocks with their line ranges, longest first; windows that follow one another become one block."""
    pairs = {(where[0], other) for where in copied for other in where[1:]}
    found = []
    for first, second in sorted(pairs):
        if (_shift(first, -1), _shift(second, -1)) in pairs:
            continue
        windows = 1
        while (_shift(first, windows), _shift(second, windows)) in pairs:
            windows += 1
        size = windows + WINDOW - 1
        found.append((size, f"{size} lines {_range(first, size, code)} = {_range(second, size, code)}"))
    return [text for _, text in sorted(found, key=lambda block: (-block[0], block[1]))]


def _shift(place: Place, by: int) -> Place:
    path, start = place
    return path, start + by


def _range(place: Place, size: int, code: Mapping[str, list[Line]]) -> str:
    path, start = place
    return f"{path}:{code[path][start][0]}-{code[path][start + size - 1][0]}"
