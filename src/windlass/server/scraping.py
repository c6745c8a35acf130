"""`windlass metrics`: what Prometheus is told, the alert rules for it and the dashboard for Grafana, printed."""

from __future__ import annotations

import json
import sys
import urllib.error
import urllib.request
from importlib.resources import files

from windlass.errors import WorkflowError
from windlass.runtime import Runtime
from windlass.server import peer, terminal
from windlass.server.metrics import Metrics
from windlass.server.readiness import Readiness
from windlass.server.serve import in_loop
from windlass.server.traffic import Traffic
from windlass.settings import Settings

TIMEOUT_S = 30.0


def show(settings: Settings, *, as_json: bool) -> int:
    """Print the metrics of the server that runs on the folder, or else of this process; returns the exit code."""
    running = peer.find(settings.home)
    text = in_loop(_here(settings)) if running is None else _there(settings)
    return _printed("metrics", text, as_json=as_json)


def show_rules(*, as_json: bool) -> int:
    """Print the alert rules; returns the exit code."""
    return _printed("rules", rules(), as_json=as_json)


def rules() -> str:
    """The alert rules for Prometheus that come with this release, as YAML."""
    return (files("windlass.watch") / "alerts.yml").read_text()


def show_dashboard() -> int:
    """Print the dashboard; returns the exit code."""
    sys.stdout.write(dashboard())
    return 0


def dashboard() -> str:
    """The dashboard for Grafana that comes with this release, as JSON; it asks for what the rules record, too."""
    return (files("windlass.watch") / "grafana.json").read_text()


async def _here(settings: Settings) -> str:
    async with Runtime(settings) as runtime:
        return (await Metrics(runtime, Traffic(), Readiness(runtime)).text())[1].decode()


def _there(settings: Settings) -> str:
    address = json.loads((settings.home / peer.FILE).read_text())
    asked = urllib.request.Request(f"{address['url']}/metrics", headers={"x-windlass-token": address["token"]})
    try:
        with urllib.request.urlopen(asked, timeout=TIMEOUT_S) as response:
            return str(response.read().decode())
    except urllib.error.URLError as exc:
        raise WorkflowError(f"the server at {address['url']} does not answer: {exc}; is it still running?") from exc


def _printed(name: str, text: str, *, as_json: bool) -> int:
    if as_json:
        terminal.print_json({name: text})
    else:
        sys.stdout.write(text)
    return 0
