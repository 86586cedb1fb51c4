"""The paper's tables: values, marks, bold and published numbers, alike in all three files."""

import re
from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest

from quantrust.artifacts.tables import write_table
from quantrust.report.tables import paper

PUBLISHED = Path(__file__).resolve().parents[2] / "config" / "paper_reference.yaml"
SETTINGS = paper.Settings(
    id_dataset="scenes",
    estimators=["maxprob", "selector"],
    risks=[0.005, 0.01, 0.05],
    costs=[10, 100],
    resamples=30000,
    level=0.95,
)


def write(study, folder: Path, variants=None, **settings) -> tuple[pl.DataFrame, str, str]:
    files = [folder / f"t.{ending}" for ending in ("csv", "md", "tex")]
    paths = [study.metrics[variant] for variant in variants or study.metrics]
    paths_read = {"metric_paths": paths, "comparisons_path": study.comparisons, "published_path": PUBLISHED}
    paper.write(*files, replace(SETTINGS, **settings), **paths_read)
    return pl.read_csv(files[0]), files[1].read_text(), files[2].read_text()


@pytest.fixture(scope="module")
def written(study, tmp_path_factory: pytest.TempPathFactory) -> tuple[pl.DataFrame, str, str]:
    return write(study, tmp_path_factory.mktemp("tables"))


def markdown_rows(text: str) -> list[list[str]]:
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line[:1] == "|"]


def test_costs_that_are_nearly_equal_or_large_have_columns_and_headings_of_their_own() -> None:
    columns = paper.table_columns([], [10.0, 1234567, 1234568, 2_000_000.0], [])
    costs = [column for column in columns if column.key[0] == "effective_reliability"]
    names = [f"effective_reliability_{cost}" for cost in ("10", "1234567", "1234568", "2000000")]
    assert [column.name for column in costs] == names
    assert [column.heading for column in costs] == ["Φ10", "Φ1234567", "Φ1234568", "Φ2000000"]


def test_rows_go_by_bits_with_maxprob_before_the_selector(written) -> None:
    rows = written[0].filter(model="model-a").select("scheme", "estimator").rows()
    assert rows[:6] == [
        ("bf16", "maxprob"),
        ("bf16", "selector"),
        *((f"{method}-w8g64-full", name) for method in ("hqq", "mbq") for name in ("maxprob", "selector")),
    ]
    assert len(written[0]) == 2 * 9 * 2


def test_figures_are_the_metrics_themselves(study, written) -> None:
    row = written[0].filter(model="model-b", scheme="mbq-w3g64-full", estimator="selector").row(0, named=True)
    metrics = pl.read_parquet(study.metrics["model-b", "mbq-w3g64-full"]).filter(dataset="scenes", estimator="selector")
    for name, metric, parameter in (
        ("accuracy", "accuracy", None),
        ("ece", "ece", None),
        ("aurc", "aurc", None),
        ("coverage_at_risk_0.05", "coverage_at_risk", 0.05),
        ("effective_reliability_100", "effective_reliability", 100.0),
    ):
        expected = metrics.filter((pl.col("metric") == metric) & pl.col("parameter").eq_missing(parameter)).row(
            0, named=True
        )
        for ending, column in (("", "value"), ("_low", "low"), ("_high", "high")):
            assert row[name + ending] == expected[column]


