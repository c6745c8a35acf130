"""The loop: at each decision point ask a policy, record what it chose, and hand it the rewards. It never fails a call.

`decide` returns the action to take and the Decisions for the ledger; `Learner` (replay.py) folds the ledger back into
the policies. They may run on different threads: both hold `Loop.lock`, each for one decision or one ledger entry.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, TypeAlias, TypeVar, assert_never

import msgspec
import numpy as np

from windlass.errors import PolicyError, SettingsError
from windlass.policies import registry
from windlass.policies.features import finite
from windlass.policies.guards import DEFAULT_SHARE, Randomised
from windlass.policies.policy import Arm, Choice, Context, Policy, identity, require
from windlass.policies.reward import RewardOptions
from windlass.records import ContextValue, Decision, Scope

DEFAULT_POLICY = "default@1"
"""Who decided where no policy acts: modes `off` and `shadow` take the default action."""

Mode = Literal["off", "shadow", "live"]
PolicyKey: TypeAlias = tuple[str, str, str]
"""(tenant, workspace, point): one tenant's feedback never moves another tenant's choices."""
_SHADOW = "-shadow"
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class PointOptions:
    """How one decision point is decided.

    mode: `off` the default action, nothing learned; `shadow` the default action acts, the policy is recorded beside it
    and learns; `live` the policy acts. policy, options: as in the registry. default: the action without a policy, ""
    for the first eligible. randomised_share: of the policy's choices, in [0, 1]; 0 leaves the policy unguarded.
    """

    mode: Mode = "shadow"
    policy: str = "linear_thompson"
    options: Mapping[str, Any] = field(default_factory=dict)
    default: str = ""
    randomised_share: float = DEFAULT_SHARE

    def __post_init__(self) -> None:
        if self.mode not in ("off", "shadow", "live"):
            raise SettingsError(f"mode is {self.mode!r}; give off, shadow or live")
        if not 0.0 <= self.randomised_share <= 1.0:
            raise SettingsError(f"randomised_share is {self.randomised_share}; give a number from 0 to 1")


class _Question(NamedTuple):
    """What one decision is about; everything in it goes into the record."""

    point: str
    call_id: str
    at: float
    scope: Scope
    context: dict[str, ContextValue]
    actions: tuple[str, ...]
    featuriser: str


class Loop:
    """The policies of every decision point, one per tenant and workspace from its first reward on."""

    def __init__(
        self,
        points: Mapping[str, PointOptions],
        reward: RewardOptions | None = None,
        make: Callable[[str, Mapping[str, Any]], Policy] = registry.make,
    ) -> None:
        """PolicyError or SettingsError for a point that cannot work, so that no call ever meets it."""
        for point in points:
            if not point or point.endswith(_SHADOW):
                raise SettingsError(f"decision point {point!r}: give a name that does not end with {_SHADOW}")
        self.points = dict(points)
        self.reward = reward or RewardOptions()
        self.lock = threading.RLock()
        self.failures: dict[str, int] = {}
        self._make = make
        self._fresh = {point: self._new(options) for point, options in self.points.items()}
        self._learned: dict[PolicyKey, Policy] = {}

    def decide(
        self,
        point: str,
        *,
        call_id: str,
        at: float,
        scope: Scope,
        context: Context,
        actions: Sequence[str],
        featuriser: str,
    ) -> tuple[str, tuple[Decision, ...]]:
        """The action to take and the Decisions to record, the acting one first.

        One decision per point and call: the ids derive from both. PolicyError where `actions` is empty or the point
        unknown, which no policy can cause; a policy that fails costs the call nothing.
        """
        options = self._options(point)
        require(actions)
        question = _Question(point, call_id, at, scope, finite(context), tuple(dict.fromkeys(actions)), featuriser)
        default = self._default(question, options)
        match options.mode:
            case "off":
                decisions: tuple[Decision, ...] = (default,)
            case "shadow":
                decisions = (default, self._asked(question, default, live=False))
            case "live":
                decisions = (self._asked(question, default, live=True),)
            case _ as other:
                assert_never(other)
        return decisions[0].action, decisions

    def learn(self, decision: Decision, reward: float, previous: float | None) -> bool:
        """Credit a live decision to the policy of its point and scope. False where the policy failed; it is counted."""
        with self.lock:
            key = (decision.tenant, decision.workspace, decision.point)
            if key not in self._learned:
                self._learned[key] = self._new(self.points[decision.point])
            policy = self._learned[key]
            _, failure = self._attempt(decision.point, lambda: policy.learn(decision, reward, previous))
            return not failure

    def policy_id(self, point: str) -> str:
        """`name@version` of the policy at a point, whatever its mode."""
        self._options(point)
        return identity(self._fresh[point])

    def explain(self, point: str, scope: Scope, context: Context, actions: Sequence[str]) -> tuple[Arm, ...]:
        """What the policy of this scope knows of each action, for people to read."""
        self._options(point)
        with self.lock:
            return self._policy(point, scope).explain(finite(context), tuple(dict.fromkeys(actions)))

    def fingerprint(self) -> str:
        """Digest of what a learned state depends on beside the ledger: policies, their options, the reward."""
        fresh = sorted((point, policy.state()) for point, policy in self._fresh.items())
        weights = sorted(self.reward.weights.items())
        scales = (self.reward.latency_ms_scale, self.reward.latency_weight)
        costs = (self.reward.cost_nusd_scale, self.reward.cost_weight)
        return hashlib.sha256(msgspec.msgpack.encode((fresh, weights, scales, costs))).hexdigest()

    def states(self) -> list[tuple[PolicyKey, bytes]]:
        """What every policy has learned, in sorted order. A policy without a reward has no state."""
        with self.lock:
            return [(key, self._learned[key].state()) for key in sorted(self._learned)]

    def restore(self, states: Sequence[tuple[PolicyKey, bytes]]) -> None:
        """Take over `states`. PolicyError, and no change, where one belongs to other settings."""
        learned: dict[PolicyKey, Policy] = {}
        for key, state in states:
            learned[key] = self._new(self._options(key[2]))
            learned[key].restore(state)
        with self.lock:
            self._learned = learned

    def _options(self, point: str) -> PointOptions:
        if point not in self.points:
            raise PolicyError(f"unknown decision point {point!r}; known: {', '.join(sorted(self.points)) or 'none'}")
        return self.points[point]

    def _new(self, options: PointOptions) -> Policy:
        policy = self._make(options.policy, options.options)
        return Randomised(policy, options.randomised_share) if options.randomised_share > 0.0 else policy

    def _policy(self, point: str, scope: Scope) -> Policy:
        return self._learned.get((scope.tenant, scope.workspace, point), self._fresh[point])

    def _default(self, question: _Question, options: PointOptions) -> Decision:
        eligible = options.default in question.actions
        fallback = f"default {options.default!r} not eligible" if options.default and not eligible else ""
        action = options.default if eligible else question.actions[0]
        return _decision(question, DEFAULT_POLICY, Choice(action, 1.0, "", fallback), live=True)

    def _asked(self, question: _Question, default: Decision, *, live: bool) -> Decision:
        """The policy's own decision, or its failure recorded around the default action."""
        with self.lock:
            policy = self._policy(question.point, question.scope)
            choice, failure = self._attempt(question.point, lambda: _honest(policy, question))
        if choice is None:
            choice = Choice(default.action, 1.0, "", failure)
        return _decision(question, self.policy_id(question.point), choice, live=live)

    def _attempt(self, point: str, action: Callable[[], T]) -> tuple[T | None, str]:
        """(what `action` returned, "") or (None, what it raised)."""
        try:
            return action(), ""
        except Exception as exc:  # noqa: BLE001  # any policy, ours or plugged in, may raise anything; no call may fail
            kind = f"{point}: {type(exc).__name__}"
            self.failures[kind] = self.failures.get(kind, 0) + 1
            return None, f"{type(exc).__name__}: {exc}"[:200].encode("utf-8", "replace").decode()


