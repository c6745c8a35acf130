"""What can be set about content: how files are read and when an answer is worth giving."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta


class ContentOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Reading and indexing. `chunk_words` is the aim for one passage of the index."""

    max_file_bytes: Annotated[int, Meta(ge=1024)] = 32 * 1024 * 1024
    chunk_words: Annotated[int, Meta(ge=20, le=400)] = 110
    key_quotes: Annotated[int, Meta(ge=0, le=50)] = 5


class AskOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Answering. Below the floor the answer is "not in memory"; it depends on whether vectors exist."""

    passages: Annotated[int, Meta(ge=1, le=40)] = 12
    quotes: Annotated[int, Meta(ge=1, le=20)] = 3
