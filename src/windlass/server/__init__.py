"""HTTP: the OpenAI-compatible wire, the API that the command line and the dashboard use, and the dashboard."""

from windlass.server import logs as logs  # before any other file imports structlog
