"""The figure of learning curves points up where a Selector is better than MaxProb, for every number of labels."""

from pathlib import Path

import polars as pl
import pytest
from matplotlib.figure import Figure

from quantrust.artifacts.tables import write_table
from quantrust.evaluation.learning import SCHEMA
from quantrust.report.figures import learning_curve

LABELS = (1000, 4500)
SIGNS = {"coverage_at_risk": 1, "aurc": -1, "ece": -1}


def curve(scheme: str, folder: Path) -> Path:
    """Each figure is .01 better than MaxProb's with few labels and .03 with many; two trainings lie .005 around it."""
    rows = []
    for dataset in ("scenes", "shift"):
        for estimator in ("selector", "selector-residual"):
            for labels, gain in zip(LABELS, (0.01, 0.03), strict=True):
                for metric, sign in SIGNS.items():
                    parameter = 0.05 if metric == "coverage_at_risk" else None
                    low, high = sorted((sign * (gain - 0.02), sign * (gain + 0.02)))
                    members = [sign * (gain - 0.005), sign * (gain + 0.005)]
                    found = (dataset, None, metric, parameter, sign * gain, low, high, 0.1, 900, 0.5, members)
                    rows.append(("model", scheme, estimator, labels, *found))
    table = pl.DataFrame(rows, schema=SCHEMA, orient="row")
    # coverages at another limit, which the figure does not show
    others = table.filter(metric="coverage_at_risk").with_columns(parameter=0.01, difference=-0.9)
    table = pl.concat([others, table])
    write_table(table, folder / f"{scheme}.parquet")
    return folder / f"{scheme}.parquet"


@pytest.fixture
def paths(tmp_path: Path) -> list[Path]:
    return [curve(scheme, tmp_path) for scheme in ("bf16", "hqq-w3g64-full")]


def test_a_gain_points_up_in_every_panel_with_its_interval_and_its_trainings(
    paths: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved: list[Figure] = []
    monkeypatch.setattr(learning_curve, "save_figure", lambda figure, pdf, png: saved.append(figure))
    files = tmp_path / "f.pdf", tmp_path / "f.png"
    learning_curve.draw(*files, learning_curve.Settings(0.05, 0.95), curve_paths=paths)
    panels = saved[0].axes
    assert len(panels) == 2 * 3
    for axes in panels:
        assert len(axes.containers) == 2 * 2
        for drawn in axes.containers:
            assert drawn.lines[0].get_ydata() == pytest.approx([0.01, 0.03])
            (bars,) = drawn.lines[2]
            ends = [sorted(end[1] for end in segment) for segment in bars.get_segments()]
            assert ends == [pytest.approx([gain - 0.02, gain + 0.02]) for gain in (0.01, 0.03)]
        trainings = [line for line in axes.lines if line.get_marker() == "."]
        assert sorted(trainings[0].get_ydata()) == pytest.approx([0.005, 0.015, 0.025, 0.035])
        assert axes.get_xticks().tolist() == list(LABELS)
    (legend,) = saved[0].legends
    assert {"bf16", "hqq-w3g64-full", "Selector"} <= {text.get_text() for text in legend.get_texts()}
    assert "scenes: 900, shift: 900" in " ".join(legend.get_title().get_text().split())


def test_the_same_tables_give_the_same_bytes(paths: list[Path], tmp_path: Path) -> None:
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        files = tmp_path / name / "f.pdf", tmp_path / name / "f.png"
        learning_curve.draw(*files, learning_curve.Settings(0.05, 0.95), curve_paths=paths)
    for suffix in ("pdf", "png"):
        first, second = ((tmp_path / name / f"f.{suffix}").read_bytes() for name in ("first", "second"))
        assert first == second
