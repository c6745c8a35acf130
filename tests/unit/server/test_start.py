"""What a server loads until its first answer, by name: each of these took megabytes and time of every start once."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import closing
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from windlass.ledger.db import Database

# Whose: what it is for, and what it costs a process that has no use for it.
OTHERS = (
    "alembic",  # migrations: 0.2 s, for a database that is not the newest
    "cryptography",  # signatures and sealed replies: 10 MB
    "dbos",  # durable runs
    "jinja2",  # the dashboard
    "litellm",
    "onnxruntime",
    "opentelemetry",
    "prometheus_client",
    "pydantic",
    "pygments",
    "rich",  # tables for people, tracebacks in colours: 5 MB
    "scipy",
    "sqlalchemy.dialects.postgresql",  # 2 MB
    "starlette",
    "tokenizers",
    "webvtt",
    "yaml",
)
OURS = (
    "windlass.content.parse",
    "windlass.gateway.dialects",
    "windlass.gateway.foreign",
    "windlass.gateway.idempotency",
    "windlass.gateway.transport.turbo",
    "windlass.gateway.vault",
    "windlass.improve.grading.grading",
    "windlass.improve.warm.warm",
    "windlass.server.dashboard",
    "windlass.server.evaluation",
    "windlass.server.openapi",
    "windlass.server.operations",
    "windlass.workflows.durable",
)
PROGRAM = """
import json, sys
from windlass.cli import main
code = main(sys.argv[1:])
sys.stderr.write("loaded " + json.dumps(sorted(sys.modules)))
sys.exit(code)
"""
ANSWER = {
    "id": "chatcmpl-1",
    "object": "chat.completion",
    "created": 1_800_000_000,
    "model": "m",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "a pawl"}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 9, "completion_tokens": 3, "total_tokens": 12},
}
WAIT_S = 60.0


class Upstream(BaseHTTPRequestHandler):
    """Answers every call alike."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        body = json.dumps(ANSWER).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def upstream() -> Iterator[int]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Upstream)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server.server_address[1]
    server.shutdown()
    server.server_close()


def free_port() -> int:
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def settings(home: Path, upstream: int) -> Path:
    """Two models of one upstream, and a ledger that has seen its migrations, as any but the first start finds it."""
    path = home / "windlass.toml"
    path.write_text(
        f'[[providers]]\nname = "up"\nbase_url = "http://127.0.0.1:{upstream}/v1"\n'
        'models = [{ name = "m" }, { name = "n" }]\n'
        '[memory]\nembedder = "off"\n'
    )
    db = Database(home / "state" / "ledger.db")
    db.migrate()
    db.close()
    return path


def asked(port: int, running: subprocess.Popen[str]) -> str:
    """What the first chat is answered with, as soon as the server is there."""
    body = json.dumps({"model": "auto", "messages": [{"role": "user", "content": "Why?"}]}).encode()
    address = f"http://127.0.0.1:{port}/v1/chat/completions"
    request = urllib.request.Request(address, body, {"content-type": "application/json"})
    deadline = time.monotonic() + WAIT_S
    while True:
        try:
            with urllib.request.urlopen(request, timeout=WAIT_S) as response:
                return str(json.load(response)["choices"][0]["message"]["content"])
        except urllib.error.URLError:
            if running.poll() is not None or time.monotonic() > deadline:
                raise
            time.sleep(0.02)


def test_a_start_and_a_first_answer_load_what_they_need(
    tmp_path: Path, upstream: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WINDLASS_CONFIG", str(settings(tmp_path, upstream)))
    monkeypatch.setenv("WINDLASS_HOME", str(tmp_path / "state"))
    port = free_port()
    command = [sys.executable, "-c", PROGRAM, "up", "--port", str(port)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as running:
        try:
            assert asked(port, running) == "a pawl"
            running.send_signal(signal.SIGINT)
            out, said = running.communicate(timeout=WAIT_S)
        finally:
            running.kill()
    assert running.returncode == 0, said
    assert f"OpenAI base_url http://127.0.0.1:{port}/v1" in out
    loaded = set(json.loads(said.partition("loaded ")[2]))
    assert loaded & {"aiohttp", "sqlalchemy", "windlass.runtime"}, "it was this process that served"
    assert loaded & {*OTHERS, *OURS} == set()
