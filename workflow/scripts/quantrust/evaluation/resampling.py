"""Bootstrap over images: every metric on many resamples of one ranking, without sorting again.

A resample of images with replacement is a vector of multiplicities. Answers stay in the order of the one ranking and
count as often as their image was drawn, so that each metric becomes a few weighted sums along that order.
"""

import math
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from quantrust.evaluation.metric_records import (
    TENTHS,
    At,
    Deployment,
    Key,
    Metric,
    N,
    OfOrder,
    OfSums,
    Term,
    asked_of,
)
from quantrust.evaluation.metrics import Floats, Ranking, rank
from quantrust.evaluation.resampled_metrics import Blocks, Counts, harmonic_sums

CHUNK = 1 << 16
"""Entries of one (resamples, answers) matrix worked on at a time: 512 KiB at most, so that some stay near the core."""

SUMMED = 1 << 18
"""Entries of one (resamples, images) matrix that are multiplied at a time. Sums that are no whole numbers depend on it
in their last bits.
"""


@dataclass(frozen=True)
class ImageDraws:
    """Resamples of the images that answers belong to.

    Attributes
    ----------
    image : ndarray of int64, shape (n,)
        The image of each answer, as an index.
    counts : ndarray of an integer dtype, shape (resamples, images)
        How often each image was drawn; each row sums to the number of images.
    """

    image: NDArray[np.int64]
    counts: NDArray[np.integer[Any]]

    @cached_property
    def most_answers(self) -> int:
        """The most answers of any resample."""
        per_image = np.bincount(self.image, minlength=self.counts.shape[1]).astype(np.float64)
        return int(self.sums(per_image[:, None]).max())

    def part(self, first: int, step: int) -> "ImageDraws":
        """Return every `step`-th resample from number `first` on."""
        return ImageDraws(self.image, self.counts[first::step])

    def sums(self, by_image: NDArray[Any]) -> Floats:
        """Sum values of each image over every resample, an image as often as it was drawn.

        Parameters
        ----------
        by_image : ndarray, shape (images, columns)

        Returns
        -------
        ndarray of float64, shape (resamples, columns)
        """
        rows = max(1, SUMMED // self.counts.shape[1])
        starts = range(0, len(self.counts), rows)
        values = by_image.astype(np.float32 if self._float32_is_exact(by_image) else np.float64)
        parts = [self.counts[start : start + rows].astype(values.dtype) @ values for start in starts]
        return np.concatenate(parts).astype(np.float64, copy=False)

    def _float32_is_exact(self, by_image: NDArray[Any]) -> bool:
        """Return whether every sum, and every sum of some of its terms, is a whole number below 2^24."""
        largest = np.abs(by_image).max(initial=0) * self.counts.shape[1]
        return bool(largest < 1 << 24 and (by_image == np.rint(by_image)).all())


def draw_images(image_ids: ArrayLike, resamples: int, seed: int | Sequence[int]) -> ImageDraws:
    """Draw images with replacement, as many as there are, `resamples` times.

    Parameters
    ----------
    image_ids : array_like, shape (n,)
        The image of each answer; any sortable type.
    resamples : int
        Number of resamples.
    seed : int or sequence of int
        The same seed and the same set of images give the same draws, which makes comparisons paired.

    Returns
    -------
    ImageDraws
    """
    names, image = np.unique(np.asarray(image_ids), return_inverse=True)
    rng = np.random.default_rng(seed)
    # no image can be drawn more often than there are images
    counts = np.empty((resamples, names.size), dtype=np.uint16 if names.size < 1 << 16 else np.int32)
    # as many rows as this are drawn at a time: the same numbers as row by row, in half the time
    rows = max(1, CHUNK // max(1, names.size))
    for start in range(0, resamples, rows):
        block = counts[start : start + rows]
        drawn = rng.integers(names.size, size=block.shape)
        drawn += names.size * np.arange(len(block))[:, None]
        block[:] = np.bincount(drawn.ravel(), minlength=block.size).reshape(block.shape)
    return ImageDraws(image=image, counts=counts)


class Resampler:
    """Metrics on resamples of one set of answers, for any number of estimators.

    Parameters
    ----------
    quality : ndarray of float64, shape (n,)
        Qualities in [0, 1].
    draws : ImageDraws
        Resamples of their images.
    """

    def __init__(self, quality: Floats, draws: ImageDraws):
        self.quality = np.asarray(quality, dtype=np.float64)
        self.draws = draws
        self._whole: tuple[Resampler, slice] | None = None

    def part(self, first: int, step: int) -> "Resampler":
        """Return the same on every `step`-th resample from number `first` on; it computes nothing again.

        Parameters
        ----------
        first : int
            From 0 on.
        step : int
            From 1 on.
        """
        if step == 1:
            return self
        chosen = slice(first, None, step)
        part = Resampler(self.quality, self.draws.part(first, step))
        part._whole = self, chosen
        return part

    @cached_property
    def ideal_aurc(self) -> Floats:
        """AURC of the ideal order on each resample, shape (resamples,)."""
        if self._whole is not None:
            whole, chosen = self._whole
            return whole.ideal_aurc[chosen]
        ideal = rank(self.quality, self.quality)
        harmonic = harmonic_sums(self.draws.most_answers)
        parts = [Blocks(ideal, weights, harmonic).aurc for weights in self._weights(ideal)]
        return np.concatenate(parts)

    def evaluate(
        self,
        ranking: Ranking,
        risks: Sequence[float],
        costs: Sequence[float],
        deployment: Deployment | None,
        is_probability: bool,
        progress: Callable[[int], None] = lambda resamples: None,
        wanted: Collection[Key] | None = None,
    ) -> dict[Key, Floats]:
        """Compute the metrics of `quantrust.evaluation.summary.summarise` on every resample.

        Thresholds from val stay fixed; thresholds themselves have no value here.

        Parameters
        ----------
        ranking : Ranking
            Of these answers by an estimator's confidence.
        risks, costs, deployment, is_probability
            As in `summarise`.
        progress : callable
            Called with the number of resamples done since the last call.
        wanted : collection of Key, optional
            Of the metrics that depend on the order of answers, which take most of the time, only these; by default all.

        Returns
        -------
        dict
            For each `Key` an array of shape (resamples,); NaN where undefined on a resample.
        """
        measured = list(asked_of(risks, costs, deployment, ranking.corpus))
        asked = [one for one in measured if is_probability or not one[0].needs_probability]
        values = self._from_sums(ranking, asked)
        harmonic = harmonic_sums(self.draws.most_answers)
        by_order = [
            (key, metric.resampled.value, at)
            for metric, key, at in asked
            if isinstance(metric.resampled, OfOrder) and (wanted is None or key in wanted)
        ]
        parts: dict[Key, list[Floats]] = {key: [] for key, _, _ in by_order}
        first = 0
        for weights in self._weights(ranking):
            here = slice(first, first + len(weights))
            blocks = Blocks(ranking, weights, harmonic, partial(self.ideal_aurc.__getitem__, here))
            for key, value, at in by_order:
                parts[key].append(value(blocks, at))
            progress(len(weights))
            first = here.stop
        values |= {key: np.concatenate(found) for key, found in parts.items()}
        undefined = np.full(len(self.draws.counts), math.nan)
        values |= {
            key: undefined
            for metric, key, _ in measured
            if metric.needs_probability and not is_probability and metric.resampled is not None
        }
        return values

    def risks_at(self, ranking: Ranking, coverage: Floats) -> Floats:
        """Return the risk-coverage curve of every resample at given coverages.

        Parameters
        ----------
        ranking : Ranking
        coverage : ndarray of float64, shape (points,)
            In (0, 1].

        Returns
        -------
        ndarray of float64, shape (resamples, points)
        """
        parts = []
        harmonic = harmonic_sums(self.draws.most_answers)
        for weights in self._weights(ranking):
            blocks = Blocks(ranking, weights, harmonic)
            counts = np.maximum(coverage * blocks.total[:, None], 1.0)
            sums = [np.interp(*row) for row in zip(counts, blocks.ends, blocks.risk_tenth_sums, strict=True)]
            parts.append(np.stack(sums) / (10.0 * counts))
        return np.concatenate(parts)

    def _weights(self, ranking: Ranking) -> Iterator[Counts]:
        image = self.draws.image[ranking.order]
        rows = max(1, CHUNK // ranking.n)
        for start in range(0, len(self.draws.counts), rows):
            yield np.take(self.draws.counts[start : start + rows].astype(np.int32), image, axis=1)

    def _from_sums(self, ranking: Ranking, asked: Iterable[tuple[Metric, Key, At]]) -> dict[Key, Floats]:
        """Compute the metrics that are made of sums over answers: one matrix product over images."""
        forms = [
            (key, metric, metric.resampled, at) for metric, key, at in asked if isinstance(metric.resampled, OfSums)
        ]
        columns: dict[Term, Floats] = {N: np.ones(ranking.n), TENTHS: 10.0 * ranking.quality}
        # Terms that are not whole numbers come last, so that rounding does not depend on how many metrics there are.
        for _, _, form, at in sorted(reversed(forms), key=lambda one: one[1].needs_probability or one[1].of_corpus):
            columns |= form.terms(ranking, at)

        image = self.draws.image[ranking.order]
        images = self.draws.counts.shape[1]
        by_image = np.stack([np.bincount(image, column, minlength=images) for column in columns.values()], axis=1)
        sums = dict(zip(columns, self.draws.sums(by_image).T, strict=True))
        return {key: form.value(sums, at) for key, _, form, at in forms}
