"""What a call would cost with each model that may answer: by the price list, and by what calls before it told.

How long answers are and what providers' caches hold of a conversation are learned from outcomes. Conversations stick to
a model by its price alone: whoever answered the beginning of a prompt lately reads that part from its cache. A prompt's
beginnings are known by digests over its messages, so that no session needs a name.
"""

from __future__ import annotations

import hashlib
import math
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from typing import Final, NamedTuple, TypeAlias

from windlass.gateway.money.estimate import estimate_tokens
from windlass.gateway.money.pricelist import PriceBook
from windlass.gateway.money.prices import MILLION, Price, cost_nusd
from windlass.gateway.money.usage import Usage
from windlass.gateway.resilience.attempt import Target
from windlass.gateway.route.latest import Latest
from windlass.gateway.wire import Message
from windlass.records import Scope

EXPECTED_TOKENS = 256.0
"""Of an answer, where no answer of the workspace has been seen yet."""
NEWEST = 256
"""So many answers of a workspace the expectation goes by."""
MEMORY = 256.0
"""A mean follows the last so many values."""
DOUBT = 4.0
"""So many answers' weight a guess has against what is seen."""
CACHED_FROM_TOKENS = 1_024
"""No provider reads a shorter beginning of a prompt from its cache."""
BEGINNINGS = 32
"""So many of a prompt are known, the longest ones: the next turn of a conversation adds a few messages."""
MOST_MESSAGES = 2_000
"""Of a longer chat no beginning is known, as finding them would hold other calls up."""
MOST_KNOWN = 20_000
MOST_SCOPES = 1_000
DIGEST_BYTES = 16
Model: TypeAlias = tuple[str, str]


class Prompt(NamedTuple):
    """A prompt as prices see it: about how many tokens go in, and (digest, tokens) of those of its beginnings that a
    provider may hold, message by message, the whole one last; of many the longest `BEGINNINGS`.

    most_tokens: as many may come out, of each of `choices`; None where that is open.
    """

    tokens: int
    beginnings: tuple[tuple[bytes, int], ...]
    most_tokens: int | None
    choices: int


class _Mean(NamedTuple):
    weight: float
    mean: float

    def with_value(self, value: float) -> _Mean:
        """Older values fade, so that `MEMORY` of them count."""
        weight = min(self.weight + 1.0, MEMORY)
        return _Mean(weight, self.mean + (value - self.mean) / weight)


def prompt_of(messages: Sequence[Message], most_tokens: int | None, choices: int) -> Prompt:
    """What prices see of a chat."""
    texts = [message.text for message in messages]
    tokens = estimate_tokens("\n".join(texts))
    cached = tokens >= CACHED_FROM_TOKENS and len(messages) <= MOST_MESSAGES
    held = _beginnings(messages, texts, tokens) if cached else ()
    return Prompt(tokens, tuple(held), most_tokens, choices)


def _beginnings(messages: Sequence[Message], texts: Sequence[str], tokens: int) -> Iterator[tuple[bytes, int]]:
    """The beginnings of a prompt that are long enough, each with its share of the tokens by its characters."""
    digest, chars, every = hashlib.blake2b(digest_size=DIGEST_BYTES), 0, sum(map(len, texts))
    for left, message, text in zip(range(len(texts), 0, -1), messages, texts, strict=True):
        digest.update(f"{len(message.role)} {message.role} {len(text)} ".encode("utf-8", "surrogatepass"))
        digest.update(text.encode("utf-8", "surrogatepass"))
        chars += len(text)
        share = tokens * chars // (every or 1)
        if left <= BEGINNINGS and share >= CACHED_FROM_TOKENS:
            yield digest.digest(), share


class _Lengths:
    """How long the newest answers of a workspace were, in whole tokens: the same ones give the same means."""

    def __init__(self) -> None:
        self._newest: deque[tuple[Model, int]] = deque()
        self._sums: dict[Model, tuple[int, int]] = {}
        self._tokens = 0

    def add(self, model: Model, tokens: int) -> None:
        """The newest answer; the oldest goes where there are `NEWEST`."""
        self._count(model, 1, tokens)
        self._newest.append((model, tokens))
        if len(self._newest) > NEWEST:
            oldest, length = self._newest.popleft()
            self._count(oldest, -1, -length)

    def expected(self, model: Model) -> float:
        """Of the next answer; a model of which little was seen is taken to write as the others do."""
        overall = (self._tokens + EXPECTED_TOKENS) / (len(self._newest) + 1)
        own_calls, own_tokens = self._sums.get(model, (0, 0))
        return (own_tokens + DOUBT * overall) / (own_calls + DOUBT)

    def _count(self, model: Model, calls: int, tokens: int) -> None:
        self._tokens += tokens
        before = self._sums.get(model, (0, 0))
        now = self._sums[model] = before[0] + calls, before[1] + tokens
        if now == (0, 0):
            del self._sums[model]


