"""The Vercel AI SDK and openai-node through the real server: plain, streamed, with tools, with a schema.

Each client speaks its own dialect to upstreams of each dialect; what it makes of the answers must be the same
everywhere. `scripted_upstream.py` answers, `node/vercel.mjs` and `node/calls.mjs` are the users.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.scenario import javascript
from tests.scenario.program import rows, server
from tests.scenario.scripted_upstream import COMPLETION_TOKENS, PROMPT_TOKENS, TEXT, running

pytestmark = pytest.mark.scenario
UPSTREAMS = {
    "chat": 'kind = "openai_compatible"',
    "native": 'kind = "openai_compatible"\nendpoints = ["responses"]',
    "claude": 'kind = "anthropic"',
    "whole": 'kind = "openai_compatible"\nendpoints = ["responses", "messages"]',
}
"""What the upstream of each model speaks; `whole` speaks everything, and streams nothing."""
USAGE = {"inputTokens": PROMPT_TOKENS, "outputTokens": COMPLETION_TOKENS}
CALL = {"name": "crew", "input": {"drum": "aft", "bars": 6}}
JOKE = {"setup": "a drum", "punchline": "a drum", "pawls": 7}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    javascript.install()
    return tmp_path_factory.mktemp("vercel")


@pytest.fixture(scope="module")
def base_url(folder: Path) -> Iterator[str]:
    config = folder / "windlass.toml"
    with running() as upstream:
        config.write_text(
            "\n".join(
                f'[[providers]]\nname = "{name}"\nbase_url = "{upstream}"\n{kind}\nmodels = [{{ name = "{name}" }}]'
                for name, kind in UPSTREAMS.items()
            )
        )
        with server(folder / "home", WINDLASS_CONFIG=str(config)) as url:
            yield f"{url}/v1"


@pytest.fixture(scope="module")
def ask(folder: Path, base_url: str) -> Callable[[str, str], dict[str, Any]]:
    """What a program says that asks every model as one kind of client; each is started once."""
    return functools.cache(lambda program, kind: javascript.client(folder, kind, base_url, *UPSTREAMS, program=program))


def _check(said: dict[str, Any], home: Path, *, model: str, finish: str) -> None:
    assert said["plain"] == {"text": TEXT, "finish": finish, "usage": USAGE}
    pieces = said["stream"]["pieces"]
    assert said["stream"] == {"text": TEXT, "pieces": pieces, "finish": finish, "usage": USAGE}
    assert pieces > 1 or model == "whole"
    assert said["structured"] == said["structuredStreamed"] == JOKE
    failed = rows(
        home, "SELECT c.endpoint, o.status, o.error FROM calls c JOIN outcomes o ON o.call = c.id WHERE o.error <> ''"
    )
    assert failed == []
    counted = rows(home, "SELECT DISTINCT prompt_tokens, completion_tokens FROM outcomes WHERE model = ?", model)
    assert counted == [(PROMPT_TOKENS, COMPLETION_TOKENS)]


@pytest.mark.parametrize("model", UPSTREAMS)
@pytest.mark.parametrize("client", ["chat", "responses", "compatible", "messages"])
def test_the_ai_sdk_understands_every_answer(
    folder: Path, ask: Callable[[str, str], dict[str, Any]], client: str, model: str
) -> None:
    said = ask("vercel.mjs", client)[model]
    _check(said, folder / "home", model=model, finish="stop")
    called = {
        "calls": [CALL],
        "results": [{"drum": "aft", "hands": 12}],
        "finishes": ["tool-calls", "stop"],
        "text": TEXT,
    }
    assert said["tools"] == said["toolsStreamed"] == called


@pytest.mark.parametrize("model", UPSTREAMS)
@pytest.mark.parametrize("endpoint", ["chat", "responses"])
def test_openai_node_understands_every_answer(
    folder: Path, ask: Callable[[str, str], dict[str, Any]], endpoint: str, model: str
) -> None:
    said = ask("calls.mjs", endpoint)[model]
    _check(said, folder / "home", model=model, finish="stop" if endpoint == "chat" else "completed")
    finish = "tool_calls" if endpoint == "chat" else "completed"
    assert said["tools"] == {"calls": [CALL], "finish": finish, "text": TEXT}
    assert said["toolsStreamed"] == {"calls": [CALL], "finish": finish}
