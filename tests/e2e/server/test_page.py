"""The page in a real browser, against a real server."""

from __future__ import annotations

import json
import re
import signal
import threading
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
from playwright.sync_api import Browser, Page, Route, expect

from tests.e2e.server.browser import NO_CHROMIUM, chromium, chromium_path
from tests.e2e.server.test_processes import serving
from tests.fakes.server import KEY, MODEL, NUM_BLOCKS


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    if chromium_path() is None:
        pytest.skip(NO_CHROMIUM)
    with chromium() as browser:
        yield browser


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """A new tab, whose errors fail the test."""
    context = browser.new_context(viewport={"width": 1280, "height": 800})
    page = context.new_page()
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    yield page
    context.close()
    assert errors == []


def say(page: Page, text: str) -> None:
    expect(page.locator("#send")).to_be_enabled()
    page.fill("#input", text)
    page.press("#input", "Enter")


def cells(page: Page) -> str:
    return page.locator("#blocks").get_attribute("data-cells") or ""


def test_a_chat_turn_streams_into_the_page(server_url: str, page: Page) -> None:
    page.goto(server_url)
    page.evaluate(
        """() => {
            window.lengths = new Set();
            new MutationObserver(() => {
                const answer = document.querySelector(".assistant .text");
                if (answer) window.lengths.add(answer.textContent.length);
            }).observe(document.body, {childList: true, subtree: true, characterData: true});
        }"""
    )
    page.route("**/v1/chat/completions", at_length)
    say(page, "What is the capital of France?")
    expect(page.locator(".message.assistant .figures")).to_contain_text("tok/s", timeout=60_000)
    assert "Paris" in page.locator(".message.assistant .text").inner_text()
    assert page.evaluate("window.lengths.size") > 2, "the answer came at once, not bit by bit"
    expect(page.locator(".message.assistant .figures")).to_contain_text("first token")


def test_a_chat_has_a_history_and_can_be_begun_anew(server_url: str, page: Page) -> None:
    page.goto(server_url)
    bodies: list[Any] = []
    page.on(
        "request",
        lambda one: bodies.append(one.post_data_json) if "chat/completions" in one.url else None,
    )
    page.click("summary")
    page.fill("#system", "Answer in one word.")
    page.fill("#temperature", "0")
    page.fill("#max-tokens", "7")
    for count, text in enumerate(["Hello", "And now?"], start=1):
        say(page, text)
        figures = page.locator(".message.assistant .figures")
        expect(figures).to_have_count(count)
        expect(figures.last).to_contain_text("tokens", timeout=60_000)
    roles = [[message["role"] for message in body["messages"]] for body in bodies]
    assert roles == [["system", "user"], ["system", "user", "assistant", "user"]]
    assert (bodies[0]["temperature"], bodies[0]["max_tokens"]) == (0, 7)
    page.click("#clear")
    expect(page.locator(".message")).to_have_count(0)


def think_and_answer(route: Route, *deltas: dict[str, str], finish_reason: str) -> None:
    """As a reasoning model streams."""
    chunks = [{"choices": [{"delta": delta, "finish_reason": None}]} for delta in deltas]
    chunks.append({"choices": [{"delta": {}, "finish_reason": finish_reason}]})
    body = "".join(f"data: {json.dumps(chunk)}\n\n" for chunk in chunks)
    route.fulfill(body=body + "data: [DONE]\n\n", content_type="text/event-stream")


@pytest.mark.parametrize("field", ["reasoning", "reasoning_content"])
def test_thoughts_are_folded_once_the_answer_begins(
    server_url: str, page: Page, field: str
) -> None:
    page.goto(server_url)
    deltas = [{field: "They ask <b>"}, {field: " for\na greeting."}, {"content": "Hello!"}]
    page.route(
        "**/v1/chat/completions",
        lambda route: think_and_answer(route, *deltas, finish_reason="stop"),
    )
    say(page, "Hi")
    expect(page.locator(".message.assistant .text")).to_have_text("Hello!")
    thoughts = page.locator(".message.assistant .thoughts")
    expect(thoughts.locator("div")).to_be_hidden()
    thoughts.locator("summary").click()
    expect(thoughts.locator("div")).to_have_text("They ask <b> for\na greeting.")
    expect(page.locator(".message.assistant .figures")).not_to_contain_text("cut")


def test_a_turn_that_was_cut_within_its_thoughts_is_shown_and_not_forgotten(page: Page) -> None:
    """The bundled model never ends what the parser takes for thoughts."""
    with serving("--reasoning-parser", "deepseek_r1") as served:
        served.until_ready()
        page.goto(served.url)
        page.click("summary")
        page.fill("#max-tokens", "5")
        for count, text in enumerate(["What is the capital of France?", "And now?"], start=1):
            with page.expect_request("**/v1/chat/completions") as request:
                say(page, text)
            figures = page.locator(".message.assistant .figures")
            expect(figures).to_have_count(count)
            expect(figures.last).to_contain_text("cut off while still thinking", timeout=60_000)
            expect(figures.last).to_contain_text("tok/s")
            thoughts = page.locator(".message.assistant .thoughts").last
            expect(thoughts.locator("div")).to_be_visible()
            expect(thoughts.locator("div")).not_to_be_empty()
        messages = request.value.post_data_json["messages"]
        assert [one["role"] for one in messages] == ["user", "assistant", "user"]
        served.signal(signal.SIGTERM)
        assert served.end() == 0


