"""JointThompson: the router. One linear model of quality over all actions, prices beside it, one price of money.

It takes the action with the largest `quality - price x cost`, where the quality is drawn, per action, from what is
believed of it (marginal Thompson sampling with deviations scaled by alpha), the cost is predicted, and the price of
money is the smallest that keeps within the budget and does what the objective says. `docs/explanation/routing.md`
tells it in words. Sources: Agrawal, Goyal, "Thompson Sampling for Contextual Bandits with Linear Payoffs", ICML 2013;
for the model `stats/joint.py`, for the price `stats/pacing.py`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from operator import itemgetter
from typing import Any, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from windlass.errors import PolicyError
from windlass.policies.joint_context import Layout, StoredLayout
from windlass.policies.joint_costs import LARGEST_LOG, Costs, StoredCosts, start
from windlass.policies.joint_options import MOST_NUSD, PRESETS, JointThompsonOptions, finite
from windlass.policies.joint_outlook import Outlook
from windlass.policies.joint_window import RecentWindow, StoredWindow
from windlass.policies.lifts import LIFT, USER
from windlass.policies.policy import Arm, Choice, draw, require
from windlass.records import Decision
from windlass.stats import chance, thompson
from windlass.stats.features import Context
from windlass.stats.joint import JointPosterior, StoredJoint
from windlass.stats.pacing import Curve, curve

_LARGEST = 640
"""Arms times features: the covariance, each pair once, is half the square of it: 1.9 MB with the blocks of 9 arms."""
_MOST_ARMS = 64
_LARGEST_REWARD = 1e5
_DEAREST = 1e12
"""Quality per nano-dollar: above any price that means something, and finite beside any cost."""
_EVERY = 8
_FORCED_SHARE = 0.25
_EXPERIENCE = 50
"""An arm is new where so many rewards had been learned before it was first eligible; the first ones are alike."""
_COLD = 10.0
"""Before anything was spent, an allowance that is used up costs so much quality: more than any action is worth."""
_MOST_EXCESS = 0.5
_ALLOWANCE = "allowance_nusd"
_COST = "cost_nusd:"
_EMBEDDING = "embedding"
_ASKED = tuple(
    (f"objective:{name}", preset.get("quality_percent", 0.0), preset.get("quality_per_usd", 0.0))
    for name, preset in PRESETS.items()
)
_PERCENT, _PER_USD = "objective:quality_percent", "objective:quality_per_usd"
_WISHES = frozenset((*(name for name, _, _ in _ASKED), _PERCENT, _PER_USD))

Floats = NDArray[np.float64]


class _StoredRouter(msgspec.Struct, frozen=True, array_like=True):
    name: str
    version: int
    options: tuple[str, tuple[float, ...]]
    arms: tuple[str, ...]
    since: tuple[tuple[str, int], ...]
    rewards: int
    layout: StoredLayout
    quality: StoredJoint
    costs: StoredCosts
    window: StoredWindow
    curve: Curve | None


class _Menu(NamedTuple):
    """Where the numbers of these eligible actions are found: among the arms (the unseen one last), in a context."""

    actions: tuple[str, ...]
    places: list[int]
    names: tuple[str, ...]
    prices: Callable[[Context], Any]


class JointThompson:
    """Learns quality by `learn` and costs by `spend`, chooses for the best quality that the money is worth."""

    name = "joint_thompson"
    version = 1

    def __init__(self, options: JointThompsonOptions | None = None) -> None:
        self.options = options or JointThompsonOptions()
        self._arms: dict[str, int] = {}
        # How many rewards had been learned when an action was first among the eligible ones.
        self._since: dict[str, int] = {}
        self._rewards = 0
        self._layout = Layout(self.options.max_features)
        self._quality = JointPosterior(self.options.noise_variance, self.options.walk_variance)
        self._quality.widen([self.options.bias_variance], [self.options.bias_correlation])
        self._costs = Costs()
        self._window = RecentWindow(self._layout.size)
        self._curve: Curve | None = None
        self._alpha = self.options.alpha
        # Of all arms and the unseen one, (2 (K + 1), features): weights of quality, then of the logarithm of costs.
        self._lines: Floats = np.empty((0, 0))
        self._reselect()
        # Looked up over and over: the eligible actions of the last choice, and actions that are not new any more.
        self._menu: _Menu | None = None
        self._grown: set[str] = set()

    def probabilities(self, context: Context, actions: Sequence[str]) -> Floats:
        view = self._view(context, actions)
        drawn = thompson.probabilities(np.array(view.scores), self._alpha * np.array(view.sds))
        if view.forced is None:
            return drawn
        chances: Floats = (1.0 - sum(view.forced)) * drawn + np.array(view.forced)
        return chances

    def choose(self, context: Context, actions: Sequence[str], rng: np.random.Generator) -> Choice:
        view = self._view(context, actions)
        scores, sds = view.scores, [self._alpha * sd for sd in view.sds]
        if view.forced is None:
            index, propensity = chance.draw_listed(scores, sds, rng)
        else:
            index, propensity = self._tried(view.forced, scores, sds, rng)
        return Choice(actions[index], propensity, view.why(actions), self._missing(context))

    def _tried(
        self, forced: list[float], scores: list[float], sds: list[float], rng: np.random.Generator
    ) -> tuple[int, chance.Probability]:
        """A choice among actions some of which are new, and its probability, whichever way it was chosen."""
        total = sum(forced)
        propensity: chance.Probability
        if rng.random() < total:
            index = draw(np.array(forced) / total, rng)
            propensity = float(thompson.probabilities(np.array(scores), np.array(sds))[index])
        else:
            index, propensity = chance.draw_listed(scores, sds, rng)
        return index, forced[index] + (1.0 - total) * propensity

    def learn(self, decision: Decision, reward: float, previous: float | None) -> None:
        for value in (reward, previous):
            if value is not None and not abs(value) <= _LARGEST_REWARD:
                raise ValueError(f"reward {reward} (before: {previous}) is not a finite number of order one")
        prior = self.options.prior_mean
        if previous is None:
            # The numbers of its context were counted with its cost, if that was told.
            arm = self._admit(decision, counted=self._window.features(decision.id) is not None)
            x = self._features(decision)
            self._quality.observe(arm, decision.id, x, reward - prior)
            self._rewards += 1
            self._align_quality()
        elif decision.action in self._arms:
            x = self._features(decision)
            self._quality.revise(self._arms[decision.action], decision.id, x, reward - prior, previous - prior)
            self._align_quality()

    def spend(self, decision: Decision, cost_nusd: float, previous: float | None) -> None:
        """The call cost so much; `previous` is what was told before. ValueError where it is no finite cost."""
        for value in (cost_nusd, previous):
            if value is not None and not 0.0 <= value <= MOST_NUSD:
                raise ValueError(f"a cost of {value} nano-dollars; tell a finite number from 0 to {MOST_NUSD:.0e}")
        if previous is not None:
            self._correct(decision, cost_nusd, previous)
            return
        arm = self._admit(decision)
        x = self._layout.vector(decision.context)
        menu = self._menu_of(decision.actions)
        listed = self._prices(decision.context, menu)
        if not _usual(listed):
            listed = [finite(price, unknown=math.nan) for price in listed]
        own = finite(decision.context.get(_COST + decision.action), unknown=math.nan)
        self._costs.learn(arm, decision.id, x[self._select], own, cost_nusd)
        self._align_costs()
        if len(decision.actions) < 2 and _ALLOWANCE not in decision.context:
            # There was nothing to choose and nothing to pace: it says nothing of what the next requests will need.
            return
        sds = self._alpha * np.sqrt(np.maximum(self._quality.variances(x), 0.0))[menu.places]
        number = self._costs.calls(arm)
        plan = self._plan(decision.context)
        row = self._window.add(decision.id, x, decision.actions, listed, sds, decision.action, number)
        if plan is not None:
            self._window.exceed(row, cost_nusd - plan)
        # At first after every call, because there is nothing yet to go by.
        if self._window.count % _EVERY == 0 or self._window.count <= 4 * _EVERY:
            self._reprice()

    def state(self) -> bytes:
        stored = _StoredRouter(
            self.name,
            self.version,
            self.options.settled(),
            tuple(self._arms),
            tuple(self._since.items()),
            self._rewards,
            self._layout.stored(),
            self._quality.stored(),
            self._costs.stored(),
            self._window.stored(),
            self._curve,
        )
        return msgspec.msgpack.encode(stored)

    def restore(self, state: bytes) -> None:
        fresh = JointThompson(self.options)
        try:
            fresh._restore(msgspec.msgpack.decode(state, type=_StoredRouter))
        except (msgspec.MsgspecError, ValueError) as exc:
            raise PolicyError(f"not a state of {self.name}: {exc}; rebuild it from the ledger") from exc
        self.__dict__.update(fresh.__dict__)

    def explain(self, context: Context, actions: Sequence[str]) -> tuple[Arm, ...]:
        view = self._view(context, actions)
        chances = self.probabilities(context, actions).tolist()
        observed = self._quality.observed
        means = [view.means[place] for place in view.places]
        counts = [observed[self._arms[action]] if action in self._arms else 0 for action in actions]
        return tuple(Arm(*each) for each in zip(actions, means, view.sds, chances, counts, strict=True))

    def costs_nusd(self, context: Context, actions: Sequence[str]) -> tuple[float, ...]:
        """What a call of each action is expected to cost in this context."""
        return tuple(self._view(context, actions).costs_nusd)

    def expected(self, context: Context, action: str) -> float:
        """The reward that is expected of an action in this context, whoever asks."""
        return float(self._lines[self._arms.get(action, self._quality.arms)] @ self._layout.vector(context))

    def price(self, context: Context) -> float:
        """Quality per nano-dollar that a dearer action has to bring now, for this allowance and objective."""
        return self._price(context)

    def _view(self, context: Context, actions: Sequence[str]) -> Outlook:
        require(actions)
        menu = self._menu_of(actions)
        x = self._layout.vector(context)
        lines, places = self._lines.dot(x).tolist(), menu.places
        variances = self._quality.variances(x).tolist()
        means, logs = lines[: len(variances)], lines[len(variances) :]
        if USER in context:
            _lift(means, context, actions, places)
        costs = self._expected(logs, menu, context)
        if min(variances) < 0.0:
            variances = [max(variance, 0.0) for variance in variances]
        price = min(self._price(context), _DEAREST)
        return Outlook(
            means,
            places,
            [math.sqrt(variances[place]) for place in places],
            costs,
            price,
            [means[place] - price * cost for place, cost in zip(places, costs, strict=True)],
            self._forced(context, actions, costs),
        )

    def _expected(self, logs: list[float], menu: _Menu, context: Context) -> list[float]:
        """What each action would cost, in nano-dollars, by the logarithms of what is learned of its list price."""
        # Plain lists: for the few actions of a call they are faster than arrays.
        if max(logs) > LARGEST_LOG:
            logs = [min(log, LARGEST_LOG) for log in logs]
        prices = self._prices(context, menu)
        if not _usual(prices):
            prices = [start(finite(price, unknown=math.nan)) for price in prices]
        costs = [price * math.exp(logs[place]) for place, price in zip(menu.places, prices, strict=True)]
        return costs if sum(costs) < MOST_NUSD else [min(cost, MOST_NUSD) for cost in costs]

    def _reselect(self) -> None:
        """Look up anew what counts for costs, and lay out the weights that a choice multiplies a context with."""
        self._select = self._costs.select(self._layout.numbers)
        self._lines = np.zeros((2 * self._quality.arms + 2, self._layout.size))
        self._align_quality()
        self._align_costs()

    def _align_quality(self) -> None:
        lines = self._lines[: self._quality.arms + 1]
        lines[:] = self._quality.weights
        lines[:, 0] += self.options.prior_mean

    def _align_costs(self) -> None:
        self._lines[self._quality.arms + 1 :, self._select] = self._costs.lines()

    def _features(self, decision: Decision) -> Floats:
        """The features of a call as they were when its cost was told, or else as they are now."""
        known = self._window.features(decision.id)
        return self._layout.vector(decision.context) if known is None else known

    def _menu_of(self, actions: Sequence[str]) -> _Menu:
        menu = self._menu
        if menu is None or menu.actions != actions:
            names = tuple([_COST + action for action in actions])
            places = [self._arms.get(action, -1) for action in actions]
            prices = itemgetter(*names) if len(names) > 1 else lambda context: [context[name] for name in names]
            menu = self._menu = _Menu(tuple(actions), places, names, prices)
        return menu

    def _price(self, context: Context) -> float:
        """The smallest price of money that does what is wanted and keeps within the allowance."""
        percent, per_usd = self.options.quality_percent, self.options.quality_per_usd
        if not context.keys().isdisjoint(_WISHES):
            percent, per_usd = self._wanted(context)
        price = per_usd / 1e9
        known = self._curve
        if percent and known is not None and known.best:
            price = max(price, known.price_keeping(self._reference(known) * percent / 100.0))
        if _ALLOWANCE in context:
            allowance = finite(context[_ALLOWANCE], unknown=0.0)
            if known is None:
                return max(price, _COLD / max(allowance, 1.0))
            # What calls cost beyond their plan is taken off first, half of the allowance at most.
            excess, most = self._window.mean_excess_nusd, _MOST_EXCESS * allowance
            if not -most <= excess <= most:
                excess = math.copysign(most, excess)
            price = max(price, known.price_within(allowance - excess))
        return price

    def _plan(self, context: Context) -> float | None:
        """What a call with this allowance was meant to cost: the mean of the curve at the price of money."""
        if self._curve is None or _ALLOWANCE not in context:
            return None
        return self._curve.cost_nusd(self._price(context))

    def _wanted(self, context: Context) -> tuple[float, float]:
        """Percent of the reference's quality, and quality per USD: what the request asks for, or else the options."""
        percent, per_usd = self.options.quality_percent, self.options.quality_per_usd
        for name, preset_percent, preset_per_usd in _ASKED:
            if context.get(name):
                percent, per_usd = preset_percent, preset_per_usd
        if _PERCENT in context:
            percent = finite(context[_PERCENT], unknown=percent)
        if _PER_USD in context:
            per_usd = finite(context[_PER_USD], unknown=per_usd)
        return min(percent, 100.0), per_usd

    def _reference(self, known: Curve) -> float:
        """The mean quality over the window of the action that quality is measured against."""
        names = self._window.names
        own = [mean for column, mean in known.best if names[column] == self.options.reference]
        return own[0] if own else max(mean for _, mean in known.best)

    def _forced(self, context: Context, actions: Sequence[str], costs: Sequence[float]) -> list[float] | None:
        """Per action the probability with which it is tried whatever is believed, because it is new; within budget."""
        if self._rewards < _EXPERIENCE or not self.options.forced_calls or self._grown.issuperset(actions):
            return None
        new = [self._is_new(action) for action in actions]
        if not any(new) or all(new):
            self._grown.update(action for action, fresh in zip(actions, new, strict=True) if not fresh)
            return None
        share = _FORCED_SHARE / sum(new)
        allowance = finite(context[_ALLOWANCE], unknown=0.0) if _ALLOWANCE in context else math.inf
        return [
            share * min(1.0, allowance / max(cost, 1.0)) if fresh else 0.0
            for fresh, cost in zip(new, costs, strict=True)
        ]

    def _is_new(self, action: str) -> bool:
        """Whether an action came later than others and has not earned as many rewards as a new one is owed.

        Where hardly a call is ever rated, it stays new no longer than ten times as many calls.
        """
        if self._since.get(action, self._rewards) < _EXPERIENCE:
            return False
        arm, wanted = self._arms.get(action), self.options.forced_calls
        return arm is None or (self._quality.observed[arm] < wanted and self._costs.calls(arm) < 10 * wanted)

    def _prices(self, context: Context, menu: _Menu) -> Sequence[Any]:
        """What the context has under the names of the price list, whatever that is."""
        try:
            found: Sequence[Any] = menu.prices(context)
        except KeyError:
            found = [context.get(name) for name in menu.names]
        return found

    def _indices(self, actions: Sequence[str]) -> NDArray[np.intp]:
        return np.array([self._arms.get(action, self._quality.arms) for action in actions], np.intp)

    def _admit(self, decision: Decision, counted: bool = False) -> int:
        """The index of the arm that acted; what it and its context bring that is new is taken in."""
        action = decision.action
        for each in decision.actions:
            if each not in self._since and len(self._since) < _MOST_ARMS:
                self._since[each] = self._rewards
        if action not in self._arms:
            if len(self._arms) >= _MOST_ARMS:
                self._leave()
            self._narrow(_LARGEST // (len(self._arms) + 1))
            self._arms[action] = self._quality.join()
            self._costs.join()
            self._reselect()
            self._menu = None
        fresh = 0 if counted else self._layout.learn(decision.context)
        if fresh:
            numbers = [place.index < 0 for place in self._layout.places[-fresh:]]
            options = self.options
            variances = [options.number_variance if plain else options.tuple_variance for plain in numbers]
            self._quality.widen(variances, [options.correlation] * fresh)
            self._window.widen(self._layout.size)
            self._reselect()
        return self._arms[action]

    def _narrow(self, limit: int) -> None:
        if self._layout.size > limit:
            kept = self._layout.narrow(limit)
            self._quality.narrow(kept)
            self._window.narrow(kept)
        self._layout.limit = min(self._layout.limit, limit)

    def _leave(self) -> None:
        """Forget the action of which least is known."""
        observed = self._quality.observed
        gone = min(self._arms.values(), key=observed.__getitem__)
        self._quality.leave(gone)
        self._costs.leave(gone)
        rest = [action for action, arm in self._arms.items() if arm != gone]
        self._arms = {action: arm for arm, action in enumerate(rest)}
        self._menu = None
        self._grown.clear()

    def _correct(self, decision: Decision, cost_nusd: float, previous: float) -> None:
        arm = self._arms.get(decision.action)
        if arm is None:
            return
        known = self._window.find(decision.id)
        if known is None:
            x, age = self._layout.vector(decision.context), -1
            listed = finite(decision.context.get(_COST + decision.action), unknown=math.nan)
        else:
            x, listed, age = known.x, known.listed, self._costs.calls(arm) - known.number
        self._costs.correct(arm, decision.id, x[self._select], listed, (cost_nusd, previous), age)
        self._align_costs()
        if known is not None:
            if self._window.excess[known.row]:
                self._window.exceed(known.row, float(self._window.excess[known.row]) + cost_nusd - previous)
            self._reprice()

    def _reprice(self) -> None:
        """Bring the curve of prices up to date with the window and what is believed now."""
        window, rows = self._window, self._window.rows
        eligible = window.eligible[:rows]
        some = eligible.any(axis=1)
        if not some.any():
            return
        places, x, listed = self._indices(window.names), window.x[:rows], window.listed[:rows]
        quality = (x @ self._quality.weights.T)[:, places] + self.options.prior_mean
        factors = self._costs.predict(x[:, self._select].T).T[:, places]
        costs = np.minimum(factors * np.where(np.isnan(listed), start(math.nan), np.maximum(listed, 1.0)), MOST_NUSD)
        self._curve = curve(quality[some], (quality + window.noise[:rows])[some], costs[some], eligible[some])

    def _missing(self, context: Context) -> str:
        if _EMBEDDING in context or not self._layout.knows(_EMBEDDING):
            return ""
        return "no embedding of the prompt: chosen by the other features"

    def _restore(self, stored: _StoredRouter) -> None:
        mine = (self.name, self.version, self.options.settled())
        if (stored.name, stored.version, stored.options) != mine:
            raise ValueError(f"it is of {stored.name}@{stored.version} with {stored.options}, this is {mine}")
        limit = min(self.options.max_features, _LARGEST // max(len(stored.arms), 1))
        self._layout.restore(stored.layout, max(limit, 1))
        self._quality.restore(stored.quality)
        self._costs.restore(stored.costs)
        self._window = RecentWindow.restored(stored.window, self._layout.size)
        self._arms = {action: arm for arm, action in enumerate(stored.arms)}
        sizes = {len(self._arms), len(stored.arms), self._quality.arms, self._costs.arms}
        if len(sizes) > 1 or self._quality.features != self._layout.size:
            raise ValueError(f"its parts do not agree: {sizes} arms, {self._layout.size} features")
        self._reselect()
        self._since, self._rewards = dict(stored.since), stored.rewards
        known = stored.curve
        if known is not None and not known.sound():
            raise ValueError(f"its curve of prices is none: {known}")
        self._curve = known


def _usual(prices: Sequence[Any]) -> bool:
    """Whether each is a price as it should be."""
    try:
        # The sum is not below anything with a NaN among them.
        return bool(min(prices) >= 1.0 and sum(prices) < MOST_NUSD)
    except TypeError:
        return False


def _lift(means: list[float], context: Context, actions: Sequence[str], places: Sequence[int]) -> None:
    """Add to the means of all arms what the user of a call thinks of the actions at these places."""
    for action, place in zip(actions, places, strict=True):
        lift = context.get(LIFT + action)
        # Nothing is known of what has no place of its own; NaN fails the comparison.
        if place >= 0 and isinstance(lift, float) and abs(lift) <= 1.0:
            means[place] += lift
