"""What only a fresh interpreter can tell: the cost of `import windlass`, the files behind one gateway call."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from tools.house.tree import Measure, at_most, not_taken

IMPORT_RUNS = 5
IMPORT_LIMIT_S = 0.15
HEAVY = ("litellm", "torch", "dbos")
CALL_FILES = 20
TIMEOUT_S = 180
ASIDE = ("records", "errors", "stats")

# Only `sys` and `time` are loaded before the import, so that nothing it needs is paid for beforehand.
IMPORT_PROGRAM = """
import sys, time
sys.path.insert(0, sys.argv[1])
begun = time.process_time()
import windlass
cpu_s = time.process_time() - begun
import json
print(json.dumps({"cpu_s": cpu_s, "modules": sorted(sys.modules)}))
"""


class ProgramFailed(Exception):
    """A measuring subprocess ended without an answer; the message is the last line that it wrote."""


def import_cost(source: Path) -> list[Measure]:
    """CPU seconds (user and system) of `import windlass` from `source`, least of five fresh interpreters,
    and how many of the heavy libraries it loads."""
    names = ("import windlass, CPU s", "heavy modules after import")
    aims = (f"<= {IMPORT_LIMIT_S} s", "0")
    try:
        answers = [_answer(["-c", IMPORT_PROGRAM, str(source)]) for _ in range(IMPORT_RUNS)]
    except ProgramFailed as error:
        return [not_taken(name, aim, str(error)) for name, aim in zip(names, aims, strict=True)]
    cpu_s = round(min(answer["cpu_s"] for answer in answers), 4)
    loaded = [name for name in HEAVY if any(name in answer["modules"] for answer in answers)]
    return [at_most(names[0], cpu_s, IMPORT_LIMIT_S, "s"), at_most(names[1], len(loaded), 0, offenders=loaded)]


def gateway_call(source: Path) -> Measure:
    """Own files in which a function starts during one in-process call, `records`, `errors` and `stats` aside."""
    name = "files run by one gateway call"
    try:
        answer = _answer([str(Path(__file__).with_name("gateway_call.py")), str(source)])
    except ProgramFailed as error:
        return not_taken(name, f"<= {CALL_FILES}", str(error))
    counted = [path for path in answer["files"] if path.split("/")[0].removesuffix(".py") not in ASIDE]
    return at_most(name, len(counted), CALL_FILES, offenders=counted)


def _answer(arguments: list[str]) -> dict[str, Any]:
    """Runs an isolated interpreter (`-I`: no PYTHON* variables, no user packages) and reads its one line of JSON.

    Raises:
        ProgramFailed: it ended with an error, said something else, or took longer than `TIMEOUT_S`.
    """
    try:
        done = subprocess.run(
            [sys.executable, "-I", *arguments], capture_output=True, text=True, timeout=TIMEOUT_S, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise ProgramFailed(f"no answer within {TIMEOUT_S} s") from error
    lines = done.stdout.strip().splitlines()
    if done.returncode or not lines:
        said = done.stderr.strip().splitlines()
        raise ProgramFailed(said[-1] if said else f"exit status {done.returncode} without a word")
    answer: dict[str, Any] = json.loads(lines[-1])
    return answer
