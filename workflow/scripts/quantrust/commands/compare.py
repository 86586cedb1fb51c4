"""`quantrust compare`: the paired comparison of two scores files."""

import argparse
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from quantrust.artifacts.tables import others_columns, read_others_table
from quantrust.commands.numbers import as_given, chance_note, count, inner_share, number_of_resamples, share
from quantrust.commands.outputs import check_outputs, check_table, same_file, table_writer, write_outputs
from quantrust.commands.plots import add_plot_option, check_plot, reliability_writer
from quantrust.commands.reliability import PROBABILITY, SCORE
from quantrust.commands.tables import (
    TABLE_HELP,
    Answers,
    add_column_options,
    answers_of,
    by_split,
    check_same_questions,
    format_option,
    read_table_option,
)
from quantrust.confidence.catalogue import is_member
from quantrust.errors import QuantrustError
from quantrust.evaluation.calibrators import add_calibrated
from quantrust.evaluation.comparison import corrected, differences, fewest_resamples
from quantrust.evaluation.intervals import LEVEL
from quantrust.evaluation.limits import too_low_to_judge
from quantrust.evaluation.metric_records import METRICS, OF_CORPUS, Key, metric_named
from quantrust.evaluation.metrics import rank
from quantrust.evaluation.mixtures import mixture_table
from quantrust.evaluation.resampling import ImageDraws, Resampler, draw_images
from quantrust.evaluation.results import Estimates, Results, results_of
from quantrust.evaluation.summary import deploy, summarise
from quantrust.evaluation.variant import Setting, check_confidences, draw_setting, whole_test_sets
from quantrust.progress import progress

RISKS = (0.01, 0.05)
RESAMPLES, MOST_UNASKED = 2000, 20_000
"""Taken where none are asked for: the first, or as many up to the second as Holm's correction wants."""
COMPARED = tuple(metric for metric in METRICS if metric.compared)
SHOWN = tuple(metric.name for metric in COMPARED if metric.parameter is None and not metric.of_answers_alone)
"""Metrics without a parameter that are compared, beside the accuracy where the answers differ."""
OF_PROBABILITIES = tuple(name for name in SHOWN if metric_named(name).needs_probability)
"""Compared metrics of confidences that are probabilities."""
KEYS = ("dataset", "split", "question_id", "image_id")
ESTIMATOR = "maxprob"
TABLE_NAME, CONFIDENCE = "table", "confidence"
"""What a table is called where study files have a dataset, and its confidences where they have an estimator."""
TABLE = ("dataset", "metric", "parameter", "a", "b", "difference", "low", "high", "p_value", "p_holm", "n")

DESCRIPTION = """\
Compare two scores files of a study, or two tables of scores, question by
question: two variants of a model, or two estimators of one. Prints the metrics
of both on every whole test set, and the difference A - B with an interval and
p-values from resampling the images, each resample applied to both sides. Both
files must hold the same questions."""

EPILOG = """\
examples:
  what do 3 bits cost?
    quantrust compare data/scores/qwen2-vl-tiny/bf16.parquet \\
        data/scores/qwen2-vl-tiny/hqq-w3g64-full.parquet
  does the Selector beat MaxProb under 2 bits, on the shifted data?
    S=data/scores/qwen2-vl-tiny/hqq-w2g64-full.parquet
    quantrust compare $S $S --estimator selector --estimator-b maxprob \\
        --dataset scenes-language scenes-multimodal
  two tables of anyone's, or two logs of a harness
    quantrust compare A.csv B.csv --id question --plot both.pdf

metrics (in per cent; R is a risk limit):
  accuracy              mean quality of the answers; in VQA their soft accuracy
  aurc                  area under the risk-coverage curve; smaller is better
  auroc                 of telling right answers (accuracy of 0.5 on) from wrong
  ece, brier            calibration errors; only of estimators that are
                        probabilities; smaller is better
  coverage_at_risk R    largest coverage whose risk keeps R, with the threshold
                        read off these very answers
  deployed_coverage R   coverage under the threshold that keeps R on val
  deployed_risk R       risk under that threshold"""


