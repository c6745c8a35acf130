"""The form in which the dialects meet: chat completions in plain types, wide enough to hold what the others add.

A reader brings a dialect's request, reply or stream into this form, a writer brings it out again; every pair of
dialects composes from one reader and one writer. Nothing here knows bytes.
"""

from __future__ import annotations

from typing import Literal, TypeAlias

import msgspec

from windlass.gateway.money.usage import Usage

Dialect: TypeAlias = Literal["chat", "responses", "messages", "gemini"]
Role: TypeAlias = Literal["system", "developer", "user", "assistant", "tool"]
Finish: TypeAlias = Literal["stop", "length", "tool_calls", "content_filter", "refusal"]
"""Chat's finish reasons, and `refusal` where a dialect tells a refusing model from a filter."""


class TextPart(msgspec.Struct, frozen=True):
    """Text. logprobs: JSON of chat's `logprobs.content` for these tokens, where they were asked for."""

    text: str
    logprobs: tuple[msgspec.Raw, ...] = ()


class RefusalPart(msgspec.Struct, frozen=True):
    """The words in which a model refused."""

    text: str


class ThinkingPart(msgspec.Struct, frozen=True):
    """Reasoning. seal: what its provider wants back untouched, as `<dialect>:<value>`; see `seals`."""

    text: str
    seal: str = ""


class ImagePart(msgspec.Struct, frozen=True):
    """A picture: either `url`, or `data` (base64) with its media type, or the provider's `file_id`."""

    url: str = ""
    media_type: str = ""
    data: str = ""
    file_id: str = ""
    detail: str = ""


class FilePart(msgspec.Struct, frozen=True):
    """A document: either `url`, or `data` (base64) with its media type, or the provider's `file_id`."""

    url: str = ""
    media_type: str = ""
    data: str = ""
    file_id: str = ""
    name: str = ""


class AudioPart(msgspec.Struct, frozen=True):
    """Sound that went in: base64, and `wav` or `mp3`."""

    data: str
    format: str


class ToolCall(msgspec.Struct, frozen=True):
    """A call of a tool. arguments: the JSON text as the model wrote it. seal: as of a ThinkingPart."""

    id: str
    name: str
    arguments: str
    seal: str = ""


class ToolResult(msgspec.Struct, frozen=True):
    """What a tool answered."""

    call_id: str
    parts: tuple[TextPart | ImagePart | FilePart, ...]
    is_error: bool = False


InputPart: TypeAlias = TextPart | RefusalPart | ThinkingPart | ImagePart | FilePart | AudioPart | ToolCall | ToolResult
OutputPart: TypeAlias = TextPart | RefusalPart | ThinkingPart | ToolCall


class ChatTurn(msgspec.Struct, frozen=True):
    """One message of a conversation. at: where it stands in the client's request, for errors (`messages[2]`)."""

    role: Role
    parts: tuple[InputPart, ...]
    at: str
    name: str = ""


class ToolDefinition(msgspec.Struct, frozen=True):
    """A tool that the client runs. schema: JSON Schema of its arguments."""

    name: str
    description: str = ""
    schema: msgspec.Raw | None = None
    strict: bool | None = None


class ToolChoice(msgspec.Struct, frozen=True):
    """Which tools the model may or must call; `allowed` narrows them, `named` is one that it must call."""

    mode: Literal["auto", "none", "required", "named"]
    name: str = ""
    allowed: tuple[str, ...] = ()


class OutputFormat(msgspec.Struct, frozen=True):
    """JSON as the form of the answer; without `schema` any JSON object."""

    schema: msgspec.Raw | None = None
    name: str = "output"
    description: str = ""
    strict: bool | None = None


class ModelRequest(msgspec.Struct, frozen=True, kw_only=True):
    """A request to a model, whichever dialect it came in.

    effort: chat's reasoning_effort. thinking_tokens: a budget for reasoning that was given as a number (0: none).
    shared: fields that chat and Responses have in common, as they came.
    """

    source: Dialect
    turns: tuple[ChatTurn, ...]
    tools: tuple[ToolDefinition, ...] = ()
    tool_choice: ToolChoice | None = None
    parallel: bool | None = None
    format: OutputFormat | None = None
    max_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    stop: tuple[str, ...] = ()
    n: int = 1
    seed: int | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    logprobs: bool = False
    top_logprobs: int | None = None
    effort: str | None = None
    thinking_tokens: int | None = None
    summary: str | None = None
    verbosity: str | None = None
    user: str = ""
    include_usage: bool = False
    shared: dict[str, msgspec.Raw] = {}


class CompletionChoice(msgspec.Struct, frozen=True):
    """One answer, its parts in the order in which they came."""

    index: int
    parts: tuple[OutputPart, ...]
    finish: Finish
    stop_sequence: str | None = None


class Completion(msgspec.Struct, frozen=True):
    """A whole reply. created_s: seconds since 1970, 0 where the provider does not say."""

    id: str
    model: str
    created_s: int
    choices: tuple[CompletionChoice, ...]
    usage: Usage


class Failure(msgspec.Struct, frozen=True):
    """An error as a provider reports it. kind: OpenAI's `type`; code: the provider's own name for it."""

    message: str
    kind: str = "upstream_error"
    code: str = ""
    param: str | None = None
    status: int = 0


class Began(msgspec.Struct, frozen=True):
    """A stream's head."""

    id: str
    model: str
    created_s: int


class TextDelta(msgspec.Struct, frozen=True):
    """More text of a choice."""

    choice: int
    text: str
    logprobs: tuple[msgspec.Raw, ...] = ()


class RefusalDelta(msgspec.Struct, frozen=True):
    """More words of a refusal."""

    choice: int
    text: str


class ThinkingDelta(msgspec.Struct, frozen=True):
    """More reasoning; a `seal` ends the part that it belongs to."""

    choice: int
    text: str = ""
    seal: str = ""


class CallBegan(msgspec.Struct, frozen=True):
    """A tool call begins. index: its number within the choice."""

    choice: int
    index: int
    id: str
    name: str
    seal: str = ""


class CallDelta(msgspec.Struct, frozen=True):
    """More of a call's arguments."""

    choice: int
    index: int
    arguments: str


class Ended(msgspec.Struct, frozen=True):
    """A choice is complete."""

    choice: int
    finish: Finish
    stop_sequence: str | None = None


class Counted(msgspec.Struct, frozen=True):
    """The usage so far; a later one replaces it."""

    usage: Usage


class Finished(msgspec.Struct, frozen=True):
    """The stream's own end mark has come: nothing follows, nothing is missing."""


class Failed(msgspec.Struct, frozen=True):
    """The provider reported an error inside the stream."""

    failure: Failure


StreamPiece: TypeAlias = (
    Began | TextDelta | RefusalDelta | ThinkingDelta | CallBegan | CallDelta | Ended | Counted | Finished | Failed
)
