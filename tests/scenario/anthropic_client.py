"""What a user of Anthropic's own client does: `python anthropic_client.py <base URL> <models>` prints what came.

It runs in an environment of its own (`test_anthropic_client.py`) and imports nothing else of the tree.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import anthropic
import pydantic

ORDER = "Ask crew for the drum 'aft' with 6 bars."
SCHEMA = {
    "type": "object",
    "properties": {"drum": {"type": "string"}, "bars": {"type": "number"}},
    "required": ["drum", "bars"],
}
TOOLS = [{"name": "crew", "description": "How many a drum needs at its bars.", "input_schema": SCHEMA}]


class Joke(pydantic.BaseModel):
    """The answer that is asked for."""

    setup: str
    pawls: int


def usage(said: Any) -> list[int]:
    """All that went in, and what came out."""
    read = (said.usage.cache_read_input_tokens or 0) + (said.usage.cache_creation_input_tokens or 0)
    return [said.usage.input_tokens + read, said.usage.output_tokens]


def ask(client: Any, model: str) -> dict[str, Any]:
    """Everything once."""
    plain: dict[str, Any] = {"model": model, "max_tokens": 200}
    said = client.messages.create(**plain, messages=[{"role": "user", "content": "Hello"}])
    with client.messages.stream(**plain, messages=[{"role": "user", "content": "Hello"}]) as stream:
        pieces = list(stream.text_stream)
        streamed = stream.get_final_message()
    order = [{"role": "user", "content": ORDER}]
    called = client.messages.create(**plain, messages=order, tools=TOOLS)
    with client.messages.stream(**plain, messages=order, tools=TOOLS) as stream:
        called_streamed = stream.get_final_message()
    call = called.content[-1]
    told = {"type": "tool_result", "tool_use_id": call.id, "content": "12 hands"}
    turns = [*order, {"role": "assistant", "content": called.content}, {"role": "user", "content": [told]}]
    after = client.messages.create(**plain, messages=turns, tools=TOOLS)
    joke = [{"role": "user", "content": "Tell me a joke with 7 pawls."}]
    parsed = client.messages.parse(**plain, messages=joke, output_format=Joke).parsed_output
    counted = client.messages.count_tokens(model=model, messages=order, tools=TOOLS)
    return {
        "plain": [said.content[0].text, said.stop_reason, usage(said)],
        "stream": ["".join(pieces), streamed.stop_reason, usage(streamed)],
        "tools": [call.name, call.input, called.stop_reason, after.content[0].text],
        "toolsStreamed": [called_streamed.content[-1].name, called_streamed.content[-1].input],
        "structured": parsed.model_dump(),
        "counted": counted.input_tokens > 0,
    }


def refused(client: Any) -> list[Any]:
    """What is raised for a model that is not there."""
    try:
        client.messages.create(model="nobody", max_tokens=1, messages=[{"role": "user", "content": "Hello"}])
    except anthropic.NotFoundError as exc:
        return [exc.status_code, exc.body["type"], exc.body["error"]["type"]]
    return []


if __name__ == "__main__":
    base_url, *models = sys.argv[1:]
    with anthropic.Anthropic(base_url=base_url, api_key="none", max_retries=0, timeout=20) as made:
        answers = {model: ask(made, model) for model in models}
        sys.stdout.write(json.dumps({**answers, "nobody": refused(made)}))
