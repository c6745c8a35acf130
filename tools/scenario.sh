#!/usr/bin/env bash
# Install what the scenarios need (a browser, its driver's Python package, PostgreSQL, Prometheus, openai for Python and
# Node.js), and run them. With --install alone: install, and leave.
set -euo pipefail
cd "$(dirname "$0")/.."
bin=.venv/bin
"$bin/uv" sync -q --frozen --extra embeddings --extra telemetry --group dev --group scenario --inexact
missing=()
command -v chromium >/dev/null 2>&1 || missing+=(chromium fonts-dejavu-core)
command -v postgres >/dev/null 2>&1 || compgen -G "/usr/lib/postgresql/*/bin/postgres" >/dev/null || missing+=(postgresql)
prometheus=.venv/prometheus
unpack=""
command -v prometheus >/dev/null 2>&1 && command -v promtool >/dev/null 2>&1 || [ -x "$prometheus/usr/bin/promtool" ] || unpack=1
if ((${#missing[@]})) || [ -n "$unpack" ]; then
  sudo=""
  [ "$(id -u)" = 0 ] || sudo="sudo"
  $sudo apt-get update -qq >/dev/null
fi
if ((${#missing[@]})); then
  $sudo env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
fi
if [ -n "$unpack" ]; then
  # Unpacked and not installed: the package would start a server of its own, on every address of the machine.
  archive="$(mktemp -d)"
  (cd "$archive" && apt-get download -qq -o APT::Sandbox::User=root prometheus >/dev/null)
  dpkg-deb -x "$archive"/prometheus_*.deb "$prometheus"
  rm -rf "$archive"
fi
"$bin/python" -m tests.scenario.javascript
"$bin/python" -m tests.scenario.openai_suite
"$bin/python" -m tests.scenario.litellm_environment
[ "${1:-}" != --install ] || exit 0
# Four files at a time, since most of a scenario is waiting; then alone what measures time. Forty-five minutes is three
# times what they take on a busy machine; a scenario that hangs says where it stands, and does not hang the rest.
scenarios() {
  timeout --signal=ABRT --kill-after=30 2700 "$bin/python" -X faulthandler -m pytest tests/scenario --durations=15 "$@"
}
scenarios -m "not alone" -n "${SCENARIOS_AT_ONCE:-4}" --dist loadfile --no-loadscope-reorder "$@"
scenarios -m alone "$@"
