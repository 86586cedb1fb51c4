"""The page in a headless Chromium: what it shows is what the CSV files say, and nothing leaves it."""

import itertools
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest
from PIL import Image
from playwright.sync_api import Browser, Locator, Page, sync_playwright

from quantrust.artifacts.tables import write_csv
from quantrust.evaluation.decisions import SCHEMA as DECISIONS
from quantrust.evaluation.limits import fewest_to_judge
from quantrust.evaluation.shipping import SCHEMA as SHIPPING
from quantrust.report.page.build import write_page
from quantrust.report.wording import threshold_in_words

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium: `make chromium` installs Debian's package"),
]
WIDE, NARROW = 1200, 390
# Milliseconds; a machine that does much else takes its time.
PATIENCE = 180_000
COLUMNS = (
    *("model", "scheme", "share_of_bf16", "coverage", "threshold", "deployed_coverage", "deployed_risk"),
    *("certified_threshold", "certified_share", "certified_median_coverage", "certified_median_risk"),
)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        # As root, which containers often are, Chromium starts without its sandbox only.
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"], timeout=PATIENCE)
        yield browser
        browser.close()


@pytest.fixture
def open_page(browser: Browser, page_study) -> Iterator[Callable[..., Page]]:
    """Open the page in a window of its own; whatever it complains about or asks for fails the test at its end."""
    windows, troubles, asked, visited = [], [], [], set()

    def visit(width: int = WIDE, colours: str = "light", touch: bool = False, file: Path = page_study.page) -> Page:
        # Scrolling at once: a place that is measured while the page still moves is somewhere else a moment later.
        window = browser.new_context(
            viewport={"width": width, "height": 900},
            color_scheme=colours,
            has_touch=touch,
            is_mobile=touch,
            reduced_motion="reduce",
        )
        windows.append(window)
        page = window.new_page()
        page.set_default_timeout(PATIENCE)
        page.on("console", lambda message: troubles.append(message.text))
        page.on("pageerror", lambda error: troubles.append(str(error)))
        page.on("requestfailed", lambda request: troubles.append(f"failed: {request.url[:80]}"))
        page.on("request", lambda request: asked.append(request.url))
        page.goto(file.as_uri())
        visited.add(file.as_uri())
        page.wait_for_selector("html[data-ready]")
        return page

    yield visit
    for window in windows:
        window.close()
    assert troubles == []
    assert {url for url in asked if not url.startswith("data:")} == visited


@pytest.fixture(scope="module")
def decisions(page_study) -> pl.DataFrame:
    """The table of decisions as it stands beside the page, with the sizes."""
    sizes = pl.read_csv(page_study.sources.sizes).select("model", "scheme", "share_of_bf16")
    table = pl.read_csv(page_study.sources.decisions)
    return table.join(sizes, on=["model", "scheme"], maintain_order="left")


def shown_values(page: Page) -> list[tuple[str | float | None, ...]]:
    """Return the values behind the decision table's cells, row by row."""
    rows = page.locator("#decisions tbody tr").evaluate_all(
        "rows => rows.map(row => [...row.children].map(cell => cell.dataset.value))"
    )
    return [
        tuple(cell if place < 2 else float(cell) if cell else None for place, cell in enumerate(row)) for row in rows
    ]


def shown_texts(page: Page) -> list[list[str]]:
    """Return what a reader sees in the decision table's cells, without intervals."""
    return page.locator("#decisions tbody tr").evaluate_all(
        """rows => rows.map(row => [...row.children].map(cell =>
           (cell.querySelector("button") ?? cell).firstChild.textContent))"""
    )


def expected_values(decisions: pl.DataFrame, limit: float, dataset: str, estimator: str) -> list[tuple]:
    here = decisions.filter(
        (pl.col("risk_limit") == limit) & (pl.col("dataset") == dataset) & (pl.col("estimator") == estimator)
    )
    return here.select(COLUMNS).rows()


def set_limit(page: Page, place: int) -> None:
    """Move the slider with the keyboard, from its first stop."""
    page.locator("#limit").focus()
    page.keyboard.press("Home")
    for _ in range(place):
        page.keyboard.press("ArrowRight")


def test_the_table_starts_at_the_shipping_criterion(open_page, decisions, page_study) -> None:
    page = open_page()
    shipping = page_study.config["report"]["shipping"]
    assert shown_values(page) == expected_values(decisions, shipping["risk"], "scenes", shipping["estimators"][0])
    assert page.locator("#limit-shown").inner_text() == "10 %"


