"""The router: what it takes to know of a call before a policy chooses its model, gathered without holding others up.

A process has one where a policy at the point `model` reads prompts or prices, be it in shadow; see `wanted`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

import structlog

from windlass.errors import LedgerError, RequestError
from windlass.gateway.money.usage import Usage
from windlass.gateway.options import LimitOptions
from windlass.gateway.prompt import FEATURISER, features, question
from windlass.gateway.resilience.attempt import Target
from windlass.gateway.route.allowance import Allowances
from windlass.gateway.route.bases import Bases
from windlass.gateway.route.costs import NEWEST, CallCosts, Model, Prompt, prompt_of
from windlass.gateway.route.features import ALLOWANCE, COST, EMBEDDING, Question, Seen
from windlass.gateway.route.objectives import ERRORS_HEADER, LATENCY_HEADER, aims, limits
from windlass.gateway.route.options import RoutingOptions
from windlass.gateway.route.store import BasisTable
from windlass.gateway.route.vectors import PromptVectors, Vector
from windlass.ledger.ledger import CallTrace, Ledger
from windlass.memory.embedder import Embedder
from windlass.policies.lifts import USER
from windlass.policies.loop import Loop
from windlass.policies.personal_state import number_of
from windlass.policies.points import SHADOW
from windlass.records import USER_CHARS, ContextValue, Outcome, Scope, user_digest

log = structlog.get_logger(__name__)
POINT = "model"
START_S = 3.0
"""So long a start waits for the embedder: it loads in half a second, and is made in some on a machine's first time."""
LOOK_S = 30.0
"""So long one who only looks waits for a vector."""


class _Embedding(NamedTuple):
    """A prompt's vector and its numbers; without, why there are none, and whether that is a failure."""

    vector: Vector | None = None
    numbers: tuple[float, ...] = ()
    featuriser: str = FEATURISER
    missing: str = ""
    failed: bool = False


def costed(loop: Loop) -> bool:
    """Whether a policy at the point `model`, be it in shadow, learns what calls cost apart from how good they are."""
    return _at_model(loop.costed)


def watched(loop: Loop) -> bool:
    """Whether a guard at the point `model`, be it in shadow, keeps limits of time or of errors."""
    return _at_model(loop.watched)


def _at_model(places: Iterable[str]) -> bool:
    return any(place.partition(SHADOW)[0] == POINT for place in places)


def wanted(options: RoutingOptions, loop: Loop) -> bool:
    """Whether any policy at the point `model` is to see more than lexical features."""
    return options.embedding == "always" or costed(loop) or watched(loop)


