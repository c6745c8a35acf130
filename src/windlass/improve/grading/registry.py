"""The one registry of graders, by the name that settings, server and command line use.

A name that is not ours is looked for among the plugins (entry points of the group `windlass.graders`): a callable that
takes the options as a mapping and returns a Check or a Judge of that name. It is accepted only if it keeps the
contract, see `check_grader`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import fields
from typing import Any, NamedTuple

import msgspec

from windlass import plugins
from windlass.errors import SettingsError, WindlassError
from windlass.improve.grading.check import check_grader
from windlass.improve.grading.citation import Citation, CitationOptions
from windlass.improve.grading.code import Code, CodeOptions
from windlass.improve.grading.exact import Exact, ExactOptions
from windlass.improve.grading.grader import Grader
from windlass.improve.grading.judge import JudgeOptions, ModelJudge
from windlass.improve.grading.numeric import Numeric, NumericOptions
from windlass.improve.grading.pattern import Regex, RegexOptions
from windlass.improve.grading.schema import JsonSchema, JsonSchemaOptions
from windlass.improve.grading.signals import Edit, EditOptions, Retry, RetryOptions


class _Kind(NamedTuple):
    """How to make one: `make(options)`, with the options as their class."""

    options: type[Any]
    make: Callable[[Any], Grader]


_GRADERS: dict[str, _Kind] = {
    "citation": _Kind(CitationOptions, Citation),
    "code": _Kind(CodeOptions, Code),
    "edit": _Kind(EditOptions, Edit),
    "exact": _Kind(ExactOptions, Exact),
    "json_schema": _Kind(JsonSchemaOptions, JsonSchema),
    "judge": _Kind(JudgeOptions, ModelJudge),
    "numeric": _Kind(NumericOptions, Numeric),
    "regex": _Kind(RegexOptions, Regex),
    "retry": _Kind(RetryOptions, Retry),
}


def names() -> tuple[str, ...]:
    """Every name of ours that `make` knows, sorted; those of plugins are not among them."""
    return tuple(sorted(_GRADERS))


def options(name: str) -> type[Any]:
    """The class of the options of a grader of ours; its docstring says what each of them does."""
    return _GRADERS[name].options


def make(name: str, given: Mapping[str, Any]) -> Grader:
    """A grader. SettingsError, naming the known ones, for an unknown name or option or a value out of range, and for a
    plugin that cannot be loaded or breaks the contract."""
    if name not in _GRADERS:
        return _plugged(name, given)
    entry = _GRADERS[name]
    known = [field.name for field in fields(entry.options)]
    if unknown := sorted(set(given) - set(known)):
        raise SettingsError(f"grader {name} has no option {', '.join(unknown)}; known: {', '.join(known) or 'none'}")
    try:
        return entry.make(msgspec.convert(dict(given), entry.options))
    except msgspec.ValidationError as exc:
        raise SettingsError(f"grader {name}: {exc}; got {str(dict(given))[:200]}") from exc
    except SettingsError as exc:
        raise SettingsError(f"grader {name}: {exc}") from exc


def _plugged(name: str, given: Mapping[str, Any]) -> Grader:
    plugin = plugins.load(plugins.GRADERS, name)
    if plugin is None:
        known = sorted({*names(), *plugins.names(plugins.GRADERS)})
        raise SettingsError(f"there is no grader {name!r}; known: {', '.join(known)}")
    try:
        made: Grader = plugin.value(dict(given))
        check_grader(made, name)
        return made
    except KeyboardInterrupt:
        raise
    except BaseException as exc:  # a stranger's grader may raise anything, SystemExit too; whose it was must be said
        words = str(exc) if isinstance(exc, WindlassError) else f"{type(exc).__name__}: {exc}"
        raise SettingsError(f"grader {name!r} of {plugin.distribution} is not accepted: {words}") from exc
