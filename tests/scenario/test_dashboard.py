"""The dashboard in a real browser, over the real program: with script and without, in both themes, on a phone."""

from __future__ import annotations

import json
import os
import random
import re
import signal
import socket
import statistics
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.scenario import browser as real
from tests.scenario.program import free_port, post, server, start, url_of, windlass
from windlass.ledger import ids
from windlass.ledger.db import Database
from windlass.ledger.sql import SqlLedger
from windlass.records import Call, Decision, Feedback, LedgerRecord, Outcome

pytestmark = pytest.mark.scenario
QUESTION = "Why does a windlass turn only one way?"
FLOOD = "What happens when the river floods?"
BOARD = "What is a tide board on the wall?"
FIRST_LOAD_BYTES, FIRST_LOAD_REQUESTS = 60_000, 8
CHAT = {"model": "auto", "messages": [{"role": "user", "content": "Hello from outside"}]}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A state folder after the main job, with a hostile transcript beside the samples."""
    folder = tmp_path_factory.mktemp("home")
    assert windlass(folder, "run", "--exit").returncode == 0
    hostile = Path(__file__).parents[1] / "data" / "transcripts" / "injected.md"
    assert windlass(folder, "ingest", str(hostile)).returncode == 0
    return folder


@pytest.fixture(scope="module")
def origin(home: Path) -> Iterator[str]:
    with server(home) as url:
        yield url


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with real.chromium() as running:
        yield running


@pytest.fixture(scope="module")
def shots(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the pictures go, to be looked at."""
    return tmp_path_factory.mktemp("shots")


ROWS = 100_000
CLIENTS = 20
PAGE_P95_MS, PUSH_P95_MS = 100.0, 150.0
SLACK = 3.0
"""Shared machines are slow now and then: the figures are printed, and only what is three times off fails."""
FILTERS = (
    "",
    "error=any",
    "error=rate_limited&range=7d",
    "model=large&error=none",
    "provider=far&user=user-7",
    "text=user-77",
    "text=nowhere-at-all",
    "user=user-123&range=24h",
    "error=first_byte_timeout&model=large",
)


RARE = (
    "calls?model=nowhere",
    "calls?provider=nowhere",
    "calls?endpoint=nowhere",
    "calls?user=nobody",
    "calls?error=quota_spent",
    "api/calls?limit=50&until=7d",
    "api/calls?limit=50&since=150h&until=149h",
    "api/calls?limit=50&since=150h&until=149h&error=any",
    "decisions/model?live=shadow",
    "decisions/model?action=nothing",
    "decisions/model?policy=nobody%401",
    "api/decisions?limit=50&since=150h&until=149h",
    "feedback?metric=nothing",
    "feedback?text=nowhere-at-all",
    "api/feedback?limit=50&until=7d",
)
"""What hardly anything fits, and what lies far back: nothing of that may look at all rows."""


OTHERS = (
    "?range=7d",
    "decisions?range=7d",
    "decisions/model",
    "experiments",
    "feedback",
    "providers?range=7d",
    "keys",
    "prices",
)


def load(home: Path, rows: int) -> None:
    """`rows` calls of the last week with their decisions and outcomes, every fifth with feedback, in big batches."""
    home.mkdir()
    db = Database(home / "ledger.db")
    db.migrate()
    ledger, dice, now = SqlLedger(db), random.Random(7), time.time()
    try:
        batch: list[LedgerRecord] = []
        for n in range(rows):
            batch += records(dice, n, now - (rows - n) * 6.0)
            if len(batch) >= 5_000 or n == rows - 1:
                ledger.append_now(*batch)
                batch = []
    finally:
        ledger.close()
        db.close()