def _honest(policy: Policy, question: _Question) -> Choice:
    """The policy's choice, held to the contract: an eligible action and a propensity in (0, 1]."""
    choice = policy.choose(question.context, question.actions, _generator(identity(policy), question))
    if choice.action not in question.actions:
        raise PolicyError(f"chose {choice.action!r}, which is not one of {', '.join(question.actions)}")
    propensity = float(choice.propensity)
    # Sums of rounded probabilities may pass 1 by a few units in the last place; more is dishonest. NaN fails too.
    if not 0.0 < propensity <= 1.0 + 1e-9:
        raise PolicyError(f"propensity {propensity} is not in (0, 1]")
    return Choice(choice.action, min(propensity, 1.0), choice.why, choice.fallback)


def _generator(policy_id: str, question: _Question) -> np.random.Generator:
    """Philox keyed by 128 bits of (policy id, point, call id): the same call draws the same numbers on every replay."""
    words = (policy_id, question.point, question.call_id)
    key = hashlib.blake2b(msgspec.msgpack.encode(words), digest_size=16).digest()
    return np.random.Generator(np.random.Philox(key=np.frombuffer(key, "<u8")))


def _decision(question: _Question, policy_id: str, choice: Choice, *, live: bool) -> Decision:
    suffix = question.call_id.partition("_")[2] or question.call_id
    return Decision(
        id=f"decision_{suffix}-{question.point}{'' if live else _SHADOW}",
        at=question.at,
        tenant=question.scope.tenant,
        workspace=question.scope.workspace,
        call=question.call_id,
        point=question.point,
        policy=policy_id,
        actions=question.actions,
        action=choice.action,
        propensity=choice.propensity,
        live=live,
        context=question.context,
        featuriser=question.featuriser,
        fallback=choice.fallback,
        extra={"why": choice.why} if choice.why else {},
    )
