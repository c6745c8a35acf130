"""The closed list of causes, and the one table that says what to do about each.

Retry, breaker, alerts, dashboards and error-pattern analysis read `HANDLING`; nothing else decides what is retryable.
A cause that is missing here is added here, with its row: `tests/unit/test_errors.py` keeps the two in step.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType


class Backoff(StrEnum):
    """How long to wait before the same thing is tried again."""

    NONE = "none"  # it is not tried again
    SHORT = "short"  # about once, after some 100 ms: the cause was this connection or this moment
    EXPONENTIAL = "exponential"  # doubling, with jitter: the other side needs time
    RETRY_AFTER = "retry_after"  # as long as the other side said, else exponential


class Audience(StrEnum):
    """Who is told, because they can mend it."""

    CLIENT = "client"
    OPERATOR = "operator"
    DEVELOPER = "developer"
    NOBODY = "nobody"


@dataclass(frozen=True, slots=True)
class Handling:
    """What to do about one cause. `counts_against_breaker`: the provider is at fault; too often, it is left alone."""

    retryable: bool
    backoff: Backoff
    counts_against_breaker: bool
    audience: Audience


class ErrorCategory(StrEnum):
    """Why something failed; records keep the value. `unknown` is left to foreign exceptions that nobody registered."""

    # The way to a provider
    URL_INVALID = "url_invalid"
    DNS_FAILED = "dns_failed"
    CONNECT_TIMEOUT = "connect_timeout"
    CONNECT_REFUSED = "connect_refused"
    HOST_UNREACHABLE = "host_unreachable"
    PROXY_FAILED = "proxy_failed"
    TLS_FAILED = "tls_failed"
    CONNECTION_RESET = "connection_reset"
    FIRST_BYTE_TIMEOUT = "first_byte_timeout"
    STREAM_IDLE = "stream_idle"
    TOTAL_TIMEOUT = "total_timeout"
    STREAM_CUT = "stream_cut"
    STREAM_EMPTY = "stream_empty"
    CHUNK_MALFORMED = "chunk_malformed"
    RESPONSE_MALFORMED = "response_malformed"
    CONTENT_TYPE_WRONG = "content_type_wrong"
    REDIRECT_REFUSED = "redirect_refused"
    # What a provider answered
    RATE_LIMITED = "rate_limited"
    QUOTA_SPENT = "quota_spent"
    UPSTREAM_KEY_REFUSED = "upstream_key_refused"
    UPSTREAM_DENIED = "upstream_denied"
    UPSTREAM_MODEL_MISSING = "upstream_model_missing"
    UPSTREAM_REQUEST_REFUSED = "upstream_request_refused"
    UPSTREAM_CONFLICT = "upstream_conflict"
    UPSTREAM_SERVER_ERROR = "upstream_server_error"
    UPSTREAM_FAILED = "upstream_failed"
    MODEL_OVERLOADED = "model_overloaded"
    CONTEXT_TOO_LONG = "context_too_long"
    CONTENT_FILTERED = "content_filtered"
    # What a client sent
    JSON_INVALID = "json_invalid"
    REQUEST_TOO_LARGE = "request_too_large"
    REQUEST_INVALID = "request_invalid"
    REQUEST_CONFLICT = "request_conflict"
    SCHEMA_MISMATCH = "schema_mismatch"
    NOT_FOUND = "not_found"
    MODEL_UNKNOWN = "model_unknown"
    KEY_MISSING = "key_missing"
    KEY_WRONG = "key_wrong"
    SCOPE_DENIED = "scope_denied"
    CLIENT_RATE_LIMITED = "client_rate_limited"
    BUDGET_SPENT = "budget_spent"
    CLIENT_GONE = "client_gone"
    # Tools, steps, workflows
    TOOL_DENIED = "tool_denied"
    TOOL_FAILED = "tool_failed"
    APPROVAL_EXPIRED = "approval_expired"
    APPROVAL_REFUSED = "approval_refused"
    STEP_FAILED = "step_failed"
    STEP_TIMEOUT = "step_timeout"
    RETRIES_SPENT = "retries_spent"
    WORKFLOW_UNKNOWN = "workflow_unknown"
    WORKFLOW_DUPLICATE = "workflow_duplicate"
    WORKFLOW_CANCELLED = "workflow_cancelled"
    WORKFLOW_VERSION_MISMATCH = "workflow_version_mismatch"
    WORKFLOW_FAILED = "workflow_failed"
    # Ledger, database, disk
    RECORD_INVALID = "record_invalid"
    LEDGER_CLOSED = "ledger_closed"
    LEDGER_FAILED = "ledger_failed"
    DATABASE_LOCKED = "database_locked"
    DATABASE_TIMEOUT = "database_timeout"
    DATABASE_UNREACHABLE = "database_unreachable"
    DATABASE_CORRUPT = "database_corrupt"
    DATABASE_FAILED = "database_failed"
    POOL_EXHAUSTED = "pool_exhausted"
    QUERY_INVALID = "query_invalid"
    CONSTRAINT_BROKEN = "constraint_broken"
    ROW_MISSING = "row_missing"
    MIGRATION_MISSING = "migration_missing"
    MIGRATION_INVALID = "migration_invalid"
    DISK_FULL = "disk_full"
    DISK_READ_ONLY = "disk_read_only"
    DISK_FAILED = "disk_failed"
    FILE_MISSING = "file_missing"
    FILE_EXISTS = "file_exists"
    PERMISSION_DENIED = "permission_denied"
    FILE_TOO_LARGE = "file_too_large"
    FILE_KIND_WRONG = "file_kind_wrong"
    FILES_TOO_MANY = "files_too_many"
    OS_FAILED = "os_failed"
    # Policies, memory, content
    POLICY_FAILED = "policy_failed"
    PROPENSITY_INVALID = "propensity_invalid"
    NUMBERS_INVALID = "numbers_invalid"
    EMBEDDER_MISSING = "embedder_missing"
    EMBEDDER_FAILED = "embedder_failed"
    WEIGHTS_INVALID = "weights_invalid"
    COLLECTION_MISMATCH = "collection_mismatch"
    INPUT_INVALID = "input_invalid"
    TRANSCRIPT_UNREADABLE = "transcript_unreadable"
    YAML_INVALID = "yaml_invalid"
    ENCODING_INVALID = "encoding_invalid"
    # The process
    SETTINGS_INVALID = "settings_invalid"
    DEPENDENCY_MISSING = "dependency_missing"
    FOLDER_BUSY = "folder_busy"
    PORT_IN_USE = "port_in_use"
    QUEUE_FULL = "queue_full"
    TEMPLATE_INVALID = "template_invalid"
    OUT_OF_MEMORY = "out_of_memory"
    CANCELLED = "cancelled"
    SHUTDOWN = "shutdown"
    BUG = "bug"
    UNKNOWN = "unknown"

    @property
    def handling(self) -> Handling:
        """The row of this cause in `HANDLING`."""
        return HANDLING[self]


_C, _B, _A = ErrorCategory, Backoff, Audience

HANDLING: Mapping[ErrorCategory, Handling] = MappingProxyType(
    {
        # cause: Handling(retryable, backoff, counts_against_breaker, audience)
        _C.URL_INVALID: Handling(False, _B.NONE, False, _A.OPERATOR),
        _C.DNS_FAILED: Handling(True, _B.EXPONENTIAL, True, _A.OPERATOR),
        _C.CONNECT_TIMEOUT: Handling(True, _B.EXPONENTIAL, True, _A.OPERATOR),
        _C.CONNECT_REFUSED: Handling(True, _B.EXPONENTIAL, True, _A.OPERATOR),
        _C.HOST_UNREACHABLE: Handling(True, _B.EXPONENTIAL, True, _A.OPERATOR),
        _C.PROXY_FAILED: Handling(True, _B.EXPONENTIAL, True, _A.OPERATOR),
        _C.TLS_FAILED: Handling(False, _B.NONE, True, _A.OPERATOR),
        _C.CONNECTION_RESET: Handling(True, _B.SHORT, True, _A.OPERATOR),
        _C.FIRST_BYTE_TIMEOUT: Handling(True, _B.SHORT, True, _A.OPERATOR),
        _C.STREAM_IDLE: Handling(True, _B.SHORT, True, _A.OPERATOR),
        _C.TOTAL_TIMEOUT: Handling(True, _B.SHORT, True, _A.OPERATOR),
        _C.STREAM_CUT: Handling(True, _B.SHORT, True, _A.OPERATOR),
        _C.STREAM_EMPTY: Handling(True, _B.SHORT, True, _A.OPERATOR),
        _C.CHUNK_MALFORMED: Handling(True, _B.SHORT, True, _A.OPERATOR),
        _C.RESPONSE_MALFORMED: Handling(True, _B.SHORT, True, _A.OPERATOR),
        _C.CONTENT_TYPE_WRONG: Handling(False, _B.NONE, True, _A.OPERATOR),
        _C.REDIRECT_REFUSED: Handling(False, _B.NONE, False, _A.OPERATOR),
        # A rate limit is the provider working as promised; a spent quota or a refused key ends every further call.
        _C.RATE_LIMITED: Handling(True, _B.RETRY_AFTER, False, _A.OPERATOR),
        _C.QUOTA_SPENT: Handling(False, _B.NONE, True, _A.OPERATOR),
        _C.UPSTREAM_KEY_REFUSED: Handling(False, _B.NONE, True, _A.OPERATOR),
        _C.UPSTREAM_DENIED: Handling(False, _B.NONE, False, _A.OPERATOR),
        _C.UPSTREAM_MODEL_MISSING: Handling(False, _B.NONE, False, _A.OPERATOR),
        _C.UPSTREAM_REQUEST_REFUSED: Handling(False, _B.NONE, False, _A.CLIENT),
        _C.UPSTREAM_CONFLICT: Handling(True, _B.SHORT, False, _A.OPERATOR),
        _C.UPSTREAM_SERVER_ERROR: Handling(True, _B.EXPONENTIAL, True, _A.OPERATOR),
        _C.UPSTREAM_FAILED: Handling(True, _B.EXPONENTIAL, True, _A.OPERATOR),
        _C.MODEL_OVERLOADED: Handling(True, _B.RETRY_AFTER, True, _A.OPERATOR),
        _C.CONTEXT_TOO_LONG: Handling(False, _B.NONE, False, _A.CLIENT),
        _C.CONTENT_FILTERED: Handling(False, _B.NONE, False, _A.CLIENT),
        _C.JSON_INVALID: Handling(False, _B.NONE, False, _A.CLIENT),
        _C.REQUEST_TOO_LARGE: Handling(False, _B.NONE, False, _A.CLIENT),
        _C.REQUEST_INVALID: Handling(False, _B.NONE, False, _A.CLIENT),
        _C.REQUEST_CONFLICT: Handling(False, _B.NONE, False, _A.CLIENT),
        _C.SCHEMA_MISMATCH: Handling(False, _B.NONE, False, _A.CLIENT),
        _C.NOT_FOUND: Handling(False, _B.NONE, False, _A.CLIENT),
        _C.MODEL_UNKNOWN: Handling(False, _B.NONE, False, _A.CLIENT),
        _C.KEY_MISSING: Handling(False, _B.NONE, False, _A.CLIENT),
        _C.KEY_WRONG: Handling(False, _B.NONE, False, _A.CLIENT),
        _C.SCOPE_DENIED: Handling(False, _B.NONE, False, _A.CLIENT),
        _C.CLIENT_RATE_LIMITED: Handling(True, _B.RETRY_AFTER, False, _A.CLIENT),
        _C.BUDGET_SPENT: Handling(False, _B.NONE, False, _A.CLIENT),
        _C.CLIENT_GONE: Handling(False, _B.NONE, False, _A.NOBODY),
        _C.TOOL_DENIED: Handling(False, _B.NONE, False, _A.CLIENT),
        _C.TOOL_FAILED: Handling(True, _B.SHORT, False, _A.OPERATOR),
        _C.APPROVAL_EXPIRED: Handling(False, _B.NONE, False, _A.OPERATOR),
        _C.APPROVAL_REFUSED: Handling(False, _B.NONE, False, _A.CLIENT),
        _C.STEP_FAILED: Handling(False, _B.NONE, False, _A.OPERATOR),
        _C.STEP_TIMEOUT: Handling(True, _B.SHORT, False, _A.OPERATOR),
        _C.RETRIES_SPENT: Handling(False, _B.NONE, False, _A.OPERATOR),
        _C.WORKFLOW_UNKNOWN: Handling(False, _B.NONE, False, _A.CLIENT),
        _C.WORKFLOW_DUPLICATE: Handling(False, _B.NONE, False, _A.NOBODY),
        _C.WORKFLOW_CANCELLED: Handling(False, _B.NONE, False, _A.CLIENT),
        _C.WORKFLOW_VERSION_MISMATCH: Handling(False, _B.NONE, False, _A.DEVELOPER),
        _C.WORKFLOW_FAILED: Handling(False, _B.NONE, False, _A.OPERATOR),
        _C.RECORD_INVALID: Handling(False, _B.NONE, False, _A.DEVELOPER),
        _C.LEDGER_CLOSED: Handling(False, _B.NONE, False, _A.DEVELOPER),
        _C.LEDGER_FAILED: Handling(False, _B.NONE, False, _A.OPERATOR),
        _C.DATABASE_LOCKED: Handling(True, _B.SHORT, False, _A.OPERATOR),
        _C.DATABASE_TIMEOUT: Handling(True, _B.SHORT, False, _A.OPERATOR),
        _C.DATABASE_UNREACHABLE: Handling(True, _B.EXPONENTIAL, False, _A.OPERATOR),
        _C.DATABASE_CORRUPT: Handling(False, _B.NONE, False, _A.OPERATOR),
        _C.DATABASE_FAILED: Handling(False, _B.NONE, False, _A.DEVELOPER),
        _C.POOL_EXHAUSTED: Handling(True, _B.SHORT, False, _A.OPERATOR),
        _C.QUERY_INVALID: Handling(False, _B.NONE, False, _A.DEVELOPER),
        _C.CONSTRAINT_BROKEN: Handling(False, _B.NONE, False, _A.DEVELOPER),
        _C.ROW_MISSING: Handling(False, _B.NONE, False, _A.DEVELOPER),
        _C.MIGRATION_MISSING: Handling(False, _B.NONE, False, _A.OPERATOR),
        _C.MIGRATION_INVALID: Handling(False, _B.NONE, False, _A.DEVELOPER),
        _C.DISK_FULL: Handling(False, _B.NONE, False, _A.OPERATOR),
        # The next connection may meet a server that takes writes: the old primary is known by this refusal.
        _C.DISK_READ_ONLY: Handling(True, _B.SHORT, False, _A.OPERATOR),
        _C.DISK_FAILED: Handling(False, _B.NONE, False, _A.OPERATOR),
        _C.FILE_MISSING: Handling(False, _B.NONE, False, _A.CLIENT),
        _C.FILE_EXISTS: Handling(False, _B.NONE, False, _A.CLIENT),
        _C.PERMISSION_DENIED: Handling(False, _B.NONE, False, _A.OPERATOR),
        _C.FILE_TOO_LARGE: Handling(False, _B.NONE, False, _A.CLIENT),
        _C.FILE_KIND_WRONG: Handling(False, _B.NONE, False, _A.CLIENT),
        _C.FILES_TOO_MANY: Handling(True, _B.SHORT, False, _A.OPERATOR),
        _C.OS_FAILED: Handling(False, _B.NONE, False, _A.OPERATOR),
        _C.POLICY_FAILED: Handling(False, _B.NONE, False, _A.DEVELOPER),
        _C.PROPENSITY_INVALID: Handling(False, _B.NONE, False, _A.DEVELOPER),
        _C.NUMBERS_INVALID: Handling(False, _B.NONE, False, _A.DEVELOPER),
        _C.EMBEDDER_MISSING: Handling(False, _B.NONE, False, _A.OPERATOR),
        _C.EMBEDDER_FAILED: Handling(False, _B.NONE, False, _A.OPERATOR),
        _C.WEIGHTS_INVALID: Handling(False, _B.NONE, False, _A.OPERATOR),
        _C.COLLECTION_MISMATCH: Handling(False, _B.NONE, False, _A.OPERATOR),
        _C.INPUT_INVALID: Handling(False, _B.NONE, False, _A.CLIENT),
        _C.TRANSCRIPT_UNREADABLE: Handling(False, _B.NONE, False, _A.CLIENT),
        _C.YAML_INVALID: Handling(False, _B.NONE, False, _A.CLIENT),
        _C.ENCODING_INVALID: Handling(False, _B.NONE, False, _A.CLIENT),
        _C.SETTINGS_INVALID: Handling(False, _B.NONE, False, _A.OPERATOR),
        _C.DEPENDENCY_MISSING: Handling(False, _B.NONE, False, _A.OPERATOR),
        _C.FOLDER_BUSY: Handling(False, _B.NONE, False, _A.OPERATOR),
        _C.PORT_IN_USE: Handling(False, _B.NONE, False, _A.OPERATOR),
        _C.QUEUE_FULL: Handling(True, _B.SHORT, False, _A.OPERATOR),
        _C.TEMPLATE_INVALID: Handling(False, _B.NONE, False, _A.DEVELOPER),
        _C.OUT_OF_MEMORY: Handling(False, _B.NONE, False, _A.OPERATOR),
        _C.CANCELLED: Handling(False, _B.NONE, False, _A.NOBODY),
        _C.SHUTDOWN: Handling(False, _B.NONE, False, _A.NOBODY),
        _C.BUG: Handling(False, _B.NONE, False, _A.DEVELOPER),
        _C.UNKNOWN: Handling(False, _B.NONE, False, _A.DEVELOPER),
    }
)
