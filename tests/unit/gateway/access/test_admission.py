"""Who may call."""

from __future__ import annotations

import hashlib

import pytest

from windlass.errors import AccessError, RequestError
from windlass.gateway.access.admission import Admission, Caller, require
from windlass.gateway.options import KeyOptions
from windlass.records import Scope

SECRET = "wl-secret"
KEY = KeyOptions(
    name="ops", sha256=hashlib.sha256(SECRET.encode()).hexdigest(), tenant="acme", workspaces=("one", "two")
)


def test_without_keys_everyone_is_the_default_tenant() -> None:
    assert Admission((), 1024).admit("whatever", "", 10) == Caller(Scope(), "admin", "")


def test_a_key_gives_its_tenant_and_first_workspace() -> None:
    assert Admission([KEY], 1024).admit(SECRET, "", 10).scope == Scope("acme", "one")


def test_the_header_chooses_within_the_keys_workspaces() -> None:
    assert Admission([KEY], 1024).admit(SECRET, "two", 10).scope == Scope("acme", "two")
    with pytest.raises(AccessError, match="has no workspace 'three'"):
        Admission([KEY], 1024).admit(SECRET, "three", 10)


@pytest.mark.parametrize("key", ["", "wrong", SECRET + " ", "\ud800", "x" * 100_000])
def test_a_wrong_key_is_refused_and_not_repeated(key: str) -> None:
    with pytest.raises(AccessError) as refused:
        Admission([KEY], 1024).admit(key, "", 10)
    assert not key or key not in str(refused.value)


def test_a_large_body_is_refused() -> None:
    with pytest.raises(RequestError) as refused:
        Admission((), 1024).admit("", "", 1025)
    assert refused.value.status == 413


def test_roles_rank() -> None:
    caller = Caller(Scope(), "operator", "ops")
    require(caller, "viewer")
    require(caller, "operator")
    with pytest.raises(AccessError, match="needs the role admin"):
        require(caller, "admin")
