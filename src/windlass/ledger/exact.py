"""Real numbers as whole ones, for SQLite, which writes a real number into JSON with 15 of its 17 digits.

A real number from 2^low up to 2^(low + 11), times 2^(52 - low), is a whole number below 2^63 in which each of its 53
bits is kept: nothing is rounded on the way, there or back.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

ODD: Final = 1.0
"""Stands for what is out of range, which is to be read by itself; no number in range becomes it."""
_BINADES: Final = 11
_MANTISSA: Final = 52


class Scale:
    """Real numbers from 2^low up to 2^(low + 11), and 0; if `wide`, up to 2^(low + 22), the upper half told apart by
    its sign."""

    def __init__(self, low: int, *, wide: bool = False) -> None:
        self._lows = (low, low + _BINADES) if wide else (low,)
        self._unit = 2.0 ** (low - _MANTISSA)
        self._upper_unit = -(2.0 ** (low + _BINADES - _MANTISSA))

    def told(self, column: str) -> str:
        """The SQL that tells the real number in a column: a whole number, 0 for 0, `ODD` for what is out of range."""
        cases = [
            f"WHEN {_reaches(column, low)} AND {column} < {2 ** (low + _BINADES)} "
            f"THEN {sign}CAST({column} * {2 ** (_MANTISSA - low)} AS INTEGER)"
            for sign, low in zip(("", "-"), self._lows, strict=False)
        ]
        return f"CASE {' '.join(cases)} WHEN {column} = 0 THEN 0 ELSE {ODD:.0f} END"

    def numbers(self, told: Sequence[float]) -> list[float]:
        """The real numbers for what was told; what is odd is left to whoever reads it by itself."""
        unit, upper_unit = self._unit, self._upper_unit
        if len(self._lows) == 1:
            return [one * unit for one in told]
        return [one * unit if one >= 0.0 else one * upper_unit for one in told]


def _reaches(column: str, low: int) -> str:
    """The SQL of whether a number is at least 2^low, without a fraction that could be rounded."""
    return f"{column} >= {2**low}" if low >= 0 else f"{column} * {2**-low} >= 1"
