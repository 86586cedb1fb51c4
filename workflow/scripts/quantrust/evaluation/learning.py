"""The gain of learned estimators over MaxProb by the number of labels that they are trained on."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from quantrust.artifacts.tables import read_table, write_table
from quantrust.evaluation.calibrators import add_calibrated
from quantrust.evaluation.comparison import SCHEMA as DIFFERENCES
from quantrust.evaluation.comparison import differences
from quantrust.evaluation.intervals import LEVEL
from quantrust.evaluation.members import values_of
from quantrust.evaluation.metric_records import Key
from quantrust.evaluation.resampling import ImageDraws
from quantrust.evaluation.results import Estimates, Results, results_of
from quantrust.evaluation.variant import Setting, check_confidences, draw_setting, whole_test_sets

REFERENCE = "maxprob"

SCHEMA = pl.Schema(
    {
        "model": pl.String(),
        "scheme": pl.String(),
        "estimator": pl.String(),
        "labels": pl.Int64(),
        **{name: kind for name, kind in DIFFERENCES.items() if name != "p_holm"},
        "reference": pl.Float64(),
        "members": pl.List(pl.Float64),
    }
)


@dataclass(frozen=True)
class LearningSettings:
    """What Selectors on parts of dev are compared with MaxProb by.

    Attributes
    ----------
    estimators : sequence of str
        Learned ones.
    id_dataset : str
    metrics : sequence of Key
        As in `compare`.
    resamples : int
        Bootstrap resamples of images.
    seed : int
    level : float in (0, 1)
        Nominal coverage of the intervals.
    """

    estimators: Sequence[str]
    id_dataset: str
    metrics: Sequence[Key]
    resamples: int
    seed: int
    level: float = LEVEL


def write_learning_curve(
    scores_paths: Mapping[int, str | Path],
    mixture_paths: Mapping[str, str | Path],
    out_path: str | Path,
    *,
    model: str,
    scheme: str,
    settings: LearningSettings,
) -> None:
    """Compare a variant's learned estimators with MaxProb on whole test sets, for each number of labels.

    Parameters
    ----------
    scores_paths : mapping of int to str or Path
        By the number of dev questions the Parquet file of the scores of Selectors that were trained on so many; each
        also holds MaxProb, the same in all.
    mixture_paths : mapping of str to str or Path
        For each shifted dataset the Parquet file of its mixtures.
    out_path : str or Path
        Parquet file to write, with the columns of `SCHEMA`: a row for each estimator, number of labels, test set and
        metric. ``difference`` is the estimator's value minus MaxProb's, which is ``reference``; its interval draws a
        member with every resample of images (`quantrust.evaluation.members`). ``members`` are the differences of all
        members, the estimator's own first.
    model, scheme : str
        Names for the table.
    settings : LearningSettings

    Raises
    ------
    QuantrustError
        As `quantrust.evaluation.comparison.compare`.
    """
    mixtures = {dataset: read_table(path) for dataset, path in mixture_paths.items()}
    draws: dict[str, ImageDraws] = {}

    def draw(setting: Setting) -> ImageDraws:
        # All scores are of the same questions.
        if setting.dataset not in draws:
            draws[setting.dataset] = draw_setting(setting, settings.resamples, settings.seed)
        return draws[setting.dataset]

    def results(scores: pl.DataFrame, estimator: str) -> list[Results]:
        test_sets = whole_test_sets(scores, mixtures, settings.id_dataset)
        return results_of(
            Estimates(scores, estimator), test_sets, id_dataset=settings.id_dataset, metrics=settings.metrics, draw=draw
        )

    tables = [pl.DataFrame(schema=SCHEMA)]
    base: list[Results] | None = None
    for labels, path in scores_paths.items():
        scores = add_calibrated(read_table(path), settings.estimators, settings.id_dataset)
        check_confidences(scores, [REFERENCE, *settings.estimators], f"{model}/{scheme} on {labels} labels")
        base = results(scores, REFERENCE) if base is None else base
        for estimator in settings.estimators:
            own = results(scores, estimator)
            table = differences(own, base, settings.metrics, settings.level).with_columns(
                pl.Series("reference", [of.values[key] for of in base for key in settings.metrics]).fill_nan(None),
                pl.Series(
                    "members",
                    [
                        (values_of(one.members, key) - of.values[key]).tolist()
                        for one, of in zip(own, base, strict=True)
                        for key in settings.metrics
                    ],
                    dtype=pl.List(pl.Float64),
                ),
                model=pl.lit(model),
                scheme=pl.lit(scheme),
                estimator=pl.lit(estimator),
                labels=pl.lit(labels, pl.Int64),
            )
            tables.append(table.select(SCHEMA.names()))
    write_table(pl.concat(tables), out_path)
