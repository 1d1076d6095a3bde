"""Takes the pictures of the page in docs/images: `make screenshots`, with the bundled model."""

from __future__ import annotations

import re
import threading
from pathlib import Path

import httpx
from playwright.sync_api import Page, expect

from tests.e2e.server.browser import chromium
from tests.fakes.server import MODEL, running_server

IMAGES = Path(__file__).parents[1] / "docs" / "images"
SIZE = {"width": 1280, "height": 800}
QUESTIONS = ("What is the capital of France?", "And of Italy?")
NUM_REQUESTS = 12
_WATCHED_MS = 4000  # for the curve of tokens a second


def main() -> None:
    IMAGES.mkdir(parents=True, exist_ok=True)
    with running_server(["--num-gpu-blocks-override", "513"]) as url, chromium() as browser:
        for scheme in ("light", "dark"):
            context = browser.new_context(viewport=SIZE, color_scheme=scheme)
            page = context.new_page()
            page.goto(url)
            httpx.post(f"{url}/reset_prefix_cache")
            warm_up(url)
            load = start_load(url)
            chat(page)
            expect(page.locator("#blocks")).to_have_attribute("data-cells", re.compile("2"))
            page.wait_for_timeout(_WATCHED_MS)
            page.screenshot(path=IMAGES / f"page-{scheme}.png")
            for request in load:
                request.join()
            context.close()


def chat(page: Page) -> None:
    for count, text in enumerate(QUESTIONS, start=1):
        page.wait_for_selector("#send:not([disabled]):not([hidden])")
        page.fill("#input", text)
        page.press("#input", "Enter")
        figures = f".assistant:nth-of-type({2 * count}) .figures:not(:empty)"
        page.wait_for_selector(figures, timeout=120_000)


def warm_up(url: str) -> None:
    """Send requests whose KV blocks stay cached."""
    for i in range(5):
        prompt = list(range(500 + 200 * i, 660 + 200 * i))
        body = {"model": MODEL, "prompt": prompt, "max_tokens": 8, "ignore_eos": True}
        httpx.post(f"{url}/v1/completions", json=body, timeout=60)


def start_load(url: str) -> list[threading.Thread]:
    """Start requests that share a prompt, so that the pictures show running and shared blocks."""
    body = {"model": MODEL, "prompt": list(range(100, 420)), "ignore_eos": True, "n": 2}
    requests = [
        threading.Thread(
            target=httpx.post,
            args=(f"{url}/v1/completions",),
            kwargs={"json": {**body, "max_tokens": 300 + 60 * i}, "timeout": 300},
        )
        for i in range(NUM_REQUESTS)
    ]
    for request in requests:
        request.start()
    return requests


if __name__ == "__main__":
    main()