@pytest.mark.parametrize("place", range(4))
def test_the_slider_changes_the_table_to_the_values_in_the_csv(open_page, decisions, place) -> None:
    page = open_page()
    set_limit(page, place)
    limit = [0.05, 0.1, 0.15, 0.2][place]
    expected = expected_values(decisions, limit, "scenes", "selector")
    assert shown_values(page) == expected
    assert page.locator("#limit").get_attribute("aria-valuetext") == f"{100 * limit:g} %"
    for texts, values in zip(shown_texts(page), expected, strict=True):
        for name, text, value in zip(COLUMNS[2:], texts[2:], values[2:], strict=True):
            number = text.removesuffix(" ▲").removesuffix(" △").removesuffix(" %")
            if value is None:
                assert text in ("none", "–")  # noqa: RUF001
            elif "threshold" in name:
                assert text == threshold_in_words(value)
            else:
                assert float(number) == pytest.approx(100 * value, abs=0.051)


def test_a_page_without_shifts_works_without_mixtures(open_page, page_without_shifts) -> None:
    page = open_page(file=page_without_shifts)
    assert page.locator("#curves-chart svg").count() == 1
    assert page.locator("#mixtures").count() == 0


def test_filters_change_the_table_to_the_values_in_the_csv(open_page, decisions) -> None:
    page = open_page()
    page.select_option("#decide-dataset", "scenes-language")
    page.select_option("#decide-estimator", "maxprob")
    expected = expected_values(decisions, 0.1, "scenes-language", "maxprob")
    assert shown_values(page) == expected
    page.select_option("#decide-model", "model-b")
    assert shown_values(page) == [row for row in expected if row[0] == "model-b"]
    assert "4 variants" in page.locator("#decisions-caption").inner_text()


def test_every_risk_above_its_limit_is_marked_with_a_sign_in_words_and_in_colour(open_page, decisions) -> None:
    page = open_page()
    seen = set()
    for dataset, place in itertools.product(("scenes", "scenes-language"), range(4)):
        limit = [0.05, 0.1, 0.15, 0.2][place]
        page.select_option("#decide-dataset", dataset)
        set_limit(page, place)
        here = decisions.filter(
            (pl.col("risk_limit") == limit) & (pl.col("dataset") == dataset) & (pl.col("estimator") == "selector")
        )
        rows = page.locator("#decisions tbody tr")
        for shown, row in zip(rows.all(), here.iter_rows(named=True), strict=True):
            deployed, certified = (shown.locator("td, th").nth(column) for column in (6, 10))
            sign = ""
            few = row["deployed_images"] < fewest_to_judge(limit, 0.95)
            if row["deployed_risk"] is not None and row["deployed_risk"] > limit:
                sign = "▲" if row["deployed_risk_low"] > limit and not few else "△"
            if row["deployed_risk"] is not None and few:
                sign += "?"
            assert signs(deployed) == sign
            broken = row["certified_median_risk"] is not None and row["certified_median_risk"] > limit
            assert signs(certified) == ("▲" if broken else "")
            assert ("above the limit" in deployed.text_content()) == (sign[:1] in ("▲", "△") and sign != "")
            assert ("above the limit" in certified.text_content()) == broken
            for cell, mark in ((deployed, sign), (certified, "▲" if broken else "")):
                plain = shown.locator("td").nth(2).evaluate("e => getComputedStyle(e).color")
                assert (cell.evaluate("e => getComputedStyle(e).color") != plain) == (mark != "")
            seen |= {("deployed", sign), ("certified", "▲" if broken else "")}
    assert {("deployed", ""), ("deployed", "▲"), ("deployed", "△"), ("certified", ""), ("certified", "▲")} <= seen


