"""No key stands in clear anywhere: a search, byte by byte, of all that a server writes, says and shows.

Keys of callers and of providers, good ones, rotated, revoked and wrong ones, sent in every place that a client may put
them. Each is looked for as it is, in base64, in hex, as an address writes it, and as its plain digest.
"""

from __future__ import annotations

import base64
import hashlib
import http.cookiejar
import json
import os
import re
import signal
import subprocess
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import pytest

from tests.property.faithful import KEY, SECRET, Faithful, in_a_thread, on_disk
from tests.scenario import program

pytestmark = pytest.mark.scenario
PASSWORD: Final = "crane-password-0fb1c2"
WRONG: Final = "wl-Qm9ndXMtYnV0LXBsYXVzaWJsZS1rZXktb2YtYS1jbGllbnQ"
ENDPOINTS: Final = {
    "/v1/chat/completions": {"messages": [{"role": "user", "content": "ahoy"}]},
    "/v1/messages": {"messages": [{"role": "user", "content": "ahoy"}], "max_tokens": 5},
    "/v1/responses": {"input": "ahoy"},
    "/v1/embeddings": {"input": "ahoy"},
    "/v1/images/generations": {"prompt": "ahoy"},
    "/v1/batches": {"input_file_id": "f"},
    "/v1/feedback": {"target": "call_1", "kind": "praise"},
    "/api/calls": {},
    "/api/keys": {},
    "/api/doctor": {},
}
PAGES: Final = (
    *("/", "/calls", "/decisions", "/decisions/model", "/feedback", "/keys", "/providers", "/prices", "/routing"),
    "/login",
    *("/openapi.json", "/healthz", "/readyz", "/metrics", "/v1/models", "/api/calls", "/nowhere"),
)
COMMANDS: Final = (
    *(
        ("keys", "list"),
        ("calls",),
        ("feedback",),
        ("doctor",),
        ("prices",),
        ("audit", "show"),
    ),
)


def _forms(secret: str) -> Iterator[bytes]:
    """How a secret may come back. base64 holds it at one of three places, whatever stands before it."""
    plain = secret.encode()
    yield plain
    yield plain.hex().encode()
    yield urllib.parse.quote(secret, safe="").encode()
    yield hashlib.sha256(plain).hexdigest().encode()
    for before in range(3):
        coded = base64.b64encode(b"\x00" * before + plain).rstrip(b"=")
        yield coded[4 if before else 0 : -2]


def _found(secrets: list[str], what: dict[str, bytes]) -> list[str]:
    return [
        f"{secret[:6]}... in {where}: {data[max(0, at - 80) : at + 20]!r}"
        for secret in secrets
        for form in _forms(secret)
        for where, data in what.items()
        if (at := data.find(form)) >= 0
    ]


def _send(url: str, path: str, body: Any = None, **headers: str) -> bytes:
    """The whole answer, whatever its status."""
    data = None if body is None else json.dumps(body).encode()
    named = {"content-type": "application/json"} | {name.replace("_", "-"): value for name, value in headers.items()}
    request = urllib.request.Request(url + path, data, named)
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return str(answer.headers).encode() + answer.read()
    except urllib.error.HTTPError as refused:
        with refused:
            return str(refused.headers).encode() + refused.read()


def _everywhere(url: str, key: str) -> Iterator[bytes]:
    """Every answer to a caller that puts a key wherever there is room for one."""
    for path, body in ENDPOINTS.items():
        for model in ("plain", "down", key):
            wanted = {**body, "model": model} if path.startswith("/v1/") and "/feedback" not in path else body
            yield _send(url, path, wanted, authorization=f"Bearer {key}")
        yield _send(url, path, {**wanted, "stream": True, "model": "plain"}, x_api_key=key)
        yield _send(url, path, {**wanted, "api_key": key, "metadata": {"key": key}}, authorization=f"Bearer {key}")
        yield _send(url, f"{path}?api_key={key}", wanted, cookie=f"key={key}", x_other=key)
        yield _send(url, path, wanted, authorization=f"Basic {base64.b64encode(key.encode()).decode()}")
        yield _send(url, path, wanted, authorization=key, x_windlass_token=key, x_windlass_workspace=key)
    for where in (
        "/v1/models/{}",
        "/v1/files/{}",
        "/v1/down/{}",
        "/api/{}",
        "/{}",
        "/calls/{}",
        "/static/{}",
        "/api/calls?{}=1",
    ):
        yield _send(url, where.format(key), authorization=f"Bearer {key}")
        yield _send(url, where.format(key))
    yield _send(url, "/api/key_revoke", {"name": key}, authorization=f"Bearer {KEY}")


