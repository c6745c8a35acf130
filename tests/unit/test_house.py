"""The house program: each measure on a small tree that keeps its aim and on one that does not; the import contracts."""

from __future__ import annotations

import configparser
import json
import subprocess
import sys
from collections.abc import Callable, Generator, Iterable
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # `tools` is not installed

from tools.house import duplicates, imports, names, outside, running, shape
from tools.house.__main__ import main
from tools.house.gateway_call import StartedFiles
from tools.house.tree import Measure, Module, load, percentile

ROOT = Path(__file__).resolve().parents[2]
Take = Callable[[Iterable[Module]], Measure]


def plant(root: Path, files: dict[str, str]) -> Path:
    """Writes a made-up package `windlass` below `root` and returns its folder."""
    package = root / "windlass"
    for name, text in {"__init__.py": "", **files}.items():
        path = package / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return package


def named(measures: Iterable[Measure], name: str) -> Measure:
    return next(one for one in measures if one.name == name)


def body(lines: int) -> str:
    return "".join(f"x{number} = {number}\n" for number in range(lines))


def function(lines: int, name: str = "f") -> str:
    return f"def {name}():\n" + "".join(f"    x{number} = {number}\n" for number in range(lines - 1))


COPY = "first = open_it(1)\nsecond = 2\nthird = first + second\nfourth = [third]\nfifth = fourth[0]\nsixth = fifth\n"
LOCAL_COPY = "def f():\n" + "".join(f"    {line}  # here\n\n" for line in COPY.splitlines())

VIOLATIONS: list[tuple[Take, dict[str, str], int]] = [
    (imports.cycles, {"a.py": "import windlass.b", "b.py": "from windlass import a"}, 1),
    (imports.cycles, {"a.py": "def f():\n    from . import b", "b.py": "class C:\n    from .a import f"}, 1),
    (imports.cycles, {"a.py": "if x:\n    pass\nelse:\n    from windlass.b import y", "b.py": "from .a import z"}, 1),
    (imports.cycles, {"__init__.py": "from windlass.a import x", "a.py": "from windlass import y"}, 1),
    (imports.cycles, {"a.py": "import_module('windlass.b')", "b.py": "import windlass.a as a"}, 1),
    (imports.cycles, {"p/x.py": "import windlass.q.x", "q/x.py": "", "q/y.py": "from ..p import y", "p/y.py": ""}, 1),
    (
        imports.cycles,
        {"p/a/x.py": "import windlass.p.b.x", "p/b/x.py": "", "p/b/y.py": "import windlass.p.a.y", "p/a/y.py": ""},
        1,
    ),
    (
        imports.cycles,
        {
            "a.py": "import windlass.b",
            "b.py": "import windlass.a",
            "c.py": "from . import d",
            "d.py": "from . import c",
        },
        2,
    ),
    (outside.environment_readers, {"settings.py": "import os\nos.environ", "a.py": "import os\nos.getenv('X')"}, 2),
    (outside.environment_readers, {"settings.py": "from os import getenv", "a.py": "import os as o\no.environ"}, 2),
    (outside.environment_readers, {"a.py": "from os import environ as e"}, 1),
    (outside.environment_readers, {"bot/settings.py": "import os.path\nos.environ.get('X')"}, 1),
    (outside.environment_readers, {"settings.py": "HOME = '~'"}, 0),
    (outside.core_purity, {"records.py": "from datetime import datetime\nAT = datetime.now()"}, 1),
    (outside.core_purity, {"policies/linear.py": "import numpy as np\nnp.random.normal()\nnp.random.default_rng()"}, 2),
    (outside.core_purity, {"stats/confseq.py": "print(1)\nopen('x')\nrng = default_rng()"}, 3),
    (names.global_statements, {"a.py": "x = 0\ndef f():\n    global x\n    x = 1"}, 1),
    (names.repeated_classes, {"a.py": "class Policy: ...", "b.py": "def f():\n    class Policy: ..."}, 1),
    (names.repeated_classes, {"a.py": "if x:\n    class A: ...\nelse:\n    class A: ..."}, 1),
    (names.empty_names, {"cache_manager.py": "", "text_utils.py": "", "enhanced_cache.py": "", "router_v2.py": ""}, 4),
    (names.empty_names, {"legacy/__init__.py": "", "utils.py": "", "unified_index.py": ""}, 3),
    (names.empty_names, {"a.py": "class CacheManager: ...\nclass RuleEngine: ...\nclass AuthService: ..."}, 3),
    (names.empty_names, {"a.py": "class ErrorHandler: ...\nclass EnhancedCache: ...\nclass RouterV2: ..."}, 3),
]

