"""Windlass in process, without server, network or workflow engine: what the tests of several rooms start from."""

from __future__ import annotations

import asyncio
import hashlib
import json
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, cast

from windlass.content.ingest import Ingest
from windlass.content.options import ContentOptions
from windlass.errors import classify
from windlass.gateway.options import ModelOptions
from windlass.gateway.provider import EVENT_STREAM, JSON, Provider, ProviderReply, ProviderRequest
from windlass.gateway.resilience.resilience import Resilience, ResilienceOptions
from windlass.ledger.db import Database
from windlass.memory.store import Memory
from windlass.records import Scope, StepResult
from windlass.runtime import Runtime
from windlass.server.app import Windlass
from windlass.settings import Settings, load

if TYPE_CHECKING:
    from windlass.workflows.durable import Durable, RunStatus

HOST = "127.0.0.1:8321"
NOW = 1_800_000_000.0


def key(name: str, tenant: str, *workspaces: str, role: str = "operator") -> dict[str, Any]:
    """A `[[keys]]` entry whose secret is `secret-<name>`."""
    digest = hashlib.sha256(f"secret-{name}".encode()).hexdigest()
    found = {"name": name, "sha256": digest, "tenant": tenant, "role": role}
    return {**found, "workspaces": list(workspaces)} if workspaces else found


def settings(home: Path, **changes: Any) -> Settings:
    """Settings on `home`, without the embedder; `changes` have `__` for the dots of a path."""
    named = {path.replace("__", "."): value for path, value in changes.items()}
    return load({"home": home, "memory.embedder": "off", **named}, environ={"HOME": str(home)})


@asynccontextmanager
async def opened(
    home: Path,
    providers: Iterable[Provider] = (),
    clock: Callable[[], float] = lambda: NOW,
    upstreams: Sequence[dict[str, Any]] = (),
    **changes: Any,
) -> AsyncIterator[Runtime]:
    """A runtime without workflows, on tables that were made once for all tests. `upstreams`: `[[providers]]`."""
    changes |= {"providers": upstreams} if upstreams else {}
    home.mkdir(mode=0o700, exist_ok=True)
    if not (home / "ledger.db").exists():
        (home / "ledger.db").write_bytes(tables())
        (home / "ledger.db").chmod(0o600)
    async with Runtime(settings(home, **changes), providers=providers, clock=clock) as runtime:
        yield runtime


@cache
def tables() -> bytes:
    """The file of a database with its tables and nothing in them; making one takes longer than a test."""
    with TemporaryDirectory() as folder:
        db = Database(f"sqlite:///{folder}/ledger.db")
        db.migrate()
        db.close()
        return (Path(folder) / "ledger.db").read_bytes()


def resilience(attempts: int = 1) -> Resilience:
    """Of one attempt unless a test is about more; without pauses."""
    return Resilience(
        ResilienceOptions(attempts=attempts, backoff_base_s=0.0),
        clock=lambda: NOW,
        monotonic=time.monotonic,
        sleep=asyncio.sleep,
        rng=Random(0),
    )


@dataclass
class Response:
    """What an application sent. `ended` is False where it stopped half-way."""

    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    parts: list[bytes] = field(default_factory=list)
    ended: bool = False

    @property
    def body(self) -> bytes:
        return b"".join(self.parts)

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def code(self) -> Any:
        """`error.code` of the envelope."""
        return self.json["error"]["code"]


@dataclass
class Client:
    """An ASGI client. `leave` is set when the client goes away; `sent` sees every event as it leaves."""

    app: Windlass
    bearer: str = ""
    leave: asyncio.Event = field(default_factory=asyncio.Event)
    sent: Callable[[Any], Awaitable[None]] | None = None

    async def get(self, path: str, **headers: str) -> Response:
        return await self.request("GET", path, (), headers)

    async def post(self, path: str, body: object = b"", **headers: str) -> Response:
        """`body` is bytes, parts of bytes, or something that becomes JSON."""
        match body:
            case bytes():
                parts: Sequence[bytes] = (body,)
            case tuple():
                parts = body
            case _:
                parts = (json.dumps(body).encode(),)
        return await self.request("POST", path, parts, headers)

    async def request(self, method: str, path: str, parts: Sequence[bytes], headers: dict[str, str]) -> Response:
        named = {"host": HOST} | ({"authorization": f"Bearer {self.bearer}"} if self.bearer else {})
        named |= {name.replace("_", "-"): value for name, value in headers.items()}
        pairs = [(name.encode(), value.encode("latin-1")) for name, value in named.items() if value != "-"]
        scope = {"type": "http", "method": method, "path": path, "query_string": b"", "headers": pairs}
        waiting = [{"type": "http.request", "body": part, "more_body": True} for part in parts]
        waiting.append({"type": "http.request", "body": b"", "more_body": False})
        response = Response()

        async def receive() -> Any:
            if waiting:
                return waiting.pop(0)
            await self.leave.wait()
            return {"type": "http.disconnect"}

        async def send(event: Any) -> None:
            if self.sent is not None:
                await self.sent(event)
            if event["type"] == "http.response.start":
                response.status = event["status"]
                response.headers = {name.decode(): value.decode("latin-1") for name, value in event["headers"]}
            else:
                response.parts.append(event.get("body", b""))
                response.ended = not event.get("more_body", False)

        await self.app(scope, receive, send)
        return response