def test_answers_about_few_images_are_marked_and_thresholds_set_on_few_named(open_page, page_study, tmp_path) -> None:
    # At a limit of 10 % it takes 35 images; the first row is above the limit, the others below.
    risks = pl.when(pl.col("scheme") == "bf16").then(0.5).otherwise(0.01)
    few = {"deployed_images": pl.lit(34), "val_images": pl.lit(10), "deployed_risk_low": risks, "deployed_risk": risks}
    table = pl.read_csv(page_study.sources.decisions, schema=DECISIONS).with_columns(**few)
    write_csv(table, tmp_path / "decisions.csv")
    sources = replace(page_study.sources, decisions=tmp_path / "decisions.csv")
    settings = {"captions": page_study.figures, "config": page_study.config, "workflow": {"snakemake": "9.0"}}
    write_page(sources, tmp_path / "index.html", **settings)
    page = open_page(file=tmp_path / "index.html")
    rows = page.locator("#decisions tbody tr")
    for row in rows.all():
        expected = "△?" if row.locator("th").inner_text().startswith("bf16") else "?"
        assert signs(row.locator("td, th").nth(6)) == expected
    assert page.locator("#fewest").inner_text() == "35"
    caption = page.locator("#decisions-caption").inner_text()
    assert "Thresholds are set on 10 images of val: fewer than 35 do not tell whether this limit is kept" in caption


def panel(page: Page) -> Locator:
    """Return the panel of verdicts that is shown; there is one."""
    shown = page.locator(".panel:visible")
    assert shown.count() == 1
    return shown


def test_the_matrix_follows_confidence_and_limit_and_so_does_what_stands_below(
    open_page, decisions, page_study
) -> None:
    page = open_page()
    table = pl.read_csv(page_study.sources.shipping, schema=SHIPPING)
    words = {"meets": "ships", "open": "not settled", "fails": "fails"}
    for estimator, risk in itertools.product(("maxprob", "selector"), (0.05, 0.2, 0.1)):
        page.select_option("#verdict-estimator", estimator)
        page.select_option("#verdict-risk", label=f"{100 * risk:g} %")
        here = table.filter(dataset="scenes", metric="coverage_at_risk", parameter=risk, estimator=estimator)
        for row in here.iter_rows(named=True):
            cells = panel(page).locator("tr", has_text=row["scheme"]).locator("td")
            cell = cells.nth(["model-a", "model-b"].index(row["model"]))
            assert cell.locator(".word").inner_text().endswith(words[row["verdict"]])
            assert cell.locator("b").inner_text() == f"{100 * row['kept']:.1f}\N{NO-BREAK SPACE}%"
        assert shown_values(page) == expected_values(decisions, risk, "scenes", estimator)
        for chart in ("curves", "mixtures"):
            assert page.locator(f"#{chart}-estimator").input_value() == estimator


def test_verdicts_differ_by_sign_and_colour_and_name_the_shifts_on_which_they_break(open_page, page_study) -> None:
    table = pl.read_csv(page_study.sources.shipping, schema=SHIPPING)
    broken = {("scenes-language", "fails"): "✗ breaks on scenes-language"}
    broken |= {("scenes-language", "meets"): "✓ holds on scenes-language"}
    broken |= {("scenes-language", "open"): "? not settled on scenes-language"}
    page = open_page()
    seen = set()
    for panel_shown in page.locator(".panel").all():
        estimator, risk = panel_shown.get_attribute("data-estimator"), float(panel_shown.get_attribute("data-risk"))
        here = table.filter(metric="coverage_at_risk", parameter=risk, estimator=estimator)
        for row in here.filter(dataset="scenes").iter_rows(named=True):
            cell = panel_shown.locator("tr", has=page.locator("th", has_text=row["scheme"])).locator("td")
            cell = cell.nth(["model-a", "model-b"].index(row["model"]))
            sign = {"meets": "✓", "open": "?", "fails": "✗"}[row["verdict"]]
            assert cell.locator(".word .sign").text_content() == sign
            seen.add((sign, cell.evaluate("e => getComputedStyle(e).borderLeftColor")))
            (shift,) = here.filter(dataset="scenes-language", model=row["model"], scheme=row["scheme"])["verdict"]
            told = [" ".join(text.split()) for text in cell.locator(".shift").all_text_contents()]
            assert told == ([broken["scenes-language", shift]] if row["verdict"] == "meets" else [])
    assert len(seen) == len({sign for sign, _ in seen}) == len({colour for _, colour in seen}) == 3


