"""The pages of experiments in a real browser, over a ledger with experiments in every state."""

from __future__ import annotations

import random
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.scenario import browser as real
from tests.scenario.program import server
from windlass.ledger import ids
from windlass.ledger.db import Database
from windlass.ledger.sql import SqlLedger
from windlass.policies.rollout import Advance, Begin, Change, End, Ship, rollout
from windlass.policies.trials.plan import Guardrail, Plan, Variant
from windlass.records import Call, Decision, Feedback, LedgerRecord, Outcome, Scope

pytestmark = pytest.mark.scenario
EVIL = '<img src=x onerror=alert(1)> "quoted" \N{RIGHT-TO-LEFT OVERRIDE}' + "w" * 200
LONG = "a-name-that-is-as-long-as-a-name-may-be-"
WIDE = "a-variant-" + "x" * 30
MOST_BYTES = 60_000
CALLS = 600


def plan(name: str, size: int = 200, ramp: tuple[float, ...] = (0.5, 1.0)) -> Plan:
    """Three variants, every metric in some role, hostile words where people write."""
    variants = (
        Variant("usual", 0.4),
        Variant(WIDE, 0.3, action="small"),
        Variant("c", 0.3, action="large-" + "w" * 100),
    )
    return Plan(
        name=name, variants=variants, size=size, ramp=ramp, secondary=("cost",), owner=EVIL[:200],
        hypothesis=EVIL, guardrails=(Guardrail("quality", 0.05), Guardrail("latency", 0.1), Guardrail("error")),
    )  # fmt: skip


class Book:
    """A ledger that is written call by call."""

    def __init__(self, begins: float) -> None:
        self.records: list[LedgerRecord] = []
        self.dice, self.at = random.Random(5), begins

    def change(self, change: Change, reason: str = "") -> None:
        """What somebody decided."""
        self.at += 1.0
        made = ids.new("decision", self.at)
        self.records.append(rollout(change, id=made, at=self.at, scope=Scope(), by=f"key:{LONG}", reason=reason))

    def call(self, made: Plan, stage: int, worth: tuple[float, ...], slower: tuple[float, ...]) -> None:
        """One call of an experiment, with its feedback."""
        self.at += 2.0
        call = ids.new("call", self.at)
        index = self.dice.choices(range(len(made.variants)), made.shares(stage))[0]
        variant, model = made.variants[index], made.variants[index].action or "small"
        names = tuple(one.name for one in made.variants)
        self.records += [
            Call(id=call, at=self.at, endpoint="chat", model="auto", user=f"user-{index}", request_bytes=90),
            Decision(
                id=f"decision_{call[5:]}-model", at=self.at, call=call, point="model", policy="default@1",
                actions=("small", "large-" + "w" * 100), action=model, propensity=0.5, live=True,
            ),
            Decision(
                id=f"decision_{call[5:]}-experiment", at=self.at, call=call, point="experiment", policy=made.id,
                actions=names, action=variant.name, propensity=made.shares(stage)[index], live=True,
                featuriser=f"stage:{stage}",
            ),
            Outcome(
                id=ids.new("outcome", self.at), at=self.at, call=call, model=model, provider="p", status=200,
                latency_ms=self.dice.lognormvariate(4, 0.3) * slower[index], first_byte_ms=5.0, prompt_tokens=30,
                completion_tokens=50, cost_nusd=2_000 + self.dice.randrange(900), error="",
            ),
            Feedback(
                id=ids.new("feedback", self.at), at=self.at + 1.0, target=call, kind="rating", source="user",
                value=float(self.dice.random() < worth[index]),
            ),
        ]  # fmt: skip


def written() -> list[LedgerRecord]:
    """One experiment was stopped, one shipped, one did harm; the newest is under way and has found something."""
    book = Book(time.time() - 20_000.0)
    stopped, shipped, harmful, newest = (plan(name, 100) for name in ("stopped", "shipped", "harmful", LONG))
    book.change(Begin(stopped), EVIL)
    book.change(End("model", stopped.name, "stop"), EVIL)
    book.change(Begin(shipped))
    book.change(Ship("model", shipped.name, "c"))
    book.change(Begin(harmful))
    for _ in range(CALLS):
        book.call(harmful, 0, (0.9, 0.1, 0.9), (1.0, 9.0, 1.0))
    book.change(Begin(newest), EVIL)
    book.change(Advance("model", newest.name, 1), EVIL)
    for _ in range(CALLS):
        book.call(newest, 1, (0.4, 0.9, 0.4), (1.0, 1.0, 1.05))
    return book.records


