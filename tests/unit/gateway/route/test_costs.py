"""What a call is expected to cost: by the price list, by the answers before it, and by what providers hold of it."""

from __future__ import annotations

import math

from windlass.gateway.money.estimate import estimate_tokens
from windlass.gateway.money.pricelist import PriceBook
from windlass.gateway.money.usage import Usage
from windlass.gateway.options import ModelOptions
from windlass.gateway.providers.echo import Echo
from windlass.gateway.resilience.attempt import Target
from windlass.gateway.route import costs
from windlass.gateway.route.costs import CallCosts, Prompt, prompt_of
from windlass.gateway.wire import Message
from windlass.records import Scope

ACME, OTHER = Scope("acme", "one"), Scope("other", "one")
NOW = 1_800_000_000.0
PRICED = ModelOptions(
    name="m", prompt_usd_per_million=1.0, completion_usd_per_million=2.0, cache_read_usd_per_million=0.1
)
LONG = "word " * 3_000


class _Own(Echo):
    local = True


def _target(model: ModelOptions = PRICED, name: str = "m") -> Target:
    return Target(Echo(name), model)


def _prompt(*said: str, most: int | None = None, choices: int = 1) -> Prompt:
    roles = ("user", "assistant") * len(said)
    return prompt_of([Message(role, text) for role, text in zip(roles, said, strict=False)], most, choices)


def _expected(known: CallCosts, prompt: Prompt, scope: Scope = ACME, now: float = NOW) -> float:
    return known.expected_nusd(scope, [_target()], PriceBook(), prompt, now)["m"]


def test_the_price_of_a_first_call_is_that_of_its_prompt_and_of_a_usual_answer() -> None:
    prompt = _prompt("Why does it turn?")
    assert _expected(CallCosts(300.0), prompt) == estimate_tokens("Why does it turn?") * 1_000 + 256 * 2_000


def test_an_answer_is_no_longer_than_the_request_allows_and_there_are_as_many_as_it_asks_for() -> None:
    known, prompt = CallCosts(300.0), _prompt("x")
    bounded = prompt._replace(most_tokens=10, choices=3)
    assert known.completion_tokens(ACME, ("echo", "m"), bounded) == 30
    assert known.completion_tokens(ACME, ("echo", "m"), prompt._replace(most_tokens=0)) == 0


def test_the_length_of_answers_is_learned_for_each_model_of_each_workspace() -> None:
    known, prompt = CallCosts(300.0), _prompt("x")
    for _ in range(400):
        known.ended(ACME, ("echo", "m"), prompt, Usage(), 1_000, NOW)
    assert math.isclose(known.completion_tokens(ACME, ("echo", "m"), prompt), 1_000, rel_tol=0.02)
    assert math.isclose(known.completion_tokens(ACME, ("echo", "new"), prompt), 1_000, rel_tol=0.02), "as the others do"
    assert known.completion_tokens(OTHER, ("echo", "m"), prompt) == 256, "another tenant's answers tell nothing"


def test_a_model_without_a_price_has_no_cost_and_one_of_this_process_costs_nothing() -> None:
    prompt = _prompt("x")
    plain = ModelOptions(name="m")
    own = Target(_Own("own"), ModelOptions(name="own"))
    assert CallCosts(300.0).expected_nusd(ACME, [_target(plain), own], PriceBook(), prompt, NOW) == {"own": 0.0}


def test_a_conversation_is_cheaper_with_the_model_that_answered_its_beginning() -> None:
    known = CallCosts(300.0)
    first, second = _prompt(LONG), _prompt(LONG, "An answer.", "And why?")
    fresh = _expected(known, second)
    known.ended(ACME, ("echo", "m"), first, Usage(), 0, NOW)
    held = second.beginnings[0][1]
    assert abs(held - first.tokens) < 10, "its share of the tokens, by characters"
    # 256 tokens were the guess of an answer, which is 0 now that one came.
    saved = held * 900 + (256 - round(known.completion_tokens(ACME, ("echo", "m"), second))) * 2_000
    assert math.isclose(fresh - _expected(known, second, now=NOW + 299), saved, rel_tol=1e-9)


