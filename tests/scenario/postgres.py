"""A PostgreSQL server of the tests' own: started, stopped, killed and thrown away; nothing of it outlives the tests.

`python -m tests.scenario.postgres` starts one for work by hand, prints its URL and runs until Ctrl-C.
"""

from __future__ import annotations

import argparse
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psycopg
from psycopg import sql

from tests.scenario.disk import Disk
from tests.scenario.program import children

START_S = 20.0
STOP_S = 20.0
OWNER = "windlass"
ADMIN = "postgres"
INSTALLED = "/usr/lib/postgresql"

# Runs in a session of its own with a pipe from the tests as its input, and so sees them end however they end.
WATCHER = """
cat >/dev/null
read -r pid < "$1/data/postmaster.pid" || exit 0
if [ "$(readlink "/proc/$pid/cwd")" = "$1/data" ]; then
  kill -QUIT "$pid"
  for _ in $(seq 200); do [ -e "/proc/$pid" ] || break; sleep 0.05; done
fi
[ -r "$1/data/postmaster.pid" ] && ipcrm -m "$(sed -n 7p "$1/data/postmaster.pid" | awk '{print $2}')"
[ "$2" = keep ] || rm -rf "$1"
"""


class Postgres:
    """One server with its data in a folder of its own, listening on loopback alone.

    folder: where data, socket and log are kept; without it a temporary one, removed by `stop`.
    fsync: False where no test cuts the machine's power and speed matters more.
    disk: where the data folder lies on a disk of its own, see tests/scenario/disk.py; the log of writes stays outside.
    initdb: further options of the program that makes the data folder.
    settings: further server settings by name.

    The databases that `create` makes belong to a role that is no superuser, as they do in production.
    """

    def __init__(
        self,
        folder: Path | None = None,
        *,
        fsync: bool = True,
        disk: Disk | None = None,
        initdb: Sequence[str] = (),
        **settings: str | int,
    ) -> None:
        self.kept = folder is not None
        self.folder = folder or Path(tempfile.mkdtemp(prefix="windlass-pg-", dir="/tmp"))
        self.port = _free_port()
        self.settings = {
            "fsync": "on" if fsync else "off",
            "max_connections": 60,
            "shared_buffers": "256MB",
            # In the data folder, so that a killed server leaves nothing in /dev/shm.
            "dynamic_shared_memory_type": "mmap",
            "listen_addresses": "127.0.0.1",
            "unix_socket_directories": str(self.folder),
            **settings,
        }
        self._disk = disk
        self._initdb = initdb
        user, group = server_user()
        # A disk lets its programs be whose they must be.
        leaves = os.getuid() == 0 and disk is None
        self._as_user: dict[str, Any] = {"user": user, "group": group, "extra_groups": []} if leaves else {}
        self._server: subprocess.Popen[bytes] | None = None
        self._watcher: subprocess.Popen[bytes] | None = None

    @property
    def data(self) -> Path:
        """The data folder as the server sees it."""
        return self._disk.home if self._disk else self.folder / "data"

    @property
    def seen(self) -> Path:
        """The data folder as the tests see it."""
        return self._disk.seen if self._disk else self.data

    @property
    def pid(self) -> int:
        assert self._server is not None, "the server does not run"
        return self._server.pid

    def start(self) -> None:
        """Make the data folder where there is none yet, start the server, and return once it takes connections."""
        assert self._server is None, "the server runs already"
        if not (self.seen / "PG_VERSION").exists():
            self._initialize()
        self._watch()
        with (self.folder / "log").open("ab") as log:
            self._server = subprocess.Popen(
                self._within(binary("postgres"), "-D", str(self.data), "-p", str(self.port), *self._options()),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.folder,
                start_new_session=True,
                **self._as_user,
            )
        self._wait_ready()
        with self.admin() as admin:
            if not admin.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", (OWNER,)).fetchone():
                admin.execute(sql.SQL("CREATE ROLE {} LOGIN").format(sql.Identifier(OWNER)))

    def halt(self) -> None:
        """Shut down in order and keep the data: what an operator's restart does between its two halves."""
        if self._server is None:
            return
        self._server.send_signal(signal.SIGINT)
        self._server.wait(STOP_S)
        self._server = None

    def restart(self) -> None:
        """The same data on the same port again, whether it was running or killed."""
        self.halt()
        self.start()

    def kill(self) -> None:
        """SIGKILL to the server and each process of it; what was not synced to disk is for its recovery to find."""
        os.kill(self.pid, signal.SIGSTOP)
        for child in children(self.pid):
            with suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)
        assert self._server is not None
        self._server.kill()
        self._server.wait()
        self._server = None

    def stop(self) -> None:
        """The end: shut down and remove the folder if it was a temporary one."""
        if self._server is not None:
            self._server.send_signal(signal.SIGQUIT)
            self._server.wait(STOP_S)
            self._server = None
        if self._watcher is not None:
            assert self._watcher.stdin is not None
            self._watcher.stdin.close()
            self._watcher.wait(STOP_S)
            self._watcher = None
        if not self.kept:
            shutil.rmtree(self.folder, ignore_errors=True)

    def url(self, database: str) -> str:
        """The SQLAlchemy URL of a database, with the role that owns those made by `create`."""
        return f"postgresql+psycopg://{OWNER}@127.0.0.1:{self.port}/{database}"

    def create(self) -> str:
        """The URL of a fresh, empty database."""
        name = f"test_{uuid.uuid4().hex}"
        with self.admin() as admin:
            admin.execute(sql.SQL("CREATE DATABASE {} OWNER {}").format(sql.Identifier(name), sql.Identifier(OWNER)))
        return self.url(name)

    def drop(self, url: str) -> None:
        """Remove a database, whoever is still connected to it."""
        with self.admin() as admin:
            name = sql.Identifier(url.rsplit("/", 1)[1])
            admin.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(name))

    def backends(self, url: str = "") -> list[int]:
        """The process ids that serve clients, of one database or of all. SIGTERM ends one connection; SIGKILL makes
        the server restart all of them."""
        with self.admin() as admin:
            found = admin.execute(
                "SELECT pid FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()"
                " AND (%(name)s::text = '' OR datname = %(name)s::text) ORDER BY pid",
                {"name": url.rsplit("/", 1)[-1]},
            )
            return [int(row[0]) for row in found]

    def log(self) -> str:
        """What the server has said so far."""
        return (self.folder / "log").read_text(errors="replace")

    @contextmanager
    def admin(self, database: str = "postgres") -> Iterator[psycopg.Connection[Any]]:
        """A connection of the superuser, to one database."""
        where = f"host=127.0.0.1 port={self.port} user={ADMIN} dbname={database}"
        with psycopg.connect(where, autocommit=True) as connection:
            yield connection

    def _initialize(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        if os.getuid() == 0:
            os.chown(self.folder, *server_user())
        options = ["-U", ADMIN, "-A", "trust", "-E", "UTF8", "--locale", "C.UTF-8", "-N", *self._initdb]
        made = subprocess.run(
            self._within(binary("initdb"), "-D", str(self.data), *options),
            cwd=self.folder,
            capture_output=True,
            text=True,
            check=False,
            **self._as_user,
        )
        assert made.returncode == 0, made.stderr

    def _within(self, *command: str) -> Sequence[str]:
        return self._disk.command(*command) if self._disk else command

    def _options(self) -> list[str]:
        return [part for name, value in self.settings.items() for part in ("-c", f"{name}={value}")]

    def _watch(self) -> None:
        if self._watcher is None:
            self._watcher = subprocess.Popen(
                ["/bin/sh", "-c", WATCHER, "watcher", str(self.folder), "keep" if self.kept else "remove"],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                cwd="/",
                start_new_session=True,
            )

    def _wait_ready(self) -> None:
        """The server writes its state into the eighth line of its pid file (pg_ctl waits in the same way)."""
        assert self._server is not None
        deadline = time.monotonic() + START_S
        while time.monotonic() < deadline:
            assert self._server.poll() is None, self.log()[-2000:]
            with suppress(FileNotFoundError):
                lines = (self.seen / "postmaster.pid").read_text().split("\n")
                if lines[0] == str(self._server.pid) and len(lines) > 7 and lines[7].strip() == "ready":
                    return
            time.sleep(0.01)
        raise AssertionError(f"PostgreSQL was not ready within {START_S} s: {self.log()[-2000:]}")


def binary(name: str) -> str:
    """A program of the newest PostgreSQL here; Debian keeps them off the PATH."""
    versions = sorted(Path(INSTALLED).glob(f"*/bin/{name}"), key=lambda path: float(path.parts[-3]))
    found = str(versions[-1]) if versions else shutil.which(name)
    assert found, f"no {name} on the PATH or under {INSTALLED}; `make scenario` installs it"
    return found


def server_user() -> tuple[int, int]:
    """Who runs the server: us, but never root, as whom it refuses to."""
    if os.getuid():
        return os.getuid(), os.getgid()
    for name in ("postgres", "nobody"):
        with suppress(KeyError):
            user = pwd.getpwnam(name)
            return user.pw_uid, user.pw_gid
    raise AssertionError("PostgreSQL refuses to run as root, and there is neither a user postgres nor a nobody")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def main() -> None:
    """Start a server, say where it is, and stay until a signal."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--data", type=Path, help="keep the data in this folder (default: a temporary one)")
    parser.add_argument("--no-fsync", action="store_true", help="faster; a power cut may corrupt the data")
    chosen = parser.parse_args()
    server = Postgres(chosen.data.resolve() if chosen.data else None, fsync=not chosen.no_fsync)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    server.start()
    try:
        sys.stdout.write(server.url("postgres") + "\n")
        sys.stdout.flush()
        signal.pause()
    except KeyboardInterrupt:
        pass
    finally:
        server.stop()


if __name__ == "__main__":
    main()
