"""What goes up to litellm and what comes back, without litellm: it is not in the tests' own environment.

With it, `tests/scenario/test_litellm.py` runs the provider, in an environment from the lock.
"""

from __future__ import annotations

import base64
import json
import struct
from importlib import metadata
from typing import Any

import pytest

from windlass.errors import ErrorCategory, RequestError, SettingsError, UpstreamError, classify, register
from windlass.gateway.options import LitellmOptions, ModelOptions, ProviderOptions
from windlass.gateway.providers import litellm_replies, litellm_requests, upstreams
from windlass.gateway.providers.litellm_replies import LitellmFailure, completion, vectors
from windlass.gateway.providers.litellm_requests import CHAT_FIELDS, check, fields_of, keys, refuse

C = ErrorCategory


def options(*models: str, **more: Any) -> ProviderOptions:
    named = tuple(ModelOptions(name=model) for model in models or ("m",))
    return ProviderOptions(name="tail", kind="litellm", models=named, **more)


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(litellm_requests, "find_spec", lambda _name: object())
    monkeypatch.setattr(metadata, "version", lambda _name: "1.106.2")


# --- the settings


def test_without_the_extra_the_remedy_is_named() -> None:
    with pytest.raises(
        SettingsError, match=r"provider tail: kind 'litellm' needs the extra; `pip install windlass\[li"
    ):
        upstreams.make(options())


@pytest.mark.parametrize("version", ["1.82.7", "1.82.8"])
def test_a_release_that_steals_keys_is_not_started(
    installed: None, monkeypatch: pytest.MonkeyPatch, version: str
) -> None:
    monkeypatch.setattr(metadata, "version", lambda _name: version)
    with pytest.raises(SettingsError, match=f"litellm {version} steals credentials"):
        check(options(), LitellmOptions())


def test_a_model_of_any_name_is_refused_for_names_choose_the_host(installed: None) -> None:
    check(options("a", "b"), LitellmOptions())
    with pytest.raises(SettingsError, match=r"no model named '\*'"):
        check(options("a", "*"), LitellmOptions())


@pytest.mark.parametrize(
    "name",
    [
        "api_base",
        "base_url",
        "api_key",
        "API_KEY",
        "aws_bedrock_runtime_endpoint",
        "aws_secret_access_key",
        "azure_ad_token",
        "client",
        "custom_llm_provider",
        "extra_headers",
        "fallbacks",
        "langfuse_host",
        "metadata",
        "mock_response",
        "model_list",
        "proxy_server_request",
        "s3_endpoint_url",
        "success_callback",
        "vertex_credentials",
    ],
)
def test_no_field_that_configures_may_come_from_a_client(installed: None, name: str) -> None:
    assert name not in CHAT_FIELDS
    with pytest.raises(SettingsError, match=f"options.fields: with '{name}' a client"):
        check(options(), LitellmOptions(fields=("top_k", name)))


@pytest.mark.parametrize("name", ["top_k", "min_p", "safety_settings", "repetition_penalty", "guardrailConfig"])
def test_fields_of_an_upstream_may_be_let_pass(installed: None, name: str) -> None:
    check(options(), LitellmOptions(fields=(name,)))


