#!/usr/bin/env bash
# Install what the scenarios need (a browser, its driver's Python package, the openai client) and run them.
set -euo pipefail
cd "$(dirname "$0")/.."
bin=.venv/bin
"$bin/uv" sync -q --frozen --extra embeddings --group dev --group scenario --inexact
if ! command -v chromium >/dev/null 2>&1; then
  sudo=""
  [ "$(id -u)" = 0 ] || sudo="sudo"
  $sudo apt-get update -qq >/dev/null
  $sudo env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends chromium fonts-dejavu-core >/dev/null
fi
exec "$bin/python" -m pytest tests/scenario "$@"
