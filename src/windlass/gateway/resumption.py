"""The request that goes on with a text that broke off: the same chat, with the text so far as the assistant's.

Models that go on with such a message get it as their last one; all others a word of the user behind it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Mapping
from typing import Any

import msgspec

from windlass.gateway.endpoints import whole_json
from windlass.gateway.money.estimate import estimate_tokens
from windlass.gateway.options import ModelOptions
from windlass.gateway.provider import JSON, Provider, ProviderReply, ProviderRequest, RawRequest, Relays
from windlass.gateway.resilience.attempt import Target
from windlass.gateway.wire import Chat, parse_chat, renamed

ASK = (
    "Your answer was cut off by a failed connection. Go on exactly where it stopped, with the very next character: "
    "repeat nothing of it, and say nothing about this."
)
ASK_TOKENS = 64
"""No less than `ASK`, and what is around two more messages, come to."""


def is_text(chat: Chat) -> bool:
    """Whether a chat asks for nothing but text, once, that is for another request to go on with."""
    form = _value(chat.fields, "response_format")
    free = form is None or (isinstance(form, dict) and form.get("type") == "text")
    spoken = _value(chat.fields, "modalities") not in (None, ["text"])
    several = chat.choices > 1 or _value(chat.fields, "logprobs")
    return free and not spoken and not several and chat.messages[-1].role != "assistant"


def asked(request: ProviderRequest, text: str, target: Target) -> Awaitable[ProviderReply]:
    """The second request on its way to one target."""
    provider, model = target
    prefilled = prefills(target, request.chat)
    body = _body(request.body, model, text, ask=not prefilled)
    again = ProviderRequest(request.call, model.name, body, parse_chat(body))
    return _prefilled(provider, again, text) if prefilled else _sent(provider, again)


def prefills(target: Target, chat: Chat) -> bool:
    """Whether a model goes on with an assistant's message that comes last: Claude before 4.6, unless it thinks first.

    Source: Anthropic's guides "Prefill Claude's response", "Extended thinking" and "What's new in Claude 4.6". Without
    a limit in the chat the provider's own has to stand in for it, which only the other way knows.
    """
    provider, model = target
    name = model.upstream or model.name
    if not (chat.most_tokens and "claude" in name and isinstance(provider, Relays) and provider.serves("messages")):
        return False
    from windlass.gateway.dialects.messages_thinking import is_adaptive
    from windlass.gateway.providers.anthropic import Anthropic

    thinks = _value(chat.fields, "reasoning_effort") not in (None, "none")
    return isinstance(provider, Anthropic) and not is_adaptive(name) and not thinks


def _value(fields: Mapping[str, msgspec.Raw], name: str) -> Any:
    """A field's value; an ellipsis for one that nobody can read, as a number beyond all numbers."""
    try:
        return msgspec.json.decode(fields.get(name, b"null"))
    except msgspec.MsgspecError:
        return ...


async def _sent(provider: Provider, request: ProviderRequest) -> ProviderReply:
    reply = await provider.send(request)
    if not whole_json(reply):
        return reply
    from windlass.gateway.foreign import in_events

    return in_events("chat", "chat", reply, request.call, request.model)


def _body(body: bytes, model: ModelOptions, text: str, *, ask: bool) -> bytes:
    """The chat for another model, of whose answer `text` is there already; with `ask` it says so itself."""
    fields = msgspec.json.decode(body, type=dict[str, msgspec.Raw])
    encode = msgspec.json.encode
    if ask:
        said = msgspec.json.decode(fields["messages"], type=list[msgspec.Raw])
        more = {"role": "assistant", "content": text}, {"role": "user", "content": ASK}
        fields["messages"] = msgspec.Raw(encode([*said, *more]))
    for name in ("max_tokens", "max_completion_tokens"):
        most = _value(fields, name)
        if type(most) is int:
            fields[name] = msgspec.Raw(encode(max(1, most - estimate_tokens(text))))
    if model.include_usage:
        options = _value(fields, "stream_options")
        given = options if isinstance(options, dict) else {}
        fields["stream_options"] = msgspec.Raw(encode({**given, "include_usage": True}))
    else:
        fields.pop("stream_options", None)
    return renamed(fields, model.upstream or model.name)


async def _prefilled(provider: Provider, request: ProviderRequest, text: str) -> ProviderReply:
    """A chat as Messages whose last one holds the text so far; Anthropic takes none with white space at its end."""
    from windlass.gateway.dialects import translation
    from windlass.gateway.providers import translated

    async def post(_model: str, body: bytes) -> ProviderReply:
        asked = msgspec.json.decode(body)
        asked["messages"].append({"role": "assistant", "content": text.rstrip()})
        assert isinstance(provider, Relays), "only those are asked so"
        raw = RawRequest(request.call, request.model, "POST", "/messages", msgspec.json.encode(asked), JSON)
        return await provider.relay(raw)

    return await translated.answer(translation("chat", "messages", call=request.call), request, post)
