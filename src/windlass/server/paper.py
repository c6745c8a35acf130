"""What rich draws for people: the screen, the same without a screen, and how far something is."""

from __future__ import annotations

import re
import sys
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

_FILLED = re.compile(r"[ ]+$", re.MULTILINE)


class Piped(Console):
    """For pipes and files, whose lines are as long as what stands in them: nothing is wrapped, nothing filled up.

    width: cells of a table that is wider are folded.
    """

    def __init__(self, width: int) -> None:
        super().__init__(highlight=False, emoji=False, soft_wrap=True, width=width)

    def print(self, *objects: Any, **options: Any) -> None:
        with self.capture() as written:
            super().print(*objects, **options)
        sys.stdout.write(_FILLED.sub("", written.get()))


def screen() -> Console:
    """A terminal."""
    return Console(highlight=False, emoji=False, soft_wrap=True)


def progress() -> Progress:
    """A bar on standard error that goes when it is done."""
    columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    return Progress(*columns, TimeElapsedColumn(), console=Console(stderr=True), transient=True)
