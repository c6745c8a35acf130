"""Hostile requests, made from valid ones by a seed, and what every answer to one must be.

A request is a valid one of its endpoint after some mutations: of the value (a wrong type, a missing field, a number
that no machine holds, thousands of levels), of the bytes (cut, flipped, another encoding, half a character) and of
what stands around them (content type, headers, how the body is split).
"""

from __future__ import annotations

import json
import random
import string
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any, Final, NamedTuple

GOLDEN: Final = Path(__file__).parents[1] / "golden" / "dialects" / "requests"
MODELS: Final = ("plain", "translated", "gemini", "azure", "local/quotes-fast", "auto", "nobody")
"""Models of the application under test: of each kind of provider, of this process, and one that there is not."""
DEEP: Final = 100_000
LARGE: Final = 50 * 1024 * 1024
_BLOCK: Final = bytes(range(256)) * 256
JSON_TYPE: Final = "application/json"
FORM_TYPE: Final = "multipart/form-data; boundary=capstan"
PICTURE: Final = "data:image/png;base64,iVBORw0KGgo="


class Case(NamedTuple):
    """One request. why: the mutations, for whoever looks for the cause."""

    path: str
    headers: dict[str, str]
    parts: Sequence[bytes]
    why: tuple[str, ...]


def fault(path: str, status: int, content_type: str, body: bytes, *, ended: bool) -> str:
    """What is wrong with an answer to a hostile request whose upstream does well, '' for nothing."""
    if not ended:
        return "the answer has no end"
    if status >= 500:
        return f"status {status}: {body[:500]!r}"
    if status < 400:
        broken = content_type.startswith("text/event-stream") and (b'data: {"error"' in body or b"event: error" in body)
        return f"a stream broke off: {body[-500:]!r}" if broken else ""
    if not content_type.startswith(JSON_TYPE):
        return f"status {status} with {content_type!r}: {body[:500]!r}"
    try:
        told = json.loads(body)
    except ValueError:
        return f"status {status} without JSON: {body[:500]!r}"
    return "" if _is_envelope(path, told) else f"status {status} with another envelope: {body[:500]!r}"


def _is_envelope(path: str, told: Any) -> bool:
    """Anthropic's for Messages, else OpenAI's."""
    error = told.get("error") if isinstance(told, dict) else None
    if not isinstance(error, dict) or not isinstance(error.get("message"), str) or not error["message"]:
        return False
    if path.startswith("/v1/messages"):
        return told.keys() == {"type", "error"} and told["type"] == "error" and error.keys() == {"type", "message"}
    return told.keys() == {"error"} and error.keys() == {"message", "type", "param", "code"}


# --- valid requests


@cache
def _golden(dialect: str) -> tuple[dict[str, Any], ...]:
    """Every kept request of a dialect."""
    found = (json.loads(path.read_bytes()) for path in sorted(GOLDEN.glob(f"*.{dialect}.json")))
    return tuple(body for body in found if isinstance(body, dict))


def _one(*bodies: dict[str, Any]) -> Callable[[random.Random], dict[str, Any]]:
    return lambda rng: json.loads(json.dumps(rng.choice(bodies)))  # type: ignore[no-any-return]


def _dialect(name: str) -> Callable[[random.Random], dict[str, Any]]:
    def made(rng: random.Random) -> dict[str, Any]:
        body = _one(*_golden(name))(rng)
        return {**body, "model": "plain", **({"stream": True} if rng.random() < 0.3 else {})}

    return made