KEPT: list[tuple[Take, dict[str, str]]] = [
    (imports.cycles, {"a.py": "import windlass.b\nimport os", "b.py": "import os"}),
    (imports.cycles, {"a.py": "import windlass.b", "b.py": "if TYPE_CHECKING:\n    from windlass.a import x"}),
    (imports.cycles, {"a.py": "import windlass.b", "b.py": "if typing.TYPE_CHECKING:\n    import windlass.a"}),
    (imports.cycles, {"p/__init__.py": "from .a import x", "p/a.py": "from . import b", "p/b.py": "import os"}),
    (imports.cycles, {"a.py": "import windlass.ab", "ab.py": "import windlassa, a, b"}),
    (outside.environment_readers, {"settings.py": "import os\nos.environ", "a.py": "import os\nos.getcwd()"}),
    (outside.environment_readers, {"settings.py": "import os\nos.environ", "a.py": "self.environ\n'os.environ'"}),
    (
        outside.core_purity,
        {"policies/loop.py": "datetime.now()", "gateway/a.py": "open('x')", "records.py": "at: float"},
    ),
    (outside.core_purity, {"policies/a.py": "np.random.Generator(np.random.Philox(key=[1, 2]))\nself.random.normal()"}),
    (names.global_statements, {"a.py": "def f():\n    x = 0\n    def g():\n        nonlocal x"}),
    (names.repeated_classes, {"a.py": "class A: ...", "b.py": "class B: ...\ndef A(): ..."}),
    (
        names.empty_names,
        {"a.py": "class Utility: ...\nclass IPv4: ...\nclass Pawl: ..."},
    ),
    (names.empty_names, {"v1.py": "def handler(): ...", "manage.py": "engine = 1"}),
    (duplicates.duplicated_windows, {"a.py": COPY, "b.py": body(40)}),
    (duplicates.duplicated_windows, {"a.py": "import x\n" * 9, "b.py": "import x\n" * 9, "c.py": "# no\n\n" * 9}),
    (duplicates.duplicated_windows, {f"{name}.py": "def f():\n" + '    "same"\n' * 9 for name in "ab"}),
    (duplicates.duplicated_windows, {"a.py": body(5), "b.py": body(5)}),
]


@pytest.mark.parametrize(("take", "files", "value"), VIOLATIONS)
def test_a_violation_is_counted_and_named(tmp_path: Path, take: Take, files: dict[str, str], value: int) -> None:
    measured = take(load(plant(tmp_path, files)))
    assert (measured.value, measured.ok) == (value, False)
    assert measured.offenders
    assert all(".py" in line for line in measured.offenders)


@pytest.mark.parametrize(("take", "files"), KEPT)
def test_what_keeps_the_rule_passes(tmp_path: Path, take: Take, files: dict[str, str]) -> None:
    measured = take(load(plant(tmp_path, files)))
    assert measured.ok, measured


def test_a_cycle_names_the_lines_to_change(tmp_path: Path) -> None:
    package = plant(tmp_path, {"a.py": "\n\nimport windlass.b", "b.py": "from windlass.a import x"})
    (line,) = imports.cycles(load(package)).offenders
    assert "windlass/a.py:3 -> windlass.b" in line
    assert "windlass/b.py:1 -> windlass.a" in line


def test_copies_are_found_through_indentation_and_comments(tmp_path: Path) -> None:
    measured = duplicates.duplicated_windows(load(plant(tmp_path, {"a.py": COPY, "b.py": LOCAL_COPY})))
    assert measured.value == pytest.approx(100 * 2 / 3, abs=0.01)
    assert not measured.ok
    assert measured.offenders == ("6 lines windlass/a.py:1-6 = windlass/b.py:2-12",)


def test_neighbouring_windows_are_one_block(tmp_path: Path) -> None:
    measured = duplicates.duplicated_windows(load(plant(tmp_path, {"a.py": body(9), "b.py": "y = 1\n" + body(9)})))
    assert measured.offenders == ("9 lines windlass/a.py:1-9 = windlass/b.py:2-10",)


