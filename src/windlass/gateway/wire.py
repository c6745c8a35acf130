"""OpenAI's dialect, read only as far as needed. What we do not understand stays as the bytes that came.

Top-level fields are kept as raw JSON; only `model` is ever replaced. Source: OpenAI API reference, "Chat completions"
and "Embeddings".
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, ClassVar, Literal, Protocol, TypeVar

import msgspec
from msgspec import Meta

from windlass.errors import RequestError
from windlass.gateway.money.usage import Usage

DONE = b"[DONE]"
MOST_TOKENS = 2**40
MOST_CHOICES = 128
MOST_INPUTS = 2048
"""Texts of one embeddings request (OpenAI API reference, "Create embeddings")."""
_ESCAPED = re.compile(rb"\\u00[67]")
T = TypeVar("T")


def text_of(content: Any) -> str:
    """The text of a message's content, parts joined by line breaks; anything else counts as no text."""
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        return ""
    texts = (part.get("text") for part in content if isinstance(part, dict))
    return "\n".join(text for text in texts if isinstance(text, str))


class Message(msgspec.Struct, frozen=True):
    """One chat message; `content` may be text, a list of parts, or absent."""

    role: str
    content: Any = None

    @property
    def text(self) -> str:
        """All text of the message."""
        return text_of(self.content)


class Chat(msgspec.Struct, frozen=True):
    """A chat request: what routing and accounting need, and the raw fields for the way on.

    most_tokens: as many may come out, of each of `choices`; None where the request leaves it open.
    """

    raw: bytes
    fields: dict[str, msgspec.Raw]
    model: str
    stream: bool
    user: str
    messages: tuple[Message, ...]
    most_tokens: int | None = None
    choices: int = 1
    tokens: ClassVar[int] = 0

    @property
    def said(self) -> Iterator[str]:
        """Every text that goes in."""
        return (message.text for message in self.messages)

    @property
    def wants_usage(self) -> bool:
        """Whether a stream shall end with the provider's count."""
        options = self.fields.get("stream_options")
        if options is None:
            return False
        try:
            return msgspec.json.decode(options, type=_StreamOptions).include_usage is True
        except msgspec.MsgspecError:
            return True  # nonsense goes up as it is, for the provider to refuse

    def with_model(self, name: str) -> bytes:
        """The request for the model `name`; the very bytes that came where it names it already."""
        return self.raw if name == self.model and _once(self.raw) else renamed(self.fields, name)

    def with_usage(self, name: str) -> bytes:
        """The request for the model `name` that asks for the provider's count at the end of the stream as well."""
        options = msgspec.json.decode(self.fields.get("stream_options", b"{}")) or {}
        asked = msgspec.Raw(msgspec.json.encode({**options, "include_usage": True}))
        return renamed({**self.fields, "stream_options": asked}, name)

    def tally(self, *, stream: bool) -> Tally:
        """What reads along with the reply."""
        return Tally(stream=stream)


class _Head(msgspec.Struct):
    model: str
    messages: tuple[Message, ...]
    stream: bool | None = False
    user: str | None = ""
    max_tokens: Any = None
    max_completion_tokens: Any = None
    n: Any = None


class _StreamOptions(msgspec.Struct):
    include_usage: Any = None


class EmbeddingInput(msgspec.Struct, frozen=True):
    """An embeddings request: what to embed, in which form, and the raw fields for the way on.

    texts: what the input names as text; None where it is token numbers, which only the model itself can read.
    count: how many vectors are asked for. tokens: how many token numbers came.
    """

    raw: bytes
    fields: dict[str, msgspec.Raw]
    model: str
    user: str
    texts: tuple[str, ...] | None
    count: int
    tokens: int
    base64: bool
    dimensions: int | None
    stream: ClassVar[bool] = False
    most_tokens: ClassVar[int] = 0
    choices: ClassVar[int] = 1

    @property
    def said(self) -> tuple[str, ...]:
        """Every text that goes in."""
        return self.texts or ()

    def with_model(self, name: str) -> bytes:
        """The request for the model `name`; the very bytes that came where it names it already."""
        return self.raw if name == self.model and _once(self.raw) else renamed(self.fields, name)

    def tally(self, *, stream: bool) -> Tally:
        """What reads along with the reply."""
        assert not stream, "vectors come whole"
        return EmbeddingTally(self.count)


class _EmbeddingHead(msgspec.Struct):
    model: str
    input: str | list[str | int | list[int]]
    encoding_format: Literal["float", "base64"] | None = "float"
    dimensions: Annotated[int, Meta(ge=1)] | None = None
    user: str | None = ""


def parse_chat(body: bytes) -> Chat:
    """Read a chat request. RequestError (400) says which field is at fault."""
    fields, head = decoded(body, _Head, "chat completions")
    user = named_user(head.user)
    if not head.messages:
        raise RequestError("messages is empty; send at least one message", param="messages")
    most = count(head.max_completion_tokens) or count(head.max_tokens)
    choices = min(count(head.n) or 1, MOST_CHOICES)
    return Chat(body, fields, head.model, bool(head.stream), user, head.messages, most, choices)


