"""What every grader must do, as a check for tests and for plugins before they are let in."""

from __future__ import annotations

import math
from typing import Final, get_args

import msgspec

from windlass.errors import SettingsError
from windlass.improve.grading.grader import Case, Check, Grade, Grader, Judge, On, Skipped, plain
from windlass.records import Call

_CALL: Final = Call(id="call_0000000000000000000000000000000a", at=0.0, endpoint="chat", model="m")
HOSTILE: Final = (
    Case(call=_CALL, question="", reply=""),
    Case(call=_CALL, question="2+2?", reply="4", expected="4"),
    Case(call=_CALL, question="\x00\ud800", reply="\x00 \ud800 nan inf -1e999", expected="\x00"),
    Case(call=_CALL, question="q" * 10_000, reply="9" * 10_000, expected=9.0),
    Case(call=_CALL, question="q", reply="[" * 10_000, expected=["a", None, {"deep": []}]),
    Case(call=_CALL, question="q", reply='{"grade": 1.0}', expected=True),
)
"""Cases that every check must answer, or refuse by an exception of Windlass, and twice the same."""


def check_grader(grader: Grader, name: str) -> None:
    """SettingsError where a grader breaks its contract. A judge's declaration is looked at; no model is asked."""
    _declared(grader, name)
    if isinstance(grader, Check):
        for case in HOSTILE:
            first, again = _verdict(grader, case), _verdict(grader, case)
            if first != again:
                raise SettingsError(f"it says {first} and then {again} of the same case; grade by the case alone")


def _declared(grader: Grader, name: str) -> None:
    if not isinstance(grader, Check | Judge):
        raise SettingsError(
            f"a {type(grader).__name__} is no grader; it needs `grade` or `judge`, and to declare itself"
        )
    if grader.name != name:
        raise SettingsError(f"it calls itself {grader.name!r}; grades must carry the name of the entry point")
    if not (isinstance(grader.version, str) and 0 < len(grader.version) <= 40):
        raise SettingsError(f"its version is {grader.version!r}; give a text of 1 to 40 characters")
    if grader.source not in ("qa", "system") or grader.on not in get_args(On):
        raise SettingsError(f"its source is {grader.source!r} and it is asked on {grader.on!r}; see `Declared`")
    if grader.needs_model is not isinstance(grader, Judge):
        raise SettingsError("`needs_model` must be True for a judge, and False for a check")
    cost = grader.cost_nusd
    if cost is not None and (type(cost) is not int or cost < 0):
        raise SettingsError(f"its cost_nusd is {cost!r}; give nano-dollars from 0 on, or None where nobody knows")


def _verdict(grader: Check, case: Case) -> object:
    """What it says, or the name of the exception by which it refuses."""
    try:
        found = grader.grade(case)
    except Exception as exc:  # noqa: BLE001 (a check may refuse by raising; what counts is that it does so each time)
        return type(exc).__name__
    return checked(found)


def checked(verdict: object) -> Grade | Skipped:
    """`verdict` if it is one, its reason made plain. SettingsError for anything else, and a value outside [0, 1]."""
    match verdict:
        case Skipped(why=why) if isinstance(why, str) and 0 < len(why) <= 40:
            return verdict
        case Grade(value=float() | int() as value, reason=str() as reason) if (
            math.isfinite(value) and 0.0 <= value <= 1.0
        ):
            return msgspec.structs.replace(verdict, reason=plain(reason))
        case _:
            raise SettingsError(
                f"{str(verdict)[:200]} is no verdict; return a Grade with a value in [0, 1], or Skipped"
            )
