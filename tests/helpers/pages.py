"""Pages in the system's Chromium, driven by Playwright; where one of them is missing, the test is skipped."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

CHROMIUM = next((path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None)
DESKTOP, PHONE = {"width": 1280, "height": 900}, {"width": 390, "height": 844}
SCREENS: dict[str, dict[str, Any]] = {
    "desktop": {},
    "phone": {"viewport": PHONE, "is_mobile": True, "has_touch": True, "device_scale_factor": 2},
    "dark": {"color_scheme": "dark"},
}


@contextlib.contextmanager
def chromium() -> Iterator[Any]:
    """A browser."""
    playwright = pytest.importorskip("playwright.sync_api")
    if CHROMIUM is None:
        pytest.skip("no Chromium")
    with playwright.sync_playwright() as running:
        launched = running.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield launched
        launched.close()


class Pages:
    """Opens reports, offline; what they say on the console and ask of a network is in `said`."""

    def __init__(self, browser: Any) -> None:
        self.browser = browser
        self.contexts: list[Any] = []
        self.said: list[str] = []

    def open(self, file: Path, fragment: str = "", **options: Any) -> Any:
        context = self.browser.new_context(**{"viewport": DESKTOP, "offline": True, **options})
        self.contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: self.said.append(message.text))
        page.on("pageerror", lambda error: self.said.append(str(error)))
        page.on("dialog", lambda dialog: self.said.append(dialog.message))
        page.on("request", lambda request: self.said.append(request.url) if request.url.startswith("http") else None)
        page.set_default_timeout(10_000)
        page.goto(file.as_uri() + fragment)
        page.wait_for_selector("#explorer > *")
        return page

    def close(self) -> None:
        """Close them; nothing was said on a console, and nothing was asked of a network."""
        for context in self.contexts:
            context.close()
        assert self.said == []


def choice(page: Any, label: str, within: str = "") -> Any:
    """The select below a label."""
    return page.locator(f"{within} label.choice", has=page.get_by_text(label, exact=True)).locator("select")


def saved(page: Any, button: Any) -> Path:
    """What a button gives to download."""
    with page.expect_download() as download:
        button.click()
    return Path(download.value.path())


def hindrances(browser: Any, url: str, wait_for: str, **options: Any) -> list[tuple[str, str]]:
    """What axe-core finds serious in a page: what it is, and where."""
    axe = pytest.importorskip("axe_playwright_python.sync_playwright")
    context = browser.new_context(**{"viewport": DESKTOP, **options}, bypass_csp=True)
    try:
        page = context.new_page()
        page.goto(url)
        page.wait_for_selector(wait_for)
        found = axe.Axe().run(page).response["violations"]
        return [(each["id"], each["nodes"][0]["html"][:200]) for each in found if each["impact"] in ("serious", "critical")]
    finally:
        context.close()