class CallCosts:
    """Expectations of costs, learned while calls end. prefix_s: so long a provider's cache is taken to hold a prompt.

    Of a workspace nothing is told to another one.
    """

    def __init__(self, prefix_s: float):
        self._prefix_s = prefix_s
        self._lengths: Latest[Scope, _Lengths] = Latest(MOST_SCOPES)
        self._shares: Latest[tuple[Scope, Model], _Mean] = Latest(MOST_KNOWN)
        self._answered: Latest[tuple[Scope, Model, bytes], float] = Latest(MOST_KNOWN)

    def expected_nusd(
        self, scope: Scope, targets: Iterable[Target], prices: PriceBook, prompt: Prompt, now: float
    ) -> dict[str, float]:
        """What a call is expected to cost with each model whose price is known, by name. now: UTC seconds."""
        lengths, found = self._lengths.get(scope, _UNKNOWN), {}
        for provider, model in targets:
            if provider.local:
                found[model.name] = 0.0
                continue
            price, key = prices.of(provider.name, model), (provider.name, model.name)
            if not price.priced:
                continue
            completion = _bounded(lengths.expected(key), prompt)
            held = self._prefix_tokens(scope, key, prompt, now) if prompt.beginnings else 0
            if held or price.tiers:
                found[model.name] = self._exactly(price, prompt, completion, held * self._share(scope, key))
            else:
                rates = price.rates
                found[model.name] = (prompt.tokens * rates.input + completion * rates.output + price.request) / MILLION
        return found

    def completion_tokens(self, scope: Scope, model: Model, prompt: Prompt) -> float:
        """How many tokens are expected to come out, no more than the request allows."""
        return _bounded(self._lengths.get(scope, _UNKNOWN).expected(model), prompt)

    def ended(self, scope: Scope, model: Model, prompt: Prompt, usage: Usage, completion: int, now: float) -> None:
        """A model has answered. usage: as its provider counted; completion: tokens that came out, all choices."""
        held = self._prefix_tokens(scope, model, prompt, now)
        if held and usage.prompt_tokens:
            share = min(1.0, usage.cache_read_tokens / held)
            before = self._shares.get((scope, model), _Mean(DOUBT, 1.0))
            self._shares.put((scope, model), before.with_value(share))
        for digest, _ in prompt.beginnings:
            self._answered.put((scope, model, digest), now)
        self.answered(scope, model, completion)

    def knows(self, scope: Scope) -> bool:
        """Whether it has heard of a workspace's answers."""
        return scope in self._lengths

    def recall(self, scope: Scope, answers: Iterable[tuple[Model, int]]) -> None:
        """The lengths of a workspace's newest answers before this process, the oldest first; what came since counts
        as newer."""
        lengths = _Lengths()
        for model, tokens in answers:
            lengths.add(model, tokens)
        self._lengths.put(scope, lengths)

    def answered(self, scope: Scope, model: Model, tokens: int) -> None:
        """An answer of a model was so long."""
        lengths = self._lengths.get(scope, _UNKNOWN)
        if lengths is _UNKNOWN:
            lengths = _Lengths()
        lengths.add(model, tokens)
        self._lengths.put(scope, lengths)

    def forget(self, scope: Scope) -> None:
        """Let go of what tells of a workspace's prompts: somebody of it is forgotten."""
        for key in [key for key in self._answered.all() if key[0] == scope]:
            self._answered.drop(key)

    @staticmethod
    def _exactly(price: Price, prompt: Prompt, completion: float, cached: float) -> float:
        """With tiers, and a cheaper share of the prompt."""
        tokens = Usage(
            prompt_tokens=prompt.tokens, completion_tokens=round(completion), cache_read_tokens=round(cached)
        )
        return float(cost_nusd(price, tokens))

    def _prefix_tokens(self, scope: Scope, model: Model, prompt: Prompt, now: float) -> int:
        """How many tokens at the beginning of a prompt the model has read lately."""
        for digest, tokens in reversed(prompt.beginnings):
            at = self._answered.get((scope, model, digest), -math.inf)
            if now - at <= self._prefix_s:
                return tokens
        return 0

    def _share(self, scope: Scope, model: Model) -> float:
        """How much of what could be in its cache a model's provider reads from there; all of it until it tells."""
        return self._shares.get((scope, model), _Mean(DOUBT, 1.0)).mean


def _bounded(tokens: float, prompt: Prompt) -> float:
    """The length of all answers to a prompt, each no longer than it allows."""
    most = prompt.most_tokens
    return (tokens if most is None else min(tokens, most)) * prompt.choices


_UNKNOWN: Final = _Lengths()
"""Of a workspace of which nothing was seen; nothing is ever added to it."""
