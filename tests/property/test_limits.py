"""Limits against a model that adds up lists: who is let in, what is held, what is used, at every step."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from windlass.errors import LimitReached
from windlass.gateway.access.limits import Claim, Hold, Limits, window
from windlass.gateway.options import LimitOptions
from windlass.ledger.ledger import Spend

START = 1_800_000_000.0
LIMITS = st.lists(
    st.builds(
        LimitOptions,
        name=st.just("x"),
        per=st.sampled_from(["all", "tenant", "user"]),
        tenant=st.sampled_from(["", "a"]),
        window=st.sampled_from(["minute", "hour", "day", "month", "total"]),
        usd=st.one_of(st.none(), st.sampled_from([0.0, 2e-9, 1e-8, 3e-8])),
        requests=st.one_of(st.none(), st.integers(0, 6)),
        tokens=st.one_of(st.none(), st.integers(0, 20)),
        concurrent=st.integers(0, 3),
    ),
    min_size=1,
    max_size=3,
)
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("ask"), st.sampled_from("ab"), st.sampled_from(["", "u"]), st.integers(0, 9)),
        st.tuples(st.just("end"), st.integers(0, 5), st.integers(0, 9), st.just(0)),
        st.tuples(st.just("wait"), st.sampled_from([-70, 1, 30, 61, 3_700, 90_000]), st.just(0), st.just(0)),
    ),
    max_size=40,
)


@dataclass
class Asked:
    """One call of the model: what it holds, or used."""

    claim: Claim
    at: float
    hold: Hold
    nusd: int
    tokens: int
    over: bool = False


@dataclass
class Model:
    limits: list[LimitOptions]
    calls: list[Asked] = field(default_factory=list)

    def sums(self, limit: LimitOptions, claim: Claim, now: float) -> dict[str, int]:
        """What is used or held, by measure."""
        who = {"all": lambda c: "", "tenant": lambda c: c.tenant, "user": lambda c: (c.tenant, c.user)}[limit.per]
        same = [
            call
            for call in self.calls
            if limit.tenant in ("", call.claim.tenant) and who(call.claim) == who(claim)  # type: ignore[no-untyped-call]
        ]
        here = [call for call in same if window(limit.window, call.at) == window(limit.window, now)]
        return {
            "usd": sum(call.nusd for call in here),
            "requests": len(here),
            "tokens": sum(call.tokens for call in here),
            "concurrent": sum(not call.over for call in same),
        }

    def lets_in(self, claim: Claim, now: float) -> bool:
        for limit in self.limits:
            if limit.tenant not in ("", claim.tenant):
                continue
            sums = self.sums(limit, claim, now)
            wanted = {"usd": claim.nusd, "requests": 1, "tokens": claim.tokens, "concurrent": 1}
            for measure, amount in wanted.items():
                most = getattr(limit, measure)
                if most is not None and sums[measure] + amount > (round(most * 10**9) if measure == "usd" else most):
                    return False
        return True


@given(LIMITS, STEPS)
def test_any_history_agrees_with_adding_up(
    limits: list[LimitOptions], steps: list[tuple[str, object, object, int]]
) -> None:
    named = [LimitOptions(**{**_fields(limit), "name": f"limit {n}"}) for n, limit in enumerate(limits)]
    real, model, now, committed = Limits(named), Model(named), START, list[Spend]()
    for kind, one, two, amount in steps:
        if kind == "wait":
            now += float(one)  # type: ignore[arg-type]
        elif kind == "ask":
            claim = Claim(str(one), "", "", str(two), "m", amount, amount)
            if model.lets_in(claim, now):
                hold = asyncio.run(real.reserve(claim, now))
                model.calls.append(Asked(claim, now, hold, amount, amount))
            else:
                with pytest.raises(LimitReached):
                    asyncio.run(real.reserve(claim, now))
        elif model.calls:
            call = model.calls[int(one) % len(model.calls)]  # type: ignore[call-overload]
            used = min(int(two), call.claim.nusd)  # type: ignore[call-overload]
            said = call.hold.settle(used, used, "o")
            committed += said
            if not call.over:
                call.nusd = call.tokens = used
            else:
                assert said == ()
            call.over = True
        _agree(real, committed)


def _fields(limit: LimitOptions) -> dict[str, object]:
    return {name: getattr(limit, name) for name in limit.__struct_fields__}


def _agree(real: Limits, committed: list[Spend]) -> None:
    for count in real.counts():
        assert count.held >= 0
        assert count.used + count.held <= count.most
        if count.place.measure == "nusd":
            name, group, _, since = count.place
            rows = [one.nusd for one in committed if (one.limit, one.group, one.since) == (name, group, since)]
            assert count.used == sum(rows)
