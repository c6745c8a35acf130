"""The files that a browser keeps: each under an address with its digest, so that it can be kept for good."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from importlib.resources import files

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

TYPES = {
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
FOR_GOOD = "public, max-age=31536000, immutable"
ASK_AGAIN = "no-cache"


@dataclass(frozen=True)
class Asset:
    """One file, read once."""

    data: bytes
    content_type: str
    digest: str


class Assets:
    """The files of `static/`, read at start: a missing one shows at once, and no path of a client is ever opened."""

    def __init__(self) -> None:
        self._files: dict[str, Asset] = {}
        for file in files("windlass.server.dashboard").joinpath("static").iterdir():
            suffix = file.name[file.name.rfind(".") :]
            if suffix in TYPES:
                data = file.read_bytes()
                self._files[file.name] = Asset(data, TYPES[suffix], hashlib.sha256(data).hexdigest()[:16])

    def url(self, name: str) -> str:
        """The address of a file in its present form. KeyError for a name that is not there."""
        return f"/static/{name}?v={self._files[name].digest}"

    async def serve(self, request: Request) -> Response:
        """One file, or 304 where the browser still has it."""
        asset = self._files.get(request.path_params["name"])
        if asset is None:
            raise HTTPException(404)
        current = request.query_params.get("v") == asset.digest
        headers = {"etag": f'"{asset.digest}"', "cache-control": FOR_GOOD if current else ASK_AGAIN}
        if headers["etag"] in request.headers.get("if-none-match", ""):
            return Response(status_code=304, headers=headers)
        return Response(asset.data, headers=headers, media_type=asset.content_type)
