"""The metrics of one variant on every resample of the images of whole test sets, in a file.

All variants of a study are resampled alike, so that the comparison of variants and the judgement of schemes read what
both need. A further scheme is then the only one that is resampled, and the variants are resampled side by side.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from quantrust.artifacts.tables import read_table, write_table
from quantrust.evaluation.calibrators import add_calibrated
from quantrust.evaluation.members import values_of
from quantrust.evaluation.metric_records import Key
from quantrust.evaluation.results import Asked, Estimates, MetricResults, results_of
from quantrust.evaluation.variant import check_confidences, draw_setting, whole_test_sets

SCHEMA = pl.Schema(
    {
        "estimator": pl.String(),
        "dataset": pl.String(),
        "id_share": pl.Float64(),
        "questions": pl.String(),
        "n": pl.Int64(),
        "images": pl.Int64(),
        "metric": pl.String(),
        "parameter": pl.Float64(),
        "members": pl.List(pl.Float64),
        "resampled": pl.List(pl.Float64),
    }
)


@dataclass(frozen=True)
class ResamplingSettings:
    """What a variant is resampled with.

    Attributes
    ----------
    id_dataset : str
    estimators : sequence of str
        Columns of the scores, or calibrated ones, which are made on the way.
    metrics : sequence of Key
        (name, parameter) pairs of the metrics table, thresholds excepted.
    resamples : int
        Bootstrap resamples of images.
    seed : int
        The same seed gives all variants the same resamples.
    """

    id_dataset: str
    estimators: Sequence[str]
    metrics: Sequence[Key]
    resamples: int
    seed: int


def write_resampled(
    scores_path: str | Path,
    mixture_paths: Mapping[str, str | Path],
    out_path: str | Path,
    *,
    model: str,
    scheme: str,
    settings: ResamplingSettings,
) -> None:
    """Compute the metrics of a variant on every resample of its whole test sets and write them.

    Thresholds are those that the variant's ID val answers give; they stay fixed while the test images are resampled.

    Parameters
    ----------
    scores_path : str or Path
        The Parquet file of scores.
    mixture_paths : mapping of str to str or Path
        For each shifted dataset the Parquet file of its mixtures.
    out_path : str or Path
        Parquet file to write, with the columns of `SCHEMA`: a row for each estimator, test set and metric. ``members``
        holds the metric on the answers by each member of the estimator, ``resampled`` the metric on each resample, of
        one member in turn; NaN where undefined.
    model, scheme : str
        Names for messages.
    settings : ResamplingSettings

    Raises
    ------
    QuantrustError
        If an estimator has no column or an unusable value, there are no ID val answers, or a metric is not one that is
        resampled.
    """
    mixtures = {dataset: read_table(path) for dataset, path in mixture_paths.items()}
    scores = add_calibrated(read_table(scores_path), settings.estimators, settings.id_dataset)
    check_confidences(scores, settings.estimators, f"{model}/{scheme}")
    test_sets = list(whole_test_sets(scores, mixtures, settings.id_dataset)) if settings.estimators else []
    draws = {setting.dataset: draw_setting(setting, settings.resamples, settings.seed) for setting in test_sets}
    rows: list[tuple[object, ...]] = []
    for estimator in settings.estimators:
        for results in results_of(
            Estimates(scores, estimator),
            test_sets,
            id_dataset=settings.id_dataset,
            metrics=settings.metrics,
            draw=lambda setting: draws[setting.dataset],
        ):
            asked = results.asked
            head = (estimator, asked.dataset, asked.id_share, asked.questions, asked.n, asked.images)
            rows += [
                (*head, *key, values_of(results.members, key).tolist(), results.resampled[key])
                for key in settings.metrics
            ]
    write_table(pl.DataFrame(rows, schema=SCHEMA, orient="row"), out_path)


def read_resampled(path: str | Path) -> dict[str, list[MetricResults]]:
    """Read what `write_resampled` wrote: for each estimator its results on each test set, in their order.

    Raises
    ------
    QuantrustError
        If the file is missing, cannot be read or is damaged.
    """
    table = read_table(path)
    found: dict[str, list[MetricResults]] = {}
    for (estimator, _), part in table.group_by("estimator", "dataset", maintain_order=True):
        first = part.row(0, named=True)
        asked = Asked(**{name: first[name] for name in ("dataset", "id_share", "questions", "n", "images")})
        keys: list[Key] = list(part.select("metric", "parameter").iter_rows())
        own = part["members"].to_list()
        members = [dict(zip(keys, values, strict=True)) for values in zip(*own, strict=True)]
        resampled = {key: np.asarray(values) for key, values in zip(keys, part["resampled"], strict=True)}
        found.setdefault(str(estimator), []).append(MetricResults(asked, members, resampled))
    return found
