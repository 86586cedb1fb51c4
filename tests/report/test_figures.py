"""Figures: what they show, that nothing is cut off or covered, and that the same tables give the same bytes."""

import itertools
from collections.abc import Callable, Sequence
from pathlib import Path

import matplotlib
import numpy as np
import polars as pl
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text
from PIL import Image

from quantrust.artifacts.tables import write_table
from quantrust.errors import QuantrustError
from quantrust.report.figures import (
    confidence_histograms,
    degradation,
    drift,
    efficiency,
    fairness,
    groups,
    mixtures,
    reliability_diagrams,
    risk_coverage,
    selector_gain,
)
from quantrust.report.style import BIT_COLOURS, UNQUANTIZED_COLOUR

ID_DATASET, LEVEL, RISK, RISKS = "scenes", 0.95, 0.05, [0.01, 0.05]
SHIFTS = ("scenes-language", "scenes-multimodal")
Variants = Sequence[tuple[str, str]]


def metrics_of(study, variants: Variants) -> list[Path]:
    return [study.metrics[variant] for variant in variants]


def draw_risk_coverage(study, variants: Variants, *files: Path, risks: Sequence[float] = RISKS) -> None:
    curves = [study.curves[variant] for variant in variants]
    settings = risk_coverage.Settings(ID_DATASET, risks, LEVEL)
    risk_coverage.draw(*files, settings, curve_paths=curves, metric_paths=metrics_of(study, variants))


def draw_mixtures(study, variants: Variants, *files: Path, risks: Sequence[float] = RISKS) -> None:
    mixtures.draw(*files, mixtures.Settings(ID_DATASET, risks, LEVEL), metric_paths=metrics_of(study, variants))


def test_mixtures_of_a_study_without_shifts_say_that_there_are_none(study, tmp_path) -> None:
    own = tmp_path / "metrics.parquet"
    write_table(pl.read_parquet(study.metrics["model-a", "bf16"]).filter(dataset=ID_DATASET), own)
    files = tmp_path / "mixtures.pdf", tmp_path / "mixtures.png"
    mixtures.draw(*files, mixtures.Settings(ID_DATASET, RISKS, LEVEL), metric_paths=[own])
    # As wide as any figure and an inch high.
    assert Image.open(files[1]).size == (1400, 200)
    assert files[0].stat().st_size > 0


def draw_degradation(study, variants: Variants, *files: Path, risks: Sequence[float] = RISKS) -> None:
    degradation.draw(*files, degradation.Settings(ID_DATASET, risks, LEVEL), metric_paths=metrics_of(study, variants))


def draw_efficiency(study, variants: Variants, *files: Path, risks: Sequence[float] = RISKS) -> None:
    settings = efficiency.Settings(ID_DATASET, risks, LEVEL)
    efficiency.draw(*files, settings, metric_paths=metrics_of(study, variants), sizes_path=study.sizes)


def draw_reliability_diagrams(study, variants: Variants, *files: Path) -> None:
    settings = reliability_diagrams.Settings(ID_DATASET, LEVEL)
    reliability_diagrams.draw(*files, settings, bin_paths=[study.bins[variant] for variant in variants])


def draw_confidence_histograms(study, variants: Variants, *files: Path) -> None:
    settings = confidence_histograms.Settings(ID_DATASET)
    confidence_histograms.draw(*files, settings, bin_paths=[study.bins[variant] for variant in variants])


def draw_selector_gain(study, variants: Variants, *files: Path) -> None:
    selector_gain.draw(*files, selector_gain.Settings(RISKS, LEVEL), comparisons_path=study.comparisons)


def draw_drift_from_bf16(study, variants: Variants, *files: Path) -> None:
    table = pl.read_parquet(study.drift)
    wanted = pl.DataFrame(list(variants), schema=["model", "scheme"], orient="row")
    own = files[0].with_suffix(".parquet")
    write_table(table.join(wanted, on=["model", "scheme"], how="semi", maintain_order="left"), own)
    drift.draw(*files, drift.Settings(LEVEL), drift_path=own)


def draw_answer_types(study, variants: Variants, *files: Path, risk: float = RISK) -> None:
    paths = [study.groups[variant] for variant in variants]
    groups.draw(*files, groups.Settings("answer_type", [ID_DATASET, *SHIFTS], risk, LEVEL), group_paths=paths)


def draw_question_kinds(study, variants: Variants, *files: Path, risk: float = RISK) -> None:
    paths = [study.groups[variant] for variant in variants]
    groups.draw(*files, groups.Settings("question_kind", [ID_DATASET], risk, LEVEL), group_paths=paths)