@pytest.mark.parametrize(
    ("told", "said"),
    [
        ({"fields": ["_skip_mcp_handler"]}, "matching regex"),
        ({"fields": ["top-k"]}, "matching regex"),
        ({"params": {"a": ["b"]}}, "got `array`"),
        ({"param": {}}, "unknown field `param`; litellm takes params, fields, links"),
    ],
)
def test_options_that_make_no_sense_are_named(told: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        options(options=told)


def test_no_base_url_is_needed_and_none_is_made_up() -> None:
    assert options().base_url == ""
    assert options(base_url="http://127.0.0.1:1").base_url == "http://127.0.0.1:1"


def test_a_key_is_one_or_several() -> None:
    assert keys("tail", "") == {}
    assert keys("tail", "sk-1") == {"api_key": "sk-1"}
    several = {"aws_access_key_id": "a", "aws_secret_access_key": "b"}
    assert keys("tail", json.dumps(several)) == several


@pytest.mark.parametrize("key", ['{"a": ', "{}}", '{"a": 1}{', "{" * 100_000])
def test_a_key_that_is_half_an_object_is_named_and_not_shown(key: str) -> None:
    with pytest.raises(SettingsError, match="provider tail: its key begins as a JSON object and is none") as refused:
        keys("tail", key)
    assert key not in str(refused.value)


# --- pictures and files


PICTURE = "data:image/png;base64,iVBORw0KGgo="


@pytest.mark.parametrize(
    "part",
    [
        {"type": "image_url", "image_url": {"url": PICTURE, "detail": "low"}},
        {"type": "image_url", "image_url": PICTURE},
        {"type": "input_audio", "input_audio": {"data": "UklGRg==", "format": "wav"}},
        {"type": "file", "file": {"file_id": "file-abc123"}},
        {"type": "file", "file": {"file_data": "data:application/pdf;base64,JVBERi0=", "filename": "a.pdf"}},
        {"type": "text", "text": "see http://127.0.0.1/ and file:///etc/passwd"},
        "no part at all",
        None,
    ],
)
def test_content_itself_goes_up(part: Any) -> None:
    said = [{"role": "user", "content": [part]}, {"role": "user", "content": "http://127.0.0.1/"}, {}, 1]
    refuse({"messages": said}, links=False, stream=True)


@pytest.mark.parametrize(
    "part",
    [
        {"type": "image_url", "image_url": {"url": "http://169.254.169.254/latest"}},
        {"type": "image_url", "image_url": {"url": "https://example.com/a.png"}},
        {"type": "image_url", "image_url": {"url": "HTTP://example.com"}},
        {"type": "image_url", "image_url": {"url": "//example.com/a.png"}},
        {"type": "image_url", "image_url": {"url": "/etc/passwd"}},
        {"type": "image_url", "image_url": "\thttp://127.0.0.1"},
        {"type": "image_url", "image_url": {"url": " data:image/png;base64,AA=="}},
        {"type": "video_url", "video_url": {"url": "gs://bucket/a"}},
        {"type": "file", "file": {"file_id": "https://example.com/a.pdf"}},
        {"type": "file", "file": {"file_data": "s3://bucket/a"}},
        {"type": "image", "source": {"type": "url", "url": "https://example.com"}},
        {"type": "tool_result", "content": [{"type": "text", "text": "ok"}, {"deep": [["ftp://127.0.0.1"]]}]},
        {"image_url": {"url": "http://127.0.0.1"}},
    ],
)
def test_addresses_stay_here(part: dict[str, Any]) -> None:
    said = [{"role": "user", "content": "Hi"}, {"role": "user", "content": [{"type": "text", "text": "x"}, part]}]
    with pytest.raises(RequestError, match="would be fetched from here") as refused:
        refuse({"messages": said}, links=False, stream=False)
    assert (refused.value.status, refused.value.param) == (400, "messages")
    refuse({"messages": said}, links=True, stream=False)


def test_what_litellm_would_answer_wrongly_is_refused() -> None:
    said: dict[str, Any] = {"messages": [{"role": "user", "content": "Hi"}]}
    refuse(said | {"n": 2}, links=False, stream=False)
    refuse(said | {"n": 1}, links=False, stream=True)
    for n in (2, 0, "2", [1], 1.5):
        with pytest.raises(RequestError, match="ends of several answers") as refused:
            refuse(said | {"n": n}, links=False, stream=True)
        assert refused.value.param == "n"
    for tools in (None, [], "mcp", {"type": "mcp"}, [None, "mcp", {"type": "function"}]):
        refuse(said | {"tools": tools}, links=False, stream=False)
    with pytest.raises(RequestError, match="of type 'mcp' from here"):
        refuse(said | {"tools": [1, {"type": "mcp", "server_url": "litellm_proxy"}]}, links=True, stream=False)


@pytest.mark.parametrize("body", [b'{"seed": 1e999}', b'{"a": ' * 2_000, b'{"a": "\xff"}', b"[]", b""])
def test_a_body_that_cannot_be_read_to_its_end_is_refused(body: bytes) -> None:
    assert fields_of(b'{"a": 1}') == {"a": 1}
    with pytest.raises(RequestError, match="the body cannot be read"):
        fields_of(body)


# --- what comes back


class Model:
    """A model of litellm's: it dumps itself as pydantic does."""

    def __init__(self, **fields: Any):
        self.fields = fields

    def model_dump(self, *, mode: str, exclude_none: bool, warnings: bool) -> dict[str, Any]:
        assert (mode, exclude_none, warnings) == ("json", True, False)
        return json.loads(json.dumps(self.fields))


def test_a_completion_keeps_what_clients_look_for() -> None:
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    usage = {"prompt_tokens": 3, "completion_tokens": 0}
    reply = Model(choices=[{"index": 0, "finish_reason": "tool_calls", "message": {"tool_calls": [call]}}], usage=usage)
    found = completion(reply)
    assert found["choices"][0]["message"] == {"tool_calls": [call], "content": None}
    assert found["usage"] == usage


@pytest.mark.parametrize("usage", [None, {}, {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}, 7])
def test_a_count_of_nothing_is_none(usage: Any) -> None:
    assert "usage" not in completion(Model(choices=[], usage=usage))
    assert "usage" not in vectors(Model(data=[], usage=usage), as_base64=False)
    assert list(litellm_replies.chunks(Model(choices=[], usage=usage), counted=True)) in (
        [],
        [b'data: {"choices":[]}\n\n'],
    )


def events(*, counted: bool, **fields: Any) -> list[dict[str, Any]]:
    said = list(litellm_replies.chunks(Model(**fields), counted=counted))
    assert all(event.startswith(b"data: ") and event.endswith(b"\n\n") for event in said)
    return [json.loads(event[6:]) for event in said]


def test_usage_comes_by_itself_and_only_where_the_upstream_has_counted() -> None:
    usage = {"prompt_tokens": 3, "completion_tokens": 1}
    empty: dict[str, Any] = {"index": 0, "delta": {}}
    assert events(counted=True, choices=[dict(empty)], usage=usage) == [{"choices": [], "usage": usage}]
    assert events(counted=False, choices=[dict(empty)], usage=usage) == []
    last = {"index": 0, "delta": {}, "finish_reason": "stop"}
    assert events(counted=True, id="x", choices=[last], usage=usage) == [
        {"id": "x", "choices": [last]},
        {"id": "x", "choices": [], "usage": usage},
    ]
    said = {"index": 0, "delta": {"content": "a"}}
    assert events(counted=False, choices=[said]) == [{"choices": [said | {"finish_reason": None}]}]


def test_vectors_come_as_they_were_asked_for() -> None:
    reply = Model(data=[{"embedding": [0.5, -2.0], "index": 0}], usage={"prompt_tokens": 2})
    assert vectors(reply, as_base64=False)["data"] == [{"embedding": [0.5, -2.0], "index": 0, "object": "embedding"}]
    packed = vectors(reply, as_base64=True)["data"][0]["embedding"]
    assert struct.unpack("<2f", base64.b64decode(packed)) == (0.5, -2.0)


# --- what goes wrong


def exception(name: str, message: str = "no", **fields: Any) -> Exception:
    """An exception as litellm's, OpenAI's and httpx's are: known by the qualified name alone."""
    module, _, plain = name.rpartition(".")
    made: Exception = type(plain, (Exception,), {"__module__": module})(message)
    made.__dict__.update(fields)
    return made


def of(*names: Exception, **more: Any) -> LitellmFailure:
    """The failure of the first, which came of the second, and so on; half of the links are named as the cause."""
    for number, (link, behind) in enumerate(zip(names, names[1:], strict=False)):
        setattr(link, "__cause__" if number % 2 else "__context__", behind)
    return LitellmFailure("tail", names[0], ("sk-secret",), **more)


@pytest.fixture(scope="module", autouse=True)
def registered() -> None:
    """As the import of litellm does."""
    for name, category in litellm_replies.STANDS_FOR.items():
        register(f"litellm.exceptions.{name}", category)


def answered(status: int, **headers: str) -> Exception:
    answer = type("Response", (), {"status_code": status, "headers": headers})()
    return exception("httpx.HTTPStatusError", response=answer)


async def told(failed: LitellmFailure) -> tuple[int, dict[str, Any], dict[str, str]]:
    reply = failed.reply()
    body = b"".join([chunk async for chunk in reply.chunks])
    return reply.status, json.loads(body)["error"], dict(reply.headers)


@pytest.mark.parametrize(
    ("name", "own", "status", "category"),
    [
        ("AuthenticationError", 401, 400, C.UPSTREAM_KEY_REFUSED),  # Gemini refuses a key with 400
        ("RateLimitError", 429, 429, C.RATE_LIMITED),
        ("NotFoundError", 404, 404, C.UPSTREAM_MODEL_MISSING),
        ("PermissionDeniedError", 403, 403, C.UPSTREAM_DENIED),
    ],
)
async def test_litellm_knows_better_than_a_status_where_it_is_specific(
    name: str, own: int, status: int, category: ErrorCategory
) -> None:
    failed = of(exception(f"litellm.exceptions.{name}", status_code=own), answered(status))
    assert failed.category is category
    assert (await told(failed))[0] == own


async def test_the_answers_own_status_is_told_where_litellm_is_vague() -> None:
    """Its way to Anthropic makes 500 of 503."""
    failed = of(
        exception("litellm.exceptions.InternalServerError", status_code=500),
        exception("litellm.llms.anthropic.common_utils.AnthropicError"),
        answered(503, **{"retry-after": "7", "set-cookie": "a=b"}),
    )
    status, _, headers = await told(failed)
    assert (status, headers) == (503, {"retry-after": "7"})


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("ContextWindowExceededError", "context_length_exceeded"),
        ("ContentPolicyViolationError", "content_policy_violation"),
    ],
)
async def test_what_litellm_alone_recognises_is_named_as_openai_names_it(name: str, code: str) -> None:
    status, error, _ = await told(of(exception(f"litellm.exceptions.{name}", status_code=400), answered(400)))
    assert (status, error["code"]) == (400, code)


