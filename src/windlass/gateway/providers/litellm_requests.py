"""What goes up to litellm: of the settings all, of a request only what cannot choose a host, a key or a provider.

Source: litellm documentation, "Input params" and "Provider-specific params"; OpenAI API reference, "Chat completions".
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from importlib import metadata
from importlib.util import find_spec
from typing import Any

import msgspec

from windlass.errors import RequestError, SettingsError
from windlass.gateway.options import LitellmOptions, ProviderOptions
from windlass.gateway.provider import ANY

HARMFUL = ("1.82.7", "1.82.8")
"""Releases that stole credentials. They are in no lock of ours, and where they are installed they are not started."""
CHAT_FIELDS = frozenset(
    {
        "audio",
        "frequency_penalty",
        "function_call",
        "functions",
        "logit_bias",
        "logprobs",
        "max_completion_tokens",
        "max_tokens",
        "messages",
        "modalities",
        "n",
        "parallel_tool_calls",
        "prediction",
        "presence_penalty",
        "prompt_cache_key",
        "prompt_cache_retention",
        "reasoning_effort",
        "response_format",
        "safety_identifier",
        "seed",
        "service_tier",
        "stop",
        "store",
        "stream",
        "stream_options",
        "temperature",
        "thinking",
        "tool_choice",
        "tools",
        "top_logprobs",
        "top_p",
        "user",
        "verbosity",
        "web_search_options",
    }
)
"""What of a chat goes up unless `options.fields` names more: OpenAI's own fields and `thinking`, without `metadata`,
which litellm keeps for ends of its own. What else it is called with may configure it, the host included."""
_CONFIGURES = re.compile(
    r"base|url|endpoint|host|proxy|secret|credential|header|(api|access)_?key|callback|fallback|custom|client"
    r"|^(_|mock|aws|azure|vertex|model|metadata)",
    re.IGNORECASE,
)
_ADDRESSES = frozenset({"url", "uri", "image_url", "video_url", "audio_url", "file_url"})
_SCHEME = re.compile(r"\s*[A-Za-z][A-Za-z0-9+.-]*://")


def check(options: ProviderOptions, told: LitellmOptions) -> None:
    """SettingsError with the remedy where there can be no such provider."""
    who = f"provider {options.name}"
    if find_spec("litellm") is None:
        raise SettingsError(f"{who}: kind 'litellm' needs the extra; `pip install windlass[litellm]`")
    if (version := metadata.version("litellm")) in HARMFUL:
        raise SettingsError(f"{who}: litellm {version} steals credentials; replace it, and all keys of this machine")
    if any(model.name == ANY for model in options.models):
        raise SettingsError(
            f"{who}: kind 'litellm' takes no model named '*', for a name that litellm is given chooses the host; name "
            "each model, with its `upstream`"
        )
    if configures := [name for name in told.fields if _CONFIGURES.search(name)]:
        raise SettingsError(
            f"{who}, options.fields: with {configures[0]!r} a client could lead litellm elsewhere; set it in "
            "options.params, or leave it out"
        )


def keys(name: str, api_key: str) -> dict[str, Any]:
    """The key as litellm takes it; a JSON object holds several by litellm's names of them."""
    if not api_key.startswith("{"):
        return {"api_key": api_key} if api_key else {}
    try:
        return msgspec.json.decode(api_key, type=dict[str, Any])
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        raise SettingsError(
            f"provider {name}: its key begins as a JSON object and is none; mend the variable"
        ) from None


def fields_of(body: bytes) -> dict[str, Any]:
    """A request, read to its last field. RequestError (400) for a number that no float holds."""
    try:
        return msgspec.json.decode(body, type=dict[str, Any])
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as exc:
        raise RequestError(f"the body cannot be read: {exc!s:.200}", code="invalid_json") from exc


def refuse(asked: Mapping[str, Any], *, links: bool, stream: bool) -> None:
    """RequestError (400) for a chat that litellm would answer wrongly, or from here. links: addresses may go up."""
    if stream and asked.get("n") not in (None, 1):
        raise _unsupported("n", "litellm loses the ends of several answers in one stream; ask for one, or unstreamed")
    tools = asked.get("tools")
    if isinstance(tools, list) and any(isinstance(tool, dict) and tool.get("type") == "mcp" for tool in tools):
        raise _unsupported("tools", "litellm would call a tool of type 'mcp' from here; call it yourself")
    if not links:
        _without_addresses(asked["messages"])


def _unsupported(param: str, message: str) -> RequestError:
    return RequestError(message, code="unsupported_value", param=param)


def _without_addresses(messages: Any) -> None:
    """RequestError for a picture or file that is named by its address: litellm would fetch it from here."""
    for message in messages:
        content = message.get("content") if isinstance(message, dict) else None
        for part in content if isinstance(content, list) else ():
            if isinstance(part, dict) and part.get("type") != "text" and (found := _address(part)):
                raise _unsupported(
                    "messages",
                    f"{found[:80]!r} would be fetched from here; send the content itself as a data: URL, or let the "
                    "operator set options.links of the provider",
                )


def _address(value: Any, named: str = "") -> str:
    """The first address in a part of a message, '' without any."""
    if isinstance(value, str):
        is_address = (named in _ADDRESSES and not value.startswith("data:")) or _SCHEME.match(value)
        return value if is_address else ""
    if isinstance(value, Mapping):
        return next((found for name, one in value.items() if (found := _address(one, name))), "")
    if isinstance(value, list):
        return next((found for one in value if (found := _address(one, named))), "")
    return ""