def draw_fairness_by_group(study, variants: Variants, *files: Path, risk: float = RISK) -> None:
    table = pl.read_parquet(study.fairness)
    wanted = pl.DataFrame(list(variants), schema=["model", "scheme"], orient="row")
    own = files[0].with_suffix(".parquet")
    write_table(wanted.join(table, on=["model", "scheme"], maintain_order="left_right").select(table.columns), own)
    settings = fairness.Settings(ID_DATASET, ["answer_type", "topic_of_user"], "maxprob", risk, LEVEL)
    fairness.draw(*files, settings, fairness_path=own)


def test_rings_mark_the_groups_that_are_further_behind_than_without_quantization(study, tmp_path, drawn) -> None:
    draw_fairness_by_group(study, list(study.metrics), tmp_path / "f.pdf", tmp_path / "f.png")
    (figure,) = drawn
    rings = [(axes, line) for axes in figure.axes for line in axes.lines if line.get_markersize() == fairness.RING]
    # Of each model one panel for each metric; in the made-up table only number is behind, at two bits of either method.
    assert [len(line.get_xdata()) for _, line in rings] == [0, 2] * 2
    assert "further behind than bf16" in {text.get_text() for text in figure.legends[0].get_texts()}
    labels = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert labels == ["all questions", "answer type: number", "yes/no", r"topic of user: \$5"]
    assert "groups of too few images, which are left out: 1" in note_of(figure)


def test_a_study_of_too_few_images_says_so_in_the_place_of_groups(study, tmp_path) -> None:
    table = pl.read_parquet(study.fairness).filter(pl.col("group").is_null() | pl.col("value").is_null())
    write_table(table, tmp_path / "few.parquet")
    settings = fairness.Settings(ID_DATASET, ["answer_type", "topic_of_user"], "maxprob", RISK, LEVEL)
    fairness.draw(tmp_path / "f.pdf", tmp_path / "f.png", settings, fairness_path=tmp_path / "few.parquet")
    assert Image.open(tmp_path / "f.png").size == (1400, 200)


DRAW = {name.removeprefix("draw_"): draw for name, draw in list(globals().items()) if name.startswith("draw_")}
every_figure = pytest.mark.parametrize("draw", DRAW.values(), ids=DRAW)
OF_VARIANTS = {name: draw for name, draw in DRAW.items() if name not in ("selector_gain", "fairness_by_group")}


MODULES = (
    *(
        confidence_histograms,
        degradation,
        drift,
        efficiency,
        fairness,
        groups,
        mixtures,
        reliability_diagrams,
        risk_coverage,
    ),
    selector_gain,
)


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """The figures that would be saved during a test."""
    saved: list[Figure] = []
    for module in MODULES:
        if hasattr(module, "save_figure"):
            monkeypatch.setattr(module, "save_figure", lambda figure, pdf, png: saved.append(figure))
        else:
            monkeypatch.setattr(module, "save_pages", lambda figures, pdf, png: saved.extend(figures))
    return saved


def note_of(figure: Figure) -> str:
    (legend,) = figure.legends
    return " ".join(legend.get_title().get_text().split())


@every_figure
def test_the_same_tables_give_the_same_bytes_and_nothing_is_cut_off(study, tmp_path: Path, draw: Callable) -> None:
    variants = [("model-a", scheme) for scheme in ("bf16", "mbq-w3g64-full", "mbq-w2g64-full")]
    for name in ("first", "second"):
        draw(study, variants, tmp_path / name / "figure.pdf", tmp_path / name / "figure.png")
    for name in ("figure.pdf", "figure.png"):
        assert (tmp_path / "first" / name).read_bytes() == (tmp_path / "second" / name).read_bytes()
    assert b"CreationDate" not in (tmp_path / "first" / "figure.pdf").read_bytes()
    pixels = np.asarray(Image.open(tmp_path / "first" / "figure.png").convert("L"))
    for edge in (pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]):
        assert (edge == 255).all()


