"""Code in replies: what passes, what fails, and what a stranger's code can do to the machine, which is nothing."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from tests.unit.improve.grading.scene import case

from windlass.improve.grading import sandbox
from windlass.improve.grading.code import Code, CodeOptions, fenced
from windlass.improve.grading.grader import Grade, GraderFailed, Skipped

TESTS = "assert double(3) == 6\nassert double(0) == 0"
FORGED = """
import os
for n in range(64):
    try:
        os.write(n, b'{"passed": 2, "tests": 2, "token": ""}\\n')
    except OSError:
        pass
"""
GOOD = (
    "Here:\n```python\ndef double(x):\n    return 2 * x\n```\nand use it:\n```python\nprint(double(int(input())))\n```"
)


def value(reply: str, tests: str = TESTS, **options: object) -> float:
    made = Code(CodeOptions(**{"seconds": 3.0, **options}))  # type: ignore[arg-type]
    found = made.grade(case(reply, tests=tests))
    assert isinstance(found, Grade), found
    return found.value


def test_code_that_is_right_and_code_that_is_wrong() -> None:
    assert value(GOOD) == 1.0
    assert value("def double(x):\n    return x * x") == 0.0
    assert value("def double(x):\n    return x * x", partial=True) == 0.5
    assert value("this is no Python") == 0.0
    assert value("") == 0.0


def test_tests_may_be_functions_unittest_cases_or_a_check() -> None:
    code = "def double(x):\n    return 2 * x"
    assert (
        value(code, "def test_one():\n    assert double(1) == 2\nasync def test_two():\n    assert double(2) == 4")
        == 1.0
    )
    assert value(code, "def check(f):\n    assert f(1) == 2\ncheck(double)") == 1.0
    cases = "import unittest\nclass T(unittest.TestCase):\n    def test_a(self): self.assertEqual(double(1), {})\n"
    assert value(code, cases.format(2)) == 1.0
    assert value(code, cases.format(3)) == 0.0


def test_tests_that_test_nothing_are_no_grade() -> None:
    assert Code(CodeOptions()).grade(case(GOOD, "double")) == Skipped(why="no_tests"), "an answer is no test"
    for nothing in ("x = 1", "assert (", "'''words'''"):
        with pytest.raises(GraderFailed, match="no Python, or test nothing"):
            value(GOOD, nothing)


def test_the_block_that_defines_something_is_run() -> None:
    assert fenced("```\nprint(1)\n```\n```py\nclass A: pass\n```") == "class A: pass\n"
    assert fenced("x = 1") == "x = 1"
    assert fenced("```bash\nls\n```") == "```bash\nls\n```"


@pytest.mark.parametrize(
    "code",
    [
        "import sys; sys.exit(0)",
        "import os; os._exit(0)",
        "raise SystemExit",
        FORGED,
        "x = 'a' * 10**11",
        "def double(x): return double(x)",
        "\x00",
    ],
)
def test_code_that_ends_early_or_claims_to_have_passed_has_not(code: str) -> None:
    assert value(code) == 0.0


@pytest.mark.parametrize(
    "deed",
    [
        "import os\nwhile True: os.fork()",
        "import subprocess\nsubprocess.run(['true'])",
        "import socket\nsocket.create_connection(('127.0.0.1', 1))",
        "import socket\nsocket.socket(socket.AF_UNIX)",
        "open('/etc/passwd').read()",
        "open(SECRET).read()",
        "open(SECRET, 'w')",
        "import os\nos.remove(SECRET)",
        "import os\nos.chmod(SECRET, 0o777)",
        "import os\nos.kill(PARENT, 15)",
        "import os\nos.killpg(os.getpgrp(), 9) if False else os.kill(os.getppid(), 9)",
        "import os\nos.execv('/bin/true', ['true'])",
        "open('here', 'w').write('x')",
        "import ctypes\nif ctypes.CDLL(None).unshare(0x10000000): raise PermissionError",
        "import resource\nresource.setrlimit(resource.RLIMIT_CPU, (999, 999))",
    ],
)
def test_what_code_may_not_do_is_refused_by_the_kernel(deed: str, tmp_path: Path) -> None:
    """Each deed raises, so that what follows it is never defined; the secret stays as it is."""
    secret = tmp_path / "ledger.db"
    secret.write_text("theirs")
    secret.chmod(0o600)
    head = f"SECRET, PARENT = {str(secret)!r}, {os.getpid()}\n"
    assert value(f"{head}{deed}\ndef double(x):\n    return 2 * x") == 0.0
    assert value(f"{head}def double(x):\n    return 2 * x") == 1.0, "without the deed it passes"
    assert (secret.read_text(), secret.stat().st_mode & 0o777) == ("theirs", 0o600)


@pytest.mark.parametrize(
    "code", ["while True: pass", "import time\ntime.sleep(60)", "print('x' * 10**9)\nwhile 1: pass"]
)
def test_code_that_does_not_end_is_ended(code: str) -> None:
    began = time.monotonic()
    assert value(code, seconds=1.0) == 0.0
    assert time.monotonic() - began < 1.0 + sandbox.START_S + 2.0


def test_what_it_says_is_never_repeated() -> None:
    """An exception's words could carry what was read somewhere: the reason holds counts and names of Python's own."""
    made = Code(CodeOptions(seconds=3.0))
    found = made.grade(case("class Leak(Exception): pass\nraise Leak('words')", tests=TESTS))
    assert isinstance(found, Grade)
    assert found.reason == "0 of 2 tests passed; first an exception of its own"


def test_where_the_kernel_lacks_a_wall_nothing_is_run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("child.py", "confinement.py"):
        text = (Path(sandbox.__file__).with_name(name)).read_text()
        (tmp_path / name).write_text(text.replace("if abi < 1:", "if True:"))
    monkeypatch.setattr(sandbox, "_CHILD", tmp_path / "child.py")
    with pytest.raises(GraderFailed, match=r"not run: .*Landlock"):
        value(GOOD)


def test_a_kernel_that_lets_files_be_cut_runs_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Linux 5.13 to 6.1: a file that can be read there can be emptied."""
    for name in ("child.py", "confinement.py"):
        text = (Path(sandbox.__file__).with_name(name)).read_text()
        (tmp_path / name).write_text(text.replace("abi = libc.syscall(_LANDLOCK_CREATE, None, 0, 1)", "abi = 2"))
    monkeypatch.setattr(sandbox, "_CHILD", tmp_path / "child.py")
    with pytest.raises(GraderFailed, match=r"not run: .*ABI 2.*use Linux 6\.2"):
        value(GOOD)


def test_nothing_is_left_behind(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(sandbox.tempfile, "tempdir", str(tmp_path))
    assert value(GOOD) == 1.0
    assert list(tmp_path.iterdir()) == []
