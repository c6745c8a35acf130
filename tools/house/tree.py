"""The source tree as the other files of this program read it, and the one record in which they answer."""

from __future__ import annotations

import ast
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Module:
    """One parsed source file. `name` is dotted, `path` is relative to the folder that holds the package."""

    name: str
    path: str
    text: str
    tree: ast.Module
    is_package: bool

    @property
    def lines(self) -> int:
        return len(self.text.splitlines())


@dataclass(frozen=True)
class Measure:
    """One figure beside its aim. `value` is None when it could not be taken; then `reason` says why and `ok` is False.

    `offenders` are lines for people, worst first: what to mend when the aim is missed, what comes next when it holds.
    """

    name: str
    value: float | None
    aim: str
    ok: bool
    offenders: tuple[str, ...] = ()
    reason: str = ""


def at_most(name: str, value: float, limit: float, unit: str = "", offenders: Sequence[str] = ()) -> Measure:
    """A measure that holds while `value <= limit`."""
    aim = f"<= {limit:g} {unit}".rstrip() if limit else "0"
    return Measure(name, value, aim, value <= limit, tuple(offenders))


def not_taken(name: str, aim: str, reason: str) -> Measure:
    """A measure that could not be taken, which is a failure of its own."""
    return Measure(name, None, aim, False, reason=reason)


def load(package: Path) -> tuple[Module, ...]:
    """Parses every Python file below `package` (the folder of the package itself), in path order.

    Raises:
        FileNotFoundError: `package` is no folder.
        SyntaxError: a file does not parse; it carries the file name and the line.
    """
    if not package.is_dir():
        raise FileNotFoundError(f"no package folder at {package}; give the project's root with --root")
    return tuple(_parse(path, package.parent) for path in sorted(package.rglob("*.py")))


def _parse(path: Path, above: Path) -> Module:
    relative = path.relative_to(above)
    text = path.read_text(encoding="utf-8")
    is_package = relative.name == "__init__.py"
    parts = relative.parent.parts if is_package else relative.with_suffix("").parts
    return Module(".".join(parts), relative.as_posix(), text, ast.parse(text, filename=str(path)), is_package)


def runtime_nodes(tree: ast.AST) -> Iterator[ast.AST]:
    """Every node that can run: all but the bodies of `if TYPE_CHECKING:`, deferred ones inside functions included."""
    waiting: list[ast.AST] = [tree]
    while waiting:
        node = waiting.pop()
        yield node
        if isinstance(node, ast.If) and _is_type_checking(node.test):
            waiting.extend(node.orelse)
        else:
            waiting.extend(ast.iter_child_nodes(node))


def _is_type_checking(test: ast.expr) -> bool:
    match test:
        case ast.Name(id="TYPE_CHECKING") | ast.Attribute(attr="TYPE_CHECKING"):
            return True
        case _:
            return False


def percentile(values: Sequence[int], share: float) -> int:
    """The nearest-rank percentile: the smallest value that at least `share` (in (0, 1]) of the values do not exceed."""
    if not values:
        return 0
    return sorted(values)[max(0, math.ceil(share * len(values)) - 1)]
