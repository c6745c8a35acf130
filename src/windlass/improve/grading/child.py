"""What runs in the child process of `sandbox.py`: a stranger's code with tests, or a pattern over texts. No imports of
ours but `confinement`, which lies beside it.

    python -I child.py python <cpu s> <memory bytes>   one job on stdin, one line of JSON on stdout
    python -I child.py regex <cpu s> <memory bytes>    a job a line, an answer a line, until stdin ends
"""

from __future__ import annotations

import ast
import importlib.util
import inspect
import json
import os
import re
import sys
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
_SETUP = (
    ast.Import, ast.ImportFrom, ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Assign, ast.AnnAssign,
    ast.AugAssign,
)  # fmt: skip


def main() -> None:
    """Shut this process off, then do what it is told."""
    kind, cpu_s, memory_bytes = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    out = os.dup(1)
    walls = _beside("confinement")
    try:
        walls.confine(cpu_s, memory_bytes)
    except OSError as exc:
        _tell(out, {"refused": str(exc)})
        return
    if kind == "regex":
        for line in sys.stdin.buffer:
            _tell(out, _searched(json.loads(line)))
        return
    job = json.loads(sys.stdin.buffer.read())
    nothing = os.open("/dev/null", os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(nothing, stream)
    passed, tests, error = _tested(job["code"], job["tests"])
    _tell(out, {"token": job["token"], "passed": passed, "tests": tests, "error": error})
    os._exit(0)  # past whatever the code has left to be done at the end


def _beside(name: str) -> ModuleType:
    """A module of this folder, which is not on the path of an isolated Python."""
    spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name(f"{name}.py"))
    assert spec is not None, "it lies beside this file"
    assert spec.loader is not None, "a file of Python has one"
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _tell(out: int, said: dict[str, Any]) -> None:
    os.write(out, json.dumps(said).encode() + b"\n")


def _searched(job: dict[str, Any]) -> dict[str, Any]:
    try:
        found = re.compile(job["pattern"], job["flags"])
        return {"found": (found.fullmatch if job["whole"] else found.search)(job["text"]) is not None}
    except (re.error, RecursionError, OverflowError, MemoryError) as exc:
        return {"error": f"{type(exc).__name__}: {exc}"[:200]}


def _tested(code: str, tests: str) -> tuple[int, int, str]:
    """How many tests passed, how many there are, and the name of the first error."""
    space: dict[str, Any] = {"__name__": "reply", "__builtins__": __builtins__}
    try:
        statements = ast.parse(tests).body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return 0, 0, "the tests are no Python"
    functions = _test_names(statements)
    many = sum(not _is_setup(one) for one in statements) + len(functions)
    failed = _run(lambda: compile(code, "<reply>", "exec"), space)
    if failed:
        return 0, many, failed
    ended = [(_run(partial(_compiled, one), space), _is_setup(one)) for one in statements]
    ended += [(_called(space, name), False) for name in functions]
    passed = sum(not error and not setup for error, setup in ended)
    first = next((error for error, _ in ended if error), "")
    more, of = _unittests(space)
    return passed + more, many + of, first


def _test_names(statements: list[ast.stmt]) -> list[str]:
    return [one.name for one in statements if isinstance(one, _FUNCTIONS) and one.name.startswith("test")]


def _compiled(one: ast.stmt) -> Any:
    return compile(ast.Module([one], []), "<tests>", "exec")


def _is_setup(one: ast.stmt) -> bool:
    docstring = isinstance(one, ast.Expr) and isinstance(one.value, ast.Constant)
    return docstring or isinstance(one, _SETUP)


def _run(make: Any, space: dict[str, Any]) -> str:
    """'' where it ran, else the name of what it raised, of Python's own exceptions alone."""
    try:
        exec(make(), space)
    except BaseException as exc:  # noqa: BLE001 (a stranger's code, which may raise SystemExit to pass for done)
        return _name(exc)
    return ""


def _called(space: dict[str, Any], name: str) -> str:
    try:
        result = space[name]()
        if inspect.iscoroutine(result):
            import asyncio

            asyncio.run(result)
    except BaseException as exc:  # noqa: BLE001 (as above)
        return _name(exc)
    return ""


def _unittests(space: dict[str, Any]) -> tuple[int, int]:
    """How many methods of the tests' unittest cases passed, of how many."""
    unittest = sys.modules.get("unittest")
    if unittest is None:
        return 0, 0
    result = unittest.TestResult()
    for case in list(space.values()):
        if isinstance(case, type) and issubclass(case, unittest.TestCase):
            unittest.defaultTestLoader.loadTestsFromTestCase(case).run(result)
    return result.testsRun - len({id(test) for test, _ in (*result.failures, *result.errors)}), result.testsRun


def _name(exc: BaseException) -> str:
    kind = type(exc)
    return kind.__name__ if kind.__module__ == "builtins" else "an exception of its own"


if __name__ == "__main__":
    main()
