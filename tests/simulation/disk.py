"""A disk that remembers every write since the last sync, and can be as it may look after a power cut at any of them.

`Recorder` is an apsw file system over the real one: SQLite's own locking and shared memory stay underneath, so several
connections work in WAL mode as they do in service. `Cuts` replays what it recorded: what was synced is there; of the
writes and truncations since then any subset, each whole, missing or torn at 512-byte sectors; of creations and
deletions, any beginning. A file that grew over a write which is missing holds zeros or garbage there.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Literal, NamedTuple

import apsw

SECTOR = 512
Kind = Literal["write", "truncate", "sync", "create", "delete"]
Image = dict[str, bytes]


class Step(NamedTuple):
    """One thing that SQLite asked of the disk. file: its name; at: offset, or the size that it is cut to."""

    kind: Kind
    file: str
    at: int = 0
    data: bytes = b""


class Recorder(apsw.VFS):
    """Passes everything through to the real files, except syncs, and keeps a log of it.

    lies: whether a file's sync is claimed but not done (a planted fault).
    """

    def __init__(self, name: str, lies: Callable[[str], bool] = lambda _file: False):
        self.name = name
        self.log: list[Step] = []
        self.lies = lies
        super().__init__(name, "unix")

    def xOpen(self, name: str | apsw.URIFilename | None, flags: list[int]) -> apsw.VFSFile:
        path = name.filename() if isinstance(name, apsw.URIFilename) else name
        existed = path is not None and Path(path).exists()
        opened = _Recorded(self, name, flags)
        if path is not None and not existed and Path(path).exists():
            self.log.append(Step("create", Path(path).name))
        return opened

    def xDelete(self, name: str, sync_folder: bool) -> None:
        super().xDelete(name, False)
        self.log.append(Step("delete", Path(name).name))
        if sync_folder:
            self.synced(Path(name).name)

    def synced(self, file: str) -> None:
        if not self.lies(file):
            self.log.append(Step("sync", file))


class _Recorded(apsw.VFSFile):
    def __init__(self, recorder: Recorder, name: str | apsw.URIFilename | None, flags: list[int]):
        super().__init__("unix", name, flags)
        path = name.filename() if isinstance(name, apsw.URIFilename) else name
        self._recorder = recorder
        self._file = Path(path).name if path else ""

    def xWrite(self, data: bytes, offset: int) -> None:
        super().xWrite(data, offset)
        if self._file:
            self._recorder.log.append(Step("write", self._file, offset, bytes(data)))

    def xTruncate(self, newsize: int) -> None:
        super().xTruncate(newsize)
        if self._file:
            self._recorder.log.append(Step("truncate", self._file, newsize))

    def xSync(self, flags: int) -> None:
        # The real file needs no sync: the machine that runs this does not lose power, the recorded disk does.
        if self._file:
            self._recorder.synced(self._file)


class _File:
    """One name on the disk: its durable bytes (None: not there) and the steps since its last sync."""

    def __init__(self, durable: bytes | None):
        self.durable = None if durable is None else bytearray(durable)
        self.pending: list[Step] = []

    def take(self, step: Step) -> None:
        if step.kind != "sync":
            self.pending.append(step)
            return
        for waiting in self.pending:
            self.durable = _applied(self.durable, waiting)
        self.pending = []

    def cut(self, rng: random.Random) -> bytes | None:
        """The bytes that may be found after a power cut now."""
        names = [place for place, step in enumerate(self.pending) if step.kind in ("create", "delete")]
        # Creations and deletions survive in their order: a file system journals its names.
        kept = rng.randint(0, len(names))
        first = names[kept - 1] if kept else 0
        last = names[kept] if kept < len(names) else len(self.pending)
        content = None if self.durable is None else bytearray(self.durable)
        if kept:
            content = _applied(content, self.pending[first])
        share = rng.choice((0.0, 0.1, 0.5, 0.5, 0.9, 1.0))
        torn = rng.choice((0.0, 0.0, 0.3))
        filler = rng.choice((b"\x00", rng.randbytes(1)))
        for step in self.pending[first:last]:
            if content is not None and step.kind == "truncate" and rng.random() < share:
                content = _applied(content, step)
            elif content is not None and step.kind == "write":
                for at, data in _surviving(step, rng, share, torn):
                    _write(content, at, data, filler)
        return None if content is None else bytes(content)


def _applied(content: bytearray | None, step: Step) -> bytearray | None:
    match step.kind:
        case "create":
            return bytearray()
        case "delete":
            return None
        case "write" if content is not None:
            _write(content, step.at, step.data, b"\x00")
        case "truncate" if content is not None:
            del content[step.at :]
            content.extend(bytes(step.at - len(content)))
    return content


def _write(content: bytearray, at: int, data: bytes, filler: bytes) -> None:
    if len(content) < at:
        content.extend(filler * (at - len(content)))
    content[at : at + len(data)] = data


def _surviving(step: Step, rng: random.Random, share: float, torn: float) -> Iterator[tuple[int, bytes]]:
    """What of one write reached the disk: all, nothing, or some of its sectors."""
    if rng.random() >= torn:
        if rng.random() < share:
            yield step.at, step.data
        return
    place, end = step.at, step.at + len(step.data)
    while place < end:
        border = min(end, (place // SECTOR + 1) * SECTOR)
        if rng.random() < 0.5:
            yield place, step.data[place - step.at : border - step.at]
        place = border


class Cuts:
    """Disks after cuts at ascending places of a log that began on the disk `start`."""

    def __init__(self, start: Mapping[str, bytes], log: list[Step]):
        self._files = {name: _File(data) for name, data in start.items()}
        self._log = log
        self._done = 0

    def at(self, place: int, seed: str) -> Image:
        """A disk as it may look when the power goes after `place` steps; not before an earlier `place`."""
        if place < self._done:
            raise ValueError(f"cut at {place} after one at {self._done}; ask in ascending order")
        for step in self._log[self._done : place]:
            self._files.setdefault(step.file, _File(None)).take(step)
        self._done = place
        rng = random.Random(seed)
        found = {name: file.cut(rng) for name, file in self._files.items()}
        return {name: data for name, data in found.items() if data is not None}


def write_image(folder: Path, image: Image) -> None:
    """Make `folder` hold exactly the files of `image`."""
    folder.mkdir(parents=True, exist_ok=True)
    for found in folder.iterdir():
        if found.name not in image:
            found.unlink()
    for name, data in image.items():
        # A new file, not new bytes in the old one: nothing may be left of what was there.
        (folder / name).unlink(missing_ok=True)
        (folder / name).write_bytes(data)
