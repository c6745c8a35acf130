"""What is wrong with the arguments of an operation, said in its own words: which argument, its value, its bound."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import msgspec
from msgspec import inspect

SHOWN_CHARS = 60
_AT = re.compile(r" - at `\$\.(\w+)")
_UNKNOWN = re.compile(r"unknown field `(.*)`\Z", re.DOTALL)
_MISSING = re.compile(r"missing required field `(\w+)`\Z")


def wrong(arguments: object, kind: type[msgspec.Struct], exc: msgspec.ValidationError) -> str:
    """Why `arguments` are no `kind`, for people: no names of types, and the remedy.

    >>> class Asked(msgspec.Struct):
    ...     call: str
    >>> try:
    ...     msgspec.convert({"call": 5}, Asked)
    ... except msgspec.ValidationError as exc:
    ...     print(wrong({"call": 5}, Asked, exc))
    call is 5; it must be text; the arguments are: call
    """
    known = f"the arguments are: {', '.join(kind.__struct_fields__)}"
    told, text = "", str(exc)
    if not isinstance(arguments, Mapping):
        told = "the arguments are no mapping of names to values"
    elif found := _UNKNOWN.search(text):
        told = f"there is no argument {_shown(found[1])}"
    elif found := _MISSING.search(text):
        told = f"{found[1]} is missing"
    elif (found := _AT.search(text)) and found[1] in arguments:
        told = f"{found[1]} is {_shown(arguments[found[1]])}; it must be {_bound(kind, found[1])}"
    return f"{told or text}; {known}"


def _bound(kind: type[msgspec.Struct], name: str) -> str:
    """What an argument may be."""
    described = inspect.type_info(kind)
    assert isinstance(described, inspect.StructType)
    field = next(one for one in described.fields if one.name == name)
    types = field.type.types if isinstance(field.type, inspect.UnionType) else (field.type,)
    return " or ".join(_named(one) for one in types if not isinstance(one, inspect.NoneType))


def _named(one: inspect.Type) -> str:
    match one:
        case inspect.IntType(ge=int(least), le=int(most)):
            return f"a whole number from {least} to {most}"
        case inspect.IntType(ge=int(least)):
            return f"a whole number of at least {least}"
        case inspect.IntType():
            return "a whole number"
        case inspect.FloatType():
            return "a number"
        case inspect.BoolType():
            return "true or false"
        case inspect.StrType(max_length=int(most)):
            return f"text of at most {most} characters"
        case inspect.StrType():
            return "text"
        case inspect.LiteralType(values=values):
            return f"one of {', '.join(map(str, values))}"
        case _:
            return f"a {type(one).__name__.removesuffix('Type').lower()}"


def _shown(value: Any) -> str:
    try:
        text = repr(value)
    except ValueError:  # a whole number of more digits than Python writes out
        text = "a number of thousands of digits"
    return text if len(text) <= SHOWN_CHARS else f"{text[:SHOWN_CHARS]}…"
