"""openai-node against the real server, as a user of JavaScript would point it; `node/client.mjs` is that user."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.scenario import javascript
from tests.scenario.program import free_port, rows, server

pytestmark = pytest.mark.scenario
QUOTE = "> It keeps the drum from turning back. [p1]"
KEY = "a-key-of-the-scenario"


def _configured(folder: Path, text: str) -> str:
    path = folder / "windlass.toml"
    path.write_text(text)
    return str(path)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("node")


@pytest.fixture(scope="module")
def base_url(folder: Path) -> Iterator[str]:
    config = _configured(
        folder,
        f"""
        [gateway]
        max_body_bytes = 16_384
        auto = ["local/quotes-fast", "local/quotes-semantic"]
        [[providers]]
        name = "dead"
        base_url = "http://127.0.0.1:{free_port()}/v1"
        models = [{{ name = "dead" }}]
        """,
    )
    with server(folder / "home", WINDLASS_CONFIG=config) as url:
        yield f"{url}/v1"


@pytest.fixture(scope="module")
def errors(folder: Path, base_url: str) -> dict[str, dict[str, Any]]:
    """What each wrong call was answered with."""
    found: dict[str, dict[str, Any]] = javascript.client(folder, "errors", base_url)
    return found


def test_models_are_listed(folder: Path, base_url: str) -> None:
    listed = javascript.client(folder, "models", base_url)
    assert {"auto", "dead", "local/quotes-fast", "local/quotes-semantic"} <= set(listed)


def test_plain_calls_are_answered_and_recorded(folder: Path, base_url: str) -> None:
    answers = javascript.client(folder, "chat", base_url)
    assert set(answers) == {"auto", "local/quotes-fast", "local/quotes-semantic"}
    for model, answer in answers.items():
        assert QUOTE in answer["text"]
        assert (answer["role"], answer["finish"]) == ("assistant", "stop")
        usage = answer["usage"]
        assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"] > 0
        recorded = rows(
            folder / "home",
            "SELECT c.model, o.prompt_tokens, o.completion_tokens FROM calls c JOIN outcomes o ON o.call = c.id "
            "WHERE c.id = ?",
            answer["call"],
        )
        assert recorded == [(model, usage["prompt_tokens"], usage["completion_tokens"])]


def test_a_stream_says_the_same_as_a_plain_call(folder: Path, base_url: str) -> None:
    said = javascript.client(folder, "stream", base_url)
    assert QUOTE in said["plain"]
    assert said["text"] == said["helper"] == said["plain"]
    assert said["finished"] == ["stop"]
    assert said["pieces"] > 1
    assert said["usage"]["total_tokens"] == said["usage"]["prompt_tokens"] + said["usage"]["completion_tokens"] > 0


def test_who_leaves_a_stream_is_recorded_and_the_next_call_is_answered(folder: Path, base_url: str) -> None:
    assert javascript.client(folder, "leave", base_url) == {"aborted": True, "after": 1}
    query = "SELECT count(*) FROM calls c LEFT JOIN outcomes o ON o.call = c.id WHERE o.id IS NULL"
    deadline = time.monotonic() + 5
    while rows(folder / "home", query) != [(0,)] and time.monotonic() < deadline:
        time.sleep(0.02)
    assert rows(folder / "home", query) == [(0,)]


def test_embeddings_are_the_same_as_bytes_and_as_numbers(folder: Path, base_url: str) -> None:
    said = javascript.client(folder, "embeddings", base_url)
    vectors = np.array(said["vectors"])
    assert said["indices"] == [0, 1, 2]
    assert vectors.shape == (3, 384)
    assert np.linalg.norm(vectors, axis=1) == pytest.approx(1.0, abs=1e-3)
    # The client asks for base64 by itself, and reads it as float32.
    assert vectors == pytest.approx(np.array(said["floats"]), abs=1e-5)
    assert vectors[0] @ np.array(said["one"]) > 0.999
    assert vectors[0] @ vectors[1] > vectors[0] @ vectors[2] + 0.1
    assert said["usage"]["total_tokens"] == said["usage"]["prompt_tokens"] > 0
    recorded = rows(
        folder / "home",
        "SELECT c.endpoint, o.prompt_tokens, o.completion_tokens, o.error FROM calls c "
        "JOIN outcomes o ON o.call = c.id WHERE c.id = ?",
        said["call"],
    )
    assert recorded == [("embeddings", said["usage"]["prompt_tokens"], 0, "")]


def test_feedback_through_the_same_client_is_kept(folder: Path, base_url: str) -> None:
    kept = javascript.client(folder, "feedback", base_url)
    found = rows(folder / "home", "SELECT target, kind, value, source FROM feedback WHERE id = ?", kept["id"])
    assert found == [(kept["target"], "rating", 1.0, "user")]
    assert rows(folder / "home", "SELECT count(*) FROM calls WHERE id = ?", kept["target"]) == [(1,)]


@pytest.mark.parametrize(
    ("case", "kind", "status", "code", "param"),
    [
        ("model", "NotFoundError", 404, "model_not_found", "model"),
        ("streamed", "NotFoundError", 404, "model_not_found", "model"),
        ("messages", "BadRequestError", 400, "invalid_request", "messages"),
        ("role", "BadRequestError", 400, "invalid_request", "messages"),
        ("large", "APIError", 413, "body_too_large", None),
        ("upstream", "InternalServerError", 502, "connect_refused", None),
        ("endpoint", "NotFoundError", 404, "not_found", "model"),
        ("embedder", "NotFoundError", 404, "model_not_found", "model"),
        ("tokens", "BadRequestError", 400, "invalid_request", "input"),
        ("empty", "BadRequestError", 400, "invalid_request", "input"),
        ("dimensions", "BadRequestError", 400, "invalid_request", "dimensions"),
    ],
)
def test_errors_are_the_clients_own_types(
    errors: dict[str, dict[str, Any]], case: str, kind: str, status: int, code: str, param: str | None
) -> None:
    error = errors[case]
    assert (error["kind"], error["status"], error["code"], error["param"]) == (kind, status, code, param)
    assert {"APIError", "OpenAIError"} <= set(error["kinds"])
    assert error["message"].startswith(f"{status} ")


def test_errors_of_the_way_there_have_no_status(errors: dict[str, dict[str, Any]]) -> None:
    assert errors["aborted"]["kind"] == "APIUserAbortError"
    assert errors["nowhere"]["kind"] == "APIConnectionError"
    assert "status" not in errors["aborted"].keys() | errors["nowhere"].keys()


def test_a_wrong_key_or_workspace_is_an_authentication_error(tmp_path: Path) -> None:
    digest = hashlib.sha256(KEY.encode()).hexdigest()
    config = _configured(tmp_path, f'[[keys]]\nname = "node"\nsha256 = "{digest}"\n')
    with server(tmp_path / "home", WINDLASS_CONFIG=config) as url:
        said = javascript.client(tmp_path, "keys", f"{url}/v1", KEY)
    assert said["right"] == 1
    for case, code in (("wrong", "invalid_api_key"), ("listed", "invalid_api_key"), ("elsewhere", "scope_denied")):
        error = said[case]
        assert (error["kind"], error["status"], error["code"]) == ("AuthenticationError", 401, code), case
