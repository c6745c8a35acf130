"""Who may call, for whom, and how much may come in: the first thing that happens to every request."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Sequence
from fnmatch import fnmatchcase

import msgspec

from windlass.errors import AccessError, ErrorCategory, RequestError
from windlass.gateway.access.keys import Keys, VirtualKey
from windlass.gateway.options import KeyOptions, LimitOptions, Role
from windlass.records import DEFAULT_TENANT, DEFAULT_WORKSPACE, Scope

RANK: dict[Role, int] = {"viewer": 0, "operator": 1, "approver": 2, "admin": 3}


class Caller(msgspec.Struct, frozen=True):
    """Whom a request is admitted as. models: patterns (`gpt-5*`); empty: all. limits: of the key itself.

    virtual: the id of the key where it is not one of the settings.
    """

    scope: Scope
    role: Role
    key: str
    team: str = ""
    models: tuple[str, ...] = ()
    endpoints: tuple[str, ...] = ()
    limits: tuple[LimitOptions, ...] = ()
    virtual: str | None = None

    def may(self, endpoint: str, model: str) -> bool:
        """Whether the key's scopes hold an endpoint and a model; empty ones hold all."""
        return (not self.endpoints or endpoint in self.endpoints) and (
            not self.models or any(fnmatchcase(model, pattern) for pattern in self.models)
        )


class Admission:
    """Keys and sizes. Without any keys everyone is the default tenant's admin (the server stays on loopback).

    keys: of the settings; virtual: those that were made by `windlass keys create`.
    """

    def __init__(
        self,
        keys: Sequence[KeyOptions],
        max_body_bytes: int,
        max_upload_bytes: int | None = None,
        virtual: Keys | None = None,
    ):
        self._virtual = virtual
        self.renew(keys, max_body_bytes, max_upload_bytes)

    def renew(self, keys: Sequence[KeyOptions], max_body_bytes: int, max_upload_bytes: int | None = None) -> None:
        """Other keys of the settings, and other sizes, from now on."""
        self._keys = tuple(keys)
        self._named = frozenset((key.name, key.tenant, key.role, one) for key in keys for one in key.workspaces)
        self.max_body_bytes = max_body_bytes
        self.max_upload_bytes = max_upload_bytes or max_body_bytes

    def admit(self, key: str, workspace: str, body_bytes: int) -> Caller:
        """The caller behind `key`. AccessError for a wrong key or workspace, RequestError (413) for a large body."""
        caller = self.identify(key, workspace)
        if body_bytes > max(self.max_body_bytes, self.max_upload_bytes):
            limit = f"{self.max_body_bytes} bytes; raise gateway.max_body_bytes or send less"
            raise RequestError(f"the body has more than {limit}", status=413, code="body_too_large")
        return caller

    def knows(self, caller: Caller) -> bool:
        """Whether the key that let `caller` in is still there, with that role and workspace."""
        if caller.virtual is not None:
            key = self._virtual.get(caller.virtual) if self._virtual is not None else None
            return key is not None and self._virtual is not None and key.good(self._virtual.now())
        return self.open or self._is_named(caller)

    def _is_named(self, caller: Caller) -> bool:
        """Whether the settings have a key of that name, with that role and workspace."""
        return (caller.key, caller.scope.tenant, caller.role, caller.scope.workspace) in self._named

    def current(self, caller: Caller) -> Caller:
        """A caller that was let in before, with what its key allows by now. AccessError where it allows nothing.

        Its key may have gone while its body came in: revoked, or out of the settings by a reload. Who was let in
        without a key, because nobody needed one yet, may finish.
        """
        if caller.virtual is None or self._virtual is None:
            if caller.key and not self._is_named(caller):
                raise AccessError(f"key {caller.key!r} is no longer in the settings, or not as it was; use another")
            return caller
        key = self._virtual.get(caller.virtual)
        if key is None or not key.good(self._virtual.now()):
            raise AccessError(f"key {caller.key!r} is no longer good; see `windlass keys list`")
        if key.role == caller.role and (key.team, key.models, key.endpoints, key.limits) == (
            caller.team,
            caller.models,
            caller.endpoints,
            caller.limits,
        ):
            return caller
        return msgspec.structs.replace(
            caller, team=key.team, models=key.models, endpoints=key.endpoints, limits=key.limits, role=key.role
        )

    def workspaces(self, caller: Caller) -> tuple[str, ...]:
        """The workspaces of the key that let `caller` in."""
        if caller.virtual is not None:
            key = self._virtual.get(caller.virtual) if self._virtual is not None else None
            return key.workspaces if key is not None else ()
        named = (caller.key, caller.scope.tenant)
        return next((key.workspaces for key in self._keys if (key.name, key.tenant) == named), ())

    @property
    def open(self) -> bool:
        """Whether nobody needs a key."""
        return not self._keys and (self._virtual is None or not self._virtual.any)

    def identify(self, key: str, workspace: str) -> Caller:
        """The caller behind `key`, whatever it is about to send."""
        if self.open:
            return Caller(Scope(DEFAULT_TENANT, DEFAULT_WORKSPACE), "admin", "")
        if not key:
            raise AccessError("no API key; send `Authorization: Bearer <key>`", category=ErrorCategory.KEY_MISSING)
        made = self._virtual.find(key) if self._virtual is not None and self._virtual.any else None
        if made is not None:
            scope = Scope(made.tenant, _workspace(made, workspace))
            return Caller(
                scope, made.role, made.name, made.team, made.models, made.endpoints, made.limits, virtual=made.id
            )
        digest = hashlib.sha256(key.encode(errors="replace")).hexdigest()
        found = [known for known in self._keys if hmac.compare_digest(known.sha256, digest)]
        if not found:
            raise AccessError("the API key is not known, or no longer good; see `windlass keys list`")
        return Caller(Scope(found[0].tenant, _workspace(found[0], workspace)), found[0].role, found[0].name)


def _workspace(key: KeyOptions | VirtualKey, wanted: str) -> str:
    """The workspace that is asked for, or the key's first. AccessError where it is none of the key's."""
    if wanted and wanted not in key.workspaces:
        has = f"key {key.name!r} has no workspace {wanted[:64]!r}; it has {key.workspaces}"
        raise AccessError(has, category=ErrorCategory.SCOPE_DENIED)
    return wanted or key.workspaces[0]


def require(caller: Caller, role: Role) -> None:
    """AccessError unless the caller's role is at least `role`."""
    if RANK[caller.role] < RANK[role]:
        has = f"this needs the role {role}; key {caller.key!r} has {caller.role}"
        raise AccessError(has, category=ErrorCategory.SCOPE_DENIED)
