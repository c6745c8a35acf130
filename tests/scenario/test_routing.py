"""The router in the real program: its policy is a name in the settings, and what it learned survives any end.

Three models of one upstream, of which `dear` costs a hundred times as much as `cheap`; the prompts of the second policy
are embedded by the real embedder.
"""

from __future__ import annotations

import hashlib
import http.server
import json
import threading
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import expect

from tests.scenario import browser as real
from tests.scenario import program

pytestmark = pytest.mark.scenario
PRICES = {"cheap": 0.1, "mid": 1.0, "dear": 10.0}
PROMPTS = 64
CALLS = 80
SETTLED_S = 20.0
LEXICAL: dict[str, Any] = {"WINDLASS_MEMORY__EMBEDDER": "off"}
LOOK = "Why does the winch on the pier turn only one way?"


class _Upstream(http.server.BaseHTTPRequestHandler):
    """Answers every chat with ten tokens. slow_s: so long it waits before it answers for a model."""

    protocol_version = "HTTP/1.1"
    slow_s: Mapping[str, float] = {}

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
        time.sleep(self.slow_s.get(asked["model"], 0.0))
        said = {
            "choices": [{"message": {"content": "Because of its pawl."}, "finish_reason": "stop"}],
            "usage": {"prompt_tokens": 20, "completion_tokens": 10},
        }
        data = json.dumps(said).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing is logged."""


@dataclass(frozen=True)
class Place:
    """A state folder, and the settings of the program that keeps its state there."""

    home: Path
    config: Path
    upstream: str

    def settings(self, policy: str, *more: str) -> None:
        """Write the settings: this policy at the point `model`."""
        models = ", ".join(
            f'{{ name = "{name}", prompt_usd_per_million = {usd}, completion_usd_per_million = {usd} }}'
            for name, usd in PRICES.items()
        )
        lines = (
            *more,
            f'[points.model]\nmode = "live"\npolicy = "{policy}"',
            f"[routing]\nbasis_prompts = {PROMPTS}\nembedding_timeout_ms = 10000",
            f'[[providers]]\nname = "up"\nbase_url = "{self.upstream}/v1"\nmodels = [{models}]',
        )
        self.config.write_text("\n".join(lines))

    def server(self, **more: str) -> Any:
        return program.server(self.home, WINDLASS_CONFIG=str(self.config), **more)


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Upstream)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield Place(tmp_path / "home", tmp_path / "windlass.toml", f"http://127.0.0.1:{server.server_port}")
    finally:
        server.shutdown()
        server.server_close()


def _post(url: str, body: Any, key: str = "", **headers: str) -> tuple[int, dict[str, Any], dict[str, str]]:
    """(status, answer, headers) of a POST; a body of bytes goes as it is."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    sent = {"content-type": "application/json", **headers} | ({"authorization": f"Bearer {key}"} if key else {})
    request = urllib.request.Request(url, data, sent)
    try:
        with urllib.request.urlopen(request, timeout=30) as reply:
            return (
                reply.status,
                json.loads(reply.read()),
                {name.lower(): value for name, value in reply.headers.items()},
            )
    except urllib.error.HTTPError as refused:
        with refused:
            return refused.code, json.loads(refused.read()), dict(refused.headers)


def _ask(url: str, words: str, key: str = "", **headers: str) -> dict[str, str]:
    """One call for `auto`; the headers of its answer."""
    body = {"model": "auto", "messages": [{"role": "user", "content": words}]}
    status, answer, found = _post(f"{url}/v1/chat/completions", body, key, **headers)
    assert status == 200, answer
    return found


def _say(url: str, call: str, value: float, key: str = "", **more: Any) -> None:
    said = {"target": call, "kind": "rating", "value": value, **more}
    status, answer, _ = _post(f"{url}/v1/feedback", said, key)
    assert status == 200, answer


def _stream(url: str, key: str = "", calls: int = CALLS, best: str = "cheap") -> Counter[str]:
    """So many calls with different words, each with feedback that likes one model; who answered how often."""
    answered: Counter[str] = Counter()
    for number in range(calls):
        headers = _ask(url, f"question {number} of {calls} about rope {number % 7}", key)
        model = headers["x-windlass-model"]
        answered[model] += 1
        _say(url, headers["x-windlass-call"], 1.0 if model == best else 0.1, key)
    return answered


