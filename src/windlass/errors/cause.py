"""`classify`: from an exception to its one cause, by class name and by what the exception itself says.

    classify(ConnectionRefusedError())            -> connect_refused
    classify(OSError(errno.ENOSPC, "..."))        -> disk_full
    classify(UpstreamError("...", status=429))    -> rate_limited

Order: what the raiser named (`category=`); then, from the narrowest class up, what its attributes tell (`_REFINE`) and
what its name stands for (`names.KNOWN`); where that is only a general answer, the exception it was raised from.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from windlass.errors.category import Audience
from windlass.errors.category import ErrorCategory as C
from windlass.errors.codes import (
    CLIENT_STATUS,
    CONNECT_MESSAGE,
    NETWORK_ERRNO,
    OS_ERRNO,
    SQLITE_CODE,
    SQLITE_MESSAGE,
    SQLSTATE,
    UPSTREAM_CODE,
    UPSTREAM_STATUS,
)
from windlass.errors.names import KNOWN

# Answers that name the room but not the reason: what they were raised from knows better.
_GENERAL = frozenset(
    {
        C.BUG,
        C.DATABASE_FAILED,
        C.EMBEDDER_FAILED,
        C.INPUT_INVALID,
        C.LEDGER_FAILED,
        C.OS_FAILED,
        C.POLICY_FAILED,
        C.QUERY_INVALID,
        C.REQUEST_INVALID,
        C.STEP_FAILED,
        C.TOOL_FAILED,
        C.TRANSCRIPT_UNREADABLE,
        C.UNKNOWN,
        C.UPSTREAM_FAILED,
        C.WORKFLOW_FAILED,
    }
)
# Of two general answers the one further down the chain wins, unless it is one of these and says less.
_VAGUENESS = {C.UNKNOWN: 3, C.BUG: 2, C.OS_FAILED: 1}
# Bytes of a provider that do not parse are the provider's fault, whatever the parser would say of a client.
_OF_UPSTREAM = {
    C.ENCODING_INVALID: C.RESPONSE_MALFORMED,
    C.JSON_INVALID: C.RESPONSE_MALFORMED,
    C.SCHEMA_MISMATCH: C.RESPONSE_MALFORMED,
}
_URGENCY = {Audience.NOBODY: 0, Audience.CLIENT: 1, Audience.OPERATOR: 3, Audience.DEVELOPER: 4}
_URGENCY_UNKNOWN = 2  # says less than an operator's disk_full, more than a client that left
_MAX_VISITED = 100  # exceptions looked at in one chain or group; a longer one is answered from what was seen

_known = dict(KNOWN)  # and what adapters register


def classify(exc: BaseException) -> C:
    """The one cause that `exc` stands for; of a group, the one that most urgently needs somebody."""
    return _classify(exc, set())


def register(qualified_name: str, category: C) -> None:
    """Let an adapter say what an exception of its library stands for: `register("litellm.exceptions.Timeout", ...)`.

    Raises ValueError where the name is known with another category, is no dotted name, is a builtin, or the category
    is `unknown`: a registration adds knowledge, it never changes what the others rely on.
    """
    module, _, name = qualified_name.rpartition(".")
    if not all(part.isidentifier() for part in qualified_name.split(".")) or not module or module == "builtins":
        raise ValueError(
            f"{qualified_name!r} cannot be registered; give 'package.module.{name or 'Class'}' of a library"
        )
    if category is C.UNKNOWN:
        raise ValueError(f"{qualified_name} cannot be registered as unknown; choose the cause it stands for")
    if _known.setdefault(qualified_name, category) is not category:
        raise ValueError(f"{qualified_name} stands for {_known[qualified_name]} already; {category} contradicts it")


def upstream_category(status: int, code: str = "") -> C | None:
    """What a provider's HTTP status and `error.code` stand for; None below 300, where the status reports no failure."""
    if status < 300:
        return None
    if status < 400:
        return C.REDIRECT_REFUSED
    if code in UPSTREAM_CODE:
        return UPSTREAM_CODE[code]
    return UPSTREAM_STATUS.get(status, C.UPSTREAM_REQUEST_REFUSED if status < 500 else C.UPSTREAM_SERVER_ERROR)


def _classify(exc: BaseException, seen: set[int]) -> C:
    seen.add(id(exc))
    named = exc.__dict__.get("category")
    if isinstance(named, C):
        return named
    if isinstance(exc, BaseExceptionGroup):
        return max((_classify(member, seen) for member in _unseen(exc, seen)), key=_urgency, default=C.UNKNOWN)
    own = _own(exc)
    cause = _raised_from(exc)
    if own not in _GENERAL or cause is None or id(cause) in seen or len(seen) >= _MAX_VISITED:
        return own
    deeper = _classify(cause, seen)
    if own is C.UPSTREAM_FAILED:
        deeper = _OF_UPSTREAM.get(deeper, deeper)
    return deeper if _VAGUENESS.get(deeper, 0) <= _VAGUENESS.get(own, 0) else own


