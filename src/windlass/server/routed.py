"""The hot endpoints of a server that routes: requests may say in headers what they are to be routed for."""

from __future__ import annotations

import msgspec

from windlass.gateway.transit import Request
from windlass.runtime import Runtime
from windlass.server import asgi
from windlass.server.asgi import Receive, Scope
from windlass.server.openai import OpenAI


class RoutedEndpoints(OpenAI):
    """Reads `x-windlass-objective`, `x-windlass-quality-floor` and the limits that models must keep."""

    async def _request(self, endpoint: str, scope: Scope, receive: Receive) -> Request:
        """RequestError (400) for a header that asks for what there is not."""
        from windlass.gateway.route.objectives import HEADERS, wish

        request = await super()._request(endpoint, scope, receive)
        wanted = wish(*(asgi.header(scope, name.encode()) for name in HEADERS))
        return request if wanted is None else msgspec.structs.replace(request, wish=wanted)


def endpoints(runtime: Runtime) -> OpenAI:
    """The endpoints below `/v1`; where no policy would read a header, none is looked for."""
    return OpenAI(runtime) if runtime.router is None else RoutedEndpoints(runtime)
