"""Who looks at the pages: sessions where keys are configured, and a token in every form.

Three things stand between a form and a stranger: the application refuses a foreign `Origin`, the session cookie is
`SameSite=Strict`, and every form carries a token that only a page of this server for this session can know.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Callable

from starlette.requests import HTTPConnection
from starlette.responses import Response

from windlass.errors import AccessError
from windlass.gateway.access.admission import Admission, Caller
from windlass.server.dashboard.store import Visit, Visits

IDLE_S = 12 * 3600.0
MAX_VISITS = 1_000


class Access:
    """Sessions, which all workers share, and form tokens, which are keyed by `secret`: a restart makes those anew."""

    def __init__(self, admission: Admission, visits: Visits, *, clock: Callable[[], float], secret: bytes):
        self._admission = admission
        self._visits = visits
        self._clock = clock
        self._secret = secret

    @property
    def required(self) -> bool:
        """Whether visitors have to sign in: from the first key on, also where it is made while pages are open."""
        return not self._admission.open

    def caller(self, connection: HTTPConnection) -> Caller:
        """Whom this browser acts for. AccessError where it has to sign in first."""
        if not self.required:
            return self._admission.identify("", "")
        visit = self._visit(connection)
        if visit is None:
            raise AccessError("sign in with an API key first")
        self._visits.touch(self._id(connection), visit, self._clock())
        return visit.caller

    def signed_in(self, connection: HTTPConnection) -> bool:
        """Whether the browser may look; asking this does not keep a session alive."""
        return not self.required or self._visit(connection) is not None

    def sign_in(self, connection: HTTPConnection, response: Response, key: str, workspace: str) -> None:
        """Open a session and hand its id to the browser. AccessError for a wrong key or workspace."""
        caller = self._admission.identify(key, workspace)
        self._visits.remove(self._id(connection))
        fresh = secrets.token_urlsafe(32)
        self._visits.add(fresh, Visit(caller, self._clock()), most=MAX_VISITS)
        secure = connection.url.scheme == "https"
        response.set_cookie(_cookie(connection), fresh, httponly=True, samesite="strict", secure=secure)

    def sign_out(self, connection: HTTPConnection, response: Response) -> None:
        """Forget the session on both sides."""
        self._visits.remove(self._id(connection))
        response.delete_cookie(_cookie(connection), httponly=True, samesite="strict")

    def token(self, connection: HTTPConnection) -> str:
        """What a form of this session has to send back."""
        known = self._id(connection) if self._visit(connection) is not None else ""
        return hmac.new(self._secret, known.encode(), hashlib.sha256).hexdigest()

    def vouches(self, connection: HTTPConnection, token: str) -> bool:
        """Whether `token` came from a page of this session."""
        return hmac.compare_digest(self.token(connection).encode(), token.encode(errors="replace"))

    def _visit(self, connection: HTTPConnection) -> Visit | None:
        """The session behind this browser's cookie, while it lasts."""
        cookie = self._id(connection)
        visit = self._visits.find(cookie) if cookie else None
        lasts = visit is not None and self._clock() - visit.seen_at <= IDLE_S
        return visit if visit is not None and lasts and self._admission.knows(visit.caller) else None

    def _id(self, connection: HTTPConnection) -> str:
        return connection.cookies.get(_cookie(connection), "")


def _cookie(connection: HTTPConnection) -> str:
    """Cookies do not know ports: two servers on one host must not sign each other's visitors out."""
    return f"windlass_{connection.url.port or 'session'}"
