"""Processes under measurement: each on cores of its own, its CPU time from the scheduler, its memory, its end."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

STOP_S = 15.0
NICE = -10
_SCHEDULER = 2  # CPUCLOCK_SCHED of the Linux kernel: time on a CPU, in nanoseconds


@dataclass(frozen=True)
class Cores:
    """Which core does what. With three or more each has its own; with fewer, load and upstream share."""

    gateway: int
    load: int
    upstream: int
    rest: frozenset[int]


def cores() -> Cores:
    """The cores of this process, dealt out: the last ones to the gateway, since the first serve interrupts."""
    found = sorted(os.sched_getaffinity(0), reverse=True)
    gateway, load, upstream = (*found, *found[-1:] * 2)[:3]
    return Cores(gateway, load, upstream, frozenset(found) - {gateway})


def tree(pid: int) -> list[int]:
    """A process and all that it started, as far as they live."""
    found = [pid]
    for one in found:
        try:
            threads = list(Path(f"/proc/{one}/task").iterdir())
            found += [int(child) for thread in threads for child in (thread / "children").read_text().split()]
        except FileNotFoundError:
            continue
    return found


def cpu_s(pid: int) -> float:
    """CPU seconds of a process tree so far: each process' own clock, and what it waited for of children that ended."""
    return sum(_own_s(one) + _waited_s(one) for one in tree(pid))


def _own_s(pid: int) -> float:
    """All threads of a process, those that ended too (clock_getcpuclockid(3) makes the number like this)."""
    try:
        return time.clock_gettime_ns((~pid << 3) | _SCHEDULER) / 1e9
    except OSError:
        return 0.0


def _waited_s(pid: int) -> float:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return 0.0
    return (int(fields[13]) + int(fields[14])) / os.sysconf("SC_CLK_TCK")


def rss_mb(pid: int) -> float:
    """Resident memory of a process tree in MB of a million bytes."""
    return sum(_resident(one) for one in tree(pid)) / 1e6


def _resident(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (FileNotFoundError, ProcessLookupError):
        return 0


def pin(pid: int, on: Sequence[int]) -> None:
    """Keep a running process tree, threads included, on these cores."""
    for one in tree(pid):
        for thread in Path(f"/proc/{one}/task").iterdir():
            os.sched_setaffinity(int(thread.name), on)


def prefer(pid: int, nice: int = NICE) -> None:
    """Let a process, and its session, go before other work of the machine, where that is allowed: less noise."""
    with suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, pid, nice)
    with suppress(OSError):
        Path(f"/proc/{pid}/autogroup").write_text(str(nice))


def free_port() -> int:
    """A port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Running:
    """A program on cores of its own, with its input and output as pipes and its errors in a file.

    discard: its output goes to that file too, for a program whose output nobody reads.
    """

    def __init__(
        self,
        command: Sequence[str],
        on: Sequence[int],
        errors: Path,
        env: Mapping[str, str] | None = None,
        *,
        discard: bool = False,
    ) -> None:
        self._errors = errors
        with errors.open("wb") as kept:
            self._process = subprocess.Popen(
                ["taskset", "-c", ",".join(map(str, on)), *command],
                stdin=subprocess.PIPE,
                stdout=kept if discard else subprocess.PIPE,
                stderr=kept,
                env=None if env is None else dict(env),
                start_new_session=True,
                text=True,
                bufsize=1,
            )
        prefer(self._process.pid)

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def over(self) -> bool:
        return self._process.poll() is not None

    @property
    def output(self) -> IO[str]:
        assert self._process.stdout is not None
        return self._process.stdout

    def line(self) -> str:
        """The next line of its output; OSError with its last words where it has ended."""
        said = self.output.readline()
        if not said:
            raise OSError(f"{self._process.args!r} ended: {self.errors()}")
        return said.strip()

    def ask(self, line: str) -> str:
        """Write one line to it, return the one it answers with."""
        assert self._process.stdin is not None
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()
        return self.line()

    def errors(self) -> str:
        return self._errors.read_text(errors="replace")[-1_500:]

    def stop(self) -> None:
        """Close its input and interrupt it; killed, with all it started, where it does not end."""
        if self._process.stdin is not None:
            self._process.stdin.close()
        if not self.over:
            self._process.send_signal(signal.SIGINT)
        try:
            self._process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()
