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
from windlass.gateway.provider import JSON, MODEL_CHARS
from windlass.gateway.relay import Once, Stream, error_event
from windlass.gateway.resilience.attempt import Attempt, Continued, Target, says
from windlass.gateway.wire import Chat, EmbeddingInput, ReplyTally
from windlass.ledger.ledger import Body, Spend
from windlass.records import Call, Decision, Outcome, Scope

if TYPE_CHECKING:
    from windlass.gateway.foreign import Foreign
    from windlass.gateway.route.features import Seen
    from windlass.gateway.route.objectives import Wish
    from windlass.gateway.ticket import Ticket

DAY_S = 86_400.0
STOPPED = ("stop",)
"""Why an answer of which the ledger says nothing else has ended."""
REASON_CHARS = 40
_BILLED = frozenset(("reported", "estimated"))
PLAIN_TOKENS, MESSAGE_TOKENS = 20, 4
"""Around a chat, and around each of its messages: no less than overhead.py comes to."""
_BESIDE = frozenset({"tools", "input", "system", "instructions", "response_format", "text"})
"""Fields beside the messages that go in as well."""
Asked: TypeAlias = "Chat | EmbeddingInput | Raw | Foreign"
"""A request, read as far as routing and accounting need."""


class Request(msgspec.Struct, frozen=True):
    """One request as it came in, for one `endpoint`. `parent` is the typed id it is made for.

    `method`, `path` (below the base URL) and `query` matter to endpoints whose requests go up as they came.
    `scope` and `caller` are set by our own rooms, for whom the caller has been admitted already; without a `caller` it
    is Windlass itself that asks. Clients are admitted by `key`. What was answered under an `idempotency_key` before is
    answered from the store. wish: what it asks to be routed for.
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
    wish: Wish | None = None


@dataclass
class Transit:
    """What the ledger will want to know of a call at the end, where `outcome` is set.

    targets: who may answer, the chosen one first; target: who did, or was asked last. started: UTC seconds.
    trail: every attempt so far. hold: what the call holds of limits until it is settled; more: beside that, for a
    continuation. ticket: where its reply is stored for whoever asks the same again. key: the name of the one that
    asked, '' without. continued: how its stream went on after it broke off. told: breakers have heard of that break.
    seen: what a router told the policies, with the prompt's vector, where there is a router. begun: its call and
    decisions are in the ledger, since its first byte.
    """

    call: Call
    asked: Asked
    decisions: tuple[Decision, ...]
    targets: tuple[Target, ...]
    target: Target
    started: float
    tally: ReplyTally
    hold: Hold | None = None
    more: Hold | None = None
    trail: list[Attempt] = field(default_factory=list)
    kept: list[bytes] = field(default_factory=list)
    first_byte_at: float = 0.0
    outcome: Outcome | None = None
    ticket: Ticket | None = None
    key: str = ""
    continued: Continued | None = None
    told: bool = False
    seen: Seen | None = None
    begun: bool = False

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
        """Which policy chose, with what probability where that is known by now, and the numbers behind it; '' where
        nothing was to be chosen."""
        if not self.decisions:
            return ""
        decision = self.decisions[0]
        numbers = f"; {decision.extra['why']}" if "why" in decision.extra else ""
        instead = f"; instead of {decision.action}" if decision.action != self.model.name else ""
        fell = f"; {_fell_back(decision.fallback)}" if decision.fallback else ""
        known = type(decision.propensity) is float  # else the ledger's writer works it out
        chance = f" p={decision.propensity:.3f}" if known else ""
        return f"{decision.policy}{chance}{numbers}{fell}{instead}"

    def end(self, now: float, status: int, error: str, prices: PriceBook) -> Outcome:
        """What came of the call, which is over. status: that the client gets; error: an ErrorCategory value or ''."""
        call = self.call
        prompt, completion, estimated, cost = self._used_up(status, prices)
        self.outcome = Outcome(
            # The call's own number: a call has one outcome, on its own day even where the clock is set meanwhile.
            id=f"outcome_{call.id.partition('_')[2]}",
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
            cost_nusd=cost,
            tokens_estimated=estimated,
            error=error,
            extra=self._extra(),
        )
        return self.outcome

    def _used_up(self, status: int, prices: PriceBook) -> tuple[int, int, bool, int]:
        """Tokens in and out, whether any are an estimate, and what the call cost with all its attempts."""
        part, local = self.continued, self.target.provider.local
        tally = self.tally if part is None else part.tally
        usage = tally.usage
        prompt, completion = usage.prompt_tokens, usage.completion_tokens
        # Usage that a provider reports counts, whatever else went wrong; guesses only bill what was answered.
        answered = self.first_byte_at > 0 and (status < 300 or status == 499)
        estimated = answered and (prompt is None or completion is None or local)
        if prompt is None:
            prompt = self._estimated_prompt() if answered else 0
        if completion is None:
            completion = estimate_tokens(tally.text) if answered else 0
        used = _billed(usage, prompt, completion)
        cost = self._cost_nusd(prices, self._writer(), used) + self._wasted_nusd(prices)
        if part is not None:
            prompt, completion, estimated = part.joined(prompt, completion, estimated)
        return prompt, completion, estimated, cost

    def _estimated_prompt(self) -> int:
        """About how many tokens went in to whoever answered."""
        more = self.continued.prompt_tokens if self.continued is not None else 0
        return (self.asked.tokens or sum(map(estimate_tokens, self.asked.said))) + more

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
        if isinstance(asked, Chat) and (said := _plain(asked)):
            return texts + PLAIN_TOKENS + said * MESSAGE_TOKENS
        from windlass.gateway.money.overhead import reserve_prompt_tokens

        try:
            body = msgspec.json.decode(asked.raw)
        except msgspec.ValidationError as exc:  # a field that goes up unread may hold a number that no float does
            raise RequestError(f"the body holds a number that is out of range: {exc}", code="invalid_json") from exc
        parts = [body.get(name) for name in ("messages", "input", "system", "instructions", "response_format", "text")]
        return max(texts, reserve_prompt_tokens(parts, body.get("tools"), model=self.model.upstream or self.model.name))

    def _ended_unsaid(self, tally: ReplyTally) -> bool:
        """Whether a whole answer does not say why it ended."""
        return not isinstance(self.asked, EmbeddingInput | Raw) and tally.complete

    def settle(self, outcome: Outcome) -> tuple[Spend, ...]:
        """Give back what was held of limits; what must be committed of what was used."""
        if self.more is not None:
            self.more.settle(0, 0)  # the sum of both parts is counted once
        if self.hold is None:
            return ()
        return self.hold.settle(outcome.cost_nusd, outcome.prompt_tokens + outcome.completion_tokens, outcome.id)

    def let_go(self) -> None:
        """Give back what was held: nothing was done."""
        if self.hold is not None:
            self.hold.settle(0, 0)

    def _writer(self) -> Target:
        """Whose price holds: the target's, or that of the model which its provider chose and counted for."""
        name = self.tally.model
        if not (name and isinstance(self.asked, Raw) and self.asked.unnamed and says(self.tally.usage)):
            return self.target
        provider = self.target.provider
        listed = (model for model in provider.models if name in (model.upstream, model.name))
        return Target(provider, next(listed, None) or ModelOptions(name=name[:MODEL_CHARS]))

    @staticmethod
    def _cost_nusd(prices: PriceBook, target: Target, usage: Usage) -> int:
        if target.provider.local:
            return 0
        return cost_nusd(prices.of(target.provider.name, target.model), usage)

    def _wasted_nusd(self, prices: PriceBook) -> int:
        """What attempts have cost that did not become the answer, as far as their providers say, or all of it."""
        if all(attempt.bill not in _BILLED for attempt in self.trail):
            return 0
        offered = {target.key: target for target in self.targets}
        return sum(
            self._cost_nusd(prices, offered[(attempt.provider, attempt.model)], attempt.usage)
            for attempt in self.trail
            if attempt.bill in _BILLED
        )

    def _extra(self) -> dict[str, Any]:
        """The key that asked; why the answer ended, where that is not `stop`, and the attempts, where there was more
        than the one that answered."""
        found: dict[str, Any] = {"key": self.key} if self.key else {}
        if (reasons := self._reasons()) is not None:
            found["finish_reasons"] = reasons
        if len(self.trail) > 1 or (self.trail and self.trail[0].category):
            found["attempts"] = [msgspec.to_builtins(attempt) for attempt in self.trail]
        if self.continued is not None:
            found["continued"] = self.continued.told(self.target)
        return found

    def _reasons(self) -> list[str] | None:
        """Why the answer ended; None where that is `stop`, or not to be known."""
        tally = self.tally if self.continued is None else self.continued.tally
        if tally.finish == STOPPED or not (tally.finish or self._ended_unsaid(tally)):
            return None
        return [said[:REASON_CHARS] if said.isprintable() else "" for said in tally.finish]