def records(dice: random.Random, n: int, at: float) -> list[LedgerRecord]:
    """One call and all that belongs to it."""
    call, model = ids.new("call", at), dice.choice(("small", "small", "small", "large"))
    error = "" if dice.random() < 0.97 else dice.choice(("rate_limited", "first_byte_timeout"))
    found: list[LedgerRecord] = [
        Call(id=call, at=at, endpoint="chat", model="auto", user=f"user-{dice.randrange(500)}", request_bytes=90),
        Decision(
            id=f"decision_{call[5:]}-model", at=at, call=call, point="model", policy="linear_thompson@1",
            actions=("large", "small"), action=model, propensity=dice.uniform(0.1, 0.9), live=True,
        ),
        Outcome(
            id=ids.new("outcome", at), at=at, call=call, model=model, provider="far" if model == "large" else "near",
            status=200, latency_ms=dice.lognormvariate(4, 1), first_byte_ms=5.0, prompt_tokens=30,
            completion_tokens=50, cost_nusd=2_000, error=error,
        ),
    ]  # fmt: skip
    if n % 5 == 0:
        kind = dice.choice(("rating", "correction", "suggestion", "complaint", "praise"))
        said = {"kind": kind, "source": dice.choice(("user", "manager", "system", "qa"))}
        value = dice.random() if kind == "rating" else None
        found.append(Feedback(id=ids.new("feedback", at), at=at + 5, target=call, value=value, **said))  # type: ignore[arg-type]
    return found


@pytest.fixture(scope="module")
def busy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server on a ledger of 100,000 calls."""
    home = tmp_path_factory.mktemp("busy") / "home"
    load(home, ROWS)
    with server(home) as url:
        yield url


def say(figures: str) -> None:
    """What was measured, for those who run it with `-s`."""
    sys.stdout.write(f"\n{figures}\n")


def percentile(values: list[float], share: float) -> float:
    return statistics.quantiles(values, n=100, method="inclusive")[round(100 * share) - 1]


def got_ms(url: str) -> float:
    """How long one page takes, from the first byte out to the last byte in."""
    started = time.perf_counter()
    with urllib.request.urlopen(url, timeout=30) as response:
        assert response.status == 200
        response.read()
    return (time.perf_counter() - started) * 1000


@pytest.mark.alone
def test_100_000_calls_are_filtered_quickly(busy: str, record_property: Callable[[str, object], None]) -> None:
    for query in FILTERS:
        got_ms(f"{busy}/calls?{query}")
    # The best of three: what the machine does beside is not the page's.
    times = [min(got_ms(f"{busy}/calls?{query}") for _ in range(3)) for _ in range(5) for query in FILTERS]
    rare = [min(got_ms(f"{busy}/{address}") for _ in range(3)) for address in RARE]
    newest = json.loads(urllib.request.urlopen(f"{busy}/api/calls?limit=1000").read())["calls"]
    deep = newest[-1]["call"]["id"]
    paged = [got_ms(f"{busy}/calls?error=none&before={deep}") for _ in range(10)]
    one = [got_ms(f"{busy}/calls/{trace['call']['id']}") for trace in newest[:20]]
    others = [got_ms(f"{busy}/{name}") for name in OTHERS]
    figures = {
        "calls_p50_ms": percentile(times, 0.5),
        "calls_p95_ms": percentile(times, 0.95),
        "rare_max_ms": max(rare),
        "older_p95_ms": percentile(paged, 0.95),
        "one_call_p95_ms": percentile(one, 0.95),
        "other_pages_max_ms": max(others),
    }
    for name, value in figures.items():
        record_property(name, round(value, 1))
    say(f"{ROWS} calls: " + ", ".join(f"{name} {value:.1f}" for name, value in figures.items()))
    assert figures["calls_p95_ms"] <= SLACK * PAGE_P95_MS
    assert figures["rare_max_ms"] <= SLACK * PAGE_P95_MS, dict(zip(RARE, rare, strict=True))
    assert figures["older_p95_ms"] <= SLACK * PAGE_P95_MS
    assert figures["one_call_p95_ms"] <= SLACK * PAGE_P95_MS
    assert max(others) <= SLACK * 500.0


def test_a_week_of_hours_stays_small(busy: str) -> None:
    addresses = ("/?range=7d", "/calls", "/feedback", "/decisions?range=7d", "/decisions/model", "/providers?range=7d")
    for address in (*addresses, "/experiments", "/keys", "/prices"):
        with urllib.request.urlopen(f"{busy}{address}") as response:
            assert len(response.read()) <= FIRST_LOAD_BYTES, address


class Listener(threading.Thread):
    """A browser's event stream; notes when each event came."""

    def __init__(self, url: str):
        super().__init__(daemon=True)
        parts = urlsplit(url)
        self.heard: list[tuple[float, int]] = []
        self._socket = socket.create_connection((parts.hostname or "", parts.port or 80), timeout=30)
        self._socket.sendall(f"GET /events HTTP/1.1\r\nHost: {parts.netloc}\r\n\r\n".encode())

    def run(self) -> None:
        rest = b""
        try:
            while data := self._socket.recv(4096):
                *lines, rest = (rest + data).split(b"\n")
                for line in lines:
                    if line.startswith(b"data: "):
                        self.heard.append((time.perf_counter(), int(line[6:])))
        except OSError:
            return

    def stop(self) -> None:
        self._socket.close()