def test_marks_are_those_of_the_corrected_comparisons(written) -> None:
    """The made-up comparisons are significant where they exceed 3 points, and not at a risk of 0.5 %."""
    table, markdown, _ = written
    rows = markdown_rows(markdown)
    heading = rows[0]
    found = {(row[0], row[1], row[2]): dict(zip(heading[3:], row[3:], strict=True)) for row in rows[2:]}
    assert "\\*" in found["model-a", "hqq-w2g64-full", "MaxProb"]["C@5 %"]
    # The accuracy was compared under MaxProb alone; it is the same answers' under the Selector.
    assert "\\*" in found["model-a", "hqq-w2g64-full", "Selector"]["Acc."]
    assert "\\*" not in found["model-a", "mbq-w8g64-full", "MaxProb"]["C@5 %"]
    assert "†" in found["model-a", "bf16", "Selector"]["C@5 %"]
    assert "†" in found["model-a", "bf16", "Selector"]["C@1 %"]
    assert "†" not in found["model-a", "bf16", "Selector"]["C@0.5 %°"]
    assert "†" not in found["model-a", "bf16", "MaxProb"]["C@5 %"]
    row = table.filter(model="model-a", scheme="hqq-w2g64-full", estimator="selector").row(0, named=True)
    assert (row["coverage_at_risk_0.05_p_bf16"], row["coverage_at_risk_0.05_p_maxprob"]) == (0.001, 0.001)
    assert row["coverage_at_risk_0.005_p_bf16"] is None


def test_what_is_not_tested_is_marked_and_the_caption_says_what_a_missing_mark_means(
    study, written, tmp_path: Path
) -> None:
    _, markdown, latex = written
    headings = markdown_rows(markdown)[0][3:]
    assert headings == ["Acc.", "ECE", "C@0.5 %°", "C@1 %", "C@5 %", "AURC", "Φ10°", "Φ100°"]
    assert "°" not in "".join(markdown.splitlines()[2:-1])
    assert "without a mark no difference was found; ° was not tested." in markdown.splitlines()[-1]
    assert "the paper's AUC" in markdown
    assert r"C@0.5~\%$^{\circ}$" in latex and r"$\Phi_{100}$$^{\circ}$" in latex
    # Where only MaxProb is compared, numbers of the Selector are not tested; bf16 under MaxProb has nothing to test.
    table = pl.read_parquet(study.comparisons).filter(first_estimator="maxprob")
    write_table(table, tmp_path / "comparisons.parquet")
    files = [tmp_path / f"t.{ending}" for ending in ("csv", "md", "tex")]
    paper.write(
        *files,
        SETTINGS,
        metric_paths=study.metrics.values(),
        comparisons_path=tmp_path / "comparisons.parquet",
        published_path=PUBLISHED,
    )
    rows = markdown_rows(files[1].read_text())
    found = {(row[0], row[1], row[2]): dict(zip(rows[0][3:], row[3:], strict=True)) for row in rows[2:]}
    for scheme, estimator, column, marked in (
        ("mbq-w8g64-full", "MaxProb", "ECE", False),
        ("mbq-w8g64-full", "Selector", "ECE", True),
        ("bf16", "Selector", "ECE", True),
        ("bf16", "MaxProb", "ECE", False),
        # The answers are MaxProb's, whose accuracy is tested, and those of bf16 are the same under both.
        ("mbq-w8g64-full", "Selector", "Acc.", False),
        ("bf16", "Selector", "Acc.", False),
    ):
        assert ("°" in found["model-a", scheme, estimator][column]) == marked


def test_a_caption_says_where_resamples_are_too_few_to_find_any_difference(study, tmp_path: Path) -> None:
    tests = pl.read_parquet(study.comparisons)["p_holm"].count()
    needed = 40 * tests - 1
    for resamples, said in ((needed - 1, True), (needed, False)):
        _, *captions = write(study, tmp_path, resamples=resamples)
        for caption in captions:
            assert "no difference was found" in caption
            assert (f"none could be: {tests:,} tests take {needed:,} resamples" in caption) == said


def test_bold_is_the_best_of_a_model_at_the_same_bits() -> None:
    def row(model: str, scheme: str, bits: int | None, accuracy: float | None, ece: float) -> paper.Row:
        cells = {
            ("accuracy", None): paper.Cell(accuracy, None, None),
            ("ece", None): paper.Cell(ece, 0, 0),
        }
        return paper.Row(model, scheme, "maxprob", bits, cells)

    rows = [
        row("a", "bf16", None, 0.9, 0.01),
        row("a", "hqq-w4g64", 4, 0.8, 0.03),
        row("a", "mbq-w4g64", 4, 0.81, 0.0301),
        row("a", "mbq-w3g64", 3, None, 0.05),
        row("a", "hqq-w3g64", 3, 0.7, 0.04),
        row("b", "mbq-w4g64", 4, 0.99, 0.09),
    ]
    paper.mark_best(rows)
    best = [tuple(cell.best for cell in row.cells.values()) for row in rows]
    assert best == [(False, False), (False, False), (True, False), (False, False), (False, True), (False, False)]


