"""The study's numbers beside the published ones: differences, their intervals, and which variants have any."""

import re
from pathlib import Path

import polars as pl
import pytest

from quantrust.artifacts.tables import write_table
from quantrust.errors import QuantrustError
from quantrust.report.published import read_published
from quantrust.report.tables import published

PUBLISHED = Path(__file__).resolve().parents[2] / "config" / "paper_reference.yaml"
ACCURACY, ECE, C1, C5 = ("accuracy", None), ("ece", None), ("coverage_at_risk", 0.01), ("coverage_at_risk", 0.05)
# (value, low, high) by model, scheme and estimator; of the first the paper prints 82.5, 3.7 and 41.1.
METRICS = {
    ("qwen2-vl-7b", "mbq-w4g64", "maxprob"): {
        ACCURACY: (0.835, 0.831, 0.84),
        ECE: (0.03, 0.02, 0.045),
        C1: (0.4, 0.35, 0.425),
        C5: (0.7, 0.6, 0.8),
    },
    # The paper prints no accuracy of the Selector, whose answers are MaxProb's; 2.2 and 45.4.
    ("qwen2-vl-7b", "mbq-w4g64", "selector"): {
        ACCURACY: (0.835, 0.831, 0.84),
        ECE: (0.0224, 0.02, 0.03),
        C1: (None, None, None),
        C5: (0.7, 0.6, 0.8),
    },
    # Not in the paper: these bits in every component, other bits, another model.
    ("qwen2-vl-7b", "mbq-w4g64-full", "maxprob"): {ACCURACY: (0.5, 0.4, 0.6), ECE: (0.5, 0.4, 0.6)},
    ("qwen2-vl-7b", "mbq-w2g64", "maxprob"): {ACCURACY: (0.5, 0.4, 0.6), ECE: (0.5, 0.4, 0.6)},
    ("tiny", "mbq-w4g64", "maxprob"): {ACCURACY: (0.5, 0.4, 0.6), ECE: (0.5, 0.4, 0.6)},
}


def write(folder: Path, variants=tuple(METRICS), id_dataset: str = "vqav2") -> tuple[pl.DataFrame, str, str]:
    rows = [
        (*variant, dataset, 1.0, *key, *(None if value is None else value - shift for value in figures), 1000)
        for variant in variants
        for key, figures in METRICS[variant].items()
        # A shifted dataset, which the table is not of.
        for dataset, shift in ((id_dataset, 0.0), ("vizwiz", 0.3))
    ]
    columns = ["model", "scheme", "estimator", "dataset", "id_share"]
    columns += ["metric", "parameter", "value", "low", "high", "n"]
    write_table(pl.DataFrame(rows, schema=columns, orient="row", infer_schema_length=None), folder / "m.parquet")
    files = [folder / f"published.{ending}" for ending in ("csv", "md", "tex")]
    settings = published.Settings(id_dataset, 0.95)
    published.write(*files, settings, metric_paths=[folder / "m.parquet"], published_path=PUBLISHED)
    return pl.read_csv(files[0]), files[1].read_text(), files[2].read_text()


def test_a_difference_is_ours_minus_published_and_its_interval_ours_shifted(tmp_path: Path) -> None:
    table = write(tmp_path)[0]
    expected = {
        ("maxprob", "accuracy"): (0.835, 0.831, 0.84, 0.825, 0.01, 0.006, 0.015),
        ("maxprob", "ece"): (0.03, 0.02, 0.045, 0.037, -0.007, -0.017, 0.008),
        ("maxprob", "coverage_at_risk_0.01"): (0.4, 0.35, 0.425, 0.411, -0.011, -0.061, 0.014),
        ("selector", "ece"): (0.0224, 0.02, 0.03, 0.022, 0.0004, -0.002, 0.008),
        ("selector", "coverage_at_risk_0.01"): (None, None, None, 0.454, None, None, None),
    }
    assert set(table.select("model", "scheme", "n").iter_rows()) == {("qwen2-vl-7b", "mbq-w4g64", 1000)}
    assert table.select("estimator", "metric").rows() == list(expected)
    for row, figures in zip(table.iter_rows(named=True), expected.values(), strict=True):
        names = ("value", "low", "high", "published", "difference", "difference_low", "difference_high")
        for name, figure in zip(names, figures, strict=True):
            assert row[name] == (None if figure is None else pytest.approx(figure, abs=1e-15)), (row["metric"], name)