def test_threshold_and_command_of_a_sentence_are_copied_whole(open_page, decisions) -> None:
    page = open_page()
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    choice = panel(page).locator(".choices > li").first
    scheme = choice.locator(".command code").inner_text().rpartition("/")[2]
    row = decisions.row(
        by_predicate=(pl.col("model") == "model-a")
        & (pl.col("scheme") == scheme)
        & (pl.col("dataset") == "scenes")
        & (pl.col("estimator") == "selector")
        & (pl.col("risk_limit") == 0.1),
        named=True,
    )
    choice.locator("p .copy").first.press("Enter")
    page.locator("#verdicts .copied", has_text="(copied)").wait_for()
    assert float(page.evaluate("navigator.clipboard.readText()")) == row["threshold"]
    choice.locator(".command .copy").click()
    page.locator("#verdicts .copied", has_text="Command that bundles").wait_for()
    assert page.evaluate("navigator.clipboard.readText()") == f"snakemake data/bundles/model-a/{scheme}"
    choice.locator("summary").click()
    assert choice.locator(".notes li").first.is_visible()


@pytest.mark.parametrize("width", [WIDE, NARROW])
def test_the_list_of_contents_stays_in_sight_leads_to_sections_and_unfolds_them(open_page, width) -> None:
    page = open_page(width)
    contents = page.locator("nav[aria-label=Contents]")
    page.evaluate("scrollTo(0, document.body.scrollHeight)")
    assert contents.bounding_box()["y"] == pytest.approx(0, abs=1)
    for name, anchor in (("Checkpoints", "checkpoints"), ("Risk and coverage", "risk-coverage")):
        if width == NARROW:
            assert not contents.get_by_role("link", name=name).is_visible()
            contents.locator("summary").click()
        contents.get_by_role("link", name=name).click()
        heading = page.locator(f"#{anchor}-title")
        page.wait_for_timeout(1000)
        top = heading.bounding_box()["y"]
        assert contents.bounding_box()["height"] <= top < 200
        assert contents.locator("a[aria-current]").get_attribute("href") == f"#{anchor}"
    assert page.locator("#checkpoints table").first.is_visible()


def test_print_unfolds_every_section_and_folds_it_again(open_page) -> None:
    page = open_page()
    folded = page.locator(".fold:not([open])")
    before = folded.count()
    assert before == 7
    page.evaluate("window.dispatchEvent(new Event('beforeprint'))")
    assert folded.count() == 0
    page.evaluate("window.dispatchEvent(new Event('afterprint'))")
    assert folded.count() == before


def test_operating_points_are_marked_at_the_limit_and_say_their_threshold(open_page, decisions) -> None:
    page = open_page()
    points = page.locator("#curves-chart .layer_3_marks path")
    assert points.count() == 4
    toggles = page.locator(".toggles[data-chart=curves]")
    toggles.get_by_role("button", name="none").click()
    assert points.count() == 0
    toggles.locator("input[value=mixed]").check()
    for place, limit in enumerate((0.05, 0.1, 0.15, 0.2)):
        set_limit(page, place)
        row = decisions.filter(
            (pl.col("model") == "model-a")
            & (pl.col("scheme") == "mixed")
            & (pl.col("dataset") == "scenes")
            & (pl.col("estimator") == "selector")
            & (pl.col("risk_limit") == limit)
        ).row(0, named=True)
        points.first.hover()
        cells = page.locator("#vg-tooltip-element.visible td").all_inner_texts()
        shown = dict(zip(cells[::2], cells[1::2], strict=True))
        assert (shown["operating point of"], shown["threshold"]) == ("mixed", threshold_in_words(row["threshold"]))
        for name, column in (("coverage", "deployed_coverage"), ("risk", "deployed_risk")):
            assert float(shown[name].removesuffix("%")) == pytest.approx(100 * row[column], abs=0.051)
        page.mouse.move(0, 0)


