"""The audit trail: rows, chain, key, checkpoints, seals; who may read across tenants; `windlass audit`."""

from __future__ import annotations

import ast
import asyncio
import json
import os
import shutil
import stat
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import msgspec
import pytest

import windlass
from windlass.cli import main
from windlass.errors import InputError, LedgerError, RecordInvalid
from windlass.ledger import check, checkpoint, schema, seal
from windlass.ledger.audit import ACROSS, CHECKPOINT, SEAL, SYSTEM, Audit, AuditRow, digest_of
from windlass.ledger.checkpoint import FILE, Checkpoint
from windlass.ledger.db import Database
from windlass.ledger.ledger import ALL
from windlass.ledger.signing import PRIVATE, PUBLIC
from windlass.ledger.sql import SqlLedger
from windlass.ledger.verify import Verdict, verify
from windlass.records import Scope
from windlass.testing import Clock

A, B = Scope("a"), Scope("b")
SOURCE = Path(windlass.__file__).parent


@pytest.fixture
def clock() -> Clock:
    return Clock(check.AT)


@pytest.fixture
def audit(db: Database, tmp_path: Path, clock: Clock) -> Audit:
    return Audit(db, tmp_path / "audit", clock=clock)


def checked(audit: Audit, db: Database) -> Verdict:
    return verify(db, [audit.checkpoints.path])


def actions(audit: Audit) -> list[str]:
    """Oldest first."""
    return [row.action for row in audit.rows(ALL, limit=1000)][::-1]


def filled(ledger: SqlLedger, count: int, first: int = 0) -> None:
    asyncio.run(ledger.append(*(check.call(f"call_{number}") for number in range(first, first + count))))


# --- rows and their chain


def test_rows_have_places_without_gaps_and_follow_each_other(audit: Audit) -> None:
    assert [audit.append(A, "key:ops", "forget", {"rows": number}) for number in range(3)] == [1, 2, 3]
    rows = audit.rows(ALL)[::-1]
    assert [row.previous for row in rows] == ["", rows[0].digest, rows[1].digest]
    assert all(row.digest == digest_of(row) for row in rows)
    assert rows[1] == AuditRow(
        place=2,
        tenant="a",
        workspace="default",
        at=check.AT,
        actor="key:ops",
        action="forget",
        detail='{"rows":1}',
        previous=rows[0].digest,
        digest=rows[1].digest,
    )


def test_rows_are_read_by_scope_and_page(audit: Audit) -> None:
    for number in range(6):
        audit.append(A if number % 2 else B, "x", "prune", {})
    assert [row.place for row in audit.rows(A)] == [6, 4, 2]
    assert [row.place for row in audit.rows(A, limit=1, before=6)] == [4]
    assert audit.rows(Scope("a", "other")) == []
    assert [row.place for row in audit.rows(ALL, limit=2)] == [6, 5]


@pytest.mark.parametrize("detail", [{"x": float("nan")}, {"x": object()}, {"x": b"bytes"}, {"x": "y" * 200_000}])
def test_a_detail_that_cannot_be_kept_is_refused_and_leaves_no_gap(audit: Audit, detail: dict[str, Any]) -> None:
    audit.append(A, "x", "prune")
    with pytest.raises(RecordInvalid):
        audit.append(A, "x", "prune", detail)
    assert audit.append(A, "x", "prune") == 2


def test_what_no_database_holds_is_replaced(audit: Audit, db: Database) -> None:
    audit.append(Scope("a\x00", "\ud800"), "key:\x00", "for\ud800get", {"text": "\x00\ud800 é"})
    row = audit.rows(ALL)[0]
    assert (row.tenant, row.workspace, row.actor, row.action) == ("a?", "?", "key:?", "for?get")
    assert json.loads(row.detail) == {"text": "\x00\ud800 é"}
    assert row.detail.isascii()
    assert not checked(audit, db).findings


def test_many_writers_make_one_chain(audit: Audit, db: Database, tmp_path: Path) -> None:
    others = [Audit(db, tmp_path / "audit", every_rows=10) for _ in range(4)]
    with ThreadPoolExecutor(8) as pool:
        places = list(pool.map(lambda n: others[n % 4].append(A, f"writer {n % 4}", "prune", {"n": n}), range(100)))
    assert len(set(places)) == 100
    verdict = checked(audit, db)
    assert verdict.ok, verdict.findings
    assert verdict.rows == 100 + verdict.checkpoints
    assert verdict.checkpoints >= 5


