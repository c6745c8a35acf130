"""How calls went reaches the guards that watch: once, with corrections, after a restart and a roll-back."""

from __future__ import annotations

import msgspec
import pytest

from windlass.ledger.ledger import Entry
from windlass.policies import registry
from windlass.policies.loop import Loop
from windlass.policies.points import GuardOptions, PointOptions, ShadowOptions
from windlass.policies.policy import guards_of
from windlass.policies.replay import Learner
from windlass.policies.rollout import RollBack, spell
from windlass.policies.served import Served, served_of, watchers
from windlass.policies.slo import Slo
from windlass.records import Call, Decision, Feedback, Outcome, Scope

GUARD = GuardOptions("service", {"max_latency_ms": 3_000.0})
ACME = Scope("acme", "main")


@pytest.mark.parametrize(
    ("error", "served"),
    [
        ("", Served(40.0, False)),
        ("upstream_server_error", Served(None, True)),
        ("rate_limited", Served(None, True)),
        ("first_byte_timeout", Served(40.0, True)),
        ("status 503", Served(None, True)),
        ("status 404", None),
        ("client_gone", None),
        ("content_filtered", None),
        ("upstream_request_refused", None),
        ("nobody knows this one", None),
    ],
)
def test_what_a_call_shows_of_its_model(error, served):
    assert served_of(40.0, 90.0, error, failed_over=False) == served


def test_the_time_is_that_of_the_first_byte_where_there_was_one():
    assert served_of(0.0, 90.0, "", failed_over=False) == Served(90.0, False)
    assert served_of(None, 90.0, "", failed_over=False) == Served(90.0, False)
    assert served_of(None, None, "", failed_over=False) is None


def test_a_model_that_another_answered_for_has_failed_in_the_time_that_the_client_waited():
    assert served_of(40.0, 90.0, "", failed_over=True) == Served(40.0, True)


class Told:
    """Records in ledger order for a learner whose point `model` is watched."""

    def __init__(self, window=100, **point):
        options = {"mode": "live", "policy": "fixed", "guards": (GUARD,), "randomised_share": 0.0} | point
        self.kept, self.last = {}, 0
        self.learner = Learner(
            Loop({"model": PointOptions(**options)}, make=registry.make), window, lambda cursor: self.kept[cursor]
        )

    def tell(self, *records):
        for record in records:
            self.last += 1
            self.learner.fold(Entry(self.last, record))
        return self

    def keep(self):
        self.kept[self.last] = self.learner.state()
        return self.last

    def calls(self, action="fast", place="model", tenant="acme"):
        """(how many calls are counted, how many failed, how many were late)."""
        policy = self.learner.loop._learned.get((tenant, "main", place))
        for guard in () if policy is None else guards_of(policy):
            if isinstance(guard, Slo) and (found := guard._calls.get(action)) is not None:
                return found.calls(found.at), found.failures(found.at), found.late(3_000.0, found.at)
        return 0.0, 0.0, 0.0


def call(name="1", **fields):
    values = {"id": f"call_{name}", "at": 1.0, "tenant": "acme", "workspace": "main", "endpoint": "chat"}
    return Call(**(values | {"model": "auto"} | fields))


def decision(name="1", action="fast", **fields):
    values = {
        "id": f"decision_{name}-model", "at": 1.0, "tenant": "acme", "workspace": "main", "call": f"call_{name}",
        "point": "model", "policy": "fixed@1", "actions": ("fast", "deep"), "action": action, "propensity": 1.0,
        "live": True, "context": {"x": 0.5},
    }  # fmt: skip
    return Decision(**(values | fields))


def outcome(name="1", first_byte_ms=5_000.0, latency_ms=6_000.0, **fields):
    values = {
        "id": f"outcome_{name}", "at": 2.0, "tenant": "acme", "workspace": "main", "call": f"call_{name}",
        "model": "fast", "provider": "p", "status": 200, "latency_ms": latency_ms, "first_byte_ms": first_byte_ms,
        "prompt_tokens": 1, "completion_tokens": 1, "cost_nusd": 700,
    }  # fmt: skip
    return Outcome(**(values | fields))


def said(name="1", value=0.9):
    return Feedback(
        id=f"feedback_{name}_{value}", at=3.0, tenant="acme", workspace="main", target=f"call_{name}", kind="rating",
        source="user", value=value,
    )  # fmt: skip


def test_a_call_is_counted_once_whatever_is_said_of_it():
    story = Told().tell(call(), decision(), outcome(), said(), outcome(), said("1", 0.2))
    assert story.calls() == (1.0, 0.0, 1.0)


def test_the_first_token_counts_and_not_the_last():
    assert Told().tell(call(), decision(), outcome(first_byte_ms=50.0, latency_ms=9_000.0)).calls() == (1.0, 0.0, 0.0)


def test_an_outcome_before_its_decision_is_counted_too():
    assert Told().tell(outcome(), call(), decision()).calls() == (1.0, 0.0, 1.0)