@pytest.mark.alone
def test_twenty_browsers_hear_of_a_call_at_once(busy: str, record_property: Callable[[str, object], None]) -> None:
    listeners = [Listener(busy) for _ in range(CLIENTS)]
    for listener in listeners:
        listener.start()
    late: list[float] = []
    try:
        deadline = time.monotonic() + 10
        while not all(listener.heard for listener in listeners):
            assert time.monotonic() < deadline
            time.sleep(0.02)
        for _ in range(5):
            before = [len(listener.heard) for listener in listeners]
            assert post(f"{busy}/v1/chat/completions", CHAT)[0] == 200
            answered = time.perf_counter()
            time.sleep(1.0)
            for listener, count in zip(listeners, before, strict=True):
                assert len(listener.heard) > count, "every browser hears of it"
                late.append(max(0.0, (listener.heard[count][0] - answered) * 1000))
    finally:
        for listener in listeners:
            listener.stop()
    record_property("push_p95_ms", round(percentile(late, 0.95), 1))
    say(f"push p50 {percentile(late, 0.5):.1f} ms, p95 {percentile(late, 0.95):.1f} ms to {CLIENTS} browsers")
    assert percentile(late, 0.95) <= SLACK * PUSH_P95_MS


def test_eight_tabs_of_the_calls_page_are_live(browser: Browser, busy: str) -> None:
    with real.window(browser, busy) as (page, _), ExitStack() as stack:
        pages = [page, *(stack.enter_context(page.context.new_page()) for _ in range(7))]
        for tab, address in zip(pages, ("/calls", "/", "/decisions", "/feedback") * 2, strict=True):
            tab.goto(address)
            expect(tab.locator("#pulse")).to_have_text("Live")
        before = page.locator("#list tbody a").first.get_attribute("id")
        heads = [tab.locator("[data-head]").first.get_attribute("data-head") for tab in pages]
        post(f"{busy}/v1/chat/completions", CHAT)
        for tab, head in zip(pages, heads, strict=True):
            tab.bring_to_front()
            tab.wait_for_function("head => document.querySelector('[data-head]').dataset.head !== head", arg=head)
        assert page.locator("#list tbody a").first.get_attribute("id") != before


@pytest.mark.parametrize("script", [True, False])
def test_from_a_filter_to_a_call_to_its_feedback(browser: Browser, busy: str, script: bool) -> None:
    with real.window(browser, busy, script=script) as (page, _):
        page.goto("/calls")
        page.get_by_label("Errors").select_option("any")
        page.get_by_label("Search").fill("user-7")
        page.get_by_role("button", name="Show").click()
        page.wait_for_url("**/calls?*error=any*")
        expect(page.locator("#list tbody .chip.bad").first).to_be_visible()
        first = page.locator("#list tbody a").first.get_attribute("id")
        page.locator("#calls-older, #calls-further").first.click()  # few fit among those that one page looks at
        expect(page.get_by_role("heading", name="Older calls")).to_be_visible()
        assert page.locator("#list tbody a").first.get_attribute("id") != first
        page.locator("#list tbody a").first.click()
        expect(page.get_by_role("heading", name="Why this?")).to_be_visible()
        page.get_by_label("Kind").select_option("complaint")
        page.get_by_label("Comment").fill("slow & <b>wrong</b>")
        page.get_by_role("button", name="Record feedback").click()
        expect(page.locator("#confirmed")).to_contain_text("Your complaint is in the ledger")
        expect(page.locator(".given .comment").first).to_have_text("slow & <b>wrong</b>")
        page.goto("/feedback?kind=complaint")
        expect(page.locator(".given .comment").first).to_have_text("slow & <b>wrong</b>")
        page.locator(".given a").first.click()
        expect(page.get_by_role("heading", name="Why this?")).to_be_visible()


