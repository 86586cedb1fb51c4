"""The page: one file that asks for nothing else, the same bytes from the same tables, and every value from them."""

import base64
import html
import io
import itertools
import json
import math
import re
from dataclasses import replace
from functools import partial

import polars as pl
import pytest
import vl_convert
from PIL import Image
from polars.testing import assert_frame_equal

from quantrust.artifacts.tables import write_csv, write_table
from quantrust.evaluation.components import IMPORTANCE_SCHEMA
from quantrust.evaluation.decisions import SCHEMA as DECISIONS
from quantrust.evaluation.shipping import SCHEMA as SHIPPING
from quantrust.files import sha256
from quantrust.report.item_words import Words
from quantrust.report.page import build, charts
from quantrust.report.page.build import VEGA_LITE, write_page
from quantrust.report.tables import published_importance
from quantrust.report.wording import speaking_of

SECTIONS = (
    "verdicts",
    "summary",
    "decide",
    "risk-coverage",
    "mixtures",
    "fairness",
    "published",
    "figures",
    "examples",
    "checkpoints",
)
SECTIONS += ("questions", "provenance")


def write_again(page_study, folder, **changes):
    sources = replace(page_study.sources, **changes)
    given = {"captions": page_study.figures, "config": page_study.config, "workflow": {"snakemake": "9.0"}}
    write_page(sources, folder / "index.html", **given)
    return folder / "index.html"


def test_the_same_tables_give_the_same_bytes(page_study, tmp_path) -> None:
    assert write_again(page_study, tmp_path).read_bytes() == page_study.page.read_bytes()


def test_a_page_about_captions_speaks_of_pictures_and_of_their_quality(page_study, tmp_path) -> None:
    with speaking_of(Words("picture", "pictures", "F1 of facts")):
        text = write_again(page_study, tmp_path).read_text(encoding="utf-8")
    shown = re.sub(r"<(script|style|pre)\b.*?</\1>", "", text, flags=re.DOTALL)
    shown = html.unescape(re.sub(r"<[^>]+>", " ", shown))
    assert re.findall(r".{0,60}\b(?:questions?|accuracy)\b.{0,20}", shown, flags=re.IGNORECASE) == []
    assert "test pictures of scenes" in shown and "F1 of facts kept" in shown


def test_the_page_names_no_place_on_the_machine_and_asks_for_nothing(page_study) -> None:
    text = page_study.page.read_text(encoding="utf-8")
    assert str(page_study.folder) not in text
    markup = re.sub(r"<(script|style)\b.*?</\1>", "", text, flags=re.DOTALL)
    wanted = re.findall(r"""\b(?:src|href)=["']([^"']*)""", markup)
    assert {link for link in wanted if not link.startswith(("#", "data:"))} == {
        "tables/certification.csv",
        "tables/data.csv",
        "tables/decisions.csv",
        "tables/fairness.csv",
        "tables/published.csv",
        "tables/shipping.csv",
        "tables/sizes.csv",
        *(f"{name}.{form}" for name in page_study.figures for form in ("png", "pdf")),
    }
    assert "default-src 'none'" in markup
    assert "unsafe-eval" not in markup


def test_every_section_is_there_and_the_file_is_small(page_study) -> None:
    text = page_study.page.read_text(encoding="utf-8")
    assert re.findall(r'<section id="([^"]+)"', text) == list(SECTIONS)
    assert re.findall(r'href="#([^"]+)"', text.split("<nav")[1].split("</nav>")[0]) == list(SECTIONS)
    assert page_study.page.stat().st_size < 2_000_000


def test_the_csv_files_hold_what_was_computed_for_every_variant(page_study) -> None:
    folder, variants = page_study.folder, page_study.sources.scores
    decided = pl.concat([pl.read_parquet(folder / "decisions" / m / f"{s}.parquet") for m, s in variants])
    stored = {"decisions": decided, "shipping": pl.read_parquet(folder / "shipping.parquet")}
    for name, table in stored.items():
        written = pl.read_csv(getattr(page_study.sources, name), schema=table.schema)
        assert_frame_equal(written, table, check_exact=True)