def test_a_later_outcome_replaces_the_first():
    story = Told().tell(call(), decision(), outcome(), outcome(first_byte_ms=20.0))
    assert story.calls() == (1.0, 0.0, 0.0)
    story.tell(outcome(first_byte_ms=20.0, status=502, error="upstream_server_error"))
    assert story.calls() == (1.0, 1.0, 0.0)


def test_a_later_outcome_that_shows_nothing_takes_back_what_the_first_showed():
    story = Told().tell(call(), decision(), outcome(error="upstream_server_error", status=502))
    assert story.calls() == (1.0, 1.0, 0.0)
    story.tell(outcome(error="client_gone", status=499))
    assert story.calls()[1:] == (0.0, 0.0)
    late = Told().tell(call(), decision(), outcome(), outcome(error="client_gone", status=499))
    assert late.calls()[1:] == (0.0, 0.0)
    assert late.tell(outcome()).calls() == (1.0, 0.0, 1.0)
    assert Told().tell(call(), decision(), outcome(error="client_gone", status=499)).calls() == (0.0, 0.0, 0.0)


def test_fail_over_counts_against_the_model_that_was_chosen():
    story = Told().tell(call(), decision(), outcome(model="deep"))
    assert story.calls() == (1.0, 1.0, 1.0)
    assert story.calls("deep") == (0.0, 0.0, 0.0)


def test_what_another_policy_decided_and_what_was_in_shadow_is_not_counted():
    assert Told().tell(call(), decision(policy="other@1"), outcome()).calls() == (0.0, 0.0, 0.0)
    assert Told().tell(call(), decision(live=False), outcome()).calls() == (0.0, 0.0, 0.0)


def test_one_tenant_is_never_left_a_model_for_another_ones_calls():
    story = Told().tell(call(), decision(), outcome())
    assert story.calls(tenant="globex") == (0.0, 0.0, 0.0)
    assert story.calls() == (1.0, 0.0, 1.0)


def test_a_watched_shadow_learns_from_what_really_happened():
    shadow = ShadowOptions("bold", "split", guards=(GUARD,))
    story = Told(guards=(), shadows=(shadow,))
    assert story.learner.loop.watched == {"model-shadow-bold"}
    beside = decision(id="decision_1-model-shadow-bold", policy="split@1", live=False, extra={"shadow": "bold"})
    story.tell(call(), decision(), beside, outcome())
    assert story.calls(place="model-shadow-bold") == (1.0, 0.0, 1.0)


def test_where_nobody_watches_no_time_is_kept():
    story = Told(guards=()).tell(call(), decision(), outcome())
    assert story.learner._accounts.calls["acme", "main", "call_1"].first_byte_ms is None
    assert not watchers(story.learner.loop._fresh["model"])


def many(count, start=0):
    for number in range(start, start + count):
        took = {"first_byte_ms": 4_000.0 if number % 2 else 100.0}
        yield from (call(str(number)), decision(str(number), at=60.0 * number), outcome(str(number), **took))


def test_a_restart_in_the_middle_changes_nothing():
    whole, first, second = Told().tell(*many(60)), Told().tell(*many(30)), Told()
    second.learner.restore(first.learner.state())
    second.last = first.last
    second.tell(*many(30, 30))
    assert second.learner.digest() == whole.learner.digest()
    assert second.calls() == whole.calls()


def test_a_state_from_before_there_were_served_calls_is_read():
    story = Told(guards=()).tell(*many(3))
    stored = msgspec.msgpack.decode(story.learner.state())
    for _, account in stored[-1][0]:
        account[6] = [acted[:9] for acted in account[6]]
        del account[9:]
    other = Told(guards=())
    other.learner.restore(msgspec.msgpack.encode(stored))
    assert other.learner.digest() == story.learner.digest()


def test_a_roll_back_takes_back_what_was_counted_since():
    story = Told().tell(*many(4))
    cursor, before = story.keep(), story.calls()
    story.tell(*many(4, 4))
    assert story.calls() != before
    change = Decision(
        id="decision_r", at=9.0, tenant="acme", workspace="main", call="call_r", point="rollout", policy="people@1",
        actions=(spell(RollBack("model", cursor)),), action=spell(RollBack("model", cursor)), propensity=1.0, live=True,
    )  # fmt: skip
    story.tell(change)
    assert story.calls() == before
    story.tell(said("5"), outcome("5", first_byte_ms=9.0))
    assert story.calls() == before
    story.tell(outcome("3", first_byte_ms=9.0))
    assert story.calls()[2] < before[2]


def test_told_in_one_go_is_as_told_one_by_one():
    one_by_one, at_once = Told().tell(*many(60)), Told()
    at_once.learner.fold(*(Entry(place, record) for place, record in enumerate(many(60), 1)))
    assert at_once.calls() == one_by_one.calls() != (0.0, 0.0, 0.0)
    assert at_once.learner.digest() == one_by_one.learner.digest()
