"""Which part of a model matters: shares of the variance of a metric over a grid of schemes.

Every factor is a part of the model, its levels are bits, and a cell of the grid is a scheme. Shares are those of a
functional analysis of variance (`quantrust.evaluation.functional_anova`), each beside the standard deviation of the
metric over the grid: a share of nothing is nothing. They are computed over all levels and over strata, the levels from
some number of bits on, because one level that destroys a part decides every share.

From scores of single answers the shares have intervals. Images are divided in halves, and effects of one half are
multiplied with those of the other, in the place of squares, which noise would make too large.
"""

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import ArrayLike

from quantrust.errors import QuantrustError
from quantrust.evaluation.functional_anova import products, shapley, terms
from quantrust.evaluation.intervals import LEVEL, interval
from quantrust.evaluation.metric_records import Deployment, Key
from quantrust.evaluation.metrics import Floats, Ranking
from quantrust.evaluation.resampling import ImageDraws, Resampler

HALVINGS = 100
"""How often images are divided in halves."""
RESAMPLES = 10
"""Resamples of the images of both halves, for each division."""


@dataclass(frozen=True)
class Grid:
    """A metric of all schemes of a full factorial.

    Attributes
    ----------
    factors : sequence of str
        Parts of the model, k of them.
    levels : sequence of sequence of float
        For each factor its bits, increasing; the most mean that the part is left as it is.
    values : ndarray of float64, shape (..., levels of the first factor, ...)
        Without leading axes the metric itself. With them the metric on halves of the images, see `halved_images`:
        (halvings, 1 + resamples, 2, ...).
    """

    factors: Sequence[str]
    levels: Sequence[Sequence[float]]
    values: Floats

    def stratum(self, least: float) -> "Grid":
        """Return the cells in which every factor has at least so many bits."""
        kept = [np.flatnonzero(np.asarray(levels) >= least) for levels in self.levels]
        values = self.values
        for axis, chosen in enumerate(kept):
            values = np.take(values, chosen, axis=axis - len(kept))
        return Grid(
            self.factors,
            [[levels[int(i)] for i in chosen] for levels, chosen in zip(self.levels, kept, strict=True)],
            values,
        )


@dataclass(frozen=True)
class Stratum:
    """Shares of the variance over the schemes that keep some number of bits.

    All mappings are by factor; shares are fractions of the variance, NaN where nothing varies.

    Attributes
    ----------
    least_bits : float
        No factor has fewer.
    schemes : int
    equal_levels : bool
        Whether all factors have the same levels. Where they do not, a share compares a part at bits that another part
        does not have.
    sd : float
        Standard deviation of the metric over the schemes, in the metric's unit.
    shapley, main : mapping of str to float
        Shapley share; share of the main effect alone.
    interaction : float
        Share of all interactions together.
    terms : mapping of tuple of str to float
        Share of every main effect and interaction.
    low, high : mapping of str to float, or None
        Interval of the Shapley shares; None without answers to resample.
    determined : mapping of str to bool, or None
        Whether the lower bound of a part's variance is above 0.
    sd_interval : (float, float), or None
        Interval of `sd`.
    """

    least_bits: float
    schemes: int
    equal_levels: bool
    sd: float
    shapley: Mapping[str, float]
    main: Mapping[str, float]
    interaction: float
    terms: Mapping[tuple[str, ...], float]
    low: Mapping[str, float] | None
    high: Mapping[str, float] | None
    determined: Mapping[str, bool] | None
    sd_interval: tuple[float, float] | None = None


def check_levels(factors: Sequence[str], levels: Sequence[Sequence[float]], where: str) -> None:
    """Refuse factors whose importance cannot be told.

    Parameters
    ----------
    factors : sequence of str
    levels : sequence of sequence of float
        Their levels.
    where : str
        Where they are from, for messages.

    Raises
    ------
    QuantrustError
        If there are fewer than two factors, one of them has a single level, or they have no level in common.
    """
    if len(factors) < 2:
        raise QuantrustError(f"{where}: one factor, {factors[0]}; expected at least two to divide the variance among")
    for factor, own in zip(factors, levels, strict=True):
        if len(own) < 2:
            raise QuantrustError(
                f"{where}: {factor} has the level {own[0]:g} alone; expected at least two, or a factor to be left out"
            )
    if not set.intersection(*(set(own) for own in levels)):
        given = "; ".join(f"{factor}: {_listed(own)}" for factor, own in zip(factors, levels, strict=True))
        raise QuantrustError(
            f"{where}: the factors have no level in common ({given}); expected the same bits for every part"
        )


