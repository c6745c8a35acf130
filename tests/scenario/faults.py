"""What the tests of faults share: a client that remembers what was acknowledged, the program, what it says."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

from tests.scenario.program import command, environment, free_port, kill, post, url_of

QUIET = {"WINDLASS_MEMORY__EMBEDDER": "off"}
CLEAR_S = 10.0
"""From the end of a fault to the first call that is answered again."""


@dataclass
class Client:
    """Calls and rates, and remembers what was acknowledged."""

    url: str
    calls: list[str] = field(default_factory=list)
    ratings: list[str] = field(default_factory=list)

    def call(self, *, stream: bool = False) -> tuple[int, Any]:
        said = {"role": "user", "content": f"A pawl holds.\n\nWhat holds {len(self.calls)}?"}
        status, body = post(
            f"{self.url}/v1/chat/completions", {"model": "auto", "stream": stream, "messages": [said]}, 90
        )
        if stream and status == 200:
            return status, body
        if status == 200:
            self.calls.append(json.loads(body)["id"].removeprefix("chatcmpl-"))
        return status, json.loads(body)

    def rate(self, call: str) -> tuple[int, Any]:
        said = {"id": f"fb-{len(self.ratings)}", "target": call, "kind": "rating", "value": 1.0}
        status, body = post(f"{self.url}/v1/feedback", said, 90)
        if status < 300:
            self.ratings.append(said["id"])  # type: ignore[arg-type]
        return status, json.loads(body)

    def calls_until_refused(self, most: int = 5_000) -> tuple[int, Any]:
        """The first answer that is no 200."""
        for _ in range(most):
            status, body = self.call()
            if status != 200:
                return status, body
        raise AssertionError(f"{most} calls were answered although nothing can be kept")

    def back(self) -> None:
        """Wait until calls are answered again."""
        deadline = time.monotonic() + CLEAR_S
        while self.call()[0] != 200:
            assert time.monotonic() < deadline, "the service did not come back"


def run(
    home: Path, *arguments: str, within: Sequence[str] = (), more: Mapping[str, str] = MappingProxyType({})
) -> subprocess.CompletedProcess[str]:
    """One command to its end; `within` goes before it, `more` into its environment."""
    return subprocess.run(
        [*within, *command(*arguments)],
        env=environment(home, **QUIET, **more),
        capture_output=True,
        text=True,
        timeout=150,
        check=False,
        stdin=subprocess.DEVNULL,
    )


@contextmanager
def up(
    home: Path,
    *arguments: str,
    seen: Path | None = None,
    within: Sequence[str] = (),
    more: Mapping[str, str] = MappingProxyType({}),
) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """A server and its process; what it says on stderr is kept in `errors` beside the folder."""
    with home.with_name(f"{home.name}.errors").open("w") as errors:
        process = subprocess.Popen(
            [*within, *command("up", "--port", str(free_port()), *arguments)],
            env=environment(home, **QUIET, **more),
            stdout=subprocess.DEVNULL,
            stderr=errors,
            stdin=subprocess.DEVNULL,
            text=True,
            start_new_session=True,
        )
        try:
            yield url_of(seen or home, process), process
        finally:
            if process.poll() is None:
                kill(process)


def said(home: Path) -> str:
    return home.with_name(f"{home.name}.errors").read_text()


def stopped(process: subprocess.Popen[str]) -> int:
    os.killpg(process.pid, signal.SIGINT)
    return process.wait(60)


def refused(answer: tuple[int, Any], code: str) -> None:
    """Is this the answer of a server that cannot keep anything: 503, the cause, and what to do?"""
    status, body = answer
    assert (status, body["error"]["code"], body["error"]["type"]) == (503, code, "server_error"), body
    assert "windlass doctor" in body["error"]["message"]


def findings(done: subprocess.CompletedProcess[str]) -> list[str]:
    found: list[str] = json.loads(done.stdout)["findings"]
    assert done.returncode == (1 if found else 0), done.stderr
    return found