def test_the_page_carries_the_values_of_the_csv_files(page_study, page_data) -> None:
    for name in ("decisions", "sizes"):
        table = pl.read_csv(getattr(page_study.sources, name), infer_schema_length=None)
        assert {column: page_data[name][column] for column in table.columns} == table.to_dict(as_series=False)


def test_thresholds_stay_numbers_where_the_first_ones_are_missing(page_study, tmp_path) -> None:
    table = pl.read_csv(page_study.sources.decisions)
    row, numbers = table.head(1), ("threshold", "deployed_risk", "deployed_risk_low", "certified_threshold")
    for name, filled in (("some", 0.9999997), ("none", None)):
        columns = [pl.Series(column, [None] * 120 + [filled], dtype=pl.Float64) for column in numbers]
        limits = pl.Series("risk_limit", [0.1, *(0.5 + place / 1000 for place in range(119)), 0.7])
        write_csv(pl.concat([row] * 121).with_columns(*columns, limits), tmp_path / f"{name}.csv")
        page = write_again(page_study, tmp_path, decisions=tmp_path / f"{name}.csv").read_text(encoding="utf-8")
        data = json.loads(page.split('<script type="application/json" id="data">')[1].split("</script>")[0])
        assert all(data["decisions"][column] == [None] * 120 + [filled] for column in numbers)


def test_a_threshold_next_to_one_is_whole_in_the_page_and_shown_apart_from_one(page_study, tmp_path) -> None:
    table = pl.read_csv(page_study.sources.decisions, schema=DECISIONS)
    close = pl.col("threshold", "certified_threshold").map_batches(lambda column: 1 - 3e-7 * (1 + column))
    write_csv(table.with_columns(close), tmp_path / "decisions.csv")
    page = write_again(page_study, tmp_path, decisions=tmp_path / "decisions.csv").read_text(encoding="utf-8")
    data = json.loads(page.split('<script type="application/json" id="data">')[1].split("</script>")[0])["decisions"]
    for name in ("threshold", "certified_threshold"):
        assert data[name] == table.with_columns(close)[name].to_list()
        for whole, shown in zip(data[name], data[f"{name}_shown"], strict=True):
            assert (shown == "none") == (whole is None)
            if whole is not None:
                one, _, distance = shown.partition(" - ")
                assert one == "1" and whole <= 1 - float(distance) < 1


def test_examples_show_a_confidence_and_its_threshold_apart(page_study, page_data, tmp_path) -> None:
    table = pl.read_parquet(page_study.sources.examples)
    threshold = table["threshold"][0]
    close = pl.Series("confidence", [math.nextafter(threshold, place % 2) for place in range(table.height)])
    write_table(table.with_columns(close, threshold=pl.lit(threshold)), tmp_path / "examples.parquet")
    page = write_again(page_study, tmp_path, examples=tmp_path / "examples.parquet").read_text(encoding="utf-8")
    data = json.loads(page.split('<script type="application/json" id="data">')[1].split("</script>")[0])
    for row in data["examples"]:
        assert (float(row["shown"][0]) >= float(row["shown"][1])) == (row["confidence"] >= row["threshold"])
    assert all(len(row["shown"][0]) < 8 for row in page_data["examples"])


def test_curves_keep_full_coverage_and_their_order(page_study, page_data) -> None:
    stored = pl.read_parquet(page_study.sources.curves["model-a", "bf16"])
    stored = stored.filter((pl.col("estimator") == "maxprob") & (pl.col("dataset") == "scenes"))
    curve = next(c for c in page_data["curves"] if (c["scheme"], c["estimator"]) == ("bf16", "maxprob"))
    assert curve["coverage"][-1] == 1
    assert curve["coverage"] == sorted(curve["coverage"])
    assert len(curve["coverage"]) == len(curve["risk"]) == 100
    risks = dict(stored.select(pl.col("coverage").round(4), pl.col("risk").round(4)).iter_rows())
    assert all(risks[coverage] == risk for coverage, risk in zip(curve["coverage"], curve["risk"], strict=True))