@every_figure
def test_no_text_covers_another_with_21_schemes(
    large_study, tmp_path: Path, drawn: list[Figure], monkeypatch: pytest.MonkeyPatch, draw: Callable
) -> None:
    draw(large_study, list(large_study.metrics), tmp_path / "figure.pdf", tmp_path / "figure.png")
    boxes = []
    draw_text = Text.draw

    def note_box(text: Text, renderer) -> None:
        if text.get_visible() and text.get_text().strip():
            boxes.append((text.get_text(), text.get_window_extent(renderer)))
        draw_text(text, renderer)

    monkeypatch.setattr(Text, "draw", note_box)
    FigureCanvasAgg(drawn[0]).draw()
    width, height = drawn[0].bbox.size
    assert len(boxes) > 10
    for name, box in boxes:
        assert box.x0 >= 0 and box.y0 >= 0 and box.x1 <= width and box.y1 <= height, f"{name!r} is cut off"
    for (first, box), (second, other) in itertools.combinations(boxes, 2):
        across = min(box.x1, other.x1) - max(box.x0, other.x0)
        down = min(box.y1, other.y1) - max(box.y0, other.y0)
        # A box has room for accents and descenders: to share a point of it is no collision.
        assert across <= 1 or down <= 1, f"{first!r} covers {second!r}"


@pytest.mark.parametrize("draw", OF_VARIANTS.values(), ids=OF_VARIANTS)
@pytest.mark.parametrize("schemes", [["bf16"], ["mbq-w3g64-full"], ["bf16", "mbq-w3g64-full", "mbq-w2g64-full"]])
def test_small_studies_are_drawn(
    study, tmp_path: Path, drawn: list[Figure], draw: Callable, schemes: list[str]
) -> None:
    draw(study, [("model-a", scheme) for scheme in schemes], tmp_path / "figure.pdf", tmp_path / "figure.png")
    FigureCanvasAgg(drawn[0]).draw()


@pytest.mark.parametrize("draw", OF_VARIANTS.values(), ids=OF_VARIANTS)
def test_a_figure_states_the_number_of_questions(study, tmp_path: Path, drawn: list[Figure], draw: Callable) -> None:
    draw(study, list(study.metrics), tmp_path / "figure.pdf", tmp_path / "figure.png")
    counts = {"mixtures": "2,400 test", "reliability_diagrams": "4,203 test", "confidence_histograms": "4,203 test"}
    counts |= dict.fromkeys(("answer_types", "question_kinds"), "groups of 700 test")
    counts["drift_from_bf16"] = "test questions: scenes: 4,500"
    assert counts.get(next(name for name in DRAW if DRAW[name] is draw), "4,500 test") in note_of(drawn[0])
    if draw is not draw_confidence_histograms:
        assert "95 % bootstrap intervals over images" in note_of(drawn[0])


def test_risk_coverage_has_a_panel_per_model_and_method_with_dashed_maxprob_and_solid_selector(
    study, tmp_path: Path, drawn: list[Figure]
) -> None:
    draw_risk_coverage(study, list(study.metrics), tmp_path / "f.pdf", tmp_path / "f.png")
    titles = [axes.get_title(loc="left") for axes in drawn[0].axes]
    assert titles == ["model-a: HQQ", "model-a: MBQ", "model-b: HQQ", "model-b: MBQ"]
    lines = drawn[0].axes[0].get_lines()
    assert len(lines) == 10
    # Risk of everything answered is the same whatever the confidence; only the Selector's curve is lower before that.
    dashed, solid = lines[0], lines[1]
    assert (dashed.get_linestyle(), solid.get_linestyle()) == ("--", "-")
    assert dashed.get_color() == solid.get_color()
    assert dashed.get_ydata()[-1] == pytest.approx(solid.get_ydata()[-1])
    assert dashed.get_ydata()[50] > solid.get_ydata()[50]


def test_risk_coverage_shows_the_stored_points_and_no_curve_reaches_the_small_panel(
    study, tmp_path: Path, drawn: list[Figure]
) -> None:
    draw_risk_coverage(study, [("model-a", "bf16")], tmp_path / "f.pdf", tmp_path / "f.png")
    curve = pl.read_parquet(study.curves["model-a", "bf16"]).filter(
        (pl.col("estimator") == "maxprob") & (pl.col("coverage") >= 0.02)
    )
    axes = drawn[0].axes[0]
    np.testing.assert_array_equal(axes.get_lines()[0].get_xdata(), curve["coverage"])
    np.testing.assert_array_equal(axes.get_lines()[0].get_ydata(), curve["risk"])
    drawn[0].draw_without_rendering()
    (inset,) = axes.child_axes
    box = inset.get_window_extent().transformed(axes.transData.inverted())
    under = curve.filter(pl.col("coverage") <= box.x1)
    assert under["high"].max() < box.y0
    assert axes.get_ylim()[1] >= curve["high"].max()


