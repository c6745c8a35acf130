"""The event loop of a real server is never away for more than 20 ms while bodies of 64 KB come and go."""

from __future__ import annotations

import asyncio
import http.client
import json
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import pytest

from tests.property.faithful import KEY, in_a_thread, on_disk
from tests.scenario import program
from tests.scenario.watched import Watchdog

pytestmark = [pytest.mark.scenario, pytest.mark.alone]
MOST_MS: Final = 20.0
CLIENTS, ROUNDS, CALLS = 4, 3, 12
TEXT: Final = "The pawl lets the drum turn one way, dear reader. " * 1_311
"""64 KB."""
TOOLS: Final = [
    {
        "type": "function",
        "function": {
            "name": f"haul_{n}",
            "description": TEXT[:600],
            "parameters": {"type": "object", "properties": {}},
        },
    }
    for n in range(90)
]
SAID: Final = [{"role": "user", "content": TEXT}]
TALK: Final = [{"role": ("user", "assistant")[n % 2], "content": TEXT[n : n + 320]} for n in range(199)]
BODIES: Final[tuple[tuple[str, dict[str, Any]], ...]] = (
    ("/v1/chat/completions", {"messages": SAID}),
    ("/v1/chat/completions", {"messages": TALK}),
    ("/v1/chat/completions", {"messages": TALK[:1], "tools": TOOLS}),
    ("/v1/responses", {"input": TEXT}),
    ("/v1/messages", {"messages": TALK, "max_tokens": 50}),
    ("/v1/messages/count_tokens", {"messages": TALK}),
    ("/v1/embeddings", {"input": [TEXT[:8_000]] * 8}),
    ("/v1/moderations", {"input": TEXT}),
)
MODELS: Final = ("plain", "translated", "gemini", "azure", "auto")


def _requests(number: int) -> list[tuple[str, bytes]]:
    """What one client sends in a round."""
    found = []
    for turn in range(number, number + CALLS):
        path, body = BODIES[turn % len(BODIES)]
        chats = path in ("/v1/chat/completions", "/v1/responses", "/v1/messages")
        model = MODELS[turn % len(MODELS)] if chats else "plain"
        stream = {"stream": True} if chats and turn % 3 == 0 else {}
        found.append((path, json.dumps({**body, "model": model, **stream}).encode()))
    return found


def _client(url: str, number: int, wrong: list[str]) -> None:
    with closing(http.client.HTTPConnection(urlsplit(url).netloc, timeout=60)) as connection:
        for path, body in _requests(number):
            headers = {"content-type": "application/json", "authorization": f"Bearer {KEY}"}
            connection.request("POST", path, body, headers)
            answer = connection.getresponse()
            said = answer.read()
            if answer.status != 200:
                wrong.append(f"{path}: {answer.status} {said[:300]!r}")


def _round(url: str) -> tuple[float, float]:
    """All clients at once; when it began and ended."""
    began, wrong = time.monotonic(), list[str]()
    clients = [threading.Thread(target=_client, args=(url, 5 * number, wrong)) for number in range(CLIENTS)]
    for client in clients:
        client.start()
    for client in clients:
        client.join()
    assert wrong == []
    return began, time.monotonic()


def test_the_watchdog_sees_work_and_waiting() -> None:
    """Both that a turn of the loop computes for long, and that it waits for something else than its own timer."""

    def computing() -> None:
        until = time.thread_time() + 0.04
        while time.thread_time() < until:
            pass

    async def watch(hold_up: Callable[[], None]) -> tuple[float, float]:
        loop = asyncio.get_running_loop()
        dog = Watchdog(loop)
        dog.note()
        loop.call_later(0.05, hold_up)
        await asyncio.sleep(0.2)
        return max(cpu for cpu, _ in dog.worst.values()), max(away for _, away in dog.worst.values())

    cpu_ms, away_ms = asyncio.run(watch(computing))
    assert (cpu_ms > MOST_MS, away_ms > MOST_MS) == (True, True)
    cpu_ms, away_ms = asyncio.run(watch(lambda: time.sleep(0.04)))
    assert (cpu_ms < MOST_MS, away_ms > MOST_MS) == (True, True)


@pytest.mark.parametrize("transport", ["aiohttp", "turbo"])
def test_no_body_of_64_kb_holds_the_loop_up(tmp_path: Path, transport: str) -> None:
    home, report = tmp_path / "home", tmp_path / "report.json"
    with in_a_thread() as upstream:
        upstream.transport = transport
        more = on_disk(tmp_path, upstream)
        command = [sys.executable, str(Path(__file__).with_name("watched.py")), str(report)]
        process = subprocess.Popen(
            [*command, "up", "--port", str(program.free_port())],
            env=program.environment(home, **more),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            stdin=subprocess.DEVNULL,
            text=True,
            start_new_session=True,
        )
        try:
            url = program.url_of(home, process)
            first = _round(url)  # what is imported and read at its first use
            rounds = [_round(url) for _ in range(ROUNDS)]
            os.killpg(process.pid, signal.SIGINT)
            assert process.wait(30) == 0
        finally:
            if process.poll() is None:
                program.kill(process)
    worst = {int(bucket) / 10: figures for dog in json.loads(report.read_text()) for bucket, figures in dog.items()}
    found = [
        [figures for at, figures in worst.items() if began <= at <= ended - 0.1] for began, ended in (first, *rounds)
    ]
    assert all(found), "each round was watched"
    cpu_ms = [max(cpu for cpu, _ in figures) for figures in found]
    away_ms = [max(away for _, away in figures) for figures in found]
    logging.getLogger(__name__).warning("at most %s ms of processor time, %s ms away", cpu_ms, away_ms)
    # Another thread may lose the processor while it holds the interpreter, and a shared core is slow at times: what a
    # body holds up it holds up in every round, so the quietest one counts.
    assert min(cpu_ms) <= MOST_MS, f"one turn of the loop took {cpu_ms} ms of processor time"
    assert min(away_ms) <= MOST_MS, f"the loop was away for {away_ms} ms"
