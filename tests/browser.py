"""Pages as people see them: headless Chromium, the system's, driven by Playwright."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

LOCAL = ("file", "data", "blob", "about")
"""Schemes of what a page has inside, or beside it."""


@contextmanager
def started_browser() -> Iterator:
    """Chromium, closed afterwards; the test is skipped where it cannot be had."""
    api = pytest.importorskip(
        "playwright.sync_api", reason="Playwright is missing: pip install -e .[test]"
    )
    program = shutil.which("chromium")
    if program is None:
        pytest.skip("there is no chromium: apt-get install chromium")
    with api.sync_playwright() as playwright:
        # Without its sandbox: root may not have one.
        browser = playwright.chromium.launch(
            executable_path=program, args=["--no-sandbox"]
        )
        try:
            yield browser
        finally:
            browser.close()


@dataclass
class Visit:
    """A page that is open, and what was heard from it.

    Attributes:
        page: Playwright's.
        errors: Errors of its console, and exceptions that nobody caught.
        outside: Addresses that it asked for elsewhere than where it comes from.
    """

    page: Any
    errors: list[str] = field(default_factory=list)
    outside: list[str] = field(default_factory=list)


@contextmanager
def visit(browser, place: str | Path, **options) -> Iterator[Visit]:
    """Open a file, or a URL, and listen to it.

    Args:
        browser: From the fixture of this name.
        place: A file, or http://127.0.0.1:PORT/...; what the page asks for there is
            not counted as outside.
        **options: Of Playwright's new_page: color_scheme, viewport, ...
    """
    url = place.resolve().as_uri() if isinstance(place, Path) else place
    home = urlsplit(url).netloc
    page = browser.new_page(**options)
    seen = Visit(page)

    def note_request(request) -> None:
        parts = urlsplit(request.url)
        if parts.scheme not in LOCAL and parts.netloc != home:
            seen.outside.append(request.url)

    def note_message(message) -> None:
        if message.type == "error":
            seen.errors.append(message.text)

    page.on("request", note_request)
    page.on("console", note_message)
    page.on("pageerror", lambda error: seen.errors.append(str(error)))
    try:
        page.goto(url)
        yield seen
    finally:
        page.close()
