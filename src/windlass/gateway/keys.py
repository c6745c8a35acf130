"""Virtual keys: made here, shown once, kept only as an HMAC under a secret that is not in the database.

A key has 256 random bits, so one fast keyed hash is enough (NIST SP 800-63B, 5.1.1.2, asks for slow ones where people
choose). Every worker holds all keys in memory and reads them again when one of them has changed any.
"""

from __future__ import annotations

import hmac
import os
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import Final

import msgspec

from windlass.errors import InputError, SettingsError
from windlass.gateway.options import LimitOptions, Role
from windlass.gateway.store import KeyTable
from windlass.ledger import ids
from windlass.ledger.db import make_folder

PREFIX: Final = "wl-"
SECRET_FILE: Final = "keys.secret"
SHOWN_CHARS: Final = 8
GRACE_S: Final = 86_400.0
_TUTORIALS = (
    "sk-1234 sk-12345 sk-123 sk-test sk-xxxx sk-master sk-admin sk-local sk-no-key-required sk-proj-1234 test "
    "secret-key password changeme admin master-key api-key apikey EMPTY none dummy anything 1234 123456"
)
WELL_KNOWN: Final = frozenset(_TUTORIALS.split(" "))
"""Keys out of tutorials and default settings, which whoever scans the net tries first."""


class VirtualKey(msgspec.Struct, frozen=True, kw_only=True):
    """One key, without the key. shown: how it begins, so that people can tell it.

    models: patterns (`gpt-5*`), endpoints: names (`chat`, `embeddings`); empty: all. Times are UTC seconds.
    previous_until: so long the key before a rotation is still good.
    """

    id: str
    name: str
    tenant: str
    workspaces: tuple[str, ...] = ("default",)
    team: str = ""
    role: Role = "operator"
    models: tuple[str, ...] = ()
    endpoints: tuple[str, ...] = ()
    limits: tuple[LimitOptions, ...] = ()
    shown: str = ""
    created_at: float = 0.0
    created_by: str = ""
    expires_at: float | None = None
    revoked_at: float | None = None
    previous_until: float | None = None

    def good(self, now: float) -> bool:
        """Whether it lets anybody in."""
        return self.revoked_at is None and (self.expires_at is None or now < self.expires_at)


class Keys:
    """The keys of a database. secret: what they are hashed under. clock: UTC seconds."""

    def __init__(self, table: KeyTable, secret: bytes, clock: Callable[[], float]):
        self._table = table
        self._secret = secret
        self._clock = clock
        self._version = -1
        self._by_digest: dict[str, VirtualKey] = {}
        self._before: dict[str, VirtualKey] = {}

    def __bool__(self) -> bool:
        """Whether there are any, be they revoked: then nobody is let in without one."""
        return bool(self._by_digest)

    def now(self) -> float:
        """UTC seconds."""
        return self._clock()

    def refresh(self) -> None:
        """Read the keys again where some process has changed them."""
        version = self._table.version()
        if version == self._version:
            return
        now, current, before = [], {}, {}
        for row in self._table.rows():
            key = msgspec.json.decode(row.data, type=VirtualKey)
            now.append(key)
            current[row.digest] = key
            if row.previous:
                before[row.previous] = key
        self._by_digest, self._before, self._version = current, before, version

    def find(self, presented: str) -> VirtualKey | None:
        """The key that `presented` is; None where it is none, or no longer."""
        digest, now = self._digest(presented), self._clock()
        found = self._by_digest.get(digest)
        if found is None:
            found = self._before.get(digest)
            if found is None or found.previous_until is None or now >= found.previous_until:
                return None
        return found if found.good(now) else None

    def all(self) -> list[VirtualKey]:
        """Every key, the newest last."""
        return sorted(self._by_digest.values(), key=lambda key: key.created_at)

    def create(self, key: VirtualKey) -> tuple[VirtualKey, str]:
        """Keep a new key; returns it and the key itself, which is never to be had again."""
        if any((one.tenant, one.name) == (key.tenant, key.name) for one in self.all()):
            raise InputError(f"there is a key {key.name!r} of tenant {key.tenant!r}; choose another name, or rotate it")
        if key.expires_at is not None and key.expires_at <= self._clock():
            raise InputError(f"key {key.name!r} would have expired already; give a time to come")
        plain, now = _fresh(), self._clock()
        made = msgspec.structs.replace(key, id=ids.new("key", now), shown=plain[:SHOWN_CHARS], created_at=now)
        self._table.put(made.id, made.tenant, self._digest(plain), "", msgspec.json.encode(made))
        self.refresh()
        return made, plain

    def rotate(self, tenant: str, name: str, grace_s: float = GRACE_S) -> tuple[VirtualKey, str]:
        """A new key in the place of another, which stays good for `grace_s` seconds."""
        digest, old = self._named(tenant, name)
        plain, until = _fresh(), self._clock() + grace_s
        made = msgspec.structs.replace(old, shown=plain[:SHOWN_CHARS], previous_until=until)
        self._table.put(made.id, made.tenant, self._digest(plain), digest, msgspec.json.encode(made))
        self.refresh()
        return made, plain

    def revoke(self, tenant: str, name: str) -> VirtualKey:
        """Let a key in no more, nor the one before it."""
        digest, old = self._named(tenant, name)
        made = msgspec.structs.replace(old, revoked_at=self._clock())
        self._table.put(made.id, made.tenant, digest, "", msgspec.json.encode(made))
        self.refresh()
        return made

    def _named(self, tenant: str, name: str) -> tuple[str, VirtualKey]:
        for digest, key in self._by_digest.items():
            if (key.tenant, key.name) == (tenant, name) and key.revoked_at is None:
                return digest, key
        raise InputError(f"tenant {tenant!r} has no key {name[:100]!r} in force; see `windlass keys list`")

    def _digest(self, plain: str) -> str:
        return hmac.digest(self._secret, plain.encode(errors="replace"), "sha256").hex()


def _fresh() -> str:
    return PREFIX + secrets.token_urlsafe(32)


def secret_of(home: Path, given: str = "") -> bytes:
    """What keys are hashed under: `given`, or the file in the state folder, which is made at the first need.

    SettingsError where it is too short to be one, or cannot be read.
    """
    if given:
        if len(given) < 32:
            raise SettingsError(f"the key secret has {len(given)} characters; give at least 32 random ones")
        return given.encode()
    path = home / SECRET_FILE
    make_folder(home)
    try:
        made = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
    except FileExistsError:
        found = path.read_bytes()
        if len(found) < 32:
            raise SettingsError(f"{path} holds {len(found)} bytes, not the 32 of a key secret; restore it") from None
        return found
    except OSError as exc:
        raise SettingsError(f"{path} cannot be made: {exc}") from exc
    with os.fdopen(made, "wb") as file:
        file.write(secrets.token_bytes(32))
        file.flush()
        os.fsync(made)
    return path.read_bytes()
