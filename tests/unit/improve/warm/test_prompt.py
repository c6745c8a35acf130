"""Prompts that are asked again: what stays as it was, what makes another prompt, what is left where it went."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from windlass.improve.warm.prompt import MOST_BYTES, AskedPrompt, read

CHAT: dict[str, Any] = {"model": "auto", "messages": [{"role": "user", "content": "what?"}]}


def prompt(**fields: Any) -> AskedPrompt:
    found = read("chat", json.dumps({**CHAT, **fields}).encode())
    assert isinstance(found, AskedPrompt)
    return found


def test_the_request_is_that_of_the_client_but_for_the_model_and_the_stream() -> None:
    body = prompt(stream=True, stream_options={"include_usage": True}, user="u", temperature=0.1).body("b")
    assert json.loads(body) == {**CHAT, "model": "b", "stream": False, "user": "u", "temperature": 0.1}


def test_who_asked_is_named_as_the_endpoint_names_users() -> None:
    assert json.loads(prompt(user="[EMAIL_1]").body("b", "u@example.com"))["user"] == "u@example.com"
    asked = read("messages", json.dumps({**CHAT, "metadata": {"user_id": "[EMAIL_1]", "expected": "x"}}).encode())
    assert isinstance(asked, AskedPrompt)
    assert json.loads(asked.body("b", "u"))["metadata"] == {"user_id": "u", "expected": "x"}
    assert "user" not in json.loads(asked.body("b", "u"))


@pytest.mark.parametrize(
    "fields",
    [{"user": "x"}, {"stream": True}, {"model": "b"}, {"metadata": {"a": "b"}}, {"store": True}],
)
def test_who_asks_and_how_it_is_answered_make_no_other_prompt(fields: dict[str, Any]) -> None:
    assert prompt(**fields).digest == prompt().digest


@pytest.mark.parametrize(
    "fields",
    [{"temperature": 0.2}, {"messages": [{"role": "user", "content": "what"}]}, {"max_tokens": 5}, {"tools": []}],
)
def test_what_changes_the_answer_makes_another_prompt(fields: dict[str, Any]) -> None:
    assert prompt(**fields).digest != prompt().digest


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"store": False}, "private"),
        ({"metadata": {"data_class": "personal"}}, "private"),
        ({"previous_response_id": "r"}, "held_elsewhere"),
        ({"conversation": "c"}, "held_elsewhere"),
        ({"background": True}, "held_elsewhere"),
        ({"container": "c"}, "held_elsewhere"),
        ({"messages": [{"role": "user", "content": [{"type": "file", "file": {"file_id": "f"}}]}]}, "held_elsewhere"),
        ({"input": [{"type": "item_reference", "id": "m"}]}, "held_elsewhere"),
        ({"mcp_servers": [{"url": "https://a.example"}]}, "hosted_tools"),
        ({"tools": [{"type": "function", "name": "f"}, {"type": "mcp", "server_url": "x"}]}, "hosted_tools"),
        ({"tools": [{"type": "web_search_20250305", "name": "web_search"}]}, "hosted_tools"),
        ({"tools": [{"type": ["mcp"]}]}, "hosted_tools"),
        ({"n": 2}, "several_choices"),
    ],
)
def test_what_must_not_or_cannot_go_elsewhere_says_why(fields: dict[str, Any], why: str) -> None:
    assert read("responses", json.dumps({**CHAT, **fields}).encode()) == why


@pytest.mark.parametrize(
    "fields",
    [
        {"tools": [{"type": "function", "function": {"name": "f"}}, {"name": "g", "input_schema": {}}]},
        {"tools": "none"},
        {"messages": [{"role": "user", "content": 'what is a "file_id"?'}]},
    ],
)
def test_tools_of_the_client_and_words_of_a_text_keep_no_prompt_back(fields: dict[str, Any]) -> None:
    assert prompt(**fields).digest


def test_a_picture_that_an_address_stands_for_counts_more_than_its_address() -> None:
    plain, seen = (
        prompt(),
        prompt(
            messages=[
                {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "https://a.example/b.png"}}]}
            ]
        ),
    )
    assert seen.most_prompt_tokens("gpt-4o") > 500 > plain.most_prompt_tokens("gpt-4o")


@pytest.mark.parametrize("endpoint", ["embeddings", "audio.speech", "", "gemini"])
def test_other_endpoints_are_left_alone(endpoint: str) -> None:
    assert read(endpoint, json.dumps(CHAT).encode()) == "other_endpoint"


@pytest.mark.parametrize(
    ("fields", "tokens"),
    [
        ({}, None),
        ({"max_tokens": 7}, 7),
        ({"max_completion_tokens": 5, "max_tokens": 7}, 5),
        ({"max_tokens": 7, "n": -3}, 7),
        ({"max_tokens": 7, "n": 10**30}, 7),
        ({"max_tokens": -(10**9)}, None),
        ({"max_tokens": 0}, None),
        ({"max_tokens": True}, None),
        ({"max_tokens": 10**30}, None),
        ({"max_completion_tokens": -1, "max_tokens": 7}, 7),
        ({"max_tokens": "many"}, None),
        ({"max_tokens": None}, None),
    ],
)
def test_how_long_answers_may_be_is_read(fields: dict[str, Any], tokens: int | None) -> None:
    assert prompt(**fields).most_tokens == tokens


def test_a_large_request_is_left_alone() -> None:
    assert read("chat", b"{" + b" " * MOST_BYTES + b"}") == "too_large"


@settings(max_examples=200, derandomize=True)
@given(
    st.binary(max_size=200)
    | st.recursive(st.none() | st.text() | st.integers(), st.lists).map(json.dumps).map(str.encode)
)
def test_whatever_was_kept_is_a_prompt_or_a_reason(body: bytes) -> None:
    found = read("chat", body)
    assert isinstance(found, str) or json.loads(found.body("b"))["model"] == "b"


@pytest.mark.parametrize(
    "body", [b'{"n": 1e999}', b'{"store": [[[', b"[" * 10_000, b'{"metadata": "personal"}', b"\xff\xfe"]
)
def test_hostile_bodies_break_nothing(body: bytes) -> None:
    assert isinstance(read("messages", body), str | AskedPrompt)