def _look(url: str, key: str = "", **more: Any) -> dict[str, Any]:
    """How a prompt would be routed."""
    status, answer, _ = _post(f"{url}/api/route", {"prompt": LOOK, **more}, key)
    assert status == 200, answer
    return answer


def _settled(url: str, rewards: int, key: str = "", embedded: bool = False) -> dict[str, Any]:
    """How a prompt would be routed once so many rewards have been learned, and the basis stands, if that is asked."""
    deadline = time.monotonic() + SETTLED_S
    while True:
        found = _look(url, key)
        known = sum(model["rewards"] for model in found["models"])
        if known == rewards and (found["embedded"] or not embedded):
            return found
        assert known <= rewards, f"{known} rewards of {rewards}"
        assert time.monotonic() < deadline, f"{known} of {rewards} rewards in {SETTLED_S} s: {found}"
        time.sleep(0.1)


def _believed(found: dict[str, Any]) -> list[dict[str, Any]]:
    """All that a choice is made of: with the same call id the same model is chosen."""
    models: list[dict[str, Any]] = found["models"]
    return models


def _replayed(place: Place, **more: str) -> str:
    """The digest of all policies, which are rebuilt from the ledger to the same bits."""
    done = program.windlass(place.home, "doctor", "--replay", "--json", WINDLASS_CONFIG=str(place.config), **more)
    replay = json.loads(done.stdout)["replay"]
    assert replay["equal"]
    return str(replay["rebuilt"])


def _decided(home: Path, policy: str) -> list[tuple[float, str, dict[str, Any], str]]:
    """(propensity, action, context, featuriser) of each decision of one policy, in order."""
    query = (
        "SELECT d.propensity, d.action, c.data, d.featuriser FROM decisions d JOIN contexts c ON c.decision = d.id "
        "WHERE d.point = 'model' AND d.policy = ? ORDER BY d.seq"
    )
    return [(float(str(p)), str(a), json.loads(str(c)), str(f)) for p, a, c, f in program.rows(home, query, policy)]


def test_the_policys_name_in_the_settings_is_what_decides(place: Place) -> None:
    place.settings("linear_thompson")
    with place.server() as url:
        _stream(url, calls=30)
        before = _settled(url, 30)
    linear = _replayed(place)
    place.settings("joint_thompson")
    with place.server() as url:
        found = _settled(url, 30)  # what another policy decided teaches it too
        assert found["policy"] == "joint_thompson@1"
        assert _believed(found) != _believed(before)
        answered = _stream(url)
        _settled(url, 30 + CALLS, embedded=True)
        why = _ask(url, LOOK)["x-windlass-why"]
    assert _replayed(place) != linear, "another policy learned another state"
    assert why.startswith("joint_thompson@1")
    assert answered["cheap"] > CALLS / 2, "the best model is the cheapest"
    first, then = _decided(place.home, "linear_thompson@1"), _decided(place.home, "joint_thompson@1")
    assert (len(first), len(then)) == (30, CALLS + 1)
    assert all(featuriser == "lexical@1" for _, _, _, featuriser in first)
    assert not [name for _, _, context, _ in first for name in context if "nusd" in name or name == "embedding"]
    assert all(0.0 < propensity <= 1.0 for propensity, *_ in first + then)
    assert all({f"cost_nusd:{model}" for model in PRICES} <= context.keys() for _, _, context, _ in then), (
        "each choice was made with its price in sight"
    )
    _, _, context, featuriser = then[-1]
    assert featuriser.startswith("embedding64@")
    assert len(context["embedding"]) == 64
    assert "embedding" not in then[0][2]
    kept = program.rows(place.home, "SELECT tenant, workspace, digest, prompts FROM bases")
    assert kept == [("default", "default", featuriser.partition("@")[2], PROMPTS)]


def test_a_server_that_is_killed_goes_on_as_if_nothing_had_been(place: Place) -> None:
    place.settings("joint_thompson")
    process = program.start(place.home, "up", "--port", str(program.free_port()), WINDLASS_CONFIG=str(place.config))
    try:
        url = program.url_of(place.home, process)
        _stream(url)
        before = _settled(url, CALLS, embedded=True)
    finally:
        program.kill(process)
    with place.server() as url:
        after = _settled(url, CALLS, embedded=True)
        assert after["featuriser"] == before["featuriser"]
        assert _believed(after) == _believed(before), "the same call id would get the same model, bit for bit"
        _stream(url, calls=10)
        _settled(url, CALLS + 10)
    _replayed(place)