def test_risk_coverage_has_one_scale_that_only_what_is_shown_stretches(
    study, tmp_path: Path, drawn: list[Figure]
) -> None:
    paths = {}
    for model, scheme in study.curves:
        table = pl.read_parquet(study.curves[model, scheme])
        risk = pl.when(pl.col("estimator") == "entropy").then(0.99).otherwise(pl.col("risk"))
        paths[model, scheme] = tmp_path / f"{model}-{scheme}.parquet"
        high = pl.when(pl.col("estimator") == "entropy").then(1.0).otherwise("high")
        write_table(table.with_columns(risk=risk, high=high), paths[model, scheme])
    metrics = metrics_of(study, list(paths))
    settings = risk_coverage.Settings(ID_DATASET, RISKS, LEVEL)
    files = tmp_path / "f.pdf", tmp_path / "f.png"
    risk_coverage.draw(*files, settings, curve_paths=paths.values(), metric_paths=metrics)
    shown = pl.concat([pl.read_parquet(path) for path in paths.values()]).filter(pl.col("estimator") != "entropy")
    limits = {axes.get_ylim() for axes in drawn[0].axes}
    assert len(limits) == 1
    assert shown["high"].max() < limits.pop()[1] < 1.5 * shown["high"].max()
    dotted = [line.get_ydata()[0] for line in drawn[0].axes[0].child_axes[0].get_lines() if line.get_linestyle() == ":"]
    assert dotted == RISKS


def test_degradation_puts_each_value_over_its_bits(study, tmp_path: Path, drawn: list[Figure]) -> None:
    draw_degradation(study, list(study.metrics), tmp_path / "f.pdf", tmp_path / "f.png")
    axes, lowest = drawn[0].axes[0], drawn[0].axes[-1]
    assert [label.get_text() for label in lowest.get_xticklabels()] == ["8", "4", "3", "2"]
    (hqq, _mbq) = [container.lines[0] for container in axes.containers]
    for place, scheme in ((2, "hqq-w3g64-full"), (3, "hqq-w2g64-full")):
        table = pl.read_parquet(study.metrics["model-a", scheme])
        expected = table.filter(metric="accuracy", dataset=ID_DATASET, estimator="selector")["value"].item()
        assert hqq.get_ydata()[place] == expected


@pytest.mark.parametrize(
    ("schemes", "label"),
    [
        (["hqq-w3g64-full", "mbq-w2g64-full"], "bits per weight of all components"),
        (["hqq-w3g64", "mbq-w2g64-mixed"], "bits per weight of the language model"),
        (["hqq-w3g64", "hqq-w2g64-full"], "bits per weight; the legend has of what"),
        (["last-third"], "scheme"),
    ],
)
def test_the_axis_of_degradation_says_which_components_have_the_bits(
    study, tmp_path: Path, drawn: list[Figure], schemes: list[str], label: str
) -> None:
    table, paths = pl.read_parquet(study.metrics["model-a", "mbq-w3g64-full"]), []
    for scheme in schemes:
        paths.append(tmp_path / f"{scheme}.parquet")
        write_table(table.with_columns(scheme=pl.lit(scheme)), paths[-1])
    degradation.draw(
        tmp_path / "f.pdf", tmp_path / "f.png", degradation.Settings(ID_DATASET, RISKS, LEVEL), metric_paths=paths
    )
    assert drawn[0].axes[-1].get_xlabel() == label


def test_degradation_gives_a_scheme_that_the_config_names_a_place_of_its_own(
    study, tmp_path: Path, drawn: list[Figure]
) -> None:
    table = pl.read_parquet(study.metrics["model-a", "mbq-w3g64-full"]).with_columns(scheme=pl.lit("last-third"))
    write_table(table, tmp_path / "named.parquet")
    paths = [*metrics_of(study, [("model-a", "bf16"), ("model-a", "hqq-w3g64-full")]), tmp_path / "named.parquet"]
    degradation.draw(
        tmp_path / "f.pdf", tmp_path / "f.png", degradation.Settings(ID_DATASET, RISKS, LEVEL), metric_paths=paths
    )
    assert [label.get_text() for label in drawn[0].axes[-1].get_xticklabels()] == ["3", "last-third"]