TRIED: Final[dict[str, Any]] = {
    "name": "try",
    "variants": {"usual": {"share": 0.5}, "b": {"share": 0.5, "action": "m-plain"}},
    "size": 100,
    "guardrails": {"quality": 0.0},
    "ramp": [0.5, 1.0],
}
BODIES: Final[dict[str, Callable[[random.Random], dict[str, Any]]]] = {
    "/v1/chat/completions": _dialect("chat"),
    "/v1/responses": _dialect("responses"),
    "/v1/responses/compact": _dialect("responses"),
    "/v1/responses/input_tokens": _dialect("responses"),
    "/v1/messages": _dialect("messages"),
    "/v1/messages/count_tokens": _dialect("messages"),
    "/v1/embeddings": _one(
        {"model": "plain", "input": "a pawl"},
        {"model": "plain", "input": ["a pawl", "a drum"], "encoding_format": "base64", "dimensions": 8},
        {"model": "plain", "input": [[1, 2, 3], [4]], "user": "ann"},
    ),
    "/v1/completions": _one({"model": "plain", "prompt": "A pawl", "max_tokens": 5, "user": "ann"}),
    "/v1/moderations": _one({"model": "plain", "input": ["a", {"type": "text", "text": "b"}]}),
    "/v1/images/generations": _one({"model": "plain", "prompt": "a drum", "n": 2, "size": "256x256"}),
    "/v1/images/edits": _one({"model": "plain", "prompt": "a drum", "image": PICTURE}),
    "/v1/images/variations": _one({"model": "plain", "image": PICTURE, "n": 1}),
    "/v1/audio/speech": _one({"model": "plain", "input": "ahoy", "voice": "alloy"}),
    "/v1/audio/transcriptions": _one({"model": "plain", "file": "RIFF", "prompt": "ahoy", "stream": "false"}),
    "/v1/audio/translations": _one({"model": "plain", "file": "RIFF"}),
    "/v1/feedback": _one({"target": "call_1", "kind": "rating", "value": 1.0, "comment": "so", "id": "fb-1"}),
    "/v1/batches": _one({"input_file_id": "file_1", "endpoint": "/v1/chat/completions"}),
    "/v1/files": _one({"purpose": "batch", "file": "{}"}),
    "/api/ask": _one({"question": "What turns one way?", "model": "auto", "item": ""}),
    "/api/progress": _one({"run": "run_1"}),
    "/api/ingest": _one({"paths": ["/nowhere"]}),
    "/api/calls": _one({"limit": 5, "since": "24h", "text": "x", "error": "any"}),
    "/api/call": _one({"call": "call_1", "bodies": True}),
    "/api/decisions": _one({"limit": 5, "point": "model", "live": True, "until": 1.8e9}),
    "/api/points": _one({"point": "model", "since": "1970-01-02"}),
    "/api/feedback": _one({"limit": 5, "kind": "rating", "source": "user", "target": "call_1"}),
    "/api/prices": _one({"model": "gpt", "limit": 3}),
    "/api/snapshots": _one({}),
    "/api/mode": _one({"point": "model", "mode": "live", "reason": "so"}),
    "/api/rollback": _one({"point": "model", "snapshot": 0, "reason": "so"}),
    "/api/promote": _one({"point": "model", "shadow": "settings", "reason": "so"}),
    "/api/always": _one({"point": "model", "action": "m-plain", "reason": "so"}),
    "/api/experiments": _one({"point": "model", "state": "running", "limit": 3}),
    "/api/experiment": _one({"name": "try", "point": "model"}),
    "/api/experiment_plan": _one({"plan": TRIED, "newest": 100, "power": 0.8}),
    "/api/experiment_start": _one({"plan": TRIED, "reason": "so"}),
    "/api/experiment_advance": _one({"name": "try", "stage": 2, "reason": "so"}),
    "/api/experiment_stop": _one({"name": "try", "reason": "so"}),
    "/api/experiment_rollback": _one({"name": "try", "point": "model", "reason": "so"}),
    "/api/experiment_ship": _one({"name": "try", "variant": "b", "force": True, "reason": "so"}),
    "/api/forget": _one({"user": "ann", "reason": "asked to"}),
    "/api/budgets": _one({"name": "all", "limit": 3, "since": "24h"}),
    "/api/providers": _one({"provider": "p-plain", "limit": 3, "before": 9, "since": 1.8e9}),
    "/api/keys": _one({}),
    "/api/key_create": _one(
        {"name": "ann", "role": "viewer", "models": ["m*"], "endpoints": ["chat"], "expires": "1h", "budget_usd": 1.5}
    ),
    "/api/key_rotate": _one({"name": "ann", "grace": "1h"}),
    "/api/history": _one({"calls": [], "said": [], "tenant": "", "workspace": "", "dry": True}),
    "/api/route": _one({"prompt": "Why?", "objective": "best", "quality_floor": 95.0}),
    "/api/clusters": _one({"tenant": "default", "workspace": "default"}),
    "/api/warm_start": _one({"prompts": 3}),
    "/api/graders": _one({}),
    "/api/grade": _one(
        {"graders": ["exact"], "limit": 3, "dry": True, "answers": [{"question": "2+2?", "expected": 4}]}
    ),
    "/api/agreement": _one({"graders": ["exact"]}),
    "/api/reload": _one({}),
    "/api/key_revoke": _one({"name": "ann"}),
    "/api/doctor": _one({"replay": False}),
}
"""Path -> a valid body of it."""
FORMS: Final = (
    *("/v1/audio/transcriptions", "/v1/audio/translations", "/v1/images/edits", "/v1/files"),
    "/v1/messages/count_tokens",
)
WEIGHT: Final = {"/v1/chat/completions": 6, "/v1/responses": 6, "/v1/messages": 6, "/v1/embeddings": 2}


