"""An upstream that always does well, in every dialect, and notes whatever a gateway must never send."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import msgspec
from tests.golden.application import NOW, key, tables

from windlass.runtime import Runtime
from windlass.settings import load

KEPT: Final = Path(__file__).parents[1] / "golden" / "dialects"
MODELS: Final = ("up-plain", "up-translated", "up-gemini", "up-azure")
KEY: Final = "secret-boss"
KEYS: Final = [key("boss", "acme", role="admin")]
LIMITS: Final = [{"name": "all", "usd": 1e9, "tokens": 10**15, "window": "total"}]
SECRET: Final = "provider-secret-that-stays-here"


class _Asked(msgspec.Struct):
    model: Any = None
    stream: Any = False
    input: Any = None


@dataclass
class Faithful:
    """host: what its clients must call it. asked, heads: first lines and headers, the last
    thousand of them; served: how many there were.
    wrong: what came that must not. models: those it has; none: any. aside: answers instead, where it gives bytes.
    transport: the HTTP client that its providers reach it by.
    """

    host: str = ""
    asked: list[str] = field(default_factory=list)
    heads: list[dict[str, str]] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    served: int = 0
    models: tuple[str, ...] = MODELS
    aside: Callable[[str], bytes] = lambda _first: b""
    transport: str = "aiohttp"

    @property
    def url(self) -> str:
        return f"http://{self.host}/v1"

    def answer(self, first: str, headers: dict[str, str], body: bytes) -> bytes:
        """The whole answer to one request, its head included."""
        self.asked[:-1_000], self.heads[:-1_000] = [], []
        self.asked.append(first)
        self.served += 1
        self.heads.append(headers)
        path = first.split(" ")[1]
        if headers.get("host") != self.host:
            self.wrong.append(f"host {headers.get('host')!r}")
        if not path.startswith(("/v1/", "/openai/")) or ".." in path.partition("?")[0].split("/"):
            self.wrong.append(f"path {path[:300]!r}")
        if not any(SECRET in value for value in headers.values()):
            self.wrong.append(f"no key of its own: {sorted(headers)}")
        if instead := self.aside(first):
            return instead
        if not headers.get("content-type", "").startswith("application/json") or not body:
            return reply("application/json", b'{"text":"ahoy"}')
        try:
            body.decode()
            asked = msgspec.json.decode(body, type=_Asked)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as exc:
            self.wrong.append(f"{path}: {exc}: {body[:300]!r}")
            return reply("application/json", b"{}")
        if asked.model and self.models and asked.model not in self.models:  # "" names nobody, like none
            self.wrong.append(f"{path}: model {asked.model!r:.300}")
        return _spoken(path, asked)


def _spoken(path: str, asked: _Asked) -> bytes:
    stream = asked.stream is True or "streamGenerateContent" in path
    plain = path.partition("?")[0]
    if plain.endswith("/embeddings"):
        return reply("application/json", _vectors(asked.input))
    if plain.endswith(("/count_tokens", "/input_tokens")):
        return reply("application/json", b'{"object":"response.input_tokens","input_tokens":7}')
    dialect = next((one for one in ("responses", "messages") if f"/{one}" in plain), "chat")
    dialect = "gemini" if "enerateContent" in plain else dialect
    if plain.endswith("/moderations"):
        return reply("application/json", b'{"id":"m","model":"x","results":[{"flagged":false}]}')
    if stream and not plain.endswith("/compact"):
        return reply("text/event-stream", (KEPT / "streams" / f"text.{dialect}.txt").read_bytes())
    if plain.endswith("/audio/speech"):
        return reply("audio/mpeg", b"ID3 ahoy")
    if "/images/" in plain:
        return reply("application/json", b'{"created":1,"data":[{"b64_json":"AAAA"}]}')
    return reply("application/json", (KEPT / "replies" / f"text.{dialect}.json").read_bytes())


def _vectors(given: Any) -> bytes:
    count = len(given) if isinstance(given, list) and given and not isinstance(given[0], int) else 1
    data = [{"object": "embedding", "index": index, "embedding": [0.5, 0.25]} for index in range(count)]
    return json.dumps({"object": "list", "data": data, "usage": {"prompt_tokens": 3, "total_tokens": 3}}).encode()


def reply(kind: str, body: bytes, status: str = "200 OK", *more: str) -> bytes:
    """An answer. more: further headers."""
    lines = [f"HTTP/1.1 {status}", f"content-type: {kind}", f"content-length: {len(body)}", *more, "", ""]
    return "\r\n".join(lines).encode() + body


class _Connection(asyncio.Protocol):
    """One client, whose requests come one after the other."""

    def __init__(self, upstream: Faithful):
        self._upstream = upstream
        self._data = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._data += data
        while True:
            head, found, rest = self._data.partition(b"\r\n\r\n")
            first, *lines = head.decode("latin-1").split("\r\n")
            headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
            length = int(headers.get("content-length", 0))
            if not found or len(rest) < length:
                return
            self._data = rest[length:]
            self._transport.write(self._upstream.answer(first, headers, rest[:length]))


@asynccontextmanager
async def faithful() -> AsyncIterator[Faithful]:
    """On loopback, in the running loop."""
    upstream = Faithful()
    server = await asyncio.get_running_loop().create_server(lambda: _Connection(upstream), "127.0.0.1", 0)
    upstream.host = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield upstream
    finally:
        server.close()
        server.close_clients() if hasattr(server, "close_clients") else None
        await asyncio.sleep(0)


@asynccontextmanager
async def before(upstream: Faithful, home: Path, **changes: Any) -> AsyncIterator[Runtime]:
    """A runtime with a provider of each kind before `upstream`, a key and a limit; `__` for the dots of a path."""
    home.mkdir(mode=0o700, exist_ok=True)
    (home / "ledger.db").write_bytes(tables())
    (home / "ledger.db").chmod(0o600)
    named: dict[str, Any] = {"home": home, "memory.embedder": "off", "providers": providers(upstream)}
    named |= {"gateway.pass_through": "p-plain", "keys": KEYS, "limits": LIMITS}
    named |= {path.replace("__", "."): value for path, value in changes.items()}
    settings = load(named, environ={"HOME": str(home), "UP_KEY": SECRET})
    async with Runtime(settings, clock=lambda: NOW) as runtime:
        yield runtime


@contextmanager
def in_a_thread() -> Iterator[Faithful]:
    """On loopback, in a thread of its own, for tests without a loop."""
    found: list[Faithful] = []
    ready, stop = threading.Event(), asyncio.Event()
    loop = asyncio.new_event_loop()

    async def serve() -> None:
        async with faithful() as upstream:
            found.append(upstream)
            ready.set()
            await stop.wait()

    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),))
    thread.start()
    ready.wait(10)
    try:
        yield found[0]
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join()
        loop.close()


def providers(upstream: Faithful) -> list[dict[str, Any]]:
    """`[[providers]]` for it, one of each kind; each model is called otherwise upstream."""
    native = ["responses", "messages"]

    def one(kind: str, model: str, url: str = upstream.url, **more: Any) -> dict[str, Any]:
        named = {"name": model, "upstream": f"up-{model}", "prompt_usd_per_million": 1.0}
        models = [{**named, "completion_usd_per_million": 2.0}]
        about = {"base_url": url, "api_key_env": "UP_KEY", "transport": upstream.transport}
        return {"name": f"p-{model}", "kind": kind, "models": models, **about, **more}

    return [
        one("openai_compatible", "plain", endpoints=native),
        one("anthropic", "translated"),
        one("gemini", "gemini"),
        one("azure", "azure", f"http://{upstream.host}", options={"api_version": "2025-01-01"}),
    ]


def on_disk(folder: Path, upstream: Faithful, more: str = "") -> dict[str, str]:
    """The environment of a program whose settings hold all that, and `more`."""
    every = [("providers", one) for one in providers(upstream)] + [("keys", one) for one in KEYS]
    every += [("limits", one) for one in LIMITS]
    tables = [
        f"[[{name}]]\n" + "".join(f"{field} = {_toml(value)}\n" for field, value in one.items()) for name, one in every
    ]
    path = folder / "windlass.toml"
    path.write_text("".join(tables) + '[gateway]\npass_through = "p-plain"\n' + more)
    return {"WINDLASS_CONFIG": str(path), "UP_KEY": SECRET, "WINDLASS_MEMORY__EMBEDDER": "off"}


def _toml(value: Any) -> str:
    """A value of plain settings; JSON's strings, lists and numbers are TOML's too."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{name} = {_toml(one)}" for name, one in value.items()) + "}"
    return f"[{', '.join(map(_toml, value))}]" if isinstance(value, list) else json.dumps(value)
