"""`numeric`: the last number of the reply is the expected one, within a tolerance, in whichever unit it is written."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import ClassVar, Final, Literal, NamedTuple

from windlass.errors import SettingsError
from windlass.improve.grading.exact import texts
from windlass.improve.grading.grader import NO_EXPECTED, Case, On, Skipped, Verdict, said

READ_CHARS: Final = 20_000
"""Of the end of a reply: the last number stands there, if it stands anywhere."""
MOST_DIGITS: Final = 400
_NUMBER = re.compile(
    r"(?<![\w.,])(?P<sign>[-+−]?)[$€£]?\s?(?P<whole>\d{1,3}(?:[,  ]\d{3})+(?!\d)|\d+)(?P<rest>\.\d+)?"
    r"(?P<power>[eE][-+]?\d{1,4}(?![\d.]))?(?:\s?/\s?(?P<over>\d+)(?![\d/]))?\s?(?P<unit>%|°?[A-Za-zµ]{1,6}(?![\w]))?"
)
_UNITS: Final[dict[str, tuple[str, float]]] = {
    "nm": ("length", 1e-9), "um": ("length", 1e-6), "µm": ("length", 1e-6), "mm": ("length", 1e-3),
    "cm": ("length", 1e-2), "m": ("length", 1.0), "km": ("length", 1e3), "in": ("length", 0.0254),
    "ft": ("length", 0.3048), "yd": ("length", 0.9144), "mi": ("length", 1609.344),
    "mg": ("mass", 1e-6), "g": ("mass", 1e-3), "kg": ("mass", 1.0), "t": ("mass", 1e3), "lb": ("mass", 0.45359237),
    "oz": ("mass", 0.028349523125),
    "ms": ("time", 1e-3), "s": ("time", 1.0), "min": ("time", 60.0), "h": ("time", 3600.0), "d": ("time", 86_400.0),
    "ml": ("volume", 1e-3), "l": ("volume", 1.0), "%": ("share", 0.01),
}  # fmt: skip
"""Unit -> what it measures, and how many base units it is. SI brochure, 9th ed.; NIST SP 811, appendix B.8."""


@dataclass(frozen=True, slots=True)
class NumericOptions:
    """How near the number must be: within `rel` of the expected one, or within `abs` of it, whichever is wider.

    units: `convert` reads known units (m, km, ft, kg, lb, s, min, h, l, %, ...) where both sides name one, and takes
    another measure for wrong; `ignore` compares the plain numbers.
    """

    rel: float = 1e-6
    abs: float = 0.0
    units: Literal["convert", "ignore"] = "convert"

    def __post_init__(self) -> None:
        for name, value in (("rel", self.rel), ("abs", self.abs)):
            if not (math.isfinite(value) and value >= 0.0):
                raise SettingsError(f"{name} is {value}; give a finite number from 0 on")


class Quantity(NamedTuple):
    """A number as it was written, and its unit, '' where none that is known follows it."""

    value: float
    unit: str


class Numeric:
    """Compares the last number of the reply with the expected one. Costs nothing."""

    name: ClassVar[str] = "numeric"
    version: ClassVar[str] = "1"
    source: ClassVar[Literal["qa", "system"]] = "qa"
    on: ClassVar[On] = "reply"
    needs_model: ClassVar[bool] = False
    cost_nusd: ClassVar[int | None] = 0

    def __init__(self, options: NumericOptions):
        self._options = options

    def grade(self, case: Case) -> Verdict:
        """1 where the number is near enough to one of the expected ones, else 0."""
        given = texts(case.expected)
        if not given:
            return NO_EXPECTED
        wanted = [found for text in given if (found := last_number(text)) is not None]
        if not wanted:
            return Skipped(why="no_number_expected")
        found = last_number(case.reply)
        if found is None:
            return said(0.0, "no finite number in the reply")
        fits = any(self._near(found, one) for one in wanted)
        return said(float(fits), "the expected number" if fits else "another number than the expected one")

    def _near(self, found: Quantity, wanted: Quantity) -> bool:
        value, aim = found.value, wanted.value
        if self._options.units == "convert" and found.unit and wanted.unit:
            (measure, factor), (other, base) = _UNITS[found.unit], _UNITS[wanted.unit]
            if measure != other:
                return False
            value *= factor / base
        return math.isclose(value, aim, rel_tol=self._options.rel, abs_tol=self._options.abs)


def last_number(text: str) -> Quantity | None:
    """The last finite number of a text; None where there is none.

    >>> last_number("First 3, then 1,234.5 km."), last_number("so -2e3"), last_number("it is 3/4"), last_number("none")
    (Quantity(value=1234.5, unit='km'), Quantity(value=-2000.0, unit=''), Quantity(value=0.75, unit=''), None)
    """
    found = None
    for match in _NUMBER.finditer(text[-READ_CHARS:]):
        found = _quantity(match) or found
    return found


def _quantity(match: re.Match[str]) -> Quantity | None:
    whole, over = re.sub(r"\D", "", match["whole"]), match["over"] or "1"
    if len(whole) > MOST_DIGITS or len(over) > MOST_DIGITS:
        return None
    try:
        value = float(f"{whole}{match['rest'] or ''}{match['power'] or ''}") / float(over)
    except (OverflowError, ZeroDivisionError, ValueError):
        return None
    if not math.isfinite(value):
        return None
    unit = match["unit"] or ""
    known = unit if unit in _UNITS else unit.lower() if unit.lower() in _UNITS else ""
    return Quantity(-value if match["sign"] in ("-", "−") else value, known)