def test_the_digest_covers_every_field() -> None:
    row = AuditRow(place=1, tenant="t", workspace="w", at=1.0, actor="a", action="b", detail="{}", previous="p")
    others: dict[str, Any] = {"place": 2, "at": 2.0}
    for name in AuditRow.__struct_fields__[:-1]:
        assert digest_of(msgspec.structs.replace(row, **{name: others.get(name, "x")})) != digest_of(row), name


# --- reading across tenants


def test_reading_across_tenants_leaves_who_and_why(audit: Audit) -> None:
    assert audit.across("key:ops", "quarterly bill") is ALL
    row = audit.rows(ALL)[0]
    assert (row.tenant, row.workspace) == ("", "")
    assert (row.actor, row.action, json.loads(row.detail)) == ("key:ops", ACROSS, {"reason": "quarterly bill"})


@pytest.mark.parametrize(("actor", "reason"), [("", "why"), ("  ", "why"), ("who", ""), ("who", "\n ")])
def test_nobody_reads_across_tenants_without_a_name_and_a_reason(audit: Audit, actor: str, reason: str) -> None:
    with pytest.raises(InputError, match="say who reads"):
        audit.across(actor, reason)
    assert audit.rows(ALL) == []


def test_a_right_that_cannot_be_recorded_is_not_given(audit: Audit, db: Database) -> None:
    with db.write() as connection:
        connection.exec_driver_sql("DROP TABLE audit")
    with pytest.raises(LedgerError):
        audit.across("key:ops", "why")


ALLOWED = {
    "ledger/ledger.py": "defines it",
    "ledger/check.py": "the contract's suite, over ledgers of its own",
    "ledger/sql.py": "tells it from an owner",
    "ledger/audit.py": "gives it, after the row is committed",
    "policies/replay.py": "folds",
    "watch/projections.py": "folds",
    "watch/traces/exporter.py": "sends what the operator has told the settings to send",
    "improve/grading/grading.py": "follows the ledger, and grades each call by its owner's scope",
    "improve/warm/warm.py": "follows the ledger, and asks each prompt anew by its owner's scope",
    "runtime.py": "how old the first entry is that a worker has not folded",
}
"""Outside these files nobody gets ALL but from `Audit.across`. docs/explanation/audit.md has the same list."""


def test_nobody_helps_himself_to_all_tenants() -> None:
    used = {str(path.relative_to(SOURCE)) for path in SOURCE.rglob("*.py") if _takes_all(path.read_text())}
    assert used <= set(ALLOWED), f"take ALL from Audit.across(actor, reason) in {sorted(used - set(ALLOWED))}"
    assert "watch/projections.py" in used or "policies/replay.py" in used


@pytest.mark.parametrize(
    ("text", "takes"),
    [
        ("from windlass.ledger.ledger import ALL", True),
        ("from windlass.ledger.ledger import ALL as EVERY", True),
        ("from windlass.ledger.ledger import *", True),
        ("def f():\n    from .ledger import ALL", True),
        ("from windlass.ledger import ledger\nledger.ALL", True),
        ("import windlass.ledger.ledger as x\nx.AllScopes()", True),
        ("getattr(module, 'ALL')", True),
        ("from windlass.ledger.ledger import AllScopes\nisinstance(scope, AllScopes)", False),
        ("async def f(audit):\n    ledger.read(audit.across('me', 'why'))", False),
    ],
)
def test_that_test_sees_every_way_to_it(text: str, *, takes: bool) -> None:
    assert _takes_all(text) is takes


def _takes_all(text: str) -> bool:
    """Whether a module imports or reaches for the constant, or makes an `AllScopes`."""
    for node in ast.walk(ast.parse(text)):
        match node:
            case ast.ImportFrom(module=module, names=names):
                ledger = (module or "").endswith("ledger")
                if any(name.name == "ALL" or (name.name == "*" and ledger) for name in names):
                    return True
            case ast.Attribute(attr="ALL") | ast.Name(id="ALL") | ast.Constant(value="ALL"):
                return True
            case ast.Call(func=ast.Name(id="AllScopes") | ast.Attribute(attr="AllScopes")):
                return True
    return False


# --- checkpoints and their key


def test_start_and_stop_make_checkpoints(audit: Audit, db: Database, ledger: SqlLedger) -> None:
    audit.start("local:ops", {"version": "1"})
    filled(ledger, 3)
    audit.stop("local:ops")
    assert actions(audit) == ["start", CHECKPOINT, SEAL, "stop", CHECKPOINT]
    verdict = checked(audit, db)
    assert (verdict.ok, verdict.checkpoints, verdict.sealed_rows, verdict.unsigned) == (True, 2, 3, 0)


