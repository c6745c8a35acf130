"""The OpenAPI document: all that is served is in it, and what is in it holds together."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.golden.application import Client, key, opened

from windlass.server.app import API, Windlass
from windlass.server.openapi import document
from windlass.server.operations import ASKED, OPERATIONS
from windlass.server.reading import ARGUMENTS

METHODS = {"get", "post", "put", "delete", "patch", "head", "options"}
ERRORS = {"Error", "MessagesError"}


async def _published(home: Path, **changes: Any) -> tuple[dict[str, Any], set[tuple[str, str]]]:
    """What a client without a key gets, and the routes."""
    async with opened(home, **changes) as runtime:
        app = Windlass(runtime)
        response = await Client(app).get("/openapi.json")
        assert (response.status, response.headers["content-type"]) == (200, "application/json")
        return response.json, set(app._routes)


async def test_every_route_and_operation_is_in_it(tmp_path: Path) -> None:
    found, routes = await _published(tmp_path, keys=[key("ann", "acme")])
    told = {(method.upper(), path) for path, methods in found["paths"].items() for method in methods}
    expected = routes | {("POST", API + name) for name in OPERATIONS} | {("GET", API + name) for name in ARGUMENTS}
    assert told == expected | {("GET", "/v1/models/{model}")}
    assert ASKED.keys() == OPERATIONS.keys()


async def test_it_is_the_same_for_everybody_and_names_nothing_of_the_settings(tmp_path: Path) -> None:
    upstream = {"name": "crane-works", "base_url": "http://crane.internal/v1", "models": [{"name": "crane-7b"}]}
    plain, _ = await _published(tmp_path / "one")
    told, _ = await _published(tmp_path / "two", upstreams=[upstream], keys=[key("ann", "acme")])
    assert told == plain
    assert "crane" not in str(told)


def _every(value: Any) -> Iterator[Any]:
    yield value
    for one in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from _every(one)


def test_what_it_refers_to_is_there() -> None:
    found = document([("POST", "/v1/chat/completions"), ("POST", "/v1/messages"), ("GET", "/healthz")])
    assert re.fullmatch(r"3\.1\.\d+", found["openapi"])
    assert found["info"].keys() >= {"title", "version"}
    schemas = found["components"]["schemas"]
    named = {one["$ref"] for one in _every(found) if isinstance(one, dict) and "$ref" in one}
    assert {name.removeprefix("#/components/schemas/") for name in named} <= schemas.keys()
    for one in _every(found):
        if isinstance(one, dict) and isinstance(one.get("pattern"), str):
            assert "\\Z" not in one["pattern"], "no such thing in the regular expressions of others"
            re.compile(one["pattern"])


def test_each_operation_has_what_the_specification_wants() -> None:
    found = document([("POST", "/v1/images/edits"), ("POST", "/v1/messages"), ("GET", "/v1/models")])
    ids = []
    for path, methods in found["paths"].items():
        assert methods.keys() <= METHODS
        for about in methods.values():
            assert about["summary"]
            assert about["responses"]["200"]["description"]
            failed = about["responses"]["default"]["content"]["application/json"]["schema"]["$ref"]
            assert failed.endswith("/MessagesError" if path.startswith("/v1/messages") else "/Error")
            ids += [about["operationId"]] if "operationId" in about else []
            placed = {one["name"] for one in about.get("parameters", ()) if one["in"] == "path"}
            assert placed == set(re.findall(r"\{(\w+)\}", path))
    assert len(ids) == len(set(ids))


@pytest.mark.parametrize("name", sorted(OPERATIONS))
def test_an_operation_says_what_it_does(name: str) -> None:
    about = document([])["paths"][API + name]["post"]
    assert re.fullmatch(r"[A-Z][^`]*.*\.", about["summary"])
