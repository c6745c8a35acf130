"""Where the tree reaches for the world outside: who reads the environment, what the core calls though it must not."""

from __future__ import annotations

import ast
from collections.abc import Iterable

from tools.house.tree import Measure, Module, at_most

ENVIRONMENT_NAMES = {"environ", "environb", "getenv", "getenvb", "putenv", "unsetenv"}
CORE = ("records", "stats", "policies")
CORE_EDGES = ("policies.loop", "policies.replay")
CLOCK_CALLS = {"now", "utcnow", "today"}
CLOCK_OWNERS = {"datetime", "date"}
IO_CALLS = {"open", "print", "input"}
KEYED_RANDOM = {"Generator", "MT19937", "PCG64", "Philox", "SFC64", "SeedSequence", "default_rng"}


def environment_readers(modules: Iterable[Module], only: str = "settings.py") -> Measure:
    """Counts the files that touch the process environment; the one allowed is `only`, below the package's top."""
    readers = {module.path: line for module in modules if (line := _environment_line(module))}
    allowed = {path for path in readers if path.count("/") == 1 and path.endswith(f"/{only}")}
    held = len(readers) == 1 and readers.keys() == allowed
    offenders = [f"{path}:{line}" for path, line in sorted(readers.items()) if path not in allowed]
    if not allowed:
        offenders.append(f"{only} does not read the environment")
    return Measure("files reading the environment", len(readers), f"1, {only}", held, tuple(offenders))


def _environment_line(module: Module) -> int | None:
    """The first line that names the environment through `os`, whatever `os` is called there."""
    nodes = list(ast.walk(module.tree))
    aliases = {
        alias.asname or "os"
        for node in nodes
        if isinstance(node, ast.Import)
        for alias in node.names
        if alias.name == "os" or (alias.name.startswith("os.") and not alias.asname)
    }
    lines = []
    for node in nodes:
        match node:
            case ast.ImportFrom(module="os", names=names) if ENVIRONMENT_NAMES & {alias.name for alias in names}:
                lines.append(node.lineno)
            case ast.Attribute(value=ast.Name(id=owner), attr=attr) if owner in aliases and attr in ENVIRONMENT_NAMES:
                lines.append(node.lineno)
    return min(lines, default=None)


def core_purity(modules: Iterable[Module]) -> Measure:
    """Counts calls in the core that reach for a clock, unkeyed randomness or I/O.

    The import contracts keep the modules for that out of the core; this sees what stays reachable without an import
    of its own: `datetime.now()`, `np.random.*` and the built-ins.
    """
    offenders = [
        f"{module.path}:{node.lineno} calls {ast.unparse(node.func)}"
        for module in modules
        if _in_core(module.name)
        for node in ast.walk(module.tree)
        if isinstance(node, ast.Call) and _is_impure(node)
    ]
    return at_most("clock, chance or I/O in the core", len(offenders), 0, offenders=sorted(offenders))


def _in_core(name: str) -> bool:
    inner = name.partition(".")[2]
    return inner.split(".")[0] in CORE and inner not in CORE_EDGES


def _is_impure(call: ast.Call) -> bool:
    match call.func:
        case ast.Name(id=name):
            return name in IO_CALLS or (name in KEYED_RANDOM and not _has_arguments(call))
        case ast.Attribute(attr=attr, value=ast.Attribute(value=ast.Name(id="np" | "numpy"), attr="random")):
            return attr not in KEYED_RANDOM or not _has_arguments(call)
        case ast.Attribute(attr=attr, value=ast.Name(id=owner) | ast.Attribute(attr=owner)):
            return owner in CLOCK_OWNERS and attr in CLOCK_CALLS
        case _:
            return False


def _has_arguments(call: ast.Call) -> bool:
    return bool(call.args or call.keywords)