def parse_embedding(body: bytes) -> EmbeddingInput:
    """Read an embeddings request. RequestError (400) says which field is at fault."""
    fields, head = decoded(body, _EmbeddingHead, "embeddings")
    given: list[str | int | list[int]] = [head.input] if isinstance(head.input, str) else head.input
    texts = tuple(one for one in given if isinstance(one, str))
    return EmbeddingInput(
        raw=body,
        fields=fields,
        model=head.model,
        user=named_user(head.user),
        texts=texts or None,
        count=_inputs(given),
        tokens=sum(len(one) if isinstance(one, list) else isinstance(one, int) for one in given),
        base64=head.encoding_format == "base64",
        dimensions=head.dimensions,
    )


def _inputs(given: list[str | int | list[int]]) -> int:
    """How many inputs there are. RequestError (400) for none, too many, or several kinds of them."""
    kinds = {type(one) for one in given}
    if len(kinds) > 1:
        raise RequestError("input mixes texts and tokens; send one kind", param="input")
    count = 1 if kinds == {int} else len(given)
    if not 0 < count <= MOST_INPUTS or [] in given:
        has = "is empty" if count <= MOST_INPUTS else f"has {count} texts"
        raise RequestError(f"input {has}; send 1 to {MOST_INPUTS} texts, none of them empty", param="input")
    return count


def _once(raw: bytes) -> bool:
    """Whether the model is named once, as far as can be told at a glance; else the upstream might read the other."""
    return raw.count(b'"model"') == 1 and not _ESCAPED.search(raw)


def renamed(fields: Mapping[str, msgspec.Raw], model: str) -> bytes:
    """The request of these fields for another model."""
    parts = (
        msgspec.json.encode(key) + b":" + (msgspec.json.encode(model) if key == "model" else bytes(value))
        for key, value in fields.items()
    )
    return b"{" + b",".join(parts) + b"}"


def decoded(body: bytes, kind: type[T], reference: str) -> tuple[dict[str, msgspec.Raw], T]:
    """The raw fields of a request, and what is read of it. RequestError (400) where it does not hold."""
    try:
        body.decode()  # fields that go up unread must be text as well
        return msgspec.json.decode(body, type=dict[str, msgspec.Raw]), msgspec.json.decode(body, type=kind)
    except msgspec.ValidationError as exc:
        raise RequestError(f"{exc}; see the {reference} reference", param=_param(str(exc))) from exc
    except (msgspec.DecodeError, UnicodeDecodeError) as exc:
        raise RequestError(f"the body is not JSON: {exc}", code="invalid_json") from exc
    except RecursionError as exc:
        raise RequestError("the body is nested too deeply; flatten it", code="invalid_json") from exc


def named_user(user: str | None) -> str:
    """The user that a request names. RequestError for what no database takes."""
    if "\x00" in (user or ""):
        raise RequestError("user holds a NUL character; remove it", param="user")
    return user or ""


def _param(message: str) -> str | None:
    """The field that msgspec names: `$.messages[0].role`, or `missing required field `model``."""
    _, _, path = message.rpartition("$.")
    if path and path != message:
        return path.rstrip("`").split(".")[0].split("[")[0]
    _, _, missing = message.partition("required field `")
    return missing.rstrip("`") or None


class _In(msgspec.Struct):
    cached_tokens: Any = None
    cache_write_tokens: Any = None
    audio_tokens: Any = None


class _Out(msgspec.Struct):
    reasoning_tokens: Any = None
    audio_tokens: Any = None


class _Usage(msgspec.Struct):
    prompt_tokens: Any = None
    completion_tokens: Any = None
    prompt_tokens_details: _In | None = None
    completion_tokens_details: _Out | None = None


class _Piece(msgspec.Struct):
    content: Any = None


class _ChoicePart(msgspec.Struct):
    delta: _Piece | None = None
    message: _Piece | None = None
    finish_reason: str | None = None


class _Any(Protocol):
    """What every part of a reply may hold."""

    usage: Any
    error: Any


class _Part(msgspec.Struct, kw_only=True):
    usage: Any = None
    error: Any = None
    choices: list[_ChoicePart] | None = None


class _EmbeddingPart(msgspec.Struct, kw_only=True):
    usage: Any = None
    error: Any = None
    data: list[msgspec.Raw] | None = None


P = TypeVar("P", bound=_Any)
_COUNTS = ("prompt_tokens", "completion_tokens")
MOST_REASONS = 16
"""Of so many choices it is noted why they ended."""


