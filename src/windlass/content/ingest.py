"""From files to memory: a durable workflow with one step per stage, each idempotent per item.

`text` parses an item, stores its segments and fills the full-text index, so that questions can be answered at once;
`analysis` adds chapters and key quotes; `vectors` embeds, on a queue of its own. An item's id is the digest of its
bytes, so that the same content is in memory once however often it comes.
"""

from __future__ import annotations

import hashlib
import stat
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from windlass.content.analysis import chapters, key_quotes
from windlass.content.options import ContentOptions
from windlass.content.store import Contents
from windlass.content.transcript import Transcript
from windlass.errors import InputError
from windlass.ledger import ids
from windlass.memory.chunk import chunk
from windlass.memory.store import Memory
from windlass.records import Scope, StepResult, user_digest

if TYPE_CHECKING:
    from windlass.workflows.durable import Durable, Run, RunStatus

WORKFLOW = "content.ingest"
VECTORS = "content.vectors"
COLLECTION = "content"
SUFFIXES = (".md", ".markdown", ".vtt", ".srt", ".json", ".txt")
VECTOR_BATCH = 64


class Batch(msgspec.Struct, frozen=True, kw_only=True):
    """What one `submit` set going: the run, and the items in the order of the files."""

    run: str
    items: tuple[str, ...]
    names: tuple[str, ...]


class Ingest:
    """The stages over their stores. `register` makes the workflows known to the engine."""

    def __init__(
        self,
        contents: Contents,
        memory: Memory,
        durable: Durable,
        options: ContentOptions,
        clock: Callable[[], float],
    ):
        self._contents = contents
        self._memory = memory
        self._durable = durable
        self._options = options
        self._clock = clock

    def register(self) -> None:
        """Before the engine starts."""
        self._durable.register(WORKFLOW, self._ingest)
        self._durable.register(VECTORS, self._vectors)

    def submit(self, scope: Scope, files: Sequence[Path]) -> Batch:
        """Keep the bytes of `files`, then start the run that takes them in.

        Raises InputError for a file that is missing, unreadable or too large; nothing is started then.
        """
        read = [(path, self._bytes(path)) for path in files]
        items = [item_id(data) for _, data in read]
        now = self._clock()
        for item, (path, data) in zip(items, read, strict=True):
            self._contents.put_source(scope, item, _name(path), data, now)
        run = f"{ids.new('run', now)}-{_tag(scope)}"
        batch = Batch(run=run, items=tuple(items), names=tuple(map(_name, files)))
        wanted = list(dict.fromkeys(items))
        self._durable.submit(WORKFLOW, run, scope.tenant, scope.workspace, wanted)
        return batch

    def status(self, scope: Scope, run: str) -> tuple[RunStatus, RunStatus]:
        """How a run and the embedding that follows it stand; unknown where it is not the scope's."""
        if not owns(scope, run):
            return "unknown", "unknown"
        return self._durable.status(run), self._durable.status(vectors_run(run))

    def _ingest(self, run: Run, tenant: str, workspace: str, items: list[str]) -> None:
        """The workflow: every item's text first, then the analyses; vectors follow on their queue."""
        scope = Scope(tenant, workspace)
        readable = [item for item in items if run.step("text", scope, item, self._text, scope, item).status == "ok"]
        if readable:
            run.enqueue(VECTORS, tenant, workspace)
        for item in readable:
            run.step("analysis", scope, item, self._analysis, scope, item)

    def _vectors(self, run: Run, tenant: str, workspace: str) -> None:
        """The second workflow: embed what has no vector yet, a batch a step."""
        scope = Scope(tenant, workspace)
        for number in range(1_000_000):
            result = run.step("vectors", scope, str(number), self._embed, scope)
            if result.status != "ok" or not result.value:
                return

    def _parsed(self, scope: Scope, item: str) -> tuple[str, Transcript]:
        """The item's name, and what its bytes say."""
        from windlass.content.parse import parse  # brings every format, for a process that takes something in

        name, data = self._contents.source(scope, item)
        return name, parse(name, data, limit_bytes=self._options.max_file_bytes)

    def _text(self, scope: Scope, item: str) -> StepResult:
        name, transcript = self._parsed(scope, item)
        self._contents.put_item(scope, item, transcript, self._clock())
        breaks = [heading.turn for heading in transcript.headings]
        passages = chunk(transcript.turns, self._options.chunk_words, breaks)
        self._memory.put_text(scope, COLLECTION, item, passages)
        value = {"name": name, "title": transcript.title, "turns": len(transcript.turns), "chunks": len(passages)}
        return StepResult(status="ok", value=value)

    def _analysis(self, scope: Scope, item: str) -> StepResult:
        _, transcript = self._parsed(scope, item)
        found = chapters(transcript)
        picked = key_quotes(transcript, found, self._options.key_quotes)
        self._contents.put_analysis(scope, item, found, picked)
        return StepResult(status="ok", value={"chapters": len(found), "quotes": len(picked)})

    def _embed(self, scope: Scope) -> int:
        """Embed one batch; returns how many it did."""
        if self._memory.embedder is None:
            return 0
        waiting = self._memory.pending(scope, COLLECTION, VECTOR_BATCH)
        self._memory.put_vectors(scope, COLLECTION, waiting)
        return len(waiting)

    def _bytes(self, path: Path) -> bytes:
        limit = self._options.max_file_bytes
        try:
            about = path.stat()
            if not stat.S_ISREG(about.st_mode):
                raise InputError(f"{path} cannot be read: no regular file; name a transcript or a folder")
            if about.st_size > limit:
                raise InputError(f"{path} has more than {limit} bytes; raise content.max_file_bytes or split it")
            return path.read_bytes()
        except OSError as exc:
            raise InputError(f"{path} cannot be read: {exc.strerror or exc}") from exc


