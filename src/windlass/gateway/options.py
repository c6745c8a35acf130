"""What can be set about the gateway: its keys, its providers and their models, how long bodies are kept."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

Role = Literal["viewer", "operator", "approver", "admin"]
Positive = Annotated[float, Meta(gt=0)]
NotNegative = Annotated[float, Meta(ge=0)]
OPENAI_COMPATIBLE = "openai_compatible"


class ModelOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One model of a provider. `upstream` is the provider's own name for it; prices in USD per million tokens.

    serves: what it is for; `auto` never sends a chat to a model for embeddings.
    """

    name: Annotated[str, Meta(min_length=1)]
    upstream: str = ""
    prompt_usd_per_million: NotNegative = 0.0
    completion_usd_per_million: NotNegative = 0.0
    serves: Literal["chat", "embeddings"] = "chat"


class ProviderOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One upstream. The key comes from the environment variable `api_key_env`.

    kind: `openai_compatible`, at `base_url`, or the name of a plugin (entry point of the group `windlass.providers`).
    options: for a plugin, whatever it reads from them.
    """

    name: Annotated[str, Meta(min_length=1)]
    models: tuple[ModelOptions, ...]
    base_url: Annotated[str, Meta(pattern="^(https?://|$)")] = ""
    kind: Annotated[str, Meta(min_length=1)] = OPENAI_COMPATIBLE
    options: dict[str, Any] = {}
    api_key_env: str = ""
    connect_timeout_s: Positive = 5.0
    first_byte_timeout_s: Positive = 120.0
    idle_timeout_s: Positive = 60.0

    def __post_init__(self) -> None:
        if self.kind == OPENAI_COMPATIBLE and not self.base_url:
            raise ValueError(f"provider {self.name!r} has no base_url; give one, or the `kind` of a plugin")
        if self.kind == OPENAI_COMPATIBLE and self.options:
            raise ValueError(f"provider {self.name!r} takes no options; they are for plugins, named by `kind`")


class KeyOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One API key. `sha256` is the hex digest of the key, so that the key itself is kept nowhere."""

    name: Annotated[str, Meta(min_length=1)]
    sha256: Annotated[str, Meta(pattern="^[0-9a-f]{64}$")]
    tenant: Annotated[str, Meta(pattern="^[A-Za-z0-9._-]{1,64}$")] = "default"
    workspaces: tuple[str, ...] = ("default",)
    role: Role = "operator"


class GatewayOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The call path. `auto` lists what the policy chooses from; empty: all upstream models, else the local."""

    auto: tuple[str, ...] = ()
    max_body_bytes: Annotated[int, Meta(ge=1024)] = 8 * 1024 * 1024
    keep_bodies: bool = True
    body_retention_days: NotNegative = 30.0
