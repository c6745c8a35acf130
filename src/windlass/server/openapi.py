"""The API as an OpenAPI document, made from the tables that serve it: nothing is served that is not in it.

Source: OpenAPI Specification 3.1.1; its schemas are JSON Schema 2020-12, as msgspec writes them.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable, Mapping
from functools import lru_cache
from importlib.metadata import version
from typing import Any, Final

import msgspec

from windlass.gateway.dialects.head import ChatHead, MessagesHead, ResponsesHead
from windlass.gateway.endpoints import FOREIGN, FORM, RELAYED
from windlass.gateway.feedback import FeedbackRequest
from windlass.server.asgi import JSON
from windlass.server.operations import ASKED, OPERATIONS
from windlass.server.reading import ARGUMENTS

Schema = dict[str, Any]
PATH: Final = "/openapi.json"
_REF: Final = "#/components/schemas/"
_EVENTS: Final = "text/event-stream"
_ANY: Final[Schema] = {"type": "object"}
_ABOUT: Final = """Point any OpenAI or Anthropic client at `/v1` of this server; `/api` tells what it did and decided.
Fields that are not described here go to the provider as they are. Every other path below `/v1` goes to the provider of
`gateway.pass_through`, where one is set. A failure is OpenAI's error envelope, at `/v1/messages` Anthropic's."""
_SUMMARIES: Final[Mapping[str, str]] = {
    "/healthz": "Whether the server is up.",
    "/readyz": "Whether the server can answer calls.",
    "/metrics": "Figures for Prometheus.",
    PATH: "This document.",
    "/v1/models": "The models there are.",
    "/v1/feedback": "Say how good an answer was.",
    "/v1/chat/completions": "A chat, as OpenAI has it.",
    "/v1/embeddings": "Vectors of texts.",
    "/v1/responses": "A response, as OpenAI has it.",
    "/v1/messages": "A message, as Anthropic has it.",
}
_OPEN: Final = ("/healthz", "/readyz", PATH)
"""What takes no key."""
_FORMS: Final = ("/audio/transcriptions", "/audio/translations", "/images/edits", "/images/variations")
"""What takes files, in forms."""
_TEXT: Final = ("/metrics",)
"""What answers in lines of text."""
_MODEL: Final[Schema] = {"type": "string", "examples": ["auto"]}
_TEXTS: Final[Schema] = {"type": "array", "items": {"type": "string", "minLength": 1}, "minItems": 1, "maxItems": 2048}
_EMBEDDING: Final[Schema] = {
    "type": "object",
    "properties": {"model": _MODEL, "input": {"anyOf": [{"type": "string", "minLength": 1}, _TEXTS]}},
    "required": ["model", "input"],
}
_RELAYED: Final[Schema] = {"type": "object", "properties": {"model": _MODEL}, "required": ["model"]}
_ERROR: Final[Schema] = {
    "type": "object",
    "properties": {
        "error": {
            "type": "object",
            "properties": {
                "message": {"type": "string"},
                "type": {"type": "string"},
                "param": {"type": ["string", "null"]},
                "code": {"type": ["string", "null"]},
            },
            "required": ["message", "type", "param", "code"],
            "additionalProperties": False,
        }
    },
    "required": ["error"],
    "additionalProperties": False,
}
_MESSAGES_ERROR: Final[Schema] = {
    "type": "object",
    "properties": {
        "type": {"const": "error"},
        "error": {
            "type": "object",
            "properties": {"type": {"type": "string"}, "message": {"type": "string"}},
            "required": ["type", "message"],
            "additionalProperties": False,
        },
    },
    "required": ["type", "error"],
    "additionalProperties": False,
}
_WORKSPACE: Final[Schema] = {
    "name": "X-Windlass-Workspace",
    "in": "header",
    "description": "One of the key's workspaces; its first unless told.",
    "schema": {"type": "string", "maxLength": 64},
}


@lru_cache(maxsize=4)
def written(routes: frozenset[tuple[str, str]]) -> bytes:
    """The document as JSON; made once."""
    return msgspec.json.encode(document(routes))


def document(routes: Iterable[tuple[str, str]]) -> Schema:
    """The document. routes: (method, path) of everything that is served beside the operations below `/api`."""
    structs: dict[str, type[msgspec.Struct]] = {"/v1/feedback": FeedbackRequest, "/v1/chat/completions": ChatHead}
    structs |= {"/v1/responses": ResponsesHead, "/v1/messages": MessagesHead}
    kinds: list[type[msgspec.Struct]] = [*structs.values(), *ASKED.values()]
    found, defined = msgspec.json.schema_components(kinds, ref_template=_REF + "{name}")
    schema = dict(zip(kinds, found, strict=True))
    bodies = {path: schema[kind] for path, kind in structs.items()} | {"/v1/embeddings": _EMBEDDING}
    paths: dict[str, Schema] = {}
    for method, path in sorted(routes):
        paths.setdefault(path, {})[method.lower()] = _route(path, bodies.get(path) if method == "POST" else None)
    paths["/v1/models/{model}"] = {"get": _one_model()}
    for name in OPERATIONS:
        paths[f"/api/{name}"] = _operation(name, schema[ASKED[name]], defined)
    schemas = {name: _plain(one) for name, one in defined.items()}
    return {
        "openapi": "3.1.1",
        "info": {"title": "Windlass", "version": version("windlass"), "description": _ABOUT},
        "paths": paths,
        "components": {
            "schemas": {**schemas, "Error": _ERROR, "MessagesError": _MESSAGES_ERROR},
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer"},
                "header": {"type": "apiKey", "in": "header", "name": "x-api-key"},
            },
        },
        "security": [{"bearer": []}, {"header": []}, {}],
    }


def _route(path: str, body: Schema | None) -> Schema:
    """One endpoint of the gateway, or one that tells of the server."""
    relayed = path.removeprefix("/v1") in RELAYED
    otherwise = "Goes to the provider of its model as it comes." if relayed else f"Answers at {path}."
    found: Schema = {"summary": _SUMMARIES.get(path, otherwise), "tags": ["/v1"]}
    content: Schema = {"text/plain": {"schema": {"type": "string"}}} if path in _TEXT else {JSON: {"schema": _ANY}}
    if path in _OPEN:
        found |= {"security": [{}], "tags": ["server"]}
    elif path.startswith("/v1/"):
        found["parameters"] = [_WORKSPACE]
    if body is not None:
        found["requestBody"] = {"required": True, "content": {JSON: {"schema": body}}}
    elif relayed:
        kinds = (JSON, FORM) if path.removeprefix("/v1") in _FORMS else (JSON,)
        found["requestBody"] = {"required": True, "content": {kind: {"schema": _RELAYED} for kind in kinds}}
        content["*/*"] = {}
    if relayed or path.removeprefix("/v1/") in (*FOREIGN, "chat/completions"):
        content[_EVENTS] = {"schema": {"type": "string"}}
    found["responses"] = _responses("MessagesError" if path.startswith("/v1/messages") else "Error", content)
    return found


def _one_model() -> Schema:
    name = {"name": "model", "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}}
    found = _route("/v1/models/{model}", None)
    return {**found, "summary": "One model.", "parameters": [name, _WORKSPACE]}


def _operation(name: str, body: Schema, defined: Mapping[str, Schema]) -> Schema:
    """An operation: what changes something is posted, what reads may be asked with its arguments in the address."""
    about: Schema = {"tags": ["/api"], "summary": " ".join(str(inspect.getdoc(OPERATIONS[name])).split())}
    about["responses"] = _responses("Error", {JSON: {"schema": _ANY}})
    posted = {"requestBody": {"required": False, "content": {JSON: {"schema": body}}}, "parameters": [_WORKSPACE]}
    found: Schema = {"post": {**about, **posted, "operationId": name}}
    if name in ARGUMENTS:
        known = defined[body["$ref"].removeprefix(_REF)]
        query = [
            {"name": one, "in": "query", "required": one in known["required"], "schema": _plain(schema)}
            for one, schema in known["properties"].items()
        ]
        found["get"] = {**about, "parameters": [*query, _WORKSPACE], "operationId": f"get_{name}"}
    return found


def _responses(error: str, content: Schema) -> Schema:
    failed = {"description": "Why not.", "content": {JSON: {"schema": {"$ref": _REF + error}}}}
    return {"200": {"description": "Done.", "content": content}, "default": failed}


def _plain(schema: Any) -> Any:
    """A schema as other languages read it too: theirs know no `\\Z` in a pattern."""
    match schema:
        case {"pattern": str(pattern), **rest}:
            return {**_plain(rest), "pattern": re.sub(r"\\Z\Z", "$", pattern)}
        case dict():
            return {name: _plain(value) for name, value in schema.items()}
        case list():
            return [_plain(one) for one in schema]
        case _:
            return schema
