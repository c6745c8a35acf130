"""What `windlass db` leaves in the audit trail, and beside the files that it writes."""

from __future__ import annotations

import asyncio
import getpass
import hashlib
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from windlass.cli import main
from windlass.ledger import backup, check
from windlass.ledger.audit import Audit, AuditRow
from windlass.ledger.db import Database
from windlass.ledger.integrity import RESTORING
from windlass.ledger.ledger import ALL
from windlass.ledger.sql import SqlLedger

Home = Callable[[str], Path]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    """Names a state folder, which the commands use from then on."""
    for name in list(os.environ):
        if name.startswith("WINDLASS_"):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)

    def use(name: str) -> Path:
        monkeypatch.setenv("WINDLASS_HOME", str(tmp_path / name))
        return tmp_path / name

    return use


@pytest.fixture
def filled(home: Home) -> Path:
    """A folder whose ledger holds a call."""
    made = home("home")
    db = Database(made / "ledger.db")
    db.migrate()
    ledger = SqlLedger(db)
    asyncio.run(ledger.append(check.call("call_1")))
    ledger.close()
    db.close()
    return made


def _trail(folder: Path) -> list[AuditRow]:
    """Oldest first."""
    db = Database(folder / "ledger.db")
    try:
        return list(Audit(db, folder / "audit").rows(ALL, limit=100))[::-1]
    finally:
        db.close()


def _detail(row: AuditRow) -> dict[str, Any]:
    found: dict[str, Any] = msgspec.json.decode(row.detail)
    return found


def test_a_backup_and_its_restore_are_in_the_trail(filled: Path, home: Home, tmp_path: Path) -> None:
    assert main(["db", "backup", str(tmp_path / "a.tar.gz"), "--json"]) == 0
    (row,) = _trail(filled)
    digest = hashlib.sha256((tmp_path / "a.tar.gz").read_bytes()).hexdigest()
    assert (row.action, _detail(row)) == ("backup", {"file": "a.tar.gz", "sha256": digest})
    assert row.actor == f"local:{getpass.getuser()}"
    new = home("new")
    assert main(["db", "restore", str(tmp_path / "a.tar.gz"), "--json"]) == 0
    (row,) = _trail(new)
    assert row.action == "restore"
    assert _detail(row)["sha256"] == digest


def test_a_move_is_in_the_trail_on_both_sides(filled: Path, tmp_path: Path) -> None:
    assert main(["db", "move", "--to", f"sqlite:///{tmp_path}/other/ledger.db", "--json"]) == 0
    (here,) = _trail(filled)
    there = _trail(tmp_path / "other")
    assert here.action == "move"
    assert _detail(here)["to"].endswith("/other/ledger.db")
    assert [row.action for row in there] == ["move", "moved"]
    assert there[0] == here
    assert _detail(there[1])["from"].endswith("/home/ledger.db")


def test_a_refused_command_changes_nothing(filled: Path, tmp_path: Path) -> None:
    (tmp_path / "a.tar.gz").touch()
    assert main(["db", "backup", str(tmp_path / "a.tar.gz"), "--json"]) == 2
    assert main(["db", "move", "--to", f"sqlite:///{filled}/ledger.db", "--json"]) == 2
    assert _trail(filled) == []


def test_a_ledger_that_takes_no_row_is_saved_all_the_same(
    filled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def older(_db: Database) -> str:
        return "0002"

    monkeypatch.setattr("windlass.ledger.move.version", older)
    assert main(["db", "backup", str(tmp_path / "a.tar.gz")]) == 0
    assert "no row of this backup" in capsys.readouterr().err
    monkeypatch.undo()
    assert _trail(filled) == []


def test_nothing_is_copied_from_half_of_a_restore(
    filled: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (filled / RESTORING).touch()
    for words in (["db", "backup", "a.tar.gz"], ["db", "move", "--to", f"sqlite:///{tmp_path}/other.db"], ["calls"]):
        assert main(words) == 1
        assert "db restore" in capsys.readouterr().err


@pytest.mark.parametrize("caught", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_lets_the_working_copy_be_removed(
    filled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caught: signal.Signals
) -> None:
    def signalled(folder: Path) -> str:
        assert list(tmp_path.glob(".windlass-backup-*"))
        os.kill(os.getpid(), caught)
        return ""

    before = signal.getsignal(caught)
    signal.signal(caught, signal.SIG_DFL)
    try:
        with monkeypatch.context() as dying:
            dying.setattr(backup, "_sha256", signalled)
            with pytest.raises(SystemExit) as ended:
                main(["db", "backup", str(tmp_path / "a.tar.gz")])
        assert signal.getsignal(caught) is signal.SIG_DFL, "the handler is taken back"
    finally:
        signal.signal(caught, before)
    assert ended.value.code == 128 + caught
    assert [path.name for path in tmp_path.iterdir()] == ["home"]


def test_no_workers_are_no_server(filled: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for count in ("0", "-1"):
        assert main(["up", "--workers", count, "--json"]) == 2
        assert f"--workers is {count}" in capsys.readouterr().out


def test_the_command_alone_knows_every_table_of_a_database(tmp_path: Path) -> None:
    """Tables are known once their room was imported, and `db move` copies what is known."""
    db = Database(tmp_path / "ledger.db")
    db.migrate()
    db.close()
    program = (
        "import sys; from pathlib import Path; import windlass.server.databases; "
        "from windlass.ledger import move; from windlass.ledger.db import Database; "
        "one = Database(Path(sys.argv[1])); move.compare(one, one)"
    )
    asked = [sys.executable, "-c", program, str(tmp_path / "ledger.db")]
    done = subprocess.run(asked, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
