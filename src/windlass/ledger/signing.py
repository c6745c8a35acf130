"""Ed25519 signatures (RFC 8032) with a folder's key, made by a process of their own that ends at once.

A server signs a few times an hour, and would hold the library for it, 10 MB, from its start to its end; so the private
key, too, is never in the memory of the process that strangers talk to. Where the library is loaded anyway, or no
process can be started, this process signs by itself.

    python -m windlass.ledger.signing FOLDER

prints the public key, then for each line of its input, hexadecimal like all it says, the signature.
"""

from __future__ import annotations

import base64
import os
import select
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from subprocess import DEVNULL, PIPE
from typing import TYPE_CHECKING, Final, Protocol, Self

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    from windlass.errors import LedgerError

MODULE: Final = "windlass.ledger.signing"
PRIVATE: Final = "key.pem"
PUBLIC: Final = "key.pub"
ANSWER_S: Final = 20.0
"""A process that says nothing for so long is ended."""
_LIBRARY: Final = "cryptography.hazmat.bindings._rust"
_REFUSED: Final = "refused "
# All that stands before the 32 bytes of an Ed25519 key in DER (RFC 8410, sections 4 and 7).
_PKCS8: Final = bytes.fromhex("302e020100300506032b657004220420")
_SPKI: Final = bytes.fromhex("302a300506032b6570032100")


class Signer(Protocol):
    """Signs with one key. public: its 32 public bytes."""

    @property
    def public(self) -> bytes: ...

    def sign(self, data: bytes) -> bytes:
        """The signature, 64 bytes; LedgerError where none can be had."""
        ...


@contextmanager
def signer(folder: Path) -> Iterator[Signer]:
    """Who signs with the key of `folder`, which is made where there is none. LedgerError where it cannot be used."""
    apart = None if _LIBRARY in sys.modules else _Apart.begin(folder)
    try:
        yield apart or _Here(folder)
    finally:
        if apart is not None:
            apart.end()


class _Here:
    """This process signs."""

    def __init__(self, folder: Path):
        self._key = _key(folder)
        self.public = self._key.public_key().public_bytes_raw()

    def sign(self, data: bytes) -> bytes:
        return self._key.sign(data)


class _Apart:
    """Another process signs; `begin` starts it."""

    public = b""

    def __init__(self, child: subprocess.Popen[bytes]):
        assert child.stdin is not None
        assert child.stdout is not None
        self._child, self._asked, self._said = child, child.stdin, child.stdout

    @classmethod
    def begin(cls, folder: Path) -> Self | None:
        """One that has told its public key; None where no process can be started. LedgerError where it has no key."""
        # -P: the folder that the server was started in is no place to import from.
        command = [sys.executable, "-P", "-m", MODULE, str(folder)]
        try:
            # In a session of its own it gets no signal that is meant for this one.
            child = subprocess.Popen(command, stdin=PIPE, stdout=PIPE, stderr=DEVNULL, start_new_session=True)
        except OSError:
            return None
        made = cls(child)
        said = made._line()
        if said.startswith(_REFUSED):
            made.end()
            raise _unusable(said.removeprefix(_REFUSED))
        made.public = _bytes(said, 32)
        if not made.public:
            made.end()
            return None
        return made

    def sign(self, data: bytes) -> bytes:
        with suppress(OSError):  # it has ended, which its silence tells
            self._asked.write(data.hex().encode() + b"\n")
            self._asked.flush()
        signature = _bytes(self._line(), 64)
        if not signature:
            raise _unusable(f"process {self._child.pid} ended before it signed; the next checkpoint signs for this one")
        return signature

    def _line(self) -> str:
        """The next line that it says; '' where it ended, or is silent for too long."""
        waiting = select.poll()
        waiting.register(self._said, select.POLLIN)
        if not waiting.poll(ANSWER_S * 1_000):
            self._child.kill()
        return self._said.readline().decode(errors="replace").strip()

    def end(self) -> None:
        """Close its input, and wait until it is gone."""
        with suppress(OSError):
            self._asked.close()
        try:
            self._child.wait(ANSWER_S)
        except subprocess.TimeoutExpired:
            self._child.kill()
            self._child.wait()
        self._said.close()


def _bytes(said: str, count: int) -> bytes:
    """What was said in hexadecimal; b'' where it is not so many bytes."""
    try:
        found = bytes.fromhex(said)
    except ValueError:
        return b""
    return found if len(found) == count else b""


def _unusable(why: str) -> LedgerError:
    from windlass.errors import LedgerError  # 0.03 s, and the process that signs hardly ever needs it

    return LedgerError(why)


def _key(folder: Path) -> Ed25519PrivateKey:
    """The private key of `folder`; both files are made where they are not there."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    path = folder / PRIVATE
    if not path.exists():
        fresh = Ed25519PrivateKey.generate().private_bytes_raw()
        _make(path, _pem("PRIVATE KEY", _PKCS8 + fresh), 0o600)
    try:
        key = _read(path.read_bytes())
    except (OSError, ValueError, TypeError) as exc:
        raise _unusable(f"{path} holds no key that can be used: {exc}; put the right one back") from exc
    if not isinstance(key, Ed25519PrivateKey):
        raise _unusable(f"{path} is no Ed25519 key; put the right one back")
    public = folder / PUBLIC
    if not public.exists():
        _make(public, _pem("PUBLIC KEY", _SPKI + key.public_key().public_bytes_raw()), 0o644)
    return key


def _read(pem: bytes) -> object:
    """The private key in a PEM file. Of another form than ours it takes the rest of the library, for 0.03 s."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    lines = pem.strip().splitlines()
    if len(lines) == 3 and lines[0] == b"-----BEGIN PRIVATE KEY-----" and lines[2] == b"-----END PRIVATE KEY-----":
        der = base64.b64decode(lines[1])
        if der.startswith(_PKCS8) and len(der) == len(_PKCS8) + 32:
            return Ed25519PrivateKey.from_private_bytes(der[len(_PKCS8) :])
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    return load_pem_private_key(pem, None)


def _pem(label: str, der: bytes) -> bytes:
    return f"-----BEGIN {label}-----\n{base64.b64encode(der).decode()}\n-----END {label}-----\n".encode()


def _make(path: Path, data: bytes, mode: int) -> None:
    """A new file with all of `data`; where another process was first, its file stays."""
    beside = path.with_name(f"{path.name}.{os.getpid()}.{threading.get_ident()}")
    try:
        with open(beside, "wb", opener=lambda name, flags: os.open(name, flags | os.O_EXCL, mode)) as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        try:
            os.link(beside, path)
        except FileExistsError:
            pass
        finally:
            beside.unlink()
    except OSError as exc:
        raise _unusable(f"{path} cannot be written: {exc}; the audit trail needs its key") from exc


def main() -> int:
    """Sign what comes, until no more comes."""
    try:
        here = _Here(Path(sys.argv[1]))
    except Exception as exc:  # noqa: BLE001 (whatever it is, the process that asks is to raise it)
        _say(f"{_REFUSED}{' '.join(str(exc).split())}")
        return 1
    _say(here.public.hex())
    for line in sys.stdin:
        _say(here.sign(bytes.fromhex(line)).hex())
    return 0


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
