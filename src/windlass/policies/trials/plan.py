"""The plan of an experiment: made and hashed into the ledger before the first assignment, never changed after it."""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Sequence
from itertools import pairwise
from typing import Final, Literal, TypeAlias

import msgspec

from windlass.errors import PolicyError

Unit: TypeAlias = Literal["call", "session", "user"]
"""Who keeps a variant: each call by itself; what was called for one run, answer or step (`Call.parent`); one user."""
MetricName: TypeAlias = Literal["quality", "cost", "latency", "error"]
METRICS: Final[tuple[MetricName, ...]] = ("quality", "cost", "latency", "error")
"""quality: of graded calls, in [0, 1]. cost: nano-dollars of a call. latency: ms. error: 1 for a call that failed."""
RELATIVE: Final = frozenset({"cost", "latency"})
"""Judged on the logarithmic scale: effects and margins are ratios."""
USUAL: Final = "usual"

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,39}\Z")
_WORDS = {"owner": 200, "hypothesis": 1_000}
_MOST_VARIANTS, _MOST_STAGES = 6, 12
_LEAST_SIZE, _MOST_SIZE = 10, 100_000_000
_LEAST_SHARE = 1e-6
_DIGEST_CHARS = 12


class Variant(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One of the ways to decide. share: of the units once the ramp has ended.

    action: always this one. shadow: as the point's shadow policy of that name would. Neither: as usual.
    """

    name: str
    share: float
    action: str = ""
    shadow: str = ""

    @property
    def spelled(self) -> str:
        """What it does, in words."""
        if self.action:
            return f"always {self.action}"
        return f"the policy in shadow {self.shadow!r}" if self.shadow else "what is usual at the point"


class Guardrail(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What must not get worse. margin: so much worse is accepted; of a ratio metric as a share, 0.1 for a tenth."""

    metric: MetricName
    margin: float = 0.0


class Plan(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """An experiment at one point of one workspace.

    variants: the first is the baseline, all others are candidates. unit: who keeps the variant. primary: what decides.
    size: units per variant that are planned for the decision. alpha: two-sided, of the decision. secondary: reported,
    corrected. guardrails: watched at every call; harm is found by mistake with a chance of at most harm_alpha in all.
    ramp: the part of their shares that the candidates get, stage by stage; the decision counts the last stage alone.
    ramp_after: units of a candidate without an alarm before the next stage.
    """

    name: str
    point: str = "model"
    variants: tuple[Variant, ...]
    unit: Unit = "call"
    primary: MetricName = "quality"
    size: int
    alpha: float = 0.05
    secondary: tuple[MetricName, ...] = ()
    guardrails: tuple[Guardrail, ...] = (Guardrail("quality"), Guardrail("error"))
    harm_alpha: float = 0.03
    ramp: tuple[float, ...] = (0.1, 1.0)
    ramp_after: int = 100
    owner: str = ""
    hypothesis: str = ""

    def __post_init__(self) -> None:
        self._check_words()
        self._check_variants()
        self._check_numbers()
        self._check_metrics()

    @property
    def digest(self) -> str:
        """SHA-256 of the plan as it stands in the ledger, as hex."""
        return hashlib.sha256(spell(self).encode()).hexdigest()

    @property
    def id(self) -> str:
        """`name@` and the beginning of the digest: what assignments carry."""
        return f"{self.name}@{self.digest[:_DIGEST_CHARS]}"

    @property
    def baseline(self) -> Variant:
        return self.variants[0]

    @property
    def candidates(self) -> Sequence[Variant]:
        return self.variants[1:]

    def shares(self, stage: int) -> tuple[float, ...]:
        """Of the units, by variant, at a stage of the ramp: the baseline has what the candidates have not."""
        part = self.ramp[stage]
        given = tuple(part * candidate.share for candidate in self.candidates)
        return (1.0 - math.fsum(given), *given)

    def variant(self, name: str) -> Variant:
        """The variant of that name. PolicyError where there is none."""
        for variant in self.variants:
            if variant.name == name:
                return variant
        names = ", ".join(variant.name for variant in self.variants)
        raise PolicyError(f"experiment {self.name} has no variant {name!r}; it has {names}")

    def _check_words(self) -> None:
        if not _NAME.match(self.name):
            raise PolicyError(f"experiment {self.name[:60]!r}: name it with 1 to 40 letters, digits, _ . or -")
        if not 0 < len(self.point) <= 200:
            raise PolicyError(f"experiment {self.name}: point has {len(self.point)} characters; name a decision point")
        words = (self.point, self.owner, self.hypothesis, *(one.action + one.shadow for one in self.variants))
        if any(word != word.encode(errors="replace").decode() for word in words):
            raise PolicyError(f"experiment {self.name}: a word holds half a character, which cannot be stored")
        for field, most in _WORDS.items():
            if len(getattr(self, field)) > most:
                raise PolicyError(f"experiment {self.name}: {field} has more than {most} characters")

    def _check_variants(self) -> None:
        names = [variant.name for variant in self.variants]
        if not 2 <= len(names) <= _MOST_VARIANTS or len(set(names)) < len(names):
            has = f"variants {', '.join(map(repr, names)) or 'none'}"
            raise PolicyError(f"experiment {self.name}: {has}; give 2 to {_MOST_VARIANTS}, each with its own name")
        for variant in self.variants:
            _check_variant(variant)
        does = [(variant.action, variant.shadow) for variant in self.variants]
        if len(set(does)) < len(does):
            raise PolicyError(f"experiment {self.name}: two variants do the same, so there is nothing to tell apart")
        if abs(math.fsum(variant.share for variant in self.variants) - 1.0) > 1e-6:
            raise PolicyError(f"experiment {self.name}: the shares of the variants must sum to 1")

    def _check_numbers(self) -> None:
        if not _LEAST_SIZE <= self.size <= _MOST_SIZE:
            raise PolicyError(f"experiment {self.name}: size {self.size}; give {_LEAST_SIZE} to {_MOST_SIZE} units")
        for field in ("alpha", "harm_alpha"):
            if not 0.0 < getattr(self, field) <= 0.5:
                raise PolicyError(f"experiment {self.name}: {field} {getattr(self, field)}; give 0 < {field} <= 0.5")
        if not _rises(self.ramp):
            stages = ", ".join(map(str, self.ramp)) or "nothing"
            raise PolicyError(f"experiment {self.name}: ramp {stages}; let it rise from above 0 to 1")
        # Shares sum to 1 but for rounding, of which the baseline gets what is left: that may be nothing, or less.
        least = min(min(self.shares(stage)) for stage in range(len(self.ramp)))
        if least < _LEAST_SHARE:
            remedy = f"give each at least {_LEAST_SHARE:f} at every stage of the ramp"
            raise PolicyError(f"experiment {self.name}: a variant gets a share of {max(least, 0.0):.1g}; {remedy}")
        if self.ramp_after < 1:
            raise PolicyError(f"experiment {self.name}: ramp_after {self.ramp_after}; give at least 1")

    def _check_metrics(self) -> None:
        told = (self.primary, *self.secondary)
        guarded = [guard.metric for guard in self.guardrails]
        if len(set(told)) < len(told) or len(set(guarded)) < len(guarded):
            raise PolicyError(f"experiment {self.name}: a metric is named twice")
        if any(not 0.0 <= guard.margin < 1.0 for guard in self.guardrails):
            raise PolicyError(f"experiment {self.name}: give margins of at least 0 and below 1")


def _check_variant(variant: Variant) -> None:
    if not _NAME.match(variant.name):
        raise PolicyError(f"variant {variant.name[:60]!r}: name it with 1 to 40 letters, digits, _ . or -")
    if variant.action and variant.shadow:
        raise PolicyError(f"variant {variant.name}: give an action or a shadow, not both")
    if not 0.0 < variant.share < 1.0:
        raise PolicyError(f"variant {variant.name}: share {variant.share}; give a number between 0 and 1")


def _rises(ramp: Sequence[float]) -> bool:
    """Whether these are stages: from above 0 up to 1, not too many."""
    if not 1 <= len(ramp) <= _MOST_STAGES or ramp[-1] != 1.0 or not ramp[0] > 0.0:
        return False
    return all(low < high for low, high in pairwise(ramp))


def spell(plan: Plan) -> str:
    """The plan as it stands in the ledger: JSON, every field in its order."""
    return msgspec.json.encode(plan).decode()


def parse(text: str | bytes) -> Plan:
    """The plan that `spell` gives as `text`. PolicyError for what is none."""
    try:
        return msgspec.json.decode(text, type=Plan)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as exc:
        raise PolicyError(f"not the plan of an experiment: {exc}") from exc