def _shown(url: str, key: str) -> Iterator[tuple[str, bytes]]:
    """The pages as somebody sees them who has signed in with a key."""
    browser = urllib.request.build_opener(urllib.request.HTTPCookieProcessor(http.cookiejar.CookieJar()))
    with browser.open(f"{url}/login", timeout=30) as page:
        token = re.search(r'name="token" value="([^"]+)"', page.read().decode())
    assert token is not None
    form = urllib.parse.urlencode({"token": token[1], "key": key, "workspace": "", "next": "/"}).encode()
    with browser.open(f"{url}/login", form, timeout=30) as page:
        first = page.read()
        assert page.url == f"{url}/", "signed in"
    calls = re.findall(rb'href="(/calls/call_[^"?#]+)"', first)[:3]
    for path in (*PAGES, *(call.decode() for call in calls)):
        try:
            with browser.open(url + path, timeout=30) as page:
                yield f"page {path}", str(page.headers).encode() + page.read()
        except urllib.error.HTTPError as refused:
            with refused:
                yield f"page {path}", refused.read()


def _kept(home: Path) -> dict[str, bytes]:
    """Every file of the state folder but the two that hold a secret of their own, for their owner alone."""
    own = {"server.json", "keys.secret"}
    files = [path for path in home.rglob("*") if path.is_file()]
    for path in files:
        if path.name in own:
            assert path.stat().st_mode & 0o077 == 0, path
    return {str(path.relative_to(home)): path.read_bytes() for path in files if path.name not in own}


@contextmanager
def _running(home: Path, said: Path, **more: str) -> Iterator[str]:
    """`windlass up` whose every word is kept."""
    with said.open("wb") as file:
        process = subprocess.Popen(
            program.command("up", "--port", str(program.free_port())),
            env=program.environment(home, **more),
            stdout=file,
            stderr=file,
            stdin=subprocess.DEVNULL,
            text=True,
            start_new_session=True,
        )
        try:
            yield program.url_of(home, process)
            os.killpg(process.pid, signal.SIGINT)
            assert process.wait(20) == 0
        finally:
            if process.poll() is None:
                program.kill(process)


def _made(home: Path, *arguments: str, **more: str) -> str:
    done = program.windlass(home, "keys", *arguments, **more)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_no_key_is_written_said_or_shown(tmp_path: Path) -> None:
    home, said = tmp_path / "home", tmp_path / "said.txt"
    with in_a_thread() as upstream:
        more = _settings(tmp_path, upstream)
        first = _made(home, "create", "ann", "--role", "admin", **more)
        fresh = _made(home, "rotate", "ann", "--grace", "1h", **more)
        gone = _made(home, "create", "bob", **more)
        _made(home, "revoke", "bob", **more)
        keys = [fresh, gone, WRONG, KEY]
        answers: dict[str, bytes] = {}
        with _running(home, said, **more) as url:
            for key in keys:
                told = list(_everywhere(url, key))
                answers |= {f"answer {number} to {key[:6]}": one for number, one in enumerate(told)}
            answers |= dict(_shown(url, fresh)) | dict(_shown(url, KEY))
            for command in COMMANDS:
                done = program.windlass(home, *command, "--json", **more)
                answers[" ".join(command)] = (done.stdout + done.stderr).encode()
        assert upstream.wrong == []
        assert len(upstream.asked) > 20, "calls came through"
    assert all(_found([key], {"itself": form}) for key in keys for form in _forms(key)), "the search finds"
    secrets = [first, *keys, SECRET, PASSWORD]
    assert _found(secrets, {"what the server said": said.read_bytes()}) == []
    assert _found(secrets, _kept(home)) == []
    assert (
        _found(
            secrets,
            {where: data for where, data in answers.items() if where.startswith(("page", *map(" ".join, COMMANDS)))},
        )
        == []
    )
    assert _found([SECRET, PASSWORD], answers) == []


def _settings(folder: Path, upstream: Faithful) -> dict[str, str]:
    """Beside the providers that do well: one that is not there, with a password in its address."""
    down = (
        f'[[providers]]\nname = "p-down"\nbase_url = "http://crane:{PASSWORD}@127.0.0.1:9/v1"\napi_key_env = "UP_KEY"\n'
    )
    down += '[[providers.models]]\nname = "down"\n'
    return on_disk(folder, upstream, f"keep_bodies = false\n{down}")