def test_degradation_draws_the_methods_of_one_bit_width_beside_each_other(
    study, tmp_path: Path, drawn: list[Figure]
) -> None:
    variants = [("model-a", scheme) for scheme in ("bf16", "hqq-w3g64-full", "mbq-w3g64-full")]
    draw_degradation(study, variants, tmp_path / "f.pdf", tmp_path / "f.png")
    for axes in drawn[0].axes:
        places = [container.lines[0].get_xdata()[0] for container in axes.containers]
        left, right = axes.get_xlim()
        assert (left, right) == (-0.5, 0.5)
        assert max(places) - min(places) < 0.3 * (right - left)


def test_mixtures_run_from_in_distribution_to_shift_and_leave_out_what_is_no_mixture(
    study, tmp_path: Path, drawn: list[Figure]
) -> None:
    table = pl.read_parquet(study.metrics["model-a", "bf16"])
    whole = table.filter((pl.col("dataset") != ID_DATASET) & (pl.col("id_share") == 0)).with_columns(
        id_share=None, value=pl.lit(0.5), n=9999
    )
    write_table(pl.concat([table, whole.cast(table.schema)]), tmp_path / "bf16.parquet")
    settings = mixtures.Settings(ID_DATASET, RISKS, LEVEL)
    mixtures.draw(tmp_path / "m.pdf", tmp_path / "m.png", settings, metric_paths=[tmp_path / "bf16.parquet"])
    axes = drawn[0].axes[0]
    assert axes.get_xlim()[0] > axes.get_xlim()[1]
    assert len(axes.get_lines()[0].get_xdata()) == 7
    assert "9,999" not in note_of(drawn[0])


def test_mixtures_have_a_panel_for_every_risk_limit_and_one_scale_for_all_models(
    study, tmp_path: Path, drawn: list[Figure]
) -> None:
    draw_mixtures(study, list(study.metrics), tmp_path / "f.pdf", tmp_path / "f.png")
    lefts = [axes for page in drawn for axes in page.axes if axes.get_ylabel()]
    # A page a model, and on it both shifts.
    assert [axes.get_ylabel() for axes in lefts] == ["accuracy", "C@1 %", "C@5 %"] * 4
    for first, second in zip(lefts[:3], lefts[6:9], strict=True):
        assert first.get_ylim() == second.get_ylim()
    # A dashed line for MaxProb and a solid one for the Selector, of each of five schemes; model-a is the better one.
    styles = [line.get_linestyle() for line in lefts[1].get_lines()]
    assert (styles.count("--"), styles.count("-")) == (5, 5)
    assert lefts[1].get_lines()[0].get_ydata()[-1] > lefts[7].get_lines()[0].get_ydata()[-1]


def test_mixtures_are_printed_a_page_a_model_with_panels_as_wide_as_half_a_page(
    study, tmp_path: Path, drawn: list[Figure]
) -> None:
    draw_mixtures(study, list(study.metrics), tmp_path / "f.pdf", tmp_path / "f.png")
    assert [page.axes[0].get_title(loc="left") for page in drawn] == [
        f"{model}, HQQ, to scenes-language" for model in ("model-a", "model-b")
    ]
    for page in drawn:
        FigureCanvasAgg(page).draw()
        widths = {round(axes.get_window_extent().width / page.bbox.width, 2) for axes in page.axes}
        assert min(widths) > 0.4
        # As high as a page of paper.
        assert page.get_figheight() < 10


def test_the_last_panel_of_every_column_of_mixtures_names_the_ratios(
    large_study, tmp_path: Path, drawn: list[Figure]
) -> None:
    variants = [("model-a", scheme) for scheme in ("hqq-w3g64-full", "mbq-w3g64-full", "rtn-w3g64-full")]
    paths = []
    for variant in variants:
        paths.append(tmp_path / f"{variant[1]}.parquet")
        write_table(pl.read_parquet(large_study.metrics[variant]).filter(pl.col("dataset") != SHIFTS[1]), paths[-1])
    mixtures.draw(
        tmp_path / "m.pdf", tmp_path / "m.png", mixtures.Settings(ID_DATASET, RISKS, LEVEL), metric_paths=paths
    )
    FigureCanvasAgg(drawn[0]).draw()
    panels = [axes for axes in drawn[0].axes if axes.get_visible()]
    assert len(panels) == 3 * 3
    labelled = [axes for axes in panels if any(label.get_visible() for label in axes.get_xticklabels())]
    assert len(labelled) == 3


