"""A bank of real handwritten digits, divided so that no digit image serves two splits, with what readers make of each.

The images are scikit-learn's bundled copy of the UCI "Optical Recognition of Handwritten Digits" test set (1,797
images of 8 x 8 pixels, 17 grey levels). Some glyphs are smudged; the posterior of a reader that was fitted on other
images says how likely each digit is to be read into a glyph, and the simulated annotators read by that posterior.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GroupKFold

# Share of the 1,797 digit images that each split may use.
SHARES = {"train": 0.50, "dev": 0.14, "val": 0.06, "test": 0.14, "language": 0.08, "multimodal": 0.08}
VARIANTS = 3
PARTITION_SEED = 20240917


@dataclass(frozen=True)
class DigitBank:
    """Glyphs that one split may use.

    Attributes
    ----------
    glyphs : numpy.ndarray, shape (n, 8, 8), float64 in [0, 1]
        Ink; the first variant of an image is the image itself, the others are smudged.
    labels : numpy.ndarray, shape (n,), int64 in 0..9
        The digit that was written.
    posterior : numpy.ndarray, shape (n, 10), float64
        How a reader who has not seen the image reads the glyph; rows add up to 1.
    sources : numpy.ndarray, shape (n,), int64
        Row of the image in scikit-learn's set.
    """

    glyphs: np.ndarray
    labels: np.ndarray
    posterior: np.ndarray
    sources: np.ndarray


def _smudge(images: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Wipe a soft spot out of each image and smear its ink towards one side."""
    rows, columns = np.mgrid[0:8, 0:8]
    centres = rng.uniform(1.0, 6.0, size=(len(images), 2))
    radii = rng.uniform(0.8, 1.8, size=len(images))
    distance = np.hypot(rows - centres[:, 0, None, None], columns - centres[:, 1, None, None])
    wiped = images * (1 - np.exp(-((distance / radii[:, None, None]) ** 2)))
    smear = rng.uniform(0.0, 0.5, size=(len(images), 1, 1))
    return np.clip((1 - smear) * wiped + smear * np.roll(wiped, 1, axis=2), 0, 1)


@lru_cache(maxsize=1)
def digit_banks() -> dict[str, DigitBank]:
    """Return the bank of each split in `SHARES`, the same on every call and every machine with the same libraries."""
    rng = np.random.default_rng(PARTITION_SEED)
    data = load_digits()
    images, labels = data.images / 16.0, data.target.astype(np.int64)
    n = len(images)
    glyphs = np.concatenate([images, *(_smudge(images, rng) for _ in range(VARIANTS - 1))])
    sources = np.tile(np.arange(n), VARIANTS)
    flat, target = glyphs.reshape(len(glyphs), -1), labels[sources]
    posterior = np.zeros((len(glyphs), 10))
    for fit, read in GroupKFold(n_splits=5).split(flat, target, groups=sources):
        reader = LogisticRegression(C=0.3, max_iter=200).fit(flat[fit], target[fit])
        posterior[read] = reader.predict_proba(flat[read])
    order = rng.permutation(n)
    bounds = np.round(np.cumsum([0.0, *SHARES.values()]) * n).astype(int)
    banks = {}
    for split, start, stop in zip(SHARES, bounds[:-1], bounds[1:], strict=True):
        rows = np.flatnonzero(np.isin(sources, order[start:stop]))
        banks[split] = DigitBank(glyphs[rows], target[rows], posterior[rows], sources[rows])
    return banks
