"""Child processes for what must not run in this one: a stranger's code, and patterns that may never end.

Each is an isolated Python without environment, shut off by `confinement.py` (Linux: no network, no processes, no files
but Python's own, limits), killed with its group when its time is over. Where the kernel lacks a wall, nothing is run.
"""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import signal
import subprocess
import sys
import tempfile
import threading
import time
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any, Final

from windlass.improve.grading.grader import GraderFailed

_CHILD: Final = Path(__file__).with_name("child.py")
MOST_OUT_BYTES: Final = 65_536
MEBIBYTE: Final = 1024 * 1024
START_S: Final = 5.0
"""So long a fresh Python may take to begin, beside the time of what it is to do."""


def run_python(job: dict[str, str], seconds: float, memory_mb: int) -> dict[str, Any] | None:
    """The answer to one job (`code`, `tests`, `token`); None where time or memory ended it, or it ended itself.

    GraderFailed where the kernel cannot shut it off.
    """
    with tempfile.TemporaryDirectory(prefix="windlass-") as folder, tempfile.TemporaryFile() as given:
        given.write(json.dumps(job).encode())
        given.seek(0)
        process = _started("python", given, folder, max(1, round(seconds)), memory_mb)
        try:
            line = _line(process, seconds + START_S)
        finally:
            _killed(process)
    return _read(line)


class PatternProcess:
    """A child that searches texts by patterns, one at a time; begun with the first, anew after one that ran over."""

    def __init__(self, seconds: float, memory_mb: int = 512):
        self._seconds = seconds
        self._memory_mb = memory_mb
        self._process: subprocess.Popen[bytes] | None = None
        self._asking = threading.Lock()
        self._end: Callable[[], object] = _nothing

    def search(self, pattern: str, flags: int, text: str, *, whole: bool) -> bool:
        """Whether the pattern is found. GraderFailed where it takes longer than it may, or is no pattern."""
        job = json.dumps({"pattern": pattern, "flags": flags, "text": text, "whole": whole}).encode() + b"\n"
        with self._asking:
            fresh = self._process is None or self._process.poll() is not None
            if fresh:
                self.close()
                self._process = _started("regex", subprocess.PIPE, "/", 10**6, self._memory_mb)
                self._end = weakref.finalize(self, _killed, self._process)
            assert self._process is not None, "it was started above"
            answer = self._asked(self._process, job, self._seconds + START_S * fresh)
        if answer is None:
            raise GraderFailed(f"the pattern was not done within {self._seconds:g} s; write one that backtracks less")
        if "error" in answer:
            raise GraderFailed(f"the pattern cannot be searched: {answer['error']}")
        return bool(answer["found"])

    def _asked(self, process: subprocess.Popen[bytes], job: bytes, limit_s: float) -> dict[str, Any] | None:
        assert process.stdin is not None, "it is a pipe"
        try:
            # The child reads all of a job before it searches, so this does not wait for the pattern.
            process.stdin.write(job)
            process.stdin.flush()
        except OSError:
            self.close()
            return None
        answer = _read(_line(process, limit_s))
        if answer is None:
            self.close()
        return answer

    def close(self) -> None:
        """End the child, if there is one."""
        self._end()
        self._process = None


def _nothing() -> None:
    """There is no child to end."""


def _started(kind: str, given: IO[bytes] | int, folder: str, cpu_s: int, memory_mb: int) -> subprocess.Popen[bytes]:
    words = [sys.executable, "-I", "-B", str(_CHILD), kind, str(cpu_s), str(memory_mb * MEBIBYTE)]
    quiet = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
    try:
        return subprocess.Popen(
            words,
            stdin=given,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            cwd=folder,
            env=quiet,
            start_new_session=True,
        )
    except OSError as exc:
        raise GraderFailed(f"no child process can be started: {exc}") from exc


def _line(process: subprocess.Popen[bytes], limit_s: float) -> bytes:
    """The first line that it writes, as far as it comes in time; what is longer than any answer is cut."""
    assert process.stdout is not None, "it is a pipe"
    until, found = time.monotonic() + limit_s, b""
    with selectors.DefaultSelector() as waiting:
        waiting.register(process.stdout, selectors.EVENT_READ)
        while b"\n" not in found and len(found) < MOST_OUT_BYTES:
            left_s = until - time.monotonic()
            if left_s <= 0 or not waiting.select(left_s):
                return b""
            part = os.read(process.stdout.fileno(), MOST_OUT_BYTES)
            if not part:
                break
            found += part
    return found.partition(b"\n")[0]


def _read(line: bytes) -> dict[str, Any] | None:
    """An answer of the child, None for anything else. GraderFailed where it could not be shut off."""
    try:
        answer = json.loads(line)
    except ValueError:
        return None
    if not isinstance(answer, dict):
        return None
    if "refused" in answer:
        raise GraderFailed(
            f"code of strangers cannot be shut off here, so it is not run: {str(answer['refused'])[:200]}"
        )
    return answer


def _killed(process: subprocess.Popen[bytes]) -> None:
    """End the child and all of its group."""
    with contextlib.suppress(ProcessLookupError):  # it may have ended
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    for stream in (process.stdin, process.stdout):
        if stream is not None:
            with contextlib.suppress(OSError):  # what was still to be written goes nowhere
                stream.close()
