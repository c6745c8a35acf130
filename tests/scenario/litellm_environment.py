"""An environment with the extra `litellm`, which gets on with none of the tests' own packages: from the lock, by hash.

It lies below `.peers`, made once for each lock: `python -m tests.scenario.litellm_environment` makes it beforehand.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / ".peers" / "litellm-extra"
MAKE_S = 600
EXTRA = ("sync", "--quiet", "--frozen", "--no-default-groups", "--extra", "litellm")


def python() -> str:
    """The interpreter of the environment, which the first call makes: a few seconds from uv's cache, else a minute."""
    lock = hashlib.sha256((ROOT / "uv.lock").read_bytes()).hexdigest()
    ready, made = FOLDER / ".ready", FOLDER / "bin" / "python"
    if ready.exists() and ready.read_text() == lock and made.exists():
        return str(made)
    uv = shutil.which("uv", path=str(Path(sys.executable).parent)) or shutil.which("uv")
    assert uv is not None, "uv is not there; `make setup` installs it"
    subprocess.run(
        [uv, *EXTRA, "--project", str(ROOT), "--python", sys.executable],
        env={**os.environ, "UV_PROJECT_ENVIRONMENT": str(FOLDER), "VIRTUAL_ENV": str(FOLDER)},
        check=True,
        timeout=MAKE_S,
        stdin=subprocess.DEVNULL,
    )
    ready.write_text(lock)
    return str(made)


if __name__ == "__main__":
    sys.stdout.write(f"{python()}\n")
