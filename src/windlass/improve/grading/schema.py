"""`json_schema`: the reply is JSON of a schema. Validation by jsonschema-rs, which matches patterns in linear time."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, ClassVar, Final, Literal, NoReturn

import msgspec

from windlass.errors import SettingsError
from windlass.improve.grading.grader import Case, GraderFailed, On, Skipped, Verdict, said

MOST_SCHEMA_BYTES: Final = 262_144
_FENCE = re.compile(r"```(?:json)?[ \t]*\n(.*?)```", re.DOTALL)
_UNREADABLE = (msgspec.MsgspecError, UnicodeError, RecursionError)


@dataclass(frozen=True, slots=True)
class JsonSchemaOptions:
    """Which schema. schema: a JSON Schema (draft 4 to 2020-12), as a table; without one that of the call's own
    `response_format` counts, and calls without either are passed over. fenced: JSON inside one code fence counts too.
    """

    schema: dict[str, Any] = field(default_factory=dict)
    fenced: bool = False


class _Format(msgspec.Struct):
    type: str = ""
    json_schema: dict[str, Any] | None = None


class JsonSchema:
    """Validates the reply. Costs nothing. Schemas that refer to other addresses are refused: nothing is fetched."""

    name: ClassVar[str] = "json_schema"
    version: ClassVar[str] = "1"
    source: ClassVar[Literal["qa", "system"]] = "qa"
    on: ClassVar[On] = "reply"
    needs_model: ClassVar[bool] = False
    cost_nusd: ClassVar[int | None] = 0

    def __init__(self, options: JsonSchemaOptions):
        self._fenced = options.fenced
        self._schema = _written(options.schema) if options.schema else b""
        try:
            _validator(self._schema or b"true")
        except GraderFailed as exc:
            raise SettingsError(str(exc)) from exc

    def grade(self, case: Case) -> Verdict:
        """1 where the reply is JSON that fits, else 0. GraderFailed for a schema that is none."""
        schema = self._schema or _asked(case)
        if not schema:
            return Skipped(why="no_schema")
        validator = _validator(schema)
        try:
            value = msgspec.json.decode(self._json(case.reply))
        except _UNREADABLE:
            return said(0.0, "the reply is no JSON")
        fits = bool(validator.is_valid(value))
        return said(float(fits), "JSON that fits the schema" if fits else "JSON that does not fit the schema")

    def _json(self, reply: str) -> bytes:
        found = _FENCE.findall(reply) if self._fenced else ()
        return (found[0] if len(found) == 1 else reply).encode()


def _asked(case: Case) -> bytes:
    """The schema that the request asked the model to keep to."""
    given = case.fields.get("response_format")
    if given is None:
        return b""
    try:
        asked = msgspec.json.decode(given, type=_Format)
    except _UNREADABLE:
        return b""
    schema = (asked.json_schema or {}).get("schema")
    return _written(schema) if asked.type == "json_schema" and isinstance(schema, dict) else b""


def _written(schema: dict[str, Any]) -> bytes:
    return msgspec.json.encode(schema)


@lru_cache(maxsize=64)
def _validator(schema: bytes) -> Any:
    """GraderFailed for a schema that is none, that is too large, or that refers to another address."""
    try:
        import jsonschema_rs
    except ImportError as exc:
        raise GraderFailed("JSON schemas are checked by jsonschema-rs; `pip install windlass[graders]`") from exc
    if len(schema) > MOST_SCHEMA_BYTES:
        raise GraderFailed(f"the schema has {len(schema)} bytes; at most {MOST_SCHEMA_BYTES} are read")
    try:
        return jsonschema_rs.validator_for(
            msgspec.json.decode(schema), retriever=_fetch, pattern_options=jsonschema_rs.RegexOptions()
        )
    except (ValueError, jsonschema_rs.ValidationError, jsonschema_rs.ReferencingError) as exc:
        raise GraderFailed(f"the schema cannot be used: {str(exc)[:200]}") from exc


def _fetch(uri: str) -> NoReturn:
    raise ValueError(f"{uri[:200]} is not fetched; put what it refers to under $defs")