def _own(exc: BaseException) -> C:
    """What `exc` says by itself, from its narrowest class up to the widest."""
    for cls in type(exc).__mro__:
        name = f"{cls.__module__}.{cls.__qualname__}"
        refined = _REFINE[name](exc) if name in _REFINE else None
        category = refined or _known.get(name)
        if category is not None:
            return category
    return C.UNKNOWN


def _raised_from(exc: BaseException) -> BaseException | None:
    """The exception behind `exc`: its `__cause__`, else the driver's error that SQLAlchemy keeps as `orig`."""
    behind = exc.__cause__ or exc.__dict__.get("orig")
    return behind if isinstance(behind, BaseException) else None


def _unseen(group: BaseExceptionGroup[BaseException], seen: set[int]) -> Iterator[BaseException]:
    for member in group.exceptions:
        if len(seen) >= _MAX_VISITED:
            return
        if id(member) not in seen:
            yield member


def _urgency(category: C) -> tuple[int, bool]:
    """Who must act, then whether trying again could help: larger is worse."""
    who = _URGENCY_UNKNOWN if category is C.UNKNOWN else _URGENCY[category.handling.audience]
    return who, not category.handling.retryable


def _by_network_errno(exc: BaseException) -> C | None:
    number = getattr(exc, "errno", None)
    return NETWORK_ERRNO.get(number) if isinstance(number, int) else None


def _by_errno(exc: BaseException) -> C | None:
    number = getattr(exc, "errno", None)
    return OS_ERRNO.get(number) if isinstance(number, int) else None


def _by_upstream_status(exc: BaseException) -> C | None:
    status = getattr(exc, "status", None)
    return upstream_category(status) if isinstance(status, int) else None


def _by_client_status(exc: BaseException) -> C | None:
    status = getattr(exc, "status", None) or getattr(exc, "status_code", None)
    if not isinstance(status, int):
        return None
    return C.BUG if status >= 500 else CLIENT_STATUS.get(status)


def _by_parser(exc: BaseException) -> C | None:
    """aiohttp's parser: one class for a body that stopped and for one that is nonsense; only the text differs."""
    text = str(getattr(exc, "message", ""))
    if "Not enough data" in text:
        return C.STREAM_CUT
    return C.CHUNK_MALFORMED if "chunk size" in text else None


def _by_answer(exc: BaseException) -> C | None:
    """aiohttp puts status 400 on an answer that it could not parse; the parser's error behind it tells the truth."""
    behind = exc.__cause__
    if behind is not None and type(behind).__module__ == "aiohttp.http_exceptions":
        return _own(behind)
    return _by_upstream_status(exc)


def _by_sqlite(exc: BaseException) -> C | None:
    code = str(getattr(exc, "sqlite_errorname", ""))
    for prefix, category in SQLITE_CODE.items():
        if code.startswith(prefix):
            return category
    text = str(exc).lower()
    return next((category for part, category in SQLITE_MESSAGE.items() if part in text), None)


def _by_sqlstate(exc: BaseException) -> C | None:
    """psycopg knows no state where the server could not be asked any more, or did not let us in."""
    state = str(getattr(exc, "sqlstate", None) or "")
    if not state:
        text = str(exc).lower()
        refused = (category for part, category in CONNECT_MESSAGE.items() if part in text)
        return next(refused, SQLSTATE["08"])
    return SQLSTATE.get(state) or SQLSTATE.get(state[:2])


_REFINE: dict[str, Callable[[BaseException], C | None]] = {
    "aiohttp.client_exceptions.ClientConnectorError": _by_network_errno,
    "aiohttp.client_exceptions.ClientOSError": _by_network_errno,
    "aiohttp.client_exceptions.ClientPayloadError": _by_answer,
    "aiohttp.client_exceptions.ClientResponseError": _by_answer,
    "aiohttp.http_exceptions.HttpProcessingError": _by_parser,
    "aiohttp.http_exceptions.TransferEncodingError": _by_parser,
    "aiohttp.web_exceptions.HTTPException": _by_client_status,
    "builtins.OSError": _by_errno,
    "builtins.TimeoutError": _by_network_errno,
    "psycopg.DatabaseError": _by_sqlstate,
    "sqlite3.Error": _by_sqlite,
    "sqlite3.ProgrammingError": _by_sqlite,
    "starlette.exceptions.HTTPException": _by_client_status,
    "windlass.errors.RequestError": _by_client_status,
    "windlass.errors.UpstreamError": _by_upstream_status,
}
