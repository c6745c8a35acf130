"""What can be set about the gateway: its keys, its providers and their models, how long bodies are kept."""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeVar

import msgspec
from msgspec import Meta

S = TypeVar("S", bound=msgspec.Struct)
Role = Literal["viewer", "operator", "approver", "admin"]
Positive = Annotated[float, Meta(gt=0)]
NotNegative = Annotated[float, Meta(ge=0)]
OPENAI_COMPATIBLE = "openai_compatible"
ANTHROPIC = "anthropic"
GEMINI = "gemini"
AZURE = "azure"
LITELLM = "litellm"
BASE_URLS = {
    ANTHROPIC: "https://api.anthropic.com/v1",
    GEMINI: "https://generativelanguage.googleapis.com/v1beta",
}
"""Where a kind's upstream is unless `base_url` says otherwise."""


class ModelOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One model of a provider. `upstream` is the provider's own name for it; prices that are not set are the
    published ones (`windlass prices`).

    include_usage: False for an upstream that refuses `stream_options`; its streams are then billed by estimate.
    serves: what it is for; `auto` chooses among those for chats, for vectors, or for speech. fallbacks: models that
    answer where this one fails; without any, a chat for `auto` may go to whatever else could have been chosen.
    space: models for vectors that have the same one give vectors that compare; each its own unless set.
    """

    name: Annotated[str, Meta(min_length=1)]
    upstream: str = ""
    prompt_usd_per_million: NotNegative | None = None
    completion_usd_per_million: NotNegative | None = None
    cache_read_usd_per_million: NotNegative | None = None
    cache_write_usd_per_million: NotNegative | None = None
    cache_write_1h_usd_per_million: NotNegative | None = None
    reasoning_usd_per_million: NotNegative | None = None
    audio_prompt_usd_per_million: NotNegative | None = None
    audio_completion_usd_per_million: NotNegative | None = None
    batch_prompt_usd_per_million: NotNegative | None = None
    batch_completion_usd_per_million: NotNegative | None = None
    image_usd: NotNegative | None = None
    audio_usd_per_minute: NotNegative | None = None
    include_usage: bool = True
    serves: Literal["chat", "embeddings", "transcriptions", "other"] = "chat"
    fallbacks: tuple[str, ...] = ()
    space: str = ""


class AnthropicOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What an `anthropic` provider's `options` may hold.

    version, beta: the headers `anthropic-version` and `anthropic-beta`. max_tokens: what is asked for where a chat sets
    no limit, which Anthropic wants. adaptive: its models take an effort in words instead of a budget for thinking;
    unset, each goes by its name.
    """

    version: Annotated[str, Meta(pattern="^[0-9]{4}-[0-9]{2}-[0-9]{2}$")] = "2023-06-01"
    beta: tuple[Annotated[str, Meta(pattern="^[A-Za-z0-9._-]+$")], ...] = ()
    max_tokens: Annotated[int, Meta(ge=1)] = 4_096
    adaptive: bool | None = None


class AzureOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What an `azure` provider's `options` may hold.

    api_version: a date asks `/openai/deployments/<deployment>/...` in that version of the API; empty, `preview` and
    `latest` ask `/openai/v1/...`.
    """

    api_version: Annotated[str, Meta(pattern="^([0-9]{4}-[0-9]{2}-[0-9]{2}(-preview)?|preview|latest)?$")] = ""


class LitellmOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a `litellm` provider's `options` may hold.

    params: what litellm is told of the upstream besides: `aws_region_name`, `vertex_project`, `api_version`.
    fields: of a chat's fields those that go up beside OpenAI's own, such as `top_k`; the others stay here.
    links: pictures and files may be named by their address; litellm fetches them from here for an upstream that takes
    none.
    """

    params: dict[str, str | int | float | bool] = {}
    fields: tuple[Annotated[str, Meta(pattern="^[A-Za-z][A-Za-z0-9_]*$")], ...] = ()
    links: bool = False


class NoOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """For a kind that takes none."""


KIND_OPTIONS: dict[str, type[msgspec.Struct]] = {
    OPENAI_COMPATIBLE: NoOptions,
    ANTHROPIC: AnthropicOptions,
    GEMINI: NoOptions,
    AZURE: AzureOptions,
    LITELLM: LitellmOptions,
}
"""Our kinds, and what `options` of each are read as."""


class ProviderOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One upstream. The key comes from the environment variable `api_key_env`.

    kind: `openai_compatible`, `anthropic`, `gemini`, `azure`, `litellm` (an extra), or the name of a plugin (entry
    point of the group `windlass.providers`). base_url: without query; `anthropic` and `gemini` know their own, and
    `litellm` most of its upstreams', `azure` wants the resource's. options: by kind, see below; for a plugin, whatever
    it reads from them.
    endpoints: which of `responses` and `messages` it speaks itself; the others are translated into chats. Empty: those
    of the kind.
    transport: the HTTP client of our kinds; `turbo` takes less than half the time of the processor.
    """

    name: Annotated[str, Meta(min_length=1)]
    models: tuple[ModelOptions, ...]
    endpoints: tuple[str, ...] = ()
    base_url: Annotated[str, Meta(pattern="^(https?://|$)")] = ""
    kind: Annotated[str, Meta(min_length=1)] = OPENAI_COMPATIBLE
    options: dict[str, Any] = {}
    api_key_env: str = ""
    transport: Literal["aiohttp", "turbo"] = "aiohttp"
    connect_timeout_s: Positive = 5.0
    first_byte_timeout_s: Positive = 120.0
    idle_timeout_s: Positive = 60.0

    def __post_init__(self) -> None:
        if self.kind not in KIND_OPTIONS:
            return
        if not self.base_url:
            if self.kind not in BASE_URLS and self.kind != LITELLM:
                raise ValueError(f"provider {self.name!r} has no base_url; give one, or another `kind`")
            msgspec.structs.force_setattr(self, "base_url", BASE_URLS.get(self.kind, ""))
        if "?" in self.base_url or "#" in self.base_url:
            raise ValueError(f"provider {self.name!r}: base_url ends before any ? or #, a path comes behind it")
        self.of_kind(KIND_OPTIONS[self.kind])

    def of_kind(self, kind: type[S]) -> S:
        """`options`, read as those of our kind. ValueError names what it does not know."""
        try:
            return msgspec.convert(self.options, kind)
        except msgspec.ValidationError as exc:
            what, _, where = str(exc).partition(" - at `$.")
            at = f"options.{where.rstrip('`')}" if where else "options"
            known = ", ".join(kind.__struct_fields__) or "no options"
            raise ValueError(f"provider {self.name!r}, {at}: {what}; {self.kind} takes {known}") from exc


class KeyOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One API key. `sha256` is the hex digest of the key, so that the key itself is kept nowhere."""

    name: Annotated[str, Meta(min_length=1)]
    sha256: Annotated[str, Meta(pattern="^[0-9a-f]{64}$")]
    tenant: Annotated[str, Meta(pattern="^[A-Za-z0-9._-]{1,64}$")] = "default"
    workspaces: tuple[str, ...] = ("default",)
    role: Role = "operator"


class LimitOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One limit: how much whom it is about may use up in a window of time.

    tenant, team, key, user, model: whom it is about; what is left empty is about all of them.
    per: who has a count of their own; `all` is one count for everybody it is about.
    window: in UTC, `month` is the calendar's; `total` never ends.
    usd, requests, tokens: at most so much in a window; concurrent: at most so many calls under way at once.
    """

    name: Annotated[str, Meta(min_length=1, max_length=100)]
    tenant: str = ""
    team: str = ""
    key: str = ""
    user: str = ""
    model: str = ""
    per: Literal["all", "tenant", "team", "key", "user", "model"] = "all"
    window: Literal["minute", "hour", "day", "month", "total"] = "minute"
    usd: NotNegative | None = None
    requests: Annotated[int, Meta(ge=0)] | None = None
    tokens: Annotated[int, Meta(ge=0)] | None = None
    concurrent: Annotated[int, Meta(ge=0)] | None = None

    def __post_init__(self) -> None:
        if self.usd is None and self.requests is None and self.tokens is None and self.concurrent is None:
            raise ValueError(f"limit {self.name!r} limits nothing; give usd, requests, tokens or concurrent")


class GatewayOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The call path. `auto` lists what the policy chooses from; empty: all upstream models, else the local.

    auto_embeddings: what it chooses from for vectors, all of one `space`; empty: the embedder of this process, else the
    models that serve embeddings. auto_transcriptions: for transcriptions and translations of speech; empty: the models
    that serve transcriptions.
    key_secret_env: names the variable that holds what virtual keys are hashed under; machines that share a database
    share it. Empty: a file in the state folder.
    reserved_tokens: held of budgets for an answer whose length the request leaves open.
    max_upload_bytes: for forms, which carry sound and pictures. pass_through: the provider that gets requests for
    endpoints without a model, such as files and batches; all tenants share its account, so it is off unless set.
    idempotency_hours: so long the reply to a request with an `Idempotency-Key` answers its repetitions.
    idempotency_max_bytes: a larger reply is not stored, and its repetition is a call of its own; 0: none is.
    """

    auto: tuple[str, ...] = ()
    auto_embeddings: tuple[str, ...] = ()
    auto_transcriptions: tuple[str, ...] = ()
    pass_through: str = ""
    key_secret_env: str = ""
    reserved_tokens: Annotated[int, Meta(ge=1)] = 4_096
    max_body_bytes: Annotated[int, Meta(ge=1024)] = 8 * 1024 * 1024
    max_upload_bytes: Annotated[int, Meta(ge=1024)] = 26 * 1024 * 1024
    keep_bodies: bool = True
    body_retention_days: NotNegative = 30.0
    idempotency_hours: Positive = 24.0
    idempotency_max_bytes: Annotated[int, Meta(ge=0)] = 4 * 1024 * 1024
