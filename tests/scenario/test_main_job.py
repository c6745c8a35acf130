"""The main job as a newcomer types it, and the commands beside a running server."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

from tests.scenario.program import command, environment, post, rows, server, start, url_of, windlass

pytestmark = pytest.mark.scenario
CITED = re.compile(r"“.+” \[How a windlass holds an anchor 00:07:10\]")


def test_the_main_job_prints_cited_answers_and_what_was_decided(tmp_path: Path) -> None:
    done = windlass(tmp_path, "run", "--exit", timeout_s=60)
    assert done.returncode == 0, done.stderr
    assert CITED.search(done.stdout), done.stdout
    for word in ("Decided on the way", "propensity", "linear_thompson@1", "cost 0 USD", "4 taken in"):
        assert word in done.stdout, done.stdout
    assert "text index: 4 of 4" in done.stderr, "without a terminal, progress comes as plain lines"
    assert "Traceback" not in done.stdout + done.stderr


def test_the_main_job_leaves_the_server_up_and_ctrl_c_stops_it(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        process = subprocess.Popen(
            command("run", "--port", str(port)),
            env=environment(tmp_path),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        url = url_of(tmp_path, process)
        assert not url.endswith(f":{port}"), "a taken port gives way to the next free one"
        with urllib.request.urlopen(url, timeout=10) as page:
            assert "Windlass" in page.read().decode()
        os.killpg(process.pid, signal.SIGINT)
        out, err = process.communicate(timeout=20)
    assert process.returncode == 0
    assert url in out, "the address in use is printed"
    assert "Traceback" not in out + err
    assert not (tmp_path / "server.json").exists(), "the address goes with the server"


def test_commands_hand_their_work_to_the_running_server(tmp_path: Path, transcripts: Path) -> None:
    with server(tmp_path) as url:
        assert (
            windlass(tmp_path, "ingest", str(transcripts / "sample.md"), str(transcripts / "sample.vtt")).returncode
            == 0
        )
        assert len(rows(tmp_path, "SELECT id FROM items")) == 2
        asked = windlass(tmp_path, "ask", "--json", "What is this about?")
        assert asked.returncode == 0, asked.stderr
        calls = json.loads(windlass(tmp_path, "calls", "--json").stdout)["calls"]
        status, said = post(f"{url}/v1/feedback", {"id": "f1", "target": "answer_1", "kind": "praise"})
        assert (status, json.loads(said)["id"]) == (200, "f1")
        checked = windlass(tmp_path, "doctor", "--replay", "--json")
        assert json.loads(checked.stdout)["replay"]["equal"], checked.stdout
        second = windlass(tmp_path, "up")
        assert second.returncode == 1
        assert "already runs" in second.stderr
    assert isinstance(calls, list)


def test_vectors_left_by_no_wait_are_made_by_the_next_server(tmp_path: Path, transcripts: Path) -> None:
    assert windlass(tmp_path, "ingest", "--no-wait", str(transcripts / "sample.md")).returncode == 0
    chunks = rows(tmp_path, "SELECT count(*) FROM chunks")
    assert rows(tmp_path, "SELECT count(*) FROM vectors") == [(0,)]
    with server(tmp_path):
        deadline = time.monotonic() + 30
        while rows(tmp_path, "SELECT count(*) FROM vectors") != chunks:
            assert time.monotonic() < deadline, "the vectors never came"
            time.sleep(0.1)


def test_an_interrupt_in_the_middle_of_an_ingest_is_clean_and_loses_nothing(tmp_path: Path) -> None:
    from tests.scenario import corpus

    corpus.write(tmp_path / "talks", 40, 60, seed=1)
    process = start(tmp_path / "home", "ingest", str(tmp_path / "talks"))
    while not (tmp_path / "home" / "runs.unfinished").exists():
        time.sleep(0.05)
    while not rows(tmp_path / "home", "SELECT id FROM run_events LIMIT 3"):
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGINT)
    assert process.wait(20) == 130
    assert windlass(tmp_path / "home", "ingest", str(tmp_path / "talks")).returncode == 0
    assert rows(tmp_path / "home", "SELECT count(*) FROM items") == [(40,)]
    # The command waits for its own run; what is left of the interrupted one goes on in whatever process comes next.
    for _ in range(4):
        if (tmp_path / "home" / "runs.unfinished").exists():
            assert windlass(tmp_path / "home", "ingest", str(tmp_path / "talks")).returncode == 0
    assert not (tmp_path / "home" / "runs.unfinished").exists()


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["ask"], 2, "required"),
        (["ask", ""], 2, "1 to 4000 characters"),
        (["ingest", "/nowhere"], 2, "does not exist"),
        (["calls", "--limit", "0"], 2, "limit"),
        (["nonsense"], 2, "invalid choice"),
        (["up", "--host", "0.0.0.0"], 2, "there is no key"),
        (["ask", "x", "--model", "nobody"], 0, ""),
    ],
)
def test_wrong_usage_says_what_is_wrong(tmp_path: Path, arguments: list[str], code: int, said: str) -> None:
    done = windlass(tmp_path, *arguments)
    assert done.returncode == code, done.stderr
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_the_version_is_printed() -> None:
    done = subprocess.run([sys.executable, "-m", "windlass", "--version"], capture_output=True, text=True, check=True)
    assert re.fullmatch(r"windlass \d+\.\d+\.\d+\n", done.stdout)
