"""The plan of an experiment as people write it, in YAML or JSON, and a commented one to begin with."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import msgspec
import yaml

from windlass.errors import InputError
from windlass.policies.trials.plan import METRICS, Guardrail, Plan, Variant

LIMIT_BYTES: Final = 64 * 1024
# The scanner's time grows with the square of the open brackets: 8,000 take it a second.
_BRACKETS: Final = 200
_DEPTH: Final = 6
_LARGEST: Final = 1e15
_REMEDY: Final = "`windlass experiment new` prints a plan with all keys"
_PLACE: Final = re.compile(r"(.*) - at `\$\.?(.*)`\Z", re.DOTALL)
_NUMBER_AS_WORD: Final = ("Expected `int`, got `str`", "Expected `float`, got `str`")
_DOES: Final = ("action", "shadow", "usual")

TEMPLATE: Final = """\
# The plan of an experiment. It is recorded before the first call is assigned, and never changes after that.
name: cheaper-model            # 1 to 40 letters, digits, _ . or -; a new one for each plan
hypothesis: The small model answers as well as what is usual.
owner: ""                      # who answers for it

# Where something is decided: model, prompt, trim, cache, ... The point has to be in the settings.
point: model

# The first is the baseline, all others are candidates. Each does one of
#   usual: true                what the point does without the experiment
#   action: <name>             always this action
#   shadow: <name>             what the point's shadow policy of that name would do
# share: of the units once the ramp has ended; those left out share what is left.
variants:
  as-usual: {usual: true, share: 0.5}
  small: {action: gpt-mini, share: 0.5}

# Who keeps a variant: each call by itself, a session (what was called for one run or answer), or a user.
unit: call

# What decides: quality (of calls with feedback), cost, latency or error.
primary: quality
# Units per variant with that metric. `windlass experiment plan` says how many find which difference.
size: 1000
alpha: 0.05                    # the chance to find a difference where there is none
secondary: [cost, latency]     # reported, corrected for how many they are

# What must not get worse, by more than this: of quality and error as a share (0.02 is 2 points), of cost and latency as
# a part (0.1 is a tenth). All are watched at every call; harm ends the experiment at once.
guardrails:
  quality: 0.0
  error: 0.0
harm_alpha: 0.03               # the chance that harm is found anywhere where there is none

