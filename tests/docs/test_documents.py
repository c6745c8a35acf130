"""What the documents show is run, in order, in an empty folder; what they name is there."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from tests.docs.blocks import ROOT, Block, blocks, run, run_page

from windlass import plugins
from windlass.errors import ErrorCategory
from windlass.settings import load

PAGES = sorted(
    str(path.relative_to(ROOT))
    for pattern in ("docs/*.md", "docs/howto/*.md", "docs/explanation/*.md")
    for path in ROOT.glob(pattern)
)
ADRS = sorted(path.name for path in (ROOT / "docs" / "adr").glob("*.md"))
LINK = re.compile(r"\]\(([^)#\s]+)(?:#[^)]*)?\)")


@pytest.mark.parametrize("page", PAGES)
def test_a_page_runs_from_top_to_bottom(page: str, tmp_path: Path) -> None:
    ran = run_page(page, tmp_path)
    assert ran >= 6 or page != "docs/tutorial.md"


def test_a_block_that_fails_is_noticed(tmp_path: Path) -> None:
    assert run(Block("bash", "", "false | true", 1), tmp_path).returncode != 0
    assert run(Block("bash", "", "echo $nothing", 1), tmp_path).returncode != 0
    assert run(Block("python", "", "assert False", 1), tmp_path).returncode != 0
    assert run(Block("bash", "", "windlass doctor --json > found.json", 1), tmp_path).returncode == 0
    assert (tmp_path / "found.json").exists()


def test_the_readmes_python_runs(tmp_path: Path) -> None:
    wanted = [block for block in blocks("README.md") if block.kind == "python" and block.note != "no-run"]
    assert wanted
    for block in wanted:
        done = run(block, tmp_path)
        assert done.returncode == 0, done.stderr


def test_the_readmes_settings_are_valid(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for block in blocks("README.md"):
        if block.kind == "toml":
            (tmp_path / "windlass.toml").write_text(block.text)
            assert load(environ={}).sources


@pytest.mark.parametrize("page", [page for page in PAGES if "explanation" not in page])
def test_the_settings_that_a_page_shows_exist(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Policies and providers are not made for it, so a page may name those of plugins."""
    monkeypatch.chdir(tmp_path)
    for block in blocks(page):
        if block.kind == "toml" and not block.text.startswith("[project"):
            (tmp_path / "windlass.toml").write_text(block.text)
            assert load(environ={}).sources, f"{page}:{block.line}"


def test_the_readme_names_only_make_targets_that_exist() -> None:
    text = (ROOT / "README.md").read_text() + (ROOT / "CONTRIBUTING.md").read_text()
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = set(re.findall(r"(?:^|`)make ([a-z]+)", text, re.MULTILINE))
    assert {"run", "test"} <= named <= targets


def test_the_readme_names_every_command() -> None:
    done = run(Block("bash", "", "windlass --help", 1), ROOT)
    commands = re.findall(r"^    ([a-z]+)", done.stdout, re.MULTILINE)
    assert f"`windlass {' | '.join(commands)}`" in (ROOT / "README.md").read_text()


def test_every_link_leads_somewhere_and_every_page_is_reached() -> None:
    reached, waiting = set(), [ROOT / "README.md"]
    while waiting:
        page = waiting.pop()
        reached.add(page)
        for link in LINK.findall(page.read_text()):
            if "://" in link:
                continue
            there = (page.parent / link).resolve()
            assert there.exists(), f"{page.relative_to(ROOT)} links to {link}, which is not there"
            found = sorted(there.glob("*.md")) if there.is_dir() else [there] * (there.suffix == ".md")
            waiting += [one for one in found if one not in reached and one not in waiting]
    missing = {path for path in (ROOT / "docs").rglob("*.md") if path not in reached}
    assert not missing, f"no link leads to {', '.join(sorted(str(path.relative_to(ROOT)) for path in missing))}"


def test_adrs_are_numbered_without_gaps_and_say_what_enforces_them() -> None:
    assert [int(name[:4]) for name in ADRS] == list(range(1, len(ADRS) + 1))
    for name in ADRS:
        text = (ROOT / "docs" / "adr" / name).read_text()
        assert text.startswith(f"# {name[:4]} "), name
        assert "**Enforced by**" in text, f"{name} names nothing that enforces it"


def test_the_files_that_adrs_name_exist() -> None:
    for name in ADRS:
        for path in re.findall(
            r"`((?:tests|benchmarks|tools)/[\w/.]+\.(?:py|sh|ini))`", (ROOT / "docs/adr" / name).read_text()
        ):
            assert (ROOT / path).exists(), f"{name} names {path}"


def test_every_dependency_is_accounted_for() -> None:
    """In the table of ADR 0007, or in one of its own."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = [*project["dependencies"], *(one for extra in project["optional-dependencies"].values() for one in extra)]
    told = "".join((ROOT / "docs" / "adr" / name).read_text() for name in ADRS)
    for requirement in wanted:
        name = re.split(r"[\[<>=!~;]", requirement)[0].strip()
        assert re.search(rf"\|[^|]*\b{re.escape(name)}\b[^|]*\|", told), f"no ADR accounts for {name}"


def test_every_plugin_group_and_every_error_is_documented() -> None:
    groups = {value for name, value in vars(plugins).items() if name.isupper() and isinstance(value, str)}
    assert groups
    settings, errors = ((ROOT / "docs/reference" / name).read_text() for name in ("settings.md", "errors.md"))
    assert all(f"`{group}`" in settings for group in groups)
    assert all(f"`{category.value}`" in errors for category in ErrorCategory)


def test_the_reference_is_what_the_program_says() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tools.reference", "--check"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
