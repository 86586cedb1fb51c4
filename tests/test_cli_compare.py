"""`quantrust compare`: the numbers of the comparison module, and one clear message for unusable input."""

import json
import math
import re
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from quantrust.cli import main
from quantrust.evaluation.calibrators import add_calibrated
from quantrust.evaluation.comparison import compare
from quantrust.evaluation.mixtures import mixture_table
from quantrust.evaluation.results import Estimates
from quantrust.evaluation.variant import EvaluationSettings, evaluate_variant
from settings_given import given

METRICS = ["accuracy", "aurc", "auroc", "ece", "brier", "coverage_at_risk", "deployed_coverage", "deployed_risk"]


def scores(lost: float) -> pl.DataFrame:
    """Answers to the same questions, two an image; a share `lost` of the right ones is wrong instead."""
    parts = []
    for dataset, split, n in (("id", "val", 120), ("id", "test", 240), ("shift", "test", 120)):
        rng = np.random.default_rng([n, len(split)])
        quality = rng.choice([0, 0.6, 1.0], p=[0.3, 0.1, 0.6], size=n)
        quality = np.where(rng.random(n) < lost, 0.0, quality)
        parts.append(
            pl.DataFrame(
                {
                    "dataset": [dataset] * n,
                    "split": [split] * n,
                    "question_id": [f"{split}-{index}" for index in range(n)],
                    "image_id": [f"{split}-{index // 2}" for index in range(n)],
                    "quality": quality,
                    "maxprob": np.clip(0.4 * quality + 0.6 * rng.random(n), 0, 1),
                    "entropy": -rng.random(n),
                }
            )
        )
    return pl.concat(parts)


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    paths = tmp_path / "a.parquet", tmp_path / "b.parquet"
    for path, lost in zip(paths, (0.0, 0.3), strict=True):
        # The order of rows does not matter.
        scores(lost).sample(fraction=1, shuffle=True, seed=int(10 * lost)).write_parquet(path)
    return paths


def run(files: tuple[Path, Path], *options: object) -> int:
    return main(["compare", *map(str, (*files, *options))])


def written(files: tuple[Path, Path], *options: object) -> pl.DataFrame:
    out = files[0].with_name("out.csv")
    assert run(files, "--out", out, "--resamples", 99, *options) == 0
    return pl.read_csv(out)


def test_the_figures_are_those_of_the_comparison_module_and_of_the_metrics_table(files):
    table = written(files, "--risk", 0.2, "--seed", 3, "--level", 0.9)
    one, other = scores(0.0), scores(0.3)
    id_rows, shift = one.filter(pl.col("dataset") == "id"), one.filter(pl.col("dataset") == "shift")
    settings = {"id_dataset": "id", "resamples": 99, "seed": 3, "level": 0.9}
    # The shifted test set is the smaller one: as a whole it is its mixture of share 0, and is resampled like it.
    mixtures = {"shift": mixture_table(id_rows, shift, [0.0], seed=0)}
    metrics = [(name, None) for name in METRICS[:5]] + [(name, 0.2) for name in METRICS[5:]]
    expected = compare(Estimates(one, "maxprob"), Estimates(other, "maxprob"), mixtures, metrics=metrics, **settings)
    for name in ("dataset", "metric", "n"):
        assert table[name].to_list() == expected[name].to_list()
    for name in ("parameter", "difference", "low", "high", "p_value", "p_holm"):
        assert table[name].to_list() == pytest.approx(expected[name].to_list(), nan_ok=True)
    for name, side in (("a", one), ("b", other)):
        study = {"model": "m", "scheme": "s", "estimators": ["maxprob"], "risks": [0.2], "costs": []}
        values, _ = evaluate_variant(side, mixtures, **given(EvaluationSettings, **study, **settings))
        joined = table.join(values, on=["dataset", "metric", "parameter"], how="left", nulls_equal=True)
        assert joined[name].to_list() == pytest.approx(joined["value"].to_list())


def test_what_is_printed_is_what_is_written(files, capsys):
    table = written(files, "--risk", 0.05, "--dataset", "shift")
    printed = capsys.readouterr().out
    assert "are outside [0, 1]" not in printed
    assert "shift: 120 questions on 60 images" in printed
    assert "id: " not in printed
    lines = {line.split()[0]: line for line in printed.splitlines() if line.strip()}
    assert table["metric"].to_list() == METRICS
    for row in table.to_dicts():
        shown = lines[row["metric"]]
        for name in ("a", "b", "difference", "low", "high"):
            sign = "+" if name in ("difference", "low", "high") else ""
            assert f"{100 * row[name]:{sign}.2f}" in shown
        assert shown.endswith("*") == (row["p_holm"] <= 0.05)
    assert lines["accuracy"].split()[3] == f"{100 * (table['a'][0] - table['b'][0]):+.2f}"
    # Holm multiplies the smallest p-value, 2 / 100, by the eight rows.
    assert "fewer than 319 resamples can find no difference" in printed