def test_published_figures_stand_beside_those_of_the_same_model_scheme_and_dataset(study, tmp_path: Path) -> None:
    study_of_paper = {
        ("qwen2-vl-7b", "mbq-w4g128"): "mbq-w4g64-full",
        ("qwen2-vl-7b", "mbq-w4g128-full"): "mbq-w4g64-full",
        ("idefics3-8b-llama3", "hqq-w3g64"): "hqq-w3g64-full",
        ("other", "mbq-w4g128"): "mbq-w4g64-full",
    }
    paths = []
    for (model, scheme), source in study_of_paper.items():
        table = pl.read_parquet(study.metrics["model-a", source]).filter(dataset="scenes")
        path = tmp_path / f"{model}-{scheme}.parquet"
        write_table(table.with_columns(model=pl.lit(model), scheme=pl.lit(scheme), dataset=pl.lit("vqav2")), path)
        paths.append(path)
    files = [tmp_path / f"t.{ending}" for ending in ("csv", "md", "tex")]
    settings = replace(SETTINGS, id_dataset="vqav2")
    paths_read = {"metric_paths": paths, "comparisons_path": study.comparisons, "published_path": PUBLISHED}
    paper.write(*files, settings, **paths_read)
    published = pl.read_csv(files[0]).filter(pl.col("coverage_at_risk_0.01_published").is_not_null())
    columns = ["model", "scheme", "estimator", "accuracy_published", "ece_published", "coverage_at_risk_0.01_published"]
    assert published.select(columns).rows() == [
        ("qwen2-vl-7b", "mbq-w4g128", "maxprob", 0.825, 0.037, 0.411),
        ("qwen2-vl-7b", "mbq-w4g128", "selector", None, 0.022, 0.454),
        ("idefics3-8b-llama3", "hqq-w3g64", "maxprob", 0.64, 0.079, 0.001),
        ("idefics3-8b-llama3", "hqq-w3g64", "selector", None, 0.07, 0.07),
    ]
    assert "(41.1)" in files[1].read_text() and "(41.1)" in files[2].read_text()
    assert "arXiv 2602.13289" in files[1].read_text() and "arXiv 2602.13289" in files[2].read_text()


def test_a_study_of_other_data_has_no_published_numbers(written) -> None:
    table, markdown, latex = written
    assert all(table[name].null_count() == len(table) for name in table.columns if name.endswith("_published"))
    assert "arXiv" not in markdown + latex


def test_latex_rows_have_a_cell_per_column_and_no_bare_percent(written) -> None:
    latex = written[2]
    (columns,) = re.findall(r"\\begin\{tabular\}\{(l+c+)\}", latex)
    body = latex[latex.index(r"\toprule") : latex.index(r"\bottomrule")]
    lines = [line for line in body.splitlines() if line.endswith((r"\\", r"\\*[-3pt]")) and "multicolumn" not in line]
    assert len(lines) == 1 + 2 * 36
    assert {line.count("&") + 1 for line in lines} == {len(columns)}
    assert re.search(r"(?<!\\)%", latex) is None
    assert r"$\Phi_{100}$" in latex
    assert latex.count("{") == latex.count("}")


def test_the_table_of_maxprob_alone_marks_nothing_from_maxprob(study, tmp_path: Path) -> None:
    table, markdown, _ = write(study, tmp_path, estimators=["maxprob"])
    assert set(table["estimator"]) == {"maxprob"}
    assert "†" not in "".join(markdown.splitlines()[2:-1])