@pytest.mark.parametrize("script", [True, False])
def test_a_mode_is_switched_and_a_policy_rolled_back(browser: Browser, origin: str, script: bool) -> None:
    with real.window(browser, origin, script=script) as (page, _):
        page.goto("/decisions")
        page.get_by_role("link", name="answer", exact=True).click()
        page.get_by_label("Mode").select_option("shadow")
        page.get_by_role("button", name="Change mode…").click()
        page.get_by_label("Why").fill("to watch it first")
        page.get_by_role("button", name="Change mode").click()
        expect(page.locator("#changes")).to_contain_text("to watch it first")
        expect(page.locator("#standing .chip")).to_have_text("shadow")
        page.get_by_label("Roll the policy back to").select_option("0")
        page.get_by_role("button", name="Roll back…").click()
        page.get_by_role("button", name="Roll back").click()
        expect(page.locator("#changes li").first).to_contain_text("rolled back to the beginning")
        page.get_by_label("Mode").select_option("settings")
        page.get_by_role("button", name="Change mode…").click()
        page.get_by_role("button", name="Change mode").click()
        expect(page.locator("#standing .chip")).to_have_text("live")


def ask(page: Page, question: str) -> None:
    page.goto("/ask")
    page.get_by_label("Question").fill(question)
    page.get_by_role("button", name="Ask").click()
    page.wait_for_url("**/ask?a=answer_*")


def calls(home: Path) -> list[dict[str, Any]]:
    """What the command line tells of the ledger."""
    listed = windlass(home, "calls", "--json", "--limit", "50")
    assert listed.returncode == 0, listed.stderr
    found: list[dict[str, Any]] = json.loads(listed.stdout)["calls"]
    return found


def said(home: Path) -> list[tuple[str, float | None, str]]:
    """(kind, value, comment) of what the newest call's visitors said."""
    return [
        (one["kind"], one["value"], one["comment"]) for one in calls(home)[0]["feedback"] if one["source"] == "user"
    ]


@pytest.mark.parametrize("script", [True, False])
def test_both_pages_work_with_script_and_without(browser: Browser, origin: str, script: bool) -> None:
    with real.window(browser, origin, script=script) as (page, _):
        page.goto("/")
        expect(page.get_by_role("heading", name="Overview")).to_be_visible()
        expect(page.get_by_role("heading", name="Which model answers?")).to_be_visible()
        page.get_by_role("link", name="7 d").click()
        page.wait_for_url("**/?range=7d")
        page.get_by_text("Show as table").click()
        expect(page.locator("#hours-table table")).to_be_visible()
        page.get_by_role("navigation", name="Pages").get_by_role("link", name="Ask").click()
        expect(page.get_by_role("heading", name="In memory")).to_be_visible()


@pytest.mark.parametrize("script", [True, False])
def test_a_question_its_thumbs_and_a_correction(browser: Browser, origin: str, home: Path, script: bool) -> None:
    with real.window(browser, origin, script=script) as (page, _):
        ask(page, QUESTION)
        quote = page.locator("figure.quote").first
        expect(quote.locator("blockquote")).to_contain_text("windlass")
        expect(quote.get_by_role("link")).to_have_text(re.compile(r"\[How a windlass holds an anchor 00:07:\d\d\]"))
        asked = calls(home)[0]["call"]["id"]
        page.get_by_role("button", name="Helpful", exact=True).click()
        expect(page.locator("#confirmed")).to_contain_text("Thank you")
        expect(page.get_by_role("button", name="Helpful", exact=True)).to_have_attribute("aria-pressed", "true")
        page.locator("#correct-summary").click()
        page.get_by_label("What should the answer have been?").fill("Because of the <b>pawl</b> & its spring.")
        page.get_by_role("button", name="Send correction").click()
        expect(page.locator("#confirmed")).to_contain_text("Your correction")
        page.reload()
        expect(page.locator("figure.quote").first).to_be_visible()
    assert calls(home)[0]["call"]["id"] == asked, "neither feedback nor a reload asks again"
    assert said(home) == [("rating", 1.0, ""), ("correction", None, "Because of the <b>pawl</b> & its spring.")]


