import base64
import json
import random
import statistics
import string
import struct
import time
import zlib
from pathlib import Path
from typing import Any

import pytest

from windlass.gateway.money.estimate import BLOCK, estimate_tokens, reserve_tokens
from windlass.gateway.money.overhead import prompt_tokens, reserve_prompt_tokens
from windlass.gateway.money.pictures import most_picture_tokens, picture_tokens, size_of

# Counts by real tokenizers, written by tools/tokens.py from texts of our own, which the fit has not seen.
COUNTED: list[dict[str, Any]] = json.loads((Path(__file__).parents[3] / "data" / "tokens" / "counts.json").read_text())
KINDS = {"talks": (0.03, 0.15), "guide": (0.07, 0.25), "code": (0.06, 0.25)}


def errors(kind: str) -> list[float]:
    """Relative errors of the estimate against o200k_base."""
    found = [(estimate_tokens(one["text"]), one["tokens"]["o200k_base"]) for one in COUNTED if one["kind"] == kind]
    return [abs(guess - true) / true for guess, true in found]


@pytest.mark.parametrize("kind", KINDS)
def test_estimates_are_close_to_real_counts(kind: str) -> None:
    median, p95 = KINDS[kind]
    found = sorted(errors(kind))
    assert len(found) >= 30
    assert statistics.median(found) <= median
    assert found[int(0.95 * len(found))] <= p95


