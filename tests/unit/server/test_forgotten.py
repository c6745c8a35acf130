"""What is said of a forgotten user's call after it: the numbers count, the words are not kept."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from tests.golden.application import NOW, opened

from windlass.gateway.feedback import FeedbackRequest
from windlass.ledger import retention
from windlass.ledger.check import call, decision
from windlass.records import Scope
from windlass.runtime import Runtime

A = Scope("a")
SECRET = "heliotrope-manuscript"


def _files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file() and SECRET.encode() in path.read_bytes()]


async def _forget(runtime: Runtime) -> None:
    await runtime.ledger.append(
        call("call_1", user="zoe"), call("call_2", parent="call_1"), decision("decision_1", "call_1"), call("call_3")
    )
    assert await runtime.forget(A, "zoe", by="ann") > 0


@pytest.mark.parametrize("target", ["call_1", "call_2", "decision_1", "chatcmpl-call_1"])
async def test_a_late_comment_is_dropped_and_its_number_kept(tmp_path: Path, target: str) -> None:
    async with opened(tmp_path) as runtime:
        await _forget(runtime)
        kept = await runtime.feedback(A, FeedbackRequest(target=target, kind="rating", value=0.25, comment=SECRET))
        other = await runtime.feedback(A, FeedbackRequest(target="call_3", kind="praise", comment="kept words"))
        found = {said.id: (said.value, said.comment) for said in runtime.ledger.feedback(A)}
    assert found == {kept.id: (0.25, ""), other.id: (None, "kept words")}
    assert (kept.value, kept.comment) == (0.25, "")
    assert not _files(tmp_path)


async def test_a_comment_that_is_written_while_its_user_is_forgotten_goes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with opened(tmp_path) as runtime:
        await runtime.ledger.append(call("call_1", user="zoe"))
        append, told = runtime.ledger.append, []

        async def slowly(*items: object) -> int:
            """Checked already, not written yet: now the user is forgotten."""
            monkeypatch.undo()
            told.append(await runtime.forget(A, "zoe", by="ann"))
            return await append(*items)  # type: ignore[arg-type]

        monkeypatch.setattr(runtime.ledger, "append", slowly)
        said = FeedbackRequest(target="call_1", kind="rating", value=1.0, comment=SECRET, at=NOW)
        assert (await runtime.feedback(A, said)).comment == ""
        assert told
        assert [(one.value, one.comment) for one in runtime.ledger.feedback(A)] == [(1.0, "")]
        assert await asyncio.to_thread(retention.forgotten, runtime.db, A, "call_1")
    assert not _files(tmp_path)
