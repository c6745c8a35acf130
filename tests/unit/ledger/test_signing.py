"""Signatures with the trail's key: by a process of their own, by this one where none can be had, never by neither."""

from __future__ import annotations

import io
import json
import os
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from windlass.errors import LedgerError
from windlass.ledger import checkpoint, signing
from windlass.ledger.signing import PRIVATE, PUBLIC, signer

DATA = b"\x00 what is signed \xff"
PROBE = """
import json, sys
from pathlib import Path
from windlass.ledger.checkpoint import Checkpoints
with Checkpoints(Path(sys.argv[1])).signer() as signer:
    told = [signer.public.hex(), signer.sign(bytes.fromhex(sys.argv[2])).hex()]
print(json.dumps([*told, [name for name in sys.modules if name.startswith("cryptography")]]))
"""


@pytest.fixture
def apart(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a process that has not loaded the library; this one has."""
    monkeypatch.setattr(signing, "_LIBRARY", "not.loaded")


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)  # nobody was left behind


def verified(public: bytes, signature: bytes) -> bool:
    Ed25519PublicKey.from_public_bytes(public).verify(signature, DATA)
    return True


def refused(folder: Path) -> str:
    with pytest.raises(LedgerError) as caught, signer(folder):
        pass
    return str(caught.value)


def test_a_fresh_process_signs_without_loading_the_library(tmp_path: Path) -> None:
    command = [sys.executable, "-c", PROBE, str(tmp_path / "audit"), DATA.hex()]
    ran = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    public, signature, loaded = json.loads(ran.stdout)
    assert verified(bytes.fromhex(public), bytes.fromhex(signature))
    assert loaded == []
    written = checkpoint.public_key(tmp_path / "audit" / PUBLIC)
    assert written.public_bytes_raw().hex() == public


@pytest.mark.usefixtures("apart")
def test_a_process_of_its_own_signs_as_this_one_would(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with signer(folder) as other:
        assert isinstance(other, signing._Apart)
        signatures = [other.sign(DATA), other.sign(b""), other.sign(DATA)]
        public = other.public
    monkeypatch.undo()
    with signer(folder) as here:
        assert not isinstance(here, signing._Apart)
        assert here.public == public
        assert [here.sign(DATA), here.sign(b"")] == signatures[:2], "Ed25519 has one signature for a message"
    assert verified(public, signatures[2])
    assert stat.S_IMODE((folder / PRIVATE).stat().st_mode) == 0o600
    assert sorted(path.name for path in folder.iterdir()) == [PRIVATE, PUBLIC]


def test_the_files_are_those_that_the_library_writes(folder: Path) -> None:
    with signer(folder) as made:
        public = made.public
    key = serialization.load_pem_private_key((folder / PRIVATE).read_bytes(), None)
    assert isinstance(key, Ed25519PrivateKey)
    assert key.public_key().public_bytes_raw() == public
    pem, pkcs8, spki = (
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.PublicFormat.SubjectPublicKeyInfo,
    )
    assert (folder / PRIVATE).read_bytes() == key.private_bytes(pem, pkcs8, serialization.NoEncryption())
    assert (folder / PUBLIC).read_bytes() == key.public_key().public_bytes(pem, spki)


@pytest.mark.parametrize("text", ["{}\n\n", "\n\n{}", "# mine\n{}"])
def test_a_key_that_was_written_in_another_form_is_read_all_the_same(folder: Path, text: str) -> None:
    with signer(folder) as made:
        public = made.public
    (folder / PRIVATE).write_text(text.format((folder / PRIVATE).read_text()))
    with signer(folder) as again:
        assert again.public == public


@pytest.mark.usefixtures("apart")
@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"no key",
        b"-----BEGIN PRIVATE KEY-----\n",
        b"-----BEGIN PRIVATE KEY-----\nMC4CAQ==\n-----END PRIVATE KEY-----\n",
        b"-----BEGIN PRIVATE KEY-----\n\xff\n-----END PRIVATE KEY-----\n",
    ],
)
def test_what_is_no_key_is_named_whoever_looks(folder: Path, content: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / PRIVATE).write_bytes(content)
    told = refused(folder)
    assert f"{folder / PRIVATE} holds no key that can be used" in told
    assert "put the right one back" in told
    monkeypatch.undo()
    assert "put the right one back" in refused(folder)


def test_a_key_of_another_kind_is_refused(folder: Path) -> None:
    made = rsa.generate_private_key(65537, 2048)
    pkcs8 = serialization.PrivateFormat.PKCS8
    (folder / PRIVATE).write_bytes(made.private_bytes(serialization.Encoding.PEM, pkcs8, serialization.NoEncryption()))
    assert "is no Ed25519 key" in refused(folder)


def test_a_folder_that_is_none_is_named(tmp_path: Path) -> None:
    assert "the audit trail needs its key" in refused(tmp_path / "away")


@pytest.mark.usefixtures("apart")
@pytest.mark.parametrize(
    ("name", "value"), [("executable", "/no/such/python"), ("executable", ""), ("module", "windlass.no_such_module")]
)
def test_where_no_process_can_be_had_this_one_signs(
    folder: Path, monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    if name == "module":
        monkeypatch.setattr(signing, "MODULE", value)
    else:
        monkeypatch.setattr(sys, "executable", value)
    with signer(folder) as here:
        assert verified(here.public, here.sign(DATA))


@pytest.mark.usefixtures("apart")
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_a_process_that_ends_or_hangs_before_it_signed_is_an_error(
    folder: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    with signer(folder) as other:
        assert isinstance(other, signing._Apart)
        monkeypatch.setattr(signing, "ANSWER_S", 0.2)
        os.kill(other._child.pid, number)
        with pytest.raises(LedgerError, match="the next checkpoint signs for this one"):
            other.sign(DATA)


@pytest.mark.usefixtures("apart")
def test_a_process_that_says_nothing_is_not_waited_for(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "sleeper.py").write_text("import time; time.sleep(60)")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(signing, "MODULE", "sleeper")
    monkeypatch.setattr(signing, "ANSWER_S", 0.3)
    with signer(folder) as here:
        assert verified(here.public, here.sign(DATA))


def test_what_the_process_says(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["signing", str(folder)])
    monkeypatch.setattr(sys, "stdin", io.StringIO(f"{DATA.hex()}\n\n"))
    assert signing.main() == 0
    public, first, second = map(bytes.fromhex, capsys.readouterr().out.split())
    assert verified(public, first)
    assert len(second) == 64
    (folder / PRIVATE).write_bytes(b"no\nkey")
    assert signing.main() == 1
    assert capsys.readouterr().out.startswith("refused ")
