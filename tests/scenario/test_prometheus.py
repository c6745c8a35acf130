"""Debian's Prometheus scrapes the real server: its sums are the ledger's, the shipped rules load, and alerts fire."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import pytest

from tests.scenario.program import free_port, post, rows, server, windlass
from tests.scenario.test_failover import upstream

pytestmark = pytest.mark.scenario
ROOT = Path(__file__).resolve().parents[2]
UNPACKED = ROOT / ".venv" / "prometheus" / "usr" / "bin"
"""Where tools/scenario.sh puts Debian's package."""
RULE_TESTS = Path(__file__).with_name("alerts_test.yml")
EVERY = "500ms"
PATIENCE_S = 30.0
CALL_NUSD = 7 * 1_000_000 + 8 * 2_000_000
"""What an answer of the model `fine` costs: 7 and 8 tokens at 1,000 and 2,000 USD a million."""
SPENT_CALLS = 40
"""So many of them leave less than a tenth of the budget of one dollar."""
SETTINGS = """
[resilience]
attempts = 1

[[limits]]
name = "dollar"
model = "fine"
window = "total"
usd = 1.0

[[limits]]
name = "few"
model = "scarce"
window = "hour"
requests = 2

[[keys]]
name = "prometheus"
sha256 = "{prometheus}"

[[keys]]
name = "app"
sha256 = "{app}"
tenant = "acme"

[[providers]]
name = "good"
base_url = "http://127.0.0.1:{http}/v1"
[[providers.models]]
name = "fine"
upstream = "fine"
prompt_usd_per_million = 1000.0
completion_usd_per_million = 2000.0
[[providers.models]]
name = "scarce"
upstream = "fine"

[[providers]]
name = "bad"
base_url = "http://127.0.0.1:{closed}/v1"
[[providers.models]]
name = "gone"
"""
CONFIG = """
global: {{scrape_interval: {every}, scrape_timeout: {every}, evaluation_interval: {every}}}
rule_files: [rules.yml]
scrape_configs:
  - job_name: windlass
    authorization: {{credentials: secret-prometheus}}
    static_configs: [{{targets: ["{target}"]}}]
  - job_name: stranger
    authorization: {{credentials: secret-app}}
    static_configs: [{{targets: ["{target}"]}}]
"""


def binary(name: str) -> str:
    found = shutil.which(name) or shutil.which(str(UNPACKED / name))
    assert found, f"no {name} on the PATH or in {UNPACKED}; `make scenario` puts it there"
    return found