# --- mutations of a value

ODD: Final[tuple[Any, ...]] = (
    *(None, True, False, 0, -1, 1, 2**31, 2**63, 2**64, -(2**63) - 1, 10**400, 0.5, -0.0, 1e308, 5e-324, "", " ", "0"),
    *([], {}, [[]], [None], {"": None}, [{}], "\x00", "a\x00b", "\ud800", "\udfff\ud800", "\u202e", "\ufeff", "ﷺ" * 50),
    *("true", "null", "-1", "1e999", "../../etc/passwd", "http://169.254.169.254/", "<script>", "%00", "\r\nx: y"),
    *("text", "image_url", "tool", "user", "system", "assistant", "function", "input_text", "tool_result", "auto"),
)
KEYS: Final = ("", "\x00", "__proto__", "model", "stream", "messages", "type", "role", "content", "x" * 5_000, "ключ")


class Deep(NamedTuple):
    """Stands for so many levels; written by hand, because `json` itself gives up on them."""

    opening: str
    closing: str


DEEPS: Final = (
    Deep("[", "]"),
    Deep('{"a":', "}"),
    Deep('[{"content":[', "]}]"),
    Deep('{"type":"object","items":', "}"),
)
LITERALS: Final = ("NaN", "Infinity", "-Infinity", "1e999", "-1e999", "01", "0x1", "1" * 5_000, "1." + "0" * 5_000, "-")
LITERALS += ("nul", "'a'", "\\", '"\\ud800"', '"\\udc00\\ud800"', '"\\u00"', '"\\x41"', '"\t"', "[1,]", "/**/1", "")


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    """(container, key) of everything in a value."""
    keys: Any = list(value) if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    for key in keys:
        yield value, key
        yield from _places(value[key])


def _mutated(rng: random.Random, body: dict[str, Any], marks: dict[str, str]) -> str:
    """Change one thing of `body`; tells what. marks: text that stands for a literal -> the literal."""
    places = list(_places(body))
    if not places:
        body["model"] = rng.choice(ODD)
        return "odd model"
    # The top level is what we read ourselves: as likely as all that lies deeper.
    into, key = (
        rng.choice([place for place in places if place[0] is body]) if rng.random() < 0.5 else rng.choice(places)
    )
    match rng.randrange(8):
        case 0 | 1:
            into[key] = rng.choice(ODD)
            return f"{key}: odd value"
        case 2:
            del into[key]
            return f"{key}: gone"
        case 3:
            deep = rng.choice(DEEPS)
            into[key] = _mark(marks, deep.opening * DEEP + "1" + deep.closing * rng.choice((0, DEEP)))
            return f"{key}: {DEEP} levels of {deep.opening}"
        case 4:
            into[key] = _mark(marks, rng.choice(LITERALS))
            return f"{key}: odd literal"
        case 5:
            into[key] = rng.choice((["x"] * 20_000, "é" * 50_000, [into[key]] * 30, {"a": into[key]}))
            return f"{key}: large"
        case 6 if isinstance(into, dict):
            into[rng.choice(KEYS)] = rng.choice((into[key], rng.choice(ODD)))
            return f"{key}: one more key"
        case _:
            other, at = rng.choice(places)
            into[key] = json.loads(json.dumps(other[at])) if at in other or isinstance(other, list) else None
            return f"{key}: another's value"


def _mark(marks: dict[str, str], literal: str) -> str:
    name = f"@mark{len(marks)}@"
    marks[name] = literal
    return name


def _written(rng: random.Random, body: dict[str, Any], marks: dict[str, str]) -> bytes:
    text = json.dumps(body, ensure_ascii=rng.random() < 0.5)
    for name, literal in marks.items():
        text = text.replace(f'"{name}"', literal)
    if rng.random() < 0.1:  # a field twice, and which one counts is anybody's guess
        key = rng.choice(list(body) or ["model"])
        text = f"{text[:-1].rstrip()}{',' if body else ''}{json.dumps(key)}:{json.dumps(rng.choice(ODD))}" + "}"
    return text.encode(errors="surrogatepass")


# --- mutations of bytes