def test_the_map_of_blocks_moves_while_a_request_runs(server_url: str, page: Page) -> None:
    httpx.post(f"{server_url}/reset_prefix_cache")
    page.goto(server_url)
    blocks = page.locator("#blocks")
    expect(blocks).to_have_attribute("data-cells", re.compile(r"^\d+$"))
    assert len(cells(page)) == NUM_BLOCKS - 1, "the null block is not shown"
    body = {"model": MODEL, "prompt": [5] * 40, "max_tokens": 900, "ignore_eos": True}
    request = threading.Thread(
        target=httpx.post,
        args=(f"{server_url}/v1/completions",),
        kwargs={"json": body, "timeout": 120},
    )
    request.start()
    expect(blocks).to_have_attribute("data-cells", re.compile("1"))
    expect(page.locator("#running")).to_have_text("1")
    more = cells(page).count("1") + 1
    expect(blocks).to_have_attribute("data-cells", re.compile(f"(1.*){{{more}}}"))
    request.join()
    expect(blocks).to_have_attribute("data-cells", re.compile("^[03]*3[03]*$"))
    expect(page.locator("#running")).to_have_text("0")


@pytest.mark.parametrize("with_key", [False, True])
def test_an_answer_can_be_stopped(server_url: str, page: Page, with_key: bool) -> None:
    page.goto(server_url)
    page.click("summary")
    page.fill("#max-tokens", "1500")
    page.route("**/v1/chat/completions", without_end)
    say(page, "Tell me everything.")
    page.wait_for_selector(".message.assistant .text p")
    if with_key:
        page.keyboard.press("Escape")
    else:
        page.click("#stop")
    expect(page.locator(".message.assistant .figures")).to_contain_text("stopped")
    expect(page.locator("#running")).to_have_text("0")


def without_end(route: Route) -> None:
    """The bundled model ends its answers early."""
    route.continue_(post_data={**route.request.post_data_json, "ignore_eos": True})


def at_length(route: Route) -> None:
    """Longer than a few frames of the screen."""
    route.continue_(
        post_data={**route.request.post_data_json, "ignore_eos": True, "max_tokens": 150}
    )


def test_what_a_model_writes_never_becomes_markup(server_url: str, page: Page) -> None:
    page.goto(server_url)
    evil = '# Hi\\n<img src=x onerror="window.hacked=1"> **<b>bold</b>** [x](javascript:alert(1))'
    chunk = f'data: {{"choices": [{{"delta": {{"content": "{escaped(evil)}"}}}}]}}\n\n'
    page.route(
        "**/v1/chat/completions",
        lambda route: route.fulfill(
            body=chunk + "data: [DONE]\n\n", content_type="text/event-stream"
        ),
    )
    say(page, "<script>window.hacked = 1</script>")
    answer = page.locator(".message.assistant .text")
    expect(answer.locator("h3")).to_have_text("Hi")
    expect(answer.locator("strong")).to_have_text("<b>bold</b>")
    assert answer.locator("img, a, b").count() == 0
    assert "<img src=x" in answer.inner_text()
    assert page.evaluate("window.hacked") is None


def escaped(text: str) -> str:
    return text.replace('"', '\\"')


def test_the_key_is_asked_for_and_stays_in_the_tab(locked_server_url: str, page: Page) -> None:
    page.goto(locked_server_url)
    dialog = page.locator("#key-dialog")
    expect(dialog).to_be_visible()
    page.fill("#key", "wrong")
    page.press("#key", "Enter")
    expect(page.locator("#key-error")).to_be_visible()
    page.fill("#key", "\u201cquoted\u201d")  # which no header can carry
    page.press("#key", "Enter")
    expect(dialog).to_be_visible()
    page.fill("#key", KEY)
    page.press("#key", "Enter")
    expect(page.locator("#state")).to_have_text("ready")
    expect(dialog).to_be_hidden()
    say(page, "Hello")
    expect(page.locator(".message.assistant .figures")).to_contain_text("tok", timeout=60_000)
    assert page.evaluate("Object.values(sessionStorage)") == [KEY]
    assert page.evaluate("localStorage.length + document.cookie.length") == 0


def test_the_page_says_that_the_model_loads(server_url: str, page: Page) -> None:
    loading = without_engine("loading", "the model is loading")
    page.route("**/page-data", lambda route: route.fulfill(json=loading))
    page.goto(server_url)
    expect(page.locator("#loading-text")).to_have_text("The model is loading · 3 s")
    expect(page.locator("#send")).to_be_disabled()
    page.unroute("**/page-data")
    expect(page.locator("#loading")).to_be_hidden()
    expect(page.locator("#send")).to_be_enabled()