def test_one_copy_in_a_large_tree_is_within_the_limit(tmp_path: Path) -> None:
    files = {"a.py": COPY + body(400), "b.py": COPY}
    measured = duplicates.duplicated_windows(load(plant(tmp_path, files)))
    assert measured.ok
    assert measured.value == pytest.approx(100 * 2 / 402, abs=0.01)


@pytest.mark.parametrize(
    ("lengths", "missed"),
    [
        ([200, 200, 201], set()),
        ([100, 201, 201], {"file lines, median"}),
        ([10, 10, 501], {"file lines, p95"}),
        ([10] * 39 + [801], {"file lines, longest"}),
        ([], set()),
    ],
)
def test_file_lengths(tmp_path: Path, lengths: list[int], missed: set[str]) -> None:
    files = {f"m{number}.py": body(lines) for number, lines in enumerate(lengths)}
    measures = shape.files(load(plant(tmp_path, files)))
    assert {one.name for one in measures if not one.ok} == missed


@pytest.mark.parametrize(
    ("lengths", "p95", "ok"), [([45], 45, True), ([46], 46, False), ([5] * 19 + [90], 5, True), ([], 0, True)]
)
def test_function_lengths(tmp_path: Path, lengths: list[int], p95: int, ok: bool) -> None:
    text = "\n".join(function(lines, f"f{number}") for number, lines in enumerate(lengths))
    measured = named(shape.functions(load(plant(tmp_path, {"a.py": text}))), "function lines, p95")
    assert (measured.value, measured.ok) == (p95, ok)


@pytest.mark.parametrize(
    ("text", "ways"),
    [
        ("def f(): pass", 1),
        ("async def f():\n    async for x in y:\n        if x and z or w: pass\n        elif x: pass", 6),
        ("def f():\n    try: pass\n    except A: pass\n    except B: pass\n    finally: pass", 3),
        ("def f():\n    while x: y = [a if a else b for a in c if a if b]", 6),
        ("def f(x):\n    match x:\n        case 1: pass\n        case 2 | 3: pass\n        case _: pass", 3),
        ("def f():\n    def g():\n        if x: pass", 2),
        ("def f():\n" + "    if x: pass\n" * 12, 13),
    ],
)
def test_complexity_counts_decisions(tmp_path: Path, text: str, ways: int) -> None:
    measured = named(shape.functions(load(plant(tmp_path, {"a.py": text}))), "complexity, greatest")
    assert (measured.value, measured.ok) == (ways, ways <= 12)


def test_root_entries_are_counted_without_what_git_ignores(tmp_path: Path) -> None:
    subprocess.run(["git", "init", "--quiet", str(tmp_path)], check=True)
    (tmp_path / ".gitignore").write_text("/cache/\n", encoding="utf-8")
    plant(tmp_path, {"a.py": ""})
    plant(tmp_path / "cache", {})
    assert shape.root_entries(tmp_path).value == 2
    for number in range(13):
        (tmp_path / f"note{number}").write_text("", encoding="utf-8")
    crowded = shape.root_entries(tmp_path)
    assert (crowded.value, crowded.ok) == (15, False)


def test_root_entries_outside_git_fail_with_the_reason(tmp_path: Path) -> None:
    measured = shape.root_entries(tmp_path / "absent")
    assert (measured.value, measured.ok) == (None, False)
    assert "git checkout" in measured.reason


def test_a_light_import_holds(tmp_path: Path) -> None:
    plant(tmp_path, {"__init__.py": "VERSION = '1'"})
    cost, heavy = running.import_cost(tmp_path)
    assert cost.ok
    assert cost.value is not None
    assert 0 <= cost.value < 0.1
    assert (heavy.value, heavy.ok) == (0, True)


def test_a_heavy_import_is_seen(tmp_path: Path) -> None:
    burn = "import time, torch\nend = time.process_time() + 0.2\nwhile time.process_time() < end: pass"
    plant(tmp_path, {"__init__.py": burn})
    (tmp_path / "torch.py").write_text("", encoding="utf-8")
    cost, heavy = running.import_cost(tmp_path)
    assert cost.value is not None
    assert cost.value >= 0.2
    assert not cost.ok
    assert (heavy.offenders, heavy.ok) == (("torch",), False)


def test_an_import_that_fails_is_a_failure_with_its_reason(tmp_path: Path) -> None:
    plant(tmp_path, {"__init__.py": "raise ValueError('no pawl')"})
    assert [(one.value, one.ok, one.reason) for one in running.import_cost(tmp_path)] == [
        (None, False, "ValueError: no pawl")
    ] * 2


