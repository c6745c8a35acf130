"""Floor: the quality that is routed is held to a share of a reference model's, by a test on the calls themselves.

What `quality_floor` expects, this guard measures. It takes the reference in a small audited share of the calls, which
draws the calls by lot, so that their rewards say what the reference would have earned on all of them. Evidence
(evidence.py) compares both after every reward. There are two errors, and each has a chance of at most `delta`:

- **Undetected violation.** The calls are cut into windows, and a window passes only once it is shown that the policy
  inside is less than `margin` below the floor. One that has not passed after `window` audited calls raises an alarm.
  Where the policy inside is `margin` or more below the floor from some call on, the window that runs may pass, the
  next one with a chance of at most `delta`: so the chance that there is no alarm within 2 `window` audited calls is at
  most `delta`, whatever the policy, the contexts and the rewards depend on.
- **False alarm.** In a period of `window` audited calls, the chance of an alarm that says "below the floor", while in
  its window the policy inside was on average not, is at most `delta`.

After an alarm the reference acts, and the audited share goes to the policy inside, which goes on learning. It comes
back where it is shown, by the same test, to be less than `margin` below the floor; the chance of a wrong return is at
most `delta` in a period of `window` of its calls. docs/explanation/floor.md has the proof, and how many audited calls
it takes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from windlass.errors import PolicyError
from windlass.policies.evidence import Evidence, FloorTerms, begun
from windlass.policies.policy import Choice, Guard, Policy, identity, require
from windlass.records import Decision
from windlass.stats.chance import mixed
from windlass.stats.features import Context

_MAX_CONTENTS: Final = 100


@dataclass(frozen=True, slots=True)
class FloorOptions:
    """Quality is promised to be at least so much of a reference model's.

    reference: the action whose quality counts as 100 %; it must be named. share_of_reference: the floor, in percent of
    that, above 0 up to 100. contents: other percentages, for content types: the name of a feature -> percent; a call
    belongs to the first of them, in order of their names, whose feature is above 0.5 (`task:code`), and else to the
    rest, which has the floor `share_of_reference`. Each has its own test and its own alarm. audit_share: of the calls,
    from 0.001 to 0.5, the reference takes by lot. margin: in points of quality (100 points from 0 to 1), from 0.1 to
    50: being this much below the floor is what is found for certain. window: audited calls after which a router that
    was not shown to keep the floor less the margin is left, from 50 to 1,000,000. delta: the chance of an undetected
    violation, and of a false alarm in a window, from 0.0001 to 0.5.
    """

    reference: str = ""
    share_of_reference: float = 95.0
    contents: Mapping[str, float] = field(default_factory=dict)
    audit_share: float = 0.05
    margin: float = 5.0
    window: int = 2_000
    delta: float = 0.05

    def __post_init__(self) -> None:
        if not self.reference:
            raise PolicyError("floor: reference is empty; name the model whose quality counts as 100 %")
        shares = {"share_of_reference": self.share_of_reference, **self.contents}
        for name, percent in shares.items():
            if not 0.0 < percent <= 100.0:
                raise PolicyError(f"floor: {name} is {percent}; give a percentage above 0 and up to 100")
        if len(self.contents) > _MAX_CONTENTS or "" in self.contents:
            raise PolicyError(f"floor: {len(self.contents)} contents; give at most {_MAX_CONTENTS}, each with a name")
        for name, value, low, high in (
            ("audit_share", self.audit_share, 0.001, 0.5),
            ("margin", self.margin, 0.1, 50.0),
            ("window", self.window, 50, 1_000_000),
            ("delta", self.delta, 0.0001, 0.5),
        ):
            if not low <= value <= high:
                raise PolicyError(f"floor: {name} is {value}; give a number from {low:g} to {high:g}")


class FloorReport(NamedTuple):
    """What is known of one floor. content: "" for the rest. audited: calls of the window that the other one took, the
    reference, or while that acts the policy inside. window: its number. told: the window's numbers in words. why: the
    reference acts, "" while it does not."""

    content: str
    percent: float
    moved: bool
    alarms: int
    window: int
    audited: int
    told: str
    why: str


class _StoredFloor(msgspec.Struct, frozen=True, array_like=True):
    guard: str
    version: int
    options: tuple[str, float, list[tuple[str, float]], float, float, int, float]
    streams: dict[str, Evidence]
    policy: bytes


class Floor(Guard):
    """Audits the policy inside against the reference, and lets the reference act where the floor is not kept.

    Of the calls of one choice (one eligible action, or none of them the reference) nothing is audited; where the
    reference is not eligible `fallback` says so. Only decisions of this policy, taken under this guard, are evidence.
    """

    STATE_VERSION: Final = 1

    def __init__(self, policy: Policy, options: FloorOptions) -> None:
        super().__init__(policy)
        self.options = options
        self._streams: dict[str, Evidence] = {}
        self._contents = sorted(options.contents.items())

    def probabilities(self, context: Context, actions: Sequence[str]) -> NDArray[np.float64]:
        require(actions)
        inner = self.policy.probabilities(context, actions)
        if self._unaudited(actions):
            return inner
        lot = self._lot(self._moved(self._content(context)))
        distribution = (1.0 - lot) * inner
        distribution[actions.index(self.options.reference)] += lot
        return distribution

    def choose(self, context: Context, actions: Sequence[str], rng: np.random.Generator) -> Choice:
        require(actions)
        if self._unaudited(actions):
            choice = self.policy.choose(context, actions, rng)
            missing = len(actions) > 1
            note = f"floor: {self.options.reference} is not eligible, no floor is kept" * missing
            return msgspec.structs.replace(choice, fallback="; ".join(filter(None, (note, choice.fallback))))
        content = self._content(context)
        moved = self._moved(content)
        lot, reference = self._lot(moved), self.options.reference
        if rng.random() >= lot:
            choice = self.policy.choose(context, actions, rng)
            whole = mixed(choice.propensity, lot if choice.action == reference else 0.0, 1.0 - lot)
            probe = f"; floor{_of(content)}: audited share of {self.options.audit_share:.1%}" * moved
            return msgspec.structs.replace(choice, propensity=whole, why=choice.why + probe)
        inner = float(self.policy.probabilities(context, actions)[actions.index(reference)])
        whole = mixed(inner, lot, 1.0 - lot)
        if moved:
            words = f"floor{_of(content)}: {self._streams[content].words}"
            return Choice(reference, whole, words, words)
        return Choice(reference, whole, f"floor{_of(content)}: audited share of {self.options.audit_share:.1%}")

    def learn(self, decision: Decision, reward: float, previous: float | None) -> None:
        # First, so that a reward that is refused leaves no trace here either.
        self.policy.learn(decision, reward, previous)
        if decision.policy != identity(self.policy):
            return
        content = self._content(decision.context)
        terms = self._terms(content)
        evidence = self._streams.get(content)
        if evidence is None:
            evidence = self._streams[content] = begun(terms)
        evidence.learn(decision, reward, previous, terms)

    def reports(self) -> tuple[FloorReport, ...]:
        """What is known of each floor that has had a reward, in order of their contents."""
        return tuple(self._report(content, evidence) for content, evidence in sorted(self._streams.items()))

    def state(self) -> bytes:
        streams = dict(sorted(self._streams.items()))
        return msgspec.msgpack.encode(
            _StoredFloor("floor", self.STATE_VERSION, self._settled(), streams, self.policy.state())
        )

    def restore(self, state: bytes) -> None:
        try:
            stored = msgspec.msgpack.decode(state, type=_StoredFloor)
        except (msgspec.MsgspecError, UnicodeDecodeError) as exc:
            raise PolicyError(f"not a state of floor around {self.name}: {exc}; rebuild it from the ledger") from exc
        written = (stored.guard, stored.version, stored.options)
        known = stored.streams.keys() <= {"", *self.options.contents}
        if (
            written != ("floor", self.STATE_VERSION, self._settled())
            or not known
            or not all(evidence.sound() for evidence in stored.streams.values())
        ):
            raise PolicyError(
                f"a state of {stored.guard}@{stored.version} with options {stored.options} cannot become one of "
                f"floor@{self.STATE_VERSION} with {self._settled()}; rebuild it from the ledger"
            )
        self.policy.restore(stored.policy)
        self._streams = stored.streams

    def _unaudited(self, actions: Sequence[str]) -> bool:
        return len(actions) < 2 or self.options.reference not in actions

    def _lot(self, moved: bool) -> float:
        """The share of calls that the reference takes, whatever the policy inside would take."""
        return 1.0 - self.options.audit_share if moved else self.options.audit_share

    def _moved(self, content: str) -> bool:
        evidence = self._streams.get(content)
        return evidence is not None and evidence.moved

    def _content(self, context: Context) -> str:
        """The content type that a call belongs to, "" for the rest."""
        for name, _ in self._contents:
            value = context.get(name)
            if isinstance(value, float | int) and value > 0.5:
                return name
        return ""

    def _terms(self, content: str) -> FloorTerms:
        options = self.options
        percent = options.contents[content] if content else options.share_of_reference
        return FloorTerms(
            options.reference,
            percent / 100.0,
            options.audit_share,
            options.margin / 100.0,
            options.window,
            options.delta,
        )

    def _report(self, content: str, evidence: Evidence) -> FloorReport:
        terms = self._terms(content)
        counts = (evidence.moved, evidence.alarms, evidence.window, evidence.sampled)
        return FloorReport(content, 100.0 * terms.share, *counts, evidence.told(terms), evidence.words)

    def _settled(self) -> tuple[str, float, list[tuple[str, float]], float, float, int, float]:
        options = self.options
        percent = [(name, float(share)) for name, share in self._contents]
        share, audit, margin = (float(v) for v in (options.share_of_reference, options.audit_share, options.margin))
        return options.reference, share, percent, audit, margin, options.window, float(options.delta)


def _of(content: str) -> str:
    return f" of {content}" if content else ""
