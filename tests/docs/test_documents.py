"""What the documents show is run, in order, in an empty folder."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
BLOCK = re.compile(r"^```(\w+)([^\n]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def _blocks(name: str) -> list[tuple[str, str, str]]:
    return [(kind, note.strip(), text) for kind, note, text in BLOCK.findall((ROOT / name).read_text())]


def _run(kind: str, text: str, folder: Path) -> subprocess.CompletedProcess[str]:
    cleared = {name: value for name, value in os.environ.items() if not name.startswith("WINDLASS_")}
    path = f"{Path(sys.executable).parent}{os.pathsep}{cleared['PATH']}"
    program = ["bash", "-euo", "pipefail", "-c", text] if kind == "bash" else [sys.executable, "-c", text]
    return subprocess.run(
        program, cwd=folder, env={**cleared, "PATH": path}, capture_output=True, text=True, timeout=120, check=False
    )


def test_the_tutorial_runs_from_top_to_bottom(tmp_path: Path) -> None:
    blocks = _blocks("docs/tutorial.md")
    assert len(blocks) >= 6
    for kind, _, text in blocks:
        done = _run(kind, text, tmp_path)
        assert done.returncode == 0, f"{text}\n{done.stdout}\n{done.stderr}"


def test_the_readmes_python_runs(tmp_path: Path) -> None:
    blocks = [text for kind, note, text in _blocks("README.md") if kind == "python" and note != "no-run"]
    assert blocks
    for text in blocks:
        done = _run("python", text, tmp_path)
        assert done.returncode == 0, done.stderr


def test_the_readmes_settings_are_valid(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from windlass.settings import load

    monkeypatch.chdir(tmp_path)
    for kind, _, text in _blocks("README.md"):
        if kind == "toml":
            (tmp_path / "windlass.toml").write_text(text)
            assert load(environ={}).providers


def test_the_readme_names_only_make_targets_and_commands_that_exist() -> None:
    text = (ROOT / "README.md").read_text() + (ROOT / "CONTRIBUTING.md").read_text()
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"`?make ([a-z]+)", text)) <= targets
    for link in re.findall(r"\]\(([^)#]+)\)", text):
        assert "://" in link or (ROOT / link).exists(), link


def test_the_reference_is_what_the_program_says() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tools.reference", "--check"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