CLIENT = """
import asyncio, threading
from windlass import gateway, ledger, records

class Client:
    def __init__(self, home):
        self.home = home

    def __enter__(self):
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever)
        self.thread.start()
        self.beat = asyncio.run_coroutine_threadsafe(ledger.beat(), self.loop)
        return self

    def __exit__(self, *error):
        self.loop.call_soon_threadsafe(self.beat.cancel)
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join()
        self.loop.close()

    def chat(self, messages, model):
        return asyncio.run_coroutine_threadsafe(gateway.complete(messages), self.loop).result()
"""
GATEWAY = """
import asyncio
from windlass import records, warm

async def complete(messages):
    warm.once()
    await asyncio.sleep(0.05)
    return records.reply(PROVIDERS)

PROVIDERS = []
"""
LEDGER = "import asyncio\nasync def beat():\n    while True:\n        await asyncio.sleep(0.001)\n"
WARM = "import functools\n@functools.cache\ndef once(): pass\n"
RECORDS = "def reply(providers):\n    return [provider() for provider in providers]\n"
APP = {
    "__init__.py": "from windlass.client import Client",
    "client.py": CLIENT,
    "gateway.py": GATEWAY,
    "ledger.py": LEDGER,
    "records.py": RECORDS,
    "warm.py": WARM,
    "idle.py": "def never(): pass",
}


def test_a_gateway_call_counts_the_files_that_start_functions_on_any_thread(tmp_path: Path) -> None:
    """Neither warm-up work, nor a background coroutine that merely goes on, nor the records count."""
    plant(tmp_path, APP)
    measured = running.gateway_call(tmp_path)
    assert measured.offenders == ("client.py", "gateway.py"), measured.reason
    assert (measured.value, measured.ok) == (2, True)


def test_a_gateway_call_through_too_many_files_misses_the_aim(tmp_path: Path) -> None:
    rooms = [*(f"p{number}" for number in range(19)), "records_of", "errors.cause", "stats.linear"]
    providers = {f"{room.replace('.', '/')}.py": "def f(): pass" for room in rooms}
    imported = "".join(f"import windlass.{room}\nPROVIDERS.append(windlass.{room}.f)\n" for room in rooms)
    plant(tmp_path, {**APP, **providers, "gateway.py": GATEWAY + imported})
    measured = running.gateway_call(tmp_path)
    assert (measured.value, measured.ok) == (22, False), measured.reason


def test_without_a_client_the_gateway_call_fails_with_the_reason(tmp_path: Path) -> None:
    plant(tmp_path, {})
    measured = running.gateway_call(tmp_path)
    assert (measured.value, measured.ok) == (None, False)
    assert "cannot import name 'Client'" in measured.reason


def test_a_coroutine_that_goes_on_is_no_start() -> None:
    async def step() -> None:
        await Pause()

    class Pause:
        def __await__(self) -> Generator[None]:
            yield

    seen = StartedFiles(Path(__file__).parent)
    seen.recording = True
    running_step = step()
    before = sys.getprofile()
    sys.setprofile(seen)
    try:
        running_step.send(None)
        first, seen.files = seen.files, set()
        with pytest.raises(StopIteration):
            running_step.send(None)
    finally:
        sys.setprofile(before)
    assert first == {Path(__file__).name}
    assert "test_house.py" not in seen.files


@pytest.mark.parametrize(("share", "value"), [(0.5, 2), (0.75, 3), (0.76, 4), (1.0, 4)])
def test_percentile_is_the_nearest_rank(share: float, value: int) -> None:
    assert percentile([4, 1, 3, 2], share) == value


def test_percentile_of_nothing_is_zero() -> None:
    assert percentile([], 0.95) == 0


