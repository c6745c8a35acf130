"""The YAML block at the head of a Markdown file."""

from __future__ import annotations

import re
from typing import Any

import yaml

from windlass.content.formats.draft import Draft

LIMIT_CHARACTERS = 8 * 1024
# The scanner's time grows with the square of the open brackets: 8,000 take it a second.
_BRACKETS = 200

_BLOCK = re.compile(r"---[ \t]*\n(.*?)^(?:---|\.\.\.)[ \t]*(?:\n|\Z)", re.DOTALL | re.MULTILINE)
_FIELD = re.compile(r"^(title|date|media|speakers|tags)[ \t]*:[ \t]*(\S.*)$", re.MULTILINE)
_ISO_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}(?=$|[T ])")


class _ScalarLoader(yaml.SafeLoader):
    """A loader that builds strings, lists and mappings only: dates, numbers and tags stay as written."""


# Not the C loader: it ends the process on 30,000 open brackets, where this one raises RecursionError.
# Without implicit types `2020-13-45` is a word and no ValueError; without constructors by tag nothing but text is made.
_ScalarLoader.yaml_implicit_resolvers = {}
_ScalarLoader.yaml_constructors = {}


def read(text: str, draft: Draft) -> int:
    """Put the fields of the front matter of `text` into `draft`; the offset at which the body begins.

    Broken YAML leaves a warning, and the fields that can be read line by line.
    """
    match = _BLOCK.match(text)
    if match is None:
        return 0
    fields: Any
    try:
        if len(match[1]) > LIMIT_CHARACTERS:
            raise yaml.YAMLError(f"longer than {LIMIT_CHARACTERS} characters")
        if match[1].count("[") + match[1].count("{") > _BRACKETS:
            raise yaml.YAMLError(f"more than {_BRACKETS} brackets")
        fields = yaml.load(match[1], Loader=_ScalarLoader)
        if not isinstance(fields, dict):
            raise yaml.YAMLError("not a list of `name: value`")
    except (yaml.YAMLError, RecursionError) as error:
        draft.warnings.append(f"front matter is not valid YAML, read line by line: {_brief(error)}")
        fields = {key: value.strip("'\" ") for key, value in _FIELD.findall(match[1][:LIMIT_CHARACTERS])}
    draft.title = _word(fields.get("title"))
    draft.media = _word(fields.get("media"))
    date = _word(fields.get("date"))
    iso = _ISO_DATE.match(date)
    draft.date = iso[0] if iso else date
    draft.speakers = _words(fields.get("speakers"))
    draft.tags = _words(fields.get("tags"))
    return match.end()


def _word(value: object) -> str:
    return value.strip() if isinstance(value, str) else ""


def _words(value: object) -> list[str]:
    """A list of words, also from one line with commas."""
    if isinstance(value, str):
        return [part.strip() for part in value.strip("[]").split(",")]
    return [_word(part) for part in value] if isinstance(value, list) else []


def _brief(error: Exception) -> str:
    """What is wrong, and where, in one line."""
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark is not None:
        return f"{error.problem} in line {error.problem_mark.line + 2}"
    return "nested too deeply" if isinstance(error, RecursionError) else " ".join(str(error).split())[:200]