def full_grid(factors: Sequence[str], cells: Mapping[tuple[float, ...], ArrayLike], where: str) -> Grid:
    """Return the grid of cells.

    Parameters
    ----------
    factors : sequence of str, length k
    cells : mapping of tuple of float, length k, to array_like
        The metric of each scheme, by its levels; all of one shape.
    where : str
        Where they are from, for messages.

    Raises
    ------
    QuantrustError
        If cells are missing, or the factors cannot be compared (`check_levels`).
    """
    levels = [sorted({cell[factor] for cell in cells}) for factor in range(len(factors))]
    check_levels(factors, levels, where)
    missing = [cell for cell in product(*levels) if cell not in cells]
    if missing:
        named = ", ".join(f"{factor}={level:g}" for factor, level in zip(factors, missing[0], strict=True))
        raise QuantrustError(
            f"{where}: {len(missing)} of the {len(cells) + len(missing)} cells of the grid are missing, the first with "
            f"{named}; expected a full factorial: add the rows, or select levels for which all of them are there"
        )
    values = np.stack([np.asarray(cells[cell], dtype=np.float64) for cell in product(*levels)], axis=-1)
    return Grid(factors, levels, values.reshape(*values.shape[:-1], *map(len, levels)))


def importance(grid: Grid, level: float = LEVEL) -> list[Stratum]:
    """Return the shares of the parts in every stratum of a grid.

    Parameters
    ----------
    grid : Grid
        With the metric of the schemes, or with the metric on halves of the images.
    level : float
        Nominal coverage of intervals.

    Returns
    -------
    list of Stratum
        The first has all schemes. A stratum in which a factor is left with one level is not there.
    """
    union = sorted(set().union(*map(set, grid.levels)))
    strata = [grid.stratum(least) for least in union]
    return [
        _shares(least, stratum, level)
        for least, stratum in zip(union, strata, strict=True)
        if all(len(levels) > 1 for levels in stratum.levels)
    ]