def test_of_the_curves_only_those_that_are_shown_are_in_memory_together(page_study, tmp_path, monkeypatch) -> None:
    read, curves = build.read_tables, []

    def watched(paths, *wanted):
        found = read(paths, *wanted)
        curves.extend([found] if "coverage" in found.columns else [])
        return found

    monkeypatch.setattr(build, "read_tables", watched)
    write_again(page_study, tmp_path)
    assert [set(table["id_share"]) for table in curves] == [{0.0, 1.0}]


def test_there_are_examples_of_every_kind_with_their_pictures(page_data) -> None:
    assert {row["kind"] for row in page_data["examples"]} == set(page_data["kinds"])
    for row in page_data["examples"]:
        right, kept = row["quality"] >= 0.5, row["confidence"] >= row["threshold"]
        assert row["kind"] == f"{'right' if right else 'wrong'} and {'kept' if kept else 'abstained'}"
        assert page_data["pictures"][row["picture"]].startswith("data:image/webp;base64,")
    assert len(page_data["pictures"]) == 2


def test_plans_and_provenance_are_in_the_page(page_study) -> None:
    text = page_study.page.read_text(encoding="utf-8")
    assert "Calibrated on 128 samples" in text
    assert "convolution" in text
    for path in page_study.sources.scores.values():
        assert sha256(path) in text
    assert "keeps: 0.95" in text
    assert "<td>9.0</td>" in text


def test_every_figure_is_shown_without_loss_with_its_caption_and_its_files(page_study) -> None:
    text = page_study.page.read_text(encoding="utf-8")
    shown = text.split('<section id="figures"')[1].split("</section>")[0]
    pictures = re.findall(r'<img src="data:image/webp;base64,([^"]+)" width="140" height="60" alt="([^"]+)">', shown)
    assert [caption.split(":")[0] for _, caption in pictures] == ["Risk coverage", "Mixtures"]
    assert 'href="risk_coverage.png"' in shown and 'href="risk_coverage.pdf"' in shown
    assert "Risk at a share of 0.05 of &lt;all&gt;. Colours are schemes.</figcaption>" in shown
    for (encoded, _), path in zip(pictures, page_study.sources.figures.values(), strict=True):
        with Image.open(io.BytesIO(base64.b64decode(encoded))) as found, Image.open(path) as drawn:
            assert found.convert("RGB").tobytes() == drawn.convert("RGB").tobytes()


def test_checkpoints_state_the_bytes_of_the_loaded_model(page_study) -> None:
    text = page_study.page.read_text(encoding="utf-8")
    # 4 bits: (125,000 * 4 + 60,000 + 100) bytes, of 2,000,100.
    assert "<td>0.56 MB<small>28.0 %</small></td>" in text
    assert "<td>2.00 MB<small>100.0 %</small></td>" in text


def without(source, folder, **values):
    """Write a CSV file of a source without the rows of these values."""
    table = pl.read_csv(source, infer_schema_length=None)
    for column, value in values.items():
        table = table.filter(pl.col(column) != value)
    write_csv(table, folder / source.name)
    return folder / source.name


def test_a_study_without_the_unquantized_model_says_so(page_study, tmp_path) -> None:
    changed = {
        name: without(getattr(page_study.sources, name), tmp_path, scheme="bf16") for name in ("decisions", "sizes")
    }
    write_csv(pl.read_csv(page_study.sources.shipping).clear(), tmp_path / "shipping.csv")
    text = write_again(page_study, tmp_path, **changed, shipping=tmp_path / "shipping.csv").read_text(encoding="utf-8")
    assert text.count("no verdict: the study has no bf16 to compare with.") == 2 * 6
    assert "The study has no bf16, which the shipping criterion compares with." in text
    assert text.count('<td class="none">') == 2 * 3 * 6


