"""Programs of others that the benchmarks compare with: environments of their own below `.peers`, never a dependency."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
KEPT = ROOT / ".peers"


class PeerMissing(Exception):
    """The environment of a peer cannot be made here; the message says why."""


def environment(name: str, requirements: Sequence[str]) -> Path:
    """The `bin` folder of the peer's environment, which the first call makes (a minute, from the package index)."""
    folder = KEPT / name
    ready = folder / ".ready"
    wanted = "\n".join(requirements)
    if ready.exists() and ready.read_text() == wanted:
        return folder / "bin"
    shutil.rmtree(folder, ignore_errors=True)
    print(f"making the environment of {name}: {', '.join(requirements)}", file=sys.stderr)
    uv = shutil.which("uv", path=str(Path(sys.executable).parent)) or shutil.which("uv")
    if uv:
        made = [uv, "venv", "-q", "--python", sys.executable, str(folder)]
        install = [uv, "pip", "install", "-q", "--only-binary", ":all:", "--python", str(folder / "bin" / "python")]
    else:
        made = [sys.executable, "-m", "venv", str(folder)]
        install = [str(folder / "bin" / "python"), "-m", "pip", "install", "-q", "--only-binary", ":all:"]
    for command in (made, [*install, *requirements]):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise PeerMissing(f"the environment of {name} cannot be made: {done.stderr.strip()[-500:]}")
    ready.write_text(wanted)
    return folder / "bin"
