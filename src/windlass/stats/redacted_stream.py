"""Takes what is personal out of a stream of server-sent events, where one word may come in several of them.

The stream keeps its form, so that whoever reads streams reads this one: the parts of a text are joined, redacted, and
put back into their events; a label stands where the first part of what it replaces stood.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any, NamedTuple, Protocol

import msgspec

from windlass.stats.personal import Span

_LINE = re.compile(rb"[^\n]*+\n|[^\n]++")
_REST_OF_TEXT = re.compile(rb'(?:[^"\\]++|\\.)*+(?=")')
# Numbers of events, and what OpenAI fills them up with so that their length tells nothing.
_FILLINGS = (re.compile(rb',"obfuscation":"[A-Za-z0-9]*+"'), re.compile(rb'"sequence_number":\d++,?'))
_PLACES = ("index", "output_index", "content_index", "summary_index", "item_id")
_TEXTS = (b'"content":"', b'"delta":"', b'"text":"')
_MOST_DEPTH = 24
_SAMPLES = 12


class _Share(NamedTuple):
    """A piece of a text: `holder[name]`, of the event in that line."""

    line: int
    holder: dict[str, Any]
    name: str


class Redacts(Protocol):
    """What `Redaction` does with whole texts, which a stream holds in pieces."""

    def passes(self, data: bytes) -> bool: ...

    def spans(self, text: str) -> Sequence[Span]: ...

    def string(self, said: str, depth: int = 0) -> str: ...

    def json(self, data: bytes, depth: int = 0) -> bytes: ...

    def raw(self, data: bytes) -> bytes: ...


def redacted_events(redaction: Redacts, data: bytes) -> bytes:
    """The stream with labels in place of what is personal; the very bytes where nothing is found."""
    short = _shortened(data)
    # Where not every event took part, a word may still be in pieces: `passes` would not see it, this does.
    if short is not None and _thorough(redaction, short) is short:
        return data
    return _thorough(redaction, data)


def _shortened(data: bytes) -> bytes | None:
    """The same stream with the parts of each text joined in one event; None where its events are not alike.

    To tell so that nothing is personal costs a tenth of reading every event.
    """
    for filling in _FILLINGS:
        data = filling.sub(b"", data)
    events = data.split(b"\n\n", _SAMPLES)[1:-1]
    for first, second in pairwise(events):
        start = _start(first, second)
        text = _REST_OF_TEXT.match(first, start) if start > 2 else None
        if text is None:
            continue
        ending = first[text.end() :]
        if second.endswith(ending) and len(second) >= start + len(ending):
            return data.replace(ending + b"\n\n" + first[:start], b"")
    return None


def _start(first: bytes, second: bytes) -> int:
    """Where the text begins in which two events differ; at most 2 where they differ in nothing like it."""
    if first == second:
        return max((first.rfind(name) + len(name) for name in _TEXTS if name in first), default=0)
    pairs = zip(first + b"\0", second + b"\1", strict=False)
    common = first[: next(at for at, (one, other) in enumerate(pairs) if one != other)]
    return max(common.rfind(b':"'), common.rfind(b': "') + 1) + 2


def _thorough(redaction: Redacts, data: bytes) -> bytes:
    lines: list[bytes] = _LINE.findall(data)
    events = {number: event for number, line in enumerate(lines) if (event := _event(line)) is not None}
    texts: dict[tuple[Any, ...], list[_Share]] = {}
    for number, event in events.items():
        for place, holder, name in _parts(event, _where(event), False):
            texts.setdefault(place, []).append(_Share(number, holder, name))
    changed = {line for parts in texts.values() if len(parts) > 1 for line in _redact(redaction, parts)}
    for number in changed:
        whole = lines[number]
        lines[number] = b"data: " + msgspec.json.encode(events[number]) + whole[len(whole.rstrip()) :]
    done = [_line(redaction, line, number in events) for number, line in enumerate(lines)]
    return data if not changed and done == lines else b"".join(done)


def _event(line: bytes) -> Any:
    """What a line holds; None where it is no event, or none with a text."""
    if not line.startswith(b"data:") or b'"' not in line:
        return None
    try:
        return msgspec.json.decode(line[5:])
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None


def _line(redaction: Redacts, line: bytes, event: bool) -> bytes:
    """One line by itself."""
    if event:
        return line if redaction.passes(line) else line[:5] + redaction.json(line[5:])
    return redaction.raw(line) if len(line) > 8 else line


def _where(event: Any) -> tuple[Any, ...]:
    """What tells the texts of one event from those of another."""
    if not isinstance(event, dict):
        return ()
    return tuple(str(event.get(name)) for name in ("type", *_PLACES))


def _parts(node: Any, place: tuple[Any, ...], inside: bool) -> Iterator[tuple[tuple[Any, ...], dict[str, Any], str]]:
    """The texts of an event that others may continue: all in a `delta`, and every `text`."""
    if len(place) > _MOST_DEPTH:
        return
    if isinstance(node, dict):
        if _numbered(node):
            place = (*place, node["index"])
        for name, value in node.items():
            within = inside or name == "delta"
            if not isinstance(value, str):
                yield from _parts(value, (*place, name), within)
            elif within or name in ("text", "content"):
                yield (*place, name), node, name
    elif isinstance(node, list):
        for number, value in enumerate(node):
            yield from _parts(value, place if _numbered(value) else (*place, f"at {number}"), inside)


def _numbered(node: Any) -> bool:
    """Whether it says which of a list it is: then the list need not hold all of them every time."""
    return isinstance(node, dict) and isinstance(node.get("index"), int)


def _redact(redaction: Redacts, parts: Sequence[_Share]) -> Iterator[int]:
    """Redact a text that came in parts; gives the lines of those that changed."""
    words = [part.holder[part.name] for part in parts]
    text = "".join(words)
    if text[:1] in ("{", "["):  # the arguments of a tool: JSON again, where it came to its end
        whole = redaction.string(text)
        shares = [whole, *("" for _ in parts[1:])] if whole != text else words
    else:
        spans = redaction.spans(text)
        shares = shared(words, spans) if spans else words
    for part, before, after in zip(parts, words, shares, strict=True):
        if before != after:
            part.holder[part.name] = after
            yield part.line


def shared(words: Sequence[str], spans: Sequence[Span]) -> list[str]:
    """The parts of a text without its spans, each label where its span begins."""
    found: list[str] = []
    start, at = 0, 0
    for word in words:
        end = start + len(word)
        pieces: list[str] = []
        here = start
        while at < len(spans) and spans[at].start < end:
            span = spans[at]
            if span.start >= start:
                pieces += ("".join(word[here - start : span.start - start]), f"[{span.label}]")
            here = min(end, span.end)
            if span.end > end:
                break
            at += 1
        pieces.append(word[here - start :])
        found.append("".join(pieces))
        start = end
    return found
