"""Whom a server may answer without a key."""

from __future__ import annotations

from windlass.errors import SettingsError
from windlass.settings import LOOPBACK, Settings


def guard(settings: Settings, *, open_to_all: bool) -> None:
    """SettingsError where the server would answer other machines without asking for a key."""
    if open_to_all and settings.server.host not in LOOPBACK:
        raise SettingsError(
            f"server.host is {settings.server.host}, beyond loopback, but there is no key; make one with "
            "`windlass keys create NAME`, add [[keys]] to windlass.toml, or listen on 127.0.0.1"
        )