async def test_the_envelope_of_the_upstream_is_kept() -> None:
    body = {"message": "too hot", "type": "invalid_request_error", "param": "temperature", "code": "invalid_value"}
    failed = of(exception("litellm.exceptions.BadRequestError", "too hot", status_code=400, body=body), answered(400))
    assert (await told(failed))[1] == body


@pytest.mark.parametrize(
    ("links", "category"),
    [
        (["httpx.ConnectError", ConnectionRefusedError(111, "no")], C.CONNECT_REFUSED),
        (["httpx.ConnectError", "aiohttp.client_exceptions.ClientConnectorDNSError"], C.DNS_FAILED),
        (["httpx.ReadError", "aiohttp.client_exceptions.ClientPayloadError"], C.STREAM_CUT),
        (["openai.APITimeoutError", "aiohttp.client_exceptions.ConnectionTimeoutError"], C.CONNECT_TIMEOUT),
        ([json.JSONDecodeError("no", "", 0), StopIteration()], C.RESPONSE_MALFORMED),
    ],
)
def test_where_no_answer_came_the_way_tells_why(links: list[Any], category: ErrorCategory) -> None:
    behind = [exception(link) if isinstance(link, str) else link for link in links]
    failed = of(exception("litellm.exceptions.InternalServerError", status_code=500), *behind)
    with pytest.raises(UpstreamError, match=f"provider tail failed: {category.value}") as raised:
        failed.reply()
    assert (classify(raised.value), failed.category) == (category, category)
    assert raised.value.__cause__ is None