def test_two_quick_clicks_are_one_thumb(browser: Browser, origin: str, home: Path) -> None:
    with real.window(browser, origin, script=False) as (page, _):
        ask(page, QUESTION)
        form = page.locator("form:has(#thumb-down)")
        fields: dict[str, str | float | bool] = {
            one.get_attribute("name") or "": one.get_attribute("value") or "" for one in form.locator("input").all()
        }
        for _ in range(2):
            assert page.request.post("/feedback", form=fields, headers={"origin": origin}).ok
    assert said(home) == [("rating", 0.0, "")]


def test_a_call_shows_up_by_itself(browser: Browser, origin: str) -> None:
    with real.window(browser, origin) as (page, _):
        page.goto("/")
        expect(page.locator("#pulse")).to_have_text("Live")
        before = page.locator("tr details").first.get_attribute("id")
        page.locator("#hours-summary").click()
        page.locator("#range-24h").focus()
        page.locator(f"#s-{before}").focus()
        started = time.monotonic()
        status, _ = post(f"{origin}/v1/chat/completions", CHAT)
        assert status == 200
        page.wait_for_function("before => document.querySelector('tr details').id !== before", arg=before, timeout=5000)
        assert time.monotonic() - started < 2.0
        assert page.evaluate("document.activeElement.id") == f"s-{before}", "the focus stays on its call"
        expect(page.locator("#hours-table table")).to_be_visible()
        expect(page.locator("#announced")).to_contain_text("calls in the last 24 hours")


def test_an_empty_overview_fills_by_itself(browser: Browser, tmp_path: Path, shots: Path) -> None:
    with server(tmp_path / "fresh") as url, real.window(browser, url) as (page, _):
        page.goto("/")
        expect(page.get_by_role("heading", name="Nothing has turned yet")).to_be_visible()
        expect(page.locator("#pulse")).to_have_text("Live")
        page.screenshot(path=shots / "empty-overview.png")
        post(f"{url}/v1/chat/completions", CHAT)
        expect(page.get_by_role("heading", name="Newest calls")).to_be_visible()
        post(f"{url}/v1/chat/completions", CHAT)
        expect(page.locator("#calls tbody tr")).to_have_count(2)
        page.goto("/ask")
        expect(page.get_by_role("heading", name="Memory is empty")).to_be_visible()
        page.screenshot(path=shots / "empty-ask.png")


def test_tabs_share_one_stream(browser: Browser, origin: str) -> None:
    with real.window(browser, origin) as (page, seen), ExitStack() as stack:
        pages = [page, *(stack.enter_context(page.context.new_page()) for _ in range(7))]
        for tab in pages:
            tab.goto("/")
            expect(tab.locator("#pulse")).to_have_text("Live")
        before = page.locator("tr details").first.get_attribute("id")
        post(f"{origin}/v1/chat/completions", CHAT)
        for tab in pages:
            tab.bring_to_front()
            tab.wait_for_function("before => document.querySelector('tr details').id !== before", arg=before)
        assert not [url for url in seen.requests if url.endswith("/events")], (
            "the worker holds the stream, no page does"
        )


def test_without_a_shared_worker_the_page_listens_itself(browser: Browser, origin: str) -> None:
    with real.window(browser, origin) as (page, seen):
        page.add_init_script("delete window.SharedWorker")
        page.goto("/")
        expect(page.locator("#pulse")).to_have_text("Live")
        before = page.locator("tr details").first.get_attribute("id")
        post(f"{origin}/v1/chat/completions", CHAT)
        page.wait_for_function("before => document.querySelector('tr details').id !== before", arg=before)
        assert len([url for url in seen.requests if url.endswith("/events")]) == 1


def test_text_from_a_transcript_is_inert(browser: Browser, origin: str) -> None:
    for script in (True, False):
        with real.window(browser, origin, script=script) as (page, _):
            for question in (BOARD, FLOOD):
                ask(page, question)
                expect(page.locator("blockquote").first).to_be_visible()
                assert page.locator("main img, main script, main iframe, blockquote a, blockquote b").count() == 0
                assert page.get_by_role("link", name="click here").count() == 0
                links = [link.get_attribute("href") or "" for link in page.locator("figcaption a").all()]
                assert all(link.startswith("https://example.org/episodes/") for link in links)
            page.goto("/ask?q=%3Cimg%20src%3Dx%20onerror%3Dalert(1)%3E")
            assert page.locator("main img").count() == 0
            page.goto("/")
            assert page.locator("main img, main script").count() == 0


