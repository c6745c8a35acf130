"""Virtual keys: made here, shown once, kept only as an HMAC under a secret that is not in the database.

A key has 256 random bits, so one fast keyed hash is enough (NIST SP 800-63B, 5.1.1.2, asks for slow ones where people
choose). Every worker holds all keys in memory and reads them again when one of them has changed any.
"""

from __future__ import annotations

import contextlib
import hmac
import os
import secrets
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Final, NamedTuple

import msgspec

from windlass.errors import InputError, LedgerError, SettingsError
from windlass.gateway.access.store import KeyRow, KeyTable
from windlass.gateway.options import LimitOptions, Role
from windlass.ledger import ids
from windlass.ledger.db import make_folder

PREFIX: Final = "wl-"
SECRET_FILE: Final = "keys.secret"
SECRET_BYTES: Final = 32
SHOWN_CHARS: Final = 8
MARK_CHARS: Final = 16
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
    previous_until: so long the key before a rotation is still good. under: which secret it was hashed under.
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
    under: str = ""

    def good(self, now: float) -> bool:
        """Whether it lets anybody in."""
        return self.revoked_at is None and (self.expires_at is None or now < self.expires_at)


class _Held(NamedTuple):
    """What a process knows of the keys; replaced as one, so that a reader in another thread sees no half of it."""

    version: int
    current: dict[str, VirtualKey]
    before: dict[str, VirtualKey]
    by_id: dict[str, VirtualKey]


class Keys:
    """The keys of a database. secret: what they are hashed under. clock: UTC seconds. Safe to use from many threads;
    all but `find` and `get` read or write the database."""

    def __init__(self, table: KeyTable, secret: bytes, clock: Callable[[], float]):
        self._table = table
        # Keyed once and copied: a quarter of the cost of `hmac.digest`, which gives up the interpreter as well.
        self._keyed = hmac.new(secret, digestmod="sha256")
        self._clock = clock
        self._held = _Held(-1, {}, {}, {})
        self.any = False
        self._changing = threading.RLock()
        self.mark = self._digest("windlass key secret")[:MARK_CHARS]

    def now(self) -> float:
        """UTC seconds."""
        return self._clock()

    def refresh(self) -> None:
        """Read the keys again where some process has changed them. LedgerError where they cannot be read."""
        with self._changing:
            version = self._table.version()
            if version == self._held.version:
                return
            current, before, by_id = {}, {}, {}
            for row in self._table.rows():
                key = by_id[row.id] = current[row.digest] = _decoded(row)
                if row.previous:
                    before[row.previous] = key
            self._held = _Held(version, current, before, by_id)
            self.any = self.any or bool(current)

    def find(self, presented: str) -> VirtualKey | None:
        """The key that `presented` is; None where it is none, or no longer."""
        held, digest, now = self._held, self._digest(presented), self._clock()
        found = held.current.get(digest)
        if found is None:
            found = held.before.get(digest)
            if found is None or found.previous_until is None or now >= found.previous_until:
                return None
        return found if found.good(now) else None

    def get(self, key: str) -> VirtualKey | None:
        """The key of that id, in force or not."""
        return self._held.by_id.get(key)

    def all(self) -> list[VirtualKey]:
        """Every key, the newest last."""
        return sorted(self._held.by_id.values(), key=lambda key: (key.created_at, key.id))

    def strange(self) -> list[VirtualKey]:
        """Keys that would be good, were they not hashed under another secret than the one in force."""
        now = self._clock()
        return [key for key in self.all() if key.good(now) and key.under != self.mark]

    def create(self, key: VirtualKey) -> tuple[VirtualKey, str]:
        """Keep a new key; returns it and the key itself, which is never to be had again.

        InputError where the tenant has one of that name, be it revoked: two of one name could not be told apart in the
        audit trail, and would share what they spent.
        """
        if key.expires_at is not None and key.expires_at <= self._clock():
            raise InputError(f"key {key.name!r} would have expired already; give a time to come")
        plain, now = _fresh(), self._clock()
        made = msgspec.structs.replace(
            key, id=ids.new("key", now), shown=plain[:SHOWN_CHARS], created_at=now, under=self.mark
        )

        def change() -> tuple[VirtualKey, str, str]:
            for one in self.all():
                if (one.tenant, one.name) == (key.tenant, key.name):
                    remedy = "choose another name" + (", or rotate it" if one.revoked_at is None else "; it is revoked")
                    raise InputError(f"tenant {key.tenant!r} has a key {key.name!r}; {remedy}")
            return made, self._digest(plain), ""

        return self._changed(change), plain

    def rotate(self, tenant: str, name: str, grace_s: float = GRACE_S) -> tuple[VirtualKey, str]:
        """A new key in the place of another, which stays good for `grace_s` seconds; one that was rotated away before
        it is good no longer."""
        plain = _fresh()

        def change() -> tuple[VirtualKey, str, str]:
            digest, old = self._named(tenant, name)
            now = self._clock()
            if not old.good(now):
                raise InputError(f"key {name!r} has expired, and so would the new one; create another")
            until = now + grace_s if grace_s > 0 else None
            made = msgspec.structs.replace(old, shown=plain[:SHOWN_CHARS], previous_until=until, under=self.mark)
            return made, self._digest(plain), digest if until is not None else ""

        return self._changed(change), plain

    def revoke(self, tenant: str, name: str) -> VirtualKey:
        """Let a key in no more, nor the one before it."""

        def change() -> tuple[VirtualKey, str, str]:
            digest, old = self._named(tenant, name)
            return msgspec.structs.replace(old, revoked_at=self._clock(), previous_until=None), digest, ""

        return self._changed(change)

    def _changed(self, change: Callable[[], tuple[VirtualKey, str, str]]) -> VirtualKey:
        """Keep what `change` makes of the newest keys; made anew where another process was first."""
        with self._changing:
            while True:
                self.refresh()
                made, digest, previous = change()
                data = msgspec.json.encode(made)
                if self._table.put(made.id, made.tenant, digest, previous, data, known=self._held.version):
                    self.refresh()
                    return made

    def _named(self, tenant: str, name: str) -> tuple[str, VirtualKey]:
        for digest, key in self._held.current.items():
            if (key.tenant, key.name) == (tenant, name) and key.revoked_at is None:
                return digest, key
        raise InputError(f"tenant {tenant!r} has no key {name[:100]!r} in force; see `windlass keys list`")

    def _digest(self, plain: str) -> str:
        keyed = self._keyed.copy()
        keyed.update(plain.encode(errors="replace"))
        return keyed.hexdigest()


