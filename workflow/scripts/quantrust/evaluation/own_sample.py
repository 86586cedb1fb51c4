"""Thresholds set and certified on a user's own sample of judged answers.

Images are divided at random into two parts. All questions about the images of the first part set thresholds and fix the
candidates that are certified, with their order. One question about each image of the second part certifies. So the
promise is one for questions as in the sample, one an image, for images drawn as those of the sample were. It covers all
risk limits together (`quantrust.evaluation.shared_delta`), with one scheme and one estimator: those of the bundle. Who
recalibrates several bundles on one sample and chooses among them by their certificates has to divide delta among them.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
from scipy.special import xlogy

from quantrust.errors import QuantrustError
from quantrust.evaluation.certification import fewest_faultless
from quantrust.evaluation.intervals import LEVEL
from quantrust.evaluation.operating_points import Certification, OperatingPoint
from quantrust.evaluation.shipped_points import Sample, Sampling, find_points, one_question_of_each_image
from quantrust.evaluation.variant import Setting, draw_setting

SETTING, CERTIFYING = "setting", "certifying"
"""The two parts of a sample, as operating points call their splits."""


@dataclass(frozen=True)
class SampleSettings:
    """How a sample is divided, and what is set and certified on it.

    Attributes
    ----------
    name : str
        What operating points call the sample.
    risks : sequence of float
        Risk limits R, in (0, 1), in the order in which parts of delta are handed on.
    delta : float
        Probability, in (0, 1), with which any of the certificates may fail.
    set_share : float
        Share of the images that set thresholds, in (0, 1).
    seed : int
        Of the division, of the questions that certify, and of the resamples.
    resamples : int
        Bootstrap resamples of images.
    level : float in (0, 1)
        Nominal coverage of the intervals.
    """

    name: str
    risks: Sequence[float]
    delta: float
    set_share: float
    seed: int
    resamples: int = 1000
    level: float = LEVEL

    @property
    def divided(self) -> str:
        """What each part of the sample was used for, in words."""
        return (
            f"a random share of {self.set_share:g} of the images sets thresholds and fixes the candidates; one "
            "answer about each other image certifies"
        )


@dataclass(frozen=True)
class Needed:
    """What a certificate takes.

    Attributes
    ----------
    risk_limit : float
    faultless : int
        Answers at least, one an image, if all of them are right.
    half : int
        Answers at least if their risk is half the limit.
    images : int
        Images that certify here. A threshold answers at most so many questions.
    """

    risk_limit: float
    faultless: int
    half: int
    images: int

    @property
    def possible(self) -> bool:
        """Whether the images can certify the limit at all."""
        return self.images >= self.faultless


def what_it_takes(images: int, settings: SampleSettings) -> list[Needed]:
    """Return, before any answer is given, how many answers the certificate of each limit takes.

    Parameters
    ----------
    images : int
        All of the sample.
    settings : SampleSettings

    Examples
    --------
    >>> sample = SampleSettings("own", [0.05], 0.1, set_share=0.3, seed=0)
    >>> what_it_takes(300, sample)
    [Needed(risk_limit=0.05, faultless=45, half=288, images=210)]
    """
    certifying = images - _setting_images(images, settings)
    part = settings.delta / len(settings.risks)
    return [
        Needed(risk, fewest_faultless(risk, part), fewest_at(risk / 2, risk, part), certifying)
        for risk in settings.risks
    ]


def fewest_at(mean: float, risk: float, delta: float) -> int:
    """Return the least number of answers of a mean risk that certify a limit, by Hoeffding's bound.

    Parameters
    ----------
    mean : float
        In [0, 1), below `risk`.
    risk, delta : float
        In (0, 1).

    Notes
    -----
    The bound is exp(-n KL(mean || R)), as in `quantrust.evaluation.certification.hoeffding_bentkus`.

    Examples
    --------
    >>> fewest_at(0.0, 0.01, 0.1), fewest_at(0.025, 0.05, 0.1)
    (230, 288)
    """
    divergence = xlogy(mean, mean / risk) + xlogy(1.0 - mean, (1.0 - mean) / (1.0 - risk))
    return math.ceil(-math.log(delta) / divergence)


def divide(images: Sequence[str], settings: SampleSettings) -> set[str]:
    """Draw the images that set thresholds; the others certify. The order in which they are given does not matter.

    Parameters
    ----------
    images : sequence of str
        What tells images apart, as often as there are questions.
    settings : SampleSettings

    Raises
    ------
    QuantrustError
        If either part would be empty.
    """
    names = sorted(set(images))
    count = _setting_images(len(names), settings)
    if not 0 < count < len(names):
        raise QuantrustError(
            f"{settings.name}: holds {len(names)} images, of which {count} would set thresholds and "
            f"{len(names) - count} certify; expected images for both parts: take more, or another --set-share"
        )
    order = np.random.default_rng([settings.seed, 0]).permutation(len(names))
    return {names[place] for place in order[:count]}


def points_of_sample(
    answers: pl.DataFrame, estimator: str, settings: SampleSettings
) -> tuple[tuple[OperatingPoint, ...], Certification]:
    """Set and certify the thresholds of one estimator on a sample.

    Parameters
    ----------
    answers : polars.DataFrame
        Columns ``question_id``, ``image_id``, ``quality`` and one named as the estimator.
    estimator : str
    settings : SampleSettings

    Returns
    -------
    points : tuple of OperatingPoint
        By limit, that of kind val, which the first part sets, before the certified one. What they do is measured on all
        questions about the images of the second part.
    certification : Certification

    Raises
    ------
    QuantrustError
        As `divide`.
    """
    setting_images = divide(answers["image_id"].to_list(), settings)
    sets = pl.col("image_id").is_in(list(setting_images))
    setting, others = answers.filter(sets), answers.filter(~sets)
    certifying = one_question_of_each_image(others, settings.seed)
    measured = Setting(settings.name, None, others)
    sampling = Sampling(
        Sample(settings.name, SETTING, setting),
        Sample(settings.name, CERTIFYING, certifying),
        [(CERTIFYING, measured, draw_setting(measured, settings.resamples, settings.seed))],
        settings.level,
    )
    points, sought = find_points(sampling, estimator, settings.risks, settings.delta, settings.delta)
    certification = Certification(
        delta=settings.delta,
        schemes=1,
        estimators=(estimator,),
        risk_limits=tuple(settings.risks),
        dataset=settings.name,
        split=CERTIFYING,
        questions=certifying.height,
        images=certifying.height,
        seed=settings.seed,
        divided=settings.divided,
        sought=tuple(sought),
    )
    return tuple(points), certification


def _setting_images(images: int, settings: SampleSettings) -> int:
    return round(settings.set_share * images)