def chat(text: str = "hello", model: str = "echo", **fields: Any) -> dict[str, Any]:
    """A chat request."""
    return {"model": model, "messages": [{"role": "user", "content": text}], **fields}


class Scripted:
    """A provider that sends what it is told to: bytes, or an exception, or an event to wait for, in turn."""

    local = False

    def __init__(
        self,
        *script: bytes | BaseException | asyncio.Event,
        status: int = 200,
        content_type: str = JSON,
        name: str = "scripted",
        model: ModelOptions | None = None,
    ):
        self.name = name
        self.models = (model or ModelOptions(name="m"),)
        self.requests: list[ProviderRequest] = []
        self.closed = asyncio.Event()
        self._script = script
        self._status = status
        self._content_type = content_type

    async def send(self, request: ProviderRequest) -> ProviderReply:
        self.requests.append(request)
        chunks = _Watched(self._chunks(), self.closed)
        return ProviderReply(self._status, self._content_type, cast("AsyncGenerator[bytes, None]", chunks))

    async def close(self) -> None:
        """Nothing is held open."""

    async def _chunks(self) -> AsyncGenerator[bytes, None]:
        for act in self._script:
            match act:
                case bytes():
                    yield act
                case asyncio.Event():
                    await act.wait()
                case _:
                    raise act


class _Watched:
    """Chunks that say when they were given back: a generator that never began cannot."""

    def __init__(self, inner: AsyncGenerator[bytes, None], closed: asyncio.Event):
        self._inner = inner
        self._closed = closed

    def __aiter__(self) -> _Watched:
        return self

    async def __anext__(self) -> bytes:
        return await anext(self._inner)

    async def aclose(self) -> None:
        self._closed.set()
        await self._inner.aclose()


def streaming(*script: bytes | BaseException | asyncio.Event, status: int = 200, **more: Any) -> Scripted:
    """A provider that answers with an event stream."""
    return Scripted(*script, status=status, content_type=EVENT_STREAM, **more)


def event(text: str) -> bytes:
    """One event of a stream that says `text`."""
    return b"data: " + json.dumps({"choices": [{"delta": {"content": text}}]}).encode() + b"\n\n"


LAST = b'data: {"choices": [{"delta": {}, "finish_reason": "stop"}]}\n\n'
DONE = b"data: [DONE]\n\n"


class Inline:
    """A workflow engine that runs everything at once, in the caller; `events` are the step results by (step, item)."""

    def __init__(self) -> None:
        self.events: dict[tuple[str, str], StepResult] = {}
        self.id = ""
        self._workflows: dict[str, Callable[..., None]] = {}
        self._runs: set[str] = set()

    def register(self, name: str, workflow: Callable[..., None]) -> None:
        self._workflows[name] = workflow

    def submit(self, workflow: str, run_id: str, *args: Any) -> None:
        self._runs.add(run_id)
        outer, self.id = self.id, run_id
        self._workflows[workflow](self, *args)
        self.id = outer

    def enqueue(self, workflow: str, *args: Any) -> None:
        self.submit(workflow, f"{self.id}-{workflow}", *args)

    def status(self, run_id: str) -> RunStatus:
        return "done" if run_id in self._runs else "unknown"

    def step(self, name: str, scope: Scope, item: str, action: Callable[..., Any], *args: Any) -> StepResult:
        try:
            value = action(*args)
            result = value if isinstance(value, StepResult) else StepResult(status="ok", value=value)
        except Exception as exc:
            result = StepResult(status="failed", error=classify(exc).value, message=str(exc))
        self.events[name, item] = result
        return result


def inline_ingest(
    runtime: Runtime, options: ContentOptions | None = None, memory: Memory | None = None
) -> tuple[Ingest, Inline]:
    """The runtime's content stages on an engine without durability."""
    engine = Inline()
    parts = (runtime.contents, memory or runtime.memory, cast("Durable", engine))
    ingest = Ingest(*parts, options or ContentOptions(), runtime.clock)
    ingest.register()
    return ingest, engine


@dataclass
class Upstream:
    """A raw HTTP server on loopback: what arrived, and whether the other side has hung up."""

    url: str
    requests: list[bytes] = field(default_factory=list)
    hung_up: asyncio.Event = field(default_factory=asyncio.Event)


@asynccontextmanager
async def upstream(answer: Callable[[asyncio.StreamWriter], Awaitable[None]]) -> AsyncIterator[Upstream]:
    """Serve every request by `answer(writer)`, bytes by hand, as many on one connection as its client sends."""
    found = Upstream("")

    serving: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        serving.add(cast("asyncio.Task[None]", asyncio.current_task()))
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                lines = head.lower().split(b"\r\n")
                length = next(int(line[15:]) for line in lines if line.startswith(b"content-length:"))
                found.requests.append(head + await reader.readexactly(length))
                await answer(writer)
                await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            found.hung_up.set()
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, backlog=512)
    found.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
    try:
        yield found
    finally:
        server.close()
        for task in serving:
            task.cancel()
        await asyncio.gather(*serving)
        await server.wait_closed()
        await asyncio.sleep(0)  # the transports close in the next round
