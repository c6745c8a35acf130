"""Signed checkpoints of the audit trail, in a file outside the database.

Each line of `checkpoints.jsonl` holds a place of the trail with its digest, signed with Ed25519 (RFC 8032), and the
digest of the line before. Whoever can write the database alone cannot make a line; whoever holds `key.pem` can
(`signing.py`).
"""

from __future__ import annotations

import fcntl
import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING

import msgspec

from windlass.errors import InputError, LedgerError
from windlass.ledger import signing
from windlass.ledger.db import make_folder
from windlass.ledger.signing import Signer

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

FILE = "checkpoints.jsonl"
_PURPOSE = "windlass audit checkpoint 1"


class Checkpoint(msgspec.Struct, frozen=True, kw_only=True):
    """One line. place, digest: of the audit row it signs; sealed: the ledger's place up to which rows are sealed;
    key: the fingerprint of the signing key; previous: the digest of the line before, '' for the first."""

    number: int
    place: int
    digest: str
    at: float
    sealed: int
    key: str
    previous: str
    signature: str = ""

    def signed(self) -> bytes:
        """The bytes under the signature: every field but itself, in this order."""
        fields = (self.number, self.place, self.digest, self.at, self.sealed, self.key, self.previous)
        return msgspec.msgpack.encode((_PURPOSE, *fields))

    def line(self) -> bytes:
        """As it stands in the file."""
        return msgspec.json.encode(self) + b"\n"


class Tail(msgspec.Struct):
    """The open file's last line: its checkpoint's number and place, and its digest; 0, 0 and '' where there is none."""

    number: int = 0
    place: int = 0
    digest: str = ""


class Checkpoints:
    """The folder with the file and the key pair. The pair is made with the first signature."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.path = folder / FILE

    @contextmanager
    def writing(self) -> Iterator[tuple[IO[bytes], Tail]]:
        """The file, locked against other processes, and its last line. LedgerError where it cannot be written."""
        make_folder(self.folder)
        try:
            with open(self.path, "a+b", opener=_private) as file:
                fcntl.flock(file, fcntl.LOCK_EX)
                yield file, _tail(file)
        except OSError as exc:
            raise LedgerError(f"{self.path} cannot be written: {exc}; the audit trail goes on unsigned") from exc

    @contextmanager
    def signer(self) -> Iterator[Signer]:
        """Who signs with this folder's key, which is made where there is none."""
        make_folder(self.folder)
        with signing.signer(self.folder) as made:
            yield made

    def write(self, file: IO[bytes], unsigned: Checkpoint, signer: Signer) -> Checkpoint:
        """Sign, append and sync one line."""
        done = msgspec.structs.replace(unsigned, signature=signer.sign(unsigned.signed()).hex())
        file.write(done.line())
        file.flush()
        os.fsync(file.fileno())
        return done

    def fingerprint(self) -> str:
        """Of this folder's key, which is made where there is none."""
        with self.signer() as signer:
            return fingerprint(signer.public)

    def last(self) -> Tail:
        """The last line; makes nothing."""
        try:
            with self.path.open("rb") as file:
                return _tail(file)
        except FileNotFoundError:
            return Tail()
        except OSError as exc:
            raise LedgerError(f"{self.path} cannot be read: {exc}; give its owner the right to") from exc


def public_key(path: Path) -> Ed25519PublicKey:
    """The key in a PEM file. InputError where there is none."""
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    try:
        key = serialization.load_pem_public_key(path.read_bytes())
    except (OSError, ValueError) as exc:
        raise InputError(f"{path} holds no public key: {exc}; name the right file with --public-key") from exc
    if not isinstance(key, Ed25519PublicKey):
        raise InputError(f"{path} is no Ed25519 key; name the right file with --public-key")
    return key


def fingerprint(public: bytes) -> str:
    """What to write down elsewhere: SHA-256 over the 32 bytes of the public key."""
    return "sha256:" + hashlib.sha256(public).hexdigest()


def genuine(line: Checkpoint, key: Ed25519PublicKey) -> bool:
    """Whether the signature is this key's, over exactly these fields."""
    from cryptography.exceptions import InvalidSignature

    try:
        key.verify(bytes.fromhex(line.signature), line.signed())
    except (InvalidSignature, ValueError):
        return False
    return True


def digest_of(line: bytes) -> str:
    """What the next line, and the trail's next checkpoint row, say of this one."""
    return hashlib.sha256(line).hexdigest()


def _tail(file: IO[bytes]) -> Tail:
    """The last whole line; one that a crash cut off is taken away where the file is open for writing."""
    size = file.seek(0, os.SEEK_END)
    file.seek(max(0, size - 4096))
    data = file.read()
    end = data.rfind(b"\n") + 1
    if end < len(data) and file.writable():
        file.truncate(size - len(data) + end)
    line = data[data.rfind(b"\n", 0, max(end - 1, 0)) + 1 : end]
    if not line:
        return Tail()
    try:
        read = msgspec.json.decode(line, type=Checkpoint)
    except msgspec.MsgspecError as exc:
        raise LedgerError(f"the last line of the checkpoints is none ({exc}); run `windlass audit verify`") from exc
    return Tail(read.number, read.place, digest_of(line))


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)
