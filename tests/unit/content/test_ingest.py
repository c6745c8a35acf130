"""From files to memory: what is taken, what is refused, and that the same content is there once."""

from __future__ import annotations

import os
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from tests.golden.application import inline_ingest, opened
from tests.unit.gateway.providers.test_local import Words

from windlass.content.ingest import COLLECTION, SUFFIXES, files_of, item_id, vectors_run
from windlass.content.options import ContentOptions
from windlass.errors import InputError
from windlass.memory import embedder
from windlass.memory.store import Memory
from windlass.records import Scope
from windlass.runtime import Runtime
from windlass.settings import load

together = pytest.mark.asyncio(loop_scope="module")
DATA = Path(__file__).parents[2] / "data" / "transcripts"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def runtime(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Runtime]:
    async with opened(tmp_path_factory.mktemp("home")) as runtime:
        yield runtime


# --- files


def test_folders_are_searched_and_files_taken_as_they_are(tmp_path: Path) -> None:
    (tmp_path / "deep" / "er").mkdir(parents=True)
    for name in ("b.md", "a.TXT", "deep/er/c.vtt", "d.pdf", "deep/.DS_Store"):
        (tmp_path / name).write_text("x")
    found = files_of([tmp_path])
    assert [file.relative_to(tmp_path).as_posix() for file in found] == ["a.TXT", "b.md", "deep/er/c.vtt"]
    with pytest.raises(InputError, match="known endings"):
        files_of([tmp_path / "d.pdf"])
    assert files_of([tmp_path, tmp_path / "b.md", tmp_path]) == found, "once each"


def test_every_known_ending_is_looked_for(tmp_path: Path) -> None:
    for suffix in SUFFIXES:
        (tmp_path / f"x{suffix}").write_text("x")
    assert len(files_of([tmp_path])) == len(SUFFIXES)


