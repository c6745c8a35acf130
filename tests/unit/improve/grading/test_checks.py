"""Checks that are plain code: what they take for right, and what hostile replies do to them."""

from __future__ import annotations

import doctest
import time
from typing import Any

import msgspec
import pytest
from tests.unit.improve.grading.scene import case

from windlass.errors import SettingsError
from windlass.gateway import prompt
from windlass.gateway.prompt import Excerpt, Material
from windlass.gateway.wire import Message
from windlass.improve.grading import grader, numeric, registry, signals
from windlass.improve.grading.check import check_grader
from windlass.improve.grading.grader import Check, Grade, GraderFailed, Skipped

NEEDED: dict[str, dict[str, Any]] = {"regex": {"pattern": "a"}, "judge": {"model": "m"}}


def value(name: str, *given: Any, options: dict[str, Any] | None = None, **more: Any) -> float | str:
    """The grade of one case, or why there is none."""
    made = registry.make(name, options or {})
    assert isinstance(made, Check)
    match made.grade(case(*given, **more)):
        case Grade(value=found):
            return found
        case Skipped(why=why):
            return why


@pytest.mark.parametrize("name", registry.names())
def test_every_grader_of_ours_keeps_the_contract(name: str) -> None:
    check_grader(registry.make(name, NEEDED.get(name, {})), name)


@pytest.mark.parametrize("module", [grader, numeric, signals])
def test_the_examples_hold(module: Any) -> None:
    assert doctest.testmod(module).failed == 0


@pytest.mark.parametrize(
    ("reply", "expected", "options", "found"),
    [
        ("Paris", "paris", {}, 1.0),
        ("  ＰＡＲＩＳ!\n", "Paris.", {}, 1.0),
        ("The answer is Paris.", "Paris", {}, 0.0),
        ("The answer is Paris.", "Paris", {"match": "contains"}, 1.0),
        ("Comparisons differ", "Paris", {"match": "contains"}, 0.0),
        ("Let me think.\n\n42\n", 42, {"match": "last_line"}, 1.0),
        ("x Answer: B, no, Answer: C", "C", {"after": "Answer:"}, 1.0),
        ("it is C", "C", {"after": "Answer:"}, 0.0),
        ("yes", ["no", "yes"], {}, 1.0),
        ("true", True, {}, 1.0),
        ("-5", "5", {}, 0.0),
        ("3.5", "35", {}, 0.0),
        ("an apple", "apple", {"articles": False}, 1.0),
        ("Hi!", "Hi", {"punctuation": True}, 0.0),
        ("x", None, {}, "no_expected"),
        ("x", {"deep": 1}, {}, "no_expected"),
        ("", "x", {}, 0.0),
    ],
)
def test_exact(reply: str, expected: Any, options: dict[str, Any], found: float | str) -> None:
    assert value("exact", reply, expected, options=options) == found


def test_an_answer_of_punctuation_alone_is_told_apart_from_a_wrong_one() -> None:
    with pytest.raises(GraderFailed, match="punctuation = true"):
        value("exact", "anything", "?!")
    assert value("exact", "?!", "?!", options={"punctuation": True}) == 1.0


@pytest.mark.parametrize(
    ("reply", "expected", "options", "found"),
    [
        ("First 3, then 4. So it is 7.", "7", {}, 1.0),
        ("#### 1,234", "1234", {}, 1.0),
        ("12.5 and 1 234 567", 1234567, {}, 1.0),
        ("about 9.9", "10", {"rel": 0.02}, 1.0),
        ("about 9.7", "10", {"rel": 0.02}, 0.0),
        ("5 km", "5000 m", {}, 1.0),
        ("5 kg", "5 m", {}, 0.0),
        ("5 kg", "5 m", {"units": "ignore"}, 1.0),
        ("50%", "0.5", {}, 0.0),
        ("50 %", "50", {}, 1.0),
        ("90 min", "1.5 h", {}, 1.0),
        ("-2e3", -2000, {}, 1.0),
        ("\N{MINUS SIGN}3", "-3", {}, 1.0),
        ("3/4", "0.75", {}, 1.0),
        ("$18", "18", {}, 1.0),
        ("none", "7", {}, 0.0),
        ("1/0", "7", {}, 0.0),
        ("1e999", "7", {}, 0.0),
        ("inf nan", "7", {}, 0.0),
        ("9" * 100_000, "7", {}, 0.0),
        ("7", None, {}, "no_expected"),
        ("7", "seven", {}, "no_number_expected"),
        ("it is version 1.2.3", "3", {}, 0.0),
    ],
)
def test_numeric(reply: str, expected: Any, options: dict[str, Any], found: float | str) -> None:
    assert value("numeric", reply, expected, options=options) == found


@pytest.mark.parametrize(
    ("reply", "options", "found"),
    [
        ("Order AB-12 is on its way", {"pattern": r"[A-Z]{2}-\d+"}, 1.0),
        ("no order", {"pattern": r"[A-Z]{2}-\d+"}, 0.0),
        ("as an AI model", {"pattern": "AS AN AI", "forbidden": True, "ignore_case": True}, 0.0),
        ("fine", {"pattern": "as an AI", "forbidden": True}, 1.0),
        ("ab", {"pattern": "a", "whole": True}, 0.0),
        ("a\nb", {"pattern": "a.b", "dotall": True}, 1.0),
        ("\x00b", {"pattern": "\x00b"}, 1.0),
        ("x\ny", {"pattern": "^y$", "multiline": True}, 1.0),
    ],
)
def test_regex(reply: str, options: dict[str, Any], found: float) -> None:
    assert value("regex", reply, options=options) == found


