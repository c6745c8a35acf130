"""Virtual keys: made once, good until they are not, changed by several processes at once."""

from __future__ import annotations

import hmac
import stat
from collections.abc import Iterator
from pathlib import Path
from threading import Thread

import pytest
from tests.golden.application import tables

from windlass.errors import AccessError, InputError, LedgerError, SettingsError
from windlass.gateway.access.admission import Admission
from windlass.gateway.access.keys import SECRET_BYTES, SECRET_FILE, SHOWN_CHARS, Keys, VirtualKey, secret_of
from windlass.gateway.access.store import KeyTable
from windlass.ledger import backup
from windlass.ledger.db import Database
from windlass.records import Scope

NOW = 1_800_000_000.0


class Clock:
    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def db(tmp_path: Path) -> Iterator[Database]:
    (tmp_path / "ledger.db").write_bytes(tables())
    made = Database(tmp_path / "ledger.db")
    yield made
    made.close()


@pytest.fixture
def keys(db: Database, clock: Clock) -> Keys:
    return another(db, clock)


def another(db: Database, clock: Clock, secret: bytes = b"s" * 32) -> Keys:
    """The keys as another process of the same database holds them."""
    made = Keys(KeyTable(db), secret, clock)
    made.refresh()
    return made


def wanted(name: str = "ann", tenant: str = "acme", expires_at: float | None = None) -> VirtualKey:
    return VirtualKey(id="", name=name, tenant=tenant, expires_at=expires_at)


def test_a_key_is_found_by_itself_alone(keys: Keys) -> None:
    made, plain = keys.create(wanted())
    assert keys.find(plain) == made
    for other in ("", plain[:-1], plain + " ", plain.upper(), made.shown, made.id, "\ud800", "x" * 100_000, "sk-1234"):
        assert keys.find(other) is None
    assert made.shown == plain[:SHOWN_CHARS]
    assert (made.created_at, made.id[:4]) == (NOW, "key_")


def test_no_two_keys_are_alike(keys: Keys) -> None:
    plains = {keys.create(wanted(f"k{number}"))[1] for number in range(50)}
    assert len(plains) == 50
    assert min(map(len, plains)) >= 43, "256 bits in base64"


def test_names_are_a_tenants_own_and_used_once(keys: Keys) -> None:
    keys.create(wanted())
    keys.create(wanted(tenant="other"))
    with pytest.raises(InputError, match="or rotate it"):
        keys.create(wanted())
    keys.revoke("acme", "ann")
    with pytest.raises(InputError, match="it is revoked"):
        keys.create(wanted())


def test_an_expired_key_lets_nobody_in(keys: Keys, clock: Clock) -> None:
    _, plain = keys.create(wanted(expires_at=NOW + 10))
    clock.now += 9.9
    assert keys.find(plain)
    clock.now += 0.1
    assert keys.find(plain) is None
    with pytest.raises(InputError, match="has expired"):
        keys.rotate("acme", "ann")
    with pytest.raises(InputError, match="expired already"):
        keys.create(wanted("late", expires_at=clock.now))


def test_a_rotated_key_is_good_for_its_grace(keys: Keys, clock: Clock) -> None:
    made, old = keys.create(wanted())
    again, new = keys.rotate("acme", "ann", grace_s=60)
    assert again.id == made.id, "what was spent and who is signed in stay with the key"
    found = keys.find(old)
    assert found is not None
    assert found == keys.find(new)
    clock.now += 60
    assert keys.find(old) is None
    assert keys.find(new)


def test_without_grace_the_old_key_ends_at_once(keys: Keys) -> None:
    _, old = keys.create(wanted())
    _, new = keys.rotate("acme", "ann", grace_s=0)
    assert keys.find(old) is None
    assert keys.find(new)


def test_a_second_rotation_ends_the_first_keys_grace(keys: Keys) -> None:
    _, first = keys.create(wanted())
    _, second = keys.rotate("acme", "ann", grace_s=60)
    _, third = keys.rotate("acme", "ann", grace_s=60)
    assert [keys.find(one) is not None for one in (first, second, third)] == [False, True, True]