@pytest.mark.parametrize(
    ("options", "rows", "resamples"),
    # Accuracy and four more, and three a risk limit, on two datasets.
    [
        ([], 22, 2000),
        (["--risk", *(f"0.{place}" for place in range(10, 30))], 130, 5199),
        (["--level", "0.9999"], 22, 20_000),
    ],
)
def test_there_are_as_many_resamples_as_the_correction_for_the_number_of_rows_wants(
    files, capsys, options, rows, resamples
):
    assert run(files, *options) == 0
    printed = capsys.readouterr().out
    assert f"the {rows} differences above" in printed
    assert f"{resamples} resamples of images" in printed
    # No p-value is below 2 / (resamples + 1): at 99.99 % it would take 440,000.
    assert ("can find no difference" in printed) == ("0.9999" in options)


def test_a_risk_limit_is_shown_as_it_was_given(files, capsys):
    assert run(files, "--resamples", 9, "--risk", "0.0123456789") == 0
    assert "deployed_risk 0.0123456789 " in capsys.readouterr().out


def test_two_estimators_of_one_file_do_not_differ_in_accuracy_which_is_left_out(files, capsys):
    table = written((files[0], files[0]), "--estimator", "maxprob+platt", "--estimator-b", "entropy")
    assert "accuracy" not in table["metric"].to_list()
    ece = table.filter((pl.col("metric") == "ece") & (pl.col("dataset") == "id"))
    calibrated = add_calibrated(scores(0.0), ["maxprob+platt"], "id")
    settings = {"model": "m", "scheme": "s", "id_dataset": "id", "risks": [], "costs": [], "resamples": 1, "seed": 0}
    values, _ = evaluate_variant(calibrated, {}, **given(EvaluationSettings, estimators=["maxprob+platt"], **settings))
    assert ece["a"].item() == pytest.approx(values.filter(pl.col("metric") == "ece")["value"].item())
    # The entropy is not a probability and has no calibration error, and the command says so.
    assert "note: 480 confidences of B, entropy, are outside [0, 1]" in capsys.readouterr().out
    assert ece.select("b", "difference", "p_value", "p_holm").row(0) == (None,) * 4


def test_json_holds_the_rows_of_the_csv_and_how_they_were_drawn(files):
    table = written(files)
    out = files[0].with_name("out.json")
    assert run(files, "--out", out, "--resamples", 99) == 0
    document = json.loads(out.read_text())
    assert {name: document[name] for name in ("resamples", "seed", "level")} == {
        "resamples": 99,
        "seed": 0,
        "level": 0.95,
    }
    assert [row["metric"] for row in document["rows"]] == table["metric"].to_list()
    assert [row["difference"] for row in document["rows"]] == pytest.approx(table["difference"].to_list())


def test_the_same_seed_gives_the_same_bytes(files):
    written(files, "--seed", 5)
    first = files[0].with_name("out.csv").read_bytes()
    written(files, "--seed", 5)
    assert files[0].with_name("out.csv").read_bytes() == first
    assert not written(files, "--seed", 6).equals(written(files, "--seed", 5))


def rewritten(**columns):
    return lambda table: table.with_columns(**columns)


test_1 = (pl.col("question_id") == "test-1") & (pl.col("dataset") == "id")

