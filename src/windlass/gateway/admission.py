"""Who may call, for whom, and how much may come in: the first thing that happens to every request."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Sequence
from dataclasses import dataclass

from windlass.errors import AccessError, ErrorCategory, RequestError
from windlass.gateway.options import KeyOptions, Role
from windlass.records import DEFAULT_TENANT, DEFAULT_WORKSPACE, Scope

RANK: dict[Role, int] = {"viewer": 0, "operator": 1, "approver": 2, "admin": 3}


@dataclass(frozen=True)
class Caller:
    """Whom a request is admitted as."""

    scope: Scope
    role: Role
    key: str


class Admission:
    """Keys and sizes. Without configured keys everyone is the default tenant's admin (the server stays on loopback)."""

    def __init__(self, keys: Sequence[KeyOptions], max_body_bytes: int):
        self._keys = tuple(keys)
        self.max_body_bytes = max_body_bytes

    def admit(self, key: str, workspace: str, body_bytes: int) -> Caller:
        """The caller behind `key`. AccessError for a wrong key or workspace, RequestError (413) for a large body."""
        caller = self.identify(key, workspace)
        if body_bytes > self.max_body_bytes:
            limit = f"{self.max_body_bytes} bytes; raise gateway.max_body_bytes or send less"
            raise RequestError(f"the body has more than {limit}", status=413, code="body_too_large")
        return caller

    def knows(self, caller: Caller) -> bool:
        """Whether the key that let `caller` in is still there, with that role and workspace."""
        return not self._keys or any(
            (key.name, key.tenant, key.role) == (caller.key, caller.scope.tenant, caller.role)
            and caller.scope.workspace in key.workspaces
            for key in self._keys
        )

    def identify(self, key: str, workspace: str) -> Caller:
        """The caller behind `key`, whatever it is about to send."""
        if not self._keys:
            return Caller(Scope(DEFAULT_TENANT, DEFAULT_WORKSPACE), "admin", "")
        if not key:
            raise AccessError("no API key; send `Authorization: Bearer <key>`", category=ErrorCategory.KEY_MISSING)
        digest = hashlib.sha256(key.encode(errors="replace")).hexdigest()
        found = [known for known in self._keys if hmac.compare_digest(known.sha256, digest)]
        if not found:
            raise AccessError("the API key is not known; see [[keys]] in windlass.toml")
        wanted = workspace or found[0].workspaces[0]
        if wanted not in found[0].workspaces:
            has = f"key {found[0].name!r} has no workspace {wanted[:64]!r}; it has {found[0].workspaces}"
            raise AccessError(has, category=ErrorCategory.SCOPE_DENIED)
        return Caller(Scope(found[0].tenant, wanted), found[0].role, found[0].name)


def require(caller: Caller, role: Role) -> None:
    """AccessError unless the caller's role is at least `role`."""
    if RANK[caller.role] < RANK[role]:
        has = f"this needs the role {role}; key {caller.key!r} has {caller.role}"
        raise AccessError(has, category=ErrorCategory.SCOPE_DENIED)