def _fell_back(fallback: str) -> str:
    """Why a policy did not do what it was made for. Of what it raised the kind alone: its words are the operator's.

    >>> _fell_back("KeyError: 'price'"), _fell_back("echo not eligible")
    ('the policy failed (KeyError), the default acted', 'fell back: echo not eligible')
    """
    kind, colon, _ = fallback.partition(": ")
    if colon and kind.isidentifier() and not kind.islower():
        return f"the policy failed ({kind}), the default acted"
    return f"fell back: {fallback}"


class _Said(msgspec.Struct, forbid_unknown_fields=True):
    """A message that is text and nothing else."""

    role: str
    content: str


def _plain(chat: Chat) -> int:
    """How many messages a chat has where they are text alone, and nothing beside them goes in; else 0."""
    if not _BESIDE.isdisjoint(chat.fields):
        return 0
    try:
        return len(_SAID.decode(chat.fields["messages"]))
    except msgspec.ValidationError:
        return 0


def _billed(usage: Usage, prompt: int, completion: int) -> Usage:
    """Usage with what was told or estimated; sound of which no tokens were told is billed by its seconds."""
    heard = usage.prompt_tokens is None and usage.audio_s > 0
    return msgspec.structs.replace(usage, prompt_tokens=None if heard else prompt, completion_tokens=completion)


_SAID = msgspec.json.Decoder(list[_Said])


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
