"""Learned estimators as one of several networks: the network that a training yields is chance, and drawn like images.

An estimator such as `selector` is the first of some networks that were trained alike but for their seeds, its members.
Its results are those of the first. Their intervals say how far they would move with other images *and* with another
training: every resample of images is one of one member as well, in turn, so that all members have equally many. Two
sides of a comparison thereby see the same images and, where they have equally many, the member of the same number. This
costs no more than resampling one network, but for ranking the answers by each. Other estimators have one member.
"""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from quantrust.confidence.catalogue import is_probability, member_columns
from quantrust.errors import QuantrustError
from quantrust.evaluation.answers import corpus_of
from quantrust.evaluation.metric_records import Deployment, Key
from quantrust.evaluation.metrics import Floats, Ranking, rank
from quantrust.evaluation.resampling import Resampler
from quantrust.evaluation.summary import deploy, summarise


def with_members(columns: Collection[str], estimators: Iterable[str]) -> list[str]:
    """Return the columns of all members of some estimators."""
    return [name for estimator in estimators for name in member_columns(columns, estimator)]


def are_probabilities(scores: pl.DataFrame, estimator: str) -> bool:
    """Return whether an estimator's confidences are probabilities.

    They are where no confidence of any member lies outside [0, 1], unless the estimator says that they are none: a
    margin of scores may lie in there by chance.
    """
    columns = member_columns(scores.columns, estimator)
    return is_probability(estimator) and all(scores[column].is_between(0.0, 1.0).all() for column in columns)


def in_turn(parts: Sequence[Floats]) -> Floats:
    """Merge values on the resamples of each member into one order: resample r is that of member r mod M.

    Parameters
    ----------
    parts : sequence of ndarray, shape (resamples of the member, ...)

    Examples
    --------
    >>> in_turn([np.array([1.0, 3.0, 5.0]), np.array([2.0, 4.0])]).tolist()
    [1.0, 2.0, 3.0, 4.0, 5.0]
    """
    values = np.empty((sum(map(len, parts)), *parts[0].shape[1:]))
    for member, part in enumerate(parts):
        values[member :: len(parts)] = part
    return values


@dataclass(frozen=True)
class Members:
    """The members of an estimator, each with its own thresholds.

    Attributes
    ----------
    columns : list of str
        Of the scores table; the first is the estimator's own.
    deployments : list of Deployment
        The thresholds that each member has from the ID val answers.
    is_probability : bool
        As `are_probabilities` says.
    """

    columns: list[str]
    deployments: list[Deployment]
    is_probability: bool

    @classmethod
    def of(
        cls, scores: pl.DataFrame, val: pl.DataFrame, estimator: str, risks: Sequence[float], costs: Sequence[float]
    ) -> "Members":
        """Find the members of an estimator in the scores of a variant, and set their thresholds.

        Parameters
        ----------
        scores : polars.DataFrame
            The scores table of a variant.
        val : polars.DataFrame
            Its ID val answers.
        estimator : str
            A column.
        risks, costs : sequence of float
            Those that thresholds are set for.
        """
        columns = member_columns(scores.columns, estimator)
        return cls(
            columns,
            [deploy(rank(val["quality"], val[column]), risks, costs) for column in columns],
            are_probabilities(scores, estimator),
        )

    def rankings(self, answers: pl.DataFrame) -> list[Ranking]:
        """Rank answers by the confidence of each member."""
        return [rank(answers["quality"], answers[column], corpus_of(answers)) for column in self.columns]

    def summarise(
        self, rankings: Sequence[Ranking], risks: Sequence[float], costs: Sequence[float]
    ) -> list[dict[Key, float]]:
        """Compute the metrics of `quantrust.evaluation.summary.summarise` of each member."""
        return [
            summarise(ranking, risks, costs, deployment, self.is_probability)
            for ranking, deployment in zip(rankings, self.deployments, strict=True)
        ]

    def check(self, resamples: int) -> None:
        """Raise a `QuantrustError` if some member would have no resample."""
        if resamples < len(self.columns):
            raise QuantrustError(
                f"{resamples} resamples of images are too few for {self.columns[0]}, which has {len(self.columns)} "
                f"members in turn; expected at least {len(self.columns)}"
            )

    def resample(
        self,
        resampler: Resampler,
        rankings: Sequence[Ranking],
        risks: Sequence[float],
        costs: Sequence[float],
        progress: Callable[[int], None] = lambda resamples: None,
        wanted: Collection[Key] | None = None,
    ) -> dict[Key, Floats]:
        """Compute the metrics of `Resampler.evaluate` on every resample, each of one member.

        Returns
        -------
        dict
            For each `Key` an array of shape (resamples,), resample r that of member r mod M.

        Raises
        ------
        QuantrustError
            If there are more members than resamples.
        """
        self.check(len(resampler.draws.counts))
        parts = [
            resampler.part(member, len(rankings)).evaluate(
                ranking, risks, costs, deployment, self.is_probability, progress, wanted
            )
            for member, (ranking, deployment) in enumerate(zip(rankings, self.deployments, strict=True))
        ]
        return {key: in_turn([part[key] for part in parts]) for key in parts[0]}


def values_of(summaries: Sequence[Mapping[Key, float]], key: Key) -> Floats:
    """Return a metric of each member, shape (members,)."""
    return np.array([values[key] for values in summaries])