def test_mixtures_have_bands_of_no_quantization_and_the_fewest_bits_alone(
    study, tmp_path: Path, drawn: list[Figure]
) -> None:
    variants = [("model-a", scheme) for scheme in ("bf16", "mbq-w8g64-full", "mbq-w3g64-full", "mbq-w2g64-full")]
    draw_mixtures(study, variants, tmp_path / "f.pdf", tmp_path / "f.png")
    axes = drawn[0].axes[1]
    banded = {matplotlib.colors.to_hex(band.get_facecolor()[0]) for band in axes.collections}
    lines = {line.get_color().lower() for line in axes.get_lines()}
    assert banded == {UNQUANTIZED_COLOUR, BIT_COLOURS[2].lower()} and len(lines) == 4
    assert "bands, of bf16 and a panel's fewest bits: 95 % bootstrap" in note_of(drawn[0])


def test_figures_say_what_covers_8_bits(study, tmp_path: Path, drawn: list[Figure]) -> None:
    for draw in (draw_risk_coverage, draw_mixtures):
        draw(study, [("model-a", scheme) for scheme in ("bf16", "mbq-w8g64-full")], tmp_path / "f.pdf", tmp_path / "f")
        draw(study, [("model-a", "bf16")], tmp_path / "f.pdf", tmp_path / "f.png")
    for with_bits, without in (drawn[:2], drawn[2:]):
        assert "drawn from 8 bits down, bf16 last: where 8 bits cannot be seen, a later" in note_of(with_bits)
        assert "cannot be seen" not in note_of(without)


def test_pareto_front_is_what_no_point_beats() -> None:
    rng = np.random.default_rng(0)
    sizes, values = rng.integers(1, 8, 40).tolist(), rng.integers(0, 9, 40).tolist()
    front = efficiency.pareto_front(sizes, values)
    beaten = {
        one
        for one in range(40)
        if any(
            sizes[other] <= sizes[one]
            and values[other] >= values[one]
            and (sizes[other], values[other]) != (sizes[one], values[one])
            for other in range(40)
        )
    }
    unbeaten = {(sizes[place], values[place]) for place in range(40) if place not in beaten}
    assert [(sizes[place], values[place]) for place in front] == sorted(unbeaten)


def test_efficiency_puts_each_checkpoint_over_its_bytes_in_megabytes(
    study, tmp_path: Path, drawn: list[Figure]
) -> None:
    draw_efficiency(study, [("model-a", "bf16"), ("model-a", "mbq-w2g64-full")], tmp_path / "f.pdf", tmp_path / "f.png")
    axes = drawn[0].axes[0]
    points = [container.lines[0] for container in axes.containers]
    assert [point.get_xdata()[0] for point in points] == pytest.approx([1.6, 0.2])
    assert drawn[0].axes[-1].get_xlabel() == "checkpoint on disk in MB"


def test_efficiency_sets_points_of_equal_bytes_apart_and_says_so(study, tmp_path: Path, drawn: list[Figure]) -> None:
    schemes = ("bf16", "hqq-w2g64-full", "mbq-w2g64-full")
    draw_efficiency(study, [("model-a", scheme) for scheme in schemes], tmp_path / "f.pdf", tmp_path / "f.png")
    axes = drawn[0].axes[0]
    points = [container.lines[0].get_xdata()[0] for container in axes.containers]
    assert points == pytest.approx([1.6, 0.2 - 0.016, 0.2 + 0.016])
    # The front goes through the points as they are drawn, not through their bytes.
    assert set(axes.get_lines()[0].get_xdata()) <= set(points)
    assert note_of(drawn[0]).endswith("; points of equal bytes are set apart")
    draw_efficiency(study, [("model-a", scheme) for scheme in schemes[:2]], tmp_path / "f.pdf", tmp_path / "f.png")
    assert "set apart" not in note_of(drawn[1])


def test_many_points_of_equal_bytes_stay_close_to_them() -> None:
    assert efficiency.set_apart([100, *[50] * 5]) == pytest.approx([100, 47, 48.5, 50, 51.5, 53])


def test_reliability_diagrams_leave_out_bins_with_a_handful_of_answers(
    study, tmp_path: Path, drawn: list[Figure]
) -> None:
    draw_reliability_diagrams(study, [("model-a", "bf16")], tmp_path / "f.pdf", tmp_path / "f.png")
    maxprob, selector = drawn[0].axes
    assert maxprob.get_title(loc="left").endswith("MaxProb")
    (line,) = [container.lines[0] for container in maxprob.containers]
    assert len(line.get_xdata()) == 14
    assert list(line.get_ydata()) == pytest.approx([0.8 * confidence for confidence in line.get_xdata()])
    (line,) = [container.lines[0] for container in selector.containers]
    assert list(line.get_ydata()) == pytest.approx(list(line.get_xdata()))