def test_a_study_of_one_model_has_one_sentence_and_one_column(page_study, tmp_path) -> None:
    names = ("decisions", "sizes", "shipping")
    changed = {name: without(getattr(page_study.sources, name), tmp_path, model="model-b") for name in names}
    text = write_again(page_study, tmp_path, **changed).read_text(encoding="utf-8")
    (panel,) = shown_panels(text)
    assert panel.count("<strong>") == 1 and panel.count('<th scope="col">') == 2


def test_where_nothing_can_be_said_no_scheme_ships(page_study, tmp_path) -> None:
    table = pl.read_csv(page_study.sources.shipping, schema=SHIPPING)
    few = table.with_columns(images=pl.lit(10), n=pl.lit(20), verdict=pl.lit("open"))
    write_csv(few, tmp_path / "shipping.csv")
    text = write_again(page_study, tmp_path, shipping=tmp_path / "shipping.csv").read_text(encoding="utf-8")
    (panel,) = shown_panels(text)
    assert panel.count("nothing can be said: the 20 questions are about 10 images, and fewer than 73") == 2
    assert "snakemake data/bundles" not in text and '<td class="meets">' not in text


def shown_panels(text: str) -> list[str]:
    """Return the panels of verdicts that a page starts with."""
    return [
        part.split('<p class="note copied"')[0]
        for part in text.split('<div class="panel"')[1:]
        if not part.split(">")[0].endswith("hidden")
    ]


def test_the_page_starts_with_the_verdicts_of_the_criterion_and_holds_all_others(page_study) -> None:
    text = page_study.page.read_text(encoding="utf-8")
    keys = re.findall(r'<div class="panel" data-estimator="(\w+)" data-risk="([\d.]+)"( hidden)?>', text)
    assert [key[:2] for key in keys] == list(itertools.product(("selector", "maxprob"), ("0.05", "0.1", "0.2")))
    assert [key[:2] for key in keys if not key[2]] == [("selector", "0.1")]


def test_every_cell_of_the_matrix_says_what_the_csv_file_says(page_study) -> None:
    text = page_study.page.read_text(encoding="utf-8")
    (panel,) = shown_panels(text)
    table = pl.read_csv(page_study.sources.shipping, schema=SHIPPING).filter(
        dataset="scenes", metric="coverage_at_risk", parameter=0.1, estimator="selector"
    )
    rows = {
        re.search(r'<th scope="row">(.*?)</th>', row)[1]: re.findall(r'<td class="(\w+)">(.*?)</td>', row, re.DOTALL)
        for row in panel.split("<tr>")[2:]
    }
    assert set(rows) == {"bf16", *table["scheme"]}
    for (model, scheme), found in table.group_by("model", "scheme"):
        verdict, shown = rows[scheme][["model-a", "model-b"].index(model)]
        row = found.row(0, named=True)
        assert verdict == row["verdict"]
        low, high = (f"{100 * row[name]:.1f}" for name in ("kept_low", "kept_high"))
        assert f"{100 * row['kept']:.1f}\N{NO-BREAK SPACE}%" in shown
        assert f"{low} to {high}\N{NO-BREAK SPACE}%" in shown


def cells(text: str, section: str) -> list[list[str]]:
    """Return what every row of a section's table shows, a cell's small print after a slash."""
    body = text.split(f'<section id="{section}"')[1].split("<tbody>")[1].split("</tbody>")[0]
    rows = [re.findall(r"<t[dh]\b[^>]*>(.*?)</t[dh]>", row) for row in body.split("</tr>")[:-1]]
    return [[re.sub(r"<[^>]+>", "", re.sub(r"<small[^>]*>", "/", cell)) for cell in row] for row in rows]


