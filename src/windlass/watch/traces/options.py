"""What can be set about traces."""

from __future__ import annotations

import importlib.util
from typing import Annotated
from urllib.parse import unquote, urlsplit

import msgspec
from msgspec import Meta

from windlass.errors import SettingsError

HEADERS_SECRET = "telemetry:headers"
"""Where the settings keep the headers among their secrets; no provider has this name."""
_PATH = "/v1/traces"
_OURS = frozenset({"host", "content-length", "content-type", "transfer-encoding", "connection"})


class TelemetryOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where spans go. Empty: nowhere, and nothing of it is loaded. Needs the extra `telemetry`.

    otlp_endpoint: of a receiver of OTLP over HTTP; `/v1/traces` is added where it does not end so. headers_env: the
    environment variable that holds the headers, as in `OTEL_EXPORTER_OTLP_HEADERS`: `name=value,name=value`.
    export_bodies: send what was asked and answered, as far as it is kept, and the comments of feedback.
    timeout_s: for one request to the receiver, in all.
    """

    otlp_endpoint: str = ""
    headers_env: str = ""
    service_name: Annotated[str, Meta(min_length=1)] = "windlass"
    export_bodies: bool = False
    timeout_s: Annotated[float, Meta(gt=0, le=60)] = 10.0

    def __post_init__(self) -> None:
        if not self.otlp_endpoint:
            return
        try:
            parts = urlsplit(self.otlp_endpoint)
            known = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
        except ValueError:
            known = False
        if not known:
            raise ValueError("otlp_endpoint is no URL; write one such as http://127.0.0.1:4318")
        if "@" in parts.netloc:
            raise ValueError("otlp_endpoint holds a password; put an Authorization header into headers_env's variable")
        if parts.query or parts.fragment or not self.otlp_endpoint.isascii() or not self.otlp_endpoint.isprintable():
            raise ValueError("otlp_endpoint has a query, a fragment, or a character that no URL has; leave it out")
        if " " in self.otlp_endpoint:
            raise ValueError("otlp_endpoint has a blank; leave it out")

    @property
    def url(self) -> str:
        """Where spans are posted."""
        base = self.otlp_endpoint.rstrip("/")
        return base if base.endswith(_PATH) else base + _PATH


def installed() -> bool:
    """Whether the extra is there that makes spans of OTLP; none of it is loaded."""
    try:
        return importlib.util.find_spec("opentelemetry.proto.collector") is not None
    except ImportError:
        return False


def headers(text: str, variable: str) -> dict[str, str]:
    """The headers in `name=value,name=value`, values percent-decoded. SettingsError names the variable, not the value.

    As in the OpenTelemetry specification, "Specifying headers via environment variables".
    """
    found: dict[str, str] = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        name, equals, value = part.partition("=")
        name, value = name.strip().lower(), unquote(value.strip())
        plain = name.isascii() and name.replace("-", "").replace("_", "").isalnum()
        if not (equals and plain and value.isprintable() and value.isascii()):
            raise SettingsError(f"the variable {variable} is no list of headers; write name=value,name=value")
        if name in _OURS:
            raise SettingsError(f"the variable {variable} sets {name}, which every request has already; leave it out")
        found[name] = value
    return found
