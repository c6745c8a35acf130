"""What a call used up, in the provider's own count, brought to one form over all dialects."""

from __future__ import annotations

import msgspec


class Usage(msgspec.Struct, frozen=True, kw_only=True):
    """Tokens, images and seconds of one call; a token count of None was not said.

    prompt_tokens: all that went in, with what the provider's cache held or took up (Anthropic counts those apart).
    completion_tokens: all that came out, the reasoning among it. The other counts are shares of these two.
    images: pictures that were made. audio_s: seconds of sound that were transcribed or made, where that is the measure.
    """

    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    cache_read_tokens: int = 0
    cache_write_tokens: int = 0
    reasoning_tokens: int = 0
    audio_prompt_tokens: int = 0
    audio_completion_tokens: int = 0
    images: int = 0
    audio_s: float = 0.0
