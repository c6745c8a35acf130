"""One call on its way through: what came in, what was chosen, what came of it, and what is kept."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import msgspec

from windlass.errors import RequestError
from windlass.gateway.access.admission import Caller
from windlass.gateway.access.limits import Hold
from windlass.gateway.endpoints import Raw
from windlass.gateway.money.estimate import estimate_tokens
from windlass.gateway.money.pricelist import PriceBook
from windlass.gateway.money.prices import cost_nusd
from windlass.gateway.money.usage import Usage
from windlass.gateway.options import ModelOptions
from windlass.gateway.provider import JSON
from windlass.gateway.relay import Once, Stream, error_event
from windlass.gateway.resilience.attempt import Attempt, Target
from windlass.gateway.wire import Chat, EmbeddingInput, ReplyTally
from windlass.ledger import ids
from windlass.ledger.ledger import Body, Spend
from windlass.records import Call, Decision, Outcome, Scope

if TYPE_CHECKING:
    from windlass.gateway.foreign import Foreign
    from windlass.gateway.ticket import Ticket

DAY_S = 86_400.0
Asked: TypeAlias = "Chat | EmbeddingInput | Raw | Foreign"
"""A request, read as far as routing and accounting need."""


@dataclass(frozen=True)
class Request:
    """One request as it came in, for one `endpoint`. `parent` is the typed id it is made for.

    `method`, `path` (below the base URL) and `query` matter to endpoints whose requests go up as they came.
    `scope` and `caller` are set by our own rooms, for whom the caller has been admitted already; without a `caller` it
    is Windlass itself that asks. Clients are admitted by `key`. What was answered under an `idempotency_key` before is
    answered from the store.
    """

    body: bytes
    endpoint: str = "chat"
    method: str = "POST"
    path: str = ""
    query: str = ""
    content_type: str = JSON
    key: str = ""
    workspace: str = ""
    parent: str = ""
    idempotency_key: str = ""
    scope: Scope | None = None
    caller: Caller | None = None


@dataclass
class Transit:
    """What the ledger will want to know of a call at the end, where `outcome` is set.

    targets: who may answer, the chosen one first; target: who did, or was asked last. started: UTC seconds.
    trail: every attempt so far. hold: what the call holds of limits until it is settled. ticket: where its reply is
    stored for whoever asks the same again. key: the name of the one that asked, '' without.
    """

    call: Call
    asked: Asked
    decisions: tuple[Decision, ...]
    targets: tuple[Target, ...]
    target: Target
    started: float
    tally: ReplyTally
    hold: Hold | None = None
    trail: list[Attempt] = field(default_factory=list)
    kept: list[bytes] = field(default_factory=list)
    first_byte_at: float = 0.0
    outcome: Outcome | None = None
    ticket: Ticket | None = None
    key: str = ""

    @property
    def model(self) -> ModelOptions:
        return self.target.model

    @property
    def adds_usage(self) -> bool:
        """Whether the provider is asked to count what the client has not asked to be counted."""
        chat = self.asked
        return isinstance(chat, Chat) and chat.stream and not chat.wants_usage and self.model.include_usage

    @property
    def dropped(self) -> tuple[str, ...]:
        """Fields of the request that its translation does not hold."""
        return () if isinstance(self.asked, Chat | EmbeddingInput | Raw) else self.asked.dropped

    def error_event(self, category: str) -> bytes:
        """How the stream says that it broke off, in the client's dialect."""
        if isinstance(self.asked, Chat | EmbeddingInput | Raw):
            return error_event(category)
        return b"" if self.tally.error else self.asked.error_event(category)

    @property
    def why(self) -> str:
        """Which policy chose, with what probability, and the numbers behind it; '' where nothing was to be chosen."""
        if not self.decisions:
            return ""
        decision = self.decisions[0]
        numbers = f"; {decision.extra['why']}" if "why" in decision.extra else ""
        instead = f"; instead of {decision.action}" if decision.action != self.model.name else ""
        return f"{decision.policy} p={decision.propensity:.3f}{numbers}{instead}"

    def end(self, now: float, status: int, error: str, prices: PriceBook) -> Outcome:
        """What came of the call, which is over. status: that the client gets; error: an ErrorCategory value or ''."""
        usage, call, local = self.tally.usage, self.call, self.target.provider.local
        prompt, completion = usage.prompt_tokens, usage.completion_tokens
        # Usage that a provider reports counts, whatever else went wrong; guesses only bill what was answered.
        answered = self.first_byte_at > 0 and (status < 300 or status == 499)
        estimated = answered and (prompt is None or completion is None or local)
        if prompt is None:
            prompt = self.asked.tokens or sum(map(estimate_tokens, self.asked.said)) if answered else 0
        if completion is None:
            completion = estimate_tokens(self.tally.text) if answered else 0
        used = msgspec.structs.replace(usage, prompt_tokens=prompt, completion_tokens=completion)
        self.outcome = Outcome(
            # By the call's own time, so that both lie on one day even where the clock is set meanwhile.
            id=ids.new("outcome", call.at),
            at=now,
            tenant=call.tenant,
            workspace=call.workspace,
            call=call.id,
            model=self.model.name,
            provider=self.target.provider.name,
            status=status,
            latency_ms=max(0.0, now - self.started) * 1000,
            first_byte_ms=max(0.0, (self.first_byte_at or now) - self.started) * 1000,
            prompt_tokens=prompt,
            completion_tokens=completion,
            cost_nusd=self._cost_nusd(prices, self.target, used) + self._wasted_nusd(prices),
            tokens_estimated=estimated,
            error=error,
            extra=self._extra(),
        )
        return self.outcome

    def bodies(self, now: float, retention_days: float) -> tuple[Body, ...]:
        """What is kept of the exchange, and until when."""
        call = self.call
        return tuple(
            Body(
                id=f"{call.id}-{role}",
                at=now,
                tenant=call.tenant,
                workspace=call.workspace,
                call=call.id,
                role=role,
                data=data,
                user=call.user,
                expires_at=now + retention_days * DAY_S,
            )
            for role, data in self._exchanged()
        )

    def _exchanged(self) -> Iterator[tuple[Literal["request", "reply"], bytes]]:
        """Not the vectors, which can be computed again, nor sound and pictures."""
        if not (isinstance(self.asked, Raw) and self.asked.fields is None):
            yield "request", self.asked.raw
        if not isinstance(self.asked, EmbeddingInput):
            yield "reply", b"".join(self.kept)

    @property
    def overhead_ms(self) -> float:
        """What of the latency no provider took, until the outcome was made."""
        assert self.outcome is not None, "known at the end"
        waited = max((attempt.started_ms + attempt.took_ms for attempt in self.trail), default=0.0)
        return max(0.0, self.outcome.latency_ms - waited)

    def most_prompt_tokens(self) -> int:
        """What may go in at most: a token for each byte of text, or what tools, pictures and files come to as well."""
        asked = self.asked
        texts = asked.tokens or sum(len(text.encode()) for text in asked.said)
        if isinstance(asked, EmbeddingInput | Raw):
            return texts
        from windlass.gateway.money.overhead import reserve_prompt_tokens

        try:
            body = msgspec.json.decode(asked.raw)
        except msgspec.ValidationError as exc:  # a field that goes up unread may hold a number that no float does
            raise RequestError(f"the body holds a number that is out of range: {exc}", code="invalid_json") from exc
        said = [body.get(name) for name in ("messages", "input", "system", "instructions", "response_format", "text")]
        return max(texts, reserve_prompt_tokens(said, body.get("tools"), model=self.model.upstream or self.model.name))

    def settle(self, outcome: Outcome) -> tuple[Spend, ...]:
        """Give back what was held of limits; what must be committed of what was used."""
        if self.hold is None:
            return ()
        return self.hold.settle(outcome.cost_nusd, outcome.prompt_tokens + outcome.completion_tokens, outcome.id)

    def let_go(self) -> None:
        """Give back what was held: nothing was done."""
        if self.hold is not None:
            self.hold.settle(0, 0)

    @staticmethod
    def _cost_nusd(prices: PriceBook, target: Target, usage: Usage) -> int:
        if target.provider.local:
            return 0
        return cost_nusd(prices.of(target.provider.name, target.model), usage)

    def _wasted_nusd(self, prices: PriceBook) -> int:
        """What attempts have cost that did not become the answer, as far as their providers say."""
        if all(attempt.bill != "reported" for attempt in self.trail):
            return 0
        offered = {target.key: target for target in self.targets}
        return sum(
            self._cost_nusd(prices, offered[(attempt.provider, attempt.model)], attempt.usage)
            for attempt in self.trail
            if attempt.bill == "reported"
        )

    def _extra(self) -> dict[str, Any]:
        """The key that asked, and the attempts, where there was more than the one that answered."""
        found: dict[str, Any] = {"key": self.key} if self.key else {}
        if len(self.trail) > 1 or (self.trail and self.trail[0].category):
            found["attempts"] = [msgspec.to_builtins(attempt) for attempt in self.trail]
        return found


@dataclass(frozen=True)
class Answer:
    """What goes out: status, headers, and the bytes, which must be read to the end or closed.

    walked: the call that was made for it, None where the store answered.
    """

    status: int
    content_type: str
    headers: dict[str, str]
    chunks: Stream | Once
    walked: Transit | None = None

    @property
    def transit(self) -> Transit:
        """The call that was made for it."""
        assert self.walked is not None, "the store answered; look at `walked` where a request carries a key"
        return self.walked
