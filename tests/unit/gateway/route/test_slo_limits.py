"""Limits of time and of errors: the settings name them, a request may name its own, the point `model` keeps them."""

from __future__ import annotations

import math

import msgspec
import pytest

from windlass.errors import AccessError, RequestError, SettingsError
from windlass.gateway.access.admission import Caller
from windlass.gateway.route.objectives import HEADERS, Wish, limits, wish
from windlass.gateway.route.options import ObjectiveOptions, RoutingOptions
from windlass.gateway.route.router import wanted, watched
from windlass.policies.loop import Loop
from windlass.policies.points import GuardOptions, PointOptions, ShadowOptions
from windlass.policies.slo_terms import ERRORS, LATENCY, QUANTILE
from windlass.records import Scope
from windlass.settings import changed, load

ANN = Caller(Scope("acme", "one"), "operator", "ann")
FOR_ALL = RoutingOptions(max_latency_ms=3_000.0, max_error_percent=2.0)
CHAT = ObjectiveOptions(tenant="acme", endpoint="chat", max_latency_ms=800.0, latency_quantile=0.9)
GUARD = GuardOptions("service")


def test_nobody_names_a_limit() -> None:
    assert limits(RoutingOptions(), None, ANN, "chat") == {}
    assert not RoutingOptions(objectives=(ObjectiveOptions(objective="best"),)).limits_calls


def test_what_holds_for_all_and_what_an_objective_says_instead() -> None:
    for_all = {LATENCY: 3_000.0, QUANTILE: 0.95, ERRORS: 2.0}
    assert limits(FOR_ALL, None, ANN, "chat") == for_all
    options = msgspec.structs.replace(FOR_ALL, objectives=(CHAT,))
    assert limits(options, None, ANN, "chat") == {LATENCY: 800.0, QUANTILE: 0.9, ERRORS: 2.0}
    assert limits(options, None, ANN, "embeddings") == for_all
    assert RoutingOptions(objectives=(CHAT,)).limits_calls


def test_a_request_goes_before_all_each_limit_by_itself() -> None:
    options = msgspec.structs.replace(FOR_ALL, objectives=(CHAT,))
    assert limits(options, Wish(max_latency_ms=50.0), ANN, "chat") == {LATENCY: 50.0, QUANTILE: 0.9, ERRORS: 2.0}
    assert limits(RoutingOptions(), Wish(max_error_percent=9.0), ANN, "chat") == {ERRORS: 9.0}


def test_headers_are_read_as_people_write_them() -> None:
    assert wish("", "", "3000", " 2.5 ") == Wish(max_latency_ms=3_000.0, max_error_percent=2.5)
    assert HEADERS[2:] == ("x-windlass-max-latency-ms", "x-windlass-max-error-percent")


@pytest.mark.parametrize("text", ["0", "-1", "nan", "inf", "3 s", "1e99", "\x00", "9" * 10_000])
def test_a_header_that_is_no_limit_is_refused_and_says_what_is_one(text: str) -> None:
    for place in (2, 3):
        with pytest.raises(RequestError, match=f"{HEADERS[place]} is .*; give .* above 0 and up to ") as refused:
            wish(*["", "", "", ""][:place], text, *["", "", "", ""][place + 1 :])
        assert refused.value.status == 400
        assert len(str(refused.value)) < 200


@pytest.mark.parametrize(
    "values",
    [
        {"routing.max_latency_ms": 0},
        {"routing.max_latency_ms": -5},
        {"routing.max_latency_ms": math.inf},
        {"routing.max_error_percent": 100},
        {"routing.latency_quantile": 0.2},
        {"routing.objectives": [{"max_latency_ms": "soon"}]},
        {"routing.objectives": [{"tenant": "acme"}]},
    ],
)
def test_settings_that_are_no_limits_are_refused(values) -> None:
    with pytest.raises(SettingsError, match="routing"):
        load(values, environ={})


@pytest.mark.parametrize(
    ("values", "guards"),
    [
        ({}, []),
        ({"routing.max_latency_ms": 3_000}, ["service"]),
        ({"routing.objectives": [{"tenant": "acme", "max_error_percent": 1}]}, ["service"]),
        ({"routing.personalise": True}, ["personal"]),
        ({"routing.max_latency_ms": 3_000, "routing.personalise": True}, ["service", "personal"]),
    ],
)
def test_a_limit_brings_the_guard_that_keeps_it(values, guards) -> None:
    settings = load(values, environ={})
    assert [guard.guard for guard in settings.points["model"].guards] == guards
    Loop(settings.points)


def test_a_guard_that_is_set_stays_as_it_is() -> None:
    guard = {"guard": "service", "options": {"half_life_minutes": 5.0}}
    settings = load({"routing.max_latency_ms": 3_000, "points": {"model": {"guards": [guard]}}}, environ={})
    assert [one.options for one in settings.points["model"].guards] == [{"half_life_minutes": 5.0}]


def test_the_first_limit_of_a_running_server_takes_a_restart_and_others_do_not() -> None:
    none, one, other = (
        load({"routing.objectives": objectives}, environ={})
        for objectives in ([], [{"max_latency_ms": 900}], [{"max_latency_ms": 800}])
    )
    with pytest.raises(SettingsError, match="points.model.guards: .* restart"):
        changed(none, one)
    assert changed(one, other) == ("routing.objectives",)
    for_all = {"routing.max_latency_ms": 3_000, "routing.max_error_percent": 1}
    first, then = (load(values, environ={}) for values in (for_all, for_all | {"routing.max_latency_ms": 2_000}))
    assert changed(first, then) == ("routing.max_latency_ms",)


def test_a_policy_that_reads_no_prompts_is_told_limits_alone() -> None:
    limited = Loop({"model": PointOptions("live", "split", guards=(GUARD,))})
    assert watched(limited)
    assert wanted(RoutingOptions(), limited)
    assert not wanted(RoutingOptions(), Loop({"model": PointOptions("live", "split")}))
    beside = PointOptions("live", "split", shadows=(ShadowOptions("bold", "ucb", guards=(GUARD,)),))
    assert watched(Loop({"model": beside}))


def test_a_locked_key_may_not_name_a_limit() -> None:
    from windlass.gateway.route.objectives import aims

    locked = (ObjectiveOptions(key="ann", max_latency_ms=900.0, locked=True),)
    assert limits(RoutingOptions(objectives=locked), None, ANN, "chat")[LATENCY] == 900.0
    with pytest.raises(AccessError, match="x-windlass-max-latency-ms"):
        aims(locked, Wish(max_latency_ms=5_000.0), ANN, "chat")