def _decoded(row: KeyRow) -> VirtualKey:
    try:
        return msgspec.json.decode(row.data, type=VirtualKey)
    except msgspec.MsgspecError as exc:
        raise LedgerError(f"key {row.id} cannot be read: {exc}; restore a backup, or update windlass") from exc


def _fresh() -> str:
    return PREFIX + secrets.token_urlsafe(32)


def secret_of(home: Path, given: str = "") -> bytes:
    """What keys are hashed under: `given`, or the file in the state folder, which is made at the first need.

    SettingsError where it is too short to be one, or cannot be read.
    """
    if given:
        if len(given) < SECRET_BYTES:
            raise SettingsError(f"the key secret has {len(given)} characters; give at least {SECRET_BYTES} random ones")
        return given.encode()
    path = home / SECRET_FILE
    make_folder(home)
    try:
        if not path.exists():
            _make_secret(path)
        found = path.read_bytes()
    except OSError as exc:
        raise SettingsError(f"{path} cannot be read or made: {exc}; make it this user's own") from exc
    if len(found) < SECRET_BYTES:
        raise SettingsError(f"{path} holds {len(found)} bytes, not the {SECRET_BYTES} of a key secret; restore it")
    return found


def _make_secret(path: Path) -> None:
    """Make the file whole at once: nobody reads a half, and whoever comes second keeps what the first one made."""
    fresh = path.with_name(f"{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
    with open(os.open(fresh, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "wb") as file:
        file.write(secrets.token_bytes(SECRET_BYTES))
        file.flush()
        os.fsync(file.fileno())
    try:
        with contextlib.suppress(FileExistsError):
            os.link(fresh, path)
    finally:
        fresh.unlink()