def test_markdown_shows_both_figures_and_the_difference_and_says_whose_interval_it_is(tmp_path: Path) -> None:
    lines = write(tmp_path)[1].splitlines()
    assert lines[0] == (
        "| model | scheme | confidence | Acc. | published | difference | ECE | published | difference "
        "| C@1 % | published | difference |"
    )
    assert lines[2:4] == [
        "| qwen2-vl-7b | mbq-w4g64 | MaxProb | 83.5 | 82.5 | +1.0 [+0.6, +1.5] | 3.0 | 3.7 | -0.7 [-1.7, +0.8] "
        "| 40.0 | 41.1 | -1.1 [-6.1, +1.4] |",
        "| qwen2-vl-7b | mbq-w4g64 | Selector | 83.5 | - | - | 2.2 | 2.2 | +0.0 [-0.2, +0.8] | - | 45.4 | - |",
    ]
    assert lines[4] == ""
    assert "the interval of a difference is that of this study's figure, shifted" in lines[5]
    assert "arXiv 2602.13289" in lines[5] and "1,000 test questions" in lines[5] and "95 % bootstrap" in lines[5]


def test_latex_has_a_cell_per_column_and_signs_in_math_mode(tmp_path: Path) -> None:
    latex = write(tmp_path)[2]
    (columns,) = re.findall(r"\\begin\{tabular\}\{(l+c+)\}", latex)
    assert len(columns) == 2 + 3 * 3
    body = latex[latex.index(r"\midrule") : latex.index(r"\bottomrule")]
    lines = [line for line in body.splitlines() if line.endswith((r"\\", r"\\*[-3pt]")) and "multicolumn" not in line]
    assert [line.count("&") + 1 for line in lines] == [len(columns)] * 4
    assert lines[0] == (
        r"mbq-w4g64 & MaxProb & 83.5 & 82.5 & $+1.0$ & 3.0 & 3.7 & $-0.7$ & 40.0 & 41.1 & $-1.1$ \\*[-3pt]"
    )
    assert lines[1].split(" & ")[4] == r"{\tiny $[+0.6, +1.5]$}"
    assert re.search(r"(?<!\\)%", latex) is None
    assert latex.count("{") == latex.count("}")


@pytest.mark.parametrize(
    ("variant", "id_dataset"),
    [(("tiny", "mbq-w4g64", "maxprob"), "vqav2"), (("qwen2-vl-7b", "mbq-w4g64", "maxprob"), "scenes")],
)
def test_a_study_of_other_models_or_data_is_refused_and_leaves_no_table(
    tmp_path: Path, variant, id_dataset: str
) -> None:
    with pytest.raises(QuantrustError, match=rf"paper_reference\.yaml has no numbers of .* on {id_dataset}; expected"):
        write(tmp_path, [variant], id_dataset)
    assert not list(tmp_path.glob("published.*"))


def test_a_risk_limit_that_the_study_lacks_has_no_column(tmp_path: Path) -> None:
    variant = ("qwen2-vl-7b", "mbq-w4g64", "maxprob")
    kept = {key: figures for key, figures in METRICS[variant].items() if key != C1}
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(METRICS, variant, kept)
        table = write(tmp_path, [variant])[0]
    assert table["metric"].to_list() == ["accuracy", "ece"]


def test_the_shipped_figures_are_those_of_the_papers_tables() -> None:
    """Accuracy, ECE and coverage at 1 % risk; of the Selector the last two."""
    published = read_published(PUBLISHED, "vqav2")
    qwen, idefics = "qwen2-vl-7b", "idefics3-8b"
    for variant, figures in {
        (qwen, "bf16", "maxprob"): {ACCURACY: 0.83, ECE: 0.035, C1: 0.426},
        (qwen, "hqq-w3g64", "maxprob"): {ACCURACY: 0.801, ECE: 0.091, C1: 0.212},
        (qwen, "mbq-w8g64", "selector"): {ECE: 0.032, C1: 0.459},
        (idefics, "bf16", "selector"): {ECE: 0.014, C1: 0.363},
        (idefics, "hqq-w8g64", "maxprob"): {ACCURACY: 0.793, ECE: 0.051, C1: 0.24},
        (idefics, "hqq-w8g64", "selector"): {},
        (idefics, "mbq-w3g64", "selector"): {ECE: 0.014, C1: 0.197},
    }.items():
        assert published.of_variant(*variant) == figures
