"""The loop: at each decision point ask a policy, record what it chose, and hand it the rewards. It never fails a call.

`decide` returns the action to take and the Decisions for the ledger; `Learner` (replay.py) folds the ledger back into
the policies. They may run on different threads: both hold `Loop.lock`, for one decision or a few ledger entries.

Each policy has a *place*: that of a point's own policy is the point's name, that of the shadow policy `bold` at the
point `model` is `model-shadow-bold`. A tenant's workspace has its own policy at each place, from its first reward on.
"""

from __future__ import annotations

import hashlib
import math
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple, ParamSpec, TypeAlias, TypeVar, cast

import msgspec
import numpy as np

from windlass.errors import PolicyError, SettingsError
from windlass.policies import registry
from windlass.policies.personal import Personal
from windlass.policies.personal_state import number_of
from windlass.policies.points import EXPERIMENT, ROLLOUT, SHADOW, Mode, PointOptions, ShadowOptions, shadow_place
from windlass.policies.policy import Arm, Choice, Costed, Guard, Policy, guards_of, identity, innermost, require
from windlass.policies.reward import RewardOptions
from windlass.policies.rule import Rule
from windlass.policies.served import Served, watchers
from windlass.policies.trials.acting import Appointed, always, assigned, recorded, seated, usual
from windlass.policies.trials.assignment import Running, Units
from windlass.policies.witness import arms_of
from windlass.records import ContextValue, Decision, Scope
from windlass.stats.chance import Probability, Propensity, mixed
from windlass.stats.features import Context, finite

DEFAULT_POLICY = "default@1"
"""Who decided where no policy acts: modes `off` and `shadow` take the default action."""

