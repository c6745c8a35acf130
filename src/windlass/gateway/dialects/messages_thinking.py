"""How much an Anthropic model is to think, out of the words and numbers of the other dialects.

Models before Claude 4.6, and the servers of others that speak this dialect, take a budget in tokens; from Claude 4.7 on
they refuse it and take an effort in words. Source: Anthropic's guides "Extended thinking", "Adaptive thinking" and
"Effort".
"""

from __future__ import annotations

import re
from typing import Any

from windlass.gateway.dialects import fields, hub
from windlass.gateway.dialects.fields import impossible, refused

LEAST_THINKING = 1024
"""The smallest budget that Anthropic takes, in tokens."""
FIRST_ADAPTIVE = (4, 6)
_BUDGET = {"none": 0, "minimal": 1024, "low": 2048, "medium": 8192, "high": 16384, "xhigh": 32768, "max": 49152}
# claude-opus-4-7-20260416, claude-3-7-sonnet-latest: a major version, and a minor one that is no date.
_VERSION = re.compile(r"-(\d{1,2})(?:[-.](\d{1,2}))?(?![\d])")


def is_adaptive(model: str) -> bool:
    """Does this model take an effort in words? A Claude without a version is one of the later ones."""
    _, claude, rest = model.rpartition("claude")
    found = _VERSION.search(rest)
    return bool(claude) and (found is None or (int(found[1]), int(found[2] or 0)) >= FIRST_ADAPTIVE)


def thinking(request: hub.ModelRequest, most_tokens: int, *, adaptive: bool) -> dict[str, Any]:
    """The fields of a Messages request that say how much to think, and `max_tokens` with room for it.

    most_tokens: for the answer, where the client sets no limit. RequestError where the client's limit leaves no room.
    """
    wanted = _wanted(request)
    how: dict[str, Any] = {}
    if wanted and adaptive:
        shown = {"display": "summarized"} if request.summary is not None else {}
        how = {"thinking": {"type": "adaptive", **shown}}
    elif wanted:
        wanted = _within(request, wanted)
        how = {"thinking": {"type": "enabled", "budget_tokens": wanted}}
    return {"max_tokens": most_tokens + wanted if request.max_tokens is None else request.max_tokens, **how}


def effort(request: hub.ModelRequest) -> str | None:
    """The effort in Anthropic's words, None where none was asked for."""
    return {"none": None, "minimal": "low"}.get(request.effort, request.effort) if request.effort else None


def _wanted(request: hub.ModelRequest) -> int:
    """Tokens to think with: as given, or as the effort stands for."""
    if request.effort is None:
        return request.thinking_tokens or 0
    if request.effort not in _BUDGET:
        raise impossible(request, "effort", "messages", f"send one of {', '.join(_BUDGET)}")
    return _BUDGET[request.effort]


def _within(request: hub.ModelRequest, wanted: int) -> int:
    """A budget below the client's limit, half of it where the wish is greater."""
    most = request.max_tokens
    if most is None or wanted < most:
        return wanted
    if most <= LEAST_THINKING:
        name = fields.field(request.source, "max_tokens")
        raise refused(name, f"{most} leaves no room for {LEAST_THINKING} tokens of thinking; raise it")
    return max(LEAST_THINKING, most // 2)
