"""Start the real program, kill it, and look at what it left with nothing but sqlite3: no code path is shared."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

START_S = 30.0


def environment(home: Path, **more: str) -> dict[str, str]:
    """The environment of a program that keeps its state in `home`."""
    cleared = {name: value for name, value in os.environ.items() if not name.startswith("WINDLASS_")}
    return {**cleared, "WINDLASS_HOME": str(home), **more}


def windlass(home: Path, *arguments: str, timeout_s: float = 120.0, **more: str) -> subprocess.CompletedProcess[str]:
    """Run one command to its end."""
    return subprocess.run(
        command(*arguments),
        env=environment(home, **more),
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
        stdin=subprocess.DEVNULL,
    )


def command(*arguments: str) -> Sequence[str]:
    return (sys.executable, "-m", "windlass", *arguments)


def start(home: Path, *arguments: str, **more: str) -> subprocess.Popen[str]:
    """Start one command in a process group of its own."""
    return subprocess.Popen(
        command(*arguments),
        env=environment(home, **more),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        stdin=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    )


def kill(process: subprocess.Popen[str]) -> None:
    """SIGKILL to the process and all it started; nothing gets to clean up."""
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def children(pid: int) -> list[int]:
    """The processes that a process has started and not yet seen die."""
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


@contextmanager
def server(home: Path, *arguments: str, **more: str) -> Iterator[str]:
    """`windlass up` on a free port; gives its URL, and stops it with SIGINT at the end."""
    process = start(home, "up", "--port", str(free_port()), *arguments, **more)
    try:
        yield url_of(home, process)
        os.killpg(process.pid, signal.SIGINT)
        assert process.wait(20) == 0, "an interrupted server ends with exit code 0"
    finally:
        if process.poll() is None:
            kill(process)


def url_of(home: Path, process: subprocess.Popen[str]) -> str:
    """Where the server that `process` starts listens, once it answers."""
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline:
        assert process.poll() is None, f"the server ended with {process.returncode}"
        try:
            address = json.loads((home / "server.json").read_text())
            if address["pid"] == process.pid and _answers(address["url"]):
                return str(address["url"])
        except (OSError, ValueError):
            pass
        time.sleep(0.02)
    raise AssertionError(f"no server within {START_S} s")


def post(url: str, body: object, timeout_s: float = 30.0) -> tuple[int, bytes]:
    """POST JSON; the status and the whole body."""
    request = urllib.request.Request(url, json.dumps(body).encode(), {"content-type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=timeout_s) as response:
            return response.status, response.read()
    except urllib.error.HTTPError as refused:
        with refused:
            return refused.code, refused.read()


def in_tables(home: Path, patience_s: float = 5.0) -> None:
    """Wait until living processes have put into the tables what their journals hold; those of the dead stay as they
    are."""
    deadline = time.monotonic() + patience_s
    while any(map(_holds, home.glob("ledger.db.journal-*"))) and time.monotonic() < deadline:
        time.sleep(0.005)


def _holds(journal: Path) -> bool:
    """Whether records follow the two lines with which the journal of a living process begins."""
    try:
        with journal.with_name(f"{journal.name[:-1]}0").open("rb") as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return len(journal.read_bytes().split(b"\n", 2)[2]) > 0
    except FileNotFoundError:
        pass
    return False


def rows(home: Path, query: str, *values: object) -> list[tuple[object, ...]]:
    """What the ledger's file holds, read with the standard library alone."""
    in_tables(home)
    connection = sqlite3.connect(f"file:{home / 'ledger.db'}?mode=ro", uri=True)
    try:
        return connection.execute(query, values).fetchall()
    finally:
        connection.close()


def free_port() -> int:
    """A port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/healthz", timeout=2) as response:
            return bool(response.status == 200)
    except OSError:
        return False