class Router:
    """Gathers what policies are told, and learns from what comes of calls. Used on one event loop.

    embedder: None where there is none. ledger: what came of calls before this process. limits: those of the settings.
    clock: UTC seconds.
    """

    def __init__(
        self,
        options: RoutingOptions,
        loop: Loop,
        *,
        embedder: Embedder | None,
        table: BasisTable,
        ledger: Ledger,
        limits: Callable[[], Sequence[LimitOptions]],
        clock: Callable[[], float],
    ):
        self.options = options
        self._costed, self._watched = costed(loop), watched(loop)
        # Who only keeps limits sees its features as before.
        self._embeds = self._costed or options.embedding == "always"
        self.vectors = PromptVectors(embedder if self._embeds and options.embedding != "off" else None)
        self.bases = Bases(table, embedder.name if embedder else "", options.basis_prompts, clock)
        self.costs = CallCosts(options.prefix_minutes * 60.0)
        self._pace = Allowances(limits)
        self._ledger = ledger
        self._recalling = asyncio.Lock()
        self._loop = loop
        self._beside: set[asyncio.Task[None]] = set()

    def renew(self, options: RoutingOptions) -> None:
        """Other objectives and another time limit from now on."""
        self.options = options

    async def start(self) -> None:
        """Load the embedder, so that no call waits for it; one that must be made first goes on beside the calls."""
        if self.vectors.embedder is not None:
            loading = asyncio.create_task(self._load(self.vectors.embedder))
            self._beside.add(loading)
            loading.add_done_callback(self._beside.discard)
            await asyncio.wait((loading,), timeout=START_S)

    async def _load(self, embedder: Embedder) -> None:
        try:
            await embedder.aembed(["Which model answers?"])
        except Exception as exc:  # noqa: BLE001 (what computes vectors raises types of its own, and may fail no start)
            log.error("routing_without_embedder", reason=f"{type(exc).__name__}: {exc}")

    async def seen(self, asked: Question) -> Seen:
        """What policies are told of a call. AccessError where its key may not ask for what it is to be routed for,
        RequestError where it asks to keep limits that nobody watches."""
        told = self._told(asked)
        made = await self._embedding(asked)
        prompt = prompt_of(asked.asked.messages, asked.asked.most_tokens, asked.asked.choices)
        context = features(asked.asked)
        if made.numbers:
            context[EMBEDDING] = made.numbers
        if self._costed:
            await self._recall(asked.caller.scope)
            context |= self._money(asked, prompt)
        learned = asked if self._costed else None
        return Seen(context | told, made.featuriser, prompt, made.vector, made.missing, made.failed, learned)

    def _told(self, asked: Question) -> dict[str, ContextValue]:
        """What a call is routed for, for whom, and what its model must keep."""
        options, wish, about = self.options, asked.wish, (asked.caller, asked.endpoint)
        told: dict[str, ContextValue] = dict(aims(options.objectives, wish, *about))
        if options.personalise and (user := asked.asked.user[:USER_CHARS]):
            told[USER] = float(number_of(user_digest(asked.caller.scope, user)))
        if self._watched:
            told |= limits(options, wish, *about)
        elif wish is not None and wish.limits_calls:
            has = f"{LATENCY_HEADER} and {ERRORS_HEADER}: nobody watches how calls go; leave them out"
            remedy = 'or set a limit in [routing], or the guard "service" at the point model'
            raise RequestError(f"{has}, {remedy}", param=LATENCY_HEADER)
        return told

    def ended(self, seen: Seen, outcome: Outcome, target: Target, usage: Usage) -> None:
        """Learn from what came of a call: how long the answer was, and what the provider had in its cache. Its budgets
        expect more like it.

        target: who answered; usage: as its provider counted.
        """
        if seen.asked is not None:
            self._pace.ended(seen.asked, outcome.at)
        if _good(outcome):
            tokens = outcome.completion_tokens
            self.costs.ended(outcome.scope, target.key, seen.prompt, usage, tokens, outcome.at)

    def forget(self, scope: Scope) -> None:
        """Somebody of a workspace is forgotten: let go of what is held of its prompts."""
        self.vectors.forget(scope)
        self.bases.forget(scope)
        self.costs.forget(scope)

    async def close(self) -> None:
        """Wait for what is under way."""
        await asyncio.gather(*self._beside, return_exceptions=True)
        await self.vectors.close()
        await self.bases.settled()

    async def _recall(self, scope: Scope) -> None:
        """Read how long the newest answers of a workspace were before this process; once for each."""
        if self.costs.knows(scope):
            return
        async with self._recalling:
            if not self.costs.knows(scope):
                try:
                    traces = await asyncio.to_thread(self._ledger.calls, scope, limit=NEWEST)
                except LedgerError as exc:
                    log.error("routing_forgets_lengths", tenant=scope.tenant, reason=str(exc))
                    traces = ()
                self.costs.recall(scope, _answers(traces))

    def _money(self, asked: Question, prompt: Prompt) -> dict[str, ContextValue]:
        """What the call would cost with each model whose price is known, and what it may cost."""
        scope, now = asked.caller.scope, asked.now
        costs = self.costs.expected_nusd(scope, asked.targets, asked.prices, prompt, now)
        found: dict[str, ContextValue] = {f"{COST}{model}": cost for model, cost in costs.items()}
        allowed = self._pace.allowance_nusd(asked.limits, asked.caller, asked.asked.user, now)
        return found if allowed is None else found | {ALLOWANCE: allowed}

    async def _embedding(self, asked: Question) -> _Embedding:
        """The numbers of the prompt, in the time that there is. A workspace without a basis waits for nothing."""
        scope, text = asked.caller.scope, question(asked.asked.messages)
        generation = self.vectors.generations.of(scope)
        if self._loop.mode(POINT, scope) == "off" or not self._embeds:
            return _Embedding()  # no policy is asked, or none that would read it
        if self.vectors.embedder is None:
            return _Embedding(missing="no embedder")
        if not text.strip():
            return _Embedding(missing="the prompt has no text")
        try:
            basis = await self.bases.of(scope)
        except (LedgerError, ValueError) as exc:
            return _Embedding(missing=f"the basis cannot be read: {exc}", failed=True)
        if basis is None:
            if not asked.looks:
                self._collect(scope, text, generation)
            seen = f"{self.bases.seen(scope)} of {self.bases.wanted}"
            return _Embedding(missing=f"{seen} prompts seen that embeddings need")
        if len(asked.targets) < 2 and not asked.looks:
            found = self.vectors.known(scope, text)  # nothing to choose is nothing to wait for
        else:
            timeout_s = LOOK_S if asked.looks else self.options.embedding_timeout_ms / 1000.0
            found = await self.vectors.find(scope, text, timeout_s, generation)
        if found.vector is None:
            return _Embedding(missing=found.missing, failed=len(asked.targets) > 1)
        return _Embedding(found.vector, basis.numbers(found.vector), basis.featuriser)

    def _collect(self, scope: Scope, text: str, generation: int) -> None:
        """Embed a prompt of a workspace that has no basis yet, beside the call."""
        task = asyncio.create_task(self._collected(scope, text, generation))
        self._beside.add(task)
        task.add_done_callback(self._beside.discard)

    async def _collected(self, scope: Scope, text: str, generation: int) -> None:
        found = await self.vectors.find(scope, text, LOOK_S, generation)
        try:
            wanted_still = found.vector is not None and await self.bases.of(scope) is None
        except (LedgerError, ValueError) as exc:
            log.error("routing_basis_waits", tenant=scope.tenant, reason=str(exc))
            return
        forgotten = generation != self.vectors.generations.of(scope)
        if wanted_still and found.vector is not None and not forgotten:
            self.bases.note(scope, found.digest, found.vector)


def _good(outcome: Outcome) -> bool:
    return not outcome.error and 200 <= outcome.status < 300


def _answers(traces: Sequence[CallTrace]) -> Iterator[tuple[Model, int]]:
    """Who answered with how many tokens, the oldest first, of calls whose model was to be decided."""
    for trace in reversed(traces):
        outcome = trace.outcome
        if outcome is not None and _good(outcome) and any(one.point == POINT for one in trace.decisions):
            yield (outcome.provider, outcome.model), outcome.completion_tokens
