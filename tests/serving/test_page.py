"""The page in a headless Chromium: upload, ask, and see the answer or the abstention, by mouse and by keyboard."""

import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from serving.served import POINTS, picture, rule, serving

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium: `make chromium` installs Debian's package"),
]
WIDE, NARROW = 1280, 390
# Milliseconds; a machine that does much else takes its time.
PATIENCE = 120_000
LIMIT = 0.05
KEY = "a-key-of-sixteen-letters"
# One of which the rule is sure enough at the smaller risk limit, and one of which it is not.
ANSWERED, ABSTAINED = (
    next(
        q
        for q in map("question {}".format, range(50))
        if (rule(picture(), q)[1] >= POINTS[LIMIT]["threshold"]) == is_sure
    )
    for is_sure in (True, False)
)
expect.set_options(timeout=PATIENCE)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        # As root, which containers often are, Chromium starts without its sandbox only.
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"], timeout=PATIENCE)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory):
    with serving(tmp_path_factory.mktemp("open")) as process:
        yield process


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("image") / "noise.png"
    picture().save(path)
    return path


@pytest.fixture
def open_page(browser: Browser, server) -> Iterator[Callable[..., Page]]:
    """Open the page in a window of its own; what it complains about or asks for elsewhere fails the test at its end."""
    windows, troubles, asked = [], [], []
    expected: list[str] = []

    def visit(width: int = WIDE, colours: str = "light", url: str = server.url, expects: str | None = None) -> Page:
        window = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=colours)
        windows.append(window)
        page = window.new_page()
        page.set_default_timeout(PATIENCE)
        page.on("console", lambda message: troubles.append(message.text))
        page.on("pageerror", lambda error: troubles.append(str(error)))
        page.on("request", lambda request: asked.append(request.url))
        if expects is not None:
            expected.append(expects)
        page.goto(f"{url}/")
        page.wait_for_selector("html[data-ready]")
        return page

    yield visit
    for window in windows:
        window.close()
    assert [trouble for trouble in troubles if not any(text in trouble for text in expected)] == []
    assert [url for url in asked if not re.match(r"http://127\.0\.0\.1:\d+/|blob:|data:", url)] == []


def ask(page: Page, image: Path, question: str) -> None:
    page.get_by_label("Image").set_input_files(image)
    page.get_by_label("Question").fill(question)
    page.get_by_role("button", name="Ask").click()
    expect(page.locator("#result")).to_have_attribute("aria-busy", "false")
    expect(page.locator("#waiting")).to_be_hidden()


@pytest.mark.parametrize("width", [WIDE, NARROW])
@pytest.mark.parametrize("colours", ["light", "dark"])
def test_an_answer_and_an_abstention_are_shown_with_confidence_and_threshold(open_page, image, width, colours) -> None:
    page = open_page(width, colours)
    for question in (ANSWERED, ABSTAINED):
        ask(page, image, question)
        answer, confidence = rule(picture(), question)
        threshold = POINTS[LIMIT]["threshold"]
        expect(page.locator("#answer")).to_have_text(answer if question == ANSWERED else "No answer")
        shown = [float(page.locator(f"#{name}").inner_text()) for name in ("confidence", "threshold")]
        assert shown == pytest.approx([confidence, threshold], abs=1e-4)
        assert (shown[0] < shown[1]) == (question == ABSTAINED)
        said = "The model abstains" if question == ABSTAINED else "is not below the threshold"
        assert said in page.locator("#why").inner_text()
        scale, bar, mark = (page.locator(f"#{name}").bounding_box() for name in ("scale", "bar", "mark"))
        assert bar["width"] / scale["width"] == pytest.approx(confidence, abs=0.02)
        assert (mark["x"] + 1.5 - scale["x"]) / scale["width"] == pytest.approx(threshold, abs=0.02)
    if question == ABSTAINED:
        assert answer not in page.content()
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert contrast(page) >= 4.5


