"""The names of attributes: those of OpenTelemetry's GenAI conventions, then our own. No other file spells one out.

Conventions: open-telemetry/semantic-conventions-genai, `client-inference`, `client-embeddings` and `gen-ai-events`;
status "Development", so a later release may rename them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

OPERATION: Final = "gen_ai.operation.name"
PROVIDER: Final = "gen_ai.provider.name"
REQUEST_MODEL: Final = "gen_ai.request.model"
REQUEST_STREAM: Final = "gen_ai.request.stream"
RESPONSE_MODEL: Final = "gen_ai.response.model"
FINISH_REASONS: Final = "gen_ai.response.finish_reasons"
FIRST_CHUNK_S: Final = "gen_ai.response.time_to_first_chunk"
INPUT_TOKENS: Final = "gen_ai.usage.input_tokens"
OUTPUT_TOKENS: Final = "gen_ai.usage.output_tokens"
INPUT_MESSAGES: Final = "gen_ai.input.messages"
OUTPUT_MESSAGES: Final = "gen_ai.output.messages"
EVALUATION: Final = "gen_ai.evaluation.result"
EVALUATION_NAME: Final = "gen_ai.evaluation.name"
EVALUATION_SCORE: Final = "gen_ai.evaluation.score.value"
EVALUATION_LABEL: Final = "gen_ai.evaluation.score.label"
EVALUATION_WHY: Final = "gen_ai.evaluation.explanation"
ERROR: Final = "error.type"
STATUS: Final = "http.response.status_code"
SERVER: Final = "server.address"
SERVER_PORT: Final = "server.port"
USER: Final = "user.id"
SERVICE: Final = "service.name"
SERVICE_VERSION: Final = "service.version"
SDK: Final = "telemetry.sdk.name"
SDK_LANGUAGE: Final = "telemetry.sdk.language"
SDK_VERSION: Final = "telemetry.sdk.version"

COST_USD: Final = "gen_ai.usage.cost"
"""No name of the conventions, but the one that Langfuse reads; see its page "OpenTelemetry", property mapping."""

COST_NUSD: Final = "windlass.cost_nusd"
TENANT: Final = "windlass.tenant"
WORKSPACE: Final = "windlass.workspace"
CALL: Final = "windlass.call"
ENDPOINT: Final = "windlass.endpoint"
PARENT: Final = "windlass.parent"
OUR_PROVIDER: Final = "windlass.provider"
ESTIMATED: Final = "windlass.tokens_estimated"
ATTEMPT: Final = "windlass.attempt."
DECISION: Final = "windlass.decision."
FEEDBACK: Final = "windlass.feedback."

OPERATIONS: Final[Mapping[str, str]] = {
    "chat": "chat",
    "responses": "chat",
    "messages": "chat",
    "embeddings": "embeddings",
    "completions": "text_completion",
}
"""Our endpoints, and the operation that each is; of the others the endpoint is the name."""

GENERATING: Final = frozenset({"chat", "responses", "messages"})
"""Our endpoints whose answers end for a reason."""

KINDS: Final[Mapping[str, str]] = {
    "anthropic": "anthropic",
    "gemini": "gcp.gemini",
    "azure": "azure.ai.openai",
}
"""Kinds of providers that speak to one provider only."""

HOSTS: Final[Mapping[str, str]] = {
    "api.openai.com": "openai",
    "api.mistral.ai": "mistral_ai",
    "api.deepseek.com": "deepseek",
    "api.groq.com": "groq",
    "api.perplexity.ai": "perplexity",
    "api.x.ai": "x_ai",
    "api.cohere.com": "cohere",
    "api.cohere.ai": "cohere",
}
"""Providers whom a host tells; of the others the name in the settings stands."""
