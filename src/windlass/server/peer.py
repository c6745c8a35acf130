"""Hand work to the server that already runs on the same state folder, so that no second process owns its workflows."""

from __future__ import annotations

import hashlib
import http.client
import json
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from windlass.errors import AccessError, InputError, WindlassError, WorkflowError
from windlass.server.envelope import CONFLICT, conflict

FILE = "server.json"
TIMEOUT_S = 120.0
ALIVE_S = 2.0


class Peer:
    """A running server of this folder."""

    def __init__(self, url: str, token: str):
        self.url = url
        self._token = token

    def operate(self, name: str, arguments: dict[str, Any]) -> dict[str, Any]:
        """Do one operation there. The server's own words come back as the exception they were."""
        status, answer = self._post(f"/api/{name}", arguments)
        if status < 400:
            return answer
        error = answer.get("error")
        message = str(error.get("message", error) if isinstance(error, dict) else answer)
        if status == CONFLICT:
            raise conflict(message)
        raise {400: InputError, 401: AccessError}.get(status, WorkflowError)(message)

    def alive(self) -> bool:
        """Does it still answer, and is it the very server that left its address, not another one on the same port?"""
        try:
            status, answer = self._request("GET", "/healthz", None)
        except WindlassError:
            return False
        return status == 200 and answer.get("instance") == instance(self._token)

    def _post(self, path: str, arguments: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        return self._request("POST", path, json.dumps(arguments))

    def _request(self, method: str, path: str, body: str | None) -> tuple[int, dict[str, Any]]:
        try:
            parts = urlsplit(self.url)
            patience_s = TIMEOUT_S if method == "POST" else ALIVE_S
            connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=patience_s)
        except (ValueError, http.client.HTTPException) as exc:
            raise WorkflowError(f"{self.url!r} is no address of a server: {exc}; remove {FILE}") from exc
        try:
            headers = {"x-windlass-token": self._token} if method == "POST" else {}
            connection.request(method, path, body, headers)
            response = connection.getresponse()
            answer = json.loads(response.read() or b"{}")
            return response.status, answer if isinstance(answer, dict) else {}
        except (OSError, http.client.HTTPException, ValueError) as exc:
            raise WorkflowError(f"the server at {self.url} does not answer: {exc}; is it still running?") from exc
        finally:
            connection.close()


def instance(token: str) -> str:
    """What a server shows of its token so that those who hold it can recognise it."""
    return hashlib.sha256(b"windlass instance " + token.encode()).hexdigest()[:16]


def find(home: Path) -> Peer | None:
    """The server that runs on `home`, or None. A file left behind by a killed one counts as none."""
    try:
        address = json.loads((home / FILE).read_text())
        peer = Peer(str(address["url"]), str(address["token"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return peer if peer.alive() else None
