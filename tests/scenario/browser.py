"""A real headless Chromium, and what a page must never do in it."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.resources import files
from typing import Any, Literal

from playwright.sync_api import Browser, BrowserContext, Dialog, Page, Response, sync_playwright

NAMES = ("chromium", "chromium-browser", "google-chrome")
ARGUMENTS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
DESKTOP, PHONE = (1280, 900), (375, 812)
Scheme = Literal["light", "dark"]


@contextmanager
def chromium() -> Iterator[Browser]:
    """The browser of the machine; the driver brings none of its own."""
    found = next((path for name in NAMES if (path := shutil.which(name))), None)
    assert found, f"no browser among {', '.join(NAMES)}; `make scenario` installs one"
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=found, args=list(ARGUMENTS))
        try:
            yield browser
        finally:
            browser.close()


@dataclass
class Seen:
    """What happened in a window: every request, its bytes, and everything that must not happen."""

    origin: str
    requests: list[str] = field(default_factory=list)
    sizes: dict[str, int] = field(default_factory=dict)
    complaints: list[str] = field(default_factory=list)

    @property
    def outside(self) -> list[str]:
        """Requests to anywhere but the server."""
        return [url for url in self.requests if not url.startswith((self.origin, "data:", "blob:", "chrome"))]

    def follow(self, context: BrowserContext) -> None:
        """Listen to every page of `context`, and to its dialogs, errors and policy violations."""
        context.on("request", lambda request: self.requests.append(request.url))
        context.on("response", self._sized)
        context.on("console", lambda message: self._console(message.type, message.text))
        context.on("weberror", lambda error: self.complaints.append(f"script error: {error.error}"))
        context.on("dialog", self._opened)

    def _sized(self, response: Response) -> None:
        if "text/event-stream" not in response.headers.get("content-type", ""):
            self.sizes[response.url] = int(response.headers.get("content-length", 0))

    def _opened(self, dialog: Dialog) -> None:
        self.complaints.append(f"dialog: {dialog.message}")
        dialog.dismiss()

    def _console(self, kind: str, text: str) -> None:
        # A page that is an error on purpose (404) is no complaint about the page.
        if kind == "error" and "the server responded with a status of" not in text:
            self.complaints.append(f"console: {text}")


@contextmanager
def window(
    browser: Browser, origin: str, *, size: tuple[int, int] = DESKTOP, scheme: Scheme = "light", script: bool = True
) -> Iterator[tuple[Page, Seen]]:
    """A fresh window with its own cookies and cache. Whatever happened in it, nothing outside and no complaint did."""
    context = browser.new_context(
        base_url=origin,
        viewport={"width": size[0], "height": size[1]},
        color_scheme=scheme,
        java_script_enabled=script,
    )
    seen = Seen(origin)
    seen.follow(context)
    try:
        yield context.new_page(), seen
    finally:
        context.close()
    assert seen.outside == []
    assert seen.complaints == []


def axe() -> str:
    """The source of axe-core, as a package of the `scenario` group carries it."""
    return (files("axe_playwright_python") / "axe.min.js").read_text()


def findings(page: Page, source: str) -> list[str]:
    """The serious and critical accessibility findings of a page."""
    page.evaluate(source)  # through the debugger: the page's own policy stays as it is
    found: dict[str, Any] = page.evaluate("axe.run(document, {resultTypes: ['violations']})")
    return [
        f"{one['impact']} {one['id']}: {node['target']} {node['failureSummary']}"
        for one in found["violations"]
        for node in one["nodes"]
        if one["impact"] in ("serious", "critical")
    ]


def overflow(page: Page) -> int:
    """By how many pixels the page is wider than its window."""
    width: int = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
    return width
