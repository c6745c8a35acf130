"""openai-python against the real server, as a user would point it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import openai
import pytest

from tests.scenario.program import rows, server

pytestmark = pytest.mark.scenario
PASSAGES = "A pawl drops into the teeth of the wheel. It keeps the drum from turning back.\n\nWhat keeps the drum?"


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def client(home: Path) -> Iterator[openai.OpenAI]:
    with server(home) as url, openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as made:
        yield made


def test_models_are_listed(client: openai.OpenAI) -> None:
    listed = [model.id for model in client.models.list()]
    assert listed == ["auto", "local/quotes-fast", "local/quotes-semantic", "all-minilm-l6-v2"]


@pytest.mark.parametrize("model", ["auto", "local/quotes-fast", "local/quotes-semantic"])
def test_a_plain_call(client: openai.OpenAI, model: str) -> None:
    reply = client.chat.completions.create(model=model, messages=[{"role": "user", "content": PASSAGES}])
    assert reply.choices[0].finish_reason == "stop"
    assert "> It keeps the drum from turning back. [p1]" in (reply.choices[0].message.content or "")
    assert reply.usage is not None
    assert reply.usage.prompt_tokens > 0


def test_a_streamed_call_says_the_same_as_a_plain_one(client: openai.OpenAI, home: Path) -> None:
    messages = [{"role": "user", "content": PASSAGES}]
    plain = client.chat.completions.create(model="local/quotes-fast", messages=messages)
    pieces, finished = [], []
    with client.chat.completions.create(model="local/quotes-fast", messages=messages, stream=True) as stream:
        for chunk in stream:
            pieces += [choice.delta.content or "" for choice in chunk.choices]
            finished += [choice.finish_reason for choice in chunk.choices if choice.finish_reason]
    assert "".join(pieces) == plain.choices[0].message.content
    assert finished == ["stop"]
    calls = rows(home, "SELECT c.stream, o.error FROM calls c JOIN outcomes o ON o.call = c.id ORDER BY c.seq DESC")
    assert calls[0] == (1, "")


def test_errors_are_openais_own(client: openai.OpenAI) -> None:
    messages = [{"role": "user", "content": "x"}]
    with pytest.raises(openai.NotFoundError) as unknown:
        client.chat.completions.create(model="nobody", messages=messages)
    assert unknown.value.code == "model_not_found"
    with pytest.raises(openai.BadRequestError) as empty:
        client.chat.completions.create(model="auto", messages=[])
    assert empty.value.param == "messages"
