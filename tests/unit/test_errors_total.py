"""Nothing that we call, raise or catch is unknown to `classify`: a walk through the libraries and through our code."""

from __future__ import annotations

import ast
import builtins
import importlib
import inspect
import pkgutil
import re
import typing
import warnings
from collections.abc import Iterator
from pathlib import Path
from types import FunctionType, ModuleType

import pydantic
import pytest

import windlass
from windlass.errors import ErrorCategory as C
from windlass.errors import WindlassError, classify

ELSEWHERE = {"litellm"}
"""Not among what the tests have: an extra that gets on with none of it, tried in an environment of its own."""
LIBRARIES = {
    # library: submodules left out, because they are for other people's tests or need what is not installed
    "aiohttp": {"worker", "pytest_plugin", "test_utils"},
    "alembic": {"testing", "templates"},
    "asyncio": {"windows_events", "windows_utils"},
    "builtins": set(),
    "concurrent": set(),
    "dbos": {"cli"},
    "http.client": set(),
    "httptools": set(),
    "jinja2": set(),
    "json": {"tool"},
    "msgspec": set(),
    "onnx.checker": set(),
    "onnx.defs": {"gen_doc", "gen_shape_inference_information"},
    "onnx.parser": set(),
    "onnx.shape_inference": set(),
    "onnx.version_converter": set(),
    "onnxruntime": {"quantization", "tools", "transformers", "datasets", "backend"},
    "pydantic": {"mypy", "v1"},
    "pydantic_core": set(),
    "rich.errors": set(),
    "socket": set(),
    "sqlalchemy": {"testing", "dialects", "ext", "connectors"},
    "sqlite3": set(),
    "ssl": set(),
    "starlette": {"testclient"},
    "structlog": {"twisted"},
    "tokenizers": {"tools"},
    "tomllib": set(),
    "uvicorn": {"workers"},
    "webvtt": {"cli"},
    "yaml": set(),
}


def modules_of(root: ModuleType, left_out: set[str]) -> Iterator[ModuleType]:
    """`root`, the modules that it shows under a public name (`dbos.error` is `dbos._error`), and its submodules."""
    yield root
    for name, shown in vars(root).items():
        if inspect.ismodule(shown) and not name.startswith("_") and shown.__name__.startswith(f"{root.__name__}._"):
            yield shown
    for found in pkgutil.iter_modules(getattr(root, "__path__", [])):
        if found.name.startswith("_") or found.name in left_out:
            continue
        try:
            module = importlib.import_module(f"{root.__name__}.{found.name}")
        except (ImportError, SystemExit):  # an optional part whose own dependency is not installed
            continue
        yield from modules_of(module, left_out)


def public_exceptions(library: str) -> set[type[BaseException]]:
    """Every exception class that a public module of the library shows and the library defines."""
    package = library.partition(".")[0]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # old submodules warn on import; they are not ours
        root = importlib.import_module(library)
        return {
            shown
            for module in modules_of(root, LIBRARIES[library])
            for name, shown in vars(module).items()
            if inspect.isclass(shown) and issubclass(shown, BaseException) and not name.startswith("_")
            if shown.__module__.partition(".")[0] == package
        }


def an_instance(cls: type[BaseException]) -> BaseException:
    """One exception of `cls` with nothing filled in: `classify` may not rely on attributes being there."""
    if issubclass(cls, BaseExceptionGroup):
        return cls("a group", [TimeoutError()])
    if cls is pydantic.ValidationError:
        return pydantic.ValidationError.from_exception_data("Model", [])
    try:
        return cls.__new__(cls)
    except TypeError:
        return cls("kind", "message") if cls.__name__ == "PydanticCustomError" else cls("missing")


@pytest.mark.parametrize("library", LIBRARIES)
def test_no_public_exception_of_a_library_is_unknown(library: str) -> None:
    found = public_exceptions(library) - {Exception, BaseException}
    assert found or library in {"structlog", "tokenizers"}, (
        f"no exception found in {library}: does the walk still work?"
    )
    unknown = {f"{cls.__module__}.{cls.__qualname__}" for cls in found if classify(an_instance(cls)) is C.UNKNOWN}
    assert unknown == set()