@pytest.fixture(scope="module")
def page_of_many(page_study, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of a study of 12 models and 30 schemes, whose rows are those of the small one under other names."""
    folder = tmp_path_factory.mktemp("page-of-many")
    models = pl.DataFrame({"model": ["model-a", "model-b"] * 6, "own_model": [f"family-{n}-7b" for n in range(12)]})
    kinds = ["hqq-w4g64-full", "mixed", "mbq-w2g64-full"]
    schemes = pl.DataFrame(
        {
            "scheme": ["bf16", *(kinds[n % 3] for n in range(29))],
            "own": ["bf16", *(f"table-{n}-of-mine" for n in range(29))],
        }
    )
    changes = {}
    for name, schema in (("decisions", DECISIONS), ("shipping", SHIPPING), ("sizes", None)):
        table = pl.read_csv(getattr(page_study.sources, name), schema=schema, infer_schema_length=None)
        wide = table.join(models, on="model").join(schemes, on="scheme")
        renamed = wide.with_columns(model=pl.col("own_model"), scheme=pl.col("own")).select(table.columns)
        write_csv(renamed, folder / f"{name}.csv")
        changes[name] = folder / f"{name}.csv"
    settings = {"captions": page_study.figures, "config": page_study.config, "workflow": {"snakemake": "9.0"}}
    write_page(replace(page_study.sources, **changes), folder / "index.html", **settings)
    return folder / "index.html"


@pytest.mark.parametrize("width", [WIDE, NARROW])
def test_twelve_models_and_thirty_schemes_fit_the_window_and_scroll_in_their_table(
    open_page, page_of_many, width
) -> None:
    page = open_page(width, file=page_of_many)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    shown = panel(page)
    assert (shown.locator("tbody tr").count(), shown.locator("tbody td").count()) == (30, 360)
    assert shown.locator(".choices > li").count() == 12
    # The matrix is what a reader sees first; the sentences of so many models are folded.
    region = shown.locator(".scroll")
    assert region.bounding_box()["y"] < 700
    shown.locator("summary", has_text="12 models").click()
    assert shown.locator(".choices > li").last.is_visible()
    head = shown.locator("tbody th").first
    before = head.bounding_box()["x"]
    region.evaluate("e => { e.scrollLeft = e.scrollWidth; }")
    assert region.evaluate("e => e.scrollLeft") > 100
    top = shown.locator("thead th").last.bounding_box()["y"]
    region.evaluate("e => { e.scrollTop = e.scrollHeight; }")
    assert shown.locator("thead th").last.bounding_box()["y"] == pytest.approx(top, abs=40)
    assert head.bounding_box()["x"] == pytest.approx(before, abs=1)
    page.select_option("#verdict-estimator", "maxprob")
    assert panel(page).locator("tbody tr").count() == 30


def test_every_control_of_the_page_can_be_used(open_page, page_study) -> None:
    """Whatever the page complains about fails the test at its end."""
    page = open_page()
    for summary in page.locator("main summary").all():
        if summary.is_visible():
            summary.click()
    for select in page.locator("select").all():
        for value in select.locator("option").evaluate_all("all => all.map(one => one.value)"):
            select.select_option(value)
            assert select.input_value() == value
    for box in page.locator("input[type=checkbox]").all():
        before = box.is_checked()
        box.click()
        assert box.is_checked() != before
    for button in page.locator("main button:visible").all():
        button.click()
    for link in page.locator("nav a").all():
        link.click()
    assert page.locator(".fold:not([open])").count() == 0


def signs(cell: Locator) -> str:
    """Return the marks in a cell's first text."""
    return "".join(re.findall("[▲△?]", cell.evaluate("e => e.firstChild.textContent")))


def test_a_threshold_is_copied_whole_and_answers_what_the_computed_one_answers(
    open_page, decisions, page_study
) -> None:
    page = open_page()
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    here = decisions.filter(
        (pl.col("risk_limit") == 0.1) & (pl.col("dataset") == "scenes") & (pl.col("estimator") == "selector")
    )
    rows = page.locator("#decisions tbody tr")
    for place, row in enumerate(here.iter_rows(named=True)):
        scores = pl.read_parquet(page_study.sources.scores[row["model"], row["scheme"]])["selector"]
        names = [name for name in ("threshold", "certified_threshold") if row[name] is not None]
        for name, button in zip(names, rows.nth(place).locator(".copy").all(), strict=True):
            # By keyboard.
            button.press("Enter")
            page.locator("#decide .copied", has_text="(copied)").wait_for()
            copied = page.evaluate("navigator.clipboard.readText()")
            assert float(copied) == float(button.get_attribute("title")) == row[name]
            assert (scores >= float(copied)).equals(scores >= row[name])
            assert (
                page.locator("#decide .copied")
                .inner_text()
                .endswith(f"of {row['scheme']} for {row['model']}: {copied} (copied)")
            )
            page.evaluate("document.querySelector('#decide .copied').textContent = ''")


def test_where_copying_is_refused_the_whole_number_is_shown_to_be_selected(open_page, decisions) -> None:
    page = open_page()
    page.evaluate("() => { navigator.clipboard.writeText = () => Promise.reject(new Error('refused')); }")
    page.locator("#decisions .copy").first.click()
    shown = page.locator("#decide .copied", has_text="Threshold of bf16 for model-a: ")
    shown.wait_for()
    first = expected_values(decisions, 0.1, "scenes", "selector")[0]
    assert float(shown.inner_text().split(": ")[1]) == first[COLUMNS.index("threshold")]


@pytest.mark.parametrize("key", ["scheme", "coverage", "threshold", "certified_median_risk"])
def test_columns_sort_both_ways_by_keyboard_with_what_is_missing_last(open_page, decisions, key) -> None:
    page = open_page()
    button = page.locator(f"#decisions [data-key={key}] button")
    rows = expected_values(decisions, 0.1, "scenes", "selector")
    place = COLUMNS.index(key)
    present = [row[place] for row in rows if row[place] is not None]
    missing = [None] * (len(rows) - len(present))
    for direction, reverse in (("ascending", False), ("descending", True)):
        button.focus()
        page.keyboard.press("Enter")
        assert page.locator(f"#decisions [data-key={key}]").get_attribute("aria-sort") == direction
        assert [row[place] for row in shown_values(page)] == sorted(present, reverse=reverse) + missing


@pytest.mark.parametrize("chart", ["curves", "mixtures"])
def test_schemes_can_be_taken_out_of_a_chart_and_put_back(open_page, chart) -> None:
    page = open_page()
    lines = page.locator(f"#{chart}-chart .mark-line path")
    assert lines.count() == 4
    toggles = page.locator(f".toggles[data-chart={chart}]")
    toggles.locator("input[value=bf16]").focus()
    page.keyboard.press("Space")
    assert lines.count() == 3
    assert "bf16" not in page.locator(f"#{chart}-table").text_content()
    toggles.get_by_role("button", name="none").click()
    assert lines.count() == 0
    toggles.get_by_role("button", name="all").click()
    assert lines.count() == 4


@pytest.mark.parametrize("chart", ["curves", "mixtures"])
def test_hovering_shows_the_values_of_a_scheme(open_page, page_data, chart) -> None:
    page = open_page()
    toggles = page.locator(f".toggles[data-chart={chart}]")
    toggles.get_by_role("button", name="none").click()
    toggles.locator("input[value=mixed]").check()
    page.locator(f"#{chart}-chart .mark-symbol path").nth(2).hover()
    cells = page.locator("#vg-tooltip-element.visible td").all_inner_texts()
    shown = dict(zip(cells[::2], cells[1::2], strict=True))
    wanted = {"model": "model-a", "scheme": "mixed", "estimator": "selector"}
    records = [one for one in page_data[chart] if wanted.items() <= one.items()]
    if chart == "curves":
        curve = next(one for one in records if one["dataset"] == "scenes")
        names = {"coverage": "coverage", "risk": "risk", "from": "low", "to": "high"}
        values = {name: curve[column][2] for name, column in names.items()}
    else:
        mixture = [one for one in records if one["metric"] == "coverage_at_risk 0.1"][2]
        names = {"in distribution": "id_share", "value": "value", "from": "low", "to": "high"}
        values = {name: mixture[column] for name, column in names.items()}
    assert shown.pop("scheme") == "mixed"
    assert {name: float(text.removesuffix("%")) for name, text in shown.items()} == {
        name: pytest.approx(100 * value, abs=0.051) for name, value in values.items()
    }


def test_charts_follow_their_choices_and_the_slider(open_page, page_data) -> None:
    page = open_page()
    page.locator("#mixtures summary").click()
    page.select_option("#mixtures-metric", "accuracy")
    page.select_option("#mixtures-model", "model-b")
    row = page.locator("#mixtures-table tbody tr").first
    expected = [
        one["value"]
        for one in page_data["mixtures"]
        if (one["model"], one["scheme"], one["estimator"], one["metric"]) == ("model-b", "bf16", "selector", "accuracy")
    ]
    shown = [float(text.removesuffix(" %")) for text in row.locator("td").all_inner_texts()]
    assert shown == pytest.approx([100 * value for value in expected], abs=0.051)
    # The last of the rules; the first ones are the grid's.
    rule = page.locator("#curves-chart .mark-rule line").last
    heights = []
    for place in range(4):
        set_limit(page, place)
        heights.append(rule.bounding_box()["y"])
    assert heights == sorted(heights, reverse=True)
    assert len(set(heights)) == 4


@pytest.mark.parametrize("chart", ["curves", "mixtures"])
def test_a_tap_beside_a_point_shows_its_values_until_the_next_tap(open_page, page_data, chart) -> None:
    page = open_page(NARROW, touch=True)
    # One curve, so that a place has one point.
    page.locator(f".toggles[data-chart='{chart}'] [data-all='false']").tap()
    page.locator(f".toggles[data-chart='{chart}'] [value='hqq-w4g64-full']").check()
    marks = page.locator(f"#{chart}-chart .layer_2_marks path")
    marks.last.evaluate("mark => mark.scrollIntoView({ block: 'center' })")
    tooltip = page.locator("#vg-tooltip-element")
    box = marks.last.bounding_box()
    page.touchscreen.tap(box["x"] + box["width"] / 2 + 5, box["y"] + box["height"] / 2 + 5)
    page.wait_for_timeout(500)
    assert tooltip.is_visible()
    text = tooltip.inner_text()
    assert "hqq-w4g64-full" in text and "undefined" not in text
    if chart == "curves":
        wanted = ("model-a", "hqq-w4g64-full", "selector", "scenes")
        curve = next(
            one
            for one in page_data["curves"]
            if (one["model"], one["scheme"], one["estimator"], one["dataset"]) == wanted
        )
        assert "100.0\N{NO-BREAK SPACE}%" in text and f"{100 * curve['risk'][-1]:.1f}\N{NO-BREAK SPACE}%" in text
    picture = page.locator(f"#{chart}-chart svg").bounding_box()
    page.touchscreen.tap(picture["x"] + 2, picture["y"] + picture["height"] - 2)
    tooltip.wait_for(state="hidden")


def test_examples_are_shown_with_alternative_texts_and_hostile_text_is_text(open_page) -> None:
    page = open_page()
    page.get_by_role("link", name="Examples").click()
    for dataset in ("scenes", "scenes-language"):
        page.select_option("#examples-dataset", dataset)
        pictures = page.locator("#examples img")
        pictures.evaluate_all("images => Promise.all(images.map(image => image.decode())).then(() => true)")
        assert pictures.count() >= 4
        assert pictures.evaluate_all("images => images.every(image => image.alt && image.naturalWidth > 0)")
    assert page.locator("#examples b").count() == 0
    assert "</script><b>" in page.locator("#examples").inner_text()


def test_every_control_has_a_name_and_is_reached_by_keyboard(open_page) -> None:
    page = open_page()
    controls = "a[href], button, select, input, summary, pre, [tabindex='0']"
    names = page.locator(controls).evaluate_all(
        """all => all.filter(one => !(one.labels?.length || one.textContent.trim() || one.ariaLabel))
           .map(one => one.outerHTML)"""
    )
    assert names == []
    page.keyboard.press("Tab")
    assert page.locator(":focus").inner_text() == "Skip to the verdicts"
    reached = set()
    for _ in range(90):
        page.keyboard.press("Tab")
        reached.add(page.evaluate("document.activeElement.id || document.activeElement.textContent.trim()"))
    assert {
        "verdict-estimator",
        "verdict-risk",
        "limit",
        "decide-model",
        "decide-dataset",
        "decide-estimator",
        "curves-model",
        "Scheme",
    } <= reached


@pytest.mark.parametrize("width", [WIDE, NARROW])
@pytest.mark.parametrize("colours", ["light", "dark"])
def test_the_page_fits_its_window_in_either_look(open_page, tmp_path: Path, width, colours) -> None:
    page = open_page(width, colours)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    # Charts are not cut off on either side either.
    for chart in ("curves", "mixtures"):
        box = page.locator(f"#{chart}-chart svg").bounding_box()
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= width
        # Painted, in as many colours as a chart of several schemes has, on the paper of its look.
        path = tmp_path / f"{chart}.png"
        page.locator(f"#{chart}-chart").screenshot(path=path)
        with Image.open(path) as picture:
            painted = picture.convert("RGB")
        assert painted.width == pytest.approx(box["width"], abs=2)
        assert painted.getpixel((1, 1)) == ((255, 255, 255) if colours == "light" else (22, 25, 29))
        seen = {colour for _, colour in painted.getcolors(painted.width * painted.height)}
        for scheme in ("bf16", "hqq-w4g64-full", "mbq-w2g64-full"):
            stroke = page.locator(f"[data-chart='{chart}'] .swatch[data-scheme='{scheme}']").evaluate(
                "e => getComputedStyle(e).borderTopColor"
            )
            assert tuple(map(int, re.findall(r"\d+", stroke))) in seen
    assert contrast(page) >= 4.5


def test_a_table_wider_than_the_window_says_so_until_its_end_and_scrolls_by_keyboard(open_page) -> None:
    page = open_page(NARROW)
    region = page.locator("#decide .scroll")
    cue = "e => [getComputedStyle(e, '::before').content, getComputedStyle(e).maskImage]"
    text, mask = region.evaluate(cue)
    assert "scroll sideways" in text and "gradient" in mask
    assert region.get_attribute("role") == "region" and page.locator("#decide-title").inner_text() == "Decide"
    region.focus()
    before = page.locator("#decisions tbody th").first.bounding_box()["x"]
    for _ in range(60):
        page.keyboard.press("ArrowRight")
    # Not with `wait_for_function`, which evaluates text as code: the page forbids that.
    page.locator("#decide .scroll:not(.more)").wait_for()
    text, mask = region.evaluate(cue)
    assert "scroll sideways" in text and mask == "none"
    # The names of schemes stay where they are.
    assert page.locator("#decisions tbody th").first.bounding_box()["x"] == pytest.approx(before, abs=1)
    page.emulate_media(media="print")
    assert region.evaluate(cue)[1] == "none"


def test_a_table_that_fits_says_nothing(open_page) -> None:
    page = open_page(WIDE)
    regions = page.locator(".scroll:visible")
    assert regions.count() > 2
    assert regions.evaluate_all("all => all.every(e => getComputedStyle(e, '::before').content === 'none')")


@pytest.mark.parametrize("width", [WIDE, NARROW])
def test_headings_beside_the_paper_stand_over_their_columns(open_page, width) -> None:
    """The names of models, which are hidden in a narrow window, have no cell in the second line of headings."""
    page = open_page(width)
    page.evaluate("location.hash = 'published'")
    first = page.locator("#published tbody tr").first
    for line, places in (("first-child", [2, 5, 8]), ("last-child", range(2, 11))):
        heads = page.locator(f"#published thead tr:{line} th:visible")
        skipped = 0 if line == "last-child" else heads.count() - len(places)
        for place, cell in enumerate(places):
            head = heads.nth(place + skipped).bounding_box()
            assert head["x"] == pytest.approx(first.locator("td, th").nth(cell).bounding_box()["x"], abs=1)


def contrast(page: Page) -> float:
    """Return the least contrast (WCAG 2.2) between text and what it stands on, axis labels included."""
    return page.evaluate(
        """() => {
          // In 0..255, or as color(srgb ..) in 0..1.
          const channels = (colour) => colour.match(/[\\d.]+/g).map((c) => (colour.startsWith("color(") ? c : c / 255));
          const light = (colour) => {
            const [r, g, b] = channels(colour).map((c) => (c <= 0.04045 ? c / 12.92 : ((+c + 0.055) / 1.055) ** 2.4));
            return 0.2126 * r + 0.7152 * g + 0.0722 * b;
          };
          const below = (e) => {
            const colour = e ? getComputedStyle(e).backgroundColor : getComputedStyle(document.body).backgroundColor;
            return e && colour === "rgba(0, 0, 0, 0)" ? below(e.parentElement) : colour;
          };
          const texts = [...document.querySelectorAll("p, li, td, th, small, a, b, code, summary, .word, button")];
          const labels = [...document.querySelectorAll("svg text")];
          const pairs = [
            ...texts.map((e) => [getComputedStyle(e).color, below(e)]),
            ...labels.map((e) => [getComputedStyle(e).fill, below(e)]),
          ];
          return Math.min(...pairs.map(([ink, paper]) => {
            const [low, high] = [light(paper), light(ink)].sort((a, b) => a - b);
            return (high + 0.05) / (low + 0.05);
          }));
        }"""
    )


def test_print_is_dark_on_white_whatever_the_look_and_fits_the_sheet(open_page) -> None:
    page = open_page(720, "dark")
    page.emulate_media(media="print", color_scheme="dark")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert page.evaluate("getComputedStyle(document.body).color") == "rgb(26, 26, 26)"
    assert page.locator("#curves-chart text").first.evaluate("e => getComputedStyle(e).fill") == "rgb(26, 26, 26)"
    assert page.evaluate("document.documentElement.scrollWidth") <= 720
    assert page.pdf(format="A4").startswith(b"%PDF")
