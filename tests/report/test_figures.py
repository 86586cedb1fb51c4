"""Figures: what they show, that nothing is cut off or hidden, and that the same tables give the same bytes."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from matplotlib.figure import Figure
from PIL import Image

from quantrust.errors import QuantrustError
from quantrust.report import figures

HOME, LEVEL = "scenes", 0.95


def draw_risk_coverage(study, folder: Path, variants=None) -> Path:
    variants = variants or list(study.metrics)
    figures.risk_coverage(
        [study.curves[v] for v in variants],
        [study.metrics[v] for v in variants],
        folder / "figure.pdf",
        folder / "figure.png",
        home=HOME,
        level=LEVEL,
    )
    return folder


def draw_mixtures(study, folder: Path, variants=None, risk: float = 0.05) -> Path:
    paths = [study.metrics[v] for v in variants or study.metrics]
    figures.mixtures(paths, folder / "figure.pdf", folder / "figure.png", home=HOME, risk=risk, level=LEVEL)
    return folder


def draw_degradation(study, folder: Path, variants=None, risk: float = 0.05) -> Path:
    paths = [study.metrics[v] for v in variants or study.metrics]
    figures.degradation(paths, folder / "figure.pdf", folder / "figure.png", home=HOME, risk=risk, level=LEVEL)
    return folder


DRAWN = {"risk_coverage": draw_risk_coverage, "mixtures": draw_mixtures, "degradation": draw_degradation}


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """The figures that are saved during a test."""
    saved: list[Figure] = []
    save = figures.save_figure

    def keep(figure: Figure, pdf: Path, png: Path) -> None:
        saved.append(figure)
        save(figure, pdf, png)

    monkeypatch.setattr(figures, "save_figure", keep)
    return saved


@pytest.mark.parametrize("draw", DRAWN.values(), ids=DRAWN)
def test_the_same_tables_give_the_same_bytes(study, tmp_path: Path, draw: Callable) -> None:
    first, second = (draw(study, tmp_path / name) for name in ("first", "second"))
    for name in ("figure.pdf", "figure.png"):
        assert (first / name).read_bytes() == (second / name).read_bytes()
    assert b"CreationDate" not in (first / "figure.pdf").read_bytes()


@pytest.mark.parametrize("draw", DRAWN.values(), ids=DRAWN)
def test_nothing_is_cut_off_at_the_edges(study, tmp_path: Path, draw: Callable) -> None:
    pixels = np.asarray(Image.open(draw(study, tmp_path) / "figure.png").convert("L"))
    for edge in (pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]):
        assert (edge == 255).all()


@pytest.mark.parametrize("draw", DRAWN.values(), ids=DRAWN)
def test_a_study_of_one_model_and_three_schemes_is_drawn(study, tmp_path: Path, draw: Callable) -> None:
    variants = [("model-a", scheme) for scheme in ("bf16", "mbq-w3g64-full", "mbq-w2g64-full")]
    assert (draw(study, tmp_path, variants) / "figure.pdf").stat().st_size > 1000


@pytest.mark.parametrize("draw", DRAWN.values(), ids=DRAWN)
def test_the_unquantized_model_alone_is_drawn(study, tmp_path: Path, draw: Callable) -> None:
    assert (draw(study, tmp_path, [("model-a", "bf16")]) / "figure.pdf").stat().st_size > 1000


@pytest.mark.parametrize("draw", DRAWN.values(), ids=DRAWN)
def test_a_figure_states_the_number_of_questions_and_the_level(
    study, tmp_path: Path, drawn: list[Figure], draw: Callable
) -> None:
    draw(study, tmp_path)
    (legend,) = drawn[0].legends
    assert ("2,400" if draw is draw_mixtures else "4,500") in legend.get_title().get_text()
    assert "95%" in legend.get_title().get_text()


def test_risk_coverage_has_a_panel_per_model_and_method_with_dashed_maxprob_and_solid_selector(
    study, tmp_path: Path, drawn: list[Figure]
) -> None:
    draw_risk_coverage(study, tmp_path)
    titles = [axes.get_title(loc="left") for axes in drawn[0].axes]
    assert len(titles) == 4
    assert titles[0].startswith("model-a: HQQ")
    assert titles[3].startswith("model-b: MBQ")
    lines = drawn[0].axes[0].get_lines()
    assert len(lines) == 10
    # Risk of everything answered is the same whatever the confidence; only the Selector's curve is lower before that.
    dashed, solid = lines[0], lines[1]
    assert (dashed.get_linestyle(), solid.get_linestyle()) == ("--", "-")
    assert dashed.get_color() == solid.get_color()
    assert dashed.get_ydata()[-1] == pytest.approx(solid.get_ydata()[-1])
    assert dashed.get_ydata()[50] > solid.get_ydata()[50]


def test_risk_coverage_shows_the_stored_points(study, tmp_path: Path, drawn: list[Figure]) -> None:
    draw_risk_coverage(study, tmp_path, [("model-a", "bf16")])
    curve = pl.read_parquet(study.curves["model-a", "bf16"]).filter(
        (pl.col("estimator") == "maxprob") & (pl.col("coverage") >= 0.02)
    )
    line = drawn[0].axes[0].get_lines()[0]
    np.testing.assert_array_equal(line.get_xdata(), curve["coverage"])
    np.testing.assert_array_equal(line.get_ydata(), curve["risk"])


def test_degradation_puts_each_value_over_its_bits(study, tmp_path: Path, drawn: list[Figure]) -> None:
    draw_degradation(study, tmp_path)
    axes = drawn[0].axes[0]
    lowest = drawn[0].axes[-1]
    assert [label.get_text() for label in lowest.get_xticklabels()] == ["8", "4", "3", "2"]
    values = {
        scheme: pl.read_parquet(study.metrics["model-a", scheme])
        .filter((pl.col("metric") == "accuracy") & (pl.col("dataset") == HOME))["value"]
        .item(0)
        for scheme in ("hqq-w3g64-full", "hqq-w2g64-full")
    }
    (hqq, _mbq) = [container.lines[0] for container in axes.containers]
    assert hqq.get_ydata()[2] == values["hqq-w3g64-full"]
    assert hqq.get_ydata()[3] == values["hqq-w2g64-full"]


def test_mixtures_run_from_in_distribution_to_shift_and_leave_out_what_is_no_mixture(
    study, tmp_path: Path, drawn: list[Figure]
) -> None:
    path = study.metrics["model-a", "bf16"]
    table = pl.read_parquet(path)
    whole = table.filter((pl.col("dataset") != HOME) & (pl.col("id_share") == 0)).with_columns(
        id_share=None, value=pl.lit(0.5), n=9999
    )
    extended = tmp_path / "bf16.parquet"
    pl.concat([table, whole.cast(table.schema)]).write_parquet(extended)
    figures.mixtures([extended], tmp_path / "m.pdf", tmp_path / "m.png", home=HOME, risk=0.05, level=LEVEL)
    axes = drawn[0].axes[0]
    assert axes.get_xlim()[0] > axes.get_xlim()[1]
    assert len(axes.containers[0].lines[0].get_xdata()) == 7
    assert "9,999" not in drawn[0].legends[0].get_title().get_text()


def test_a_risk_that_was_not_computed_is_named(study, tmp_path: Path) -> None:
    with pytest.raises(QuantrustError, match=r"no coverage_at_risk at 0\.07"):
        draw_mixtures(study, tmp_path, risk=0.07)