def test_the_estimate_is_better_than_four_characters_a_token() -> None:
    crude = [abs(-(-len(one["text"]) // 4) / one["tokens"]["o200k_base"] - 1) for one in COUNTED]
    mine = [abs(estimate_tokens(one["text"]) / one["tokens"]["o200k_base"] - 1) for one in COUNTED]
    assert statistics.median(mine) < 0.6 * statistics.median(crude)


def test_a_reserve_covers_99_of_100_pieces_with_any_tokenizer() -> None:
    short = [one["kind"] for one in COUNTED if reserve_tokens(one["text"]) < max(one["tokens"].values())]
    assert len(short) <= len(COUNTED) * 0.01, short


def test_a_reserve_is_no_blank_cheque() -> None:
    over = [reserve_tokens(one["text"]) / one["tokens"]["o200k_base"] for one in COUNTED if one["kind"] in KINDS]
    assert statistics.median(over) < 2


def test_no_text_has_no_tokens() -> None:
    assert (estimate_tokens(""), reserve_tokens("")) == (0, 0)


@pytest.mark.parametrize("text", ["\x00", "\ud800", "\U0001f600", "é", "日", "a", " ", "\n"])
def test_one_character_has_at_least_one_token(text: str) -> None:
    assert 1 <= estimate_tokens(text) <= 4
    assert 1 <= reserve_tokens(text) <= len(text.encode("utf-8", "surrogatepass"))


def test_it_does_not_matter_where_blocks_end() -> None:
    chosen = random.Random(1)
    text = "".join(chosen.choices(string.printable, k=3 * BLOCK + 17))
    whole = reserve_tokens(text)
    parts = sum(reserve_tokens(text[at : at + 1000]) for at in range(0, len(text), 1000))
    # Every part adds the share that a text has once, and its first byte stands after no byte.
    assert whole <= parts <= whole * 1.02
    assert reserve_tokens(text + "x") >= whole


def test_large_texts_do_not_take_long() -> None:
    text = "The pawl holds what the crew has won, and 1,024 turns later it still does.\n" * 30_000
    began = time.thread_time()
    reserve_tokens(text)
    assert len(text) / (time.thread_time() - began) > 20e6  # 150 MB/s measured, 50 promised on a quiet machine


def picture(width: int, height: int) -> str:
    """A PNG of that size, as a `data:` address."""
    head = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    data = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + head + struct.pack(">I", zlib.crc32(head))
    return "data:image/png;base64," + base64.b64encode(data).decode()


@pytest.mark.parametrize(
    ("width", "height", "model", "detail", "tokens"),
    [
        (1024, 1024, "gpt-4o", "high", 765),
        (2048, 4096, "gpt-4o", "high", 1105),
        (4096, 8192, "gpt-4o", "low", 85),
        (1024, 1024, "gpt-4o-mini", "auto", 2833 + 4 * 5667),
        (512, 512, "gpt-4.1", "auto", 255),
        (1024, 1024, "gpt-4.1-mini", "auto", 1659),
        (1000, 1000, "claude-sonnet-4-5", "auto", 1334),
        (8000, 8000, "claude-sonnet-4-5", "auto", 1600),
        (300, 300, "gemini-2.5-pro", "auto", 258),
        (1024, 1024, "models/gemini-2.5-pro", "auto", 1032),
        (0, 0, "gpt-4o", "auto", 255),
    ],
)
def test_pictures_cost_what_their_providers_document(
    width: int, height: int, model: str, detail: str, tokens: int
) -> None:
    assert picture_tokens(width, height, model=model, detail=detail) == tokens


@pytest.mark.parametrize("model", ["gpt-4o", "gpt-4o-mini", "gpt-4.1-nano", "claude-x", "something"])
def test_no_picture_costs_more_than_the_most(model: str) -> None:
    chosen = random.Random(2)
    sizes = [(chosen.randint(1, 10_000), chosen.randint(1, 10_000)) for _ in range(500)]
    assert max(picture_tokens(*size, model=model) for size in sizes) <= most_picture_tokens(model)


def test_sizes_are_read_from_the_heads_of_pictures() -> None:
    frame = b"\xff\xd8\xff\xe0\x00\x04ab\xff\xc0\x00\x11\x08" + struct.pack(">HH", 480, 640) + b"\x03" * 10
    assert size_of(picture(640, 480)) == (640, 480)
    assert size_of("data:image/jpeg;base64," + base64.b64encode(frame).decode()) == (640, 480)
    assert size_of("data:image/gif;base64," + base64.b64encode(b"GIF89a\x80\x02\xe0\x01").decode()) == (640, 480)


@pytest.mark.parametrize(
    "url",
    [
        "", "https://example.org/a.png", "data:image/png;base64,", "data:image/png;base64,!!!!", "data:image/png,abc",
        "data:image/jpeg;base64," + base64.b64encode(b"\xff\xd8\xff\xe0\x00\x00" * 9).decode(), "data:;base64,é",
    ],
)  # fmt: skip
def test_sizes_that_cannot_be_seen_are_not_invented(url: str) -> None:
    assert size_of(url) is None


def test_messages_add_what_the_cookbook_says() -> None:
    one = prompt_tokens([{"role": "user", "content": "Why a pawl?"}])
    two = prompt_tokens([{"role": "user", "content": "Why a pawl?"}, {"role": "user", "content": "Why a pawl?"}])
    # Three for a message, one for its role, three for the reply.
    assert one == 7 + estimate_tokens("Why a pawl?")
    assert 4 <= two - one - estimate_tokens("Why a pawl?") <= 6


def test_pictures_and_sound_count_as_such_and_not_as_text() -> None:
    sound = {"type": "input_audio", "input_audio": {"data": "A" * 64_000, "format": "mp3"}}
    seen = {"type": "image_url", "image_url": {"url": picture(1024, 1024), "detail": "high"}}
    linked = {"type": "image_url", "image_url": {"url": "https://example.org/a.png"}}
    claude = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "A" * 500_000}}
    file = {"type": "file", "file": {"file_data": "data:application/pdf;base64," + "A" * 64_000, "filename": "a.pdf"}}

    def tokens(part: dict[str, Any], **more: str) -> int:
        return prompt_tokens([{"role": "user", "content": [part]}], **more)

    empty = prompt_tokens([{"role": "user", "content": []}])
    assert tokens(seen) - empty == 765
    assert tokens(linked) - empty == 765
    assert tokens(claude, model="claude-sonnet-4-5") - empty == 1399
    assert tokens(sound) - empty == 64_000 * 3 // 4 // 1_600 + 1
    assert 2_000 < tokens(file) - empty < 5_000
    assert reserve_prompt_tokens([{"role": "user", "content": [linked]}]) - empty == most_picture_tokens()


def test_tools_count_by_function_property_and_choice() -> None:
    def tool(**properties: Any) -> list[dict[str, Any]]:
        parameters = {"type": "object", "properties": properties}
        return [{"type": "function", "function": {"name": "turn", "description": "Turn it", "parameters": parameters}}]

    messages = [{"role": "user", "content": "hi"}]
    bare = prompt_tokens(messages)
    without = prompt_tokens(messages, tool())
    unit = {"type": "string", "description": "of turning", "enum": ["left", "right"]}
    with_one = prompt_tokens(messages, tool(way=unit))
    assert 7 + 12 <= without - bare <= 7 + 12 + 8
    assert 3 + 3 - 3 + 2 * 3 <= with_one - without <= 9 + 16
    nested = tool(way={"type": "object", "properties": {"inner": unit}})
    assert prompt_tokens(messages, nested) > with_one
    anthropic = [{"name": "turn", "description": "Turn it", "input_schema": nested[0]["function"]["parameters"]}]
    assert prompt_tokens(messages, anthropic) == prompt_tokens(messages, nested)


def test_tool_calls_and_their_results_are_read() -> None:
    arguments = json.dumps({"way": "left", "turns": list(range(100))})
    called = {"role": "assistant", "content": None, "tool_calls": [{"function": {"name": "f", "arguments": arguments}}]}
    assert prompt_tokens([called]) >= estimate_tokens(arguments)


@pytest.mark.parametrize(
    "messages",
    [None, "text", 5, 1.5, True, [], [None], [[]], {}, [{"content": {"type": "image_url", "image_url": 7}}],
     [{"content": [{"type": "input_audio", "input_audio": {"data": 5}}]}], [{"role": 5, "content": [1, None, {}]}],
     [{"content": [{"type": "image", "source": {"data": None}}]}], [{1: 2}]],
)  # fmt: skip
@pytest.mark.parametrize("tools", [None, [], "x", [None], [{"function": 5}], [{"parameters": {"properties": [1]}}]])
def test_whatever_is_no_prompt_still_gets_a_number(messages: Any, tools: Any) -> None:
    assert 3 <= prompt_tokens(messages, tools) <= 2_000
    assert reserve_prompt_tokens(messages, tools) >= 3


def test_deep_nesting_ends() -> None:
    deep: Any = "x"
    for _ in range(900):
        deep = [deep]
    schema: Any = {}
    for _ in range(900):
        schema = {"items": schema}
    assert reserve_prompt_tokens([{"role": "user", "content": deep}], [{"name": "f", "parameters": schema}]) >= 10