def test_every_so_many_rows_there_is_a_checkpoint(db: Database, tmp_path: Path) -> None:
    audit = Audit(db, tmp_path / "audit", every_rows=10)
    for _ in range(25):
        audit.append(A, "x", "prune")
    found = [row.place for row in audit.rows(ALL, limit=100) if row.action == CHECKPOINT]
    assert found == [22, 11]
    again = Audit(db, tmp_path / "audit", every_rows=10)
    assert again.append(A, "x", "prune") == 28
    assert checked(again, db).unsigned == 6  # another process goes on counting where this one was


def test_every_hour_there_is_a_checkpoint_if_something_was_added(
    audit: Audit, db: Database, clock: Clock, ledger: SqlLedger
) -> None:
    audit.start("x")
    for _ in range(3):
        clock.forward(3600)
        audit.tick()
    assert actions(audit) == ["start", CHECKPOINT]
    audit.append(A, "x", "prune")
    audit.tick()
    assert actions(audit)[2:] == ["prune"]
    clock.forward(3600)
    audit.tick()
    assert actions(audit)[3:] == [CHECKPOINT]
    filled(ledger, 2)
    audit.tick()
    assert actions(audit)[4:] == []
    clock.forward(3600)
    audit.tick()
    assert actions(audit)[4:] == [SEAL, CHECKPOINT]
    assert checked(audit, db).ok


