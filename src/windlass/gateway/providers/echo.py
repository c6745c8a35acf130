"""`Echo`: a provider that answers with the last message. For tests and for measuring the path itself."""

from __future__ import annotations

from collections.abc import Callable

from windlass.errors import UpstreamError
from windlass.gateway.options import ModelOptions
from windlass.gateway.provider import ProviderReply, ProviderRequest
from windlass.gateway.providers.compose import completion


class Echo:
    """Answers what it was told. `failing` models raise UpstreamError; `sent` keeps what arrived."""

    name = "echo"
    local = False

    def __init__(self, *models: str, failing: tuple[str, ...] = (), clock: Callable[[], float] = lambda: 0.0):
        self.models = tuple(ModelOptions(name=name) for name in (models or ("echo",)))
        self.sent: list[ProviderRequest] = []
        self._failing = failing
        self._clock = clock

    async def send(self, request: ProviderRequest) -> ProviderReply:
        self.sent.append(request)
        if request.model in self._failing:
            raise UpstreamError(f"model {request.model} is set to fail", status=None)
        return completion(request, request.chat.messages[-1].text, int(self._clock()))

    async def close(self) -> None:
        """Nothing is held open."""