def test_a_pattern_that_never_ends_is_ended_and_the_next_one_works() -> None:
    made = registry.make("regex", {"pattern": "(a+)+$", "seconds": 0.3})
    assert isinstance(made, Check)
    assert made.grade(case("aaa")) == Grade(value=1.0, reason="the pattern is found")
    began = time.monotonic()
    with pytest.raises(GraderFailed, match=r"not done within 0\.3 s"):
        made.grade(case("a" * 60 + "b"))
    assert time.monotonic() - began < 5.0
    assert made.grade(case("aaa")) == Grade(value=1.0, reason="the pattern is found")


SCHEMA = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
FORMAT = msgspec.Raw(msgspec.json.encode({"type": "json_schema", "json_schema": {"name": "x", "schema": SCHEMA}}))


@pytest.mark.parametrize(
    ("reply", "options", "found"),
    [
        ('{"n": 1}', {"schema": SCHEMA}, 1.0),
        ('{"n": "1"}', {"schema": SCHEMA}, 0.0),
        ('Here: {"n": 1}', {"schema": SCHEMA}, 0.0),
        ('Here:\n```json\n{"n": 1}\n```', {"schema": SCHEMA}, 0.0),
        ('Here:\n```json\n{"n": 1}\n```', {"schema": SCHEMA, "fenced": True}, 1.0),
        ("[" * 100_000, {"schema": SCHEMA}, 0.0),
        ('{"n": NaN}', {"schema": SCHEMA}, 0.0),
        ("\ud800", {"schema": SCHEMA}, 0.0),
        ('{"n": 1}', {}, "no_schema"),
    ],
)
def test_json_schema(reply: str, options: dict[str, Any], found: float | str) -> None:
    assert value("json_schema", reply, options=options) == found


def test_without_a_schema_of_its_own_that_of_the_call_counts() -> None:
    assert value("json_schema", '{"n": 1}', fields={"response_format": FORMAT}) == 1.0
    assert value("json_schema", "{}", fields={"response_format": FORMAT}) == 0.0
    assert value("json_schema", "{}", fields={"response_format": msgspec.Raw(b'{"type":"json_object"}')}) == "no_schema"
    assert value("json_schema", "{}", fields={"response_format": msgspec.Raw(b"17")}) == "no_schema"


def test_a_schema_fetches_nothing_and_a_broken_one_is_the_callers() -> None:
    with pytest.raises(SettingsError, match=r"grader json_schema: .*not fetched"):
        registry.make("json_schema", {"schema": {"$ref": "http://127.0.0.1:1/schema.json"}})
    with pytest.raises(SettingsError, match="cannot be used"):
        registry.make("json_schema", {"schema": {"type": "no such type"}})
    far = {"type": "json_schema", "json_schema": {"schema": {"$ref": "file:///etc/passwd"}}}
    with pytest.raises(GraderFailed, match="not fetched"):
        value("json_schema", "{}", fields={"response_format": msgspec.Raw(msgspec.json.encode(far))})


def test_a_pattern_of_a_schema_cannot_run_away() -> None:
    began = time.monotonic()
    options = {"schema": {"type": "string", "pattern": "^(a+)+$"}}
    assert value("json_schema", '"' + "a" * 5_000 + 'b"', options=options) == 0.0
    assert time.monotonic() - began < 1.0


OFFERED = prompt.render(
    Material("Why tallow?", (Excerpt(id="p1", text="The lead is filled with tallow, so that sand sticks to it."),))
)


@pytest.mark.parametrize(
    ("reply", "found"),
    [
        ("> The lead is filled with tallow [p1]", 1.0),
        ("> The lead is filled with wax [p1]", 0.0),
        ("> The lead is filled with tallow [p1]\n> so that shells stick [p1]", 0.5),
        ("> The lead is filled with tallow [p2]", 0.0),
        ("> The lead is filled with tallow [p1]\n> The lead is filled with tallow [p1]", 1.0),
        ("no quote", 0.0),
    ],
)
def test_citation(reply: str, found: float) -> None:
    assert value("citation", reply, question="Why tallow?", messages=(Message("user", OFFERED),)) == found


def test_citation_says_nothing_where_there_is_nothing_to_quote() -> None:
    assert value("citation", "> some words here [p1]") == "no_passages"
    asked = (Message("user", OFFERED),)
    assert value("citation", "words", options={"needed": False}, messages=asked) == "no_quotes"


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("exakt", {}, "there is no grader 'exakt'; known: citation, code, edit, exact"),
        ("exact", {"mach": "whole"}, "grader exact has no option mach; known: match, after"),
        ("exact", {"match": "half"}, "grader exact: .*half"),
        ("numeric", {"rel": -1.0}, "grader numeric: rel is -1.0"),
        ("numeric", {"abs": float("nan")}, "abs is nan"),
        ("regex", {}, "pattern is empty"),
        ("regex", {"pattern": "("}, "no regular expression"),
        ("regex", {"pattern": "a", "seconds": 0.0}, "seconds is 0.0"),
        ("code", {"memory_mb": 1}, "memory_mb is 1"),
        ("code", {"seconds": float("inf")}, "seconds is inf"),
        ("retry", {"alike": 0.0}, "alike is 0.0"),
        ("retry", {"window_s": 1e9}, "window_s is"),
        ("edit", {"floor": 1.0}, "floor is 1.0"),
        ("judge", {}, "model is empty"),
        ("judge", {"model": "m", "temperature": float("nan")}, "temperature is nan"),
    ],
)
def test_options_that_make_no_sense_are_named(name: str, options: dict[str, Any], words: str) -> None:
    with pytest.raises(SettingsError, match=words):
        registry.make(name, options)


def test_options_are_described() -> None:
    for name in registry.names():
        kind = registry.options(name)
        assert all(field in (kind.__doc__ or "") for field in kind.__dataclass_fields__), name
