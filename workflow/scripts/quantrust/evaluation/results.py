"""What one estimator of one variant achieves on a set of test answers: its metrics, and each on every resample."""

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import polars as pl

from quantrust.errors import QuantrustError
from quantrust.evaluation.answers import val_answers
from quantrust.evaluation.intervals import metric_interval
from quantrust.evaluation.members import Members, values_of
from quantrust.evaluation.metric_records import METRICS, Key
from quantrust.evaluation.metrics import Floats
from quantrust.evaluation.resampling import ImageDraws, Resampler
from quantrust.evaluation.variant import Setting


@dataclass(frozen=True)
class Estimates:
    """One side of a comparison.

    Attributes
    ----------
    scores : polars.DataFrame
        The scores table of a variant.
    estimator : str
        The column of confidences.
    """

    scores: pl.DataFrame
    estimator: str


@dataclass(frozen=True)
class Asked:
    """What a set of test answers is of.

    Attributes
    ----------
    dataset : str
    id_share : float or None
        As of `quantrust.evaluation.variant.Setting`.
    questions : str
        SHA-256 of the questions' ids in their order: two sides with the same digest answer the same questions.
    n : int
        Number of questions.
    images : int
        Number of their images.
    """

    dataset: str
    id_share: float | None
    questions: str
    n: int
    images: int

    @classmethod
    def of(cls, setting: Setting) -> "Asked":
        """Describe a setting."""
        ids = json.dumps(setting.answers["question_id"].to_list()).encode()
        images = setting.answers["image_id"].n_unique()
        return cls(setting.dataset, setting.id_share, hashlib.sha256(ids).hexdigest(), setting.answers.height, images)


@dataclass(frozen=True)
class MetricResults:
    """Metrics of one estimator on one setting.

    Attributes
    ----------
    asked : Asked
    members : sequence of mapping of Key to float
        Metrics on the answers by the confidence of each member of the estimator, at least those asked for; NaN where
        undefined.
    resampled : mapping of Key to ndarray of float64, shape (resamples,)
        Those asked for, on every resample, each of one member in turn.
    """

    asked: Asked
    members: Sequence[Mapping[Key, float]]
    resampled: Mapping[Key, Floats]

    @property
    def values(self) -> Mapping[Key, float]:
        """Metrics of the estimator itself, which is the first member."""
        return self.members[0]

    @property
    def resamples(self) -> int:
        """Number of resamples."""
        return len(next(iter(self.resampled.values())))

    def interval(self, key: Key, level: float) -> tuple[float, float]:
        """Return the interval of a metric; see `quantrust.evaluation.intervals.metric_interval`."""
        own = values_of(self.members, key)
        return metric_interval(key[0], self.values[key], self.resampled[key], level, own)


@dataclass(frozen=True)
class Results(MetricResults):
    """The same, with the answers.

    Attributes
    ----------
    setting : Setting
    """

    setting: Setting

    @classmethod
    def of(cls, setting: Setting, members: Sequence[Mapping[Key, float]], resampled: Mapping[Key, Floats]) -> "Results":
        """Return the results on a setting."""
        return cls(Asked.of(setting), members, resampled, setting)


def results_of(
    estimates: Estimates,
    settings: Iterable[Setting],
    *,
    id_dataset: str,
    metrics: Sequence[Key],
    draw: Callable[[Setting], ImageDraws],
    progress: Callable[[int], None] = lambda resamples: None,
) -> list[Results]:
    """Compute the metrics of an estimator on every setting and on every resample of it.

    Parameters
    ----------
    estimates : Estimates
    settings : iterable of Setting
        With answers from the scores of `estimates`.
    id_dataset : str
        The dataset whose val answers set the thresholds.
    metrics : sequence of Key
        (name, parameter) pairs of the metrics table, thresholds excepted.
    draw : callable
        Returns the resamples of a setting's images; the same for all that is compared.
    progress : callable
        Called with the number of resamples done since the last call.

    Raises
    ------
    QuantrustError
        If there are no val answers in distribution, or a metric is not one that is resampled.
    """
    scores, estimator = estimates.scores, estimates.estimator
    val = val_answers(scores, id_dataset, "comparison", "thresholds are set on")
    risks, costs = _parameters(metrics, "risk"), _parameters(metrics, "cost")
    members = Members.of(scores, val, estimator, risks, costs)
    results = []
    for setting in settings:
        rankings = members.rankings(setting.answers)
        resampler = Resampler(setting.answers["quality"].to_numpy(), draw(setting))
        resampled = members.resample(resampler, rankings, risks, costs, progress, wanted=metrics)
        for key in metrics:
            if key not in resampled:
                raise QuantrustError(
                    f"comparison: no metric {key}; expected those of the metrics table, thresholds excepted"
                )
        values = members.summarise(rankings, risks, costs)
        results.append(Results.of(setting, values, {key: resampled[key] for key in metrics}))
    return results


def _parameters(metrics: Sequence[Key], kind: str) -> list[float]:
    kinds = {metric.name: metric.parameter for metric in METRICS}
    given = [parameter for name, parameter in metrics if parameter is not None and kinds.get(name) == kind]
    return list(dict.fromkeys(given))
