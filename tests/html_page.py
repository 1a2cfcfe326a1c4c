"""Checks of pages that the project writes."""

from __future__ import annotations

import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest


class Reader(HTMLParser):
    """Fails on a tag that is not closed, and keeps what a browser would fetch."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.fetched: list[str] = []
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self._see(tag, attrs)
        if tag != "meta":
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_startendtag(self, tag: str, attrs: Any) -> None:
        self._see(tag, attrs)

    def _see(self, tag: str, attrs: Any) -> None:
        self.tags.append(tag)
        self.fetched += [
            value for name, value in attrs if name in ("src", "href") and value and not value.startswith("data:")
        ]


def open_in_browser(page: Path, picture: Path, height: int = 1600) -> None:
    """Takes a screenshot in headless Chromium; skips the test where there is none."""
    browser = next(
        (found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))), None
    )
    if browser is None:
        pytest.skip("no Chromium: the page is NOT opened in a browser")
    flags = ["--headless", "--no-sandbox", "--disable-gpu", f"--screenshot={picture}", f"--window-size=1000,{height}"]
    subprocess.run([browser, *flags, page.as_uri()], check=True, capture_output=True)