def subclasses(cls: type[BaseException]) -> Iterator[type[BaseException]]:
    for child in cls.__subclasses__():
        yield child
        yield from subclasses(child)


def own_modules() -> Iterator[ModuleType]:
    yield windlass
    for found in pkgutil.walk_packages(windlass.__path__, "windlass."):
        if not found.name.endswith(("__main__", "migrations.env")) and ".versions." not in found.name:
            yield importlib.import_module(found.name)


def test_each_exception_of_ours_stands_for_one_cause() -> None:
    list(own_modules())
    ours = {cls for cls in subclasses(WindlassError) if cls.__module__.startswith("windlass")}
    assert len(ours) >= 14
    # Through the base alone a new branch of the tree would pass as a bug: it needs a name of its own.
    assert {cls.__name__ for cls in ours if classify(an_instance(cls)) in {C.UNKNOWN, C.BUG}} == set()


def parts_of(expression: ast.expr) -> list[ast.expr]:
    """A name as it is; of anything more (a tuple, a lookup, a call of these) the class names inside."""
    if re.fullmatch(r"[\w.]+", ast.unparse(expression)):
        return [expression]
    if isinstance(expression, ast.Call):
        return parts_of(expression.func)
    if isinstance(expression, ast.Tuple):
        return [part for element in expression.elts for part in parts_of(element)]
    return [node for node in ast.walk(expression) if isinstance(node, ast.Name) and node.id[:1].isupper()]


def named_in_code(path: Path) -> Iterator[tuple[ast.expr, bool]]:
    """What stands behind `except` (True) and `raise` (False)."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ExceptHandler) and node.type is not None:
            yield from ((part, True) for part in parts_of(node.type))
        if isinstance(node, ast.Raise) and node.exc is not None:
            yield from ((part, False) for part in parts_of(node.exc))


def namespace_of(module: ModuleType, path: Path) -> dict[str, object]:
    """Builtins, the module's names, and what its functions import late."""
    late: dict[str, object] = {}
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name in ELSEWHERE:
                    continue
                imported = importlib.import_module(alias.name)
                late[alias.asname or alias.name.partition(".")[0]] = (
                    imported if alias.asname else importlib.import_module(alias.name.partition(".")[0])
                )
        if isinstance(node, ast.ImportFrom) and node.module and node.module != "__future__":
            source = importlib.import_module(node.module)
            late |= {alias.asname or alias.name: vars(source).get(alias.name) for alias in node.names}
    return {**vars(builtins), **late, **vars(module)}


def resolved(expression: ast.expr, namespace: dict[str, object], where: str) -> list[type[BaseException]]:
    """The classes that the expression stands for; empty for a local variable that holds an exception."""
    dotted = ast.unparse(expression)
    first, *rest = dotted.split(".")
    if first in {"self", "cls"} or (first not in namespace and not rest and first.islower()):
        return []  # `raise exc`: an exception that was made elsewhere; `raise self._failed(...)`: typed by mypy
    assert first in namespace, f"{where}: {dotted} resolves to nothing"
    value = namespace[first]
    for name in rest:
        value = getattr(value, name)
    if isinstance(value, FunctionType):
        value = typing.get_type_hints(value, localns=namespace)["return"]
    values = value if isinstance(value, tuple) else (value,)
    assert all(inspect.isclass(cls) and issubclass(cls, BaseException) for cls in values), f"{where}: {dotted}"
    return list(values)


def test_nothing_that_we_raise_or_catch_is_unknown() -> None:
    unknown, seen = set(), 0
    for module in own_modules():
        path = Path(str(module.__file__))
        namespace = namespace_of(module, path)
        for expression, caught in named_in_code(path):
            where = f"{path.name}:{expression.lineno}"
            for cls in resolved(expression, namespace, where):
                seen += 1
                broad = caught and cls in {Exception, BaseException}
                if not broad and classify(an_instance(cls)) is C.UNKNOWN:
                    unknown.add(f"{where} {cls.__name__}")
    assert seen >= 20
    assert unknown == set()
