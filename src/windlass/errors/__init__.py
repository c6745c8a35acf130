"""The exception tree, the closed list of error categories, and `classify`.

    WindlassError
    ├── SettingsError            a setting is missing, of the wrong type or out of range
    ├── InputError               what the caller handed in cannot be used
    │   ├── TranscriptError      a file is not a transcript we can read
    │   └── RequestError         an API request is malformed (carries the HTTP status)
    │       └── LimitReached     a budget or a rate is used up (carries its name, and when to come again)
    ├── AccessError              wrong key, or a scope that the key does not have
    ├── ModelUnknown             no provider offers the named model
    ├── UpstreamError            a provider failed (carries the category)
    ├── LedgerError              the ledger cannot be opened, read or written
    │   └── RecordInvalid        a stored or received record cannot be decoded
    ├── PolicyError              a policy broke its contract
    ├── CollectionMismatch       vectors made by another embedder
    ├── EmbedderMissing          the embedding extra is not installed
    ├── WorkflowError            a durable workflow could not be started or finished
    └── FolderBusy               another process owns the state folder

Any of them takes `category=` where its class does not say enough (`LedgerError("...", category=LEDGER_CLOSED)`); what
an exception stands for, ours or a library's, is answered by `classify`.

Expected ends (a refusal, an escalation, a skipped step) are records, never exceptions.
"""

from __future__ import annotations

from windlass.errors.category import HANDLING, Audience, Backoff, ErrorCategory, Handling
from windlass.errors.cause import classify, register, upstream_category

__all__ = [
    "HANDLING",
    "AccessError",
    "Audience",
    "Backoff",
    "CollectionMismatch",
    "EmbedderMissing",
    "ErrorCategory",
    "FolderBusy",
    "Handling",
    "InputError",
    "LedgerError",
    "LimitReached",
    "ModelUnknown",
    "PolicyError",
    "RecordInvalid",
    "RequestError",
    "SettingsError",
    "TranscriptError",
    "UpstreamError",
    "WindlassError",
    "WorkflowError",
    "classify",
    "register",
    "upstream_category",
]


class WindlassError(Exception):
    """Base of every exception that Windlass raises on purpose; `category` names a narrower cause than the class."""

    def __init__(self, *args: object, category: ErrorCategory | None = None):
        super().__init__(*args)
        self.category = category


class SettingsError(WindlassError):
    """A setting is missing, of the wrong type or out of range."""


class InputError(WindlassError):
    """What the caller handed in cannot be used."""


class TranscriptError(InputError):
    """A file is not a transcript that we can read."""


class RequestError(InputError):
    """An API request is malformed; `status` is the HTTP status, `param` the field at fault."""

    def __init__(
        self,
        message: str,
        *,
        status: int = 400,
        code: str = "invalid_request",
        param: str | None = None,
        category: ErrorCategory | None = None,
    ):
        super().__init__(message, category=category)
        self.status = status
        self.code = code
        self.param = param


class LimitReached(RequestError):
    """A limit leaves no room for a call. limit: its name. retry_after_s: when its window ends; None: never.

    spent: it is a budget, not a rate.
    """

    def __init__(self, message: str, *, limit: str, retry_after_s: int | None, spent: bool):
        category = ErrorCategory.BUDGET_SPENT if spent else ErrorCategory.CLIENT_RATE_LIMITED
        code = "budget_exceeded" if spent else "rate_limit_exceeded"
        super().__init__(message, status=429, code=code, category=category)
        self.limit = limit
        self.retry_after_s = retry_after_s


class AccessError(WindlassError):
    """The key is wrong, or its scopes do not allow what was asked."""


class ModelUnknown(WindlassError):
    """No configured provider offers the named model."""


class UpstreamError(WindlassError):
    """A provider failed; `status` is its HTTP status, or None where no answer arrived.

    Without `category` the status tells the cause, and without a status the exception that this one was raised from.
    """

    def __init__(self, message: str, *, status: int | None = None, category: ErrorCategory | None = None):
        super().__init__(message, category=category)
        self.status = status


class LedgerError(WindlassError):
    """The ledger cannot be opened, read or written."""


class RecordInvalid(LedgerError):
    """A stored or received record cannot be decoded."""


class PolicyError(WindlassError):
    """A policy broke its contract: no action, or a propensity outside (0, 1]."""


class CollectionMismatch(WindlassError):
    """A collection was made with another embedder, dimension or scale."""


class EmbedderMissing(WindlassError):
    """The `embeddings` extra, or the weights in it, cannot be found."""


class WorkflowError(WindlassError):
    """A durable workflow could not be started or finished."""


class FolderBusy(WindlassError):
    """Another process owns the state folder."""
