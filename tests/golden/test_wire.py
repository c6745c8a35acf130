"""What goes over the wire, byte for byte as it is kept in this folder: clients depend on every one of them.

A change of a file here is a change for every client; ids are replaced by `<call>`, everything else is exact.
"""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
import structlog
from tests.golden.application import Client, Response, key, opened

from windlass.errors import ErrorCategory, LedgerError, UpstreamError
from windlass.gateway.options import ModelOptions
from windlass.gateway.provider import ProviderReply, ProviderRequest
from windlass.runtime import Runtime
from windlass.server.app import Windlass

together = pytest.mark.asyncio(loop_scope="module")
HERE = Path(__file__).parent
PASSAGES = (
    "A pawl drops into the teeth of the wheel and stops it from turning back.\n\n"
    "The rope is made of hemp and has to be kept dry all winter.\n\n"
    "Why does the pawl stop the wheel?"
)
ASKING = {"messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": PASSAGES}]}
CHAT = "/v1/chat/completions"
OPTIONS: dict[str, Any] = {
    "gateway__auto": ["local/quotes-fast"],
    "gateway__max_body_bytes": 4096,
    # What a learner says of its choice changes with every call, and so does what falls into the randomised share.
    "points": {"model": {"mode": "live", "policy": "fixed", "randomised_share": 0.0}},
}


class Failing:
    """A provider whose models fail in one way each."""

    name = "failing"
    local = False
    ways = {
        "refused": UpstreamError("provider failing failed: connect_refused", category=ErrorCategory.CONNECT_REFUSED),
        "late": UpstreamError("provider failing failed: late", category=ErrorCategory.FIRST_BYTE_TIMEOUT),
        "full": LedgerError("the disk is full; make room", category=ErrorCategory.DISK_FULL),
        "bug": ZeroDivisionError("a secret"),
    }
    models = tuple(ModelOptions(name=name) for name in ways)

    async def send(self, request: ProviderRequest) -> ProviderReply:
        raise self.ways[request.model].with_traceback(None)

    async def close(self) -> None:
        """Nothing is held open."""


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    with structlog.testing.capture_logs():
        yield


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def runtime(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Runtime]:
    async with opened(tmp_path_factory.mktemp("home"), [Failing()], **OPTIONS) as runtime:
        yield runtime


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def keyed(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Runtime]:
    async with opened(tmp_path_factory.mktemp("home"), keys=[key("k", "acme")]) as runtime:
        yield runtime


def _exact(response: Response) -> str:
    """Status, the headers that matter and the body."""
    shown = [f"{response.status}"]
    shown += [f"{name}: {value}" for name, value in sorted(response.headers.items()) if name != "content-length"]
    return re.sub(r"call_[0-9a-f]{32}", "<call>", "\n".join([*shown, "", response.body.decode()]))


def _golden(name: str) -> str:
    return (HERE / name).read_bytes().decode()


@together
@pytest.mark.parametrize(("name", "stream"), [("completion.txt", False), ("stream.txt", True)])
async def test_a_chat_of_the_local_model(runtime: Runtime, name: str, stream: bool) -> None:
    response = await Client(Windlass(runtime)).post(CHAT, {**ASKING, "model": "auto", "stream": stream})
    assert _exact(response) == _golden(name)


@together
async def test_the_models(runtime: Runtime) -> None:
    assert _exact(await Client(Windlass(runtime)).get("/v1/models")) == _golden("models.txt")


ERRORS: dict[str, tuple[str, Any, dict[str, str]]] = {
    "400": (CHAT, b'{"model": "auto", "messages": []}', {}),
    "403": (CHAT, b"{}", {"host": "evil.example"}),
    "404": (CHAT, {**ASKING, "model": "nope"}, {}),
    "405": ("/v1/models", b"", {}),
    "413": (CHAT, b" " * 4097, {}),
    "500": (CHAT, {**ASKING, "model": "bug"}, {}),
    "502": (CHAT, {**ASKING, "model": "refused"}, {}),
    "503": (CHAT, {**ASKING, "model": "full"}, {}),
    "504": (CHAT, {**ASKING, "model": "late"}, {}),
}


@together
@pytest.mark.parametrize("status", ERRORS)
async def test_the_envelope_of_each_status(runtime: Runtime, status: str) -> None:
    path, body, headers = ERRORS[status]
    response = await Client(Windlass(runtime)).post(path, body, **headers)
    assert _exact(response) == _golden(f"error-{status}.txt")


@together
async def test_the_envelope_of_a_wrong_key(keyed: Runtime) -> None:
    response = await Client(Windlass(keyed), bearer="wrong").post(CHAT, {**ASKING, "model": "auto"})
    assert _exact(response) == _golden("error-401.txt")


def test_every_golden_file_is_compared() -> None:
    named = {"completion.txt", "stream.txt", "models.txt", "error-401.txt", *(f"error-{one}.txt" for one in ERRORS)}
    assert {file.name for file in HERE.glob("*.txt")} == named


def test_the_golden_files_hold_what_openai_clients_read() -> None:
    body = json.loads(_golden("completion.txt").partition("\n\n")[2])
    assert set(body) == {"id", "created", "model", "object", "choices", "usage"}
    events = _golden("stream.txt").partition("\n\n")[2].split("\n\n")
    assert events[-2:] == ["data: [DONE]", ""]
    assert json.loads(events[-3].removeprefix("data: "))["choices"][0]["finish_reason"] == "stop"