def test_a_revoked_key_ends_with_the_one_before_it(keys: Keys) -> None:
    _, old = keys.create(wanted())
    _, new = keys.rotate("acme", "ann")
    keys.revoke("acme", "ann")
    assert keys.find(old) is keys.find(new) is None
    assert keys, "without a good key nobody is let in, rather than everybody"
    for change in (keys.rotate, keys.revoke):
        with pytest.raises(InputError, match="no key 'ann' in force"):
            change("acme", "ann")


@pytest.mark.parametrize("name", ["nobody", "", "x" * 10_000, "'; DROP TABLE keys; --", "\x00"])
def test_what_is_not_there_is_said(keys: Keys, name: str) -> None:
    keys.create(wanted())
    with pytest.raises(InputError, match="no key") as refused:
        keys.revoke("acme", name)
    assert len(str(refused.value)) < 300
    with pytest.raises(InputError):
        keys.revoke("other", "ann")


def test_another_process_learns_of_it_by_its_next_look(db: Database, keys: Keys, clock: Clock) -> None:
    there = another(db, clock)
    _, plain = keys.create(wanted())
    assert there.find(plain) is None
    there.refresh()
    assert there.find(plain)
    keys.revoke("acme", "ann")
    there.refresh()
    assert there.find(plain) is None