PolicyKey: TypeAlias = tuple[str, str, str]
"""(tenant, workspace, place): one tenant's feedback never moves another tenant's choices."""
P = ParamSpec("P")
T = TypeVar("T")
WORDS_CHARS = 2_000
_ZEROS = (0, 0, 0, 0)


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
    """The policies of every decision point and their modes.

    modes: those that a recorded decision set for one tenant's workspace; all others are in the settings. standing: what
    acts there in place of a point's own policy; assigning: the experiments under way. ids: place ->
    `name@version`. taught: the points where a policy learns, be it in shadow; elsewhere no context is needed again.
    costed: the places whose policy learns costs apart from quality. watched: those where a guard is told how calls
    went. places_of: the places of a point, its own first. failures: what policies raised, by place and type.
    """

    def __init__(
        self,
        points: Mapping[str, PointOptions],
        reward: RewardOptions | None = None,
        make: Callable[[str, Mapping[str, Any]], Policy] = registry.make,
    ) -> None:
        """PolicyError or SettingsError for a point that cannot work, so that no call ever meets it."""
        self.points = _named(points)
        self.reward = reward or RewardOptions()
        self.lock = threading.RLock()
        self.failures: dict[str, int] = {}
        self._dice = Dice()
        self.modes: dict[PolicyKey, Mode] = {}
        self.standing: dict[PolicyKey, Appointed] = {}
        self.assigning: Mapping[PolicyKey, Running] = {}
        self._make = make
        self._places: dict[str, PointOptions | ShadowOptions] = dict(self.points)
        for point, options in self.points.items():
            self._places |= {shadow_place(point, shadow.name): shadow for shadow in options.shadows}
        self.places_of = {
            point: (point, *(shadow_place(point, shadow.name) for shadow in options.shadows))
            for point, options in self.points.items()
        }
        self._fresh = {place: self._new(place) for place in self._places}
        self._learned: dict[PolicyKey, Policy] = {}
        self.ids = {place: identity(policy) for place, policy in self._fresh.items()}
        self._rules = _where(self._fresh, _is_rule)
        taught = self._places.keys() - self._rules
        self.taught = frozenset(place.partition(SHADOW)[0] for place in taught)
        self.costed = _where(self._fresh, lambda policy: isinstance(innermost(policy), Costed))
        self.watched = _where(self._fresh, lambda policy: bool(watchers(policy)))

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
        session: str = "",
        user: str = "",
    ) -> tuple[str, tuple[Decision, ...]]:
        """The action to take and the Decisions to record, the acting one first.

        One decision per place and call: the ids derive from both. session, user: what the call was made for and by
        whom, which experiments may go by. PolicyError where `actions` is empty or the point unknown, which no policy
        can cause; a policy that fails costs the call nothing.
        """
        options = self._options(point)
        require(actions)
        question = _Question(point, call_id, at, scope, finite(context), tuple(dict.fromkeys(actions)), featuriser)
        mode = self.mode(point, scope)
        decisions, assignment = self._acting(question, options, mode, Units(call_id, session, user))
        if mode == "shadow":
            decisions = (*decisions, self._asked(question, options, point, live=False))
        if mode != "off":
            places = (shadow_place(point, shadow.name) for shadow in options.shadows)
            decisions += tuple(self._asked(question, options, place, live=False) for place in places)
        return decisions[0].action, decisions + assignment

    def learn(
        self, decision: Decision, reward: float, previous: float | None, place: str = "", *, inherited: bool = False
    ) -> bool:
        """Credit a live decision to the policy of its scope at `place` ("": the policy of its point).

        inherited: another policy decided, by other settings, so that guards, which watch what they let through, learn
        nothing of it. False where the policy failed; it is counted.
        """
        place = place or decision.point
        with self.lock:
            learner = self._learner(decision, place)
            learner = innermost(learner) if inherited else learner
            if self.standing and not inherited and place == decision.point and decision.policy != self.ids[place]:
                # What stands in the place of the own policy decides in its name, for the guards around it.
                decision = msgspec.structs.replace(decision, policy=self.ids[place])
            _, failure = self._attempt(place, learner.learn, decision, reward, previous)
            return not failure

    def spend(
        self, decision: Decision, cost_nusd: float, previous: float | None, place: str, *, inherited: bool = False
    ) -> bool:
        """Tell the policy of its scope at `place`, one of `costed`, what the call of a live decision cost.

        inherited: as for `learn`. False where the policy failed; it is counted.
        """
        with self.lock:
            policy = self._learner(decision, place)
            policy = innermost(policy) if inherited else policy
            if not isinstance(policy, Costed):
                return True
            _, failure = self._attempt(place, policy.spend, decision, cost_nusd, previous)
            return not failure

    def serve(self, decision: Decision, served: Served, previous: Served | None, place: str) -> bool:
        """Tell the guards at `place`, one of `watched`, how the call of a live decision went.

        False where one of them failed; it is counted.
        """
        with self.lock:
            told = [
                self._attempt(place, watcher.serve, decision, served, previous)
                for watcher in watchers(self._learner(decision, place))
            ]
            return not any(failure for _, failure in told)

    def forget(self, scope: Scope, digest: str) -> None:
        """Let the policies of a scope go of what they know of one user, known by the digest, alone."""
        with self.lock:
            for (tenant, workspace, place), policy in self._learned.items():
                if (tenant, workspace) == (scope.tenant, scope.workspace):
                    for guard in guards_of(policy):
                        if isinstance(guard, Personal):
                            self._attempt(place, guard.forget, number_of(digest))

    def unteachable(self, key: PolicyKey) -> bool:
        """Whether a reward changes nothing of the policy of `key`, so that `learn` may be left out; if so it counts as
        one that was credited."""
        if key[2] not in self._rules:
            return False
        if key not in self._learned:
            with self.lock:
                self._learned[key] = self._new(key[2])
        return True

    def mode(self, point: str, scope: Scope) -> Mode:
        """The mode in force: the one last decided for this scope, or else that of the settings."""
        decided = self.modes.get((scope.tenant, scope.workspace, point))
        return decided or self._options(point).mode

    def policy_id(self, point: str) -> str:
        """`name@version` of the policy at a point, whatever its mode."""
        self._options(point)
        return self.ids[point]

    def acts(self, key: PolicyKey, policy: str) -> bool:
        """Whether `policy` decides within the guards of a point: its own, or what stands in its place."""
        if policy == self.ids[key[2]]:
            return True
        standing = self.standing.get(key) if self.standing else None
        return standing is not None and policy == self._appointed_id(key[2], standing)

    def require_shadow(self, point: str, shadow: str) -> None:
        """PolicyError where the point, or a shadow policy of that name at it, is not there; "" stands for its own."""
        options = self._options(point)
        if shadow and not self.has(point, shadow):
            has = f"it has {', '.join(one.name for one in options.shadows)}" if options.shadows else "it has none"
            raise PolicyError(f"point {point} has no shadow policy {shadow!r}; {has}")

    def has(self, point: str, shadow: str) -> bool:
        """Whether the point has a shadow policy of that name."""
        return shadow_place(point, shadow) in self._places

    def explain(
        self, point: str, scope: Scope, context: Context, actions: Sequence[str], shadow: str = ""
    ) -> tuple[Arm, ...]:
        """What the policy of this scope, or the shadow policy of that name, knows of each action, for people.

        () where the policy fails to say; that is counted. PolicyError for an unknown point or shadow, or no actions.
        """
        self._options(point)
        require(actions)
        place = shadow_place(point, shadow) if shadow else point
        if place not in self._places:
            raise PolicyError(f"point {point} has no shadow policy {shadow!r}")
        with self.lock, self._seated(place, scope) as policy:
            arms, _ = self._attempt(place, arms_of, policy, finite(context), tuple(dict.fromkeys(actions)))
            return arms or ()

    def look(self, place: str, scope: Scope, view: Callable[[Policy], T]) -> T | None:
        """What `view` reads of the policy of this scope at a place, which it must not change.

        None where it fails to say; that is counted. PolicyError for an unknown place.
        """
        if place not in self._places:
            raise PolicyError(f"unknown decision point {place!r}; known: {', '.join(sorted(self._places)) or 'none'}")
        with self.lock:
            return self._attempt(place, view, self._policy(place, scope))[0]

    def fingerprint(self) -> str:
        """Digest of what a learned state depends on beside the ledger: policies, their options, the reward."""
        fresh = sorted((place, policy.state()) for place, policy in self._fresh.items())
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
        learned = {key: self._restored(key, state) for key, state in states}
        with self.lock:
            self._learned = learned

    def replace(self, key: PolicyKey, state: bytes | None) -> None:
        """Give one place and scope the policy of `state`, or, for None, one that has learned nothing.

        PolicyError, and no change, where the state belongs to other settings.
        """
        with self.lock:
            if state is not None:
                self._learned[key] = self._restored(key, state)
            elif key[2] in self._places:
                self._learned.pop(key, None)
            else:
                raise PolicyError(f"unknown decision point {key[2]!r}")

    def _options(self, point: str) -> PointOptions:
        if point not in self.points:
            raise PolicyError(f"unknown decision point {point!r}; known: {', '.join(sorted(self.points)) or 'none'}")
        return self.points[point]

    def _new(self, place: str) -> Policy:
        options = self._places[place]
        guards = [(guard.guard, guard.options) for guard in options.guards]
        return registry.guarded(self._make(options.policy, options.options), guards, options.randomised_share)

    def _restored(self, key: PolicyKey, state: bytes) -> Policy:
        if key[2] not in self._places:
            raise PolicyError(f"unknown decision point {key[2]!r}; known: {', '.join(sorted(self._places)) or 'none'}")
        policy = self._new(key[2])
        policy.restore(state)
        return policy

    def _learner(self, decision: Decision, place: str) -> Policy:
        """The policy that learns at `place` from a decision, from its first reward on one of its scope's own."""
        key = (decision.tenant, decision.workspace, place)
        policy = self._learned.get(key)
        if policy is None:
            policy = self._learned[key] = self._new(place)
        return policy

    def _policy(self, place: str, scope: Scope) -> Policy:
        return self._learned.get((scope.tenant, scope.workspace, place), self._fresh[place])

    def _acting(
        self, question: _Question, options: PointOptions, mode: Mode, units: Units
    ) -> tuple[tuple[Decision, ...], tuple[Decision, ...]]:
        """The decision that acts, and the assignment of the call, where it is in an experiment. Off is off."""
        if mode == "off":
            return (_defaulted(question, options),), ()
        scope = question.scope
        key = (scope.tenant, scope.workspace, question.point)
        standing = self.standing.get(key) if self.standing else None
        trial = self.assigning.get(key) if self.assigning else None
        if trial is not None:
            has = partial(self.has, question.point)
            index = assigned(trial, units, scope, question.actions, has)
            if index is not None:
                made = self._tried(question, options, mode, standing, trial, index)
                name = acting_id(question.call_id, f"{EXPERIMENT}-{trial.id}")
                return (made,), (recorded(made, trial, index, EXPERIMENT, name),)
        return (self._varied(question, options, standing, mode),), ()

    def _tried(
        self,
        question: _Question,
        options: PointOptions,
        mode: Mode,
        standing: Appointed | None,
        trial: Running,
        index: int,
    ) -> Decision:
        """What the variant that was assigned decides, with the odds of the whole: an experiment is a guard, and so the
        decision is of whoever is usual at the point."""
        variants = [usual(variant, standing) for variant in trial.plan.variants]
        made = self._varied(question, options, variants[index], mode)
        others = math.fsum(
            share * self._chance(question, options, variant, mode, made.action)
            for at, (share, variant) in enumerate(zip(trial.shares, variants, strict=True))
            if at != index
        )
        propensity = mixed(cast(Probability, made.propensity), others, trial.shares[index])
        if standing is not None:
            policy = self._appointed_id(question.point, standing)
        else:
            policy = self.ids[question.point] if mode == "live" else DEFAULT_POLICY
        return msgspec.structs.replace(made, policy=policy, propensity=propensity)

    def _varied(self, question: _Question, options: PointOptions, variant: Appointed | None, mode: Mode) -> Decision:
        """What is decided by a variant, or, for None, as usual at the point."""
        point = question.point
        if variant is None:
            live = mode == "live"
            return self._asked(question, options, point, live=True) if live else _defaulted(question, options)
        name = self._appointed_id(point, variant)
        with self.lock, self._seated(point, question.scope, variant) as policy:
            rng = self._dice.keyed(name, point, question.call_id)
            choice, failure = self._attempt(point, _honest, policy, question, rng)
        if choice is None:
            choice = Choice(_default(question, options)[0], 1.0, "", failure)
        return _decision(question, point, name, choice, live=True)

    def _chance(
        self, question: _Question, options: PointOptions, variant: Appointed | None, mode: Mode, action: str
    ) -> float:
        """The probability with which a variant, or, for None, what is usual, would have taken `action`."""
        if variant is None and mode != "live":
            return float(_default(question, options)[0] == action)
        with self.lock, self._seated(question.point, question.scope, variant, own=True) as policy:
            found, _ = self._attempt(question.point, policy.probabilities, question.context, question.actions)
        if found is None:
            return float(_default(question, options)[0] == action)  # as `_varied` takes it then
        return min(max(float(found[question.actions.index(action)]), 0.0), 1.0)

    @contextmanager
    def _seated(
        self, place: str, scope: Scope, variant: Appointed | None = None, *, own: bool = False
    ) -> Iterator[Policy]:
        """The policy of a scope at a place, with `variant` in its guards; for None with what stands there, or its own.

        The lock is held meanwhile.
        """
        policy = self._policy(place, scope)
        if variant is None and not own:
            variant = self.standing.get((scope.tenant, scope.workspace, place))
        if variant is None:
            yield policy
            return
        shadow = shadow_place(place, variant.shadow)
        if variant.shadow and shadow not in self._places:
            yield policy  # the settings have it no more
            return
        inner = innermost(self._policy(shadow, scope)) if variant.shadow else always(variant.action)
        with seated(policy, inner) as found:
            yield found

    def _appointed_id(self, point: str, variant: Appointed) -> str:
        """Who decides where that variant does."""
        if not variant.shadow:
            return identity(always(variant.action))
        return self.ids.get(shadow_place(point, variant.shadow), self.ids[point])

    def _asked(self, question: _Question, options: PointOptions, place: str, *, live: bool) -> Decision:
        """The policy's own decision, or its failure recorded around the default action."""
        with self.lock:
            policy = self._policy(place, question.scope)
            rng = self._dice.keyed(self.ids[place], place, question.call_id)
            choice, failure = self._attempt(place, _honest, policy, question, rng)
        if choice is None:
            choice = Choice(_default(question, options)[0], 1.0, "", failure)
        return _decision(question, place, self.ids[place], choice, live=live)

    def _attempt(self, place: str, action: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> tuple[T | None, str]:
        """(what `action` returned, "") or (None, what it raised)."""
        try:
            return action(*args, **kwargs), ""
        except KeyboardInterrupt:
            raise
        except BaseException as exc:  # noqa: BLE001  # any policy may raise anything, SystemExit too; no call may fail
            kind = f"{place}: {type(exc).__name__}"
            self.failures[kind] = self.failures.get(kind, 0) + 1
            return None, f"{type(exc).__name__}: {exc}"[:200].encode("utf-8", "replace").decode()


def _named(points: Mapping[str, PointOptions]) -> dict[str, PointOptions]:
    for point in points:
        if not point or SHADOW in point or point in (ROLLOUT, EXPERIMENT):
            reserved = f"{ROLLOUT} or {EXPERIMENT}"
            raise SettingsError(f"decision point {point!r}: give a name without {SHADOW}, and not {reserved}")
    return dict(points)


def _where(policies: Mapping[str, Policy], holds: Callable[[Policy], bool]) -> frozenset[str]:
    """The places of which something holds."""
    return frozenset(place for place, policy in policies.items() if holds(policy))


def _is_rule(policy: Policy) -> bool:
    """Whether all there is to learn ends in `Rule.learn`, through guards that only hand it on."""
    while isinstance(policy, Guard) and type(policy).learn is Guard.learn:
        policy = policy.policy
    return isinstance(policy, Rule) and type(policy).learn is Rule.learn


def decision_id(call_id: str, point: str, place: str, *, live: bool) -> str:
    """The id of the decision of one place in one call; the point's own policy in shadow stands beside the default."""
    made = acting_id(call_id, place)
    return made if live or place != point else f"{made}{SHADOW}"


def acting_id(call_id: str, point: str) -> str:
    """The id of the decision that acts at a point of one call."""
    return f"decision_{call_id.partition('_')[2] or call_id}-{point}"


def _default(question: _Question, options: PointOptions) -> tuple[str, str]:
    """The action where no policy acts, and why it is not the one of the settings, '' where it is."""
    if options.default in question.actions:
        return options.default, ""
    return question.actions[0], f"default {options.default!r} not eligible" if options.default else ""


def _defaulted(question: _Question, options: PointOptions) -> Decision:
    action, fallback = _default(question, options)
    return _decision(question, question.point, DEFAULT_POLICY, Choice(action, 1.0, "", fallback), live=True)


def _honest(policy: Policy, question: _Question, rng: np.random.Generator) -> Choice:
    """The policy's choice, held to the contract: an eligible action and a propensity in (0, 1]."""
    choice = policy.choose(question.context, question.actions, rng)
    if choice.action not in question.actions:
        raise PolicyError(f"chose {choice.action!r}, which is not one of {', '.join(question.actions)}")
    return Choice(choice.action, _probability(choice.propensity), _plain(choice.why), _plain(choice.fallback))


def _probability(propensity: Probability) -> Probability:
    """A propensity that a record may hold. PolicyError for what is none; a Propensity of ours is one by its making."""
    if type(propensity) is Propensity and propensity.within:
        return propensity
    known = float(propensity)
    # Sums of rounded probabilities may pass 1 by a few units in the last place; more is dishonest. NaN fails too.
    if not 0.0 < known <= 1.0 + 1e-9:
        raise PolicyError(f"propensity {known} is not in (0, 1]")
    return min(known, 1.0)


def _plain(words: object) -> str:
    """What a policy says, as text that the ledger can keep, whatever it is."""
    if type(words) is str and len(words) <= WORDS_CHARS and words.isascii() and "\0" not in words:
        return words
    return str(words or "")[:WORDS_CHARS].replace("\0", "").encode("utf-8", "replace").decode()


class Dice:
    """One random generator, set anew for each choice: making one for each took longer than the choice itself."""

    def __init__(self) -> None:
        # Any, because its state takes plain numbers too, in half the time of arrays.
        self._philox: Any = np.random.Philox(key=0)
        self._generator = np.random.Generator(self._philox)

    def keyed(self, policy_id: str, place: str, call_id: str) -> np.random.Generator:
        """Philox keyed by 128 bits of (policy id, place, call id): the same call draws the same numbers on every
        replay. Good until the next time.

        Two places draw independently, or a shadow policy would agree with the live one by the dice and not by its
        merit.
        """
        key = hashlib.blake2b(msgspec.msgpack.encode((policy_id, place, call_id)), digest_size=16).digest()
        halves = [int.from_bytes(key[:8], "little"), int.from_bytes(key[8:], "little")]
        self._philox.state = {
            "bit_generator": "Philox",
            "state": {"counter": _ZEROS, "key": halves},
            "buffer": _ZEROS,
            "buffer_pos": 4,  # none of it is left
            "has_uint32": 0,
            "uinteger": 0,
        }
        return self._generator


def _decision(question: _Question, place: str, policy_id: str, choice: Choice, *, live: bool) -> Decision:
    why = {"why": choice.why} if choice.why else {}
    shadow = {} if place == question.point else {"shadow": place.removeprefix(f"{question.point}{SHADOW}-")}
    return Decision(
        id=decision_id(question.call_id, question.point, place, live=live),
        at=question.at,
        tenant=question.scope.tenant,
        workspace=question.scope.workspace,
        call=question.call_id,
        point=question.point,
        policy=policy_id,
        actions=question.actions,
        action=choice.action,
        propensity=cast(float, choice.propensity),  # a Propensity is one, once the ledger looks at it
        live=live,
        context=question.context,
        featuriser=question.featuriser,
        fallback=choice.fallback,
        extra=why | shadow,
    )
