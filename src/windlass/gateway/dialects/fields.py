"""What every dialect's reader and writer need: requests decoded with good errors, and refusals that name the field."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Annotated, Any, TypeVar

import msgspec
from msgspec import Meta

from windlass.errors import RequestError
from windlass.gateway.dialects import hub
from windlass.gateway.dialects.hub import Dialect, ModelRequest

T = TypeVar("T")
NULL = msgspec.Raw(b"null")
"""What a raw field holds that was left out, or null: msgspec has no `Raw | None`."""
Tokens = Annotated[int, Meta(ge=0, le=2**40)]
Answers = Annotated[int, Meta(ge=1, le=128)]

TITLE: Mapping[Dialect, str] = {
    "chat": "chat completions",
    "responses": "the Responses API",
    "messages": "Anthropic's Messages API",
    "gemini": "Gemini's generateContent",
}
# What the inner fields are called where a client wrote them; the others have the same name in all dialects.
_FIELD: Mapping[Dialect, Mapping[str, str]] = {
    "chat": {
        "turns": "messages",
        "format": "response_format",
        "effort": "reasoning_effort",
        "thinking_tokens": "reasoning_effort",
        "parallel": "parallel_tool_calls",
        "max_tokens": "max_completion_tokens",
    },
    "responses": {
        "turns": "input",
        "format": "text.format",
        "verbosity": "text.verbosity",
        "effort": "reasoning.effort",
        "thinking_tokens": "reasoning.effort",
        "summary": "reasoning.summary",
        "parallel": "parallel_tool_calls",
        "max_tokens": "max_output_tokens",
        "logprobs": "include",
        "user": "safety_identifier",
    },
    "messages": {
        "turns": "messages",
        "format": "output_config.format",
        "effort": "output_config.effort",
        "thinking_tokens": "thinking.budget_tokens",
        "summary": "thinking.display",
        "parallel": "tool_choice.disable_parallel_tool_use",
        "stop": "stop_sequences",
        "user": "metadata.user_id",
    },
    "gemini": {},
}


def decoded(body: bytes | msgspec.Raw, kind: type[T], reference: str) -> T:
    """A client's JSON as `kind`. RequestError (400) says which field does not hold."""
    try:
        bytes(body).decode()  # raw fields are passed on unread, and must not carry broken UTF-8 along
        return msgspec.json.decode(body, type=kind)
    except msgspec.ValidationError as exc:
        raise RequestError(f"{exc}; see the {reference} reference", param=param(str(exc))) from exc
    except (msgspec.DecodeError, UnicodeDecodeError) as exc:
        raise RequestError(f"the body is not JSON: {exc}", code="invalid_json") from exc
    except RecursionError as exc:
        raise RequestError("the body is nested too deeply; flatten it", code="invalid_json") from exc


def param(message: str) -> str | None:
    """The field that msgspec's message names: `- at `$.messages[0].role``, or `missing required field `model``."""
    _, found, path = message.rpartition("`$.")
    if found:
        return path.rstrip("`").split(".")[0].split("[")[0] or None
    _, _, missing = message.partition("required field `")
    return missing.rstrip("`") or None


def unknown(body: bytes, known: Iterable[str]) -> list[str]:
    """The top-level fields that a reader does not know; those that are null say nothing."""
    fields = msgspec.json.decode(body, type=dict[str, msgspec.Raw])
    names = set(known)
    return [name for name, value in fields.items() if name not in names and bytes(value).strip() != b"null"]


def field(source: Dialect, name: str) -> str:
    """What the inner field `name` is called in a client's dialect."""
    return _FIELD[source].get(name, name)


def refused(param: str, why: str) -> RequestError:
    """The error for what another dialect cannot carry; `why` says so, and what to do."""
    return RequestError(f"{param}: {why}", code="unsupported_parameter", param=param)


def impossible(request: ModelRequest, name: str, upstream: Dialect, remedy: str = "") -> RequestError:
    """The error for an inner field that the upstream's dialect has nothing for."""
    named = field(request.source, name)
    return refused(named, f"{TITLE[upstream]} has nothing like it; {remedy or 'leave it out, or call another model'}")


def user(shared: Mapping[str, msgspec.Raw]) -> str:
    """Who asks, as both OpenAI dialects say it. RequestError for a name that is no text."""
    found = ""
    for name in ("user", "safety_identifier"):
        if name in shared:
            try:
                found = msgspec.json.decode(shared[name], type=str)
            except msgspec.ValidationError as exc:
                raise RequestError(f"{name} is no text; send a string", param=name) from exc
    return found


def given(raw: msgspec.Raw) -> msgspec.Raw | None:
    """A raw field's JSON, None where it was left out or is null."""
    return None if bytes(raw).strip() == b"null" else raw


def copied(raw: msgspec.Raw) -> msgspec.Raw:
    """A provider's JSON that is passed on: checked, on one line, and no longer holding on to the body it came in."""
    return msgspec.Raw(msgspec.json.encode(msgspec.json.decode(raw)))


def compact(raw: bytes | msgspec.Raw) -> str:
    """JSON on one line without spaces; the numbers stay as they were written."""
    return msgspec.json.format(bytes(raw), indent=-1).decode()


def json_object(text: str) -> msgspec.Raw | None:
    """The text as JSON where it is one whole object ('' counts as `{}`), else None."""
    try:
        msgspec.json.decode(text.encode() or b"{}", type=dict[str, msgspec.Raw])
        return msgspec.Raw(compact(text.encode() or b"{}").encode())
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        return None


_CALLED = {hub.AudioPart: "sound", hub.FilePart: "a file", hub.ImagePart: "a picture", hub.ToolCall: "a tool call"}


def out_of_place(at: str, part: hub.InputPart, upstream: Dialect) -> RequestError:
    """The error for a part of a message that the upstream's dialect has no place for."""
    what = _CALLED.get(type(part), "this content")
    return refused(at, f"{TITLE[upstream]} has no place for {what} here; leave it out, or call another model")


def arguments(text: str, at: str) -> msgspec.Raw:
    """A call's arguments as the JSON object that they must be. RequestError names the place."""
    found = json_object(text)
    if found is None:
        raise refused(at, "is no JSON object; send the arguments as the model wrote them")
    return found


def data_url(media_type: str, data: str) -> str:
    """Base64 data as a data URL (RFC 2397)."""
    return f"data:{media_type};base64,{data}"


def split_data_url(url: str) -> tuple[str, str] | None:
    """Media type and base64 data of a data URL; None for any other URL."""
    if not url.startswith("data:"):
        return None
    head, _, data = url[5:].partition(",")
    media_type, _, encoding = head.partition(";")
    return (media_type, data) if encoding.endswith("base64") and data else None


def without_none(fields: Mapping[str, Any]) -> dict[str, Any]:
    """The fields that have a value."""
    return {name: value for name, value in fields.items() if value is not None}
