"""The formats that can be read, and which of them a row is of."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final, NamedTuple, Protocol, get_args

from windlass.errors import InputError
from windlass.gateway.history import langfuse, litellm, openai, openrouter
from windlass.gateway.history.past import Program, Told
from windlass.gateway.history.values import Row

LOOKED_AT: Final = 50
"""So many rows of a file may be of no known format before the whole file counts as such."""


class Fits(Protocol):
    def __call__(self, row: Row) -> bool: ...


class Reads(Protocol):
    def __call__(self, row: Row, now: float) -> Told: ...


class Format(NamedTuple):
    """How rows of one program are told apart and read."""

    fits: Fits
    read: Reads


FORMATS: Final[Mapping[Program, Format]] = {
    "litellm": Format(litellm.fits, litellm.read),
    "langfuse": Format(langfuse.fits, langfuse.read),
    "openai": Format(openai.fits, openai.read),
    "openrouter": Format(openrouter.fits, openrouter.read),
}
AUTO: Final = "auto"
NAMES: Final = (AUTO, *get_args(Program))


def of(rows: Iterable[Row]) -> Program | None:
    """The format of the first row that is of a known one."""
    return next((name for row in rows for name, one in FORMATS.items() if one.fits(row)), None)


def order(rows: Iterable[Row]) -> int:
    """When a file is taken whose first rows these are: requests before the answers to them, scores last."""
    for row in rows:
        if openai.requests(row):
            return 0
        if langfuse.scores(row):
            return 2
    return 1


def unknown(name: str, row: Row | None) -> InputError:
    """What to say of a file of none of them."""
    found = f"its fields are {', '.join(map(str, list(row)[:8]))}" if row else "it holds no JSON objects and no CSV"
    known = ", ".join(FORMATS)
    return InputError(f"{name} is no export of a known program ({known}): {found[:300]}; name it with --format")
