"""The records everything shares: what was called, decided, what came of it, and what people said. Read first.

All are frozen plain data. Ids are typed and time-ordered (`call_0192...`), times are UTC seconds as float, money is
integer nano-dollars. `encode` and `decode` round-trip every record and keep the fields that a newer version added
(they wait in `extra`), so that an old process never loses what a new one wrote.
"""

from __future__ import annotations

import hashlib
import math
from typing import Any, Literal, TypeAlias, TypeVar

import msgspec

from windlass.errors import RecordInvalid

DEFAULT_TENANT = "default"
DEFAULT_WORKSPACE = "default"

FeedbackKind = Literal["rating", "correction", "suggestion", "complaint", "praise"]
FeedbackSource = Literal["user", "manager", "system", "qa"]
Status = Literal["ok", "skipped", "failed", "escalated"]
ContextValue: TypeAlias = float | tuple[float, ...]


class Scope(msgspec.Struct, frozen=True):
    """Whose rows a query may touch. Every read and every write takes one."""

    tenant: str = DEFAULT_TENANT
    workspace: str = DEFAULT_WORKSPACE


class Record(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=False):
    """What every ledger row carries: a typed id, its owner, when it happened, and fields of a newer version."""

    id: str
    at: float
    tenant: str = DEFAULT_TENANT
    workspace: str = DEFAULT_WORKSPACE
    extra: dict[str, Any] = msgspec.field(default_factory=dict)

    @property
    def scope(self) -> Scope:
        return Scope(self.tenant, self.workspace)


class Call(Record, frozen=True, kw_only=True):
    """One request that entered the gateway. `parent` is the typed id it was made for (answer, step, run)."""

    endpoint: str
    model: str
    stream: bool = False
    parent: str = ""
    user: str = ""
    request_bytes: int = 0


class Decision(Record, frozen=True, kw_only=True):
    """One automatic choice: `policy` (name@version) chose `action` of `actions` with `propensity` in (0, 1].

    `context` is the named form; the ledger keeps it in a side table that can be deleted.
    """

    call: str
    point: str
    policy: str
    actions: tuple[str, ...]
    action: str
    propensity: float
    live: bool
    context: dict[str, ContextValue] = msgspec.field(default_factory=dict)
    featuriser: str = ""
    fallback: str = ""


class Outcome(Record, frozen=True, kw_only=True):
    """What came of a call. Latencies in ms, cost in nano-dollars; `error` is an `ErrorCategory` value or ''."""

    call: str
    model: str
    provider: str
    status: int
    latency_ms: float
    first_byte_ms: float
    prompt_tokens: int
    completion_tokens: int
    cost_nusd: int
    tokens_estimated: bool = False
    error: str = ""


class Feedback(Record, frozen=True, kw_only=True):
    """What somebody, or a check, said of `target` (any typed id). The same id again changes nothing."""

    target: str
    kind: FeedbackKind
    source: FeedbackSource
    metric: str = "quality"
    value: float | None = None
    comment: str = ""


class StepResult(msgspec.Struct, frozen=True, kw_only=True):
    """What a workflow step, a tool or a pipeline stage leaves behind; plain data, it crosses durable boundaries."""

    status: Status
    value: Any = None
    error: str = ""
    message: str = ""
    attempts: int = 1
    cost_nusd: int = 0
    duration_ms: float = 0.0
    extra: dict[str, Any] = msgspec.field(default_factory=dict)


class RunEvent(Record, frozen=True, kw_only=True):
    """One thing that happened in a durable run: `step` of `run` ended with `result`."""

    run: str
    workflow: str
    step: str
    item: str = ""
    result: StepResult


class Erasure(Record, frozen=True, kw_only=True):
    """A user was forgotten: bodies, contexts and comments are gone. `user` is a digest, see `user_digest`.

    It stands in the ledger so that every fold lets go of the user at the same place.
    """

    user: str


class Reply(msgspec.Struct, frozen=True, kw_only=True):
    """What the gateway answers: bytes as they leave, and the ids under which the ledger knows them."""

    call: str
    status: int
    model: str
    provider: str
    body: bytes
    text: str
    prompt_tokens: int
    completion_tokens: int
    cost_nusd: int
    latency_ms: float
    extra: dict[str, Any] = msgspec.field(default_factory=dict)


LedgerRecord: TypeAlias = Call | Decision | Outcome | Feedback | RunEvent | Erasure
Coded: TypeAlias = LedgerRecord | Reply | StepResult
KINDS: dict[str, type[LedgerRecord]] = {
    "call": Call,
    "decision": Decision,
    "outcome": Outcome,
    "feedback": Feedback,
    "run_event": RunEvent,
    "erasure": Erasure,
}
T = TypeVar("T", bound="Coded")


USER_CHARS = 200
"""So much of a user's id is kept; calls and erasures cut it alike."""


def user_digest(scope: Scope, user: str) -> str:
    """What stands for a user where the name must not: SHA-256 over tenant, workspace and user, as hex."""
    return hashlib.sha256(msgspec.msgpack.encode((scope.tenant, scope.workspace, user))).hexdigest()


def encode(record: Coded) -> bytes:
    """One record as JSON bytes, the fields of a newer version beside ours. RecordInvalid for a NaN or infinity."""
    try:
        fields = _plain(record)
        _refuse_non_finite(fields)
        return msgspec.json.encode(fields)
    except (TypeError, ValueError, UnicodeEncodeError, RecursionError) as exc:
        raise RecordInvalid(f"{type(record).__name__} cannot be encoded: {exc}; use plain, finite values") from exc


def decode(data: bytes, kind: type[T]) -> T:
    """The record of `kind` in `data`; what this version does not know is kept in `extra`."""
    try:
        fields = msgspec.json.decode(data, type=dict[str, Any])
        return _from_plain(fields, kind)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as exc:
        raise RecordInvalid(f"not a {kind.__name__}: {exc}; the bytes begin {data[:60]!r}") from exc


def _plain(record: Coded) -> dict[str, Any]:
    """The record as builtins, `extra` spread beside the fields."""
    # A propensity may be a number that is still to be worked out.
    fields: dict[str, Any] = msgspec.to_builtins(record, enc_hook=float)
    if isinstance(record, RunEvent):
        fields["result"] = _plain(record.result)
    extra = fields.pop("extra")
    if clash := sorted(extra.keys() & fields.keys()):
        raise ValueError(f"extra holds {clash}, which are fields of its own")
    return {**extra, **fields}


def _from_plain(fields: dict[str, Any], kind: type[T]) -> T:
    known = {name: fields[name] for name in kind.__struct_fields__ if name in fields and name != "extra"}
    extra = {name: value for name, value in fields.items() if name not in kind.__struct_fields__ or name == "extra"}
    if kind is RunEvent and isinstance(known.get("result"), dict):
        known["result"] = _from_plain(known["result"], StepResult)
    return msgspec.convert({**known, "extra": extra}, kind)


def _refuse_non_finite(value: Any) -> None:
    """JSON has no NaN; a silent null would be another number on the way back."""
    match value:
        case float() if not math.isfinite(value):
            raise ValueError(f"{value} is not a finite number")
        case dict():
            for key, inner in value.items():
                _refuse_non_finite(key)
                _refuse_non_finite(inner)
        case list() | tuple():
            for inner in value:
                _refuse_non_finite(inner)