def test_the_command_line_answers_with_one_object_and_the_status(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    subprocess.run(["git", "init", "--quiet", str(tmp_path)], check=True)
    plant(tmp_path / "src", {**APP, "settings.py": "import os\nHOME = os.environ"})
    assert main(["--root", str(tmp_path), "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["ok"] is True
    assert len(answer["measures"]) == 16
    assert all(one["ok"] for one in answer["measures"])


def test_the_command_line_lists_what_misses_its_aim(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plant(tmp_path / "src", {"a.py": "def f():\n    global x\n    x = 1"})
    assert main(["--root", str(tmp_path), "--list"]) == 1
    text = capsys.readouterr().out
    assert "windlass/a.py:2 global x" in text
    assert "FAILED" in text


@pytest.mark.parametrize("text", ["def f(:", None])
def test_a_tree_that_cannot_be_read_is_status_two(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str | None
) -> None:
    if text is not None:
        plant(tmp_path / "src", {"a.py": text})
    assert main(["--root", str(tmp_path)]) == 2
    assert capsys.readouterr().err.startswith("house: ")


ALLOWED = {
    "__init__.py": "def __getattr__(name):\n    from windlass import client",
    "workflows/durable.py": "import dbos",
    "ledger/db.py": "import alembic\nimport sqlalchemy.orm",
    "watch/store.py": "from sqlalchemy import select",
    "watch/advisor.py": "import sqlalchemy",
    "bot/gateway.py": "import discord",
    "policies/loop.py": "import asyncio\nimport time\nfrom windlass.ledger import db",
    "policies/__init__.py": "from windlass.policies import loop",
    "stats/linear.py": "import numpy\nfrom windlass import records",
    "gateway/gateway.py": "import time, os, logging\nfrom windlass.policies import loop",
}
BROKEN = {
    "ledger/up.py": "def f():\n    import windlass.gateway.gateway",
    "records.py": "if TYPE_CHECKING:\n    from windlass.server import x",
    "stats/points.py": "import windlass.plugins",
    "attic.py": "",
    "server/pages.py": "from dbos import DBOS",
    "gateway/many.py": "def f():\n    import litellm",
    "watch/spans.py": "import opentelemetry.sdk",
    "client.py": "import discord",
    "content/rows.py": "import sqlalchemy.orm",
    "settings.py": "import sqlite3",
    "policies/linear.py": "import time\nfrom pathlib import Path",
    "policies/near.py": "import windlass.ledger.db",
    "memory/a/x.py": "import windlass.memory.b.x",
    "memory/b/y.py": "import windlass.memory.a.y",
    **{f"memory/{name}.py": "" for name in ("a/__init__", "b/__init__", "b/x", "a/y")},
}
SAID = [
    "windlass.ledger is not allowed to import windlass.gateway:",
    "windlass.records is not allowed to import windlass.server:",
    "windlass.stats is not allowed to import windlass.plugins:",
    "- windlass.attic",
    "windlass.server.pages -> dbos",
    "windlass.gateway.many -> litellm",
    "windlass.watch.spans -> opentelemetry",
    "windlass.client -> discord",
    "windlass.content.rows -> sqlalchemy",
    "windlass.settings -> sqlite3",
    "windlass.policies.linear -> time",
    "windlass.policies.linear -> pathlib",
    "windlass.policies.near -> windlass.ledger.db",
    "No cycles are allowed in windlass.memory.",
]


def contracts(root: Path, files: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """Checks the project's own contracts on a made-up tree that has every room, each empty but for `files`."""
    text = (ROOT / "tools" / "importlinter.ini").read_text(encoding="utf-8")
    (root / ".importlinter").write_text(text, encoding="utf-8")
    options = configparser.ConfigParser()
    options.read_string(text)
    layers = options["importlinter:contract:layers"]["layers"].replace("|", " ").split()
    packages = {path.split("/")[0] for path in ALLOWED | BROKEN if "/" in path}
    rooms = {layer.strip("()") for layer in layers}
    empty = {f"{room}/__init__.py" if room in packages else f"{room}.py": "" for room in rooms}
    plant(root, {**empty, **files})
    linter = Path(sys.executable).with_name("lint-imports")
    return subprocess.run(
        [str(linter), "--no-cache", "--no-logo"], cwd=root, capture_output=True, text=True, check=False
    )


def test_the_contracts_allow_what_the_house_allows(tmp_path: Path) -> None:
    done = contracts(tmp_path, ALLOWED)
    assert done.returncode == 0, done.stdout
    assert "5 kept, 0 broken" in done.stdout


def test_the_contracts_name_every_import_that_breaks_them(tmp_path: Path) -> None:
    done = contracts(tmp_path, {**ALLOWED, **BROKEN})
    assert done.returncode == 1
    assert "0 kept, 5 broken" in done.stdout
    assert [line for line in SAID if line not in done.stdout] == []
