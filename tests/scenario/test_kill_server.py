"""SIGKILL of a server under load: what a client has received is in the ledger, feedback is there exactly once."""

from __future__ import annotations

import http.client
import json
import random
import threading
import time
from pathlib import Path

import pytest

from tests.scenario.program import free_port, kill, post, rows, start, url_of

pytestmark = [pytest.mark.scenario, pytest.mark.kill]
CLIENTS = 4


def test_what_a_client_received_is_in_the_ledger(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    kills = 50 if request.config.getoption("--soak") else 5
    rng = random.Random(4)
    received: list[str] = []
    acknowledged: list[str] = []
    for _ in range(kills):
        process = start(tmp_path, "up", "--no-dashboard", "--port", str(free_port()), WINDLASS_MEMORY__EMBEDDER="off")
        url = url_of(tmp_path, process)
        stop = threading.Event()
        clients = [threading.Thread(target=_load, args=(url, stop, received, acknowledged, n)) for n in range(CLIENTS)]
        for client in clients:
            client.start()
        time.sleep(rng.uniform(0.2, 1.2))
        kill(process)
        stop.set()
        for client in clients:
            client.join()
    assert len(received) > 5 * kills, "the load was real"
    ended = {row[0] for row in rows(tmp_path, "SELECT call FROM outcomes")}
    assert set(received) <= ended, f"{len(set(received) - ended)} answered calls are missing"
    kept = [row[0] for row in rows(tmp_path, "SELECT id FROM feedback")]
    assert set(acknowledged) <= set(kept), f"{len(set(acknowledged) - set(kept))} acknowledged feedbacks are missing"
    assert len(kept) == len(set(kept)), "a feedback is there twice"
    decided = rows(tmp_path, "SELECT count(*) FROM calls c LEFT JOIN decisions d ON d.call = c.id WHERE d.id IS NULL")
    assert decided == [(0,)], "a call without its decision"


def _load(url: str, stop: threading.Event, received: list[str], acknowledged: list[str], client: int) -> None:
    """Call and rate until the server is gone. Only what came back whole counts as received."""
    number = 0
    while not stop.is_set():
        number += 1
        body = {"model": "auto", "messages": [{"role": "user", "content": f"A pawl holds.\n\nWhat holds {number}?"}]}
        try:
            status, reply = post(f"{url}/v1/chat/completions", body, timeout_s=5)
            assert status == 200, reply
            call = json.loads(reply)["id"].removeprefix("chatcmpl-")
            received.append(call)
            said = {"id": f"fb-{call}-{client}", "target": call, "kind": "rating", "value": 1.0}
            for _ in range(2):
                status, reply = post(f"{url}/v1/feedback", said, timeout_s=5)
                assert status == 200, reply
            acknowledged.append(said["id"])
        except (OSError, http.client.HTTPException, json.JSONDecodeError):
            return
