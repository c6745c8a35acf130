"""Reads a Gemini reply, whole or streamed (`alt=sse`): each event is a whole body that goes on where the last ended.

Source: Gemini API reference, "GenerateContentResponse", "Candidate", "FinishReason", "LogprobsResult", "UsageMetadata".
"""

from __future__ import annotations

from typing import Any

import msgspec

from windlass.gateway.dialects import failures, fields
from windlass.gateway.dialects.counts import count, counts, share, total
from windlass.gateway.dialects.events import ServerSent
from windlass.gateway.dialects.fields import NULL
from windlass.gateway.dialects.gemini_prompt import OWN_CALL
from windlass.gateway.dialects.hub import (
    Began,
    CallBegan,
    CallDelta,
    Counted,
    Ended,
    Failed,
    Failure,
    Finish,
    Finished,
    StreamPiece,
    TextDelta,
    ThinkingDelta,
)
from windlass.gateway.dialects.seals import seal
from windlass.gateway.money.usage import Usage

_FILTERED = (
    "SAFETY",
    "RECITATION",
    "LANGUAGE",
    "BLOCKLIST",
    "PROHIBITED_CONTENT",
    "SPII",
    "IMAGE_SAFETY",
    "IMAGE_PROHIBITED_CONTENT",
    "IMAGE_RECITATION",
)
_FINISH: dict[str, Finish] = {"STOP": "stop", "MAX_TOKENS": "length", **dict.fromkeys(_FILTERED, "content_filter")}


class GeminiCall(msgspec.Struct):
    name: str = ""
    id: str | None = None
    args: msgspec.Raw = NULL


class GeminiPart(msgspec.Struct, rename="camel"):
    text: str | None = None
    thought: bool = False
    thought_signature: str = ""
    function_call: GeminiCall | None = None


class GeminiContent(msgspec.Struct):
    parts: list[GeminiPart] | None = None


class GeminiToken(msgspec.Struct, rename="camel"):
    token: str = ""
    log_probability: float = 0.0


class GeminiTokens(msgspec.Struct):
    candidates: list[GeminiToken] | None = None


class GeminiLogprobs(msgspec.Struct, rename="camel"):
    chosen_candidates: list[GeminiToken] | None = None
    top_candidates: list[GeminiTokens] | None = None


class GeminiCandidate(msgspec.Struct, rename="camel"):
    index: int = 0
    content: GeminiContent | None = None
    finish_reason: str | None = None
    finish_message: str = ""
    logprobs_result: GeminiLogprobs | None = None


class GeminiModality(msgspec.Struct, rename="camel"):
    modality: str = ""
    token_count: Any = None


class GeminiUsage(msgspec.Struct, rename="camel"):
    prompt_token_count: Any = None
    tool_use_prompt_token_count: Any = None
    candidates_token_count: Any = None
    thoughts_token_count: Any = None
    cached_content_token_count: Any = None
    prompt_tokens_details: list[GeminiModality] | None = None
    candidates_tokens_details: list[GeminiModality] | None = None


class GeminiFeedback(msgspec.Struct, rename="camel"):
    block_reason: str | None = None


class GeminiBody(msgspec.Struct, rename="camel"):
    candidates: list[GeminiCandidate] | None = None
    usage_metadata: Any = None
    prompt_feedback: GeminiFeedback | None = None
    model_version: str = ""
    response_id: str = ""
    error: Any = None


_DECODER = msgspec.json.Decoder(GeminiBody)


def usage(given: GeminiUsage) -> Usage:
    """Gemini's count in the one form: it counts thoughts beside the candidates, and tool prompts beside the prompt."""
    prompt, candidates = count(given.prompt_token_count), count(given.candidates_token_count)
    thoughts = count(given.thoughts_token_count)
    return Usage(
        prompt_tokens=total(prompt, count(given.tool_use_prompt_token_count)),
        completion_tokens=total(candidates, thoughts),
        cache_read_tokens=share(given.cached_content_token_count),
        reasoning_tokens=thoughts or 0,
        audio_prompt_tokens=_audio(given.prompt_tokens_details),
        audio_completion_tokens=_audio(given.candidates_tokens_details),
    )


