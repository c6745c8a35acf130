"""Slo, the guard `service`: leaves out actions that are shown to be too slow or to fail too often, until they recover.

Each action's calls are counted with weights that fade (stats/decaying.py). An action is left out while the share of its
calls that were late, or that failed, is above the allowed one by more than chance explains: where it keeps the limit,
the counts of a given number of calls leave it out with a chance of at most `1 - confidence` at any one time
(`decaying.evidence`). A small share of the choices goes to what is left out, so that its recovery is seen; and what has
not been tried for long fades until it is unknown, and is taken again.

The limits are those of the options, or of the call: `objective:max_latency_ms`, `objective:latency_quantile` and
`objective:max_error_percent` in its context.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from windlass.errors import PolicyError
from windlass.policies.policy import Choice, Guard, Policy, require
from windlass.policies.served import Served
from windlass.policies.slo_terms import NO_LIMITS, SloLimits, SloOptions, SloReport, affordable
from windlass.records import Decision
from windlass.stats.chance import mixed
from windlass.stats.decaying import DecayingCalls, evidence
from windlass.stats.features import Context

_S_PER_MINUTE = 60.0
_MOST_ACTIONS: Final = 64
_MOST_VIEWS: Final = 64
_SHOWN: Final = 3
_SHOWN_SHARE: Final = 0.001
_SET_BACK: Final = 20
_LONG_AGO: Final = 8.0
"""In half-lives: so many calls in a row from before that show that the clock was set back."""


class _Standing(NamedTuple):
    """Which places may be taken, which actions these are, and which places are left out; what is told of that, and why
    it is not what was asked for."""

    kept: list[int]
    left: tuple[str, ...]
    out: list[int]
    told: str
    forced: str


class _StoredCalls(msgspec.Struct, frozen=True, array_like=True):
    at: float
    origin: float
    told: float
    failed: float
    times: list[tuple[int, float]]


class _StoredSlo(msgspec.Struct, frozen=True, array_like=True):
    guard: str
    version: int
    options: tuple[float, ...]
    now: float
    back: int
    calls: dict[str, _StoredCalls]
    policy: bytes


class Slo(Guard):
    """Chooses among what keeps the limits; where nothing does, what comes nearest, with `fallback`.

    With a share s for what is left out (`affordable`), an action that is left out has the probability s / (how many
    are), and one that is not (1 - s) times that of the policy inside among those. Rewards and costs reach the policy
    inside for every action. Times are those of the decisions: what was told last is the present.
    """

    STATE_VERSION: Final = 1

    def __init__(self, policy: Policy, options: SloOptions | None = None) -> None:
        super().__init__(policy)
        self.options = options or SloOptions()
        self._calls: dict[str, DecayingCalls] = {}
        self._now = -math.inf
        self._back = 0
        # Looked up over and over between two calls that are told.
        self._views: dict[tuple[SloLimits, tuple[str, ...]], _Standing] = {}

    def probabilities(self, context: Context, actions: Sequence[str]) -> NDArray[np.float64]:
        require(actions)
        view = self._view(context, actions)
        if not view.out:
            return self.policy.probabilities(self.shown(context), actions)
        share = self._share(context, actions, view.out)
        distribution = np.zeros(len(actions))
        distribution[view.out] = share / len(view.out)
        inner = self.policy.probabilities(self.shown(context), view.left)
        distribution[view.kept] = (1.0 - share) * inner
        return distribution

    def choose(self, context: Context, actions: Sequence[str], rng: np.random.Generator) -> Choice:
        require(actions)
        view = self._view(context, actions)
        if not view.out:
            return self.policy.choose(self.shown(context), actions, rng)
        out, share = view.out, self._share(context, actions, view.out)
        if rng.random() < share:
            action = actions[out[int(rng.integers(len(out)))]]
            part = f"{share:.1%}" if share >= _SHOWN_SHARE else f"{100.0 * share:.1g}%"
            return Choice(action, share / len(out), f"service: share of {part} for what is left out; {view.told}")
        choice = self.policy.choose(self.shown(context), view.left, rng)
        return Choice(
            choice.action,
            mixed(choice.propensity, 0.0, 1.0 - share),
            "; ".join(filter(None, (choice.why, view.told))),
            "; ".join(filter(None, (view.forced, choice.fallback))),
        )

    def serve(self, decision: Decision, served: Served, previous: Served | None) -> None:
        """The call of `decision` went so; `previous` is what was told of it before. ValueError for what is no time."""
        if previous is not None:
            known = self._calls.get(decision.action)
            if known is not None:
                known.revise(decision.at, served, previous)
        else:
            calls = self._calls.get(decision.action) or DecayingCalls(self._half_life_s)
            calls.add(decision.at, served.took_ms, failed=served.failed)
            self._calls[decision.action] = calls
            self._pass(decision.at)
        self._views.clear()

    def reports(self, context: Context, actions: Sequence[str]) -> tuple[SloReport, ...]:
        """What is known of each limit that holds in this context, of each action of which a call was told."""
        limits = self.options.limits(context)
        known = [action for action in actions if action in self._calls]
        return tuple(report for action in known for report in self._reports(action, limits))

    def state(self) -> bytes:
        calls = {
            action: _StoredCalls(one.at, one.origin, one.told, one.failed, sorted(one.times.items()))
            for action, one in sorted(self._calls.items())
        }
        now = self._now if self._calls else 0.0
        return msgspec.msgpack.encode(
            _StoredSlo(
                "service", self.STATE_VERSION, self.options.settled(), now, self._back, calls, self.policy.state()
            )
        )

    def restore(self, state: bytes) -> None:
        try:
            stored = msgspec.msgpack.decode(state, type=_StoredSlo)
            calls = {action: self._restored(one) for action, one in stored.calls.items()}
        except (msgspec.MsgspecError, UnicodeDecodeError, ValueError) as exc:
            raise PolicyError(f"not a state of service around {self.name}: {exc}; rebuild it from the ledger") from exc
        written = (stored.guard, stored.version, stored.options)
        sound = len(calls) <= _MOST_ACTIONS and math.isfinite(stored.now) and 0 <= stored.back < _SET_BACK
        sound = sound and all(one.at <= stored.now for one in calls.values())
        if written != ("service", self.STATE_VERSION, self.options.settled()) or not sound:
            raise PolicyError(
                f"a state of {stored.guard}@{stored.version} with options {stored.options} cannot become one of "
                f"service@{self.STATE_VERSION} with {self.options.settled()}; rebuild it from the ledger"
            )
        self.policy.restore(stored.policy)
        self._calls, self._back = calls, stored.back
        self._now = stored.now if calls else -math.inf
        self._views.clear()

    def _share(self, context: Context, actions: Sequence[str], out: Sequence[int]) -> float:
        return affordable(self.options.probe_share, context, [actions[place] for place in out])

    def _view(self, context: Context, actions: Sequence[str]) -> _Standing:
        limits = self.options.limits(context)
        if limits == NO_LIMITS or not self._calls or len(actions) < 2:
            return _ALL
        key = (limits, tuple(actions))
        view = self._views.get(key)
        if view is None:
            if len(self._views) >= _MOST_VIEWS:
                self._views.clear()
            view = self._views[key] = self._seen(*key)
        return view

    def _seen(self, limits: SloLimits, actions: tuple[str, ...]) -> _Standing:
        """What may be taken by what is known now."""
        out = [place for place, action in enumerate(actions) if self._breaks(action, limits)]
        if not out:
            return _ALL
        broken = {place: self._broken(actions[place], limits) for place in out}
        kept, forced = [place for place in range(len(actions)) if place not in broken], ""
        if not kept:
            nearest = min(out, key=lambda place: max(report.excess for report in broken[place]))
            kept = [nearest]
            words = "; ".join(report.words for report in broken.pop(nearest))
            forced = f"service: no action keeps the limits, {actions[nearest]} comes nearest: {words}"
        told = _told({actions[place]: reports[0] for place, reports in broken.items()})
        return _Standing(kept, tuple(actions[place] for place in kept), list(broken), told, forced)

    def _breaks(self, action: str, limits: SloLimits) -> bool:
        """Whether an action is shown to break a limit."""
        calls = self._calls.get(action)
        return calls is not None and (self._is_late(calls, limits) or self._is_failing(calls, limits))

    def _broken(self, action: str, limits: SloLimits) -> list[SloReport]:
        return [report for report in self._reports(action, limits) if not report.kept]

    def _is_late(self, calls: DecayingCalls, limits: SloLimits) -> bool:
        limit_ms, allowed, now = limits.latency_ms, 1.0 - limits.quantile, self._now
        # First what takes no weighing, and is nearly always so.
        if limit_ms == math.inf or not calls.often_late(limit_ms, allowed):
            return False
        return self._is_shown(calls.late(limit_ms, now), calls.timed(now), allowed)

    def _is_failing(self, calls: DecayingCalls, limits: SloLimits) -> bool:
        if not calls.often_failed(limits.errors):
            return False
        return self._is_shown(calls.failures(self._now), calls.calls(self._now), limits.errors)

    def _reports(self, action: str, limits: SloLimits) -> list[SloReport]:
        calls, found, now = self._calls[action], [], self._now
        measured = calls.quantile(limits.quantile)
        if limits.latency_ms < math.inf and measured is not None:
            timed = calls.timed(now)
            kept = not self._is_late(calls, limits)
            found.append(SloReport(action, limits.quantile, measured, limits.latency_ms, timed, kept))
        if limits.errors < 1.0:
            told = calls.calls(now)
            share = 100.0 * calls.failures(now) / told if told > 0.0 else 0.0
            kept = not self._is_failing(calls, limits)
            found.append(SloReport(action, 0.0, share, 100.0 * limits.errors, told, kept))
        return found

    def _is_shown(self, part: float, whole: float, allowed: float) -> bool:
        """Whether more than `allowed` of the calls are late, or fail, with the confidence that is asked for."""
        nats = -math.log(1.0 - self.options.confidence)
        return whole >= self.options.least_calls * _ALMOST and evidence(part, whole, allowed) > nats

    def _pass(self, at: float) -> None:
        """Time goes on, or was set back: then what was counted in a future that was none is let go."""
        if at >= self._now - _LONG_AGO * self._half_life_s:
            self._now, self._back = max(self._now, at), 0
        else:
            self._back += 1
        if self._back >= _SET_BACK:
            self._calls = {name: one for name, one in self._calls.items() if one.at <= at}
            # Without any counts there is no present either, as after a restart.
            self._now, self._back = at if self._calls else -math.inf, 0
        if len(self._calls) > _MOST_ACTIONS:
            del self._calls[min(self._calls, key=lambda name: (self._calls[name].at, name))]

    def _restored(self, stored: _StoredCalls) -> DecayingCalls:
        calls = DecayingCalls(self._half_life_s)
        calls.restored(stored.at, stored.origin, stored.told, stored.failed, dict(stored.times))
        return calls

    @property
    def _half_life_s(self) -> float:
        return self.options.half_life_minutes * _S_PER_MINUTE


_ALL: Final = _Standing([], (), [], "", "")
_ALMOST: Final = 1.0 - 1e-9
"""Sums of weights of one may be a little less than their number."""


def _told(out: Mapping[str, SloReport]) -> str:
    """What is left out, each with the limit that it breaks."""
    told = [f"{action} left out: {report.words}" for action, report in out.items()]
    more = [f"{len(told) - _SHOWN} more left out"] if len(told) > _SHOWN else []
    return "; ".join(told[:_SHOWN] + more)