def test_confidence_histograms_draw_right_answers_up_and_wrong_ones_down(
    study, tmp_path: Path, drawn: list[Figure]
) -> None:
    draw_confidence_histograms(study, [("model-a", "bf16")], tmp_path / "f.pdf", tmp_path / "f.png")
    right, wrong = drawn[0].axes[0].containers
    heights = [[-bar.get_height() for bar in bars] for bars in (right, wrong)]
    # At most 290 right and 282 wrong answers of 4,203 in a bin, some 7 % each, need lines 15 % apart.
    assert sum(heights[0]) - sum(heights[1]) == pytest.approx(1 / 0.15)
    assert heights[0][14] == pytest.approx(round(300 * 0.8 * 14.5 / 15) / 4203 / 0.15)
    assert max(heights[1]) <= 0 <= min(heights[0])
    assert drawn[0].legends[0].get_texts()[1].get_text() == "wrong (below)"


def test_confidence_histograms_show_wrong_answers_that_are_few(study, tmp_path: Path, drawn: list[Figure]) -> None:
    """Of 4,203 answers a bin has at most 290 right ones and here 28 wrong ones: drawn ten times as tall."""
    table = pl.read_parquet(study.bins["model-a", "bf16"])
    few = pl.when(pl.col("n") > 3).then(pl.col("n") - (pl.col("n") - pl.col("right")) // 10).otherwise("right")
    write_table(table.with_columns(right=few.cast(table.schema["right"])), tmp_path / "bins.parquet")
    files = (tmp_path / "f.pdf", tmp_path / "f.png")
    confidence_histograms.draw(
        *files, confidence_histograms.Settings(ID_DATASET), bin_paths=[tmp_path / "bins.parquet"]
    )
    right, wrong = drawn[0].axes[0].containers
    tallest = [max(abs(bar.get_height()) for bar in bars) for bars in (right, wrong)]
    assert 0.3 < tallest[1] / tallest[0] <= 1
    assert drawn[0].legends[0].get_texts()[1].get_text() == "wrong (below), drawn 10 times as tall"


def test_confidence_histograms_have_a_scale_on_which_bars_are_shares_of_all_answers(
    study, tmp_path: Path, drawn: list[Figure]
) -> None:
    variants = [("model-a", scheme) for scheme in ("bf16", "mbq-w2g64-full")]
    draw_confidence_histograms(study, variants, tmp_path / "f.pdf", tmp_path / "f.png")
    *others, last = drawn[0].axes
    (scale,) = last.child_axes
    assert not any(axes.child_axes for axes in others)
    assert last.get_ylim() == others[0].get_ylim()
    marks = list(zip(scale.get_yticks(), (label.get_text() for label in scale.get_yticklabels()), strict=True))
    # Two schemes, each with a zero at its line and a share above it; the y axis runs downwards.
    assert [label for _, label in marks] == ["0 %", "10 %"] * 2
    assert [place for place, label in marks if label == "0 %"] == [0, 1]
    bar = last.containers[0][14]
    share = round(300 * 14.5 / 15) / 4203
    assert -bar.get_height() / (marks[0][0] - marks[1][0]) == pytest.approx(share / 0.1)


def test_selector_gain_points_right_where_the_selector_is_better_and_fills_what_is_significant(
    study, tmp_path: Path, drawn: list[Figure]
) -> None:
    draw_selector_gain(study, [], tmp_path / "f.pdf", tmp_path / "f.png")
    _, coverage, aurc, ece = drawn[0].axes[:4]
    for axes, gain in ((coverage, 0.04), (aurc, 0.02), (ece, 0.02)):
        points = [container.lines[0] for container in axes.containers]
        assert len(points) == 9 * 3
        assert all(point.get_xdata()[0] == pytest.approx(gain) for point in points)
    assert coverage.containers[0].lines[0].get_markerfacecolor() != "white"
    assert aurc.containers[0].lines[0].get_markerfacecolor() == "white"


def test_selector_gain_of_a_study_without_that_comparison_says_so(study, tmp_path: Path, drawn: list[Figure]) -> None:
    table = pl.read_parquet(study.comparisons).filter(first_estimator="maxprob")
    write_table(table, tmp_path / "comparisons.parquet")
    files = tmp_path / "f.pdf", tmp_path / "f.png"
    selector_gain.draw(*files, selector_gain.Settings(RISKS, LEVEL), comparisons_path=tmp_path / "comparisons.parquet")
    assert "compares no Selector" in drawn[0].texts[0].get_text()


def test_groups_show_each_dataset_and_group_and_the_limit(study, tmp_path: Path, drawn: list[Figure]) -> None:
    draw_answer_types(study, list(study.metrics), tmp_path / "f.pdf", tmp_path / "f.png")
    accuracy, _, risk = drawn[0].axes[:3]
    assert [label.get_text() for label in accuracy.get_yticklabels()] == [
        *("scenes: number", "yes/no", "scenes-language: number", "yes/no", "scenes-multimodal: number", "yes/no")
    ]
    first = accuracy.containers[0].lines[0]
    assert list(first.get_xdata()) == pytest.approx([0.75, 0.9, 0.45, 0.6, 0.45, 0.6])
    assert any(line.get_linestyle() == ":" and line.get_xdata()[0] == RISK for line in risk.get_lines())


def test_groups_draw_nothing_as_measured_that_rests_on_a_handful_of_answers(
    study, tmp_path: Path, drawn: list[Figure]
) -> None:
    """Of 700 questions: 10 kept answers are drawn, 9 are a hollow point without a bar, and no risk."""
    table = pl.read_parquet(study.groups["model-a", "bf16"]).filter(dataset=ID_DATASET, grouping="answer_type")
    for group, metric, kept in (
        ("yes/no", "deployed_coverage", 9),
        ("number", "deployed_coverage", 10),
        ("yes/no", "coverage_at_risk", 10),
        ("number", "coverage_at_risk", 9),
    ):
        here = (pl.col("group") == group) & (pl.col("metric") == metric)
        table = table.with_columns(value=pl.when(here).then(kept / 700).otherwise("value"))
    few = table.filter(group="number").with_columns(group=pl.lit("rare"), n=pl.lit(9, dtype=pl.Int64))
    write_table(pl.concat([table, few]), tmp_path / "groups.parquet")
    files = (tmp_path / "f.pdf", tmp_path / "f.png")
    settings = groups.Settings("answer_type", [ID_DATASET], RISK, LEVEL)
    groups.draw(*files, settings, group_paths=[tmp_path / "groups.parquet"])
    accuracy, coverage, risk = drawn[0].axes

    def points(axes, *, hollow: bool) -> list[float]:
        lines = axes.get_lines()[1] if hollow else axes.containers[0].lines[0]
        return [float(value) for value in lines.get_ydata()]

    number, yes_no = 0.0, 1.0
    assert [label.get_text() for label in accuracy.get_yticklabels()] == ["number", "yes/no"]
    assert points(accuracy, hollow=False) == [number, yes_no]
    assert (points(coverage, hollow=False), points(coverage, hollow=True)) == ([yes_no], [number])
    assert (points(risk, hollow=False), points(risk, hollow=True)) == ([number], [])
    assert "hollow: fewer than 10 answers kept" in note_of(drawn[0])
    assert "groups of fewer than 10 questions, which are left out: 1" in note_of(drawn[0])


def test_groups_that_the_data_does_not_have_are_said_to_be_missing(study, tmp_path: Path, drawn: list[Figure]) -> None:
    paths = list(study.groups.values())
    files = (tmp_path / "f.pdf", tmp_path / "f.png")
    groups.draw(*files, groups.Settings("question_kind", ["scenes-language"], RISK, LEVEL), group_paths=paths)
    assert drawn[0].texts[0].get_text() == "No question of scenes-language has a kind of question."


@pytest.mark.parametrize("draw", [draw_mixtures, draw_degradation, draw_efficiency])
def test_a_risk_that_was_not_computed_is_named(study, tmp_path: Path, draw: Callable) -> None:
    with pytest.raises(QuantrustError, match=r"no coverage_at_risk at 0\.07"):
        draw(study, list(study.metrics), tmp_path / "f.pdf", tmp_path / "f.png", risks=[0.05, 0.07])


def test_a_study_without_the_estimators_that_figures_show_is_told_so(study, tmp_path: Path) -> None:
    table = pl.read_parquet(study.metrics["model-a", "bf16"]).filter(estimator="entropy")
    write_table(table, tmp_path / "m.parquet")
    settings = degradation.Settings(ID_DATASET, RISKS, LEVEL)
    with pytest.raises(QuantrustError, match=r"study\.estimators"):
        degradation.draw(tmp_path / "f.pdf", tmp_path / "f.png", settings, metric_paths=[tmp_path / "m.parquet"])