def promtool(*arguments: str, folder: Path, said: str = "") -> str:
    """What the tool says; it must be content."""
    command = [binary("promtool"), *arguments]
    done = subprocess.run(command, cwd=folder, input=said, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


@dataclass(frozen=True)
class Scene:
    """A server, and a Prometheus that scrapes it."""

    home: Path
    url: str
    prometheus: str

    def call(self, model: str, *, stream: bool = False) -> int:
        """One call of the tenant acme; its status."""
        body = {"model": model, "stream": stream, "max_tokens": 8, "messages": [{"role": "user", "content": "Why?"}]}
        headers = {"content-type": "application/json", "authorization": "Bearer secret-app"}
        asked = urllib.request.Request(f"{self.url}/v1/chat/completions", json.dumps(body).encode(), headers)
        try:
            with urllib.request.urlopen(asked, timeout=30) as response:
                response.read()
                return int(response.status)
        except urllib.error.HTTPError as refused:
            with refused:
                return refused.code

    def query(self, expression: str) -> dict[str, float]:
        """The value of each series, by its labels as JSON."""
        found = self.api(f"query?{urllib.parse.urlencode({'query': expression})}")["result"]
        return {json.dumps(one["metric"], sort_keys=True): float(one["value"][1]) for one in found}

    def number(self, expression: str) -> float | None:
        """The value of an expression that has one series at most."""
        return next(iter(self.query(expression).values()), None)

    def firing(self) -> dict[str, dict[str, str]]:
        """The labels of the alerts that fire, by name."""
        alerts = self.api("alerts")["alerts"]
        return {one["labels"]["alertname"]: one["labels"] for one in alerts if one["state"] == "firing"}

    def api(self, path: str) -> Any:
        with urllib.request.urlopen(f"{self.prometheus}/api/v1/{path}", timeout=10) as response:
            return json.load(response)["data"]

    def text(self, key: str = "secret-prometheus", path: str = "/metrics") -> str:
        return scraped(self.url, path, key)


def scraped(url: str, path: str = "/metrics", key: str = "") -> str:
    headers = {"authorization": f"Bearer {key}"} if key else {}
    with urllib.request.urlopen(urllib.request.Request(url + path, headers=headers), timeout=10) as response:
        return str(response.read().decode())


def until(wanted: Callable[[], bool], what: Callable[[], object]) -> None:
    """Wait for it, not for longer than `PATIENCE_S`; `what` says how it stands instead."""
    deadline = time.monotonic() + PATIENCE_S
    while not wanted():
        assert time.monotonic() < deadline, what()
        time.sleep(0.1)


@contextmanager
def prometheus(folder: Path, target: str, rules: str) -> Iterator[str]:
    """Prometheus on a free port of loopback; gives its URL."""
    folder.mkdir()
    (folder / "rules.yml").write_text(rules)
    (folder / "prometheus.yml").write_text(CONFIG.format(every=EVERY, target=target))
    promtool("check", "config", "prometheus.yml", folder=folder)
    listens = f"127.0.0.1:{free_port()}"
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(
            [
                binary("prometheus"),
                *("--config.file=prometheus.yml", "--storage.tsdb.path=data", f"--web.listen-address={listens}"),
            ],
            cwd=folder,
            stdout=log,
            stderr=log,
            stdin=subprocess.DEVNULL,
            env={**os.environ, "GOMAXPROCS": "2"},
        )
    try:
        until(lambda: _is_up(f"http://{listens}"), lambda: (folder / "log").read_text()[-2000:])
        yield f"http://{listens}"
    finally:
        process.terminate()
        assert process.wait(20) == 0


def _is_up(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/-/ready", timeout=2) as response:
            return bool(response.status == 200)
    except OSError:
        return False


@pytest.fixture(scope="module")
def shipped(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The rules as the command prints them."""
    done = windlass(tmp_path_factory.mktemp("none"), "metrics", "--rules")
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory, shipped: str) -> Iterator[Scene]:
    """Both, after calls of three kinds: answered until little is left of a budget, failed, refused."""
    folder = tmp_path_factory.mktemp("scene")
    home, config = folder / "home", folder / "windlass.toml"
    digests = {name: hashlib.sha256(f"secret-{name}".encode()).hexdigest() for name in ("prometheus", "app")}
    with upstream(folder) as faulty:
        config.write_text(SETTINGS.format(**faulty.ports, **digests))
        more = {"WINDLASS_CONFIG": str(config), "WINDLASS_MEMORY__EMBEDDER": "off"}
        # Nobody waits five minutes for a test: what holds fires at once. The expressions are those that are shipped.
        at_once = "".join(line for line in shipped.splitlines(keepends=True) if not line.startswith("        for: "))
        assert at_once != shipped
        with (
            server(home, "--no-dashboard", **more) as url,
            prometheus(folder / "prometheus", url.removeprefix("http://"), at_once) as watching,
        ):
            made = Scene(home, url, watching)
            _calls(made)
            yield made


def _calls(scene: Scene) -> None:
    """A rate needs two scrapes of a series: one call of each kind is seen before the others come."""
    assert (scene.call("fine"), scene.call("gone")) == (200, 502)
    assert [scene.call("scarce") for _ in range(4)] == [200, 200, 429, 429]
    until(lambda: scene.number("sum(windlass_calls_total)") == 4, lambda: scene.api("targets"))
    for number in range(1, SPENT_CALLS):
        assert scene.call("fine", stream=number % 2 == 0) == 200
    assert [scene.call("gone") for _ in range(7)] == [502] * 7


def test_the_sums_of_prometheus_are_those_of_the_ledger(scene: Scene) -> None:
    of_ledger = "SELECT count(*), sum(cost_nusd), sum(prompt_tokens), sum(completion_tokens) FROM outcomes"
    ((calls, cost_nusd, prompt, completion),) = rows(scene.home, of_ledger)
    assert (calls, cost_nusd) == (SPENT_CALLS + 2 + 8, SPENT_CALLS * CALL_NUSD)
    until(lambda: scene.number("sum(windlass_calls_total)") == calls, lambda: scene.query("windlass_calls_total"))
    assert scene.number("sum(windlass_cost_nusd_total)") == cost_nusd
    assert scene.number('sum(windlass_tokens_total{kind="prompt"})') == prompt
    assert scene.number('sum(windlass_tokens_total{kind="completion"})') == completion
    assert scene.number("sum(windlass_call_duration_seconds_count)") == calls
    assert scene.number('sum(windlass_call_duration_seconds_bucket{le="+Inf"})') == calls
    took_s = float(str(rows(scene.home, "SELECT sum(latency_ms) / 1000 FROM outcomes")[0][0]))
    assert scene.number("sum(windlass_call_duration_seconds_sum)") == pytest.approx(took_s, rel=1e-4)
    by_error = "SELECT error, count(*) FROM outcomes GROUP BY error"
    shown = scene.query("sum by (error) (windlass_calls_total)")
    assert {json.loads(labels).get("error", ""): count for labels, count in shown.items()} == dict(
        rows(scene.home, by_error)
    )
    refused = {"job": "windlass", "instance": scene.url.removeprefix("http://"), "limit": "few", "worker": "main"}
    refusals = scene.query("sum by (job, instance, limit, worker) (windlass_worker_limit_refusals_total)")
    assert refusals == {json.dumps(refused, sort_keys=True): 2.0}
    left = scene.number('windlass_budget_remaining_usd{limit="dollar"}')
    assert left == pytest.approx(1.0 - SPENT_CALLS * CALL_NUSD / 1e9)


def test_alerts_fire(scene: Scene) -> None:
    wanted = {"WindlassErrorShareHigh", "WindlassBudgetAlmostSpent", "WindlassProviderFailing", "WindlassBreakerOpen"}
    until(lambda: wanted <= scene.firing().keys(), lambda: (scene.firing(), scene.text()))
    firing = scene.firing()
    assert firing["WindlassBudgetAlmostSpent"]["limit"] == "dollar"
    assert firing["WindlassProviderFailing"]["provider"] == "bad"
    assert firing["WindlassBreakerOpen"]["model"] == "gone"
    quiet = {"WindlassDown", "WindlassNotReady", "WindlassDiskAlmostFull", "WindlassTotalsIncomplete"}
    assert not quiet & firing.keys(), firing


def test_no_tenant_sees_the_sums_of_all_and_none_is_named(scene: Scene) -> None:
    by_job = {json.loads(labels)["job"]: value for labels, value in scene.query("up").items()}
    assert by_job == {"windlass": 1.0, "stranger": 0.0}
    with pytest.raises(urllib.error.HTTPError) as refused:
        scene.text("secret-app")
    with refused.value as response:
        assert response.code == 401
    assert "acme" not in scene.text()
    assert json.loads(scene.text("", "/readyz")) == {"status": "ready", "reasons": {}}


def test_promtool_is_content(scene: Scene, shipped: str, tmp_path: Path) -> None:
    assert promtool("check", "metrics", folder=tmp_path, said=scene.text()) == ""
    (tmp_path / "alerts.yml").write_text(shipped)
    assert "SUCCESS" in promtool("check", "rules", "alerts.yml", folder=tmp_path)
    (tmp_path / RULE_TESTS.name).write_text(RULE_TESTS.read_text())
    assert "SUCCESS" in promtool("test", "rules", RULE_TESTS.name, folder=tmp_path)
    tested = RULE_TESTS.read_text()
    alerts = [line.split(": ")[1] for line in shipped.splitlines() if line.strip().startswith("- alert: ")]
    assert [alert for alert in alerts if f"alertname: {alert}" not in tested] == []


def _sum(text: str, family: str) -> float:
    return sum(float(line.rsplit(" ", 1)[1]) for line in text.splitlines() if line.startswith(family + "{"))


def _value(text: str, label: str) -> list[float]:
    return [float(line.rsplit(" ", 1)[1]) for line in text.splitlines() if label in line]


def _workers(text: str) -> set[str]:
    about = "windlass_worker_in_flight_calls{"
    return {line.split('worker="')[1].split('"')[0] for line in text.splitlines() if line.startswith(about)}


def _answering(text: str) -> str:
    """The worker that wrote a page: it has heard of itself last."""
    heard = {
        line.split('worker="')[1].split('"')[0]: float(line.rsplit(" ", 1)[1])
        for line in text.splitlines()
        if line.startswith("windlass_worker_heard_timestamp_seconds{")
    }
    return max(heard, key=lambda worker: heard[worker])


def test_every_worker_tells_of_the_whole_deployment(tmp_path: Path, database_url: str) -> None:
    """Each scrape takes a connection of its own, which goes to whichever worker is free."""
    more = {"WINDLASS_STORAGE__DATABASE_URL": database_url, "WINDLASS_MEMORY__EMBEDDER": "off"}
    body = {"model": "auto", "messages": [{"role": "user", "content": "A pawl holds the drum.\n\nWhat holds it?"}]}
    with server(tmp_path / "home", "--no-dashboard", "--workers", "2", **more) as url:
        made, before, answered = 0, 0.0, set[str]()
        until(lambda: len(_workers(scraped(url))) == 2, lambda: scraped(url))
        for _ in range(8):
            for _ in range(2):
                assert post(f"{url}/v1/chat/completions", body)[0] == 200
                made += 1
            text = scraped(url)
            counted = _sum(text, "windlass_calls_total")
            # What others have committed is settled once no older transaction runs, which takes a moment.
            assert before <= counted <= made, "a counter never falls, whoever is asked"
            before = counted
            assert len(_workers(text)) == 2
            answered.add(_answering(text))
        # The kernel may give one connection after the other to the same worker; not many at once, time and again.
        with ThreadPoolExecutor(8) as threads:
            for _ in range(50):
                if len(answered) > 1:
                    break
                answered |= set(map(_answering, threads.map(scraped, [url] * 8)))
        assert len(answered) > 1, "the scrapes went to several workers"
        until(lambda: _sum(scraped(url), "windlass_calls_total") == made, lambda: scraped(url))
        with psycopg.connect(database_url.replace("+psycopg", "")) as connection:
            found = connection.execute("SELECT count(*), sum(prompt_tokens) FROM outcomes").fetchone()
        assert found is not None
        text = scraped(url)
        assert (_sum(text, "windlass_calls_total"), found[0]) == (made, made)
        assert sum(_value(text, 'kind="prompt"')) == found[1]
        # Figures of the others are a few seconds old; then the responses of all add up to more than the calls.
        until(lambda: _sum(scraped(url), "windlass_worker_http_responses_total") > made, lambda: scraped(url))