def contrast(page: Page) -> float:
    """Return the least contrast (WCAG 2.2) between a text and what it stands on."""
    return page.evaluate(
        """() => {
          const light = (colour) => {
            const [r, g, b] = colour.match(/[\\d.]+/g).map((c) => c / 255)
              .map((c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4));
            return 0.2126 * r + 0.7152 * g + 0.0722 * b;
          };
          const ground = (e) => {
            const colour = getComputedStyle(e).backgroundColor;
            return colour === "rgba(0, 0, 0, 0)" && e.parentElement ? ground(e.parentElement) : colour;
          };
          const texts = [...document.querySelectorAll("h1, h2, p, label, small, dt, dd, button, input, #sign")];
          return Math.min(...texts.map((e) => {
            const [low, high] = [getComputedStyle(e).color, ground(e)].map(light).sort((a, b) => a - b);
            return (high + 0.05) / (low + 0.05);
          }));
        }"""
    )


def test_the_risk_limit_can_be_chosen(open_page, image) -> None:
    page = open_page()
    assert page.locator("#risk option").all_inner_texts() == ["5 %, certified", "20 %"]
    assert page.get_by_label("Risk limit").input_value() == "0.05"
    page.get_by_label("Risk limit").select_option("0.2")
    ask(page, image, ABSTAINED)
    assert float(page.locator("#threshold").inner_text()) == POINTS[0.2]["threshold"]
    assert page.locator("#limit").inner_text() == "20 %"


def test_a_question_is_asked_by_keyboard_alone_and_read_out(open_page, image) -> None:
    page = open_page()
    page.get_by_label("Image").set_input_files(image)
    page.get_by_label("Question").focus()
    page.keyboard.type(ANSWERED)
    page.keyboard.press("Enter")
    expect(page.locator("#answer")).to_have_text(rule(picture(), ANSWERED)[0])
    order = []
    page.get_by_label("Image").focus()
    for _ in range(4):
        order.append(page.evaluate("document.activeElement.id"))
        assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
        page.keyboard.press("Tab")
    assert order == ["image", "question", "risk", "send"]
    result = page.get_by_role("region", name="Answer")
    assert result.get_attribute("aria-live") == "polite"
    assert page.get_by_role("img", name="The chosen image, noise.png").is_visible()


def test_what_the_server_refuses_is_said_and_the_page_goes_on(open_page, image, tmp_path) -> None:
    page = open_page(expects="status of 400")
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no image")
    ask(page, broken, "what?")
    trouble = page.get_by_role("alert")
    expect(trouble).to_contain_text("the image cannot be used")
    assert page.locator("#reply").is_hidden()
    ask(page, image, ANSWERED)
    expect(trouble).to_be_hidden()
    expect(page.locator("#answer")).to_have_text(rule(picture(), ANSWERED)[0])


def test_a_key_is_asked_for_where_one_is_needed(open_page, image, tmp_path) -> None:
    with serving(tmp_path, api_key=KEY) as locked:
        page = open_page(url=locked.url, expects="status of 401")
        assert page.get_by_label("API key").is_visible()
        page.get_by_label("API key").fill(KEY)
        ask(page, image, ANSWERED)
        expect(page.locator("#answer")).to_have_text(rule(picture(), ANSWERED)[0])
        assert page.evaluate("localStorage.length + sessionStorage.length + document.cookie.length") == 0


def test_no_key_is_asked_for_where_none_is_needed(open_page) -> None:
    assert open_page().get_by_label("API key").is_hidden()


@pytest.mark.parametrize(
    ("confidence", "threshold", "expected"),
    [
        (0.93124, 0.93121, ["0.93124", "0.93121"]),
        (0.5, 1 - 3e-7, ["0.5000000", "0.9999997"]),
        (0.25, 0.25, ["0.2500", "0.2500"]),
        (0.99999996, 0.9, ["0.99999996", "0.90000000"]),
        (-2.5, -2.25, ["-2.5000", "-2.2500"]),
    ],
)
def test_numbers_have_the_digits_that_tell_them_apart(open_page, confidence, threshold, expected) -> None:
    assert open_page().evaluate("pair => toldApart(...pair)", [confidence, threshold]) == expected


def test_nothing_else_may_run_in_the_page(open_page) -> None:
    page = open_page(expects="Content Security Policy")
    added = """() => {
      const script = document.createElement("script");
      script.textContent = "window.ran = true";
      document.body.append(script);
      document.body.insertAdjacentHTML("beforeend", "<img src=x onerror='window.ran = true'>");
      document.body.insertAdjacentHTML("beforeend", "<p style='color: red'>x</p>");
      return [window.ran, getComputedStyle(document.body.lastChild).color === "rgb(255, 0, 0)"];
    }"""
    assert page.evaluate(added) == [None, False]
