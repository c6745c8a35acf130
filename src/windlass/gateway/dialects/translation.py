"""A translation between the dialect of a client and that of an upstream, out of a reader and a writer for each."""

from __future__ import annotations

from typing import Protocol

import msgspec

from windlass.errors import ErrorCategory, RequestError, UpstreamError
from windlass.gateway.dialects import (
    chat_answer,
    chat_prompt,
    chat_request,
    failures,
    gemini_prompt,
    messages_answer,
    messages_prompt,
    messages_request,
    responses_answer,
    responses_prompt,
    responses_request,
)
from windlass.gateway.dialects.events import EventLines, ServerSent
from windlass.gateway.dialects.gathering import gather
from windlass.gateway.dialects.hub import Dialect, Failed, Failure, Finished, ModelRequest, StreamPiece
from windlass.gateway.dialects.identity import Identity, echo
from windlass.gateway.dialects.messages_thinking import is_adaptive
from windlass.gateway.dialects.readers import UNREADABLE, ReplyReader, reader
from windlass.gateway.dialects.responses_stream import ResponsesStream

MAX_TOKENS = 4096
"""What Anthropic is asked for where the client sets no limit: it wants one, and every model of its takes this."""
MOST_DROPPED = 32
MOST_NAME = 64
"""Names of dropped fields, and characters of each, that a response header may have to hold."""
_READ = {"chat": chat_request.read, "responses": responses_request.read, "messages": messages_request.read}
_WHOLE = {"chat": chat_answer.whole, "responses": responses_answer.whole, "messages": messages_answer.whole}
_ERROR = {"chat": chat_answer.error, "responses": responses_answer.error, "messages": messages_answer.error}


class Translated(msgspec.Struct, frozen=True):
    """A request for the upstream. dropped: the client's fields that it does not hold, each once, fit for
    a header: `?` stands for a name that is none.

    include_usage: the client of a chat stream wants its usage; hand it on to `stream`.
    """

    body: bytes
    dropped: tuple[str, ...] = ()
    include_usage: bool = False


class StreamWriter(Protocol):
    """Writes one stream of one dialect, piece by piece."""

    def write(self, piece: StreamPiece) -> bytes: ...


class StreamTranslation:
    """A stream on its way from an upstream to a client.

    Success is only said once the upstream has said it: what is cut, or cannot be read, ends with the error event of
    the client's dialect, and nothing follows it.
    """

    def __init__(self, source: ReplyReader, writer: StreamWriter):
        self._lines = EventLines()
        self._reader = source
        self._writer = writer
        self._over = False

    def feed(self, chunk: bytes) -> bytes:
        """What the client gets for the next bytes of the upstream, which may be split anywhere."""
        return b"" if self._over else self._written(self._lines.feed(chunk))

    def end(self) -> bytes:
        """What the client gets once no more bytes will come."""
        written = b""
        if not self._over:
            written = self._last(self._lines.end())
        if not self._over:
            written += self._pieces(self._reader.end())
        if not self._over:
            category = ErrorCategory.STREAM_CUT.value
            written += self._pieces([Failed(Failure(f"the stream ended early: {category}", code=category))])
        return written

    def _last(self, events: list[ServerSent]) -> bytes:
        """An event without its line break counts where it is whole; half a one is part of the cut."""
        try:
            return b"".join(self._pieces(self._reader.read(event)) for event in events)
        except UNREADABLE:
            return b""

    def _written(self, events: list[ServerSent]) -> bytes:
        written = []
        for event in events:
            try:
                pieces = self._reader.read(event)
            except UNREADABLE as exc:
                category = ErrorCategory.CHUNK_MALFORMED.value
                pieces = [Failed(Failure(f"the stream cannot be read: {category}: {exc}", code=category))]
            written.append(self._pieces(pieces))
            if self._over:
                break
        return b"".join(written)

    def _pieces(self, pieces: list[StreamPiece]) -> bytes:
        written = []
        for piece in pieces:
            written.append(self._writer.write(piece))
            if isinstance(piece, Finished | Failed):
                self._over = True
                break
        return b"".join(written)