BAD = {
    "no scores file": (lambda table: table.drop("image_id"), r"b\.parquet: has no column 'image_id'"),
    "other questions": (
        rewritten(question_id=pl.when(test_1).then(pl.lit("new")).otherwise("question_id")),
        r"a\.parquet: question test-1 of id, image test-0, split test, is not in .*b\.parquet, like 0 others",
    ),
    "other images": (
        rewritten(image_id=pl.when(test_1).then(pl.lit("new")).otherwise("image_id")),
        r"question test-1 of id, image test-0, split test, is not in .*b\.parquet",
    ),
    "a question more": (
        lambda table: pl.concat([table, table.filter(test_1).with_columns(question_id=pl.lit("more"))]),
        r"b\.parquet: question more of id, image test-0, split test, is not in .*a\.parquet",
    ),
    "a dataset less": (lambda table: table.filter(pl.col("dataset") == "id"), r"of shift, .* like 119 others"),
    "a question twice": (
        lambda table: pl.concat([table, table.filter(test_1)]),
        r"b\.parquet: question test-1 of id is there twice",
    ),
    "no quality": (
        rewritten(quality=pl.when(test_1).then(None).otherwise("quality")),
        r"b\.parquet: question test-1 of id: quality is None",
    ),
    "an impossible quality": (
        rewritten(quality=pl.when(test_1).then(1.5).otherwise("quality")),
        r"b\.parquet: question test-1 of id: quality is 1\.5",
    ),
    "quality in words": (rewritten(quality=pl.lit("good")), r"b\.parquet: quality holds String"),
    "numbers as names": (rewritten(image_id=pl.lit(3)), r"b\.parquet: image_id holds Int32"),
    "no such estimator": (lambda table: table.drop("maxprob"), r"b\.parquet: no estimator 'maxprob'; .* entropy$"),
    "an unusable confidence": (
        rewritten(maxprob=pl.when(test_1).then(math.nan).otherwise("maxprob")),
        r"b\.parquet: question test-1 of id: maxprob is nan",
    ),
}


@pytest.mark.parametrize("fault", BAD)
def test_input_that_cannot_be_compared_gets_one_message_and_writes_nothing(fault, files, capsys):
    change, message = BAD[fault]
    change(scores(0.3)).write_parquet(files[1])
    out = files[0].with_name("out.csv")
    assert run(files, "--out", out, "--resamples", 9) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("error: ")
    assert printed.err.count("\n") == 1
    assert re.search(message, printed.err.strip())
    assert not out.exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--estimator", "selector"], "a.parquet: no estimator 'selector'; expected one of maxprob, entropy"),
        (["--estimator-b", "entropy+platt"], "b.parquet: entropy+platt: entropy is not a probability"),
        (["--estimator", "maxprob+magic"], "a.parquet: maxprob+magic: unknown calibration 'magic'"),
        (["--dataset", "vqav2"], "a.parquet: no answers to 'vqav2' in split test; --dataset may be id, shift"),
        (["--out", "table.txt"], "table.txt: expected --out with a name that ends in .csv or .json"),
    ],
)
def test_an_option_that_does_not_fit_the_files_is_named(options, message, files, capsys):
    scores(0.0).write_parquet(files[0])
    assert run(files, "--resamples", 9, *options) == 2
    assert message in capsys.readouterr().err


def test_a_member_is_no_estimator_to_compare(files, capsys):
    for path, noise in zip(files, (0.0, 0.3), strict=True):
        members = [pl.col("maxprob").alias(name) for name in ("selector", "selector@2")]
        scores(noise).with_columns(members).write_parquet(path)
    assert run(files, "--resamples", 9, "--estimator", "selector") == 0
    capsys.readouterr()
    assert run(files, "--resamples", 9, "--estimator", "selector@2") == 2
    assert re.search(r"no estimator 'selector@2'; expected one of maxprob, entropy, selector$", capsys.readouterr().err)


def test_files_that_are_missing_or_not_parquet_are_named(files, capsys):
    missing = files[0].with_name("missing.parquet")
    assert run((files[0], missing)) == 2
    assert f"{missing}: does not exist" in capsys.readouterr().err
    files[1].write_text("no Parquet")
    assert run(files) == 2
    assert f"{files[1]}: cannot be read as Parquet" in capsys.readouterr().err


def test_a_file_without_val_answers_has_no_thresholds(files, capsys):
    scores(0.0).filter(pl.col("split") == "test").write_parquet(files[0])
    assert run(files) == 2
    assert "a.parquet: no dataset has answers in split val" in capsys.readouterr().err


def test_an_input_is_not_written_over(files, tmp_path, capsys):
    out = tmp_path / "scores.csv"
    out.symlink_to(files[1])
    before = files[1].read_bytes()
    assert run(files, "--out", out) == 2
    assert "is also read" in capsys.readouterr().err
    assert files[1].read_bytes() == before


@pytest.mark.parametrize(
    "options",
    [
        ["--resamples", "0"],
        ["--resamples", "1000000000"],
        ["--level", "1"],
        ["--level", "95"],
        ["--risk", "5"],
        ["--seed", "-1"],
    ],
)
def test_impossible_numbers_are_refused(options, files, capsys):
    with pytest.raises(SystemExit) as raised:
        run(files, *options)
    assert raised.value.code == 2
    assert options[0] in capsys.readouterr().err