def halved_images(
    image_ids: ArrayLike, seed: int | Sequence[int], halvings: int = HALVINGS, resamples: int = RESAMPLES
) -> ImageDraws:
    """Divide images in halves, many times, and resample the images of each half.

    Images are divided first. Were they resampled first, copies of one image would lie in both halves, whose noise would
    then not be independent.

    Parameters
    ----------
    image_ids : array_like, shape (n,)
        The image of each answer.
    seed : int or sequence of int
        The same seed and images give the same halves for every scheme, which makes effects those of paired answers.
    halvings : int
        How often images are divided.
    resamples : int
        How often the images of both halves are then resampled.

    Returns
    -------
    ImageDraws
        ``halvings * (1 + resamples) * 2`` rows: for each division, the halves as they are and then each resample, and
        for each of those the first half and the second.

    Raises
    ------
    QuantrustError
        If there are fewer than four images.
    """
    names, image = np.unique(np.asarray(image_ids), return_inverse=True)
    if names.size < 4:
        raise QuantrustError(f"importance: {names.size} images; expected at least 4, to divide in two halves")
    rng = np.random.default_rng(seed)
    counts = np.zeros((halvings, 1 + resamples, 2, names.size), dtype=np.int32)
    for rows in counts:
        shuffled = rng.permutation(names.size)
        for half, members in enumerate((shuffled[: names.size // 2], shuffled[names.size // 2 :])):
            rows[0, half, members] = 1
            for resample in range(1, 1 + resamples):
                drawn = rng.integers(members.size, size=members.size)
                rows[resample, half, members] = np.bincount(drawn, minlength=members.size)
    return ImageDraws(image=image, counts=counts.reshape(-1, names.size))


@dataclass(frozen=True)
class Answered:
    """What a variant answered, and how sure it was, as far as the metrics need it.

    Attributes
    ----------
    quality : ndarray of float64, shape (n,)
        In the order of the image ids that the halves were made of.
    ranking : Ranking
        Of the same answers by a confidence.
    deployment : Deployment or None
        Thresholds from val; they stay fixed.
    is_probability : bool
        Whether the confidences are probabilities.
    """

    quality: Floats
    ranking: Ranking
    deployment: Deployment | None
    is_probability: bool


def on_halves(
    answered: Answered,
    draws: ImageDraws,
    metrics: Collection[Key],
    risks: Sequence[float],
    costs: Sequence[float],
    halvings: int = HALVINGS,
    progress: Callable[[int], None] = lambda resamples: None,
) -> dict[Key, Floats]:
    """Return metrics of a variant on the halves of the images, as cells of grids.

    A mean over answers has the same expectation on a half as on the whole. AURC, coverage at a risk and calibration
    errors do not: their shares are those of a test set of half the size.

    Parameters
    ----------
    answered : Answered
    draws : ImageDraws
        From `halved_images`.
    metrics : collection of Key
        Names with risk limits or costs.
    risks, costs : sequence of float
        All risk limits and costs among them.
    halvings : int
        As the halves were made with.
    progress : callable
        Called with the number of halves done since the last call.

    Returns
    -------
    dict
        For each metric an array of shape (halvings, 1 + resamples, 2); NaN where undefined on a half.
    """
    values = Resampler(answered.quality, draws).evaluate(
        answered.ranking, risks, costs, answered.deployment, answered.is_probability, progress, wanted=metrics
    )
    return {key: values[key].reshape(halvings, -1, 2) for key in metrics}


def _shares(least: float, grid: Grid, level: float) -> Stratum:
    k = len(grid.factors)
    measured = grid.values.ndim > k
    if measured:
        halves = np.moveaxis(grid.values, 2, 0)
        parts = products(halves[0], halves[1], k)
    else:
        parts = products(grid.values, grid.values, k)
    # Of many divisions the mean estimates the variance; their resamples, in the further columns, tell how sure it is.
    own = {term: _mean_where_defined(part[:, 0]) if measured else float(part) for term, part in parts.items()}
    total = math.fsum(own.values())
    shared = shapley({term: np.asarray(part) for term, part in own.items()}, k)

    def share(part: float) -> float:
        return part / total if total > 0 else math.nan

    low = high = determined = sd_interval = None
    if measured:
        resampled = shapley({term: part[:, 1:].ravel() for term, part in parts.items()}, k)
        whole = resampled.sum(axis=0)
        of_whole = np.where(whole > 0, resampled / np.where(whole > 0, whole, 1.0), math.nan)
        between = [interval(own_shares, level) for own_shares in of_whole]
        low = dict(zip(grid.factors, (one for one, _ in between), strict=True))
        high = dict(zip(grid.factors, (other for _, other in between), strict=True))
        sd_interval = interval(np.sqrt(np.maximum(whole, 0.0)), level)
        certain = interval(whole, level)[0] > 0
        determined = {
            factor: bool(certain and interval(variances, level)[0] > 0)
            for factor, variances in zip(grid.factors, resampled, strict=True)
        }
    return Stratum(
        least_bits=least,
        schemes=math.prod(map(len, grid.levels)),
        equal_levels=all(list(own) == list(grid.levels[0]) for own in grid.levels),
        sd=math.sqrt(max(total, 0.0)),
        shapley={factor: share(float(part)) for factor, part in zip(grid.factors, shared, strict=True)},
        main={factor: share(own[(place,)]) for place, factor in enumerate(grid.factors)},
        interaction=share(math.fsum(own[term] for term in terms(k) if len(term) > 1)),
        terms={tuple(grid.factors[factor] for factor in term): share(own[term]) for term in terms(k)},
        low=low,
        high=high,
        determined=determined,
        sd_interval=sd_interval,
    )


def _mean_where_defined(values: Floats) -> float:
    """Return the mean over the divisions on which the metric of every scheme is defined; NaN if there are none."""
    defined = values[~np.isnan(values)]
    return float(defined.mean()) if defined.size else math.nan


def _listed(levels: Sequence[float]) -> str:
    return ", ".join(f"{level:g}" for level in levels)