def test_the_first_load_is_small(browser: Browser, origin: str, record_property: Callable[[str, object], None]) -> None:
    with real.window(browser, origin) as (page, seen):
        page.goto("/", wait_until="load")
        expect(page.locator("#pulse")).to_have_text("Live")
        load_ms = page.evaluate("performance.getEntriesByType('navigation')[0].loadEventEnd")
        # Neither the worker's own script nor its stream show up in the page's requests: counted by hand.
        worker = page.request.get(page.locator("script[data-shared]").get_attribute("data-shared") or "").body()
        count, size = len(seen.sizes) + 2, sum(seen.sizes.values()) + len(worker)
        for name, value in (("bytes", size), ("requests", count), ("load_ms", load_ms)):
            record_property(name, value)
        assert size <= FIRST_LOAD_BYTES
        assert count <= FIRST_LOAD_REQUESTS
        page.reload()
        assert len([url for url in seen.requests if "style.css" in url]) <= 2


@pytest.fixture(scope="module")
def axe() -> str:
    return real.axe()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [real.DESKTOP, real.PHONE], ids=["desktop", "phone"])
def test_every_page_is_accessible_and_fits(
    browser: Browser, origin: str, axe: str, shots: Path, scheme: real.Scheme, size: tuple[int, int]
) -> None:
    with real.window(browser, origin, size=size, scheme=scheme) as (page, _):
        for name in STATES:
            visit(page, name)
            page.screenshot(path=shots / f"{name}-{size[0]}-{scheme}.png", full_page=True)
            assert real.overflow(page) <= 0, name
            assert real.findings(page, axe) == [], name
        background = page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert (sum(map(int, background.strip("rgb()").split(","))) < 200) == (scheme == "dark")


def visit(page: Page, name: str) -> None:
    """Bring the page into one of its states."""
    address, further = STATES[name]
    if address:
        page.goto(address)
    if further:
        further(page)


def unfold(page: Page) -> None:
    for summary in page.locator(".as-table > summary, #titles-summary, #calls summary").all()[:3]:
        summary.click()


def open_a_call(page: Page) -> None:
    page.locator("#list tbody a").first.click()
    expect(page.get_by_role("heading", name="Why this?")).to_be_visible()


def correct(page: Page) -> None:
    page.locator("#correct-summary").click()
    page.get_by_label("What should the answer have been?").fill("x" * 300)
    page.get_by_role("button", name="Not helpful").click()
    expect(page.locator("#confirmed")).to_contain_text("Not helpful")
    expect(page.locator("#comment")).to_have_value("x" * 300)  # what was not sent stays


def find_nothing(page: Page) -> None:
    ask(page, "What is the capital of Mongolia?")
    expect(page.get_by_text("Not in memory.")).to_be_visible()


def refuse(page: Page) -> None:
    expect(page.get_by_role("alert")).to_be_visible()


# Name, address, and what is done there.
STATES: dict[str, tuple[str, Callable[[Page], None] | None]] = {
    "overview": ("/", None),
    "open": ("/?range=7d", unfold),
    "calls": ("/calls?range=7d", None),
    "filtered": ("/calls?error=any&text=" + "w" * 200, None),
    "call": ("/calls", open_a_call),
    "decisions": ("/decisions?range=7d", unfold),
    "point": ("/decisions/model", unfold),
    "change": ("/decisions/model/change?mode=off", None),
    "experiments": ("/experiments", None),
    "feedback": ("/feedback", unfold),
    "providers": ("/providers?range=7d", unfold),
    "routing": ("/routing?range=7d", unfold),
    "keys": ("/keys?range=7d", unfold),
    "prices": ("/prices?differ=1", None),
    "priceless": ("/prices?text=" + "w" * 200, None),
    "ask": ("/ask", unfold),
    "answer": ("", lambda page: ask(page, QUESTION)),
    "corrected": ("", correct),
    "nothing": ("", find_nothing),
    "lost": (f"/ask?a=answer_00&q={'Why+' * 60}", None),
    "refused": (f"/ask?q={'Why+' * 1100}", refuse),
    "missing": (f"/{'no-such-page' * 12}", None),
}


