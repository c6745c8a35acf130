"""`code`: the Python in the reply passes tests, in a child process that is shut off from everything else.

What is and what is not kept out stands in docs/howto/graders.md. In short: no network, no other process, no files but
Python's own, limits of time and memory, all by the kernel (Linux). But code and tests share one Python: code that looks
for the tests can find and satisfy them without solving anything. Grade models by it, not adversaries.
"""

from __future__ import annotations

import math
import re
import secrets
from dataclasses import dataclass
from typing import Any, ClassVar, Final, Literal

from windlass.errors import SettingsError
from windlass.improve.grading.grader import Case, GraderFailed, On, Skipped, Verdict, said
from windlass.improve.grading.sandbox import START_S, run_python

MOST_CHARS: Final = 200_000
_FENCE = re.compile(r"```[ \t]*(?:python3?|py)?[ \t]*\r?\n(.*?)```", re.DOTALL | re.IGNORECASE)
_DEFINES = re.compile(r"^(?:async\s+def|def|class)\s", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class CodeOptions:
    """Which tests, and how much the code may use.

    tests: Python that is run after the code: top-level assertions and calls, functions named `test...`, unittest cases;
    without it those that came with the call. seconds: of time and of the processor. memory_mb: of
    address space. partial: the grade is the share of tests that pass; else 1 only where all do.
    """

    tests: str = ""
    seconds: float = 5.0
    memory_mb: int = 512
    partial: bool = False

    def __post_init__(self) -> None:
        if not (math.isfinite(self.seconds) and 0.0 < self.seconds <= 300.0):
            raise SettingsError(f"seconds is {self.seconds}; give a number above 0, at most 300")
        if not 64 <= self.memory_mb <= 65_536:
            raise SettingsError(f"memory_mb is {self.memory_mb}; give 64 to 65536")


class Code:
    """Runs the first fenced block of Python that defines something (else the first block, else the whole reply)."""

    name: ClassVar[str] = "code"
    version: ClassVar[str] = "1"
    source: ClassVar[Literal["qa", "system"]] = "qa"
    on: ClassVar[On] = "reply"
    needs_model: ClassVar[bool] = False
    cost_nusd: ClassVar[int | None] = 0

    def __init__(self, options: CodeOptions):
        self._options = options
        self.most_s = options.seconds + START_S

    def grade(self, case: Case) -> Verdict:
        """1, 0, or the share of tests that pass. GraderFailed where code cannot be shut off on this machine."""
        tests = self._options.tests or case.tests
        if not tests.strip():
            return Skipped(why="no_tests")
        code = fenced(case.reply)
        if len(code) > MOST_CHARS or len(tests) > MOST_CHARS:
            return Skipped(why="too_large")
        if "\x00" in code:
            return said(0.0, "the code holds a NUL character")
        token = secrets.token_hex(16)
        job = {"code": _plain(code), "tests": _plain(tests), "token": token}
        answer = run_python(job, self._options.seconds, self._options.memory_mb)
        if answer is None or answer.get("token") != token:
            return said(0.0, "the code ended before the tests, or used up its time or memory")
        return self._counted(answer)

    def _counted(self, answer: dict[str, Any]) -> Verdict:
        passed, tests = answer.get("passed"), answer.get("tests")
        if not (type(passed) is int and type(tests) is int and 0 <= passed <= max(tests, 0)):
            return said(0.0, "the tests came to no count")
        if tests == 0:
            raise GraderFailed("the tests are no Python, or test nothing")
        value = passed / tests if self._options.partial else float(passed == tests)
        error = f"; first {answer['error']}" if answer.get("error") else ""
        return said(value, f"{passed} of {tests} tests passed{error}")


def fenced(reply: str) -> str:
    """The code in a reply."""
    blocks: list[str] = _FENCE.findall(reply)
    return next((block for block in blocks if _DEFINES.search(block)), blocks[0] if blocks else reply)


def _plain(text: str) -> str:
    return text.encode(errors="replace").decode()
