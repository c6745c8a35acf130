"""What a grader is: it looks at a finished call and says what the reply was worth, or why it does not. Read first.

A `Check` is plain code: it runs in a thread, off the path of every call, under a time limit. A `Judge` asks a model
through the gateway, so that each of its questions is a recorded, costed call. What either says becomes feedback.
"""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final, Literal, NamedTuple, Protocol, TypeAlias, runtime_checkable

import msgspec

from windlass.errors import WindlassError
from windlass.gateway.wire import Message
from windlass.records import Call

On: TypeAlias = Literal["reply", "next", "correction"]
"""When a grader is asked: a call has ended; a call has ended, with those of the same user before it; a user wrote what
the reply should have been."""
MOST_REASON_CHARS: Final = 300


class GraderFailed(WindlassError):
    """A grader could not do its work: what it needs is not there, or a model's verdict cannot be read."""


class Earlier(NamedTuple):
    """A call that came before, by the same user or for the same parent: its id, when it began and ended (UTC seconds),
    what was asked and what was answered."""

    call: str
    began: float
    ended: float
    question: str
    reply: str


class Case(msgspec.Struct, frozen=True, kw_only=True):
    """One finished call, as a grader sees it. Everything in it is data that others wrote.

    question: the user's last message. expected: the answer that is known to be right, None where nobody gave one;
    tests: what the code in the reply must pass, as Python, '' likewise.
    fields: the request's other fields by name, undecoded. earlier: the newest last; correction: what a user wrote in
    place of the reply (both only for those that are asked `on` it).
    """

    call: Call
    question: str
    reply: str
    messages: tuple[Message, ...] = ()
    expected: Any = None
    tests: str = ""
    fields: Mapping[str, msgspec.Raw] = {}
    earlier: tuple[Earlier, ...] = ()
    correction: str = ""


class Grade(msgspec.Struct, frozen=True, kw_only=True):
    """What a reply was worth, in [0, 1], and why in a few words of the grader's own, never of the reply.

    target: the call it is about, '' for the one that was looked at. cost_nusd: what it cost to say so.
    """

    value: float
    reason: str
    target: str = ""
    cost_nusd: int = 0


class Skipped(msgspec.Struct, frozen=True, kw_only=True):
    """The grader says nothing, and `why`, as one of few words that can be counted, such as `no_expected`."""

    why: str
    cost_nusd: int = 0


Verdict: TypeAlias = Grade | Skipped
NO_EXPECTED: Final = Skipped(why="no_expected")


class JudgeAnswer(NamedTuple):
    """What a model answered to a judge. cost_nusd: 0 where the answer was in the store already."""

    text: str
    call: str
    model: str
    cost_nusd: int


AskModel: TypeAlias = Callable[[bytes, str], Awaitable[JudgeAnswer]]
"""(a chat request, a digest of it) -> the answer, by the gateway, on the account of the tenant whose call is graded.
GraderFailed where nothing came."""


class Declared(Protocol):
    """What every grader tells of itself before it is asked for the first time.

    name: in the registry. version: changes whenever the same reply may be graded differently. source: of the feedback.
    cost_nusd: what one grade costs by its own estimate, None where that depends on the model that is asked.
    """

    @property
    def name(self) -> str: ...

    @property
    def version(self) -> str: ...

    @property
    def source(self) -> Literal["qa", "system"]: ...

    @property
    def on(self) -> On: ...

    @property
    def needs_model(self) -> bool: ...

    @property
    def cost_nusd(self) -> int | None: ...


@runtime_checkable
class Check(Declared, Protocol):
    """A grader that is plain code. Thread-safe, and the same case gives the same verdict."""

    def grade(self, case: Case) -> Verdict:
        """What the reply was worth. It may raise: that is counted, and touches no call."""
        ...


@runtime_checkable
class Judge(Declared, Protocol):
    """A grader that asks a model."""

    async def judge(self, case: Case, ask: AskModel) -> Verdict:
        """What the reply was worth by what the model says. GraderFailed where its verdict cannot be read."""
        ...


Grader: TypeAlias = Check | Judge


def said(value: float, reason: str, **more: Any) -> Grade:
    """A grade with a reason that any database and any page takes."""
    return Grade(value=value, reason=plain(reason), **more)


def plain(reason: str) -> str:
    """`reason` as any database and any page takes it: printable, and not long."""
    printable = (c if c.isprintable() else " " for c in reason.encode(errors="replace").decode())
    return "".join(printable)[:MOST_REASON_CHARS]


def norm(text: str) -> str:
    """`text` as it is compared: compatible forms joined (NFKC), no case, single spaces.

    >>> norm("  Ｐａｒｉｓ\\n FRANCE ")
    'paris france'
    """
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def digest(*parts: str | bytes) -> str:
    """SHA-256 over the parts with their lengths, as hex: no two lists of parts run into one."""
    found = hashlib.sha256()
    for part in parts:
        data = part.encode(errors="surrogatepass") if isinstance(part, str) else part
        found.update(len(data).to_bytes(8, "big") + data)
    return found.hexdigest()