def without_engine(state: str, detail: str) -> dict[str, Any]:
    """What the server says of itself then."""
    nothing = {"model": None, "stats": None, "blocks": None}
    return {"state": state, "detail": detail, "elapsed_s": 3.2, **nothing}


# Whether the tokens a second are drawn.
HAS_LINE = """() => {
    const canvas = document.getElementById("sparkline");
    const {width, height} = canvas;
    return canvas.getContext("2d").getImageData(0, 0, width, height).data.some((it) => it > 0);
}"""


def assert_is_live(page: Page) -> None:
    expect(page.locator("#state")).to_have_text("ready")
    for name in ("running", "kv", "total", "rate", "count-0"):
        expect(page.locator(f"#{name}")).to_have_text(re.compile(r"^\d"))
    expect(page.locator("#blocks")).to_have_attribute("data-cells", re.compile(r"^\d+$"))
    page.wait_for_function(HAS_LINE)


def assert_has_no_figures(page: Page, state: str, timeout_s: float = 5) -> None:
    expect(page.locator("#state")).to_have_text(state, timeout=1000 * timeout_s)
    figures = page.locator(".engine b").all_inner_texts()
    assert len(figures) > 10 and set(figures) == {"–"}
    assert (cells(page), page.locator("#scale").inner_text()) == ("", "")
    assert not page.evaluate(HAS_LINE)
    expect(page.locator("#send")).to_be_disabled()


def fails(route: Route) -> None:
    route.fulfill(status=502, json={"error": "bad gateway"})


def fulfilled(state: str) -> Callable[[Route], None]:
    return lambda route: route.fulfill(json=without_engine(state, "why"))


@pytest.mark.parametrize(
    ("answer", "state"),
    [
        (Route.abort, "offline"),
        (fails, "offline"),
        (fulfilled("loading"), "loading"),
        (fulfilled("dead"), "dead"),
    ],
    ids=["unreachable", "bad gateway", "loading", "dead"],
)
def test_figures_are_not_shown_as_current_while_no_engine_answers(
    server_url: str, page: Page, answer: Callable[[Route], None], state: str
) -> None:
    page.goto(server_url)
    assert_is_live(page)
    page.route("**/page-data", lambda route: answer(route))
    assert_has_no_figures(page, state)
    page.unroute("**/page-data")
    assert_is_live(page)


def test_a_server_that_is_silent_is_offline(server_url: str, page: Page) -> None:
    page.goto(server_url)
    assert_is_live(page)
    page.route("**/page-data", lambda route: None)
    assert_has_no_figures(page, "offline", timeout_s=20)
    page.unroute("**/page-data")
    assert_is_live(page)


def test_a_server_that_goes_while_it_loads_is_not_said_to_load(server_url: str, page: Page) -> None:
    page.route("**/page-data", fulfilled("loading"))
    page.goto(server_url)
    expect(page.locator("#loading")).to_be_visible()
    page.route("**/page-data", lambda route: route.abort())
    expect(page.locator("#state")).to_have_text("offline")
    expect(page.locator("#loading")).to_be_hidden()


def test_what_an_engine_died_of_stays_when_its_server_has_ended(
    server_url: str, page: Page
) -> None:
    page.route("**/page-data", fulfilled("dead"))
    page.goto(server_url)
    expect(page.locator("#state")).to_have_text("dead")
    page.route("**/page-data", lambda route: route.abort())
    expect(page.locator("#state")).to_have_text("offline")
    for _ in range(2):
        page.wait_for_event("requestfailed")
    expect(page.locator("#loading-text")).to_have_text("Why")
    expect(page.locator("#loading")).to_be_visible()
    expect(page.locator(".spinner")).to_be_hidden()


def test_the_picture_comes_back_with_the_next_engine(page: Page) -> None:
    with serving("--restart-engine") as served:
        served.until_ready()
        page.goto(served.url)
        assert_is_live(page)
        served.core.kill()
        assert_has_no_figures(page, "loading")
        expect(page.locator("#state")).to_have_text("ready", timeout=60_000)
        assert_is_live(page)
        served.signal(signal.SIGTERM)
        assert served.end() == 0
        assert_has_no_figures(page, "offline")


def test_no_figures_stand_behind_the_question_for_a_key(locked_server_url: str, page: Page) -> None:
    page.goto(locked_server_url)
    page.fill("#key", KEY)
    page.press("#key", "Enter")
    assert_is_live(page)
    page.evaluate("sessionStorage.setItem('quire-api-key', 'old')")
    expect(page.locator("#key-dialog")).to_be_visible()
    assert set(page.locator(".engine b").all_inner_texts()) == {"–"}


def test_the_page_fits_a_phone(server_url: str, browser: Browser) -> None:
    page = browser.new_page(viewport={"width": 360, "height": 740})
    page.goto(server_url)
    expect(page.locator("#state")).to_have_text("ready")
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    page.close()