def add_parser(subparsers: Any) -> None:
    """Add the subcommand to the parser of `quantrust`."""
    parser = subparsers.add_parser(
        "compare",
        help="compare two scores files, question by question",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("a", type=Path, metavar="A", help=f"a file of data/scores/<model>/, or {TABLE_HELP}")
    parser.add_argument("b", type=Path, metavar="B", help="another, or the same with another estimator")
    parser.add_argument(
        "--estimator",
        metavar="NAME",
        help="column of confidences, +temperature, +platt or +isotonic for the same after calibration on val "
        "(default: maxprob)",
    )
    parser.add_argument("--estimator-b", metavar="NAME", help="that of B (default: that of A)")
    parser.add_argument(
        "--dataset", nargs="+", metavar="NAME", help="test sets to compare on (default: all in the files)"
    )
    parser.add_argument(
        "--risk",
        type=share,
        nargs="+",
        default=list(RISKS),
        metavar="R",
        help=f"risk limits, from 0 to 1 (default: {' '.join(map(str, RISKS))})",
    )
    parser.add_argument(
        "--resamples",
        type=_at_least_one,
        metavar="B",
        help=f"resamples of the images (default: {RESAMPLES}, or more where Holm's correction for the number of rows "
        "could otherwise find no difference)",
    )
    parser.add_argument("--seed", type=count, default=0, help="seed of the resamples (default: 0)")
    parser.add_argument(
        "--level", type=inner_share, default=LEVEL, metavar="L", help=f"coverage of the intervals (default: {LEVEL})"
    )
    parser.add_argument("--out", type=Path, metavar="OUT", help="write the unrounded table to this .csv or .json file")
    add_plot_option(parser, "risk-coverage curves with bands and reliability diagrams of both, on the first test set,")
    columns = add_column_options(parser)
    columns.add_argument("--confidence-b", metavar="NAME", help="column of B's confidences (default: as of A)")
    columns.add_argument("--format", **format_option())
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> None:
    """Compare, write what was asked for and print a table.

    Raises
    ------
    QuantrustError
        If the input cannot be compared or a file cannot be written. Nothing is then written.
    """
    inputs = [arguments.a, arguments.b]
    if arguments.out is not None:
        check_table(arguments.out, inputs)
    check_outputs([*filter(None, [arguments.out]), *check_plot(arguments.plot)], inputs)
    compared = _of_study(arguments) if _is_of_study(arguments.a) else _of_tables(arguments)
    notes = list(compared.notes)
    chance = None
    if compared.val_images is not None:
        chance = chance_note(dict.fromkeys(arguments.risk), compared.val_images, arguments.level)
    if chance is not None:
        notes.append(f"note: {chance}, and so are the deployed numbers (?)")
    table = _table(compared.sides, compared.metrics, arguments.level)
    writers: dict[Path, Callable[[Path], object]] = {}
    if arguments.out is not None:
        head = {"resamples": compared.resamples, "seed": arguments.seed, "level": arguments.level}
        writers[arguments.out] = table_writer(arguments.out, table, head)
    if arguments.plot is not None:
        writers[arguments.plot] = _plot(compared, arguments)
    write_outputs(writers)
    print(_text(table, compared, notes, arguments))


@dataclass(frozen=True)
class _Compared:
    """Both sides of a comparison.

    Attributes
    ----------
    sides : sequence of sequence of Results
        Of A and B, on the same settings.
    confidences : sequence of str
        The columns of both; those of tables are called `confidence`.
    metrics : sequence of Key
    resamples : int
    head : str
        Where thresholds come from.
    val_images : int or None
        Images that thresholds are set on; None without thresholds.
    notes : sequence of str
    """

    sides: Sequence[Sequence[Results]]
    confidences: Sequence[str]
    metrics: Sequence[Key]
    resamples: int
    head: str
    val_images: int | None
    notes: Sequence[str]


def _is_of_study(path: Path) -> bool:
    """Whether a file is one of a study's scores; not if it cannot be read, which its reader will say."""
    if path.suffix != ".parquet":
        return False
    names = others_columns(path)
    return names is not None and {*KEYS, "quality"} <= {*names}


def _resamples(arguments: argparse.Namespace, rows: int) -> int:
    if arguments.resamples is not None:
        return int(arguments.resamples)
    return min(max(RESAMPLES, fewest_resamples(rows, 1 - arguments.level)), MOST_UNASKED)


def _of_study(arguments: argparse.Namespace) -> _Compared:
    scores = [read_scores(path) for path in (arguments.a, arguments.b)]
    id_dataset = _id_dataset(scores[0], arguments.a)
    datasets = _datasets(scores, id_dataset, arguments)
    _check_same_questions(scores, id_dataset, datasets, arguments)
    estimator = arguments.estimator or arguments.confidence or ESTIMATOR
    estimators = (estimator, arguments.estimator_b or arguments.confidence_b or estimator)
    one_file = same_file(arguments.a, arguments.b)
    metrics = _metrics(list(dict.fromkeys(arguments.risk)), answers_differ=not one_file)
    if not one_file:
        metrics[1:1] = [(name, None) for name in OF_CORPUS if all(name in table.columns for table in scores)]
    resamples = _resamples(arguments, len(datasets) * len(metrics))

    draws: dict[str, ImageDraws] = {}

    def draw(setting: Setting) -> ImageDraws:
        # Both sides answer the same questions, so that the draws of one serve both.
        if setting.dataset not in draws:
            draws[setting.dataset] = draw_setting(setting, resamples, arguments.seed)
        return draws[setting.dataset]

    sides: list[list[Results]] = []
    notes: list[str] = []
    total = 2 * len(datasets) * resamples
    with progress("resampling images", total, "resamples", only_on_terminals=True) as bar:
        for name, path, table, estimator in zip("AB", (arguments.a, arguments.b), scores, estimators, strict=True):
            calibrated = _with_estimator(table, estimator, id_dataset, path)
            outside = calibrated.height - int(calibrated[estimator].is_between(0.0, 1.0).sum())
            notes += _outside_note(outside, f"{name}, {estimator}")
            settings = [setting for setting in _test_sets(calibrated, id_dataset) if setting.dataset in datasets]
            sides.append(
                results_of(
                    Estimates(calibrated, estimator),
                    settings,
                    id_dataset=id_dataset,
                    metrics=metrics,
                    draw=draw,
                    progress=bar.update,
                )
            )
    val = scores[0].filter((pl.col("split") == "val") & (pl.col("dataset") == id_dataset))["image_id"].n_unique()
    head = f"thresholds from the val answers to {id_dataset}"
    return _Compared(sides, estimators, metrics, resamples, head, val, notes)


def _of_tables(arguments: argparse.Namespace) -> _Compared:
    (one, val), (other, other_val) = sides = [_table_side(path, name, arguments) for path, name in _named(arguments)]
    check_same_questions(one, other)
    deployed = val is not None and other_val is not None
    if val is not None and other_val is not None:
        check_same_questions(val, other_val)
    risks = list(dict.fromkeys(arguments.risk))
    metrics = _metrics(risks, answers_differ=not np.array_equal(one.quality, other.quality))
    metrics = [key for key in metrics if deployed or not key[0].startswith("deployed")]
    resamples = _resamples(arguments, len(metrics))
    draws = draw_images(one.images, resamples, arguments.seed)
    results: list[list[Results]] = []
    notes: list[str] = []
    with progress("resampling images", 2 * resamples, "resamples", only_on_terminals=True) as bar:
        for name, (answers, of_val) in zip("AB", sides, strict=True):
            confidences = np.concatenate([part.confidence for part in (answers, of_val) if part is not None])
            outside = int(np.count_nonzero((confidences < 0.0) | (confidences > 1.0)))
            notes += _outside_note(outside, name)
            deployment = None if not deployed or of_val is None else deploy(of_val.ranking, risks, [])
            asked = (risks, (), deployment, outside == 0)
            resampled = Resampler(answers.quality, draws).evaluate(answers.ranking, *asked, bar.update, metrics)
            values = summarise(answers.ranking, *asked)
            frame = pl.DataFrame(
                {
                    "question_id": answers.ids,
                    "image_id": answers.images,
                    "quality": answers.quality,
                    CONFIDENCE: answers.confidence,
                }
            )
            setting = Setting(TABLE_NAME, None, frame)
            results.append([Results.of(setting, [values], {key: resampled[key] for key in metrics})])
    head = f"thresholds from split {arguments.val}" if deployed else "without thresholds, which take a split for them"
    val_images = val.image_count if deployed and val is not None else None
    return _Compared(results, (CONFIDENCE, CONFIDENCE), metrics, resamples, head, val_images, notes)


def _named(arguments: argparse.Namespace) -> list[tuple[Path, str | None]]:
    """Return both tables with the columns of their confidences; raise a `QuantrustError` on options of study files."""
    for name in ("estimator", "estimator_b"):
        if getattr(arguments, name) is not None:
            option = name.replace("_", "-")
            raise QuantrustError(
                f"{arguments.a}: is a table, in which --confidence names the confidences; expected no --{option}"
            )
    confidence_b = arguments.confidence_b or arguments.confidence
    return [(arguments.a, arguments.confidence), (arguments.b, confidence_b)]


def _table_side(path: Path, confidence: str | None, arguments: argparse.Namespace) -> tuple[Answers, Answers | None]:
    """Return a table's answers to report on and those that set thresholds, both in the order of their ids."""
    dataset = arguments.dataset[0] if arguments.dataset else None
    table = read_table_option(path, arguments, arguments.format, confidence=confidence, dataset=dataset)
    rows, val = by_split(table, arguments)
    return answers_of(table, rows.sort("id")), None if val is None else answers_of(table, val.sort("id"))


def _outside_note(outside: int, whose: str) -> list[str]:
    if not outside:
        return []
    return [
        f"note: {outside} confidences of {whose}, are outside [0, 1]: scores that only rank "
        f"answers, without {' and '.join(OF_PROBABILITIES)}"
    ]


def _plot(compared: _Compared, arguments: argparse.Namespace) -> Callable[[Path], None]:
    """Return what draws both sides on the first test set."""
    parts = []
    for name, path, side, confidence in zip(
        "AB", (arguments.a, arguments.b), compared.sides, compared.confidences, strict=True
    ):
        rows = side[0].setting.answers
        quality, confidences = rows["quality"].to_numpy(), rows[confidence].to_numpy()
        ranking = rank(quality, confidences)
        ids, images = rows["question_id"].to_list(), rows["image_id"].to_numpy()
        kind = PROBABILITY if ranking.is_probability else SCORE
        parts.append((f"{name}: {path.name}", Answers(path, ids, quality, confidences, images, ranking), kind))
    return reliability_writer(arguments.plot, parts, arguments.risk, compared.resamples, arguments.seed)


def read_scores(path: Path) -> pl.DataFrame:
    """Read a scores file.

    Raises
    ------
    QuantrustError
        If it is missing, is not a scores file, asks a question twice or holds a quality outside [0, 1].
    """
    try:
        scores = read_others_table(path)
    except FileNotFoundError:
        raise QuantrustError(f"{path}: does not exist; expected a file of data/scores/") from None
    except (OSError, pl.exceptions.PolarsError) as error:
        reason = str(error).splitlines()[0]
        raise QuantrustError(f"{path}: cannot be read as Parquet ({reason}); expected a file of data/scores/") from None
    for name in (*KEYS, "quality"):
        if name not in scores.columns:
            raise QuantrustError(
                f"{path}: has no column {name!r}, only {', '.join(scores.columns)}; expected a file of data/scores/"
            )
    for name in KEYS:
        if scores.schema[name] != pl.String or scores[name].null_count():
            raise QuantrustError(
                f"{path}: {name} holds {scores.schema[name]}, {scores[name].null_count()} of them null; expected texts"
            )
    for name in ("quality", *(name for name in OF_CORPUS if name in scores.columns)):
        if not scores.schema[name].is_numeric():
            raise QuantrustError(f"{path}: {name} holds {scores.schema[name]}; expected numbers")
    impossible = scores.filter(~pl.col("quality").is_between(0.0, 1.0).fill_null(False))
    if not impossible.is_empty():
        row = impossible.row(0, named=True)
        raise QuantrustError(
            f"{path}: question {row['question_id']} of {row['dataset']}: quality is {row['quality']}; "
            "expected a number from 0 to 1"
        )
    repeated = scores.filter(scores.select("dataset", "question_id").is_duplicated())
    if not repeated.is_empty():
        row = repeated.row(0, named=True)
        raise QuantrustError(
            f"{path}: question {row['question_id']} of {row['dataset']} is there twice; expected each question once"
        )
    return scores


def _id_dataset(scores: pl.DataFrame, path: Path) -> str:
    with_val = scores.filter(pl.col("split") == "val")["dataset"].unique().sort().to_list()
    if len(with_val) != 1:
        found = ", ".join(with_val) or "no dataset"
        raise QuantrustError(
            f"{path}: {found} has answers in split val; expected one dataset, the one in distribution, "
            "to set thresholds on"
        )
    return with_val[0]


def _datasets(scores: Sequence[pl.DataFrame], id_dataset: str, arguments: argparse.Namespace) -> list[str]:
    """Return the test sets to compare on, the one in distribution first."""
    tested = scores[0].filter(pl.col("split") == "test")["dataset"].unique(maintain_order=True).to_list()
    for name in arguments.dataset or ():
        if name not in tested:
            raise QuantrustError(
                f"{arguments.a}: no answers to {name!r} in split test; --dataset may be {', '.join(tested)}"
            )
    if arguments.dataset:
        return list(dict.fromkeys(arguments.dataset))
    other = scores[1].filter(pl.col("split") == "test")["dataset"].unique(maintain_order=True).to_list()
    return sorted({*tested, *other}, key=lambda name: (name != id_dataset, name))


def _check_same_questions(
    scores: Sequence[pl.DataFrame], id_dataset: str, datasets: Sequence[str], arguments: argparse.Namespace
) -> None:
    used = ((pl.col("split") == "test") & pl.col("dataset").is_in(datasets)) | (
        (pl.col("split") == "val") & (pl.col("dataset") == id_dataset)
    )
    asked = [table.filter(used).select(KEYS) for table in scores]
    paths = (arguments.a, arguments.b)
    for (one, path), (other, other_path) in (
        ((asked[0], paths[0]), (asked[1], paths[1])),
        ((asked[1], paths[1]), (asked[0], paths[0])),
    ):
        alone = one.join(other, on=KEYS, how="anti")
        if not alone.is_empty():
            row = alone.row(0, named=True)
            raise QuantrustError(
                f"{path}: question {row['question_id']} of {row['dataset']}, image {row['image_id']}, split "
                f"{row['split']}, is not in {other_path}, like {alone.height - 1} others; expected the same questions "
                "in both, or --dataset with the datasets that both answer"
            )


def _metrics(risks: Sequence[float], answers_differ: bool) -> list[Key]:
    metrics: list[Key] = [("accuracy", None)] if answers_differ else []
    metrics += [(name, None) for name in SHOWN]
    at_risk = [metric.name for metric in COMPARED if metric.parameter == "risk"]
    return metrics + [(name, risk) for risk in risks for name in at_risk]


def _with_estimator(scores: pl.DataFrame, estimator: str, id_dataset: str, path: Path) -> pl.DataFrame:
    columns = [
        name for name, kind in scores.schema.items() if kind.is_float() and name != "quality" and not is_member(name)
    ]
    if estimator.split("+")[0] not in columns:
        raise QuantrustError(f"{path}: no estimator {estimator!r}; expected one of {', '.join(columns)}")
    check_confidences(scores, [estimator.split("+")[0]], str(path))
    try:
        return add_calibrated(scores, [estimator], id_dataset)
    except QuantrustError as error:
        raise QuantrustError(f"{path}: {error}") from None


def _test_sets(scores: pl.DataFrame, id_dataset: str) -> list[Setting]:
    """Return the whole test sets as a study names them, so that the same seed draws the same resamples."""
    parts = {str(name): part for (name,), part in scores.group_by("dataset", maintain_order=True)}
    shifts = [name for name, part in parts.items() if name != id_dataset and "test" in part["split"]]
    mixtures = {name: mixture_table(parts[id_dataset], parts[name], [0.0], seed=0) for name in shifts}
    return list(whole_test_sets(scores, mixtures, id_dataset))


def _table(sides: Sequence[Sequence[Results]], metrics: Sequence[Key], level: float) -> pl.DataFrame:
    """Return the columns of `TABLE`, fractions, a row for each dataset and metric."""
    first, second = sides
    table = corrected(differences(first, second, metrics, level))
    for name, side in zip("ab", sides, strict=True):
        values = np.array([results.values[key] for results in side for key in metrics])
        table = table.with_columns(pl.Series(name, values).fill_nan(None))
    return table.select(TABLE)


def _text(table: pl.DataFrame, compared: _Compared, notes: Sequence[str], arguments: argparse.Namespace) -> str:
    resamples, side = compared.resamples, compared.sides[0]
    by_chance: Collection[float] = ()
    if compared.val_images is not None:
        by_chance = too_low_to_judge(arguments.risk, compared.val_images, arguments.level)
    lines = [
        f"A: {arguments.a}, {compared.confidences[0]}",
        f"B: {arguments.b}, {compared.confidences[1]}",
        f"{compared.head}; {resamples} resamples of images, seed {arguments.seed}",
    ]
    alpha = 1 - arguments.level
    head = ("metric", "A %", "B %", "A - B", f"{100 * arguments.level:.4g} % interval", "p", "p (Holm)", "")
    rows: list[tuple[str, ...]] = [head]
    places = []
    for results in side:
        setting = results.setting
        images = setting.answers["image_id"].n_unique()
        places.append((len(rows), f"{setting.dataset}: {setting.answers.height} questions on {images} images"))
        rows += [_row(row, alpha, by_chance) for row in table.filter(pl.col("dataset") == setting.dataset).to_dicts()]
    widths = [max(len(row[column]) for row in rows) for column in range(len(head))]
    shown = ["  ".join(f"{t:{'<' if k == 0 else '>'}{widths[k]}}" for k, t in enumerate(row)).rstrip() for row in rows]
    for number, line in enumerate(shown[1:], start=1):
        lines += [f"\n{title}\n{shown[0]}" for place, title in places if place == number]
        lines.append(line)
    tests = table["p_value"].count()
    lines.append(f"\n* p, corrected by Holm for the {tests} differences above, is at most {alpha:.4g}")
    needed = fewest_resamples(tests, alpha)
    lines += notes
    if resamples < needed:
        lines.append(f"note: fewer than {needed} resamples can find no difference; give --resamples")
    return "\n".join(lines)


def _row(row: dict[str, Any], alpha: float, by_chance: Collection[float]) -> tuple[str, ...]:
    label = row["metric"] if row["parameter"] is None else f"{row['metric']} {as_given(row['parameter'])}"
    values = [_percent(row[name]) for name in ("a", "b")]
    mark = "?" if row["metric"].startswith("deployed") and row["parameter"] in by_chance else ""
    if row["difference"] is None:
        return (label, *values, "undefined", "", "", "", mark)
    between = f"{100 * row['low']:+.2f} .. {100 * row['high']:+.2f}"
    mark = ("*" if row["p_holm"] <= alpha else "") + mark
    return (label, *values, f"{100 * row['difference']:+.2f}", between, _p(row["p_value"]), _p(row["p_holm"]), mark)


def _percent(value: float | None) -> str:
    return "undefined" if value is None else f"{100 * value:.2f}"


def _p(value: float) -> str:
    return f"{value:.4f}" if value >= 0.0001 else f"{value:.1e}"


def _at_least_one(text: str) -> int:
    value = number_of_resamples(text)
    if value == 0:
        raise argparse.ArgumentTypeError("0 resamples give no intervals; expected a whole number from 1 on")
    return value
