"""What a call is routed for: the settings say it for tenants, keys and endpoints, and a request may ask for its own."""

from __future__ import annotations

import msgspec
import pytest

from windlass.errors import AccessError, RequestError
from windlass.gateway.access.admission import Caller
from windlass.gateway.route.objectives import Wish, aims, wish
from windlass.gateway.route.options import ObjectiveOptions, RoutingOptions
from windlass.records import Scope

ANN = Caller(Scope("acme", "one"), "operator", "ann")
EVERYBODY = ObjectiveOptions(objective="balanced", quality_floor=95.0)
ACME = ObjectiveOptions(tenant="acme", endpoint="chat", objective="cheapest")
BATCH = ObjectiveOptions(key="ann", quality_floor=80.0, locked=True)


def test_nobody_says_anything_and_the_policy_goes_by_its_own_options() -> None:
    assert aims((), None, ANN, "chat") == {}


def test_the_first_that_fits_holds() -> None:
    assert aims((ACME, EVERYBODY), None, ANN, "chat") == {"objective:cheapest": 1.0}
    assert aims((ACME, EVERYBODY), None, ANN, "messages") == {
        "objective:balanced": 1.0,
        "objective:quality_percent": 95.0,
    }


def test_a_request_goes_before_the_settings_each_of_the_two_by_itself() -> None:
    assert aims((EVERYBODY,), Wish("best"), ANN, "chat") == {"objective:best": 1.0, "objective:quality_percent": 95.0}
    assert aims((EVERYBODY,), Wish(None, 50.0), ANN, "chat") == {
        "objective:balanced": 1.0,
        "objective:quality_percent": 50.0,
    }
    assert aims((), Wish("best", 99.5), ANN, "chat") == {"objective:best": 1.0, "objective:quality_percent": 99.5}


def test_a_locked_key_may_not_ask_for_another_objective() -> None:
    assert aims((BATCH, EVERYBODY), None, ANN, "chat") == {"objective:quality_percent": 80.0}
    with pytest.raises(AccessError, match="key 'ann' may not choose .* leave out x-windlass-objective"):
        aims((BATCH, EVERYBODY), Wish("best"), ANN, "chat")
    other = msgspec.structs.replace(ANN, key="bob")
    assert aims((BATCH, EVERYBODY), Wish("best"), other, "chat")["objective:best"] == 1.0


def test_headers_are_read_as_people_write_them() -> None:
    assert wish("", "") is None
    assert wish(" Cheapest ", "95") == Wish("cheapest", 95.0)
    assert wish("", "0.5") == Wish(None, 0.5)


@pytest.mark.parametrize("objective", ["cheap", "best,cheapest", "\x00", "b" * 10_000, "objective:best"])
def test_an_objective_that_there_is_not_is_refused_with_those_there_are(objective: str) -> None:
    with pytest.raises(RequestError, match="give cheapest, balanced or best") as refused:
        wish(objective, "")
    assert refused.value.status == 400
    assert len(str(refused.value)) < 200


@pytest.mark.parametrize("floor", ["0", "-1", "101", "nan", "inf", "ninety", "95%", "1e999", "\u0669\u0665x"])
def test_a_floor_that_is_no_percentage_is_refused(floor: str) -> None:
    with pytest.raises(RequestError, match="give percent of the reference model's quality, such as 95"):
        wish("", floor)


@pytest.mark.parametrize(
    "given",
    [
        {"objectives": [{"objective": "cheap"}]},
        {"objectives": [{"tenant": "acme"}]},
        {"objectives": [{"objective": "best", "quality_floor": 0}]},
        {"objectives": [{"objective": "best", "quality_floor": 101}]},
        {"embedding_timeout_ms": 0},
        {"basis_prompts": 10},
        {"objective": "best"},
    ],
)
def test_settings_that_make_no_sense_are_refused(given: dict[str, object]) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert(given, RoutingOptions)
