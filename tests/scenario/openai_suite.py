"""openai-python's own tests, out of its source distribution; `python -m tests.scenario.openai_suite` fetches them.

Nothing of them lies in the source tree: they are in `openai/` of the virtual environment, the version and the digest as
`uv.lock` has them, with an environment of their own as their own lock file has it.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).parents[2]
INSTALLED = Path(sys.prefix) / "openai"
UV = Path(sys.prefix) / "bin" / "uv"
RUN_S = 300.0
"""They take half a minute on four idle cores; what hangs ends here."""
WORKERS = min(4, os.cpu_count() or 1)
TESTS = "tests/api_resources"
FAMILIES = (
    *("chat", "test_completions.py", "responses", "test_responses.py", "test_embeddings.py", "test_models.py"),
    *("test_moderations.py", "test_batches.py", "test_images.py", "audio"),
)
"""What of the API they are about; a folder or a file below `TESTS`."""
UNNEEDED = ("azure-identity", "botocore", "numpy", "pandas-stubs", "pillow", "ruff", "ty", "types-requests")
"""What their lock file names for checks and for other tests."""
_ENDED = re.compile(r"^(PASSED|FAILED|ERROR) (\S+)", re.MULTILINE)
_SKIPPED = re.compile(r"^SKIPPED \[(\d+)\] (.*)$", re.MULTILINE)


@dataclass
class Ran:
    """How each test ended, by its name; skipped: how many, for which reason, in words of the suite."""

    passed: set[str] = field(default_factory=set)
    failed: set[str] = field(default_factory=set)
    skipped: dict[str, int] = field(default_factory=dict)
    said: str = ""


def install() -> None:
    """Bring `INSTALLED` to the version that the lock file names; nothing to do where it is."""
    version, digest = _locked()
    if (INSTALLED / "fetched").is_file() and (INSTALLED / "fetched").read_text() == digest:
        return
    fresh = INSTALLED.with_name("openai.fresh")
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir()
    # Its metadata is made by its own build backend, which is fetched along: in an environment of pip's it takes longer.
    pip = ("run", "-q", "--no-project", "--isolated", "--with", "pip", "--with", "hatchling", "python", "-m", "pip")
    source = ("--no-deps", "--no-binary", ":all:", "--no-build-isolation", "-d", str(fresh), f"openai=={version}")
    _run(*pip, "download", "-q", *source, cwd=fresh)
    (archive,) = fresh.glob("openai-*.tar.gz")
    found = f"sha256:{hashlib.sha256(archive.read_bytes()).hexdigest()}"
    assert found == digest, f"openai {version} has the digest {found}, and uv.lock wants {digest}"
    with tarfile.open(archive) as packed:
        packed.extractall(fresh, filter="data")
    archive.unlink()
    unpacked = fresh / f"openai-{version}"
    leave = [argument for name in UNNEEDED for argument in ("--no-install-package", name)]
    where = ("--python", sys.executable, "--extra", "aiohttp")
    _run("sync", "-q", "--frozen", "--no-install-project", *where, *leave, cwd=unpacked)
    (unpacked / "fetched").write_text(digest)
    shutil.rmtree(INSTALLED, ignore_errors=True)
    unpacked.rename(INSTALLED)
    fresh.rmdir()


def run(base_url: str, *tests: str) -> Ran:
    """Run these tests, or all of `FAMILIES`, against a server."""
    chosen = tests or tuple(f"{TESTS}/{family}" for family in FAMILIES)
    quiet = (
        "-q",
        "-rA",
        "--tb=line",
        "--durations=0",
        "-p",
        "no:cacheprovider",
        "-n",
        str(WORKERS if not tests else 1),
    )
    done = subprocess.run(
        [INSTALLED / ".venv" / "bin" / "python", "-m", "pytest", "-o", "addopts=", *quiet, *chosen],
        cwd=INSTALLED,
        env=_environment() | {"TEST_API_BASE_URL": base_url, "PYTHONPATH": str(INSTALLED / "src")},
        capture_output=True,
        text=True,
        timeout=RUN_S,
        check=False,
        stdin=subprocess.DEVNULL,
    )
    assert done.returncode in (0, 1), done.stdout[-4_000:] + done.stderr[-4_000:]
    ran = Ran(said=done.stdout)
    for ended, name in _ENDED.findall(done.stdout):
        (ran.passed if ended == "PASSED" else ran.failed).add(name.removeprefix(f"{TESTS}/"))
    for count, reason in _SKIPPED.findall(done.stdout):
        ran.skipped[reason] = ran.skipped.get(reason, 0) + int(count)
    return ran


def _locked() -> tuple[str, str]:
    """The version that the clients of our own tests have, and the digest of its source."""
    packages = tomllib.loads((ROOT / "uv.lock").read_text())["package"]
    versions = [one for one in packages if one["name"] == "openai"]
    newest = max(versions, key=lambda one: tuple(map(int, one["version"].split("."))))
    return newest["version"], newest["sdist"]["hash"]


def _environment() -> dict[str, str]:
    ours = (
        "UV_PROJECT_ENVIRONMENT",
        "VIRTUAL_ENV",
        "PYTHONPATH",
        "PYTEST_ADDOPTS",
        "OPENAI_API_KEY",
        "OPENAI_BASE_URL",
    )
    return {name: value for name, value in os.environ.items() if name not in ours and not name.startswith("PYTEST_")}


def _run(*arguments: str, cwd: Path) -> None:
    done = subprocess.run(
        [UV, *arguments], cwd=cwd, env=_environment(), capture_output=True, text=True, timeout=300, check=False
    )
    if done.returncode:
        raise SystemExit(f"uv {arguments[0]} ended with {done.returncode}: {done.stderr[-2_000:]}")


if __name__ == "__main__":
    install()
