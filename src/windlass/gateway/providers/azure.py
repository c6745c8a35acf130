"""OpenAI's models on Azure: its dialect at a resource of one's own, by deployment.

Source: Azure OpenAI, "REST API reference" (deployments, `api-version`) and "v1 API".
"""

from __future__ import annotations

from urllib.parse import quote

from windlass.errors import RequestError
from windlass.gateway.options import AzureOptions, ModelOptions, ProviderOptions
from windlass.gateway.provider import ANY, JSON, EmbeddingRequest, ProviderReply, ProviderRequest, RawRequest
from windlass.gateway.providers import translated
from windlass.gateway.providers.openai_compatible import speaks
from windlass.gateway.transport.transport import Transport


class Azure:
    """A provider behind an Azure resource. A model's `upstream` is the name of its deployment.

    With a dated `api_version` the deployment stands in the path, without one in the body alone.
    """

    local = False

    def __init__(self, options: ProviderOptions, api_key: str = ""):
        version = options.of_kind(AzureOptions).api_version
        self.name = options.name
        self.models: tuple[ModelOptions, ...] = options.models
        self.embedding_models = options.models
        self._dated = version[:1].isdigit()
        self._query = f"api-version={version}" if version else ""
        self._endpoints = frozenset(options.endpoints or (() if self._dated else ("responses",)))
        self._deployments = {model.name: model.upstream for model in options.models}
        resource = options.base_url.rstrip("/").removesuffix("/openai/v1").removesuffix("/openai")
        base_url = f"{resource}/openai" if self._dated else f"{resource}/openai/v1"
        self._transport = Transport(options, {"api-key": api_key} if api_key else {}, base_url=base_url)

    async def send(self, request: ProviderRequest) -> ProviderReply:
        return await self._request("POST", "/chat/completions", request.model, request.body)

    async def embed(self, request: EmbeddingRequest) -> ProviderReply:
        return await self._request("POST", "/embeddings", request.model, request.body)

    def serves(self, endpoint: str) -> bool:
        return speaks(endpoint, self._endpoints)

    async def relay(self, request: RawRequest) -> ProviderReply:
        return await self._request(request.method, request.path, request.model, request.body, request.content_type)

    async def close(self) -> None:
        await self._transport.close()

    async def _request(
        self, method: str, path: str, model: str, body: bytes, content_type: str = JSON
    ) -> ProviderReply:
        try:
            return await self._transport.request(method, self._path(path, model), body, content_type)
        except RequestError as exc:
            return translated.refused(exc)

    def _path(self, path: str, model: str) -> str:
        """Below `/openai` or `/openai/v1`. RequestError (404) for a name that would lead out of its place."""
        if self._dated and model:
            deployment = self._deployments.get(model, self._deployments.get(ANY)) or model
            if deployment in (".", ".."):
                raise RequestError(
                    f"{deployment!r} is no deployment", status=404, code="model_not_found", param="model"
                )
            path = f"/deployments/{quote(deployment, safe='')}{path}"
        return f"{path}{'&' if '?' in path else '?'}{self._query}" if self._query else path