def test_nothing_is_held_of_what_is_old_or_short_or_another_tenants_or_does_not_begin_alike() -> None:
    first, second = _prompt(LONG), _prompt(LONG, "An answer.", "And why?")
    known = CallCosts(300.0)
    known.ended(ACME, ("echo", "m"), first, Usage(), 256, NOW)
    plain = _expected(CallCosts(300.0), second)
    assert _expected(known, second) < plain
    assert _expected(known, second, now=NOW + 301) == plain
    assert _expected(known, second, OTHER) == plain
    assert _expected(known, _prompt(f"x{LONG}", "An answer.", "And why?")) > _expected(known, second)
    brief = CallCosts(300.0)
    brief.ended(ACME, ("echo", "m"), _prompt("Short."), Usage(), 256, NOW)
    again = _prompt("Short.", "An answer.", "And why?")
    assert _expected(brief, again) == _expected(CallCosts(300.0), again)


def test_a_provider_that_reads_nothing_from_its_cache_is_believed() -> None:
    first, second = _prompt(LONG), _prompt(LONG, "An answer.", "And why?")
    known = CallCosts(1e9)
    for turn in range(100):
        known.ended(ACME, ("echo", "m"), first, Usage(prompt_tokens=first.tokens), 256, NOW + turn)
    plain = _expected(CallCosts(300.0), second)
    assert math.isclose(_expected(known, second, now=NOW + 100), plain, rel_tol=0.05)


def test_what_is_remembered_is_bounded() -> None:
    known = CallCosts(300.0)
    for turn in range(costs.MOST_SCOPES + 100):
        known.answered(Scope("acme", str(turn)), ("echo", "m"), 1)
    assert len(known._lengths) == costs.MOST_SCOPES


def test_the_newest_answers_recalled_from_the_ledger_give_the_very_same_expectation() -> None:
    before, prompt = CallCosts(300.0), _prompt("x")
    answers = [(("echo", f"m{turn % 3}"), turn * 37 % 501) for turn in range(1_000)]
    for model, tokens in answers:
        before.answered(ACME, model, tokens)
    after = CallCosts(300.0)
    after.recall(ACME, answers[-costs.NEWEST :])
    for name in ("m0", "m1", "m2", "new"):
        expected = before.completion_tokens(ACME, ("echo", name), prompt)
        assert after.completion_tokens(ACME, ("echo", name), prompt) == expected


def test_messages_are_told_apart_whatever_stands_in_them() -> None:
    one = prompt_of([Message("user", LONG), Message("user", "b")], None, 1)
    other = prompt_of([Message("user", f"{LONG}4 user 1 b")], None, 1)
    assert one.beginnings[-1][0] != other.beginnings[-1][0]
    assert prompt_of([Message("user", "\ud800"), Message("user", None)], None, 1).tokens >= 0
    assert prompt_of([], None, 1).tokens == 0


def test_of_a_long_chat_the_newest_beginnings_are_known_and_of_one_without_end_none() -> None:
    def chat(messages: int) -> Prompt:
        said = [Message("user", LONG)] + [Message("user", str(number)) for number in range(messages - 1)]
        return prompt_of(said, None, 1)

    long, longer = chat(200), chat(202)
    assert len(long.beginnings) == costs.BEGINNINGS
    assert long.beginnings[-1][1] == long.tokens
    known = CallCosts(300.0)
    known.ended(ACME, ("echo", "m"), long, Usage(), 256, NOW)
    assert _expected(known, longer) < _expected(CallCosts(300.0), longer), "the next turn is recognised"
    assert len(chat(costs.MOST_MESSAGES).beginnings) == costs.BEGINNINGS
    assert chat(costs.MOST_MESSAGES + 1).beginnings == ()


def test_what_a_provider_reads_from_its_cache_is_learned_for_each_workspace_alone() -> None:
    known, other = CallCosts(1e9), CallCosts(1e9)
    first, second = _prompt(LONG), _prompt(LONG, "An answer.", "And why?")
    for turn in range(100):
        known.ended(OTHER, ("echo", "m"), first, Usage(prompt_tokens=first.tokens), 256, NOW + turn)
    for one in (known, other):
        one.ended(ACME, ("echo", "m"), first, Usage(), 256, NOW)
    assert _expected(known, second) == _expected(other, second)
