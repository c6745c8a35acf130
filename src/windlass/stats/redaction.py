"""Takes what is personal out of texts and out of JSON, keys and structure left as they are."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from typing import Final

import msgspec

from windlass.stats.credentials import credentials
from windlass.stats.glance import glance, holds_nothing
from windlass.stats.personal import Recogniser, Span, cards, emails, ibans, matches
from windlass.stats.telephone import telephones

LABELS: Final = ("key", "email", "iban", "card", "phone")
"""What is looked for. Where two overlap, the first of them gives the name."""
_NUMBERS: Final = {"iban": ibans, "card": cards, "phone": telephones}
_MOST_NESTED = 3
_SHORTEST = 6
_MOST_LOOKS = 4
# A text, with the colon behind it that makes it the name of a field; or a number as long as that of a card.
_VALUE = re.compile(rb'"((?:[^"\\]++|\\.)*+)("\s*+:|")|(?<![\w.+-])\d{13,19}(?![\w.])', re.DOTALL)
_FILE = re.compile(r"data:[\w.+/-]{1,100};base64,[A-Za-z0-9+/=]*+")
_EVENTS = (b"data:", b"event:", b":", b"id:", b"retry:")
# No text in UTF-8 begins so: these are records of ours.
_BINARY = frozenset(bytes((first,)) for first in range(0x80, 0xC0))
_LINE = re.compile(rb"[^\n]*+\n?")


class Redaction:
    """What is taken out before something is stored.

    labels: which of `LABELS`. recognisers: further ones, after ours, such as `windlass.gateway.redaction` makes of the
    settings. slow: whether they take so long that no event loop should wait for them.
    """

    def __init__(
        self, labels: Iterable[str] = LABELS, recognisers: Sequence[Recogniser] = (), *, slow: bool = False
    ) -> None:
        self._labels = frozenset(labels)
        self._numbers = tuple(find for label, find in _NUMBERS.items() if label in self._labels)
        self._recognisers = tuple(recognisers)
        self.slow = slow

    def spans(self, text: str) -> list[Span]:
        """What is personal in a text, in order; what touches or overlaps is one."""
        if len(text) < _SHORTEST and not self._recognisers:
            return []
        found = self._ours(text)
        for recognise in self._recognisers:
            found += recognise(text)
        if not found:
            return found
        found = _merged(found)
        # What one number ended too late for may begin another: look once more at what is left.
        for _ in range(_MOST_LOOKS):
            more = self._ours(_masked(text, found))
            if not more:
                break
            found = _merged([*found, *more])
        return found

    def _ours(self, text: str) -> list[Span]:
        found: list[Span] = []
        may = glance(text.encode(errors="surrogatepass"))
        if may.key and "key" in self._labels:
            found += credentials(text)
        if may.email and "email" in self._labels:
            found += emails(text)
        if may.number:
            for find in self._numbers:
                found += find(text)
        return found

    def text(self, text: str) -> str:
        """A text with a label in brackets, `[email]`, in place of what is personal."""
        found = self.spans(text)
        return replaced(text, found) if found else text

    def body(self, data: bytes) -> bytes:
        """A request's or reply's body: JSON, a stream of events, or a text. The very bytes where nothing is found."""
        if data.startswith(_EVENTS):
            from windlass.stats.redacted_stream import redacted_events  # streams only

            return redacted_events(self, data)
        if self.passes(data) or data[:1] in _BINARY:
            return data
        if is_json(data):
            return self.json(data)
        if b"-----BEGIN" in data:
            return self.raw(data)
        return b"".join(self._line(line) for line in _LINE.findall(data))

    def passes(self, data: bytes) -> bool:
        """Whether a body surely holds nothing."""
        return not self._recognisers and holds_nothing(data)

    def _line(self, line: bytes) -> bytes:
        """One line of what is no JSON as a whole: a text, or JSON by lines."""
        return self.json(line) if line[:1] in (b"{", b"[") and is_json(line) else self.raw(line)

    def raw(self, data: bytes) -> bytes:
        """A text in UTF-8; what is none stays as it is."""
        text = data.decode(errors="surrogateescape")
        changed = self.text(text)
        return data if changed is text else changed.encode(errors="surrogateescape")

    def json(self, data: bytes, depth: int = 0) -> bytes:
        """JSON with its texts redacted, be they JSON themselves; a number that is a card becomes a text."""

        def value(match: re.Match[bytes]) -> bytes:
            inner, closing = match[1], match[2]
            if inner is None:
                return b'"[card]"' if self.spans(match[0].decode()) else match[0]
            if len(closing) > 1 or (len(inner) < _SHORTEST and not self._recognisers):
                return match[0]
            said = _decoded(inner)
            changed = self.string(said, depth)
            return match[0] if changed == said else encoded(changed)

        return _VALUE.sub(value, data)

    def string(self, said: str, depth: int = 0) -> str:
        """A text out of JSON, which may be JSON again, as the arguments of tools are, or hold a file."""
        if said[:1] in ("{", "[") and depth < _MOST_NESTED:
            nested = said.encode(errors="surrogatepass")
            if is_json(nested):
                return self.json(nested, depth + 1).decode(errors="surrogatepass")
        if ";base64," in said:
            return self._around_files(said)
        return self.text(said)

    def _around_files(self, said: str) -> str:
        """What stands around files that a text holds."""
        parts: list[str] = []
        after = 0
        for file in matches(_FILE, said):
            parts += (self.text(said[after : file.start()]), file[0])
            after = file.end()
        return "".join((*parts, self.text(said[after:])))


def replaced(text: str, spans: Iterable[Span]) -> str:
    """`text` with labels for its spans, which are in order."""
    parts: list[str] = []
    after = 0
    for start, end, label in spans:
        parts += (text[after:start], f"[{label}]")
        after = end
    return "".join((*parts, text[after:]))


def _masked(text: str, spans: Iterable[Span]) -> str:
    """`text` with brackets all over its spans."""
    parts: list[str] = []
    after = 0
    for start, end, _ in spans:
        parts += (text[after:start], "]" * (end - start))
        after = end
    return "".join((*parts, text[after:]))


def encoded(text: str) -> bytes:
    """A text as JSON writes it."""
    try:
        return json.dumps(text, ensure_ascii=False).encode()
    except UnicodeEncodeError:  # halves of characters, which only the escaped form can write
        return json.dumps(text).encode()


def is_json(data: bytes) -> bool:
    """Whether it is one value of JSON and nothing else."""
    try:
        msgspec.json.decode(data, type=msgspec.Raw)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return False
    return True


def _decoded(inner: bytes) -> str:
    """What stands between the quotes."""
    if b"\\" in inner:
        try:
            said: str = json.loads(b'"%b"' % inner, strict=False)
        except ValueError:
            return inner.decode(errors="replace")
        return said
    return inner.decode(errors="replace")


def _merged(found: list[Span]) -> list[Span]:
    """In order, what overlaps made one, under the label that is first in `LABELS`; others come after ours."""
    found.sort()
    merged = [found[0]]
    for span in found[1:]:
        last = merged[-1]
        if span.start < last.end:
            label = min(last.label, span.label, key=_rank)
            merged[-1] = Span(last.start, max(last.end, span.end), label)
        else:
            merged.append(span)
    return merged


def _rank(label: str) -> int:
    return LABELS.index(label) if label in LABELS else len(LABELS)
