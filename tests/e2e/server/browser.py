"""A headless Chromium: the system's, or the one that Playwright has installed.

`python -m tests.e2e.server.browser` prints where it is; its status is 1 if there is none.
"""

from __future__ import annotations

import contextlib
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

from playwright.sync_api import Browser, sync_playwright

NO_CHROMIUM = (
    "there is no Chromium on PATH, and Playwright has none: `make browser` installs one, as the "
    "package chromium or by `playwright install chromium`"
)
_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


def chromium_path() -> str | None:
    """Of the executable; None if there is none."""
    on_path = next((path for name in _NAMES if (path := shutil.which(name))), None)
    if on_path is not None:
        return on_path
    with sync_playwright() as playwright:
        own = playwright.chromium.executable_path
    return own if Path(own).exists() else None


@contextlib.contextmanager
def chromium() -> Iterator[Browser]:
    path = chromium_path()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(args=["--no-sandbox"], executable_path=path)
        try:
            yield browser
        finally:
            browser.close()


if __name__ == "__main__":
    found = chromium_path()
    print(found or NO_CHROMIUM)
    sys.exit(found is None)
