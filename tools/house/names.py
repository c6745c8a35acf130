"""Names that stand twice, names that say nothing, and state that hides behind `global`."""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator

from tools.house.tree import Measure, Module, at_most

EMPTY_CLASS = re.compile(r"Manager|Engine|Service|Handler|Enhanced|Unified|Legacy|Utils?(?![a-z])|V[2-9](?![0-9a-z])")
EMPTY_MODULE = re.compile(r"(^|_)(enhanced|unified|legacy|v[2-9]|manager|engine|service|handler|utils?)(_|$)")


def repeated_classes(modules: Iterable[Module]) -> Measure:
    """Counts the class names that are defined in more than one place of the tree, nested ones included."""
    places: dict[str, list[str]] = defaultdict(list)
    for module in modules:
        for node in _classes(module):
            places[node.name].append(f"{module.path}:{node.lineno}")
    repeated = {name: where for name, where in sorted(places.items()) if len(where) > 1}
    offenders = [f"{name}: {', '.join(where)}" for name, where in repeated.items()]
    return at_most("repeated class names", len(repeated), 0, offenders=offenders)


def empty_names(modules: Iterable[Module]) -> Measure:
    """Counts modules and classes whose name stands for a missing noun (`Manager`) or a second go (`_v2`)."""
    offenders: set[str] = set()
    for module in modules:
        last = module.name.rpartition(".")[2]
        if EMPTY_MODULE.search(last):
            offenders.add(f"{module.path}: module {last}")
        offenders.update(
            f"{module.path}:{node.lineno}: class {node.name}"
            for node in _classes(module)
            if EMPTY_CLASS.search(node.name)
        )
    return at_most("names without a noun", len(offenders), 0, offenders=sorted(offenders))


def global_statements(modules: Iterable[Module]) -> Measure:
    """Counts `global` statements."""
    offenders = [
        f"{module.path}:{node.lineno} global {', '.join(node.names)}"
        for module in modules
        for node in ast.walk(module.tree)
        if isinstance(node, ast.Global)
    ]
    return at_most("global statements", len(offenders), 0, offenders=offenders)


def _classes(module: Module) -> Iterator[ast.ClassDef]:
    return (node for node in ast.walk(module.tree) if isinstance(node, ast.ClassDef))
