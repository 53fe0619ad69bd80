"""Debian's chromium, driven by playwright: pages as a person sees them, without a network."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

WIDTHS = (1280, 390)
"""Of a laptop and of a phone."""


@contextmanager
def chromium() -> Iterator[Any]:
    """Start the browser; with CLIPNLC_BROWSER=required its absence fails."""
    found = shutil.which("chromium")
    if found is None:
        if os.environ.get("CLIPNLC_BROWSER") == "required":
            pytest.fail("there is no chromium; install the package chromium")
        pytest.skip("there is no chromium")
    from playwright.sync_api import sync_playwright  # noqa: PLC0415  (only where it is used)

    with sync_playwright() as playwright:
        # Root, as in a container, has no sandbox; the pages are our own.
        browser = playwright.chromium.launch(executable_path=found, args=["--no-sandbox"])
        try:
            yield browser
        finally:
            browser.close()


@contextmanager
def opened(browser: Any, path: Path, *, width: int) -> Iterator[Any]:
    """Open a page from disk; nothing may fail in it, reach for a network or be wider than it."""
    context = browser.new_context(viewport={"width": width, "height": 800}, accept_downloads=True)
    page = context.new_page()
    problems: list[str] = []
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("console", lambda said: problems.append(said.text) if said.type == "error" else None)
    page.on(
        "request",
        lambda asked: (
            None
            if asked.url.startswith(("file:", "data:", "blob:"))
            else problems.append(asked.url)
        ),
    )
    try:
        page.goto(path.as_uri())
        yield page
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        assert problems == []
    finally:
        context.close()