def test_the_keyboard_is_enough(browser: Browser, origin: str) -> None:
    with real.window(browser, origin) as (page, _):
        page.goto("/")
        page.keyboard.press("Tab")
        expect(page.locator(":focus")).to_have_text("Skip to content")
        page.keyboard.press("Enter")
        assert page.evaluate("document.activeElement.id") == "main"
        page.goto("/ask")
        page.keyboard.type(QUESTION)
        page.keyboard.press("Enter")
        page.wait_for_url("**/ask?a=answer_*")
        page.locator("#thumb-up").focus()
        page.keyboard.press("Enter")
        expect(page.locator("#confirmed")).to_contain_text("Thank you")
        assert page.evaluate("document.activeElement.id") == "thumb-up"
        expect(page.locator("#announced")).to_contain_text("Thank you")


def test_the_way_back_leads_to_the_question_not_to_a_second_call(browser: Browser, origin: str, home: Path) -> None:
    with real.window(browser, origin) as (page, _):
        ask(page, QUESTION)
        newest = calls(home)[0]["call"]["id"]
        page.get_by_role("link", name="Overview").click()
        page.go_back()
        page.go_back()
        page.go_forward()
        expect(page.locator("figure.quote").first).to_be_visible()
        assert calls(home)[0]["call"]["id"] == newest


def test_keys_ask_for_a_login(browser: Browser, tmp_path: Path, axe: str, shots: Path) -> None:
    config = tmp_path / "windlass.toml"
    digest = "2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b"  # sha256 of "secret"
    config.write_text(f'[[keys]]\nname = "ann"\nsha256 = "{digest}"\ntenant = "acme"\nworkspaces = ["design"]\n')
    with (
        server(tmp_path / "home", WINDLASS_CONFIG=str(config)) as url,
        real.window(browser, url, size=real.PHONE) as (page, _),
    ):
        page.goto("/ask")
        expect(page.get_by_role("heading", name="Sign in")).to_be_visible()
        page.get_by_label("API key").fill("wrong")
        page.get_by_role("button", name="Sign in").click()
        expect(page.get_by_role("alert")).to_contain_text("not known")
        assert real.findings(page, axe) == []
        page.screenshot(path=shots / "login.png", full_page=True)
        page.get_by_label("API key").fill("secret")
        page.get_by_role("button", name="Sign in").click()
        page.wait_for_url("**/ask")
        page.get_by_role("link", name="Overview").click()
        expect(page.locator("#pulse")).to_have_text("Live")
        expect(page.get_by_text("acme / design")).to_be_visible()
        assert real.overflow(page) <= 0
        page.screenshot(path=shots / "signed-in.png", full_page=True)
        page.get_by_role("button", name="Sign out").click()
        page.goto("/")
        expect(page.get_by_role("heading", name="Sign in")).to_be_visible()


def test_the_server_stops_while_pages_listen_and_they_come_back(
    browser: Browser, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    home, port = tmp_path / "home", str(free_port())
    process = start(home, "up", "--port", port)
    url = url_of(home, process)
    idle_s = stopped(process)
    process = start(home, "up", "--port", port)
    assert url_of(home, process) == url
    with real.window(browser, url) as (page, seen):
        page.goto("/")
        expect(page.locator("#pulse")).to_have_text("Live")
        listening_s = stopped(process)
        record_property("stop_idle_s", idle_s)
        record_property("stop_listening_s", listening_s)
        assert listening_s < idle_s + 1.0
        expect(page.locator("#pulse")).to_have_text("Reconnecting…")
        process = start(home, "up", "--port", port)
        assert url_of(home, process) == url
        expect(page.locator("#pulse")).to_have_text("Live", timeout=15_000)
        post(f"{url}/v1/chat/completions", CHAT)
        expect(page.locator("#calls tbody tr")).to_have_count(1)
        seen.complaints = [one for one in seen.complaints if "ERR_CONNECTION_REFUSED" not in one]
        seen.complaints = [one for one in seen.complaints if "ERR_INCOMPLETE_CHUNKED_ENCODING" not in one]
    stopped(process)


def stopped(process: Any) -> float:
    """Interrupt the server; seconds until it has ended well."""
    started = time.monotonic()
    os.killpg(process.pid, signal.SIGINT)
    assert process.wait(20) == 0
    return time.monotonic() - started