def test_nothing_to_take_is_said(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not exist"):
        files_of([tmp_path / "none"])
    with pytest.raises(InputError, match=r"no transcripts in .*looked for \.md"):
        files_of([tmp_path])
    with pytest.raises(InputError):
        files_of([])


def test_what_is_no_file_is_passed_over_in_a_folder(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.md")
    (tmp_path / "folder.md").mkdir()
    (tmp_path / "gone.md").symlink_to(tmp_path / "nowhere")
    with pytest.raises(InputError, match="no transcripts"):
        files_of([tmp_path])


def test_a_pipe_named_outright_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    """Reading a pipe nobody writes to would never end."""
    os.mkfifo(tmp_path / "pipe.md")
    with pytest.raises(InputError):
        files_of([tmp_path / "pipe.md"])


def test_an_item_is_its_bytes() -> None:
    assert item_id(b"x") == item_id(b"x") != item_id(b"y")
    assert item_id(b"").startswith("item_")
    assert vectors_run("run_1") == "run_1-content.vectors"


# --- stages


@together
async def test_a_file_becomes_an_item_with_text_chapters_and_quotes(runtime: Runtime) -> None:
    scope = Scope("whole", "one")
    ingest, engine = inline_ingest(runtime)
    batch = ingest.submit(scope, [DATA / "sample.md"])
    (item,) = batch.items
    assert batch.names == ("sample.md",)
    assert ingest.status(scope, batch.run) == ("done", "done")
    assert [key for key, result in engine.events.items() if result.status != "ok"] == []
    assert runtime.contents.items(scope)[item].title == "Sounding: how deep is the water?"
    assert engine.events["text", item].value["turns"] == len(runtime.contents.segments(scope, item)) == 6
    assert [chapter.title for chapter in runtime.contents.chapters(scope, item)][0] == "Intro"
    assert runtime.contents.key_quotes(scope, item)
    counts = runtime.memory.counts(scope, COLLECTION)
    assert (counts.items, counts.chunks, counts.vectors) == (1, engine.events["text", item].value["chunks"], 0)


@together
async def test_the_same_content_is_in_memory_once_however_often_it_comes(runtime: Runtime, tmp_path: Path) -> None:
    scope = Scope("once", "one")
    ingest, _ = inline_ingest(runtime)
    copy = shutil.copy(DATA / "sample.md", tmp_path / "copy.md")
    first = ingest.submit(scope, [DATA / "sample.md", Path(copy)])
    again = ingest.submit(scope, [DATA / "sample.md"])
    assert len(set(first.items + again.items)) == 1
    assert first.names == ("sample.md", "copy.md")
    assert runtime.memory.counts(scope, COLLECTION).items == 1
    assert len(runtime.contents.items(scope)) == 1
    assert len(runtime.contents.segments(scope, first.items[0])) == 6


@together
async def test_a_file_that_cannot_be_read_fails_alone(runtime: Runtime, tmp_path: Path) -> None:
    scope = Scope("some", "one")
    for name, data in (("empty.md", b""), ("binary.md", b"\x00\x01" * 500), ("latin.txt", b"caf\xe9 au lait")):
        (tmp_path / name).write_bytes(data)
    ingest, engine = inline_ingest(runtime)
    batch = ingest.submit(scope, [*sorted(tmp_path.iterdir()), DATA / "sample.srt"])
    results = {name: engine.events["text", item] for name, item in zip(batch.names, batch.items, strict=True)}
    assert {name: result.status for name, result in results.items()} == {
        "binary.md": "failed",
        "empty.md": "failed",
        "latin.txt": "failed",
        "sample.srt": "ok",
    }
    assert "empty.md: the file is empty" in results["empty.md"].message
    assert len(runtime.contents.items(scope)) == 1
    assert ("analysis", batch.items[0]) not in engine.events


@together
async def test_a_run_without_a_readable_item_embeds_nothing(runtime: Runtime, tmp_path: Path) -> None:
    (tmp_path / "empty.md").write_bytes(b"")
    ingest, _ = inline_ingest(runtime)
    batch = ingest.submit(Scope("none", "one"), [tmp_path / "empty.md"])
    assert ingest.status(Scope("none", "one"), batch.run) == ("done", "unknown")
    assert ingest.status(Scope("none", "two"), batch.run) == ("unknown", "unknown"), "another's run"


@together
async def test_files_are_read_before_anything_is_started(runtime: Runtime, tmp_path: Path) -> None:
    scope = Scope("refused", "one")
    large = tmp_path / "large.md"
    large.write_bytes(b"x" * 2048)
    ingest, engine = inline_ingest(runtime, ContentOptions(max_file_bytes=1024))
    for bad, said in (
        (large, "more than 1024 bytes"),
        (tmp_path / "gone.md", "cannot be read"),
        (tmp_path, "cannot be read|more than"),
    ):
        with pytest.raises(InputError, match=said):
            ingest.submit(scope, [DATA / "sample.txt", bad])
    assert engine.events == {}


@together
async def test_a_file_name_of_any_bytes_is_taken(runtime: Runtime, tmp_path: Path) -> None:
    """On Linux a name is bytes; one that is no UTF-8 reaches Python with half a surrogate pair in it."""
    odd = tmp_path / os.fsdecode(b"caf\xe9.md")
    shutil.copy(DATA / "sample.md", odd)
    scope = Scope("odd", "one")
    ingest, engine = inline_ingest(runtime)
    (item,) = ingest.submit(scope, [odd]).items
    assert engine.events["text", item].status == "ok"


@together
async def test_vectors_are_made_in_batches_until_none_is_missing(runtime: Runtime, tmp_path: Path) -> None:
    scope = Scope("vectors", "one")
    lines = "\n\n".join(f"Paragraph {n} speaks of {' '.join(['anchor', 'chain', 'rope'] * 12)}." for n in range(260))
    (tmp_path / "long.txt").write_text(lines)
    memory = Memory(runtime.db, Words())
    ingest, engine = inline_ingest(runtime, ContentOptions(chunk_words=20), memory)
    ingest.submit(scope, [tmp_path / "long.txt"])
    counts = memory.counts(scope, COLLECTION)
    assert counts.vectors == counts.chunks > 64
    steps = [result.value for (name, _), result in engine.events.items() if name == "vectors"]
    assert steps[0] == 64
    assert steps[-1] == 0
    assert sum(steps) == counts.chunks


@together
async def test_the_real_embedder_fills_the_same_memory(runtime: Runtime) -> None:
    scope = Scope("real", "one")
    memory = Memory(runtime.db, embedder.load(load().cache))
    ingest, _ = inline_ingest(runtime, memory=memory)
    ingest.submit(scope, [DATA / "sample.md"])
    counts = memory.counts(scope, COLLECTION)
    assert counts.vectors == counts.chunks > 0