class Translation:
    """Between one client and one upstream of another dialect, for one call. Pure: ids and the time are handed in.

    A reply in Responses repeats what the `request` before it asked for.
    """

    def __init__(
        self, client: Dialect, upstream: Dialect, *, call: str, at_s: int, max_tokens: int, adaptive: bool | None
    ):
        self._client = client
        self._upstream = upstream
        self._call = call
        self._at_s = at_s
        self._max_tokens = max_tokens
        self._adaptive = adaptive
        self._echo: dict[str, msgspec.Raw] = {}

    def request(self, body: bytes, model: str, *, stream: bool) -> Translated:
        """The request for the upstream's `model`. RequestError (400) names the field that cannot be carried over."""
        dropped: list[str] = []
        try:
            asked = _READ[self._client](body, dropped)
            if self._client == "responses":
                self._echo = echo(body)
            written = self._prompt(asked, model, stream, dropped)
        except RecursionError as exc:  # raw fields are looked at again, from further down the stack
            raise RequestError("the body is nested too deeply; flatten it", code="invalid_json") from exc
        return Translated(written, _shown(dropped), asked.include_usage)

    def reply(self, status: int, body: bytes, model: str) -> bytes:
        """The whole reply, or error, for the client, who knows the model as `model`.

        A failure that comes with status 200 becomes an error envelope as well. UpstreamError where a reply is none.
        """
        if status >= 300:
            return _ERROR[self._client](failures.of_body(status, body))
        try:
            pieces = reader(self._upstream).whole(body)
        except UNREADABLE as exc:
            raise malformed(self._upstream, str(exc)) from exc
        completion = gather(pieces)
        if isinstance(completion, Failure):
            return _ERROR[self._client](completion)
        if not pieces or not isinstance(pieces[-1], Finished) or not completion.choices:
            raise malformed(self._upstream, "it holds no finished answer")
        return _WHOLE[self._client](completion, self._identity(model))

    def stream(self, model: str, *, include_usage: bool = False) -> StreamTranslation:
        """A stream for the client, who knows the model as `model`.

        include_usage: a chat client asked for it (`Translated.include_usage`); the other dialects always have it.
        """
        to = writer(self._client, self._identity(model), include_usage=include_usage)
        return StreamTranslation(reader(self._upstream), to)

    def _identity(self, model: str) -> Identity:
        return Identity(model, self._call, self._at_s, self._echo)

    def _prompt(self, asked: ModelRequest, model: str, stream: bool, dropped: list[str]) -> bytes:
        match self._upstream:
            case "chat":
                return chat_prompt.write(asked, model, stream=stream, dropped=dropped)
            case "responses":
                return responses_prompt.write(asked, model, stream=stream, dropped=dropped)
            case "messages":
                most, adaptive = self._max_tokens, self._adaptive
                if adaptive is None:
                    adaptive = is_adaptive(model)
                return messages_prompt.write(
                    asked, model, stream=stream, dropped=dropped, max_tokens=most, adaptive=adaptive
                )
            case "gemini":
                return gemini_prompt.write(asked, dropped=dropped)


def writer(client: Dialect, identity: Identity, *, include_usage: bool) -> StreamWriter:
    """A writer for one stream."""
    if client == "chat":
        return chat_answer.ChatAnswer(identity, include_usage=include_usage)
    if client == "messages":
        return messages_answer.MessagesAnswer(identity)
    return ResponsesStream(identity)


def translation(
    client: Dialect,
    upstream: Dialect,
    *,
    call: str = "",
    at_s: int = 0,
    max_tokens: int = MAX_TOKENS,
    adaptive: bool | None = None,
) -> Translation:
    """The translation for one call from a client of one dialect to an upstream of another.

    call: the id for a reply that comes without one. at_s: the time for a reply that comes without one, seconds since
    1970. max_tokens: what Anthropic is asked for where the client sets no limit. adaptive: an Anthropic model takes an
    effort in words instead of a budget for thinking; None goes by its name. ValueError where there is nothing to
    translate: bytes of one dialect go through untouched (`head.renamed`), and clients do not speak Gemini.
    """
    if client == upstream or client not in _READ:
        raise ValueError(f"no translation from {client!r} to {upstream!r}; see the docstring")
    return Translation(client, upstream, call=call, at_s=at_s, max_tokens=max_tokens, adaptive=adaptive)


def _shown(dropped: list[str]) -> tuple[str, ...]:
    """Each name once, fit for a header: the client made some of them up."""
    fit = (
        name if name.isascii() and name.replace("-", "_").replace(".", "_").isidentifier() else "?" for name in dropped
    )
    return tuple(dict.fromkeys(name[:MOST_NAME] for name in fit))[:MOST_DROPPED]


def malformed(upstream: Dialect, why: str) -> UpstreamError:
    """What is raised for a reply with status 200 that is none."""
    message = f"the upstream's reply is none of {upstream}: {why}"
    return UpstreamError(message, status=200, category=ErrorCategory.RESPONSE_MALFORMED)
