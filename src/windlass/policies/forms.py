"""Forms: what many decisions have in common, kept once; what is their own is an action and a few raw numbers."""

from __future__ import annotations

from array import array
from collections.abc import Iterable
from typing import NamedTuple, TypeAlias

from windlass.errors import PolicyError
from windlass.ledger.folded import DecisionForm
from windlass.records import ContextValue
from windlass.stats.features import Context, finite


class Form(NamedTuple):
    """What many decisions have in common. lengths: of each named value, -1 for a plain number; () if all are plain."""

    point: str
    policy: str
    featuriser: str
    actions: tuple[str, ...]
    names: tuple[str, ...]
    lengths: tuple[int, ...]


Parts: TypeAlias = tuple[str, str, str, tuple[str, ...], tuple[str, ...], tuple[int, ...]]
"""Those of a Form, which is found by them."""


_AT_HAND = 1_000

Credited: TypeAlias = tuple[str, tuple[str, str, bool]]
"""The point of a live decision, and the row of its policy in the scores."""


class Forms:
    """Forms by number. Those that no decision has any more are left out whenever they are numbered anew, which is due
    once they are `crowded`."""

    def __init__(self, forms: Iterable[tuple[int, Form]], used: Iterable[int], next_form: int) -> None:
        self.next = next_form
        # By identity, each beside what it is of, so that no other can have it: comparing its six parts takes longer.
        self._bare: dict[int, tuple[DecisionForm, int]] = {}
        self._forms = dict(forms)
        self._numbers: dict[Parts, int] = {form: number for number, form in self._forms.items()}
        self._room = 2 * len(self._forms) + _AT_HAND
        if unknown := set(used) - self._forms.keys():
            raise PolicyError(
                f"a state with decisions of form {min(unknown)} and no such form; rebuild it from the ledger"
            )
        self.credited: dict[int, Credited] = {number: _credited(form) for number, form in self._forms.items()}
        """By number, what a reward of such a decision is counted under."""

    def __getitem__(self, number: int) -> Form:
        return self._forms[number]

    def stored(self) -> list[tuple[int, Form]]:
        return list(self._forms.items())

    @property
    def crowded(self) -> bool:
        """Whether they have more than doubled since they were numbered."""
        return len(self._forms) > self._room

    def take(self, parts: Parts) -> int:
        """The number of the form of these parts."""
        number = self._numbers.get(parts)
        if number is None:
            number = self._numbers[parts] = self.next
            self._forms[number] = Form(*parts)
            self.credited[number] = _credited(self._forms[number])
            self.next += 1
        return number

    def take_bare(self, decided: DecisionForm) -> int:
        """`take` of a decision whose context is not kept."""
        known = self._bare.get(id(decided))
        if known is not None:
            return known[1]
        number = self.take((decided.point, decided.policy, decided.featuriser, decided.actions, (), ()))
        if len(self._bare) >= _AT_HAND:
            self._bare.clear()
        self._bare[id(decided)] = (decided, number)
        return number


def _credited(form: Form) -> Credited:
    return form.point, (form.policy, "", True)


def pack(context: Context) -> tuple[tuple[str, ...], tuple[int, ...], bytes]:
    """(names, lengths, raw float64) of a context; what is no number counts as 0."""
    try:
        return tuple(context), (), array("d", context.values()).tobytes()  # type: ignore[type-var]  # or TypeError
    except (TypeError, OverflowError):
        pass
    values: array[float] = array("d")
    lengths: list[int] = []
    clean = finite(context)
    for value in clean.values():
        lengths.append(len(value) if isinstance(value, tuple) else -1)
        values.extend(value if isinstance(value, tuple) else (value,))
    return tuple(clean), tuple(lengths), values.tobytes()


def unpack(form: Form, raw: bytes) -> dict[str, ContextValue]:
    values = array("d", raw)
    if not form.lengths:
        return dict(zip(form.names, values, strict=True))
    context: dict[str, ContextValue] = {}
    start = 0
    for name, length in zip(form.names, form.lengths, strict=True):
        end = start + abs(length)
        context[name] = values[start] if length < 0 else tuple(values[start:end])
        start = end
    return context