class ReplyTally(Protocol):
    """What a reply says of itself as it passes."""

    @property
    def stream(self) -> bool:
        """Whether it reads a stream of events."""
        ...

    @property
    def usage(self) -> Usage:
        """The provider's own count, as far as it came."""
        ...

    @property
    def text(self) -> str:
        """What was written, for an estimate where no usage came."""
        ...

    @property
    def complete(self) -> bool:
        """Is it whole, and free of errors?"""
        ...

    @property
    def done(self) -> bool:
        """Has a stream's own end mark come? Nothing need be waited for after it."""
        ...

    @property
    def error(self) -> bool: ...

    @property
    def code(self) -> str:
        """The provider's name for the error, '' where it gives none."""
        ...

    @property
    def model(self) -> str:
        """Who wrote it, by the provider's name, where a request may leave that open; '' if it is not said."""
        ...

    @property
    def finish(self) -> tuple[str, ...]:
        """Why each choice ended (`stop`, `length`, ...), in the order in which they did, as far as it came."""
        ...

    @property
    def malformed(self) -> int:
        """Parts that could not be read."""
        ...

    def feed(self, chunk: bytes) -> None: ...

    def end(self) -> None: ...


class Tally:
    """Reads along with a reply, stream or not: its text, its usage, and whether it ended as it should."""

    def __init__(self, *, stream: bool):
        self.stream = stream
        self.usage = Usage()
        self.malformed = 0
        self.error = False
        self.code = ""
        self.model = ""
        self.finish: tuple[str, ...] = ()
        self._chose = False
        self._done = False
        self._finished = False
        self._texts: list[str] = []
        self._rest: list[bytes] = []

    @property
    def text(self) -> str:
        return "".join(self._texts)

    @property
    def done(self) -> bool:
        """Has `[DONE]` come, be it without its line break yet?"""
        waiting = b"".join(self._rest) if sum(map(len, self._rest)) < 64 else b""
        return self._done or waiting.strip().replace(b" ", b"") == b"data:" + DONE

    @property
    def complete(self) -> bool:
        """A stream is complete with `[DONE]` or a finish reason; a plain reply once its choices came."""
        return (self._done or self._finished if self.stream else self._chose) and not self.error

    def feed(self, chunk: bytes) -> None:
        """Take the next bytes; event borders may fall anywhere."""
        if not self.stream or b"\n" not in chunk:
            self._rest.append(chunk)
            return
        *lines, rest = b"".join((*self._rest, chunk)).split(b"\n")
        self._rest = [rest]
        for line in lines:
            self._line(line.strip())

    def end(self) -> None:
        """No more bytes will come."""
        rest, self._rest = b"".join(self._rest).strip(), []
        if self.stream:
            self._line(rest)
        elif rest:
            self._read(rest)

    def _line(self, line: bytes) -> None:
        if not line.startswith(b"data:"):
            return
        data = line[5:].strip()
        if data == DONE:
            self._done = True
        else:
            self._read(data)

    def _read(self, data: bytes) -> None:
        part = self._part(data, _Part)
        if part is None:
            return
        self._chose = self._chose or part.choices is not None
        for choice in part.choices or ():
            self._choice(choice)

    def _part(self, data: bytes, kind: type[P]) -> P | None:
        """One part of a reply, its error and usage noted; None, and counted, where it cannot be read."""
        try:
            part = msgspec.json.decode(data, type=kind)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            self.malformed += 1
            return None
        if part.error is not None:
            self.error, self.code = True, _code(part.error)
        if part.usage is not None:
            self._used(part.usage)
        return part

    def _used(self, usage: Any) -> None:
        """Take the provider's count; details that make no sense count as not said."""
        try:
            said = msgspec.convert(usage, _Usage)
        except msgspec.ValidationError:
            said = _Usage(**{name: usage.get(name) for name in _COUNTS}) if isinstance(usage, dict) else _Usage()
        into, out = said.prompt_tokens_details or _In(), said.completion_tokens_details or _Out()
        self.usage = Usage(
            prompt_tokens=count(said.prompt_tokens),
            completion_tokens=count(said.completion_tokens),
            cache_read_tokens=count(into.cached_tokens) or 0,
            cache_write_tokens=count(into.cache_write_tokens) or 0,
            audio_prompt_tokens=count(into.audio_tokens) or 0,
            reasoning_tokens=count(out.reasoning_tokens) or 0,
            audio_completion_tokens=count(out.audio_tokens) or 0,
        )

    def _choice(self, choice: _ChoicePart) -> None:
        piece = choice.delta or choice.message
        if piece is not None and piece.content:
            self._texts.append(text_of(piece.content))
        if choice.finish_reason is not None:
            self._finished = True
            if len(self.finish) < MOST_REASONS:
                self.finish = (*self.finish, choice.finish_reason)


class EmbeddingTally(Tally):
    """Reads an embeddings reply: its usage, and whether it holds the `count` vectors that were asked for."""

    def __init__(self, count: int):
        super().__init__(stream=False)
        self._count = count

    def _read(self, data: bytes) -> None:
        part = self._part(data, _EmbeddingPart)
        if part is not None:
            self._chose = len(part.data or ()) == self._count
        self.usage = Usage(prompt_tokens=self.usage.prompt_tokens, completion_tokens=0)


def _code(error: Any) -> str:
    """The provider's own name for an error, '' where it gives none."""
    code = error.get("code") if isinstance(error, dict) else None
    return code if isinstance(code, str) else ""


def count(tokens: Any) -> int | None:
    """A number of tokens as a provider reports it, None where it makes no sense."""
    return tokens if type(tokens) is int and 0 <= tokens <= MOST_TOKENS else None
