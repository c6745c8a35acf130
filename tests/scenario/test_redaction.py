"""Nothing personal is written, said or shown: a search, byte by byte, of all that a server leaves, while what goes up
and what comes down stay as they were."""

from __future__ import annotations

import http.cookiejar
import json
import os
import re
import signal
import subprocess
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any, Final

import pytest

from tests.property.faithful import KEY, SECRET, in_a_thread, on_disk, reply
from tests.scenario import program

pytestmark = pytest.mark.scenario
ASKED: Final = ("alice@example.org", "4111 1111 1111 1111", "sk-proj-a1b2c3d4e5f6g7h8i9", "+49 30 901820")
ANSWERED: Final = ("bob@example.net", "5555-5555-5555-4444", "AKIAIOSFODNN7EXAMPLE", "(415) 555-2671")
ADDED: Final = ("carol@example.com", "DE89 3704 0044 0532 0130 00")
PLANTED: Final = (*ASKED, *ANSWERED, *ADDED)
ANSWER: Final = f"Ask {' or '.join(ANSWERED)} about it."
OPERATIONS: Final = ("calls", "feedback", "decisions", "doctor")


def _plain() -> bytes:
    choice = {"index": 0, "message": {"role": "assistant", "content": ANSWER}, "finish_reason": "stop"}
    return json.dumps(
        {"id": "c", "object": "chat.completion", "created": 1, "model": "m", "choices": [choice]}
    ).encode()


def _stream() -> bytes:
    """The answer in pieces of three characters: no address is whole in one of them."""
    head = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m"}
    deltas = [{"content": ANSWER[at : at + 3]} for at in range(0, len(ANSWER), 3)]
    choices = [{"index": 0, "delta": delta, "finish_reason": None} for delta in deltas]
    choices.append({"index": 0, "delta": {}, "finish_reason": "stop"})
    return (
        b"".join(b"data: " + json.dumps({**head, "choices": [one]}).encode() + b"\n\n" for one in choices)
        + b"data: [DONE]\n\n"
    )


def _send(url: str, path: str, body: Any = None) -> bytes:
    headers = {"content-type": "application/json", "authorization": f"Bearer {KEY}"}
    data = None if body is None else json.dumps(body).encode()
    with urllib.request.urlopen(urllib.request.Request(url + path, data, headers), timeout=30) as answer:
        return bytes(answer.read())


def _chat(url: str, **more: Any) -> bytes:
    said = f"I am {ASKED[0]}, card {ASKED[1]}, key {ASKED[2]}, phone {ASKED[3]}."
    return _send(
        url, "/v1/chat/completions", {"model": "plain", "messages": [{"role": "user", "content": said}], **more}
    )


def _pages(url: str, calls: list[str]) -> dict[str, bytes]:
    """The pages as somebody sees them who has signed in."""
    browser = urllib.request.build_opener(urllib.request.HTTPCookieProcessor(http.cookiejar.CookieJar()))
    token = re.search(r'name="token" value="([^"]+)"', browser.open(f"{url}/login", timeout=30).read().decode())
    assert token is not None
    form = {"token": token[1], "key": KEY, "workspace": "", "next": "/"}
    browser.open(f"{url}/login", urllib.parse.urlencode(form).encode(), timeout=30).close()
    paths = ["/", "/calls", "/feedback", *(f"/calls/{call}" for call in calls)]
    return {f"page {path}": browser.open(url + path, timeout=30).read() for path in paths}


def _text(stream: bytes) -> str:
    events = [json.loads(line[6:]) for line in stream.split(b"\n\n") if line.startswith(b"data: {")]
    return "".join(choice["delta"].get("content", "") for event in events for choice in event["choices"])


def test_nothing_personal_is_written_said_or_shown(tmp_path: Path) -> None:
    home, said = tmp_path / "home", tmp_path / "said.txt"
    shown: dict[str, bytes] = {}
    with in_a_thread() as upstream, said.open("wb") as file:
        streamed = [False]
        upstream.aside = lambda first: (
            reply("text/event-stream", _stream()) if streamed[0] else reply("application/json", _plain())
        )
        more = on_disk(tmp_path, upstream)
        port = str(program.free_port())
        process = subprocess.Popen(
            program.command("up", "--port", port),
            env=program.environment(home, **more),
            stdout=file,
            stderr=file,
            stdin=subprocess.DEVNULL,
            text=True,
            start_new_session=True,
        )
        try:
            url = program.url_of(home, process)
            assert ANSWER in json.loads(_chat(url))["choices"][0]["message"]["content"], "the client gets what was said"
            streamed[0] = True
            assert _text(_chat(url, stream=True)) == ANSWER
            calls = json.loads(_send(url, "/api/calls", {}))["calls"]
            assert len(calls) == 2
            names = [row["call"]["id"] if isinstance(row.get("call"), dict) else row["id"] for row in calls]
            for call in names:
                words = {"target": call, "kind": "complaint", "comment": f"write to {ADDED[0]}, {ADDED[1]}"}
                shown[f"feedback {call}"] = _send(url, "/v1/feedback", words)[:0]
                shown[f"call {call}"] = _send(url, "/api/call", {"call": call, "bodies": True})
                assert b"[email]" in shown[f"call {call}"], "what is left is shown"
                done = program.windlass(home, "call", call, "--bodies", "--json", WINDLASS_KEY=KEY, **more)
                shown[f"command {call}"] = (done.stdout + done.stderr).encode()
            shown |= _pages(url, names)
            assert all(b"[email]" in shown[f"page /calls/{call}"] for call in names)
            for name in OPERATIONS:
                shown[name] = _send(url, f"/api/{name}", {})
            os.killpg(process.pid, signal.SIGINT)
            assert process.wait(20) == 0
        finally:
            if process.poll() is None:
                program.kill(process)
    shown |= {str(path): path.read_bytes() for path in home.rglob("*") if path.is_file()}
    shown["said"] = said.read_bytes()
    found = [(one, where) for one in PLANTED for where, data in shown.items() if one.encode() in data]
    assert found == []
    ledger = b"".join(data for where, data in shown.items() if "ledger.db" in where)
    assert all(f"[{label}]".encode() in ledger for label in ("email", "card", "key", "phone", "iban")), (
        "the search finds"
    )
    assert SECRET.encode() not in ledger
