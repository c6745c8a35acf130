"""How many tokens a picture in a prompt has, as providers document it.

Sources: OpenAI, "Images and vision", calculating costs (tiles, and patches for the small models); Anthropic, "Vision",
evaluating image size; Google, "Understand and count tokens". Figures as of 2026-11.
"""

from __future__ import annotations

import base64
import binascii
import math

UNKNOWN_SIDE = 1024
"""Pixels of a side where a picture's size cannot be seen."""
CLAUDE_MOST = 1_600
# Model name begins with -> tokens of a picture, tokens of each tile of 512 pixels. The first that fits.
TILES = (
    ("gpt-4o-mini", (2833, 5667)),
    ("gpt-5", (70, 140)),
    ("o1", (75, 150)),
    ("o3", (75, 150)),
    ("computer-use", (65, 129)),
    ("", (85, 170)),
)
# Model name begins with -> tokens a patch of 32 pixels.
PATCHES = (
    ("gpt-4.1-mini", 1.62),
    ("gpt-4.1-nano", 2.46),
    ("gpt-5-mini", 1.62),
    ("gpt-5-nano", 2.46),
    ("o4-mini", 1.72),
)
MOST_PATCHES = 1_536
_HEAD_CHARS = 64 * 1024


def picture_tokens(width: int, height: int, *, model: str = "", detail: str = "auto") -> int:
    """Tokens of a picture of so many pixels; `detail` as OpenAI has it: low, high, auto."""
    width, height = max(1, width), max(1, height)
    name = model.lower().rpartition("/")[2]
    if "claude" in name:
        return min(CLAUDE_MOST, math.ceil(width * height / 750))
    if "gemini" in name:
        small = max(width, height) <= 384
        return 258 * (1 if small else math.ceil(width / 768) * math.ceil(height / 768))
    for start, each in PATCHES:
        if name.startswith(start):
            patches = math.ceil(width / 32) * math.ceil(height / 32)
            return math.ceil(min(MOST_PATCHES, patches) * each)
    once, tile = next(cost for start, cost in TILES if name.startswith(start))
    return once if detail == "low" else once + tile * _tiles(width, height)


def most_picture_tokens(model: str = "") -> int:
    """As many as a picture of unknown size can have; for Gemini, which knows no bound, one of 3072 pixels a side."""
    return picture_tokens(3072, 3072, model=model) if "gemini" in model.lower() else _most(model)


def _most(model: str) -> int:
    # Within 2048 pixels and 768 on the short side: 2 x 4 tiles are the most.
    return max(picture_tokens(2048, 768, model=model), picture_tokens(2048, 2048, model=model))


def _tiles(width: int, height: int) -> int:
    """Tiles of 512 pixels after scaling into 2048 x 2048 and the short side to 768; a smaller picture is not grown."""
    scale = min(1.0, 2048 / max(width, height))
    scale = min(scale, 768 / min(width, height)) if min(width, height) * scale > 768 else scale
    return math.ceil(round(width * scale, 6) / 512) * math.ceil(round(height * scale, 6) / 512)


def size_of(url: str) -> tuple[int, int] | None:
    """Width and height of a PNG, GIF or JPEG in a `data:` address, by its head; None where they cannot be seen."""
    head, comma, data = url[: _HEAD_CHARS + 64].partition(",")
    if not (head.startswith("data:") and head.endswith(";base64") and comma):
        return None
    try:
        start = base64.b64decode(data[: min(len(data), _HEAD_CHARS) // 4 * 4])
    except (binascii.Error, ValueError):
        return None
    if start.startswith(b"\x89PNG\r\n\x1a\n") and len(start) >= 24:
        return int.from_bytes(start[16:20], "big"), int.from_bytes(start[20:24], "big")
    if start.startswith((b"GIF87a", b"GIF89a")) and len(start) >= 10:
        return int.from_bytes(start[6:8], "little"), int.from_bytes(start[8:10], "little")
    return _jpeg(start) if start.startswith(b"\xff\xd8") else None


def _jpeg(data: bytes) -> tuple[int, int] | None:
    """The frame header (SOF0 to SOF15 but DHT, JPG and DAC) among the segments of a JPEG (ITU T.81, B.2.2)."""
    at = 2
    while at + 9 <= len(data) and data[at] == 0xFF:
        marker = data[at + 1]
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            return int.from_bytes(data[at + 7 : at + 9], "big"), int.from_bytes(data[at + 5 : at + 7], "big")
        at += 2 + max(2, int.from_bytes(data[at + 2 : at + 4], "big"))
    return None
