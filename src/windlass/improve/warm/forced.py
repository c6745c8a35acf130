"""The choice that a warm start leaves to nobody: one model answers, and the decision says so."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import msgspec

from windlass.errors import ModelUnknown
from windlass.gateway.gateway import Gateway
from windlass.gateway.money.pricelist import PriceBook
from windlass.gateway.money.prices import most_nusd
from windlass.gateway.options import GatewayOptions, ModelOptions
from windlass.gateway.provider import Provider, Providers
from windlass.gateway.route.features import ALLOWANCE
from windlass.gateway.transit import Answer, Request
from windlass.improve.warm.prompt import AskedPrompt
from windlass.ledger.ledger import Ledger
from windlass.policies.loop import Loop, acting_id
from windlass.records import Decision, Scope
from windlass.stats.features import Context

FORCED: Final = "forced"
"""The name in a decision's `extra` that says by what it was forced."""
WARM_START: Final = "warm_start"


class Forced(Loop):
    """Decides in the place of the loop, for one call: what was chosen `like` it, but of the one model that is asked.

    The policy that chose then learns from it as from any call of a model that was named: its one action was taken with
    probability 1, so that nobody counts it as a choice, no off-policy estimate uses it and no floor is tested on it.
    What the call might have spent of a budget says nothing here and is left out.
    """

    def __init__(self, like: Decision) -> None:
        super().__init__({})
        self._like = like

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
        """The model that the request names, in the context of the choice that it stands beside."""
        like = self._like
        decision = Decision(
            id=acting_id(call_id, point),
            at=at,
            tenant=scope.tenant,
            workspace=scope.workspace,
            call=call_id,
            point=point,
            policy=like.policy,
            actions=tuple(actions[:1]),
            action=actions[0],
            propensity=1.0,
            live=True,
            context={name: value for name, value in like.context.items() if name != ALLOWANCE},
            featuriser=like.featuriser,
            extra={FORCED: WARM_START, "why": f"{WARM_START}: asked beside {like.call}"},
        )
        return actions[0], (decision,)


class Unaided(Providers):
    """The models of `within`, of which none has another that answers for it: what it is worth itself is asked."""

    def __init__(self, within: Providers) -> None:
        super().__init__(())
        self._within = within

    def names(self) -> tuple[str, ...]:
        return self._within.names()

    def routable(self) -> tuple[str, ...]:
        return self._within.routable()

    def find(self, model: str) -> tuple[Provider, ModelOptions]:
        provider, options = self._within.find(model)
        return provider, msgspec.structs.replace(options, fallbacks=())


@dataclass(frozen=True)
class InForce:
    """The gateway of this moment, its options and its prices."""

    gateway: Gateway
    options: GatewayOptions
    prices: PriceBook

    async def ask(self, request: Request, like: Decision, ledger: Ledger, clock: Callable[[], float]) -> Answer:
        """Ask the model that the request names, with all that the gateway holds any call to.

        Raises what the gateway raises. No router listens: what is asked here says nothing of how much will be.
        """
        gateway = self.gateway
        beside = Gateway(
            admission=gateway.admission,
            providers=Unaided(gateway.providers),
            loop=Forced(like),
            ledger=ledger,
            options=self.options,
            limits=gateway.limits,
            prices=self.prices,
            resilience=gateway.resilience,
            clock=clock,
        )
        return await beside.complete(request)

    def most_nusd(self, model: str, prompt: AskedPrompt) -> int | None:
        """What an answer may cost at most (one of open length: as long as the settings hold money for). None where
        there is no such model, or nobody knows its price."""
        try:
            provider, options = self.gateway.providers.find(model)
        except ModelUnknown:
            return None
        if provider.local:
            return 0
        price = self.prices.of(provider.name, options)
        if not price.priced:
            return None
        completion = self.options.reserved_tokens if prompt.most_tokens is None else prompt.most_tokens
        return most_nusd([price], prompt.most_prompt_tokens(options.upstream or options.name), completion)
