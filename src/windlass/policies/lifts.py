"""Lifts: by how much what is expected of an action is to be raised for the user of a call, as names of a context."""

from __future__ import annotations

from typing import Final, Protocol, runtime_checkable

from windlass.stats.features import Context

USER: Final = "who:user"
"""The name in a context of the number that stands for a user."""
LIFT: Final = "lift:"
"""Before the name of an action: what the guard `personal` adds for the policy inside."""


@runtime_checkable
class Lifted(Protocol):
    """A policy that adds `lift:<action>` of a context that names a user to what it expects of that action."""

    def expected(self, context: Context, action: str) -> float:
        """The reward that is expected of an action, lifts left out."""
        ...
