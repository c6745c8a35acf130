"""Endpoints whose requests go up as they came: sound, pictures, moderations, and whatever else a provider offers.

Of such a request only `model` is read, from JSON or from a form, and replaced where the provider has another name for
it. Sources: OpenAI API reference; RFC 7578 (multipart/form-data).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any, ClassVar, Final, Literal

import msgspec

from windlass.errors import RequestError
from windlass.gateway.money.usage import Usage
from windlass.gateway.opening import Wants
from windlass.gateway.provider import JSON, ProviderReply
from windlass.gateway.wire import ReplyTally, Tally, count, decoded, named_user, renamed, text_of

RELAYED: Final[Mapping[str, str]] = MappingProxyType(
    {
        "/completions": "completions",
        "/moderations": "moderations",
        "/images/generations": "images.generations",
        "/images/edits": "images.edits",
        "/images/variations": "images.variations",
        "/audio/transcriptions": "audio.transcriptions",
        "/audio/translations": "audio.translations",
        "/audio/speech": "audio.speech",
        "/responses/compact": "responses.compact",
        "/responses/input_tokens": "responses.input_tokens",
        "/messages/count_tokens": "messages.count_tokens",
    }
)
"""Path below the base URL -> the name under which calls are recorded. All are POSTed, and most name a model."""
FOREIGN: Final[Mapping[str, Literal["responses", "messages"]]] = MappingProxyType(
    {"responses": "responses", "messages": "messages"}
)
"""Endpoints of other dialects than chat, which are translated where the provider does not speak them."""
COUNT_TOKENS: Final = "/messages/count_tokens"
RESPONSES: Final = "/responses"
_WHOLE = ("/moderations", "/responses/compact", "/responses/input_tokens", COUNT_TOKENS)
"""What never streams, whatever a body says that was written for another endpoint."""
FORM: Final = "multipart/form-data"
_JSON = ("/completions", "/moderations", RESPONSES, "/responses/compact", "/responses/input_tokens", COUNT_TOKENS)
_PATH = re.compile(r"(/[A-Za-z0-9_\-.:~]+)+")
_NAME = re.compile(rb'\bname="([^"\r\n]*)"')
_BOUNDARY = re.compile(r'boundary="?([^";,\s]{1,70})"?')
_FORM_FIELDS = (b"model", b"user", b"stream", b"prompt")
_HEAD_BYTES = 8_192


class Raw(msgspec.Struct, frozen=True):
    """A request that goes up as it came. `model` is '' where it names none.

    place: where the model's name stands in a form, as (from, to).
    """

    raw: bytes
    method: str
    path: str
    content_type: str
    model: str = ""
    stream: bool = False
    user: str = ""
    said: tuple[str, ...] = ()
    fields: dict[str, msgspec.Raw] | None = None
    place: tuple[int, int] | None = None
    tokens: ClassVar[int] = 0
    most_tokens: ClassVar[int | None] = None
    choices: ClassVar[int] = 1

    @property
    def wants(self) -> Wants:
        """The form that the reply must have; of files and sound it is not known beforehand."""
        if self.path.partition("?")[0] not in _JSON and not self.path.startswith("/images/"):
            return "any"
        return "either" if self.stream else "json"

    @property
    def counts(self) -> bool:
        """Whether it asks how many tokens a message has, whatever stands in its query (`?beta=true`)."""
        return self.path.partition("?")[0] == COUNT_TOKENS

    @property
    def repeatable(self) -> bool:
        """Whether asking twice does no more than asking once: a file or a batch would be there twice."""
        return bool(self.model) or self.method == "GET"

    @property
    def unnamed(self) -> bool:
        """Whether the provider chooses the model of what it is asked to do. What it has stored was paid before."""
        plain = self.path.partition("?")[0]
        return not self.model and self.method == "POST" and (plain in RELAYED or "/" not in plain[1:])

    def with_model(self, name: str) -> bytes:
        """The request for the model `name`; the very bytes that came where it names it already, or none."""
        if name == self.model or not self.model:
            return self.raw
        if self.fields is not None:
            return renamed(self.fields, name)
        assert self.place is not None, "a model was read from a place"
        start, end = self.place
        return self.raw[:start] + name.encode() + self.raw[end:]

    def tally(self, *, stream: bool) -> ReplyTally:
        """What reads along with the reply."""
        if self.path == RESPONSES and self.method == "POST":
            from windlass.gateway.dialects import tally  # brings all dialects, for a request that names no model

            return tally("responses", stream=stream)
        return RawTally(stream=stream, ends=self.path == "/completions")


def family(path: str) -> str:
    """The name under which calls of an endpoint are recorded that has none of its own: the first part of its path.

    What is stored of chats and of responses has one apart from theirs: who may ask a model may not read it for that.
    """
    name = path.split("/")[1][:40]
    return f"{name}.stored" if name in ("chat", "embeddings", *FOREIGN) else name


def whole_json(reply: ProviderReply) -> bool:
    """Is it an answer that comes in one piece, and not as events?"""
    return reply.status < 300 and reply.content_type.partition(";")[0].strip().lower() == JSON


def checked_path(path: str) -> str:
    """`path`, below the base URL, where it can lead nowhere else. RequestError (404) otherwise."""
    if not _PATH.fullmatch(path) or any(part in (".", "..") for part in path.split("/")):
        raise RequestError(f"{path[:200]!r} is no path of the API", status=404, code="not_found")
    return path


def read_raw(body: bytes, method: str, path: str, content_type: str) -> Raw:
    """Read a request that goes up as it is. RequestError (400) says which field is at fault."""
    if not body:
        return Raw(body, method, path, content_type)
    plain = path.partition("?")[0]
    counts = plain == COUNT_TOKENS
    if not counts and content_type.lower().startswith(FORM):
        return _form(body, method, path, content_type)
    if not counts and content_type and not content_type.lower().startswith(JSON):
        return Raw(body, method, path, content_type)
    fields, head = decoded(body, _RawHead, path.strip("/").replace("/", " "))
    said = tuple(_texts(head.input)) + tuple(_texts(head.prompt))
    return Raw(
        raw=body,
        method=method,
        path=path,
        content_type=JSON,
        model=head.model or "",
        stream=bool(head.stream) and plain not in _WHOLE,
        user=named_user(head.user),
        said=said,
        fields=fields,
    )


class _RawHead(msgspec.Struct):
    model: str | None = None
    stream: bool | None = False
    user: str | None = ""
    input: Any = None
    prompt: Any = None


def _texts(value: Any) -> Iterator[str]:
    """Every text in an input of whatever form."""
    match value:
        case str():
            yield value
        case list():
            for one in value:
                yield one if isinstance(one, str) else text_of([one])


def _form(body: bytes, method: str, path: str, content_type: str) -> Raw:
    found = _BOUNDARY.search(content_type)
    if found is None:
        raise RequestError("the form names no boundary; see RFC 7578, section 4.1", param="content-type")
    values: dict[bytes, tuple[int, int]] = {}
    for name, start, end in _parts(body, b"--" + found[1].encode()):
        if name in _FORM_FIELDS:
            values.setdefault(name, (start, end))

    def text(name: bytes) -> str:
        start, end = values.get(name, (0, 0))
        try:
            return body[start:end].decode()
        except UnicodeDecodeError as exc:
            raise RequestError(f"{name.decode()} is not UTF-8: {exc}", param=name.decode()) from exc

    return Raw(
        raw=body,
        method=method,
        path=path,
        content_type=content_type,
        model=text(b"model"),
        stream=text(b"stream").strip().lower() == "true",
        user=named_user(text(b"user")),
        said=(text(b"prompt"),) if b"prompt" in values else (),
        place=values.get(b"model"),
    )


def _parts(body: bytes, delimiter: bytes) -> Iterator[tuple[bytes, int, int]]:
    """(name, from, to) of every part of a form that has a name."""
    start = body.find(delimiter)
    while start >= 0:
        start += len(delimiter)
        end = body.find(b"\r\n" + delimiter, start)
        head_end = body.find(b"\r\n\r\n", start, start + _HEAD_BYTES)
        if end < 0:
            return
        if 0 <= head_end < end:
            name = _NAME.search(body, start, head_end)
            if name is not None:
                yield name[1], head_end + 4, end
        start = end + 2


class _Tokens(msgspec.Struct):
    input_tokens: Any = None
    prompt_tokens: Any = None
    output_tokens: Any = None
    completion_tokens: Any = None
    seconds: Any = None


class _RawPart(msgspec.Struct):
    id: Any = None
    object: Any = None
    usage: Any = None
    error: Any = None
    model: Any = None
    duration: Any = None
    data: Any = None
    type: str | None = None


def _name(said: Any, before: str) -> str:
    return said if isinstance(said, str) else before


class RawTally(Tally):
    """Reads along with a reply of unknown form: its usage where it is JSON and tells it, and whether it broke off.

    ends: a stream of this endpoint ends with `[DONE]`; the others just end.
    """

    def __init__(self, *, stream: bool, ends: bool):
        super().__init__(stream=stream)
        self._ends = ends
        self._any = False
        self.usage = Usage(completion_tokens=0)

    @property
    def complete(self) -> bool:
        """Whether all of it came, as far as its form can tell."""
        return self._any and not self.error and (not self.stream or not self._ends or self.done)

    def feed(self, chunk: bytes) -> None:
        self._any = True
        super().feed(chunk)

    def _read(self, data: bytes) -> None:
        if not data.startswith(b"{"):
            return
        part = self._part(data, _RawPart)
        if part is None:
            return
        if part.error is not None and not self.stream and (part.id is not None or part.object is not None):
            # Of a thing that is kept (a job, a response) it says how that went, not how the question for it did.
            self.error, self.code = False, ""
        self.model = _name(part.model, self.model)
        images = len(part.data) if isinstance(part.data, list) and self._pictures(part.data) else self.usage.images
        if isinstance(part.duration, float | int) and not isinstance(part.duration, bool) and part.duration >= 0:
            self.usage = msgspec.structs.replace(self.usage, audio_s=float(part.duration))
        self.usage = msgspec.structs.replace(self.usage, images=images)

    def _used(self, usage: Any) -> None:
        try:
            tokens = msgspec.convert(usage, _Tokens)
        except msgspec.ValidationError:
            return
        seconds = tokens.seconds
        heard = float(seconds) if type(seconds) in (int, float) and seconds >= 0 else 0.0
        self.usage = Usage(
            prompt_tokens=count(tokens.input_tokens if tokens.input_tokens is not None else tokens.prompt_tokens),
            completion_tokens=count(
                tokens.output_tokens if tokens.output_tokens is not None else tokens.completion_tokens
            )
            or 0,
            audio_s=heard,
        )

    @staticmethod
    def _pictures(data: list[Any]) -> bool:
        return all(isinstance(one, dict) and ("url" in one or "b64_json" in one) for one in data)