def owns(scope: Scope, run: str) -> bool:
    """Whether a run was started for `scope`: its id ends with the owner's tag."""
    return run.endswith(f"-{_tag(scope)}")


def _tag(scope: Scope) -> str:
    return user_digest(scope, "run")[:12]


def vectors_run(run: str) -> str:
    """The id of the run that embeds what `run` took in."""
    return f"{run}-{VECTORS}"


def item_id(data: bytes) -> str:
    """The id of content: a digest of its bytes."""
    return "item_" + hashlib.sha256(data).hexdigest()[:32]


def files_of(paths: Sequence[Path]) -> tuple[Path, ...]:
    """The transcript files that `paths` name, folders searched through, in order and once each.

    InputError for a missing path, a file of another kind that is named outright, or when nothing is found.
    """
    try:
        found = tuple(dict.fromkeys(file for path in paths for file in _walk(path)))
    except OSError as exc:
        raise InputError(f"{str(exc.filename)[:200]} cannot be read: {exc.strerror}; name a file or a folder") from exc
    if not found:
        raise InputError(f"no transcripts in {', '.join(map(str, paths))}; looked for {', '.join(SUFFIXES)}")
    return found


def _name(path: Path) -> str:
    """The file's name as text; bytes that are none become `?`."""
    return path.name.encode(errors="replace").decode()


def _walk(path: Path) -> Iterator[Path]:
    if path.is_dir():
        for file in sorted(path.rglob("*")):
            if file.is_file() and file.suffix.lower() in SUFFIXES:
                yield file
    elif path.is_file() and path.suffix.lower() not in SUFFIXES:
        raise InputError(f"{path} is no transcript that we know; known endings: {', '.join(SUFFIXES)}")
    elif path.is_file():
        yield path
    elif path.exists():
        raise InputError(f"{path} cannot be read: no regular file; name a transcript or a folder")
    else:
        raise InputError(f"{path} does not exist; name a file or a folder")
