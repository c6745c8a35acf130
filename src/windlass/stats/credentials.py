"""Keys, tokens and private keys in a text, known by the prefixes and forms that their issuers publish."""

from __future__ import annotations

import re
from collections.abc import Iterator

from windlass.stats.personal import Span, matches

_KEY = re.compile(
    r"(?<![A-Za-z0-9_-])(?:"
    r"(?P<mixed>(?:sk|wl|xai|pplx)-[A-Za-z0-9_-]{17,}+)"  # OpenAI, Anthropic, OpenRouter; our own; xAI; Perplexity
    r"|(?:AKIA|ASIA)[A-Z2-7]{16}(?![A-Za-z0-9])"  # AWS access key ids
    r"|gh[opsur]_[A-Za-z0-9]{30,}+|github_pat_[A-Za-z0-9_]{22,}+|glpat-[A-Za-z0-9_-]{20,}+|npm_[A-Za-z0-9]{36}"
    r"|xox[a-z]-[A-Za-z0-9-]{10,}+|xapp-[A-Za-z0-9-]{10,}+"  # Slack
    r"|AIza[A-Za-z0-9_-]{35}|ya29\.[A-Za-z0-9_-]{20,}+"  # Google
    r"|hf_[A-Za-z0-9]{30,}+|gsk_[A-Za-z0-9]{40,}+|[srp]k_(?:live|test)_[A-Za-z0-9]{16,}+"
    r"|SG\.[A-Za-z0-9_-]{16,}+\.[A-Za-z0-9_-]{16,}+|pypi-[A-Za-z0-9_-]{50,}+|dop_v1_[a-f0-9]{64}"
    r"|eyJ[A-Za-z0-9_-]{8,}+\.[A-Za-z0-9_-]{8,}+(?:\.[A-Za-z0-9_-]*+){0,3}"  # JSON Web Tokens (RFC 7519)
    r")"
)
# RFC 6750, RFC 7617
_BEARER = re.compile(r"(?<!\w)(?:bearer|basic)[ \t]{1,4}([A-Za-z0-9._~+/-]{20,}+=*+)", re.IGNORECASE)
_NAMED = re.compile(
    r"(?:api[_-]?key|secret(?:[_-]?access)?[_-]?key|client[_-]?secret|access[_-]token)"
    r"[\"']?[ \t]{0,4}(?::|=>?)[ \t]{0,4}[\"']?([A-Za-z0-9._~+/-]{20,}+=*+)",
    re.IGNORECASE,
)
_PRIVATE = re.compile(r"-----BEGIN [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----")
_END = "-----END"
_CLOSING = re.compile(r"-----END [A-Z0-9 ]{0,60}-----")
_UNENDED = re.compile(r"[A-Za-z0-9+/=\s\\:,.-]*+")


def credentials(text: str) -> Iterator[Span]:
    """Keys of providers and services, bearer tokens, JSON Web Tokens, private keys in PEM."""
    for match in matches(_KEY, text):
        if match["mixed"] is None or _is_random(match["mixed"][3:]):
            yield Span(*match.span(), "key")
    for pattern in (_BEARER, _NAMED):
        for match in matches(pattern, text):
            if _is_random(match[1]):
                yield Span(*match.span(1), "key")
    if "-----BEGIN" in text:
        yield from _private_keys(text)


def _is_random(token: str) -> bool:
    """Whether it may be drawn by lot: words with hyphens between them have no digit."""
    return any(char.isdigit() for char in token[:200])


def _private_keys(text: str) -> Iterator[Span]:
    """From BEGIN to END; one that was cut goes as far as it can."""
    after, ended = 0, True
    for match in matches(_PRIVATE, text):
        if match.start() < after:
            continue
        end = text.find(_END, match.end()) if ended else -1
        ended = end >= 0
        closing = _CLOSING.match(text, end) if ended else None
        if closing is not None:
            after = closing.end()
        else:
            cut = _UNENDED.match(text, match.end())
            after = cut.end() if cut else match.end()
        yield Span(match.start(), after, "key")