def test_the_papers_figures_stand_beside_the_studys_with_difference_and_interval(page_study) -> None:
    text = page_study.page.read_text(encoding="utf-8")
    scheme, minus, none = "mbq-w4g128", "\N{MINUS SIGN}", "\N{EN DASH}"
    first = ["83.5 %", "82.5 %", "+1.0/+0.6 to +1.5", "3.7 %", "3.7 %", f"0.0/{minus}1.7 to +0.8"]
    second = [none, none, none, "2.2 %", "2.2 %", f"0.0/{minus}0.2 to +0.8"]
    third = ["77.0 %", "78.1 %", f"{minus}1.1/{minus}2.1 to {minus}0.1"]
    third += ["5.0 %", "5.2 %", f"{minus}0.2/{minus}1.2 to +0.8"]
    assert cells(text, "published") == [
        ["qwen2-vl-7b", f"{scheme}/qwen2-vl-7b/maxprob", *first, "35.0 %", "41.1 %", f"{minus}6.1/{minus}11.1 to +1.4"],
        ["qwen2-vl-7b", f"{scheme}/qwen2-vl-7b/selector", *second, none, "45.4 %", none],
        ["idefics3-8b", f"{scheme}/idefics3-8b/maxprob", *third, "20.0 %", "18.0 %", f"+2.0/{minus}3.0 to +7.0"],
    ]
    section = text.split('<section id="published"')[1].split("</section>")[0]
    assert "arXiv 2602.13289" in section and "107,177 test questions" in section
    assert "is that of this study's number (95 %, bootstrap over images), shifted by the paper's" in section


def test_metrics_beside_the_paper_stand_in_its_order_whichever_row_has_them_first(page_study, tmp_path) -> None:
    table = pl.read_csv(page_study.sources.published)
    selector = pl.col("estimator") == "selector"
    write_csv(table.filter(selector).vstack(table.filter(~selector)), tmp_path / "published.csv")
    text = write_again(page_study, tmp_path, published=tmp_path / "published.csv").read_text(encoding="utf-8")
    headings = re.findall(r'<th scope="colgroup" colspan="3">(.*?)</th>', text)
    assert headings == ["Accuracy", "ECE", "C@1 %"]
    assert cells(text, "published")[0][2:5] == ["\N{EN DASH}"] * 3


@pytest.mark.parametrize("equal", [True, False])
def test_shares_stand_beside_the_published_ones_with_their_caveats(page_study, tmp_path, equal: bool) -> None:
    shares = {"vision": (0.16, True), "connector": (0.05, False), "language": (0.79, True)}
    where = {"model": "model-a", "design": "parts", "method": "hqq", "metric": "accuracy", "least_bits": 2, "sd": 0.025}
    where["equal_levels"] = equal
    rows = [
        {**where, "factor": part, "share": share, "low": share / 2, "high": 1.5 * share, "determined": determined}
        for part, (share, determined) in shares.items()
    ]
    write_table(pl.DataFrame(rows, schema=IMPORTANCE_SCHEMA), tmp_path / "importance.parquet")
    table = tmp_path / "published_importance.csv"
    settings = published_importance.Settings(["parts"])
    published_importance.write(table, settings, importance_path=tmp_path / "importance.parquet")
    text = write_again(page_study, tmp_path, shares=table).read_text(encoding="utf-8")
    own, consensus, *_ = cells(text, "shares")
    assert own == [
        "model-a",
        "HQQ, accuracy/model-a/this study",
        "2" if equal else "2*",
        "2.5",
        "16/8 to 24",
        "open/2 to 8",
        "79/40 to 118",
    ]
    assert consensus[1:] == ["GPTQ, CIDEr/blip2-opt-2.7b/published, consensus", "2", "\N{EN DASH}", "50", "2", "48"]
    assert cells(text, "shares")[-1][-2] == "\N{EN DASH}"
    section = html.unescape(text.split('<section id="shares"')[1].split("</section>")[0])
    assert ("at unequal levels" in section) == (not equal)
    assert all(caveat in section for caveat in published_importance.CAVEATS)
    assert 'id="shares"' not in page_study.page.read_text(encoding="utf-8")


def test_a_study_of_none_of_the_papers_models_has_nothing_beside_the_paper(page_study, tmp_path) -> None:
    text = write_again(page_study, tmp_path, published=None, reference=None).read_text(encoding="utf-8")
    assert "Beside the paper" not in text and "published.csv" not in text and 'href="#published"' not in text
    assert 'id="questions"' in text


