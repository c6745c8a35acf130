"""A corpus of any size, written from a seed: transcripts that are long enough for a kill to land in the middle."""

from __future__ import annotations

import random
from pathlib import Path

WORDS = [
    *("anchor", "chain", "pawl", "drum", "rope", "winch", "harbour", "tide", "lock", "gate", "sluice", "keel", "mast"),
    *("deck", "crew", "load", "brake", "ratchet", "spring", "wheel", "handle", "axle", "bearing", "hull", "storm"),
    *("calm", "depth", "sand", "rock", "signal", "light", "watch", "chart", "course", "wind", "current", "shore"),
]


def write(folder: Path, items: int, turns: int, seed: int) -> list[Path]:
    """`items` Markdown transcripts of `turns` turns each."""
    rng = random.Random(seed)
    folder.mkdir(parents=True, exist_ok=True)
    return [_one(folder / f"talk-{number:03}.md", number, turns, rng) for number in range(items)]


def _one(path: Path, number: int, turns: int, rng: random.Random) -> Path:
    lines = ["---", f"title: Talk {number}", "speakers:", "  - Host", "  - Guest", "---", ""]
    for turn in range(turns):
        if turn % 10 == 0:
            lines += [f"## Part {turn // 10} about {rng.choice(WORDS)}", ""]
        clock = f"{turn // 120:02}:{turn // 2 % 60:02}:{turn % 2 * 30:02}"
        said = " ".join(f"{' '.join(rng.choices(WORDS, k=12)).capitalize()}." for _ in range(3))
        lines += [f"{('Host', 'Guest')[turn % 2]}: {clock}", "", said, ""]
    path.write_text("\n".join(lines))
    return path
