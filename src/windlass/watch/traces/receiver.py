"""The receiver of spans, by OTLP over HTTP: one request, bounded in time, and what its answer means.

OTLP specification, "OTLP/HTTP Response" and "Failures". Where it has spans dropped because a request was not let in (a
wrong key, a wrong path), they wait instead: the ledger holds them until somebody mends the settings.
"""

from __future__ import annotations

import math
import socket
import ssl
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from email.utils import parsedate_to_datetime
from http.client import HTTPConnection, HTTPException, HTTPResponse, HTTPSConnection
from typing import Final, Literal, NamedTuple
from urllib.parse import urlsplit

MOST_ANSWER_BYTES: Final = 65_536
_AGAIN: Final = frozenset({408, 425, 429, 502, 503, 504})
_SETTINGS: Final = frozenset({401, 402, 403, 404, 405, 407})
Verdict = Literal["taken", "wait", "unsure", "too_large", "refused"]


class Receipt(NamedTuple):
    """What came of one request.

    verdict: `wait`: try again as long as it takes; `unsure`: the receiver failed, maybe over these very spans;
    `refused`: the same again would be refused again. retry_after_s: as the receiver asked.
    """

    verdict: Verdict
    reason: str = ""
    body: bytes = b""
    retry_after_s: float | None = None


class Receiver:
    """Takes a connection for each request. url: http or https; redirects are not followed: headers hold secrets.

    timeout_s: of a request, in all. clock: UTC seconds.
    """

    def __init__(self, url: str, headers: Mapping[str, str], timeout_s: float, clock: Callable[[], float]):
        parts = urlsplit(url)
        self._host, self._port, self._path = parts.hostname or "", parts.port, parts.path
        self._tls = ssl.create_default_context() if parts.scheme == "https" else None
        self._headers = dict(headers)
        self._timeout_s = timeout_s
        self._clock = clock
        self._open: HTTPConnection | None = None

    def send(self, body: bytes, content_type: str) -> Receipt:
        """Post `body`. Whatever a receiver or a network does is an answer."""
        self._open = connection = self._connection()
        # A socket's own limit is for each byte; who sends them one by one is stopped here.
        limit = threading.Timer(self._timeout_s, self.cut)
        limit.daemon = True
        limit.start()
        try:
            # Who finds a request too large answers and hangs up before it is all sent.
            with suppress(BrokenPipeError, ConnectionResetError):
                connection.request("POST", self._path, body, {**self._headers, "content-type": content_type})
            response = connection.getresponse()
            said = response.read(MOST_ANSWER_BYTES)
            if len(said) < MOST_ANSWER_BYTES and (response.length or not limit.is_alive()):
                raise HTTPException(f"an answer of HTTP {response.status} that was cut")
            return self._answer(response, said)
        except (OSError, HTTPException, ValueError) as exc:
            if not limit.is_alive():
                return Receipt("wait", f"no answer within {self._timeout_s:g} s")
            return Receipt("wait", _plain(f"{type(exc).__name__}: {exc}"))
        finally:
            limit.cancel()
            self._open = None
            connection.close()

    def cut(self) -> None:
        """Break off a request that is under way, from another thread."""
        connection = self._open
        if connection is not None and connection.sock is not None:
            with suppress(OSError):
                connection.sock.shutdown(socket.SHUT_RDWR)

    def _connection(self) -> HTTPConnection:
        if self._tls is None:
            return HTTPConnection(self._host, self._port, timeout=self._timeout_s)
        return HTTPSConnection(self._host, self._port, timeout=self._timeout_s, context=self._tls)

    def _answer(self, response: HTTPResponse, body: bytes) -> Receipt:
        status = response.status
        if 200 <= status < 300:
            return Receipt("taken", body=body)
        said = f"HTTP {status} {_plain(body[:200].decode(errors='replace'))}".strip()
        if 300 <= status < 400:
            return Receipt("wait", f"HTTP {status}: it sends elsewhere, which is not followed; set that address")
        if status in _AGAIN or status in _SETTINGS:
            return Receipt("wait", said, retry_after_s=self._retry_after_s(response.headers.get("retry-after", "")))
        if status >= 500:
            return Receipt("unsure", said)
        return Receipt("too_large" if status == 413 else "refused", said)

    def _retry_after_s(self, asked: str) -> float | None:
        """Seconds or a date (RFC 9110, section 10.2.3); None for anything else."""
        try:
            seconds = (
                float(asked) if asked.strip().isdigit() else parsedate_to_datetime(asked).timestamp() - self._clock()
            )
        except (TypeError, ValueError, OverflowError):
            return None
        return max(0.0, seconds) if math.isfinite(seconds) else None


def _plain(text: str) -> str:
    """One line that a terminal can show."""
    return "".join(letter if letter.isprintable() else " " for letter in text).strip()[:200]
