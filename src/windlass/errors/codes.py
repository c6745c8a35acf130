"""What numbers and texts that arrive inside an exception stand for: HTTP status, errno, SQLite result codes."""

from __future__ import annotations

import errno
from collections.abc import Mapping

from windlass.errors.category import ErrorCategory as C

UPSTREAM_STATUS: Mapping[int, C] = {
    401: C.UPSTREAM_KEY_REFUSED,
    402: C.QUOTA_SPENT,
    403: C.UPSTREAM_DENIED,
    404: C.UPSTREAM_MODEL_MISSING,
    407: C.PROXY_FAILED,
    408: C.TOTAL_TIMEOUT,
    409: C.UPSTREAM_CONFLICT,
    413: C.REQUEST_TOO_LARGE,
    429: C.RATE_LIMITED,
    503: C.MODEL_OVERLOADED,
    504: C.TOTAL_TIMEOUT,
    529: C.MODEL_OVERLOADED,
}
CLIENT_STATUS: Mapping[int, C] = {
    401: C.KEY_WRONG,
    402: C.BUDGET_SPENT,
    403: C.SCOPE_DENIED,
    404: C.NOT_FOUND,
    409: C.REQUEST_CONFLICT,
    413: C.REQUEST_TOO_LARGE,
    422: C.SCHEMA_MISMATCH,
    429: C.CLIENT_RATE_LIMITED,
    499: C.CLIENT_GONE,
}
# `error.code` of OpenAI-compatible providers, narrower than their status.
UPSTREAM_CODE: Mapping[str, C] = {
    "billing_hard_limit_reached": C.QUOTA_SPENT,
    "content_filter": C.CONTENT_FILTERED,
    "content_policy_violation": C.CONTENT_FILTERED,
    "context_length_exceeded": C.CONTEXT_TOO_LONG,
    "insufficient_quota": C.QUOTA_SPENT,
    "invalid_api_key": C.UPSTREAM_KEY_REFUSED,
    "model_not_found": C.UPSTREAM_MODEL_MISSING,
    "rate_limit_exceeded": C.RATE_LIMITED,
}
# `error.type` of an error inside a stream, whose status line said 200: the status that it stands for. Source: Anthropic
# API reference, "Errors"; two names are OpenAI's.
TYPE_STATUS: Mapping[str, int] = {
    "invalid_request_error": 400,
    "authentication_error": 401,
    "billing_error": 402,
    "permission_error": 403,
    "not_found_error": 404,
    "request_too_large": 413,
    "rate_limit_error": 429,
    "rate_limit_exceeded": 429,
    "timeout_error": 504,
    "overloaded_error": 529,
}
NETWORK_ERRNO: Mapping[int, C] = {
    errno.ECONNABORTED: C.CONNECTION_RESET,
    errno.ECONNREFUSED: C.CONNECT_REFUSED,
    errno.ECONNRESET: C.CONNECTION_RESET,
    errno.EHOSTUNREACH: C.HOST_UNREACHABLE,
    errno.ENETDOWN: C.HOST_UNREACHABLE,
    errno.ENETUNREACH: C.HOST_UNREACHABLE,
    errno.EPIPE: C.CONNECTION_RESET,
    errno.ETIMEDOUT: C.CONNECT_TIMEOUT,
}
OS_ERRNO: Mapping[int, C] = {
    **NETWORK_ERRNO,
    errno.EACCES: C.PERMISSION_DENIED,
    errno.EADDRINUSE: C.PORT_IN_USE,
    errno.EDQUOT: C.DISK_FULL,
    errno.EEXIST: C.FILE_EXISTS,
    errno.EFBIG: C.FILE_TOO_LARGE,
    errno.EIO: C.DISK_FAILED,
    errno.EISDIR: C.FILE_KIND_WRONG,
    errno.EMFILE: C.FILES_TOO_MANY,
    errno.ENFILE: C.FILES_TOO_MANY,
    errno.ENOENT: C.FILE_MISSING,
    errno.ENOMEM: C.OUT_OF_MEMORY,
    errno.ENOSPC: C.DISK_FULL,
    errno.ENOTDIR: C.FILE_KIND_WRONG,
    errno.EPERM: C.PERMISSION_DENIED,
    errno.EROFS: C.DISK_READ_ONLY,
}
# SQLite's primary result codes (https://sqlite.org/rescode.html); the extended ones begin with them.
SQLITE_CODE: Mapping[str, C] = {
    "SQLITE_AUTH": C.PERMISSION_DENIED,
    "SQLITE_BUSY": C.DATABASE_LOCKED,
    "SQLITE_CANTOPEN": C.DATABASE_UNREACHABLE,
    "SQLITE_CONSTRAINT": C.CONSTRAINT_BROKEN,
    "SQLITE_CORRUPT": C.DATABASE_CORRUPT,
    "SQLITE_FULL": C.DISK_FULL,
    "SQLITE_INTERRUPT": C.DATABASE_TIMEOUT,
    "SQLITE_IOERR": C.DISK_FAILED,
    "SQLITE_LOCKED": C.DATABASE_LOCKED,
    "SQLITE_NOMEM": C.OUT_OF_MEMORY,
    "SQLITE_NOTADB": C.DATABASE_CORRUPT,
    "SQLITE_PERM": C.PERMISSION_DENIED,
    "SQLITE_READONLY": C.DISK_READ_ONLY,
    "SQLITE_SCHEMA": C.MIGRATION_MISSING,
}
# PostgreSQL 15 manual, appendix A: an SQLSTATE, or its class (the first two characters).
SQLSTATE: Mapping[str, C] = {
    "08": C.DATABASE_UNREACHABLE,
    "23": C.CONSTRAINT_BROKEN,
    "25006": C.DISK_READ_ONLY,
    "25P03": C.DATABASE_TIMEOUT,
    "28": C.PERMISSION_DENIED,
    "3D": C.DATABASE_UNREACHABLE,
    "40": C.DATABASE_LOCKED,
    "42": C.QUERY_INVALID,
    "42501": C.PERMISSION_DENIED,
    "42P01": C.MIGRATION_MISSING,
    "53": C.DATABASE_UNREACHABLE,
    "53100": C.DISK_FULL,
    "53200": C.OUT_OF_MEMORY,
    "53300": C.POOL_EXHAUSTED,
    "55": C.DATABASE_LOCKED,
    "57": C.DATABASE_UNREACHABLE,
    "57014": C.DATABASE_TIMEOUT,
    "58": C.DISK_FAILED,
    "XX001": C.DATABASE_CORRUPT,
    "XX002": C.DATABASE_CORRUPT,
}
# libpq tells no code of a server that refuses a connection, only the server's words.
CONNECT_MESSAGE: Mapping[str, C] = {
    "too many clients": C.POOL_EXHAUSTED,
    "too many connections": C.POOL_EXHAUSTED,
    "remaining connection slots": C.POOL_EXHAUSTED,
    "authentication failed": C.PERMISSION_DENIED,
    "no password supplied": C.PERMISSION_DENIED,
    "no pg_hba.conf entry": C.PERMISSION_DENIED,
    "is not permitted to log in": C.PERMISSION_DENIED,
    "permission denied for database": C.PERMISSION_DENIED,
    "no space left on device": C.DISK_FULL,
}
# What the code does not tell (SQLITE_ERROR is everything else), and errors that lost it on their way (a pickle).
SQLITE_MESSAGE: Mapping[str, C] = {
    "no such table": C.MIGRATION_MISSING,
    "no such column": C.MIGRATION_MISSING,
    "has no column named": C.MIGRATION_MISSING,
    "syntax error": C.QUERY_INVALID,
    "closed database": C.LEDGER_CLOSED,
    "is locked": C.DATABASE_LOCKED,
    "disk is full": C.DISK_FULL,
    "disk i/o error": C.DISK_FAILED,
    "malformed": C.DATABASE_CORRUPT,
    "not a database": C.DATABASE_CORRUPT,
    "readonly database": C.DISK_READ_ONLY,
    "unable to open": C.DATABASE_UNREACHABLE,
}