def data_table(**changes: list[int]) -> pl.DataFrame:
    counts = {"images": [4000, 1200, 90], "questions": [4500, 2000, 100]}
    zeros = {"skipped_images": [0] * 3, "skipped_questions": [0] * 3, "images_in_home_dev": [4000, 0, 0]}
    where = {"dataset": ["scenes", "scenes", "scenes-language"], "split": ["dev", "test", "test"]}
    return pl.DataFrame({**where, **counts, **zeros, **changes})


def test_images_and_questions_are_counted_with_those_left_out_and_those_that_dev_has_too(page_study, tmp_path) -> None:
    changed = data_table(skipped_images=[0, 2, 0], skipped_questions=[0, 1100, 0], images_in_home_dev=[4000, 0, 7])
    write_csv(changed, tmp_path / "data.csv")
    text = write_again(page_study, tmp_path, data=tmp_path / "data.csv").read_text(encoding="utf-8")
    assert cells(text, "questions") == [
        ["scenes/dev", "4,000", "4,500", "0", "0", "\N{EN DASH}"],
        ["scenes/test", "1,200", "2,000", "2", "1,100", "0"],
        ["scenes-language/test", "90", "100", "0", "0", "7"],
    ]
    told = text.split("<summary>What the verdicts mean, and their limits</summary>")[1].split("</ul>")[0]
    assert told.count("<li>") == 5 + 2
    assert "1,100 questions about 2 images in test of scenes." in told
    assert "7 of the 90 test images of scenes-language" in told


def test_the_limits_say_nothing_of_data_without_limits(page_study, tmp_path) -> None:
    write_csv(data_table(), tmp_path / "data.csv")
    for page in (page_study.page, write_again(page_study, tmp_path, data=tmp_path / "data.csv")):
        told = page.read_text(encoding="utf-8").split("and their limits</summary>")[1].split("</ul>")[0]
        assert told.count("<li>") == 5


def test_the_chart_of_mixtures_has_a_mark_for_every_mixture_and_no_other() -> None:
    spec = charts.mixtures(["bf16"], [1, 0.9, 0.67, 0])
    assert spec["layer"][0]["encoding"]["x"]["axis"]["values"] == [0, 0.67, 0.9, 1]


@pytest.mark.parametrize("chart", [charts.risk_coverage, partial(charts.mixtures, shares=[0, 0.5, 1])])
def test_a_chart_is_valid_vega_lite(chart) -> None:
    spec = json.loads(json.dumps(chart(["bf16", "hqq-w4g64-full", "mixed"])))
    spec["data"] = {"name": spec["data"]["name"], "values": []}
    assert vl_convert.vegalite_to_vega(spec, vl_version=VEGA_LITE)["marks"]


def test_schemes_look_different_by_bits_and_method() -> None:
    names = ["bf16", "hqq-w4g64", "hqq-w3g64", "mbq-w4g64", "mbq-w3g64", "mix-a", "mix-b"]
    looks = charts.looks(names)
    assert len({(look["colour"], tuple(look["dash"])) for look in looks.values()}) == len(names)
    assert looks["hqq-w4g64"]["colour"] == looks["mbq-w4g64"]["colour"]
    assert looks["hqq-w4g64"]["dash"] == looks["hqq-w3g64"]["dash"]


def test_without_shifts_the_page_has_no_mixtures(page_without_shifts) -> None:
    text = page_without_shifts.read_text(encoding="utf-8")
    sections = [name for name in SECTIONS if name != "mixtures"]
    assert re.findall(r'<section id="([^"]+)"', text) == sections
    assert re.findall(r'href="#([^"]+)"', text.split("<nav")[1].split("</nav>")[0]) == sections
    assert "mixtures-dataset" not in text.split('<script type="application/json"')[0]


def test_a_study_without_a_selector_says_nothing_of_its_training(page_study, tmp_path) -> None:
    assert "The Selector trains on dev" in page_study.page.read_text(encoding="utf-8")
    config = {**page_study.config, "study": {**page_study.config["study"], "estimators": ["maxprob"]}}
    page = write_again(replace(page_study, config=config), tmp_path)
    assert "The Selector trains on dev" not in page.read_text(encoding="utf-8")