# The part of their shares that candidates get, stage by stage. The last stage decides.
ramp: [0.1, 1.0]
ramp_after: 100                # units of a candidate without an alarm before the next stage
"""


class _Loader(yaml.SafeLoader):
    """Words, numbers, truth values, lists and mappings, each key once; dates stay words, and there are no references,
    which may stand for more than fits anywhere."""

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("a reference like *name; write out what it stands for")
        return super().compose_node(parent, index)

    def construct_mapping(self, node: yaml.Node, deep: bool = False) -> dict[Any, Any]:
        pairs = self.construct_pairs(node, deep=True)
        return _unique([(key, value) for key, value in pairs])


# Not the C loader: it ends the process on 30,000 open brackets, where this one raises RecursionError.
_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in found if tag.rsplit(":", 1)[1] in ("bool", "int", "float", "null")]
    for first, found in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def plan_of(written: str | bytes | Mapping[str, Any]) -> Plan:
    """The plan that was written down. InputError or PolicyError names the key that is wrong, and the remedy."""
    fields = dict(written) if isinstance(written, Mapping) else _parsed(written)
    _check_numbers(fields, "", _DEPTH)
    _check_keys("the plan", fields, Plan.__struct_fields__)
    if "variants" in fields:
        fields["variants"] = _shared(list(_variants(fields["variants"])))
    if "guardrails" in fields:
        fields["guardrails"] = list(_guardrails(fields["guardrails"]))
    try:
        return msgspec.convert(fields, Plan)
    except msgspec.ValidationError as exc:
        raise InputError(_explained(str(exc))) from exc


def _parsed(written: str | bytes) -> dict[str, Any]:
    """The fields of a text."""
    data = written if isinstance(written, bytes) else written.encode("utf-8", "surrogatepass")
    if len(data) > LIMIT_BYTES:
        raise InputError(f"a plan of {len(data):,} bytes; give at most {LIMIT_BYTES:,}")
    fields: Any
    try:
        text = data.decode()
        if text.lstrip().startswith("{"):
            fields = json.loads(text, object_pairs_hook=_unique)
        else:
            if text.count("[") + text.count("{") > _BRACKETS:
                raise yaml.YAMLError(f"more than {_BRACKETS} brackets")
            fields = yaml.load(text, Loader=_Loader)
    except (yaml.YAMLError, ValueError, RecursionError) as exc:
        raise InputError(f"the plan is neither YAML nor JSON: {_brief(exc)}") from exc
    if not isinstance(fields, dict):
        raise InputError(f"the plan is no list of `key: value`; {_REMEDY}")
    return fields


def _unique(pairs: Sequence[tuple[Any, Any]]) -> dict[Any, Any]:
    """A mapping in which nothing is said twice."""
    found: dict[Any, Any] = {}
    for key, value in pairs:
        if not isinstance(key, str):
            raise yaml.YAMLError(f"key {str(key)[:40]!r} is no word; put it in quotes")
        if key in found:
            raise yaml.YAMLError(f"key {key[:40]!r} stands twice; leave one out")
        found[key] = value
    return found


def _check_numbers(value: object, place: str, depth: int) -> None:
    """InputError for a number that is none, and for what is nested deeper than a plan is."""
    if isinstance(value, int | float) and not abs(value) <= _LARGEST:
        # Not as it stands: Python writes no whole number of more than 4,300 digits down.
        short = isinstance(value, float) or value.bit_length() < 14_000
        told = str(value)[:20] if short else "so large a number"
        raise InputError(f"{place or 'the plan'}: {told} is no number to plan with; give one up to 1e15")
    if not isinstance(value, Mapping | list | tuple):
        return
    if not depth:
        raise InputError(f"{place[:80]}: nested too deeply; {_REMEDY}")
    items = value.items() if isinstance(value, Mapping) else enumerate(value)
    for key, one in items:
        _check_numbers(one, f"{place}.{str(key)[:40]}".lstrip("."), depth - 1)


def _check_keys(place: str, fields: Mapping[str, Any], known: Sequence[str]) -> None:
    for key in fields:
        if key not in known:
            raise InputError(f"{place}: key {str(key)[:40]!r} is unknown; known are {', '.join(known)}")


def _variants(written: object) -> Iterator[dict[str, Any]]:
    """Each variant as a mapping with its name, from a list of such, or from a mapping by name."""
    if isinstance(written, Mapping):
        for name, does in written.items():
            fields = {"usual": True} if does == "usual" else does
            if not isinstance(fields, Mapping):
                raise InputError(f"variants.{str(name)[:40]}: write `usual`, or {{action: ..., share: ...}}")
            yield _variant(f"variants.{str(name)[:40]}", {"name": name, **_without_name(name, fields)})
        return
    if not isinstance(written, list | tuple):
        raise InputError("variants: give one for each name, like `small: {action: gpt-mini, share: 0.5}`")
    for place, fields in enumerate(written):
        if not isinstance(fields, Mapping):
            raise InputError(f"variants[{place}]: write {{name: ..., action: ..., share: ...}}")
        yield _variant(f"variants[{place}]", dict(fields))


def _without_name(name: str, fields: Mapping[str, Any]) -> Mapping[str, Any]:
    if "name" in fields:
        raise InputError(f"variants.{str(name)[:40]}: its name stands before it; leave out `name`")
    return fields


def _variant(place: str, fields: dict[str, Any]) -> dict[str, Any]:
    """The fields of a Variant, with `usual` said by saying nothing else."""
    _check_keys(place, fields, (*Variant.__struct_fields__, "usual"))
    said = [key for key in _DOES if fields.get(key, "") != ""]
    if len(said) > 1 or fields.get("usual", True) is not True:
        raise InputError(f"{place}: {' and '.join(said)}; give one of action: <name>, shadow: <name>, usual: true")
    return {key: value for key, value in fields.items() if key != "usual"}


def _shared(variants: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Variants without a share get equal parts of what is left."""
    given = [one["share"] for one in variants if "share" in one]
    missing = len(variants) - len(given)
    if not missing or not all(isinstance(share, int | float) for share in given):
        return variants
    left = max(1.0 - math.fsum(given), 0.0) / missing
    return [{"share": left, **one} for one in variants]


def _guardrails(written: object) -> Iterator[dict[str, Any]]:
    """Each as a mapping, from a list of such or of metrics, or from a mapping from metric to margin."""
    if isinstance(written, Mapping):
        _check_keys("guardrails", written, METRICS)
        yield from ({"metric": metric, "margin": margin} for metric, margin in written.items())
        return
    if not isinstance(written, list | tuple):
        raise InputError(
            f"guardrails: give a margin for each metric, like `quality: 0.02`; known are {', '.join(METRICS)}"
        )
    for place, one in enumerate(written):
        fields = {"metric": one} if isinstance(one, str) else one
        if not isinstance(fields, Mapping):
            raise InputError(f"guardrails[{place}]: write {{metric: quality, margin: 0.02}}")
        _check_keys(f"guardrails[{place}]", fields, Guardrail.__struct_fields__)
        yield dict(fields)


def _explained(complaint: str) -> str:
    """What msgspec says, with the key first."""
    found = _PLACE.match(complaint)
    what, place = found.groups() if found else (complaint, "")
    remedy = "write a plain number like 0.05" if what in _NUMBER_AS_WORD else _REMEDY
    return f"{place or 'the plan'}: {what[:1].lower()}{what[1:]}; {remedy}"


def _brief(exc: Exception) -> str:
    """What is wrong, and where, in one line."""
    if isinstance(exc, yaml.MarkedYAMLError) and exc.problem_mark is not None:
        return f"{exc.problem} in line {exc.problem_mark.line + 1}"
    return "nested too deeply" if isinstance(exc, RecursionError) else " ".join(str(exc).split())[:200]
