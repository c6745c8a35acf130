"""Handing work to the server of the same folder: which one that is, and what its words become."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from windlass.errors import AccessError, InputError, RequestError, WindlassError, WorkflowError
from windlass.server.peer import FILE, Peer, find


class Answers(BaseHTTPRequestHandler):
    """Says what the test wants it to; keeps what it was asked."""

    status = 200
    body: Any = {"status": "ok"}
    asked: list[tuple[str, str, str, Any]] = []

    def do_GET(self) -> None:
        self._answer(b"")

    def do_POST(self) -> None:
        self._answer(self.rfile.read(int(self.headers["content-length"])))

    def _answer(self, body: bytes) -> None:
        token = self.headers.get("x-windlass-token", "")
        self.asked.append((self.command, self.path, token, json.loads(body) if body else None))
        said = self.body if isinstance(self.body, bytes) else json.dumps(self.body).encode()
        self.send_response(self.status)
        self.send_header("content-length", str(len(said)))
        self.end_headers()
        self.wfile.write(said)

    def log_message(self, format: str, *args: Any) -> None:
        """Stay silent."""


@contextmanager
def _answering(status: int, body: Any) -> Iterator[tuple[str, list[tuple[str, str, str, Any]]]]:
    answers: Any = type("Answers", (Answers,), {"status": status, "body": body, "asked": []})
    server = ThreadingHTTPServer(("127.0.0.1", 0), answers)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}", answers.asked
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def _left(home: Path, url: object, token: object = "t", pid: object = None) -> None:
    (home / FILE).write_text(json.dumps({"url": url, "token": token, "pid": os.getpid() if pid is None else pid}))


def _dead_pid() -> int:
    """The id of a process that has ended."""
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    return ended.pid


def test_an_operation_is_posted_with_the_folders_token() -> None:
    with _answering(200, {"calls": []}) as (url, asked):
        assert Peer(url, "t0k").operate("calls", {"limit": 5}) == {"calls": []}
        assert asked == [("POST", "/api/calls", "t0k", {"limit": 5})]


@pytest.mark.parametrize(
    ("status", "raised"),
    [(400, InputError), (401, AccessError), (404, WorkflowError), (409, RequestError), (503, WorkflowError)],
)
def test_its_words_come_back_as_the_exception_they_were(status: int, raised: type[Exception]) -> None:
    with (
        _answering(status, {"error": {"message": "the value is 7; send 5"}}) as (url, _),
        pytest.raises(raised, match="the value is 7; send 5"),
    ):
        Peer(url, "t").operate("calls", {})


@pytest.mark.parametrize(
    "body", [b"<html>", b"", b"null", b"[]", b'{"error": "a plain word"}', b'{"error": null}', b"5"]
)
@pytest.mark.parametrize("status", [400, 500])
def test_whatever_a_stranger_answers_is_an_error_of_ours(status: int, body: bytes) -> None:
    with _answering(status, body) as (url, _), pytest.raises(WindlassError):
        Peer(url, "t").operate("calls", {})


def test_a_server_that_is_gone_is_said() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
        assert Peer(url, "t").alive() is False
        with pytest.raises(WorkflowError, match="does not answer.*is it still running"):
            Peer(url, "t").operate("calls", {})


def test_a_folder_without_a_file_has_no_server(tmp_path: Path) -> None:
    assert find(tmp_path) is None
    assert find(tmp_path / "none") is None


@pytest.mark.parametrize(
    "left",
    [
        b"",
        b"{",
        b"\xff\xfe",
        b"[]",
        b"null",
        b"5",
        b"{}",
        b'{"url": "http://127.0.0.1:1"}',
        b'{"url": "http://127.0.0.1:1", "token": "t"}',
        b'{"url": "", "token": "t"}',
        b'{"url": null, "token": null}',
        b'{"url": "http://127.0.0.1:99999999", "token": "t"}',
        b'{"url": "http://127.0.0.1:port", "token": "t"}',
        b'{"url": "http://[::1", "token": "t"}',
        b'{"url": "http://127.0.0.1:1/\\r\\nx", "token": "t"}',
        b'{"url": "ftp://127.0.0.1:1", "token": "t"}',
    ],
)
def test_a_file_that_leads_nowhere_counts_as_none(tmp_path: Path, left: bytes) -> None:
    (tmp_path / FILE).write_bytes(left)
    assert find(tmp_path) is None


def test_a_file_that_cannot_be_read_counts_as_none(tmp_path: Path) -> None:
    (tmp_path / FILE).mkdir()
    assert find(tmp_path) is None


@pytest.mark.parametrize(("status", "body"), [(404, {}), (500, {}), (200, b"<html>router</html>"), (302, b"")])
def test_a_stranger_on_the_old_port_counts_as_none(tmp_path: Path, status: int, body: Any) -> None:
    with _answering(status, body) as (url, _):
        _left(tmp_path, url, pid=_dead_pid())
        assert find(tmp_path) is None


def test_another_folders_server_on_the_old_port_counts_as_none(tmp_path: Path) -> None:
    """A killed server leaves its file behind; the next one, of another folder, takes the same port. Work handed to it
    would be answered from the other folder's memory."""
    with _answering(200, {"status": "ok"}) as (url, _):
        _left(tmp_path, url, token="of the killed one", pid=_dead_pid())
        assert find(tmp_path) is None


def test_a_port_where_nobody_answers_does_not_hold_the_command_up(tmp_path: Path) -> None:
    """A server that was stopped with Ctrl-Z, or a stranger that only listens."""
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        _left(tmp_path, f"http://127.0.0.1:{silent.getsockname()[1]}")
        found: list[Peer | None] = []
        looking = threading.Thread(target=lambda: found.append(find(tmp_path)), daemon=True)
        looking.start()
        looking.join(6)
        assert found == [None]
