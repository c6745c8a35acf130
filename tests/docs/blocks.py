"""The code blocks of a page, and how they are run: in order, each in a process of its own, in one folder.

```bash            run by bash -euo pipefail
```python          run by this Python
```bash postgres   run where a PostgreSQL server is: $POSTGRES_URL names an empty database
```python no-run   shown only, like every other kind of block
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]
LIMIT_S = 120.0
POSTGRES = "postgres"
_NOTES = ("", POSTGRES, "no-run")
_BLOCK = re.compile(r"^```(\w+)([^\n]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


class Block(NamedTuple):
    """One block: its language, the word behind it, the text, and the line where it begins."""

    kind: str
    note: str
    text: str
    line: int


def blocks(page: str) -> list[Block]:
    """All blocks of a page, named by its path from the root."""
    text = (ROOT / page).read_text()
    found = [
        Block(match[1], match[2].strip(), match[3], text.count("\n", 0, match.start()) + 1)
        for match in _BLOCK.finditer(text)
    ]
    for block in found:
        assert block.note in _NOTES, f"{page}:{block.line}: what is `{block.note}`? known: {', '.join(_NOTES[1:])}"
    return found


def runs(page: str, *, postgres: bool = False) -> list[Block]:
    """The blocks that are run: without a server all but those that need one."""
    wanted = ("", POSTGRES) if postgres else ("",)
    return [block for block in blocks(page) if block.kind in ("bash", "python") and block.note in wanted]


def run_page(page: str, folder: Path, *, postgres_url: str = "") -> int:
    """Run the blocks of a page in order and return how many there were; AssertionError with what a block said."""
    wanted = runs(page, postgres=bool(postgres_url))
    for block in wanted:
        done = run(block, folder, **({"POSTGRES_URL": postgres_url} if postgres_url else {}))
        assert done.returncode == 0, f"{page}:{block.line}\n{block.text}\n{done.stdout}\n{done.stderr}"
    return len(wanted)


def run(block: Block, folder: Path, **more: str) -> subprocess.CompletedProcess[str]:
    """Run one block to its end, with this environment's programs and none of the caller's settings."""
    cleared = {name: value for name, value in os.environ.items() if not name.startswith("WINDLASS_")}
    path = f"{Path(sys.executable).parent}{os.pathsep}{cleared['PATH']}"
    program = ["bash", "-euo", "pipefail", "-c"] if block.kind == "bash" else [sys.executable, "-c"]
    return subprocess.run(
        [*program, block.text],
        cwd=folder,
        env={**cleared, "PATH": path, **more},
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
        stdin=subprocess.DEVNULL,
    )
