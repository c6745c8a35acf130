"""HTTP: the OpenAI-compatible wire, the API that the command line and the dashboard use, and the dashboard."""
