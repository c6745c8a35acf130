"""What lies sealed in the database: AES-256-GCM under keys that are derived from the key secret (HKDF, RFC 5869).

Each tenant has keys of its own, and each call one of its tenant's, so that no nonce can meet the same key twice (NIST
SP 800-38D, 8.3, bounds random nonces under one key). The secret is not in the database: who has the rows alone reads
nothing, and what was changed, or put in another's place, does not open.
"""

from __future__ import annotations

import hmac
import os
from typing import Final

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from windlass.errors import ErrorCategory, LedgerError

MARK_CHARS: Final = 16
_VERSION: Final = b"\x01"
_NONCE_BYTES: Final = 12
_KEY_BYTES: Final = 32


class Vault:
    """Seals and opens under one secret. mark: tells secrets apart, and nothing about them."""

    def __init__(self, secret: bytes):
        self._secret = secret
        self.mark = hmac.digest(self._derived("mark"), b"", "sha256").hex()[:MARK_CHARS]

    def digest(self, tenant: str, *parts: bytes) -> str:
        """What stands for `parts` in the database; nobody without the secret can guess them from it."""
        keyed = hmac.new(self._derived("request", tenant), digestmod="sha256")
        for part in parts:
            keyed.update(len(part).to_bytes(8, "big"))
            keyed.update(part)
        return keyed.hexdigest()

    def seal(self, tenant: str, call: str, plain: bytes, place: tuple[str, ...]) -> bytes:
        """`plain` as it may lie in the database. place: where it will lie, without which it does not open."""
        nonce = os.urandom(_NONCE_BYTES)
        return _VERSION + nonce + AESGCM(self._derived("reply", tenant, call)).encrypt(nonce, plain, _bound(place))

    def open(self, tenant: str, call: str, sealed: bytes, place: tuple[str, ...]) -> bytes:
        """What was sealed. LedgerError where a bit of it, its call or its place is another one."""
        nonce, rest = sealed[1 : 1 + _NONCE_BYTES], sealed[1 + _NONCE_BYTES :]
        try:
            if sealed[:1] != _VERSION or len(nonce) != _NONCE_BYTES:
                raise InvalidTag
            return AESGCM(self._derived("reply", tenant, call)).decrypt(nonce, rest, _bound(place))
        except InvalidTag as exc:
            remedy = "restore the database from a backup, or send the request under another Idempotency-Key"
            message = f"the stored reply of call {call[:100]!r} was changed in the database; {remedy}"
            raise LedgerError(message, category=ErrorCategory.DATABASE_CORRUPT) from exc

    def _derived(self, *names: str) -> bytes:
        info = msgspec.msgpack.encode(("windlass replies", *names))
        return HKDF(algorithm=SHA256(), length=_KEY_BYTES, salt=None, info=info).derive(self._secret)


def _bound(place: tuple[str, ...]) -> bytes:
    return msgspec.msgpack.encode(place)
