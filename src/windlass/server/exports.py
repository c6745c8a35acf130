"""All files of one import, as batches of calls and of what was said of them; what is left out is counted and named."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, Final, TypeAlias

import msgspec

from windlass.errors import InputError
from windlass.gateway.history import formats, openai
from windlass.gateway.history.past import Past, PastRequest, PastWord
from windlass.gateway.history.shapes import Broken, Found
from windlass.gateway.history.source import Export
from windlass.server.reading import moment

BATCH: Final = 500
REQUESTS_BYTES: Final = 256 * 1024 * 1024
"""So much of what stands in files of its own is held until the answers to it come by."""
SHOWN: Final = 10
Batch: TypeAlias = tuple[list[Past], list[PastWord]]


class ImportAsked(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be imported, from the command line. since, until: of the calls, as `windlass calls` takes them."""

    paths: tuple[str, ...]
    program: str = formats.AUTO
    tenant: str = ""
    workspace: str = ""
    since: str = ""
    until: str = ""
    dry: bool = False


class Exports:
    """The rows of all files, as batches of calls and of what was said of them.

    now: UTC seconds. most_bytes: of a batch; a call that is larger by itself comes without its bodies.
    """

    def __init__(self, wanted: ImportAsked, now: float, *, most_bytes: int):
        if wanted.program not in formats.NAMES:
            raise InputError(f"there is no format {wanted.program!r}; there are: {', '.join(formats.NAMES)}")
        self.wanted = wanted
        self.read = self.joined = self.bare = self._done_bytes = self._held_bytes = 0
        self.skipped: Counter[str] = Counter()
        self.bad: list[dict[str, Any]] = []
        self.unfinished: list[str] = []
        self.formats: dict[str, str] = {}
        self._now = now
        self._most_bytes = most_bytes
        self._since, self._until = moment(wanted.since, now), moment(wanted.until, now)
        self._requests: dict[str, str] = {}
        self._unsure: set[str] = set()
        self._exports = self._sorted([Export(Path(path)) for path in wanted.paths])
        self.bytes = sum(export.bytes for export in self._exports)
        self._current: Export | None = None

    @property
    def position(self) -> int:
        """How many bytes of the files have been read."""
        return self._done_bytes + (self._current.position if self._current is not None else 0)

    def batches(self) -> Iterator[Batch]:
        """What is to be written, in portions; what is said of a call follows it."""
        calls: list[Past] = []
        words: list[PastWord] = []
        held = 0
        for told in self._told():
            size = len(msgspec.json.encode(told)) + 100
            if isinstance(told, Past) and size > self._most_bytes:
                told, size = msgspec.structs.replace(told, request="", reply="", about={}), 2_000
                self.bare += 1
            if held + size > self._most_bytes or len(calls) + len(words) >= BATCH:
                yield calls, words
                calls, words, held = [], [], 0
            held += size
            if isinstance(told, Past):
                calls.append(told)
            else:
                words.append(told)
        # Also an empty one at the end: it shows how far the files have been read.
        yield calls, words

    def _sorted(self, exports: Sequence[Export]) -> list[Export]:
        """Requests before answers, scores behind what they are told of. InputError for a file of no known format."""
        placed: list[tuple[int, Export]] = []
        for export in exports:
            rows = [item.row for item in islice(export.rows(), formats.LOOKED_AT) if isinstance(item, Found)]
            found = formats.of(rows) if self.wanted.program == formats.AUTO else self.wanted.program
            if found is None and export.bytes:
                raise formats.unknown(export.path.name, rows[0] if rows else None)
            self.formats[str(export.path)] = found or formats.AUTO
            placed.append((formats.order(rows), export))
        return [export for _, export in sorted(placed, key=lambda pair: pair[0])]

    def _told(self) -> Iterator[Past | PastWord]:
        for export in self._exports:
            self._current = export
            for item in export.rows():
                told = self._row(export, item)
                if told is not None:
                    yield told
            self._done_bytes += export.bytes
            self._current = None

    def _row(self, export: Export, item: Found | Broken) -> Past | PastWord | None:
        """What one row tells; None where it is to be left out, which is counted."""
        self.read += 1
        if isinstance(item, Broken):
            if item.rest:
                self.unfinished.append(str(export.path))
            self._leave(export, item.line, "unreadable", item.why)
            return None
        one = formats.FORMATS.get(self.formats[str(export.path)])  # type: ignore[call-overload]
        if one is None or not one.fits(item.row):
            self._leave(export, item.line, "other_format", "a row of another shape")
            return None
        try:
            told = one.read(item.row, self._now)
        except InputError as exc:
            reason, _, why = str(exc).partition(": ")
            self._leave(export, item.line, reason, why)
            return None
        if isinstance(told, PastRequest):
            self._hold(told)
            return None
        if not self._between(told.at):
            self.skipped["other_time"] += 1
            return None
        return self._asked(told) if isinstance(told, Past) else told

    def _leave(self, export: Export, line: int, reason: str, why: str) -> None:
        self.skipped[reason] += 1
        # Steps that call no model are no fault of the file.
        if len(self.bad) < SHOWN and reason != "no_model_call":
            self.bad.append({"file": str(export.path), "line": line, "reason": reason, "why": why})

    def _between(self, at: float) -> bool:
        return (self._since is None or at >= self._since) and (self._until is None or at < self._until)

    def _hold(self, told: PastRequest) -> None:
        """Keep what was asked until its answer comes. Two different requests of one name belong to nobody."""
        self.joined += 1
        if self._held_bytes > REQUESTS_BYTES:
            self.skipped["requests_too_large"] += 1
            return
        present = self._requests.get(told.key)
        self._held_bytes += len(told.request)
        if told.key.startswith(openai.MESSAGE):
            self._requests[told.key] = told.request if present is None else f"{present},{told.request}"
        elif present not in (None, told.request):
            self._unsure.add(told.key)
        else:
            self._requests[told.key] = told.request

    def _asked(self, told: Past) -> Past:
        """The call with its request, where that came in a file of its own. The name that led there is not kept: whoever
        wrote the batch chose it, and it may be a person's."""
        name = told.about.get(openai.CUSTOM_ID, "")
        kept = {key: value for key, value in told.about.items() if key != openai.CUSTOM_ID}
        told = msgspec.structs.replace(told, about=kept) if name else told
        if told.request or not self._requests:
            return told
        messages = self._requests.get(openai.MESSAGE + told.source)
        if messages is not None:
            model = msgspec.json.encode(told.model).decode()
            return msgspec.structs.replace(told, request=f'{{"model":{model},"messages":[{messages}]}}')
        whole = "" if name in self._unsure else self._requests.get(name, "")
        return msgspec.structs.replace(told, request=whole)