@contextmanager
def _two_tenants(place: Place) -> Iterator[tuple[str, str, str]]:
    """A server with a tenant `acme` and a tenant `other`: its URL and their keys."""
    keys = [
        f'[[keys]]\nname = "{tenant}"\ntenant = "{tenant}"\nsha256 = "{hashlib.sha256(tenant.encode()).hexdigest()}"'
        for tenant in ("acme", "other")
    ]
    place.settings("joint_thompson")
    place.config.write_text(place.config.read_text() + "\n" + "\n".join(keys))
    with place.server(**LEXICAL) as url:
        yield url, "acme", "other"


def test_one_tenants_feedback_never_moves_another_ones_choices(place: Place) -> None:
    with _two_tenants(place) as (url, acme, other):
        _stream(url, other, calls=20, best="dear")
        theirs = _ask(url, LOOK, other)["x-windlass-call"]
        _settled(url, 20, other)
        time.sleep(1.0)  # what that last call cost is learned as well
        before = _look(url, other)
        _stream(url, acme, calls=40, best="cheap")
        mine = _settled(url, 40, acme)
        _say(url, theirs, 0.0, acme)  # about another tenant's call: nothing of theirs is meant by it
        time.sleep(1.0)
        assert _believed(_look(url, other)) == _believed(before)
        quality = {model["model"]: model["quality"] for model in mine["models"]}
        assert quality["cheap"] > quality["dear"]
        status, refused, _ = _post(f"{url}/api/route", {"prompt": LOOK, "tenant": "acme"}, other)
        assert (status, refused["error"]["code"]) == (401, "scope_denied")
        call = program.rows(place.home, "SELECT call FROM decisions WHERE tenant = 'acme' LIMIT 1")[0][0]
        status, refused, _ = _post(f"{url}/api/route", {"call": call}, other)
        assert status == 400
        assert "there is no call" in refused["error"]["message"]
    _replayed(place, **LEXICAL)


def test_no_feedback_however_odd_late_or_often_breaks_what_is_believed(place: Place) -> None:
    place.settings("joint_thompson")
    with place.server(**LEXICAL) as url:
        calls = [_ask(url, f"question {number} about rope")["x-windlass-call"] for number in range(20)]
        for body in (
            b'{"target":"%s","kind":"rating","value":NaN}',
            b'{"target":"%s","kind":"rating","value":1e999}',
            b'{"target":"%s","kind":"rating","value":-0.1}',
            b'{"target":"%s","kind":"rating","value":"1"}',
            b'{"target":"%s","kind":"rating"}',
        ):
            assert _post(f"{url}/v1/feedback", body % calls[0].encode())[0] == 400
        for number, call in enumerate(calls):
            _say(url, call, number % 2, id=f"feedback_{number}")
        once = _settled(url, 20)
        for number, call in enumerate(reversed(calls)):
            _say(url, call, 1.0 - (19 - number) % 2, id=f"feedback_{19 - number}")  # the same ids again change nothing
        _say(url, "call_0192f000000070008000000000000000", 1.0)  # of no call there is
        time.sleep(1.0)
        assert _believed(_look(url)) == _believed(once)
        _say(url, calls[0], 1.0)  # late, and another word on the same call: it replaces the first one
        _corrected(url, once)
        _say(url, calls[0], 0.0)
        _until(lambda: _close(_believed(_look(url)), _believed(once)))
    _replayed(place, **LEXICAL)


def _corrected(url: str, once: dict[str, Any]) -> None:
    """A correction moves what is expected, and is no second observation."""
    _until(lambda: not _close(_believed(_look(url)), _believed(once)))
    counts = [[model["rewards"] for model in _believed(found)] for found in (_look(url), once)]
    assert counts[0] == counts[1]


def _close(one: list[dict[str, Any]], other: list[dict[str, Any]]) -> bool:
    """Whether two sets of beliefs are the same up to rounding."""
    return all(abs(a["quality"] - b["quality"]) < 1e-9 for a, b in zip(one, other, strict=True))


def _until(what: Callable[[], bool]) -> None:
    deadline = time.monotonic() + SETTLED_S
    while not what():
        assert time.monotonic() < deadline, "it did not come to that"
        time.sleep(0.1)