def _audio(details: list[GeminiModality] | None) -> int:
    return sum(share(one.token_count) for one in details or () if one.modality == "AUDIO")


class GeminiReply:
    """Reads one reply. A stream has no end mark: it is whole where it closes after every candidate's finish reason."""

    def __init__(self) -> None:
        self._id = ""
        self._began = False
        self._failed = False
        self._open: set[int] = set()
        self._closed: set[int] = set()
        self._calls: dict[int, int] = {}

    def whole(self, body: bytes) -> list[StreamPiece]:
        """The pieces of a whole body; none of them Finished where a candidate has no finish reason."""
        return [*self._pieces(msgspec.json.decode(body, type=GeminiBody)), *self.end()]

    def read(self, event: ServerSent) -> list[StreamPiece]:
        """The pieces of one event."""
        return self._pieces(_DECODER.decode(event.data))

    def end(self) -> list[StreamPiece]:
        """No more events."""
        return [Finished()] if self._open and self._open == self._closed and not self._failed else []

    def _pieces(self, body: GeminiBody) -> list[StreamPiece]:
        if body.error is not None:
            self._failed = True
            return [Failed(failures.gemini(body.error))]
        pieces: list[StreamPiece] = []
        if not self._began:
            self._began, self._id = True, body.response_id
            pieces.append(Began(body.response_id, body.model_version, 0))
        if body.prompt_feedback is not None and body.prompt_feedback.block_reason and not self._open:
            self._open.add(0)
            self._closed.add(0)
            pieces.append(Ended(0, "content_filter"))
        for candidate in body.candidates or ():
            self._candidate(candidate, pieces)
        if counted := counts(body.usage_metadata, GeminiUsage):
            pieces.append(Counted(usage(counted)))
        return pieces

    def _candidate(self, candidate: GeminiCandidate, pieces: list[StreamPiece]) -> None:
        at, reason = candidate.index, candidate.finish_reason
        self._open.add(at)
        for part in (candidate.content.parts if candidate.content else None) or ():
            self._part(at, part, pieces)
        if candidate.logprobs_result is not None:
            pieces.append(TextDelta(at, "", _logprobs(candidate.logprobs_result)))
        if reason is None or reason == "FINISH_REASON_UNSPECIFIED" or at in self._closed:
            return
        self._closed.add(at)
        if reason not in _FINISH:
            self._failed = True
            message = candidate.finish_message or "the model's answer cannot be used"
            pieces.append(Failed(Failure(f"{message} ({reason[:60]})", code=reason[:60].lower())))
        else:
            called = reason == "STOP" and self._calls.get(at)
            pieces.append(Ended(at, "tool_calls" if called else _FINISH[reason]))

    def _part(self, at: int, part: GeminiPart, pieces: list[StreamPiece]) -> None:
        call = part.function_call
        if call is not None:
            index = self._calls.get(at, 0)
            self._calls[at] = index + 1
            call_id = call.id or f"{OWN_CALL}{self._id}_{at}_{index}"
            pieces.append(CallBegan(at, index, call_id, call.name, seal("gemini", part.thought_signature)))
            pieces.append(CallDelta(at, index, fields.compact(call.args) if fields.given(call.args) else "{}"))
        elif part.text:
            pieces.append(ThinkingDelta(at, part.text) if part.thought else TextDelta(at, part.text))


def _logprobs(result: GeminiLogprobs) -> tuple[msgspec.Raw, ...]:
    """In chat's form, which has the bytes of each token as well."""
    tops = result.top_candidates or []
    return tuple(
        msgspec.Raw(
            msgspec.json.encode(
                _token(chosen)
                | {"top_logprobs": [_token(one) for one in (tops[at].candidates or ())] if at < len(tops) else []}
            )
        )
        for at, chosen in enumerate(result.chosen_candidates or ())
    )


def _token(one: GeminiToken) -> dict[str, Any]:
    return {"token": one.token, "logprob": one.log_probability, "bytes": list(one.token.encode())}
