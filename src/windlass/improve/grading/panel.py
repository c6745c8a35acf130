"""The graders of the settings, made and counted: who is asked about a call, what each has said, and what went wrong."""

from __future__ import annotations

import asyncio
import re
import threading
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import msgspec

from windlass.errors import SettingsError
from windlass.improve.grading import registry
from windlass.improve.grading.answers import KnownAnswers
from windlass.improve.grading.code import Code
from windlass.improve.grading.grader import Grader, Judge, digest
from windlass.improve.grading.options import GraderOptions
from windlass.records import Scope

MOST_HUNG: Final = 3
"""So many threads of a grader may run beyond its time limit; it is left alone until one of them has come back."""
_BEGAN = re.compile(r"call_([0-9a-f]{12})")
_SHARES: Final = 16**8


@dataclass
class Seat:
    """One grader of the settings. metric: its name there. id: `check@version+options`, part of every grade's id.

    given, skipped (by why), failed, last_failure, spent_nusd: since this process began, all tenants together. left:
    threads that were left behind at the time limit.
    """

    metric: str
    id: str
    options: GraderOptions
    grader: Grader
    answers: KnownAnswers | None
    given: int = 0
    failed: int = 0
    last_failure: str = ""
    spent_nusd: int = 0
    skipped: Counter[str] = field(default_factory=Counter)
    left: set[threading.Thread] = field(default_factory=set)
    turn: asyncio.Lock = field(default_factory=asyncio.Lock)

    @property
    def hung(self) -> int:
        """How many of the threads that were left behind still run."""
        self.left -= {thread for thread in self.left if not thread.is_alive()}
        return len(self.left)

    def wants(self, call: str) -> bool:
        """Whether the call is in this grader's share; the same for everyone who asks."""
        share = self.options.share
        return share >= 1.0 or int(digest(self.metric, call)[:8], 16) < share * _SHARES

    def grade_id(self, scope: Scope, call: str) -> str:
        """The id of its grade of a call: always the same, so that it counts once; it begins with the call's time."""
        told = digest(self.metric, self.id, scope.tenant, scope.workspace, call)
        began = _BEGAN.match(call)
        return f"feedback_{began[1] if began else '0' * 12}{told[:20]}"

    def skip(self, why: str) -> None:
        self.skipped[why] += 1

    def fail(self, reason: str) -> bool:
        """Count a failure; whether the one before had another reason."""
        before, self.last_failure = self.last_failure, reason[:500]
        self.failed += 1
        return before != self.last_failure


def seats(options: Mapping[str, GraderOptions]) -> tuple[Seat, ...]:
    """The graders of the settings. SettingsError names the one that cannot work, and what it lacks."""
    return tuple(_seat(name, given) for name, given in sorted(options.items()))


def _seat(name: str, given: GraderOptions) -> Seat:
    try:
        grader = registry.make(given.check or name, given.options)
        answers = KnownAnswers.read(Path(given.answers)) if given.answers else None
    except SettingsError as exc:
        raise SettingsError(f"graders.{name}: {exc}") from exc
    if isinstance(grader, Judge) and given.daily_usd <= 0.0:
        raise SettingsError(f"graders.{name}: a judge costs money; set graders.{name}.daily_usd above 0")
    if isinstance(grader, Code) and grader.most_s >= given.timeout_s:
        remedy = f"set graders.{name}.timeout_s above that, or lower graders.{name}.options.seconds"
        raise SettingsError(f"graders.{name}: code may take {grader.most_s:g} s with the start of a Python; {remedy}")
    told = digest(msgspec.json.encode(given.options, order="sorted", enc_hook=repr))
    return Seat(name, f"{grader.name}@{grader.version}+{told[:8]}", given, grader, answers)
