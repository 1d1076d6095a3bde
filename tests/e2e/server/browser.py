"""A headless Chromium: the system's, or the one that Playwright has installed."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, sync_playwright

_SYSTEM = Path("/usr/bin/chromium")


@contextlib.contextmanager
def chromium() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        found: dict[str, Any] = {"executable_path": str(_SYSTEM)} if _SYSTEM.exists() else {}
        browser = playwright.chromium.launch(args=["--no-sandbox"], **found)
        try:
            yield browser
        finally:
            browser.close()
