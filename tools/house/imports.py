"""Who imports whom, and the cycles in it: between modules, and between siblings at every depth of the tree."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator, Mapping

from tools.house.tree import Measure, Module, at_most, runtime_nodes

Graph = dict[str, dict[str, str]]
"""importer -> imported -> "path:line" of the first such import."""


def cycles(modules: Iterable[Module]) -> Measure:
    """Counts the import cycles between modules and, at every depth of the tree, between sibling packages."""
    graph = import_graph(tuple(modules))
    found: list[tuple[frozenset[str], str]] = []
    for component in _components(graph):
        found.append((component, _describe(component, graph)))
    for package in sorted({parent for name in graph for parent in _ancestors(name)}):
        siblings = _sibling_graph(graph, package)
        for component in _components(siblings):
            if not any(component <= {_child(package, name) for name in known} for known, _ in found):
                found.append((component, _describe(component, siblings)))
    return at_most("import cycles", len(found), 0, offenders=[text for _, text in found])


def import_graph(modules: tuple[Module, ...]) -> Graph:
    """Who imports whom inside the tree; deferred imports count, those for type checkers alone do not."""
    known = {module.name for module in modules}
    graph: Graph = {name: {} for name in known}
    for module in modules:
        for target, line in _imported(module, known):
            if target != module.name:
                graph[module.name].setdefault(target, f"{module.path}:{line}")
    return graph


def _imported(module: Module, known: set[str]) -> Iterator[tuple[str, int]]:
    for node in runtime_nodes(module.tree):
        match node:
            case ast.Import(names=names):
                targets = [alias.name for alias in names]
            case ast.ImportFrom(names=names):
                base = _base(module, node)
                targets = [name if (name := f"{base}.{alias.name}") in known else base for alias in names]
            case ast.Call(
                func=ast.Name(id="import_module" | "__import__") | ast.Attribute(attr="import_module"),
                args=[ast.Constant(value=str(name)), *_],
            ):
                targets = [name]
            case _:
                continue
        yield from ((target, node.lineno) for target in targets if target in known)


def _base(module: Module, node: ast.ImportFrom) -> str:
    """The absolute name behind `from ... import`, relative forms resolved."""
    if not node.level:
        return node.module or ""
    parts = module.name.split(".")
    keep = len(parts) - node.level + module.is_package
    return ".".join([*parts[:keep], *([node.module] if node.module else [])])


def _ancestors(name: str) -> list[str]:
    parts = name.split(".")
    return [".".join(parts[:depth]) for depth in range(1, len(parts))]


def _child(package: str, name: str) -> str:
    """The direct child of `package` that holds `name`; '' when it is not inside."""
    if not name.startswith(f"{package}."):
        return ""
    return f"{package}.{name[len(package) + 1 :].partition('.')[0]}"


def _sibling_graph(graph: Graph, package: str) -> Graph:
    merged: Graph = {}
    for importer, targets in graph.items():
        for imported, where in targets.items():
            here, there = _child(package, importer), _child(package, imported)
            if here and there and here != there:
                merged.setdefault(here, {}).setdefault(there, where)
                merged.setdefault(there, {})
    return merged


def _components(graph: Mapping[str, Mapping[str, str]]) -> list[frozenset[str]]:
    """Sets of two or more nodes that all reach one another, in name order."""
    reach = {name: _reachable(graph, name) for name in graph}
    found = {frozenset(other for other in reach[name] if name in reach[other]) for name in graph}
    return sorted((component for component in found if len(component) > 1), key=sorted)


def _reachable(graph: Mapping[str, Mapping[str, str]], start: str) -> set[str]:
    seen: set[str] = set()
    waiting = [start]
    while waiting:
        for target in graph[waiting.pop()]:
            if target not in seen:
                seen.add(target)
                waiting.append(target)
    return seen


def _describe(component: frozenset[str], graph: Graph) -> str:
    edges = [
        f"{where} -> {imported}"
        for importer in sorted(component)
        for imported, where in sorted(graph[importer].items())
        if imported in component
    ]
    return f"{' <-> '.join(sorted(component))}: {'; '.join(edges)}"
