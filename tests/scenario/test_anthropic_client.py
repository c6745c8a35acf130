"""Anthropic's own Python client through the real server, to upstreams of each dialect: `anthropic_client.py` uses it.

The client is in an environment of its own in `anthropic/` of the virtual environment: nothing else needs it.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.scenario.program import rows, server
from tests.scenario.scripted_upstream import COMPLETION_TOKENS, PROMPT_TOKENS, TEXT, running

pytestmark = pytest.mark.scenario
VERSION = "2.12.0"
INSTALLED = Path(sys.prefix) / "anthropic"
UPSTREAMS = {
    "chat": 'kind = "openai_compatible"',
    "native": 'kind = "openai_compatible"\nendpoints = ["messages"]',
    "claude": 'kind = "anthropic"',
}
USAGE = [PROMPT_TOKENS, COMPLETION_TOKENS]


def install() -> Path:
    """The Python of an environment that has the client; made where it is not there."""
    python = INSTALLED / "bin" / "python"
    if not (INSTALLED / "made").is_file() or (INSTALLED / "made").read_text() != VERSION:
        shutil.rmtree(INSTALLED, ignore_errors=True)
        _uv("venv", "-q", "--python", sys.executable, str(INSTALLED))
        _uv("pip", "install", "-q", "--python", str(python), f"anthropic=={VERSION}")
        (INSTALLED / "made").write_text(VERSION)
    return python


def _uv(*arguments: str) -> None:
    own = {name: value for name, value in os.environ.items() if not name.startswith(("UV_PROJECT", "VIRTUAL_ENV"))}
    done = subprocess.run(
        [Path(sys.prefix) / "bin" / "uv", *arguments], env=own, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def said(home: Path) -> dict[str, Any]:
    """What the client made of each upstream's answers."""
    python, config = install(), home / "windlass.toml"
    with running() as upstream:
        config.write_text(
            "\n".join(
                f'[[providers]]\nname = "{name}"\nbase_url = "{upstream}"\n{kind}\nmodels = [{{ name = "{name}" }}]'
                for name, kind in UPSTREAMS.items()
            )
        )
        with server(home, WINDLASS_CONFIG=str(config)) as url:
            done = subprocess.run(
                [python, Path(__file__).with_name("anthropic_client.py"), url, *UPSTREAMS],
                cwd=home,
                capture_output=True,
                text=True,
                timeout=60,
                check=False,
                stdin=subprocess.DEVNULL,
            )
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    answers: dict[str, Any] = json.loads(done.stdout)
    return answers


@pytest.mark.parametrize("model", UPSTREAMS)
def test_the_client_understands_every_answer(said: dict[str, Any], model: str) -> None:
    assert said[model] == {
        "plain": [TEXT, "end_turn", USAGE],
        "stream": [TEXT, "end_turn", USAGE],
        "tools": ["crew", {"drum": "aft", "bars": 6}, "tool_use", TEXT],
        "toolsStreamed": ["crew", {"drum": "aft", "bars": 6}],
        "structured": {"setup": "a drum", "pawls": 7},
        "counted": True,
    }


def test_an_unknown_model_is_the_clients_own_error(said: dict[str, Any]) -> None:
    assert said["nobody"] == [404, "error", "not_found_error"]


def test_every_answer_is_counted(said: dict[str, Any], home: Path) -> None:
    query = (
        "SELECT DISTINCT o.model, o.prompt_tokens, o.completion_tokens, o.error FROM calls c "
        "JOIN outcomes o ON o.call = c.id WHERE c.endpoint = 'messages'"
    )
    assert sorted(rows(home, query)) == [(model, *USAGE, "") for model in sorted(said.keys() - {"nobody"})]
