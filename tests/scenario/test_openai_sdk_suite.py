"""openai-python's own tests through the gateway, against a mock upstream that serves OpenAI's description of its API.

Every test goes through the gateway first. One that fails is run once more against the mock itself: only what the mock
answers wrongly may fail, and of that only what is known and said here.
"""

from __future__ import annotations

import gzip
import hashlib
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.scenario import javascript, openai_suite
from tests.scenario.program import free_port, rows, server

pytestmark = pytest.mark.scenario
API = Path(os.environ.get("DATA", openai_suite.ROOT.parent / "shared" / "data")) / "openai/openapi.transformed.yml.gz"
KEY = "My API Key"
"""The one that the suite sends."""
UNDESCRIBED = {
    "audio/test_voices.py": "the description knows neither the deletion of a voice nor one made from a prompt",
}
"""Tests of what is newer than the description, which the mock answers with 404 or an older form."""
MOST_UNDESCRIBED = 55
FEWEST = {
    "chat": 110,
    "test_completions.py": 35,
    "responses": 35,
    "test_responses.py": 120,
    "test_embeddings.py": 18,
    "test_models.py": 50,
    "test_moderations.py": 18,
    "test_batches.py": 70,
    "test_images.py": 80,
    "audio": 90,
}
"""Tests of each family that must have passed at least: none can be lost from sight."""


@contextmanager
def mock(folder: Path) -> Iterator[str]:
    """Steady, the mock that openai-python tests itself with, in the settings that it does so with."""
    described = folder / "openapi.yml"
    described.write_bytes(gzip.decompress(API.read_bytes()))
    port = free_port()
    forms = [
        f"--validator-{where}-{what}-format=brackets" for where in ("query", "form") for what in ("array", "object")
    ]
    steady = javascript.INSTALLED / "node_modules" / ".bin" / "steady"
    command = [javascript.node(), steady, "--host", "127.0.0.1", "-p", str(port), *forms]
    with (folder / "mock.log").open("wb") as log:
        # A group of its own: it is a script that starts the program.
        process = subprocess.Popen(
            [*command, described], stdout=log, stderr=log, stdin=subprocess.DEVNULL, start_new_session=True
        )
    try:
        _wait(f"http://127.0.0.1:{port}/_x-steady/health", process)
        yield f"http://127.0.0.1:{port}"
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(10)


def _wait(url: str, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        assert process.poll() is None, f"the mock ended with {process.returncode}"
        try:
            with urllib.request.urlopen(url, timeout=1):
                return
        except OSError:
            time.sleep(0.05)
    raise AssertionError("the mock does not answer within 30 s")


@pytest.mark.skipif(not API.exists(), reason=f"{API} is not there: OpenAI's description is no part of the project")
def test_every_test_that_the_mock_can_answer_passes_through_the_gateway(tmp_path: Path) -> None:
    javascript.install()
    openai_suite.install()
    home, config = tmp_path / "home", tmp_path / "windlass.toml"
    with mock(tmp_path) as upstream:
        config.write_text(
            f"""
            [gateway]
            pass_through = "openai"
            [[keys]]
            name = "suite"
            sha256 = "{hashlib.sha256(KEY.encode()).hexdigest()}"
            [[limits]]
            name = "far away"
            requests = 1_000_000
            [[providers]]
            name = "openai"
            base_url = "{upstream}"
            endpoints = ["responses"]
            models = [{{ name = "*" }}]
            """
        )
        with server(home, WINDLASS_CONFIG=str(config)) as url:
            ran = openai_suite.run(f"{url}/v1")
        alone = openai_suite.run(upstream, *(f"{openai_suite.TESTS}/{name}" for name in sorted(ran.failed)))
    sys.stdout.write(f"{_told(ran)}\n")
    assert sorted(ran.failed - alone.failed) == [], "the mock answers them, the gateway does not\n" + ran.said[-8_000:]
    assert {name.partition("::")[0] for name in ran.failed} <= UNDESCRIBED.keys()
    assert len(ran.failed) <= MOST_UNDESCRIBED
    counted = Counter(name.partition("/")[0].partition("::")[0] for name in ran.passed)
    assert {family: counted[family] for family in FEWEST if counted[family] < FEWEST[family]} == {}
    assert all("respx2_mock" in reason for reason in ran.skipped), "what the suite itself leaves out for one client"
    ((calls,),) = rows(home, "SELECT count(*) FROM calls c JOIN outcomes o ON o.call = c.id")
    assert isinstance(calls, int)
    assert calls > 600, "all that goes up is in the ledger"


def _told(ran: openai_suite.Ran) -> str:
    by_file = Counter(name.partition("::")[0] for name in ran.failed)
    said = [f"openai-python's tests through the gateway: {len(ran.passed)} passed"]
    said += [f"  {n} of {at} fail against the mock as well: {UNDESCRIBED.get(at, '?')}" for at, n in by_file.items()]
    said += [f"  {count} skipped by the suite: {reason}" for reason, count in ran.skipped.items()]
    return "\n".join(said)
