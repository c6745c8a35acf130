"""Keys while servers run: they open and close at once here, and within about a second in every other process."""

from __future__ import annotations

import json
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.scenario import program

pytestmark = pytest.mark.scenario
FOLLOWS_S = 5.0
LOCAL: dict[str, Any] = {"WINDLASS_MEMORY__EMBEDDER": "off"}
SHARED = {"WINDLASS_GATEWAY__KEY_SECRET_ENV": "CRANE_SECRET", "CRANE_SECRET": "c" * 40}


def _status(url: str, key: str = "") -> int:
    headers = {"authorization": f"Bearer {key}"} if key else {}
    try:
        with urllib.request.urlopen(urllib.request.Request(f"{url}/v1/models", headers=headers), timeout=10) as reply:
            return int(reply.status)
    except urllib.error.HTTPError as refused:
        with refused:
            return refused.code


def _keys(home: Path, *arguments: str, **more: Any) -> str:
    done: subprocess.CompletedProcess[str] = program.windlass(home, "keys", *arguments, **more)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def _within(patience_s: float, what: Callable[[], bool]) -> None:
    deadline = time.monotonic() + patience_s
    while not what():
        assert time.monotonic() < deadline, "it did not come to that"
        time.sleep(0.05)


def test_a_running_server_takes_a_key_at_once(tmp_path: Path) -> None:
    home = tmp_path / "home"
    with program.server(home, **LOCAL) as url:
        assert _status(url) == 200
        plain = _keys(home, "create", "ann", **LOCAL)
        assert (_status(url), _status(url, plain)) == (401, 200)
        fresh = _keys(home, "rotate", "ann", "--grace", "0", **LOCAL)
        assert (_status(url, plain), _status(url, fresh)) == (401, 200)
        _keys(home, "revoke", "ann", **LOCAL)
        assert (_status(url), _status(url, fresh)) == (401, 401)
    with program.server(home, "--host", "0.0.0.0", **LOCAL) as url:
        assert _status(url.replace("0.0.0.0", "127.0.0.1")) == 401, "a revoked key opens the server to nobody"


def test_every_worker_and_machine_follows(tmp_path: Path, database_url: str) -> None:
    here = {**LOCAL, **SHARED, "WINDLASS_STORAGE__DATABASE_URL": database_url}
    one, other = tmp_path / "one", tmp_path / "other"
    open_to_all = program.windlass(one, "up", "--workers", "2", "--host", "0.0.0.0", **here)
    assert (open_to_all.returncode, "there is no key" in open_to_all.stderr) == (2, True)
    with (
        program.server(one, "--workers", "2", **here) as near,
        program.server(other, "--workers", "2", **here) as far,
    ):

        def everywhere(wanted: int, key: str) -> bool:
            return all(_status(url, key) == wanted for url in (near, far) * 6)

        plain = _keys(one, "create", "ann", **here)
        _within(FOLLOWS_S, lambda: everywhere(200, plain))
        _within(FOLLOWS_S, lambda: everywhere(401, ""))
        fresh = _keys(other, "rotate", "ann", "--grace", "0", **here)
        _within(FOLLOWS_S, lambda: everywhere(401, plain))
        _within(FOLLOWS_S, lambda: everywhere(200, fresh))
        _keys(one, "revoke", "ann", **here)
        _within(FOLLOWS_S, lambda: everywhere(401, fresh))


def test_a_restored_folder_knows_its_keys(tmp_path: Path) -> None:
    home, archive, back = tmp_path / "home", tmp_path / "keys.tar.gz", tmp_path / "back"
    plain = _keys(home, "create", "ann", **LOCAL)
    assert program.windlass(home, "db", "backup", str(archive), **LOCAL).returncode == 0
    back.mkdir(mode=0o700)
    (back / "keys.secret").write_bytes(b"x" * 32)
    refused = program.windlass(back, "db", "restore", str(archive), **LOCAL)
    assert (refused.returncode, "not the key secret of this backup" in refused.stderr) == (1, True)
    assert [path.name for path in back.glob("*.db")] == []
    (back / "keys.secret").unlink()
    assert program.windlass(back, "db", "restore", str(archive), **LOCAL).returncode == 0
    assert (back / "keys.secret").stat().st_mode & 0o777 == 0o600
    assert json.loads(_keys(back, "list", "--json", **LOCAL))["keys"][0]["state"] == "good"
    with program.server(back, **LOCAL) as url:
        assert (_status(url), _status(url, plain)) == (401, 200)