def test_a_request_says_what_it_is_to_be_routed_for(place: Place) -> None:
    place.settings("joint_thompson")
    with place.server(**LEXICAL) as url:
        _ask(url, LOOK, **{"x-windlass-objective": "cheapest", "x-windlass-quality-floor": "80"})
        body = {"model": "auto", "messages": [{"role": "user", "content": LOOK}]}
        asked = {"x-windlass-objective": "cheap"}
        status, refused, _ = _post(f"{url}/v1/chat/completions", body, **asked)
        assert status == 400
        assert "give cheapest, balanced or best" in refused["error"]["message"]
        done = program.windlass(
            place.home, "route", "--explain", LOOK, "--objective", "best", WINDLASS_CONFIG=str(place.config), **LEXICAL
        )
        assert done.returncode == 0, done.stderr
        assert "predicted quality" in done.stdout
        call = program.rows(place.home, "SELECT id FROM calls")
        assert len(call) == 1, "a preview calls nobody"
        told = program.windlass(
            place.home, "route", "--call", str(call[0][0]), WINDLASS_CONFIG=str(place.config), **LEXICAL
        )
        assert "joint_thompson@1 chose" in told.stdout
    (_, _, context, _) = _decided(place.home, "joint_thompson@1")[0]
    assert (context["objective:cheapest"], context["objective:quality_percent"]) == (1.0, 80.0)


LIMIT = '[[limits]]\nname = "daily"\nusd = 5.0\nwindow = "day"'


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_of_the_router_is_accessible_and_fits(place: Place, tmp_path: Path, scheme: real.Scheme) -> None:
    place.settings("joint_thompson", LIMIT)
    text = place.config.read_text()
    shadow = '[[points.model.shadows]]\nname = "linear"\npolicy = "linear_thompson"\n'
    floor = '[[points.model.guards]]\nguard = "floor"\noptions = { reference = "dear" }\n'
    place.config.write_text(text.replace("[routing]", f"{shadow}{floor}[routing]"))
    with place.server(**LEXICAL) as url, real.chromium() as browser:
        axe, call = real.axe(), ""
        for size in (real.DESKTOP, real.PHONE):
            with real.window(browser, url, size=size, scheme=scheme) as (page, _):
                page.goto("/routing")
                assert real.findings(page, axe) == [], "before the first call" if not call else "after it"
                if not call:
                    _stream(url, calls=12)
                    call = _ask(url, LOOK)["x-windlass-call"]
                    _settled(url, 12)
                page.goto(f"/routing?range=7d&call={call}")
                expect(page.get_by_text("joint_thompson@1 chose")).to_be_visible()
                for summary in page.locator(".as-table > summary").all():
                    summary.click()
                page.screenshot(path=tmp_path / f"routing-{size[0]}-{scheme}.png", full_page=True)
                assert real.findings(page, axe) == []
                assert real.overflow(page) <= 0
                page.locator("#choices a").first.click()
                page.wait_for_url("**/routing?range=7d&call=call_*")


def test_clusters_of_prompts_are_named_and_the_page_stays_accessible(place: Place) -> None:
    """The prompts are embedded by the real embedder; the same clusters are on the page, by HTTP and in the shell."""
    about = (
        "Which rope holds an anchor of {} kg?",
        "Write a poem about the sea, number {}.",
        "Sort list {} in Python.",
    )
    place.settings("joint_thompson", LIMIT)
    with place.server() as url, real.chromium() as browser:
        for number in range(PROMPTS + 60):
            headers = _ask(url, about[number % 3].format(number))
            _say(url, headers["x-windlass-call"], 1.0 if headers["x-windlass-model"] == "mid" else 0.5)
        _until(lambda: bool(_clusters(url)["clusters"]))
        found = _clusters(url)
        assert 2 <= len(found["clusters"]) <= 8
        topics = [{example.split()[0] for example in one["examples"]} for one in found["clusters"]]
        assert all(len(each) == 1 for each in topics), "what is alike is together"
        for size in (real.DESKTOP, real.PHONE):
            with real.window(browser, url, size=size, scheme="light") as (page, _):
                page.goto("/routing")
                expect(page.locator("#clusters h3").first).to_contain_text(found["clusters"][0]["examples"][0])
                assert real.findings(page, real.axe()) == []
                assert real.overflow(page) <= 0
        done = program.windlass(place.home, "route", "--clusters", "--json", WINDLASS_CONFIG=str(place.config))
        assert [one["name"] for one in json.loads(done.stdout)["clusters"]] == [
            one["name"] for one in found["clusters"]
        ]


def _clusters(url: str) -> dict[str, Any]:
    with urllib.request.urlopen(f"{url}/api/clusters", timeout=30) as reply:
        found: dict[str, Any] = json.loads(reply.read())
    return found
