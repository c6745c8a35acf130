"""The documented formats, row by row: tests/data/exports says where each is documented."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from windlass.errors import InputError
from windlass.gateway.history import formats
from windlass.gateway.history.past import Past, PastRequest, PastWord, Told, call_id
from windlass.gateway.history.shapes import Found
from windlass.gateway.history.source import Export
from windlass.records import Scope

EXPORTS = Path(__file__).parents[3] / "data" / "exports"
NOW = 1_790_000_000.0


def _rows(name: str) -> list[dict[str, Any]]:
    return [dict(item.row) for item in Export(EXPORTS / name).rows() if isinstance(item, Found)]


def _told(name: str) -> list[Told | str]:
    """What each row of a file tells, or why it tells nothing."""
    found: list[Told | str] = []
    rows = _rows(name)
    program = formats.of(rows)
    assert program is not None
    for row in rows:
        assert formats.FORMATS[program].fits(row)
        try:
            found.append(formats.FORMATS[program].read(row, NOW))
        except InputError as exc:
            found.append(str(exc))
    return found


def _calls(name: str) -> list[Past]:
    return [told for told in _told(name) if isinstance(told, Past)]


@pytest.mark.parametrize(
    ("name", "program"),
    [(path.name, path.name.partition("_")[0]) for path in sorted(EXPORTS.glob("*_*"))],
)
def test_each_file_is_known_by_its_rows_and_by_no_other_format(name: str, program: str) -> None:
    rows = _rows(name)
    assert rows
    for row in rows:
        assert [known for known, one in formats.FORMATS.items() if one.fits(row)] == [program]


def test_litellm_spend_logs() -> None:
    first, second, third, failed, cached = _calls("litellm_spend_logs.jsonl")
    assert (first.at, first.latency_ms, first.first_byte_ms) == (1_740_819_600.25, 1250.0, 500.0)
    assert (first.model, first.answered, first.provider, first.endpoint) == ("small", "gpt-4o-mini", "openai", "chat")
    assert (first.prompt_tokens, first.completion_tokens, first.cost_nusd) == (20, 10, 12_300)
    assert (first.user, first.group, first.request, first.reply) == ("customer-1", "session-a", "", "")
    assert json.loads(second.request) == {
        "model": "small",
        "messages": [{"role": "user", "content": "What does a pawl do?"}],
    }
    assert "turn one way" in second.reply
    assert (third.endpoint, third.cost_nusd, third.first_byte_ms) == ("embeddings", 0, 1250.0)
    assert (failed.status, failed.error) == (429, "rate_limited")
    assert cached.about == {"cached": "true"}


def test_the_same_call_from_another_shape_of_export_is_the_same_call() -> None:
    scope = Scope()
    (table, _) = _calls("litellm_spend_logs.csv")
    (line, *_) = _calls("litellm_spend_logs.jsonl")
    assert table == line
    blob, api = _calls("langfuse_observations_v2.jsonl")[0], _calls("langfuse_api_observations.json")[0]
    assert call_id(scope, blob) == call_id(scope, api)
    assert (blob.cost_nusd, blob.prompt_tokens, blob.request) == (api.cost_nusd, api.prompt_tokens, api.request)
    assert call_id(Scope("other"), blob) != call_id(scope, blob)


def test_litellm_standard_logging() -> None:
    good, failed = _calls("litellm_standard_logging.json")
    assert (good.at, good.latency_ms, good.first_byte_ms, good.cost_nusd) == (1_740_819_600.5, 3000.0, 500.0, 750_000)
    assert (good.stream, good.provider, good.group) == (True, "anthropic", "trace-std")
    assert (failed.status, failed.error) == (529, "upstream_server_error")


def test_langfuse_observations() -> None:
    first, span, failed, embedding = _told("langfuse_observations_v2.jsonl")
    assert isinstance(first, Past)
    assert (first.at, first.latency_ms, first.first_byte_ms) == (1_743_515_179.963, 1500.0, 500.0)
    assert (first.prompt_tokens, first.completion_tokens, first.cost_nusd) == (128, 40, 650_000)
    assert json.loads(first.request) == {
        "model": "gpt-4o",
        "temperature": 0.7,
        "messages": [{"role": "user", "content": "Why a ratchet?"}],
    }
    assert span == "no_model_call: an observation of type SPAN calls no model"
    assert isinstance(failed, Past)
    assert (failed.error, failed.status, failed.latency_ms) == ("upstream_failed", 500, 0.0)
    assert isinstance(embedding, Past)
    assert embedding.endpoint == "embeddings"
    unpriced = _calls("langfuse_api_observations.json")[1]
    assert (unpriced.priced, unpriced.cost_nusd, unpriced.at) == ("unknown", 0, 1_744_206_379.963)


def test_langfuse_scores() -> None:
    told = _told("langfuse_scores.jsonl")
    rated, refused, off_scale, words, corrected, _, session, checked = told
    assert isinstance(rated, PastWord)
    assert (rated.target, rated.kind, rated.by, rated.metric, rated.value) == (
        *("obs-1", "rating", "user", "helpful", 0.9),
    )
    assert isinstance(refused, PastWord)
    assert (refused.by, refused.value) == ("qa", 0.0)
    assert str(off_scale).startswith("score_scale: ")
    assert str(words).startswith("score_kind: ")
    assert isinstance(corrected, PastWord)
    assert (corrected.kind, corrected.value, corrected.comment) == ("correction", None, "It also holds the load.")
    assert str(session).startswith("session_score: ")
    assert isinstance(checked, PastWord)
    assert checked.by == "system"


def test_openai_stored_completions_cost_what_is_published() -> None:
    priced, unpriced = _calls("openai_stored_completions.json")
    # 13 tokens at 0.15 and 18 at 0.60 US dollars a million.
    assert (priced.cost_nusd, priced.priced, priced.provider) == (13 * 150 + 18 * 600, "published", "openai")
    assert (unpriced.cost_nusd, unpriced.priced) == (0, "unknown")
    answered, failed = _calls("openai_responses.jsonl")
    assert (answered.endpoint, answered.prompt_tokens, answered.completion_tokens) == ("responses", 36, 87)
    assert (failed.status, failed.error) == (500, "upstream_server_error")


def test_openai_batches_cost_half_and_are_led_to_their_requests() -> None:
    done, refused, expired = _told("openai_batch_output.jsonl")
    assert isinstance(done, Past)
    assert (done.cost_nusd, done.source, done.about) == (
        *((13 * 150 + 18 * 600) // 2, "batch_req_1", {"custom_id": "request-1"}),
    )
    assert refused == "time: there is no created"
    assert str(expired).startswith("not_asked: ")
    asked = [told for told in _told("openai_batch_input.jsonl") if isinstance(told, PastRequest)]
    assert [one.key for one in asked] == ["request-1", "request-2", "request-3"]
    messages = [told for told in _told("openai_stored_messages.json") if isinstance(told, PastRequest)]
    assert [one.key for one in messages] == ["message:chatcmpl-stored-1"] * 2


def test_openrouter() -> None:
    done, cancelled, failed = _calls("openrouter_activity.csv")
    assert (done.at, done.latency_ms, done.first_byte_ms, done.cost_nusd) == (
        *(1_746_093_600.123, 1200.0, 250.0, 1_500_000),
    )
    assert (done.provider, done.model, done.stream, done.error) == ("OpenAI", "openai/gpt-4.1-2025-04-14", True, "")
    assert cancelled.error == "client_gone"
    assert failed.error == "upstream_failed"
    (generation,) = _calls("openrouter_generation.json")
    assert (generation.prompt_tokens, generation.completion_tokens, generation.user) == (11, 26, "customer-3")


@pytest.mark.parametrize("program", list(formats.FORMATS))
def test_a_row_of_nonsense_is_refused_and_breaks_nothing(program: Any) -> None:
    for name in sorted(EXPORTS.glob(f"{program}_*")):
        for row in _rows(name.name):
            for field in row:
                value: Any
                for value in (None, "", [], {}, "\x00", "NaN", -1, 10**400, "x" * 10_000, [[]], True, {"a": None}):
                    assert ": " in _refusal(program, {**row, field: value})


def _refusal(program: Any, row: dict[str, Any]) -> str:
    """Why a row is refused; one that is taken is none of that."""
    try:
        return f": {formats.FORMATS[program].read(row, NOW)}"
    except InputError as exc:
        return str(exc)