def test_a_look_at_keys_that_did_not_change_reads_one_row(
    db: Database, keys: Keys, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys.create(wanted())
    monkeypatch.setattr(KeyTable, "rows", lambda _: pytest.fail("the keys were read again"))
    keys.refresh()


def test_what_another_process_did_is_not_undone(db: Database, keys: Keys, clock: Clock) -> None:
    """A process that has not looked since must neither revive a revoked key nor make a second of one name."""
    keys.create(wanted())
    stale = another(db, clock)
    keys.revoke("acme", "ann")
    keys.create(wanted("bob"))
    with pytest.raises(InputError, match="in force"):
        stale.rotate("acme", "ann")
    stale = another(db, clock)
    keys.create(wanted("carl"))
    with pytest.raises(InputError, match="choose another"):
        stale.create(wanted("carl"))


def test_changes_at_the_same_moment_all_stand(db: Database, clock: Clock) -> None:
    processes = [another(db, clock) for _ in range(4)]
    made: list[str] = []

    def create(held: Keys, number: int) -> None:
        made.extend(held.create(wanted(f"k{number}-{turn}"))[1] for turn in range(5))

    threads = [Thread(target=create, args=(held, number)) for number, held in enumerate(processes)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    last = another(db, clock)
    assert len(made) == 20
    assert all(last.find(plain) for plain in made)


def test_two_of_one_name_at_the_same_moment_are_one(db: Database, clock: Clock) -> None:
    processes, refused = [another(db, clock) for _ in range(4)], list[InputError]()

    def create(held: Keys) -> None:
        try:
            held.create(wanted())
        except InputError as exc:
            refused.append(exc)

    threads = [Thread(target=create, args=(held,)) for held in processes]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(refused) == 3
    assert len(another(db, clock).all()) == 1


def test_a_row_that_cannot_be_read_is_said_and_the_keys_stay(db: Database, keys: Keys) -> None:
    _, plain = keys.create(wanted())
    assert KeyTable(db).put("key_bad", "acme", "d", "", b"{", known=KeyTable(db).version())
    with pytest.raises(LedgerError, match="key_bad cannot be read"):
        keys.refresh()
    assert keys.find(plain)


def test_under_another_secret_no_key_opens_and_all_are_strange(db: Database, keys: Keys, clock: Clock) -> None:
    _, plain = keys.create(wanted())
    keys.create(wanted("gone"))
    keys.revoke("acme", "gone")
    lost = another(db, clock, b"t" * 32)
    assert lost.find(plain) is None
    assert [key.name for key in lost.strange()] == ["ann"]
    assert not keys.strange()
    _, fresh = lost.rotate("acme", "ann")
    assert lost.find(fresh)
    assert not lost.strange(), "a rotated key is hashed under the secret in force"


def test_once_there_was_a_key_the_server_never_opens_again(db: Database, keys: Keys) -> None:
    """Rows that vanish under a running server must not let the world in."""
    keys.create(wanted())
    with db.write() as connection:
        connection.exec_driver_sql("DELETE FROM keys")
        connection.exec_driver_sql("UPDATE heads SET value = value + 1 WHERE name = 'keys'")
    keys.refresh()
    assert not keys.all()
    admission = Admission((), 1024, virtual=keys)
    assert not admission.open
    with pytest.raises(AccessError):
        admission.admit("", "", 1)


# --- whom a key lets in


def test_a_virtual_key_carries_all_that_it_was_made_with(keys: Keys) -> None:
    admission = Admission((), 1024, virtual=keys)
    assert admission.open
    asked = VirtualKey(
        id="", name="ann", tenant="acme", workspaces=("one", "two"), team="red", role="viewer", models=("gpt-5*",),
        endpoints=("chat",),
    )  # fmt: skip
    made, plain = keys.create(asked)
    caller = admission.admit(plain, "two", 1)
    assert (caller.scope, caller.role, caller.key, caller.team) == (Scope("acme", "two"), "viewer", "ann", "red")
    assert caller.virtual == made.id
    assert admission.workspaces(caller) == ("one", "two")
    assert admission.knows(caller)
    with pytest.raises(AccessError, match="no workspace 'three'"):
        admission.admit(plain, "three", 1)
    keys.revoke("acme", "ann")
    assert not admission.knows(caller)
    with pytest.raises(AccessError, match="not known, or no longer good"):
        admission.admit(plain, "", 1)


@pytest.mark.parametrize(
    ("endpoint", "model", "may"),
    [
        ("chat", "gpt-5", True),
        ("chat", "gpt-5-mini", True),
        ("chat", "local/quotes-fast", True),
        ("chat", "gpt-4", False),
        ("chat", "GPT-5", False),
        ("chat", "xgpt-5", False),
        ("chat", "", False),
        ("embeddings", "gpt-5", False),
        ("", "gpt-5", False),
    ],
)
def test_a_keys_scopes_hold_model_and_endpoint(keys: Keys, endpoint: str, model: str, may: bool) -> None:
    asked = VirtualKey(id="", name="a", tenant="acme", models=("gpt-5*", "local/*"), endpoints=("chat",))
    _, plain = keys.create(asked)
    assert Admission((), 1024, virtual=keys).identify(plain, "").may(endpoint, model) is may


# --- the secret


def test_the_secret_is_made_once_and_read_by_its_owner_alone(tmp_path: Path) -> None:
    first = secret_of(tmp_path / "home")
    file = tmp_path / "home" / SECRET_FILE
    assert secret_of(tmp_path / "home") == first == file.read_bytes()
    assert len(first) == SECRET_BYTES
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert [path.name for path in file.parent.iterdir()] == [SECRET_FILE], "no half is left beside it"
    assert secret_of(tmp_path / "other") != first
    assert backup.SECRET == SECRET_FILE


def test_processes_that_start_together_share_one_secret(tmp_path: Path) -> None:
    found: list[bytes] = []
    threads = [Thread(target=lambda: found.append(secret_of(tmp_path))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 8
    assert len(set(found)) == 1


def test_a_cut_secret_and_a_short_one_are_refused(tmp_path: Path) -> None:
    (tmp_path / SECRET_FILE).write_bytes(b"short")
    with pytest.raises(SettingsError, match=r"holds 5 bytes.*restore it"):
        secret_of(tmp_path)
    with pytest.raises(SettingsError, match="5 characters; give at least 32"):
        secret_of(tmp_path, "short")
    assert secret_of(tmp_path, "x" * 32) == b"x" * 32


@pytest.mark.parametrize("secret", [b"s" * 32, b"longer than a block of sha-256, which is hashed first" * 3])
def test_a_key_is_kept_as_its_hmac_under_the_secret(tmp_path: Path, secret: bytes) -> None:
    """RFC 2104: what another program computes under the same secret is the same."""
    (tmp_path / "ledger.db").write_bytes(tables())
    db = Database(f"sqlite:///{tmp_path}/ledger.db")
    keys = Keys(KeyTable(db), secret, lambda: 1_800_000_000.0)
    _, plain = keys.create(VirtualKey(id="", name="ann", tenant="acme"))
    (row,) = KeyTable(db).rows()
    assert row.digest == hmac.new(secret, plain.encode(), "sha256").hexdigest()
    assert keys.find(plain) is not None
    assert keys.find(plain + "x") is None
    db.close()
