"""Every failure as an envelope: the right status, our words where they help, nobody's secrets."""

from __future__ import annotations

import json

import pytest

from windlass import errors
from windlass.errors import (
    AccessError,
    CollectionMismatch,
    EmbedderMissing,
    ErrorCategory,
    FolderBusy,
    InputError,
    LedgerError,
    LimitReached,
    ModelUnknown,
    PolicyError,
    RecordInvalid,
    RequestError,
    SettingsError,
    TranscriptError,
    UpstreamError,
    WindlassError,
    WorkflowError,
)
from windlass.server.envelope import envelope, headers

C = ErrorCategory
CASES: list[tuple[BaseException, int, str, str]] = [
    (RequestError("m"), 400, "invalid_request_error", "invalid_request"),
    (RequestError("m", status=413, code="body_too_large"), 413, "invalid_request_error", "body_too_large"),
    (RequestError("m", status=403, code="wrong_host"), 403, "invalid_request_error", "wrong_host"),
    (LimitReached("m", limit="l", retry_after_s=9, spent=False), 429, "rate_limit_error", "rate_limit_exceeded"),
    (LimitReached("m", limit="l", retry_after_s=None, spent=True), 429, "insufficient_quota", "budget_exceeded"),
    (AccessError("m"), 401, "authentication_error", "invalid_api_key"),
    (AccessError("m", category=C.KEY_MISSING), 401, "authentication_error", "invalid_api_key"),
    (AccessError("m", category=C.SCOPE_DENIED), 401, "permission_error", "scope_denied"),
    (ModelUnknown("m"), 404, "invalid_request_error", "model_not_found"),
    (InputError("m"), 400, "invalid_request_error", "invalid_request"),
    (TranscriptError("m"), 400, "invalid_request_error", "invalid_request"),
    (UpstreamError("m"), 502, "upstream_error", "upstream_failed"),
    (UpstreamError("m", category=C.CONNECT_REFUSED), 502, "upstream_error", "connect_refused"),
    (UpstreamError("m", category=C.STREAM_CUT), 502, "upstream_error", "stream_cut"),
    (UpstreamError("m", category=C.FIRST_BYTE_TIMEOUT), 504, "upstream_error", "first_byte_timeout"),
    (UpstreamError("m", category=C.CONNECT_TIMEOUT), 504, "upstream_error", "connect_timeout"),
    (UpstreamError("m", status=504), 504, "upstream_error", "total_timeout"),
    (LedgerError("m", category=C.DISK_FULL), 503, "server_error", "disk_full"),
    (LedgerError("m"), 503, "server_error", "ledger_failed"),
    (RecordInvalid("m"), 503, "server_error", "record_invalid"),
    (PolicyError("m"), 503, "server_error", "policy_failed"),
    (SettingsError("m"), 503, "server_error", "settings_invalid"),
    (CollectionMismatch("m"), 503, "server_error", "collection_mismatch"),
    (EmbedderMissing("m"), 503, "server_error", "embedder_missing"),
    (WorkflowError("m"), 503, "server_error", "workflow_failed"),
    (FolderBusy("m"), 503, "server_error", "folder_busy"),
    (WindlassError("m"), 503, "server_error", "bug"),
    (ValueError("m"), 500, "server_error", "bug"),
    (OSError(28, "m"), 500, "server_error", "disk_full"),
    (KeyError("m"), 500, "server_error", "bug"),
]


@pytest.mark.parametrize(("exc", "status", "kind", "code"), CASES, ids=lambda case: type(case).__name__)
def test_every_exception_has_its_status(exc: BaseException, status: int, kind: str, code: str) -> None:
    found, body = envelope(exc)
    error = json.loads(body)["error"]
    assert (found, error["type"], error["code"]) == (status, kind, code)
    assert set(error) == {"message", "type", "param", "code"}


def test_every_exception_of_ours_is_among_them() -> None:
    ours = {value for name in errors.__all__ if isinstance(value := getattr(errors, name), type)}
    tree = {value for value in ours if issubclass(value, WindlassError)}
    assert tree == {type(exc) for exc, *_ in CASES} & ours


@pytest.mark.parametrize("exc", [ValueError("hunter2"), KeyError("hunter2"), RuntimeError("/home/x/hunter2")])
def test_what_is_not_ours_keeps_its_words_to_itself(exc: BaseException) -> None:
    assert b"hunter2" not in envelope(exc)[1]


def test_the_field_at_fault_is_named() -> None:
    assert json.loads(envelope(RequestError("m", param="messages"))[1])["error"]["param"] == "messages"
    assert json.loads(envelope(ModelUnknown("m"))[1])["error"]["param"] == "model"


@pytest.mark.parametrize("message", ["", '"}', "\x00\x1b[2J", "⚓", "x" * 100_000])
def test_any_message_makes_a_body_that_parses(message: str) -> None:
    status, body = envelope(RequestError(message))
    assert status == 400
    assert isinstance(json.loads(body)["error"]["message"], str)


def test_a_limit_says_its_name_and_when_to_come_again() -> None:
    rate = headers(LimitReached("m", limit="team", retry_after_s=9, spent=False))
    assert rate == {"x-windlass-limit": "team", "x-should-retry": "true", "retry-after": "9"}
    budget = headers(LimitReached("m", limit="all", retry_after_s=None, spent=True))
    assert budget == {"x-windlass-limit": "all", "x-should-retry": "false"}
    assert headers(ValueError("m")) == {}