def test_what_ends_a_stream_is_unwrapped() -> None:
    inner = exception("litellm.exceptions.APIConnectionError", "cut off", status_code=500)
    inner.__context__ = exception("aiohttp.client_exceptions.ClientPayloadError")
    outer = exception("litellm.exceptions.MidStreamFallbackError", "wrapped", original_exception=inner)
    assert of(outer, streaming=True).error.category is C.STREAM_CUT
    broken = exception("litellm.exceptions.MidStreamFallbackError")
    assert of(broken, json.JSONDecodeError("no", "", 0), streaming=True).category is C.CHUNK_MALFORMED


@pytest.mark.parametrize("made", [AttributeError("no service_tier"), RuntimeError("x"), exception("strange.Error")])
def test_what_litellm_stumbles_over_itself_is_the_upstreams_failure(made: Exception) -> None:
    with pytest.raises(UpstreamError) as raised:
        of(made).reply()
    assert classify(raised.value) is C.UPSTREAM_FAILED


async def test_no_message_shows_a_key_or_the_inside() -> None:
    said = "bad key sk-secret\nTraceback (most recent call last):\n  File x"
    failed = of(exception("litellm.exceptions.BadRequestError", said * 2, status_code=400))
    status, error, _ = await told(failed)
    assert (status, error["message"]) == (400, "bad key ***")
    long = of(exception("litellm.exceptions.BadRequestError", "sk-secret" * 10_000, status_code=400))
    assert len((await told(long))[1]["message"]) <= 2_000


def test_a_chain_that_bites_its_tail_ends() -> None:
    first, second = exception("a.B"), exception("a.C")
    first.__context__, second.__context__ = second, first
    assert of(first).category is C.UPSTREAM_FAILED
