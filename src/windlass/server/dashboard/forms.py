"""Plain forms as they come in."""

from __future__ import annotations

from urllib.parse import parse_qs

from starlette.requests import Request

from windlass.errors import RequestError
from windlass.server import asgi

MAX_FORM_BYTES = 64 * 1024
MAX_FIELDS = 50
URLENCODED = "application/x-www-form-urlencoded"


async def form_of(request: Request) -> dict[str, str]:
    """The fields of a form, the first value of each. RequestError where it is none or too large."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != URLENCODED:
        raise RequestError(f"content type {kind[:100]!r} is not a form; send {URLENCODED}", status=415)
    data = await asgi.read_body(request.receive, MAX_FORM_BYTES)
    try:
        fields = parse_qs(data.decode(), keep_blank_values=True, errors="strict", max_num_fields=MAX_FIELDS)
    except ValueError as exc:
        raise RequestError(f"the form cannot be read: {exc}") from exc
    return {name: values[0] for name, values in fields.items()}