@pytest.fixture(scope="module")
def tried(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server on a ledger with experiments."""
    home = tmp_path_factory.mktemp("tried") / "home"
    home.mkdir()
    db = Database(home / "ledger.db")
    db.migrate()
    ledger = SqlLedger(db)
    try:
        ledger.append_now(*written())
    finally:
        ledger.close()
        db.close()
    with server(home) as url:
        yield url


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with real.chromium() as running:
        yield running


@pytest.fixture(scope="module")
def axe() -> str:
    return real.axe()


@pytest.fixture(scope="module")
def shots(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the pictures go, to be looked at."""
    return tmp_path_factory.mktemp("shots")


PAGES = {
    "experiments": "/experiments",
    "filtered": "/experiments?state=alarmed",
    "newest": f"/experiments/{LONG}",
    "harmful": "/experiments/harmful",
    "shipped": "/experiments/shipped",
    "ship": f"/experiments/{LONG}/step?do=ship&variant=c",
    "stop": f"/experiments/{LONG}/step?do=stop",
    "missing": f"/experiments/{'no-such' * 30}",
}


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [real.DESKTOP, real.PHONE], ids=["desktop", "phone"])
def test_every_page_is_accessible_and_fits(
    browser: Browser, tried: str, axe: str, shots: Path, scheme: real.Scheme, size: tuple[int, int]
) -> None:
    with real.window(browser, tried, size=size, scheme=scheme) as (page, _):
        for name, address in PAGES.items():
            page.goto(address)
            for summary in page.locator("main details > summary").all():
                summary.click()
            assert page.locator("main img, main script, main [style]").count() == 0, name
            page.screenshot(path=shots / f"{name}-{size[0]}-{scheme}.png", full_page=True)
            assert real.overflow(page) <= 0, name
            assert real.findings(page, axe) == [], name


def test_the_pages_are_small_and_say_what_was_found(tried: str) -> None:
    pages = {}
    for name, address in PAGES.items():
        if name != "missing":
            with urllib.request.urlopen(f"{tried}{address}") as response:
                pages[name] = response.read().decode()
            assert len(pages[name]) <= MOST_BYTES, name
    assert "rolled back for harm" in pages["harmful"]
    assert "rolled back for harm" in pages["filtered"]
    assert LONG not in pages["filtered"]
    assert "shipped c" in pages["shipped"]
    assert "not decided" in pages["shipped"]
    assert f"{WIDE} is better" in pages["newest"]
    assert "<img" not in pages["newest"].partition("<main")[2]


@pytest.mark.parametrize("script", [True, False])
def test_from_the_list_to_a_table_and_a_report(browser: Browser, tried: str, script: bool) -> None:
    with real.window(browser, tried, script=script) as (page, _):
        page.goto("/")
        page.get_by_role("navigation", name="Pages").get_by_role("link", name="Experiments").click()
        page.get_by_label("State").select_option("running")
        page.get_by_role("button", name="Show").click()
        page.wait_for_url("**/experiments?state=running")
        page.get_by_role("link", name=LONG).click()
        expect(page.get_by_role("heading", name="Look by look")).to_be_visible()
        assert page.locator("#looks svg[role=img]").count() == 2
        page.locator("#looks-sum-1").click()
        expect(page.locator("#looks-table-1 table")).to_be_visible()
        for name, kind in (("Report as HTML", "html"), ("as Markdown", "md")):
            with page.expect_download() as found:
                page.get_by_role("link", name=name).click()
            assert found.value.suggested_filename == f"experiment-{LONG}.{kind}"


def stop(page: Page, origin: str, name: str) -> None:
    """Bring an experiment to its end, as somebody does on its page."""
    page.goto(f"{origin}/experiments/{name}")
    page.get_by_label("Step").select_option("stop")
    page.get_by_role("button", name="Take this step…").click()
    page.get_by_label("Why").fill("seen <b>enough</b>")
    page.get_by_role("button", name="Stop").click()


@pytest.mark.parametrize("script", [True, False])
def test_an_experiment_is_stopped_by_hand(browser: Browser, tmp_path: Path, script: bool) -> None:
    home = tmp_path / "home"
    home.mkdir()
    db = Database(home / "ledger.db")
    db.migrate()
    ledger, book = SqlLedger(db), Book(time.time() - 100.0)
    book.change(Begin(plan("by-hand")))
    ledger.append_now(*book.records)
    ledger.close()
    db.close()
    with server(home) as url, real.window(browser, url, script=script) as (page, _):
        stop(page, url, "by-hand")
        expect(page.locator("#history li").first).to_contain_text("seen <b>enough</b>")
        expect(page.locator("#verdict")).to_contain_text("stopped")
        expect(page.locator("#change")).to_have_count(0)