NO_UTF8: Final = (b"\xff", b"\xc3", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xc0\x80")


def _broken(rng: random.Random, data: bytes) -> tuple[bytes, str]:
    at = rng.randrange(len(data) + 1)
    match rng.randrange(10):
        case 0:
            return data[:at], "cut"
        case 1:
            return data[:at] + b"\x00" * rng.choice((1, 100)) + data[at:], "NUL"
        case 2:
            return data[:at] + rng.choice(
                (b"\xff", b"\xc3", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xc0\x80")
            ), "UTF-8"
        case 3:
            return data[:at] + bytes([rng.randrange(256)]) + data[at + 1 :], "a byte"
        case 4:
            return data.decode(errors="replace").encode(rng.choice(("utf-16", "utf-32", "utf-8-sig"))), "encoding"
        case 5:
            return data + rng.choice((data, b"x", b"]", b"}", b"\n" * 1_000)), "more at the end"
        case 6:
            return rng.randbytes(rng.choice((1, 10, 1_000))), "noise"
        case 7:
            return rng.choice((b"", b" ", b"null", b"[]", b"1", b'"', b"{", b"[" * DEEP, b'{"a":' * DEEP)), "no object"
        case 8:
            return data[at:] + data[:at], "turned"
        case _:
            return b" " * rng.choice((1, 100_000)) + data, "room before"


FILENAMES: Final = ("a.wav", "../a", "a\x00b", "a" * 3_000)


def _form(rng: random.Random, body: dict[str, Any]) -> bytes:
    parts = []
    for name, value in body.items():
        named = rng.choice(FILENAMES)
        about = f'; filename="{named}"' if name in ("file", "image") else ""
        said = value if isinstance(value, str) else json.dumps(value)
        head = f'--capstan\r\nContent-Disposition: form-data; name="{name}"{about}\r\n\r\n'
        parts.append((head + said + "\r\n").encode(errors="surrogatepass"))
    return b"".join(parts) + rng.choice((b"--capstan--\r\n", b"--capstan--", b"", b"--capstan\r\n" * 500))


TYPES: Final = (
    *("", "text/plain", "application/json; charset=utf-16", "APPLICATION/JSON", "application/jsonp", "a" * 5_000),
    *("multipart/form-data", "multipart/form-data; boundary=", 'multipart/form-data; boundary="\xe9"', FORM_TYPE),
    *("application/x-www-form-urlencoded", "application/octet-stream", "\xff/\xfe", "application/json, text/html"),
)
HEADERS: Final = (
    *(("x-windlass-parent", "call_1\x0b"), ("x-windlass-parent", "p" * 9_000), ("x-windlass-workspace", "\xe9" * 99)),
    *(("idempotency-key", "k" * 9_000), ("idempotency-key", "\xff"), ("x-windlass-token", "\xff"), ("accept", "\xe9")),
    *(("content-length", "-1"), ("expect", "100-continue"), ("traceparent", "00-zz-1-01"), ("x-api-key", "\xff" * 500)),
)


def _split(rng: random.Random, data: bytes) -> Sequence[bytes]:
    """As it arrives: whole, byte by byte (characters are cut in two), or in any other way."""
    if len(data) < 500 and rng.random() < 0.1:
        return [data[at : at + 1] for at in range(len(data))]
    cuts = sorted(rng.randrange(len(data) + 1) for _ in range(rng.choice((0, 0, 0, 1, 3))))
    return [data[start:end] for start, end in zip([0, *cuts], [*cuts, len(data)], strict=True)]


def cases(count: int, seed: int) -> Iterator[Case]:
    """So many hostile requests."""
    rng = random.Random(seed)
    paths = [path for path in BODIES for _ in range(WEIGHT.get(path, 1))]
    for _ in range(count):
        yield _case(rng, rng.choice(paths))


def _case(rng: random.Random, path: str) -> Case:
    if rng.random() < 0.002:
        return Case(
            path, {"content-type": rng.choice((JSON_TYPE, FORM_TYPE))}, [_BLOCK] * (LARGE // len(_BLOCK)), ("50 MB",)
        )
    body, marks, why = BODIES[path](rng), dict[str, str](), list[str]()
    if "model" in body:
        body["model"] = rng.choice(MODELS)
    for _ in range(rng.choice((0, 0, 0, 1, 1, 1, 2, 4))):
        why.append(_mutated(rng, body, marks))
    as_form = path in FORMS and rng.random() < 0.7
    data = _form(rng, body) if as_form else _written(rng, body, marks)
    if rng.random() < 0.25:
        data, broken = _broken(rng, data)
        why.append(broken)
    headers = {"content-type": FORM_TYPE if as_form else JSON_TYPE}
    if rng.random() < 0.1:
        headers["content-type"] = rng.choice(TYPES)
    if rng.random() < 0.05:
        name, value = rng.choice(HEADERS)
        headers[name] = value
    if rng.random() < 0.03:
        path += rng.choice(
            ("/", "//", "/..", "/%2e%2e", "/\x00", "?x=1", "?beta=true", "/" + rng.choice(string.printable))
        )
    return Case(path, headers, _split(rng, data), tuple(why))
