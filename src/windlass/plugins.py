"""Plugins: what other distributions offer under a group of entry points, found by name and loaded when asked for.

[project.entry-points."windlass.policies"]
coin = "my_policies:make"
"""

from __future__ import annotations

from importlib.metadata import EntryPoint, entry_points
from typing import Any, NamedTuple

from windlass.errors import SettingsError

POLICIES = "windlass.policies"
"""name -> a callable that takes the options, a mapping, and returns a Policy; see `windlass.policies.registry`."""
PROVIDERS = "windlass.providers"
"""name -> a callable that takes a ProviderOptions and the key and returns a Provider; see `gateway.providers`."""

RECOGNISERS = "windlass.recognisers"
"""name -> a callable that takes the options, a mapping, and returns a recogniser; see `windlass.gateway.redaction`."""
GRADERS = "windlass.graders"
"""name -> a callable that takes the options, a mapping, and returns a grader; see `windlass.improve.grading`."""


class Plugin(NamedTuple):
    """One loaded entry point: what it refers to, and the `name version` of the distribution that brought it."""

    name: str
    value: Any
    distribution: str


def names(group: str) -> tuple[str, ...]:
    """The names that are offered in `group`, sorted; nothing is imported for it."""
    return tuple(sorted({point.name for point in entry_points(group=group)}))


def load(group: str, name: str) -> Plugin | None:
    """The plugin of that name, imported; None where no distribution offers it.

    SettingsError, naming the distributions, where two offer it or where it cannot be imported.
    """
    # The same distribution may be found on several folders of the path; the first one found is the one imported.
    found = {_distribution(point).partition(" ")[0]: point for point in reversed(entry_points(group=group, name=name))}
    if not found:
        return None
    if len(found) > 1:
        raise SettingsError(f"{group} {name!r} is offered by {' and '.join(sorted(found))}; uninstall all but one")
    (point,) = found.values()
    try:
        return Plugin(name, point.load(), _distribution(point))
    except KeyboardInterrupt:
        raise
    except BaseException as exc:
        raise SettingsError(
            f"{group} {name!r} of {_distribution(point)} cannot be loaded from {point.value}: "
            f"{type(exc).__name__}: {exc}"
        ) from exc


def _distribution(point: EntryPoint) -> str:
    return f"{point.dist.name} {point.dist.version}" if point.dist else "an unknown distribution"
