"""Windlass: a runtime for LLM agents that only turns one way: better.

    from windlass import Client

    with Client() as client:
        print(client.chat([{"role": "user", "content": "Hello"}]).text)

Names load on first use, so that `import windlass` costs next to nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from windlass.client import AsyncClient, Client
    from windlass.errors import (
        AccessError,
        ErrorCategory,
        InputError,
        LedgerError,
        ModelUnknown,
        PolicyError,
        RequestError,
        SettingsError,
        UpstreamError,
        WindlassError,
        classify,
    )
    from windlass.gateway.embeddings import Embedded
    from windlass.records import Call, Decision, Feedback, Outcome, Reply, RunEvent, Scope, StepResult
    from windlass.settings import Settings, load

_HOMES = {
    "AsyncClient": "windlass.client",
    "Client": "windlass.client",
    "Embedded": "windlass.gateway.embeddings",
    "AccessError": "windlass.errors",
    "ErrorCategory": "windlass.errors",
    "InputError": "windlass.errors",
    "LedgerError": "windlass.errors",
    "ModelUnknown": "windlass.errors",
    "PolicyError": "windlass.errors",
    "RequestError": "windlass.errors",
    "SettingsError": "windlass.errors",
    "UpstreamError": "windlass.errors",
    "WindlassError": "windlass.errors",
    "classify": "windlass.errors",
    "Call": "windlass.records",
    "Decision": "windlass.records",
    "Feedback": "windlass.records",
    "Outcome": "windlass.records",
    "Reply": "windlass.records",
    "RunEvent": "windlass.records",
    "Scope": "windlass.records",
    "StepResult": "windlass.records",
    "Settings": "windlass.settings",
    "load": "windlass.settings",
}

__all__ = [
    "AccessError",
    "AsyncClient",
    "Call",
    "Client",
    "Decision",
    "Embedded",
    "ErrorCategory",
    "Feedback",
    "InputError",
    "LedgerError",
    "ModelUnknown",
    "Outcome",
    "PolicyError",
    "Reply",
    "RequestError",
    "RunEvent",
    "Scope",
    "Settings",
    "SettingsError",
    "StepResult",
    "UpstreamError",
    "WindlassError",
    "classify",
    "load",
]


if not TYPE_CHECKING:  # a type checker reads the imports above, and is to find a misspelled name

    def __getattr__(name: str) -> Any:
        if name not in _HOMES:
            raise AttributeError(f"module 'windlass' has no attribute {name!r}; it has {', '.join(__all__)}")
        return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