def test_a_tick_seals_full_blocks_at_once(
    audit: Audit, db: Database, ledger: SqlLedger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(seal, "BLOCK", 10)
    filled(ledger, 25)
    audit.tick()
    assert actions(audit) == [SEAL, SEAL, CHECKPOINT]
    verdict = checked(audit, db)
    assert (verdict.sealed_rows, verdict.unsealed_after) == (20, 20)
    audit.stop("x")
    assert checked(audit, db).sealed_rows == 25


def test_the_key_is_private_and_made_once(audit: Audit, db: Database, tmp_path: Path) -> None:
    audit.checkpoint()
    folder = tmp_path / "audit"
    assert stat.S_IMODE((folder / PRIVATE).stat().st_mode) == 0o600
    assert stat.S_IMODE((folder / FILE).stat().st_mode) == 0o600
    assert sorted(path.name for path in folder.iterdir()) == [FILE, PRIVATE, PUBLIC]
    mine = checkpoint.fingerprint(checkpoint.public_key(folder / PUBLIC).public_bytes_raw())
    assert Audit(db, folder).checkpoint().key == mine == audit.checkpoints.fingerprint()


def test_processes_that_start_at_once_share_one_key(db: Database, tmp_path: Path) -> None:
    others = [Audit(db, tmp_path / "audit") for _ in range(8)]
    barrier = threading.Barrier(8)

    def sign(audit: Audit) -> str:
        barrier.wait()
        return audit.checkpoint().key

    with ThreadPoolExecutor(8) as pool:
        assert len(set(pool.map(sign, others))) == 1
    verdict = checked(others[0], db)
    assert (verdict.ok, verdict.checkpoints) == (True, 8)


def test_another_key_than_the_one_written_down_is_found(audit: Audit, db: Database, tmp_path: Path) -> None:
    audit.checkpoint()
    Audit(db, tmp_path / "other").checkpoint()
    verdict = verify(db, [audit.checkpoints.path], tmp_path / "other" / PUBLIC)
    assert not verdict.ok
    assert "it was signed with the key" in verdict.findings[0].why
    both = verify(db, [audit.checkpoints.path, tmp_path / "other" / FILE])
    assert both.ok
    assert len(both.keys) == 2


def test_a_line_that_somebody_made_up_is_found(audit: Audit, db: Database) -> None:
    audit.checkpoint()
    path = audit.checkpoints.path
    line = msgspec.json.decode(path.read_bytes(), type=Checkpoint)
    path.write_bytes(msgspec.structs.replace(line, sealed=5).line())
    assert "not that of the key" in checked(audit, db).findings[0].why
    path.write_bytes(msgspec.structs.replace(line, signature="zz").line())
    assert "not that of the key" in checked(audit, db).findings[0].why


def test_a_line_that_a_crash_cut_off_is_no_finding_and_is_mended(audit: Audit, db: Database) -> None:
    audit.checkpoint()
    path = audit.checkpoints.path
    path.write_bytes(path.read_bytes() + b'{"number":2,"pla')
    verdict = checked(audit, db)
    assert verdict.ok
    assert "cut off" in verdict.notes[0]
    audit.checkpoint()
    assert checked(audit, db).checkpoints == 2


def test_a_crash_between_row_and_line_is_no_finding(
    audit: Audit, db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    audit.checkpoint()
    with monkeypatch.context() as patched:
        patched.setattr(audit.checkpoints, "write", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt()))
        with pytest.raises(KeyboardInterrupt):
            audit.checkpoint()
    assert checked(audit, db).ok
    audit.checkpoint()
    assert checked(audit, db).ok


def test_a_folder_that_cannot_be_written_fails_no_row(db: Database, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    audit = Audit(db, tmp_path / "file" / "audit", every_rows=1)
    assert [audit.append(A, "x", "prune"), audit.append(A, "x", "prune")] == [1, 2]
    with pytest.raises(LedgerError, match="file"):
        audit.checkpoint()


@pytest.mark.parametrize("content", [b"", b"no key", b"-----BEGIN PRIVATE KEY-----\n"])
def test_a_private_key_that_is_none_is_named(audit: Audit, tmp_path: Path, content: bytes) -> None:
    (tmp_path / "audit").mkdir()
    (tmp_path / "audit" / PRIVATE).write_bytes(content)
    with pytest.raises(LedgerError, match="put the right one back"):
        audit.checkpoint()


def test_an_unsigned_trail_says_so(audit: Audit, db: Database) -> None:
    audit.append(A, "x", "prune")
    verdict = checked(audit, db)
    assert verdict.ok
    assert verdict.unsigned == 1
    assert "no checkpoint yet" in verdict.notes[0]


def test_a_ledger_in_use_without_any_trail_is_a_finding(audit: Audit, db: Database, ledger: SqlLedger) -> None:
    assert checked(audit, db).ok, "nothing has happened in a new folder"
    filled(ledger, 1)
    (finding,) = checked(audit, db).findings
    assert finding.where == "audit trail"
    assert "removed" in finding.why
    assert "windlass up" in finding.why
    audit.start("windlass")
    assert checked(audit, db).ok


def test_trail_and_checkpoints_that_were_both_removed_are_a_finding(
    audit: Audit, db: Database, ledger: SqlLedger, tmp_path: Path
) -> None:
    audit.start("windlass")
    filled(ledger, 1)
    audit.stop("windlass")
    assert checked(audit, db).ok
    with db.write() as connection:
        connection.exec_driver_sql("DELETE FROM audit")
        connection.exec_driver_sql("DELETE FROM heads WHERE name = 'audit'")
    shutil.rmtree(tmp_path / "audit")
    assert not checked(audit, db).ok
    Audit(db, tmp_path / "audit").start("windlass")
    verdict = checked(audit, db)
    assert any("begins after place 1 of the ledger" in note for note in verdict.notes), "the new trail tells of it"


def test_a_used_ledger_whose_trail_was_never_signed_is_a_finding(audit: Audit, db: Database, ledger: SqlLedger) -> None:
    filled(ledger, 1)
    audit.append(A, "x", "forget")
    (finding,) = checked(audit, db).findings
    assert finding.where == "checkpoints"


# --- seals


def test_a_seal_covers_every_column_but_what_forgetting_clears() -> None:
    for table in schema.SEQUENCED:
        left_out = set(table.c.keys()) - set(seal.COLUMNS[table.name])
        assert left_out == seal.FORGETTABLE.get(table.name, set()), "a new column needs a new seal.FORMAT"
    assert set(seal.COLUMNS) == {table.name for table in schema.SEQUENCED}


def test_forgetting_and_pruning_break_no_seal(audit: Audit, db: Database, ledger: SqlLedger) -> None:
    erasure = check._erasure("u")
    records = check.call("call_1", user="u"), check.decision("decision_1", "call_1")
    asyncio.run(ledger.append(*records, check.rating("feedback_1", "call_1", comment="mine"), erasure))
    audit.stop("x")
    assert ledger.erase(erasure) == 3
    ledger.prune(check.AT * 2)
    ledger.prune_contexts(check.AT * 2)
    assert checked(audit, db).ok


def test_two_workers_do_not_seal_the_same_rows(db: Database, ledger: SqlLedger, tmp_path: Path) -> None:
    others = [Audit(db, tmp_path / "audit") for _ in range(4)]
    for round_of in range(5):
        filled(ledger, 40, 40 * round_of)
        with ThreadPoolExecutor(4) as pool:
            assert sum(pool.map(Audit.seal, others)) >= 1
    others[0].checkpoint()
    verdict = checked(others[0], db)
    assert verdict.ok, verdict.findings
    assert verdict.sealed_rows == 200


def test_sealing_takes_a_page_of_memory_at_a_time(audit: Audit, db: Database, ledger: SqlLedger) -> None:
    filled(ledger, seal.PAGE * 2 + 1)
    assert audit.seal() == 1
    assert checked(audit, db).sealed_rows == seal.PAGE * 2 + 1


# --- the command


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in list(os.environ):
        if name.startswith("WINDLASS_"):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WINDLASS_HOME", str(tmp_path))
    return tmp_path


def test_verify_says_what_it_checked(home: Path, audit: Audit, capsys: pytest.CaptureFixture[str]) -> None:
    audit.start("local:ops")
    before = {path: path.read_bytes() for path in (home / "audit").iterdir()}
    assert main(["audit", "verify"]) == 0
    said = capsys.readouterr().out
    assert "audit trail: 2 rows, 0 of them after the last checkpoint" in said
    assert said.endswith("all of it fits\n")
    assert {path: path.read_bytes() for path in (home / "audit").iterdir()} == before
    assert len(audit.rows(ALL)) == 2


def test_verify_names_the_first_place_that_does_not_fit(
    home: Path, audit: Audit, db: Database, capsys: pytest.CaptureFixture[str]
) -> None:
    for _ in range(3):
        audit.append(A, "x", "prune")
    audit.checkpoint()
    with db.write() as connection:
        connection.exec_driver_sql("UPDATE audit SET actor = 'somebody else' WHERE place = 2")
    assert main(["audit", "verify", "--json"]) == 1
    verdict = json.loads(capsys.readouterr().out)
    assert verdict["ok"] is False
    assert verdict["findings"][0]["where"] == "audit row 2"
    assert main(["audit", "verify"]) == 1
    assert "BROKEN: audit row 2: its content is not what its digest was made of" in capsys.readouterr().out


def test_verify_takes_a_key_from_elsewhere(home: Path, audit: Audit, db: Database, tmp_path: Path) -> None:
    audit.checkpoint()
    Audit(db, tmp_path / "safe").checkpoints.fingerprint()
    assert main(["audit", "verify", "--public-key", str(home / "audit" / PUBLIC)]) == 0
    assert main(["audit", "verify", "--public-key", str(tmp_path / "safe" / PUBLIC)]) == 1
    assert main(["audit", "verify", "--public-key", str(tmp_path / "none")]) == 2
    assert main(["audit", "verify", "--checkpoints", str(tmp_path / "none")]) == 2


def test_list_keeps_to_its_tenant_unless_a_reason_is_left(
    home: Path, audit: Audit, capsys: pytest.CaptureFixture[str]
) -> None:
    audit.append(Scope(), "key:mine", "prune")
    audit.append(A, "key:theirs", "forget", {"text": "[red]x\x1b[0m"})
    assert main(["audit", "list", "--json"]) == 0
    assert [row["actor"] for row in json.loads(capsys.readouterr().out)["rows"]] == ["key:mine"]
    assert main(["audit", "list", "--across", "the auditors asked"]) == 0
    said = capsys.readouterr().out
    assert "key:theirs" in said
    assert "\x1b" not in said
    assert audit.rows(ALL)[0].action == ACROSS
    assert audit.rows(ALL)[0].actor.startswith("local:")
    assert main(["audit", "list", "--across", ""]) == 2
    assert main(["audit", "list", "--limit", "0"]) == 2


def test_key_prints_what_to_write_down(home: Path, audit: Audit, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["audit", "key"]) == 2
    line = audit.checkpoint()
    capsys.readouterr()
    assert main(["audit", "key"]) == 0
    assert capsys.readouterr().out == f"{line.key}\n"


def test_without_a_ledger_nothing_is_made(tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WINDLASS_HOME", str(tmp_path / "nowhere"))
    assert main(["audit", "verify"]) == 2
    assert not (tmp_path / "nowhere").exists()


def test_the_library_for_signatures_is_loaded_when_something_is_signed() -> None:
    program = "import sys, windlass.ledger.verify; assert 'cryptography' not in sys.modules"
    subprocess.run([sys.executable, "-c", program], check=True)


def test_the_process_itself_is_no_tenant() -> None:
    assert SYSTEM.tenant == ""
