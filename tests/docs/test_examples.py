"""Every example runs as it is: in an empty folder, with an empty home, and with no way to the network."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = sorted((ROOT / "docs" / "examples").glob("*.py"))
TIMEOUT_S = 120.0
# Read by every Python process that an example starts; a name or an address beyond this machine is an error.
ISOLATED = """
import sys

LOCAL = (None, "", b"", "localhost", "127.0.0.1", "::1", b"localhost", b"127.0.0.1", b"::1")

def refuse(event, arguments):
    if event == "socket.getaddrinfo":
        host = arguments[0]
    elif event in ("socket.connect", "socket.sendto") and isinstance(arguments[1], tuple):
        host = arguments[1][0]
    else:
        return
    if host not in LOCAL:
        raise RuntimeError(f"an example must not reach {host!r}")

sys.addaudithook(refuse)
"""


def _run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Python in `folder`/work, with `folder`/home as its home and nothing beyond this machine."""
    for name in ("work", "home", "site"):
        (folder / name).mkdir()
    (folder / "site" / "sitecustomize.py").write_text(ISOLATED)
    cleared = {name: value for name, value in os.environ.items() if not name.startswith(("WINDLASS_", "XDG_"))}
    environment = {**cleared, "HOME": str(folder / "home"), "PYTHONPATH": str(folder / "site")}
    return subprocess.run(
        [sys.executable, "-W", "error", *arguments],
        cwd=folder / "work",
        env=environment,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
        stdin=subprocess.DEVNULL,
    )


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_runs(example: Path, tmp_path: Path) -> None:
    done = _run(tmp_path, str(example))
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    assert done.stdout.strip()
    # The second is what an interrupted server says.
    assert done.stderr in ("", "stopped\n")
    assert {path.name for path in (tmp_path / "work").iterdir()} == {".windlass"}


@pytest.mark.parametrize("address", ["203.0.113.1", "example.org"])
def test_what_runs_the_examples_has_no_network(tmp_path: Path, address: str) -> None:
    done = _run(tmp_path, "-c", f"import socket; socket.create_connection(({address!r}, 80), timeout=1)")
    assert f"an example must not reach '{address}'" in done.stderr


def test_the_examples_are_strictly_typed() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", *map(str, EXAMPLES)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=3 * TIMEOUT_S,
        check=False,
    )
    assert done.returncode == 0, done.stdout


def test_the_list_names_every_example_once() -> None:
    listed = re.findall(r"^\| \[(\w+\.py)\]\(\1\)", (ROOT / "docs/examples/README.md").read_text(), re.MULTILINE)
    assert sorted(listed) == [path.name for path in EXAMPLES]


def test_there_are_five_examples_and_each_is_read_in_a_minute() -> None:
    lines = {path.name: len(path.read_text().splitlines()) for path in EXAMPLES}
    assert len(lines) >= 5
    assert max(lines.values()) <= 70, lines
